//! Short ways of a server. What has come out of a bond would go through the device to the
//! steering programme of its kernel's end, and what comes for a client from there through
//! the device into the bond: a queue, and a wake-up, for each packet. Here one program
//! calls the next, which takes the packet as if it had come by the device.
//!
//! What `bond_opened` neither sends nor drops goes through the device after all, as it was:
//! it is decided, and counted, there. So does all that leaves by an uplink in generic XDP,
//! which takes no frames.

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use mwb_common::{
    maps::{Direction, next, role},
    reason::{Reason, Verdict},
};

use super::into_bond;
use crate::{
    account::Account,
    device,
    frame::{Frame as _, XdpFrame},
    maps::{BOND, NEXT},
    process, run_xdp,
};

/// Goes on with another program, if it is there.
#[inline(always)]
pub(super) fn call(frame: &XdpFrame, program: u32) {
    // SAFETY: the program there is ours, and nothing of a caller needs dropping.
    unsafe { NEXT.tail_call(&frame.context, program) };
}

/// What has come out of a bond: it is steered.
#[xdp(frags)]
pub(crate) fn bond_opened(context: XdpContext) -> u32 {
    let Some(bond) = BOND.get(0) else { return xdp_action::XDP_ABORTED };
    let mut frame = XdpFrame::by(context, bond.outer_device);
    let mut account = Account::new(Direction::Out);
    match process(&mut frame, &mut account) {
        Ok(action) => {
            if let Some(device) = action.redirected() {
                account.close(&frame, Reason::Forwarded, 1);
                return frame.redirect(device) as u32;
            }
        }
        Err(reason) if matches!(reason.verdict(), Verdict::Drop) => {
            account.close(&frame, reason, 1);
            return xdp_action::XDP_DROP;
        }
        Err(_) => {}
    }
    frame.redirect(bond.inner_device) as u32
}

/// What comes to an uplink and is not for the bond: it is steered, and if it is for a
/// client goes into the bond.
#[xdp(frags)]
pub(crate) fn uplink_xdp(context: XdpContext) -> u32 {
    run_xdp(XdpFrame::new(context), Direction::In, |frame, device| {
        if BOND.get(0).is_some_and(|bond| bond.outer_device == device) {
            call(frame, next::INTO);
        }
        frame.redirect(device) as u32
    })
}

/// What has been steered to a client: it is sealed.
#[xdp(frags)]
pub(crate) fn bond_into(context: XdpContext) -> u32 {
    let Some(bond) = BOND.get(0) else { return xdp_action::XDP_ABORTED };
    let frame = XdpFrame::by(context, bond.inner_device);
    if device(&frame).is_ok_and(|device| device.role == role::DEVICE) {
        return into_bond(&frame);
    }
    // Its other end may be another by now.
    frame.redirect(bond.outer_device) as u32
}
