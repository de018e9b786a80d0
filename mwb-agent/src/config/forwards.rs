//! Reading of port forwards.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::reader::{Cursor, Fault, Fields};
use super::{Forward, ForwardProtocol, Nat, Wan, schema, units};

/// The list of a WAN's forwards.
pub(super) fn read_forwards(at: &Cursor<'_>) -> Result<Vec<Forward>, Fault> {
    let items = at.items("[{protocol: tcp, port: 443, to: \"192.0.2.10:443\"}]")?;
    if items.len() > schema::FORWARDS {
        return Err(at.fault(
            format!("{} forwards", items.len()),
            format!(
                "give at most {}, or put ports that follow each other in one",
                schema::FORWARDS
            ),
        ));
    }
    let mut forwards: Vec<Forward> = Vec::with_capacity(items.len());
    for item in &items {
        let fields = item.fields(&schema::FORWARD)?;
        let forward = read_forward(&fields)?;
        if let Some((index, port)) = overlap(&forwards, &forward) {
            return Err(fields.required("port")?.fault(
                format!("{} port {port} of this WAN is forwarded twice", forward.protocol.name()),
                format!("take it out here or of the forward number {}", index + 1),
            ));
        }
        forwards.push(forward);
    }
    Ok(forwards)
}

/// The forward before that has a port of this one too, and the first such port.
fn overlap(others: &[Forward], forward: &Forward) -> Option<(usize, u16)> {
    others.iter().enumerate().find_map(|(index, other)| {
        let first = other.port_min.max(forward.port_min);
        let last = other.port_max.min(forward.port_max);
        (other.protocol == forward.protocol && first <= last).then_some((index, first))
    })
}

fn read_forward(forward: &Fields<'_>) -> Result<Forward, Fault> {
    let words = [ForwardProtocol::Tcp, ForwardProtocol::Udp].map(|word| (word.name(), word));
    let protocol = forward.required("protocol")?.word(&words, &[])?;
    let (port_min, port_max) = read_ports(forward.required("port")?)?;
    let at = forward.required("to")?;
    let (to, to_port) = read_target(at)?;
    let to_port = to_port.unwrap_or(port_min);
    if to_port.checked_add(port_max - port_min).is_none() {
        return Err(at.fault(
            format!("{} ports from {to_port} on go beyond 65535", port_max - port_min + 1),
            format!("begin at {} or lower", u16::MAX - (port_max - port_min)),
        ));
    }
    Ok(Forward { protocol, port_min, port_max, to, to_port })
}

fn read_ports(at: &Cursor<'_>) -> Result<(u16, u16), Fault> {
    let range = &schema::FORWARD_PORT;
    if at.is_integer() {
        let port = at.integer(&(u32::from(*range.start())..=u32::from(*range.end())))?;
        let port = u16::try_from(port).unwrap_or(u16::MAX);
        return Ok((port, port));
    }
    let (low, high) = at.parsed("a port or a range of ports", "443 or 5000-5010", |text| {
        units::parse_ports(text).or_else(|| text.parse().ok().map(|port: u16| (port, port)))
    })?;
    let show = |port: &u16| port.to_string();
    Ok((at.within(low, range, show)?, at.within(high, range, show)?))
}

/// An inside host, with the port if there is one.
fn read_target(at: &Cursor<'_>) -> Result<(Ipv4Addr, Option<u16>), Fault> {
    let example = "\"192.0.2.10:443\" or 192.0.2.10";
    let (address, port) = at.parsed("an inside host with or without a port", example, |text| {
        let whole = text.parse::<SocketAddr>().map(|whole| (whole.ip(), Some(whole.port())));
        whole.or_else(|_| text.parse::<IpAddr>().map(|address| (address, None))).ok()
    })?;
    let IpAddr::V4(address) = address else {
        return Err(at.fault(
            format!("`{}` is not an IPv4 host: forwards are for IPv4", at.show()),
            format!("write it like {example}"),
        ));
    };
    if address.is_unspecified()
        || address.is_loopback()
        || address.is_multicast()
        || address.is_broadcast()
        || address.is_link_local()
    {
        return Err(at.fault(
            format!("`{address}` cannot be a host behind the gateway"),
            format!("write it like {example}"),
        ));
    }
    if port == Some(0) {
        return Err(at.fault("port 0 cannot be sent to", format!("write it like {example}")));
    }
    Ok((address, port))
}

/// Forwards share the port table with everything else.
pub(super) fn check_room(at: &Cursor<'_>, wans: &[Wan], nat: &Nat) -> Result<(), Fault> {
    let ports = |forward: &Forward| u32::from(forward.port_max - forward.port_min) + 1;
    let taken: u32 = wans.iter().flat_map(|wan| &wan.forwards).map(ports).sum();
    let most = schema::FORWARDED_PORTS.min(nat.flows / 2);
    if taken <= most {
        return Ok(());
    }
    Err(at.fault(
        format!("all forwards together take {taken} ports"),
        format!("forward at most {most}: 4096, or half of `nat.flows` if that is less"),
    ))
}
