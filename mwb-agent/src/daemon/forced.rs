//! The operator's will: one WAN gets all new flows while it works. It ends with
//! its time, by another order, with the WAN, or with this run of the agent.

use std::time::{Duration, Instant};

use super::control::{Control, acted_upon};
use crate::api::change::{Done, Refusal};
use crate::config::units::show_duration;
use crate::config::{Config, Wan};
use crate::events::EventKind;
use crate::failover::{self, Member, Plan};

/// A WAN that the operator has chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Forced {
    /// A WAN is known by its device.
    device: String,
    /// `None`: until it is told otherwise.
    pub(super) until: Option<Instant>,
}

impl Forced {
    /// Whether it is this WAN.
    pub(super) fn is(&self, wan: &Wan) -> bool {
        self.device == wan.device
    }

    /// Its name, as long as it is configured.
    pub(super) fn name<'a>(&self, config: &'a Config) -> Option<&'a str> {
        config.wans.iter().find(|wan| self.is(wan)).map(|wan| wan.name.as_str())
    }
}

impl Control {
    /// Sends new flows to one WAN from now on.
    pub(super) fn force(&mut self, name: &str, lasting: Option<Duration>) -> Result<Done, Refusal> {
        let now = Instant::now();
        let device = self.can_force(name)?;
        let until = lasting.map(|time| now + time);
        self.forced = Some(Forced { device, until });
        let time = lasting.map_or_else(String::new, |time| format!(" for {}", show_duration(time)));
        let message = format!("{name} gets all new flows{time}, while it works");
        self.bus.publish(
            EventKind::Forced,
            Some(name),
            message.clone(),
            "the operator wants it so",
        );
        self.obey(message)
    }

    /// The device of a WAN that could get all new flows.
    fn can_force(&self, name: &str) -> Result<String, Refusal> {
        let Some(index) = self.config.wans.iter().position(|wan| wan.name == name) else {
            let names: Vec<&str> = self.config.wans.iter().map(|wan| wan.name.as_str()).collect();
            let names = names.join(", ");
            return Err(Refusal::Wrong(format!("no WAN is named `{name}`; there are: {names}")));
        };
        let (Some(wan), Some(configured)) = (self.wans.get(index), self.config.wans.get(index))
        else {
            return Err(Refusal::Failed(format!("{name} is not there")));
        };
        if !acted_upon(wan, configured).is_usable() {
            let (state, reason) = (wan.state.name(), &wan.reason);
            return Err(Refusal::Conflict(format!("{name} is {state}: {reason}")));
        }
        Ok(configured.device.clone())
    }

    /// What would be different if a WAN were forced, or none.
    pub(super) fn rehearse(&self, name: Option<&str>) -> Result<Done, Refusal> {
        let device = name.map(|name| self.can_force(name)).transpose()?;
        let forced = device.map(|device| Forced { device, until: None });
        let now = Instant::now();
        let wans = self.wans.iter().zip(&self.config.wans);
        let members: Vec<Member> = wans
            .map(|(wan, configured)| self.member(wan, configured, forced.as_ref(), now))
            .collect();
        let then = failover::decide(self.config.balance, &members, &mut self.memory.clone(), now);
        let is = self.decision.clone().unwrap_or_default();
        let mut changes = Vec::new();
        for (family, is, then) in [("IPv4", &is.v4, &then.v4), ("IPv6", &is.v6, &then.v6)] {
            let (is, then) = (self.shown(is), self.shown(then));
            if is != then {
                changes.push(format!("new flows of {family}: {is} → {then}"));
            }
        }
        let message = match (changes.is_empty(), name) {
            (true, _) => "nothing would be different".to_owned(),
            (false, Some(name)) => format!("{name} would get all new flows, while it works"),
            (false, None) => "health and configuration would decide again".to_owned(),
        };
        Ok(Done { message, changes, ..Done::default() })
    }

    /// Who shares new flows by a plan, in words.
    fn shown(&self, plan: &Plan) -> String {
        let part = |path: &u8| {
            let name = self.wan(*path).map_or("?", |(_, configured)| configured.name.as_str());
            format!("{name} {:.0} %", plan.part(*path) * 100.0)
        };
        let parts: Vec<String> = plan.shares.keys().map(part).collect();
        if parts.is_empty() { "none".to_owned() } else { parts.join(", ") }
    }

    /// Decides by health and configuration again.
    pub(super) fn release(&mut self) -> Result<Done, Refusal> {
        if !self.end_forced("the operator wants it so") {
            return Ok(Done { message: "no WAN was forced".to_owned(), ..Done::default() });
        }
        self.obey("health and configuration decide again".to_owned())
    }

    fn obey(&mut self, message: String) -> Result<Done, Refusal> {
        self.decide(Instant::now()).map_err(|error| Refusal::Failed(error.to_string()))?;
        Ok(Done { message, ..Done::default() })
    }

    /// Ends what has lasted its time, or whose WAN is not configured any more.
    pub(super) fn expire_forced(&mut self, now: Instant) {
        let Some(forced) = &self.forced else { return };
        if forced.until.is_some_and(|until| until <= now) {
            self.end_forced("its time is over");
        } else if forced.name(&self.config).is_none() {
            self.end_forced("the WAN is not configured any more");
        }
    }

    /// Whether there was something to end.
    fn end_forced(&mut self, why: &str) -> bool {
        let Some(forced) = self.forced.take() else { return false };
        let name = forced.name(&self.config);
        let shown = name.unwrap_or(&forced.device);
        let message = format!("{shown} is not forced any more");
        self.bus.publish(EventKind::Forced, name, message, why);
        true
    }
}

#[cfg(test)]
#[path = "forced_tests.rs"]
mod tests;
