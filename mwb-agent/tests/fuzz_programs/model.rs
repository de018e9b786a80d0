//! What the gateway must remember, kept beside it: which outside endpoint is
//! whose, and who has spoken to whom. From what leaves it learns, by it what
//! comes in is judged.

use std::collections::{HashMap, HashSet, VecDeque};

use mwb_common::maps::filtering;

use crate::engine::{From, Setting};
use crate::view::{Address, Part, View};

/// Packets that are kept to build others on.
const KEPT: usize = 48;

/// An endpoint of a path: path, protocol, address, port.
type Outside = (u8, u8, Address, u16);
pub(crate) type Endpoint = (Address, u16);

#[derive(Default)]
pub(crate) struct Model {
    owners: HashMap<Outside, Endpoint>,
    contacts: HashSet<(Outside, Endpoint)>,
    addresses: HashSet<(Outside, Address)>,
    /// Who has tried to speak to whom with a packet that was too big to leave:
    /// by which endpoint shows when something comes to it.
    tried: HashMap<(u8, Endpoint), HashSet<Endpoint>>,
    /// What has left, and by which path.
    pub(crate) sent: VecDeque<(u8, Vec<u8>)>,
    /// What was delivered, and from which path.
    pub(crate) delivered: VecDeque<(u8, Vec<u8>)>,
}

/// Whether the protocol has ports that NAT can change.
pub(crate) fn has_nat_ports(view: &View) -> bool {
    matches!((view.v6, view.protocol), (_, 6 | 17) | (false, 1) | (true, 58))
}

impl Model {
    /// Outside ports that are in use.
    pub(crate) fn ports(&self) -> Vec<u16> {
        self.owners.keys().map(|outside| outside.3).take(64).collect()
    }

    /// A path has got another address: nothing of before counts.
    pub(crate) fn redial(&mut self, path: u8) {
        self.owners.retain(|outside, _| outside.0 != path);
        self.contacts.retain(|(outside, _)| outside.0 != path);
        self.addresses.retain(|(outside, _)| outside.0 != path);
        self.sent.retain(|(by, _)| *by != path);
    }

    /// A packet has left by `path`.
    pub(crate) fn leaves(&mut self, path: u8, before: &[u8], after: &[u8]) -> Result<(), String> {
        let (Some(view), Some(out)) = (View::of(before), View::of(after)) else {
            return Err("no packet left".to_owned());
        };
        keep(&mut self.sent, path, after);
        let answers = view.is_nameless_query(before) && view.is_query_answer(before);
        if out.part == Part::Later || view.is_icmp_error(before) || answers {
            return Ok(());
        }
        let [own, to] = out.ports(after);
        let outside = (path, out.protocol, out.source(after), own);
        let inside = (view.source(before), view.ports(before)[0]);
        let remote = (out.destination(after), to);
        self.contacts.insert((outside, remote));
        self.addresses.insert((outside, remote.0));
        if !has_nat_ports(&out) && !out.v6 {
            // One inside host for each remote end, checked when it comes in.
            return Ok(());
        }
        match self.owners.insert(outside, inside) {
            Some(other) if other != inside => {
                Err(format!("{outside:?} was {other:?}'s and is now {inside:?}'s"))
            }
            _ => Ok(()),
        }
    }

    /// A packet from the LAN has not left, but may have opened a flow.
    pub(crate) fn tries(&mut self, packet: &[u8]) {
        if let Some(view) = View::of(packet).filter(|view| view.part != Part::Later) {
            let [own, to] = view.ports(packet);
            let inside = (view.protocol, (view.source(packet), own));
            self.tried.entry(inside).or_default().insert((view.destination(packet), to));
        }
    }

    /// Whether the inside endpoint has opened a flow with a packet that did not
    /// leave.
    pub(crate) fn has_tried(&self, protocol: u8, inside: Endpoint) -> bool {
        self.tried.contains_key(&(protocol, inside))
    }

    /// Whose endpoint it is.
    pub(crate) fn owner(
        &self,
        path: u8,
        protocol: u8,
        address: Address,
        port: u16,
    ) -> Option<Endpoint> {
        self.owners.get(&(path, protocol, address, port)).copied()
    }

    /// A packet was delivered that came from a WAN: may it be?
    pub(crate) fn arrives(
        &mut self,
        setting: &Setting,
        from: From,
        before: &[u8],
        after: &[u8],
    ) -> Result<(), String> {
        let (From::Wan(path) | From::Turned(path)) = from else {
            return Err("it did not come from a WAN".to_owned());
        };
        let (Some(view), Some(out)) = (View::of(before), View::of(after)) else {
            return Err("no packet was delivered".to_owned());
        };
        keep(&mut self.delivered, path, after);
        if view.part == Part::Later {
            // Whose it is the first one told.
            let host = out.destination(after);
            let known =
                |(outside, inside): (&Outside, &Endpoint)| outside.0 == path && inside.0 == host;
            let known = self.owners.iter().any(known) || !has_nat_ports(&view);
            return if known { Ok(()) } else { Err("a fragment to nobody".to_owned()) };
        }
        let [remote_port, own] = view.ports(before);
        let outside = (path, view.protocol, view.destination(before), own);
        let remote = (view.source(before), remote_port);
        let came = (out.destination(after), out.ports(after)[1]);
        if view.is_nameless_query(before) {
            return Ok(());
        }
        if let Some(remotes) = self.tried.get(&(view.protocol, came)) {
            self.owners.entry(outside).or_insert(came);
            for remote in remotes {
                self.contacts.insert((outside, *remote));
                self.addresses.insert((outside, remote.0));
            }
        }
        if has_nat_ports(&view) || view.v6 {
            let Some(inside) = self.owners.get(&outside) else {
                return Err(format!("delivered to nobody's endpoint {outside:?}"));
            };
            if *inside != came {
                return Err(format!("{outside:?} is {inside:?}'s, delivered to {came:?}"));
            }
        }
        let met = self.contacts.contains(&(outside, remote));
        let admitted = match setting.filtering {
            filtering::ENDPOINT_INDEPENDENT if has_nat_ports(&view) && !view.v6 => true,
            filtering::ADDRESS if !view.v6 => self.addresses.contains(&(outside, remote.0)),
            _ => false,
        };
        if met || admitted {
            // The flow that an admitted packet makes works in both directions.
            self.contacts.insert((outside, remote));
            Ok(())
        } else {
            Err(format!("{remote:?} reached {outside:?}, which never spoke to it"))
        }
    }
}

fn keep(kept: &mut VecDeque<(u8, Vec<u8>)>, path: u8, frame: &[u8]) {
    if kept.len() == KEPT {
        kept.pop_front();
    }
    kept.push_back((path, frame.to_vec()));
}
