//! What a valid configuration file says, in a few lines.

use std::fmt::{Display, Write as _};
use std::path::Path;

use mwb_agent::bond::PrivateKey;
use mwb_agent::bond::keys::KeyFileError;
use mwb_agent::config::units::{show_duration, show_rate};
use mwb_agent::config::{Config, Gateway, Mode, Role, Wan, suite_name};

use crate::table::{Align, Table};

/// `FILE: ok` and a summary.
pub(crate) fn summary(file: &Path, config: &Config) -> String {
    let mut out = format!("{}: ok\n", file.display());
    let lan: Vec<String> =
        config.lan.iter().map(|lan| format!("{} (hook {})", lan.device, lan.hook.name())).collect();
    let what = match config.role {
        Role::Gateway => config.mode.name(),
        Role::Server => config.role.name(),
    };
    let _ = writeln!(out, "{what} by {}", config.balance.name());
    let _ = writeln!(out, "LAN     {}", lan.join(", "));
    let ipv6 = match (config.ipv6_prefix, &config.bond) {
        (Some(prefix), _) => format!("{prefix} inside"),
        (None, Some(_)) => "all of it, by the bond".to_owned(),
        (None, None) => "not carried".to_owned(),
    };
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
    out.push_str(&ends(config));
    let nat = &config.nat;
    if config.mode == Mode::Steer {
        let ports = (nat.port_min, nat.port_max);
        let _ = writeln!(out, "NAT     ports {}-{}, {} flows", ports.0, ports.1, nat.flows);
    }
    let listen = config.api.listen.map_or_else(|| "no TCP".to_owned(), |at| at.to_string());
    let _ = writeln!(out, "API     {}, {listen}\n", config.api.socket.display());
    out.push_str(&wans(&config.wans));
    out
}

/// What both ends of a bond have, and what each has alone.
fn ends(config: &Config) -> String {
    let Some(tunnel) = config.tunnel() else { return String::new() };
    let mut out = String::new();
    if let Some(bond) = &config.bond {
        let servers: Vec<String> = bond.servers.iter().map(ToString::to_string).collect();
        let (servers, suite) = (servers.join(", "), suite_name(bond.suite));
        let _ = writeln!(out, "Bond    to {servers}, {suite}");
    }
    if let Some(server) = &config.server {
        let suites: Vec<&str> = server.suites.iter().map(|suite| suite_name(*suite)).collect();
        let names: Vec<&str> = server.clients.iter().map(|client| client.name.as_str()).collect();
        let _ = writeln!(out, "Bonds   of {}; {}", names.join(", "), suites.join(", "));
    }
    let addresses: Vec<String> = tunnel.addresses.iter().map(ToString::to_string).collect();
    let _ = writeln!(
        out,
        "Device  {} ({}), UDP port {}",
        tunnel.device,
        addresses.join(", "),
        tunnel.port
    );
    let (interval, dead) = (tunnel.probe_interval, config.failover.dead_after);
    let _ = writeln!(
        out,
        "Paths   probed every {}, dead after {}",
        show_duration(interval),
        show_duration(dead)
    );
    let metered: Vec<&str> =
        config.wans.iter().filter(|wan| wan.metered).map(|wan| wan.name.as_str()).collect();
    if let Some(idle) = config.idle().filter(|_| !metered.is_empty()) {
        let _ = writeln!(
            out,
            "Metered {}: while idle probed every {}, dead after {}",
            metered.join(", "),
            show_duration(idle.interval),
            show_duration(idle.dead_after)
        );
    }
    out
}

/// What the file with our key says, or why it says nothing here: a line, without a
/// bond none.
///
/// # Errors
/// When there is one and it is not right.
pub(crate) fn key(config: &Config) -> Result<String, String> {
    let Some(tunnel) = config.tunnel() else { return Ok(String::new()) };
    let file = tunnel.private_key_file;
    match PrivateKey::read(file) {
        Ok(key) => {
            let public = key.public();
            config
                .check_own_key(&public)
                .map_err(|error| format!("{}: {error}", file.display()))?;
            Ok(format!("\nKey     {} is for the public key {public}\n", file.display()))
        }
        Err(KeyFileError::Unreadable { path, error }) => {
            Ok(format!("\nnot checked: {}: {error}\n", path.display()))
        }
        Err(error) => Err(error.to_string()),
    }
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

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions, write};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const OURS: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";

    fn bond(file: &Path, server: &str) -> Config {
        let text = format!(
            "version: 1\nmode: bond\nlan: [lan0]\nwans: [{{name: fiber, device: wan0}}]\n\
             bond: {{server: \"203.0.113.250:7000\", private_key_file: {}, \
             server_public_key: \"{server}\", addresses: [192.0.2.62/32]}}\n",
            file.display()
        );
        mwb_agent::config::parse(&text, "f").unwrap_or_else(|error| panic!("{}", error.render()))
    }

    #[test]
    fn a_bond_is_summed_up_and_what_cannot_be_checked_is_said() {
        let key = "NqnP4z4u49EyW2/lx5QXo6mx9BrGxDTentAf2N++HAY=";
        let config = bond(Path::new("/nonexistent/private.key"), key);
        let text = summary(Path::new("gateway.yaml"), &config);
        for part in [
            "bond by adaptive",
            "Bond    to 203.0.113.250:7000, chacha20poly1305",
            "Device  mwb0 (192.0.2.62/32), UDP port 7000",
            "Paths   probed every 50ms, dead after 150ms",
        ] {
            assert!(text.contains(part), "no `{part}` in:\n{text}");
        }
        assert!(!text.contains("NAT") && !text.contains("Metered"), "{text}");
        let mut metered = config.clone();
        metered.wans[0].metered = true;
        let text = summary(Path::new("gateway.yaml"), &metered);
        let line = "Metered fiber: while idle probed every 1s, dead after 3s500ms\n";
        assert!(text.contains(line), "{text}");
        let said = super::key(&config);
        assert!(
            said.as_ref().is_ok_and(|said| said.contains("not checked: /nonexistent/private.key")),
            "{said:?}"
        );
    }

    #[test]
    fn a_key_file_that_is_there_is_checked() {
        let file = std::env::temp_dir().join(format!("mwb-check-{}", std::process::id()));
        let mode = |mode| set_permissions(&file, Permissions::from_mode(mode)).expect("ours");
        let private: PrivateKey = OURS.parse().expect("a key");
        let public = private.public().to_string();
        write(&file, format!("{OURS}\n")).expect("a file");
        let other = "NqnP4z4u49EyW2/lx5QXo6mx9BrGxDTentAf2N++HAY=";
        mode(0o600);
        let said = key(&bond(&file, other));
        assert!(said.as_ref().is_ok_and(|said| said.contains(&public)), "{said:?}");
        let said = key(&bond(&file, &public));
        assert!(said.as_ref().is_err_and(|why| why.contains("bond.server_public_key")), "{said:?}");
        mode(0o640);
        let said = key(&bond(&file, other));
        assert!(said.as_ref().is_err_and(|why| why.contains("chmod 600")), "{said:?}");
        mode(0o600);
        write(&file, "no key").expect("a file");
        let said = key(&bond(&file, other));
        assert!(said.as_ref().is_err_and(|why| why.contains("44 characters")), "{said:?}");
        std::fs::remove_file(&file).expect("it was ours");
    }
}
