//! Drives a checker for one WAN and reports what follows from its answers, and from
//! what passes over the WAN.

use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use super::machine::{Reason, Settings, State, Transition};
use super::pace::{Load, Sample};
use super::plan::{Kind, Plan};
use super::quality::{Measured, Thresholds};
use super::watcher::Watcher;
use super::{Checker, Held, Link};

/// How a WAN begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Usable until proven otherwise.
    Unknown,
    /// An earlier run of the agent had given it up.
    Down,
}

/// How a WAN is watched. It can change while it is: what is known of a WAN
/// stays known.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// Time between two rounds of probes, by default.
    pub interval: Duration,
    /// When the state changes.
    pub settings: Settings,
    /// When the link counts as poor.
    pub thresholds: Thresholds,
    /// How it is asked.
    pub plan: Plan,
    /// Bytes a day that checks may take; `None`: what they take.
    pub budget: Option<u64>,
}

/// Packets of flows that have passed a WAN, ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// To the Internet.
    pub out: u64,
    /// From the Internet: not what the provider's gateway itself sends.
    pub back: u64,
    /// Those out that ask for a TCP connection (SYN).
    pub syns: u64,
    /// Those back that answer one that does (SYN and ACK).
    pub answers: u64,
    /// Those that were for an address of the WAN itself, and came back without having left
    /// (RFC 4787, REQ-9): not among those out, among those back.
    pub turned: u64,
}

impl Passed {
    /// What has passed since then. Counters of a data plane that was made anew begin anew.
    pub(super) fn since(&self, before: &Self) -> Sample {
        let turned = self.turned.saturating_sub(before.turned);
        let back = self.back.saturating_sub(before.back);
        // What was turned round proves nothing. The two counters are not read at the same
        // moment: half as many again are more than that can hide.
        let back_packets = back.saturating_sub(turned.saturating_add(turned / 2));
        let proves = turned == 0 || back_packets > 0;
        let out_packets = self.out.saturating_sub(before.out);
        let asks = turned == 0 || out_packets > 0;
        let syns = self.syns.saturating_sub(before.syns);
        let answers = self.answers.saturating_sub(before.answers);
        Sample {
            out_packets,
            back_packets,
            syns_out: if asks { syns } else { 0 },
            synacks_back: if proves { answers } else { 0 },
        }
    }
}

/// What is known about a WAN after something has happened to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Path id.
    pub path: u8,
    /// State now.
    pub state: State,
    /// Why.
    pub reason: Reason,
    /// The change, if this is one.
    pub transition: Option<Transition>,
    /// How good the link is.
    pub measured: Measured,
    /// For how long it must prove itself.
    pub held: Held,
    /// How it is asked now.
    pub asking: Asking,
    /// Rounds that have come to an end since the report before.
    pub rounds: Vec<(Kind, Ended)>,
    /// Another way to ask was chosen: which, in place of which, and why.
    pub switched: Option<(Kind, Kind, String)>,
}

/// What has become of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Answered, after this time.
    Answered(Duration),
    /// Not answered.
    Lost,
}

/// How a WAN is asked at the moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Asking {
    /// By which kind of check.
    pub by: Option<Kind>,
    /// How often.
    pub interval: Duration,
    /// Whether round-trip times are those of a queue that traffic has made.
    pub loaded: bool,
    /// What is known about each kind that can be chosen, if there are several.
    pub scores: Vec<Scored>,
}

/// What is known about a kind of check on a WAN.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scored {
    /// Which.
    pub kind: Kind,
    /// 0 to 1.
    pub reliability: f64,
    /// Outcomes that counted.
    pub tried: u32,
    /// Of these, answers.
    pub answered: u32,
    /// How often it has answered while the link was dead.
    pub lies: u32,
}

impl From<Load> for bool {
    fn from(load: Load) -> Self {
        load == Load::Saturated
    }
}

/// What a watched WAN is told.
#[derive(Clone, Debug)]
pub struct Told {
    /// How it is to be watched.
    pub schedule: watch::Receiver<Schedule>,
    /// What its device is.
    pub link: watch::Receiver<Link>,
    /// What passes over it.
    pub passed: watch::Receiver<Passed>,
}

/// Watches one WAN until nobody wants its reports or tells of its link any more.
pub async fn watch<C: Checker>(
    path: u8,
    start: Start,
    seed: u64,
    told: Told,
    mut checker: C,
    reports: mpsc::Sender<Report>,
) {
    let Told { mut schedule, mut link, mut passed } = told;
    let begun = schedule.borrow_and_update().clone();
    checker.aim(&begun.plan);
    let mut watcher = Watcher::new(path, start, seed, begun, *passed.borrow_and_update(), now());
    // Before the first round: without a link it would be sent nowhere.
    let first = link.borrow_and_update().clone();
    let mut news: Vec<Report> = watcher.relink(now(), &mut checker, first).into_iter().collect();
    loop {
        // What has arrived is told first, whatever woke us: an answer that
        // waits in the socket is no miss.
        news.extend(watcher.hear(now(), &mut checker));
        news.extend(watcher.judge(now()));
        for report in news.drain(..) {
            if reports.send(report).await.is_err() {
                return;
            }
        }
        let (judgement, round) = (watcher.next_judgement(now()), watcher.next_round(now()));
        tokio::select! {
            changed = link.changed() => {
                if changed.is_err() {
                    return;
                }
                let link = link.borrow_and_update().clone();
                news.extend(watcher.relink(now(), &mut checker, link));
            }
            Ok(()) = schedule.changed() => {
                let schedule = schedule.borrow_and_update().clone();
                if watcher.configure(now(), &schedule) {
                    checker.aim(&schedule.plan);
                }
            }
            Ok(()) = passed.changed() => {
                let passed = *passed.borrow_and_update();
                news.extend(watcher.hear(now(), &mut checker));
                news.extend(watcher.passed(now(), passed));
            }
            () = checker.ready() => {}
            () = until(judgement) => {}
            () = tokio::time::sleep_until(round.into()) => {
                news.extend(watcher.hear(now(), &mut checker));
                news.extend(watcher.round(now(), &mut checker));
            }
            () = reports.closed() => return,
        }
    }
}

/// The monotonic clock, by way of the runtime so that tests can drive it.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

pub(super) async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
