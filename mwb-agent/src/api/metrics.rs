//! Prometheus metrics, made from snapshots at the moment of a scrape: nothing is
//! counted twice, and a figure that is not known has no series.

use prometheus::core::Collector;
use prometheus::{CounterVec, GaugeVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};

use super::metrics_bond;
use super::policy::PolicyStatus;
use super::snapshot::{CounterRow, Status, Traffic, WanState, WanStatus};

/// The text format's media type.
pub(super) const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// A metric family.
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) labels: &'static [&'static str],
    pub(super) help: &'static str,
}

macro_rules! families {
    ($($id:ident = $name:literal [$($label:literal),*] $help:literal;)+) => {
        $(pub(super) const $id: Family =
            Family { name: $name, labels: &[$($label),*], help: $help };)+
        /// Every metric there is.
        #[cfg(test)]
        pub(super) const FAMILIES: &[Family] = &[$($id),+];
    };
}

families! {
    BUILD_INFO = "mwb_build_info" ["version"] "Version of the agent, always 1.";
    HOOK_INFO = "mwb_hook_info" ["device", "role", "hook", "mode"] "Where a device's packets are taken, always 1.";
    WAN_UP = "mwb_wan_up" ["wan"] "Whether the WAN can carry traffic: up or degraded.";
    WAN_STATE = "mwb_wan_state" ["wan", "state"] "1 for the state the WAN is in, 0 for the others.";
    WAN_ACTIVE = "mwb_wan_active" ["wan"] "Whether new flows are sent to the WAN.";
    WAN_SHARE = "mwb_wan_share_ratio" ["wan"] "Part of the IPv4 path choice that leads to the WAN, 0 to 1.";
    WAN_RTT = "mwb_wan_rtt_seconds" ["wan"] "Smoothed round-trip time of the WAN's probes.";
    WAN_JITTER = "mwb_wan_jitter_seconds" ["wan"] "Smoothed variation of the round-trip time.";
    WAN_LOSS = "mwb_wan_loss_ratio" ["wan"] "Part of the WAN's latest probes lost, 0 to 1.";
    WAN_PACKETS = "mwb_wan_packets_total" ["wan", "direction"] "Packets forwarded through the WAN.";
    WAN_BYTES = "mwb_wan_bytes_total" ["wan", "direction"] "Bytes forwarded through the WAN, from the IP header on.";
    PACKETS = "mwb_packets_total" ["direction", "wan", "reason", "verdict", "protocol"] "Packets by what became of them and why.";
    BYTES = "mwb_bytes_total" ["direction", "wan", "reason", "verdict", "protocol"] "Bytes by what became of them and why, from the IP header on.";
    NAT_MAPPINGS = "mwb_nat_mappings" [] "Inside endpoints that have an outside port.";
    NAT_FLOWS = "mwb_nat_flows" ["family"] "Open flows.";
    NAT_FLOW_CAPACITY = "mwb_nat_flow_capacity" [] "Flows that fit, per address family.";
    NAT_PORTS_USED = "mwb_nat_ports_used" ["wan"] "Outside ports taken on the WAN's address.";
    FAILOVERS = "mwb_failovers_total" ["wan"] "How often traffic had to leave the WAN.";
    FORCED = "mwb_wan_forced" ["wan"] "Whether the operator sends new flows to the WAN.";
    HOLD_DOWN = "mwb_wan_hold_down_seconds" ["wan"] "How long the WAN must be well before it is used again.";
    HELD = "mwb_wan_held" ["wan"] "Whether the WAN answers and is not used yet.";
    RELAPSES = "mwb_wan_relapses" ["wan"] "How often the WAN failed soon after it came back, since it was last calm.";
    CHECK_INFO = "mwb_wan_check_info" ["wan", "method"] "How the WAN is checked, always 1.";
    CHECK_INTERVAL = "mwb_wan_check_interval_seconds" ["wan"] "Time between two rounds of checks at present.";
    CHECK_RELIABILITY = "mwb_wan_check_reliability" ["wan", "method"] "How far a method that can be chosen is to be believed, 0 to 1.";
    NOTIFY_WAITING = "mwb_notify_waiting" ["receiver"] "Events that a receiver is still to be told of.";
    NOTIFY_EVENTS = "mwb_notify_events_total" ["receiver", "result"] "Events by what became of them.";
    DRAINING = "mwb_wan_draining" ["wan"] "Whether flows may stay on the WAN only for a time.";
    REDIRECT_LOSSES = "mwb_redirect_losses_total" ["device"] "Frames that were redirected to the device by XDP and that it did not take.";
    POLICY_HITS = "mwb_policy_hits_total" ["rule"] "Flows that the policy rule has opened, and packets that it has dropped.";
    POLICY_ACTIVE = "mwb_policy_active" ["rule"] "Whether the policy rule counts at this time.";
    POLICY_ADDRESSES = "mwb_policy_addresses" ["rule"] "Addresses that are known of the names that the policy rule asks for.";
    DOMAIN_ADDRESSES = "mwb_domain_addresses" [] "Addresses that are known of names that policy rules ask for.";
    DOMAIN_ANSWERS = "mwb_domain_answers_total" ["result"] "Messages of the gateway's resolver to hosts, by what became of them.";
    DOMAIN_MISSED = "mwb_domain_missed_total" ["cause"] "Packets and TCP connections with such messages that were missed.";
    DOMAIN_REFUSED = "mwb_domain_addresses_refused_total" ["cause"] "Addresses that were not taken or kept, for want of room.";
    BOND_SESSIONS = "mwb_bond_sessions" [] "Sessions of the bond that are in use.";
    BOND_UNANSWERED = "mwb_bond_unanswered_seconds" [] "For how long the server has been asked for a session or keys without an answer.";
    BOND_KEYS_AGE = "mwb_bond_keys_age_seconds" ["peer"] "Age of the session's newest keys.";
    BOND_MTU = "mwb_bond_mtu_bytes" ["peer"] "Largest inner packet that every path of the session takes.";
    BOND_PATH_STATE = "mwb_bond_path_state" ["peer", "path", "wan", "state"] "1 for the state the path is in, 0 for the others.";
    BOND_PATH_RTT = "mwb_bond_path_rtt_seconds" ["peer", "path", "wan"] "Smoothed round-trip time of the path's probes.";
    BOND_PATH_JITTER = "mwb_bond_path_jitter_seconds" ["peer", "path", "wan"] "Smoothed variation of that time.";
    BOND_PATH_LOSS = "mwb_bond_path_loss_ratio" ["peer", "path", "wan"] "Part of the packets sent that are lost for other reasons than a full queue, 0 to 1.";
    BOND_PATH_QUEUE = "mwb_bond_path_queue_seconds" ["peer", "path", "wan"] "How long the newest probe waited in a queue.";
    BOND_PATH_CAPACITY = "mwb_bond_path_capacity_bits_per_second" ["peer", "path", "wan"] "What the path can carry to the far end, as estimated.";
    BOND_PATH_MTU = "mwb_bond_path_mtu_bytes" ["peer", "path", "wan"] "Largest packet that passes, from the outer IP header on.";
    BOND_PATH_STRIPED = "mwb_bond_path_striped" ["peer", "path", "wan"] "Whether elephants go by the path and others.";
    BOND_PATH_PROBE_INTERVAL = "mwb_bond_path_probe_interval_seconds" ["peer", "path", "wan"] "Time between two probes of the path at present.";
    BOND_PATH_PACKETS = "mwb_bond_path_packets_total" ["peer", "path", "wan", "direction"] "Packets of the path, probes included.";
    BOND_PATH_BYTES = "mwb_bond_path_bytes_total" ["peer", "path", "wan", "direction"] "Bytes of the path from the outer IP header on, probes included.";
    BOND_PATH_LOST = "mwb_bond_path_lost_packets_total" ["peer", "path", "wan"] "Packets that were sent by the path and did not arrive.";
    BOND_PATH_FORCED = "mwb_bond_path_forced_packets_total" ["peer", "path", "wan"] "Packets that were sent by the path although it was not alive, because none was.";
    BOND_PATH_COPIES = "mwb_bond_path_copies_total" ["peer", "path", "wan"] "Packets sent by the path of which another path has had the first copy.";
    BOND_PATH_COPIED = "mwb_bond_path_copied_bytes_total" ["peer", "path", "wan"] "Bytes of them from the outer IP header on.";
    BOND_PATH_MOVES = "mwb_bond_path_moves_total" ["peer", "path", "wan"] "How often the far end of the path has come from another address.";
    BOND_PATH_AGAIN = "mwb_bond_path_sent_again_total" ["peer", "path", "wan"] "Packets sent by the path that had been lost on another.";
    BOND_PATH_PARITY = "mwb_bond_path_parity_total" ["peer", "path", "wan"] "Packets of parity sent by the path.";
    BOND_PATH_RECOVERED = "mwb_bond_path_recovered_total" ["peer", "path", "wan"] "Packets that were lost on the path on their way here, and computed.";
    BOND_ORDER_PACKETS = "mwb_bond_order_packets_total" ["peer", "result"] "Packets that came ahead of their turn, or behind one that did, by what became of them.";
    BOND_ORDER_MISSING = "mwb_bond_order_missing_total" ["peer"] "Packets that did not come before those behind them were given on.";
    BOND_ORDER_HELD = "mwb_bond_order_held_packets" ["peer"] "Packets that wait for their turn.";
    BOND_ORDER_BYTES = "mwb_bond_order_held_bytes" ["peer"] "Memory that they take.";
    BOND_ORDER_WITHIN = "mwb_bond_order_within_total" ["peer", "le"] "Packets that waited for their turn no longer than so many seconds.";
    BOND_ORDER_PARTS = "mwb_bond_order_part_packets_total" ["peer", "repair", "path", "result"] "Packets given on in order, by how losses of them are repaired, by the path that brought them, and why.";
    BOND_ORDER_WAITS = "mwb_bond_order_part_wait_seconds_total" ["peer", "repair", "path"] "How long all of them have waited.";
    BOND_REPAIR_PACKETS = "mwb_bond_repair_packets_total" ["peer", "result"] "Packets whose lost ones are sent again, by what became of them.";
    BOND_REPAIR_LOSSES = "mwb_bond_repair_losses_total" ["peer", "cause"] "Losses of such packets, by what has shown them.";
    BOND_REPAIR_BYTES = "mwb_bond_repair_held_bytes" ["peer"] "Memory that packets take whose arrival is not known yet.";
    BOND_PARITY_PACKETS = "mwb_bond_parity_packets_total" ["peer", "result"] "Packets of blocks with parity, of data and of parity, by what became of them.";
    BOND_PARITY_BLOCKS = "mwb_bond_parity_blocks_total" ["peer", "result"] "Blocks with parity, by what became of them.";
    BOND_PARITY_SIZE = "mwb_bond_parity_bytes_total" ["peer", "what"] "Bytes that were put in blocks, and of the parity that they got.";
    BOND_PARITY_BYTES = "mwb_bond_parity_held_bytes" ["peer"] "Memory of open blocks, and of what has come of late.";
    BOND_CLASS_PACKETS = "mwb_bond_class_packets_total" ["rule", "class"] "Packets that the rule of classes has matched.";
    BOND_CLASS_BYTES = "mwb_bond_class_bytes_total" ["rule", "class"] "Bytes of them from the inner IP header on.";
    BOND_INITIATIONS = "mwb_bond_initiations_total" [] "Initiations of handshakes: sent by a gateway, or come to a server.";
    BOND_HANDSHAKES = "mwb_bond_handshakes_total" ["result"] "What handshakes have come to.";
    BOND_MESSAGES_REFUSED = "mwb_bond_messages_refused_total" ["reason"] "Messages of the far end's agent that were not taken.";
}

/// The text of a scrape.
pub(super) fn render(
    status: &Status,
    counters: &[CounterRow],
    policy: &PolicyStatus,
) -> Result<String, prometheus::Error> {
    let registry = Registry::new();
    fill_agent(&registry, status)?;
    fill_wans(&registry, &status.wans)?;
    fill_failover(&registry, status)?;
    fill_counters(&registry, counters)?;
    fill_nat(&registry, status)?;
    fill_policy(&registry, policy)?;
    if let Some(bond) = &status.bond {
        metrics_bond::fill(&registry, bond)?;
    }
    TextEncoder::new().encode_to_string(&registry.gather())
}

fn fill_agent(registry: &Registry, status: &Status) -> Result<(), prometheus::Error> {
    gauge(registry, &BUILD_INFO)?.with_label_values(&[&status.version]).set(1);
    let hooks = gauge(registry, &HOOK_INFO)?;
    let lan = status.lan.iter().map(|lan| ("lan", &lan.device, &lan.hook, &lan.hook_mode));
    let wans = status.wans.iter().map(|wan| ("wan", &wan.device, &wan.hook, &wan.hook_mode));
    for (role, device, hook, mode) in lan.chain(wans) {
        if let (Some(hook), Some(mode)) = (hook, mode) {
            hooks.with_label_values(&[device.as_str(), role, hook, mode]).set(1);
        }
    }
    Ok(())
}

fn fill_wans(registry: &Registry, wans: &[WanStatus]) -> Result<(), prometheus::Error> {
    let up = gauge(registry, &WAN_UP)?;
    let states = gauge(registry, &WAN_STATE)?;
    let active = gauge(registry, &WAN_ACTIVE)?;
    let share = float(registry, &WAN_SHARE)?;
    let rtt = float(registry, &WAN_RTT)?;
    let jitter = float(registry, &WAN_JITTER)?;
    let loss = float(registry, &WAN_LOSS)?;
    let packets = counter(registry, &WAN_PACKETS)?;
    let bytes = counter(registry, &WAN_BYTES)?;
    let failovers = counter(registry, &FAILOVERS)?;
    for wan in wans {
        let name = &[wan.name.as_str()];
        let carries = matches!(wan.state, WanState::Up | WanState::Degraded);
        up.with_label_values(name).set(carries.into());
        for state in WanState::ALL {
            let is = wan.state == state;
            states.with_label_values(&[&wan.name, state.name()]).set(is.into());
        }
        active.with_label_values(name).set(wan.active.into());
        share.with_label_values(name).set(wan.share);
        let measured = [
            (&rtt, wan.rtt_ms.map(|ms| ms / 1e3)),
            (&jitter, wan.jitter_ms.map(|ms| ms / 1e3)),
            (&loss, wan.loss),
        ];
        for (family, value) in measured {
            if let Some(value) = value {
                family.with_label_values(name).set(value);
            }
        }
        for (direction, Traffic { packets: p, bytes: b }) in [("in", wan.rx), ("out", wan.tx)] {
            packets.with_label_values(&[&wan.name, direction]).inc_by(p);
            bytes.with_label_values(&[&wan.name, direction]).inc_by(b);
        }
        failovers.with_label_values(name).inc_by(wan.failovers);
    }
    Ok(())
}

fn fill_checks(registry: &Registry, status: &Status) -> Result<(), prometheus::Error> {
    let info = gauge(registry, &CHECK_INFO)?;
    let interval = float(registry, &CHECK_INTERVAL)?;
    let reliability = float(registry, &CHECK_RELIABILITY)?;
    for WanStatus { name, checks, .. } in &status.wans {
        let Some(method) = &checks.method else { continue };
        info.with_label_values(&[name, method]).set(1);
        interval.with_label_values(&[name]).set(checks.interval_ms / 1e3);
        for score in &checks.scores {
            reliability.with_label_values(&[name, &score.method]).set(score.reliability);
        }
    }
    let waiting = gauge(registry, &NOTIFY_WAITING)?;
    let events = counter(registry, &NOTIFY_EVENTS)?;
    for receiver in &status.notify.receivers {
        let name = receiver.name.as_str();
        waiting.with_label_values(&[name]).set(i64::try_from(receiver.queued).unwrap_or(i64::MAX));
        let dropped = receiver.dropped;
        for (result, count) in [
            ("told", receiver.delivered),
            ("queue_full", dropped.queue_full),
            ("expired", dropped.expired),
            ("refused", dropped.refused),
            ("damaged", dropped.damaged),
            ("failed", dropped.failed),
        ] {
            events.with_label_values(&[name, result]).inc_by(count);
        }
    }
    Ok(())
}

fn fill_failover(registry: &Registry, status: &Status) -> Result<(), prometheus::Error> {
    let forced = gauge(registry, &FORCED)?;
    let hold_down = float(registry, &HOLD_DOWN)?;
    let held = gauge(registry, &HELD)?;
    let relapses = gauge(registry, &RELAPSES)?;
    let draining = gauge(registry, &DRAINING)?;
    for wan in &status.wans {
        let name = &[wan.name.as_str()];
        let is_forced = status.failover.forced.as_ref() == Some(&wan.name);
        forced.with_label_values(name).set(is_forced.into());
        hold_down.with_label_values(name).set(wan.hold_down_seconds);
        held.with_label_values(name).set(wan.hold_until_unix_ms.is_some().into());
        relapses.with_label_values(name).set(wan.relapses.into());
        draining.with_label_values(name).set(wan.drain_until_unix_ms.is_some().into());
    }
    fill_checks(registry, status)?;
    let losses = counter(registry, &REDIRECT_LOSSES)?;
    for (device, frames) in &status.redirect_losses {
        losses.with_label_values(&[device]).inc_by(*frames);
    }
    Ok(())
}

fn fill_counters(registry: &Registry, rows: &[CounterRow]) -> Result<(), prometheus::Error> {
    let packets = counter(registry, &PACKETS)?;
    let bytes = counter(registry, &BYTES)?;
    for row in rows {
        let labels = [&row.direction, &row.wan, &row.reason, &row.verdict, &row.protocol]
            .map(String::as_str);
        packets.with_label_values(&labels).inc_by(row.packets);
        bytes.with_label_values(&labels).inc_by(row.bytes);
    }
    Ok(())
}

fn fill_nat(registry: &Registry, status: &Status) -> Result<(), prometheus::Error> {
    let nat = &status.nat;
    let none: &[&str] = &[];
    gauge(registry, &NAT_MAPPINGS)?.with_label_values(none).set(whole(nat.mappings));
    let flows = gauge(registry, &NAT_FLOWS)?;
    flows.with_label_values(&["ipv4"]).set(whole(nat.flows4));
    flows.with_label_values(&["ipv6"]).set(whole(nat.flows6));
    gauge(registry, &NAT_FLOW_CAPACITY)?.with_label_values(none).set(whole(nat.flow_capacity));
    let ports = gauge(registry, &NAT_PORTS_USED)?;
    for (wan, used) in &nat.ports_used {
        ports.with_label_values(&[wan]).set(whole(*used));
    }
    Ok(())
}

fn fill_policy(registry: &Registry, policy: &PolicyStatus) -> Result<(), prometheus::Error> {
    let hits = counter(registry, &POLICY_HITS)?;
    let active = gauge(registry, &POLICY_ACTIVE)?;
    let addresses = gauge(registry, &POLICY_ADDRESSES)?;
    for rule in &policy.rules {
        hits.with_label_values(&[&rule.name]).inc_by(rule.hits);
        active.with_label_values(&[&rule.name]).set(rule.active.into());
        if let Some(known) = rule.addresses {
            addresses.with_label_values(&[&rule.name]).set(whole(known));
        }
    }
    let Some(domains) = &policy.domains else { return Ok(()) };
    let none: &[&str] = &[];
    gauge(registry, &DOMAIN_ADDRESSES)?.with_label_values(none).set(whole(domains.addresses));
    let answers = counter(registry, &DOMAIN_ANSWERS)?;
    for (result, count) in [
        ("taken", domains.answers),
        ("other_name", domains.of_others),
        ("no_address", domains.without_address),
        ("unreadable", domains.unreadable),
    ] {
        answers.with_label_values(&[result]).inc_by(count);
    }
    let missed = counter(registry, &DOMAIN_MISSED)?;
    for (cause, count) in [("queue_full", domains.dropped), ("given_up", domains.given_up)] {
        missed.with_label_values(&[cause]).inc_by(count);
    }
    let refused = counter(registry, &DOMAIN_REFUSED)?;
    for (cause, count) in [("pushed_out", domains.pushed_out), ("no_room", domains.refused)] {
        refused.with_label_values(&[cause]).inc_by(count);
    }
    Ok(())
}

pub(super) fn gauge(
    registry: &Registry,
    family: &Family,
) -> Result<IntGaugeVec, prometheus::Error> {
    register(registry, IntGaugeVec::new(opts(family), family.labels)?)
}

pub(super) fn float(registry: &Registry, family: &Family) -> Result<GaugeVec, prometheus::Error> {
    register(registry, GaugeVec::new(opts(family), family.labels)?)
}

pub(super) fn counter(
    registry: &Registry,
    family: &Family,
) -> Result<IntCounterVec, prometheus::Error> {
    register(registry, IntCounterVec::new(opts(family), family.labels)?)
}

/// A counter of something that is not whole.
pub(super) fn amount(
    registry: &Registry,
    family: &Family,
) -> Result<CounterVec, prometheus::Error> {
    register(registry, CounterVec::new(opts(family), family.labels)?)
}

fn opts(family: &Family) -> Opts {
    Opts::new(family.name, family.help)
}

fn register<C: Collector + Clone + 'static>(
    registry: &Registry,
    family: C,
) -> Result<C, prometheus::Error> {
    registry.register(Box::new(family.clone()))?;
    Ok(family)
}

/// The library's gauges are signed.
pub(super) fn whole(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
