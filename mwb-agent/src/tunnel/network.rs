//! What the bond must know of the network: the WANs and its own device, as the control
//! loop sees them. Must not know: how that is found out.

use std::net::SocketAddr;

use crate::config::{Balance, Classes};

/// A WAN that a path can go by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uplink {
    /// Path id of the WAN.
    pub path: u8,
    /// What people call it.
    pub name: String,
    /// Interface name.
    pub device: String,
    /// Interface index while the device is there.
    pub ifindex: Option<u32>,
    /// Whether the device is up and has a carrier.
    pub carrier: bool,
    /// Whether it has an IPv4 address, and the next hop of it is known.
    pub v4: bool,
    /// The same for IPv6.
    pub v6: bool,
    /// Layer 3 MTU of the device in bytes.
    pub mtu: u32,
    /// 0 is the best.
    pub priority: u8,
    /// Share among WANs of one priority.
    pub weight: u16,
    /// To the far end in bit/s, as far as the operator says.
    pub capacity_up: Option<u64>,
    /// From there.
    pub capacity_down: Option<u64>,
    /// Each byte costs: while it carries nothing it is probed seldom.
    pub metered: bool,
}

impl Uplink {
    /// Whether packets to an address can leave by it now.
    #[must_use]
    pub fn reaches(&self, to: SocketAddr) -> bool {
        self.ifindex.is_some() && self.carrier && if to.is_ipv4() { self.v4 } else { self.v6 }
    }
}

/// What a bond that runs is told, all at once: rules of classes name WANs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// The network.
    pub network: Network,
    /// The classes of service, with what counts now.
    pub classes: Classes,
}

/// The network around the bond.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Of a gateway: how packets are shared among its paths.
    pub balance: Balance,
    /// The WANs, in the order of the configuration.
    pub uplinks: Vec<Uplink>,
    /// Interface index of the kernel's end of the bond's device.
    pub outer_device: Option<u32>,
    /// Interface index of the data plane's end.
    pub inner_device: Option<u32>,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            balance: Balance::Adaptive,
            uplinks: Vec::new(),
            outer_device: None,
            inner_device: None,
        }
    }
}

impl Network {
    /// The WAN with a path id.
    #[must_use]
    pub fn uplink(&self, path: u8) -> Option<&Uplink> {
        self.uplinks.iter().find(|uplink| uplink.path == path)
    }
}
