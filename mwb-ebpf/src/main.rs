//! The kernel side of MultiWANBond.
//!
//! Theory of operation
//! 1. Four entry points: LAN side and WAN side, each as XDP and as TC.
//! 2. `inside` and `outside` parse the link layer and hand over to `steer4` and
//!    `steer6`, which look the flow up, make it if it is new, and rewrite.
//! 3. A stage returns an [`Action`] or a [`Reason`]; only this file turns either
//!    into a verdict, and counts it.
#![no_std]
#![no_main]
#![expect(unstable_features, reason = "core has no atomic add for BPF: inline assembly has")]
#![feature(asm_experimental_arch)]

mod account;
mod deliver;
mod frame;
mod maps;
mod nat;
mod path;
mod stage;
mod steer4;
mod steer6;

use account::Account;
use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_action},
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use frame::{Frame, NextHop, TcFrame, XdpFrame};
use mwb_common::{
    maps::{Device, Direction, hook, role},
    parse::{ethertype, parse_ethernet},
    reason::{Reason, Verdict},
};

/// What a stage wants done with a packet that it has rewritten.
///
/// Aligned, like everything with byte arrays that may live on the stack: LLVM
/// copies them word by word, and the verifier wants aligned words there.
#[repr(align(8))]
pub(crate) enum Action {
    /// Send it out of a device.
    Redirect(u32),
    /// The same, with the kernel resolving the next hop.
    Resolve(u32, NextHop),
    /// Nothing is rewritten: the TC form of this device does it all, because it
    /// can have the next hop resolved.
    HandOver,
}

/// LAN side, XDP form.
#[xdp]
pub(crate) fn inside_xdp(context: XdpContext) -> u32 {
    xdp(XdpFrame { context }, Direction::Out)
}

/// WAN side, XDP form.
#[xdp]
pub(crate) fn outside_xdp(context: XdpContext) -> u32 {
    xdp(XdpFrame { context }, Direction::In)
}

/// LAN side, TC form.
#[classifier]
pub(crate) fn inside_tc(context: TcContext) -> i32 {
    tc(TcFrame { context }, Direction::Out)
}

/// WAN side, TC form.
#[classifier]
pub(crate) fn outside_tc(context: TcContext) -> i32 {
    tc(TcFrame { context }, Direction::In)
}

#[inline(always)]
fn device<F: Frame>(frame: &F) -> Device {
    maps::DEVICES.get(frame.ingress()).copied().unwrap_or_default()
}

/// The way of every packet up to its verdict.
#[inline(always)]
fn process<F: Frame>(
    frame: &mut F,
    device: Device,
    account: &mut Account,
) -> Result<Action, Reason> {
    let link = parse_ethernet(frame).map_err(|_| Reason::Malformed)?;
    account.bytes = frame.len().saturating_sub(link.network);
    let wanted = match account.direction {
        Direction::Out => role::INSIDE,
        Direction::In => role::OUTSIDE,
    };
    if device.role != wanted {
        return Err(Reason::NotOurs);
    }
    if link.tags != 0 || frame.is_untagged_vlan() {
        return Err(Reason::Tagged);
    }
    if matches!(link.ethertype, ethertype::IPV4 | ethertype::IPV6) {
        addressed_to(frame, device)?;
    }
    match (link.ethertype, account.direction) {
        (ethertype::IPV4, Direction::Out) => steer4::outward(frame, link.network, account),
        (ethertype::IPV4, Direction::In) => steer4::inward(frame, link.network, device, account),
        (ethertype::IPV6, Direction::Out) => steer6::outward(frame, link.network, account),
        (ethertype::IPV6, Direction::In) => steer6::inward(frame, link.network, device, account),
        _ => Err(Reason::NotIp),
    }
}

/// Whether the frame is for this station: only such may be forwarded (RFC 1812,
/// 5.3.4 for link-layer broadcasts).
#[inline(always)]
fn addressed_to<F: Frame>(frame: &F, device: Device) -> Result<(), Reason> {
    let to: [u8; 6] = frame.read(0).ok_or(Reason::Malformed)?;
    if to == device.mac || device.mac == [0; 6] {
        return Ok(());
    }
    // The group bit of IEEE 802.
    Err(if to[0] & 1 != 0 { Reason::Multicast } else { Reason::OtherHost })
}

#[inline(always)]
fn xdp(mut frame: XdpFrame, direction: Direction) -> u32 {
    let mut account = Account::new(direction);
    let device = device(&frame);
    match process(&mut frame, device, &mut account) {
        Ok(Action::Redirect(ifindex)) => {
            account.close(&frame, Reason::Forwarded, 1);
            frame.redirect(ifindex) as u32
        }
        Ok(Action::Resolve(..) | Action::HandOver) => {
            // Counted by the TC form, which decides.
            if frame.hand_over() {
                return xdp_action::XDP_PASS;
            }
            account.close(&frame, Reason::HandoverFailed, 1);
            xdp_action::XDP_DROP
        }
        Err(reason) => {
            account.close(&frame, reason, 1);
            match reason.verdict() {
                Verdict::Drop => xdp_action::XDP_DROP,
                Verdict::Kernel | Verdict::Forward => xdp_action::XDP_PASS,
            }
        }
    }
}

#[inline(always)]
fn tc(mut frame: TcFrame, direction: Direction) -> i32 {
    let device = device(&frame);
    if device.hook == hook::XDP && !frame.is_handed_over() {
        return TC_ACT_UNSPEC;
    }
    frame.linearise();
    let mut account = Account::new(direction);
    let packets = frame.packets();
    match process(&mut frame, device, &mut account) {
        Ok(Action::Redirect(ifindex)) => {
            account.close(&frame, Reason::Forwarded, packets);
            frame.redirect(ifindex)
        }
        Ok(Action::Resolve(ifindex, next_hop)) => {
            account.close(&frame, Reason::NeighbourUnresolved, packets);
            frame.redirect_unresolved(ifindex, &next_hop)
        }
        // Never asked for by a form that resolves.
        Ok(Action::HandOver) => TC_ACT_UNSPEC,
        Err(reason) => {
            account.close(&frame, reason, packets);
            match reason.verdict() {
                Verdict::Drop => TC_ACT_SHOT,
                // On to the next program, then the network stack.
                Verdict::Kernel | Verdict::Forward => TC_ACT_UNSPEC,
            }
        }
    }
}

/// The verifier refuses a program that can reach this, as it should.
#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Helpers such as `bpf_fib_lookup` are for GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
