//! Why a packet takes the WAN it takes: what the kernel side decides, decided
//! again with the same functions over what stands in its maps.
//!
//! [`Packet`] is what is asked about; [`decide`] finds out; [`words`] says it. What the
//! gateway of a bond does is told by [`bonded`].
//! Must not know: who asks. Pure but for [`Facts::read`].

pub mod bonded;
mod decide;
mod entry;
mod facts;
mod packet;
mod ruled;
pub mod words;

#[cfg(test)]
mod tests;

pub use decide::{Decided, Picked, Placed, Standing, Verdict, decide, place};
pub use entry::Entry;
pub use facts::Facts;
pub use packet::{NotAPacket, Packet};
pub use ruled::{Policy, Ruled, meet};
