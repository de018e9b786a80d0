//! Parity at work ([`crate::hitless::fec`]): blocks of the packets that the kernel side says
//! were sent, and what comes back from blocks of the far end.

use std::collections::BTreeMap;

use mwb_common::integrity::Suite;
use mwb_common::maps::{BOND_PATHS, Back, Handed, bond_path_flag};
use mwb_common::wire::flag;

use super::mtu;
use crate::dataplane::BondMaps;
use crate::hitless::fec::{
    Arrived, Decoder, DecoderStatistics, Encoder, EncoderStatistics, Limits, Packet, Recovered,
    Settings,
};

/// Between two looks at the paths, in ns.
const LOOK: u64 = 100_000_000;
/// An encoder that has had no packets for so long, in ns, goes.
const IDLE: u64 = 2_000_000_000;
/// Memory of what has come of all sessions together, in bytes; it may be more until the next
/// look.
const MEMORY: usize = 64 << 20;
/// No frame from us is longer, in bytes from the inner IP header on.
const LONGEST: usize = 1_900;

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
    /// Packets that were recovered, by the path that they were lost on.
    pub(super) recovered: [u64; BOND_PATHS],
}

/// Blocks of all sessions.
pub(super) struct Blocks {
    settings: Settings,
    /// By slot of the session.
    engines: BTreeMap<u32, Engine>,
    looked: u64,
}

struct Engine {
    session: u32,
    ways: Ways,
    /// By path, and when it last had a packet.
    encoders: BTreeMap<u8, (Encoder, u64)>,
    /// What those have counted that are gone.
    gone: EncoderStatistics,
    decoder: Decoder,
    /// To be given to the kernel side now: parity by the path of its data.
    made: Vec<(u8, Vec<u8>)>,
    recovered: Vec<Recovered>,
    /// By the path that they were lost on.
    lost_on: [u64; BOND_PATHS],
}

/// What is known of the paths of a session.
#[derive(Default)]
struct Ways {
    /// By path: the part that it loses, and whether it may carry parity of others.
    paths: Vec<(u8, f64, bool)>,
    /// Bytes of the longest parity that all those take.
    room: usize,
}

impl Blocks {
    /// None of any session yet.
    pub(super) const fn new(settings: Settings) -> Self {
        Self { settings, engines: BTreeMap::new(), looked: 0 }
    }

    /// A packet was sent that is to be in a block.
    pub(super) fn sent(&mut self, maps: &BondMaps, head: &Handed, text: &[u8], now: u64) {
        let (settings, path) = (self.settings, head.path);
        let Engine { ways, encoders, made, .. } = self.engine(head);
        let (encoder, used) = encoders.entry(path).or_insert_with(|| {
            if ways.paths.is_empty() {
                *ways = Ways::of(maps, head.slot, now);
            }
            let mut encoder = Encoder::new(path, settings);
            ways.tell(path, &mut encoder);
            (encoder, now)
        });
        *used = now;
        let packet = Packet {
            sequence: head.sequence,
            bucket: head.bucket,
            number: head.number,
            flags: head.flags,
            inner: head.inner,
            bytes: text,
        };
        let mut out = Vec::new();
        encoder.push(&packet, now, &mut out);
        made.extend(out.into_iter().map(|parity| (path, parity)));
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

    /// Parity came. Says how long blocks of the far end wait for packets, in ns. What is none
    /// is counted.
    pub(super) fn parity(&mut self, head: &Handed, text: &[u8], now: u64) -> Option<u64> {
        let engine = self.engine(head);
        engine.decoder.parity(text, now, &mut engine.recovered).ok()
    }

    /// Has `each` send parity that is due, and give on what was recovered.
    pub(super) fn turn(&mut self, maps: &BondMaps, now: u64, mut each: impl FnMut(&Back, &[u8])) {
        if now.saturating_sub(self.looked) >= LOOK && !self.engines.is_empty() {
            self.looked = now;
            self.look(maps, now);
        }
        for (&slot, engine) in &mut self.engines {
            for (&path, (encoder, _)) in &mut engine.encoders {
                let mut out = Vec::new();
                encoder.expire(now, &mut out);
                engine.made.extend(out.into_iter().map(|parity| (path, parity)));
            }
            engine.decoder.expire(now);
            let session = engine.session;
            for packet in engine.recovered.drain(..) {
                if let Some(count) = engine.lost_on.get_mut(usize::from(packet.path)) {
                    *count += 1;
                }
                each(&Back::recovered(&head(slot, session, &packet)), &packet.bytes);
            }
            for (path, parity) in engine.made.drain(..) {
                let data = Handed { slot, session, path, ..Handed::default() };
                each(&Back::parity(&data), &parity);
            }
        }
    }

    /// When to look again, in ns.
    pub(super) fn next_due(&self) -> Option<u64> {
        let of = |engine: &Engine| {
            let encoders = engine.encoders.values().filter_map(|(encoder, _)| encoder.next_due());
            encoders.chain(engine.decoder.next_due()).min()
        };
        let due = self.engines.values().filter_map(of).min();
        let open = self.engines.values().any(|engine| !engine.encoders.is_empty());
        due.into_iter().chain(open.then_some(self.looked + LOOK)).min()
    }

    /// What was counted of a session, by slot and id.
    pub(super) fn counted(&self) -> impl Iterator<Item = ((u32, u32), Counted)> {
        self.engines.iter().map(|(&slot, engine)| {
            let mut made = engine.gone;
            for (encoder, _) in engine.encoders.values() {
                made += encoder.statistics();
            }
            let (used, recovered) = (engine.decoder.statistics(), engine.lost_on);
            ((slot, engine.session), Counted { made, used, recovered })
        })
    }

    fn look(&mut self, maps: &BondMaps, now: u64) {
        // Where nothing can be read now, it can at the next look.
        let ended = |slot, session| maps.session(slot).is_ok_and(|entry| entry.ours != session);
        self.engines.retain(|&slot, engine| !ended(slot, engine.session));
        for (&slot, engine) in &mut self.engines {
            let Engine { ways, encoders, gone, .. } = engine;
            encoders.retain(|_, (encoder, used)| {
                let stays = encoder.next_due().is_some() || now.saturating_sub(*used) < IDLE;
                if !stays {
                    *gone += EncoderStatistics { memory: 0, ..encoder.statistics() };
                }
                stays
            });
            if !encoders.is_empty() {
                *ways = Ways::of(maps, slot, now);
            }
            for (path, (encoder, _)) in encoders {
                ways.tell(*path, encoder);
            }
        }
        let keeps = |engine: &&mut Engine| engine.decoder.statistics().memory > 0;
        let share = MEMORY / self.engines.values_mut().filter(keeps).count().max(1);
        for engine in self.engines.values_mut() {
            engine.decoder.set_memory(share.min(Limits::default().memory));
        }
    }

    fn engine(&mut self, head: &Handed) -> &mut Engine {
        let make = || Engine {
            session: head.session,
            ways: Ways::default(),
            encoders: BTreeMap::new(),
            gone: EncoderStatistics::default(),
            decoder: Decoder::new(Limits::default()),
            made: Vec::new(),
            recovered: Vec::new(),
            lost_on: [0; BOND_PATHS],
        };
        let engine = self.engines.entry(head.slot).or_insert_with(make);
        if engine.session != head.session {
            *engine = make();
        }
        engine
    }
}

impl Ways {
    fn of(maps: &BondMaps, slot: u32, now: u64) -> Self {
        let suite = maps.session(slot).ok().and_then(|entry| Suite::from_number(entry.suite));
        let (mut paths, mut room) = (Vec::new(), LONGEST);
        for path in 1..BOND_PATHS as u8 {
            let known =
                maps.path(slot, path).and_then(|entry| Ok((entry, maps.path_state(slot, path)?)));
            let Ok((entry, state)) = known else { continue };
            if entry.flags & bond_path_flag::PRESENT == 0 {
                continue;
            }
            let carries = entry.flags & AWAY == 0 && state.alive_until > now;
            paths.push((path, f64::from(entry.loss) / ALL, carries));
            if let Some(suite) = suite.filter(|_| carries) {
                let takes = mtu::inner_of(suite, entry.mtu, entry.is_v6 != 0);
                room = room.min(takes as usize);
            }
        }
        Self { paths, room }
    }

    /// Tells the encoder of a path what that loses, and those on average that may carry its
    /// parity. Where there is no other, it carries its parity itself.
    fn tell(&self, path: u8, encoder: &mut Encoder) {
        let own = self.paths.iter().find(|known| known.0 == path).map_or(0.0, |known| known.1);
        let others = || self.paths.iter().filter(|known| known.0 != path && known.2);
        let count = others().count();
        let mean = others().map(|known| known.1).sum::<f64>() / count.max(1) as f64;
        encoder.set_loss(own, if count == 0 { own } else { mean });
        encoder.set_room(self.room);
    }
}

/// What a frame to the data plane says of a packet that was recovered.
fn head(slot: u32, session: u32, packet: &Recovered) -> Handed {
    Handed {
        slot,
        session,
        path: packet.path,
        number: packet.number,
        bucket: packet.bucket,
        inner: packet.inner,
        // Not as one of a block: it has not come by its path.
        flags: packet.flags & (flag::ORDERED | flag::ACKED),
        ..Handed::default()
    }
}
