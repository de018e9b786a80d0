//! What the stages of both address families share: reasons of packets without a
//! flow, who may open one, and what a packet leaves behind in its flow.

use aya_ebpf::{
    bindings::{__sk_buff, xdp_md},
    programs::{TcContext, XdpContext},
};
use mwb_common::{
    checksum::delta2,
    maps::Flow,
    parse::{Refusal, Transport, parse_mss, tcp_flag},
    reason::Reason,
};

use crate::{
    account::Account,
    frame::{FAST, Frame, TcFrame, XdpFrame},
    path::Place,
};

/// Refuses a source that no LAN host may have (RFC 1812, 5.3.7).
#[inline(always)]
pub(crate) fn source_may_open(source: Place) -> Result<(), Reason> {
    match source {
        Place::Own(_) | Place::Kernel(Reason::Local | Reason::Multicast) => {
            Err(Reason::ForeignSource)
        }
        _ => Ok(()),
    }
}

/// The reason of a LAN packet that cannot be translated: the kernel's own stays
/// the kernel's.
#[inline(always)]
pub(crate) fn inside_reason(place: Place, otherwise: Reason) -> Reason {
    match place {
        Place::Kernel(reason) => reason,
        Place::Own(_) | Place::Lan => Reason::Local,
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
        Place::Own(_) | Place::Kernel(Reason::Local) => ours,
        Place::Kernel(reason) => reason,
        _ => match source() {
            Place::Kernel(Reason::Bypass) => Reason::Bypass,
            _ => Reason::Unsolicited,
        },
    }
}

/// Why a packet has no transport header to look at.
pub(crate) enum Stop {
    /// It is for the slow path.
    Slow,
    /// It is an ICMP error.
    IcmpError,
    /// It cannot be translated.
    Refused(Refusal),
    /// It waits for the first fragment of its datagram.
    Held,
    /// The first fragment of its datagram was left to the kernel.
    Kernel,
    /// It is a fragment without its first, and cannot wait.
    Orphan,
}

impl From<Refusal> for Stop {
    #[inline(always)]
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::IcmpError => Stop::IcmpError,
            refusal => Stop::Refused(refusal),
        }
    }
}

/// The reason of a packet that cannot be translated, unless it is the kernel's.
#[inline(always)]
pub(crate) fn refused(refusal: Refusal) -> Reason {
    match refusal {
        Refusal::Malformed => Reason::Malformed,
        _ => Reason::UnsupportedProtocol,
    }
}

/// Notes a packet in its flow. A SYN begins a connection anew: what an earlier
/// one on the same ports has shown, its end above all, is forgotten. A reset is
/// forgotten when its side goes on: the other side did not take it (RFC 6146,
/// 3.5.2.2, state TRANS).
#[inline(always)]
pub(crate) fn seen<F: Frame>(
    flow: &mut Flow,
    frame: &F,
    transport: &Transport,
    account: &mut Account,
    now: u64,
) {
    account.tcp(transport.tcp_flags);
    flow.last_seen = now;
    let before =
        if transport.tcp_flags & tcp_flag::SYN != 0 { 0 } else { flow.tcp_flags & !tcp_flag::RST };
    flow.tcp_flags = before | transport.tcp_flags;
    flow.packets += frame.packets() as u64;
    flow.bytes += account.bytes as u64;
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

/// Whether a packet is refused for want of room, which its sender is told
/// (RFC 6888, REQ-11; RFC 5508, REQ-8).
#[inline(always)]
pub(crate) fn is_refusal(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::PortsExhausted
            | Reason::FlowTableFull
            | Reason::SourceLimit
            | Reason::EndpointTaken
    )
}

/// Bounds the maximum segment size that a SYN announces, so that no segment of
/// the answering side is too big for the WAN. `most` is what fits. Gives what
/// the change adds to the transport's checksum; 0 = none.
#[inline(always)]
pub(crate) fn clamp_mss<F: Frame>(
    frame: &mut F,
    transport: &Transport,
    most: u32,
) -> Result<u32, Reason> {
    if transport.tcp_flags & tcp_flag::SYN == 0 || transport.check == 0 {
        return Ok(0);
    }
    let found = frame.find_mss(transport.source_field, transport.payload);
    let (offset, value) = (found >> 16, found & 0xffff);
    if value <= most {
        return Ok(0);
    }
    let (old, new) = ((value as u16).to_be_bytes(), (most as u16).to_be_bytes());
    frame.write(offset, new)?;
    // At an odd offset the value lies across two words of the sum.
    if (offset - transport.source_field) & 1 == 0 {
        Ok(delta2(old, new))
    } else {
        Ok(delta2([old[1], old[0]], [new[1], new[0]]))
    }
}

/// Offset and value of the maximum segment size, 16 bits each, of a SYN whose
/// header begins at `header` and ends at `end`; 0 = none. A global function: the
/// verifier walks its loop once.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn find_mss_xdp(context: *mut xdp_md, header: u32, end: u32) -> u32 {
    find_mss(&XdpFrame::new(XdpContext::new(context)), header, end)
}

/// The same for the TC form.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn find_mss_tc(context: *mut __sk_buff, header: u32, end: u32) -> u32 {
    find_mss(&TcFrame::<FAST> { context: TcContext::new(context) }, header, end)
}

#[inline(always)]
fn find_mss<F: Frame>(frame: &F, header: u32, end: u32) -> u32 {
    match parse_mss(frame, header, end) {
        Some((offset, value)) => offset << 16 | value as u32,
        None => 0,
    }
}
