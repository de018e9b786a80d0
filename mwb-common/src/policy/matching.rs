//! From the sets of a packet's properties to the first rule that matches: the same code
//! in the kernel and on the host. Must not know: where tables are.

use bytemuck::{Pod, Zeroable};

use super::{Side, asks, place};
use crate::nat::protocol;

/// What a rule may ask of a packet, besides its addresses.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Properties {
    /// Index of the device it came in through.
    pub ifindex: u32,
    /// Firewall mark; 0 in XDP, which has none.
    pub mark: u32,
    /// Source port, host byte order.
    pub source_port: u16,
    /// Destination port, host byte order.
    pub port: u16,
    /// IP protocol.
    pub protocol: u8,
    /// Differentiated services code point.
    pub dscp: u8,
    /// Source MAC.
    pub mac: [u8; 6],
}

/// Whether packets of a protocol have ports that a rule can ask for.
#[inline(always)]
#[must_use]
pub const fn has_ports(protocol: u8) -> bool {
    matches!(protocol, protocol::TCP | protocol::UDP | protocol::SCTP)
}

/// The tables of a bank, and the rules that are still in question.
pub trait Tables {
    /// What rules ask for: bits of [`asks`].
    fn asks(&self) -> u16;
    /// The set of the packet's address on that side.
    fn prefix(&mut self, side: Side) -> u16;
    /// The group of names that the destination is of.
    fn group(&mut self) -> u32;
    /// The set at a [`place`].
    fn place(&mut self, place: u32) -> u16;
    /// The set of a MAC, if a rule names it.
    fn mac(&mut self, mac: [u8; 6]) -> Option<u16>;
    /// Begins with the rules that two sets have in common; says whether there are any.
    fn begin(&mut self, sets: [u16; 2]) -> bool;
    /// Goes on with those that are in this set too; says whether any is left.
    fn narrow(&mut self, set: u16) -> bool;
    /// The first of those that are left.
    fn first(&self) -> Option<u32>;
}

/// The first rule that matches a packet, if one does.
#[inline(always)]
pub fn first_rule<T: Tables>(tables: &mut T, packet: &Properties) -> Option<u32> {
    let asked = tables.asks();
    let active = tables.place(place::ACTIVE);
    // What tells rules apart best comes first: most packets match none.
    let destination =
        if asked & asks::DESTINATION == 0 { active } else { tables.prefix(Side::Destination) };
    if !tables.begin([active, destination]) {
        return None;
    }
    // Equal sets have one number, and what these rules began with takes none of them
    // away: so what few rules ask for costs next to nothing.
    let narrow = |tables: &mut T, set: u16| set == active || tables.narrow(set);
    if asked & asks::NAME != 0 {
        let group = tables.group();
        let set = tables.place(place::GROUP + group);
        if !tables.narrow(set) {
            return None;
        }
    }
    if asked & asks::SOURCE != 0 {
        let set = tables.prefix(Side::Source);
        if !narrow(tables, set) {
            return None;
        }
    }
    let has_ports = has_ports(packet.protocol);
    if asked & asks::PORT != 0 {
        let port = place::PORT + packet.port as u32;
        let set = tables.place(if has_ports { port } else { place::NO_PORT });
        if !narrow(tables, set) {
            return None;
        }
    }
    if asked & asks::SOURCE_PORT != 0 {
        let port = place::SOURCE_PORT + packet.source_port as u32;
        let set = tables.place(if has_ports { port } else { place::NO_SOURCE_PORT });
        narrow(tables, set);
    }
    if asked & asks::PROTOCOL != 0 {
        let set = tables.place(place::PROTOCOL + packet.protocol as u32);
        narrow(tables, set);
    }
    if asked & asks::DSCP != 0 {
        let set = tables.place(place::DSCP + (packet.dscp & 63) as u32);
        narrow(tables, set);
    }
    if asked & asks::MARK != 0 {
        let [a, b, c, d] = packet.mark.to_le_bytes();
        let set = tables.place(place::MARK + a as u32);
        narrow(tables, set);
        let set = tables.place(place::MARK + 256 + b as u32);
        narrow(tables, set);
        let set = tables.place(place::MARK + 512 + c as u32);
        narrow(tables, set);
        let set = tables.place(place::MARK + 768 + d as u32);
        narrow(tables, set);
    }
    if asked & asks::DEVICE != 0 {
        let set = tables.place(place::device(packet.ifindex));
        narrow(tables, set);
    }
    if asked & asks::MAC != 0 {
        let set = match tables.mac(packet.mac) {
            Some(set) => set,
            None => tables.place(place::OTHER_MAC),
        };
        narrow(tables, set);
    }
    tables.first()
}
