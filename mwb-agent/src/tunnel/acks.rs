//! What came, for the far end that asks: acknowledgements, packets of type 5.

use std::collections::BTreeMap;

use mwb_common::maps::Handed;
use tokio::sync::mpsc::UnboundedSender;

use crate::dataplane::BondMaps;
use crate::hitless::resend::Ack;

/// Between two acknowledgements of a path, in ns: what the far end reckons with.
const INTERVAL: u64 = 10_000_000;

/// How long it goes on after the far end last asked, in ns.
const LASTS: u64 = 100_000_000;

/// To be sent to the far end of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Told {
    /// The session, and its id in packets to us.
    pub(super) slot: u32,
    pub(super) session: u32,
    /// What came.
    pub(super) ack: Ack,
}

/// Paths of which the far ends want to know.
pub(super) struct Acks {
    asked: BTreeMap<(u32, u8), Asked>,
    tell: UnboundedSender<Told>,
}

#[derive(Default)]
struct Asked {
    session: u32,
    /// What was told.
    told: Option<Ack>,
    /// When the far end last asked, and when it is told next; 0: not before it asks.
    at: u64,
    due: u64,
}

impl Acks {
    /// None asks yet; what is to be sent goes to `tell`.
    pub(super) const fn new(tell: UnboundedSender<Told>) -> Self {
        Self { asked: BTreeMap::new(), tell }
    }

    /// The far end wants to know what came by a path.
    pub(super) fn ask(&mut self, head: &Handed, now: u64) {
        let asked = self.asked.entry((head.slot, head.path)).or_default();
        if asked.session != head.session {
            *asked = Asked { session: head.session, ..Asked::default() };
        }
        asked.at = now;
        if asked.due == 0 {
            asked.due = now;
        }
    }

    /// Tells what came by the paths whose time it is. A path of which there is no news is told
    /// of when the far end asks again.
    pub(super) fn turn(&mut self, maps: &BondMaps, now: u64) {
        for (&(slot, path), asked) in &mut self.asked {
            if asked.due == 0 || asked.due > now {
                continue;
            }
            // Where it cannot be read now, it can when the far end asks again.
            let window = maps.path_window(slot, path).ok().filter(|window| window.newest() != 0);
            let ack =
                window.map(|window| Ack { path, highest: window.newest(), bits: window.below() });
            let Some(ack) = ack.filter(|ack| asked.told != Some(*ack)) else {
                asked.due = 0;
                continue;
            };
            let goes_on = now.saturating_sub(asked.at) < LASTS;
            (asked.told, asked.due) = (Some(ack), if goes_on { now + INTERVAL } else { 0 });
            // Nobody to tell: the bond ends.
            let _ = self.tell.send(Told { slot, session: asked.session, ack });
        }
    }

    /// When to look again, in ns.
    pub(super) fn next_due(&self) -> Option<u64> {
        self.asked.values().map(|asked| asked.due).filter(|due| *due != 0).min()
    }
}
