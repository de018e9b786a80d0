//! Metrics of a bond, from its snapshot.

use prometheus::Registry;

use super::bond::{BondPathState, BondPathStatus, BondSession, BondStatus};
use super::metrics::{
    BOND_CLASS_BYTES, BOND_CLASS_PACKETS, BOND_HANDSHAKES, BOND_INITIATIONS, BOND_KEYS_AGE,
    BOND_MESSAGES_REFUSED, BOND_MTU, BOND_ORDER_BYTES, BOND_ORDER_HELD, BOND_ORDER_MISSING,
    BOND_ORDER_PACKETS, BOND_ORDER_PARTS, BOND_ORDER_WAITS, BOND_ORDER_WITHIN, BOND_PARITY_BLOCKS,
    BOND_PARITY_BYTES, BOND_PARITY_PACKETS, BOND_PARITY_SIZE, BOND_PATH_AGAIN, BOND_PATH_BYTES,
    BOND_PATH_CAPACITY, BOND_PATH_COPIED, BOND_PATH_COPIES, BOND_PATH_FORCED, BOND_PATH_JITTER,
    BOND_PATH_LOSS, BOND_PATH_LOST, BOND_PATH_MOVES, BOND_PATH_MTU, BOND_PATH_PACKETS,
    BOND_PATH_PARITY, BOND_PATH_PROBE_INTERVAL, BOND_PATH_QUEUE, BOND_PATH_RECOVERED,
    BOND_PATH_RTT, BOND_PATH_STATE, BOND_PATH_STRIPED, BOND_REPAIR_BYTES, BOND_REPAIR_LOSSES,
    BOND_REPAIR_PACKETS, BOND_SESSIONS, BOND_UNANSWERED, amount, counter, float, gauge, whole,
};

/// What the far end is called at a gateway.
const SERVER: &str = "server";
/// The place of what no rule has matched.
const NO_RULE: &str = "none";

/// Fills in all that is known of a bond.
pub(super) fn fill(registry: &Registry, bond: &BondStatus) -> Result<(), prometheus::Error> {
    let none: &[&str] = &[];
    let sessions = gauge(registry, &BOND_SESSIONS)?;
    sessions.with_label_values(none).set(whole(bond.sessions.len() as u64));
    let unanswered = float(registry, &BOND_UNANSWERED)?;
    if let Some(seconds) = bond.unanswered_seconds {
        unanswered.with_label_values(none).set(seconds);
    }
    let age = float(registry, &BOND_KEYS_AGE)?;
    let mtu = gauge(registry, &BOND_MTU)?;
    for session in &bond.sessions {
        let peer = &[peer(session)];
        if let Some(seconds) = session.keys_age_seconds {
            age.with_label_values(peer).set(seconds);
        }
        mtu.with_label_values(peer).set(session.mtu.into());
    }
    fill_classes(registry, bond)?;
    fill_order(registry, bond)?;
    fill_repair(registry, bond)?;
    fill_parity(registry, bond)?;
    fill_handshakes(registry, bond)?;
    fill_quality(registry, bond)?;
    fill_traffic(registry, bond)
}

fn peer(session: &BondSession) -> &str {
    session.client.as_deref().unwrap_or(SERVER)
}

fn fill_classes(registry: &Registry, bond: &BondStatus) -> Result<(), prometheus::Error> {
    let packets = counter(registry, &BOND_CLASS_PACKETS)?;
    let bytes = counter(registry, &BOND_CLASS_BYTES)?;
    for (place, row) in (1_u32..).zip(&bond.classes) {
        let place = if row.rule.is_some() { place.to_string() } else { NO_RULE.to_owned() };
        let labels = [place.as_str(), row.class.as_str()];
        packets.with_label_values(&labels).inc_by(row.matched.packets);
        bytes.with_label_values(&labels).inc_by(row.matched.bytes);
    }
    Ok(())
}

fn fill_order(registry: &Registry, bond: &BondStatus) -> Result<(), prometheus::Error> {
    let packets = counter(registry, &BOND_ORDER_PACKETS)?;
    let missing = counter(registry, &BOND_ORDER_MISSING)?;
    let held = gauge(registry, &BOND_ORDER_HELD)?;
    let bytes = gauge(registry, &BOND_ORDER_BYTES)?;
    let waited = counter(registry, &BOND_ORDER_WITHIN)?;
    for session in &bond.sessions {
        let (peer, order) = (peer(session), &session.order);
        for (why, count) in &order.given {
            packets.with_label_values(&[peer, why]).inc_by(*count);
        }
        packets.with_label_values(&[peer, "repeated"]).inc_by(order.repeated);
        missing.with_label_values(&[peer]).inc_by(order.missing);
        held.with_label_values(&[peer]).set(whole(order.held));
        bytes.with_label_values(&[peer]).set(whole(order.held_bytes));
        for (bound, within) in &order.within_ms {
            let bound = (bound / 1e3).to_string();
            waited.with_label_values(&[peer, &bound]).inc_by(*within);
        }
        waited.with_label_values(&[peer, "+Inf"]).inc_by(order.given.values().sum());
    }
    fill_parts(registry, bond)
}

fn fill_parts(registry: &Registry, bond: &BondStatus) -> Result<(), prometheus::Error> {
    let packets = counter(registry, &BOND_ORDER_PARTS)?;
    let waits = amount(registry, &BOND_ORDER_WAITS)?;
    for session in &bond.sessions {
        let peer = peer(session);
        for part in &session.order.parts {
            let path = part.path.to_string();
            for (why, count) in &part.given {
                packets.with_label_values(&[peer, &part.repair, &path, why]).inc_by(*count);
            }
            waits.with_label_values(&[peer, &part.repair, &path]).inc_by(part.held_ms / 1e3);
        }
    }
    Ok(())
}

fn fill_repair(registry: &Registry, bond: &BondStatus) -> Result<(), prometheus::Error> {
    let packets = counter(registry, &BOND_REPAIR_PACKETS)?;
    let losses = counter(registry, &BOND_REPAIR_LOSSES)?;
    let bytes = gauge(registry, &BOND_REPAIR_BYTES)?;
    for session in &bond.sessions {
        let (peer, repair) = (peer(session), &session.repair);
        for (result, count) in [
            ("sent", repair.sent),
            ("acknowledged", repair.acknowledged),
            ("again", repair.again),
            ("refused", repair.refused),
            ("given_up", repair.given_up),
        ] {
            packets.with_label_values(&[peer, result]).inc_by(count);
        }
        for (cause, count) in &repair.lost {
            losses.with_label_values(&[peer, cause]).inc_by(*count);
        }
        bytes.with_label_values(&[peer]).set(whole(repair.held_bytes));
    }
    Ok(())
}

fn fill_parity(registry: &Registry, bond: &BondStatus) -> Result<(), prometheus::Error> {
    let packets = counter(registry, &BOND_PARITY_PACKETS)?;
    let blocks = counter(registry, &BOND_PARITY_BLOCKS)?;
    let size = counter(registry, &BOND_PARITY_SIZE)?;
    let bytes = gauge(registry, &BOND_PARITY_BYTES)?;
    for session in &bond.sessions {
        let (peer, parity) = (peer(session), &session.parity);
        for (result, count) in [
            ("data", parity.data),
            ("parity", parity.parity),
            ("received", parity.received),
            ("useless", parity.useless),
            ("late", parity.late),
            ("refused", parity.refused),
            ("recovered", parity.recovered),
            ("early", parity.early),
        ] {
            packets.with_label_values(&[peer, result]).inc_by(count);
        }
        blocks.with_label_values(&[peer, "sent"]).inc_by(parity.blocks);
        blocks.with_label_values(&[peer, "unrecoverable"]).inc_by(parity.unrecoverable);
        size.with_label_values(&[peer, "data"]).inc_by(parity.data_bytes);
        size.with_label_values(&[peer, "parity"]).inc_by(parity.parity_bytes);
        bytes.with_label_values(&[peer]).set(whole(parity.held_bytes));
    }
    Ok(())
}

/// Each path with its labels.
fn paths(bond: &BondStatus) -> impl Iterator<Item = ([String; 3], &BondPathStatus)> {
    bond.sessions.iter().flat_map(|session| {
        session.paths.iter().map(|path| {
            let labels = [peer(session).to_owned(), path.path.to_string(), path.wan.clone()];
            (labels, path)
        })
    })
}

fn fill_handshakes(registry: &Registry, bond: &BondStatus) -> Result<(), prometheus::Error> {
    let none: &[&str] = &[];
    let shakes = &bond.handshakes;
    counter(registry, &BOND_INITIATIONS)?.with_label_values(none).inc_by(shakes.initiations);
    let results = counter(registry, &BOND_HANDSHAKES)?;
    let told = [
        ("established", shakes.established),
        ("cookie", shakes.cookies),
        ("ignored", shakes.ignored),
    ];
    let refused = shakes.refused.iter().map(|(reason, count)| (reason.as_str(), *count));
    for (result, count) in told.into_iter().chain(refused) {
        results.with_label_values(&[result]).inc_by(count);
    }
    let messages = counter(registry, &BOND_MESSAGES_REFUSED)?;
    for (reason, count) in &bond.messages_refused {
        messages.with_label_values(&[reason]).inc_by(*count);
    }
    Ok(())
}

fn fill_quality(registry: &Registry, bond: &BondStatus) -> Result<(), prometheus::Error> {
    let states = gauge(registry, &BOND_PATH_STATE)?;
    let rtt = float(registry, &BOND_PATH_RTT)?;
    let jitter = float(registry, &BOND_PATH_JITTER)?;
    let loss = float(registry, &BOND_PATH_LOSS)?;
    let queue = float(registry, &BOND_PATH_QUEUE)?;
    let capacity = gauge(registry, &BOND_PATH_CAPACITY)?;
    let mtu = gauge(registry, &BOND_PATH_MTU)?;
    let striped = gauge(registry, &BOND_PATH_STRIPED)?;
    let interval = float(registry, &BOND_PATH_PROBE_INTERVAL)?;
    for (labels, path) in paths(bond) {
        let labels = labels.each_ref().map(String::as_str);
        let [peer, number, wan] = labels;
        for state in BondPathState::ALL {
            let is = path.state == state;
            states.with_label_values(&[peer, number, wan, state.name()]).set(is.into());
        }
        for (family, ms) in [(&rtt, path.rtt_ms), (&jitter, path.jitter_ms)] {
            if let Some(ms) = ms {
                family.with_label_values(&labels).set(ms / 1e3);
            }
        }
        loss.with_label_values(&labels).set(path.loss);
        queue.with_label_values(&labels).set(path.queue_ms / 1e3);
        if let Some(bits) = path.capacity_bps {
            capacity.with_label_values(&labels).set(whole(bits));
        }
        mtu.with_label_values(&labels).set(path.mtu.into());
        striped.with_label_values(&labels).set(path.striped.into());
        interval.with_label_values(&labels).set(path.probe_interval_ms / 1e3);
    }
    Ok(())
}

fn fill_traffic(registry: &Registry, bond: &BondStatus) -> Result<(), prometheus::Error> {
    let packets = counter(registry, &BOND_PATH_PACKETS)?;
    let bytes = counter(registry, &BOND_PATH_BYTES)?;
    let lost = counter(registry, &BOND_PATH_LOST)?;
    let forced = counter(registry, &BOND_PATH_FORCED)?;
    let copies = counter(registry, &BOND_PATH_COPIES)?;
    let again = counter(registry, &BOND_PATH_AGAIN)?;
    let parity = counter(registry, &BOND_PATH_PARITY)?;
    let recovered = counter(registry, &BOND_PATH_RECOVERED)?;
    let copied = counter(registry, &BOND_PATH_COPIED)?;
    let moves = counter(registry, &BOND_PATH_MOVES)?;
    for (labels, path) in paths(bond) {
        let labels = labels.each_ref().map(String::as_str);
        let [peer, number, wan] = labels;
        for (direction, traffic) in [("in", path.rx), ("out", path.tx)] {
            let labels = [peer, number, wan, direction];
            packets.with_label_values(&labels).inc_by(traffic.packets);
            bytes.with_label_values(&labels).inc_by(traffic.bytes);
        }
        lost.with_label_values(&labels).inc_by(path.lost);
        forced.with_label_values(&labels).inc_by(path.forced);
        copies.with_label_values(&labels).inc_by(path.copies.packets);
        copied.with_label_values(&labels).inc_by(path.copies.bytes);
        again.with_label_values(&labels).inc_by(path.again.packets);
        parity.with_label_values(&labels).inc_by(path.parity.packets);
        recovered.with_label_values(&labels).inc_by(path.recovered);
        moves.with_label_values(&labels).inc_by(path.moves.into());
    }
    Ok(())
}
