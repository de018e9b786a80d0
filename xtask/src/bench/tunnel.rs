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

use std::{collections::BTreeMap, net::SocketAddrV4, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use aya::Ebpf;
use serde_json::json;

use super::{
    frames::{self, Endpoints, Received, TTL},
    generator::Generator,
    kernel,
    lane::{Rate, Way, mac_of},
    sink::Sink,
};
use crate::lab::{
    self, BondConfig, BondTables, Lab, LabSpec, Namespace,
    address::{
        BOND_PORT, HOST4, INNER_GATEWAY4, INNER_SERVER4, INNER4_LENGTH, LAN4, NET4, SERVER4,
        provider4, wan4,
    },
    connect, wait_until,
};

/// The port that flows go to: nobody listens.
const SERVER_PORT: u16 = 9;
/// Inside port of flow 0.
const FIRST_PORT: u16 = 20_000;
/// Flows, in turn.
pub(super) const FLOWS: usize = 100;
/// While measuring, one frame in 2^11 is kept and looked at.
const KEEP_SHIFT: u8 = 11;
/// How long a tunnel may take until every flow passes.
const PATIENCE: Duration = Duration::from_secs(20);
/// Frames before the first measurement, and least of one.
const WARM_UP: u32 = 8_192;
/// Routers on the way: the gateway and the server.
const HOPS: u8 = 2;

/// What is between the gateway and the server.
enum Tunnel {
    Bond { gateway: Box<lab::Gateway>, server: Box<lab::Server> },
    Vxlan { masquerades: bool, _pass: [Ebpf; 2] },
}

/// One end of a lane.
struct End {
    generator: Generator,
    sink: Sink,
    mac: [u8; 6],
    router: [u8; 6],
}

/// See the module's head.
pub(super) struct TunnelLane {
    tunnel: Tunnel,
    host: End,
    net: End,
    way: Way,
    bytes: usize,
    /// Time of the core for a frame when last measured, in nanoseconds.
    each: f64,
    /// Outside endpoint by flow.
    outside: BTreeMap<usize, SocketAddrV4>,
    // Last: what runs in the lab goes before it.
    lab: Lab,
}

impl TunnelLane {
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
        Self::new(object, lab, Tunnel::Bond { gateway, server })
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
        Self::new(object, lab, Tunnel::Vxlan { masquerades, _pass: pass })
    }

    fn new(object: &[u8], lab: Lab, tunnel: Tunnel) -> Result<Self> {
        let end = |place: &Namespace, device: &str, router: (&Namespace, &str)| {
            Ok::<_, anyhow::Error>(End {
                generator: Generator::new(object, place, device)?,
                sink: Sink::new(object, place, device)?,
                mac: mac_of(place, device)?,
                router: mac_of(router.0, router.1)?,
            })
        };
        let host = end(lab.host(), "lan0", (lab.gw(), "lan0"))?;
        let net = end(lab.net(), "srv0", (lab.srv()?, "eth0"))?;
        let (way, bytes, each) = (Way::Out, frames::LEAST, f64::INFINITY);
        Ok(Self { tunnel, host, net, way, bytes, each, outside: BTreeMap::new(), lab })
    }

    /// Sets what is sent from now on and proves, for every flow, that the right frame
    /// comes out. Back needs the same flows to have gone out before.
    pub(super) fn aim(&mut self, way: Way, bytes: usize) -> Result<()> {
        (self.way, self.bytes) = (way, bytes);
        let frames = self.frames()?;
        let (near, far) = self.ends();
        near.generator.aim(&frames)?;
        near.generator.write_whole()?;
        far.sink.keep_one_in(0)?;
        let what = format!("all flows pass the {} right", self.name());
        let mut outside = BTreeMap::new();
        wait_until(&what, PATIENCE, || {
            self.ends().0.generator.send(u32::try_from(FLOWS)?)?;
            outside.extend(self.look()?);
            Ok(outside.len() == FLOWS)
        })?;
        self.outside = outside;
        self.ends().1.sink.keep_one_in(KEEP_SHIFT)?;
        // Caches, page pools, and the time of a frame.
        self.each = self.ends().0.generator.send(WARM_UP)?.each;
        Ok(())
    }

    /// Sends for about `time` of the core and counts what arrives; what was kept of it
    /// must be right.
    pub(super) fn measure(&mut self, time: Duration) -> Result<Rate> {
        // As a float it saturates where it does not fit.
        let count = (time.as_nanos() as f64 / self.each) as u32;
        let (near, far) = self.ends();
        let before = far.sink.taken()?;
        let burst = near.generator.send(count.max(WARM_UP))?;
        let taken = (far.sink.taken()? - before) as f64;
        ensure!(!self.look()?.is_empty(), "the {} let nothing through", self.name());
        self.check()?;
        self.each = burst.each;
        let arrived = taken / burst.sent as f64;
        Ok(Rate { pps: 1e9 / burst.each * arrived, lost: 1.0 - arrived })
    }

    /// Both agents of a bond, the gateway's first.
    pub(super) fn agents(&self) -> Result<[&lab::Agent; 2]> {
        match &self.tunnel {
            Tunnel::Bond { gateway, server } => Ok([&***gateway, &***server]),
            Tunnel::Vxlan { .. } => bail!("no agents without a bond"),
        }
    }

    /// The frame of the first flow as it is sent to the gateway.
    pub(super) fn first_frame(&self, bytes: usize) -> Result<Vec<u8>> {
        let endpoints = Endpoints { source: inside(0)?, destination: server() };
        frames::build(0, (self.host.mac, self.host.router), endpoints, bytes)
    }

    fn name(&self) -> &'static str {
        match self.tunnel {
            Tunnel::Bond { .. } => "bond",
            Tunnel::Vxlan { .. } => "VXLAN",
        }
    }

    fn frames(&self) -> Result<Vec<Vec<u8>>> {
        let macs = match self.way {
            Way::Out => (self.host.mac, self.host.router),
            Way::Back => (self.net.mac, self.net.router),
        };
        (0..FLOWS).map(|flow| frames::build(flow, macs, self.sent(flow)?, self.bytes)).collect()
    }

    /// Addresses of a flow's frame as it is sent.
    fn sent(&self, flow: usize) -> Result<Endpoints> {
        Ok(match self.way {
            Way::Out => Endpoints { source: inside(flow)?, destination: server() },
            Way::Back => {
                let outside = self.outside.get(&flow).context("the flow has not gone out")?;
                Endpoints { source: server(), destination: *outside }
            }
        })
    }

    /// Looks at every kept frame and gives the outside endpoints by flow.
    fn look(&mut self) -> Result<BTreeMap<usize, SocketAddrV4>> {
        let mut outside = BTreeMap::new();
        for frame in self.ends().1.sink.kept()? {
            let received = frames::read(&frame, self.bytes)?;
            ensure!(received.flow < FLOWS, "flow {} was never sent", received.flow);
            outside.insert(received.flow, self.outside_of(&received)?);
        }
        Ok(outside)
    }

    fn outside_of(&self, received: &Received) -> Result<SocketAddrV4> {
        let (sent, came) = (self.sent(received.flow)?, received.endpoints);
        let address = match self.tunnel {
            Tunnel::Bond { .. } | Tunnel::Vxlan { masquerades: true, .. } => SERVER4,
            Tunnel::Vxlan { masquerades: false, .. } => HOST4,
        };
        let (outside, right, far) = match self.way {
            Way::Out => {
                let right = *came.source.ip() == address && came.destination == sent.destination;
                (came.source, right, &self.net)
            }
            Way::Back => {
                let right =
                    came.destination == inside(received.flow)? && came.source == sent.source;
                (sent.destination, right, &self.host)
            }
        };
        ensure!(
            right && received.ttl == TTL - HOPS && received.destination_mac == far.mac,
            "{sent:?} came out of the {} wrong: {received:?}",
            self.name()
        );
        Ok(outside)
    }

    /// Fails unless every device on the way is in native XDP, whose receive path all
    /// share, and agents still run.
    fn check(&mut self) -> Result<()> {
        let srv = self.lab.srv()?;
        for (place, device) in
            [(self.lab.gw(), "lan0"), (self.lab.gw(), "wan0"), (srv, "wan0"), (srv, "eth0")]
        {
            let link = place.link_json(device)?;
            // As IFLA_XDP_ATTACHED counts, 1 is native.
            let mode = link.pointer("/xdp/mode").and_then(serde_json::Value::as_u64);
            ensure!(mode == Some(1), "{device} in {} lacks native XDP", place.name());
        }
        if let Tunnel::Bond { gateway, server } = &mut self.tunnel {
            let running = gateway.process().is_running()? && server.process().is_running()?;
            ensure!(running, "an agent has ended:\n{}\n{}", gateway.log(), server.log());
        }
        Ok(())
    }

    /// Where frames start, and where they end.
    fn ends(&mut self) -> (&mut End, &mut End) {
        match self.way {
            Way::Out => (&mut self.host, &mut self.net),
            Way::Back => (&mut self.net, &mut self.host),
        }
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

/// The inside endpoint of a flow.
fn inside(flow: usize) -> Result<SocketAddrV4> {
    Ok(SocketAddrV4::new(HOST4, FIRST_PORT + u16::try_from(flow)?))
}

/// Where all flows go.
fn server() -> SocketAddrV4 {
    SocketAddrV4::new(NET4, SERVER_PORT)
}
