//! How long a packet may be: on each path, found by probes as in RFC 8899 (datagram
//! packetization layer path MTU discovery), and inside the session. Pure.
//!
//! A probe that is answered shows that its length passes in the direction that we send
//! in. The search tries the MTU of the interface first, then halves what is left of the
//! [`COMMON`] lengths, then the rest. What was found is looked at again every
//! [`check_every`], and at once when the path loses many packets while short probes are
//! answered: if it does not pass any more, the path is a black hole for such packets, and
//! takes none before the search has found what passes.
//!
//! Must not know: sockets, clocks, sessions.

use mwb_common::integrity::Suite;
use mwb_common::wire::header_length;

/// What nearly every path takes (RFC 8899, 5.1.2: BASE_PLPMTU; RFC 8200, 5), in bytes from
/// the outer IP header on.
pub const BASE4: u32 = 1_200;
/// The same with IPv6.
pub const BASE6: u32 = 1_280;
/// What a path of IPv4 is left at that does not take that either: what every host takes
/// (RFC 791, 3.1). Of IPv6 [`BASE6`] is the least.
pub const LEAST4: u32 = 576;
/// What a path is taken to pass before anything is known: the least inner packet of IPv6
/// in the longest outer header. Of the access networks in use none has less, and if one
/// had, it would be found out.
pub const FIRST: u32 = 1_368;
/// No inner packet of IPv6 has to be smaller (RFC 8200, 5). A path that takes less is
/// *narrow*: the longer ones go by the others.
pub const LEAST_INNER: u32 = 1_280;

/// Lengths that paths have: Ethernet; PPPoE; 6in4; GRE; with IPsec; in Japan; of mobile
/// networks; WireGuard.
const COMMON: [u32; 16] = [
    1_300, 1_340, 1_358, 1_368, 1_380, 1_400, 1_412, 1_420, 1_428, 1_440, 1_454, 1_460, 1_472,
    1_480, 1_492, 1_500,
];
/// What lies closer together is not searched any further.
const GRAIN: u32 = 8;
/// A length does not pass if so many probes are not answered (MAX_PROBES).
const PROBES: u32 = 3;
/// On a path that loses this part, or more, of all packets, so many are sent.
const LOSSY: f64 = 0.02;
const LOSSY_PROBES: u32 = 8;
/// A path that loses this part may be a black hole for long packets.
const SUSPICIOUS: f64 = 0.1;
/// But is looked at for that only so often, in ns.
const SUSPECT_EVERY: u64 = 5_000_000_000;
/// What was found is confirmed so often, in ns; and so often on a path that is idle, where
/// each byte costs and nobody waits: when it is in use again, what is overdue is done.
const CHECK_EVERY: u64 = 30_000_000_000;
const CHECK_IDLE: u64 = 600_000_000_000;
/// It is looked for more after this time, in ns, and from then on after the second
/// (PMTU_RAISE_TIMER).
const RAISE_FIRST: u64 = 60_000_000_000;
const RAISE_EVERY: u64 = 600_000_000_000;
/// Bounds of the time that an answer is waited for, in ns.
const PATIENCE: (u64, u64) = (200_000_000, 3_000_000_000);

/// What is known of a path when [`Search::poll`] is called.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Facts {
    /// Short probes are answered.
    pub alive: bool,
    /// It is probed seldom ([`mwb_common::select::pace::is_idle`]).
    pub idle: bool,
    /// [`mwb_common::maps::PathState::rtt`].
    pub rtt: u64,
    /// [`mwb_common::maps::PathState::sized`].
    pub sized: u32,
    /// [`mwb_common::maps::PathState::sized_at`].
    pub sized_at: u64,
    /// Part of the packets that were lost of late without a full queue, 0 to 1.
    pub loss: f64,
}

/// How often what was found is confirmed, in ns.
#[must_use]
pub const fn check_every(idle: bool) -> u64 {
    if idle { CHECK_IDLE } else { CHECK_EVERY }
}

/// The search on one path.
#[derive(Clone, Debug)]
pub struct Search {
    base: u32,
    /// What passes if nothing else does.
    least: u32,
    /// MTU of the interface.
    most: u32,
    /// Passes, or is taken to.
    low: u32,
    /// Does not, or is more than the interface takes.
    high: u32,
    probe: Option<Probe>,
    /// That `low` passes was seen.
    confirmed: bool,
    /// The search has ended since the last surprise.
    settled: bool,
    checked_at: Option<u64>,
    suspect_at: u64,
    raise_at: u64,
    raise_after: u64,
    /// [`Facts::sized_at`] of the last answer.
    answered: u64,
}

#[derive(Clone, Copy, Debug)]
struct Probe {
    length: u32,
    sent: u32,
    sent_at: u64,
}

impl Search {
    /// On a path whose interface takes packets of `most` bytes.
    #[must_use]
    pub fn new(is_v6: bool, most: u32) -> Self {
        let (base, least) = if is_v6 { (BASE6, BASE6) } else { (BASE4, LEAST4) };
        Self {
            base,
            least,
            most,
            low: FIRST.min(most),
            high: most.saturating_add(1),
            probe: None,
            confirmed: false,
            settled: false,
            checked_at: None,
            suspect_at: 0,
            raise_at: 0,
            raise_after: RAISE_FIRST,
            answered: 0,
        }
    }

    /// The interface takes packets of `most` bytes now, or the way has changed: what
    /// passes is looked for again.
    pub fn restart(&mut self, most: u32) {
        *self = Self { answered: self.answered, ..Self::new(self.base == BASE6, most) };
    }

    /// [`mwb_common::maps::BondPath::mtu`]: the longest packet that passes, in bytes from
    /// the outer IP header on.
    #[must_use]
    pub fn mtu(&self) -> u32 {
        self.low
    }

    /// Whether a search has come to an end, and what it found still holds.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.settled
    }

    /// Looks at the answers, and says how long a probe is to be that is to be sent now, in
    /// bytes from the outer IP header on. To be called every 100 ms or so. `now` is the
    /// clock of [`Facts::sized_at`].
    pub fn poll(&mut self, now: u64, facts: &Facts) -> Option<u32> {
        if facts.sized_at > self.answered {
            self.answered = facts.sized_at;
            self.passes(now, facts.sized);
        }
        if !facts.alive {
            // What is not answered now says nothing about lengths.
            self.probe = None;
            return None;
        }
        if let Some(probe) = &mut self.probe {
            let patience = (2 * facts.rtt + 100_000_000).clamp(PATIENCE.0, PATIENCE.1);
            if now.saturating_sub(probe.sent_at) < patience {
                return None;
            }
            let most = if facts.loss >= LOSSY { LOSSY_PROBES } else { PROBES };
            if probe.sent < most {
                (probe.sent, probe.sent_at) = (probe.sent + 1, now);
                return Some(probe.length);
            }
            let length = probe.length;
            self.fails(length);
        }
        let length = self.next(now, facts)?;
        self.probe = Some(Probe { length, sent: 1, sent_at: now });
        Some(length)
    }

    fn passes(&mut self, now: u64, length: u32) {
        if length >= self.low {
            (self.confirmed, self.checked_at) = (true, Some(now));
        }
        self.low = self.low.max(length.min(self.most));
        if self.high <= self.low {
            // It did not, for a while.
            self.high = self.low + 1;
        }
        if self.probe.is_some_and(|probe| probe.length <= length) {
            self.probe = None;
        }
    }

    fn fails(&mut self, length: u32) {
        self.probe = None;
        self.high = length;
        if length <= self.low {
            let to = if length > self.base { self.base } else { self.least };
            (self.low, self.confirmed) = (to.min(self.most), false);
            self.settled = false;
            self.raise_after = RAISE_FIRST;
        }
    }

    /// What to find out next.
    fn next(&mut self, now: u64, facts: &Facts) -> Option<u32> {
        if self.raise_at != 0 && now >= self.raise_at {
            self.raise_after = RAISE_EVERY;
            self.raise_at = 0;
            self.high = self.most.saturating_add(1);
        }
        if let Some(length) = self.between() {
            return Some(length);
        }
        if !self.confirmed && self.low > self.least {
            return Some(self.low);
        }
        self.settled = true;
        if self.raise_at == 0 && self.low < self.most {
            self.raise_at = now + self.raise_after;
        }
        let suspicious = facts.loss >= SUSPICIOUS && now >= self.suspect_at;
        let due = self.checked_at.is_none_or(|at| now >= at + check_every(facts.idle));
        if self.low > self.least && (suspicious || due) {
            self.suspect_at = now + SUSPECT_EVERY;
            self.checked_at = Some(now);
            return Some(self.low);
        }
        None
    }

    /// A length between what passes and what does not.
    fn between(&self) -> Option<u32> {
        if self.high > self.most {
            return (self.low < self.most).then_some(self.most);
        }
        let open = |length: &&u32| **length > self.low && **length < self.high;
        let common = COMMON.iter().filter(open).count();
        if common > 0 {
            return COMMON.iter().filter(open).nth(common / 2).copied();
        }
        (self.high - self.low > GRAIN).then_some(self.low.midpoint(self.high))
    }
}

/// A path, as far as [`inner`] has to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outer {
    /// [`Search::mtu`].
    pub mtu: u32,
    /// Its outer packets are IPv6.
    pub is_v6: bool,
    /// [`Search::is_settled`].
    pub settled: bool,
    /// It can be used.
    pub alive: bool,
}

/// What a packet has in front of the inner one: IP, UDP, header.
#[must_use]
pub fn overhead(suite: Suite, is_v6: bool) -> u32 {
    let ip = if is_v6 { 40 } else { 20 };
    ip + 8 + header_length(suite)
}

/// The longest inner packet that a path takes.
#[must_use]
pub fn inner_of(suite: Suite, mtu: u32, is_v6: bool) -> u32 {
    mtu.saturating_sub(overhead(suite, is_v6))
}

/// [`mwb_common::maps::Session::mtu`]: the longest inner packet that every path takes,
/// of those that have been measured; as long as none has, of all. A path that joins
/// makes packets no shorter before it is known that it has to: until then it takes those
/// that fit. `reserve` bytes less, down to [`LEAST_INNER`]: parity of such packets is longer
/// by so much.
///
/// Narrow paths make packets shorter than [`LEAST_INNER`] only while no others live: what
/// does not fit them would be lost, and IPv6 has no shorter packets to fall back on.
#[must_use]
pub fn inner(suite: Suite, paths: &[Outer], reserve: u32) -> u32 {
    let most = longest(suite, paths);
    most.saturating_sub(reserve).max(most.min(LEAST_INNER))
}

/// The longest inner packet that every path takes.
fn longest(suite: Suite, paths: &[Outer]) -> u32 {
    let takes = |path: &Outer| inner_of(suite, path.mtu, path.is_v6);
    let is_narrow = |path: &Outer| path.settled && takes(path) < LEAST_INNER;
    let any_lives = paths.iter().any(|path| path.alive);
    let in_use = || paths.iter().filter(move |path| path.alive || !any_lives);
    if in_use().all(is_narrow) {
        return in_use().map(takes).min().unwrap_or(LEAST_INNER);
    }
    let least = |settled: bool| {
        let some = paths.iter().filter(move |path| path.settled || !settled);
        some.filter(|path| !is_narrow(path)).map(takes).min()
    };
    least(true).or(least(false)).unwrap_or(LEAST_INNER).max(LEAST_INNER)
}

#[cfg(test)]
#[path = "mtu_tests.rs"]
mod tests;
