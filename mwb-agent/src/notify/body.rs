//! What a receiver gets: the event as the API shows it, and which delivery it is.
//!
//! Must not know: queues, transports.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::events::Event;

/// The kind of an event that only tries a receiver.
const TEST: &str = "test";

/// What a receiver gets, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Body {
    /// The same in each attempt, and in no other delivery of any agent.
    pub delivery: String,
    /// The gateway's host name.
    pub gateway: String,
    /// The receiver's name.
    pub receiver: String,
    /// The event's id in this run of the agent; 0 for a test.
    pub id: u64,
    /// When it happened, in milliseconds since 1970.
    pub unix_ms: u64,
    /// What happened; `test` if nothing did.
    pub kind: String,
    /// The WAN it is about.
    pub wan: Option<String>,
    /// One sentence for people.
    pub message: String,
    /// Why; empty if the message says it all.
    pub reason: String,
}

/// Where events come from: what makes their ids unique.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    /// This gateway's host name.
    pub(super) gateway: String,
    /// This run of the agent: the ids of events begin anew with each.
    pub(super) run: String,
}

impl Origin {
    pub(super) fn body(&self, receiver: &str, event: &Event) -> Body {
        Body {
            delivery: format!("{}-{receiver}-{}", self.run, event.id),
            gateway: self.gateway.clone(),
            receiver: receiver.to_owned(),
            id: event.id,
            unix_ms: event.unix_ms,
            kind: event.kind.name().to_owned(),
            wan: event.wan.clone(),
            message: event.message.clone(),
            reason: event.reason.clone(),
        }
    }

    /// The `number`th test of this run.
    pub(super) fn test(&self, receiver: &str, number: u64, unix_ms: u64) -> Body {
        Body {
            delivery: format!("{}-{receiver}-{TEST}-{number}", self.run),
            gateway: self.gateway.clone(),
            receiver: receiver.to_owned(),
            id: 0,
            unix_ms,
            kind: TEST.to_owned(),
            wan: None,
            message: format!("a test of the receiver {receiver}"),
            reason: "the operator asked for it".to_owned(),
        }
    }
}

impl Body {
    pub(super) fn to_json(&self) -> Vec<u8> {
        // Strings and numbers can always be written.
        serde_json::to_vec(self).unwrap_or_default()
    }
}
