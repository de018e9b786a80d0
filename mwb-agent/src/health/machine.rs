//! The state of one WAN: pure, driven by what its probes and its device say.
//!
//! ```text
//!            first answer                 thresholds
//! Unknown ─────────────────▶ Up ◀──────────────────────▶ Degraded
//!    │                       ▲ │                            │
//!    │ `retries` misses      │ │ `retries` misses in a row, │
//!    │ in a row, carrier     │ │ carrier lost, no device    │
//!    ▼                       │ ▼                            │
//!  Down ◀────────────────────┼──────────────────────────────┘
//!    │  ▲                    │
//!    │  └── as from Up ──┐   │ an answer, the hold-down after the first
//!    └──────────────▶ Testing   (Degraded instead if the thresholds say so)
//!       first answer
//! ```
//!
//! The hold-down is `failback_after`, and more for a link that flaps: see
//! [`HoldDown`]. Nothing that leads to Down waits for it.
//!
//! `Unknown` counts as usable: an agent that starts must not stop traffic that
//! runs. Must not know: sockets, what an answer looks like.

use std::fmt;
use std::time::{Duration, Instant};

use super::hold::{Held, HoldDown};

/// Health of a WAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Not heard from yet.
    Unknown,
    /// Answers as it should.
    Up,
    /// Answers, but late, unevenly or not always.
    Degraded,
    /// Answers again, not yet for long enough.
    Testing,
    /// Does not answer.
    Down,
}

impl State {
    /// Whether new flows may be sent here.
    #[must_use]
    pub const fn is_usable(self) -> bool {
        matches!(self, State::Unknown | State::Up | State::Degraded)
    }

    /// The word for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            State::Unknown => "unknown",
            State::Up => "up",
            State::Degraded => "degraded",
            State::Testing => "testing",
            State::Down => "down",
        }
    }
}

/// Why a probe brought no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It was sent, and nothing came back.
    NoAnswer,
    /// The next hop does not tell its MAC.
    NextHopUnresolved,
    /// The device has no address to send from, or no gateway to send to.
    NoAddress,
    /// The link has no gateway, and nobody else is named.
    NoTarget,
    /// The kernel refused to send it.
    NotSent(String),
    /// It was answered, and not as it should be.
    Wrong(String),
}

/// Why a WAN is in its state.
#[derive(Clone, Debug, PartialEq)]
pub enum Reason {
    /// The agent has just started.
    Started,
    /// The agent has just started, and the one before had given it up.
    DownBeforeRestart,
    /// It answers.
    Answers,
    /// It answered again after an outage.
    AnswersAgain,
    /// It has answered for as long as it must.
    Stable(Duration),
    /// This many probes in a row brought no answer.
    Misses(u32, Cause),
    /// The device has no carrier.
    CarrierLost,
    /// There is no such device.
    DeviceMissing,
    /// Worse than a threshold.
    Poor(Poor),
}

/// The threshold that a WAN is worse than.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Poor {
    /// Smoothed round-trip time, and the threshold.
    Latency(Duration, Duration),
    /// Smoothed jitter, and the threshold.
    Jitter(Duration, Duration),
    /// Part of the probes lost, and the threshold.
    Loss(f64, f64),
    /// The program that checks it says so.
    Warning,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Started => write!(f, "not heard from since the agent started"),
            Reason::DownBeforeRestart => write!(f, "was down when the agent restarted"),
            Reason::Answers => write!(f, "answers"),
            Reason::AnswersAgain => write!(f, "answers again"),
            Reason::Stable(time) => write!(f, "stable for {} s", time.as_secs_f64()),
            Reason::Misses(count, Cause::NoAnswer) => write!(f, "no answer to {count} probes"),
            Reason::Misses(_, Cause::NextHopUnresolved) => {
                write!(f, "the gateway does not answer ARP or neighbour discovery")
            }
            Reason::Misses(_, Cause::NoAddress) => write!(f, "no address or no gateway"),
            Reason::Misses(_, Cause::NoTarget) => {
                write!(f, "nobody to ask: the link has no gateway, name hosts in health.targets")
            }
            Reason::Misses(_, Cause::NotSent(why)) => write!(f, "probes cannot be sent: {why}"),
            Reason::Misses(_, Cause::Wrong(why)) => write!(f, "checks fail: {why}"),
            Reason::CarrierLost => write!(f, "no carrier"),
            Reason::DeviceMissing => write!(f, "device missing"),
            Reason::Poor(poor) => poor.fmt(f),
        }
    }
}

impl fmt::Display for Poor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        match *self {
            Poor::Latency(is, limit) => {
                write!(f, "latency {:.0} ms, above {:.0} ms", ms(is), ms(limit))
            }
            Poor::Jitter(is, limit) => {
                write!(f, "jitter {:.0} ms, above {:.0} ms", ms(is), ms(limit))
            }
            Poor::Loss(is, limit) => {
                write!(f, "loss {:.1} %, above {:.1} %", is * 100.0, limit * 100.0)
            }
            Poor::Warning => write!(f, "the check warns"),
        }
    }
}

/// What the machine is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// A probe was answered; what the thresholds say about the link now.
    Answer(Option<Poor>),
    /// A probe was not answered in time, or could not be sent.
    Miss(Cause),
    /// The device lost its carrier.
    CarrierLost,
    /// The device is gone, or never was.
    DeviceMissing,
}

/// A change of state.
#[derive(Clone, Debug, PartialEq)]
pub struct Transition {
    /// State before.
    pub from: State,
    /// State now.
    pub to: State,
    /// Why.
    pub reason: Reason,
}

/// Settings of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Misses in a row that make a WAN down; at least 1.
    pub retries: u32,
    /// How long a WAN must answer after an outage before it is used again.
    pub failback_after: Duration,
    /// How far that may grow for a WAN that flaps.
    pub hold_down_max: Duration,
}

/// The state of one WAN.
#[derive(Clone, Debug)]
pub struct Machine {
    settings: Settings,
    state: State,
    reason: Reason,
    since: Instant,
    misses: u32,
    hold: HoldDown,
}

impl Machine {
    /// A WAN that has not been heard from.
    #[must_use]
    pub fn new(settings: Settings, now: Instant) -> Self {
        let hold = HoldDown::new(settings.failback_after, settings.hold_down_max);
        let (state, reason) = (State::Unknown, Reason::Started);
        Self { settings, state, reason, since: now, misses: 0, hold }
    }

    /// A WAN that an earlier run of the agent had given up: it must prove
    /// itself again before it gets traffic.
    #[must_use]
    pub fn down(settings: Settings, now: Instant) -> Self {
        let reason = Reason::DownBeforeRestart;
        let new = Self::new(settings, now);
        Self { state: State::Down, reason, misses: settings.retries, ..new }
    }

    /// Takes other settings; state and history stay.
    pub fn configure(&mut self, settings: Settings) {
        self.hold.configure(settings.failback_after, settings.hold_down_max);
        self.settings = settings;
    }

    /// Misses in a row that make the WAN down.
    #[must_use]
    pub fn retries(&self) -> u32 {
        self.settings.retries
    }

    /// Misses in a row so far.
    #[must_use]
    pub fn misses(&self) -> u32 {
        self.misses
    }

    /// State now.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// Why it is in this state.
    #[must_use]
    pub fn reason(&self) -> &Reason {
        &self.reason
    }

    /// The hold-down.
    #[must_use]
    pub fn held(&self) -> Held {
        let time = self.hold.time();
        let until = (self.state == State::Testing).then(|| self.since + time);
        Held { time, relapses: self.hold.relapses(), until }
    }

    /// Takes one input; tells if the state changed.
    pub fn observe(&mut self, now: Instant, input: Input) -> Option<Transition> {
        match input {
            Input::Answer(poor) => self.answered(now, poor),
            Input::Miss(cause) => self.missed(now, cause),
            Input::CarrierLost => self.lost(now, Reason::CarrierLost),
            Input::DeviceMissing => self.lost(now, Reason::DeviceMissing),
        }
    }

    fn lost(&mut self, now: Instant, reason: Reason) -> Option<Transition> {
        self.misses = 0;
        self.enter(now, State::Down, reason)
    }

    fn answered(&mut self, now: Instant, poor: Option<Poor>) -> Option<Transition> {
        self.misses = 0;
        let carries = |good: Reason| match poor {
            Some(poor) => (State::Degraded, Reason::Poor(poor)),
            None => (State::Up, good),
        };
        let (state, reason) = match self.state {
            State::Down => (State::Testing, Reason::AnswersAgain),
            State::Testing if now.duration_since(self.since) < self.hold.time() => return None,
            State::Testing => carries(Reason::Stable(self.hold.time())),
            State::Unknown | State::Degraded => carries(Reason::Answers),
            State::Up => match poor {
                Some(poor) => (State::Degraded, Reason::Poor(poor)),
                None => {
                    self.hold.well(now);
                    return None;
                }
            },
        };
        self.enter(now, state, reason)
    }

    fn missed(&mut self, now: Instant, cause: Cause) -> Option<Transition> {
        self.misses = self.misses.saturating_add(1);
        if self.misses < self.settings.retries {
            return None;
        }
        self.enter(now, State::Down, Reason::Misses(self.misses, cause))
    }

    /// Takes state and reason; the same state with another reason is no transition.
    fn enter(&mut self, now: Instant, to: State, reason: Reason) -> Option<Transition> {
        let from = self.state;
        self.reason = reason;
        if from == to {
            return None;
        }
        match (from, to) {
            (State::Testing, State::Up | State::Degraded) | (State::Degraded, State::Up) => {
                self.hold.back(now);
            }
            (State::Up, State::Degraded) | (State::Up | State::Degraded, State::Down) => {
                self.hold.failed(now);
            }
            _ => {}
        }
        self.state = to;
        self.since = now;
        Some(Transition { from, to, reason: self.reason.clone() })
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
