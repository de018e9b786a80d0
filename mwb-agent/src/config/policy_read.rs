//! Reading of policy rules.

use ipnet::IpNet;

use super::domain::Domain;
use super::hours::{DAY, Hours, parse_days, parse_time};
use super::policy::{Fallback, Outlet, Policy, PolicyAction, PolicyMatch, PolicyRule, numbered};
use super::prefix::{check_host_bits, read_net};
use super::read::{one_or_more, read_balance};
use super::reader::{Cursor, Fault, Fields};
use super::terms::{
    PROTOCOLS, WITH_PORTS, parse_mac, read_dscp, read_protocol, read_range, word_of,
};
use super::wans::read_name;
use super::{HookChoice, Lan, Role, Wan, schema};

/// What of the rest of the file rules are about.
pub(super) struct World<'a> {
    pub(super) role: Role,
    pub(super) lan: &'a [Lan],
    pub(super) wans: &'a [Wan],
}

/// The section `policy`.
pub(super) fn read_policy(policy: &Fields<'_>, world: &World<'_>) -> Result<Policy, Fault> {
    let rules = policy.or("rules", Vec::new(), |at| read_rules(at, world))?;
    Ok(Policy { rules })
}

fn read_rules(at: &Cursor<'_>, world: &World<'_>) -> Result<Vec<PolicyRule>, Fault> {
    let items = at.items("[{protocol: udp, port: 5060-5061, use: fiber}]")?;
    if items.len() > schema::POLICY_RULES {
        let rules = format!("{} rules", items.len());
        return Err(at.fault(rules, format!("give at most {}", schema::POLICY_RULES)));
    }
    let mut policy = Policy { rules: Vec::with_capacity(items.len()) };
    let mut terms = Terms::default();
    for item in &items {
        let fields = item.fields(&schema::POLICY_RULE)?;
        let rule = read_rule(&fields, world)?;
        check_name(&fields, &rule, &policy)?;
        check_reach(item, &rule, &policy)?;
        terms.add(item, &rule.matches)?;
        policy.rules.push(rule);
    }
    let domains = policy.domains().len();
    if domains > schema::POLICY_DOMAINS {
        let most = schema::POLICY_DOMAINS;
        return Err(at.fault(
            format!("{domains} different names in `domain`"),
            format!("have at most {most}; `\"*.example.net\"` is one for all below it"),
        ));
    }
    let outlets = policy.outlets().len();
    if outlets > schema::OUTLETS {
        return Err(at.fault(
            format!("{outlets} different choices of `use`, `balance` and `fallback`"),
            format!("have at most {} different ones", schema::OUTLETS),
        ));
    }
    Ok(policy.rules)
}

/// What all rules ask for together: the kernel side's tables have room for so many.
#[derive(Default)]
struct Terms {
    rules: usize,
    sources: usize,
    destinations: usize,
    ranges: usize,
    macs: usize,
}

impl Terms {
    fn add(&mut self, at: &Cursor<'_>, matches: &PolicyMatch) -> Result<(), Fault> {
        self.rules += matches.marks.len().max(1);
        self.macs += matches.macs.len();
        self.sources += matches.source.len();
        self.destinations += matches.destination.len();
        self.ranges += matches.ports.len().max(matches.source_ports.len());
        for (count, most, what) in [
            (self.sources, schema::POLICY_PREFIXES, "prefixes in `source`"),
            (self.destinations, schema::POLICY_PREFIXES, "prefixes in `destination`"),
            (self.ranges, schema::POLICY_RANGES, "ranges of ports"),
            (self.macs, schema::POLICY_MACS, "MACs"),
            (self.rules, schema::POLICY_RULES, "rules, as one with several marks is several"),
        ] {
            if count > most {
                return Err(at.fault(
                    format!("with this rule there are {count} {what}"),
                    format!("have at most {most} in all rules together"),
                ));
            }
        }
        Ok(())
    }
}

/// No two rules have one name, by place or of their own.
fn check_name(fields: &Fields<'_>, rule: &PolicyRule, before: &Policy) -> Result<(), Fault> {
    let place = before.rules.len();
    let name = rule.name.clone().unwrap_or_else(|| numbered(place));
    let Some(other) = (0..place).find(|index| before.label(*index) == name) else { return Ok(()) };
    let message = format!("rule number {} is named `{name}` too", other + 1);
    Err(match fields.get("name") {
        Some(at) => at.fault(message, "name one of them otherwise"),
        None => fields.fault(message, "give this one a name of its own"),
    })
}

/// A rule must have packets left that none before it has taken.
fn check_reach(at: &Cursor<'_>, rule: &PolicyRule, before: &Policy) -> Result<(), Fault> {
    let takes = |other: &PolicyRule| {
        let whole = other.matches.is_all() || other.matches == rule.matches;
        whole && (other.time.is_none() || other.time == rule.time)
    };
    let Some(index) = before.rules.iter().position(takes) else { return Ok(()) };
    let name = before.label(index);
    Err(if before.rules.get(index).is_some_and(|other| other.matches.is_all()) {
        at.fault(
            format!("no packet gets here: rule `{name}` before it matches every packet"),
            format!("put `{name}` last, or give it something to match"),
        )
    } else {
        at.fault(
            format!("what it matches, rule `{name}` has before it"),
            "remove one of the two, or put the narrower one first",
        )
    })
}

fn read_rule(rule: &Fields<'_>, world: &World<'_>) -> Result<PolicyRule, Fault> {
    let matches = read_match(rule, world)?;
    let time = read_hours(rule, &schema::POLICY_TIME)?;
    let name = rule.get("name").map(|at| read_name(at, "a rule", schema::POLICY_NAME_LENGTH));
    let action = read_action(rule, world)?;
    Ok(PolicyRule { name: name.transpose()?, matches, time, action })
}

fn read_match(rule: &Fields<'_>, world: &World<'_>) -> Result<PolicyMatch, Fault> {
    let prefix = |at: &Cursor<'_>| {
        let net = read_net(at, "a prefix", "192.0.2.0/24")?;
        check_host_bits(at, net)?;
        Ok(net)
    };
    let range =
        |at: &Cursor<'_>| read_range(at, &schema::PORT, "a port or a range of ports", "443");
    let matches = PolicyMatch {
        source: read_list(rule, "source", prefix)?,
        destination: read_list(rule, "destination", prefix)?,
        domains: read_list(rule, "domain", |at| read_domain(at, world))?,
        protocols: read_list(rule, "protocol", read_protocol)?,
        ports: read_list(rule, "port", range)?,
        source_ports: read_list(rule, "source_port", range)?,
        dscps: read_list(rule, "dscp", read_dscp)?,
        lan: read_list(rule, "lan", |at| read_lan(at, world))?,
        macs: read_list(rule, "mac", |at| read_mac(at, world))?,
        marks: read_list(rule, "mark", |at| at.integer(&schema::MARK))?,
    };
    check_ports(rule, &matches)?;
    check_families(rule, &matches)?;
    check_mark(rule, &matches, world)?;
    Ok(matches)
}

/// One value, or a list of values that differ.
fn read_list<T: PartialEq>(
    rule: &Fields<'_>,
    key: &str,
    read: impl Fn(&Cursor<'_>) -> Result<T, Fault>,
) -> Result<Vec<T>, Fault> {
    let Some(at) = rule.get(key) else { return Ok(Vec::new()) };
    one_or_more(at, "", schema::POLICY_LIST, read)
}

fn read_lan(at: &Cursor<'_>, world: &World<'_>) -> Result<String, Fault> {
    if world.role == Role::Server {
        return Err(behind_bond(at));
    }
    let words: Vec<(&str, &str)> =
        world.lan.iter().map(|lan| (lan.device.as_str(), lan.device.as_str())).collect();
    at.word(&words, &[]).map(str::to_owned)
}

fn read_domain(at: &Cursor<'_>, world: &World<'_>) -> Result<Domain, Fault> {
    if world.role == Role::Server {
        return Err(at.key_fault(
            "it has no effect: names are learned from answers on LAN ports, and a server has none",
            "remove it, and write prefixes in `destination`",
        ));
    }
    at.parsed("a name", "example.net or \"*.example.net\"", Domain::parse)
}

/// Packets of a server's clients have lost their frames.
fn behind_bond(at: &Cursor<'_>) -> Fault {
    at.key_fault(
        "it has no effect: all clients of a server are behind the device of their bonds",
        "remove it, and tell clients apart by `source`",
    )
}

fn read_mac(at: &Cursor<'_>, world: &World<'_>) -> Result<[u8; 6], Fault> {
    if world.role == Role::Server {
        return Err(behind_bond(at));
    }
    at.parsed("the MAC of a host", "\"02:00:00:00:00:01\"", parse_mac)
}

fn check_ports(rule: &Fields<'_>, matches: &PolicyMatch) -> Result<(), Fault> {
    let without = matches.protocols.iter().find(|protocol| !WITH_PORTS.contains(protocol));
    let Some(protocol) = without else { return Ok(()) };
    for key in ["port", "source_port"] {
        if let Some(at) = rule.get(key) {
            return Err(at.key_fault(
                format!("`{}` has no ports", word_of(&PROTOCOLS, *protocol)),
                "remove it, or write a rule for `udp` and `tcp` alone",
            ));
        }
    }
    Ok(())
}

fn check_families(rule: &Fields<'_>, matches: &PolicyMatch) -> Result<(), Fault> {
    let has = |nets: &[IpNet], v4: bool| {
        nets.is_empty() || nets.iter().any(|net| net.addr().is_ipv4() == v4)
    };
    let shared = [true, false]
        .into_iter()
        .any(|v4| has(&matches.source, v4) && has(&matches.destination, v4));
    if shared {
        return Ok(());
    }
    Err(rule.required("destination")?.fault(
        "no packet matches: `source` and `destination` are of different address families",
        "write prefixes of one family into both",
    ))
}

/// Only the TC form sees marks.
fn check_mark(rule: &Fields<'_>, matches: &PolicyMatch, world: &World<'_>) -> Result<(), Fault> {
    let Some(at) = rule.get("mark") else { return Ok(()) };
    if world.role == Role::Server {
        return Err(behind_bond(at));
    }
    let meant = |lan: &&Lan| matches.lan.is_empty() || matches.lan.contains(&lan.device);
    let seen = world.lan.iter().filter(meant).any(|lan| lan.hook != HookChoice::Xdp);
    if seen {
        return Ok(());
    }
    Err(at.key_fault(
        "no packet matches: with `hook: xdp` packets have no marks yet",
        "write `hook: tcx` for the LAN port, or remove this",
    ))
}

/// When a rule counts, if not always.
pub(super) fn read_hours(
    rule: &Fields<'_>,
    section: &'static schema::Section,
) -> Result<Option<Hours>, Fault> {
    let Some(at) = rule.get("time") else { return Ok(None) };
    Ok(Some(read_time(at, &at.fields(section)?)?).filter(|time| *time != Hours::ALWAYS))
}

fn read_time(at: &Cursor<'_>, time: &Fields<'_>) -> Result<Hours, Fault> {
    let days = match time.get("days") {
        Some(at) => read_days(at)?,
        None => Hours::ALWAYS.days,
    };
    let clock = |at: &Cursor<'_>| at.parsed("a time of day", "\"08:00\"", parse_time);
    let from = time.or("from", 0, clock)?;
    let to = time.or("to", DAY, clock)?;
    if from % DAY == to % DAY && (from, to) != (0, DAY) {
        return Err(at.fault(
            "it begins and ends at the same time of day",
            "write another time, or none for the whole day",
        ));
    }
    if from == DAY {
        let at = time.required("from")?;
        return Err(at.fault("a day has ended at 24:00", "write 00:00, and the day after"));
    }
    Ok(Hours { days, from, to })
}

fn read_days(at: &Cursor<'_>) -> Result<u8, Fault> {
    let one = |at: &Cursor<'_>| {
        at.parsed("a day or a range of days", "mon-fri or [sat, sun]", parse_days)
    };
    if !at.is_list() {
        return one(at);
    }
    let items = at.items("[sat, sun]")?;
    if items.is_empty() {
        return Err(at.fault("the list is empty", "write days like mon-fri, or remove the key"));
    }
    items.iter().try_fold(0, |days, item| Ok(days | one(item)?))
}

fn read_action(rule: &Fields<'_>, world: &World<'_>) -> Result<PolicyAction, Fault> {
    let at = rule.required("use")?;
    let wans = if at.is_map() {
        let fields = at.fields(&schema::POLICY_USE)?;
        of_priority(fields.required("priority")?, world)?
    } else if at.is_list() {
        let words = wan_words(world);
        read_list(rule, "use", |at| at.word(&words, &[]).map(str::to_owned))?
    } else {
        let mut words = wan_words(world);
        for word in [BLOCK, DEFAULT] {
            if words.iter().any(|(wan, _)| *wan == word) && at.show() == word {
                return Err(at.fault(
                    format!("`{word}` is the name of a WAN and says what to do with packets"),
                    format!("write `[{word}]` for the WAN, or give the WAN another name"),
                ));
            }
            words.push((word, word));
        }
        let action = match at.word(&words, &[])? {
            BLOCK => PolicyAction::Block,
            DEFAULT => PolicyAction::Default,
            wan => return outlet(rule, vec![wan.to_owned()]),
        };
        for key in ["balance", "fallback"] {
            if let Some(other) = rule.get(key) {
                let message = format!("it has no effect with `use: {}`", at.show());
                return Err(other.key_fault(message, "remove it, or name WANs in `use`"));
            }
        }
        return Ok(action);
    };
    outlet(rule, wans)
}

const BLOCK: &str = "block";
const DEFAULT: &str = "default";

fn wan_words<'a>(world: &World<'a>) -> Vec<(&'a str, &'a str)> {
    world.wans.iter().map(|wan| (wan.name.as_str(), wan.name.as_str())).collect()
}

fn of_priority(at: &Cursor<'_>, world: &World<'_>) -> Result<Vec<String>, Fault> {
    let priority = at.integer(&schema::PRIORITY)?;
    let has = |wan: &&Wan| u32::from(wan.priority) == priority;
    let wans: Vec<String> = world.wans.iter().filter(has).map(|wan| wan.name.clone()).collect();
    if wans.is_empty() {
        let mut there: Vec<u8> = world.wans.iter().map(|wan| wan.priority).collect();
        there.sort_unstable();
        there.dedup();
        let there = there.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
        return Err(at.fault(
            format!("no WAN has priority {priority}"),
            format!("WANs have the priorities {there}"),
        ));
    }
    Ok(wans)
}

fn outlet(rule: &Fields<'_>, wans: Vec<String>) -> Result<PolicyAction, Fault> {
    let balance = rule.get("balance").map(read_balance).transpose()?;
    let words = Fallback::ALL.map(|fallback| (fallback.name(), fallback));
    let fallback = rule.or("fallback", Fallback::Prefer, |at| at.word(&words, &[]))?;
    Ok(PolicyAction::Outlet(Outlet { wans, balance, fallback }))
}
