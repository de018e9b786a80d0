//! Which probes are on their way, which came back, which are overdue. Pure.
//!
//! A round of probes is **missed** when `grace` after it was sent no answer at
//! all has come since it was sent, be it to this round or to an earlier one: on
//! a link with a round trip longer than the interval answers keep coming, late
//! but steadily. A cut is so noticed `interval * retries + grace` after the
//! last round that got through. A round is **lost**, for the statistics, when
//! it has not been answered after [`Probes::patience`].

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::machine::Cause;

/// What an answer that came just in time takes to be heard.
const HEARD: Duration = Duration::from_millis(100);

/// What has become of a round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Overdue, or answered as it should not be: counts towards `retries`.
    Missed(Cause),
    /// Will not be answered any more: counts as loss.
    Lost,
}

/// A fate, and the round that it is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// What was asked, by its place in the plan.
    pub way: usize,
    /// What has become of it.
    pub fate: Fate,
}

#[derive(Clone, Debug)]
struct Round {
    number: u16,
    way: usize,
    sent: Instant,
    /// How many must answer.
    quorum: u32,
    /// How many still may.
    open: u32,
    /// Who has: a bit for each.
    good: u64,
    answered: bool,
    judged: bool,
    /// What one has said that did not answer as it should.
    cause: Option<Cause>,
}

/// The probes of one WAN.
#[derive(Clone, Debug)]
pub struct Probes {
    interval: Duration,
    patience: Duration,
    rounds: VecDeque<Round>,
    last_answer: Option<Instant>,
}

/// A round as it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Its number.
    pub number: u16,
    /// What is asked, by its place in the plan.
    pub way: usize,
    /// How many are asked; at least one.
    pub asked: u32,
    /// How many must answer; more than are asked cannot.
    pub quorum: u32,
}

impl Probes {
    /// Rounds are sent every `interval`; `retries` misses make a WAN down. `timeout` is how
    /// long an answer may take that says itself when it has waited long enough.
    #[must_use]
    pub fn new(interval: Duration, retries: u32, timeout: Option<Duration>) -> Self {
        let slowest = timeout.map_or(Duration::ZERO, |timeout| timeout + HEARD);
        let patience = (interval * retries).max(Duration::from_secs(1)).max(slowest);
        Self { interval, patience, rounds: VecDeque::new(), last_answer: None }
    }

    /// How long an answer is waited for.
    #[must_use]
    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// How late an answer may be before its round is missed: what the link is
    /// used to (smoothed time and four times the jitter, as RFC 6298 does for
    /// TCP), within half an interval and one interval. A link that nothing is
    /// known of yet may be a satellite: all patience.
    #[must_use]
    pub fn grace(&self, rtt: Option<Duration>, jitter: Option<Duration>) -> Duration {
        let Some(rtt) = rtt else { return self.patience };
        (rtt + jitter.unwrap_or_default() * 4).clamp(self.interval / 2, self.interval)
    }

    /// A round was sent.
    pub fn sent(&mut self, sent: Sent, now: Instant) {
        let Sent { number, way, asked, quorum } = sent;
        self.rounds.push_back(Round {
            number,
            way,
            sent: now,
            quorum: quorum.clamp(1, asked.max(1)),
            open: asked,
            good: 0,
            answered: false,
            judged: false,
            cause: None,
        });
    }

    /// An answer came of the target of that place. The time since the round was
    /// sent, and what was asked, if it makes the round's quorum; `None` for a
    /// further target's, a late or an invented one.
    pub fn answered(&mut self, number: u16, who: usize, now: Instant) -> Option<(usize, Duration)> {
        let round = self.rounds.iter_mut().find(|round| round.number == number)?;
        let bit = 1_u64.checked_shl(u32::try_from(who).ok()?)?;
        if round.good & bit == 0 {
            round.good |= bit;
            round.open = round.open.saturating_sub(1);
        }
        if round.good.count_ones() < round.quorum {
            return None;
        }
        self.last_answer = Some(now);
        if round.answered {
            return None;
        }
        round.answered = true;
        Some((round.way, now.duration_since(round.sent)))
    }

    /// One of those that were asked will not answer as it should, and says why, or
    /// is silent for good. A fate if the round cannot have its quorum any more.
    pub fn refused(&mut self, number: u16, cause: Cause) -> Option<Judged> {
        let round = self.rounds.iter_mut().find(|round| round.number == number)?;
        round.open = round.open.saturating_sub(1);
        if round.cause.is_none() || cause != Cause::NoAnswer {
            round.cause = Some(cause.clone());
        }
        if round.good.count_ones() + round.open >= round.quorum || round.judged || round.answered {
            return None;
        }
        round.judged = true;
        if self.last_answer.is_some_and(|answer| answer >= round.sent) {
            return None;
        }
        Some(Judged { way: round.way, fate: Fate::Missed(cause) })
    }

    /// The fates that have come true by `now`, in order. To be called after all
    /// answers that have arrived were told.
    pub fn judge(&mut self, now: Instant, grace: impl Fn(usize) -> Duration) -> Vec<Judged> {
        let mut fates = Vec::new();
        for round in &mut self.rounds {
            if !round.judged && now.duration_since(round.sent) >= grace(round.way) {
                round.judged = true;
                if !round.answered && self.last_answer.is_none_or(|answer| answer < round.sent) {
                    let cause = round.cause.clone().unwrap_or(Cause::NoAnswer);
                    fates.push(Judged { way: round.way, fate: Fate::Missed(cause) });
                }
            }
        }
        while let Some(round) = self.rounds.front() {
            if now.duration_since(round.sent) < self.patience {
                break;
            }
            if !round.answered {
                fates.push(Judged { way: round.way, fate: Fate::Lost });
            }
            self.rounds.pop_front();
        }
        fates
    }

    /// When [`Probes::judge`] has something to do next.
    #[must_use]
    pub fn next_judgement(&self, grace: impl Fn(usize) -> Duration) -> Option<Instant> {
        let open = self.rounds.iter().filter(|round| !round.judged);
        let overdue = open.map(|round| round.sent + grace(round.way)).min();
        let lost = self.rounds.front().map(|round| round.sent + self.patience);
        overdue.into_iter().chain(lost).min()
    }

    /// Forgets what is on its way: the device or its address has changed, or the link works
    /// again. By which ways those rounds were sent that had no answer.
    pub fn forget(&mut self) -> Vec<usize> {
        self.rounds.drain(..).filter(|round| !round.answered).map(|round| round.way).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const INTERVAL: Duration = Duration::from_millis(200);

    const MISSED: Judged = Judged { way: 0, fate: Fate::Missed(Cause::NoAnswer) };
    const LOST: Judged = Judged { way: 0, fate: Fate::Lost };

    /// A round that asks one target.
    fn one(number: u16) -> Sent {
        Sent { number, way: 0, asked: 1, quorum: 1 }
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Runs rounds every interval over a link with a fixed round trip that is
    /// cut at `cut`; returns when each miss was told.
    fn misses(rtt: Duration, cut: Duration, until: Duration) -> Vec<Duration> {
        let start = Instant::now();
        let mut probes = Probes::new(INTERVAL, 3, None);
        let grace = probes.grace(Some(rtt), None);
        let (mut told, mut answers) = (Vec::new(), VecDeque::new());
        let mut number = 0;
        let mut at = Duration::ZERO;
        while at < until {
            if at == INTERVAL * u32::from(number) {
                probes.sent(one(number), start + at);
                if at + rtt / 2 < cut {
                    answers.push_back((at + rtt, number));
                }
                number += 1;
            }
            while let Some(&(arrival, number)) =
                answers.front().filter(|(arrival, _)| *arrival <= at)
            {
                answers.pop_front();
                assert_eq!(probes.answered(number, 0, start + arrival), Some((0, rtt)));
            }
            let missed = probes.judge(start + at, |_| grace).into_iter().filter(|j| *j == MISSED);
            told.extend(missed.map(|_| at));
            at += ms(1);
        }
        told
    }

    #[test]
    fn a_cut_is_noticed_after_three_intervals_and_the_grace() {
        // The last round through is that of 1,000 ms.
        assert_eq!(misses(ms(20), ms(1100), ms(1750)), [ms(1300), ms(1500), ms(1700)]);
    }

    #[test]
    fn a_round_trip_longer_than_the_interval_is_no_miss() {
        for rtt in [150, 199, 250, 600, 900] {
            let told = misses(ms(rtt), ms(60_000), ms(10_000));
            // Before the first answer nothing is known.
            assert!(told.iter().all(|at| *at < ms(rtt) + INTERVAL), "{rtt}: {told:?}");
        }
    }

    #[test]
    fn only_the_first_answer_to_a_round_has_a_time() {
        let now = Instant::now();
        let mut probes = Probes::new(INTERVAL, 3, None);
        probes.sent(Sent { asked: 2, ..one(7) }, now);
        assert_eq!(probes.answered(8, 0, now + ms(5)), None);
        assert_eq!(probes.answered(7, 0, now + ms(10)), Some((0, ms(10))));
        assert_eq!(probes.answered(7, 1, now + ms(12)), None);
    }

    #[test]
    fn a_quorum_is_of_different_targets_and_takes_the_time_of_the_last() {
        let now = Instant::now();
        let mut probes = Probes::new(INTERVAL, 3, None);
        probes.sent(Sent { number: 1, way: 2, asked: 3, quorum: 2 }, now);
        assert_eq!(probes.answered(1, 0, now + ms(5)), None);
        assert_eq!(probes.answered(1, 0, now + ms(6)), None);
        assert_eq!(probes.answered(1, 2, now + ms(9)), Some((2, ms(9))));
        // More than are asked cannot answer.
        probes.sent(Sent { number: 2, way: 0, asked: 1, quorum: 3 }, now);
        assert_eq!(probes.answered(2, 0, now + ms(10)), Some((0, ms(10))));
    }

    #[test]
    fn a_round_that_cannot_have_its_quorum_is_missed_at_once_and_once() {
        let now = Instant::now();
        let mut probes = Probes::new(INTERVAL, 3, None);
        let wrong = || Cause::Wrong("status 503".to_owned());
        probes.sent(Sent { number: 1, way: 1, asked: 3, quorum: 2 }, now);
        assert_eq!(probes.refused(1, Cause::NoAnswer), None);
        assert_eq!(probes.answered(1, 1, now + ms(5)), None);
        let missed = Judged { way: 1, fate: Fate::Missed(wrong()) };
        assert_eq!(probes.refused(1, wrong()), Some(missed));
        assert_eq!(probes.judge(now + ms(500), |_| ms(100)), []);
        // Of one that is only overdue what was heard is the cause.
        probes.sent(Sent { number: 2, way: 0, asked: 2, quorum: 1 }, now + ms(500));
        assert_eq!(probes.refused(2, wrong()), None);
        let missed = Judged { way: 0, fate: Fate::Missed(wrong()) };
        assert_eq!(probes.judge(now + ms(600), |_| ms(100)), [missed]);
    }

    #[test]
    fn an_unanswered_round_is_missed_and_then_lost_once() {
        let now = Instant::now();
        let mut probes = Probes::new(INTERVAL, 3, None);
        probes.sent(one(1), now);
        assert_eq!(probes.next_judgement(|_| ms(100)), Some(now + ms(100)));
        assert_eq!(probes.judge(now + ms(99), |_| ms(100)), []);
        assert_eq!(probes.judge(now + ms(100), |_| ms(100)), [MISSED]);
        assert_eq!(probes.next_judgement(|_| ms(100)), Some(now + ms(1000)));
        assert_eq!(probes.judge(now + ms(1000), |_| ms(100)), [LOST]);
        assert_eq!(probes.next_judgement(|_| ms(100)), None);
        assert_eq!(probes.answered(1, 0, now + ms(1001)), None);
    }

    proptest! {
        #[test]
        fn every_round_is_answered_or_lost(answered in prop::collection::vec(any::<bool>(), 1..100)) {
            let start = Instant::now();
            let mut probes = Probes::new(INTERVAL, 3, None);
            let (mut times, mut lost) = (0, 0);
            let mut now = start;
            for (number, &answer) in (0u16..).zip(&answered) {
                probes.sent(one(number), now);
                now += ms(10);
                times += usize::from(answer && probes.answered(number, 0, now).is_some());
                now += ms(190);
                lost += probes.judge(now, |_| ms(100)).into_iter().filter(|j| *j == LOST).count();
            }
            now += ms(2000);
            lost += probes.judge(now, |_| ms(100)).into_iter().filter(|j| *j == LOST).count();
            prop_assert_eq!(times + lost, answered.len());
            prop_assert!(probes.next_judgement(|_| ms(100)).is_none());
        }
    }
}
