//! The packet that is asked about, as people write it and as keys.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use mwb_common::maps::{FlowKey4, FlowKey6};
use mwb_common::nat::{key4, key6, protocol};

use crate::api::flows::{Endpoint, Protocol};

/// The first packet of a flow from the LAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// What it carries.
    pub proto: Protocol,
    /// From.
    pub source: Endpoint,
    /// To.
    pub destination: Endpoint,
    /// What the WAN side sees in the place of the source, if it was named.
    pub outside: Option<Endpoint>,
}

/// The text names no packet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}; write `tcp 192.0.2.10:1234 203.0.113.5:443`, or a flow as `mwb flows` shows it")]
pub struct NotAPacket(String);

impl NotAPacket {
    pub(super) fn new(what: String) -> Self {
        Self(what)
    }
}

impl Packet {
    /// Its key, if it is IPv4.
    #[must_use]
    pub fn key4(&self) -> Option<FlowKey4> {
        let (IpAddr::V4(source), IpAddr::V4(destination)) =
            (self.source.address, self.destination.address)
        else {
            return None;
        };
        Some(key4(source.octets(), destination.octets(), self.ports(), self.number(), 0))
    }

    /// Its key, if it is IPv6.
    #[must_use]
    pub fn key6(&self) -> Option<FlowKey6> {
        let (IpAddr::V6(source), IpAddr::V6(destination)) =
            (self.source.address, self.destination.address)
        else {
            return None;
        };
        Some(key6(source.octets(), destination.octets(), self.ports(), self.number(), 0))
    }

    /// Its protocol number.
    #[must_use]
    pub const fn number(&self) -> u8 {
        match self.proto {
            Protocol::Tcp => protocol::TCP,
            Protocol::Udp => protocol::UDP,
            Protocol::Icmp => protocol::ICMP,
            Protocol::Icmpv6 => protocol::ICMPV6,
            Protocol::Sctp => protocol::SCTP,
            Protocol::Gre => protocol::GRE,
            Protocol::Esp => protocol::ESP,
        }
    }

    fn ports(&self) -> [u8; 4] {
        let [a, b] = self.source.port.unwrap_or(0).to_be_bytes();
        let [c, d] = self.destination.port.unwrap_or(0).to_be_bytes();
        [a, b, c, d]
    }
}

impl FromStr for Packet {
    type Err = NotAPacket;

    fn from_str(text: &str) -> Result<Self, NotAPacket> {
        // Arrows are how the table draws a flow.
        let arrows = ["->", "→", ">"];
        let words: Vec<&str> =
            text.split_whitespace().filter(|word| !arrows.contains(word)).collect();
        let wrong = |what: String| Err(NotAPacket(what));
        let (proto, ends) = match words.as_slice() {
            [proto, ends @ ..] if (2..=3).contains(&ends.len()) => (*proto, ends),
            _ => return wrong(format!("`{text}` is not a protocol and two or three endpoints")),
        };
        let proto = proto.to_ascii_lowercase().parse::<Protocol>().map_err(NotAPacket)?;
        let ends: Vec<Endpoint> = ends.iter().map(|end| endpoint(end)).collect::<Result<_, _>>()?;
        let (source, outside, destination) = match ends.as_slice() {
            [source, destination] => (*source, None, *destination),
            [source, outside, destination] => (*source, Some(*outside), *destination),
            _ => return wrong(format!("`{text}` has no endpoints")),
        };
        let family = |end: Endpoint| end.address.is_ipv4();
        if family(source) != family(destination) {
            return wrong(format!("{source} and {destination} are of different address families"));
        }
        match (proto, family(source)) {
            (Protocol::Icmp, false) => return wrong("over IPv6 it is icmpv6".to_owned()),
            (Protocol::Icmpv6, true) => return wrong("over IPv4 it is icmp".to_owned()),
            (Protocol::Gre | Protocol::Esp | Protocol::Sctp, false) => {
                return wrong(format!("{} is translated over IPv4 only", proto.name()));
            }
            _ => {}
        }
        let ported = |end: Endpoint, has: bool, what: &str| match (has, end.port) {
            (true, None) => Err(NotAPacket(format!("{what} {end} needs a port"))),
            (false, Some(_)) => {
                Err(NotAPacket(format!("{what} {end} has no port in {}", proto.name())))
            }
            _ => Ok(()),
        };
        let has_ports = matches!(proto, Protocol::Tcp | Protocol::Udp | Protocol::Sctp);
        let echo = matches!(proto, Protocol::Icmp | Protocol::Icmpv6);
        if !(echo && source.port.is_none()) {
            ported(source, has_ports || echo, "the source")?;
        }
        ported(destination, has_ports, "the destination")?;
        Ok(Self { proto, source, destination, outside })
    }
}

/// `192.0.2.1:80`, `[2001:db8::1]:80` or an address alone.
fn endpoint(text: &str) -> Result<Endpoint, NotAPacket> {
    if let Ok(both) = text.parse::<SocketAddr>() {
        return Ok(Endpoint { address: both.ip(), port: Some(both.port()) });
    }
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let v6 = bare.parse::<Ipv6Addr>().map(IpAddr::from);
    let address = v6.or_else(|_| bare.parse::<Ipv4Addr>().map(IpAddr::from));
    address
        .map(|address| Endpoint { address, port: None })
        .map_err(|_| NotAPacket(format!("`{text}` is no address with or without a port")))
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.proto.name(), self.source, self.destination)
    }
}
