//! The data plane that a row runs in.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::IpAddr;

use bytemuck::{Pod, Zeroable as _};
use mwb_agent::dataplane::{
    CounterRow, DataPlane, Error, Forward, Hook, Options, ProgramId, Programs, Role, Table, Tables,
    TestOutcome,
};
use mwb_common::maps::{
    Control, Device, Direction, Family, Held, Liveness, Path, Selection, held, hook, role,
};
use mwb_common::policy::{NameBits, Named, NamedAddress, Rule};

use crate::bond_probes::monotonic;
use crate::packet::Packet;
use crate::world;

/// The loopback device: what a test run comes in through.
const LOOPBACK: u32 = 1;

pub(crate) const XDP_DROP: u32 = 1;
pub(crate) const XDP_PASS: u32 = 2;
pub(crate) const XDP_REDIRECT: u32 = 4;
/// On to the next program; -1.
pub(crate) const TC_ACT_UNSPEC: u32 = u32::MAX;
pub(crate) const TC_ACT_SHOT: u32 = 2;
pub(crate) const TC_ACT_REDIRECT: u32 = 7;

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
        match self {
            From::Lan | From::Nowhere => Direction::Out,
            From::Wan(_) => Direction::In,
        }
    }
}

/// The data planes of one test, by form and table sizes. Loading one takes a
/// third of a second, so rows of a kind share one: emptied, and set up anew.
pub(crate) struct Gateways {
    lan: u32,
    /// Policy rules that are there from the start.
    rules: Vec<Rule>,
    open: BTreeMap<(&'static str, u32, u32), Gateway>,
}

impl Gateways {
    pub(crate) fn new(lan: u32) -> Self {
        Gateways { lan, rules: Vec::new(), open: BTreeMap::new() }
    }

    pub(crate) fn with_rules(lan: u32, rules: Vec<Rule>) -> Self {
        Gateways { rules, ..Gateways::new(lan) }
    }

    pub(crate) fn fresh(
        &mut self,
        form: Hook,
        (flow_entries, mapping_entries): (u32, u32),
    ) -> Result<&mut Gateway, String> {
        let gateway = match self.open.entry((form.name(), flow_entries, mapping_entries)) {
            Entry::Occupied(open) => open.into_mut(),
            Entry::Vacant(place) => {
                let options = Options {
                    flow_entries,
                    mapping_entries,
                    programs: Programs::Steering,
                    ..Options::new("prog-run")
                };
                let plane =
                    DataPlane::open_unpinned(&options).map_err(|error| error.to_string())?;
                place.insert(Gateway { plane, form, under_xdp: false })
            }
        };
        gateway.reset(self.lan).map_err(|error| error.to_string())?;
        gateway.set_policy(&self.rules);
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
    pub(crate) under_xdp: bool,
}

impl Gateway {
    fn reset(&mut self, lan: u32) -> Result<(), Error> {
        let tables = self.plane.tables();
        empty(tables.flows4())?;
        empty(tables.flows6())?;
        empty(tables.mappings())?;
        empty(tables.ports())?;
        empty(tables.contacts())?;
        empty(tables.fragments())?;
        empty(tables.mappings_made())?;
        empty(tables.mappings_ended())?;
        let waiting = tables.held_slots();
        let mut used = Vec::new();
        waiting.for_each(|slot, held| {
            used.extend(held.iter().filter(|held| held.state != held::FREE).map(|_| *slot));
        })?;
        for slot in used {
            waiting.put(&slot, &Held::zeroed())?;
        }
        self.under_xdp = false;
        self.set_control(world::control());
        self.set_path(1, world::path1());
        self.set_path(2, world::path2());
        self.set_liveness(&world::liveness(&[1, 2]));
        self.set_selection(Family::V4, &world::selection());
        self.set_selection(Family::V6, &world::selection());
        self.plane.set_prefixes(&world::prefixes4(), &world::prefixes6())?;
        let target = Device { hook: hook::XDP, takes_xdp: 1, ..Device::default() };
        for (path, wan) in [(1, world::path1()), (2, world::path2())] {
            let mac = wan.source_mac;
            self.set_device(wan.ifindex, Device { role: role::OUTSIDE, path, mac, ..target });
        }
        self.plane.set_device(lan, Device { role: role::INSIDE, ..target })
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

    pub(crate) fn set_policy(&mut self, rules: &[Rule]) {
        self.plane.set_policy(rules).expect("a write of policy rules");
    }

    /// The same selection for both families.
    pub(crate) fn set_outlet(&mut self, outlet: u8, selection: &Selection) {
        for family in [Family::V4, Family::V6] {
            self.plane.set_outlet(outlet, family, selection).expect("a write to SELECTIONS");
        }
    }

    /// Says which names an address of a group has.
    pub(crate) fn set_name_group(&mut self, group: u16, names: &[usize]) {
        let mut bits = NameBits::NONE;
        names.iter().for_each(|name| bits.add(*name));
        self.plane.set_name_group(group, bits).expect("a write of a group");
    }

    /// Puts an address into a group, for a time from now; a negative one is over.
    pub(crate) fn name_address(&mut self, address: IpAddr, group: u16, seconds: i64) {
        let key = match address {
            IpAddr::V4(address) => NamedAddress::v4(address.octets()),
            IpAddr::V6(address) => NamedAddress(address.octets()),
        };
        let until = monotonic().saturating_add_signed(seconds * 1_000_000_000);
        self.plane.named().put(key, Named::new(group, until)).expect("a write of an address");
    }

    pub(crate) fn hits(&self) -> Vec<u64> {
        self.plane.tables().policy_hits().expect("a read of POLICY_HITS")
    }

    pub(crate) fn set_device(&mut self, ifindex: u32, device: Device) {
        self.plane.set_device(ifindex, device).expect("a write to DEVICES");
    }

    pub(crate) fn tables(&self) -> Tables {
        self.plane.tables()
    }

    pub(crate) fn counters(&self) -> Result<Vec<CounterRow>, String> {
        self.plane.counters().map_err(|error| error.to_string())
    }

    /// Sends a packet that the row builds on: it must be forwarded.
    pub(crate) fn send(&mut self, from: From, packet: &Packet) {
        let outcome = self.run(from, &packet.bytes()).expect("a test run");
        let expected = if self.form == Hook::Xdp { XDP_REDIRECT } else { TC_ACT_REDIRECT };
        assert_eq!(outcome.verdict, expected, "the row builds on a packet that is not forwarded");
    }

    /// Sends a packet whatever becomes of it.
    pub(crate) fn try_send(&mut self, from: From, packet: &Packet) {
        self.try_frame(from, &packet.bytes());
    }

    /// The same with bytes.
    pub(crate) fn try_frame(&mut self, from: From, frame: &[u8]) {
        self.run(from, frame).expect("a test run");
    }

    pub(crate) fn set_forwards(&mut self, forwards: &[Forward]) {
        self.plane.set_forwards(forwards).expect("a write to PORTS");
    }

    pub(crate) fn plane(&self) -> &DataPlane {
        &self.plane
    }

    /// Makes the device table fit for packets from there; gives the program.
    pub(crate) fn enter(&mut self, from: From) -> ProgramId {
        let mac = |id| if id == 1 { world::WAN1_MAC } else { world::WAN2_MAC };
        let device = match from {
            From::Lan => Device {
                role: role::INSIDE,
                mac: world::LAN_MAC,
                address4: world::GATEWAY.octets(),
                address6: world::GATEWAY6.octets(),
                ..Device::default()
            },
            From::Wan(path) => Device {
                role: role::OUTSIDE,
                path,
                mac: mac(path),
                address4: if path == 1 { world::WAN1 } else { world::WAN2 }.octets(),
                address6: world::WAN1_6.octets(),
                ..Device::default()
            },
            From::Nowhere => Device::default(),
        };
        let under_xdp = self.form == Hook::Xdp || self.under_xdp;
        let hook = if under_xdp { hook::XDP } else { hook::TC };
        let hook = if from == From::Nowhere { 0 } else { hook };
        self.set_device(LOOPBACK, Device { hook, ..device });
        ProgramId::of(from.role(), self.form).expect("a program")
    }

    pub(crate) fn run(&mut self, from: From, packet: &[u8]) -> Result<TestOutcome, String> {
        let program = self.enter(from);
        self.plane.test_run(program, packet, None, 1).map_err(|error| error.to_string())
    }

    /// Runs the TC form with a firewall mark. (`struct __sk_buff` starts with length, type
    /// and mark.)
    pub(crate) fn run_marked(
        &mut self,
        from: From,
        packet: &[u8],
        mark: u32,
    ) -> Result<TestOutcome, String> {
        let program = self.enter(from);
        let mut context: Vec<u8> = [0, 0, mark].into_iter().flat_map(u32::to_ne_bytes).collect();
        // The kernel gives back a whole `struct __sk_buff`, or an error.
        context.resize(256, 0);
        let outcome = self.plane.test_run(program, packet, Some(&context), 1);
        outcome.map_err(|error| error.to_string())
    }

    /// Runs with as much metadata in front of the packet as the kernel takes;
    /// returns how much that was. (`struct xdp_md` starts with the offsets of
    /// data, end and metadata.)
    pub(crate) fn run_without_room(
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
