//! The little world of addresses that every test shares: documentation ranges
//! only (RFC 5737, RFC 3849).
//!
//! ```text
//! host                  gw                    isp<n>                net
//! 192.0.2.10/26 ───── .1   .2+16i/28 ─────── .1+16i   .1+4i/30 ──── .2+4i
//!        LAN 192.0.2.0/26   198.51.100.16i        203.0.113.4i      203.0.113.250
//! 2001:db8:a:1::10 ── ::1  ::2 ───────────── ::1      ::1 ───────── ::2
//!        inside 2001:db8:a::/48  2001:db8:f00n::/64  2001:db8:e00n::/64  2001:db8:ff::1
//!        outside of WAN n (NPTv6): 2001:db8:10n::/48
//! ```
//! `i` counts from 0, `n = i + 1` is the number in names and IPv6 prefixes.
//!
//! With a server, the Internet has one more neighbour, and what is inside the bond
//! has addresses of its own:
//!
//! ```text
//! net srv0                         srv eth0          inside
//! 203.0.113.129/30 ─────────────── .130              srv  10.100.0.1/16, 2001:db8:5f::1
//! 2001:db8:5e::1 ───────────────── ::2               gw   10.100.0.2,    2001:db8:a:f::1
//! ```

use std::net::{Ipv4Addr, Ipv6Addr};

/// Most WANs a lab can have.
pub const MAX_WANS: usize = 8;

/// The LAN host.
pub const HOST4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
/// The gateway on the LAN.
pub const GATEWAY4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// Length of the LAN's IPv4 prefix.
pub const LAN4_LENGTH: u8 = 26;
/// The LAN host.
pub const HOST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xa, 1, 0, 0, 0, 0x10);
/// The gateway on the LAN.
pub const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xa, 1, 0, 0, 0, 1);
/// The inside prefix that NPTv6 translates.
pub const INSIDE6: &str = "2001:db8:a::/48";
/// The server on the Internet, reached through every provider.
pub const NET4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 250);
/// A second server address, so that a destination can differ.
pub const NET4_SECOND: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 251);
/// The server on the Internet, reached through every provider.
pub const NET6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xff, 0, 0, 0, 0, 1);

/// The Internet's side of its link to the server.
pub const NET_SERVER4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 129);
/// The server (the concentrator) on the Internet.
pub const SERVER4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 130);
/// The Internet's side of its link to the server.
pub const NET_SERVER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x5e, 0, 0, 0, 0, 1);
/// The server on the Internet.
pub const SERVER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x5e, 0, 0, 0, 0, 2);
/// UDP port of the bond at both ends.
pub const BOND_PORT: u16 = 7000;
/// The server inside the bond; the clients' addresses are of the same prefix.
pub const INNER_SERVER4: Ipv4Addr = Ipv4Addr::new(10, 100, 0, 1);
/// Length of that prefix.
pub const INNER4_LENGTH: u8 = 16;
/// The server inside the bond.
pub const INNER_SERVER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x5f, 0, 0, 0, 0, 1);
/// The gateway inside the bond.
pub const INNER_GATEWAY4: Ipv4Addr = Ipv4Addr::new(10, 100, 0, 2);
/// The gateway inside the bond.
pub const INNER_GATEWAY6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xa, 0xf, 0, 0, 0, 1);
/// The LAN's IPv4 prefix.
pub const LAN4: &str = "192.0.2.0/26";

/// Provider `i`'s side of its link to the gateway.
#[must_use]
pub fn provider4(i: usize) -> Ipv4Addr {
    Ipv4Addr::new(198, 51, 100, octet(16 * i + 1))
}

/// The gateway's address on WAN `i`.
#[must_use]
pub fn wan4(i: usize) -> Ipv4Addr {
    Ipv4Addr::new(198, 51, 100, octet(16 * i + 2))
}

/// Provider `i`'s side of its link to the gateway.
#[must_use]
pub fn provider6(i: usize) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0xf000 + hextet(i + 1), 0, 0, 0, 0, 1)
}

/// The gateway's address on WAN `i`.
#[must_use]
pub fn wan6(i: usize) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0xf000 + hextet(i + 1), 0, 0, 0, 0, 2)
}

/// The prefix that provider `i` delegates, for NPTv6.
#[must_use]
pub fn outside6(i: usize) -> String {
    format!("2001:db8:{:x}::/48", 0x100 + i + 1)
}

/// Whether an address is in provider `i`'s delegated prefix.
#[must_use]
pub fn is_outside6(i: usize, address: Ipv6Addr) -> bool {
    address.segments()[..3] == [0x2001, 0xdb8, 0x100 + hextet(i + 1)]
}

/// Provider `i`'s side of its link to the Internet.
#[must_use]
pub fn provider_uplink4(i: usize) -> Ipv4Addr {
    Ipv4Addr::new(203, 0, 113, octet(4 * i + 1))
}

/// The Internet's side of that link.
#[must_use]
pub fn net_uplink4(i: usize) -> Ipv4Addr {
    Ipv4Addr::new(203, 0, 113, octet(4 * i + 2))
}

/// Provider `i`'s side of its link to the Internet.
#[must_use]
pub fn provider_uplink6(i: usize) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0xe000 + hextet(i + 1), 0, 0, 0, 0, 1)
}

/// The Internet's side of that link.
#[must_use]
pub fn net_uplink6(i: usize) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0xe000 + hextet(i + 1), 0, 0, 0, 0, 2)
}

fn octet(value: usize) -> u8 {
    u8::try_from(value).unwrap_or(u8::MAX)
}

fn hextet(value: usize) -> u16 {
    u16::try_from(value).unwrap_or(u16::MAX)
}
