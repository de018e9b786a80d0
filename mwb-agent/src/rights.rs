//! Gives up the rights that the agent does not need: what runs on is what it
//! takes to load and attach programs, to read the network and to send probes.
//!
//! Rights are a thread's: this comes before the first other thread.

use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::prctl;

/// What the agent keeps: programs and maps, network devices, raw sockets, and
/// what programs need to read the kernel's memory.
pub const KEPT: [Capability; 4] = [
    Capability::CAP_BPF,
    Capability::CAP_NET_ADMIN,
    Capability::CAP_NET_RAW,
    Capability::CAP_PERFMON,
];

/// Why rights could not be given up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// One that is needed is not there.
    #[error(
        "the agent needs {missing}; run it as root, or with AmbientCapabilities as in \
         deploy/systemd/mwb-agent.service"
    )]
    Missing {
        /// Which.
        missing: String,
    },
    /// The system refused.
    #[error("giving up rights: {0}")]
    Refused(String),
}

/// Keeps [`KEPT`] and nothing else, for this thread and those it starts from now
/// on; programs that it would start could not get more either.
///
/// # Errors
/// When one of the rights is missing, or the system refuses.
pub fn give_up() -> Result<(), Error> {
    let refused = |error: caps::errors::CapsError| Error::Refused(error.to_string());
    let has = caps::read(None, CapSet::Permitted).map_err(refused)?;
    let missing: Vec<String> =
        KEPT.iter().filter(|right| !has.contains(right)).map(ToString::to_string).collect();
    if !missing.is_empty() {
        return Err(Error::Missing { missing: missing.join(", ") });
    }
    prctl::set_no_new_privs().map_err(|errno| Error::Refused(errno.to_string()))?;
    // Who may not shrink the bounding set was started with a small one: nothing
    // is gained by it without new privileges.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).map_err(refused)? {
        for right in caps::read(None, CapSet::Bounding).map_err(refused)? {
            if !KEPT.contains(&right) {
                caps::drop(None, CapSet::Bounding, right).map_err(refused)?;
            }
        }
    }
    let none = CapsHashSet::new();
    let kept: CapsHashSet = KEPT.into_iter().collect();
    caps::set(None, CapSet::Ambient, &none).map_err(refused)?;
    caps::set(None, CapSet::Inheritable, &none).map_err(refused)?;
    caps::set(None, CapSet::Effective, &kept).map_err(refused)?;
    caps::set(None, CapSet::Permitted, &kept).map_err(refused)
}
