//! The entries of the kernel side that concern a packet.

use mwb_common::maps::{Flow, Mapping, PortOwner};

use super::{Decided, Packet, Ruled};
use crate::dataplane::{Error, Rulebook, Rules, Tables};

/// What the tables hold about a packet.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts {
    /// What policy rules say about it.
    pub ruled: Ruled,
    /// Its flow.
    pub flow: Option<Flow>,
    /// The mapping of its source, by [`Decided::endpoint`].
    pub mapping: Option<Mapping>,
    /// Who owns that mapping's port.
    pub owner: Option<PortOwner>,
    /// Who owns the destination port, if that is one of our own outside ports.
    pub forward: Option<PortOwner>,
    /// How many mappings the source has, if they are limited.
    pub mappings: u32,
}

impl Facts {
    /// Looks them up for a packet that no policy rule is about.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn read(
        tables: &Tables,
        rules: &Rules,
        book: &Rulebook,
        packet: &Packet,
    ) -> Result<Self, Error> {
        Self::read_ruled(tables, rules, book, packet, Ruled::Usual)
    }

    /// Looks them up.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn read_ruled(
        tables: &Tables,
        rules: &Rules,
        book: &Rulebook,
        packet: &Packet,
        ruled: Ruled,
    ) -> Result<Self, Error> {
        let mut facts = Self { ruled, ..Self::default() };
        if let Some(key) = packet.key6() {
            facts.flow = tables.flows6().get(&key)?;
        }
        let Some(key) = packet.key4() else { return Ok(facts) };
        facts.flow = tables.flows4().get(&key)?;
        // An outlet takes the common mapping if that leads to one of its paths.
        let outlet = Ruled::outlet(ruled);
        for endpoint in Decided::endpoints(book, packet, outlet) {
            facts.mapping = tables.mappings().get(&endpoint)?;
            facts.owner = None;
            let Some(mapping) = &facts.mapping else { continue };
            facts.owner = tables.ports().get(&Decided::port_of(&endpoint, mapping))?;
            if Decided::takes(book, packet, &facts, &endpoint, outlet) {
                break;
            }
        }
        if let Some(port) = Decided::own_port(book, packet) {
            facts.forward = tables.ports().get(&port)?;
        }
        facts.mappings = rules.mappings_of(key.source)?;
        Ok(facts)
    }
}
