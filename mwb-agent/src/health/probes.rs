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

/// What has become of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Overdue: counts towards `retries`.
    Missed,
    /// Will not be answered any more: counts as loss.
    Lost,
}

#[derive(Clone, Copy, Debug)]
struct Round {
    number: u16,
    sent: Instant,
    answered: bool,
    judged: bool,
}

/// The probes of one WAN.
#[derive(Clone, Debug)]
pub struct Probes {
    interval: Duration,
    patience: Duration,
    rounds: VecDeque<Round>,
    last_answer: Option<Instant>,
}

impl Probes {
    /// Rounds are sent every `interval`; `retries` misses make a WAN down.
    #[must_use]
    pub fn new(interval: Duration, retries: u32) -> Self {
        let patience = (interval * retries).max(Duration::from_secs(1));
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
    pub fn sent(&mut self, number: u16, now: Instant) {
        self.rounds.push_back(Round { number, sent: now, answered: false, judged: false });
    }

    /// An answer came. The round-trip time if it is the first to its round;
    /// `None` for a further target's, a late or an invented one.
    pub fn answered(&mut self, number: u16, now: Instant) -> Option<Duration> {
        let round = self.rounds.iter_mut().find(|round| round.number == number)?;
        self.last_answer = Some(now);
        if round.answered {
            return None;
        }
        round.answered = true;
        Some(now.duration_since(round.sent))
    }

    /// The fates that have come true by `now`, in order. To be called after all
    /// answers that have arrived were told.
    pub fn judge(&mut self, now: Instant, grace: Duration) -> Vec<Fate> {
        let mut fates = Vec::new();
        for round in &mut self.rounds {
            if !round.judged && now.duration_since(round.sent) >= grace {
                round.judged = true;
                if !round.answered && self.last_answer.is_none_or(|answer| answer < round.sent) {
                    fates.push(Fate::Missed);
                }
            }
        }
        while let Some(round) = self.rounds.front() {
            if now.duration_since(round.sent) < self.patience {
                break;
            }
            if !round.answered {
                fates.push(Fate::Lost);
            }
            self.rounds.pop_front();
        }
        fates
    }

    /// When [`Probes::judge`] has something to do next.
    #[must_use]
    pub fn next_judgement(&self, grace: Duration) -> Option<Instant> {
        let overdue = self.rounds.iter().find(|round| !round.judged).map(|r| r.sent + grace);
        let lost = self.rounds.front().map(|round| round.sent + self.patience);
        overdue.into_iter().chain(lost).min()
    }

    /// Forgets what is on its way: the device or its address has changed.
    pub fn forget(&mut self) {
        self.rounds.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const INTERVAL: Duration = Duration::from_millis(200);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Runs rounds every interval over a link with a fixed round trip that is
    /// cut at `cut`; returns when each miss was told.
    fn misses(rtt: Duration, cut: Duration, until: Duration) -> Vec<Duration> {
        let start = Instant::now();
        let mut probes = Probes::new(INTERVAL, 3);
        let grace = probes.grace(Some(rtt), None);
        let (mut told, mut answers) = (Vec::new(), VecDeque::new());
        let mut number = 0;
        let mut at = Duration::ZERO;
        while at < until {
            if at == INTERVAL * u32::from(number) {
                probes.sent(number, start + at);
                if at + rtt / 2 < cut {
                    answers.push_back((at + rtt, number));
                }
                number += 1;
            }
            while let Some(&(arrival, number)) =
                answers.front().filter(|(arrival, _)| *arrival <= at)
            {
                answers.pop_front();
                assert_eq!(probes.answered(number, start + arrival), Some(rtt));
            }
            let missed = probes.judge(start + at, grace).into_iter().filter(|f| *f == Fate::Missed);
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
        let mut probes = Probes::new(INTERVAL, 3);
        probes.sent(7, now);
        assert_eq!(probes.answered(8, now + ms(5)), None);
        assert_eq!(probes.answered(7, now + ms(10)), Some(ms(10)));
        assert_eq!(probes.answered(7, now + ms(12)), None);
    }

    #[test]
    fn an_unanswered_round_is_missed_and_then_lost_once() {
        let now = Instant::now();
        let mut probes = Probes::new(INTERVAL, 3);
        probes.sent(1, now);
        assert_eq!(probes.next_judgement(ms(100)), Some(now + ms(100)));
        assert_eq!(probes.judge(now + ms(99), ms(100)), []);
        assert_eq!(probes.judge(now + ms(100), ms(100)), [Fate::Missed]);
        assert_eq!(probes.next_judgement(ms(100)), Some(now + ms(1000)));
        assert_eq!(probes.judge(now + ms(1000), ms(100)), [Fate::Lost]);
        assert_eq!(probes.next_judgement(ms(100)), None);
        assert_eq!(probes.answered(1, now + ms(1001)), None);
    }

    proptest! {
        #[test]
        fn every_round_is_answered_or_lost(answered in prop::collection::vec(any::<bool>(), 1..100)) {
            let start = Instant::now();
            let mut probes = Probes::new(INTERVAL, 3);
            let (mut times, mut lost) = (0, 0);
            let mut now = start;
            for (number, &answer) in (0u16..).zip(&answered) {
                probes.sent(number, now);
                now += ms(10);
                times += usize::from(answer && probes.answered(number, now).is_some());
                now += ms(190);
                lost += probes.judge(now, ms(100)).into_iter().filter(|f| *f == Fate::Lost).count();
            }
            now += ms(2000);
            lost += probes.judge(now, ms(100)).into_iter().filter(|f| *f == Fate::Lost).count();
            prop_assert_eq!(times + lost, answered.len());
            prop_assert!(probes.next_judgement(ms(100)).is_none());
        }
    }
}
