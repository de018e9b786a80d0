//! A row of the table, and running it through `BPF_PROG_TEST_RUN`.

use std::fmt::Write as _;

use mwb_agent::dataplane::{CounterRow, Hook};
use mwb_common::maps::HANDOVER;
use mwb_common::reason::{Reason, Verdict};

use crate::gateway::{
    From, Gateway, Gateways, TC_ACT_REDIRECT, TC_ACT_SHOT, TC_ACT_UNSPEC, XDP_DROP, XDP_PASS,
    XDP_REDIRECT,
};
use crate::moved::difference;
use crate::packet::Packet;

/// What must happen to the packet.
#[derive(Clone, Debug)]
pub(crate) enum Then {
    /// Counted under this reason and, if it forwards, leaving as this frame;
    /// untouched otherwise.
    Ends(Reason, Option<Vec<u8>>),
    /// Dropped and counted under this reason, and sent back as this frame.
    Answered(Reason, Vec<u8>),
    /// Kept, or sent into its device again with all that waited for it: not
    /// counted.
    Later,
    /// Passed to the TC form: marked, untouched, and not counted.
    HandedOver,
    /// Left to others: untouched, and not counted.
    Ignored,
}

/// A row of the table.
pub(crate) struct Row {
    pub(crate) name: String,
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
    name: impl Into<String>,
    from: From,
    packet: &Packet,
    out: &Packet,
    (path, protocol): (u8, &'static str),
) -> Row {
    let then = Then::Ends(Reason::Forwarded, Some(out.bytes()));
    Row { then, ..untouched(name, from, packet.bytes(), Reason::Forwarded, (path, protocol)) }
}

/// A packet that stays as it is: dropped or left to the kernel.
pub(crate) fn untouched(
    name: impl Into<String>,
    from: From,
    packet: Vec<u8>,
    reason: Reason,
    (path, protocol): (u8, &'static str),
) -> Row {
    Row {
        name: name.into(),
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
        row(resolving, &[Hook::Tcx], Then::Ends(Reason::NeighbourUnresolved, Some(out.bytes()))),
        row(handing_over, &[Hook::Xdp], Then::HandedOver),
        Row {
            no_room: true,
            ..row(failing, &[Hook::Xdp], Then::Ends(Reason::HandoverFailed, None))
        },
    ]
}

/// A packet for the slow path, two rows: the TC form does `then` with it, the XDP
/// form hands it over.
pub(crate) fn slow(
    name: impl Into<String>,
    from: From,
    packet: Vec<u8>,
    then: Then,
    counted: (u8, &'static str),
) -> [Row; 2] {
    let name = name.into();
    let row = |name, forms, then| Row {
        forms,
        then,
        ..untouched(name, from, packet.clone(), Reason::Forwarded, counted)
    };
    let handed_over = row(format!("{name}: handed over"), &[Hook::Xdp], Then::HandedOver);
    [row(name, &[Hook::Tcx], then), handed_over]
}

/// The same rows after something has happened.
pub(crate) fn after<const N: usize>(rows: [Row; N], given: fn(&mut Gateway)) -> [Row; N] {
    rows.map(|row| row.given(given))
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
            Then::Ends(reason, _) | Then::Answered(reason, _) => Some(reason),
            Then::HandedOver | Then::Ignored | Then::Later => None,
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
            Then::Ends(_, Some(out)) | Then::Answered(_, out) => out.clone(),
            _ => self.packet.clone(),
        };
        if matches!(self.then, Then::HandedOver) {
            expected.splice(0..0, HANDOVER.to_ne_bytes());
        }
        let actual = outcome.packet.get(metadata..).unwrap_or_default();
        // What is sent on otherwise leaves something of it behind, for nobody.
        if actual != expected && !matches!(self.then, Then::Later) {
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
    let forwards = |xdp, tc| if form == Hook::Xdp { xdp } else { tc };
    match then {
        Then::HandedOver | Then::Ignored => forwards(XDP_PASS, TC_ACT_UNSPEC),
        Then::Answered(..) => TC_ACT_REDIRECT,
        Then::Later => TC_ACT_SHOT,
        Then::Ends(reason, _) => match reason.verdict() {
            Verdict::Forward => forwards(XDP_REDIRECT, TC_ACT_REDIRECT),
            Verdict::Kernel => forwards(XDP_PASS, TC_ACT_UNSPEC),
            Verdict::Drop => forwards(XDP_DROP, TC_ACT_SHOT),
        },
    }
}

/// What the counters count: the bytes of an IP packet without its padding; of
/// another frame, all behind the link layer.
fn network_bytes(frame: &[u8]) -> u64 {
    let mut network = 14;
    for _ in 0..2 {
        match frame.get(network - 2..network) {
            Some([0x81, 0x00] | [0x88, 0xa8]) if frame.len() < network + 4 => return 0,
            Some([0x81, 0x00] | [0x88, 0xa8]) => network += 4,
            _ => {}
        }
    }
    let all = frame.len() - network;
    let word = |at: usize| {
        let bytes = frame.get(network + at..network + at + 2).unwrap_or(&[0; 2]);
        usize::from(u16::from_be_bytes([bytes[0], bytes[1]]))
    };
    let length = match frame.get(network - 2..network) {
        Some([0x08, 0x00]) => word(2),
        Some([0x86, 0xdd]) => word(4) + 40,
        _ => all,
    };
    u64::try_from(length.min(all)).expect("a small frame")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
