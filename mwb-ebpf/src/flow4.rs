//! Flows of IPv4: finding them, and making both entries of a new one.

use aya_ebpf::{
    bindings::{__sk_buff, xdp_md},
    programs::{TcContext, XdpContext},
};
use mwb_common::{
    maps::{
        Choice, Contact, Family, Flow, FlowKey4, MappingKey, OUTLET_VIA, Path, PortKey, filtering,
        how, path_flag,
    },
    nat::{inbound4, protocol::has_nat_ports, rewrite4, v4},
    reason::Reason,
};

use crate::{
    frame::{FAST, Frame, TcFrame, XdpFrame},
    maps::{CONTACTS, CONTROL, FLOWS4, PORTS},
    nat,
    opening::{Opening, answered, asked, code, decoded},
    path::{Alive, Place, path, place4, said4, stands},
    policy::{self, Wanted},
    stage::{inside_reason, source_may_open},
};

/// The entry of an inbound flow, if it is of its path's generation.
#[inline(always)]
pub(crate) fn expected(key: &FlowKey4, path: &Path) -> Option<&'static mut Flow> {
    // SAFETY: the entry may become another flow's while we hold it, since
    // entries are used again. Then its time, counters or next hop get this
    // packet's: the first lives longer by one packet, the last is looked up
    // again a second later.
    let flow = unsafe { &mut *FLOWS4.get_ptr_mut(key)? };
    (path.generation == flow.generation).then_some(flow)
}

/// The entry of an outbound flow that is valid now, with its path.
#[inline(always)]
pub(crate) fn established(
    key: &FlowKey4,
    alive: &Alive,
) -> Option<(&'static mut Flow, &'static Path)> {
    let (flow, path) = entry(key)?;
    stands(flow.choice, flow.path, path, alive, Family::V4).then_some((flow, path))
}

/// The entry of an outbound flow, if it is of its path's generation.
#[inline(always)]
pub(crate) fn entry(key: &FlowKey4) -> Option<(&'static mut Flow, &'static Path)> {
    // SAFETY: as in `expected`.
    let flow = unsafe { &mut *FLOWS4.get_ptr_mut(key)? };
    let path = path(flow.path, path_flag::HAS_V4)?;
    if path.generation == flow.generation { Some((flow, path)) } else { None }
}

/// Whether a port of a WAN's address is somebody's: packets to it from the LAN
/// are turned round.
#[inline(never)]
fn is_mapped(key: &FlowKey4, path: u8) -> bool {
    let port = PortKey { port: key.destination_port, protocol: key.protocol, path };
    // SAFETY: a plain field of an entry that may become another's: the packet is
    // turned round then, and finds nobody there.
    PORTS.get_ptr(port).is_some_and(|owner| unsafe { (*owner).inside.address } != [0; 4])
}

/// Makes both entries of a new flow.
#[inline(always)]
pub(crate) fn open<F: Frame>(
    frame: &F,
    key: &FlowKey4,
    now: u64,
    may_open: Result<(), Reason>,
) -> Result<(), Reason> {
    let to = said4(key.destination);
    let wanted = match may_open {
        Ok(()) => policy::rule4(frame, key, Place::of(to))?,
        Err(_) => policy::NONE,
    };
    decoded(frame.open4(key, now, asked(to, may_open), wanted))
}

/// [`open`] as a global function: the verifier walks it once, not once for each
/// state of each caller.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn open4_xdp(
    context: *mut xdp_md,
    key: *const FlowKey4,
    now: u64,
    asked: u32,
    wanted: u32,
) -> u32 {
    let frame = XdpFrame::new(XdpContext::new(context));
    code(try_open(&frame, key, now, asked, Wanted::of(wanted), false))
}

/// Bit beside what is wanted: the slow path opens it.
pub(crate) const OPENS_SLOWLY: u64 = 1 << 32;

/// The same for the TC form.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn open4_tc(
    context: *mut __sk_buff,
    key: *const FlowKey4,
    now: u64,
    asked: u32,
    wanted: u64,
) -> u32 {
    let frame = TcFrame::<FAST> { context: TcContext::new(context) };
    let slow = wanted & OPENS_SLOWLY != 0;
    code(try_open(&frame, key, now, asked, Wanted::of(wanted as u32), slow))
}

#[inline(always)]
fn try_open<F: Frame>(
    frame: &F,
    key: *const FlowKey4,
    now: u64,
    asked: u32,
    wanted: Wanted,
    slow: bool,
) -> Result<(), Reason> {
    let Opening { flow, mapping, contact, endpoint, key4, answer4, contact_key, .. } =
        Opening::room()?;
    // SAFETY: the callers pass a key on their stack.
    *key4 = *unsafe { key.as_ref() }.ok_or(Reason::FlowTableFull)?;
    let key = &*key4;
    let (to, may_open) = answered(asked);
    let (via, turns) = match to {
        Place::Wan(via) => (via, false),
        Place::Own(own) if is_mapped(key, own) => {
            if !slow {
                // Not an end: the slow path opens it.
                return Err(Reason::Hairpinned);
            }
            (own, true)
        }
        place => return Err(inside_reason(place, Reason::Local)),
    };
    may_open?;
    source_may_open(place4(key.source))?;
    // What stays in the LAN is not policed.
    let wanted = if turns { policy::NONE } else { wanted };
    wanted.may_open()?;
    let outlet = if via == 0 { wanted.outlet() } else { 0 };
    *endpoint =
        MappingKey { address: key.source, port: key.source_port, protocol: key.protocol, via: 0 };
    if via != 0 && !nat::is_on(endpoint, via, now) {
        endpoint.via = via;
    }
    if outlet != 0 && !nat::is_of(endpoint, outlet, now) {
        endpoint.via = OUTLET_VIA + outlet;
    }
    let endpoint = &*endpoint;
    let given = nat::mapping(frame, endpoint, key, mapping, now)?;
    let path = path(given.path, path_flag::HAS_V4).ok_or(Reason::NoPath)?;
    let outside = (path.address4, given.port);
    let inside = (key.source, key.source_port);
    *answer4 = inbound4(key, outside.0, outside.1, given.path);
    let answer = &*answer4;
    if !has_nat_ports(key.protocol) {
        endpoint_is_free(answer, key, path)?;
    }
    let mut choice = given.choice;
    if how::is_free(choice.how) {
        // Whatever the mapping was made for: this flow moves as its outlet does.
        choice.place = Choice::place_of(outlet, choice.slot() as u32);
    }
    *flow = Flow { opened: now, choice, ..Flow::default() };
    rewrite4(flow, outside, inside, path.generation, given.path);
    FLOWS4.insert(answer, &*flow, 0).map_err(|_| Reason::FlowTableFull)?;
    rewrite4(flow, inside, outside, path.generation, given.path);
    flow.last_seen = now;
    if FLOWS4.insert(key, &*flow, 0).is_err() {
        // Nobody else makes this entry: the port is this endpoint's.
        let _ = FLOWS4.remove(answer);
        return Err(Reason::FlowTableFull);
    }
    if CONTROL.get(0).is_some_and(|control| control.filtering == filtering::ADDRESS) {
        *contact_key = FlowKey4 { source_port: [0; 2], ..*answer };
        *contact = Contact { inside: *endpoint, generation: path.generation, reserved: [0; 4] };
        // A full table makes room by itself.
        let _ = CONTACTS.insert(&*contact_key, &*contact, 0);
    }
    nat::confirm(endpoint, given, now).inspect_err(|_| {
        let _ = FLOWS4.remove(key);
        let _ = FLOWS4.remove(answer);
    })?;
    wanted.count();
    Ok(())
}

/// Without ports of its own to give, a WAN's address can be at a remote endpoint
/// for one inside host only.
#[inline(never)]
fn endpoint_is_free(answer: &FlowKey4, key: &FlowKey4, path: &Path) -> Result<(), Reason> {
    let Some(other) = FLOWS4.get_ptr(answer) else { return Ok(()) };
    // SAFETY: plain fields of an entry that may become another's: the next packet
    // sees what it is then.
    let (generation, host) = unsafe { ((*other).generation, v4(&(*other).address)) };
    if generation == path.generation && host != key.source {
        return Err(Reason::EndpointTaken);
    }
    Ok(())
}
