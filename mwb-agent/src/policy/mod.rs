//! Policy rules at work: from what the operator wrote, and what is the case now, to what
//! the kernel side matches and where it sends it.
//!
//! [`rules`] makes the kernel side's rules; [`Numbers`] gives outlets their numbers, and
//! [`Slots`] rules their counters, both such that what stays the same keeps its own.
//! [`ask`] asks rules about a packet of which not all is known.
//!
//! Pure. Must not know: maps, health, how a selection is made.

mod ask;
mod numbers;
mod rules;
mod slots;

pub use ask::{Known, Met, ask};
pub use numbers::{Key, Numbers};
pub use rules::{Facts, active, fits, rules};
pub use slots::Slots;
