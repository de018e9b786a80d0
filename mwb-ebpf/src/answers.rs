//! What a resolver on the gateway answers to hosts, for the agent: a filter of its packet
//! sockets on LAN ports. Only what this machine itself sends passes, so that nobody can
//! forge an answer: what it forwards has come in through some device.

use aya_ebpf::{macros::socket_filter, programs::SkBuffContext};
use mwb_common::nat::protocol;

/// The socket gets all of a packet.
const ALL: i64 = u32::MAX as i64;
/// `PACKET_OUTGOING` of linux/if_packet.h.
const OUTGOING: u32 = 4;
/// Next header of an IPv6 fragment (RFC 8200, 4.5).
const FRAGMENT: u8 = 44;
/// Where answers come from (RFC 1035, 4.2).
const DNS: u16 = 53;

#[socket_filter]
pub(crate) fn dns_answers(ctx: SkBuffContext) -> i64 {
    if is_answer(&ctx) == Some(true) { ALL } else { 0 }
}

/// Whether a packet, which begins with the IP header, is what we look for. Of a datagram in
/// fragments the first one is: the agent counts it as one that it cannot read.
#[inline(always)]
fn is_answer(ctx: &SkBuffContext) -> Option<bool> {
    // SAFETY: the context of a filter is readable for as long as it runs.
    let (kind, came_in) = unsafe { ((*ctx.skb.skb).pkt_type, (*ctx.skb.skb).ingress_ifindex) };
    if kind != OUTGOING || came_in != 0 {
        return Some(false);
    }
    let byte = |at| ctx.load::<u8>(at).ok();
    let pair = |at| ctx.load::<[u8; 2]>(at).ok().map(u16::from_be_bytes);
    let first = byte(0)?;
    let (carried, begins, header) = match first >> 4 {
        4 => (byte(9)?, pair(6)? & 0x1fff == 0, (first & 15) as usize * 4),
        6 => match byte(6)? {
            FRAGMENT => (byte(40)?, pair(42)? & 0xfff8 == 0, 48),
            carried => (carried, true, 40),
        },
        _ => return Some(false),
    };
    let has_port = matches!(carried, protocol::TCP | protocol::UDP);
    Some(has_port && begins && pair(header)? == DNS)
}
