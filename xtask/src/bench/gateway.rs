//! What stands between the two ends of a lane.

use anyhow::{Result, ensure};
use aya::Ebpf;

use super::{
    kernel,
    lane::{Between, Translation},
};
use crate::lab::{
    self, GatewayConfig, KernelGateway, KernelRouting, Lab, Namespace, address::wan4,
};

/// A gateway of a lab.
pub(super) enum Gateway {
    /// `mwb-agent` in steer mode with the XDP hook on both devices.
    Ours(lab::Gateway),
    /// Linux: `ip_forward` and an nftables masquerade.
    Kernel { _nat: KernelGateway, _pass: Ebpf },
    /// None: a sink on the first device.
    Floor,
}

/// The gateway's devices.
const DEVICES: [&str; 2] = ["lan0", "wan0"];

impl Gateway {
    /// Starts the agent in the gateway's namespace.
    pub(super) fn ours(lab: &Lab) -> Result<Self> {
        Self::ours_with(lab, |config| config)
    }

    /// The same with a configuration of its own.
    pub(super) fn ours_with(
        lab: &Lab,
        configure: impl FnOnce(GatewayConfig) -> GatewayConfig,
    ) -> Result<Self> {
        let config = configure(GatewayConfig::new(lab).with("hook", "xdp"));
        Ok(Self::Ours(lab::Gateway::start(lab, &config)?))
    }

    /// Sets up the kernel's own NAT.
    ///
    /// Without NAPI on the receiving device a veth loses redirected frames. A
    /// program that passes everything gives it NAPI, as `gro on` would, and
    /// leaves the kernel 4 % faster than that.
    pub(super) fn kernel(object: &[u8], lab: &Lab) -> Result<Self> {
        let nat = KernelGateway::start(lab, KernelRouting::First)?;
        let mut pass = kernel::load(object)?;
        lab.gw().enter(|| {
            DEVICES.iter().try_for_each(|device| kernel::attach(&mut pass, "pass", device))
        })?;
        Ok(Self::Kernel { _nat: nat, _pass: pass })
    }
}

impl Between for Gateway {
    const WARM_UP: u32 = 32_768;
    const KEEP_SHIFT: u8 = 12;
    const CHANGES_ALL: bool = false;

    fn name(&self) -> &'static str {
        match self {
            Gateway::Ours(_) => "gateway",
            Gateway::Kernel { .. } => "kernel",
            Gateway::Floor => "floor",
        }
    }

    fn translation(&self) -> Option<Translation> {
        let ports = match self {
            Gateway::Ours(_) => 10_000..=65_535,
            Gateway::Kernel { .. } => 1024..=65_535,
            Gateway::Floor => return None,
        };
        Some(Translation { address: wan4(0), ports, hops: 1 })
    }

    fn check(&mut self, lab: &Lab) -> Result<()> {
        all_native(DEVICES.map(|device| (lab.gw(), device)))?;
        if let Gateway::Ours(agent) = self {
            ensure!(agent.process().is_running()?, "the agent has ended:\n{}", agent.log());
        }
        Ok(())
    }
}

/// Fails unless all devices are in native XDP.
pub(super) fn all_native<'a>(
    devices: impl IntoIterator<Item = (&'a Namespace, &'a str)>,
) -> Result<()> {
    devices.into_iter().try_for_each(|(place, device)| {
        let link = place.link_json(device)?;
        // As IFLA_XDP_ATTACHED counts, 1 is native.
        let mode = link.pointer("/xdp/mode").and_then(serde_json::Value::as_u64);
        ensure!(mode == Some(1), "{device} in {} lacks native XDP", place.name());
        Ok(())
    })
}
