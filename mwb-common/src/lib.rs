//! What the kernel side and the agent must agree on, as pure functions and
//! plain structs. Must not know: aya's programs, I/O, the clock.
#![cfg_attr(not(test), no_std)]

#[cfg(not(target_arch = "bpf"))]
extern crate alloc;

pub mod checksum;
pub mod classes;
pub mod counters;
pub mod integrity;
pub mod maps;
pub mod messages;
pub mod nat;
pub mod nptv6;
pub mod parse;
pub mod policy;
pub mod reason;
pub mod select;
pub mod turns;
pub mod window;
pub mod wire;
