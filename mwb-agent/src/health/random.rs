//! A small generator: runs with one seed are the same everywhere. Pure.

/// xorshift64* (Vigna 2016).
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    /// Starts from `seed`; zero, which the generator cannot leave, is replaced.
    #[must_use]
    pub(super) fn new(seed: u64) -> Self {
        Self(if seed == 0 { 0x9e37_79b9_7f4a_7c15 } else { seed })
    }

    /// 64 random bits.
    pub(super) fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`; 0 if that is 0.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.bits().checked_rem(end).unwrap_or(0)
    }

    /// A number in 0..1.
    #[cfg(test)]
    pub(super) fn part(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_run_and_parts_are_spread_evenly() {
        let run = |seed| {
            let mut random = Random::new(seed);
            (0..10_000).map(|_| random.part()).collect::<Vec<f64>>()
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
        for seed in [0, 1, 7] {
            let parts = run(seed);
            let low = parts.iter().filter(|part| **part < 0.1).count();
            assert!((900..1100).contains(&low), "{seed}: {low}");
        }
    }
}
