//! The kernel side's decision about the first packet of a flow, step by step
//! as `steer4`, `steer6`, `nat` and `path` of the kernel side take them.

use std::net::IpAddr;

use ipnet::IpNet;
use mwb_common::maps::{
    Choice, Family, Flow, Mapping, MappingKey, OUTLET_VIA, PATH_SLOTS, Path, PortKey, Prefix,
    SLOTS, Selection, how, index, path_flag, prefix_class,
};
use mwb_common::nat::{hash4, hash6, protocol::has_nat_ports};
use mwb_common::nptv6::Translation;
use mwb_common::policy::selection_index;
use mwb_common::reason::Reason;
use mwb_common::select;

use super::{Facts, Packet, Ruled};
use crate::dataplane::Rulebook;

/// The rule that holds for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The longest prefix that has a rule.
    pub net: IpNet,
    /// What the rule says.
    pub rule: Prefix,
}

/// Whether an entry is good for another packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is.
    Good,
    /// Its WAN does not carry the family now.
    PathGone,
    /// Its WAN has another address since.
    OtherGeneration,
    /// Flows of its WAN that may move were asked to.
    OtherEpoch,
    /// Its WAN is dead and others live.
    Dead,
    /// Its port is somebody else's, or nobody's.
    PortLost,
}

/// What the path choice gave.
#[derive(Clone, Debug, PartialEq)]
pub struct Picked {
    /// One of [`index`].
    pub index: u8,
    /// The slot: of a flow hash the one it always is; of a counter the one that
    /// is next, unless another flow comes before.
    pub slot: u16,
    /// The slot's own path.
    pub slot_path: u8,
    /// The path chosen.
    pub path: u8,
    /// One of [`how`].
    pub how: u8,
    /// How many of the slots lead to each path at this moment, most first.
    pub possible: Vec<(u8, usize)>,
}

/// What happens to the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It leaves by this path.
    Path(u8),
    /// It is turned round to the LAN: its destination is our port on this path.
    Hairpin(u8),
    /// The kernel has it.
    Kernel(Reason),
    /// It is dropped.
    Drop(Reason),
}

/// The decision with what led to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Decided {
    /// The rule for the destination.
    pub destination: Option<Placed>,
    /// The rule for the source.
    pub source: Option<Placed>,
    /// The flow, if there is one, and whether it stands.
    pub flow: Option<(Flow, Standing)>,
    /// The source's mapping, if it has one, and whether it stands.
    pub mapping: Option<(Mapping, Standing)>,
    /// What the path choice gave, if it was asked.
    pub picked: Option<Picked>,
    /// What happens.
    pub verdict: Verdict,
    /// Whether it happens for certain: not if it depends on a counter.
    pub certain: bool,
}

impl Decided {
    /// The inside endpoints whose mappings may count for a packet, in their order:
    /// destinations on a WAN's own subnet have mappings of their own, and an outlet has
    /// them where the common one leads elsewhere.
    #[must_use]
    pub fn endpoints(book: &Rulebook, packet: &Packet, outlet: u8) -> Vec<MappingKey> {
        let Some(key) = packet.key4() else { return Vec::new() };
        let via = match place(book, packet.destination.address).map(|placed| placed.rule) {
            Some(Prefix { class: prefix_class::VIA_PATH, path, .. }) => path,
            _ => 0,
        };
        let own = (outlet != 0 && via == 0).then(|| OUTLET_VIA + outlet);
        let endpoint = |via| MappingKey {
            address: key.source,
            port: key.source_port,
            protocol: key.protocol,
            via,
        };
        std::iter::once(via).chain(own).map(endpoint).collect()
    }

    /// Whether the mapping of an endpoint is the one that counts: that of an outlet is, and
    /// the common one if it stands and leads to one of the outlet's paths.
    #[must_use]
    pub fn takes(
        book: &Rulebook,
        packet: &Packet,
        facts: &Facts,
        endpoint: &MappingKey,
        outlet: u8,
    ) -> bool {
        let Some(mapping) = facts.mapping.filter(|_| outlet != 0 && endpoint.via == 0) else {
            return true;
        };
        let world = World { book, family: Family::V4, outlet };
        let is_its = world.selection().is_some_and(|selection| selection.has(mapping.path));
        is_its && world.mapping_standing(packet, &mapping, facts, endpoint.via) == Standing::Good
    }

    /// The outside port that a mapping has.
    #[must_use]
    pub fn port_of(endpoint: &MappingKey, mapping: &Mapping) -> PortKey {
        PortKey { port: mapping.port, protocol: endpoint.protocol, path: mapping.path }
    }

    /// The outside port that a packet is addressed to, if its destination is one
    /// of our own addresses.
    #[must_use]
    pub fn own_port(book: &Rulebook, packet: &Packet) -> Option<PortKey> {
        let rule = place(book, packet.destination.address)?.rule;
        let key = packet.key4()?;
        (rule.class == prefix_class::LOCAL && rule.path != 0).then_some(PortKey {
            port: key.destination_port,
            protocol: key.protocol,
            path: rule.path,
        })
    }
}

/// The rule for an address: that of the longest prefix.
#[must_use]
pub fn place(book: &Rulebook, address: IpAddr) -> Option<Placed> {
    let holds = book.prefixes.iter().filter(|(net, _)| net.contains(&address));
    holds.max_by_key(|(net, _)| net.prefix_len()).map(|&(net, rule)| Placed { net, rule })
}

/// Decides about the first packet of a flow, with TTL and size out of question.
#[must_use]
pub fn decide(book: &Rulebook, packet: &Packet, facts: &Facts) -> Decided {
    let (family, hash) = match (packet.key4(), packet.key6()) {
        (Some(key), _) => (Family::V4, hash4(&key, book.control.seed)),
        (None, Some(key)) => (Family::V6, hash6(&key, book.control.seed)),
        // One of both keys is always there: the parser sees to it.
        (None, None) => (Family::V4, 0),
    };
    let world = World { book, family, outlet: facts.ruled.outlet() };
    let mut decided = Decided {
        destination: place(book, packet.destination.address),
        source: place(book, packet.source.address),
        flow: facts.flow.map(|flow| {
            let standing = world.standing(flow.path, flow.generation, flow.choice);
            (flow, standing)
        }),
        mapping: None,
        picked: None,
        verdict: Verdict::Drop(Reason::NoPath),
        certain: true,
    };
    decided.verdict = match decided.flow {
        Some((flow, Standing::Good)) => Verdict::Path(flow.path),
        _ => open(&world, packet, facts, hash, &mut decided),
    };
    decided
}

/// A flow is to be made.
fn open(
    world: &World<'_>,
    packet: &Packet,
    facts: &Facts,
    hash: u32,
    decided: &mut Decided,
) -> Verdict {
    let rule = decided.destination.map(|placed| placed.rule).unwrap_or_default();
    let via = match rule.class {
        prefix_class::LOCAL if rule.path != 0 && facts.forward.is_some() => {
            return Verdict::Hairpin(rule.path);
        }
        prefix_class::LOCAL | prefix_class::LAN => return Verdict::Kernel(Reason::Local),
        prefix_class::MULTICAST => return Verdict::Kernel(Reason::Multicast),
        prefix_class::BYPASS => return Verdict::Kernel(Reason::Bypass),
        _ => rule.path,
    };
    let source = decided.source.map_or(0, |placed| placed.rule.class);
    if matches!(source, prefix_class::LOCAL | prefix_class::MULTICAST) {
        return Verdict::Drop(Reason::ForeignSource);
    }
    if facts.ruled == Ruled::Block {
        return Verdict::Drop(Reason::PolicyBlocked);
    }
    if let (Family::V4, Some(mapping)) = (world.family, facts.mapping) {
        let standing = world.mapping_standing(packet, &mapping, facts, via);
        decided.mapping = Some((mapping, standing));
        if standing == Standing::Good {
            return Verdict::Path(mapping.path);
        }
    } else if world.family == Family::V4 {
        let limit = world.book.control.source_limit;
        if limit != 0 && facts.mappings >= limit {
            return Verdict::Drop(Reason::SourceLimit);
        }
    }
    let chosen = if via == 0 {
        let picked = world.pick(hash);
        let possible: Vec<u8> = picked.possible.iter().map(|(path, _)| *path).collect();
        decided.certain = picked.index == index::FLOW_HASH || possible.len() <= 1;
        let chosen = picked.path;
        decided.picked = Some(picked);
        chosen
    } else {
        via
    };
    let Some(path) = world.path(chosen) else { return Verdict::Drop(Reason::NoPath) };
    if let IpAddr::V6(source) = packet.source.address {
        let translation = Translation {
            inside: path.inside6,
            outside: path.outside6,
            length: path.npt_length,
            adjustment: path.npt_adjustment,
        };
        if translation.outward(source.octets()).is_none() {
            return Verdict::Drop(Reason::ForeignSource);
        }
    }
    Verdict::Path(chosen)
}

/// The rulebook seen by one address family.
struct World<'a> {
    book: &'a Rulebook,
    family: Family,
    /// Of the packet; what is open already may be of another.
    outlet: u8,
}

impl World<'_> {
    fn alive(&self, path: u8) -> bool {
        let until = self.book.liveness.alive_until;
        usize::from(path) < PATH_SLOTS && until[usize::from(path)] > self.book.now
    }

    /// A path that carries the family now.
    fn path(&self, id: u8) -> Option<&Path> {
        let family = match self.family {
            Family::V4 => path_flag::HAS_V4,
            Family::V6 => path_flag::HAS_V6,
        };
        let wanted = path_flag::PRESENT | family;
        let path = self.book.paths.get(usize::from(id)).filter(|_| id != 0)?;
        (path.flags & wanted == wanted).then_some(path)
    }

    fn selection(&self) -> Option<&Selection> {
        self.book.selections.get(selection_index(self.outlet, self.family) as usize)
    }

    /// The path for a slot and how it was found.
    fn at(&self, slot: u32) -> (u8, u8) {
        let Some(selection) = self.selection() else { return (0, how::NONE_ALIVE) };
        let path = select::pick(selection, slot, |path| self.alive(path));
        let how = if !self.alive(path) {
            how::NONE_ALIVE
        } else if path == selection.slots[slot as usize & (SLOTS - 1)] {
            how::SLOT
        } else {
            how::RANKING
        };
        (path, how)
    }

    /// Whether the outlet that a choice was made by has a living path.
    fn any_alive(&self, choice: Choice) -> bool {
        let world = World { book: self.book, family: self.family, outlet: choice.outlet() };
        world.at(0).1 != how::NONE_ALIVE
    }

    fn standing(&self, id: u8, generation: u32, choice: Choice) -> Standing {
        let Some(path) = self.path(id) else { return Standing::PathGone };
        if path.generation != generation {
            Standing::OtherGeneration
        } else if !how::is_free(choice.how) {
            Standing::Good
        } else if choice.epoch != path.epoch {
            Standing::OtherEpoch
        } else if !self.alive(id) && self.any_alive(choice) {
            Standing::Dead
        } else {
            Standing::Good
        }
    }

    /// `via` is of the endpoint that the mapping was found by.
    fn mapping_standing(
        &self,
        packet: &Packet,
        mapping: &Mapping,
        facts: &Facts,
        via: u8,
    ) -> Standing {
        let standing = self.standing(mapping.path, mapping.generation, mapping.choice);
        let Some(key) = packet.key4().filter(|_| standing == Standing::Good) else {
            return standing;
        };
        let endpoint =
            MappingKey { address: key.source, port: key.source_port, protocol: key.protocol, via };
        let own = MappingKey { via: OUTLET_VIA + self.outlet, ..endpoint };
        let is_its = |inside| inside == endpoint || (self.outlet != 0 && via == 0 && inside == own);
        let owned = facts.owner.is_some_and(|owner| is_its(owner.inside));
        if owned || !has_nat_ports(key.protocol) { Standing::Good } else { Standing::PortLost }
    }

    fn pick(&self, hash: u32) -> Picked {
        let entry = selection_index(self.outlet, self.family) as usize;
        let next = self.book.cursors.get(entry).copied().unwrap_or_default() as u32;
        let selection = self.selection();
        let by = selection.map_or(index::COUNTER, |selection| selection.index);
        let slot = if by == index::FLOW_HASH { hash } else { next };
        let (path, how) = self.at(slot);
        let mut counts = [0usize; PATH_SLOTS];
        for slot in 0..SLOTS as u32 {
            if let Some(count) = counts.get_mut(usize::from(self.at(slot).0)) {
                *count += 1;
            }
        }
        let mut possible: Vec<(u8, usize)> =
            (0u8..).zip(counts).filter(|(path, count)| *path != 0 && *count > 0).collect();
        possible.sort_by_key(|(path, count)| (std::cmp::Reverse(*count), *path));
        Picked {
            index: by,
            slot: slot as u16 & (SLOTS as u16 - 1),
            slot_path: selection.map_or(0, |has| has.slots[slot as usize & (SLOTS - 1)]),
            path,
            how,
            possible,
        }
    }
}
