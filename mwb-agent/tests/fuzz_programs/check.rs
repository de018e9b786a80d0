//! The contracts of one packet, on bytes alone: what may differ between what
//! came in and what left, and that every checksum is as right, or as wrong, as
//! it was.

use std::ops::Range;

use crate::engine::{From, Outcome, PORT_MIN, Setting, Verdict};
use crate::model::{Model, has_nat_ports};
use crate::view::{Address, LINK, Part, View, be16};
use crate::world;

/// What a redirected packet turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// Sent on.
    Forwarded,
    /// To one of our own outside endpoints, to be taken in again from that WAN.
    Turned(u8),
    /// Gone, with an ICMP error to its sender in its place.
    Answered,
}

/// Judges what became of a packet; tells what a redirected one was.
pub(crate) fn check(
    setting: &Setting,
    model: &mut Model,
    from: From,
    packet: &[u8],
    outcome: &Outcome,
) -> Result<Option<Left>, String> {
    let out = outcome.packet.as_slice();
    match outcome.verdict {
        // Fragments that waited take the place of the one that released them.
        Verdict::Drop => {
            if from == From::Lan {
                model.tries(packet);
            }
            Ok(None)
        }
        Verdict::Kernel if out == packet => Ok(None),
        Verdict::Kernel => Err("left to the kernel, and changed".to_owned()),
        Verdict::Redirect => {
            let view = View::of(packet).ok_or("sent on, and no packet")?;
            if is_answer(setting, from, packet, &view, out) {
                answered(packet, &view, out)?;
                if from == From::Lan {
                    model.tries(packet);
                }
                return Ok(Some(Left::Answered));
            }
            let left = forwarded(setting, model, from, packet, &view, out)?;
            Ok(Some(left))
        }
    }
}

pub(crate) fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}

/// Whether what left is an ICMP error of our own: from our address, to whom the
/// packet came from.
fn is_answer(setting: &Setting, from: From, packet: &[u8], view: &View, out: &[u8]) -> bool {
    let Some(answer) = View::of(out) else { return false };
    setting.answers_from(from, view.v6) == Some(answer.source(out))
        && answer.destination(out) == view.source(packet)
        && answer.is_icmp_error(out)
        && out.get(answer.hops_at()) == Some(&64)
        && out.get(6..12) == packet.get(..6)
}

/// The rules of an ICMP error (RFC 1812, 4.3.2; RFC 4443, 2.4).
fn answered(packet: &[u8], view: &View, out: &[u8]) -> Result<(), String> {
    let answer = View::of(out).ok_or("an answer that is no packet")?;
    ensure(out.get(..6) == packet.get(6..12), || "an answer to another station".to_owned())?;
    ensure(answer.header_sum(out) == 0, || "an answer's header checksum".to_owned())?;
    // One packet in 65,536 looks as if its checksum were still to be made.
    let sum = answer.transport_sum(out);
    ensure(sum == Some(0) || view.looks_pending(packet), || "an answer's checksum".to_owned())?;
    ensure(view.part != Part::Later, || "an answer about a later fragment".to_owned())?;
    ensure(!view.is_icmp_error(packet), || "an answer to an ICMP error".to_owned())?;
    ensure(answer.end == out.len(), || "an answer with something behind it".to_owned())?;
    let most = if view.v6 { 1_280 } else { 576 };
    ensure(out.len() - LINK <= most, || format!("an answer of {} bytes", out.len()))?;
    let kind = out.get(answer.transport..answer.transport + 2);
    let allowed: &[[u8; 2]] =
        if view.v6 { &[[1, 3], [2, 0], [3, 0]] } else { &[[3, 1], [3, 4], [11, 0]] };
    ensure(allowed.iter().any(|one| kind == Some(one)), || format!("an answer of type {kind:?}"))?;
    let quote = out.get(answer.transport + 8..).unwrap_or_default();
    let least = (view.end - view.network).min(if view.v6 { 48 } else { 28 });
    ensure(quote.len() >= least, || format!("{} bytes are quoted", quote.len()))?;
    let quoted = packet.get(LINK..).unwrap_or_default();
    ensure(quoted.starts_with(quote), || "what is quoted is not what came".to_owned())
}

/// The path that a source address is of.
fn path_of(setting: &Setting, v6: bool, address: Address) -> Option<u8> {
    [1, 2].into_iter().find(|&id| {
        let path = setting.path(id);
        if v6 { address[..6] == path.outside6[..6] } else { address[..4] == path.address4 }
    })
}

fn forwarded(
    setting: &Setting,
    model: &mut Model,
    from: From,
    packet: &[u8],
    view: &View,
    out: &[u8],
) -> Result<Left, String> {
    ensure(out.len() == packet.len(), || format!("{} bytes became {}", packet.len(), out.len()))?;
    let after = View::of(out).ok_or("what left is no packet")?;
    ensure(after == *view, || format!("{view:?} became {after:?}"))?;
    let hops = packet[view.hops_at()];
    ensure(hops >= 2 && out[view.hops_at()] == hops - 1, || {
        format!("{hops} hops became {}", out[view.hops_at()])
    })?;
    ensure(after.header_sum(out) == view.header_sum(packet), || "header checksum".to_owned())?;
    let sums = (view.transport_sum(packet), after.transport_sum(out));
    ensure(sums.0 == sums.1, || format!("transport checksum: off by {sums:?}"))?;

    let outward = from == From::Lan;
    only_differs(packet, out, &changeable(packet, view, outward))?;
    let mss = mss_at(packet, view).map(|at| (be16(packet, at), be16(out, at)));
    ensure(mss.is_none_or(|(old, new)| new <= old), || "a larger MSS".to_owned())?;
    let left = if outward {
        leaves(setting, packet, view, out)?
    } else {
        delivered(setting, from, packet, view, out)?;
        Left::Forwarded
    };
    if view.is_icmp_error(packet) {
        quoted(setting, model, from, packet, view, out)?;
    }
    match from {
        From::Lan => {
            let path = path_of(setting, view.v6, after.source(out)).ok_or("no path's address")?;
            model.leaves(path, packet, out)?;
        }
        _ if view.is_icmp_error(packet) => {}
        _ => model.arrives(setting, from, packet, out)?,
    }
    Ok(left)
}

/// Addresses, port, next hop and size of what goes out.
fn leaves(setting: &Setting, packet: &[u8], view: &View, out: &[u8]) -> Result<Left, String> {
    let source = view.source(out);
    let id = path_of(setting, view.v6, source)
        .ok_or_else(|| format!("it left with {source:?}, which is no path's address"))?;
    let path = setting.path(id);
    let inside = view.source(packet);
    let own = if view.v6 { world::GATEWAY6.octets() } else { padded(world::GATEWAY.octets()) };
    // An error may be told by the gateway's own stack; a flow it may not open.
    ensure(inside != own || view.is_icmp_error(packet), || "a foreign source left".to_owned())?;
    if view.v6 {
        ensure(inside[..6] == path.inside6[..6], || "a foreign prefix left".to_owned())?;
        ensure(inside[8..] == source[8..], || "NPTv6 changed the host part".to_owned())?;
    }
    let has_port =
        view.part != Part::Later && !view.is_icmp_error(packet) && !view.is_nameless_query(packet);
    if has_nat_ports(view) && !view.v6 && has_port {
        let port = view.ports(out)[0];
        ensure((PORT_MIN..=setting.port_max).contains(&port), || {
            format!("it left by port {port}")
        })?;
    }
    let turned = !view.v6 && view.destination(out)[..4] == path.address4;
    let (mac, known) = if view.v6 {
        (path.next_hop_mac6, setting.resolved[1] & id != 0)
    } else {
        (path.next_hop_mac4, setting.resolved[0] & id != 0)
    };
    if turned {
        ensure(out[..6] == path.source_mac, || "turned round, to another station".to_owned())?;
        return Ok(Left::Turned(id));
    }
    // Who is not known is asked for by the kernel, which writes the addresses.
    let macs = if known { [mac, path.source_mac].concat() } else { packet[..12].to_vec() };
    ensure(out[..12] == macs, || format!("it left to the station {:02x?}", &out[..12]))?;
    let size = view.end - view.network;
    ensure(size <= usize::from(setting.mtu) || view.is_icmp_error(packet), || {
        format!("{size} bytes left by an MTU of {}", setting.mtu)
    })?;
    Ok(Left::Forwarded)
}

fn padded(address: [u8; 4]) -> Address {
    let mut wide = [0; 16];
    wide[..4].copy_from_slice(&address);
    wide
}

/// Address and station of what goes to the LAN.
fn delivered(
    setting: &Setting,
    from: From,
    packet: &[u8],
    view: &View,
    out: &[u8],
) -> Result<(), String> {
    let (From::Wan(path) | From::Turned(path)) = from else { return Ok(()) };
    let to = view.destination(packet);
    ensure(path_of(setting, view.v6, to) == Some(path), || format!("{to:?} is not ours there"))?;
    let host = view.destination(out);
    let inside = if view.v6 {
        host[..6] == setting.path(path).inside6[..6]
    } else {
        host[..3] == world::HOST.octets()[..3]
    };
    ensure(inside, || format!("delivered to {host:?}, who is not of the LAN"))?;
    let resolved = out[6..12] == world::LAN_MAC && out[..5] == world::HOST_MAC[..5];
    ensure(resolved || out[..12] == packet[..12], || {
        format!("delivered to the station {:02x?}", &out[..12])
    })
}

/// Where a packet may change on its way.
fn changeable(packet: &[u8], view: &View, outward: bool) -> Vec<Range<usize>> {
    let mut places = vec![0..12, view.hops_at()..view.hops_at() + 1];
    if !view.v6 {
        places.push(view.network + 10..view.network + 12);
    }
    places.push(if outward { view.source_at() } else { view.destination_at() });
    if view.v6 {
        // NPTv6 leaves ports and checksums alone, but for an error's quote.
        if view.is_icmp_error(packet)
            && let Some(inner) = View::at(packet, view.transport + 8)
        {
            places.push(if outward { inner.destination_at() } else { inner.source_at() });
        }
        places.extend(mss_at(packet, view).map(|at| at..at + 2));
        if mss_at(packet, view).is_some() {
            places.extend(view.check_at().map(|at| at..at + 2));
        }
        return places;
    }
    if view.is_icmp_error(packet) {
        places.push(view.transport + 2..view.transport + 4);
        if let Some(inner) = View::at(packet, view.transport + 8) {
            let [source, destination] = inner.ports_at(packet);
            let (address, port) = if outward {
                (inner.destination_at(), destination)
            } else {
                (inner.source_at(), source)
            };
            places.extend([address, inner.network + 10..inner.network + 12]);
            places.extend(port.map(|at| at..at + 2));
            places.extend(inner.check_at().map(|at| at..at + 2));
        }
        return places;
    }
    if has_nat_ports(view) {
        let [source, destination] = view.ports_at(packet);
        let port = if outward { source } else { destination };
        let nameless = view.is_nameless_query(packet).then_some(view.transport + 4);
        let port = port.or(nameless);
        places.extend(port.map(|at| at..at + 2));
        places.extend(view.check_at().map(|at| at..at + 2));
        places.extend(mss_at(packet, view).map(|at| at..at + 2));
    }
    places
}

pub(crate) fn only_differs(
    before: &[u8],
    after: &[u8],
    places: &[Range<usize>],
) -> Result<(), String> {
    for (at, (old, new)) in before.iter().zip(after).enumerate() {
        if old != new && !places.iter().any(|place| place.contains(&at)) {
            return Err(format!("byte {at} changed from {old:02x} to {new:02x}"));
        }
    }
    Ok(())
}

/// Where the MSS option of a SYN has its value.
pub(crate) fn mss_at(packet: &[u8], view: &View) -> Option<usize> {
    let start = view.transport;
    if view.protocol != 6 || view.part == Part::Later || packet.get(start + 13)? & 2 == 0 {
        return None;
    }
    let end = (start + usize::from(packet.get(start + 12)? >> 4) * 4).min(view.end);
    let mut at = start + 20;
    while at < end {
        match *packet.get(at)? {
            0 => return None,
            1 => at += 1,
            2 if packet.get(at + 1) == Some(&4) && at + 4 <= end => return Some(at + 2),
            _ => at += usize::from(*packet.get(at + 1)?).max(2),
        }
    }
    None
}

/// What an ICMP error quotes: the packet as the one who gets the error knows it.
fn quoted(
    setting: &Setting,
    model: &Model,
    from: From,
    packet: &[u8],
    view: &View,
    out: &[u8],
) -> Result<(), String> {
    let (packet, out) = (&packet[..view.end], &out[..view.end]);
    let before = View::at(packet, view.transport + 8).ok_or("an error that quotes nothing left")?;
    let after = View::at(out, view.transport + 8).ok_or("what is quoted is no packet any more")?;
    ensure(before == after, || format!("the quote {before:?} became {after:?}"))?;
    ensure(before.header_sum(packet) == after.header_sum(out), || {
        "checksum of the quoted header".to_owned()
    })?;
    if before.check_at().is_some_and(|at| at + 2 <= view.end) {
        let sums = (before.transport_sum(packet), after.transport_sum(out));
        ensure(sums.0 == sums.1, || format!("checksum of what is quoted: off by {sums:?}"))?;
    }
    // Whose packet it was, in the words of the outside and of the inside.
    let ((path, outside), inside) = match from {
        From::Lan => {
            let path = path_of(setting, view.v6, view.source(out)).ok_or("no path's address")?;
            let inside = (before.destination(packet), before.ports(packet)[1]);
            ((path, (after.destination(out), after.ports(out)[1])), inside)
        }
        From::Wan(path) | From::Turned(path) => {
            ensure(view.destination(packet) == before.source(packet), || {
                "an error to another than whom it is about".to_owned()
            })?;
            let inside = (after.source(out), after.ports(out)[0]);
            ensure(view.destination(out) == inside.0, || "an error to a third".to_owned())?;
            ((path, (before.source(packet), before.ports(packet)[0])), inside)
        }
    };
    if !has_nat_ports(&before) || before.is_nameless_query(packet) {
        return Ok(());
    }
    let owner = model.owner(path, before.protocol, outside.0, outside.1);
    let untold = owner.is_none() && model.has_tried(before.protocol, inside);
    ensure(owner == Some(inside) || untold, || {
        format!("an error about {outside:?}, which is {owner:?}'s, became one about {inside:?}")
    })
}
