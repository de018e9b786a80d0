//! Policy rules: which new flows leave by which WANs, or not at all.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::RangeInclusive;

use ipnet::IpNet;

use super::Balance;
use super::domain::Domain;
use super::hours::Hours;
use super::terms::{DSCPS, PROTOCOLS, show_range, word_of};

/// What becomes of new flows from the LAN that are not as all others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// The first that matches counts.
    pub rules: Vec<PolicyRule>,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyRule {
    /// What people call it, if it has a name of its own. Unique.
    pub name: Option<String>,
    /// Which packets it is for.
    pub matches: PolicyMatch,
    /// When it counts; `None`: always.
    pub time: Option<Hours>,
    /// What becomes of their flows.
    pub action: PolicyAction,
}

/// Which packets: each list that is not empty must have one that fits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyMatch {
    /// Prefixes of the inside host.
    pub source: Vec<IpNet>,
    /// Prefixes of the destination.
    pub destination: Vec<IpNet>,
    /// Names of which the destination must be an address.
    pub domains: Vec<Domain>,
    /// IP protocols.
    pub protocols: Vec<u8>,
    /// Ports of the destination.
    pub ports: Vec<RangeInclusive<u16>>,
    /// Ports of the inside host.
    pub source_ports: Vec<RangeInclusive<u16>>,
    /// Differentiated services code points.
    pub dscps: Vec<u8>,
    /// LAN ports that the packet comes in through, by device.
    pub lan: Vec<String>,
    /// Source MACs.
    pub macs: Vec<[u8; 6]>,
    /// Firewall marks.
    pub marks: Vec<u32>,
}

impl PolicyMatch {
    /// Whether every packet matches.
    #[must_use]
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }
}

/// What becomes of a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyAction {
    /// It leaves by some WANs.
    Outlet(Outlet),
    /// Its packets are dropped.
    Block,
    /// What would become of it without rules: an exception from later ones.
    Default,
}

/// Some WANs, and how new flows are shared among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outlet {
    /// Names of the WANs, the first choice first; at least one.
    pub wans: Vec<String>,
    /// How new flows are shared among them; `None`: as the file says for all.
    pub balance: Option<Balance>,
    /// What becomes of flows while none of them works.
    pub fallback: Fallback,
}

/// What becomes of an outlet's flows while none of its WANs works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// They take the others, as flows without a rule do.
    Prefer,
    /// They wait.
    Strict,
}

impl Fallback {
    /// All of them.
    pub const ALL: [Fallback; 2] = [Fallback::Prefer, Fallback::Strict];

    /// The word in the file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Fallback::Prefer => "prefer",
            Fallback::Strict => "strict",
        }
    }
}

impl Policy {
    /// What a rule is called: by its own name, or by its place from 1.
    #[must_use]
    pub fn label(&self, index: usize) -> String {
        let name = self.rules.get(index).and_then(|rule| rule.name.clone());
        name.unwrap_or_else(|| numbered(index))
    }

    /// Every name that rules ask for, each once, in the order of the rules.
    #[must_use]
    pub fn domains(&self) -> Vec<&Domain> {
        let mut seen = BTreeSet::new();
        let all = self.rules.iter().flat_map(|rule| &rule.matches.domains);
        all.filter(|domain| seen.insert(*domain)).collect()
    }

    /// Every outlet that rules name, each once, in the order of the rules.
    #[must_use]
    pub fn outlets(&self) -> Vec<&Outlet> {
        let mut outlets: Vec<&Outlet> = Vec::new();
        for rule in &self.rules {
            if let PolicyAction::Outlet(outlet) = &rule.action
                && !outlets.contains(&outlet)
            {
                outlets.push(outlet);
            }
        }
        outlets
    }
}

/// What a rule without a name is called.
pub(super) fn numbered(index: usize) -> String {
    format!("rule-{}", index + 1)
}

/// Several, or the only one of them, as it is written in the file.
fn listed<T>(items: &[T], show: impl Fn(&T) -> String) -> String {
    match items {
        [one] => show(one),
        several => format!("[{}]", several.iter().map(show).collect::<Vec<_>>().join(", ")),
    }
}

/// What a rule matches, as it is written in the file.
impl fmt::Display for PolicyMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nets = |nets: &[IpNet]| listed(nets, |net| quoted(&net.to_string()));
        let ranges = |ranges: &[RangeInclusive<u16>]| listed(ranges, show_range);
        let mut keys = Vec::new();
        let mut key = |is_there: bool, name: &str, value: String| {
            if is_there {
                keys.push(format!("{name}: {value}"));
            }
        };
        key(!self.source.is_empty(), "source", nets(&self.source));
        key(!self.destination.is_empty(), "destination", nets(&self.destination));
        let domain = |domain: &Domain| match domain.below {
            true => format!("\"{domain}\""),
            false => domain.to_string(),
        };
        key(!self.domains.is_empty(), "domain", listed(&self.domains, domain));
        let protocols = listed(&self.protocols, |number| word_of(&PROTOCOLS, *number));
        key(!self.protocols.is_empty(), "protocol", protocols);
        key(!self.ports.is_empty(), "port", ranges(&self.ports));
        key(!self.source_ports.is_empty(), "source_port", ranges(&self.source_ports));
        let dscps = listed(&self.dscps, |number| word_of(&DSCPS, *number));
        key(!self.dscps.is_empty(), "dscp", dscps);
        key(!self.lan.is_empty(), "lan", listed(&self.lan, String::clone));
        key(!self.macs.is_empty(), "mac", listed(&self.macs, |mac| quoted(&show_mac(mac))));
        key(!self.marks.is_empty(), "mark", listed(&self.marks, |mark| format!("{mark:#x}")));
        f.write_str(&keys.join(", "))
    }
}

/// What has colons is written in quotes.
fn quoted(text: &str) -> String {
    if text.contains(':') { format!("\"{text}\"") } else { text.to_owned() }
}

/// `02:00:00:00:00:01`.
#[must_use]
pub fn show_mac(mac: &[u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// What becomes of a flow, as it is written in the file.
impl fmt::Display for PolicyAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PolicyAction::Block => f.write_str("use: block"),
            PolicyAction::Default => f.write_str("use: default"),
            PolicyAction::Outlet(Outlet { wans, balance, fallback }) => {
                write!(f, "use: {}", listed(wans, String::clone))?;
                if let Some(balance) = balance {
                    write!(f, ", balance: {}", balance.name())?;
                }
                match fallback {
                    Fallback::Prefer => Ok(()),
                    Fallback::Strict => f.write_str(", fallback: strict"),
                }
            }
        }
    }
}

/// As it is written in the file, without its name.
impl fmt::Display for PolicyRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        if !self.matches.is_all() {
            write!(f, "{}, ", self.matches)?;
        }
        if let Some(time) = &self.time {
            write!(f, "time: {time}, ")?;
        }
        write!(f, "{}}}", self.action)
    }
}
