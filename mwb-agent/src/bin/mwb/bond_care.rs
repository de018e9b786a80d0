//! What a bond does for packets besides sending them, as text for people: classes, order,
//! copies, repair. Only what there is any of. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use mwb_agent::api::bond::{
    BondClass, BondOrder, BondParity, BondPathStatus, BondRepair, BondSession,
};

use crate::table::{Align, Table};
use crate::units::{bytes, counted, grouped, millis, percent};

/// Lines of a session.
pub(crate) fn session(session: &BondSession) -> String {
    let lines = [
        order(&session.order),
        copies(&session.paths),
        repair(&session.repair),
        parity(&session.parity),
    ];
    lines.concat()
}

/// The rules of classes.
pub(crate) fn classes(classes: &[BondClass]) -> String {
    if classes.is_empty() {
        return String::new();
    }
    let mut table =
        Table::new(&[("RULE", Align::Left), ("PACKETS", Align::Right), ("BYTES", Align::Right)]);
    for class in classes {
        let rule = class.rule.as_deref().unwrap_or("none");
        table.push(vec![
            if class.active { rule.to_owned() } else { format!("{rule} (not now)") }.into(),
            grouped(class.matched.packets).into(),
            bytes(class.matched.bytes).into(),
        ]);
    }
    format!("\n{}", table.render())
}

/// ` (turn 5, lost 2)` of what is more than none.
fn parts(counts: &BTreeMap<String, u64>) -> String {
    let some = counts.iter().filter(|(_, count)| **count > 0);
    let some: Vec<String> =
        some.map(|(what, count)| format!("{what} {}", grouped(*count))).collect();
    if some.is_empty() { String::new() } else { format!(" ({})", some.join(", ")) }
}

fn order(order: &BondOrder) -> String {
    let given: u64 = order.given.values().sum();
    if given + order.held == 0 {
        return String::new();
    }
    let mean = (given > 0).then(|| order.held_ms / given as f64);
    let mut line = format!(
        "Order: {} waited{}, {} each; {} wait now, in {}",
        counted(given, "packet"),
        parts(&order.given),
        millis(mean),
        grouped(order.held),
        bytes(order.held_bytes),
    );
    for (what, count) in [("missing", order.missing), ("dropped as repeated", order.repeated)] {
        if count > 0 {
            let _ = write!(line, ", {} {what}", grouped(count));
        }
    }
    line + "\n"
}

fn copies(paths: &[BondPathStatus]) -> String {
    let packets: u64 = paths.iter().map(|path| path.copies.packets).sum();
    let size: u64 = paths.iter().map(|path| path.copies.bytes).sum();
    if packets == 0 {
        return String::new();
    }
    format!("Copies: {} sent a second time, {}\n", counted(packets, "packet"), bytes(size))
}

fn repair(repair: &BondRepair) -> String {
    if repair.sent == 0 {
        return String::new();
    }
    let mut line = format!(
        "Sent again: {} of {}, for losses{}",
        grouped(repair.again),
        counted(repair.sent, "packet"),
        parts(&repair.lost),
    );
    for (what, count) in [("refused", repair.refused), ("given up", repair.given_up)] {
        if count > 0 {
            let _ = write!(line, ", {} {what}", grouped(count));
        }
    }
    let _ = writeln!(line, "; {} kept, in {}", grouped(repair.held), bytes(repair.held_bytes));
    line
}

fn parity(parity: &BondParity) -> String {
    if parity.data + parity.received == 0 {
        return String::new();
    }
    let part = |part: u64, whole: u64| (whole > 0).then(|| part as f64 / whole as f64);
    format!(
        "Parity: {} more for {}; of the far end's {} recovered, {} beyond repair, in {}\n",
        percent(part(parity.parity_bytes, parity.data_bytes)),
        counted(parity.data, "packet"),
        counted(parity.recovered, "packet"),
        counted(parity.unrecoverable, "block"),
        bytes(parity.held_bytes),
    )
}

#[cfg(test)]
mod tests {
    use mwb_agent::api::snapshot::Traffic;

    use super::*;

    #[test]
    fn what_a_bond_does_not_do_has_no_line() {
        assert_eq!(session(&BondSession::default()) + &classes(&[]), "");
    }

    #[test]
    fn what_a_bond_does_has_a_line_each() {
        let done = BondSession {
            order: BondOrder {
                given: [("turn".to_owned(), 1_500), ("lost".to_owned(), 0)].into(),
                held: 2,
                held_bytes: 3_000,
                held_ms: 3_000.0,
                missing: 4,
                ..BondOrder::default()
            },
            repair: BondRepair {
                sent: 100,
                again: 7,
                lost: [("gap".to_owned(), 6)].into(),
                given_up: 1,
                ..BondRepair::default()
            },
            parity: BondParity {
                data: 640,
                data_bytes: 1_000_000,
                parity_bytes: 250_000,
                recovered: 31,
                ..BondParity::default()
            },
            paths: vec![BondPathStatus {
                copies: Traffic { packets: 1, bytes: 200 },
                ..BondPathStatus::default()
            }],
            ..BondSession::default()
        };
        assert_eq!(
            session(&done),
            "Order: 1,500 packets waited (turn 1,500), 2.0 ms each; 2 wait now, in 3.00 kB, 4 \
             missing\n\
             Copies: 1 packet sent a second time, 200 B\n\
             Sent again: 7 of 100 packets, for losses (gap 6), 1 given up; 0 kept, in 0 B\n\
             Parity: 25.0 % more for 640 packets; of the far end's 31 packets recovered, 0 blocks \
             beyond repair, in 0 B\n"
        );
    }

    #[test]
    fn rules_of_classes_are_shown_with_what_no_rule_matched() {
        let row = |rule: Option<&str>, packets| BondClass {
            rule: rule.map(str::to_owned),
            class: String::new(),
            active: rule != Some("{class: pin}"),
            matched: Traffic { packets, bytes: 0 },
        };
        let text = classes(&[
            row(Some("{class: block, port: 23}"), 3),
            row(Some("{class: pin}"), 0),
            row(None, 1_000),
        ]);
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        assert_eq!(
            lines,
            [
                "",
                "RULE                      PACKETS  BYTES",
                "{class: block, port: 23}        3    0 B",
                "{class: pin} (not now)          0    0 B",
                "none                        1,000    0 B",
            ]
        );
    }
}
