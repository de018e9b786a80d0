//! What goes into the bond, and how it leaves.

use std::net::IpAddr;

use mwb_common::integrity::Suite;
use mwb_common::maps::{PathState, SessionState, bond_choice, tick};
use mwb_common::wire::{Kind, flag, header_length};

use super::seen::Seen;
use super::setting::Setting;
use super::view::{ip_length, payload};
use crate::bond_packet::open_payload;
use crate::bond_world::{Door, Side, address, macs, remote};
use crate::check::{ensure, mss_at, only_differs};
use crate::view::{LINK, Part, View, be16};

/// Where a packet of the bond is from and where it goes.
pub(super) struct Outside {
    pub(super) macs: [[u8; 6]; 2],
    pub(super) source: [u8; 16],
    pub(super) destination: [u8; 16],
    pub(super) ports: [u16; 2],
}

/// Judges the outside of what left.
pub(super) fn outside(out: &[u8], is_v6: bool, expected: &Outside) -> Result<(), String> {
    let view = View::of(out).ok_or("what left is no packet")?;
    ensure(out[..12] == *expected.macs.concat(), || format!("stations {:02x?}", &out[..12]))?;
    ensure(view.v6 == is_v6 && view.protocol == 17 && view.part == Part::Whole, || {
        format!("the outside is {view:?}")
    })?;
    ensure(view.end == out.len(), || "bytes behind the packet".to_owned())?;
    let source = view.source(out);
    ensure(source == expected.source, || format!("it left from {source:?}"))?;
    let destination = view.destination(out);
    ensure(destination == expected.destination, || format!("it left to {destination:?}"))?;
    let ports = view.ports(out);
    ensure(ports == expected.ports, || format!("it left with the ports {ports:?}"))?;
    let length = be16(out, view.transport + 4).map(usize::from);
    ensure(length == Some(out.len() - view.transport), || format!("UDP says {length:?} bytes"))?;
    ensure(out[view.hops_at()] == 64, || format!("{} hops", out[view.hops_at()]))?;
    if is_v6 {
        ensure(out[LINK..LINK + 4] == [0x60, 0, 0, 0], || "class or label".to_owned())?;
        let sum = view.transport_sum(out);
        return ensure(sum == Some(0), || format!("UDP checksum: off by {sum:?}"));
    }
    ensure(out[LINK..LINK + 2] == [0x45, 0], || "IPv4 options or class".to_owned())?;
    ensure(out[LINK + 4..LINK + 8] == [0, 0, 0x40, 0], || "fragment fields".to_owned())?;
    ensure(view.header_sum(out) == 0, || "header checksum".to_owned())?;
    ensure(be16(out, view.transport + 6) == Some(0), || "a UDP checksum".to_owned())
}

/// What an end knows when a packet comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) paths: [PathState; 2],
    pub(super) session: SessionState,
}

impl Known {
    pub(super) fn path(&self, id: u8) -> &PathState {
        &self.paths[usize::from(id - 1)]
    }

    /// The parity that seals.
    pub(super) fn parity(&self, setting: Setting, side: Side) -> u8 {
        let epoch = setting.epoch();
        if self.session.heard == epoch + 1 { (epoch & 1) as u8 } else { setting.seals(side) }
    }
}

/// How a packet left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Left {
    pub(super) path: u8,
    pub(super) kind: Kind,
}

/// Judges what `side` has made of `frame`.
pub(super) struct Judge<'a> {
    pub(super) setting: Setting,
    pub(super) suite: Suite,
    pub(super) side: Side,
    pub(super) door: Door,
    pub(super) known: &'a Known,
}

impl Judge<'_> {
    pub(super) fn left(&self, seen: &mut Seen, frame: &[u8], out: &[u8]) -> Result<Left, String> {
        let Judge { side, suite, setting, known, .. } = *self;
        let sealed = payload(out).ok_or("what left has no payload")?;
        let (header, text) = open_payload(side, suite, sealed).ok_or("what left does not open")?;
        let id = header.path;
        ensure(matches!(id, 1 | 2), || format!("it left by path {id}"))?;
        let state = known.path(id);
        let is_v6 = be16(out, 12) == Some(0x86dd);
        outside(out, is_v6, &self.way(id, is_v6, state)?)?;
        ensure(header.session == side.other().session(), || "another session".to_owned())?;
        let (next, sequence) = (state.sent + 1, header.sequence);
        ensure(sequence == next, || format!("sequence {sequence}, not {next}"))?;
        let taken = state.received as u16;
        ensure(header.taken == taken, || format!("{} were taken, not {taken}", header.taken))?;
        let parity = known.parity(setting, side);
        ensure(header.flags & flag::EPOCH == parity, || "keys of another epoch".to_owned())?;
        let others = header.flags & !flag::EPOCH;
        match header.kind {
            Kind::Probe => self.probe(frame, out, &text)?,
            Kind::Data => {
                ensure(setting.carriers() >> id & 1 != 0, || format!("path {id} is none now"))?;
                let striped = if others == flag::ORDERED { Some(true) } else { None };
                let by_counter = setting.choice == bond_choice::COUNTER;
                ensure(others & !flag::ORDERED == 0, || format!("flags {others}"))?;
                ensure(!by_counter || striped == Some(true), || "no order".to_owned())?;
                ensure(header.inner == family(frame), || "another family".to_owned())?;
                let number = seen.number(header.bucket);
                ensure(header.flow_sequence == number, || {
                    format!("flow sequence {}, not {number}", header.flow_sequence)
                })?;
                self.same(frame, &text)?;
                let keeps = flow(frame).is_none_or(|flow| seen.keeps_bucket(flow, header.bucket));
                ensure(keeps, || format!("a flow moved to bucket {}", header.bucket))?;
            }
            other => return Err(format!("a {other:?} left")),
        }
        let unused = header.kind == Kind::Data
            || (others, header.inner, header.bucket, header.flow_sequence) == (0, 0, 0, 0);
        ensure(unused, || format!("a probe with {header:?}"))?;
        Ok(Left { path: id, kind: header.kind })
    }

    /// Where a packet of a path goes: to where the far end is, or was last heard of.
    fn way(&self, id: u8, is_v6: bool, state: &PathState) -> Result<Outside, String> {
        let path = self.setting.path(self.side, id);
        let moved = state.moved == path.generation + 1;
        let (to, port, wants6) = if moved {
            (state.remote, state.remote_port, state.is_v6)
        } else {
            (path.remote, path.remote_port, path.is_v6)
        };
        ensure(is_v6 == (wants6 != 0), || "it left by the other family".to_owned())?;
        Ok(Outside {
            macs: macs(self.side, id, is_v6),
            source: remote(address(self.side, id, is_v6)).0,
            destination: to,
            ports: [self.side.port(), u16::from_be_bytes(port)],
        })
    }

    /// A probe is made of a tick only.
    fn probe(&self, frame: &[u8], out: &[u8], text: &[u8]) -> Result<(), String> {
        let exact = frame[..2] == tick::EXACT;
        let ticked = self.door == Door::Device && (exact || frame[..2] == tick::SHORT);
        ensure(ticked, || "a probe of what is no tick".to_owned())?;
        let least = out.len() - text.len() + 48;
        let length = if exact { frame.len() } else { least };
        ensure(out.len() == length, || format!("a probe of {} bytes", out.len()))?;
        let (time, rest) = text.split_at(8);
        ensure(time != [0; 8] && rest[..40] == [0; 40], || format!("a probe of {text:02x?}"))
    }

    /// The text is the packet that came, but for a hop and the MSS.
    fn same(&self, frame: &[u8], text: &[u8]) -> Result<(), String> {
        let family = family(frame);
        let packet = frame.get(LINK..).unwrap_or_default();
        let length = ip_length(packet, family).ok_or("no packet, and it was sent")?;
        ensure(text.len() == length, || format!("{} bytes of {length}", text.len()))?;
        ensure(length <= usize::from(self.setting.mtu), || format!("{length} bytes are sent"))?;
        let before = &frame[..LINK + length];
        let after = [&frame[..LINK], text].concat();
        let hops_at = LINK + if family == 6 { 7 } else { 8 };
        let hop = u8::from(self.door == Door::Lan);
        let hops = [before[hops_at], after[hops_at]];
        ensure(hops[0].checked_sub(hop) == Some(hops[1]), || {
            format!("{} hops became {}", hops[0], hops[1])
        })?;
        let mut places = Vec::new();
        if hop != 0 {
            places.push(hops_at..hops_at + 1);
            places.extend((family == 4).then_some(LINK + 10..LINK + 12));
        }
        let Some(view) = View::of(before) else { return only_differs(before, &after, &places) };
        let mss = mss_at(before, &view).filter(|_| view.part == Part::Whole);
        if let Some(at) = mss {
            places.extend([at..at + 2, view.transport + 16..view.transport + 18]);
            let [old, new] = [be16(before, at), be16(&after, at)];
            let most = self.setting.mtu - if family == 6 { 60 } else { 40 };
            ensure(old == new || new < old && new == Some(most), || {
                format!("an MSS of {old:?} became {new:?}")
            })?;
        }
        only_differs(before, &after, &places)?;
        ensure(view.header_sum(before) == view.header_sum(&after), || {
            "the inner header's checksum".to_owned()
        })?;
        let sums = [view.transport_sum(before), view.transport_sum(&after)];
        ensure(sums[0] == sums[1], || format!("the inner checksum: off by {sums:?}"))
    }
}

/// Inner family by EtherType.
fn family(frame: &[u8]) -> u8 {
    if be16(frame, 12) == Some(0x86dd) { 6 } else { 4 }
}

/// What tells a flow from others, where that is plain: behind extension headers a bucket
/// may have no ports.
fn flow(frame: &[u8]) -> Option<Vec<u8>> {
    let view = View::of(frame)?;
    let ports = frame.get(view.transport..view.transport + 4)?;
    let plain = view.part == Part::Whole
        && matches!(view.protocol, 6 | 17)
        && !(view.v6 && view.transport != LINK + 40)
        && view.transport + 4 <= view.end;
    let ends = &frame[view.source_at().start..view.destination_at().end];
    plain.then(|| [ends, ports, &[view.protocol]].concat())
}

/// The address and port of an end, as they stand in a packet.
pub(super) fn end(side: Side, id: u8, is_v6: bool) -> (IpAddr, u16) {
    (address(side, id, is_v6), side.port())
}

/// Bytes of a packet of the bond in front of its text, from the outer IP header on.
pub(super) fn overhead(suite: Suite, is_v6: bool) -> usize {
    header_length(suite) as usize + if is_v6 { 48 } else { 28 }
}
