//! What the gateway of a bond makes of a packet: its class, its bucket, its paths.

use std::net::IpAddr;

use mwb_common::classes::{ClassRule, InUse, among, class, class_test, falls_back};
use mwb_common::maps::{
    Bond, BondPath, Bucket, FlowKey6, PathState, Selection, Session, bond_choice, bond_path_flag,
    bucket, bucket_flag, prefix_class, session_flag,
};
use mwb_common::nat::protocol;
use mwb_common::reason::Reason;
use mwb_common::select;
use mwb_common::select::arrival::{Choice, Facts, Flow};

use super::words::{outcome, step};
use super::{Packet, place};
use crate::api::explain::{Explanation, Outcome, Step};
use crate::api::flows::FlowRow;
use crate::config::{ClassSpec, class_name};
use crate::dataplane::{BondMaps, Error, Rulebook};

/// A packet's length that all paths take.
const LENGTH: u32 = 100;

/// What stands in the maps about a packet for a bond.
#[derive(Clone, Debug)]
pub struct Bonded {
    bond: Bond,
    session: Session,
    selection: Selection,
    rules: Vec<ClassRule>,
    /// Paths that are there, by id.
    paths: Vec<(u8, BondPath, PathState)>,
    key: FlowKey6,
    number: u16,
    bucket: Bucket,
}

impl Bonded {
    /// Looks it up.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn read(maps: &BondMaps, bond: Bond, packet: &Packet) -> Result<Self, Error> {
        let slot = bond.slot;
        let key = key_of(packet);
        let number = bucket(&key, bond.seed) & (mwb_common::maps::BUCKETS as u16 - 1);
        let mut paths = Vec::new();
        for id in 1..mwb_common::maps::BOND_PATHS as u8 {
            let path = maps.path(slot, id)?;
            if path.flags & bond_path_flag::PRESENT != 0 {
                paths.push((id, path, maps.path_state(slot, id)?));
            }
        }
        Ok(Self {
            session: maps.session(slot)?,
            selection: maps.selection(slot)?,
            rules: maps.classes(InUse(bond.rules))?,
            bucket: maps.bucket(slot, number)?,
            bond,
            paths,
            key,
            number,
        })
    }

    /// The number of its bucket and what that is, if it has been opened.
    #[must_use]
    pub fn opened(&self) -> Option<(u16, &Bucket)> {
        (self.bucket.opened != 0 && self.bucket.key == self.key)
            .then_some((self.number, &self.bucket))
    }
}

/// The key of its flow, as a bond has it.
fn key_of(packet: &Packet) -> FlowKey6 {
    let padded = |address: IpAddr| match address {
        IpAddr::V4(address) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&address.octets());
            bytes
        }
        IpAddr::V6(address) => address.octets(),
    };
    let number = packet.number();
    let ported = matches!(number, protocol::TCP | protocol::UDP | protocol::SCTP);
    let port = |port: Option<u16>| port.filter(|_| ported).unwrap_or(0).to_be_bytes();
    FlowKey6 {
        source: padded(packet.source.address),
        destination: padded(packet.destination.address),
        source_port: port(packet.source.port),
        destination_port: port(packet.destination.port),
        protocol: number,
        scope: if packet.source.address.is_ipv6() { 6 } else { 4 },
        reserved: [0; 2],
    }
}

/// The class of a packet of which neither code point nor length is known: the rule that
/// says it, and those before it that would if code point or length were theirs.
fn class_of<'r>(
    rules: &'r [ClassRule],
    key: &FlowKey6,
) -> (Option<&'r ClassRule>, Vec<&'r ClassRule>) {
    let mut possible = Vec::new();
    for rule in rules {
        let plain = ClassRule {
            tests: rule.tests & !class_test::DSCP,
            lengths: ClassRule::ALL.lengths,
            ..*rule
        };
        if !plain.matches(key, 0, LENGTH) {
            continue;
        }
        if plain == *rule {
            return (Some(rule), possible);
        }
        possible.push(rule);
    }
    (None, possible)
}

/// The whole answer.
#[must_use]
pub fn explain(
    book: &Rulebook,
    names: &[String],
    balance: &str,
    (packet, bonded): (&Packet, &Bonded),
    flow: Option<FlowRow>,
) -> Explanation {
    let mut words = Words {
        book,
        names,
        balance,
        bonded,
        among: u32::MAX,
        steps: Vec::new(),
        others: Vec::new(),
    };
    let outcome = words.decide(packet);
    let Words { steps, others, .. } = words;
    Explanation { packet: packet.to_string(), flow, outcome, steps, would_change: others }
}

struct Words<'a> {
    book: &'a Rulebook,
    names: &'a [String],
    balance: &'a str,
    bonded: &'a Bonded,
    /// The paths that come into question, by bit.
    among: u32,
    steps: Vec<Step>,
    others: Vec<String>,
}

impl Words<'_> {
    fn name(&self, path: u8) -> String {
        let name = usize::from(path).checked_sub(1).and_then(|index| self.names.get(index));
        name.filter(|name| !name.is_empty()).cloned().unwrap_or_else(|| format!("path {path}"))
    }

    fn say(&mut self, what: &str, said: impl Into<String>) {
        step(&mut self.steps, what, said);
    }

    fn decide(&mut self, packet: &Packet) -> Outcome {
        let placed = place(self.book, packet.destination.address);
        let reason = match placed.map(|placed| placed.rule.class) {
            Some(prefix_class::LOCAL | prefix_class::LAN) => Some(Reason::Local),
            Some(prefix_class::MULTICAST) => Some(Reason::Multicast),
            Some(prefix_class::BYPASS) => Some(Reason::Bypass),
            _ => None,
        };
        if let (Some(reason), Some(placed)) = (reason, placed) {
            self.say("rule", format!("{} lies in {}", packet.destination.address, placed.net));
            return outcome("it is left to the kernel".to_owned(), reason, None, true);
        }
        self.say("rule", "the destination is for the bond");
        if self.bonded.session.flags & session_flag::PRESENT == 0 {
            self.say("session", "there is none");
            self.others.push("a session: `mwb bond` says why there is none".to_owned());
            let said = "it is dropped: nothing leaves in clear".to_owned();
            return outcome(said, Reason::NoSession, None, true);
        }
        let (rule, sure) = self.class();
        if rule.class == class::BLOCK {
            let said = "it is dropped: a rule says so".to_owned();
            return outcome(said, Reason::PolicyBlocked, None, sure);
        }
        self.flow();
        self.paths();
        self.keep_to(rule.paths);
        self.choose((rule.class, rule.repair), sure)
    }

    /// The rule, and whether another code point or length would make no difference.
    fn class(&mut self) -> (ClassRule, bool) {
        let (rule, possible) = class_of(&self.bonded.rules, &self.bonded.key);
        for rule in &possible {
            let spec = self.spec(rule);
            self.others.push(format!("a code point or a length that {spec} asks for"));
        }
        let said = match rule {
            Some(rule) => format!("{}, by {}", class_name(rule.class), self.spec(rule)),
            None if self.bonded.rules.is_empty() => "auto: there are no rules".to_owned(),
            None => "auto: no rule matches".to_owned(),
        };
        self.say("class", said);
        let chosen = rule.copied().unwrap_or(ClassRule::ALL);
        let does = |rule: &ClassRule| (rule.class, rule.repair, rule.paths);
        (chosen, possible.iter().all(|rule| does(rule) == does(&chosen)))
    }

    fn spec(&self, rule: &ClassRule) -> ClassSpec {
        ClassSpec::of(rule, |path| {
            let index = usize::from(path).checked_sub(1)?;
            self.names.get(index).filter(|name| !name.is_empty()).cloned()
        })
    }

    /// What a rule says of paths.
    fn keep_to(&mut self, paths: u16) {
        if paths == 0 {
            return;
        }
        let now = self.book.now;
        let meant = |id: u8| among(paths) >> u32::from(id & 31) & 1 != 0;
        let mut lives =
            self.bonded.paths.iter().filter(|(_, path, state)| Facts::of(path, state).lives(now));
        if lives.any(|(id, ..)| meant(*id)) || !falls_back(paths) {
            self.among = among(paths);
            self.say("paths", "only those that the rule names");
        } else {
            self.say("paths", "none of those that the rule names lives: others take its place");
        }
    }

    fn flow(&mut self) {
        let Some((number, bucket)) = self.bonded.opened() else {
            let number = self.bonded.number;
            return self.say("flow", format!("there is none: the packet opens bucket {number}"));
        };
        let weight =
            if bucket.flags & bucket_flag::ELEPHANT != 0 { "an elephant" } else { "small" };
        let said = format!(
            "bucket {number}: it is {weight}, and its last packet went by {}",
            self.name(bucket.path)
        );
        self.say("flow", said);
    }

    fn paths(&mut self) {
        let now = self.book.now;
        let said: Vec<String> = self
            .bonded
            .paths
            .iter()
            .map(|(id, path, state)| {
                let how = if path.flags & bond_path_flag::DOWN != 0 {
                    "is down"
                } else if state.alive_until <= now {
                    "is dead"
                } else if path.flags & bond_path_flag::PARKED != 0 {
                    "lives, and is parked"
                } else {
                    "lives"
                };
                format!("{} {how}", self.name(*id))
            })
            .collect();
        self.say("liveness", said.join(", "));
    }

    /// The path that arrives first, but for one; 0 if there is none.
    fn earliest(&self, stripe: u32, flow: Flow, but: u8) -> select::arrival::Chosen {
        let mut choice = Choice::new(self.book.now, stripe, flow);
        for (id, path, state) in &self.bonded.paths {
            if *id != but && self.among >> u32::from(*id & 31) & 1 != 0 {
                choice.consider(*id, LENGTH, &Facts::of(path, state));
            }
        }
        choice.decide()
    }

    fn choose(&mut self, (class, repairs): (u8, u8), sure: bool) -> Outcome {
        let Bonded { session, selection, bucket, number, .. } = self.bonded;
        let weighs = bucket.flags & bucket_flag::ELEPHANT != 0;
        let flow = Flow {
            path: self.bonded.opened().map_or(0, |(_, bucket)| bucket.path),
            pause: self.book.now.saturating_sub(bucket.last_seen),
            elephant: match class {
                class::PIN => false,
                class::STRIPE => true,
                _ => weighs && self.bonded.opened().is_some(),
            },
        };
        let stripe = if repairs == 0 { session.stripe } else { session.repaired.into() };
        let earliest = self.earliest(stripe, flow, 0);
        let balance = self.balance;
        let (first, certain) = match session.choice {
            bond_choice::BUCKET => {
                let (now, among) = (self.book.now, self.among);
                let lives = |id: u8| {
                    let mut paths = self.bonded.paths.iter();
                    paths.any(|(path, entry, state)| {
                        *path == id
                            && among >> u32::from(id & 31) & 1 != 0
                            && Facts::of(entry, state).lives(now)
                    })
                };
                let picked = select::pick(selection, u32::from(*number), lives);
                self.say("mode", format!("{balance}: its bucket has {}", self.name(picked)));
                (if lives(picked) { picked } else { earliest.path }, true)
            }
            bond_choice::COUNTER => {
                self.say("mode", format!("{balance}: each packet by the next of the table"));
                (earliest.path, false)
            }
            _ => {
                let said = if earliest.striped {
                    "each packet where it arrives first"
                } else {
                    "where it arrives first, and there it stays while that is not clearly worse"
                };
                self.say("mode", format!("{balance}: {said}"));
                (earliest.path, !earliest.striped)
            }
        };
        if first == 0 {
            self.others.push("a path: `mwb bond` says why there is none".to_owned());
            let said = "it is dropped: there is no path".to_owned();
            return outcome(said, Reason::NoBondPath, None, sure);
        }
        let wan = self.name(first);
        if class == class::DUPLICATE {
            let flow = Flow { path: 0, pause: 0, elephant: false };
            let second = self.earliest(0, flow, first);
            if second.path != 0 && !second.forced {
                let other = self.name(second.path);
                let metered = self.bonded.paths.iter().any(|(id, path, _)| {
                    *id == second.path && path.flags & bond_path_flag::METERED != 0
                });
                if metered {
                    let budget = u64::from(self.bonded.bond.copy_budget) * 8;
                    let rate = crate::config::units::show_rate(budget);
                    self.say("limit", format!("{other} is metered: copies have {rate}"));
                }
                let said = format!("it leaves twice, by {wan} and by {other}");
                return outcome(said, Reason::Copied, Some(wan), sure && certain && !metered);
            }
            self.say("limit", "no other path lives that could have a copy");
        }
        let said = match (certain, sure) {
            (true, true) => format!("it leaves by {wan}"),
            (true, false) => format!("it leaves by {wan}, unless another rule has it"),
            (false, _) => format!("it leaves by one of several paths, {wan} at this moment"),
        };
        outcome(said, Reason::Bonded, Some(wan), certain && sure)
    }
}

#[cfg(test)]
#[path = "bonded_tests.rs"]
mod tests;
