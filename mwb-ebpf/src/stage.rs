//! What the stages of both address families share: reasons of packets without a
//! flow, and who may open one.

use mwb_common::{
    maps::Flow,
    parse::{Refusal, Transport, tcp_flag},
    reason::Reason,
};

use crate::path::Place;

/// Refuses a source that no LAN host may have (RFC 1812, 5.3.7).
#[inline(always)]
pub(crate) fn source_may_open(source: Place) -> Result<(), Reason> {
    match source {
        Place::Kernel(Reason::Local | Reason::Multicast) => Err(Reason::ForeignSource),
        _ => Ok(()),
    }
}

/// The reason of a LAN packet that cannot be translated: the kernel's own stays
/// the kernel's.
#[inline(always)]
pub(crate) fn inside_reason(place: Place, otherwise: Reason) -> Reason {
    match place {
        Place::Kernel(reason) => reason,
        Place::Lan => Reason::Local,
        Place::Wan(_) => otherwise,
    }
}

/// The reason of a WAN packet without a flow. Only what is addressed to the
/// gateway (or exempt by configuration, at either end) reaches the kernel, which
/// would otherwise forward it into the LAN.
#[inline(always)]
pub(crate) fn outside_reason(
    destination: Place,
    source: impl FnOnce() -> Place,
    ours: Reason,
) -> Reason {
    match destination {
        Place::Kernel(Reason::Local) => ours,
        Place::Kernel(reason) => reason,
        _ => match source() {
            Place::Kernel(Reason::Bypass) => Reason::Bypass,
            _ => Reason::Unsolicited,
        },
    }
}

/// Why a packet has no transport header to look at.
pub(crate) enum Refused {
    Fragment,
    Parse(Refusal),
}

impl Refused {
    /// The reason of such a packet from the LAN, unless it is the kernel's.
    #[inline(always)]
    pub(crate) fn inside(&self, destination: Place) -> Reason {
        inside_reason(
            destination,
            match self {
                Refused::Fragment => Reason::FragmentOrphan,
                Refused::Parse(Refusal::Malformed) => Reason::Malformed,
                Refused::Parse(Refusal::IcmpError) => Reason::InsideIcmpError,
                Refused::Parse(Refusal::Unsupported) => Reason::UnsupportedProtocol,
            },
        )
    }

    /// The reason of such a packet from a WAN if it is to the gateway.
    #[inline(always)]
    pub(crate) fn outside(&self) -> Reason {
        match self {
            Refused::Fragment => Reason::OutsideFragment,
            Refused::Parse(Refusal::Malformed) => Reason::Malformed,
            Refused::Parse(Refusal::IcmpError) => Reason::OutsideIcmpError,
            Refused::Parse(Refusal::Unsupported) => Reason::NoMapping,
        }
    }
}

/// Notes a packet in its flow. A SYN begins a connection anew: what an earlier
/// one on the same ports has shown, its end above all, is forgotten.
#[inline(always)]
pub(crate) fn seen(flow: &mut Flow, transport: &Transport, now: u64) {
    flow.last_seen = now;
    let before = if transport.tcp_flags & tcp_flag::SYN != 0 { 0 } else { flow.tcp_flags };
    flow.tcp_flags = before | transport.tcp_flags;
}

/// Why a packet with this TTL or hop limit may not open a flow, if it may not.
#[inline(always)]
pub(crate) fn may_open(ttl: u8, transport: &Transport) -> Result<(), Reason> {
    if ttl <= 1 {
        Err(Reason::TtlExpired)
    } else if !transport.opens {
        Err(Reason::UnsupportedProtocol)
    } else {
        Ok(())
    }
}
