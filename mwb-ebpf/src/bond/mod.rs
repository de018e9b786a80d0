//! The bond: packets of the inside are sealed into a session and sent by one of its
//! paths, and what comes by a path is opened and sent on.
//!
//! Theory of operation
//! 1. `bond_inside` has what a LAN port brings, and what the kernel sends into the bond's
//!    device (`inside`): the session, its path (`choose`), the outside (`outer`), its
//!    number and check (`send`, `seal`).
//! 2. `bond_outside` has what a WAN brings (`outside`): the check, the windows
//!    (`window`), then the LAN or the device (`deliver`), or an answer (`probe`). What is
//!    not for the bond is on a server the steering programme's.
//! 3. Probes are made here, of ticks: frames that the agent sends into the device. When it
//!    is late, data makes them: a packet goes round through the device with a copy of
//!    itself, and what comes in first of the two is the tick.
//! 4. A packet of the class that is sent twice goes round so, too, and each of the two takes
//!    a path of its own (`copy`).
//! 5. On a server what has come out goes on to the steering programme, and what that has
//!    translated back into the bond, without a way through the device (`direct`).
//! 6. A packet that is ahead of its turn goes to the agent, which gives it back as a frame of
//!    a kind of its own into the device (`order`).
//! 7. A stage returns what is sent or a [`Reason`]; only this file (and `direct`, `order`) turns it
//!    into a verdict, and counts it.

mod choose;
mod class;
mod copy;
mod deliver;
mod direct;
mod inside;
mod order;
mod outer;
mod outside;
mod packet;
mod probe;
mod seal;
mod send;
mod window;
mod work;

use aya_ebpf::{
    bindings::{BPF_F_BROADCAST, xdp_action},
    macros::xdp,
    programs::XdpContext,
};
use mwb_common::{
    maps::{Direction, bond_role, next, role},
    reason::{Reason, Verdict},
};

pub(crate) use deliver::{HOPS_KEPT, Hop};
pub(crate) use order::TurnsGuard;
pub(crate) use window::{FlowGuard, PathGuard};
pub(crate) use work::Work;

use crate::{
    device,
    frame::{Frame as _, XdpFrame},
    maps::{BOND, TICKS},
    opening::decoded,
    unpacked,
};
use work::step;

/// Into the bond.
#[xdp(frags)]
pub(crate) fn bond_inside(context: XdpContext) -> u32 {
    into_bond(&XdpFrame::new(context))
}

#[inline(always)]
fn into_bond(frame: &XdpFrame) -> u32 {
    let Ok(work) = Work::begin(Direction::Out) else { return xdp_action::XDP_ABORTED };
    work.came_by = frame.ingress();
    let kernel = match device(frame) {
        // Nobody is behind the data plane's end of the device.
        Ok(device) if device.role == role::DEVICE => {
            if order::is_back(frame) {
                direct::call(frame, next::BACK);
            }
            xdp_action::XDP_DROP
        }
        Ok(device) if device.role == role::INSIDE => xdp_action::XDP_PASS,
        _ => return finish(frame, Err(Reason::NotOurs), xdp_action::XDP_PASS),
    };
    finish(frame, inside::process(frame.context.ctx), kernel)
}

/// Out of the bond.
#[xdp(frags)]
pub(crate) fn bond_outside(context: XdpContext) -> u32 {
    let frame = XdpFrame::new(context);
    let kernel = xdp_action::XDP_PASS;
    if Work::begin(Direction::In).is_err() {
        return xdp_action::XDP_ABORTED;
    }
    if !device(&frame).is_ok_and(|device| device.role == role::OUTSIDE) {
        return finish(&frame, Err(Reason::NotOurs), kernel);
    }
    let mut result = outside::process(frame.context.ctx);
    if Work::room().is_ok_and(|work| work.next == step::OTHER) {
        if is_server() {
            direct::call(&frame, next::OUTSIDE);
        }
        result = decoded(outside::bond_other(frame.context.ctx));
    }
    let reason = count(&frame, result);
    if reason == Some(Reason::ToDevice) && is_server() {
        direct::call(&frame, next::OPENED);
    }
    conclude(&frame, result, reason, kernel)
}

#[inline(always)]
fn is_server() -> bool {
    BOND.get(0).is_some_and(|bond| bond.role == bond_role::SERVER)
}

/// `kernel` is the verdict of what is left to it.
#[inline(always)]
fn finish(frame: &XdpFrame, result: Result<(), Reason>, kernel: u32) -> u32 {
    conclude(frame, result, count(frame, result), kernel)
}

/// Counts it; gives what as.
#[inline(always)]
fn count(frame: &XdpFrame, result: Result<(), Reason>) -> Option<Reason> {
    let work = Work::room().ok()?;
    let reason = match result {
        Ok(()) => unpacked(work.reason as u8),
        Err(reason) => reason,
    };
    work.account.close(frame, reason, 1);
    Some(reason)
}

#[inline(always)]
fn conclude(
    frame: &XdpFrame,
    result: Result<(), Reason>,
    reason: Option<Reason>,
    kernel: u32,
) -> u32 {
    let (Ok(work), Some(reason)) = (Work::room(), reason) else {
        return xdp_action::XDP_ABORTED;
    };
    match (result, reason.verdict()) {
        (Ok(()), _) if work.device != 0 => frame.redirect(work.device) as u32,
        (Ok(()), _) => {
            let flags = BPF_F_BROADCAST as u64;
            TICKS.redirect(0, flags).unwrap_or(xdp_action::XDP_DROP)
        }
        (Err(_), Verdict::Drop) => xdp_action::XDP_DROP,
        (Err(_), Verdict::Kernel | Verdict::Forward) => kernel,
    }
}
