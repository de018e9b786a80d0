//! A lane through a tunnel: frames of a LAN host go into it at the gateway, come out of
//! it at the server, and go on to the Internet; and the other way.
//!
//! ```text
//! host lan0 ── lan0 gw wan0 ══════ wan0 srv eth0 ── srv0 net
//!   generator   in        tunnel        out           sink       out
//!   sink        out       tunnel        in            generator  back
//! ```
//! All of it runs on one core, generator and sink included. A bond's server translates
//! to its own address what leaves its uplink; with the kernel's VXLAN, nftables does
//! so, or it is spared that.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use aya::Ebpf;
use serde_json::json;

use super::{
    gateway::all_native,
    kernel,
    lane::{Between, End, Lane, Translation},
};
use crate::lab::{
    self, BondConfig, BondTables, Lab, LabSpec, Namespace,
    address::{
        BOND_PORT, HOST4, INNER_GATEWAY4, INNER_SERVER4, INNER4_LENGTH, LAN4, SERVER4, provider4,
        wan4,
    },
    connect, wait_until,
};

/// Flows, in turn.
pub(super) const FLOWS: usize = 100;
/// How long a bond may take until it lives.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is between the gateway and the server.
pub(super) enum Tunnel {
    Bond { gateway: Box<lab::Gateway>, server: Box<lab::Server> },
    Vxlan { masquerades: bool, _pass: [Ebpf; 2] },
}

/// See the module's head.
pub(super) type TunnelLane = Lane<Tunnel>;

impl Lane<Tunnel> {
    /// Through a bond of one path.
    pub(super) fn bond(object: &[u8], suite: &str) -> Result<Self> {
        let lab = cabled()?;
        let config = BondConfig::new(&lab)?
            .with_suite(suite)
            .with_gateway("wans", json!([{"name": "wan0", "device": "wan0", "gateway": "auto"}]))
            .with_gateway("bond.server", format!("{}:{BOND_PORT}", provider4(0)))
            .with_server(
                "wans.1",
                json!({"name": "peer", "device": "wan0", "gateway": wan4(0).to_string()}),
            )
            .with_server("wans.1.priority", 1)
            .with_server("balance", "failover");
        let server = lab::Server::launch(&lab, &config.server.watching_gateways())?;
        let gateway = lab::Gateway::launch(&lab, &config.gateway.watching_gateways())?;
        wait_until("the bond lives at both ends", PATIENCE, || {
            Ok(BondTables::open(&gateway)?.living()? == 1
                && BondTables::open(&server)?.living()? == 1)
        })
        .with_context(|| format!("gateway:\n{}\nserver:\n{}", gateway.log(), server.log()))?;
        let (gateway, server) = (Box::new(gateway), Box::new(server));
        Self::through(object, lab, Tunnel::Bond { gateway, server })
    }

    /// Through the kernel's VXLAN, routed at both ends; the server masquerades what
    /// leaves its uplink, as that of a bond does, or not.
    pub(super) fn vxlan(object: &[u8], masquerades: bool) -> Result<Self> {
        let lab = cabled()?;
        let ends = [(lab.gw(), wan4(0), provider4(0)), (lab.srv()?, provider4(0), wan4(0))];
        for (place, local, remote) in ends {
            place.ip(&format!(
                "link add vxlan0 type vxlan id 7 local {local} remote {remote} dstport 4789 \
                 dev wan0\nlink set vxlan0 up\n"
            ))?;
        }
        lab.gw().ip(&format!(
            "addr add {INNER_GATEWAY4}/{INNER4_LENGTH} dev vxlan0\n\
             route add default via {INNER_SERVER4} metric 1\n"
        ))?;
        lab.srv()?.ip(&format!(
            "addr add {INNER_SERVER4}/{INNER4_LENGTH} dev vxlan0\n\
             route add {LAN4} via {INNER_GATEWAY4}\n"
        ))?;
        lab.net().ip(&format!("route add {LAN4} via {SERVER4}\n"))?;
        if masquerades {
            lab.srv()?.nft(
                "table inet tunnel_nat {\n  chain postrouting {\n    \
                 type nat hook postrouting priority srcnat;\n    \
                 oifname \"eth0\" masquerade\n  }\n}\n",
            )?;
        }
        // NAPI, as the programs of a bond give it to their devices.
        let pass = |place: &Namespace, devices: [&str; 2]| -> Result<Ebpf> {
            let mut pass = kernel::load(object)?;
            place.enter(|| {
                devices.iter().try_for_each(|device| kernel::attach(&mut pass, "pass", device))
            })?;
            Ok(pass)
        };
        let pass = [pass(lab.gw(), ["lan0", "wan0"])?, pass(lab.srv()?, ["wan0", "eth0"])?];
        Self::through(object, lab, Tunnel::Vxlan { masquerades, _pass: pass })
    }

    fn through(object: &[u8], lab: Lab, tunnel: Tunnel) -> Result<Self> {
        let host = (lab.host(), "lan0");
        let host = End::new(object, host, (lab.gw(), "lan0"), host)?;
        let net = (lab.net(), "srv0");
        let net = End::new(object, net, (lab.srv()?, "eth0"), net)?;
        Ok(Self::over(lab, tunnel, [host, net]))
    }

    /// Both agents of a bond, the gateway's first.
    pub(super) fn agents(&self) -> Result<[&lab::Agent; 2]> {
        match self.between() {
            Tunnel::Bond { gateway, server } => Ok([&***gateway, &***server]),
            Tunnel::Vxlan { .. } => bail!("no agents without a bond"),
        }
    }
}

impl Between for Tunnel {
    const WARM_UP: u32 = 8_192;
    const KEEP_SHIFT: u8 = 11;
    const CHANGES_ALL: bool = true;

    fn name(&self) -> &'static str {
        match self {
            Tunnel::Bond { .. } => "bond",
            Tunnel::Vxlan { .. } => "VXLAN",
        }
    }

    fn translation(&self) -> Option<Translation> {
        let address = match self {
            Tunnel::Bond { .. } | Tunnel::Vxlan { masquerades: true, .. } => SERVER4,
            Tunnel::Vxlan { masquerades: false, .. } => HOST4,
        };
        // The gateway and the server.
        Some(Translation { address, ports: 0..=u16::MAX, hops: 2 })
    }

    fn check(&mut self, lab: &Lab) -> Result<()> {
        let (gw, srv) = (lab.gw(), lab.srv()?);
        all_native([(gw, "lan0"), (gw, "wan0"), (srv, "wan0"), (srv, "eth0")])?;
        if let Tunnel::Bond { gateway, server } = self {
            let running = gateway.process().is_running()? && server.process().is_running()?;
            ensure!(running, "an agent has ended:\n{}\n{}", gateway.log(), server.log());
        }
        Ok(())
    }
}

/// A lab whose gateway and server have a cable of their own.
fn cabled() -> Result<Lab> {
    let lab = Lab::new(&LabSpec::direct(0).with_server())?;
    let srv = lab.srv()?;
    connect((lab.gw(), "wan0"), (srv, "wan0"))?;
    lab.gw().ip(&format!(
        "addr add {}/28 dev wan0\nroute add default via {} metric 100\n",
        wan4(0),
        provider4(0)
    ))?;
    srv.ip(&format!("addr add {}/28 dev wan0\n", provider4(0)))?;
    Ok(lab)
}
