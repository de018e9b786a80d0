//! Tells others what happens: hands the events of the bus to webhooks and to
//! commands on this machine, the *receivers*.
//!
//! One task listens to the bus and does nothing but move events into bounded
//! queues, so that nobody who publishes ever waits. Each receiver has a task of
//! its own and waits for no other.
//!
//! - A **webhook** gets each event at least once and in order. Its queue is on
//!   disk: an event is there before the first attempt and until
//!   a request was answered with 2xx. `delivery` is the same in each attempt, so
//!   a receiver that remembers it has each event exactly once.
//! - A **command** gets each event at most once: its queue is in memory.
//!
//! What a webhook checks: `X-MWB-Signature` is `sha256=` and, in hexadecimal,
//! HMAC-SHA256 (RFC 2104) with the secret over the value of `X-MWB-Timestamp`
//! (seconds since 1970, of this attempt), one full stop, and the body as it came.
//!
//! Must not know: who publishes, how HTTP is spoken, where the configuration
//! comes from.

mod body;
mod command;
mod disk;
mod exec;
mod inbox;
mod notifier;
mod post;
mod prepare;
mod queue;
mod receiver;
mod retry;
mod sign;
mod staff;
mod status;
mod webhook;
mod world;

#[cfg(test)]
mod tests;

pub use body::Body;
pub use notifier::{Notifier, Settings, Tested};
pub use post::{Post, Reply};
pub use prepare::{NotifyError, check};
pub use receiver::{DEFAULT_KEEP, DEFAULT_TIMEOUT, Filter, Kind, Receiver};
pub use retry::Backoff;
pub use sign::{SecretError, signature};
pub use status::{Dropped, LastError, ReceiverStatus, Status};
