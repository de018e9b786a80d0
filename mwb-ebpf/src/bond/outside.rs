//! Out of the bond: what a WAN brings to the bond's port is opened, known as new, and
//! sent on.

use aya_ebpf::bindings::xdp_md;
use mwb_common::{
    integrity::Suite,
    maps::{
        BOND_PATHS as PATHS_OF_SESSION, Bond, BondPath, Device, PathState, Session, bond_path_flag,
        bucket_index, handed, path_index, session_flag,
    },
    messages::{Limit, SHARE, is_message, share_of},
    nat::protocol,
    parse::{Bytes as _, ETHERNET, Ipv4Header, Ipv6Header, ethertype, parse_ethernet, parse_ipv4},
    reason::Reason,
    select::pace::{carry, pace},
    wire::{FIELDS, Fields, Kind, NoHeader, flag, header_length},
};

use super::{
    deliver::deliver,
    inside::{frame_of, time, trim},
    order,
    outer::{has_moved, outer_length},
    packet::LONGEST,
    probe::{reflect, take_reply},
    seal::{bond_open, which},
    send::bond_send,
    window::{new_in_bucket, new_on_path},
    work::{Heading, Work, step},
};
use crate::{
    addressed_to,
    atomic::fetch_add,
    device,
    frame::{XdpFrame, fetch},
    maps::{BOND, BOND_PATHS, PATH_STATES, PATHS, SESSION_STATES, SESSIONS, SHARES},
    opening::{code, decoded},
    path::{now as coarse, place4, place6},
    stage::outside_reason,
};

/// Messages that a CPU gives the agent, by place in [`Work::messages`]: what another version
/// calls a handshake, of which nobody knows how long it is, and one is enough to be named;
/// of sessions; and acknowledgements, of which each path has a hundred or two.
const LIMITS: [Limit; 3] = [
    Limit { per_second: 10, at_once: 10 },
    Limit { per_second: 1_000, at_once: 100 },
    Limit { per_second: 8_000, at_once: 800 },
];

/// The steps of a packet. Each is a global function that says 0, or a reason and one, and
/// has [`Work`] for itself: it is asked for anew behind each. [`Work::next`] is
/// [`step::OTHER`] if it is not for the bond.
#[inline(always)]
pub(super) fn process(context: *mut xdp_md) -> Result<(), Reason> {
    decoded(bond_claim(context))?;
    let work = Work::room()?;
    if work.next == step::OTHER {
        return Ok(());
    }
    let parity = (work.heading.flags & flag::EPOCH) as u32;
    if bond_open(context, work.at, which(work.slot, true, parity)) != 0 {
        return Err(Reason::BadCheck);
    }
    decoded(bond_accept(context))?;
    if Work::room()?.next == step::SEAL {
        decoded(bond_send(context))?;
    }
    Ok(())
}

/// Whether it is for the bond, and if so, whether its header is one of ours.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn bond_claim(context: *mut xdp_md) -> u32 {
    code(claim(context))
}

#[inline(always)]
fn claim(context: *mut xdp_md) -> Result<(), Reason> {
    let frame = frame_of(context);
    let work = Work::room()?;
    let device = device(&frame)?;
    let bond = BOND.get(0).ok_or(Reason::NotOurs)?;
    work.account.bytes = frame.len().saturating_sub(ETHERNET);
    if outside_of(&frame, device, bond, work).is_none() {
        work.next = step::OTHER;
        return Ok(());
    }
    addressed_to(&frame, device)?;
    let account = &mut work.account;
    if work.is_v6 {
        account.ipv6(protocol::UDP)
    } else {
        account.ipv4(protocol::UDP)
    }
    if work.end > frame.len() || work.end > LONGEST || work.end < work.at + FIELDS {
        return Err(Reason::BondMalformed);
    }
    work.account.bytes = work.end - ETHERNET;
    let fields: Fields = frame.read(work.at).ok_or(Reason::BondMalformed)?;
    let header = match fields.decode() {
        Ok(header) => header,
        // The agent can say who speaks another version.
        Err(NoHeader::Version) if fields.kind() == Some(Kind::Handshake) => {
            return Err(message::<0>(work));
        }
        Err(_) => return Err(Reason::BondMalformed),
    };
    if header.kind == Kind::Handshake {
        return Err(handshake(&frame, work, bond));
    }
    (work.slot, work.session) = (header.session & bond.slot_mask, header.session);
    let session = SESSIONS.get(work.slot).ok_or(Reason::UnknownSession)?;
    if session.ours != header.session || session.flags & session_flag::PRESENT == 0 {
        return Err(Reason::UnknownSession);
    }
    if matches!(header.kind, Kind::Control | Kind::Ack) {
        let acknowledges = header.kind == Kind::Ack;
        return Err(if acknowledges { message::<2>(work) } else { message::<1>(work) });
    }
    if header.path >= PATHS_OF_SESSION as u8 {
        return Err(Reason::UnknownPath);
    }
    work.index = path_index(work.slot, header.path);
    let path = BOND_PATHS.get(work.index).ok_or(Reason::UnknownPath)?;
    if path.flags & bond_path_flag::PRESENT == 0 {
        return Err(Reason::UnknownPath);
    }
    work.account.path = header.path;
    if session.opens as u32 >> (header.flags & flag::EPOCH) & 1 == 0 {
        return Err(Reason::UnknownEpoch);
    }
    let suite = Suite::from_number(session.suite).ok_or(Reason::UnknownSession)?;
    work.text = work.at + header_length(suite);
    if work.end < work.text {
        return Err(Reason::BondMalformed);
    }
    work.heading =
        Heading::new(header.kind, header.flags, header.path, header.inner, header.bucket);
    work.sequence = header.sequence;
    work.taken = header.taken as u32;
    work.flow_sequence = header.flow_sequence;
    trim(&frame, work.end)
}

/// The outside of a packet to the bond's port at our address on the device's WAN, that is
/// not divided and has no extras; none if it is anything else.
#[inline(always)]
fn outside_of(frame: &XdpFrame, device: &Device, bond: &Bond, work: &mut Work) -> Option<()> {
    let wan = PATHS.get(device.path as u32)?;
    let kind: [u8; 2] = frame.read(12)?;
    let udp = match u16::from_be_bytes(kind) {
        ethertype::IPV4 => {
            let ip: Ipv4Header = frame.read(ETHERNET)?;
            let whole = ip.fragment[0] & 0x3f == 0 && ip.fragment[1] == 0;
            let plain = ip.version_length == 0x45 && ip.protocol == protocol::UDP;
            if !plain || !whole || ip.destination != wan.address4 {
                return None;
            }
            work.is_v6 = false;
            ETHERNET + 20
        }
        ethertype::IPV6 => {
            let ip: Ipv6Header = frame.read(ETHERNET)?;
            let plain = ip.version_class_label[0] >> 4 == 6 && ip.next_header == protocol::UDP;
            if !plain || ip.destination != wan.address6 {
                return None;
            }
            work.is_v6 = true;
            ETHERNET + 40
        }
        _ => return None,
    };
    let [_, _, a, b, high, low, _, _]: [u8; 8] = frame.read(udp)?;
    if [a, b] != bond.port {
        return None;
    }
    (work.at, work.end) = (udp + 8, udp + u16::from_be_bytes([high, low]) as u32);
    Some(())
}

/// What is authentic is taken once, and goes where it belongs.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn bond_accept(context: *mut xdp_md) -> u32 {
    code(accept(context))
}

#[inline(always)]
fn accept(context: *mut xdp_md) -> Result<(), Reason> {
    let mut frame = frame_of(context);
    let work = Work::room()?;
    work.now = time();
    let state = PATH_STATES.get_ptr_mut(work.index).ok_or(Reason::UnknownPath)?;
    let path = BOND_PATHS.get(work.index).ok_or(Reason::UnknownPath)?;
    let session = SESSIONS.get(work.slot).ok_or(Reason::UnknownSession)?;
    let bond = BOND.get(0).ok_or(Reason::NotOurs)?;
    let parity = (work.heading.flags & flag::EPOCH) as u32;
    // The key may have been taken away while it was being read.
    if opens(session) >> parity & 1 == 0 {
        return Err(Reason::UnknownEpoch);
    }
    let newest = new_on_path(work.index, work.sequence)?;
    heard(state, work);
    renew(work.slot, session, parity);
    // SAFETY: a map value.
    let state = unsafe { &mut *state };
    if newest {
        arrived(state, work, bond, path);
        if session.flags & session_flag::ROAMS != 0 {
            roam(&frame, work, path, state);
        }
    }
    if work.heading.kind == Kind::Probe as u8 {
        return reflect(&mut frame, work, state);
    }
    if work.heading.kind == Kind::ProbeReply as u8 {
        take_reply(&frame, work, bond, path, state)?;
        return Err(Reason::ProbeAnswered);
    }
    carry(bond, path, state, work.now);
    if work.heading.kind == Kind::Parity as u8 {
        order::copy(context, work, handed::PARITY, state);
        return Err(Reason::ParityTaken);
    }
    if work.heading.flags & flag::ACKED != 0 {
        order::ask(context, work, state);
    }
    let mut taken = Ok(());
    if work.heading.flags & flag::REPEATS != 0 {
        let bucket = bucket_index(work.slot, work.heading.bucket);
        taken = new_in_bucket(bucket, work.flow_sequence);
    }
    if taken.is_ok() && work.heading.flags & flag::ORDERED != 0 {
        // What the agent has until its turn it needs no copy of.
        order::wait(context, work)?;
    }
    if work.heading.flags & flag::FEC != 0 {
        order::copy(context, work, handed::TAKEN, state);
    }
    taken?;
    deliver(&mut frame, work, bond)
}

/// Parities of the epochs whose packets a session takes at this moment.
#[inline(always)]
fn opens(session: &Session) -> u32 {
    // SAFETY: a map value. Read anew: it was read before, and may have changed.
    let [opens, flags] = unsafe {
        [(&raw const session.opens).read_volatile(), (&raw const session.flags).read_volatile()]
    };
    if flags & session_flag::PRESENT == 0 { 0 } else { opens as u32 }
}

/// The agent's, if it is not too much for it.
#[inline(always)]
fn message<const KIND: usize>(work: &mut Work) -> Reason {
    let taken = LIMITS[KIND].take(&mut work.messages[KIND], coarse());
    if taken { Reason::BondMessage } else { Reason::MessageLimited }
}

/// The agent's, if it has the length that it says, and it is not too much from where it came
/// from: it is not known yet whether it is authentic.
#[inline(always)]
fn handshake(frame: &XdpFrame, work: &mut Work, bond: &Bond) -> Reason {
    let Some([number, ..]) = frame.read::<[u8; 4]>(work.at + FIELDS) else {
        return Reason::BondMalformed;
    };
    if !is_message(number, work.end - work.at) {
        return Reason::BondMalformed;
    }
    let source = if work.is_v6 {
        frame.read::<[u32; 2]>(ETHERNET + 8)
    } else {
        frame.read::<u32>(ETHERNET + 12).map(|address| [address, 0])
    };
    let Some(source) = source else { return Reason::BondMalformed };
    let Some(share) = SHARES.get_ptr_mut(share_of(source, bond.seed)) else {
        return Reason::MessageLimited;
    };
    // SAFETY: a per-CPU value, and programs do not preempt each other.
    let share = unsafe { &mut *share };
    let taken = SHARE.take(share, coarse());
    if taken { Reason::BondMessage } else { Reason::MessageLimited }
}

/// Notes an authentic packet of a path that is new.
#[inline(always)]
fn heard(state: *mut PathState, work: &Work) {
    // SAFETY: a map value.
    unsafe {
        fetch_add(&raw mut (*state).received, 1);
        fetch_add(&raw mut (*state).received_bytes, (work.end - ETHERNET) as u64);
        (*state).heard = work.now;
    }
}

/// The newest packet says whether more of ours was taken: the path is alive. Replies to
/// probes say so too, but come late from a queue that has just grown.
#[inline(always)]
fn arrived(state: &mut PathState, work: &Work, bond: &Bond, path: &BondPath) {
    // Not written for each packet: other CPUs read it for each.
    if state.taken != work.taken {
        state.taken = work.taken;
        state.alive_until = work.now + pace(bond, path, state, work.now).dead_after;
    }
}

/// From the first packet of the newest epoch on, its keys seal.
#[inline(always)]
fn renew(slot: u32, session: &Session, parity: u32) {
    if session.epoch & 1 != parity {
        return;
    }
    let Some(state) = SESSION_STATES.get_ptr_mut(slot) else { return };
    let heard = session.epoch.wrapping_add(1);
    // SAFETY: a map value.
    unsafe {
        // Not written for each packet: other CPUs read it for each.
        if (*state).heard != heard {
            (*state).heard = heard;
        }
    }
}

/// Notes where the newest packet of a path came from, if that is somewhere else.
#[inline(always)]
fn roam(frame: &XdpFrame, work: &Work, path: &BondPath, state: &mut PathState) {
    let Ok(device) = device(frame) else { return };
    // In words: LLVM would compare it byte by byte.
    let source = if work.is_v6 {
        frame.read::<[u32; 4]>(ETHERNET + 8)
    } else {
        frame.read::<u32>(ETHERNET + 12).map(|address| [address, 0, 0, 0])
    };
    let Some(source) = source else { return };
    let udp = ETHERNET + outer_length(work.is_v6) - 8;
    let Some(port) = frame.read::<[u8; 2]>(udp) else { return };
    let (remote, remote_port, via) = if has_moved(path, state) {
        (&state.remote, state.remote_port, state.via)
    } else {
        (&path.remote, path.remote_port, path.via)
    };
    if bytemuck::cast::<_, [u32; 4]>(fetch(remote)) == source
        && remote_port == port
        && via == device.path
    {
        return;
    }
    state.remote = bytemuck::cast(source);
    state.remote_port = port;
    state.is_v6 = work.is_v6 as u8;
    state.via = device.path;
    state.moves = state.moves.wrapping_add(1);
    state.moved = path.generation.wrapping_add(1);
}

/// What a packet is counted as that is not for the bond, on a gateway: what is to it goes
/// to the kernel, and nothing else comes in.
#[inline(never)]
#[unsafe(no_mangle)]
pub(super) extern "C" fn bond_other(context: *mut xdp_md) -> u32 {
    match other(context) {
        Ok(reason) | Err(reason) => code(Err(reason)),
    }
}

#[inline(always)]
fn other(context: *mut xdp_md) -> Result<Reason, Reason> {
    let frame = frame_of(context);
    let device = device(&frame)?;
    let account = &mut Work::room()?.account;
    let link = parse_ethernet(&frame).map_err(|_| Reason::Malformed)?;
    if link.tags != 0 {
        return Err(Reason::Tagged);
    }
    match link.ethertype {
        ethertype::IPV4 => {
            addressed_to(&frame, device)?;
            let ip = parse_ipv4(&frame, ETHERNET).map_err(|_| Reason::Malformed)?;
            account.ipv4(ip.header.protocol);
            account.bytes = ip.end - ETHERNET;
            let ours = if ip.is_fragment() { Reason::OutsideFragment } else { Reason::NoMapping };
            let (source, destination) = (ip.header.source, ip.header.destination);
            Ok(outside_reason(place4(destination), || place4(source), ours))
        }
        ethertype::IPV6 => {
            addressed_to(&frame, device)?;
            let ip: Ipv6Header = frame.read(ETHERNET).ok_or(Reason::Malformed)?;
            account.ipv6(ip.next_header);
            account.bytes = u16::from_be_bytes(ip.payload_length) as u32 + 40;
            let (source, destination) = (ip.source, ip.destination);
            let ours =
                if ip.next_header == 44 { Reason::OutsideFragment } else { Reason::NoMapping };
            Ok(outside_reason(place6(&destination), || place6(&source), ours))
        }
        _ => Err(Reason::NotIp),
    }
}
