//! Policy rules as text for people. Pure.

use mwb_agent::api::policy::{PolicyStatus, RuleStatus};

use crate::show::Style;
use crate::table::{Align, Cell, Colour, Table};
use crate::units::{grouped, span};

/// The rules, in the order in which they are asked.
pub(crate) fn table(status: &PolicyStatus, style: &Style) -> String {
    use Align::{Left, Right};
    if status.rules.is_empty() {
        return "There are no policy rules\n".to_owned();
    }
    let mut table = Table::new(&[
        ("RULE", Left),
        ("MATCHES", Left),
        ("DOES", Left),
        ("NOW", Left),
        ("LEAVES BY", Left),
        ("HITS", Right),
    ]);
    for rule in &status.rules {
        let matches = match (rule.matches.as_str(), &rule.time) {
            ("", None) => "everything".to_owned(),
            ("", Some(time)) => format!("everything, time: {time}"),
            (matches, None) => matches.to_owned(),
            (matches, Some(time)) => format!("{matches}, time: {time}"),
        };
        table.push(vec![
            rule.name.as_str().into(),
            matches.into(),
            rule.action.as_str().into(),
            now(rule, style),
            leaves_by(rule, style),
            grouped(rule.hits).into(),
        ]);
    }
    table.render()
}

/// Whether it counts, and for how long that stays.
fn now(rule: &RuleStatus, style: &Style) -> Cell {
    let time = rule.changes_in_minutes.map(|minutes| span(u64::from(minutes) * 60));
    match (rule.active, time) {
        (true, None) => "counts".into(),
        (true, Some(time)) => format!("counts for {time}").into(),
        (false, None) => style.paint("never counts", Colour::Grey),
        (false, Some(time)) => style.paint(format!("counts in {time}"), Colour::Grey),
    }
}

fn leaves_by(rule: &RuleStatus, style: &Style) -> Cell {
    let wans = rule.wans.join(", ");
    match rule.action.as_str() {
        "use: block" | "use: default" => "-".into(),
        _ if wans.is_empty() => style.paint("none", Colour::Red),
        _ if rule.fallen_back => style.paint(format!("{wans} (fallback)"), Colour::Yellow),
        _ => wans.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Style = Style { colour: false, now_ms: 0 };

    fn rule(name: &str, action: &str) -> RuleStatus {
        RuleStatus {
            name: name.to_owned(),
            action: format!("use: {action}"),
            active: true,
            ..RuleStatus::default()
        }
    }

    #[test]
    fn a_rule_is_a_line_that_says_where_it_leads_now() {
        let status = PolicyStatus {
            rules: vec![
                RuleStatus {
                    matches: "protocol: udp, port: 5060".to_owned(),
                    wans: vec!["fiber".to_owned()],
                    hits: 1_234,
                    ..rule("voip", "fiber")
                },
                RuleStatus {
                    time: Some("{days: mon}".to_owned()),
                    active: false,
                    changes_in_minutes: Some(90),
                    ..rule("rule-2", "block")
                },
                RuleStatus { wans: vec!["lte".to_owned()], fallen_back: true, ..rule("c", "dsl") },
                rule("d", "dsl, fallback: strict"),
            ],
        };
        assert_eq!(
            table(&status, &PLAIN),
            "\
RULE    MATCHES                        DOES                        NOW               LEAVES BY        HITS
voip    protocol: udp, port: 5060      use: fiber                  counts            fiber           1,234
rule-2  everything, time: {days: mon}  use: block                  counts in 1h 30m  -                   0
c       everything                     use: dsl                    counts            lte (fallback)      0
d       everything                     use: dsl, fallback: strict  counts            none                0
"
        );
    }

    #[test]
    fn without_rules_that_is_said() {
        assert_eq!(table(&PolicyStatus::default(), &PLAIN), "There are no policy rules\n");
    }
}
