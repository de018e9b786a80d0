//! The name of a device's driver, by ethtool.

use std::ffi::CStr;
use std::io;
use std::os::fd::AsRawFd;

use socket2::{Domain, Socket, Type};

use super::{Device, Error};

/// Command of the `SIOCETHTOOL` request that asks for the driver.
const ETHTOOL_GDRVINFO: u32 = 3;

/// `struct ethtool_drvinfo`.
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [libc::c_char; 32],
    version: [libc::c_char; 32],
    firmware: [libc::c_char; 32],
    bus: [libc::c_char; 32],
    eeprom: [libc::c_char; 32],
    reserved: [libc::c_char; 12],
    counts: [u32; 5],
}

const _: () = assert!(size_of::<DriverInfo>() == 196);

/// Driver name of a device as ethtool gives it; the link kind for devices
/// whose driver gives none.
///
/// # Errors
/// When the device is gone, or has neither.
pub fn driver(device: &Device) -> Result<String, Error> {
    let failed = |source| Error::Driver { device: device.name.clone(), source };
    match (ask(&device.name), &device.kind) {
        (Ok(driver), _) if !driver.is_empty() => Ok(driver),
        (_, Some(kind)) => Ok(kind.clone()),
        (Ok(_), None) => Err(failed(io::Error::other("it has none"))),
        (Err(error), None) => Err(failed(error)),
    }
}

fn ask(name: &str) -> io::Result<String> {
    let socket = Socket::new(Domain::UNIX, Type::DGRAM, None)?;
    let mut info = DriverInfo {
        command: ETHTOOL_GDRVINFO,
        driver: [0; 32],
        version: [0; 32],
        firmware: [0; 32],
        bus: [0; 32],
        eeprom: [0; 32],
        reserved: [0; 12],
        counts: [0; 5],
    };
    // SAFETY: all zero is a valid `ifreq`: plain bytes and a null pointer.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = (&raw mut info).cast();
    // SAFETY: the request names a device and points to a buffer of the size
    // that the command in it fills; both outlive the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // The kernel ends it with a zero; make sure that we do.
    info.driver[31] = 0;
    // SAFETY: the array ends with a zero.
    let driver = unsafe { CStr::from_ptr(info.driver.as_ptr()) };
    Ok(driver.to_string_lossy().into_owned())
}
