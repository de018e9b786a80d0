//! What stands between the two ends of a lane.

use std::ops::RangeInclusive;

use anyhow::{Result, ensure};

use crate::lab::{self, GatewayConfig, KernelGateway, KernelRouting, Lab};

/// A gateway of a lab.
pub(super) enum Gateway {
    /// `mwb-agent` in steer mode with the XDP hook on both devices.
    Ours(lab::Gateway),
    /// Linux: `ip_forward` and an nftables masquerade.
    Kernel { _nat: KernelGateway },
    /// None: a sink on the first device.
    Floor,
}

/// The gateway's devices.
const DEVICES: [&str; 2] = ["lan0", "wan0"];

impl Gateway {
    /// Starts the agent in the gateway's namespace.
    pub(super) fn ours(lab: &Lab) -> Result<Self> {
        let config = GatewayConfig::new(lab).with("hook", "xdp");
        Ok(Self::Ours(lab::Gateway::start(lab, &config)?))
    }

    /// Sets up the kernel's own NAT.
    pub(super) fn kernel(lab: &Lab) -> Result<Self> {
        let nat = KernelGateway::start(lab, KernelRouting::First)?;
        // Without NAPI on the receiving device a veth loses redirected frames.
        for device in DEVICES {
            lab.gw().ethtool_features(device, &["gro", "on"])?;
        }
        Ok(Self::Kernel { _nat: nat })
    }

    /// Its name in sentences.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Gateway::Ours(_) => "gateway",
            Gateway::Kernel { .. } => "kernel",
            Gateway::Floor => "floor",
        }
    }

    /// Ports that its outside endpoints may have.
    pub(super) fn ports(&self) -> RangeInclusive<u16> {
        match self {
            Gateway::Ours(_) => 10_000..=65_535,
            Gateway::Kernel { .. } | Gateway::Floor => 1024..=65_535,
        }
    }

    /// Fails unless what was measured is what it says it is.
    pub(super) fn check(&mut self, lab: &Lab) -> Result<()> {
        for device in DEVICES {
            let link = lab.gw().link_json(device)?;
            // 1 is native, as IFLA_XDP_ATTACHED counts.
            let native = link.pointer("/xdp/mode").and_then(serde_json::Value::as_u64) == Some(1);
            ensure!(
                native != matches!(self, Gateway::Kernel { .. }),
                "{device} of the {} has {}native XDP",
                self.name(),
                if native { "" } else { "no " },
            );
        }
        if let Gateway::Ours(agent) = self {
            ensure!(agent.process().is_running()?, "the agent has ended:\n{}", agent.log());
        }
        Ok(())
    }
}
