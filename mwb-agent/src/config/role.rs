//! Which keys mean something in which role and mode: one without effect is
//! refused, with the reason.

use super::reader::{Cursor, Fault, Fields};
use super::{ForwardProtocol, Mode, Role, Server, Wan};

/// What the machine is.
pub(super) fn read_role(file: &Fields<'_>) -> Result<Role, Fault> {
    file.or("role", Role::Gateway, |at| {
        at.word(&[Role::Gateway, Role::Server].map(|role| (role.name(), role)), &[])
    })
}

/// What is done with packets. A server has one way.
pub(super) fn read_mode(file: &Fields<'_>, role: Role) -> Result<Mode, Fault> {
    match role {
        Role::Gateway => file
            .required("mode")?
            .word(&[Mode::Steer, Mode::Bond].map(|mode| (mode.name(), mode)), &[]),
        Role::Server => Ok(Mode::Steer),
    }
}

/// Sections and keys at the top of the file.
pub(super) fn check_file(file: &Fields<'_>, role: Role, mode: Mode) -> Result<(), Fault> {
    match (role, mode) {
        (Role::Server, _) => {
            let steers = "a server has no mode: what comes out of a bond leaves by a WAN";
            refuse(file, "mode", steers, "remove it")?;
            let lan = "a server has no LAN: its clients are behind the device of their bonds";
            refuse(file, "lan", lan, "remove it; the device is `server.device`")?;
            refuse(file, "bond", "this is a server: its end of bonds is `server`", "remove it")
        }
        (Role::Gateway, Mode::Bond) => {
            refuse(file, "server", NO_SERVER, "write `role: server`, or remove it")?;
            refuse(file, "redirect_peer", NO_PEER, "remove it")?;
            let nat = "it has no effect: in `mode: bond` the server translates addresses";
            refuse(file, "nat", nat, "remove it, and write it into the server's file")?;
            let policy = "it has no effect: in `mode: bond` everything goes to the server by all \
                          WANs";
            let fix = "remove it; `classes` says how packets go there, and a `policy` in the \
                       server's file by which of its WANs they leave";
            refuse(file, "policy", policy, fix)?;
            let prefix = "it has no effect: in `mode: bond` the LAN's addresses are translated by \
                          nobody here";
            refuse(file, "ipv6_prefix", prefix, "remove it, and write it into the server's file")
        }
        (Role::Gateway, Mode::Steer) => {
            refuse(file, "server", NO_SERVER, "write `role: server`, or remove it")?;
            let bond = "it has no effect: `mode` is `steer`";
            refuse(file, "bond", bond, "write `mode: bond`, or remove it")?;
            refuse(file, "classes", bond, "write `mode: bond`, or remove it")?;
            refuse(file, "reorder", bond, "write `mode: bond`, or remove it")?;
            refuse(file, "fec", bond, "write `mode: bond`, or remove it")
        }
    }
}

const NO_SERVER: &str = "it has no effect: `role` is `gateway`";

/// Keys of `failover`.
pub(super) fn check_failover(failover: &Fields<'_>, role: Role, mode: Mode) -> Result<(), Fault> {
    match (role, mode) {
        (Role::Gateway, Mode::Steer) => refuse(
            failover,
            "dead_after",
            "it has no effect: `mode` is `steer`, where a WAN is down after `health.retries` \
             probes without an answer",
            "remove it, or set `health.interval` and `health.retries`",
        ),
        (Role::Gateway, Mode::Bond) => refuse(failover, "failback", NO_FAILBACK, "remove it"),
        (Role::Server, _) => Ok(()),
    }
}

const NO_FAILBACK: &str =
    "it has no effect: in `mode: bond` no flow rests on a WAN, so none is left behind";

const NO_PEER: &str = "it has no effect: in `mode: bond` packets are sent by XDP";

/// Keys of a LAN port.
pub(super) fn check_lan(lan: &Fields<'_>, mode: Mode) -> Result<(), Fault> {
    match mode {
        Mode::Steer => Ok(()),
        Mode::Bond => refuse(lan, "redirect_peer", NO_PEER, "remove it"),
    }
}

/// Keys of a WAN.
pub(super) fn check_wan(wan: &Fields<'_>, role: Role, mode: Mode) -> Result<(), Fault> {
    match (role, mode) {
        (Role::Gateway, Mode::Bond) => {}
        (Role::Gateway, Mode::Steer) => return Ok(()),
        (Role::Server, _) => {
            let told = "it has no effect: a server is told by each client which of its paths are \
                        metered";
            return refuse(wan, "metered", told, "remove it, and write it into the client's file");
        }
    }
    refuse(wan, "failback", NO_FAILBACK, "remove it")?;
    refuse(wan, "redirect_peer", NO_PEER, "remove it")?;
    let forwards = "it has no effect: in `mode: bond` hosts are reached by the server's address";
    refuse(wan, "forwards", forwards, "remove it, and write it into the server's file")?;
    let prefix = "it has no effect: in `mode: bond` the LAN's IPv6 addresses are not translated";
    refuse(wan, "ipv6_prefix", prefix, "remove it")
}

/// The port of the bonds is no forward's.
pub(super) fn check_port(at: &Cursor<'_>, server: &Server, wans: &[Wan]) -> Result<(), Fault> {
    let port = server.port;
    let taken = wans.iter().find(|wan| {
        wan.forwards.iter().any(|forward| {
            forward.protocol == ForwardProtocol::Udp
                && (forward.port_min..=forward.port_max).contains(&port)
        })
    });
    match taken {
        None => Ok(()),
        Some(wan) => Err(at.fault(
            format!("UDP port {port} of WAN `{}` is forwarded, and clients send to it", wan.name),
            "take the port out of the forward, or give `server.port` another one",
        )),
    }
}

fn refuse(fields: &Fields<'_>, key: &str, why: &str, fix: &str) -> Result<(), Fault> {
    fields.get(key).map_or(Ok(()), |at| Err(at.key_fault(why, fix)))
}
