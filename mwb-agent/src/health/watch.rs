//! Drives a checker for one WAN and reports what follows from its answers.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::time::{Interval, MissedTickBehavior};

use super::machine::{Input, Machine, Reason, Settings, State, Transition};
use super::probes::{Fate, Probes};
use super::quality::{Measured, Quality, Thresholds};
use super::{Cause, Checker, Held, Link};

/// How a WAN begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Usable until proven otherwise.
    Unknown,
    /// An earlier run of the agent had given it up.
    Down,
}

/// How WANs are watched. It can change while they are: what is known of a WAN
/// stays known.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// Time between two rounds of probes.
    pub interval: Duration,
    /// When the state changes.
    pub settings: Settings,
    /// When the link counts as poor.
    pub thresholds: Thresholds,
    /// Whom to ask; without any of a family that the WAN has, its gateways.
    pub targets: Vec<IpAddr>,
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
}

/// Watches one WAN until nobody wants its reports or tells of its link any more.
pub async fn watch<C: Checker>(
    path: u8,
    start: Start,
    mut schedule: watch::Receiver<Schedule>,
    mut checker: C,
    mut link: watch::Receiver<Link>,
    reports: mpsc::Sender<Report>,
) {
    let begun = schedule.borrow_and_update().clone();
    checker.aim(&begun.targets);
    let mut rounds = rounds(begun.interval);
    let mut watcher = Watcher::new(path, start, begun);
    // Before the first round: without a link it would be sent nowhere.
    let first = link.borrow_and_update().clone();
    let mut news: Vec<Report> = watcher.relink(&mut checker, first).into_iter().collect();
    loop {
        // What has arrived is told first, whatever woke us: an answer that
        // waits in the socket is no miss.
        news.extend(watcher.hear(&mut checker));
        news.extend(watcher.judge(now()));
        for report in news.drain(..) {
            if reports.send(report).await.is_err() {
                return;
            }
        }
        let judgement = watcher.next_judgement();
        tokio::select! {
            changed = link.changed() => {
                if changed.is_err() {
                    return;
                }
                let link = link.borrow_and_update().clone();
                news.extend(watcher.relink(&mut checker, link));
            }
            Ok(()) = schedule.changed() => {
                let schedule = schedule.borrow_and_update().clone();
                checker.aim(&schedule.targets);
                if schedule.interval != watcher.interval {
                    rounds = self::rounds(schedule.interval);
                }
                watcher.configure(&schedule);
            }
            () = checker.ready() => {}
            () = until(judgement) => {}
            _ = rounds.tick() => {
                news.extend(watcher.hear(&mut checker));
                news.extend(watcher.round(&mut checker));
            }
            () = reports.closed() => return,
        }
    }
}

fn rounds(interval: Duration) -> Interval {
    let mut rounds = tokio::time::interval(interval);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    rounds
}

/// The monotonic clock, by way of the runtime so that tests can drive it.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

struct Watcher {
    path: u8,
    interval: Duration,
    probes: Probes,
    quality: Quality,
    machine: Machine,
    link: Link,
    number: u16,
    /// Why the checker could not be bound to the device.
    unbound: Option<String>,
}

impl Watcher {
    fn new(path: u8, start: Start, schedule: Schedule) -> Self {
        let now = now();
        let machine = match start {
            Start::Unknown => Machine::new(schedule.settings, now),
            Start::Down => Machine::down(schedule.settings, now),
        };
        Self {
            path,
            interval: schedule.interval,
            probes: Probes::new(schedule.interval, schedule.settings.retries),
            quality: Quality::new(schedule.thresholds),
            machine,
            link: Link::default(),
            number: 0,
            unbound: None,
        }
    }

    fn configure(&mut self, schedule: &Schedule) {
        if (self.interval, self.machine.retries()) != (schedule.interval, schedule.settings.retries)
        {
            // What is under way was sent by the old clock; a WAN is not called
            // down for that.
            self.probes = Probes::new(schedule.interval, schedule.settings.retries);
        }
        self.interval = schedule.interval;
        self.machine.configure(schedule.settings);
        self.quality.configure(schedule.thresholds);
        self.quality.recover_after(self.machine.held().time);
    }

    fn grace(&self) -> Duration {
        let Measured { rtt, jitter, .. } = self.quality.measured();
        self.probes.grace(rtt, jitter)
    }

    fn next_judgement(&self) -> Option<Instant> {
        self.probes.next_judgement(self.grace())
    }

    fn hear(&mut self, checker: &mut impl Checker) -> Vec<Report> {
        let mut news = Vec::new();
        while let Some(answer) = checker.take() {
            let now = now();
            // Without a carrier nothing can have arrived just now.
            if !self.link.carrier {
                continue;
            }
            if let Some(rtt) = self.probes.answered(answer.round, now) {
                // What was before the outage says nothing about after; nor
                // does what was sent into it.
                if self.machine.state() == State::Down {
                    self.quality.reset();
                    self.probes.forget();
                }
                self.quality.answered(now, rtt);
                news.push(self.observe(now, Input::Answer(self.quality.poor())));
            }
        }
        news
    }

    fn judge(&mut self, now: Instant) -> Vec<Report> {
        let grace = self.grace();
        let mut news = Vec::new();
        for fate in self.probes.judge(now, grace) {
            match fate {
                Fate::Missed => news.push(self.observe(now, Input::Miss(Cause::NoAnswer))),
                Fate::Lost => self.quality.lost(now),
            }
        }
        news
    }

    fn relink(&mut self, checker: &mut impl Checker, link: Link) -> Option<Report> {
        let now = now();
        let source =
            |link: &Link| (link.ifindex, link.v4.map(|h| h.source), link.v6.map(|h| h.source));
        if source(&link) != source(&self.link) {
            self.probes.forget();
        }
        self.unbound = checker.bind(&link).err().map(|error| error.to_string());
        self.link = link;
        self.absent().map(|input| {
            self.probes.forget();
            self.observe(now, input)
        })
    }

    fn round(&mut self, checker: &mut impl Checker) -> Option<Report> {
        let now = now();
        if let Some(input) = self.absent() {
            return Some(self.observe(now, input));
        }
        if self.unbound.is_some() {
            self.unbound = checker.bind(&self.link).err().map(|error| error.to_string());
        }
        self.number = self.number.wrapping_add(1);
        let sent = match &self.unbound {
            Some(why) => Err(Cause::NotSent(why.clone())),
            None => checker.send(self.number),
        };
        match sent {
            Ok(()) => {
                self.probes.sent(self.number, now);
                None
            }
            Err(cause) => Some(self.observe(now, Input::Miss(cause))),
        }
    }

    /// What makes probes pointless.
    fn absent(&self) -> Option<Input> {
        match (self.link.ifindex, self.link.carrier) {
            (None, _) => Some(Input::DeviceMissing),
            (Some(_), false) => Some(Input::CarrierLost),
            (Some(_), true) => None,
        }
    }

    fn observe(&mut self, now: Instant, input: Input) -> Report {
        let transition = self.machine.observe(now, input);
        let state = self.machine.state();
        let mut held = self.machine.held();
        // What flaps between good and poor is held as well.
        self.quality.recover_after(held.time);
        if state == State::Degraded {
            held.until = self.quality.recovers_at();
        }
        let mut measured = self.quality.measured();
        if state == State::Down {
            // The times of a link that does not answer are history.
            (measured.rtt, measured.jitter) = (None, None);
        }
        Report {
            path: self.path,
            state,
            reason: self.machine.reason().clone(),
            transition,
            measured,
            held,
        }
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
