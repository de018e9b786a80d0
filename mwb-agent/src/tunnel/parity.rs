//! Parity at work ([`crate::hitless::fec`]): blocks of the packets that the kernel side says
//! were sent, and what comes back from blocks of the far end.

use std::collections::BTreeMap;

use mwb_common::maps::{BOND_PATHS, Back, Handed, bond_path_flag};
use mwb_common::wire::flag;

use crate::dataplane::BondMaps;
use crate::hitless::fec::{
    Arrived, Decoder, DecoderStatistics, Encoder, EncoderStatistics, Limits, Packet, Recovered,
    Settings,
};

/// Between two looks at what the paths lose, in ns.
const LOOK: u64 = 100_000_000;

/// Memory of all sessions together, in bytes.
const MEMORY: usize = 64 << 20;

/// [`bond_path_flag`]s of a path that parity is not sent by.
const AWAY: u32 = bond_path_flag::DOWN | bond_path_flag::PARKED;

/// A loss of 1, as [`mwb_common::maps::BondPath::loss`] has it.
const ALL: f64 = 65_536.0;

/// What was counted of a session.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counted {
    /// Of what was sent.
    pub(super) made: EncoderStatistics,
    /// Of what came.
    pub(super) used: DecoderStatistics,
}

/// Blocks of all sessions.
pub(super) struct Blocks {
    settings: Settings,
    limits: Limits,
    /// By slot of the session.
    engines: BTreeMap<u32, Engine>,
    looked: u64,
}

struct Engine {
    session: u32,
    /// By path.
    encoders: BTreeMap<u8, Encoder>,
    decoder: Decoder,
    /// To be given to the kernel side now: parity by the path of its data.
    made: Vec<(u8, Vec<u8>)>,
    recovered: Vec<Recovered>,
}

impl Blocks {
    /// For so many slots of sessions.
    pub(super) fn new(settings: Settings, slots: u32) -> Self {
        let memory = (MEMORY / slots.max(1) as usize).min(Limits::default().memory);
        let limits = Limits { memory, ..Limits::default() };
        Self { settings, limits, engines: BTreeMap::new(), looked: 0 }
    }

    /// A packet was sent that is to be in a block.
    pub(super) fn sent(&mut self, maps: &BondMaps, head: &Handed, text: &[u8], now: u64) {
        let (settings, path) = (self.settings, head.path);
        let engine = self.engine(head);
        let encoder = engine.encoders.entry(path).or_insert_with(|| {
            let mut encoder = Encoder::new(path, settings);
            let (data, parity) = losses(maps, head.slot, path, now);
            encoder.set_loss(data, parity);
            encoder
        });
        let packet = Packet {
            sequence: head.sequence,
            bucket: head.bucket,
            number: head.number,
            flags: head.flags,
            inner: head.inner,
            bytes: text,
        };
        let mut made = Vec::new();
        encoder.push(&packet, now, &mut made);
        engine.made.extend(made.into_iter().map(|parity| (path, parity)));
    }

    /// One of a block came.
    pub(super) fn came(&mut self, head: &Handed, text: &[u8], now: u64) {
        let engine = self.engine(head);
        let arrived = Arrived {
            path: head.path,
            sequence: head.sequence,
            bucket: head.bucket,
            number: head.number,
            flags: head.flags,
            inner: head.inner,
            bytes: text,
        };
        engine.decoder.data(&arrived, now, &mut engine.recovered);
    }

    /// Parity came. What is none is counted.
    pub(super) fn parity(&mut self, head: &Handed, text: &[u8], now: u64) {
        let engine = self.engine(head);
        let _ = engine.decoder.parity(text, now, &mut engine.recovered);
    }

    /// Has `each` send parity that is due, and give on what was recovered.
    pub(super) fn turn(&mut self, maps: &BondMaps, now: u64, mut each: impl FnMut(&Back, &[u8])) {
        let looks = now.saturating_sub(self.looked) >= LOOK;
        if looks {
            self.looked = now;
        }
        for (&slot, engine) in &mut self.engines {
            for (&path, encoder) in &mut engine.encoders {
                if looks {
                    let (data, parity) = losses(maps, slot, path, now);
                    encoder.set_loss(data, parity);
                }
                let mut made = Vec::new();
                encoder.expire(now, &mut made);
                engine.made.extend(made.into_iter().map(|parity| (path, parity)));
            }
            engine.decoder.expire(now);
            for packet in engine.recovered.drain(..) {
                each(&Back::recovered(&head(slot, &packet)), &packet.bytes);
            }
            for (path, parity) in engine.made.drain(..) {
                each(&Back::parity(slot, path, 1 << (path & 15)), &parity);
            }
        }
    }

    /// When to look again, in ns.
    pub(super) fn next_due(&self) -> Option<u64> {
        let of = |engine: &Engine| {
            let encoders = engine.encoders.values().filter_map(Encoder::next_due);
            encoders.chain(engine.decoder.next_due()).min()
        };
        self.engines.values().filter_map(of).min()
    }

    /// What was counted of a session, by slot.
    pub(super) fn counted(&self) -> impl Iterator<Item = (u32, Counted)> {
        self.engines.iter().map(|(&slot, engine)| {
            let mut made = EncoderStatistics::default();
            for encoder in engine.encoders.values() {
                made += encoder.statistics();
            }
            (slot, Counted { made, used: engine.decoder.statistics() })
        })
    }

    fn engine(&mut self, head: &Handed) -> &mut Engine {
        let limits = self.limits;
        let make = || Engine {
            session: head.session,
            encoders: BTreeMap::new(),
            decoder: Decoder::new(limits),
            made: Vec::new(),
            recovered: Vec::new(),
        };
        let engine = self.engines.entry(head.slot).or_insert_with(make);
        if engine.session != head.session {
            *engine = make();
        }
        engine
    }
}

/// The part of its packets that a path loses, and of those that others lose that may carry
/// its parity. Where there is no other, it carries its parity itself.
fn losses(maps: &BondMaps, slot: u32, path: u8, now: u64) -> (f64, f64) {
    let lost = |path| maps.path(slot, path).map_or(0.0, |entry| f64::from(entry.loss) / ALL);
    let own = lost(path);
    let carries = |other: &u8| {
        let known = maps.path(slot, *other).and_then(|entry| {
            let state = maps.path_state(slot, *other)?;
            Ok((entry.flags, state.alive_until))
        });
        let is_there = |(flags, until): (u32, u64)| {
            flags & (AWAY | bond_path_flag::PRESENT) == bond_path_flag::PRESENT && until > now
        };
        *other != path && known.is_ok_and(is_there)
    };
    let others = (1..BOND_PATHS as u8).filter(carries).map(lost);
    (own, others.reduce(f64::max).unwrap_or(own))
}

/// What a frame to the data plane says of a packet that was recovered.
fn head(slot: u32, packet: &Recovered) -> Handed {
    Handed {
        slot,
        path: packet.path,
        number: packet.number,
        bucket: packet.bucket,
        inner: packet.inner,
        flags: packet.flags & flag::ORDERED,
        ..Handed::default()
    }
}
