//! Packets from a WAN that no flow expects, and that may come in all the same:
//! to a port forward, or to a mapping whose filter lets them (RFC 4787, 5).

use mwb_common::{
    maps::{Choice, FORWARD, Flow, FlowKey4, MappingKey, Path, PortKey, filtering, how, path_flag},
    nat::{outbound4, rewrite4},
    parse::tcp_flag,
    reason::Reason,
};

use crate::{
    maps::{CONTACTS, CONTROL, FLOWS4, MAPPINGS, PORTS},
    opening::{Opening, code, decoded},
    path,
};

/// The inside endpoint that a packet without a flow may go to.
#[inline(never)]
pub(crate) fn admissible(key: &FlowKey4, path: &Path) -> Option<MappingKey> {
    if key.destination != path.address4 {
        return None;
    }
    let owner = PORTS.get_ptr(PortKey {
        port: key.destination_port,
        protocol: key.protocol,
        path: key.scope,
    })?;
    // SAFETY: plain fields of an entry that may become another's; the flow that
    // is made from them is then one that this other would admit, or dies unused.
    let owner = unsafe { *owner };
    // A port that is kept from use by a socket of the gateway's is nobody's.
    if owner.inside.address == [0; 4] {
        return None;
    }
    let admits = owner.last_used == FORWARD
        || match CONTROL.get(0)?.filtering {
            filtering::ENDPOINT_INDEPENDENT => is_current(key, &owner.inside, path.generation),
            filtering::ADDRESS => knows(key, &owner.inside, path.generation),
            _ => false,
        };
    admits.then_some(owner.inside)
}

/// Whether a packet would open a connection to a port of an inside host's. It is
/// dropped without a word: its sender may be opening one from the other end, and
/// a reset by the gateway would end that (RFC 5382, REQ-4).
#[inline(never)]
pub(crate) fn is_kept_out(key: &FlowKey4, path: &Path, tcp_flags: u8) -> bool {
    let opens = tcp_flags & (tcp_flag::SYN | tcp_flag::ACK) == tcp_flag::SYN;
    if !opens || key.destination != path.address4 {
        return false;
    }
    let port = PortKey { port: key.destination_port, protocol: key.protocol, path: key.scope };
    let Some(owner) = PORTS.get_ptr(port) else { return false };
    // SAFETY: plain fields of an entry that may become another's: of a port that
    // was somebody's until now.
    unsafe { (*owner).inside.address != [0; 4] }
}

/// Whether the endpoint's mapping is still on that port: after a re-dial the
/// claim of the old one stays until it expires.
#[inline(always)]
fn is_current(key: &FlowKey4, inside: &MappingKey, generation: u32) -> bool {
    let Some(mapping) = MAPPINGS.get_ptr(inside) else { return false };
    // SAFETY: plain fields of an entry that may become another's: then they differ.
    let mapping = unsafe { *mapping };
    mapping.generation == generation
        && mapping.path == key.scope
        && mapping.port == key.destination_port
}

/// Whether the endpoint has sent to this address.
#[inline(always)]
fn knows(key: &FlowKey4, inside: &MappingKey, generation: u32) -> bool {
    let key = FlowKey4 { source_port: [0; 2], ..*key };
    let Some(contact) = CONTACTS.get_ptr(key) else { return false };
    // SAFETY: plain fields of an entry that may become another's: then they differ.
    let contact = unsafe { *contact };
    contact.inside == *inside && contact.generation == generation
}

/// Makes both entries of a flow that a packet from a WAN opens.
#[inline(always)]
pub(crate) fn open(key: &FlowKey4, inside: &MappingKey, now: u64) -> Result<(), Reason> {
    decoded(admit4(key, inside, now))
}

/// [`open`] as a global function: the verifier walks it once.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn admit4(key: *const FlowKey4, inside: *const MappingKey, now: u64) -> u32 {
    code(try_open(key, inside, now))
}

#[inline(always)]
fn try_open(key: *const FlowKey4, inside: *const MappingKey, now: u64) -> Result<(), Reason> {
    let Opening { flow, key4, answer4, .. } = Opening::room()?;
    // SAFETY: the caller passes both on its stack.
    let (key, inside) = unsafe { (key.as_ref(), inside.as_ref()) };
    *key4 = *key.ok_or(Reason::FlowTableFull)?;
    let (key, inside) = (&*key4, inside.ok_or(Reason::FlowTableFull)?);
    let path = path::path(key.scope, path_flag::HAS_V4).ok_or(Reason::NoPath)?;
    let old = (key.destination, key.destination_port);
    let new = (inside.address, inside.port);
    *answer4 = outbound4(key, new.0, new.1);
    let answer = &*answer4;
    if let Some(other) = FLOWS4.get_ptr(answer) {
        // SAFETY: plain fields of an entry that may become another's: the next
        // packet sees what it is then.
        let (scope, generation) = unsafe { ((*other).path, (*other).generation) };
        // The same remote endpoint talks to the host through another WAN.
        if scope != key.scope
            && path::path(scope, path_flag::HAS_V4)
                .is_some_and(|path| path.generation == generation)
        {
            return Err(Reason::EndpointTaken);
        }
    }
    let choice = Choice { how: how::INBOUND, ..Choice::default() };
    *flow = Flow { opened: now, choice, ..Flow::default() };
    rewrite4(flow, new, old, path.generation, key.scope);
    FLOWS4.insert(answer, &*flow, 0).map_err(|_| Reason::FlowTableFull)?;
    rewrite4(flow, old, new, path.generation, key.scope);
    if FLOWS4.insert(key, &*flow, 0).is_err() {
        let _ = FLOWS4.remove(answer);
        return Err(Reason::FlowTableFull);
    }
    Ok(())
}
