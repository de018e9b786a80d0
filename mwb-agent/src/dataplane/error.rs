//! What can go wrong between us and the kernel, in words an operator can act on.

use std::io;
use std::path::PathBuf;

use aya::maps::MapError;
use aya::programs::ProgramError;
use mwb_common::maps::DEVICE_SLOTS;

/// A property in which a pinned map differs from what this agent would make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapDifference {
    /// The pin.
    pub path: PathBuf,
    /// Which property.
    pub what: &'static str,
    /// What the pinned map has.
    pub found: String,
    /// What we need.
    pub expected: String,
}

fn list(differences: &[MapDifference]) -> String {
    differences
        .iter()
        .map(|MapDifference { path, what, found, expected }| {
            format!("\n  {} has {what} {found}, needs {expected}", path.display())
        })
        .collect()
}

/// An error of the data plane.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file operation under the pin directory failed.
    #[error("{action} {}: {source}", path.display())]
    Pins {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },

    /// bpffs could not be mounted.
    #[error("no BPF file system at {} and mounting one failed: {source}", path.display())]
    Mount {
        /// Where.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },

    /// An instance name that cannot be part of a path.
    #[error("instance name `{0}` must be 1 to 32 characters of a-z, 0-9, `-` and `_`")]
    Instance(String),

    /// Another layout still has links.
    #[error(
        "instance `{instance}` is still attached with map layout v{found} (this agent has \
         v{ours}); stop the agent that uses it and run `mwb-agent --detach --instance {instance}`"
    )]
    OtherLayout {
        /// The instance.
        instance: String,
        /// Layout version of the links that were found.
        found: u32,
        /// Layout version of this agent.
        ours: u32,
    },

    /// Pinned maps are not those this agent would make.
    #[error(
        "instance `{instance}` has pinned maps that this agent cannot use:{}\nflows are lost when \
         they change: run `mwb-agent --detach --instance {instance}` and start again, or give it \
         the settings and the agent that it had",
        list(differences)
    )]
    MapsDiffer {
        /// The instance.
        instance: String,
        /// All that differs.
        differences: Vec<MapDifference>,
    },

    /// XDP was asked for on a device whose frames the XDP form cannot read.
    #[error(
        "{0} carries packets without an Ethernet header (tun, ppp, wireguard, ...), which XDP \
         programs never see: take `hook: auto` or `hook: tcx`"
    )]
    NoEthernet(String),

    /// A device of a bond that cannot run XDP.
    #[error("{device} cannot carry a bond: {message}")]
    BondNeedsXdp {
        /// The device.
        device: String,
        /// Why, and what to do.
        message: String,
    },

    /// A device with link-layer addresses of a kind that nothing here can write,
    /// or a LAN port without any.
    #[error(
        "{0} has no Ethernet address: only a WAN can do without, if its packets have no \
         link-layer header at all (tun, ppp, wireguard, ...)"
    )]
    NoMac(String),

    /// The object could not be parsed, or its maps not made.
    #[error("loading the eBPF object: {0}")]
    Load(#[source] Box<aya::EbpfError>),

    /// The kernel refused a program. Final: no setting changes it.
    #[error("kernel {kernel} refused program `{program}`: {source}\n{log}")]
    Verifier {
        /// The program.
        program: String,
        /// Release of the running kernel.
        kernel: String,
        /// What the kernel returned.
        source: io::Error,
        /// The last lines of the verifier.
        log: String,
    },

    /// The object lacks a map or program that the agent knows.
    #[error("the eBPF object has no `{0}`")]
    Missing(&'static str),

    /// A program operation failed.
    #[error("program `{program}`: {source}")]
    Program {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: Box<ProgramError>,
    },

    /// A map operation failed.
    #[error("map {map}: {source}")]
    Map {
        /// The map.
        map: &'static str,
        /// Why.
        #[source]
        source: Box<MapError>,
    },

    /// A `bpf()` call of our own failed.
    #[error("map {map}: {call}: {source}")]
    Call {
        /// The map.
        map: &'static str,
        /// The command.
        call: &'static str,
        /// Why.
        source: io::Error,
    },

    /// A device index that the device table cannot hold.
    #[error(
        "{device} has interface index {ifindex}; the device table ends at {limit}",
        limit = DEVICE_SLOTS - 1
    )]
    IfindexTooHigh {
        /// The device.
        device: String,
        /// Its index.
        ifindex: u32,
    },

    /// A path id outside the table.
    #[error("path id {0} is not between 1 and {max}", max = mwb_common::maps::MAX_PATHS)]
    PathId(u8),

    /// An outlet that there is not.
    #[error("outlet {0} is not below {limit}", limit = mwb_common::policy::OUTLETS)]
    Outlet(u8),

    /// Policy rules that the tables do not hold; those before stay.
    #[error(transparent)]
    Policy(#[from] mwb_common::policy::TooMuch),

    /// The kernel did not attach a program.
    #[error("attaching {form} to {device}: {message}")]
    Attach {
        /// The device.
        device: String,
        /// `xdp` or `tc`.
        form: &'static str,
        /// What to know or do about it.
        message: String,
    },

    /// More prefixes than the table holds.
    #[error("{count} prefixes, but table {map} holds {limit}")]
    TooManyPrefixes {
        /// The map.
        map: &'static str,
        /// How many were given.
        count: usize,
        /// How many fit.
        limit: usize,
    },

    /// The number of possible CPUs could not be read.
    #[error("reading {path}: {source}")]
    Cpus {
        /// The file.
        path: &'static str,
        /// Why.
        source: io::Error,
    },
}

impl Error {
    pub(super) fn map(map: &'static str) -> impl FnOnce(MapError) -> Self {
        move |source| Error::Map { map, source: Box::new(source) }
    }

    pub(super) fn program(program: impl Into<String>) -> impl FnOnce(ProgramError) -> Self {
        let program = program.into();
        move |source| Error::Program { program, source: Box::new(source) }
    }

    pub(super) fn pins(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Error::Pins { action, path, source }
    }
}
