//! Carries out what becomes of flows on a WAN that a better one has replaced,
//! and tells of it.

use mwb_common::maps::Path;

use super::control::Control;
use crate::config::Failback;
use crate::config::units::show_duration;
use crate::dataplane::Error;
use crate::events::EventKind;
use crate::failover::Step;

impl Control {
    /// Does what follows from a decision for flows that it leaves behind.
    pub(super) fn follow_left(&mut self, step: Step) -> Result<(), Error> {
        let (Step::Left { path, .. } | Step::Cut { path } | Step::Kept { path }) = step;
        let Some((_, configured)) = self.wan(path) else { return Ok(()) };
        let (name, failback) = (&configured.name, configured.failback);
        let message = match step {
            Step::Left { stay: None, .. } => format!("flows on {name} stay until they end"),
            Step::Left { stay: Some(time), .. } => {
                format!("flows on {name} may stay for {}", show_duration(time))
            }
            Step::Cut { .. } => format!("flows on {name} are made anew"),
            Step::Kept { .. } => format!("flows on {name} stay: nothing better carries new ones"),
        };
        let reason = match (step, failback) {
            (Step::Cut { .. }, Failback::Drain(_)) => {
                format!("failback: {failback}; that time is over")
            }
            _ => format!("failback: {failback}"),
        };
        self.bus.publish(EventKind::Drain, Some(name), message, reason);
        if matches!(step, Step::Cut { .. }) { self.cut(path) } else { Ok(()) }
    }

    /// Has every flow of a path made anew that could as well use another one.
    fn cut(&mut self, path: u8) -> Result<(), Error> {
        let Some(wan) = self.wans.iter_mut().find(|wan| wan.path == path) else { return Ok(()) };
        let entry = Path { epoch: wan.written.epoch.wrapping_add(1), ..wan.written };
        self.plane.with(|plane| plane.set_path(path, &entry))?;
        wan.present.path.epoch = entry.epoch;
        wan.written = entry;
        Ok(())
    }
}
