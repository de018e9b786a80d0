//! The history of the WANs: rounds of probes, latencies, time in states, and changes
//! of state with their reasons, in one SQLite file.
//!
//! ```text
//! Writer ──bounded channel──▶ thread "mwb-history": Accumulator ──▶ Store ──▶ file
//!                                                                     Reader ◀──┘
//! ```
//!
//! For each WAN and method (`""`: all together) there are periods of 10 s, 5 min and
//! 1 h, each level kept longer than the one before. Every 10 s one transaction writes
//! what came in; one more makes longer periods of those that are over. Each of the
//! WANs' rows lies in a page of its own, so that a question reads few: a write of n
//! series costs about n pages of 4 KiB in the log.
//!
//! What the wall's clock does: rows have its time, so history made with a wrong clock
//! stays under the wrong time, and each round counts once there. Back: rows that are
//! there get more. Ahead: nothing is deleted as too old until that time has stood for
//! a day. What was written ahead of the present stays until its time is over.
//!
//! Must not know: how a WAN is probed, what a state means for traffic, who asks.

mod accumulate;
pub mod chart;
mod db;
mod error;
mod histogram;
mod level;
mod open;
mod reader;
mod record;
mod retain;
mod row;
mod tally;
mod uptime;
mod worker;
mod writer;

pub use accumulate::Run;
pub use db::Store;
pub use error::Error;
pub use histogram::Histogram;
pub use level::Retention;
pub use reader::{Period, Reader, Summary, reader};
pub use record::{Change, Moment, Outcome, Round, State};
pub use tally::Tally;
pub use uptime::Outages;
pub use writer::{Condition, Settings, Writer};
