//! Makes the parity of what is sent.

use std::ops::{AddAssign, Range};

use super::amount::Amounts;
use super::body::{self, Header, Id, MOST_PACKET, WAIT_UNIT, overhead};
use super::code::{self, MOST_DATA, MOST_PARITY};

/// Open blocks, at most.
const MOST_OPEN: u8 = 8;
/// How far apart sequences of a block are, at most: then so is each from the next, and
/// bodies have a byte for that.
const MOST_SPAN: u64 = u8::MAX as u64;

/// How many parity packets a block gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// As many as losses ask for: none if less than [`CLEAN`](super::CLEAN) of data is lost;
    /// else the fewest, 1 to 8, with which it is less likely than 0.05 % that more data of
    /// the block is lost than parity arrives. Losses are taken to be independent.
    Auto,
    /// 1 to 8.
    Fixed(u8),
}

/// How blocks are made. What is out of its range is taken as the nearest that is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Data packets of a block: 2 to 32.
    pub data: u8,
    /// Its parity packets.
    pub parity: Amount,
    /// How long a block waits for more packets after its first, in ns. Bodies say it in ms,
    /// rounded up, 255 at most.
    pub wait: u64,
    /// Blocks that are filled in turn, 1 to 8: a burst of so many losses takes one packet
    /// of each. They take as many times as long to fill.
    pub interleave: u8,
}

impl Default for Settings {
    /// 32 packets, parity by loss, 10 ms, one block at a time.
    fn default() -> Self {
        Self { data: 32, parity: Amount::Auto, wait: 10_000_000, interleave: 1 }
    }
}

/// A data packet that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Its sequence on the path, from 1.
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

/// What an encoder has done. Those of several can be added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EncoderStatistics {
    /// Packets that it was shown.
    pub packets: u64,
    /// Those of them that no block was made for, because the path is clean.
    pub clean: u64,
    /// Those of them that are in no block, because they are too long for a shard or for the
    /// room that bodies have, not of the version and length that their IP header says, in an
    /// open block already, or nothing that a body can name: with sequence 0, or of a path
    /// other than 1 to 15.
    pub skipped: u64,
    /// Blocks that got parity.
    pub blocks: u64,
    /// Packets in them.
    pub data: u64,
    /// Bytes of these inner packets.
    pub data_bytes: u64,
    /// Parity packets.
    pub parity: u64,
    /// Bytes of their bodies.
    pub parity_bytes: u64,
    /// Bytes that are in use now, what the allocator adds not counted. Grows to no more
    /// than twice the packets of all open blocks.
    pub memory: usize,
}

impl AddAssign for EncoderStatistics {
    fn add_assign(&mut self, other: Self) {
        self.packets += other.packets;
        self.clean += other.clean;
        self.skipped += other.skipped;
        self.blocks += other.blocks;
        self.data += other.data;
        self.data_bytes += other.data_bytes;
        self.parity += other.parity;
        self.parity_bytes += other.parity_bytes;
        self.memory += other.memory;
    }
}

/// Makes blocks of the packets that one session sends by one path.
#[derive(Clone, Debug)]
pub struct Encoder {
    path: u8,
    settings: Settings,
    amounts: Amounts,
    /// Bytes that a body may have.
    room: usize,
    open: Vec<Block>,
    /// Which of `open` takes the next packet.
    turn: usize,
    /// Number of the next block.
    number: u32,
    statistics: EncoderStatistics,
}

/// A block while it takes packets. It is used again and again.
#[derive(Clone, Debug, Default)]
struct Block {
    /// When its first packet came.
    since: u64,
    /// Least sequence of its packets.
    least: u64,
    /// Their greatest.
    greatest: u64,
    /// Bytes of the longest packet.
    longest: usize,
    /// Shards, one behind the other as they came, without what fills them up.
    shards: Vec<u8>,
    /// Sequence of each packet, and where its shard is. Sorted when the block closes.
    members: Vec<(u64, Range<usize>)>,
}

impl Encoder {
    /// One with no packets, for the path of this number, 1 to 15. It takes the path to be
    /// clean until it is told.
    #[must_use]
    pub fn new(path: u8, settings: Settings) -> Self {
        let parity = match settings.parity {
            Amount::Auto => Amount::Auto,
            Amount::Fixed(parity) => Amount::Fixed(parity.clamp(1, MOST_PARITY as u8)),
        };
        let data = settings.data.clamp(2, MOST_DATA as u8);
        let interleave = settings.interleave.clamp(1, MOST_OPEN);
        Self {
            path,
            settings: Settings { data, parity, interleave, ..settings },
            amounts: Amounts::default(),
            room: usize::MAX,
            open: vec![Block::default(); usize::from(interleave)],
            turn: 0,
            number: 0,
            statistics: EncoderStatistics::default(),
        }
    }

    /// Says what part of data packets this path loses, and what part of parity is lost by
    /// the paths that carry it, 0 to 1 each, for [`Amount::Auto`]. It holds for blocks that
    /// are open now, too. Costs something only if a part is another than before.
    pub fn set_loss(&mut self, data_loss: f64, parity_loss: f64) {
        self.amounts.set_loss(data_loss, parity_loss);
    }

    /// Says how many bytes a body may have; any, until it is said. No body is longer than
    /// the room that was set when the last packet of its block came. An open block that is
    /// too long for a new room is closed as it is by the next [`push`](Self::push) or
    /// [`expire`](Self::expire).
    pub fn set_room(&mut self, most: usize) {
        self.room = most;
    }

    /// Takes a packet that was sent at `now`, in ns. Parity bodies of blocks that are
    /// complete or have waited long enough are added to `out`.
    ///
    /// Packets come in any order, but sequences of a block are at most 255 apart, and its
    /// bodies fit in the room: a packet with which that would not be so closes the block
    /// whose turn it is, and begins the next. What no block can have is skipped, and has no
    /// turn.
    pub fn push(&mut self, packet: &Packet<'_>, now: u64, out: &mut Vec<Vec<u8>>) {
        self.expire(now, out);
        self.statistics.packets += 1;
        if self.settings.parity == Amount::Auto && self.amounts.are_none() {
            self.statistics.clean += 1;
            return;
        }
        if !self.can_take(packet) {
            self.statistics.skipped += 1;
            return;
        }
        let turn = self.turn;
        self.turn = (turn + 1) % self.open.len();
        if self.open.get(turn).is_some_and(|block| !block.fits(packet, self.room)) {
            self.close(turn, out);
        }
        let Some(block) = self.open.get_mut(turn) else { return };
        block.take(packet, now);
        if block.members.len() >= usize::from(self.settings.data) {
            self.close(turn, out);
        }
    }

    /// Closes the blocks that have waited long enough. `now` is the clock of
    /// [`push`](Self::push).
    pub fn expire(&mut self, now: u64, out: &mut Vec<Vec<u8>>) {
        for turn in 0..self.open.len() {
            if self.due(turn).is_some_and(|due| due <= now) {
                self.close(turn, out);
            }
        }
    }

    /// When to call [`expire`](Self::expire); none while no block is open.
    #[must_use]
    pub fn next_due(&self) -> Option<u64> {
        (0..self.open.len()).filter_map(|turn| self.due(turn)).min()
    }

    /// What it has done.
    #[must_use]
    pub fn statistics(&self) -> EncoderStatistics {
        let blocks: usize = self.open.iter().map(Block::memory).sum();
        EncoderStatistics { memory: size_of::<Self>() + blocks, ..self.statistics }
    }

    /// Whether there can be a block with this packet.
    fn can_take(&self, packet: &Packet<'_>) -> bool {
        let length = packet.bytes.len();
        length <= MOST_PACKET
            && body_length(length, 1) <= self.room
            && body::is_sound(packet.inner, packet.bytes)
            && body::is_path(self.path)
            && packet.sequence != 0
            && !self.open.iter().any(|block| block.has(packet.sequence))
    }

    fn due(&self, turn: usize) -> Option<u64> {
        let block = self.open.get(turn).filter(|block| !block.members.is_empty())?;
        let is_too_long = body_length(block.longest, block.members.len()) > self.room;
        Some(block.since.saturating_add(if is_too_long { 0 } else { self.settings.wait }))
    }

    fn close(&mut self, turn: usize, out: &mut Vec<Vec<u8>>) {
        let Some(block) = self.open.get_mut(turn) else { return };
        let parity = match self.settings.parity {
            Amount::Auto => self.amounts.parity_for(block.members.len()),
            Amount::Fixed(parity) => parity,
        };
        if parity > 0 {
            let id = Id { path: self.path, number: self.number };
            let wait = self.settings.wait.div_ceil(WAIT_UNIT).min(u8::MAX.into()) as u8;
            let bytes = block.encode(id, wait, parity, out);
            self.number = self.number.wrapping_add(1);
            self.statistics.blocks += 1;
            self.statistics.data += block.members.len() as u64;
            self.statistics.data_bytes += block.data_bytes() as u64;
            self.statistics.parity += u64::from(parity);
            self.statistics.parity_bytes += bytes as u64;
        }
        block.empty();
    }
}

/// Bytes of the bodies of a block, by its longest packet and how many it has.
fn body_length(longest: usize, members: usize) -> usize {
    longest + overhead(members as u8)
}

impl Block {
    fn has(&self, sequence: u64) -> bool {
        // Mostly it is above all, and nothing is searched.
        (self.least..=self.greatest).contains(&sequence)
            && self.members.iter().any(|(other, _)| *other == sequence)
    }

    /// Whether it is still a block with a packet that it does not have.
    fn fits(&self, packet: &Packet<'_>, room: usize) -> bool {
        let span = self.greatest.max(packet.sequence) - self.least.min(packet.sequence);
        let longest = self.longest.max(packet.bytes.len());
        self.members.is_empty()
            || span <= MOST_SPAN && body_length(longest, self.members.len() + 1) <= room
    }

    /// Adds a packet that [`fits`](Self::fits).
    fn take(&mut self, packet: &Packet<'_>, now: u64) {
        let Packet { sequence, bucket, number, flags, inner, bytes } = *packet;
        if self.members.is_empty() {
            (self.since, self.least, self.greatest) = (now, sequence, sequence);
        }
        self.least = self.least.min(sequence);
        self.greatest = self.greatest.max(sequence);
        self.longest = self.longest.max(bytes.len());
        let start = self.shards.len();
        body::append_shard(&mut self.shards, Header { inner, flags, bucket, number }, bytes);
        self.members.push((sequence, start..self.shards.len()));
    }

    /// Appends the parity bodies, and returns how many bytes they have.
    fn encode(&mut self, id: Id, wait: u8, parity: u8, out: &mut Vec<Vec<u8>>) -> usize {
        let Some(rows) = code::rows(self.members.len()) else { return 0 };
        self.members.sort_unstable_by_key(|(sequence, _)| *sequence);
        let sequences = self.members.iter().map(|(sequence, _)| *sequence);
        let after = sequences.clone().skip(1);
        let gaps: Vec<u8> = after.zip(sequences).map(|(after, it)| (after - it) as u8).collect();
        let length = (body::SHARD_HEAD + self.longest) as u16;
        let shards = self.members.iter().filter_map(|(_, at)| self.shards.get(at.clone()));
        let mut total = 0;
        for (index, row) in (0..parity).zip(rows) {
            let of = (parity, index);
            let (mut bytes, at) = body::start(id, wait, self.least, &gaps, of, length);
            for (factor, shard) in row.iter().zip(shards.clone()) {
                code::add(*factor, shard, &mut bytes[at..]);
            }
            total += bytes.len();
            out.push(bytes);
        }
        total
    }

    /// Bytes of its packets.
    fn data_bytes(&self) -> usize {
        self.shards.len() - self.members.len() * body::SHARD_HEAD
    }

    fn empty(&mut self) {
        self.longest = 0;
        self.shards.clear();
        self.members.clear();
    }

    fn memory(&self) -> usize {
        size_of::<Self>()
            + self.shards.capacity()
            + self.members.capacity() * size_of::<(u64, Range<usize>)>()
    }
}

#[cfg(test)]
#[path = "encoder_tests.rs"]
mod tests;
