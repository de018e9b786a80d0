//! From the tree to a [`Config`]: meaning, defaults, and rules that span keys.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::classes::read_classes;
use super::ends::{read_bond, read_server};
use super::fec::read_fec;
use super::forwards::check_room;
use super::health_read::read_health;
use super::history::read_history;
use super::notify::read_notify;
use super::policy_read::{World, read_policy};
use super::prefix::{read_bypass, read_ipv6_prefix};
use super::reader::{Cursor, Fault, Fields};
use super::role::{check_failover, check_file, check_lan, check_port, read_mode, read_role};
use super::wans::{Common, Devices, read_failback, read_wans};
use super::{
    Api, Balance, Config, Failback, Failover, Filtering, Health, HookChoice, Lan, Mode, Nat,
    PeerRedirect, Role, Timeouts, Wan, schema,
};

/// Reads the whole file.
pub(super) fn read_config(root: &Cursor<'_>) -> Result<Config, Fault> {
    let file = root.fields(&schema::FILE)?;
    check_version(&file)?;
    let role = read_role(&file)?;
    let mode = read_mode(&file, role)?;
    check_file(&file, role, mode)?;
    let hook = file.or("hook", HookChoice::Auto, read_hook)?;
    let redirect_peer = file.or("redirect_peer", PeerRedirect::Auto, read_peer_redirect)?;
    let mut devices = Devices::default();
    let mut lan = match role {
        Role::Gateway => {
            read_lans(file.required("lan")?, mode, (hook, redirect_peer), &mut devices)?
        }
        Role::Server => Vec::new(),
    };
    let inside = file.get("ipv6_prefix").map(read_ipv6_prefix).transpose()?;
    let failover = file.section("failover", &schema::FAILOVER)?;
    check_failover(&failover, role, mode)?;
    let failback = failover.or("failback", Failback::Stay, read_failback)?;
    let common = Common { hook, redirect_peer, inside, failback, role, mode };
    let mut wans = read_wans(file.required("wans")?, &common, &mut devices)?;
    let ipv6 = mode == Mode::Bond || wans.iter().any(|wan| wan.ipv6_prefix.is_some());
    if let Some(at) = file.get("ipv6_prefix")
        && !ipv6
    {
        return Err(at.fault(
            "it has no effect: no WAN has an `ipv6_prefix`",
            "give each WAN that carries IPv6 the prefix its provider routes to it, or remove this",
        ));
    }
    let own = file.section("health", &schema::HEALTH)?;
    let health = read_health(&own, &Health::default(), ipv6)?;
    read_wan_health(file.required("wans")?, &mut wans, &health, ipv6)?;
    let nat = read_nat(&file.section("nat", &schema::NAT)?)?;
    check_room(file.required("wans")?, &wans, &nat)?;
    let failover = read_failover(&failover)?;
    let bond = match mode {
        Mode::Steer => None,
        Mode::Bond => {
            let bond = file.required("bond")?.fields(&schema::BOND)?;
            Some(read_bond(&bond, failover.dead_after, &mut devices)?)
        }
    };
    let server = match role {
        Role::Gateway => None,
        Role::Server => {
            let at = file.required("server")?;
            let server = at.fields(&schema::SERVER)?;
            let read = read_server(&server, failover.dead_after, inside, &mut devices)?;
            check_port(server.get("port").unwrap_or(at), &read, &wans)?;
            lan.push(implied_lan(&read.device, (hook, redirect_peer)));
            Some(read)
        }
    };
    let world = World { role, lan: &lan, wans: &wans };
    let policy = read_policy(&file.section("policy", &schema::POLICY)?, &world)?;
    let classes = read_classes(&file.section("classes", &schema::CLASSES)?, &world)?;
    let notify = read_notify(&file.section("notify", &schema::NOTIFY)?, &wans)?;
    let config = Config {
        role,
        mode,
        lan,
        balance: file.or("balance", Balance::Adaptive, read_balance)?,
        ipv6_prefix: inside,
        bypass: file.or("bypass", Vec::new(), read_bypass)?,
        wans,
        policy,
        failover,
        health,
        nat,
        bond,
        server,
        fec: read_fec(&file, &classes)?,
        classes,
        hold: file
            .section("reorder", &schema::REORDER)?
            .or("hold", HOLD, |at| at.duration(&schema::HOLD))?,
        history: file.get("history").map(read_history).transpose()?,
        notify,
        api: read_api(&file.section("api", &schema::API)?)?,
    };
    if let Some(at) = file.get("policy")
        && let Err(why) = crate::policy::fits(&config)
    {
        return Err(at.fault(why.to_string(), "have fewer rules, or such that are more alike"));
    }
    Ok(config)
}

/// `reorder.hold` where nothing is said.
const HOLD: Duration = Duration::from_millis(200);

/// How each WAN is watched: by now it is known whether any carries IPv6.
fn read_wan_health(
    at: &Cursor<'_>,
    wans: &mut [Wan],
    base: &Health,
    ipv6: bool,
) -> Result<(), Fault> {
    for (item, wan) in at.items("[]")?.iter().zip(wans) {
        let own = item.fields(&schema::WAN)?.section("health", &schema::WAN_HEALTH)?;
        wan.health = read_health(&own, base, ipv6)?;
    }
    Ok(())
}

/// The clients of a server are behind the device of their bonds. Both of its ends
/// take frames from XDP, unlike other devices of its kind.
fn implied_lan(device: &str, (hook, redirect_peer): (HookChoice, PeerRedirect)) -> Lan {
    let hook = if hook == HookChoice::Auto { HookChoice::Xdp } else { hook };
    Lan { device: device.to_owned(), hook, redirect_peer }
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

pub(super) fn read_hook(at: &Cursor<'_>) -> Result<HookChoice, Fault> {
    at.word(&HookChoice::ALL.map(|hook| (hook.name(), hook)), &[])
}

/// Reads how flows are shared.
pub(super) fn read_balance(at: &Cursor<'_>) -> Result<Balance, Fault> {
    at.word(&Balance::ALL.map(|balance| (balance.name(), balance)), &[])
}

/// Reads whether the other end of a veth may be entered.
pub(super) fn read_peer_redirect(at: &Cursor<'_>) -> Result<PeerRedirect, Fault> {
    at.word(&[PeerRedirect::Auto, PeerRedirect::Off].map(|choice| (choice.name(), choice)), &[])
}

fn read_lans(
    at: &Cursor<'_>,
    mode: Mode,
    (hook, redirect_peer): (HookChoice, PeerRedirect),
    devices: &mut Devices,
) -> Result<Vec<Lan>, Fault> {
    let items = at.items("[lan0]")?;
    check_count(at, items.len(), schema::LANS, "LAN ports")?;
    items
        .iter()
        .map(|item| {
            if !item.is_map() {
                return Ok(Lan { device: devices.read(item)?, hook, redirect_peer });
            }
            let fields = item.fields(&schema::LAN)?;
            check_lan(&fields, mode)?;
            Ok(Lan {
                device: devices.read(fields.required("device")?)?,
                hook: fields.or("hook", hook, read_hook)?,
                redirect_peer: fields.or("redirect_peer", redirect_peer, read_peer_redirect)?,
            })
        })
        .collect()
}

fn read_failover(failover: &Fields<'_>) -> Result<Failover, Fault> {
    let failback_after = failover
        .or("failback_after", Duration::from_secs(5), |at| at.duration(&schema::FAILBACK_AFTER))?;
    let hold_down_max = failover
        .or("hold_down_max", schema::HOLD_DOWN, |at| at.duration(&schema::HOLD_DOWN_MAX))?;
    let dead_after = failover
        .or("dead_after", Duration::from_millis(150), |at| at.duration(&schema::DEAD_AFTER))?;
    let hold_down_max = hold_down_max.max(failback_after);
    Ok(Failover { failback_after, hold_down_max, dead_after })
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
        filtering: nat.or("filtering", Filtering::AddressAndPortDependent, |at| {
            at.word(&Filtering::ALL.map(|filtering| (filtering.name(), filtering)), &[])
        })?,
        mappings_per_source: nat
            .or("mappings_per_source", 0, |at| at.integer(&schema::MAPPINGS_PER_SOURCE))?,
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
        group: api.get("group").map(read_group).transpose()?,
        token_file: api.get("token_file").map(|at| read_path(at, "/etc/mwb/token")).transpose()?,
    })
}

fn read_listen(at: &Cursor<'_>) -> Result<Option<SocketAddr>, Fault> {
    let example = "off, \"127.0.0.1:9800\" or \"[::1]:9800\"";
    let listen = at.parsed("`off` or an address with a port", example, |text| {
        if text == "off" { Some(None) } else { text.parse::<SocketAddr>().ok().map(Some) }
    })?;
    match listen {
        Some(address) if !address.ip().is_loopback() => Err(at.fault(
            format!("`{address}` is not on loopback: the API is not encrypted"),
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

fn read_group(at: &Cursor<'_>) -> Result<String, Fault> {
    let text = at.text("mwb")?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if text.is_empty()
        || text.len() > schema::GROUP_LENGTH
        || text.starts_with(['-', '.'])
        || !text.chars().all(plain)
    {
        return Err(at.fault(
            format!("`{}` cannot be the name of a group", at.show()),
            format!("use 1 to {} letters, digits, `_`, `.` and `-`", schema::GROUP_LENGTH),
        ));
    }
    Ok(text.to_owned())
}

pub(super) fn read_path(at: &Cursor<'_>, example: &str) -> Result<PathBuf, Fault> {
    let text = at.text(example)?;
    if !text.starts_with('/') || text.len() > schema::PATH_LENGTH || text.contains('\0') {
        return Err(at.fault(
            format!("`{}` cannot be the path of a file", at.show()),
            format!("write a full path like {example}"),
        ));
    }
    Ok(PathBuf::from(text))
}

pub(super) fn check_count(
    at: &Cursor<'_>,
    count: usize,
    most: usize,
    what: &str,
) -> Result<(), Fault> {
    if (1..=most).contains(&count) {
        return Ok(());
    }
    Err(at.fault(format!("{count} {what}"), format!("give 1 to {most}")))
}

/// A value, or a list of 1 to `most` different ones.
pub(super) fn one_or_more<T: PartialEq>(
    at: &Cursor<'_>,
    example: &str,
    most: usize,
    read: impl Fn(&Cursor<'_>) -> Result<T, Fault>,
) -> Result<Vec<T>, Fault> {
    if !at.is_list() {
        return Ok(vec![read(at)?]);
    }
    let items = at.items(&format!("[{example}]"))?;
    check_count(at, items.len(), most, "values")?;
    let mut list = Vec::with_capacity(items.len());
    for item in &items {
        push_new(item, &mut list, read(item)?)?;
    }
    Ok(list)
}

/// Puts a value behind those that are there, if it is another one.
pub(super) fn push_new<T: PartialEq>(
    item: &Cursor<'_>,
    list: &mut Vec<T>,
    new: T,
) -> Result<(), Fault> {
    if list.contains(&new) {
        return Err(
            item.fault(format!("`{}` is given twice", item.show()), "remove one of the two")
        );
    }
    list.push(new);
    Ok(())
}
