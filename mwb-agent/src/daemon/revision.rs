//! What is different between two configurations, in words. Pure.
//!
//! Every key is compared: a new one does not compile until it is named here.

use std::fmt::Display;
use std::path::Path;

use super::revision_bond::{self, Ends};
use super::revision_health;
use crate::config::units::{show_duration, show_rate};
use crate::config::{
    Api, Capacity, Config, Failover, Forward, Gateway, Lan, Nat, Policy, PolicyRule, Timeouts, Wan,
};

/// The differences between two configurations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Revision {
    /// What a running agent can change, one line each.
    pub(super) changes: Vec<String>,
    /// What it cannot, with the way to do it.
    pub(super) refused: Vec<String>,
}

/// What is said of a change that a running agent cannot make.
pub(super) const NEEDS_RESTART: &str = "needs a restart of the agent (flows go on)";

/// Compares.
pub(super) fn between(old: &Config, new: &Config) -> Revision {
    let Config {
        role,
        mode,
        lan,
        balance,
        ipv6_prefix,
        bypass,
        wans,
        policy,
        failover,
        health,
        nat,
        bond,
        server,
        classes,
        hold,
        fec,
        history,
        notify,
        api,
    } = new;
    let mut revision = Revision::default();
    let out = &mut revision.changes;
    word(out, "balance", old.balance.name(), balance.name());
    word(out, "ipv6_prefix", shown(old.ipv6_prefix), shown(*ipv6_prefix));
    listed(out, "bypass", &old.bypass, bypass);
    compare_lans(out, &old.lan, lan);
    revision_health::compare(out, "health", &old.health, health);
    compare_wans(out, &old.wans, wans);
    listed(out, "policy rule", &lines(&old.policy), &lines(policy));
    compare_failover(out, &old.failover, failover);
    revision_health::compare_notify(&mut revision, &old.notify, notify);
    if old.history != *history {
        revision.refused.push(format!("history: another one {NEEDS_RESTART}"));
    }
    compare_nat(&mut revision, &old.nat, nat);
    compare_api(&mut revision.refused, &old.api, api);
    let ends = Ends {
        role: *role,
        mode: *mode,
        dead_after: failover.dead_after,
        bond: bond.as_ref(),
        server: server.as_ref(),
        classes,
        hold: *hold,
        fec: *fec,
        slots: new.session_slots(),
    };
    revision_bond::compare(&mut revision, Ends::of(old), ends);
    revision
}

/// A key with one value.
pub(super) fn word<T: PartialEq + Display>(out: &mut Vec<String>, key: &str, old: T, new: T) {
    if old != new {
        out.push(format!("{key}: {old} → {new}"));
    }
}

pub(super) fn time(
    out: &mut Vec<String>,
    key: &str,
    old: std::time::Duration,
    new: std::time::Duration,
) {
    word(out, key, show_duration(old), show_duration(new));
}

pub(super) fn shown<T: Display>(value: Option<T>) -> String {
    value.map_or_else(|| "none".to_owned(), |value| value.to_string())
}

/// A key with a list whose order means nothing, but for those that both have.
pub(super) fn listed<T: PartialEq + Display>(
    out: &mut Vec<String>,
    key: &str,
    old: &[T],
    new: &[T],
) {
    for item in old.iter().filter(|item| !new.contains(item)) {
        out.push(format!("{key}: {item} removed"));
    }
    for item in new.iter().filter(|item| !old.contains(item)) {
        out.push(format!("{key}: {item} added"));
    }
    in_order(out, key, old.iter().filter(|item| new.contains(item)), |item| {
        new.iter().position(|other| other == *item)
    });
}

/// The rules, each with its name if it has one.
fn lines(policy: &Policy) -> Vec<String> {
    let line = |rule: &PolicyRule| match &rule.name {
        Some(name) => format!("{name} {rule}"),
        None => rule.to_string(),
    };
    policy.rules.iter().map(line).collect()
}

/// Tells if what is in both is in another order.
fn in_order<T>(
    out: &mut Vec<String>,
    what: &str,
    both: impl Iterator<Item = T>,
    place: impl Fn(&T) -> Option<usize>,
) {
    if !both.map(|item| place(&item)).is_sorted() {
        out.push(format!("{what}: in another order"));
    }
}

fn compare_lans(out: &mut Vec<String>, old: &[Lan], new: &[Lan]) {
    let find = |list: &[Lan], device: &str| list.iter().position(|lan| lan.device == device);
    for lan in old.iter().filter(|lan| find(new, &lan.device).is_none()) {
        out.push(format!("LAN port {} removed", lan.device));
    }
    for Lan { device, hook, redirect_peer } in new {
        match old.iter().find(|lan| lan.device == *device) {
            None => out.push(format!("LAN port {device} added")),
            Some(before) => {
                let key = |name: &str| format!("LAN port {device}: {name}");
                word(out, &key("hook"), before.hook.name(), hook.name());
                let (old, new) = (before.redirect_peer.name(), redirect_peer.name());
                word(out, &key("redirect_peer"), old, new);
            }
        }
    }
    let both = old.iter().filter(|lan| find(new, &lan.device).is_some());
    in_order(out, "LAN ports", both, |lan| find(new, &lan.device));
}

fn compare_wans(out: &mut Vec<String>, old: &[Wan], new: &[Wan]) {
    let find = |list: &[Wan], device: &str| list.iter().position(|wan| wan.device == device);
    for wan in old.iter().filter(|wan| find(new, &wan.device).is_none()) {
        out.push(format!("WAN {} ({}) removed", wan.name, wan.device));
    }
    for wan in new {
        match old.iter().find(|before| before.device == wan.device) {
            None => out.push(format!("WAN {} ({}) added", wan.name, wan.device)),
            Some(before) => {
                compare_wan(out, before, wan);
                let key = format!("WAN {}: health", wan.name);
                let mut own = Vec::new();
                revision_health::compare(&mut own, &key, &before.health, &wan.health);
                // What all have is said once.
                let said = |line: &String| {
                    let rest = line.strip_prefix(key.as_str()).unwrap_or(line);
                    out.iter().any(|other| other.strip_prefix("health") == Some(rest))
                };
                let own: Vec<String> = own.into_iter().filter(|line| !said(line)).collect();
                out.extend(own);
            }
        }
    }
    let both = old.iter().filter(|wan| find(new, &wan.device).is_some());
    in_order(out, "WANs", both, |wan| find(new, &wan.device));
}

fn compare_wan(out: &mut Vec<String>, old: &Wan, new: &Wan) {
    let Wan {
        name,
        device,
        gateway4,
        gateway6,
        priority,
        weight,
        capacity,
        metered,
        hook,
        redirect_peer,
        ipv6_prefix,
        failback,
        forwards,
        health: _,
    } = new;
    if old.name != *name {
        out.push(format!("WAN {} ({device}) is called {name} now", old.name));
    }
    let key = |key: &str| format!("WAN {name}: {key}");
    word(out, &key("gateway"), gateway(&old.gateway4), gateway(gateway4));
    word(out, &key("gateway6"), gateway(&old.gateway6), gateway(gateway6));
    word(out, &key("priority"), old.priority, *priority);
    word(out, &key("weight"), old.weight, *weight);
    let Capacity { up, down } = capacity;
    word(out, &key("capacity.up"), rate(old.capacity.up), rate(*up));
    word(out, &key("capacity.down"), rate(old.capacity.down), rate(*down));
    word(out, &key("metered"), old.metered, *metered);
    word(out, &key("hook"), old.hook.name(), hook.name());
    word(out, &key("redirect_peer"), old.redirect_peer.name(), redirect_peer.name());
    word(out, &key("ipv6_prefix"), shown(old.ipv6_prefix), shown(*ipv6_prefix));
    word(out, &key("failback"), old.failback.to_string(), failback.to_string());
    let lines = |forwards: &[Forward]| forwards.iter().map(Forward::to_string).collect::<Vec<_>>();
    listed(out, &key("forward"), &lines(&old.forwards), &lines(forwards));
}

fn gateway<A: Display>(gateway: &Gateway<A>) -> String {
    match gateway {
        Gateway::Auto => "auto".to_owned(),
        Gateway::Address(address) => address.to_string(),
    }
}

fn rate(rate: Option<u64>) -> String {
    shown(rate.map(show_rate))
}

fn compare_failover(out: &mut Vec<String>, old: &Failover, new: &Failover) {
    // How long a path lives is the bond's, and compared with it.
    let Failover { failback_after, hold_down_max, dead_after: _ } = new;
    time(out, "failover.failback_after", old.failback_after, *failback_after);
    time(out, "failover.hold_down_max", old.hold_down_max, *hold_down_max);
}

fn compare_nat(revision: &mut Revision, old: &Nat, new: &Nat) {
    let Nat { port_min, port_max, flows, timeouts, filtering, mappings_per_source } = new;
    let out = &mut revision.changes;
    let ports = |low: u16, high: u16| format!("{low}-{high}");
    word(out, "nat.ports", ports(old.port_min, old.port_max), ports(*port_min, *port_max));
    let Timeouts { udp, icmp, tcp_established, tcp_transitory } = timeouts;
    time(out, "nat.timeouts.udp", old.timeouts.udp, *udp);
    time(out, "nat.timeouts.icmp", old.timeouts.icmp, *icmp);
    time(out, "nat.timeouts.tcp_established", old.timeouts.tcp_established, *tcp_established);
    time(out, "nat.timeouts.tcp_transitory", old.timeouts.tcp_transitory, *tcp_transitory);
    word(out, "nat.filtering", old.filtering.name(), filtering.name());
    word(out, "nat.mappings_per_source", old.mappings_per_source, *mappings_per_source);
    if old.flows != *flows {
        revision.refused.push(format!(
            "nat.flows: {} → {flows} needs new tables: stop the agent, run `mwb-agent --detach` \
             (flows are lost) and start it again",
            old.flows
        ));
    }
}

fn compare_api(refused: &mut Vec<String>, old: &Api, new: &Api) {
    let Api { listen, socket, group, token_file } = new;
    let mut lines = Vec::new();
    let out = &mut lines;
    let path = |path: &Path| path.display().to_string();
    word(out, "api.listen", shown(old.listen), shown(*listen));
    word(out, "api.socket", path(&old.socket), path(socket));
    word(out, "api.group", shown(old.group.as_ref()), shown(group.as_ref()));
    let file = |file: &Option<std::path::PathBuf>| shown(file.as_deref().map(path));
    word(out, "api.token_file", file(&old.token_file), file(token_file));
    refused.extend(lines.into_iter().map(|line| format!("{line} {NEEDS_RESTART}")));
}

#[cfg(test)]
#[path = "revision_tests.rs"]
mod tests;
