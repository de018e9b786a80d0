//! Reading of the two ends of a bond.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::{IpNet, Ipv6Net};
use mwb_common::integrity::Suite;
use mwb_common::maps::OWNER_ENTRIES;

use super::bond::{Bond, Client, DATA_PLANE_END, Endpoint, Server, suite_name};
use super::prefix::{check_host_bits, read_net};
use super::read::{check_count, read_path};
use super::reader::{Cursor, Fault, Fields};
use super::wans::{Devices, read_name};
use super::{schema, units};
use crate::bond::PublicKey;

/// All suites, the best first.
const SUITES: [Suite; 3] = [Suite::ChaCha20Poly1305, Suite::SipHash, Suite::Crc32];
/// The name of the device where the file gives none.
const DEVICE: &str = "mwb0";
/// The UDP port where the file gives none.
const PORT: u32 = 7_000;

/// The gateway's end.
pub(super) fn read_bond(
    bond: &Fields<'_>,
    dead_after: Duration,
    devices: &mut Devices,
) -> Result<Bond, Fault> {
    Ok(Bond {
        servers: read_endpoints(bond.required("server")?)?,
        private_key_file: read_path(bond.required("private_key_file")?, "/etc/mwb/private.key")?,
        server_public_key: read_public_key(bond.required("server_public_key")?)?,
        suite: bond.or("suite", Suite::ChaCha20Poly1305, read_suite)?,
        port: read_port(bond, &schema::BOND_PORT)?,
        device: read_device(bond, devices)?,
        addresses: read_addresses(bond.required("addresses")?)?,
        probe_interval: bond.or("probe_interval", probe_interval(dead_after), |at| {
            read_probe_interval(at, dead_after)
        })?,
        elephant: bond.or("elephant", 5_000_000, |at| at.rate(&schema::ELEPHANT))?,
    })
}

/// The server's end. `devices` has its WANs' already.
pub(super) fn read_server(
    server: &Fields<'_>,
    dead_after: Duration,
    inside: Option<Ipv6Net>,
    devices: &mut Devices,
) -> Result<Server, Fault> {
    let addresses = read_addresses(server.required("addresses")?)?;
    let suites = server.or("suites", vec![Suite::ChaCha20Poly1305], read_suites)?;
    let clients = Among { addresses: &addresses, suites: &suites, inside };
    Ok(Server {
        private_key_file: read_path(server.required("private_key_file")?, "/etc/mwb/private.key")?,
        port: read_port(server, &schema::SERVER_PORT)?,
        device: read_device(server, devices)?,
        clients: clients.read(server.required("clients")?)?,
        addresses,
        suites,
        probe_interval: probe_interval(dead_after),
    })
}

/// Where the file gives none: two lost probes do not kill a path.
fn probe_interval(dead_after: Duration) -> Duration {
    (dead_after / 3).clamp(*schema::PROBE_INTERVAL.start(), *schema::PROBE_INTERVAL.end())
}

fn read_probe_interval(at: &Cursor<'_>, dead_after: Duration) -> Result<Duration, Fault> {
    let interval = at.duration(&schema::PROBE_INTERVAL)?;
    let most = dead_after / 2;
    if interval <= most {
        return Ok(interval);
    }
    let dead_after = units::show_duration(dead_after);
    Err(at.fault(
        format!(
            "`{}` leaves no room for a lost probe: `failover.dead_after` is {dead_after}",
            at.show()
        ),
        format!("choose at most {}", units::show_duration(most)),
    ))
}

fn read_port(section: &Fields<'_>, range: &RangeInclusive<u32>) -> Result<u16, Fault> {
    let port = section.or("port", PORT, |at| at.integer(range))?;
    Ok(u16::try_from(port).unwrap_or(u16::MAX))
}

/// The name of the kernel's end; that of the other one is taken as well.
fn read_device(section: &Fields<'_>, devices: &mut Devices) -> Result<String, Fault> {
    let Some(at) = section.get("device") else {
        let taken = |name: &str| devices.has(name);
        if taken(DEVICE) || taken(&format!("{DEVICE}{DATA_PLANE_END}")) {
            return Err(section.fault(
                format!(
                    "the bond's device is `{DEVICE}`, and there is a LAN port or a WAN of that name"
                ),
                "give the bond another `device`",
            ));
        }
        devices.take(DEVICE);
        devices.take(&format!("{DEVICE}{DATA_PLANE_END}"));
        return Ok(DEVICE.to_owned());
    };
    let device = devices.read(at)?;
    if device.len() > schema::BOND_DEVICE_LENGTH {
        return Err(at.fault(
            format!("`{device}` is too long: its other end is `{device}{DATA_PLANE_END}`"),
            format!("use at most {} characters", schema::BOND_DEVICE_LENGTH),
        ));
    }
    let other_end = format!("{device}{DATA_PLANE_END}");
    if devices.has(&other_end) {
        return Err(at.fault(
            format!("its other end is `{other_end}`, which already is a LAN port or a WAN"),
            "choose another name",
        ));
    }
    devices.take(&other_end);
    Ok(device)
}

fn read_endpoints(at: &Cursor<'_>) -> Result<Vec<Endpoint>, Fault> {
    let items = if at.is_list() { at.items(ENDPOINT)? } else { vec![at.clone()] };
    check_count(at, items.len(), schema::ENDPOINTS, "addresses of the server")?;
    let mut endpoints = Vec::with_capacity(items.len());
    for item in &items {
        let endpoint = read_endpoint(item)?;
        if endpoints.contains(&endpoint) {
            return Err(item.fault(format!("`{endpoint}` is given twice"), "remove one of the two"));
        }
        endpoints.push(endpoint);
    }
    Ok(endpoints)
}

/// How the address of a server may look.
const ENDPOINT: &str = "\"203.0.113.250:7000\", \"[2001:db8::1]:7000\" or vpn.example.net:7000";

fn read_endpoint(at: &Cursor<'_>) -> Result<Endpoint, Fault> {
    let endpoint = at.parsed("an address of a server with its port", ENDPOINT, parse_endpoint)?;
    match &endpoint {
        Endpoint::Address(address) if !is_host(address.ip()) => Err(at.fault(
            format!("`{}` cannot be the address of a server", address.ip()),
            format!("write it like {ENDPOINT}"),
        )),
        _ => Ok(endpoint),
    }
}

fn parse_endpoint(text: &str) -> Option<Endpoint> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return (address.port() > 0).then_some(Endpoint::Address(address));
    }
    let (host, port) = text.rsplit_once(':')?;
    let digits = port.bytes().all(|b| b.is_ascii_digit());
    let port: u16 = if digits { port.parse().ok()? } else { return None };
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // Digits at the end are an address that is not right (RFC 3696, 2).
    let is_name = host.len() <= 253
        && host.split('.').all(label)
        && host.rsplit('.').next().is_some_and(|last| last.bytes().any(|b| !b.is_ascii_digit()));
    (is_name && port > 0).then(|| Endpoint::Name { host: host.to_owned(), port })
}

fn read_public_key(at: &Cursor<'_>) -> Result<PublicKey, Fault> {
    let text = at.text("\"44 characters of base64\"")?;
    text.parse().map_err(|error| {
        at.fault(
            format!("`{}` is no public key: {error}", at.show()),
            "write what `mwb pubkey < FILE` prints for the private key of the other end",
        )
    })
}

fn read_suite(at: &Cursor<'_>) -> Result<Suite, Fault> {
    at.word(&SUITES.map(|suite| (suite_name(suite), suite)), &[])
}

fn read_suites(at: &Cursor<'_>) -> Result<Vec<Suite>, Fault> {
    let items = at.items("[chacha20poly1305, siphash]")?;
    check_count(at, items.len(), SUITES.len(), "suites")?;
    let mut suites = Vec::with_capacity(items.len());
    for item in &items {
        let suite = read_suite(item)?;
        if suites.contains(&suite) {
            let name = suite_name(suite);
            return Err(item.fault(format!("`{name}` is given twice"), "remove one of the two"));
        }
        suites.push(suite);
    }
    Ok(suites)
}

/// The addresses of a bond's device.
fn read_addresses(at: &Cursor<'_>) -> Result<Vec<IpNet>, Fault> {
    let items = at.items("[192.0.2.129/32, \"2001:db8:a:f::1/128\"]")?;
    check_count(at, items.len(), schema::ADDRESSES, "addresses")?;
    let mut addresses: Vec<IpNet> = Vec::with_capacity(items.len());
    for item in &items {
        let address = read_net(item, "an address with the length of its subnet", "192.0.2.129/32")?;
        let host_bits = address.max_prefix_len() - address.prefix_len();
        let is_network = host_bits > 1 && address.addr() == address.network();
        let is_broadcast =
            host_bits > 1 && address.addr().is_ipv4() && address.addr() == address.broadcast();
        if !is_host(address.addr()) || is_network || is_broadcast {
            return Err(item.fault(
                format!("`{address}` is no address of a host"),
                "write an address that is free, and the length of its subnet",
            ));
        }
        if addresses.iter().any(|other| other.addr() == address.addr()) {
            return Err(
                item.fault(format!("`{}` is given twice", address.addr()), "remove one of the two")
            );
        }
        addresses.push(address);
    }
    Ok(addresses)
}

fn is_host(ip: IpAddr) -> bool {
    let special = match ip {
        IpAddr::V4(ip) => ip.is_broadcast() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !special && !ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast()
}

/// What the clients of a server must fit.
struct Among<'s> {
    addresses: &'s [IpNet],
    suites: &'s [Suite],
    /// The file's `ipv6_prefix`.
    inside: Option<Ipv6Net>,
}

impl Among<'_> {
    fn read(&self, at: &Cursor<'_>) -> Result<Vec<Client>, Fault> {
        let items = at.items("[{name: site1, public_key: \"…\", prefixes: [192.0.2.0/26]}]")?;
        check_count(at, items.len(), schema::CLIENTS, "clients")?;
        let mut clients: Vec<Client> = Vec::with_capacity(items.len());
        for item in &items {
            let fields = item.fields(&schema::CLIENT)?;
            let client = self.read_client(&fields, &clients)?;
            clients.push(client);
        }
        for (is_v6, family) in [(false, "IPv4"), (true, "IPv6")] {
            let prefixes = clients.iter().flat_map(|client| &client.prefixes);
            let count = prefixes.filter(|prefix| prefix.addr().is_ipv6() == is_v6).count();
            if count > OWNER_ENTRIES {
                return Err(at.fault(
                    format!("all clients together have {count} {family} prefixes"),
                    format!("give them at most {OWNER_ENTRIES}"),
                ));
            }
        }
        Ok(clients)
    }

    fn read_client(&self, client: &Fields<'_>, others: &[Client]) -> Result<Client, Fault> {
        let name = read_name(client.required("name")?, "a client", schema::CLIENT_NAME_LENGTH)?;
        if others.iter().any(|other| other.name == name) {
            return Err(client
                .required("name")?
                .fault(format!("two clients are named `{name}`"), "name one of them otherwise"));
        }
        let at = client.required("public_key")?;
        let public_key = read_public_key(at)?;
        if let Some(other) = others.iter().find(|other| other.public_key == public_key) {
            return Err(at.fault(
                format!("client `{}` has this key too", other.name),
                "make each client a private key of its own with `mwb keygen`",
            ));
        }
        Ok(Client {
            name,
            public_key,
            prefixes: self.read_prefixes(client.required("prefixes")?, others)?,
            suites: client.or("suites", self.suites.to_vec(), |at| self.read_suites(at))?,
        })
    }

    /// A client's own; none that the server does not accept.
    fn read_suites(&self, at: &Cursor<'_>) -> Result<Vec<Suite>, Fault> {
        let suites = read_suites(at)?;
        match suites.iter().find(|suite| !self.suites.contains(suite)) {
            None => Ok(suites),
            Some(suite) => Err(at.fault(
                format!("the server does not accept `{}`", suite_name(*suite)),
                "add it to `server.suites`, or remove it here",
            )),
        }
    }

    fn read_prefixes(&self, at: &Cursor<'_>, others: &[Client]) -> Result<Vec<IpNet>, Fault> {
        let items = at.items("[192.0.2.0/26, \"2001:db8:a::/48\"]")?;
        check_count(at, items.len(), schema::CLIENT_PREFIXES, "prefixes")?;
        let mut prefixes: Vec<IpNet> = Vec::with_capacity(items.len());
        for item in &items {
            let prefix = self.read_prefix(item)?;
            let of = |owner: &str, other: &IpNet| {
                item.fault(
                    format!("`{prefix}` and `{other}` of {owner} have addresses in common"),
                    "give each address to one client, once",
                )
            };
            if let Some(other) = prefixes.iter().find(|other| overlap(other, &prefix)) {
                return Err(of("the same client", other));
            }
            for client in others {
                if let Some(other) = client.prefixes.iter().find(|other| overlap(other, &prefix)) {
                    return Err(of(&format!("client `{}`", client.name), other));
                }
            }
            prefixes.push(prefix);
        }
        Ok(prefixes)
    }

    fn read_prefix(&self, at: &Cursor<'_>) -> Result<IpNet, Fault> {
        let prefix = read_net(at, "a prefix", "192.0.2.0/26")?;
        check_host_bits(at, prefix)?;
        let network = prefix.network();
        if prefix.prefix_len() == 0 || !is_host(network) {
            return Err(at.fault(
                format!("hosts cannot have addresses from `{prefix}`"),
                "write the prefix that the hosts behind this client have",
            ));
        }
        if let Some(own) = self.addresses.iter().find(|own| prefix.contains(&own.addr())) {
            return Err(at.fault(
                format!("`{}` in it is the server's own address", own.addr()),
                "take another prefix, or another address for `server.addresses`",
            ));
        }
        if let (IpNet::V6(prefix), Some(inside)) = (prefix, self.inside)
            && !inside.contains(&prefix)
        {
            return Err(at.fault(
                format!("`{prefix}` is not inside `{inside}`, the file's `ipv6_prefix`"),
                "widen `ipv6_prefix`, or write a prefix inside it",
            ));
        }
        if prefix.addr().is_ipv6() && self.inside.is_none() {
            return Err(at.fault(
                format!("`{prefix}` leads nowhere: the server carries no IPv6"),
                "add `ipv6_prefix` with the prefix that the provider routes to the server",
            ));
        }
        Ok(prefix)
    }
}

fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}
