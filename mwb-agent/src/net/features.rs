//! What a device does with packets by itself, by ethtool: its features by the
//! names that `ethtool -k` has in the kernel.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsRawFd as _;

use socket2::{Domain, Socket, Type};

/// `ETHTOOL_GSSET_INFO`: how many strings a set has.
const GSSET_INFO: u32 = 0x37;
/// `ETHTOOL_GSTRINGS`: the strings.
const GSTRINGS: u32 = 0x1b;
/// `ETHTOOL_GFEATURES`: which features are on.
const GFEATURES: u32 = 0x3a;
/// `ETHTOOL_SFEATURES`: switches some of them.
const SFEATURES: u32 = 0x3b;
/// `ETH_SS_FEATURES`.
const FEATURES: u32 = 4;
/// `ETH_GSTRING_LEN`.
const NAME: usize = 32;
/// No kernel has so many.
const MOST: usize = 512;

/// Every feature of a device and whether it is on.
///
/// # Errors
/// When the device is gone or the kernel does not tell.
pub fn features(device: &str) -> io::Result<BTreeMap<String, bool>> {
    let socket = Socket::new(Domain::UNIX, Type::DGRAM, None)?;
    let names = names(&socket, device)?;
    // struct ethtool_gfeatures: command, blocks, and for each block of 32 what
    // is available, requested, active, and never changed.
    let blocks = names.len().div_ceil(32);
    let mut bits = vec![0_u32; 2 + blocks * 4];
    bits[..2].copy_from_slice(&[GFEATURES, u32::try_from(blocks).unwrap_or(0)]);
    ask(&socket, device, &mut bits)?;
    let active = |index: usize| {
        bits.get(2 + index / 32 * 4 + 2).is_some_and(|word| word >> (index % 32) & 1 != 0)
    };
    let all = names.into_iter().enumerate().map(|(index, name)| (name, active(index)));
    Ok(all.filter(|(name, _)| !name.is_empty()).collect())
}

/// Switches features on or off, those that are not as they should be; `wanted` says of
/// each name what it should be, if it matters.
///
/// # Errors
/// When the device is gone, the kernel refuses, or one is not as it should be then.
pub(super) fn switch(device: &str, wanted: impl Fn(&str) -> Option<bool>) -> io::Result<()> {
    let wrong = |now: BTreeMap<String, bool>| {
        let other = |(name, on): (String, bool)| {
            wanted(&name).filter(|wanted| *wanted != on).map(|wanted| (name, wanted))
        };
        now.into_iter().filter_map(other).collect::<Vec<_>>()
    };
    let before = wrong(features(device)?);
    if before.is_empty() {
        return Ok(());
    }
    let socket = Socket::new(Domain::UNIX, Type::DGRAM, None)?;
    let names = names(&socket, device)?;
    // struct ethtool_sfeatures: command, blocks, and for each block of 32 which are
    // meant, and which of them should be on.
    let blocks = names.len().div_ceil(32);
    let mut bits = vec![0_u32; 2 + blocks * 2];
    bits[..2].copy_from_slice(&[SFEATURES, u32::try_from(blocks).unwrap_or(0)]);
    for (name, on) in before {
        let Some(index) = names.iter().position(|other| *other == name) else { continue };
        let (block, bit) = (2 + index / 32 * 2, 1 << (index % 32));
        for (word, set) in bits.iter_mut().skip(block).zip([true, on]) {
            *word |= if set { bit } else { 0 };
        }
    }
    ask(&socket, device, &mut bits)?;
    match wrong(features(device)?).as_slice() {
        [] => Ok(()),
        [(name, on), ..] => {
            let state = if *on { "off" } else { "on" };
            Err(io::Error::other(format!("{name} stays {state}")))
        }
    }
}

/// The names of all features, by number.
fn names(socket: &Socket, device: &str) -> io::Result<Vec<String>> {
    // struct ethtool_sset_info: command, reserved, mask, and a count.
    let mut info = [GSSET_INFO, 0, 1 << FEATURES, 0, 0];
    ask(socket, device, &mut info)?;
    let count = usize::try_from(info[4]).unwrap_or(MOST).min(MOST);
    // struct ethtool_gstrings: command, set, length, and the names.
    let mut names = vec![0_u32; 3 + count * NAME / 4];
    names[..3].copy_from_slice(&[GSTRINGS, FEATURES, info[4]]);
    ask(socket, device, &mut names)?;
    let names = names.get(3..).unwrap_or_default().chunks_exact(NAME / 4);
    Ok(names.map(text).collect())
}

/// The text of a name that the kernel has written into words.
fn text(words: &[u32]) -> String {
    let bytes = words.iter().flat_map(|word| word.to_ne_bytes()).take_while(|byte| *byte != 0);
    bytes.map(char::from).collect()
}

/// `buffer` begins with a command and has room for its answer.
pub(super) fn ask(socket: &Socket, device: &str, buffer: &mut [u32]) -> io::Result<()> {
    // SAFETY: all zero is a valid `ifreq`: plain bytes and a null pointer.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if device.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(device.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = buffer.as_mut_ptr().cast();
    // SAFETY: the request names a device and points to a buffer of the length
    // that the command and the counts in it say; both outlive the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_device_tells_its_features_by_their_names() {
        let features = features("lo").expect("every kernel has it");
        assert_eq!(features.get("rx-lro"), Some(&false), "{features:?}");
        assert!(features.contains_key("rx-vlan-hw-parse"), "{features:?}");
        // It never puts a checksum on a wire.
        assert_eq!(features.get("tx-scatter-gather"), Some(&true), "{features:?}");
    }

    #[test]
    fn a_device_that_is_not_there_is_an_error() {
        assert!(features("no-such-device").is_err());
        assert!(features("a-name-that-is-too-long").is_err());
    }
}
