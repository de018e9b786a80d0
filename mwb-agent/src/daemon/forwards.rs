//! Port forwards: which are in force, and which wait because an inside host
//! has the port at the moment.

use std::collections::BTreeSet;

use mwb_common::maps::{FORWARD, Mapping, MappingKey, PortKey, PortOwner};

use super::beat::Plane;
use crate::config;
use crate::dataplane::{self, Error, Forward, Tables};
use crate::events::{Bus, EventKind};

/// A port that was claimed so lately, in nanoseconds, may be about to get its
/// mapping.
const YOUNG: u64 = 1_000_000_000;

/// The forwards of the configuration and how far they are in force.
#[derive(Debug, Default)]
pub(super) struct Forwards {
    /// What was asked for last; `None`: nothing yet.
    wanted: Option<BTreeSet<Forward>>,
    /// Those that wait for their port.
    waiting: BTreeSet<Forward>,
}

impl Forwards {
    /// Puts forwards into force as far as their ports are free, and takes away
    /// those that are not wanted any more.
    ///
    /// # Errors
    /// When the kernel refuses. All of it is tried again with the next call.
    pub(super) fn follow(
        &mut self,
        plane: &Plane,
        bus: &Bus,
        wans: &[(u8, &config::Wan)],
    ) -> Result<(), Error> {
        let wanted = wanted(wans);
        if self.wanted.as_ref() == Some(&wanted) && self.waiting.is_empty() {
            return Ok(());
        }
        let tables = plane.with(|plane| plane.tables());
        let now = dataplane::monotonic();
        let (mut granted, mut waiting) = (Vec::new(), BTreeSet::new());
        for forward in &wanted {
            match other_user(&tables, forward, now)? {
                None => granted.push(*forward),
                Some(user) => {
                    if !self.waiting.contains(forward) {
                        tell(bus, wans, forward, Some(&user));
                    }
                    waiting.insert(*forward);
                }
            }
        }
        if self.wanted.as_ref() != Some(&wanted) || waiting != self.waiting {
            plane.with(|plane| plane.set_forwards(&granted))?;
        }
        for forward in self.waiting.intersection(&wanted).filter(|f| !waiting.contains(f)) {
            tell(bus, wans, forward, None);
        }
        (self.wanted, self.waiting) = (Some(wanted), waiting);
        Ok(())
    }
}

/// One for each port.
fn wanted(wans: &[(u8, &config::Wan)]) -> BTreeSet<Forward> {
    let mut forwards = BTreeSet::new();
    for (path, wan) in wans {
        for forward in &wan.forwards {
            let (protocol, to) = (forward.protocol.number(), forward.to);
            forwards.extend(forward.ports().map(|(port, to_port)| Forward {
                path: *path,
                protocol,
                port,
                to,
                to_port,
            }));
        }
    }
    forwards
}

/// The inside endpoint that uses the forward's port, if it is another one than
/// the forward's own.
fn other_user(tables: &Tables, forward: &Forward, now: u64) -> Result<Option<MappingKey>, Error> {
    let key = PortKey {
        port: forward.port.to_be_bytes(),
        protocol: forward.protocol,
        path: forward.path,
    };
    let Some(owner) = tables.ports().get(&key)? else { return Ok(None) };
    let mapping = tables.mappings().get(&owner.inside)?;
    Ok(is_used(forward, &key, &owner, mapping.as_ref(), now).then_some(owner.inside))
}

fn is_used(
    forward: &Forward,
    key: &PortKey,
    owner: &PortOwner,
    mapping: Option<&Mapping>,
    now: u64,
) -> bool {
    let inside = &owner.inside;
    let own = inside.address == forward.to.octets()
        && inside.port == forward.to_port.to_be_bytes()
        && inside.protocol == forward.protocol;
    if owner.last_used == FORWARD || own {
        return false;
    }
    // What has no mapping any more is only waiting for the sweeper.
    mapping.is_some_and(|mapping| (mapping.path, mapping.port) == (key.path, key.port))
        || now.saturating_sub(owner.last_used) < YOUNG
}

/// Says that a forward has to wait for whoever has its port, or no longer.
fn tell(bus: &Bus, wans: &[(u8, &config::Wan)], forward: &Forward, user: Option<&MappingKey>) {
    let wan = wans.iter().find(|(path, _)| *path == forward.path);
    let name = wan.map(|(_, wan)| wan.name.as_str());
    let protocol = if forward.protocol == config::ForwardProtocol::Tcp.number() {
        config::ForwardProtocol::Tcp.name()
    } else {
        config::ForwardProtocol::Udp.name()
    };
    let what = format!(
        "forward of {protocol} port {} to {}:{}",
        forward.port, forward.to, forward.to_port
    );
    match user {
        Some(user) => {
            let address = std::net::Ipv4Addr::from(user.address);
            let reason = format!(
                "{address}:{} sends from that port; it is tried again until it is free",
                u16::from_be_bytes(user.port)
            );
            bus.publish(EventKind::Forward, name, format!("{what} has to wait"), reason);
        }
        None => {
            bus.publish(
                EventKind::Forward,
                name,
                format!("{what} is in force"),
                "the port is free",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORWARDED: Forward = Forward {
        path: 2,
        protocol: 6,
        port: 443,
        to: std::net::Ipv4Addr::new(192, 0, 2, 10),
        to_port: 8_443,
    };

    fn key() -> PortKey {
        PortKey { port: 443_u16.to_be_bytes(), protocol: 6, path: 2 }
    }

    fn owner(last: u8, port: u16, last_used: u64) -> PortOwner {
        let port = port.to_be_bytes();
        let inside = MappingKey { address: [192, 0, 2, last], port, protocol: 6, via: 0 };
        PortOwner { last_used, inside }
    }

    #[test]
    fn a_port_is_in_use_while_another_endpoint_has_its_mapping_there() {
        let here = Mapping { path: 2, port: 443_u16.to_be_bytes(), ..Mapping::default() };
        let elsewhere = Mapping { path: 1, ..here };
        let now = 100 * YOUNG;
        let used = |owner: PortOwner, mapping| is_used(&FORWARDED, &key(), &owner, mapping, now);
        assert!(used(owner(11, 8_443, 1), Some(&here)));
        assert!(used(owner(10, 443, 1), Some(&here)));
        assert!(used(owner(11, 8_443, now - 1), None), "its mapping may be on the way");
        assert!(!used(owner(11, 8_443, 1), Some(&elsewhere)));
        assert!(!used(owner(11, 8_443, 1), None));
        assert!(!used(owner(10, 8_443, now), Some(&here)), "the forward's own endpoint");
        assert!(!used(owner(11, 8_443, FORWARD), Some(&here)), "a forward of before");
    }

    #[test]
    fn a_range_is_one_forward_for_each_port() {
        let text = "
version: 1
mode: steer
lan: [lan0]
wans:
  - name: fiber
    device: wan0
    forwards:
      - {protocol: udp, port: 5000-5002, to: \"192.0.2.10:6000\"}
      - {protocol: tcp, port: 443, to: 192.0.2.11}
";
        let config = config::parse(text, "f").expect("a configuration");
        let wans: Vec<(u8, &config::Wan)> = config.wans.iter().map(|wan| (7, wan)).collect();
        let ports: Vec<_> = wanted(&wans)
            .into_iter()
            .map(|f| (f.path, f.protocol, f.port, f.to.octets()[3], f.to_port))
            .collect();
        let expected = [
            (7, 6, 443, 11, 443),
            (7, 17, 5_000, 10, 6_000),
            (7, 17, 5_001, 10, 6_001),
            (7, 17, 5_002, 10, 6_002),
        ];
        assert_eq!(ports, expected);
    }
}
