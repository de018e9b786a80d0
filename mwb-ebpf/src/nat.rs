//! Mappings of inside endpoints (RFC 4787, endpoint-independent) and the claim
//! of outside ports.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST, bpf_sock_tuple},
    helpers::{
        bpf_get_prandom_u32, bpf_loop, bpf_sk_lookup_udp, bpf_sk_release, bpf_skc_lookup_tcp,
    },
};
use bytemuck::{Pod, Zeroable};
use mwb_common::{
    maps::{
        Choice, Control, FORWARD, Family, FlowKey4, Mapping, MappingKey, PortKey, PortOwner, how,
        path_flag,
    },
    nat::{PORT_ATTEMPTS, hash4, port_candidate, protocol, protocol::has_nat_ports},
    policy::selection_index,
    reason::Reason,
};

use crate::{
    atomic::add32,
    frame::Frame,
    maps::{CLAIM, CONTROL, MAPPINGS, MAPPINGS_ENDED, MAPPINGS_MADE, PORTS},
    path::{Alive, choose, is_target, path},
};

/// What a flow needs of its mapping; a whole one takes thrice the stack.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(8))]
pub(crate) struct Given {
    pub(crate) choice: Choice,
    pub(crate) port: [u8; 2],
    pub(crate) path: u8,
    /// One of [`given`].
    state: u8,
}

/// Values of [`Given::state`].
mod given {
    /// The endpoint has no mapping.
    pub(super) const NONE: u8 = 0;
    /// It has one that is void: of another generation, on a dead path, or without
    /// its port.
    pub(super) const VOID: u8 = 1;
    /// It has one that may be used, now marked as used.
    pub(super) const GOOD: u8 = 2;
    /// It is good as long as no path of its outlet is alive, as its own is not.
    pub(super) const WAITING: u8 = 3;
}

/// Whether an inside endpoint has a mapping on this path already: whatever it
/// talks to, it should have no second one there (RFC 4787, REQ-1).
#[inline(always)]
pub(crate) fn is_on(endpoint: &MappingKey, path: u8, now: u64) -> bool {
    let given = found(endpoint, now);
    given.state == given::GOOD && given.path == path
}

/// Whether an inside endpoint has a mapping already on a path that an outlet aims at.
#[inline(always)]
pub(crate) fn is_of(endpoint: &MappingKey, outlet: u8, now: u64) -> bool {
    let given = found(endpoint, now);
    given.state == given::GOOD && is_target(outlet, Family::V4, given.path)
}

/// The mapping of an inside endpoint: the one it has while that is good, else a
/// new one on a path of the selection's choice.
#[inline(always)]
pub(crate) fn mapping<F: Frame>(
    frame: &F,
    endpoint: &MappingKey,
    key: &FlowKey4,
    mapping: &mut Mapping,
    now: u64,
) -> Result<Given, Reason> {
    let given = found(endpoint, now);
    if given.state == given::GOOD {
        return Ok(given);
    }
    let known = given.state != given::NONE;
    let control = CONTROL.get(0).ok_or(Reason::PortsExhausted)?;
    if !known && control.source_limit != 0 {
        may_map(&endpoint.address, control)?;
    }
    let (chosen, choice) = if endpoint.path() != 0 {
        (endpoint.path(), Choice { how: how::VIA, ..Choice::default() })
    } else {
        choose(endpoint.outlet(), Family::V4, hash4(key, control.seed), now)?
    };
    let path = path(chosen, path_flag::HAS_V4).ok_or(Reason::NoPath)?;
    let port = if has_nat_ports(endpoint.protocol) {
        claim(frame, endpoint, key, chosen, path.address4, now)?
    } else {
        endpoint.port
    };
    *mapping = Mapping {
        last_used: now,
        generation: path.generation,
        port,
        path: chosen,
        choice: Choice { epoch: path.epoch, ..choice },
        ..Mapping::default()
    };
    // Without one before, the first CPU's stands, and the others take it.
    let flags = if known { BPF_ANY } else { BPF_NOEXIST };
    if MAPPINGS.insert(endpoint, &*mapping, flags as u64).is_ok() {
        if !known {
            count_mapping(&endpoint.address);
        }
        return Ok(Given { choice: mapping.choice, port, path: chosen, state: given::GOOD });
    }
    if has_nat_ports(endpoint.protocol) {
        let _ = PORTS.remove(PortKey { port, protocol: endpoint.protocol, path: chosen });
    }
    let given = found(endpoint, now);
    if given.state == given::GOOD { Ok(given) } else { Err(Reason::FlowTableFull) }
}

/// Whether an inside address may have one more mapping (RFC 6888, REQ-4). Made
/// and ended ones are counted apart, so that kernel and agent each have a count
/// of their own to write.
#[inline(never)]
fn may_map(address: &[u8; 4], control: &Control) -> Result<(), Reason> {
    let made = MAPPINGS_MADE.get_ptr(address);
    let ended = MAPPINGS_ENDED.get_ptr(address);
    // SAFETY: both point to whole words of map values.
    let (made, ended) = unsafe { (made.map_or(0, |n| *n), ended.map_or(0, |n| *n)) };
    let open = made.wrapping_sub(ended) as i32;
    if open >= control.source_limit as i32 { Err(Reason::SourceLimit) } else { Ok(()) }
}

#[inline(never)]
fn count_mapping(address: &[u8; 4]) {
    if let Some(made) = MAPPINGS_MADE.get_ptr_mut(address) {
        // SAFETY: it points to a map value.
        unsafe { add32(made, 1) };
    } else if MAPPINGS_MADE.insert(address, 1, BPF_NOEXIST as u64).is_err()
        && let Some(made) = MAPPINGS_MADE.get_ptr_mut(address)
    {
        // SAFETY: as above.
        unsafe { add32(made, 1) };
    }
}

/// What an endpoint has.
#[inline(always)]
fn found(endpoint: &MappingKey, now: u64) -> Given {
    let mut given: Given = bytemuck::cast(current(endpoint, now));
    if given.state == given::WAITING {
        // Not asked where it was found: that is one call more than the stack has room for.
        let outlet = selection_index(given.choice.outlet(), Family::V4);
        let waits = Alive::at(now).is_ok_and(|alive| !alive.any(outlet));
        given.state = if waits { given::GOOD } else { given::VOID };
    }
    given
}

/// What an endpoint has, as a [`Given`] in one word. A subprogram: its keys would
/// not fit on the caller's stack.
#[inline(never)]
fn current(endpoint: &MappingKey, now: u64) -> u64 {
    let mut given = Given { choice: Choice::default(), port: [0; 2], path: 0, state: given::NONE };
    if let Some(mapping) = MAPPINGS.get_ptr_mut(endpoint) {
        // SAFETY: the entry may become another endpoint's while we hold it, since
        // entries are used again. Then our mark of use prolongs that one's life.
        let mapping = unsafe { &mut *mapping };
        let state = stands_still(endpoint, mapping, now);
        given.state = state;
        if state != given::VOID {
            mapping.last_used = now;
            let choice = Choice { how: mapping.choice.how | how::MAPPED, ..mapping.choice };
            given = Given { choice, port: mapping.port, path: mapping.path, state };
        }
    }
    bytemuck::cast(given)
}

/// One of [`given`], but for `NONE`.
#[inline(always)]
fn stands_still(endpoint: &MappingKey, mapping: &Mapping, now: u64) -> u8 {
    let Ok(alive) = Alive::at(now) else { return given::VOID };
    let Some(path) = path(mapping.path, path_flag::HAS_V4) else { return given::VOID };
    let state = if path.generation != mapping.generation {
        given::VOID
    } else if !how::is_free(mapping.choice.how) {
        // Also a destination on a WAN's own subnet has no other way.
        given::GOOD
    } else if mapping.choice.epoch != path.epoch {
        given::VOID
    } else if alive.is(mapping.path) {
        given::GOOD
    } else {
        given::WAITING
    };
    if state == given::VOID || !has_nat_ports(endpoint.protocol) {
        return state;
    }
    let port = PortKey { port: mapping.port, protocol: endpoint.protocol, path: mapping.path };
    // The port must still be this endpoint's: expiry may have taken it.
    let Some(owner) = PORTS.get_ptr_mut(port) else { return given::VOID };
    // SAFETY: as for the mapping.
    let owner = unsafe { &mut *owner };
    if owner.inside != *endpoint {
        return given::VOID;
    }
    // A mapping may stand on what has become a port forward of its endpoint.
    if owner.last_used != FORWARD {
        owner.last_used = now;
    }
    state
}

/// Makes sure that the port of a flow just made is still its endpoint's: expiry
/// may have taken it between the look at the mapping and the flow's entry.
#[inline(always)]
pub(crate) fn confirm(endpoint: &MappingKey, mapping: Given, now: u64) -> Result<(), Reason> {
    if !has_nat_ports(endpoint.protocol) {
        return Ok(());
    }
    let key = PortKey { port: mapping.port, protocol: endpoint.protocol, path: mapping.path };
    match PORTS.get_ptr(key) {
        // SAFETY: plain fields of an entry, which may be another's by now: then
        // they differ.
        Some(owner) if unsafe { (*owner).inside } == *endpoint => Ok(()),
        Some(_) => Err(Reason::PortsExhausted),
        None => {
            let owner = PortOwner { last_used: now, inside: *endpoint };
            PORTS.insert(key, owner, BPF_NOEXIST as u64).map_err(|_| Reason::PortsExhausted)
        }
    }
}

/// A search for a free port, as the loop's callback sees it: in a map, because
/// on the stack there is no room for it.
#[repr(C, align(8))]
pub(crate) struct Claim {
    owner: PortOwner,
    hash: u32,
    min: u16,
    max: u16,
    key: PortKey,
    own: u16,
    done: u16,
}

/// How often a port that a socket of the gateway holds is passed over.
const SOCKET_RETRIES: u32 = 4;

/// Claims a port of `chosen`. Inserting the entry is the claim: it succeeds for
/// one CPU only. A port that one of the gateway's own sockets uses stays claimed
/// by nobody until it expires.
#[inline(always)]
fn claim<F: Frame>(
    frame: &F,
    endpoint: &MappingKey,
    key: &FlowKey4,
    chosen: u8,
    address: [u8; 4],
    now: u64,
) -> Result<[u8; 2], Reason> {
    let control = CONTROL.get(0).ok_or(Reason::PortsExhausted)?;
    let claim = CLAIM.get_ptr_mut(0).ok_or(Reason::PortsExhausted)?;
    // SAFETY: a per-CPU value, programs do not preempt each other, and nobody
    // keeps it beyond this call.
    let claim = unsafe { &mut *claim };
    claim.key = PortKey { port: [0; 2], protocol: endpoint.protocol, path: chosen };
    claim.own = preferred(endpoint, chosen);
    (claim.min, claim.max) = (control.port_min, control.port_max);
    claim.owner = PortOwner { last_used: now, inside: *endpoint };
    let mut tries = 0;
    while tries < SOCKET_RETRIES {
        tries += 1;
        claim.done = 0;
        // SAFETY: the helper has no preconditions.
        claim.hash = unsafe { bpf_get_prandom_u32() };
        // SAFETY: the callback takes nothing.
        unsafe { bpf_loop(PORT_ATTEMPTS, try_port as *mut c_void, core::ptr::null_mut(), 0) };
        if claim.done == 0 {
            return Err(Reason::PortsExhausted);
        }
        if !has_socket(frame, key, address, claim.key.port) {
            return Ok(claim.key.port);
        }
        claim.owner.inside = MappingKey::default();
        let _ = PORTS.insert(&claim.key, &claim.owner, 0);
        claim.owner.inside = *endpoint;
        claim.own = 0;
    }
    Err(Reason::PortsExhausted)
}

/// The port to try first: the endpoint's own; of the odd port of a pair, as RTCP
/// has it, the one behind that of the even port (RFC 4787, 4.2.3).
#[inline(always)]
fn preferred(endpoint: &MappingKey, chosen: u8) -> u16 {
    let own = u16::from_be_bytes(endpoint.port);
    if endpoint.protocol == protocol::UDP && own & 1 != 0 {
        let even = MappingKey { port: (own - 1).to_be_bytes(), ..*endpoint };
        if let Some(mapping) = MAPPINGS.get_ptr(even) {
            // SAFETY: plain fields of an entry; what they say is only a wish.
            let (path, port) = unsafe { ((*mapping).path, (*mapping).port) };
            let port = u16::from_be_bytes(port);
            if path == chosen && port & 1 == 0 {
                return port + 1;
            }
        }
    }
    own
}

/// One attempt; 1 ends the loop.
#[inline(never)]
unsafe extern "C" fn try_port(attempt: u64, _context: *mut c_void) -> i64 {
    let Some(claim) = CLAIM.get_ptr_mut(0) else { return 1 };
    // SAFETY: as in `claim`, which waits meanwhile.
    let claim = unsafe { &mut *claim };
    let port =
        port_candidate(claim.own, claim.min, claim.max, claim.hash, attempt as u32).to_be_bytes();
    claim.key.port = port;
    if PORTS.insert(&claim.key, &claim.owner, BPF_NOEXIST as u64).is_err() {
        return 0;
    }
    claim.done = 1;
    1
}

/// `struct bpf_sock_tuple` for IPv4.
#[repr(C)]
struct SocketTuple4 {
    source: [u8; 4],
    destination: [u8; 4],
    source_port: [u8; 2],
    destination_port: [u8; 2],
}

const CURRENT_NAMESPACE: u64 = -1i64 as u64;

/// Whether a socket of the gateway would take answers to this port.
#[inline(always)]
fn has_socket<F: Frame>(frame: &F, key: &FlowKey4, address: [u8; 4], port: [u8; 2]) -> bool {
    let mut tuple = SocketTuple4 {
        source: key.destination,
        destination: address,
        source_port: key.destination_port,
        destination_port: port,
    };
    let pointer: *mut bpf_sock_tuple = core::ptr::from_mut(&mut tuple).cast();
    let size = size_of::<SocketTuple4>() as u32;
    // SAFETY: the tuple outlives the calls; a socket that is found is released.
    unsafe {
        let socket = match key.protocol {
            protocol::TCP => {
                bpf_skc_lookup_tcp(frame.context(), pointer, size, CURRENT_NAMESPACE, 0)
            }
            protocol::UDP => {
                bpf_sk_lookup_udp(frame.context(), pointer, size, CURRENT_NAMESPACE, 0)
            }
            _ => return false,
        };
        if socket.is_null() {
            return false;
        }
        bpf_sk_release(socket.cast());
        true
    }
}
