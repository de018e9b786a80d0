//! The network lab: a little Internet of namespaces on one machine, shared by
//! run, test and bench.
//!
//! ```text
//!              ┌── wan0 ═ link ═ isp1 ──┐
//! host ── gw ──┼── wan1 ═ link ═ isp2 ──┼── net ── srv
//!              └── …                    ┘
//! ```
//! `srv`, where a lab has it, is a server's: the far end of a bond, with an uplink to
//! the Internet.
//!
//! Addresses are in [`address`]. A link is a veth pair, or has a rate, delay, loss
//! and cuts ([`link`]), by netem where the kernel has it and by a relay of our own
//! elsewhere; hosts pace what they send where the kernel has fq. Whatever happens
//! to the process that made a lab, the lab goes away (`janitor`).
//!
//! Must not know: what a gateway does inside (it uses its binaries and its API).

pub mod address;
mod agent;
pub mod api;
mod bond;
pub mod capture;
mod concentrator;
mod config;
mod fq;
mod gateway;
mod janitor;
pub mod link;
mod namespace;
mod netem;
mod plain;
mod process;
mod qdisc;
pub(crate) mod raw;
mod relay;
mod server;
mod settings;
mod shaper;
mod stun;
mod tables;
mod topology;
pub mod traffic;
mod tun;
mod wait;
mod wan;

use std::{
    ffi::OsString,
    os::unix::process::CommandExt as _,
    process::{Command, ExitCode},
};

use anyhow::Result;

pub use self::{
    agent::Agent,
    bond::{BondConfig, Family, Key},
    config::AgentConfig,
    gateway::{Gateway, GatewayConfig, start_limit},
    link::{Direction, DirectionStats, LinkSpec, LinkStats, Loss},
    namespace::Namespace,
    plain::{KernelGateway, KernelRouting},
    process::Process,
    server::Server,
    stun::{Dependence, NatBehaviour, StunServer},
    tables::{BondTables, PathView},
    topology::{Lab, LabSpec, Shape, WanSpec, connect, kernel_release},
    wait::{wait_for, wait_until},
    wan::Wan,
};

/// Where agents pin what is to outlive them, each in a directory of its own.
pub(crate) const PINS: &str = "/sys/fs/bpf/mwb";

/// Removes what agents have made for all of them together, unless one has something there.
pub fn tidy() {
    let _ = std::fs::remove_dir(PINS);
}

/// Name of the variable that is set where every instruction is emulated.
pub(crate) const EMULATED: &str = "MWB_EMULATED";

/// Every instruction is emulated here: rates are a tenth of a machine's, and
/// clocks late by milliseconds.
#[must_use]
pub fn is_emulated() -> bool {
    std::env::var_os(EMULATED).is_some()
}

/// Name of the variable that is set in every test VM.
pub(crate) const GUEST: &str = "MWB_GUEST";

/// This is a test VM: its kernel has what every stock kernel has, and a test that
/// needs it must not do without.
#[must_use]
pub fn is_guest() -> bool {
    std::env::var_os(GUEST).is_some()
}

/// Becomes one of the lab's helper processes if the command line asks for it.
/// To be called first of all in `main`.
#[must_use]
pub fn helper(mut arguments: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    let _program = arguments.next();
    let result = match arguments.next()?.to_str()? {
        janitor::COMMAND => janitor::main(),
        relay::COMMAND => relay::main(arguments),
        _ => return None,
    };
    Some(exit_code(&result))
}

/// How a helper process ends.
pub(crate) fn exit_code(result: &Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// This program again, as one of its helpers. By `/proc/self/exe`, because a
/// rebuild during a run replaces the file.
fn helper_command(name: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("xtask").arg(name);
    command
}
