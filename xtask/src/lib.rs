//! The developer's front door as a library: the commands, and the network lab
//! that run, test and bench share. It never links the agent, so that it builds
//! before the eBPF toolchain is there.

pub mod bench;
pub mod build;
pub mod cli;
pub mod e2e;
pub mod exec;
pub mod fuzz;
pub mod lab;
pub mod only;
pub mod outcome;
pub mod run;
pub mod setup;
pub mod test;
pub mod verify;
pub mod vm;
pub mod workspace;
