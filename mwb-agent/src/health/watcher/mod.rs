//! One WAN that is watched: puts together what its probes, its traffic and its device
//! say. The clock is handed in.

mod made;
mod told;

use std::time::{Duration, Instant};

use super::auto::Auto;
use super::evidence::{Evidence, MethodId, Outcome as Result_};
use super::machine::{Input, Machine, Poor, State};
use super::pace::{Pace, Sample};
use super::plan::Kind;
use super::probes::{Fate, Judged, Probes, Sent};
use super::quality::{Measured, Quality};
use super::watch::{Ended, Passed, Report, Schedule, Start};
use super::{Answer, Cause, Checker, Link, Outcome};
use made::{auto, pace, probes, qualities};

/// How often is told at least what comes of rounds while packets come back.
const REPORT: Duration = Duration::from_secs(1);

/// The state of what is known.
pub(super) struct Watcher {
    path: u8,
    seed: u64,
    schedule: Schedule,
    probes: Probes,
    /// By way.
    qualities: Vec<Quality>,
    machine: Machine,
    pace: Pace,
    auto: Option<Auto>,
    link: Link,
    passed: Passed,
    number: u16,
    last_round: Option<Instant>,
    /// Why the checker could not be bound to the device.
    unbound: Option<String>,
    /// What the last miss was for.
    cause: Cause,
    /// A round was missed since the last answer.
    in_doubt: bool,
    /// One was answered since then, and not as it should be.
    is_wrong: bool,
    last_report: Option<Instant>,
    /// Whether the check that is a program warns.
    warning: bool,
    loaded: bool,
    ended: Vec<(Kind, Ended)>,
    switched: Option<(Kind, Kind, String)>,
}

impl Watcher {
    pub(super) fn new(
        path: u8,
        start: Start,
        seed: u64,
        schedule: Schedule,
        passed: Passed,
        now: Instant,
    ) -> Self {
        let machine = match start {
            Start::Unknown => Machine::new(schedule.settings, now),
            Start::Down => Machine::down(schedule.settings, now),
        };
        Self {
            path,
            seed,
            probes: probes(&schedule),
            qualities: qualities(&schedule),
            pace: pace(&schedule),
            auto: auto(&schedule.plan, now, seed),
            schedule,
            machine,
            link: Link::default(),
            passed,
            number: 0,
            last_round: None,
            unbound: None,
            cause: Cause::NoAnswer,
            in_doubt: false,
            is_wrong: false,
            last_report: None,
            warning: false,
            loaded: false,
            ended: Vec::new(),
            switched: None,
        }
    }

    /// Takes another schedule. Whether whom to ask is another.
    pub(super) fn configure(&mut self, now: Instant, schedule: &Schedule) -> bool {
        let asks_others = self.schedule.plan != schedule.plan;
        let settings = (schedule.interval, schedule.settings.retries);
        let others = (self.schedule.interval, self.machine.retries()) != settings;
        if others || asks_others {
            // What is under way was sent by the old clock, or asks somebody else; a WAN is
            // not called down for that.
            self.probes = probes(schedule);
        }
        if others || asks_others || self.schedule.budget != schedule.budget {
            let before = std::mem::replace(&mut self.pace, pace(schedule));
            self.pace.inherit(&before);
        }
        if asks_others {
            self.qualities = qualities(schedule);
            self.auto = auto(&schedule.plan, now, self.seed);
            self.warning = false;
        }
        self.schedule = schedule.clone();
        self.machine.configure(schedule.settings);
        for quality in &mut self.qualities {
            quality.configure(schedule.thresholds);
            quality.recover_after(self.machine.held().time);
        }
        asks_others
    }

    /// The way that is trusted now.
    fn present(&self) -> usize {
        self.auto.as_ref().map_or(0, |auto| usize::from(auto.present().0))
    }

    fn kind(&self, way: usize) -> Option<Kind> {
        self.schedule.plan.ways.get(way).map(super::plan::Way::kind)
    }

    fn quality(&self) -> Option<&Quality> {
        self.qualities.get(self.present())
    }

    /// How the link is worse than a threshold. What one way says is the way's own fault if
    /// another that is to be believed finds the link well.
    fn poor(&self) -> Option<Poor> {
        let poor = self.quality().and_then(Quality::poor)?;
        let vouches = |way: usize| {
            let id = u8::try_from(way).map(MethodId);
            self.auto.as_ref().is_some_and(|auto| id.is_ok_and(|id| auto.vouches(id)))
        };
        let well = |(way, quality): (usize, &Quality)| {
            quality.is_known() && quality.poor().is_none() && vouches(way)
        };
        if self.qualities.iter().enumerate().any(well) { None } else { Some(poor) }
    }

    fn measured(&self) -> Measured {
        self.quality().map(Quality::measured).unwrap_or_default()
    }

    /// How late answers of a way may be.
    fn grace(&self, now: Instant, way: usize) -> Duration {
        let measured = self.qualities.get(way).map(Quality::measured).unwrap_or_default();
        let Measured { rtt, jitter, .. } = measured;
        let usual = self.probes.grace(rtt, jitter);
        // What takes long takes long each time: names, handshakes, a program.
        let slow = self.kind(way) != Some(Kind::Ping);
        let used_to = rtt.unwrap_or_default() + jitter.unwrap_or_default() * 4;
        let usual = if slow { usual.max(used_to.min(self.probes.patience())) } else { usual };
        self.pace.grace(now, usual)
    }

    /// When [`Self::judge`] has something to do next.
    pub(super) fn next_judgement(&self, now: Instant) -> Option<Instant> {
        let judged = self.probes.next_judgement(|way| self.grace(now, way));
        judged.into_iter().chain(self.pace.next_count(now)).min()
    }

    /// When the next round is due; in the past, if it is overdue.
    pub(super) fn next_round(&self, now: Instant) -> Instant {
        match self.last_round {
            Some(last) if !self.pace.check_now(now) => last + self.pace.interval(now),
            _ => now,
        }
    }

    pub(super) fn hear(&mut self, now: Instant, checker: &mut impl Checker) -> Vec<Report> {
        let mut news = Vec::new();
        while let Some(Answer { round, way: _, who, outcome }) = checker.take() {
            // Without a carrier nothing can have arrived just now.
            if !self.link.carrier {
                continue;
            }
            let is_wrong = matches!(outcome, Outcome::Wrong(_));
            let missed = match outcome {
                Outcome::Good { time, warning } => {
                    if let Some((way, elapsed)) = self.probes.answered(round, who, now) {
                        if self.kind(way) == Some(Kind::Exec) {
                            self.warning = warning;
                        }
                        news.extend(self.answered(now, way, elapsed, time.unwrap_or(elapsed)));
                    }
                    None
                }
                Outcome::Silence => self.probes.refused(round, Cause::NoAnswer),
                Outcome::Refused(why) | Outcome::Wrong(why) => {
                    self.probes.refused(round, Cause::Wrong(why))
                }
            };
            if let Some(Judged { way, fate: Fate::Missed(cause) }) = missed {
                news.extend(self.missed(now, way, cause, is_wrong));
            }
        }
        news
    }

    fn answered(
        &mut self,
        now: Instant,
        way: usize,
        elapsed: Duration,
        rtt: Duration,
    ) -> Option<Report> {
        // What was before the outage says nothing about after; nor does what was sent
        // into it.
        if self.machine.state() == State::Down {
            self.qualities.iter_mut().for_each(Quality::reset);
            self.warning = false;
            for way in self.probes.forget() {
                self.ended.extend(self.kind(way).map(|kind| (kind, Ended::Lost)));
            }
        }
        (self.in_doubt, self.is_wrong) = (false, false);
        self.loaded = if way == self.present() {
            self.pace.answered(now, elapsed).into()
        } else {
            self.pace.heard(now).into()
        };
        if let Some(quality) = self.qualities.get_mut(way) {
            quality.answered(now, rtt);
        }
        let ended = Ended::Answered(rtt);
        self.ended.extend(self.kind(way).map(|kind| (kind, ended)));
        let vouches = self.judge_way(now, way, Result_::Answered(rtt));
        if !vouches {
            return None;
        }
        let poor = self.poor().or(self.warning.then_some(Poor::Warning));
        Some(self.observe(now, Input::Answer(poor)))
    }

    /// Tells the choice among ways what became of a round. Whether an answer of that way
    /// proves the link.
    fn judge_way(&mut self, now: Instant, way: usize, result: Result_) -> bool {
        let Some(auto) = &mut self.auto else { return true };
        let Ok(id) = u8::try_from(way) else { return true };
        auto.result(now, MethodId(id), result);
        let vouches = auto.vouches(MethodId(id));
        if let Some(switch) = auto.evaluate(now) {
            let [from, to] = [switch.from, switch.to].map(|id| self.kind(usize::from(id.0)));
            if let (Some(from), Some(to)) = (from, to) {
                self.switched = Some((from, to, switch.why.to_string()));
            }
        }
        vouches
    }

    pub(super) fn judge(&mut self, now: Instant) -> Vec<Report> {
        let graces: Vec<Duration> =
            (0..self.qualities.len()).map(|way| self.grace(now, way)).collect();
        let patience = self.probes.patience();
        let grace = |way: usize| graces.get(way).copied().unwrap_or(patience);
        let mut news = Vec::new();
        for Judged { way, fate } in self.probes.judge(now, grace) {
            match fate {
                Fate::Missed(cause) => news.extend(self.missed(now, way, cause, false)),
                Fate::Lost => {
                    if let Some(quality) = self.qualities.get_mut(way) {
                        quality.lost(now);
                    }
                    self.ended.extend(self.kind(way).map(|kind| (kind, Ended::Lost)));
                }
            }
        }
        news.extend(self.count(now));
        news
    }

    /// `is_wrong`: it was answered, and not as it should be. That counts whatever traffic
    /// says: what a portal or a wrong server sends comes back as well.
    fn missed(&mut self, now: Instant, way: usize, cause: Cause, is_wrong: bool) -> Vec<Report> {
        // A way that is only tried may be broken; in doubt each counts.
        let counts = way == self.present() || self.in_doubt;
        self.judge_way(now, way, Result_::Failed);
        if !counts {
            return Vec::new();
        }
        self.in_doubt = true;
        if is_wrong {
            self.is_wrong = true;
            self.pace.failed(now);
            return vec![self.observe(now, Input::Miss(cause))];
        }
        self.cause = cause;
        self.pace.missed(now);
        self.count(now)
    }

    /// Misses count as far as traffic does not say that the link works.
    fn count(&mut self, now: Instant) -> Vec<Report> {
        let count = self.pace.counted(now);
        (0..count).map(|_| self.observe(now, Input::Miss(self.cause.clone()))).collect()
    }

    /// Takes what has passed the WAN until now.
    pub(super) fn passed(&mut self, now: Instant, passed: Passed) -> Vec<Report> {
        let before = std::mem::replace(&mut self.passed, passed);
        // The first says all that was ever counted, by those before us as well.
        let is_first = before == Passed::default();
        let sample = if is_first { Sample::default() } else { passed.since(&before) };
        self.pace.traffic(now, sample);
        if let Some(auto) = &mut self.auto {
            if sample.back_packets > 0 {
                auto.evidence(now, Evidence::BytesBack);
            } else if self.pace.is_silent() {
                auto.evidence(now, Evidence::SilenceUnderTraffic);
            }
        }
        let mut news = self.count(now);
        // Packets that come back end a row of misses, which would else add up over hours.
        // They do not bring back a WAN that is down: they may come unasked.
        let proves = self.pace.is_alive_by_traffic(now)
            && self.machine.state().is_usable()
            && !self.is_wrong;
        let is_due = self.last_report.is_none_or(|last| now.duration_since(last) >= REPORT);
        if proves && self.machine.misses() > 0 {
            let poor = self.poor();
            news.push(self.observe(now, Input::Answer(poor)));
        } else if proves && is_due && !self.ended.is_empty() {
            // What has come to an end meanwhile is told; it says nothing about the link.
            news.push(self.report(now, None));
        }
        news
    }

    pub(super) fn relink(
        &mut self,
        now: Instant,
        checker: &mut impl Checker,
        link: Link,
    ) -> Option<Report> {
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

    pub(super) fn round(&mut self, now: Instant, checker: &mut impl Checker) -> Option<Report> {
        self.last_round = Some(now);
        self.pace.tried(now);
        if let Some(input) = self.absent() {
            return Some(self.observe(now, input));
        }
        if self.unbound.is_some() {
            self.unbound = checker.bind(&self.link).err().map(|error| error.to_string());
        }
        self.number = self.number.wrapping_add(1);
        let way = self.auto.as_mut().map_or(0, |auto| usize::from(auto.next(now).0));
        let sent = match &self.unbound {
            Some(why) => Err(Cause::NotSent(why.clone())),
            None => checker.send(self.number, way),
        };
        match sent {
            // Those that were asked before are still to answer.
            Ok(0) => None,
            Ok(asked) => {
                let quorum = self.schedule.plan.quorum;
                self.probes.sent(Sent { number: self.number, way, asked, quorum }, now);
                self.pace.sent(now);
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
        self.report(now, transition)
    }
}
