//! The words of the file for values that have one, for messages and status.

use std::fmt;

use super::{
    Balance, Failback, Filtering, Forward, ForwardProtocol, HookChoice, Mode, Role, units,
};

impl Role {
    /// The word in the file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Role::Gateway => "gateway",
            Role::Server => "server",
        }
    }
}

impl Mode {
    /// The word in the file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Mode::Steer => "steer",
            Mode::Bond => "bond",
        }
    }
}

impl Balance {
    /// All of them.
    pub const ALL: [Balance; 7] = [
        Balance::RoundRobin,
        Balance::Weighted,
        Balance::LeastUsed,
        Balance::LeastLatency,
        Balance::PerFlow,
        Balance::Adaptive,
        Balance::Failover,
    ];

    /// The word in the file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Balance::RoundRobin => "round_robin",
            Balance::Weighted => "weighted",
            Balance::LeastUsed => "least_used",
            Balance::LeastLatency => "least_latency",
            Balance::PerFlow => "per_flow",
            Balance::Adaptive => "adaptive",
            Balance::Failover => "failover",
        }
    }
}

impl HookChoice {
    /// All of them.
    pub const ALL: [HookChoice; 3] = [HookChoice::Auto, HookChoice::Xdp, HookChoice::Tcx];

    /// The word in the file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            HookChoice::Auto => "auto",
            HookChoice::Xdp => "xdp",
            HookChoice::Tcx => "tcx",
        }
    }
}

impl Filtering {
    /// All of them.
    pub const ALL: [Filtering; 3] = [
        Filtering::AddressAndPortDependent,
        Filtering::AddressDependent,
        Filtering::EndpointIndependent,
    ];

    /// The word in the file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Filtering::AddressAndPortDependent => "address_and_port_dependent",
            Filtering::AddressDependent => "address_dependent",
            Filtering::EndpointIndependent => "endpoint_independent",
        }
    }
}

impl ForwardProtocol {
    /// The word in the file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            ForwardProtocol::Tcp => "tcp",
            ForwardProtocol::Udp => "udp",
        }
    }

    /// The protocol number of IP.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            ForwardProtocol::Tcp => 6,
            ForwardProtocol::Udp => 17,
        }
    }
}

impl Forward {
    /// Each port and the inside port it leads to.
    pub fn ports(&self) -> impl Iterator<Item = (u16, u16)> + use<> {
        (self.port_min..=self.port_max).zip(self.to_port..=u16::MAX)
    }
}

/// As it is written in the file.
impl fmt::Display for Failback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failback::Stay => f.write_str("stay"),
            Failback::Cut => f.write_str("cut"),
            Failback::Drain(time) => write!(f, "drain({})", units::show_duration(*time)),
        }
    }
}

/// As status and messages show it.
impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Forward { protocol, port_min, port_max, to, to_port } = self;
        write!(f, "{} {port_min}", protocol.name())?;
        if port_max > port_min {
            write!(f, "-{port_max}")?;
        }
        write!(f, " → {to}:{to_port}")
    }
}
