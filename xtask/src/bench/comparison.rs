//! Repetitions of one load on lanes side by side, and what they say of the first against
//! the others.

use anyhow::{Context as _, Result, anyhow};

use super::stats::{median, spread};

/// A repetition, as a rate.
pub(super) trait Rated {
    /// Of what is compared, by second.
    fn rate(&self) -> f64;
}

/// The repetitions of one load: a result of each lane, in the order of the lanes.
pub(super) struct Rounds<T, const LANES: usize>(Vec<[T; LANES]>);

impl<T, const LANES: usize> Rounds<T, LANES> {
    /// So many repetitions, each on all lanes in turn.
    ///
    /// # Errors
    /// When one cannot be measured.
    pub(super) fn measure<L>(
        lanes: &mut [L; LANES],
        rounds: usize,
        mut measure: impl FnMut(&mut L) -> Result<T>,
    ) -> Result<Self> {
        (0..rounds).map(|round| in_turn(lanes, round, &mut measure)).collect()
    }

    /// The middle one of a value of each round.
    pub(super) fn of(&self, value: impl Fn(&[T; LANES]) -> f64) -> f64 {
        median(self.0.iter().map(value))
    }

    /// The middle one of a value of each round of one lane.
    pub(super) fn of_lane(&self, lane: usize, value: impl Fn(&T) -> f64) -> f64 {
        self.of(|round| round.get(lane).map_or(f64::NAN, &value))
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl<T: Rated, const LANES: usize> Rounds<T, LANES> {
    /// The rate of a lane.
    pub(super) fn rate(&self, lane: usize) -> f64 {
        self.of_lane(lane, Rated::rate)
    }

    /// The middle one of the rounds' ratios of the first lane to another, each of
    /// neighbours in time.
    pub(super) fn ratio_to(&self, lane: usize) -> f64 {
        self.of(|round| ratio(round, lane))
    }

    /// The ratio to the second lane, which the first is measured by.
    pub(super) fn ratio(&self) -> f64 {
        self.ratio_to(PEER)
    }

    /// How far one round's ratio is from the middle as a rule, in percent.
    pub(super) fn spread(&self) -> f64 {
        spread(self.0.iter().map(|round| ratio(round, PEER)))
    }
}

impl<T, const LANES: usize> FromIterator<[T; LANES]> for Rounds<T, LANES> {
    fn from_iter<I: IntoIterator<Item = [T; LANES]>>(rounds: I) -> Self {
        Self(rounds.into_iter().collect())
    }
}

/// The lane that the first is measured by.
const PEER: usize = 1;

fn ratio<T: Rated, const LANES: usize>(round: &[T; LANES], lane: usize) -> f64 {
    let rate = |lane: usize| round.get(lane).map_or(f64::NAN, Rated::rate);
    rate(0) / rate(lane)
}

/// One repetition on all lanes in turn, another one first each time, so that whatever
/// else the machine does hits all alike.
///
/// # Errors
/// When one cannot be measured.
pub(super) fn in_turn<L, T, const LANES: usize>(
    lanes: &mut [L; LANES],
    round: usize,
    mut measure: impl FnMut(&mut L) -> Result<T>,
) -> Result<[T; LANES]> {
    let mut results = [const { None }; LANES];
    for turn in 0..LANES {
        let which = (round + turn) % LANES;
        let (lane, result) =
            lanes.iter_mut().zip(&mut results).nth(which).context("no such lane")?;
        *result = Some(measure(lane)?);
    }
    let results: Vec<T> = results.into_iter().flatten().collect();
    results.try_into().map_err(|_| anyhow!("a lane was left out"))
}

/// The worst of some ratios, to two digits: what a headline has.
pub(super) fn worst(ratios: impl IntoIterator<Item = f64>) -> f64 {
    let worst = ratios.into_iter().fold(f64::INFINITY, f64::min);
    (worst * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Rated for f64 {
        fn rate(&self) -> f64 {
            *self
        }
    }

    #[test]
    fn each_lane_is_the_first_in_turn_and_keeps_its_place() -> Result<()> {
        let mut order = Vec::new();
        let mut lanes = [10.0, 5.0, 2.0];
        let rounds = Rounds::measure(&mut lanes, 3, |lane: &mut f64| {
            order.push(*lane);
            Ok(*lane)
        })?;
        assert_eq!(order, [10.0, 5.0, 2.0, 5.0, 2.0, 10.0, 2.0, 10.0, 5.0]);
        assert_eq!((rounds.ratio(), rounds.ratio_to(2), rounds.len()), (2.0, 5.0, 3));
        assert_eq!((rounds.rate(1), rounds.spread()), (5.0, 0.0));
        assert!(rounds.rate(3).is_nan());
        Ok(())
    }

    #[test]
    fn the_worst_ratio_has_two_digits() {
        assert_eq!(worst([3.0, 2.004, 2.5]), 2.0);
    }
}
