//! What is different between the ends of bonds of two configurations, in words.
//! Pure. Sessions are made for what was read at the start: all of it needs a restart, but
//! for the classes of service.

use std::time::Duration;

use super::revision::{Revision, listed, time, word};
use crate::config::units::show_rate;
use crate::config::{Bond, Classes, Client, Config, Fec, Mode, Role, Server, suite_name};

/// What the machine is, and its end of bonds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends<'c> {
    pub(super) role: Role,
    pub(super) mode: Mode,
    pub(super) dead_after: Duration,
    pub(super) bond: Option<&'c Bond>,
    pub(super) server: Option<&'c Server>,
    pub(super) classes: &'c Classes,
    pub(super) hold: Duration,
    pub(super) fec: Fec,
    /// Of sessions, in the data plane.
    pub(super) slots: u32,
}

impl<'c> Ends<'c> {
    /// Those of a configuration.
    pub(super) fn of(config: &'c Config) -> Self {
        Self {
            role: config.role,
            mode: config.mode,
            dead_after: config.failover.dead_after,
            bond: config.bond.as_ref(),
            server: config.server.as_ref(),
            classes: &config.classes,
            hold: config.hold,
            fec: config.fec,
            slots: config.session_slots(),
        }
    }
}

/// Compares.
pub(super) fn compare(revision: &mut Revision, old: Ends<'_>, new: Ends<'_>) {
    let Revision { changes, refused } = revision;
    let Classes { rules, metered_copies } = new.classes;
    listed(changes, "classes.rules", &old.classes.rules, rules);
    let (before, after) = (old.classes.metered_copies, *metered_copies);
    word(changes, "classes.metered_copies", show_rate(before), show_rate(after));
    let mut lines = Vec::new();
    let out = &mut lines;
    word(out, "role", old.role.name(), new.role.name());
    word(out, "mode", old.mode.name(), new.mode.name());
    time(out, "failover.dead_after", old.dead_after, new.dead_after);
    if let (Some(old), Some(new)) = (old.bond, new.bond) {
        compare_bonds(out, old, new);
    }
    if let (Some(old), Some(new)) = (old.server, new.server) {
        compare_servers(out, old, new);
    }
    time(out, "reorder.hold", old.hold, new.hold);
    compare_fec(out, old.fec, new.fec);
    if old.slots != new.slots {
        let (before, after) = (old.slots / 2, new.slots / 2);
        refused.push(format!(
            "server.clients: room for {before} → {after} needs `mwb-agent --detach` (sessions and \
             flows are lost)"
        ));
    }
    refused.extend(
        lines.into_iter().map(|line| format!("{line} needs a restart of the agent (flows go on)")),
    );
}

fn compare_fec(out: &mut Vec<String>, old: Fec, new: Fec) {
    let Fec { parity, block, wait, interleave } = new;
    let packets = |parity: Option<u8>| parity.map_or("auto".to_owned(), |n| n.to_string());
    word(out, "fec.parity", packets(old.parity), packets(parity));
    word(out, "fec.block", old.block, block);
    time(out, "fec.wait", old.wait, wait);
    word(out, "fec.interleave", old.interleave, interleave);
}

fn compare_bonds(out: &mut Vec<String>, old: &Bond, new: &Bond) {
    let Bond {
        servers,
        private_key_file,
        server_public_key,
        suite,
        port,
        device,
        addresses,
        probe_interval,
        elephant,
    } = new;
    listed(out, "bond.server", &old.servers, servers);
    let (before, after) = (old.private_key_file.display(), private_key_file.display());
    word(out, "bond.private_key_file", before.to_string(), after.to_string());
    word(out, "bond.server_public_key", old.server_public_key, *server_public_key);
    word(out, "bond.suite", suite_name(old.suite), suite_name(*suite));
    word(out, "bond.port", old.port, *port);
    word(out, "bond.device", &old.device, device);
    listed(out, "bond.addresses", &old.addresses, addresses);
    time(out, "bond.probe_interval", old.probe_interval, *probe_interval);
    word(out, "bond.elephant", show_rate(old.elephant), show_rate(*elephant));
}

fn compare_servers(out: &mut Vec<String>, old: &Server, new: &Server) {
    // What follows from `failover.dead_after` is compared as that.
    let Server { private_key_file, port, device, addresses, suites, clients, probe_interval: _ } =
        new;
    let (before, after) = (old.private_key_file.display(), private_key_file.display());
    word(out, "server.private_key_file", before.to_string(), after.to_string());
    word(out, "server.port", old.port, *port);
    word(out, "server.device", &old.device, device);
    listed(out, "server.addresses", &old.addresses, addresses);
    listed(out, "server.suites", &names(&old.suites), &names(suites));
    compare_clients(out, &old.clients, clients);
}

/// A client is known by its key.
fn compare_clients(out: &mut Vec<String>, old: &[Client], new: &[Client]) {
    let other = |list: &[Client], client: &Client| {
        list.iter().position(|other| other.public_key == client.public_key)
    };
    for client in old.iter().filter(|client| other(new, client).is_none()) {
        out.push(format!("client {} removed", client.name));
    }
    for client in new {
        let Client { name, public_key: _, prefixes, suites } = client;
        let Some(before) = other(old, client).and_then(|index| old.get(index)) else {
            out.push(format!("client {name} added"));
            continue;
        };
        word(out, &format!("client {}: name", before.name), &before.name, name);
        listed(out, &format!("client {name}: prefixes"), &before.prefixes, prefixes);
        listed(out, &format!("client {name}: suites"), &names(&before.suites), &names(suites));
    }
}

fn names(suites: &[mwb_common::integrity::Suite]) -> Vec<&'static str> {
    suites.iter().map(|suite| suite_name(*suite)).collect()
}
