//! Why a packet takes the WAN it takes: what the kernel side decides, decided
//! again with the same functions over what stands in its maps.
//!
//! [`Packet`] is what is asked about; [`decide`] finds out; [`words`] says it.
//! Must not know: how maps are read, who asks. Pure.

mod decide;
mod packet;
pub mod words;

#[cfg(test)]
mod tests;

pub use decide::{Decided, Facts, Picked, Placed, Standing, Verdict, decide, place};
pub use packet::{NotAPacket, Packet};
