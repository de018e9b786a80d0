//! Each rule by itself, all orders of a few packets, and random traffic against a model
//! that is simple and slow.

mod limits;
mod model;
mod orders;
mod rules;
mod traffic;
mod world;

use super::*;

const MS: u64 = 1_000_000;
const FLOW: Flow = Flow { slot: 7, bucket: 1 };
const ROOMY: Limits = Limits { per_session: 1 << 30, total: 1 << 30, reach: REACH };

/// An engine, what it has released and the time.
struct Bench {
    engine: Reorder,
    now: u64,
    out: Vec<Released>,
}

impl Bench {
    fn new(limits: Limits) -> Self {
        Self { engine: Reorder::new(limits), now: 1_000 * MS, out: Vec::new() }
    }

    fn take(&mut self, packet: Ahead) {
        self.engine.take(packet, self.now, 50 * MS, &mut self.out);
    }

    /// Packets that wait for their deadline.
    fn take_all(&mut self, next: u32, numbers: &[u32]) {
        for number in numbers {
            self.take(ahead(FLOW, *number, next));
        }
    }

    fn expire_at(&mut self, now: u64) {
        self.now = now;
        self.engine.expire(now, &mut self.out);
    }

    /// Number and reason of what was released since the last call.
    fn released(&mut self) -> Vec<(u32, Why)> {
        self.out.drain(..).map(|released| (released.number, released.why)).collect()
    }

    fn counts(&self, slot: u32) -> Statistics {
        let mut all = self.engine.statistics();
        all.find(|(other, _)| *other == slot).map(|(_, counts)| *counts).unwrap_or_default()
    }
}

/// A packet by path 1, of a flow that goes by paths 1 and 2: nothing is proven lost.
fn ahead(flow: Flow, number: u32, next: u32) -> Ahead {
    let bytes = number.to_be_bytes().to_vec();
    Ahead { flow, number, next, path: 1, paths: 0b110, repaired: false, bytes }
}

/// The same by another path and with other paths in use.
fn by(path: u8, paths: u16, number: u32, next: u32) -> Ahead {
    Ahead { path, paths, ..ahead(FLOW, number, next) }
}

fn all(why: Why, numbers: impl IntoIterator<Item = u32>) -> Vec<(u32, Why)> {
    numbers.into_iter().map(|number| (number, why)).collect()
}
