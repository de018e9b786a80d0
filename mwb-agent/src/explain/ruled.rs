//! What policy rules say about a packet.

use mwb_common::policy::{Action, NameBits, Rule};

use super::{Entry, Packet};
use crate::policy::{Known, Met, ask};

/// What the rule that a packet meets wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ruled {
    /// There is none, or it is for things as usual.
    #[default]
    Usual,
    /// Its flow leaves by this outlet.
    Outlet(u8),
    /// It is dropped.
    Block,
}

impl Ruled {
    /// What a rule wants.
    #[must_use]
    pub fn of(rule: Option<&Rule>) -> Self {
        match rule.map(|rule| rule.action) {
            Some(Action::Outlet(outlet)) => Ruled::Outlet(outlet),
            Some(Action::Block) => Ruled::Block,
            Some(Action::Default) | None => Ruled::Usual,
        }
    }

    /// The outlet, 0 for flows without a rule.
    #[must_use]
    pub const fn outlet(self) -> u8 {
        match self {
            Ruled::Outlet(outlet) => outlet,
            Ruled::Usual | Ruled::Block => 0,
        }
    }
}

/// The rules as people know them.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Name and words of each rule, in their order.
    pub rules: Vec<(String, String)>,
    /// What the packet meets.
    pub met: Met,
}

/// Asks the rules about a packet. `device` is the index of the LAN port it comes in
/// through, if that is known; `names` those that its destination is an address of.
#[must_use]
pub fn meet(
    rules: &[Rule],
    packet: &Packet,
    entry: &Entry,
    device: Option<u32>,
    names: NameBits,
) -> Met {
    let port = |port: Option<u16>| port.unwrap_or(0);
    let known = Known {
        source: packet.source.address,
        destination: packet.destination.address,
        names,
        ports: (port(packet.source.port), port(packet.destination.port)),
        protocol: packet.number(),
        device,
        mac: entry.mac,
        dscp: entry.dscp,
        mark: entry.mark,
    };
    ask(rules, &known)
}

impl Policy {
    /// What rules say, one sentence each.
    pub(super) fn sentences(&self) -> Vec<String> {
        /// So many rules are named that something unknown could lead to.
        const NAMED: usize = 4;
        if self.rules.is_empty() {
            return Vec::new();
        }
        let name = |place: usize| self.rules.get(place).map_or("?", |(name, _)| name.as_str());
        let mut said = match self.met.rule.and_then(|place| self.rules.get(place)) {
            Some((name, words)) => vec![format!("rule {name} matches: {words}")],
            None => vec![format!("none of {} rules matches", self.rules.len())],
        };
        for (place, missing) in self.met.else_by.iter().take(NAMED) {
            let options: Vec<String> = missing.iter().map(|what| format!("--{what}")).collect();
            let options = options.join(", ");
            said.push(format!("rule {} before it may match: say {options}", name(*place)));
        }
        if self.met.else_by.len() > NAMED {
            said.push(format!("and so may {} more", self.met.else_by.len() - NAMED));
        }
        said
    }
}
