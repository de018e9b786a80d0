//! Addresses of far ends, as the maps have them. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use mwb_common::maps::{BondPath, PathState};

/// The far end of a path as the agent has written it.
pub(super) fn written(path: &BondPath) -> SocketAddr {
    address(path.remote, path.remote_port, path.is_v6)
}

/// Where it has moved to since then, if it has.
pub(super) fn moved(path: &BondPath, state: &PathState) -> Option<SocketAddr> {
    let counts = state.moved == path.generation.wrapping_add(1);
    counts.then(|| address(state.remote, state.remote_port, state.is_v6))
}

/// The far end of a path as packets are sent to it now.
pub(super) fn current(path: &BondPath, state: &PathState) -> SocketAddr {
    moved(path, state).unwrap_or_else(|| written(path))
}

/// The path with another far end.
pub(super) fn with_remote(path: &BondPath, remote: SocketAddr) -> BondPath {
    let mut bytes = [0; 16];
    match remote.ip() {
        IpAddr::V4(address) => bytes[..4].copy_from_slice(&address.octets()),
        IpAddr::V6(address) => bytes = address.octets(),
    }
    BondPath {
        remote: bytes,
        remote_port: remote.port().to_be_bytes(),
        is_v6: remote.is_ipv6().into(),
        generation: path.generation.wrapping_add(1),
        ..*path
    }
}

fn address(bytes: [u8; 16], port: [u8; 2], is_v6: u8) -> SocketAddr {
    let [a, b, c, d, ..] = bytes;
    let address: IpAddr = match is_v6 {
        0 => Ipv4Addr::new(a, b, c, d).into(),
        _ => Ipv6Addr::from(bytes).into(),
    };
    SocketAddr::new(address, u16::from_be_bytes(port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_far_end_is_what_was_written_until_it_moves() {
        let here: SocketAddr = "198.51.100.2:7000".parse().expect("an address");
        let there: SocketAddr = "[2001:db8::7]:4100".parse().expect("an address");
        let path = with_remote(&BondPath::default(), here);
        assert_eq!((path.generation, path.remote_port), (1, [0x1b, 0x58]));
        let mut state = PathState::default();
        assert_eq!(current(&path, &state), here);
        let moved_to = with_remote(&path, there);
        (state.remote, state.remote_port, state.is_v6) =
            (moved_to.remote, moved_to.remote_port, moved_to.is_v6);
        // It counts for the entry that it was seen under, and no other.
        state.moved = path.generation + 1;
        assert_eq!(current(&path, &state), there);
        assert_eq!(moved(&moved_to, &state), None);
    }
}
