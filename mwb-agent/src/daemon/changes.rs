//! Changes that the operator asks for: reading the file again, a configuration
//! on trial, keeping it, and the way back by itself.
//!
//! A file that is wrong, or asks for what a running agent cannot change, is
//! refused as a whole.

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::file;
use super::revision::{self, Revision};
use crate::api::change::{Done, Refusal};
use crate::config::{self, Config};
use crate::events::{Bus, EventKind};

/// What has a configuration and takes another.
pub(super) trait Configurable {
    /// The one in force.
    fn config(&self) -> &Config;

    /// Whether another one can be taken as things are.
    ///
    /// # Errors
    /// With the reason, for the operator.
    fn check(&self, new: &Config) -> Result<(), Refusal>;

    /// Takes another one.
    fn take(&mut self, new: Config);
}

/// Makes changes, and undoes what was not confirmed.
#[derive(Debug)]
pub(super) struct Changer {
    /// The agent's file.
    file: PathBuf,
    bus: Bus,
    trial: Option<Trial>,
}

/// A configuration that is in force until somebody confirms it.
#[derive(Debug)]
struct Trial {
    /// What comes back.
    former: Config,
    text: String,
    until: Instant,
}

/// How many differences an event names.
const NAMED: usize = 8;

impl Changer {
    pub(super) fn new(file: PathBuf, bus: Bus) -> Self {
        Self { file, bus, trial: None }
    }

    /// Reads the agent's file again.
    pub(super) fn reload(
        &mut self,
        target: &mut impl Configurable,
        now: Instant,
    ) -> Result<Done, Refusal> {
        self.refuse_during_trial(now)?;
        let new = config::load(&self.file).map_err(|error| Refusal::Wrong(error.to_string()))?;
        let changes = change(target, new)?;
        let file = self.file.display();
        if changes.is_empty() {
            return Ok(done(format!("{file} says nothing new"), changes));
        }
        self.tell(format!("{file} is in force"), &changes);
        Ok(done(format!("{file} is in force: {}", count(&changes)), changes))
    }

    /// Takes the text of a file: for good, or until it is confirmed.
    pub(super) fn apply(
        &mut self,
        target: &mut impl Configurable,
        text: String,
        confirm: Option<Duration>,
        now: Instant,
    ) -> Result<Done, Refusal> {
        self.refuse_during_trial(now)?;
        let new = config::parse(&text, "the configuration")
            .map_err(|error| Refusal::Wrong(error.to_string()))?;
        let former = target.config().clone();
        let changes = change(target, new)?;
        let Some(time) = confirm else {
            if let Err(refusal) = self.keep(&text) {
                target.take(former);
                return Err(refusal);
            }
            self.tell(
                format!("a new configuration is in force and in {}", self.file.display()),
                &changes,
            );
            let message =
                format!("in force and written to {}: {}", self.file.display(), count(&changes));
            return Ok(done(message, changes));
        };
        let seconds = time.as_secs();
        self.tell(format!("a new configuration is in force on trial, for {seconds} s"), &changes);
        self.trial = Some(Trial { former, text, until: now + time });
        let message = format!(
            "in force on trial: {}; `mwb confirm` within {seconds} s keeps it, else the former comes back",
            count(&changes)
        );
        let confirm_until_unix_ms = Some(unix_ms(time));
        Ok(Done { message, changes, confirm_until_unix_ms })
    }

    /// Keeps what is on trial: it becomes the agent's file.
    pub(super) fn confirm(&mut self, now: Instant) -> Result<Done, Refusal> {
        let Some(trial) = &self.trial else {
            return Err(Refusal::Conflict("nothing is on trial".to_owned()));
        };
        let left = trial.until.saturating_duration_since(now).as_secs();
        self.keep(&trial.text).map_err(|refusal| {
            Refusal::Failed(format!("{refusal}; the former configuration comes back in {left} s"))
        })?;
        self.trial = None;
        let file = self.file.display();
        let message = format!("confirmed and written to {file}");
        let former = format!("the former is {}", file::previous(&self.file).display());
        self.bus.publish(EventKind::Config, None, message.clone(), former);
        Ok(done(message, Vec::new()))
    }

    /// When the trial ends, if one runs.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.trial.as_ref().map(|trial| trial.until)
    }

    /// Brings the former configuration back if the trial's time is over.
    pub(super) fn expire(&mut self, target: &mut impl Configurable, now: Instant) {
        if self.deadline().is_none_or(|until| now < until) {
            return;
        }
        if let Some(trial) = self.trial.take() {
            let changes = revision::between(target.config(), &trial.former).changes;
            target.take(trial.former);
            self.tell(
                "not confirmed in time: the former configuration is back".to_owned(),
                &changes,
            );
        }
    }

    fn refuse_during_trial(&self, now: Instant) -> Result<(), Refusal> {
        let Some(until) = self.deadline() else { return Ok(()) };
        let left = until.saturating_duration_since(now).as_secs();
        Err(Refusal::Conflict(format!(
            "a configuration is on trial: `mwb confirm` it, or wait {left} s for the former"
        )))
    }

    fn keep(&self, text: &str) -> Result<(), Refusal> {
        file::replace(&self.file, text).map_err(|error| {
            Refusal::Failed(format!("{} cannot be written: {error}", self.file.display()))
        })
    }

    fn tell(&self, message: String, changes: &[String]) {
        let mut reason = changes.iter().take(NAMED).cloned().collect::<Vec<_>>().join("; ");
        if changes.len() > NAMED {
            reason.push_str(&format!("; and {} more", changes.len() - NAMED));
        }
        self.bus.publish(EventKind::Config, None, message, reason);
    }
}

/// Takes another configuration if all of it can be; returns what is different.
fn change(target: &mut impl Configurable, new: Config) -> Result<Vec<String>, Refusal> {
    let Revision { changes, refused } = revision::between(target.config(), &new);
    if !refused.is_empty() {
        return Err(Refusal::Conflict(format!("nothing was changed: {}", refused.join("; "))));
    }
    target.check(&new)?;
    if !changes.is_empty() {
        target.take(new);
    }
    Ok(changes)
}

fn done(message: String, changes: Vec<String>) -> Done {
    Done { message, changes, confirm_until_unix_ms: None }
}

fn count(changes: &[String]) -> String {
    match changes.len() {
        0 => "nothing differs".to_owned(),
        1 => "1 change".to_owned(),
        count => format!("{count} changes"),
    }
}

/// The time after this from now, in milliseconds since 1970.
fn unix_ms(after: Duration) -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() + after;
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "changes_tests.rs"]
mod tests;
