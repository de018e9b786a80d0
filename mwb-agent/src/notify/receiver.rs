//! Who is told, and of what.
//!
//! Must not know: how it is told.

use std::path::PathBuf;
use std::time::Duration;

use crate::events::{Event, EventKind};

/// How long a receiver may take for one event unless said otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// How old an event may get before a webhook is no longer told of it.
pub const DEFAULT_KEEP: Duration = Duration::from_secs(7 * 24 * 3_600);

/// One who is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receiver {
    /// Its name, also that of its queue's folder: 1 to 63 letters, digits, `-`,
    /// `_` and `.`, the first of them a letter or a digit.
    pub name: String,
    /// Of what.
    pub filter: Filter,
    /// How.
    pub kind: Kind,
}

/// Which events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only these; all if there are none.
    pub kinds: Vec<EventKind>,
    /// Only what is about these WANs; all, also what is about no WAN, if there
    /// are none.
    pub wans: Vec<String>,
}

/// How a receiver is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// By an HTTP request.
    Webhook {
        /// Where to: `http` or `https`.
        url: String,
        /// Whose content signs the requests. Others than owner and group must not
        /// read it. White space at both ends does not count.
        secret_file: PathBuf,
        /// For one request, from the start of the connection to the answer.
        timeout: Duration,
        /// How old an event may get; then it is dropped.
        keep: Duration,
    },
    /// By a command.
    Exec {
        /// Its absolute path, and its arguments. No shell reads them.
        command: Vec<String>,
        /// Then it and its children are killed.
        timeout: Duration,
        /// How many may run at once. With one they run in the order of the events.
        at_once: usize,
    },
}

impl Filter {
    /// Whether the receiver is told of it.
    #[must_use]
    pub fn takes(&self, event: &Event) -> bool {
        let kind = self.kinds.is_empty() || self.kinds.contains(&event.kind);
        let wan =
            self.wans.is_empty() || event.wan.as_ref().is_some_and(|wan| self.wans.contains(wan));
        kind && wan
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: EventKind, wan: Option<&str>) -> Event {
        let wan = wan.map(str::to_owned);
        Event { id: 1, unix_ms: 0, kind, wan, message: String::new(), reason: String::new() }
    }

    #[test]
    fn a_filter_without_entries_takes_everything() {
        assert!(Filter::default().takes(&event(EventKind::Config, None)));
        assert!(Filter::default().takes(&event(EventKind::WanState, Some("lte"))));
    }

    #[test]
    fn both_lists_of_a_filter_must_agree() {
        let filter =
            Filter { kinds: vec![EventKind::WanState], wans: vec!["fiber".into(), "lte".into()] };
        assert!(filter.takes(&event(EventKind::WanState, Some("lte"))));
        assert!(!filter.takes(&event(EventKind::WanState, Some("dsl"))));
        assert!(!filter.takes(&event(EventKind::WanState, None)));
        assert!(!filter.takes(&event(EventKind::Carrier, Some("lte"))));
    }
}
