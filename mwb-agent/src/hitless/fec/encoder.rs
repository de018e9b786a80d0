//! Makes the parity of what is sent.

use std::ops::AddAssign;

use super::amount::Amounts;
use super::body::{self, Header, Id, MOST_PACKET};
use super::code::{self, MOST_DATA, MOST_PARITY};

/// Open blocks, at most.
const MOST_OPEN: u8 = 8;

/// How many parity packets a block gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// As many as losses ask for: none if less than 0.1 % of data is lost; else the fewest,
    /// 1 to 8, with which it is less likely than 0.05 % that more data of the block is lost
    /// than parity arrives. Losses are taken to be independent.
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
    /// How long a block waits for more packets after its first, in ns.
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
    /// Those of them that are in no block, because they are too long for a shard, not of
    /// the version and length that their IP header says, or nothing that a body can name:
    /// with sequence 0, or of a path other than 1 to 15.
    pub skipped: u64,
    /// Blocks that got parity.
    pub blocks: u64,
    /// Bytes of the inner packets in them.
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
    /// Sequence of its first packet.
    first: u64,
    /// Sequence of its last.
    last: u64,
    /// How far each further packet is from the one before.
    gaps: Vec<u8>,
    /// Shards, one behind the other, without what fills them up.
    shards: Vec<u8>,
    /// Where they end.
    ends: Vec<usize>,
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

    /// Takes a packet that was sent at `now`, in ns. Parity bodies of blocks that are
    /// complete or have waited long enough are added to `out`.
    ///
    /// Sequences grow within a block, by 255 at most: a packet that does not go on so
    /// closes the block whose turn it is, and begins the next.
    pub fn push(&mut self, packet: &Packet<'_>, now: u64, out: &mut Vec<Vec<u8>>) {
        self.expire(now, out);
        self.statistics.packets += 1;
        if self.settings.parity == Amount::Auto && self.amounts.are_none() {
            self.statistics.clean += 1;
            return;
        }
        if packet.bytes.len() > MOST_PACKET
            || !body::is_sound(packet.inner, packet.bytes)
            || !body::is_path(self.path)
            || packet.sequence == 0
        {
            self.statistics.skipped += 1;
            return;
        }
        let turn = self.turn;
        self.turn = (turn + 1) % self.open.len();
        if self.open.get(turn).is_some_and(|block| block.gap(packet.sequence).is_none()) {
            self.close(turn, out);
        }
        let Some(block) = self.open.get_mut(turn) else { return };
        block.take(packet, now);
        if block.ends.len() >= usize::from(self.settings.data) {
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

    fn due(&self, turn: usize) -> Option<u64> {
        let block = self.open.get(turn).filter(|block| !block.ends.is_empty())?;
        Some(block.since.saturating_add(self.settings.wait))
    }

    fn close(&mut self, turn: usize, out: &mut Vec<Vec<u8>>) {
        let Some(block) = self.open.get_mut(turn) else { return };
        let parity = match self.settings.parity {
            Amount::Auto => self.amounts.parity_for(block.ends.len()),
            Amount::Fixed(parity) => parity,
        };
        if parity > 0 {
            let bytes = block.encode(Id { path: self.path, number: self.number }, parity, out);
            self.number = self.number.wrapping_add(1);
            self.statistics.blocks += 1;
            self.statistics.data_bytes += block.data_bytes() as u64;
            self.statistics.parity += u64::from(parity);
            self.statistics.parity_bytes += bytes as u64;
        }
        block.empty();
    }
}

impl Block {
    /// How far a packet is from the last, 0 for the first; none if it cannot be of the
    /// block.
    fn gap(&self, sequence: u64) -> Option<u8> {
        if self.ends.is_empty() {
            return Some(0);
        }
        u8::try_from(sequence.checked_sub(self.last)?).ok().filter(|gap| *gap > 0)
    }

    /// Adds a packet that has a [`gap`](Self::gap).
    fn take(&mut self, packet: &Packet<'_>, now: u64) {
        let Some(gap) = self.gap(packet.sequence) else { return };
        if self.ends.is_empty() {
            (self.since, self.first) = (now, packet.sequence);
        } else {
            self.gaps.push(gap);
        }
        self.last = packet.sequence;
        let Packet { bucket, number, flags, inner, bytes, .. } = *packet;
        body::append_shard(&mut self.shards, Header { inner, flags, bucket, number }, bytes);
        self.ends.push(self.shards.len());
    }

    /// Appends the parity bodies, and returns how many bytes they have.
    fn encode(&self, id: Id, parity: u8, out: &mut Vec<Vec<u8>>) -> usize {
        let Some(rows) = code::rows(self.ends.len()) else { return 0 };
        let longest = self.shards().map(<[u8]>::len).max().unwrap_or(0) as u16;
        let mut total = 0;
        for (index, row) in (0..parity).zip(rows) {
            let (mut bytes, at) = body::start(id, self.first, &self.gaps, (parity, index), longest);
            for (factor, shard) in row.iter().zip(self.shards()) {
                code::add(*factor, shard, &mut bytes[at..]);
            }
            total += bytes.len();
            out.push(bytes);
        }
        total
    }

    fn shards(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).filter_map(|(start, end)| self.shards.get(start..*end))
    }

    /// Bytes of its packets.
    fn data_bytes(&self) -> usize {
        self.shards.len() - self.ends.len() * body::SHARD_HEAD
    }

    fn empty(&mut self) {
        self.gaps.clear();
        self.shards.clear();
        self.ends.clear();
    }

    fn memory(&self) -> usize {
        size_of::<Self>()
            + self.gaps.capacity()
            + self.shards.capacity()
            + self.ends.capacity() * size_of::<usize>()
    }
}

#[cfg(test)]
#[path = "encoder_tests.rs"]
mod tests;
