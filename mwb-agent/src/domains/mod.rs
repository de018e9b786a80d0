//! Addresses of names that policy rules ask for: learned from what a resolver on the
//! gateway answers to hosts on the LAN, kept for as long as the answers say.
//!
//! [`Listener`] hears the answers on LAN ports; [`Reader`] makes messages of packets,
//! [`learn`] reads one; [`Book`] keeps the addresses and says what to write into the kernel
//! side's tables. All but the listener is pure.
//!
//! Must not know: rules and where they lead, maps.

mod answer;
mod book;
mod entries;
mod listener;
mod packet;
mod reader;
mod socket;
mod streams;

pub use answer::{Answer, Unreadable, learn};
pub use book::Book;
pub use entries::{Change, Found, Learned, Listed};
pub use listener::{Ears, Heard, Listener};
pub use reader::{Counts, Reader};
