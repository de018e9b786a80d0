//! What is shown of a bond, in the shapes of the API.

use std::time::{Duration, Instant};

use mwb_common::maps::{Probe, ProbeReply, bond_path_flag};

use super::core::{Core, Counts};
use super::estimate::Reason;
use super::gateway::Gateway;
use super::mtu;
use super::paths::Link;
use super::secure::Refused;
use super::server::{Server, client_name};
use super::session::Session;
use crate::api::bond::{BondPathState, BondPathStatus, BondSession, BondStatus, Handshakes};
use crate::api::snapshot::Traffic;
use crate::bond::Refusal;
use crate::config::{Balance, suite_name};
use crate::dataplane::monotonic;

/// What cost is told for.
const MONTH: Duration = Duration::from_secs(30 * 24 * 3_600);

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// What both ends have.
fn begin(core: &Core, role: &str) -> BondStatus {
    let Counts { initiations, established, cookies, refused, ignored, messages_refused } =
        core.counts.clone();
    let named = |names: &[&str], counts: &[u64]| {
        let counted = names.iter().zip(counts).filter(|(_, count)| **count > 0);
        counted.map(|(name, count)| ((*name).to_owned(), *count)).collect()
    };
    BondStatus {
        role: role.to_owned(),
        port: core.settings.port,
        probe_interval_ms: ms(core.settings.probe_interval),
        dead_after_ms: ms(core.settings.dead_after),
        sessions: Vec::new(),
        unanswered_seconds: None,
        handshakes: Handshakes {
            initiations,
            established,
            cookies,
            ignored,
            refused: named(&Refusal::NAMES, &refused),
        },
        messages_refused: named(&Refused::NAMES, &messages_refused),
    }
}

impl Gateway {
    /// This end now.
    pub(super) fn view(&self, core: &Core) -> BondStatus {
        let session = self.session.as_ref();
        let session = session.map(|session| show(core, session, None, core.network.balance));
        BondStatus {
            sessions: session.into_iter().collect(),
            unanswered_seconds: self.unanswered_for().map(|time| time.as_secs_f64()),
            ..begin(core, "gateway")
        }
    }
}

impl Server {
    /// This end now.
    pub(super) fn view(&self, core: &Core) -> BondStatus {
        let sessions = self.of.iter().filter_map(|(key, of)| Some((key, of.current.as_ref()?)));
        let shown = sessions.map(|(key, session)| {
            let client = client_name(&self.server, key).to_owned();
            show(core, session, Some(client), session.balance())
        });
        let mut sessions: Vec<BondSession> = shown.collect();
        sessions.sort_by(|a, b| a.client.cmp(&b.client));
        BondStatus { sessions, ..begin(core, "server") }
    }
}

fn show(core: &Core, session: &Session, client: Option<String>, balance: Balance) -> BondSession {
    let now = Instant::now();
    let paths = session.paths.iter();
    BondSession {
        client,
        peer: session.peer.to_string(),
        suite: suite_name(session.suite).to_owned(),
        epoch: session.epoch(),
        keys_age_seconds: session.keys_age(now).map(|age| age.as_secs_f64()),
        keys_overdue: session.is_overdue(),
        age_seconds: now.saturating_duration_since(session.since).as_secs_f64(),
        mtu: session.mtu(),
        balance: balance.name().to_owned(),
        paths: paths.map(|(path, link)| show_path(core, session, *path, link)).collect(),
    }
}

fn show_path(core: &Core, session: &Session, path: u8, link: &Link) -> BondPathStatus {
    let (state, reason) = state(core, link);
    let traffic = |packets, bytes| Traffic { packets, bytes };
    let variation = Duration::from_nanos(link.state.rtt_variation);
    BondPathStatus {
        path,
        wan: core.name(link.via()).unwrap_or_default(),
        remote: link.remote().to_string(),
        state,
        reason,
        rtt_ms: link.rtt().map(ms),
        jitter_ms: link.rtt().map(|_| ms(variation)),
        loss: link.verdict.loss,
        lost: link.verdict.lost,
        mtu: link.entry.mtu,
        capacity_bps: link.verdict.capacity,
        rate_out_bps: link.verdict.rate as f64,
        rate_in_bps: link.rate_in.now,
        queue_ms: ms(link.verdict.queue),
        striped: session.is_striped(path),
        tx: traffic(link.state.sent, link.state.sent_bytes),
        rx: traffic(link.state.received, link.state.received_bytes),
        forced: link.state.forced,
        moves: link.state.moves,
        probe_bytes_per_month: probe_cost(core, session, link),
    }
}

fn state(core: &Core, link: &Link) -> (BondPathState, String) {
    if link.has(bond_path_flag::DOWN) {
        let carrier = core.network.uplink(link.via()).is_some_and(|uplink| uplink.carrier);
        let why = if carrier {
            "not used until its probes are answered here and at the far end"
        } else {
            "no carrier here"
        };
        return (BondPathState::Down, why.to_owned());
    }
    if !link.is_alive(monotonic()) {
        let after = ms(core.settings.dead_after);
        return (BondPathState::Dead, format!("no answer to probes for {after:.0} ms"));
    }
    if !link.has(bond_path_flag::PARKED) {
        return (BondPathState::Alive, String::new());
    }
    let why = match link.verdict.parked {
        Some(Reason::Loss) => "it loses too much",
        Some(Reason::Small) => "it carries next to nothing",
        Some(Reason::Long) => "it is far longer than the others",
        Some(Reason::Unsteady) => "it has died again and again: used when it stays alive",
        None => "a path of a better priority lives",
    };
    (BondPathState::Parked, why.to_owned())
}

/// Both ends probe, and both answer.
fn probe_cost(core: &Core, session: &Session, link: &Link) -> u64 {
    let around = mtu::overhead(session.suite, link.remote().is_ipv6());
    let bytes = 2 * (2 * around as usize + size_of::<Probe>() + size_of::<ProbeReply>());
    let interval = core.settings.probe_interval.as_secs_f64().max(1e-3);
    (MONTH.as_secs_f64() / interval * bytes as f64) as u64
}
