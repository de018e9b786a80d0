//! Those who are told of what happens, as the configuration names them.

use std::sync::Arc;
use std::time::Duration;

use super::Error;
use super::client::Client;
use crate::config::{Config, ToldBy};
use crate::events::{Bus, EventKind};
use crate::notify::{self, Filter, Kind, Notifier, Receiver, Settings};

/// How long the end of the agent waits for receivers.
const GRACE: Duration = Duration::from_secs(2);

/// Tells receivers, or nobody.
#[derive(Clone)]
pub(super) struct Telling {
    notifier: Arc<Notifier>,
}

impl Telling {
    /// Begins to tell. Who cannot be told is left out, and that said: packets do not wait
    /// for a file with a secret.
    pub(super) async fn start(bus: &Bus, config: &Config) -> Result<Self, Error> {
        let mut settings = Settings::new(host());
        settings.folder.clone_from(&config.notify.directory);
        settings.queue = config.notify.queue;
        let post = Client::new().map_err(Error::Client)?;
        let mut receivers = receivers(config);
        settings.keep = receivers.iter().map(|receiver| receiver.name.clone()).collect();
        loop {
            let (settings, told) = (settings.clone(), receivers.clone());
            let started = Notifier::start(bus.clone(), 0, settings, told, post.clone()).await;
            let error = match started {
                Ok(notifier) => return Ok(Self { notifier: Arc::new(notifier) }),
                Err(error) => error,
            };
            let before = receivers.len();
            receivers.retain(|receiver| error.receiver() != Some(&receiver.name));
            if receivers.len() == before {
                return Err(error.into());
            }
            let message = "a receiver is not told";
            bus.publish(EventKind::System, None, message, error.to_string());
        }
    }

    /// Tells those of another configuration from now on.
    pub(super) fn follow(&self, config: &Config) {
        let (notifier, receivers) = (self.notifier.clone(), receivers(config));
        tokio::spawn(async move {
            if let Err(error) = notifier.set_receivers(receivers).await {
                tracing::error!(%error, "those who were told before are told");
            }
        });
    }

    /// How it goes with them.
    pub(super) fn notifier(&self) -> &Notifier {
        &self.notifier
    }

    /// Lets them have what has happened until now.
    pub(super) async fn stop(self) {
        // Whoever asks at this moment has another handle: then it ends with the agent.
        if let Ok(notifier) = Arc::try_unwrap(self.notifier) {
            notifier.stop(GRACE).await;
        }
    }
}

/// Whether all that a configuration names could be told.
pub(super) fn check(config: &Config) -> Result<(), String> {
    notify::check(receivers(config)).map_err(|error| error.to_string())
}

fn host() -> String {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    name.unwrap_or_else(|| "gateway".to_owned())
}

fn receivers(config: &Config) -> Vec<Receiver> {
    let of = |receiver: &crate::config::Receiver| Receiver {
        name: receiver.name.clone(),
        filter: Filter { kinds: receiver.events.clone(), wans: receiver.wans.clone() },
        kind: match &receiver.by {
            ToldBy::Webhook { url, secret_file, keep } => Kind::Webhook {
                url: url.clone(),
                secret_file: secret_file.clone(),
                timeout: receiver.timeout,
                keep: *keep,
            },
            ToldBy::Command { command, at_once } => Kind::Exec {
                command: command.clone(),
                timeout: receiver.timeout,
                at_once: *at_once,
            },
        },
    };
    config.notify.receivers.iter().map(of).collect()
}
