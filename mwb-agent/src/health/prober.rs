//! The checker that knows every way: echo requests itself, the others as tasks
//! that ask once and say what came of it.

use std::collections::VecDeque;
use std::io;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::icmp::Icmp;
use super::methods::{Bad, Good, Via};
use super::plan::{Kind, Plan, Way, turn};
use super::{Answer, Cause, Checker, Link, Outcome};

/// Questions of one way to one target that may be under way at once: a target that is
/// slow is not asked for ever more.
const UNDER_WAY: usize = 8;

/// Probes one WAN.
#[derive(Debug)]
pub struct Prober {
    device: String,
    icmp: Icmp,
    /// Which way of the plan echo requests are.
    echo: Option<usize>,
    plan: Plan,
    link: Link,
    via: Via,
    /// Rounds that each way has asked.
    turns: Vec<u64>,
    tasks: JoinSet<()>,
    sender: mpsc::Sender<Said>,
    said: mpsc::Receiver<Said>,
    heard: VecDeque<Said>,
    /// By way and target.
    under_way: Vec<Vec<usize>>,
    /// Which plan a task is of: those of an earlier one are not heard.
    plans: u32,
}

/// What a task has to say.
#[derive(Debug)]
struct Said {
    plan: u32,
    round: u16,
    way: usize,
    who: usize,
    result: Result<Good, Bad>,
}

impl Prober {
    /// For the WAN of this name and path id on a device. `token` should be random.
    #[must_use]
    pub fn new(wan: &str, path: u8, device: &str, token: [u8; 8]) -> Self {
        let (sender, said) = mpsc::channel(256);
        Self {
            device: device.to_owned(),
            icmp: Icmp::new(path, token),
            echo: None,
            plan: Plan {
                ways: Vec::new(),
                quorum: 1,
                per_round: None,
                timeout: Default::default(),
            },
            link: Link::default(),
            via: Via { wan: Some(wan.to_owned()), ..Via::default() },
            turns: Vec::new(),
            tasks: JoinSet::new(),
            sender,
            said,
            heard: VecDeque::new(),
            under_way: Vec::new(),
            plans: 0,
        }
    }

    fn is_program(&self, way: usize) -> bool {
        self.plan.ways.get(way).is_some_and(|way| way.kind() == Kind::Exec)
    }

    fn ask(&mut self, round: u16, way: usize) -> Result<u32, Cause> {
        let Some(Way::Other { kind, questions }) = self.plan.ways.get(way) else {
            return Err(Cause::NoTarget);
        };
        let most = if *kind == Kind::Exec { 1 } else { UNDER_WAY };
        if self.link.v4.is_none() && self.link.v6.is_none() {
            return Err(Cause::NoAddress);
        }
        let nth = self.turns.get(way).copied().unwrap_or(0);
        let mut asked = 0;
        for who in turn(questions.len(), self.plan.per_round, nth) {
            let (Some(question), Some(under_way)) =
                (questions.get(who), self.under_way.get_mut(way).and_then(|way| way.get_mut(who)))
            else {
                continue;
            };
            if *under_way >= most {
                continue;
            }
            *under_way += 1;
            asked += 1;
            let (question, via, timeout) = (question.clone(), self.via.clone(), self.plan.timeout);
            let (sender, plan) = (self.sender.clone(), self.plans);
            self.tasks.spawn(async move {
                let result = question.method.ask(&via, question.target.as_ref(), timeout).await;
                // Nobody listens any more: nobody wants to know.
                let _ = sender.send(Said { plan, round, way, who, result }).await;
            });
        }
        if let Some(turns) = self.turns.get_mut(way) {
            *turns += 1;
        }
        while self.tasks.try_join_next().is_some() {}
        Ok(asked)
    }
}

impl Checker for Prober {
    fn aim(&mut self, plan: &Plan) {
        self.plan = plan.clone();
        self.plans = self.plans.wrapping_add(1);
        self.tasks.abort_all();
        self.turns = vec![0; plan.ways.len()];
        self.under_way = plan.ways.iter().map(|way| vec![0; way.targets()]).collect();
        self.echo = plan.ways.iter().position(|way| way.kind() == Kind::Ping);
        if let Some(Way::Ping { echo, targets }) = self.echo.and_then(|way| plan.ways.get(way)) {
            self.icmp.aim(*echo, targets, plan.per_round);
        }
    }

    fn bind(&mut self, link: &Link) -> io::Result<()> {
        self.link = link.clone();
        self.via.device = link.ifindex.map(|_| self.device.clone());
        self.via.source4 = link.v4.map(|hop| hop.source);
        self.via.source6 = link.v6.map(|hop| hop.source);
        self.icmp.bind(link)
    }

    fn send(&mut self, round: u16, way: usize) -> Result<u32, Cause> {
        if self.echo == Some(way) { self.icmp.send(round) } else { self.ask(round, way) }
    }

    fn take(&mut self) -> Option<Answer> {
        if let Some(way) = self.echo
            && let Some(reply) = self.icmp.take()
        {
            let outcome = Outcome::Good { time: None, warning: false };
            return Some(Answer { round: reply.round, way, who: reply.who, outcome });
        }
        loop {
            let said = self.heard.pop_front().or_else(|| self.said.try_recv().ok())?;
            let Said { plan, round, way, who, result } = said;
            if plan != self.plans {
                continue;
            }
            if let Some(under_way) = self.under_way.get_mut(way).and_then(|way| way.get_mut(who)) {
                *under_way = under_way.saturating_sub(1);
            }
            let outcome = match result {
                Ok(good) => Outcome::Good { time: Some(good.time), warning: good.warning },
                // What a program says is said, though it proves nothing about a target.
                Err(bad) if bad.is_silence() && !self.is_program(way) => Outcome::Silence,
                Err(bad @ (Bad::Refused(_) | Bad::Broken { .. } | Bad::NotSent(_))) => {
                    Outcome::Refused(bad.to_string())
                }
                Err(bad) => Outcome::Wrong(bad.to_string()),
            };
            return Some(Answer { round, way, who, outcome });
        }
    }

    async fn ready(&mut self) {
        if !self.heard.is_empty() {
            return;
        }
        tokio::select! {
            () = self.icmp.ready() => {}
            Some(said) = self.said.recv() => self.heard.push_back(said),
        }
    }
}
