//! A rule as the agent has it, and what it means: a packet matches if it has what each
//! of the rule's conditions asks for. Must not know: how the tables say the same.

use alloc::vec::Vec;
use core::net::IpAddr;

use ipnet::IpNet;

use super::{NameBits, OUTLETS, Properties, has_ports};

/// What becomes of a new flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// As if no rule matched: an exception from the rules behind it.
    Default,
    /// It leaves by an outlet, from 1 to 63.
    Outlet(u8),
    /// It is dropped.
    Block,
}

/// Marks that are `value` where `mask` has bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mark {
    /// The bits.
    pub value: u32,
    /// Those that count.
    pub mask: u32,
}

/// A rule. `None` is "any"; an empty list is "none", and such a rule matches nothing:
/// that of a device that is not there must not become a rule for every device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Where the source may be.
    pub sources: Option<Vec<IpNet>>,
    /// Where the destination may be.
    pub destinations: Option<Vec<IpNet>>,
    /// Numbers of names of which the destination must be an address, below
    /// [`super::POLICY_NAMES`].
    pub names: Option<Vec<u16>>,
    /// First and last source port. Of packets that have one only.
    pub source_ports: Option<Vec<(u16, u16)>>,
    /// First and last destination port, the same.
    pub ports: Option<Vec<(u16, u16)>>,
    /// IP protocols. ICMPv6 is 58, not 1.
    pub protocols: Option<Vec<u8>>,
    /// Differentiated services code points.
    pub dscp: Option<Vec<u8>>,
    /// Interface indexes of the devices that it may come in through.
    pub devices: Option<Vec<u32>>,
    /// Source MACs.
    pub macs: Option<Vec<[u8; 6]>>,
    /// Firewall marks. Each but the first is one rule more of those that there may be.
    pub marks: Option<Vec<Mark>>,
    /// Whether it counts at this time.
    pub active: bool,
    /// Where it is counted, below [`super::POLICY_HITS`]. Kept by the agent for as long as
    /// it takes the rule for the same.
    pub hits: u16,
    /// What it wants.
    pub action: Action,
}

impl Rule {
    /// One that all packets match.
    #[must_use]
    pub const fn any(action: Action) -> Self {
        Self {
            sources: None,
            destinations: None,
            names: None,
            source_ports: None,
            ports: None,
            protocols: None,
            dscp: None,
            devices: None,
            macs: None,
            marks: None,
            active: true,
            hits: 0,
            action,
        }
    }

    /// Whether its action is one that there is.
    #[must_use]
    pub(super) const fn is_valid(&self) -> bool {
        !matches!(self.action, Action::Outlet(outlet) if outlet == 0 || outlet as usize >= OUTLETS)
    }

    /// Whether it counts now and a packet matches.
    #[must_use]
    pub fn matches(&self, asked: &Asked) -> bool {
        let packet = &asked.packet;
        let port = |ranges: &Option<Vec<(u16, u16)>>, port: u16| {
            let within = |&(first, last): &(u16, u16)| first <= port && port <= last;
            is(ranges, |range| has_ports(packet.protocol) && within(range))
        };
        self.active
            && is(&self.sources, |net| net.contains(&asked.source))
            && is(&self.destinations, |net| net.contains(&asked.destination))
            && is(&self.names, |name| asked.names.has(usize::from(*name)))
            && port(&self.source_ports, packet.source_port)
            && port(&self.ports, packet.port)
            && is(&self.protocols, |protocol| *protocol == packet.protocol)
            && is(&self.dscp, |dscp| *dscp == packet.dscp)
            && is(&self.devices, |device| *device == packet.ifindex)
            && is(&self.macs, |mac| *mac == packet.mac)
            && is(&self.marks, |mark| (packet.mark ^ mark.value) & mark.mask == 0)
    }
}

fn is<T>(list: &Option<Vec<T>>, one: impl FnMut(&T) -> bool) -> bool {
    list.as_ref().is_none_or(|list| list.iter().any(one))
}

/// The first packet of a flow, as rules see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// The names that the destination is known to be an address of.
    pub names: NameBits,
    /// All the rest. Of a packet without ports they count for nothing.
    pub packet: Properties,
}

/// Which rule a packet falls under: what the tables say too, but by asking each.
#[must_use]
pub fn first_match(rules: &[Rule], asked: &Asked) -> Option<usize> {
    rules.iter().position(|rule| rule.matches(asked))
}
