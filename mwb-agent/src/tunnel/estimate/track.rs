//! What is measured of one path in the direction that we send in, from what the kernel
//! side keeps of it and a reply to a probe says.

use std::collections::VecDeque;

use mwb_common::maps::PathState;
use mwb_common::select::arrival::QUEUE;

use super::floor::Floor;

/// What waits less than so much counts as not waiting, in ns, and so much more for each
/// ns of jitter: a link with turns (Wi-Fi, LTE) is not full because of them.
const GROWN: f64 = 5e6;
const GROWN_BY_JITTER: f64 = 4.0;
/// Two replies that are nearer to each other say nothing about a rate, in ns.
const NEAR: u64 = 20_000_000;
/// What one of the two samples of a full path counts: the capacity is there to within
/// 3 % after half a second.
const CAPACITY_STEP: f64 = 0.5;
/// A queue that is so many times as long as the time that it was seen for leaves no doubt.
const SURE: f64 = 1.5;
/// A path that carries this part of its capacity and has no queue can do more than that.
const NEARLY_FULL: f64 = 0.95;
/// Unless what waits in it is more than we reckon with by so much, in ns.
const AGREES: f64 = 1e6;
/// By how much more, each time.
const GROWTH: f64 = 1.02;
/// Less than this part of its capacity was sent by us: the queue is somebody else's, and
/// our rate is no capacity.
const OURS: f64 = 0.5;
/// What was counted before a tick counts so much less after it: for parking (2 s) and
/// for the choice of a home (30 s).
const SHORT: f64 = 0.95;
const LONG: f64 = 0.9967;
/// What was carried counts so much less after a tick: half after some 3 s.
const CARRIED: f64 = 0.98;
/// A train took so long at least, in ns: times are not better known than this.
const LEAST_TRAIN: f64 = 500_000.0;
/// What a train says counts if it is so many times what was measured.
const TRAIN_SAYS: f64 = 1.5;
/// A path that was dead and lost less than this part was slow, or loses much.
const HOLE: f64 = 0.6;
/// Two looks can lie so far apart, in ns.
const LATE: u64 = 200_000_000;
/// Ticks that are remembered.
const HISTORY: usize = 32;

/// Packets sent and lost, the older ones counting less.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Losses {
    pub(super) sent: f64,
    pub(super) lost: f64,
}

impl Losses {
    fn count(&mut self, keep: f64, sent: f64, lost: f64) {
        self.sent = self.sent * keep + sent;
        // Packets that overtake each other around a probe are lost in one interval and
        // found in the next.
        self.lost = self.lost * keep + lost;
    }

    /// Part that is lost.
    pub(super) fn part(&self) -> f64 {
        if self.sent < 1.0 { 0.0 } else { (self.lost / self.sent).clamp(0.0, 1.0) }
    }
}

/// What a reply said, at the tick when it was seen.
#[derive(Clone, Copy, Debug)]
struct Look {
    sequence: u64,
    packets: u64,
    bytes: u64,
    received_at: u64,
    /// When it came.
    at: u64,
    /// Waiting time of its probe.
    queue: f64,
}

/// A path as it is measured. Times are in ns, rates in bit/s.
#[derive(Clone, Debug, Default)]
pub(super) struct Track {
    floor: Floor,
    round_trip: Floor,
    before: Option<Look>,
    /// Times of ticks, with the virtual queue then.
    queues: VecDeque<(u64, f64)>,
    /// Time and bytes sent of the last ticks.
    sent: VecDeque<(u64, u64)>,
    /// How long the newest probe waited.
    pub(super) queue: f64,
    /// How much longer probes wait than the virtual queue says.
    pub(super) mismatch: f64,
    /// How much the delay differs from one probe to the next while there is no load.
    pub(super) jitter: f64,
    /// What arrives, and the most of it of late.
    pub(super) rate: f64,
    pub(super) carried: f64,
    /// What it can carry.
    pub(super) capacity: Option<f64>,
    /// The capacity was seen while the path was full.
    pub(super) measured: bool,
    /// Losses while there was no queue, in two measures of time.
    pub(super) short: Losses,
    pub(super) long: Losses,
    /// All that were lost, with a queue or without.
    pub(super) lost: u64,
    /// The newest probe waited, and the one before.
    pub(super) full: bool,
    /// It was alive, and is not.
    pub(super) dead: bool,
    /// How often it was dead and lost packets meanwhile, as of the first reply after that.
    pub(super) holes: u32,
    /// It was seen dead since the newest reply.
    gap: bool,
    train: Option<Train>,
}

/// Probes that are on their way to measure a capacity.
#[derive(Clone, Copy, Debug)]
struct Train {
    at: u64,
    bytes: u64,
    /// When the newest of them was answered, as of the last tick.
    answered: u64,
}

impl Track {
    /// Takes a look at the path. `typed` is what the operator says that it can carry.
    pub(super) fn look(&mut self, now: u64, state: &PathState, typed: Option<f64>) {
        if self.before.is_some_and(|before| is_another(&before, state)) {
            *self = Self::default();
        }
        let dead = state.reply_sequence != 0 && state.alive_until <= now;
        self.gap |= dead;
        self.dead = dead;
        self.queues.push_front((now, state.busy_until.saturating_sub(now) as f64));
        self.sent.push_front((now, state.sent_bytes));
        self.queues.truncate(HISTORY);
        self.sent.truncate(HISTORY);
        let news = self.before.is_none_or(|before| {
            state.reply_received_at.saturating_sub(before.received_at) >= NEAR
                && state.reply_sequence > before.sequence
        });
        if news && state.reply_sequence != 0 {
            self.take(now, state);
        }
        self.see_train(state);
        if let Some(typed) = typed {
            self.capacity = Some(self.capacity.map_or(typed, |capacity| capacity.min(typed)));
        }
    }

    fn take(&mut self, now: u64, state: &PathState) {
        let delay = state.reply_received_at.wrapping_sub(state.reply_sent_at).cast_signed();
        let busy = self.full && self.capacity.is_none_or(|most| self.rate > OURS * most);
        self.floor.see(now, delay, !busy);
        let round_trip = state.reply_at.saturating_sub(state.reply_sent_at).cast_signed();
        self.round_trip.see(now, round_trip, !busy);
        self.queue = delay.saturating_sub(self.floor.least().unwrap_or(delay)) as f64;
        if let Some(virtual_queue) = self.virtual_queue(state.reply_sent_at) {
            self.mismatch += 0.5 * (self.queue - virtual_queue - self.mismatch);
        }
        if let Some(before) = self.before {
            self.compare(&before, state);
        }
        self.before = Some(Look {
            sequence: state.reply_sequence,
            packets: state.reply_packets,
            bytes: state.reply_bytes,
            received_at: state.reply_received_at,
            at: state.reply_at,
            queue: self.queue,
        });
    }

    /// What lies between two replies.
    fn compare(&mut self, before: &Look, state: &PathState) {
        let sent = (state.reply_sequence - before.sequence) as f64;
        let taken = state.reply_packets.wrapping_sub(before.packets).cast_signed() as f64;
        let bytes = state.reply_bytes.wrapping_sub(before.bytes) as f64;
        let elapsed = (state.reply_received_at - before.received_at) as f64;
        self.lost = self.lost.saturating_add_signed((sent - taken) as i64);
        self.rate = bytes * 8e9 / elapsed;
        self.carried = self.rate.max(self.carried * CARRIED);
        let grown = GROWN + GROWN_BY_JITTER * self.jitter;
        let least = before.queue.min(self.queue);
        self.full = least > grown;
        // What was lost while the path was dead says nothing of what it loses when it lives.
        let dead_after = state.alive_until.saturating_sub(state.reply_at);
        let silent = state.reply_at.saturating_sub(before.at) > dead_after + LATE;
        let gap = std::mem::take(&mut self.gap) || silent;
        if gap && sent - taken > HOLE * sent {
            self.holes += 1;
        } else if before.queue.max(self.queue) <= grown {
            self.short.count(SHORT, sent, sent - taken);
            self.long.count(LONG, sent, sent - taken);
        }
        let offered = self.offered(state.reply_sent_at.saturating_sub(LATE));
        let load = self.capacity.map_or(1e6, |capacity| capacity / 8.0);
        if offered < load {
            self.jitter += 0.1 * ((self.queue - before.queue).abs() - self.jitter);
        }
        let rate = self.rate;
        // What waited for so long has seen the path busy for so long; for the rest of the time
        // it may have been idle.
        let seen = if rate > self.capacity.unwrap_or(0.0) { 1.0 } else { self.queue / elapsed };
        self.capacity = match self.capacity {
            _ if self.full && self.capacity.is_none_or(|most| offered > OURS * most) => {
                let most = self.capacity.filter(|_| self.measured).unwrap_or(rate);
                self.measured = true;
                // After a queue that is longer than the time between the two there is no doubt.
                let step = if seen > SURE { 1.0 } else { CAPACITY_STEP * seen.min(1.0) };
                Some(most + step * (rate - most))
            }
            Some(most) if rate > most => Some(rate),
            Some(most) if least <= grown && self.mismatch < AGREES && rate > NEARLY_FULL * most => {
                Some(most * GROWTH)
            }
            other => other,
        };
    }

    /// Probes were sent all at once, in order to see how much later the last is answered.
    pub(super) fn sent_train(&mut self, at: u64, bytes: u64) {
        self.train = Some(Train { at, bytes, answered: 0 });
    }

    /// Looks whether the last probe of a train was answered: no further one was, since
    /// the last tick.
    fn see_train(&mut self, state: &PathState) {
        let Some(train) = &mut self.train else { return };
        if state.sized_at <= train.at || state.sized_at != train.answered {
            train.answered = state.sized_at;
            return;
        }
        let Train { at, bytes, answered } = *train;
        self.train = None;
        let Some(alone) = self.round_trip() else { return };
        let took = ((answered - at) as f64 - alone).max(LEAST_TRAIN);
        // Others may have been in its way: less than is known is nothing new.
        let rate = bytes as f64 * 8e9 / took;
        let better = if self.measured { TRAIN_SAYS } else { 1.0 };
        if self.capacity.is_none_or(|known| rate > better * known) {
            self.capacity = Some(rate);
        }
    }

    /// What we have sent in the busiest of the ticks since then, and of the last ones.
    fn offered(&self, since: u64) -> f64 {
        let pairs = self.sent.iter().zip(self.sent.iter().skip(1));
        let recent =
            pairs.enumerate().take_while(|(tick, ((now, _), _))| *tick < 3 || *now > since);
        let rates = recent.map(|(_, (&(now, sent), &(then, before)))| {
            sent.saturating_sub(before) as f64 * 8e9 / now.saturating_sub(then).max(1) as f64
        });
        rates.fold(0.0, f64::max)
    }

    /// The virtual queue at some time, if ticks lie around it.
    fn virtual_queue(&self, at: u64) -> Option<f64> {
        let after = self.queues.iter().rposition(|&(time, _)| time >= at)?;
        let (later, then) = self.queues[after];
        let &(earlier, before) = self.queues.get(after + 1)?;
        let part = (at - earlier.min(at)) as f64 / (later - earlier).max(1) as f64;
        Some((before + (then - before) * part).min(QUEUE as f64))
    }

    /// Least one-way delay, but for the difference of the two clocks.
    pub(super) fn way(&self) -> Option<f64> {
        self.floor.least().map(|least| least as f64)
    }

    /// Least round-trip time.
    pub(super) fn round_trip(&self) -> Option<f64> {
        self.round_trip.least().map(|least| least as f64)
    }
}

/// Whether the counts belong to another session, or to another end.
fn is_another(before: &Look, state: &PathState) -> bool {
    state.reply_sequence < before.sequence || state.reply_bytes < before.bytes
}
