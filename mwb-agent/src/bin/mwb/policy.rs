//! Policy rules as text for people. Pure.

use mwb_agent::api::policy::{AddressStatus, DomainStatus, PolicyStatus, RuleStatus};

use crate::show::Style;
use crate::table::{Align, Cell, Colour, Table};
use crate::units::{grouped, span};

/// The rules, in the order in which they are asked.
pub(crate) fn table(status: &PolicyStatus, style: &Style) -> String {
    use Align::{Left, Right};
    if status.rules.is_empty() {
        return "There are no policy rules\n".to_owned();
    }
    let has_addresses = status.rules.iter().any(|rule| rule.addresses.is_some());
    let mut columns = vec![
        ("RULE", Left),
        ("MATCHES", Left),
        ("DOES", Left),
        ("NOW", Left),
        ("LEAVES BY", Left),
        ("HITS", Right),
    ];
    if has_addresses {
        columns.push(("ADDRESSES", Right));
    }
    let mut table = Table::new(&columns);
    for rule in &status.rules {
        let matches = match (rule.matches.as_str(), &rule.time) {
            ("", None) => "everything".to_owned(),
            ("", Some(time)) => format!("everything, time: {time}"),
            (matches, None) => matches.to_owned(),
            (matches, Some(time)) => format!("{matches}, time: {time}"),
        };
        let addresses = rule.addresses.map_or_else(|| "-".to_owned(), grouped);
        let mut cells: Vec<Cell> = vec![
            rule.name.as_str().into(),
            matches.into(),
            rule.action.as_str().into(),
            now(rule, style),
            leaves_by(rule, style),
            grouped(rule.hits).into(),
        ];
        cells.extend(has_addresses.then(|| addresses.into()));
        table.push(cells);
    }
    let about = status.domains.as_ref().filter(|_| has_addresses);
    table.render() + &about.map(heard).unwrap_or_default()
}

/// Where addresses of names come from, and what is wrong with that.
fn heard(domains: &DomainStatus) -> String {
    let mut text = match &domains.heard[..] {
        [] => String::new(),
        devices => format!(
            "\nAddresses of names: from {} answers on {}, of {} with addresses\n",
            grouped(domains.answers),
            devices.join(", "),
            grouped(domains.answers + domains.of_others),
        ),
    };
    for deaf in &domains.deaf {
        text += &format!("No answers are heard on {}: {}\n", deaf.device, deaf.why);
    }
    for (count, what) in [
        (domains.dropped + domains.given_up, "packets or connections with answers were missed"),
        (domains.unreadable, "messages could not be read"),
        (domains.pushed_out, "addresses made room for others before their time"),
        (domains.refused, "addresses are of too many different sets of names"),
    ] {
        if count > 0 {
            text += &format!("{} {what}\n", grouped(count));
        }
    }
    text
}

/// Addresses that are known of the names that a rule asks for.
pub(crate) fn addresses(list: &[AddressStatus]) -> String {
    if list.is_empty() {
        return "No address is known\n".to_owned();
    }
    let mut table =
        Table::new(&[("ADDRESS", Align::Left), ("NAME", Align::Left), ("LEFT", Align::Right)]);
    for one in list {
        table.push(vec![
            one.address.as_str().into(),
            one.name.as_deref().unwrap_or("-").into(),
            span(one.seconds_left).into(),
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
    use mwb_agent::api::policy::DeafDevice;

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
            domains: None,
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
    fn a_rule_with_names_says_how_many_addresses_it_has_and_where_from() {
        let status = PolicyStatus {
            rules: vec![
                RuleStatus { addresses: Some(1_234), ..rule("cdn", "lte") },
                rule("rest", "dsl"),
            ],
            domains: Some(DomainStatus {
                answers: 20,
                of_others: 1_000,
                dropped: 3,
                heard: vec!["lan0".to_owned(), "lan1".to_owned()],
                deaf: vec![DeafDevice { device: "lan2".to_owned(), why: "no".to_owned() }],
                ..DomainStatus::default()
            }),
        };
        assert_eq!(
            table(&status, &PLAIN),
            "\
RULE  MATCHES     DOES      NOW     LEAVES BY  HITS  ADDRESSES
cdn   everything  use: lte  counts  none          0      1,234
rest  everything  use: dsl  counts  none          0          -

Addresses of names: from 20 answers on lan0, lan1, of 1,020 with addresses
No answers are heard on lan2: no
3 packets or connections with answers were missed
"
        );
    }

    #[test]
    fn an_address_is_a_line_with_its_name_and_time() {
        let known = |address: &str, name: Option<&str>| AddressStatus {
            address: address.to_owned(),
            name: name.map(str::to_owned),
            seconds_left: 90,
        };
        let list = [known("203.0.113.5", Some("a.example.net")), known("2001:db8:ff::5", None)];
        assert_eq!(
            addresses(&list),
            "\
ADDRESS         NAME             LEFT
203.0.113.5     a.example.net  1m 30s
2001:db8:ff::5  -              1m 30s
"
        );
        assert_eq!(addresses(&[]), "No address is known\n");
    }

    #[test]
    fn without_rules_that_is_said() {
        assert_eq!(table(&PolicyStatus::default(), &PLAIN), "There are no policy rules\n");
    }
}
