//! From the tree to a [`Config`]: meaning, defaults, and rules that span keys.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::Ipv6Net;

use super::prefix::{read_bypass, read_ipv6_prefix};
use super::reader::{Cursor, Fault, Fields};
use super::{
    Api, Balance, Capacity, Config, Degraded, Failover, Gateway, Health, HealthMethod, HookChoice,
    Lan, Mode, Nat, Timeouts, Wan, schema,
};

/// Reads the whole file.
pub(super) fn read_config(root: &Cursor<'_>) -> Result<Config, Fault> {
    let file = root.fields(&schema::FILE)?;
    check_version(&file)?;
    file.or("role", (), |role| role.word(&[("gateway", ())], &["server"]))?;
    let mode = file.required("mode")?.word(&[(Mode::Steer.name(), Mode::Steer)], &["bond"])?;
    let hook = file.or("hook", HookChoice::Auto, read_hook)?;
    let mut devices = Devices::default();
    let lan = read_lans(file.required("lan")?, hook, &mut devices)?;
    let inside = file.get("ipv6_prefix").map(read_ipv6_prefix).transpose()?;
    let wans = read_wans(file.required("wans")?, hook, inside, &mut devices)?;
    let ipv6 = wans.iter().any(|wan| wan.ipv6_prefix.is_some());
    if let Some(at) = file.get("ipv6_prefix")
        && !ipv6
    {
        return Err(at.fault(
            "it has no effect: no WAN has an `ipv6_prefix`",
            "give each WAN that carries IPv6 the prefix its provider routes to it, or remove this",
        ));
    }
    Ok(Config {
        mode,
        lan,
        balance: file.or("balance", Balance::Adaptive, read_balance)?,
        ipv6_prefix: inside,
        bypass: file.or("bypass", Vec::new(), read_bypass)?,
        wans,
        failover: read_failover(&file.section("failover", &schema::FAILOVER)?)?,
        health: read_health(&file.section("health", &schema::HEALTH)?, ipv6)?,
        nat: read_nat(&file.section("nat", &schema::NAT)?)?,
        api: read_api(&file.section("api", &schema::API)?)?,
    })
}

fn check_version(file: &Fields<'_>) -> Result<(), Fault> {
    let at = file.required("version")?;
    match at.integer(&(0..=u32::MAX))? {
        schema::VERSION => Ok(()),
        _ => Err(at.fault(
            format!("version `{}` of the configuration is not known", at.show()),
            format!("write `version: {}`", schema::VERSION),
        )),
    }
}

fn read_hook(at: &Cursor<'_>) -> Result<HookChoice, Fault> {
    at.word(&HookChoice::ALL.map(|hook| (hook.name(), hook)), &[])
}

fn read_balance(at: &Cursor<'_>) -> Result<Balance, Fault> {
    at.word(&Balance::ALL.map(|balance| (balance.name(), balance)), &[])
}

fn read_lans(at: &Cursor<'_>, hook: HookChoice, devices: &mut Devices) -> Result<Vec<Lan>, Fault> {
    let items = at.items("[lan0]")?;
    check_count(at, items.len(), schema::LANS, "LAN ports")?;
    items
        .iter()
        .map(|item| {
            if !item.is_map() {
                return Ok(Lan { device: devices.read(item)?, hook });
            }
            let fields = item.fields(&schema::LAN)?;
            Ok(Lan {
                device: devices.read(fields.required("device")?)?,
                hook: fields.or("hook", hook, read_hook)?,
            })
        })
        .collect()
}

fn read_wans(
    at: &Cursor<'_>,
    hook: HookChoice,
    inside: Option<Ipv6Net>,
    devices: &mut Devices,
) -> Result<Vec<Wan>, Fault> {
    let items = at.items("[{name: fiber, device: wan0}]")?;
    check_count(at, items.len(), schema::WANS, "WANs")?;
    let mut wans: Vec<Wan> = Vec::with_capacity(items.len());
    for item in &items {
        let fields = item.fields(&schema::WAN)?;
        let wan = read_wan(&fields, hook, inside, devices)?;
        check_wan_among(&wan, &fields, &wans)?;
        wans.push(wan);
    }
    Ok(wans)
}

fn read_wan(
    wan: &Fields<'_>,
    hook: HookChoice,
    inside: Option<Ipv6Net>,
    devices: &mut Devices,
) -> Result<Wan, Fault> {
    let ipv6_prefix = match wan.get("ipv6_prefix") {
        Some(at) => Some(read_outside_prefix(at, inside)?),
        None => None,
    };
    if let Some(at) = wan.get("gateway6")
        && ipv6_prefix.is_none()
    {
        return Err(at.fault(
            "it has no effect: the WAN has no `ipv6_prefix`",
            "give the WAN the prefix its provider routes to it, or remove this",
        ));
    }
    let capacity = wan.section("capacity", &schema::CAPACITY)?;
    let rate = |key| capacity.get(key).map(|at| at.rate(&schema::RATE)).transpose();
    let weight = wan.or("weight", 100, |at| at.integer(&schema::WEIGHT))?;
    let priority = wan.or("priority", 0, |at| at.integer(&schema::PRIORITY))?;
    Ok(Wan {
        name: read_name(wan.required("name")?)?,
        device: devices.read(wan.required("device")?)?,
        gateway4: wan.or("gateway", Gateway::Auto, read_gateway4)?,
        gateway6: wan.or("gateway6", Gateway::Auto, read_gateway6)?,
        // Both ranges fit their types.
        priority: u8::try_from(priority).unwrap_or(u8::MAX),
        weight: u16::try_from(weight).unwrap_or(u16::MAX),
        capacity: Capacity { up: rate("up")?, down: rate("down")? },
        hook: wan.or("hook", hook, read_hook)?,
        ipv6_prefix,
    })
}

fn read_name(at: &Cursor<'_>) -> Result<String, Fault> {
    let text = at.text("fiber")?;
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c);
    if text.is_empty() || text.len() > schema::NAME_LENGTH || !text.chars().all(plain) {
        return Err(at.fault(
            format!("`{}` cannot be the name of a WAN", at.show()),
            format!("use 1 to {} of a-z, 0-9, `_` and `-`", schema::NAME_LENGTH),
        ));
    }
    // Counters of packets without a WAN are listed under this word.
    if text == "none" {
        return Err(at.fault("`none` cannot be the name of a WAN", "choose another name"));
    }
    Ok(text.to_owned())
}

fn read_outside_prefix(at: &Cursor<'_>, inside: Option<Ipv6Net>) -> Result<Ipv6Net, Fault> {
    let prefix = read_ipv6_prefix(at)?;
    let Some(inside) = inside else {
        return Err(at.fault(
            "it has no effect: the prefix of the LAN is not given",
            "add `ipv6_prefix` with the LAN's prefix at the top of the file, or remove this",
        ));
    };
    if prefix.prefix_len() != inside.prefix_len() {
        return Err(at.fault(
            format!(
                "`{prefix}` and the LAN's `{inside}` differ in length: they are translated one to one"
            ),
            format!("use a /{} here and there", inside.prefix_len().max(prefix.prefix_len())),
        ));
    }
    Ok(prefix)
}

/// Rules between a WAN and those before it.
fn check_wan_among(wan: &Wan, fields: &Fields<'_>, others: &[Wan]) -> Result<(), Fault> {
    if others.iter().any(|other| other.name == wan.name) {
        return Err(fields
            .required("name")?
            .fault(format!("two WANs are named `{}`", wan.name), "name one of them otherwise"));
    }
    let Some(prefix) = wan.ipv6_prefix else { return Ok(()) };
    let same = others.iter().find(|other| other.ipv6_prefix == Some(prefix));
    match same {
        Some(other) => Err(fields.required("ipv6_prefix")?.fault(
            format!("`{prefix}` is the prefix of WAN `{}` too", other.name),
            "each WAN needs the prefix that its own provider routes to it",
        )),
        None => Ok(()),
    }
}

fn read_gateway4(at: &Cursor<'_>) -> Result<Gateway<Ipv4Addr>, Fault> {
    read_gateway(at, "192.0.2.1", |address: &Ipv4Addr| {
        !address.is_unspecified()
            && !address.is_loopback()
            && !address.is_multicast()
            && !address.is_broadcast()
    })
}

fn read_gateway6(at: &Cursor<'_>) -> Result<Gateway<Ipv6Addr>, Fault> {
    read_gateway(at, "fe80::1", |address: &Ipv6Addr| {
        !address.is_unspecified() && !address.is_loopback() && !address.is_multicast()
    })
}

fn read_gateway<A: std::str::FromStr>(
    at: &Cursor<'_>,
    example: &str,
    usable: impl Fn(&A) -> bool,
) -> Result<Gateway<A>, Fault> {
    let family = if example.contains(':') { "an IPv6" } else { "an IPv4" };
    at.parsed(&format!("`auto` or {family} gateway"), &format!("auto or {example}"), |text| {
        if text == "auto" {
            return Some(Gateway::Auto);
        }
        text.parse().ok().filter(usable).map(Gateway::Address)
    })
}

fn read_failover(failover: &Fields<'_>) -> Result<Failover, Fault> {
    let failback_after = failover
        .or("failback_after", Duration::from_secs(5), |at| at.duration(&schema::FAILBACK_AFTER))?;
    Ok(Failover { failback_after })
}

/// `ipv6`: whether a WAN carries it.
fn read_health(health: &Fields<'_>, ipv6: bool) -> Result<Health, Fault> {
    let degraded = health.section("degraded", &schema::DEGRADED)?;
    let latency = |at: &Cursor<'_>| at.duration(&schema::LATENCY);
    Ok(Health {
        method: health.or("method", HealthMethod::Ping, |at| {
            at.word(
                &[("ping", HealthMethod::Ping)],
                &["auto", "http", "https", "dns", "tcp", "exec"],
            )
        })?,
        interval: health
            .or("interval", Duration::from_millis(200), |at| at.duration(&schema::INTERVAL))?,
        retries: health.or("retries", 3, |at| at.integer(&schema::RETRIES))?,
        targets: health.or("targets", Vec::new(), |at| read_targets(at, ipv6))?,
        degraded: Degraded {
            latency: degraded.or("latency", Duration::from_millis(200), latency)?,
            jitter: degraded.or("jitter", Duration::from_millis(100), latency)?,
            loss: degraded.or("loss", 0.05, |at| at.percent(&schema::LOSS))?,
        },
    })
}

fn read_targets(at: &Cursor<'_>, ipv6: bool) -> Result<Vec<IpAddr>, Fault> {
    let items = at.items("[192.0.2.1, \"2001:db8::1\"]")?;
    check_count(at, items.len(), schema::TARGETS, "targets")?;
    let mut targets = Vec::with_capacity(items.len());
    for item in &items {
        let target = item.parsed("an address to ping", "192.0.2.1", |text| {
            let address: IpAddr = text.parse().ok()?;
            let usable =
                !address.is_unspecified() && !address.is_loopback() && !address.is_multicast();
            usable.then_some(address)
        })?;
        if target.is_ipv6() && !ipv6 {
            return Err(item.fault(
                format!("`{target}` has no effect: no WAN has an `ipv6_prefix`"),
                "give a WAN the prefix its provider routes to it, or remove this",
            ));
        }
        if targets.contains(&target) {
            return Err(item.fault(format!("`{target}` is given twice"), "remove one of the two"));
        }
        targets.push(target);
    }
    Ok(targets)
}

fn read_nat(nat: &Fields<'_>) -> Result<Nat, Fault> {
    let (port_min, port_max) = nat.or("ports", schema::PORTS.into_inner(), read_ports)?;
    let timeouts = nat.section("timeouts", &schema::TIMEOUTS)?;
    let timeout = |key, default| {
        timeouts.or(key, Duration::from_secs(default), |at| at.duration(&schema::TIMEOUT))
    };
    Ok(Nat {
        port_min,
        port_max,
        flows: nat.or("flows", 131_072, |at| at.integer(&schema::FLOWS))?,
        timeouts: Timeouts {
            udp: timeout("udp", 300)?,
            icmp: timeout("icmp", 60)?,
            tcp_established: timeout("tcp_established", 7_440)?,
            tcp_transitory: timeout("tcp_transitory", 240)?,
        },
    })
}

fn read_ports(at: &Cursor<'_>) -> Result<(u16, u16), Fault> {
    let ports = at.parsed("a range of ports", "10000-65535", super::units::parse_ports)?;
    if schema::PORTS.contains(&ports.0) {
        return Ok(ports);
    }
    Err(at.fault(
        format!("`{}` is out of range: ports below are the gateway's own", at.show()),
        format!("choose from {} to {}", schema::PORTS.start(), schema::PORTS.end()),
    ))
}

fn read_api(api: &Fields<'_>) -> Result<Api, Fault> {
    let default = SocketAddr::from((Ipv4Addr::LOCALHOST, 9_800));
    Ok(Api {
        listen: api.or("listen", Some(default), read_listen)?,
        socket: api.or("socket", PathBuf::from("/run/mwb/mwb.sock"), read_socket)?,
    })
}

fn read_listen(at: &Cursor<'_>) -> Result<Option<SocketAddr>, Fault> {
    let example = "off, \"127.0.0.1:9800\" or \"[::1]:9800\"";
    let listen = at.parsed("`off` or an address with a port", example, |text| {
        if text == "off" { Some(None) } else { text.parse::<SocketAddr>().ok().map(Some) }
    })?;
    match listen {
        Some(address) if !address.ip().is_loopback() => Err(at.fault(
            format!("`{address}` is not on loopback: the API has no login in this version"),
            format!("listen on 127.0.0.1:{}, or reach it through SSH", address.port()),
        )),
        Some(address) if address.port() == 0 => {
            Err(at.fault(format!("`{address}` has no port"), format!("write it like {example}")))
        }
        _ => Ok(listen),
    }
}

fn read_socket(at: &Cursor<'_>) -> Result<PathBuf, Fault> {
    let text = at.text("/run/mwb/mwb.sock")?;
    if !text.starts_with('/') || text.len() > schema::SOCKET_LENGTH || text.contains('\0') {
        return Err(at.fault(
            format!("`{}` cannot be the path of a unix socket", at.show()),
            format!("write a full path of at most {} bytes", schema::SOCKET_LENGTH),
        ));
    }
    Ok(PathBuf::from(text))
}

fn check_count(at: &Cursor<'_>, count: usize, most: usize, what: &str) -> Result<(), Fault> {
    if (1..=most).contains(&count) {
        return Ok(());
    }
    Err(at.fault(format!("{count} {what}"), format!("give 1 to {most}")))
}

/// Every device that has been given a role, by name, with the key that did.
#[derive(Default)]
struct Devices(Vec<String>);

impl Devices {
    /// Reads a device name that has no role yet.
    fn read(&mut self, at: &Cursor<'_>) -> Result<String, Fault> {
        let text = at.text("wan0")?;
        // What the kernel accepts as a name (dev_valid_name).
        let allowed = |c: char| !c.is_whitespace() && !c.is_control() && c != '/' && c != ':';
        if text.is_empty()
            || text.len() > schema::DEVICE_LENGTH
            || text == "."
            || text == ".."
            || !text.chars().all(allowed)
        {
            return Err(at.fault(
                format!("`{}` cannot be the name of a network device", at.show()),
                format!(
                    "use at most {} characters without spaces, `/` and `:`",
                    schema::DEVICE_LENGTH
                ),
            ));
        }
        if self.0.iter().any(|other| other == text) {
            return Err(at.fault(
                format!("device `{text}` already is a LAN port or a WAN"),
                "give each device one role",
            ));
        }
        self.0.push(text.to_owned());
        Ok(text.to_owned())
    }
}
