//! What is shown of a bond, in the shapes of the API.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use mwb_common::classes::class;
use mwb_common::integrity::Suite;
use mwb_common::maps::{ProbeReply, bond_path_flag};
use mwb_common::select::pace::is_idle;

use super::core::{Core, Counts};
use super::estimate::Reason;
use super::gateway::Gateway;
use super::mtu;
use super::pace::{self, Pace};
use super::parity;
use super::parts::Part;
use super::paths::Link;
use super::secure::Refused;
use super::server::{Server, client_name};
use super::session::Session;
use super::slow::Counted;
use crate::api::bond::{
    BondClass, BondOrder, BondOrderPart, BondParity, BondPathState, BondPathStatus, BondRepair,
    BondSession, BondStatus, Handshakes,
};
use crate::api::snapshot::Traffic;
use crate::bond::Refusal;
use crate::config::{Balance, class_name, suite_name};
use crate::dataplane::monotonic;
use crate::hitless::reorder::{DELAY_BOUNDS, Why};
use crate::hitless::resend;

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
        classes: classes(core),
    }
}

fn classes(core: &Core) -> Vec<BondClass> {
    let rules = &core.settings.classes.rules;
    if rules.is_empty() {
        return Vec::new();
    }
    let count = u8::try_from(rules.len()).unwrap_or(u8::MAX);
    let counts = core.maps.class_counts(count).unwrap_or_default();
    let none = std::iter::once(None);
    let rules = rules.iter().map(Some).chain(none).zip(counts);
    rules
        .map(|(rule, count)| BondClass {
            rule: rule.map(ToString::to_string),
            class: class_name(rule.map_or(class::AUTO, |rule| rule.class)).to_owned(),
            active: rule.is_none_or(|rule| rule.counts),
            matched: Traffic { packets: count.packets, bytes: count.bytes },
        })
        .collect()
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
    let counted = core
        .slow
        .as_ref()
        .map(|slow| slow.counted(session.slot, session.ours.get()))
        .unwrap_or_default();
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
        order: show_order(&counted),
        repair: show_repair(&counted.repair),
        parity: show_parity(&counted.parity),
        paths: paths
            .map(|(path, link)| {
                let recovered = counted.parity.recovered.get(usize::from(*path)).copied();
                let recovered = recovered.unwrap_or_default();
                BondPathStatus { recovered, ..show_path(core, session, *path, link) }
            })
            .collect(),
    }
}

fn show_repair(known: &resend::Statistics) -> BondRepair {
    BondRepair {
        sent: known.sent,
        acknowledged: known.acknowledged,
        lost: BTreeMap::from([
            ("gap".to_owned(), known.lost_by_gap),
            ("time".to_owned(), known.lost_by_time),
            ("path_down".to_owned(), known.lost_by_path_down),
        ]),
        again: known.again,
        again_bytes: known.again_bytes,
        refused: known.refused,
        given_up: known.expired + known.forgotten,
        held: known.held as u64,
        held_bytes: known.held_bytes as u64,
    }
}

fn show_parity(known: &parity::Counted) -> BondParity {
    let parity::Counted { made, used, .. } = known;
    BondParity {
        data: made.data,
        data_bytes: made.data_bytes,
        blocks: made.blocks,
        parity: made.parity,
        parity_bytes: made.parity_bytes,
        received: used.parity,
        useless: used.useless,
        late: used.late,
        refused: used.malformed + used.refused,
        recovered: used.recovered,
        early: used.early,
        unrecoverable: used.unrecoverable,
        held_bytes: (made.memory + used.memory) as u64,
    }
}

fn show_order(counted: &Counted) -> BondOrder {
    let Counted { order: known, parts, .. } = counted;
    let ms = |nanos: u64| nanos as f64 / 1e6;
    let by_why = |given: &[u64; Why::ALL.len()]| -> BTreeMap<String, u64> {
        Why::ALL.iter().zip(given).map(|(why, count)| (why.name().to_owned(), *count)).collect()
    };
    let part = |(care, path, tally): &Part| BondOrderPart {
        repair: care.name().to_owned(),
        path: *path,
        given: by_why(&tally.given),
        held_ms: ms(tally.waited),
    };
    let mut within = 0;
    let bounds = DELAY_BOUNDS.iter().zip(known.delays).map(|(&bound, count)| {
        within += count;
        (ms(bound), within)
    });
    BondOrder {
        taken: known.taken,
        held: known.held,
        held_bytes: known.bytes as u64,
        most_bytes: known.most_bytes as u64,
        given: by_why(&known.released),
        repeated: known.repeated,
        missing: known.skipped,
        within_ms: bounds.collect(),
        held_ms: ms(known.delay_sum),
        parts: parts.iter().map(part).collect(),
    }
}

fn show_path(core: &Core, session: &Session, path: u8, link: &Link) -> BondPathStatus {
    let (state, reason) = state(core, link);
    let traffic = |packets, bytes| Traffic { packets, bytes };
    let variation = Duration::from_nanos(link.state.rtt_variation);
    let pace = pace::of(&core.settings, link, monotonic());
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
        inner_mtu: mtu::inner_of(session.suite, link.entry.mtu, link.remote().is_ipv6()),
        capacity_bps: link.verdict.capacity,
        rate_out_bps: link.verdict.rate as f64,
        rate_in_bps: link.rate_in.now,
        queue_ms: ms(link.verdict.queue),
        striped: session.is_striped(path),
        tx: traffic(link.state.sent, link.state.sent_bytes),
        rx: traffic(link.state.received, link.state.received_bytes),
        forced: link.state.forced,
        copies: traffic(link.state.copies, link.state.copied_bytes),
        again: traffic(link.state.again, link.state.again_bytes),
        parity: traffic(link.state.parity, link.state.parity_bytes),
        recovered: 0,
        untold: link.state.untold,
        moves: link.state.moves,
        metered: link.has(bond_path_flag::METERED),
        probe_interval_ms: ms(pace.interval),
        probe_bytes_per_month: probe_cost(session.suite, link, pace.interval, monotonic()),
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
        let Pace { dead_after, .. } = pace::of(&core.settings, link, monotonic());
        let after = ms(dead_after);
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

/// Both ends probe, and both answer. The least probe is as long as its answer; one that
/// confirms how long packets may be is as long as they.
fn probe_cost(suite: Suite, link: &Link, interval: Duration, now: u64) -> u64 {
    let least = mtu::overhead(suite, link.remote().is_ipv6()) + size_of::<ProbeReply>() as u32;
    let check = Duration::from_nanos(mtu::check_every(is_idle(&link.entry, &link.state, now)));
    let times = |every: Duration| MONTH.as_secs_f64() / every.as_secs_f64().max(1e-3);
    let bytes =
        times(interval) * f64::from(2 * least) + times(check) * f64::from(link.entry.mtu + least);
    (2.0 * bytes) as u64
}

#[cfg(test)]
mod tests {
    use mwb_common::maps::{BondPath, PathState};

    use super::*;

    #[test]
    fn probes_cost_what_both_ends_send_in_a_month() {
        let entry = BondPath { flags: bond_path_flag::METERED, mtu: 1_500, ..BondPath::default() };
        let mut link = Link { entry, ..Link::default() };
        // 28 + 40 bytes around, 48 in it, four packets in each interval; and every thirty
        // seconds, or ten minutes, one of 1,500 bytes and its answer, from either end.
        let used = PathState { used_at: 100_000_000_000, ..PathState::default() };
        let now = used.used_at + 1;
        let cost = |link: &Link, ms| {
            probe_cost(Suite::ChaCha20Poly1305, link, Duration::from_millis(ms), now)
        };
        assert_eq!(cost(&link, 1_000), 2_592_000 * 4 * 116 + 4_320 * 2 * 1_616);
        link.state = used;
        assert_eq!(cost(&link, 50), 51_840_000 * 4 * 116 + 86_400 * 2 * 1_616);
    }
}
