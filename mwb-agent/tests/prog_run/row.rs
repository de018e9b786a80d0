//! A row of the table, and running it through `BPF_PROG_TEST_RUN`.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt::Write as _;

use bytemuck::Pod;
use mwb_agent::dataplane::{
    CounterRow, DataPlane, Error, Hook, Options, ProgramId, Role, Table, TestOutcome,
};
use mwb_common::maps::{
    Control, Device, Direction, Family, HANDOVER, Liveness, Path, Selection, hook, role,
};
use mwb_common::reason::{Reason, Verdict};

use crate::packet::Packet;
use crate::world;

/// The loopback device: what a test run comes in through.
const LOOPBACK: u32 = 1;

/// Where a packet comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    Lan,
    Wan(u8),
    /// The LAN program on a device that has no entry.
    Nowhere,
}

impl From {
    fn role(self) -> Role {
        match self {
            From::Lan | From::Nowhere => Role::Inside,
            From::Wan(_) => Role::Outside,
        }
    }

    pub(crate) fn direction(self) -> Direction {
        match self.role() {
            Role::Inside => Direction::Out,
            Role::Outside => Direction::In,
        }
    }
}

/// What must happen to the packet.
#[derive(Clone, Debug)]
pub(crate) enum Then {
    /// Counted under this reason and, if it forwards, leaving as this packet;
    /// untouched otherwise.
    Ends(Reason, Option<Packet>),
    /// Passed to the TC form: marked, untouched, and not counted.
    HandedOver,
    /// Left to others: untouched, and not counted.
    Ignored,
}

/// A row of the table.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) from: From,
    pub(crate) forms: &'static [Hook],
    /// Entries of the flow tables and of the mapping tables.
    pub(crate) entries: (u32, u32),
    /// What happened before.
    pub(crate) given: fn(&mut Gateway),
    /// The XDP form has the device; the TC form only takes what it hands over.
    pub(crate) under_xdp: bool,
    /// Metadata in front of the packet, so much that there is no room for more.
    pub(crate) no_room: bool,
    pub(crate) packet: Vec<u8>,
    pub(crate) then: Then,
    /// The path and protocol that it is counted under.
    pub(crate) path: u8,
    pub(crate) protocol: &'static str,
}

/// A packet that leaves by `path` as `out`.
pub(crate) fn forwarded(
    name: &'static str,
    from: From,
    packet: &Packet,
    out: &Packet,
    (path, protocol): (u8, &'static str),
) -> Row {
    let then = Then::Ends(Reason::Forwarded, Some(out.clone()));
    Row { then, ..untouched(name, from, packet.bytes(), Reason::Forwarded, (path, protocol)) }
}

/// A packet that stays as it is: dropped or left to the kernel.
pub(crate) fn untouched(
    name: &'static str,
    from: From,
    packet: Vec<u8>,
    reason: Reason,
    (path, protocol): (u8, &'static str),
) -> Row {
    Row {
        name,
        from,
        forms: &[Hook::Xdp, Hook::Tcx],
        entries: (64, 64),
        given: |_| {},
        under_xdp: false,
        no_room: false,
        packet,
        then: Then::Ends(reason, None),
        path,
        protocol,
    }
}

/// A packet whose next hop is not resolved: three rows. `out` is how it leaves
/// but for its MAC addresses, which the kernel fills in.
pub(crate) fn unresolved(
    names: [&'static str; 3],
    from: From,
    given: fn(&mut Gateway),
    packet: &Packet,
    out: &Packet,
    counted: (u8, &'static str),
) -> [Row; 3] {
    let out = out.with(|p| (p.to, p.from) = (packet.to, packet.from));
    let row = |name, forms, then| Row {
        forms,
        given,
        then,
        ..untouched(name, from, packet.bytes(), Reason::HandoverFailed, counted)
    };
    let [resolving, handing_over, failing] = names;
    [
        row(resolving, &[Hook::Tcx], Then::Ends(Reason::NeighbourUnresolved, Some(out))),
        row(handing_over, &[Hook::Xdp], Then::HandedOver),
        Row {
            no_room: true,
            ..row(failing, &[Hook::Xdp], Then::Ends(Reason::HandoverFailed, None))
        },
    ]
}

impl Row {
    pub(crate) fn given(self, given: fn(&mut Gateway)) -> Row {
        Row { given, ..self }
    }

    pub(crate) fn entries(self, flows: u32, mappings: u32) -> Row {
        Row { entries: (flows, mappings), ..self }
    }

    /// The reason that the row is about.
    pub(crate) fn reason(&self) -> Option<Reason> {
        match self.then {
            Then::Ends(reason, _) => Some(reason),
            Then::HandedOver | Then::Ignored => None,
        }
    }

    /// Runs the row in one form; says in words what is not as it must be.
    pub(crate) fn run(&self, gateways: &mut Gateways, form: Hook) -> Result<(), String> {
        let gateway = gateways.fresh(form, self.entries)?;
        (self.given)(gateway);
        gateway.under_xdp = self.under_xdp;
        let before = gateway.counters()?;
        let (outcome, metadata) = if self.no_room {
            gateway.run_without_room(self.from, &self.packet)?
        } else {
            (gateway.run(self.from, &self.packet)?, 0)
        };
        let after = gateway.counters()?;
        let moved = difference(&before, after);

        let mut wrong = String::new();
        let verdict = verdict(form, &self.then);
        if outcome.verdict != verdict {
            let _ = writeln!(wrong, "  verdict {} instead of {verdict}", outcome.verdict as i32);
        }
        let mut expected = match &self.then {
            Then::Ends(_, Some(out)) => out.bytes(),
            _ => self.packet.clone(),
        };
        if matches!(self.then, Then::HandedOver) {
            expected.splice(0..0, HANDOVER.to_ne_bytes());
        }
        let actual = outcome.packet.get(metadata..).unwrap_or_default();
        if actual != expected {
            let _ = writeln!(wrong, "  packet   {}\n  expected {}", hex(actual), hex(&expected));
        }
        let counted = |row: &CounterRow| {
            Some(row.reason) == self.reason()
                && row.direction == self.from.direction()
                && row.path == self.path
                && row.protocol == self.protocol
                && row.packets == 1
                && row.bytes == network_bytes(&self.packet)
        };
        let expected_rows = usize::from(self.reason().is_some());
        if moved.len() != expected_rows || !moved.iter().all(counted) {
            let _ = writeln!(
                wrong,
                "  counters moved: {moved:?}\n  expected: {:?}, path {}, {}, {} bytes",
                self.reason(),
                self.path,
                self.protocol,
                network_bytes(&self.packet),
            );
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }
}

/// The return code for what must happen.
fn verdict(form: Hook, then: &Then) -> u32 {
    const TC_ACT_UNSPEC: u32 = u32::MAX;
    let forwards = |xdp, tc| if form == Hook::Xdp { xdp } else { tc };
    match then {
        Then::HandedOver | Then::Ignored => forwards(2, TC_ACT_UNSPEC),
        Then::Ends(reason, _) => match reason.verdict() {
            Verdict::Forward => forwards(4, 7),
            Verdict::Kernel => forwards(2, TC_ACT_UNSPEC),
            Verdict::Drop => forwards(1, 2),
        },
    }
}

/// Bytes behind the link layer: what the counters count.
fn network_bytes(frame: &[u8]) -> u64 {
    let mut network = 14;
    for _ in 0..2 {
        match frame.get(network - 2..network) {
            Some([0x81, 0x00] | [0x88, 0xa8]) if frame.len() < network + 4 => return 0,
            Some([0x81, 0x00] | [0x88, 0xa8]) => network += 4,
            _ => {}
        }
    }
    u64::try_from(frame.len() - network).expect("a small frame")
}

/// The counters that moved, with how much they did.
fn difference(before: &[CounterRow], after: Vec<CounterRow>) -> Vec<CounterRow> {
    let place = |row: &CounterRow| (row.direction, row.path, row.reason, row.protocol);
    after
        .into_iter()
        .filter(|row| !before.contains(row))
        .map(|mut row| {
            if let Some(old) = before.iter().find(|old| place(old) == place(&row)) {
                row.packets -= old.packets;
                row.bytes -= old.bytes;
            }
            row
        })
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The data planes of one test, by form and table sizes. Loading one takes a
/// third of a second, so rows of a kind share one: emptied, and set up anew.
pub(crate) struct Gateways {
    lan: u32,
    open: BTreeMap<(&'static str, u32, u32), Gateway>,
}

impl Gateways {
    pub(crate) fn new(lan: u32) -> Self {
        Gateways { lan, open: BTreeMap::new() }
    }

    fn fresh(
        &mut self,
        form: Hook,
        (flow_entries, mapping_entries): (u32, u32),
    ) -> Result<&mut Gateway, String> {
        let gateway = match self.open.entry((form.name(), flow_entries, mapping_entries)) {
            Entry::Occupied(open) => open.into_mut(),
            Entry::Vacant(place) => {
                let options = Options { flow_entries, mapping_entries, ..Options::new("prog-run") };
                let plane =
                    DataPlane::open_unpinned(&options).map_err(|error| error.to_string())?;
                place.insert(Gateway { plane, form, under_xdp: false })
            }
        };
        gateway.reset(self.lan).map_err(|error| error.to_string())?;
        Ok(gateway)
    }
}

fn empty<K: Pod, V: Pod>(table: &Table<K, V>) -> Result<(), Error> {
    let mut keys = Vec::new();
    table.for_each(|key, _| keys.push(*key))?;
    table.remove(&keys).map(drop)
}

/// A data plane in the little world.
pub(crate) struct Gateway {
    plane: DataPlane,
    form: Hook,
    under_xdp: bool,
}

impl Gateway {
    fn reset(&mut self, lan: u32) -> Result<(), Error> {
        let tables = self.plane.tables();
        empty(tables.flows4())?;
        empty(tables.flows6())?;
        empty(tables.mappings())?;
        empty(tables.ports())?;
        self.under_xdp = false;
        self.set_control(world::control());
        self.set_path(1, world::path1());
        self.set_path(2, world::path2());
        self.set_liveness(&world::liveness(&[1, 2]));
        self.set_selection(Family::V4, &world::selection());
        self.set_selection(Family::V6, &world::selection());
        self.plane.set_prefixes(&world::prefixes4(), &world::prefixes6())?;
        let device = Device { role: role::INSIDE, hook: hook::TC, ..Device::default() };
        self.plane.set_device(lan, device)
    }

    pub(crate) fn set_control(&mut self, control: Control) {
        self.plane.set_control(&control).expect("a write to CONTROL");
    }

    pub(crate) fn set_path(&mut self, id: u8, path: Path) {
        self.plane.set_path(id, &path).expect("a write to PATHS");
    }

    pub(crate) fn set_liveness(&mut self, liveness: &Liveness) {
        self.plane.set_liveness(liveness).expect("a write to LIVENESS");
    }

    pub(crate) fn set_selection(&mut self, family: Family, selection: &Selection) {
        self.plane.set_selection(family, selection).expect("a write to SELECTIONS");
    }

    fn set_device(&mut self, ifindex: u32, device: Device) {
        self.plane.set_device(ifindex, device).expect("a write to DEVICES");
    }

    fn counters(&self) -> Result<Vec<CounterRow>, String> {
        self.plane.counters().map_err(|error| error.to_string())
    }

    /// Sends a packet that the row builds on: it must be forwarded.
    pub(crate) fn send(&mut self, from: From, packet: &Packet) {
        let outcome = self.run(from, &packet.bytes()).expect("a test run");
        let expected = verdict(self.form, &Then::Ends(Reason::Forwarded, None));
        assert_eq!(outcome.verdict, expected, "the row builds on a packet that is not forwarded");
    }

    /// Sends a packet whatever becomes of it.
    pub(crate) fn try_send(&mut self, from: From, packet: &Packet) {
        self.run(from, &packet.bytes()).expect("a test run");
    }

    fn enter(&mut self, from: From) -> ProgramId {
        let mac = |id| if id == 1 { world::WAN1_MAC } else { world::WAN2_MAC };
        let device = match from {
            From::Lan => Device { role: role::INSIDE, mac: world::LAN_MAC, ..Device::default() },
            From::Wan(path) => {
                Device { role: role::OUTSIDE, path, mac: mac(path), ..Device::default() }
            }
            From::Nowhere => Device::default(),
        };
        let under_xdp = self.form == Hook::Xdp || self.under_xdp;
        let hook = if under_xdp { hook::XDP } else { hook::TC };
        let hook = if from == From::Nowhere { 0 } else { hook };
        self.set_device(LOOPBACK, Device { hook, ..device });
        ProgramId::of(from.role(), self.form)
    }

    fn run(&mut self, from: From, packet: &[u8]) -> Result<TestOutcome, String> {
        let program = self.enter(from);
        self.plane.test_run(program, packet, None, 1).map_err(|error| error.to_string())
    }

    /// Runs with as much metadata in front of the packet as the kernel takes;
    /// returns how much that was. (`struct xdp_md` starts with the offsets of
    /// data, end and metadata.)
    fn run_without_room(
        &mut self,
        from: From,
        packet: &[u8],
    ) -> Result<(TestOutcome, usize), String> {
        let program = self.enter(from);
        let mut refusal = String::new();
        for metadata in (0..=252_u32).rev().step_by(4) {
            let mut frame = vec![0; metadata as usize];
            frame.extend(packet);
            let end = metadata + u32::try_from(packet.len()).expect("a small packet");
            let context: Vec<u8> =
                [metadata, end, 0, 0, 0, 0].into_iter().flat_map(u32::to_ne_bytes).collect();
            match self.plane.test_run(program, &frame, Some(&context), 1) {
                Ok(outcome) => return Ok((outcome, metadata as usize)),
                Err(error) => refusal = error.to_string(),
            }
        }
        Err(refusal)
    }
}
