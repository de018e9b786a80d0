//! For how long a WAN must prove itself before it is used again: longer with
//! every relapse, shorter again in calm times. Pure.
//!
//! A **relapse** is a WAN that fails, or becomes poor, within [`HoldDown::window`]
//! after it came back. Each doubles the time, from `failback_after` up to
//! `hold_down_max`. The window is `hold_down_max` too: a WAN that fails more
//! rarely is not flapping. Every window in which a WAN is well without a break
//! takes one doubling back.
//!
//! Only coming back waits. Must not know: states, probes.

use std::time::{Duration, Instant};

/// What a WAN that need not wait at all waits with its first relapse is twice
/// this.
const LEAST: Duration = Duration::from_millis(500);

/// The hold-down of one WAN.
#[derive(Clone, Debug)]
pub struct HoldDown {
    base: Duration,
    max: Duration,
    /// How often `base` is doubled.
    doublings: u32,
    relapses: u32,
    /// When it came back, until it has failed after that.
    back_since: Option<Instant>,
    /// Since when it has been well, less the windows that were made use of.
    calm_since: Option<Instant>,
}

/// What is known about a WAN's hold-down, for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// How long it must answer before it is used again, if it fails now or has.
    pub time: Duration,
    /// Relapses since it was last calm for long.
    pub relapses: u32,
    /// When it may be used again, if it is being held.
    pub until: Option<Instant>,
}

impl HoldDown {
    /// A WAN without a history; `max` counts if it is more than `base`.
    #[must_use]
    pub fn new(base: Duration, max: Duration) -> Self {
        let max = max.max(base);
        Self { base, max, doublings: 0, relapses: 0, back_since: None, calm_since: None }
    }

    /// Takes other settings; the history stays.
    pub fn configure(&mut self, base: Duration, max: Duration) {
        (self.base, self.max) = (base, max.max(base));
    }

    /// How soon after its return a failure is a relapse, and how long a calm
    /// time is.
    #[must_use]
    pub fn window(&self) -> Duration {
        self.max
    }

    /// How long the WAN must answer before it is used again.
    #[must_use]
    pub fn time(&self) -> Duration {
        if self.doublings == 0 {
            return self.base;
        }
        let factor = 1u32.checked_shl(self.doublings).unwrap_or(u32::MAX);
        self.base.max(LEAST).saturating_mul(factor).min(self.max)
    }

    /// Relapses since it was last calm for long.
    #[must_use]
    pub fn relapses(&self) -> u32 {
        self.relapses
    }

    /// The WAN is used again, or is good again.
    pub fn back(&mut self, now: Instant) {
        self.back_since = Some(now);
    }

    /// The WAN has failed, or become poor.
    pub fn failed(&mut self, now: Instant) {
        self.calm_since = None;
        let window = self.window();
        let relapse = |since: Instant| now.duration_since(since) < window;
        if !self.back_since.take().is_some_and(relapse) {
            return;
        }
        self.relapses = self.relapses.saturating_add(1);
        if self.time() < self.max {
            self.doublings += 1;
        }
    }

    /// The WAN is well.
    pub fn well(&mut self, now: Instant) {
        let since = self.calm_since.get_or_insert(now);
        while self.doublings > 0 && now.duration_since(*since) >= self.max {
            *since += self.max;
            self.doublings -= 1;
        }
        if self.doublings == 0 {
            self.relapses = 0;
        }
    }
}

#[cfg(test)]
#[path = "hold_tests.rs"]
mod tests;
