//! Where a packet goes that is also to make a probe: the kernel's end of the bond's
//! device, twice. The kernel takes both entries away with the device.

use aya::maps::xdp::XdpMapError;
use aya::maps::{DevMap, MapData, MapError};
use mwb_common::maps::{TICK_DEVICES, names};

use super::error::Error;
use super::maps::take;

/// Handle of the map.
pub(super) struct Ticks {
    devices: DevMap<MapData>,
}

impl Ticks {
    pub(super) fn take(object: &mut aya::Ebpf) -> Result<Self, Error> {
        Ok(Self { devices: take(object, names::TICKS)? })
    }

    pub(super) fn set(&mut self, ifindex: u32) -> Result<(), Error> {
        for index in 0..TICK_DEVICES as u32 {
            self.devices.set(index, ifindex, None, 0).map_err(refused)?;
        }
        Ok(())
    }
}

fn refused(error: XdpMapError) -> Error {
    Error::map(names::TICKS)(match error {
        XdpMapError::MapError(error) => error,
        XdpMapError::ChainedProgramNotSupported => MapError::ProgramNotLoaded,
    })
}
