//! A bond as text for people. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use mwb_agent::api::bond::{BondPathState, BondPathStatus, BondSession, BondStatus};
use mwb_agent::tunnel::mtu::LEAST_INNER;

use crate::bond_care;
use crate::show::Style;
use crate::table::{Align, Colour, Table};
use crate::units::{bits, bytes, counted, grouped, millis, percent, span};

/// All of it: each session with its paths, then what handshakes have come to.
pub(crate) fn show(bond: Option<&BondStatus>, style: &Style) -> String {
    let Some(bond) = bond else {
        return "no bond: the agent's mode is steer, and its role is no server's\n".to_owned();
    };
    let mut out = head(bond);
    for session in &bond.sessions {
        let _ = write!(out, "\n{}\n{}", title(session), paths(&session.paths, style));
        out.push_str(&bond_care::session(session));
    }
    out.push_str(&bond_care::classes(&bond.classes));
    let shakes = &bond.handshakes;
    let _ = write!(
        out,
        "\nHandshakes: {}, {} led to keys",
        counted(shakes.initiations, "initiation"),
        grouped(shakes.established)
    );
    for (what, count) in [("ignored", shakes.ignored), ("cookies", shakes.cookies)] {
        if count > 0 {
            let _ = write!(out, ", {} {what}", grouped(count));
        }
    }
    out.push('\n');
    out.push_str(&reasons("Not answered", &shakes.refused));
    out.push_str(&reasons("Messages not taken", &bond.messages_refused));
    out
}

/// A few lines for the status: one for each session, and one for a server that does
/// not answer.
pub(crate) fn brief(bond: &BondStatus) -> String {
    let mut out = head(bond);
    for session in &bond.sessions {
        let living = session.paths.iter().filter(|path| path.state == BondPathState::Alive);
        let others: Vec<String> = session
            .paths
            .iter()
            .filter(|path| path.state != BondPathState::Alive)
            .map(|path| format!("{} {}", called(path), path.state.name()))
            .collect();
        let _ = write!(
            out,
            "  {}: {} of {} alive",
            peer(session),
            living.count(),
            counted(session.paths.len() as u64, "path")
        );
        if !others.is_empty() {
            let _ = write!(out, " ({})", others.join(", "));
        }
        let keys = if session.keys_overdue { ", keys too old" } else { "" };
        let _ = writeln!(out, ", {}, MTU {}{keys}", session.suite, session.mtu);
    }
    out
}

fn head(bond: &BondStatus) -> String {
    let mut out = format!(
        "Bond: {}, UDP port {}, probes every {:.0} ms, dead after {:.0} ms; {}\n",
        bond.role,
        bond.port,
        bond.probe_interval_ms,
        bond.dead_after_ms,
        counted(bond.sessions.len() as u64, "session"),
    );
    // An answer takes its time.
    if let Some(seconds) = bond.unanswered_seconds.filter(|seconds| *seconds >= 2.0) {
        let _ = writeln!(out, "The server has not answered for {}", span(seconds.max(0.0) as u64));
    }
    out
}

fn peer(session: &BondSession) -> String {
    match &session.client {
        Some(client) => format!("client {client}"),
        None => "server".to_owned(),
    }
}

fn called(path: &BondPathStatus) -> String {
    if path.wan.is_empty() { format!("path {}", path.path) } else { path.wan.clone() }
}

/// Behind a session whose keys are too old.
const OVERDUE: &str = "\nIts keys are too old: packets of the far end come, but its agent does \
                       not answer. Does it run there?";

fn title(session: &BondSession) -> String {
    // Whole seconds are enough.
    let age = |seconds: f64| span(seconds.max(0.0) as u64);
    let keys = session.keys_age_seconds.map_or_else(
        || "no keys".to_owned(),
        |seconds| format!("keys {} of {} ago", session.epoch, age(seconds)),
    );
    let overdue = if session.keys_overdue { OVERDUE } else { "" };
    format!(
        "{} {}\n{}, {keys}, known for {}, MTU {}, {}{overdue}{}",
        peer(session),
        session.peer,
        session.suite,
        age(session.age_seconds),
        session.mtu,
        session.balance,
        narrow(session)
    )
}

/// Which paths do not take all packets of IPv6, and what becomes of these.
fn narrow(session: &BondSession) -> String {
    let is_narrow = |path: &&BondPathStatus| (1..LEAST_INNER).contains(&path.inner_mtu);
    let all = session.paths.iter().filter(is_narrow);
    let all: Vec<String> =
        all.map(|path| format!("{} ({} bytes)", called(path), path.inner_mtu)).collect();
    if all.is_empty() {
        return String::new();
    }
    let then = if session.mtu < LEAST_INNER {
        "no other lives, so longer ones are lost"
    } else {
        "longer ones go by other paths"
    };
    format!(
        "\nToo narrow for all packets of IPv6 ({LEAST_INNER} bytes): {}; {then}",
        all.join(", ")
    )
}

fn paths(paths: &[BondPathStatus], style: &Style) -> String {
    use Align::{Left, Right};
    let mut table = Table::new(&[
        ("PATH", Right),
        ("WAN", Left),
        ("FAR END", Left),
        ("STATE", Left),
        ("RTT", Right),
        ("JITTER", Right),
        ("LOSS", Right),
        ("MTU", Right),
        ("CAPACITY", Right),
        ("OUT", Right),
        ("IN", Right),
        ("QUEUE", Right),
        ("STRIPED", Left),
        ("METERED", Left),
        ("PROBED EVERY", Right),
        ("PROBES/MONTH", Right),
        ("WHY", Left),
    ]);
    for path in paths {
        table.push(vec![
            path.path.to_string().into(),
            path.wan.as_str().into(),
            path.remote.as_str().into(),
            style.paint(path.state.name(), colour(path.state)),
            millis(path.rtt_ms).into(),
            millis(path.jitter_ms).into(),
            percent(Some(path.loss)).into(),
            path.mtu.to_string().into(),
            path.capacity_bps.map_or_else(|| "-".to_owned(), bits).into(),
            bits(path.rate_out_bps.max(0.0) as u64).into(),
            bits(path.rate_in_bps.max(0.0) as u64).into(),
            millis(Some(path.queue_ms)).into(),
            if path.striped { "yes" } else { "-" }.into(),
            if path.metered { "yes" } else { "-" }.into(),
            format!("{:.0} ms", path.probe_interval_ms).into(),
            bytes(path.probe_bytes_per_month).into(),
            path.reason.as_str().into(),
        ]);
    }
    table.render()
}

const fn colour(state: BondPathState) -> Colour {
    match state {
        BondPathState::Alive => Colour::Green,
        BondPathState::Parked => Colour::Yellow,
        BondPathState::Dead | BondPathState::Down => Colour::Red,
    }
}

fn reasons(what: &str, counts: &BTreeMap<String, u64>) -> String {
    if counts.is_empty() {
        return String::new();
    }
    let list: Vec<String> =
        counts.iter().map(|(reason, count)| format!("{reason} {}", grouped(*count))).collect();
    format!("{what}: {}\n", list.join(", "))
}

#[cfg(test)]
mod tests {
    use mwb_agent::api::bond::Handshakes;

    use super::*;

    const PLAIN: Style = Style { colour: false, now_ms: 0 };

    fn bond() -> BondStatus {
        let fiber = BondPathStatus {
            path: 1,
            wan: "fiber".to_owned(),
            remote: "203.0.113.250:7000".to_owned(),
            state: BondPathState::Alive,
            rtt_ms: Some(12.5),
            jitter_ms: Some(0.5),
            mtu: 1_500,
            capacity_bps: Some(94_000_000),
            rate_out_bps: 1_250_000.0,
            striped: true,
            probe_interval_ms: 50.0,
            probe_bytes_per_month: 24_300_000_000,
            ..BondPathStatus::default()
        };
        let lte = BondPathStatus {
            path: 2,
            wan: "lte".to_owned(),
            remote: "203.0.113.250:7000".to_owned(),
            reason: "no answer to probes for 3500 ms".to_owned(),
            mtu: 1_368,
            metered: true,
            probe_interval_ms: 1_000.0,
            probe_bytes_per_month: 1_220_000_000,
            ..BondPathStatus::default()
        };
        let session = BondSession {
            peer: "NqnP4z4u49EyW2/lx5QXo6mx9BrGxDTentAf2N++HAY=".to_owned(),
            suite: "chacha20poly1305".to_owned(),
            epoch: 3,
            keys_age_seconds: Some(75.0),
            age_seconds: 435.0,
            mtu: 1_432,
            balance: "adaptive".to_owned(),
            paths: vec![fiber, lte],
            ..BondSession::default()
        };
        BondStatus {
            role: "gateway".to_owned(),
            port: 7_000,
            probe_interval_ms: 50.0,
            dead_after_ms: 150.0,
            sessions: vec![session],
            handshakes: Handshakes { initiations: 5, established: 4, ..Handshakes::default() },
            ..BondStatus::default()
        }
    }

    #[test]
    fn a_bond_is_its_sessions_with_their_paths() {
        assert_eq!(
            show(Some(&bond()), &PLAIN),
            "Bond: gateway, UDP port 7000, probes every 50 ms, dead after 150 ms; 1 session\n\
             \nserver NqnP4z4u49EyW2/lx5QXo6mx9BrGxDTentAf2N++HAY=\n\
             chacha20poly1305, keys 3 of 1m 15s ago, known for 7m 15s, MTU 1432, adaptive\n\
             PATH  WAN    FAR END             STATE      RTT   JITTER   LOSS   MTU     CAPACITY          OUT       IN    QUEUE  STRIPED  METERED  PROBED EVERY  PROBES/MONTH  WHY\n   \
             1  fiber  203.0.113.250:7000  alive  12.5 ms  0.50 ms  0.0 %  1500  94.0 Mbit/s  1.25 Mbit/s  0 bit/s  0.00 ms  yes      -               50 ms       24.3 GB\n   \
             2  lte    203.0.113.250:7000  dead         -        -  0.0 %  1368            -      0 bit/s  0 bit/s  0.00 ms  -        yes           1000 ms       1.22 GB  no answer to probes for 3500 ms\n\
             \nHandshakes: 5 initiations, 4 led to keys\n"
        );
    }

    #[test]
    fn the_status_says_which_paths_do_not_live() {
        let mut bond = bond();
        bond.unanswered_seconds = Some(12.0);
        assert_eq!(
            brief(&bond),
            "Bond: gateway, UDP port 7000, probes every 50 ms, dead after 150 ms; 1 session\n\
             The server has not answered for 12s\n  \
             server: 1 of 2 paths alive (lte dead), chacha20poly1305, MTU 1432\n"
        );
    }

    #[test]
    fn keys_that_are_too_old_are_named_with_what_to_do() {
        let mut bond = bond();
        bond.sessions[0].keys_overdue = true;
        let text = show(Some(&bond), &PLAIN);
        assert!(text.contains("adaptive\nIts keys are too old: packets of the far end"), "{text}");
        assert!(text.contains("Does it run there?\nPATH"), "{text}");
        assert!(brief(&bond).ends_with("MTU 1432, keys too old\n"));
    }

    #[test]
    fn paths_that_are_too_narrow_for_ipv6_are_named_with_what_follows() {
        let mut bond = bond();
        for (path, takes) in bond.sessions[0].paths.iter_mut().zip([1_432, 1_132]) {
            path.inner_mtu = takes;
        }
        let text = show(Some(&bond), &PLAIN);
        assert!(
            text.contains(
                "adaptive\nToo narrow for all packets of IPv6 (1280 bytes): lte (1132 bytes); \
                 longer ones go by other paths\nPATH"
            ),
            "{text}"
        );
        bond.sessions[0].mtu = 1_132;
        let text = show(Some(&bond), &PLAIN);
        assert!(text.contains("; no other lives, so longer ones are lost\nPATH"), "{text}");
    }

    #[test]
    fn what_was_refused_is_named() {
        let mut bond = bond();
        bond.handshakes.refused.insert("unknown_client".to_owned(), 1_200);
        bond.messages_refused.insert("replayed".to_owned(), 1);
        let text = show(Some(&bond), &PLAIN);
        assert!(text.contains("Not answered: unknown_client 1,200\n"), "{text}");
        assert!(text.ends_with("Messages not taken: replayed 1\n"), "{text}");
        assert!(show(None, &PLAIN).starts_with("no bond"));
    }
}
