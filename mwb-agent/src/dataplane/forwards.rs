//! Port forwards: ports that are their inside endpoint's for good.
//!
//! They stand in the table of ports that the kernel side claims from, so a port
//! that is forwarded is never claimed by a mapping.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use mwb_common::maps::{FORWARD, MappingKey, PortKey, PortOwner};

use super::DataPlane;
use super::error::Error;

/// A port of a WAN's IPv4 address, and the inside endpoint behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Forward {
    /// Path id of the WAN.
    pub path: u8,
    /// IP protocol number: TCP or UDP.
    pub protocol: u8,
    /// Port on the WAN's address.
    pub port: u16,
    /// Inside address.
    pub to: Ipv4Addr,
    /// Inside port.
    pub to_port: u16,
}

impl Forward {
    fn key(&self) -> PortKey {
        PortKey { port: self.port.to_be_bytes(), protocol: self.protocol, path: self.path }
    }

    fn inside(&self) -> MappingKey {
        MappingKey {
            address: self.to.octets(),
            port: self.to_port.to_be_bytes(),
            protocol: self.protocol,
            via: self.path,
        }
    }
}

/// [`PortKey`] in an order.
fn place(key: &PortKey) -> (u8, u8, [u8; 2]) {
    (key.path, key.protocol, key.port)
}

impl DataPlane {
    /// Makes these the port forwards, by applying the difference: one that stays
    /// is not touched. A port that a mapping has is taken from it: the mapping
    /// is void then and made anew, on another port, with its next flow; flows
    /// that run on it go on. Of two forwards for one port the last wins. Flows
    /// of a forward that goes run to their end.
    ///
    /// # Errors
    /// When the table of ports is full, or the kernel refuses a write.
    pub fn set_forwards(&mut self, forwards: &[Forward]) -> Result<(), Error> {
        let wanted: BTreeMap<_, _> =
            forwards.iter().map(|f| (place(&f.key()), (f.key(), f.inside()))).collect();
        let present: BTreeMap<_, _> = self
            .tables
            .forwards()?
            .into_iter()
            .map(|(key, inside)| (place(&key), (key, inside)))
            .collect();
        let ports = self.tables.ports();
        for (place, (key, inside)) in &wanted {
            if present.get(place).is_none_or(|(_, before)| before != inside) {
                ports.put(key, &PortOwner { last_used: FORWARD, inside: *inside })?;
            }
        }
        let gone: Vec<PortKey> = present
            .iter()
            .filter(|(place, _)| !wanted.contains_key(*place))
            .map(|(_, (key, _))| *key)
            .collect();
        ports.remove(&gone).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{in_network, maps_alone};
    use super::*;

    const TCP: u8 = 6;

    fn forward(port: u16, to_port: u16) -> Forward {
        let to = Ipv4Addr::new(192, 0, 2, 10);
        Forward { path: 1, protocol: TCP, port, to, to_port }
    }

    #[test]
    fn forwards_become_what_is_asked_for_and_leave_claimed_ports_alone() {
        let name = "forwards_become_what_is_asked_for_and_leave_claimed_ports_alone";
        in_network(name, || {
            let mut plane = maps_alone("forwards");
            let tables = plane.tables();
            let claimed = PortKey { port: 7_u16.to_be_bytes(), protocol: TCP, path: 1 };
            let owner = PortOwner { last_used: 1, inside: forward(9, 9).inside() };
            tables.ports().put(&claimed, &owner).expect("room");
            // One stays, one changes, one goes, one comes; the last is for one
            // port twice.
            for forwards in [
                vec![forward(1, 11), forward(2, 12), forward(3, 13)],
                vec![forward(1, 11), forward(2, 22), forward(4, 14)],
                vec![forward(1, 1), forward(1, 11)],
                vec![],
            ] {
                plane.set_forwards(&forwards).expect("a write");
                let mut found = tables.forwards().expect("a read");
                found.sort_by_key(|(key, _)| place(key));
                let wanted: BTreeMap<_, _> =
                    forwards.iter().map(|f| (place(&f.key()), (f.key(), f.inside()))).collect();
                assert_eq!(found, wanted.into_values().collect::<Vec<_>>());
                assert_eq!(tables.ports().get(&claimed).expect("a read"), Some(owner));
            }
        });
    }

    #[test]
    fn a_forward_takes_its_port_from_a_mapping() {
        in_network("a_forward_takes_its_port_from_a_mapping", || {
            let mut plane = maps_alone("forwards");
            let tables = plane.tables();
            let wanted = forward(443, 443);
            let owner = PortOwner { last_used: 1, inside: forward(9, 9).inside() };
            tables.ports().put(&wanted.key(), &owner).expect("room");
            plane.set_forwards(&[wanted]).expect("a write");
            let owner = PortOwner { last_used: FORWARD, inside: wanted.inside() };
            assert_eq!(tables.ports().get(&wanted.key()).expect("a read"), Some(owner));
        });
    }
}
