//! The engine on a bench: what a test does not say is the same for all.

mod ack;
mod away;
mod budget;
mod chaos;
mod down;
mod gap;
mod memory;
mod model;
mod simulation;
mod time;
mod world;

use super::*;

/// A millisecond.
const MS: u64 = 1_000_000;

/// Nothing but the rule under test stops anything.
const GENEROUS: Settings = Settings {
    memory: 1 << 30,
    deadline: 200 * MS,
    tries: 3,
    disorder: 3,
    ack_interval: 10 * MS,
    silence: 500 * MS,
    budget_percent: 25,
    budget_burst: 1 << 30,
};

struct Bench {
    engine: Resend,
    out: Vec<Again>,
}

impl Bench {
    /// The far end has acknowledged something by path 15, at 0. Paths have a round trip of
    /// 20 ms: with the interval and the margin a wait of 40 ms.
    fn new(settings: Settings) -> Self {
        let mut bench = Self { engine: Resend::new(settings), out: Vec::new() };
        for path in 1..=LAST_PATH {
            bench.engine.rtt(path, 20 * MS, 0);
        }
        bench.acked(&all(15, 1), 0);
        bench
    }

    /// Sends packet `number` of bucket 7, of 100 bytes that tell of it.
    fn sent(&mut self, path: u8, sequence: u64, number: u32, now: u64) {
        self.engine.sent(path, sequence, 7, number, 4, &text(number), now);
    }

    /// The numbers of what goes again after this.
    fn acked(&mut self, ack: &Ack, now: u64) -> Vec<u32> {
        self.engine.acked(ack, now, &mut self.out);
        self.numbers()
    }

    fn expire(&mut self, now: u64) -> Vec<u32> {
        self.engine.expire(now, &mut self.out);
        self.numbers()
    }

    fn path_down(&mut self, path: u8, now: u64) -> Vec<u32> {
        self.engine.path_down(path, now, &mut self.out);
        self.numbers()
    }

    fn numbers(&mut self) -> Vec<u32> {
        self.out.drain(..).map(|again| again.number).collect()
    }

    fn statistics(&self) -> Statistics {
        self.engine.statistics()
    }
}

/// The bytes of a packet.
fn text(number: u32) -> [u8; 100] {
    let mut bytes = [number as u8; 100];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    bytes
}

/// All up to the highest were taken.
fn all(path: u8, highest: u64) -> Ack {
    of(path, highest, |_| true)
}

/// All up to the highest were taken, but for these.
fn but(path: u8, highest: u64, missing: &[u64]) -> Ack {
    of(path, highest, |sequence| !missing.contains(&sequence))
}

fn of(path: u8, highest: u64, is_taken: impl Fn(u64) -> bool) -> Ack {
    let mut bits = [0; 16];
    for bit in 0..REACH {
        if bit + 1 < highest && is_taken(highest - 1 - bit) {
            bits[bit as usize / 64] |= 1 << (bit % 64);
        }
    }
    Ack { path, highest, bits }
}
