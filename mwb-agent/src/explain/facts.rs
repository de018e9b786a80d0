//! The entries of the kernel side that concern a packet.

use mwb_common::maps::{Flow, Mapping, PortOwner};

use super::{Decided, Packet};
use crate::dataplane::{Error, Rulebook, Rules, Tables};

/// What the tables hold about a packet.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts {
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
    /// Looks them up.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn read(
        tables: &Tables,
        rules: &Rules,
        book: &Rulebook,
        packet: &Packet,
    ) -> Result<Self, Error> {
        let mut facts = Self::default();
        if let Some(key) = packet.key6() {
            facts.flow = tables.flows6().get(&key)?;
        }
        let Some(key) = packet.key4() else { return Ok(facts) };
        facts.flow = tables.flows4().get(&key)?;
        if let Some(endpoint) = Decided::endpoint(book, packet) {
            facts.mapping = tables.mappings().get(&endpoint)?;
            if let Some(mapping) = &facts.mapping {
                facts.owner = tables.ports().get(&Decided::port_of(&endpoint, mapping))?;
            }
        }
        if let Some(port) = Decided::own_port(book, packet) {
            facts.forward = tables.ports().get(&port)?;
        }
        facts.mappings = rules.mappings_of(key.source)?;
        Ok(facts)
    }
}
