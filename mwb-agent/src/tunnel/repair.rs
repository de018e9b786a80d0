//! Packets that are sent again at work ([`crate::hitless::resend`]): the copies that the
//! kernel side hands over, the acknowledgements of the far end, and the paths as they are.

use std::collections::BTreeMap;

use mwb_common::maps::{BOND_PATHS, Handed, bond_path_flag};
use mwb_common::wire::flag;

use crate::dataplane::BondMaps;
use crate::hitless::resend::{Ack, Again, Resend, Settings, Statistics};

/// Between two looks at the paths while something is held, in ns.
const LOOK: u64 = 10_000_000;

/// Memory of all sessions together, in bytes.
const MEMORY: usize = 64 << 20;

/// Engines by slot of the session.
pub(super) struct Repair {
    settings: Settings,
    engines: BTreeMap<u32, Engine>,
    looked: u64,
}

struct Engine {
    session: u32,
    /// Paths that are down, by bit.
    down: u16,
    resend: Resend,
    /// To be sent again now.
    again: Vec<Again>,
}

impl Repair {
    /// For so many slots of sessions.
    pub(super) fn new(slots: u32) -> Self {
        let memory = (MEMORY / slots.max(1) as usize).min(Settings::default().memory);
        let settings = Settings { memory, ..Settings::default() };
        Self { settings, engines: BTreeMap::new(), looked: 0 }
    }

    /// A packet was sent that may be lost.
    pub(super) fn sent(&mut self, head: &Handed, text: &[u8], now: u64) {
        let settings = self.settings;
        let make = || Engine {
            session: head.session,
            down: 0,
            resend: Resend::new(settings),
            again: Vec::new(),
        };
        let engine = self.engines.entry(head.slot).or_insert_with(make);
        if engine.session != head.session {
            *engine = make();
        }
        let (bucket, number) = (head.bucket, head.number);
        engine.resend.sent(head.path, head.sequence, bucket, number, head.inner, text, now);
    }

    /// The far end of a session says what came.
    pub(super) fn acked(&mut self, slot: u32, session: u32, ack: &Ack, now: u64) {
        if let Some(engine) = self.engines.get_mut(&slot)
            && engine.session == session
        {
            engine.resend.acked(ack, now, &mut engine.again);
        }
    }

    /// Looks at the paths, and has `each` send what is due to be sent again.
    pub(super) fn turn(&mut self, maps: &BondMaps, now: u64, mut each: impl FnMut(&Handed, &[u8])) {
        let looks = now.saturating_sub(self.looked) >= LOOK;
        if looks {
            self.looked = now;
        }
        for (&slot, engine) in &mut self.engines {
            if looks && engine.resend.statistics().held > 0 {
                engine.look(maps, slot, now);
            }
            engine.resend.expire(now, &mut engine.again);
            for again in engine.again.drain(..) {
                each(&head(slot, engine.session, &again), &again.bytes);
            }
        }
    }

    /// When to look again, in ns.
    pub(super) fn next_due(&self) -> Option<u64> {
        let held = self.engines.values().any(|engine| engine.resend.statistics().held > 0);
        let dues = self.engines.values().filter_map(|engine| engine.resend.next_due());
        dues.chain(held.then_some(self.looked + LOOK)).min()
    }

    /// What was counted of a session, by slot and id.
    pub(super) fn statistics(&self) -> impl Iterator<Item = ((u32, u32), Statistics)> {
        let of =
            |(&slot, engine): (&u32, &Engine)| ((slot, engine.session), engine.resend.statistics());
        self.engines.iter().map(of)
    }
}

impl Engine {
    fn look(&mut self, maps: &BondMaps, slot: u32, now: u64) {
        for path in 1..BOND_PATHS as u8 {
            let known =
                maps.path(slot, path).and_then(|entry| Ok((entry, maps.path_state(slot, path)?)));
            // Where nothing can be read now, it can at the next look.
            let Ok((entry, state)) = known else { continue };
            if entry.flags & bond_path_flag::PRESENT == 0 {
                continue;
            }
            if state.rtt != 0 {
                self.resend.rtt(path, state.rtt, state.rtt_variation);
            }
            let (bit, was) = (1 << path, self.down >> path & 1 != 0);
            let is = entry.flags & bond_path_flag::DOWN != 0 || state.alive_until <= now;
            match (was, is) {
                (false, true) => {
                    self.down |= bit;
                    self.resend.path_down(path, now, &mut self.again);
                }
                (true, false) => {
                    self.down &= !bit;
                    self.resend.path_up(path);
                }
                _ => {}
            }
        }
    }
}

/// What a frame to the data plane says of it.
fn head(slot: u32, session: u32, again: &Again) -> Handed {
    Handed {
        slot,
        session,
        number: again.number,
        bucket: again.bucket,
        path: again.not_by,
        inner: again.inner,
        flags: flag::ORDERED | flag::ACKED,
        ..Handed::default()
    }
}
