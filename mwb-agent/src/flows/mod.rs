//! Expiry: which flows, mappings and ports are over, and taking them away.
//! Must not know: netlink, configuration files, how tables are read.
//!
//! [`plan`] is a pure function of a snapshot; [`Sweeper`] takes the snapshot,
//! carries the plan out, and knows how full the tables are.

mod plan;
mod sources;
mod sweep;

pub use plan::{Plan, Snapshot, Suspects, Timeouts, Usage, plan};
pub use sweep::Sweeper;
