//! Flows and decisions as text for people. Pure.

use std::fmt::Write as _;

use mwb_agent::api::explain::Explanation;
use mwb_agent::api::flows::{FlowBond, FlowChoice, FlowList, FlowRow, How, TcpState};

use crate::show::Style;
use crate::table::{Align, Colour, Table};
use crate::units::{bits, bytes, counted, grouped, percent, span};

/// The flows, and how many there are beside them.
pub(crate) fn table(list: &FlowList, style: &Style) -> String {
    let mut out = rows(&list.flows, style);
    let shown = list.flows.len() as u64;
    let _ = write!(out, "\n{} of {}", grouped(shown), counted(list.matching, "flow"));
    if list.matching != list.open {
        let _ = write!(out, " that match, of {} in all", grouped(list.open));
    }
    if shown < list.matching {
        out.push_str("; --top N shows more");
    }
    out.push('\n');
    if let Some(rate) = list.elephant_bps {
        let _ = writeln!(out, "From {} on a flow is an elephant", bits(rate));
    }
    out
}

fn rows(flows: &[FlowRow], style: &Style) -> String {
    use Align::{Left, Right};
    let mut table = Table::new(&[
        ("PROTO", Left),
        ("INSIDE", Left),
        ("OUTSIDE", Left),
        ("REMOTE", Left),
        ("WAN", Left),
        ("AGE", Right),
        ("IDLE", Right),
        ("SENT", Right),
        ("BYTES", Right),
        ("RECEIVED", Right),
        ("BYTES", Right),
        ("STATE", Left),
        ("CHOSEN", Left),
    ]);
    // Whole seconds are enough.
    let seconds = |seconds: f64| span(seconds.max(0.0) as u64);
    for flow in flows {
        table.push(vec![
            flow.proto.name().into(),
            flow.inside.to_string().into(),
            flow.outside.to_string().into(),
            flow.remote.to_string().into(),
            flow.wan.as_str().into(),
            seconds(flow.age_seconds).into(),
            seconds(flow.idle_seconds).into(),
            grouped(flow.sent.packets).into(),
            bytes(flow.sent.bytes).into(),
            received(flow, grouped(flow.received.packets)).into(),
            received(flow, bytes(flow.received.bytes)).into(),
            flow.state
                .map_or_else(|| "-".into(), |state| style.paint(state.name(), state_colour(state))),
            flow.bond.as_ref().map_or_else(|| chosen(flow.choice), bonded).into(),
        ]);
    }
    table.render()
}

fn state_colour(state: TcpState) -> Colour {
    match state {
        TcpState::Established => Colour::Green,
        TcpState::Opening => Colour::Yellow,
        TcpState::Closing => Colour::Grey,
        TcpState::Reset => Colour::Red,
    }
}

/// Nobody counts what comes back to a flow of a bond.
fn received(flow: &FlowRow, figure: String) -> String {
    if flow.bond.is_some() { "-".to_owned() } else { figure }
}

fn bonded(bond: &FlowBond) -> String {
    let how = match (bond.elephant, bond.striped) {
        (true, true) => "elephant, by several paths",
        (true, false) => "elephant, by one path",
        (false, true) => "packet by packet",
        (false, false) => "bonded",
    };
    match bond.class.as_str() {
        "" | "auto" => how.to_owned(),
        class => format!("{how}, class {class}"),
    }
}

fn chosen(choice: FlowChoice) -> String {
    let how = match (choice.how, choice.slot) {
        (How::Slot, Some(slot)) => format!("slot {slot}"),
        (How::Ranking, Some(slot)) => format!("ranking, slot {slot} was dead"),
        (How::NoneAlive, Some(slot)) => format!("slot {slot}, none was alive"),
        (How::Via, _) => "the WAN's own subnet".to_owned(),
        (How::Inbound, _) => "opened from the WAN".to_owned(),
        (How::Bonded, _) => How::Bonded.name().to_owned(),
        (how, None) => how.name().to_owned(),
    };
    if choice.mapped { format!("{how}, kept") } else { how }
}

/// A decision: the outcome first, then what led to it.
pub(crate) fn why(answer: &Explanation, style: &Style) -> String {
    let mut out = format!("{}: {}\n", answer.packet, answer.outcome.said);
    if !answer.outcome.possible.is_empty() {
        let possible: Vec<String> = answer
            .outcome
            .possible
            .iter()
            .map(|other| format!("{} {}", other.wan, percent(Some(other.share))))
            .collect();
        let _ = writeln!(out, "not certain, since a counter chooses: {}", possible.join(", "));
    }
    if let Some(flow) = &answer.flow {
        out.push('\n');
        out.push_str(&rows(std::slice::from_ref(flow), style));
    }
    if !answer.steps.is_empty() {
        out.push('\n');
        let mut table = Table::new(&[("STEP", Align::Left), ("WHAT IT SAYS", Align::Left)]);
        for step in &answer.steps {
            table.push(vec![step.what.as_str().into(), step.said.as_str().into()]);
        }
        out.push_str(&table.render());
    }
    if !answer.would_change.is_empty() {
        out.push_str("\nWhat would change it\n");
        for change in &answer.would_change {
            let _ = writeln!(out, "- {change}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Style = Style { colour: false, now_ms: 0 };
    const FLOW: &str = r#"{
        "proto": "tcp", "inside": {"address": "192.0.2.10", "port": 50000},
        "outside": {"address": "198.51.100.2", "port": 50000},
        "remote": {"address": "203.0.113.5", "port": 443}, "wan": "fiber",
        "age_seconds": 61.5, "idle_seconds": 0.4, "sent": {"packets": 1200, "bytes": 64000},
        "received": {"packets": 2400, "bytes": 3400000}, "state": "established",
        "choice": {"how": "slot", "slot": 17, "mapped": true}}"#;

    #[test]
    fn flows_are_a_table_with_how_many_there_are() -> Result<(), serde_json::Error> {
        let flow: FlowRow = serde_json::from_str(FLOW)?;
        let list =
            FlowList { open: 9, matching: 3, flows: vec![flow], elephant_bps: Some(5_000_000) };
        assert_eq!(
            table(&list, &PLAIN),
            "PROTO  INSIDE            OUTSIDE             REMOTE           WAN      AGE  IDLE   SENT    BYTES  RECEIVED    BYTES  STATE        CHOSEN\n\
             tcp    192.0.2.10:50000  198.51.100.2:50000  203.0.113.5:443  fiber  1m 1s    0s  1,200  64.0 kB     2,400  3.40 MB  established  slot 17, kept\n\
             \n1 of 3 flows that match, of 9 in all; --top N shows more\n\
             From 5.00 Mbit/s on a flow is an elephant\n"
        );
        Ok(())
    }

    #[test]
    fn a_flow_of_a_bond_says_by_how_many_paths_it_goes() -> Result<(), serde_json::Error> {
        let mut flow: FlowRow = serde_json::from_str(FLOW)?;
        for (elephant, striped, class, text) in [
            (true, true, "", "elephant, by several paths\n"),
            (true, false, "pin", "elephant, by one path, class pin\n"),
            (false, true, "stripe", "packet by packet, class stripe\n"),
            (false, false, "auto", "bonded\n"),
        ] {
            flow.bond = Some(FlowBond { bucket: 1, elephant, striped, class: class.to_owned() });
            assert!(rows(std::slice::from_ref(&flow), &PLAIN).ends_with(text));
        }
        Ok(())
    }

    #[test]
    fn a_decision_says_the_outcome_first() -> Result<(), serde_json::Error> {
        let answer: Explanation = serde_json::from_str(
            r#"{"packet": "udp 192.0.2.10:1 203.0.113.5:2", "flow": null,
            "outcome": {"said": "it leaves by fiber if no other new flow comes before it",
            "verdict": "forward", "reason": "forwarded", "wan": "fiber", "certain": false,
            "possible": [{"wan": "fiber", "share": 0.75}, {"wan": "lte", "share": 0.25}]},
            "steps": [{"what": "rule", "said": "none"}], "would_change": ["another address"]}"#,
        )?;
        assert_eq!(
            why(&answer, &PLAIN),
            "udp 192.0.2.10:1 203.0.113.5:2: it leaves by fiber if no other new flow comes before it\n\
             not certain, since a counter chooses: fiber 75.0 %, lte 25.0 %\n\
             \nSTEP  WHAT IT SAYS\nrule  none\n\
             \nWhat would change it\n- another address\n"
        );
        Ok(())
    }
}
