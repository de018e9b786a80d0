//! Snapshots as text for people. Pure: what is unknown is shown as a dash,
//! never as a number.

use std::fmt::Write as _;

use mwb_agent::api::snapshot::{CounterRow, LanStatus, Status, Traffic, WanState, WanStatus};
use mwb_agent::events::Event;

use crate::bond;
use crate::table::{Align, Cell, Colour, Table};
use crate::units::{ago, bytes, counted, grouped, millis, percent, span};

/// How to show.
pub(crate) struct Style {
    /// Whether the terminal understands colours.
    pub(crate) colour: bool,
    /// The time that ages are counted from, in milliseconds since 1970.
    pub(crate) now_ms: u64,
}

impl Style {
    pub(crate) fn paint(&self, text: impl Into<String>, colour: Colour) -> Cell {
        Cell::coloured(text, self.colour.then_some(colour))
    }
}

/// One screen: who carries traffic, how well, what is lost, what happened.
/// `counters` is why there are none, if there are none.
pub(crate) fn status(
    status: &Status,
    counters: Result<&[CounterRow], &str>,
    events: &[Event],
    style: &Style,
) -> String {
    // Whole seconds are enough.
    let uptime = span(status.uptime_seconds.max(0.0) as u64);
    let what = if status.role == "server" { &status.role } else { &status.mode };
    let mut out = format!(
        "mwb {}, instance {}: {what} by {}, agent up {uptime}\n\n",
        status.version, status.instance, status.balance
    );
    out.push_str(&wans(&status.wans, style));
    out.push('\n');
    out.push_str(&hooks(&status.lan, &status.wans, style));
    if let Some(bond) = &status.bond {
        out.push('\n');
        out.push_str(&bond::brief(bond));
    }
    let nat = &status.nat;
    let ports: Vec<String> =
        nat.ports_used.iter().map(|(wan, used)| format!("{wan} {}", grouped(*used))).collect();
    let _ = writeln!(
        out,
        "\nNAT: {}; flows: IPv4 {}, IPv6 {}, of {} each; ports: {}",
        counted(nat.mappings, "mapping"),
        grouped(nat.flows4),
        grouped(nat.flows6),
        grouped(nat.flow_capacity),
        if ports.is_empty() { "-".to_owned() } else { ports.join(", ") },
    );
    let failover = &status.failover;
    let active =
        if failover.active.is_empty() { "no WAN".to_owned() } else { failover.active.join(", ") };
    let last = failover
        .last_unix_ms
        .map_or_else(String::new, |then| format!(", the last {}", ago(then, style.now_ms)));
    let _ =
        writeln!(out, "New flows go to: {active}; {}{last}", counted(failover.count, "failover"));
    if let Some(forced) = &failover.forced {
        let until = failover.forced_until_unix_ms.map_or_else(
            || "until `mwb failover --auto`".to_owned(),
            |until| format!("for another {}", left(until, style.now_ms)),
        );
        let _ = writeln!(out, "Forced: the operator sends new flows to {forced}, {until}");
    }
    let _ = writeln!(out, "Dropped packets: {}", dropped(counters));
    if !events.is_empty() {
        out.push_str("\nLatest events\n");
        out.push_str(&self::events(events, style));
    }
    out
}

/// The WANs, and under the table why each is not simply up.
pub(crate) fn wans(wans: &[WanStatus], style: &Style) -> String {
    use Align::{Left, Right};
    let mut table = Table::new(&[
        ("WAN", Left),
        ("DEVICE", Left),
        ("STATE", Left),
        ("SINCE", Right),
        ("PRIO", Right),
        ("SHARE", Right),
        ("RTT", Right),
        ("JITTER", Right),
        ("LOSS", Right),
        ("RECEIVED", Right),
        ("SENT", Right),
        ("FAILOVERS", Right),
        ("WHY", Left),
    ]);
    for wan in wans {
        let since = wan
            .last_change_unix_ms
            .map_or_else(|| "-".to_owned(), |then| span(style.now_ms.saturating_sub(then) / 1_000));
        let share = if wan.active {
            percent(Some(wan.share)).into()
        } else {
            style.paint("standby", Colour::Grey)
        };
        table.push(vec![
            wan.name.as_str().into(),
            wan.device.as_str().into(),
            style.paint(wan.state.name(), state_colour(wan.state)),
            since.into(),
            wan.priority.to_string().into(),
            share,
            millis(wan.rtt_ms).into(),
            millis(wan.jitter_ms).into(),
            percent(wan.loss).into(),
            traffic(wan.rx).into(),
            traffic(wan.tx).into(),
            grouped(wan.failovers).into(),
            why(wan, style).into(),
        ]);
    }
    table.render()
}

/// Where packets are taken, device by device.
fn hooks(lan: &[LanStatus], wans: &[WanStatus], style: &Style) -> String {
    use Align::Left;
    let mut table = Table::new(&[("DEVICE", Left), ("ROLE", Left), ("HOOK", Left), ("WHY", Left)]);
    let lan = lan
        .iter()
        .map(|lan| (&lan.device, "lan".to_owned(), &lan.hook, &lan.hook_mode, &lan.hook_reason));
    let wans = wans.iter().map(|wan| {
        (&wan.device, format!("wan {}", wan.name), &wan.hook, &wan.hook_mode, &wan.hook_reason)
    });
    for (device, role, hook, mode, reason) in lan.chain(wans) {
        let hook = match (hook, mode) {
            (Some(hook), Some(mode)) if hook == mode => hook.as_str().into(),
            (Some(hook), Some(mode)) => format!("{hook} {mode}").into(),
            (Some(hook), None) => hook.as_str().into(),
            (None, _) => style.paint("none", Colour::Red),
        };
        table.push(vec![device.as_str().into(), role.into(), hook, reason.as_str().into()]);
    }
    table.render()
}

/// Counters as they come: by direction, WAN and reason.
pub(crate) fn counters(rows: &[CounterRow]) -> String {
    use Align::{Left, Right};
    let mut table = Table::new(&[
        ("DIRECTION", Left),
        ("WAN", Left),
        ("VERDICT", Left),
        ("REASON", Left),
        ("PROTOCOL", Left),
        ("PACKETS", Right),
        ("BYTES", Right),
    ]);
    for row in rows {
        table.push(vec![
            row.direction.as_str().into(),
            row.wan.as_str().into(),
            row.verdict.as_str().into(),
            row.reason.as_str().into(),
            row.protocol.as_str().into(),
            grouped(row.packets).into(),
            grouped(row.bytes).into(),
        ]);
    }
    table.render()
}

/// Events, oldest first.
pub(crate) fn events(events: &[Event], style: &Style) -> String {
    use Align::{Left, Right};
    let mut table = Table::new(&[
        ("ID", Right),
        ("WHEN", Right),
        ("KIND", Left),
        ("WAN", Left),
        ("WHAT", Left),
        ("WHY", Left),
    ]);
    for event in events {
        table.push(vec![
            event.id.to_string().into(),
            ago(event.unix_ms, style.now_ms).into(),
            event.kind.name().into(),
            event.wan.as_deref().unwrap_or("-").into(),
            event.message.as_str().into(),
            event.reason.as_str().into(),
        ]);
    }
    table.render()
}

/// Dropped packets by reason, the most frequent first.
fn dropped(counters: Result<&[CounterRow], &str>) -> String {
    let rows = match counters {
        Ok(rows) => rows,
        Err(why) => return format!("not known: {why}"),
    };
    let mut reasons: Vec<(&str, u64)> = Vec::new();
    for row in rows.iter().filter(|row| row.verdict == "drop") {
        match reasons.iter_mut().find(|(reason, _)| *reason == row.reason) {
            Some((_, packets)) => *packets += row.packets,
            None => reasons.push((&row.reason, row.packets)),
        }
    }
    if reasons.is_empty() {
        return "none".to_owned();
    }
    reasons.sort_by_key(|(_, packets)| std::cmp::Reverse(*packets));
    let texts: Vec<String> =
        reasons.iter().map(|(reason, packets)| format!("{} {reason}", grouped(*packets))).collect();
    texts.join(", ")
}

/// An event on a line of its own, for a stream that has no end.
pub(crate) fn event_line(event: &Event) -> String {
    let wan = event.wan.as_deref().unwrap_or("-");
    let mut line =
        format!("{:>4}  {:<14} {wan:<15} {}", event.id, event.kind.name(), event.message);
    if !event.reason.is_empty() {
        let _ = write!(line, " ({})", event.reason);
    }
    line.push('\n');
    line
}

/// What is left of a time, at least a second.
fn left(until_ms: u64, now_ms: u64) -> String {
    span((until_ms.saturating_sub(now_ms) / 1_000).max(1))
}

fn traffic(traffic: Traffic) -> String {
    bytes(traffic.bytes)
}

fn why(wan: &WanStatus, style: &Style) -> String {
    let mut reasons = Vec::new();
    if !wan.reason.is_empty() {
        reasons.push(wan.reason.clone());
    }
    if let Some(until) = wan.hold_until_unix_ms {
        let times = counted(wan.relapses.into(), "relapse");
        reasons.push(format!("held down for another {} after {times}", left(until, style.now_ms)));
    }
    if let Some(until) = wan.drain_until_unix_ms {
        reasons.push(format!("its flows may stay for another {}", left(until, style.now_ms)));
    }
    // What keeps packets from leaving even though the probes may be answered.
    if wan.ifindex.is_some() && wan.address4.is_none() {
        reasons.push("no IPv4 address".to_owned());
    } else if let (Some(gateway), false) = (wan.gateway4, wan.next_hop4) {
        reasons.push(format!("gateway {gateway} not resolved"));
    }
    if let (Some(gateway), false) = (wan.gateway6, wan.next_hop6) {
        reasons.push(format!("gateway {gateway} not resolved"));
    }
    reasons.join("; ")
}

fn state_colour(state: WanState) -> Colour {
    match state {
        WanState::Up => Colour::Green,
        WanState::Down => Colour::Red,
        WanState::Degraded | WanState::Testing => Colour::Yellow,
        WanState::Unknown => Colour::Grey,
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;

    /// A status as an agent sends it: one WAN well, one without a device.
    const STATUS: &str = include_str!("testdata/status.json");
    const EVENTS: &str = r#"[
        {"id": 41, "unix_ms": 1700000000000, "kind": "failover", "wan": "lte",
         "message": "new flows leave lte for fiber", "reason": "carrier lost"},
        {"id": 42, "unix_ms": 1700000060000, "kind": "agent_started", "wan": null,
         "message": "agent 0.1.0 runs", "reason": ""}]"#;
    const PLAIN: Style = Style { colour: false, now_ms: 1_700_000_065_000 };

    type Result = std::result::Result<(), Box<dyn Error>>;

    fn row(verdict: &str, reason: &str, packets: u64) -> CounterRow {
        CounterRow {
            direction: "out".to_owned(),
            wan: "fiber".to_owned(),
            reason: reason.to_owned(),
            verdict: verdict.to_owned(),
            protocol: "tcp4".to_owned(),
            packets,
            bytes: 7,
        }
    }

    #[test]
    fn a_server_is_called_one() -> Result {
        let mut server: Status = serde_json::from_str(STATUS)?;
        server.role = "server".to_owned();
        let text = status(&server, Ok(&[]), &[], &PLAIN);
        let first = "mwb 0.1.0, instance default: server by adaptive, agent up 2h 4m\n";
        assert!(text.starts_with(first), "{text}");
        Ok(())
    }

    #[test]
    fn the_status_fits_one_screen_and_says_what_is_not_known() -> Result {
        let events: Vec<Event> = serde_json::from_str(EVENTS)?;
        let counters = [
            row("forward", "forwarded", 1_000),
            row("drop", "no_path", 1),
            row("drop", "too_big", 1_999),
            row("drop", "too_big", 1),
        ];
        let text = super::status(&serde_json::from_str(STATUS)?, Ok(&counters), &events, &PLAIN);
        assert_eq!(text, include_str!("testdata/status.txt"));
        assert!(text.lines().count() <= 24, "{text}");
        Ok(())
    }

    #[test]
    fn counters_that_cannot_be_read_are_not_shown_as_zero() -> Result {
        let text = super::status(&serde_json::from_str(STATUS)?, Err("no maps"), &[], &PLAIN);
        assert!(text.contains("Dropped packets: not known: no maps"), "{text}");
        Ok(())
    }

    #[test]
    fn colours_come_only_when_asked_for() -> Result {
        let status: Status = serde_json::from_str(STATUS)?;
        assert!(!super::status(&status, Ok(&[]), &[], &PLAIN).contains('\u{1b}'));
        let coloured = super::wans(&status.wans, &Style { colour: true, ..PLAIN });
        assert!(coloured.contains("\u{1b}[33mdegraded\u{1b}[0m"), "{coloured}");
        Ok(())
    }

    #[test]
    fn an_unresolved_gateway_is_named_whatever_the_state_says() -> Result {
        let mut status: Status = serde_json::from_str(STATUS)?;
        status.wans[0].next_hop4 = false;
        let text = super::wans(&status.wans, &PLAIN);
        assert!(text.contains("gateway 198.51.100.1 not resolved"), "{text}");
        status.wans[0].address4 = None;
        let text = super::wans(&status.wans, &PLAIN);
        assert!(text.contains("no IPv4 address"), "{text}");
        Ok(())
    }

    #[test]
    fn what_the_operator_forced_and_what_is_held_or_drains_is_shown() -> Result {
        let mut status: Status = serde_json::from_str(STATUS)?;
        status.failover.forced = Some("lte".to_owned());
        let text = super::status(&status, Ok(&[]), &[], &PLAIN);
        assert!(text.contains("new flows to lte, until `mwb failover --auto`"), "{text}");
        status.failover.forced_until_unix_ms = Some(PLAIN.now_ms + 600_000);
        status.wans[0].hold_until_unix_ms = Some(PLAIN.now_ms + 40_000);
        status.wans[0].relapses = 3;
        status.wans[1].drain_until_unix_ms = Some(PLAIN.now_ms + 90_000);
        let text = super::status(&status, Ok(&[]), &[], &PLAIN);
        assert!(text.contains("new flows to lte, for another 10m"), "{text}");
        assert!(text.contains("held down for another 40s after 3 relapses"), "{text}");
        assert!(text.contains("its flows may stay for another 1m 30s"), "{text}");
        Ok(())
    }

    #[test]
    fn a_followed_event_is_one_line_with_its_reason() -> Result {
        let events: Vec<Event> = serde_json::from_str(EVENTS)?;
        let lines: String = events.iter().map(event_line).collect();
        assert_eq!(
            lines,
            "  41  failover       lte             new flows leave lte for fiber (carrier lost)\n  \
             42  agent_started  -               agent 0.1.0 runs\n"
        );
        Ok(())
    }

    #[test]
    fn counters_are_aligned_and_grouped() {
        let row = row("forward", "forwarded", 1_234_567);
        assert_eq!(
            super::counters(&[row]),
            "DIRECTION  WAN    VERDICT  REASON     PROTOCOL    PACKETS  BYTES\n\
             out        fiber  forward  forwarded  tcp4      1,234,567      7\n"
        );
    }
}
