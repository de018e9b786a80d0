//! Recovers what was lost, of what arrived.

use std::collections::BTreeSet;

use super::aging::{ALLOCATION, Aging, in_tree};
use super::body::{self, Body, Header, Id, MOST_PACKET, Malformed, Member, SHARD_HEAD, WAIT_UNIT};
use super::recover::{Block, Outcome, Shards};

/// What a packet costs besides its shard, in bytes.
const PACKET: usize = Shards::ENTRY + ALLOCATION;
/// What a block costs besides [`Block::memory`].
const BLOCK: usize = Aging::<Id, Box<Block>>::ENTRY;
/// What a member costs that a block waits for.
const AWAITED: usize = in_tree(size_of::<(Member, u32)>());

/// What a decoder may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes for all that it keeps, with what that costs in trees and in the allocator.
    /// When they are used up, the oldest is forgotten. A packet of 1,400 bytes takes about
    /// 1.7 kB.
    pub memory: usize,
    /// How long data packets are kept after they came, blocks after their first parity,
    /// and the knowledge that a block has ended, in ns.
    pub keep: u64,
}

impl Default for Limits {
    /// 16 MB, 300 ms.
    fn default() -> Self {
        Self { memory: 16_000_000, keep: 300_000_000 }
    }
}

/// A data packet that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrived<'a> {
    /// The path it came by.
    pub path: u8,
    /// Its sequence on the path.
    pub sequence: u64,
    /// Hash of its flow.
    pub bucket: u16,
    /// Its flow sequence.
    pub number: u32,
    /// Flags of its header.
    pub flags: u8,
    /// 4 or 6.
    pub inner: u8,
    /// The inner packet, from its IP header on.
    pub bytes: &'a [u8],
}

/// A packet that was lost, and is there again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The path it was lost on.
    pub path: u8,
    /// Its sequence on the path.
    pub sequence: u64,
    /// Hash of its flow.
    pub bucket: u16,
    /// Its flow sequence.
    pub number: u32,
    /// Flags of its header, as the sender had them.
    pub flags: u8,
    /// 4 or 6, as the first bits of the packet say, too.
    pub inner: u8,
    /// The inner packet, from its IP header on.
    pub bytes: Vec<u8>,
}

/// What a decoder has seen and done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DecoderStatistics {
    /// Data packets that it was shown.
    pub packets: u64,
    /// Parity packets that it was shown: `malformed`, `useless`, `late`, and what was used
    /// or waits.
    pub parity: u64,
    /// Those that were no parity.
    pub malformed: u64,
    /// Those that were not needed: all data of their block came, or they came twice.
    pub useless: u64,
    /// Those that came after the block had been recovered or given up.
    pub late: u64,
    /// Those, and data packets, for which there was no memory.
    pub refused: u64,
    /// Blocks that parity came of.
    pub blocks: u64,
    /// Packets recovered.
    pub recovered: u64,
    /// Those of `recovered` that arrived after all, while it was remembered.
    pub early: u64,
    /// Packets computed that can be none: data or parity was not what the sender had. The
    /// other packets of such a block are not given either, and count here, too.
    pub wrong: u64,
    /// Blocks given up with packets missing: more were lost than parity came, another block
    /// with the same number came, or the memory was used up.
    pub unrecoverable: u64,
    /// Data packets forgotten before their time, because the memory was used up.
    pub evicted: u64,
    /// Bytes that are in use now.
    pub memory: usize,
}

/// Recovers packets of one session, of all its paths. A new session gets a new one.
#[derive(Clone, Debug)]
pub struct Decoder {
    limits: Limits,
    packets: Shards,
    blocks: Aging<Id, Box<Block>>,
    /// Members that did not come, with the number of the block: those that an open block
    /// needs, and those that were computed.
    awaited: BTreeSet<(Member, u32)>,
    /// Bytes of shards and blocks.
    heap: usize,
    statistics: DecoderStatistics,
}

impl Decoder {
    /// One that has seen nothing.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            packets: Aging::new(),
            blocks: Aging::new(),
            awaited: BTreeSet::new(),
            heap: 0,
            statistics: DecoderStatistics::default(),
        }
    }

    /// Changes [`Limits::memory`]. What does not fit any more is forgotten, the oldest first.
    pub fn set_memory(&mut self, bytes: usize) {
        self.limits.memory = bytes;
        self.make_room(0);
    }

    /// Takes a data packet that arrived at `now`, in ns. What its block recovers with it is
    /// added to `out`. One that was there already takes the place of the older.
    pub fn data(&mut self, packet: &Arrived<'_>, now: u64, out: &mut Vec<Recovered>) {
        self.expire(now);
        self.statistics.packets += 1;
        let Arrived { path, sequence, bucket, number, flags, inner, bytes } = *packet;
        let member = Member { path, sequence };
        let length = SHARD_HEAD + bytes.len();
        if bytes.len() <= MOST_PACKET && self.make_room(PACKET + length) {
            let mut shard = Vec::with_capacity(length);
            body::append_shard(&mut shard, Header { inner, flags, bucket, number }, bytes);
            let old = self.packets.insert(member, shard.into_boxed_slice(), now);
            self.heap += length;
            self.heap -= old.map_or(0, |old| old.len());
        } else {
            self.statistics.refused += 1;
        }
        let mut is_early = false;
        while let Some(id) = self.waits_for(member) {
            self.awaited.remove(&(member, id.number));
            let Some(block) = self.blocks.get_mut(&id) else { continue };
            block.came(member);
            if block.outcome().is_some() {
                is_early = true;
            } else {
                self.proceed(id, now, out);
            }
        }
        self.statistics.early += u64::from(is_early);
    }

    /// Takes a parity body that arrived at `now`, in ns, before or after any of its data.
    /// What its block recovers with it is added to `out`. Returns how long blocks of its
    /// sender wait for packets, in ns, or 0 if it does not say.
    ///
    /// # Errors
    /// If it is none. That is counted, and changes nothing else.
    pub fn parity(
        &mut self,
        body: &[u8],
        now: u64,
        out: &mut Vec<Recovered>,
    ) -> Result<u64, Malformed> {
        self.expire(now);
        self.statistics.parity += 1;
        let body = Body::parse(body).inspect_err(|_| self.statistics.malformed += 1)?;
        self.take(&body, now, out);
        Ok(u64::from(body.wait) * WAIT_UNIT)
    }

    /// Forgets what is older than [`Limits::keep`]. The other calls do that, too: this one
    /// is for when nothing comes. `now` is their clock.
    pub fn expire(&mut self, now: u64) {
        let keep = self.limits.keep;
        let is_old = |at: u64| at.saturating_add(keep) <= now;
        while let Some((member, _)) = self.packets.oldest().filter(|oldest| is_old(oldest.1)) {
            self.drop_packet(&member);
        }
        while let Some((id, _)) = self.blocks.oldest().filter(|oldest| is_old(oldest.1)) {
            if self.blocks.get(&id).is_some_and(|block| block.outcome().is_none()) {
                self.end(id, Outcome::GivenUp, now);
            } else {
                self.forget(id);
            }
        }
    }

    /// When to call [`expire`](Self::expire), if nothing comes; none while nothing is kept.
    /// An eighth of [`Limits::keep`] later than the oldest has to go, so that one call
    /// forgets many.
    #[must_use]
    pub fn next_due(&self) -> Option<u64> {
        let packet = self.packets.oldest().map(|(_, at)| at);
        let block = self.blocks.oldest().map(|(_, at)| at);
        let keep = self.limits.keep;
        let oldest = packet.into_iter().chain(block).min()?;
        Some(oldest.saturating_add(keep).saturating_add(keep / 8))
    }

    /// What it has seen and done.
    #[must_use]
    pub fn statistics(&self) -> DecoderStatistics {
        DecoderStatistics { memory: self.memory(), ..self.statistics }
    }

    /// Takes parity that is well-formed.
    fn take(&mut self, body: &Body<'_>, now: u64, out: &mut Vec<Recovered>) {
        match self.blocks.get(&body.block).map(|block| (block.has(body), block.outcome())) {
            Some((false, _)) => self.forget(body.block),
            Some((true, Some(Outcome::Complete))) => {
                self.statistics.useless += 1;
                return;
            }
            Some((true, Some(Outcome::Recovered | Outcome::GivenUp))) => {
                self.statistics.late += 1;
                return;
            }
            Some((true, None)) | None => {}
        }
        let waits = (body.gaps.len() + 1) * AWAITED;
        if !self.make_room(BLOCK + Block::cost(body) + waits) {
            self.statistics.refused += 1;
            return;
        }
        if !self.blocks.contains(&body.block) {
            self.begin(body, now);
        }
        let Some(block) = self.blocks.get_mut(&body.block) else { return };
        self.heap -= block.memory();
        let is_new = block.add(body);
        self.heap += block.memory();
        self.statistics.useless += u64::from(!is_new);
        self.proceed(body.block, now, out);
    }

    fn memory(&self) -> usize {
        self.packets.len() * PACKET
            + self.blocks.len() * BLOCK
            + self.awaited.len() * AWAITED
            + self.heap
    }

    /// Forgets the oldest until there are so many bytes. False if there never will be.
    fn make_room(&mut self, bytes: usize) -> bool {
        if bytes > self.limits.memory {
            return false;
        }
        while self.memory().saturating_add(bytes) > self.limits.memory {
            match (self.packets.oldest(), self.blocks.oldest()) {
                (Some((member, at)), block) if block.is_none_or(|block| at <= block.1) => {
                    self.statistics.evicted += 1;
                    self.drop_packet(&member);
                }
                (_, Some((id, _))) => self.forget(id),
                (_, None) => return false,
            }
        }
        true
    }

    fn drop_packet(&mut self, member: &Member) {
        self.heap -= self.packets.remove(member).map_or(0, |shard| shard.len());
    }

    fn waits_for(&self, member: Member) -> Option<Id> {
        let mut waiting = self.awaited.range((member, 0)..=(member, u32::MAX));
        waiting.next().map(|(_, number)| Id { path: member.path, number: *number })
    }

    fn begin(&mut self, body: &Body<'_>, now: u64) {
        self.statistics.blocks += 1;
        let mut block = Block::new(body);
        block.look(|member| self.packets.contains(member));
        self.awaited.extend(block.missing().map(|(_, member)| (member, body.block.number)));
        self.heap += block.memory();
        self.blocks.insert(body.block, Box::new(block), now);
    }

    /// Sees whether the block has all, or can have.
    fn proceed(&mut self, id: Id, now: u64, out: &mut Vec<Recovered>) {
        let Some(block) = self.blocks.get_mut(&id) else { return };
        if block.is_complete() {
            self.statistics.useless += self.end(id, Outcome::Complete, now) as u64;
            return;
        }
        if !block.can_recover() {
            return;
        }
        let lost: Vec<Member> = block.missing().map(|(_, member)| member).collect();
        self.heap -= block.memory();
        let shards = block.recover(&self.packets);
        self.heap += block.memory();
        let outcome = match shards {
            // Data that it had has been forgotten since.
            None => Outcome::GivenUp,
            Some(shards) => match lost.iter().zip(&shards).map(read).collect::<Option<Vec<_>>>() {
                None => {
                    self.statistics.wrong += lost.len() as u64;
                    Outcome::GivenUp
                }
                Some(packets) => {
                    self.statistics.recovered += packets.len() as u64;
                    out.extend(packets);
                    Outcome::Recovered
                }
            },
        };
        self.end(id, outcome, now);
    }

    /// Ends a block, and keeps in mind that it has ended, and what was computed. Returns how
    /// much parity was left.
    fn end(&mut self, id: Id, outcome: Outcome, now: u64) -> usize {
        let Some(mut block) = self.blocks.remove(&id) else { return 0 };
        if outcome != Outcome::Recovered {
            self.wait_no_more(&block, id);
        }
        self.statistics.unrecoverable += u64::from(outcome == Outcome::GivenUp);
        self.heap -= block.memory();
        let left = block.end(outcome);
        self.heap += block.memory();
        self.blocks.insert(id, block, now);
        left
    }

    /// Takes a block away, whether it has ended or not.
    fn forget(&mut self, id: Id) {
        let Some(block) = self.blocks.remove(&id) else { return };
        self.statistics.unrecoverable += u64::from(block.outcome().is_none());
        self.wait_no_more(&block, id);
        self.heap -= block.memory();
    }

    fn wait_no_more(&mut self, block: &Block, id: Id) {
        for (_, member) in block.missing() {
            self.awaited.remove(&(member, id.number));
        }
    }
}

/// What is in a recovered shard.
fn read((member, shard): (&Member, &Vec<u8>)) -> Option<Recovered> {
    let (Header { inner, flags, bucket, number }, packet) = body::inspect_shard(shard)?;
    let Member { path, sequence } = *member;
    Some(Recovered { path, sequence, bucket, number, flags, inner, bytes: packet.to_vec() })
}

#[cfg(test)]
#[path = "decoder_tests.rs"]
mod tests;
