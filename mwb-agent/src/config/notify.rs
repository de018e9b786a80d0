//! Who is told of what happens, and how.

use std::path::PathBuf;
use std::time::Duration;

use super::read::{check_count, read_path};
use super::reader::{Cursor, Fault, Fields};
use super::wans::read_name;
use super::{Wan, schema};
use crate::events::EventKind;

/// Who is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notify {
    /// Where what webhooks have not taken yet is kept.
    pub directory: PathBuf,
    /// Events that may wait for one receiver.
    pub queue: usize,
    /// The receivers; none: nobody is told.
    pub receivers: Vec<Receiver>,
}

impl Default for Notify {
    fn default() -> Self {
        let directory = PathBuf::from("/var/lib/mwb/notify");
        Self { directory, queue: 1_000, receivers: Vec::new() }
    }
}

/// One that is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receiver {
    /// What people call it; unique.
    pub name: String,
    /// Kinds of events; empty: all.
    pub events: Vec<EventKind>,
    /// Names of WANs that they are about; empty: all, and those about none.
    pub wans: Vec<String>,
    /// For how long it may be told of one event, once.
    pub timeout: Duration,
    /// How it is told.
    pub by: ToldBy,
}

/// How a receiver is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToldBy {
    /// An HTTP request.
    Webhook {
        /// Where to.
        url: String,
        /// Whose content requests are signed with.
        secret_file: PathBuf,
        /// How old an event may get before it is given up.
        keep: Duration,
    },
    /// A program.
    Command {
        /// Its full path, and its arguments.
        command: Vec<String>,
        /// How many may run at once.
        at_once: usize,
    },
}

/// The section `notify`.
pub(super) fn read_notify(notify: &Fields<'_>, wans: &[Wan]) -> Result<Notify, Fault> {
    let default = Notify::default();
    let queue = notify.or("queue", 1_000, |at| at.integer(&schema::NOTIFY_QUEUE))?;
    Ok(Notify {
        directory: notify
            .or("directory", default.directory, |at| read_path(at, "/var/lib/mwb/notify"))?,
        queue: usize::try_from(queue).unwrap_or(usize::MAX),
        receivers: notify.or("receivers", Vec::new(), |at| read_receivers(at, wans))?,
    })
}

fn read_receivers(at: &Cursor<'_>, wans: &[Wan]) -> Result<Vec<Receiver>, Fault> {
    let items = at.items("[{name: ops, url: \"https://www.example.net/mwb\"}]")?;
    check_count(at, items.len(), schema::RECEIVERS, "receivers")?;
    let mut receivers: Vec<Receiver> = Vec::with_capacity(items.len());
    for item in &items {
        let fields = item.fields(&schema::RECEIVER)?;
        let receiver = read_receiver(&fields, wans)?;
        if receivers.iter().any(|other| other.name == receiver.name) {
            let message = format!("two receivers are named `{}`", receiver.name);
            return Err(fields.required("name")?.fault(message, "name one of them otherwise"));
        }
        receivers.push(receiver);
    }
    Ok(receivers)
}

fn read_receiver(receiver: &Fields<'_>, wans: &[Wan]) -> Result<Receiver, Fault> {
    let refuse = |keys: &[&str], why: &str| {
        let there = keys.iter().find_map(|key| receiver.get(key));
        there.map_or(Ok(()), |at| Err(at.key_fault(why, "remove it")))
    };
    let by = match (receiver.get("url"), receiver.get("command")) {
        (Some(url), None) => {
            refuse(&["at_once"], "it has no effect: requests go one after the other")?;
            ToldBy::Webhook {
                url: read_url(url)?,
                secret_file: read_path(
                    receiver.required("secret_file")?,
                    "/etc/mwb/webhook.secret",
                )?,
                keep: receiver.or("keep", Duration::from_secs(7 * 86_400), |at| {
                    at.duration(&schema::NOTIFY_KEEP)
                })?,
            }
        }
        (None, Some(command)) => {
            refuse(&["secret_file", "keep"], "it has no effect: a command is called once")?;
            let at_once = receiver.or("at_once", 1, |at| at.integer(&schema::AT_ONCE))?;
            ToldBy::Command {
                command: read_command(command)?,
                at_once: usize::try_from(at_once).unwrap_or(1),
            }
        }
        (Some(at), Some(_)) => {
            let message = "a receiver has a `url` or a `command`, not both";
            return Err(at.key_fault(message, "make two receivers of it"));
        }
        (None, None) => {
            return Err(receiver.fault(
                "it does not say how it is told",
                "add `url` and `secret_file`, or `command`",
            ));
        }
    };
    Ok(Receiver {
        name: read_name(receiver.required("name")?, "a receiver", schema::CLIENT_NAME_LENGTH)?,
        events: receiver.or("events", Vec::new(), read_kinds)?,
        wans: receiver.or("wans", Vec::new(), |at| read_wan_names(at, wans))?,
        timeout: receiver
            .or("timeout", Duration::from_secs(10), |at| at.duration(&schema::NOTIFY_TIMEOUT))?,
        by,
    })
}

fn read_url(at: &Cursor<'_>) -> Result<String, Fault> {
    at.parsed("a URL", "https://www.example.net/mwb", |text| {
        let url = url::Url::parse(text).ok()?;
        let is_http = matches!(url.scheme(), "http" | "https") && url.has_host();
        let plain = url.username().is_empty() && url.password().is_none();
        (is_http && plain && text.len() <= schema::URL_LENGTH).then(|| text.to_owned())
    })
}

fn read_kinds(at: &Cursor<'_>) -> Result<Vec<EventKind>, Fault> {
    let items = at.items("[wan_state, failover, failback]")?;
    check_count(at, items.len(), EventKind::ALL.len(), "kinds of events")?;
    let words = EventKind::ALL.map(|kind| (kind.name(), kind));
    items.iter().map(|item| item.word(&words, &[])).collect()
}

fn read_wan_names(at: &Cursor<'_>, wans: &[Wan]) -> Result<Vec<String>, Fault> {
    let items = at.items("[fiber]")?;
    check_count(at, items.len(), schema::WANS, "WANs")?;
    let names: Vec<(&str, &str)> =
        wans.iter().map(|wan| (wan.name.as_str(), wan.name.as_str())).collect();
    items.iter().map(|item| item.word(&names, &[]).map(str::to_owned)).collect()
}

/// A program by its full path, and its arguments.
pub(super) fn read_command(at: &Cursor<'_>) -> Result<Vec<String>, Fault> {
    let items = at.items("[/usr/lib/nagios/plugins/check_http, -H, www.example.net]")?;
    check_count(at, items.len(), schema::ARGUMENTS, "words")?;
    let mut command = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let text = item.text("-H")?;
        if text.contains('\0') || text.len() > schema::PATH_LENGTH {
            return Err(item.fault("this cannot be given to a program", "write plain text"));
        }
        if index == 0 && !text.starts_with('/') {
            return Err(item.fault(
                format!("`{text}` is not the full path of a program"),
                "write it from the root on, like /usr/lib/nagios/plugins/check_http",
            ));
        }
        command.push(text.to_owned());
    }
    Ok(command)
}
