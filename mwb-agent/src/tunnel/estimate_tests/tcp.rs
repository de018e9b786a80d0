//! One flow of TCP, in segments: CUBIC (RFC 9438) with HyStart, SACK and RACK (RFC 8985), and the undoing of what was no loss (by timestamps, as in RFC 3522, and by
//! DSACK, as in RFC 3708), in the way of Linux.

use std::collections::{BTreeSet, VecDeque};

const MS: u64 = 1_000_000;

/// What the receiver says about a segment.
#[derive(Clone, Copy)]
pub(super) struct Ack {
    next: u64,
    number: u64,
    /// When the segment was sent that this answers.
    echo: u64,
    /// It was there already.
    again: bool,
}

#[derive(Default)]
pub(super) struct Receiver {
    next: u64,
    beyond: BTreeSet<u64>,
}

impl Receiver {
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    pub(super) fn take(&mut self, number: u64, echo: u64) -> Ack {
        let again = number < self.next || !self.beyond.insert(number);
        while self.beyond.remove(&self.next) {
            self.next += 1;
        }
        Ack { next: self.next, number, echo, again }
    }
}

#[derive(Clone, Copy, Default)]
struct Segment {
    sent_at: u64,
    sacked: bool,
    lost: bool,
    again: bool,
}

pub(super) struct Sender {
    first: u64,
    segments: VecDeque<Segment>,
    /// Segments in the order that they were sent in, with when.
    order: VecDeque<(u64, u64)>,
    lost: BTreeSet<u64>,
    flying: u64,
    window: f64,
    threshold: f64,
    // CUBIC.
    most: f64,
    epoch: u64,
    /// From then to when the window is as it was, in s.
    plateau: f64,
    /// The window then.
    begun: f64,
    /// It has never lost anything.
    unhurt: bool,
    // Round trips.
    least: u64,
    smooth: f64,
    vary: f64,
    round_least: u64,
    round_end: u64,
    round_begin: u64,
    train_at: u64,
    // RACK.
    newest: u64,
    newest_trip: u64,
    highest: u64,
    sacked: u64,
    reordered: bool,
    steps: u64,
    patience_until: u64,
    // Recovery.
    recover: Option<u64>,
    /// The recovery is one from silence: the window grows.
    silent: bool,
    before: (f64, f64),
    again_at: u64,
    again: u64,
    // Timers.
    reorder_due: u64,
    silence_due: u64,
    /// Segments that there are to send, and whether the last look found none more.
    supply: u64,
    starved: bool,
}

impl Sender {
    /// With so many segments to send, for a beginning.
    pub(super) fn new(supply: u64) -> Self {
        Self {
            first: 0,
            segments: VecDeque::new(),
            order: VecDeque::new(),
            lost: BTreeSet::new(),
            flying: 0,
            window: 10.0,
            threshold: f64::INFINITY,
            most: 0.0,
            epoch: 0,
            plateau: 0.0,
            begun: 0.0,
            unhurt: true,
            least: u64::MAX,
            smooth: 0.0,
            vary: 0.0,
            round_least: u64::MAX,
            round_end: 0,
            round_begin: 0,
            train_at: 0,
            newest: 0,
            newest_trip: 0,
            highest: 0,
            sacked: 0,
            reordered: false,
            steps: 1,
            patience_until: 0,
            recover: None,
            silent: false,
            before: (0.0, 0.0),
            again_at: 0,
            again: 0,
            reorder_due: u64::MAX,
            silence_due: u64::MAX,
            supply,
            starved: false,
        }
    }

    /// So many segments more are there to be sent.
    pub(super) fn supply(&mut self, segments: u64) {
        self.supply += segments;
    }

    /// When [`Sender::timer`] is to be called.
    pub(super) fn due(&self) -> u64 {
        self.reorder_due.min(self.silence_due)
    }

    /// The next segment to send, if one may be sent.
    pub(super) fn next(&mut self, now: u64) -> Option<u64> {
        if self.flying as f64 >= self.window {
            self.starved = false;
            return None;
        }
        let number = match self.lost.pop_first() {
            Some(number) => {
                if self.again_at == 0 {
                    self.again_at = now;
                }
                self.again += 1;
                number
            }
            None if self.supply == 0 => {
                self.starved = true;
                return None;
            }
            None => {
                self.supply -= 1;
                self.segments.push_back(Segment::default());
                self.first + self.segments.len() as u64 - 1
            }
        };
        self.flying += 1;
        let segment = &mut self.segments[(number - self.first) as usize];
        segment.again = segment.lost;
        segment.lost = false;
        segment.sent_at = now;
        self.order.push_back((now, number));
        if self.silence_due == u64::MAX {
            self.silence_due = now + self.silence();
        }
        Some(number)
    }

    fn silence(&self) -> u64 {
        if self.smooth == 0.0 {
            1_000 * MS
        } else {
            // As Linux has it: 200 ms beyond what is usual.
            (self.smooth + (4.0 * self.vary).max(2e8)) as u64
        }
    }

    fn segment(&mut self, number: u64) -> Option<&mut Segment> {
        self.segments.get_mut(number.checked_sub(self.first)? as usize)
    }

    pub(super) fn acked(&mut self, now: u64, ack: Ack) {
        let mut fresh = false;
        if ack.again {
            self.forgive(now);
        } else if let Some(segment) = self.segment(ack.number)
            && !segment.sacked
        {
            let (sent_at, again, lost) = (segment.sent_at, segment.again, segment.lost);
            segment.sacked = true;
            segment.lost = false;
            fresh = true;
            self.sacked += 1;
            if lost {
                self.lost.remove(&ack.number);
            } else {
                self.flying -= 1;
            }
            let ours = ack.echo == sent_at;
            if ours {
                self.measure(now, now - sent_at);
            }
            if ack.number < self.highest && !again {
                self.reordered = true;
            }
            self.highest = self.highest.max(ack.number);
            if ack.echo >= self.newest && (ours || now - sent_at >= self.least) {
                self.newest = ack.echo;
                self.newest_trip = now - ack.echo;
            }
        }
        let advanced = ack.next > self.first;
        while self.first < ack.next {
            if self.segments.pop_front().is_some_and(|segment| segment.sacked) {
                self.sacked -= 1;
            }
            self.first += 1;
        }
        if advanced {
            self.silence_due = now + self.silence();
            // What was sent again has come before it could have.
            if self.recover.is_some() && (self.again_at == 0 || ack.echo < self.again_at) {
                self.undo();
            }
            if self.recover.is_some_and(|recover| self.first >= recover) {
                self.recover = None;
            }
        }
        self.detect(now);
        if fresh && (self.recover.is_none() || self.silent) {
            self.grow(now);
        }
    }

    fn measure(&mut self, now: u64, trip: u64) {
        self.least = self.least.min(trip);
        let sample = trip as f64;
        if self.smooth == 0.0 {
            (self.smooth, self.vary) = (sample, sample / 2.0);
        }
        self.vary += 0.25 * ((self.smooth - sample).abs() - self.vary);
        self.smooth += 0.125 * (sample - self.smooth);
        // HyStart: the least of a round has grown by an eighth, within 4 and 16 ms.
        self.round_least = self.round_least.min(trip);
        let grown = (self.least / 8).clamp(4 * MS, 16 * MS);
        if self.window < self.threshold && self.window >= 16.0 && now >= self.round_end {
            if self.round_least != u64::MAX && self.round_least > self.least + grown {
                self.threshold = self.window;
            }
            self.round_least = u64::MAX;
            self.round_end = now + trip;
            (self.round_begin, self.train_at) = (now, now);
        }
        // And by the train of acknowledgements, where nothing paces: it is half as long as
        // a round trip.
        if self.window < self.threshold && self.window >= 16.0 && now - self.train_at <= 2 * MS {
            self.train_at = now;
            if now - self.round_begin > self.least / 2 {
                self.threshold = self.window;
            }
        }
    }

    fn grow(&mut self, now: u64) {
        // What is not used does not grow.
        if self.starved {
            return;
        }
        if self.window < self.threshold {
            self.window += 1.0;
            return;
        }
        if self.epoch == 0 {
            self.epoch = now;
            self.most = self.most.max(self.window);
            self.begun = self.window;
            self.plateau = ((self.most - self.window) / 0.4).cbrt();
        }
        let t = (now - self.epoch) as f64 / 1e9 + self.smooth / 1e9;
        let cubic = 0.4 * (t - self.plateau).powi(3) + self.most;
        let rounds = t / (self.smooth / 1e9).max(1e-3);
        let friendly = self.begun + 3.0 * 0.3 / 1.7 * rounds;
        let target = cubic.max(friendly);
        // Before the first loss Linux has at least 5 % more each round trip.
        let least: f64 = if self.unhurt { 0.05 } else { 0.0 };
        self.window += ((target - self.window) / self.window).clamp(least, 0.5);
    }

    /// RACK: what was sent before something that has arrived, and by long enough.
    fn detect(&mut self, now: u64) {
        self.reorder_due = u64::MAX;
        let strict = !self.reordered && (self.recover.is_some() || self.sacked >= 3);
        let patience = if strict { 0 } else { (self.least / 4).saturating_mul(self.steps) };
        let patience = patience.min(self.smooth as u64);
        while let Some(&(sent_at, number)) = self.order.front() {
            let flies = self.segment(number).is_some_and(|segment| {
                !segment.sacked && !segment.lost && segment.sent_at == sent_at
            });
            if flies {
                if sent_at >= self.newest {
                    break;
                }
                let due = sent_at + self.newest_trip + patience;
                if due > now {
                    self.reorder_due = due;
                    break;
                }
                if let Some(segment) = self.segment(number) {
                    segment.lost = true;
                }
                self.lost.insert(number);
                self.flying -= 1;
                self.reduce();
            }
            self.order.pop_front();
        }
    }

    fn reduce(&mut self) {
        if self.recover.is_some() {
            return;
        }
        self.before = (self.window, self.threshold);
        self.most = if self.window < self.most { self.window * 0.85 } else { self.window };
        self.threshold = (self.window * 0.7).max(2.0);
        self.window = self.threshold;
        self.epoch = 0;
        self.unhurt = false;
        self.silent = false;
        self.recover = Some(self.first + self.segments.len() as u64);
        (self.again_at, self.again) = (0, 0);
        if self.patience_until > 0 {
            self.patience_until -= 1;
        } else {
            self.steps = 1;
        }
    }

    fn undo(&mut self) {
        self.window = self.window.max(self.before.0);
        self.threshold = self.threshold.max(self.before.1);
        self.epoch = 0;
        self.recover = None;
    }

    /// Something was sent again in vain.
    fn forgive(&mut self, _now: u64) {
        self.steps = (self.steps + 1).min(255);
        self.patience_until = 16;
        self.reordered = true;
        self.again = self.again.saturating_sub(1);
        if self.again == 0 && self.before.0 > 0.0 {
            self.undo();
            self.before = (0.0, 0.0);
        }
    }

    pub(super) fn timer(&mut self, now: u64) {
        if now >= self.reorder_due {
            self.detect(now);
        }
        if now >= self.silence_due {
            self.reduce();
            self.silent = true;
            self.window = 1.0;
            for (number, segment) in (self.first..).zip(&mut self.segments) {
                if !segment.sacked && !segment.lost {
                    segment.lost = true;
                    self.lost.insert(number);
                }
            }
            self.flying = 0;
            self.order.clear();
            self.silence_due = now + 2 * self.silence();
        }
    }
}
