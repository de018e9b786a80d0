//! The TC form on kernels before 6.6, which have no TCX: a filter of the clsact
//! queueing discipline. A filter has no link that could be pinned and survives
//! by itself; a pin of its program marks that it is ours.

use std::io;
use std::os::fd::AsFd as _;

use aya::programs::tc::{
    NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle, qdisc_add_clsact,
};
use aya::programs::{Link as _, ProgramError, SchedClassifier, TcAttachType};
use nix::net::if_::if_nametoindex;

use super::error::Error;
use super::pins::{self, Pins, remove_pin};
use super::sys;

/// Priority and handle of our filter: fixed, so that it can be replaced, and
/// removed without touching anyone else's.
const PRIORITY: u16 = 0x6d77;
const HANDLE: TcHandle = TcHandle::new(0, 1);

/// Attaches the program to the ingress of a device, or replaces ours there.
pub(super) fn attach(
    program: &mut SchedClassifier,
    pins: &Pins,
    device: &str,
) -> Result<(), Error> {
    let failed =
        |error: String| Error::Attach { device: device.to_owned(), form: pins::TC, message: error };
    match qdisc_add_clsact(device) {
        Ok(()) => {}
        Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(libc::EEXIST) => {}
        Err(error) => return Err(failed(format!("adding clsact: {error}"))),
    }
    let marker = pins.link(device, pins::CLSACT);
    let ours = marker.exists();
    remove_pin(&marker)?;
    // Marked before it is attached: a filter without a mark would stay forever.
    let fd = program.fd().map_err(Error::program("tc"))?;
    sys::pin(fd.as_fd(), &marker).map_err(Error::pins("pinning", &marker))?;

    let replaced = ours && existing(device).and_then(|link| replace(program, link)).is_ok();
    if !replaced {
        let options = NlOptions { priority: PRIORITY, handle: HANDLE, classid: None };
        let link = program
            .attach_with_options(device, TcAttachType::Ingress, TcAttachOptions::Netlink(options))
            .and_then(|id| program.take_link(id));
        let link = match link {
            Ok(link) => link,
            Err(error) => {
                // The filter there is not ours to remove.
                if !ours {
                    remove_pin(&marker)?;
                }
                return Err(failed(refusal(&error, device)));
            }
        };
        // Dropping it would detach.
        std::mem::forget(link);
    }
    Ok(())
}

fn replace(program: &mut SchedClassifier, link: SchedClassifierLink) -> io::Result<()> {
    let link = program
        .attach_to_link(link)
        .and_then(|id| program.take_link(id))
        .map_err(io::Error::other)?;
    std::mem::forget(link);
    Ok(())
}

fn existing(device: &str) -> io::Result<SchedClassifierLink> {
    SchedClassifierLink::attached(device, TcAttachType::Ingress, PRIORITY, HANDLE, None)
}

/// The device of that name that is there now, if the mark says that one of that
/// name has our filter.
pub(super) fn device(pins: &Pins, device: &str) -> Option<u32> {
    pins.link(device, pins::CLSACT).exists().then(|| if_nametoindex(device).ok())?
}

/// Removes our filter if the mark says that there is one. That the device or
/// the filter is gone is no error. The clsact discipline stays: others may have
/// filters in it.
pub(super) fn detach(pins: &Pins, device: &str) -> Result<(), Error> {
    let marker = pins.link(device, pins::CLSACT);
    if !marker.exists() {
        return Ok(());
    }
    if let Ok(link) = existing(device)
        && let Err(error) = link.detach()
    {
        tracing::debug!(device, error = text(&error), "the clsact filter was gone already");
    }
    remove_pin(&marker)
}

/// A refusal in words, with the way out where there is one.
fn refusal(error: &ProgramError, device: &str) -> String {
    let text = text(error);
    if !text.contains("exists") {
        return text;
    }
    format!(
        "another filter has our place, of another instance perhaps: `tc filter show dev {device} \
         ingress` names it, `tc filter del dev {device} ingress pref {PRIORITY}` removes it"
    )
}

fn text(error: &ProgramError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
