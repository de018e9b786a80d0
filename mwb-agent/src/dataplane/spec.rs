//! What callers say to the data plane and hear from it, in plain types.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use mwb_common::maps::{self, Direction};
use mwb_common::reason::Reason;

/// Where bpffs is, and what we keep under it.
pub const PIN_ROOT: &str = "/sys/fs/bpf/mwb";

/// Which programs are loaded: to verify one takes the kernel a while, and a device of some
/// other role never comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Programs {
    /// All there are: for a look at what the verifier says.
    All,
    /// Those of a server.
    Server,
    /// Those of a gateway that steers.
    Steering,
    /// Those of a gateway with a bond.
    Bond,
    /// None: for tests of what is in maps.
    #[cfg(test)]
    None,
}

impl Programs {
    /// Whether a program is one of them.
    #[must_use]
    pub(super) fn contain(self, id: ProgramId) -> bool {
        let of_the_bond =
            matches!(id, ProgramId::BondInside | ProgramId::BondOutside | ProgramId::BondBack);
        match self {
            Self::All => true,
            Self::Server => id != ProgramId::OutsideXdp,
            Self::Steering => !of_the_bond && id.next().is_none(),
            Self::Bond => of_the_bond,
            #[cfg(test)]
            Self::None => false,
        }
    }
}

/// How to open the data plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Name that keeps several agents on one machine apart; part of the pin path.
    pub instance: String,
    /// Directory on a BPF file system; made, and bpffs mounted, where missing.
    pub pin_root: PathBuf,
    /// Entries of each flow table; a flow takes two.
    pub flow_entries: u32,
    /// Entries of the mapping table and of the port table.
    pub mapping_entries: u32,
    /// Slots of sessions of the bond: a power of two, at least
    /// [`maps::SESSION_SLOTS`].
    pub session_slots: u32,
    /// What devices there will be.
    pub programs: Programs,
}

impl Options {
    /// The defaults of the map layout for one instance, and all programs.
    #[must_use]
    pub fn new(instance: &str) -> Self {
        Self {
            instance: instance.to_owned(),
            pin_root: PathBuf::from(PIN_ROOT),
            flow_entries: u32::try_from(maps::FLOW_ENTRIES).unwrap_or(u32::MAX),
            mapping_entries: u32::try_from(maps::MAPPING_ENTRIES).unwrap_or(u32::MAX),
            session_slots: u32::try_from(maps::SESSION_SLOTS).unwrap_or(u32::MAX),
            programs: Programs::All,
        }
    }
}

/// What a device is to us: which side of the gateway it is on, and of which mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// A LAN port.
    Inside,
    /// A WAN port.
    Outside,
    /// A LAN port of a gateway with a bond. In [`Hook::Tcx`] it runs no program: the
    /// kernel routes between it and the bond's device.
    BondInside,
    /// A WAN port of a gateway with a bond. It has to run XDP.
    BondOutside,
    /// An uplink of a server of bonds: a WAN port, and where bonds come in. It has to run
    /// XDP.
    Uplink,
    /// The data plane's end of the bond's device; [`DeviceSpec::mac`] is that of the
    /// kernel's end. It has to run XDP.
    BondDevice,
}

impl Role {
    /// Name in status and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Role::Inside | Role::BondInside => "lan",
            Role::Outside | Role::BondOutside | Role::Uplink => "wan",
            Role::BondDevice => "bond",
        }
    }

    /// Whether only XDP has a program for it.
    #[must_use]
    pub const fn needs_xdp(self) -> bool {
        matches!(self, Role::BondOutside | Role::Uplink | Role::BondDevice)
    }

    /// As the device table has it.
    #[must_use]
    pub(super) const fn number(self) -> u8 {
        match self {
            Role::Inside | Role::BondInside => maps::role::INSIDE,
            Role::Outside | Role::BondOutside | Role::Uplink => maps::role::OUTSIDE,
            Role::BondDevice => maps::role::DEVICE,
        }
    }
}

/// Which hook the operator asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HookChoice {
    /// Decided by the driver.
    #[default]
    Auto,
    /// XDP, native where the driver has it.
    Xdp,
    /// TCX, or a clsact filter on kernels before 6.6.
    Tcx,
}

/// The hook that does the work on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hook {
    /// The XDP form.
    Xdp,
    /// The TC form.
    Tcx,
}

impl Hook {
    /// Name in status and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Hook::Xdp => "xdp",
            Hook::Tcx => "tcx",
        }
    }
}

/// How the kernel runs the hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// XDP in the driver.
    Native,
    /// XDP after the socket buffer is made.
    Generic,
    /// A TCX link.
    Tcx,
    /// A filter of the clsact queueing discipline.
    Clsact,
    /// No program: the kernel routes.
    Routed,
}

impl Mode {
    /// Name in status and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Mode::Native => "native",
            Mode::Generic => "generic",
            Mode::Tcx => "tcx",
            Mode::Clsact => "clsact",
            Mode::Routed => "routed",
        }
    }
}

/// A device to attach to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceSpec {
    /// Interface name: names the pins.
    pub name: String,
    /// Interface index.
    pub ifindex: u32,
    /// What it is to us.
    pub role: Role,
    /// Path id of a WAN port, else 0.
    pub path: u8,
    /// What the operator asked for.
    pub hook: HookChoice,
    /// Driver name as ethtool gives it, or the link kind (`veth`, `bridge`, ...).
    pub driver: String,
    /// The device's MAC; all zero for a device without Ethernet.
    pub mac: [u8; 6],
    /// Bits of [`maps::device_flag`].
    pub flags: u8,
    /// Our IPv4 address on it, the source of ICMP errors; without one none are
    /// sent.
    pub address4: Option<Ipv4Addr>,
    /// Our IPv6 address on it, the same.
    pub address6: Option<Ipv6Addr>,
}

/// What `attach` did, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The hook that does the work.
    pub hook: Hook,
    /// How the kernel runs it.
    pub mode: Mode,
    /// One sentence for the operator.
    pub reason: String,
}

/// A counter that is not zero, summed over the CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CounterRow {
    /// From the LAN or from a WAN.
    pub direction: Direction,
    /// The path that carried the packets; 0: none.
    pub path: u8,
    /// Why they left the data plane the way they did.
    pub reason: Reason,
    /// One of [`maps::PROTOCOLS`].
    pub protocol: &'static str,
    /// Packets.
    pub packets: u64,
    /// Bytes from the IP header on.
    pub bytes: u64,
}

/// A prefix with what it is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefixRule<A> {
    /// Network address; bits behind `length` are ignored.
    pub address: A,
    /// Length in bits.
    pub length: u8,
    /// Class and path.
    pub prefix: maps::Prefix,
}

/// A program of the data plane by entry point and form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProgramId {
    /// LAN side, XDP form.
    InsideXdp,
    /// LAN side, TC form.
    InsideTc,
    /// WAN side, XDP form.
    OutsideXdp,
    /// WAN side, TC form.
    OutsideTc,
    /// LAN side, IPv4: what is rare and long, called by the TC form.
    InsideSlow4,
    /// LAN side, IPv6, the same.
    InsideSlow6,
    /// WAN side, IPv4, the same.
    OutsideSlow4,
    /// WAN side, IPv6, the same.
    OutsideSlow6,
    /// Into the bond.
    BondInside,
    /// Out of the bond.
    BondOutside,
    /// Out of a server's bond, and on.
    BondOpened,
    /// To a server's uplink, but not to its bond.
    UplinkXdp,
    /// Into a server's bond, from an uplink.
    BondInto,
    /// Out of a bond, from the agent.
    BondBack,
}

impl ProgramId {
    /// Every program.
    pub const ALL: [ProgramId; 14] = [
        ProgramId::InsideXdp,
        ProgramId::InsideTc,
        ProgramId::OutsideXdp,
        ProgramId::OutsideTc,
        ProgramId::InsideSlow4,
        ProgramId::InsideSlow6,
        ProgramId::OutsideSlow4,
        ProgramId::OutsideSlow6,
        ProgramId::BondInside,
        ProgramId::BondOutside,
        ProgramId::BondOpened,
        ProgramId::UplinkXdp,
        ProgramId::BondInto,
        ProgramId::BondBack,
    ];

    /// The program that is attached for a role and form, if there is one.
    #[must_use]
    pub const fn of(role: Role, hook: Hook) -> Option<Self> {
        Some(match (role, hook) {
            (Role::Inside, Hook::Xdp) => ProgramId::InsideXdp,
            (Role::Inside, Hook::Tcx) => ProgramId::InsideTc,
            (Role::Outside, Hook::Xdp) => ProgramId::OutsideXdp,
            (Role::Outside | Role::Uplink, Hook::Tcx) => ProgramId::OutsideTc,
            (Role::BondInside | Role::BondDevice, Hook::Xdp) => ProgramId::BondInside,
            (Role::BondOutside | Role::Uplink, Hook::Xdp) => ProgramId::BondOutside,
            (Role::BondInside | Role::BondOutside | Role::BondDevice, Hook::Tcx) => return None,
        })
    }

    /// Its form.
    #[must_use]
    pub const fn hook(self) -> Hook {
        match self {
            ProgramId::InsideXdp
            | ProgramId::OutsideXdp
            | ProgramId::BondInside
            | ProgramId::BondOutside
            | ProgramId::BondOpened
            | ProgramId::UplinkXdp
            | ProgramId::BondInto
            | ProgramId::BondBack => Hook::Xdp,
            ProgramId::InsideTc
            | ProgramId::OutsideTc
            | ProgramId::InsideSlow4
            | ProgramId::InsideSlow6
            | ProgramId::OutsideSlow4
            | ProgramId::OutsideSlow6 => Hook::Tcx,
        }
    }

    /// Its place in the array of XDP programs that are called and not attached.
    #[must_use]
    pub const fn next(self) -> Option<u32> {
        match self {
            ProgramId::UplinkXdp => Some(maps::next::OUTSIDE),
            ProgramId::BondOpened => Some(maps::next::OPENED),
            ProgramId::BondInto => Some(maps::next::INTO),
            ProgramId::BondBack => Some(maps::next::BACK),
            _ => None,
        }
    }

    /// Its place in the array of TC programs that are called and not attached.
    #[must_use]
    pub const fn slow(self) -> Option<u32> {
        match self {
            ProgramId::InsideSlow4 => Some(maps::slow::INSIDE4),
            ProgramId::InsideSlow6 => Some(maps::slow::INSIDE6),
            ProgramId::OutsideSlow4 => Some(maps::slow::OUTSIDE4),
            ProgramId::OutsideSlow6 => Some(maps::slow::OUTSIDE6),
            _ => None,
        }
    }

    /// Name in the object file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        use maps::names::programs;
        match self {
            ProgramId::InsideXdp => programs::INSIDE_XDP,
            ProgramId::InsideTc => programs::INSIDE_TC,
            ProgramId::OutsideXdp => programs::OUTSIDE_XDP,
            ProgramId::OutsideTc => programs::OUTSIDE_TC,
            ProgramId::InsideSlow4 => programs::INSIDE_SLOW4,
            ProgramId::InsideSlow6 => programs::INSIDE_SLOW6,
            ProgramId::OutsideSlow4 => programs::OUTSIDE_SLOW4,
            ProgramId::OutsideSlow6 => programs::OUTSIDE_SLOW6,
            ProgramId::BondInside => programs::BOND_INSIDE,
            ProgramId::BondOutside => programs::BOND_OUTSIDE,
            ProgramId::BondOpened => programs::BOND_OPENED,
            ProgramId::UplinkXdp => programs::UPLINK_XDP,
            ProgramId::BondInto => programs::BOND_INTO,
            ProgramId::BondBack => programs::BOND_BACK,
        }
    }
}

impl fmt::Display for ProgramId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
