//! How old the keys of a session may become. Forwarding outlives the agents: while only
//! one of the two is dead there is nobody to agree on new keys with, and the data plane of
//! the other end still seals with those that there are. So the keys that seal are kept
//! beyond their time for as long as authentic packets come; all others end with it.

use std::time::{Duration, Instant};

use mwb_common::integrity::seal::Key;
use mwb_common::maps::session_flag;

use super::session::{Session, parity};
use crate::bond::lifetime::{self, is_due, is_over};
use crate::dataplane::{BondMaps, Error};

/// What time has made of a session's keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Age {
    /// Nothing that anybody must know.
    Good,
    /// From now on those that seal are older than they should be, and kept.
    Overdue,
    /// There are none left that seal: the session has ended, and is not there for packets
    /// any more.
    Over,
}

impl Session {
    /// Throws away keys whose time is over. `hears`: authentic packets of the session come,
    /// and it has not been replaced; then the keys that seal are kept.
    pub(super) fn expire(
        &mut self,
        maps: &BondMaps,
        now: Instant,
        hears: bool,
    ) -> Result<Age, Error> {
        let (sealing, before) = (self.sealing(), self.overdue);
        let spared = self.spared_until.is_some_and(|until| now < until);
        let mut wiped = Vec::new();
        self.overdue = false;
        for place in 0..2 {
            if spared || !self.made[place].is_some_and(|made| is_over(made, now)) {
                continue;
            }
            if hears && place == sealing {
                self.overdue = true;
                continue;
            }
            (self.made[place], self.keys[place]) = (None, None);
            self.entry.opens &= !(1 << place);
            wiped.push(place);
        }
        let over = self.made[sealing].is_none();
        if over {
            self.entry.flags &= !session_flag::PRESENT;
        }
        if !wiped.is_empty() {
            // A write is no one step for who reads meanwhile: first nothing is opened with a
            // key any more, then it is none.
            self.write(maps)?;
            for place in wiped {
                (self.entry.seal[place], self.entry.open[place]) = (Key::default(), Key::default());
            }
            self.write(maps)?;
        }
        Ok(match (over, self.overdue && !before) {
            (true, _) => Age::Over,
            (false, true) => Age::Overdue,
            (false, false) => Age::Good,
        })
    }

    /// Whether authentic packets came of late, as of the last look. `now` is the clock of
    /// the kernel side.
    pub(super) fn hears(&self, now: u64) -> bool {
        let heard = self.paths.values().map(|link| link.state.heard).max().unwrap_or(0);
        let since = Duration::from_nanos(now.saturating_sub(heard));
        heard != 0 && since <= lifetime::HEARD_WITHIN
    }

    /// Whether it is time for new keys.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        let sent = self.paths.iter().map(|(path, link)| {
            link.state.sent.saturating_sub(self.sent_before.get(path).copied().unwrap_or(0))
        });
        let made = self.made[parity(self.entry.epoch)];
        made.is_none_or(|made| is_due(made, now, sent.max().unwrap_or(0)))
    }

    /// Age of the newest keys.
    pub(super) fn keys_age(&self, now: Instant) -> Option<Duration> {
        self.made[parity(self.entry.epoch)].map(|made| now.saturating_duration_since(made))
    }

    /// Whether the keys that seal are older than they should be, and kept.
    pub(super) fn is_overdue(&self) -> bool {
        self.overdue
    }
}
