//! The kernel side of MultiWANBond.
//!
//! Theory of operation
//! 1. Four entry points: LAN side and WAN side, each as XDP and as TC.
//! 2. `inside` and `outside` parse the link layer and hand over to `steer4` and
//!    `steer6`, which look the flow up, make it if it is new, and rewrite.
//! 3. What is rare and long (fragments, ICMP errors in either role, packets that
//!    are turned round or let in) ends as [`Action::SLOW`]: the XDP form hands
//!    such a packet to the TC form, which calls one of four further programs.
//!    There the same stages run again, with [`Frame::SLOW`], and go on.
//! 4. A stage returns an [`Action`] or a [`Reason`]; only this file turns either
//!    into a verdict, and counts it.
#![no_std]
#![no_main]
#![expect(unstable_features, reason = "core has no atomic add for BPF: inline assembly has")]
#![expect(
    clippy::needless_borrows_for_generic_args,
    reason = "what a map takes by value is copied to the stack, which has 512 bytes"
)]
#![feature(asm_experimental_arch)]

mod account;
mod admit;
mod answer;
mod answers;
mod atomic;
mod bond;
mod deliver;
mod divide;
mod flow4;
mod flow6;
mod fragment;
mod frame;
mod handover;
mod maps;
mod nat;
mod opening;
mod path;
mod policy;
mod quoted;
mod stage;
mod steer4;
mod steer6;
mod sum;

use account::Account;
use aya_ebpf::{
    bindings::{BPF_F_INGRESS, TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_action},
    helpers::bpf_redirect,
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use frame::{FAST, Frame, NextHop, SLOW4, SLOW6, TcFrame, XdpFrame, fetch, set_mark};
use mwb_common::{
    maps::{Device, Direction, HANDOVER, hook, role, slow},
    parse::{ETHERNET, ethertype, parse_ethernet},
    reason::{Reason, Verdict},
};

/// What a stage wants done with a packet. Not an enum with values in it: where a
/// variant has none, LLVM may store one that is undefined, and the verifier
/// refuses to. Nor is `what` one: a result would hide in its unused numbers,
/// which the kernel's BTF has no way to say.
#[derive(Clone, Copy)]
pub(crate) struct Action {
    /// One of [`what`].
    what: u32,
    /// The device it leaves by.
    device: u32,
    next_hop: NextHop,
}

/// Values of [`Action::what`].
mod what {
    pub(super) const REDIRECT: u32 = 0;
    pub(super) const RESOLVE: u32 = 1;
    pub(super) const HAND_OVER: u32 = 2;
    pub(super) const SLOW: u32 = 3;
    pub(super) const TURN_ROUND: u32 = 4;
    pub(super) const ANSWER: u32 = 5;
    pub(super) const LATER: u32 = 6;
    pub(super) const DIVIDED: u32 = 7;
}

impl Action {
    /// Nothing is rewritten: the TC form of this device does it all, because it
    /// can have the next hop resolved.
    pub(crate) const HAND_OVER: Self = Self::with(what::HAND_OVER, 0);
    /// Nothing is rewritten: it is for the slow path.
    pub(crate) const SLOW: Self = Self::with(what::SLOW, 0);
    /// It has been sent in pieces.
    pub(crate) const DIVIDED: Self = Self::with(what::DIVIDED, 0);
    /// It is kept, or has come in again: it is counted then.
    pub(crate) const LATER: Self = Self::with(what::LATER, 0);

    #[inline(always)]
    const fn with(what: u32, device: u32) -> Self {
        Self { what, device, next_hop: NextHop::ROUTE }
    }

    /// Send it, rewritten, out of a device.
    #[inline(always)]
    pub(crate) const fn redirect(device: u32) -> Self {
        Self::with(what::REDIRECT, device)
    }

    /// The same, with the kernel resolving the next hop.
    #[inline(always)]
    pub(crate) const fn resolve(device: u32, next_hop: NextHop) -> Self {
        Self { what: what::RESOLVE, device, next_hop }
    }

    /// The device it is sent by, rewritten, if that is all there is to do.
    #[inline(always)]
    pub(crate) const fn redirected(self) -> Option<u32> {
        if self.what == what::REDIRECT { Some(self.device) } else { None }
    }

    /// It is rewritten, and comes in again through a WAN.
    #[inline(always)]
    pub(crate) const fn turn_round(device: u32) -> Self {
        Self::with(what::TURN_ROUND, device)
    }

    /// It is dropped, and has become the ICMP error that says so: send it back.
    #[inline(always)]
    pub(crate) const fn answer(reason: Reason) -> Self {
        Self::with(what::ANSWER, reason as u32)
    }
}

/// What a stage says, in one register: as a value in memory it would take room
/// on the caller's stack for each subprogram that it calls.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Packed(u64);

/// In the highest byte of a [`Packed`]: it is a reason.
const REFUSED: u64 = 1 << 56;

impl Packed {
    #[inline(always)]
    pub(crate) fn from(result: Result<Action, Reason>) -> Self {
        match result {
            Ok(Action { what, device, next_hop }) => {
                Self(device as u64 | (what as u64) << 32 | (next_hop.packed() as u64) << 40)
            }
            Err(reason) => Self(reason as u64 | REFUSED),
        }
    }

    /// What a global function has said, which can say a number only.
    #[inline(always)]
    pub(crate) fn said(value: u64) -> Self {
        Self(value)
    }

    /// The number.
    #[inline(always)]
    pub(crate) fn value(self) -> u64 {
        self.0
    }

    #[inline(always)]
    pub(crate) fn unpack(self) -> Result<Action, Reason> {
        if self.0 & REFUSED != 0 {
            return Err(unpacked(self.0 as u8));
        }
        Ok(Action {
            what: (self.0 >> 32) as u8 as u32,
            device: self.0 as u32,
            next_hop: NextHop::unpacked((self.0 >> 40) as u16),
        })
    }
}

/// The reason of a number: of one in a [`Packed`], or in the place of an answer's
/// device. The verifier does not know what a global function may say.
#[inline(always)]
pub(crate) fn unpacked(reason: u8) -> Reason {
    if !Reason::is_number(reason) {
        return Reason::Malformed;
    }
    // SAFETY: there is a reason with this number.
    unsafe { core::mem::transmute::<u8, Reason>(reason) }
}

/// LAN side, XDP form.
#[xdp(frags)]
pub(crate) fn inside_xdp(context: XdpContext) -> u32 {
    run_xdp(XdpFrame::new(context), Direction::Out, |frame, device| frame.redirect(device) as u32)
}

/// WAN side, XDP form.
#[xdp(frags)]
pub(crate) fn outside_xdp(context: XdpContext) -> u32 {
    run_xdp(XdpFrame::new(context), Direction::In, |frame, device| frame.redirect(device) as u32)
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

/// LAN side, slow path of IPv4.
#[classifier]
pub(crate) fn inside_slow4(context: TcContext) -> i32 {
    finish(TcFrame::<SLOW4> { context }, Direction::Out)
}

/// LAN side, slow path of IPv6.
#[classifier]
pub(crate) fn inside_slow6(context: TcContext) -> i32 {
    finish(TcFrame::<SLOW6> { context }, Direction::Out)
}

/// WAN side, slow path of IPv4.
#[classifier]
pub(crate) fn outside_slow4(context: TcContext) -> i32 {
    finish(TcFrame::<SLOW4> { context }, Direction::In)
}

/// WAN side, slow path of IPv6.
#[classifier]
pub(crate) fn outside_slow6(context: TcContext) -> i32 {
    finish(TcFrame::<SLOW6> { context }, Direction::In)
}

#[inline(always)]
pub(crate) fn device<F: Frame>(frame: &F) -> Result<&'static Device, Reason> {
    maps::DEVICES.get(frame.ingress()).ok_or(Reason::NotOurs)
}

/// The way of every packet up to its verdict.
#[inline(always)]
pub(crate) fn process<F: Frame>(frame: &mut F, account: &mut Account) -> Result<Action, Reason> {
    let device = device(frame)?;
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
        // A tag that says a priority only: the TC form gets the frame without.
        if !F::RESOLVES && link.tags == 1 && link.vlan[0] == 0 {
            return Ok(Action::HAND_OVER);
        }
        return Err(Reason::Tagged);
    }
    if matches!(link.ethertype, ethertype::IPV4 | ethertype::IPV6) {
        addressed_to(frame, device)?;
    }
    match (link.ethertype, account.direction) {
        (ethertype::IPV4, Direction::Out) if F::V4 => steer4::outward(frame, ETHERNET, account),
        (ethertype::IPV4, Direction::In) if F::V4 => {
            steer4::inward(frame, ETHERNET, device, account)
        }
        (ethertype::IPV6, Direction::Out) if F::V6 => steer6::outward(frame, ETHERNET, account),
        (ethertype::IPV6, Direction::In) if F::V6 => {
            steer6::inward(frame, ETHERNET, device, account)
        }
        _ => Err(Reason::NotIp),
    }
}

/// Whether the frame is for this station: only such may be forwarded (RFC 1812,
/// 5.3.4 for link-layer broadcasts).
#[inline(always)]
pub(crate) fn addressed_to<F: Frame>(frame: &F, device: &Device) -> Result<(), Reason> {
    let to: [u8; 6] = frame.read(0).ok_or(Reason::Malformed)?;
    let mac = fetch(&device.mac);
    if to == mac || mac == [0; 6] {
        return Ok(());
    }
    // The group bit of IEEE 802.
    Err(if to[0] & 1 != 0 { Reason::Multicast } else { Reason::OtherHost })
}

/// `send` does so with what is rewritten, by a device.
#[inline(always)]
pub(crate) fn run_xdp(
    mut frame: XdpFrame,
    direction: Direction,
    send: impl FnOnce(&XdpFrame, u32) -> u32,
) -> u32 {
    let mut account = Account::new(direction);
    match process(&mut frame, &mut account) {
        Ok(Action { what: what::REDIRECT, device, .. }) => {
            account.close(&frame, Reason::Forwarded, 1);
            send(&frame, device)
        }
        Ok(_) => {
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
fn tc(frame: TcFrame<FAST>, direction: Direction) -> i32 {
    let turned = frame.is_turned_round();
    if let Ok(device) = device(&frame) {
        if device.hook == hook::XDP && !turned && !frame.is_handed_over() {
            return TC_ACT_UNSPEC;
        }
        frame.prepare(device);
    }
    finish(frame, direction)
}

#[inline(always)]
fn finish<const WAY: u8>(mut frame: TcFrame<WAY>, direction: Direction) -> i32 {
    let mut account = Account::new(direction);
    let packets = frame.packets();
    match process(&mut frame, &mut account) {
        Ok(Action { what: what::REDIRECT, device, .. }) => {
            account.close(&frame, Reason::Forwarded, packets);
            frame.redirect(device)
        }
        Ok(Action { what: what::RESOLVE, device, next_hop }) => {
            account.close(&frame, Reason::NeighbourUnresolved, packets);
            frame.redirect_unresolved(device, next_hop)
        }
        Ok(Action { what: what::SLOW | what::HAND_OVER, .. }) if WAY == FAST => {
            let program = match (direction, account.is_ipv6()) {
                (Direction::Out, false) => slow::INSIDE4,
                (Direction::Out, true) => slow::INSIDE6,
                (Direction::In, false) => slow::OUTSIDE4,
                (Direction::In, true) => slow::OUTSIDE6,
            };
            // SAFETY: the programs there are ours, and nothing here needs dropping.
            unsafe { maps::SLOW.tail_call(&frame.context, program) };
            account.close(&frame, Reason::HandoverFailed, packets);
            TC_ACT_SHOT
        }
        Ok(Action { what: what::TURN_ROUND, device, .. }) if WAY != FAST => {
            account.close(&frame, Reason::Hairpinned, packets);
            // SAFETY: the context is valid while the program runs, and the helper
            // checks its arguments.
            unsafe {
                set_mark(frame.context.skb.skb, HANDOVER);
                bpf_redirect(device, BPF_F_INGRESS as u64) as i32
            }
        }
        Ok(Action { what: what::ANSWER, device: reason, .. }) if WAY != FAST => {
            account.close(&frame, unpacked(reason as u8), packets);
            frame.redirect(frame.ingress())
        }
        Ok(Action { what: what::DIVIDED, .. }) if WAY != FAST => {
            account.close(&frame, Reason::Forwarded, packets);
            TC_ACT_SHOT
        }
        Ok(_) => TC_ACT_SHOT,
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
