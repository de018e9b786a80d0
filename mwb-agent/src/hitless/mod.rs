//! What makes a bond hitless, as pure state machines: packets that come by several paths
//! are put in order ([`reorder`]), and those that get lost are sent again ([`resend`]) or
//! computed from parity ([`fec`]).
//!
//! Must not know: sockets, clocks, maps, sessions.

pub mod fec;
pub mod reorder;
pub mod resend;

#[cfg(test)]
mod tests;
