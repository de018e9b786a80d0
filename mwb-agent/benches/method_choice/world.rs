//! The situations: what a link does, and each method on it.

use std::time::Duration;

use mwb_agent::health::evidence::{MethodId, Outcome};

/// Methods of each situation; the first is the one to begin with.
pub(crate) const METHODS: usize = 4;

const MINUTE: u64 = 60;

/// What a method does.
#[derive(Clone, Copy)]
struct Behaviour {
    /// Part of the times that it answers while the link works.
    answers: f64,
    latency: Duration,
    /// It answers while the link is dead: a modem in the Internet's place.
    lies: bool,
    /// From when on it answers no more.
    dies: Option<Duration>,
}

const fn well(ms: u64) -> Behaviour {
    Behaviour { answers: 0.999, latency: Duration::from_millis(ms), lies: false, dies: None }
}

/// One situation.
pub(crate) struct Situation {
    pub(crate) name: &'static str,
    methods: [Behaviour; METHODS],
    /// The link is dead for so long, once in so long.
    outages: Option<(Duration, Duration)>,
    /// Flows are there half a minute of each.
    traffic: bool,
}

impl Situation {
    pub(crate) fn is_up(&self, at: Duration) -> bool {
        self.outages.is_none_or(|(length, every)| {
            at.as_millis() % every.as_millis() < (every - length).as_millis()
        })
    }

    pub(crate) fn has_traffic(&self, at: Duration) -> bool {
        // Not in step with the outages.
        self.traffic && at.as_secs() % 70 < 35
    }

    /// A method whose answers and failures are those of the link.
    pub(crate) fn is_truthful(&self, method: MethodId, at: Duration) -> bool {
        let method = self.methods[usize::from(method.0)];
        method.answers > 0.9 && !method.lies && method.dies.is_none_or(|dies| at < dies)
    }

    /// What comes of asking, by a number of chance in 0..1.
    pub(crate) fn ask(&self, method: MethodId, at: Duration, chance: f64) -> Outcome {
        let method = self.methods[usize::from(method.0)];
        let alive = method.dies.is_none_or(|dies| at < dies);
        let reached = self.is_up(at) || method.lies;
        if alive && reached && chance < method.answers {
            Outcome::Answered(method.latency)
        } else {
            Outcome::Failed
        }
    }
}

pub(crate) fn all() -> Vec<Situation> {
    let usual = [well(20), well(60), well(25), well(40)];
    let first = |behaviour| [behaviour, usual[1], usual[2], usual[3]];
    let outages = Some((Duration::from_secs(20), Duration::from_secs(5 * MINUTE)));
    let situation = |name, methods, outages, traffic| Situation { name, methods, outages, traffic };
    let dies = Some(Duration::from_secs(20 * MINUTE));
    vec![
        situation("all is well", usual, None, true),
        situation(
            "a method is filtered",
            first(Behaviour { answers: 0.0, ..usual[0] }),
            None,
            true,
        ),
        situation(
            "pings are limited in rate",
            first(Behaviour { answers: 0.4, ..usual[0] }),
            None,
            true,
        ),
        situation("the link is slow", [well(600), well(650), well(620), well(700)], None, true),
        situation("a target dies", first(Behaviour { dies, ..usual[0] }), None, true),
        situation("outages under traffic", usual, outages, true),
        situation("outages of an idle link", usual, outages, false),
        situation(
            "one method answers for a dead link",
            first(Behaviour { lies: true, latency: Duration::from_millis(1), ..usual[0] }),
            outages,
            true,
        ),
    ]
}
