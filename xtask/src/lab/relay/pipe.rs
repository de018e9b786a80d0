//! One direction of a link as pure arithmetic over time: what is lost, what
//! waits, when it arrives. Knows no sockets; time is nanoseconds from anywhere.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use crate::lab::link::{DirectionStats, LinkSpec, Loss};

/// A frame on its way. Ordered by arrival, then by the order of coming in.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct OnTheWay {
    arrival: u64,
    number: u64,
    frame: Vec<u8>,
}

/// One direction of a link.
#[derive(Debug)]
pub(super) struct Pipe {
    spec: LinkSpec,
    stats: DirectionStats,
    way: BinaryHeap<Reverse<OnTheWay>>,
    /// When the last bit of what was accepted so far leaves the queue.
    busy_until: u64,
    /// Arrival of the last frame that keeps the order.
    last_arrival: u64,
    /// The Gilbert-Elliott state.
    bad: bool,
    losses: Random,
    jitters: Random,
    reorders: Random,
    /// Buffers to use again.
    spare: Vec<Vec<u8>>,
}

impl Pipe {
    pub(super) fn new(spec: LinkSpec) -> Self {
        let seed = spec.seed;
        Self {
            spec,
            stats: DirectionStats::default(),
            way: BinaryHeap::new(),
            busy_until: 0,
            last_arrival: 0,
            bad: false,
            losses: Random::new(seed, 1),
            jitters: Random::new(seed, 2),
            reorders: Random::new(seed, 3),
            spare: Vec::new(),
        }
    }

    /// Changes the link. Frames on their way keep the arrival they were given.
    pub(super) fn set(&mut self, spec: LinkSpec) {
        if spec.seed != self.spec.seed || spec.loss != self.spec.loss {
            self.losses = Random::new(spec.seed, 1);
            self.bad = false;
        }
        if spec.seed != self.spec.seed {
            self.jitters = Random::new(spec.seed, 2);
            self.reorders = Random::new(spec.seed, 3);
        }
        if spec.rate != self.spec.rate {
            self.busy_until = 0;
        }
        self.spec = spec;
    }

    pub(super) fn stats(&self) -> DirectionStats {
        DirectionStats { waiting: self.way.len() as u64, ..self.stats }
    }

    pub(super) fn stats_mut(&mut self) -> &mut DirectionStats {
        &mut self.stats
    }

    /// Takes a frame in at time `now`.
    pub(super) fn offer(&mut self, now: u64, frame: &[u8]) {
        self.stats.received += 1;
        // The loss sequence goes on in a blackhole: it is the packet's number
        // alone that decides.
        let lost = self.loses();
        if self.spec.blackhole {
            self.stats.blackholed += 1;
            return;
        }
        if lost {
            self.stats.lost += 1;
            return;
        }
        let Some(departure) = self.depart(now, frame.len() as u64) else {
            self.stats.overflowed += 1;
            return;
        };
        let arrival = self.arrive(departure);
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.clear();
        buffer.extend_from_slice(frame);
        let number = self.stats.received;
        self.way.push(Reverse(OnTheWay { arrival, number, frame: buffer }));
    }

    /// When the next frame arrives.
    pub(super) fn next_arrival(&self) -> Option<u64> {
        self.way.peek().map(|Reverse(next)| next.arrival)
    }

    /// The next frame that has arrived by `now`. Its buffer comes back with
    /// [`Self::recycle`].
    pub(super) fn take(&mut self, now: u64) -> Option<Vec<u8>> {
        if self.next_arrival()? > now {
            return None;
        }
        self.way.pop().map(|Reverse(next)| next.frame)
    }

    pub(super) fn recycle(&mut self, buffer: Vec<u8>) {
        if self.spare.len() < 1024 {
            self.spare.push(buffer);
        }
    }

    fn loses(&mut self) -> bool {
        match self.spec.loss {
            Loss::None => false,
            Loss::Random(probability) => self.losses.hits(probability),
            Loss::Burst { enter, leave } => {
                let turn = if self.bad { leave } else { enter };
                if self.losses.hits(turn) {
                    self.bad = !self.bad;
                }
                self.bad
            }
        }
    }

    /// When the frame has left the queue; `None` when it finds it full.
    fn depart(&mut self, now: u64, length: u64) -> Option<u64> {
        let Some(rate) = self.spec.rate.filter(|&rate| rate > 0) else { return Some(now) };
        let backlog = bytes_in(self.busy_until.saturating_sub(now), rate);
        if backlog + length > self.queue_limit(rate) {
            return None;
        }
        self.busy_until = self.busy_until.max(now) + time_of(length, rate);
        Some(self.busy_until)
    }

    fn arrive(&mut self, departure: u64) -> u64 {
        if self.spec.reorder > 0.0 && self.reorders.hits(self.spec.reorder) {
            return departure;
        }
        let jitter = nanoseconds(self.spec.jitter);
        let delay = nanoseconds(self.spec.delay);
        let delay = if jitter == 0 {
            delay
        } else {
            (delay + self.jitters.below(2 * jitter + 1)).saturating_sub(jitter)
        };
        self.last_arrival = self.last_arrival.max(departure + delay);
        self.last_arrival
    }

    fn queue_limit(&self, rate: u64) -> u64 {
        self.spec.queue.unwrap_or_else(|| LinkSpec::default_queue(rate))
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Time that `length` bytes take at `rate` bits per second.
fn time_of(length: u64, rate: u64) -> u64 {
    (length * 8).saturating_mul(1_000_000_000) / rate
}

/// Bytes that pass in `time` at `rate` bits per second.
fn bytes_in(time: u64, rate: u64) -> u64 {
    let bytes = u128::from(time) * u128::from(rate) / 8_000_000_000;
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// SplitMix64: small, seeded, the same everywhere.
#[derive(Debug)]
struct Random(u64);

impl Random {
    /// A stream of its own for every purpose, so that, say, a jitter does not
    /// change which packets are lost.
    fn new(seed: u64, purpose: u64) -> Self {
        let mut random = Self(seed ^ purpose.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        random.next();
        random
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn hits(&mut self, probability: f64) -> bool {
        // 53 bits fill the fraction of an f64 exactly.
        ((self.next() >> 11) as f64) < probability * (1_u64 << 53) as f64
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn drain(pipe: &mut Pipe, now: u64) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| pipe.take(now)).collect()
    }

    fn number(value: u64) -> Vec<u8> {
        value.to_be_bytes().to_vec()
    }

    #[test]
    fn frames_leave_at_the_rate_and_arrive_after_the_delay() {
        // 1,000 bytes at 8 Mbit/s take 1 ms.
        let mut pipe = Pipe::new(LinkSpec::new(8_000_000, Duration::from_millis(20)));
        for _ in 0..3 {
            pipe.offer(0, &[0; 1000]);
        }
        assert_eq!(pipe.next_arrival(), Some(21 * MS));
        assert_eq!(drain(&mut pipe, 21 * MS).len(), 1);
        assert_eq!(pipe.next_arrival(), Some(22 * MS));
        assert_eq!(drain(&mut pipe, 23 * MS).len(), 2);
    }

    #[test]
    fn a_full_queue_refuses_and_counts() {
        let spec = LinkSpec { queue: Some(2500), ..LinkSpec::new(8_000_000, Duration::ZERO) };
        let mut pipe = Pipe::new(spec);
        for _ in 0..5 {
            pipe.offer(0, &[0; 1000]);
        }
        assert_eq!(pipe.stats().overflowed, 3);
        // One millisecond later there is room for one again.
        pipe.offer(MS, &[0; 1000]);
        assert_eq!(pipe.stats().overflowed, 3);
    }

    #[test]
    fn the_same_seed_loses_the_same_packets_at_the_rate_asked_for() {
        let spec = LinkSpec { loss: Loss::Random(0.01), seed: 7, ..LinkSpec::default() };
        let survivors = |spec: &LinkSpec| {
            let mut pipe = Pipe::new(spec.clone());
            (0..100_000).for_each(|i| pipe.offer(i, &number(i)));
            drain(&mut pipe, u64::MAX)
        };
        let first = survivors(&spec);
        assert_eq!(first, survivors(&spec));
        assert_ne!(first, survivors(&LinkSpec { seed: 8, ..spec }));
        let lost = 100_000 - first.len();
        assert!((900..1100).contains(&lost), "{lost}");
    }

    #[test]
    fn burst_loss_comes_in_bursts_of_the_expected_length() {
        let loss = Loss::Burst { enter: 0.002, leave: 0.2 };
        let mut pipe = Pipe::new(LinkSpec { loss, ..LinkSpec::default() });
        let total = 200_000;
        (0..total).for_each(|i| pipe.offer(i, &number(i)));
        let passed: Vec<u64> = drain(&mut pipe, u64::MAX)
            .iter()
            .filter_map(|frame| Some(u64::from_be_bytes(frame.as_slice().try_into().ok()?)))
            .collect();
        let lost = total - passed.len() as u64;
        let bursts = passed.windows(2).filter(|pair| pair[1] > pair[0] + 1).count() as u64;
        // Mean burst 1 / leave = 5; share enter / (enter + leave) = 0.99 %.
        assert!((1500..2500).contains(&lost), "{lost}");
        assert!((4..7).contains(&(lost / bursts)), "{lost} in {bursts}");
    }

    #[test]
    fn a_seed_that_is_set_later_decides_every_delay() {
        let spec = |seed| LinkSpec {
            delay: Duration::from_millis(10),
            jitter: Duration::from_millis(5),
            seed,
            ..LinkSpec::default()
        };
        let delays = |mut pipe: Pipe| -> Vec<u64> {
            let arrival = |i| {
                pipe.offer(i * 20 * MS, &number(i));
                let arrival = pipe.next_arrival().unwrap_or_default();
                drain(&mut pipe, arrival);
                arrival - i * 20 * MS
            };
            (0..100).map(arrival).collect()
        };
        let later = |seed| {
            let mut pipe = Pipe::new(LinkSpec::default());
            pipe.set(spec(seed));
            pipe
        };
        assert_eq!(delays(later(7)), delays(Pipe::new(spec(7))));
        assert_ne!(delays(later(7)), delays(later(8)));
    }

    #[test]
    fn jitter_varies_the_delay_but_keeps_the_order() {
        let spec = LinkSpec {
            delay: Duration::from_millis(10),
            jitter: Duration::from_millis(5),
            ..LinkSpec::default()
        };
        let mut pipe = Pipe::new(spec);
        let mut delays = Vec::new();
        for i in 0..1000 {
            let sent = i * 20 * MS;
            pipe.offer(sent, &number(i));
            delays.push(pipe.next_arrival().unwrap_or_default() - sent);
            assert_eq!(drain(&mut pipe, sent + 20 * MS), [number(i)]);
        }
        let (least, most) = (delays.iter().min(), delays.iter().max());
        assert!(least.is_some_and(|&least| (5 * MS..6 * MS).contains(&least)), "{least:?}");
        assert!(most.is_some_and(|&most| (14 * MS..=15 * MS).contains(&most)), "{most:?}");
        (0..100).for_each(|i| pipe.offer(30_000 * MS, &number(i)));
        let order = drain(&mut pipe, u64::MAX);
        assert!(order.is_sorted());
    }

    #[test]
    fn a_reordered_frame_overtakes_and_nothing_is_lost() {
        let spec =
            LinkSpec { delay: Duration::from_millis(10), reorder: 0.1, ..LinkSpec::default() };
        let mut pipe = Pipe::new(spec);
        (0..1000).for_each(|i| pipe.offer(i, &number(i)));
        let mut order = drain(&mut pipe, u64::MAX);
        assert!(!order.is_sorted());
        order.sort();
        assert_eq!(order, (0..1000).map(number).collect::<Vec<_>>());
    }

    #[test]
    fn every_frame_is_in_exactly_one_place() {
        let spec = LinkSpec {
            loss: Loss::Random(0.1),
            queue: Some(20_000),
            ..LinkSpec::new(8_000_000, Duration::from_millis(5))
        };
        let mut pipe = Pipe::new(spec.clone());
        let mut delivered = 0;
        for i in 0..1000 {
            if i == 980 {
                pipe.set(LinkSpec { blackhole: true, ..spec.clone() });
            }
            pipe.offer(i * MS / 2, &[0; 1000]);
            delivered += drain(&mut pipe, i * MS / 2).len() as u64;
        }
        let stats = pipe.stats();
        assert!(stats.lost > 0 && stats.blackholed > 0, "{stats:?}");
        assert!(stats.overflowed > 0 && stats.waiting > 0, "{stats:?}");
        assert_eq!(
            stats.received,
            delivered + stats.lost + stats.blackholed + stats.overflowed + stats.waiting
        );
    }
}
