//! The programs that watch what is lost behind an XDP redirect. They are no part
//! of the way of packets: without them all else works, and the loss is not seen.

use aya::Ebpf;
use aya::programs::RawTracePoint;
use aya::programs::links::FdLink;
use mwb_common::maps::names::programs::WATCHING;

use super::error::Error;
use super::load::insist;
use super::pins::{Pins, remove_pin};

/// Loads the watching programs and attaches them for as long as they are pinned;
/// those of an agent before us end. The error says what the kernel refuses.
pub(super) fn watch(object: &mut Ebpf, pins: &Pins) -> Result<(), Error> {
    for &(name, tracepoint) in WATCHING {
        let program = object.program_mut(name).ok_or(Error::Missing(name))?;
        let program: &mut RawTracePoint = program.try_into().map_err(Error::program(name))?;
        insist(|| program.load()).map_err(Error::program(name))?;
        let link = program
            .attach(tracepoint)
            .and_then(|id| program.take_link(id))
            .map_err(Error::program(name))?;
        let pin = pins.watcher(name);
        // Two at once would count twice, so for a moment there is none.
        remove_pin(&pin)?;
        FdLink::from(link)
            .pin(&pin)
            .map_err(|error| Error::pins("pinning", &pin)(std::io::Error::other(error)))?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "losses_tests.rs"]
mod tests;
