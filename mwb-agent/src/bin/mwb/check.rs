//! What a valid configuration file says, in a few lines.

use std::fmt::{Display, Write as _};
use std::path::Path;

use mwb_agent::config::units::{show_duration, show_rate};
use mwb_agent::config::{Config, Gateway, Wan};

use crate::table::{Align, Table};

/// `FILE: ok` and a summary.
pub(crate) fn summary(file: &Path, config: &Config) -> String {
    let mut out = format!("{}: ok\n", file.display());
    let lan: Vec<String> =
        config.lan.iter().map(|lan| format!("{} (hook {})", lan.device, lan.hook.name())).collect();
    let _ = writeln!(out, "{} by {}", config.mode.name(), config.balance.name());
    let _ = writeln!(out, "LAN     {}", lan.join(", "));
    let ipv6 = config
        .ipv6_prefix
        .map_or_else(|| "not carried".to_owned(), |prefix| format!("{prefix} inside"));
    let _ = writeln!(out, "IPv6    {ipv6}");
    let health = &config.health;
    let targets: Vec<String> = health.targets.iter().map(ToString::to_string).collect();
    let _ = writeln!(
        out,
        "Health  every {}, down after {} misses, asking {}",
        show_duration(health.interval),
        health.retries,
        if targets.is_empty() { "the gateways".to_owned() } else { targets.join(", ") },
    );
    let nat = &config.nat;
    let _ = writeln!(out, "NAT     ports {}-{}, {} flows", nat.port_min, nat.port_max, nat.flows);
    let listen = config.api.listen.map_or_else(|| "no TCP".to_owned(), |at| at.to_string());
    let _ = writeln!(out, "API     {}, {listen}\n", config.api.socket.display());
    out.push_str(&wans(&config.wans));
    out
}

fn wans(wans: &[Wan]) -> String {
    use Align::{Left, Right};
    let mut table = Table::new(&[
        ("WAN", Left),
        ("DEVICE", Left),
        ("HOOK", Left),
        ("PRIO", Right),
        ("WEIGHT", Right),
        ("UP", Right),
        ("DOWN", Right),
        ("GATEWAY", Left),
        ("IPV6", Left),
    ]);
    let rate = |rate: Option<u64>| rate.map_or_else(|| "-".to_owned(), show_rate);
    for wan in wans {
        let ipv6 = wan.ipv6_prefix.map_or_else(
            || "-".to_owned(),
            |prefix| format!("{prefix} by {}", gateway(&wan.gateway6)),
        );
        table.push(vec![
            wan.name.as_str().into(),
            wan.device.as_str().into(),
            wan.hook.name().into(),
            wan.priority.to_string().into(),
            wan.weight.to_string().into(),
            rate(wan.capacity.up).into(),
            rate(wan.capacity.down).into(),
            gateway(&wan.gateway4).into(),
            ipv6.into(),
        ]);
    }
    table.render()
}

fn gateway<A: Display>(gateway: &Gateway<A>) -> String {
    match gateway {
        Gateway::Auto => "auto".to_owned(),
        Gateway::Address(address) => address.to_string(),
    }
}
