//! A lane: one lab, one way for packets through it, and everything needed to
//! push frames in at one end and count them at the other.
//!
//! ```text
//! host lan0 ── lan0 gw wan0 ── gw0 isp1
//!   generator   gateway          sink       out
//!   sink        gateway          generator  back
//! ```
//! What is in between may be a gateway, as here, or a tunnel and what is behind it.
//! Several lanes stand beside each other, so that what is compared is measured in turns:
//! of gateways the one under test, Linux forwarding with nftables masquerade, and the
//! floor, where the sink sits on the gateway's first device.

use std::{
    collections::{BTreeMap, HashMap},
    net::{Ipv4Addr, SocketAddrV4},
    ops::RangeInclusive,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{
    comparison::Rated,
    frames::{self, Endpoints, Received, TTL},
    gateway::Gateway,
    generator::Generator,
    kernel::SAMPLES,
    prog_run::{self, Cost},
    sink::Sink,
};
use crate::lab::{
    Lab, LabSpec, Namespace,
    address::{HOST4, NET4, wan4},
    wait_until,
};

/// The port that the first flows go to: nobody listens.
const SERVER_PORT: u16 = 9;
/// Inside port of flow 0.
const FIRST_PORT: u16 = 20_000;
/// Inside endpoints: with more flows than these, each speaks to several of the
/// server's ports. A WAN's address has no port for 60,000.
pub(super) const ENDPOINTS: usize = 45_000;
/// How long a gateway may take until every flow passes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Which way frames go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// LAN to WAN: the source is translated.
    Out,
    /// WAN to LAN, through flows that went out before: the destination is.
    Back,
}

impl Way {
    /// In rows.
    pub(super) fn name(self) -> &'static str {
        match self {
            Way::Out => "out",
            Way::Back => "back",
        }
    }
}

/// What frames of a measurement look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Load {
    /// Which way they go.
    pub(super) way: Way,
    /// Bytes of each, Ethernet header included.
    pub(super) bytes: usize,
    /// Number of flows, in turn.
    pub(super) flows: usize,
}

/// What came out of one repetition.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rate {
    /// Frames that arrived at the sink per second of the core.
    pub(super) pps: f64,
    /// Share of the frames sent that did not.
    pub(super) lost: f64,
}

impl Rated for Rate {
    fn rate(&self) -> f64 {
        self.pps
    }
}

/// What is between the two ends of a lane.
pub(super) trait Between {
    /// Frames before the first measurement, and least of one.
    const WARM_UP: u32;
    /// While measuring, one frame in so many powers of 2 is kept and looked at.
    const KEEP_SHIFT: u8;
    /// It changes what is behind the head of a frame.
    const CHANGES_ALL: bool;

    /// Its name in sentences.
    fn name(&self) -> &'static str;

    /// What it makes of what goes out; none if it leaves frames as they are.
    fn translation(&self) -> Option<Translation>;

    /// Fails unless every device on the way is in native XDP, whose receive path all
    /// share, and agents still run.
    fn check(&mut self, lab: &Lab) -> Result<()>;
}

/// What becomes of a frame on its way out.
pub(super) struct Translation {
    /// The source's address.
    pub(super) address: Ipv4Addr,
    /// Ports that it may have.
    pub(super) ports: RangeInclusive<u16>,
    /// Routers on the way.
    pub(super) hops: u8,
}

/// One end of a lane.
pub(super) struct End {
    generator: Generator,
    sink: Sink,
    mac: [u8; 6],
    router_mac: [u8; 6],
}

impl End {
    /// On a device in a namespace, with its router on the other side. What comes to this
    /// end is counted at `sink`.
    pub(super) fn new(
        object: &[u8],
        (place, device): (&Namespace, &str),
        router: (&Namespace, &str),
        sink: (&Namespace, &str),
    ) -> Result<Self> {
        Ok(Self {
            generator: Generator::new(object, place, device)?,
            sink: Sink::new(object, sink.0, sink.1)?,
            mac: mac_of(place, device)?,
            router_mac: mac_of(router.0, router.1)?,
        })
    }
}

/// See the module's head.
pub(super) struct Lane<B> {
    between: B,
    host: End,
    /// The Internet's.
    net: End,
    load: Load,
    /// Time of the core for a frame when last measured, in nanoseconds.
    each: f64,
    /// Outside endpoint by flow, as last proved.
    outside: BTreeMap<usize, SocketAddrV4>,
    // Last: what runs in the lab goes before it.
    lab: Lab,
}

impl Lane<Gateway> {
    /// Builds the lane around what `start` makes of its lab.
    pub(super) fn new(object: &[u8], start: impl FnOnce(&Lab) -> Result<Gateway>) -> Result<Self> {
        let lab = Lab::new(&LabSpec::direct(1))?;
        let gateway = start(&lab)?;
        let (host, isp) = ((lab.host(), "lan0"), (lab.isp(0), "gw0"));
        let (lan, wan) = ((lab.gw(), "lan0"), (lab.gw(), "wan0"));
        // On the floor, frames end where they first arrive: the sink of each end
        // is on the gateway's device at the other.
        let floor = matches!(gateway, Gateway::Floor);
        let host = End::new(object, host, lan, if floor { wan } else { host })?;
        let isp = End::new(object, isp, wan, if floor { lan } else { isp })?;
        Ok(Self::over(lab, gateway, [host, isp]))
    }

    /// What the program costs that takes these frames on the gateway. The flows
    /// must have been established by [`Self::aim`].
    pub(super) fn program_cost(&mut self, object: &[u8], load: Load) -> Result<Cost> {
        self.load = load;
        let device = match load.way {
            Way::Out => "lan0",
            Way::Back => "wan0",
        };
        prog_run::measure(object, self.lab.gw(), device, &self.frames()?)
    }

    /// The gateway's namespace.
    pub(super) fn gateway(&self) -> &Namespace {
        self.lab.gw()
    }
}

impl<B: Between> Lane<B> {
    /// In a lab with something between a LAN host and the Internet.
    pub(super) fn over(lab: Lab, between: B, [host, net]: [End; 2]) -> Self {
        let load = Load { way: Way::Out, bytes: frames::LEAST, flows: 1 };
        Self { between, host, net, load, each: f64::INFINITY, outside: BTreeMap::new(), lab }
    }

    /// What is between the ends.
    pub(super) fn between(&self) -> &B {
        &self.between
    }

    /// Sets what is sent from now on and proves, for every flow, that the right
    /// frame comes out. Back needs the same flows to have gone out before.
    pub(super) fn aim(&mut self, load: Load) -> Result<()> {
        self.load = load;
        let frames = self.frames()?;
        let (near, far) = self.ends();
        near.generator.aim(&frames)?;
        if B::CHANGES_ALL {
            near.generator.write_whole()?;
        }
        far.sink.keep_one_in(0)?;
        // No more at once than the sink keeps.
        let round = u32::try_from(load.flows)?.min(SAMPLES);
        let what = format!("all {} flows pass the {} right", load.flows, self.between.name());
        let mut outside = BTreeMap::new();
        wait_until(&what, PATIENCE, || {
            self.ends().0.generator.send(round)?;
            for (flow, now) in self.look()? {
                if let Some(before) = outside.insert(flow, now) {
                    ensure!(before == now, "flow {flow} changed from {before} to {now}");
                }
            }
            Ok(outside.len() == load.flows)
        })?;
        self.check_owners(&outside)?;
        if load.way == Way::Out {
            self.outside = outside;
        }
        self.ends().1.sink.keep_one_in(B::KEEP_SHIFT)?;
        // Caches, page pools, and the time of a frame.
        self.each = self.ends().0.generator.send(B::WARM_UP)?.each;
        Ok(())
    }

    /// Sends for about `time` of the core and counts what arrives; what was kept
    /// of it must be right.
    pub(super) fn measure(&mut self, time: Duration) -> Result<Rate> {
        // As a float it saturates where it does not fit.
        let count = (time.as_nanos() as f64 / self.each) as u32;
        let (near, far) = self.ends();
        let before = far.sink.taken()?;
        let burst = near.generator.send(count.max(B::WARM_UP))?;
        let taken = (far.sink.taken()? - before) as f64;
        let seen = self.look()?;
        ensure!(!seen.is_empty(), "the {} let nothing through", self.between.name());
        self.between.check(&self.lab)?;
        self.each = burst.each;
        let arrived = taken / burst.sent as f64;
        Ok(Rate { pps: 1e9 / burst.each * arrived, lost: 1.0 - arrived })
    }

    fn frames(&self) -> Result<Vec<Vec<u8>>> {
        (0..self.load.flows).map(|flow| self.frame(flow)).collect()
    }

    /// The frame of a flow as it is sent now.
    fn frame(&self, flow: usize) -> Result<Vec<u8>> {
        let End { mac, router_mac, .. } = match self.load.way {
            Way::Out => &self.host,
            Way::Back => &self.net,
        };
        frames::build(flow, (*mac, *router_mac), self.sent(flow)?, self.load.bytes)
    }

    /// The frame of the first flow as the LAN host sends it.
    pub(super) fn first_frame(&self, bytes: usize) -> Result<Vec<u8>> {
        let endpoints = Endpoints { source: inside(0)?, destination: server(0)? };
        frames::build(0, (self.host.mac, self.host.router_mac), endpoints, bytes)
    }

    /// Addresses of a flow's frame as it is sent now.
    fn sent(&self, flow: usize) -> Result<Endpoints> {
        let server = server(flow)?;
        Ok(match self.load.way {
            Way::Out => Endpoints { source: inside(flow)?, destination: server },
            Way::Back => {
                let outside = match (self.between.translation(), self.outside.get(&flow)) {
                    (None, _) => SocketAddrV4::new(wan4(0), inside(flow)?.port()),
                    (Some(_), Some(outside)) => *outside,
                    (Some(_), None) => bail!("flow {flow} has not gone out"),
                };
                Endpoints { source: server, destination: outside }
            }
        })
    }

    /// Looks at every kept frame and gives the outside endpoints by flow.
    fn look(&mut self) -> Result<BTreeMap<usize, SocketAddrV4>> {
        let Load { bytes, flows, .. } = self.load;
        let mut outside = BTreeMap::new();
        for frame in self.ends().1.sink.kept()? {
            let received = frames::read(&frame, bytes)?;
            let flow = received.flow;
            ensure!(flow < flows, "flow {flow} was never sent");
            let now = self.outside_of(&received)?;
            if let Some(before) = outside.insert(flow, now) {
                ensure!(before == now, "flow {flow} changed from {before} to {now}");
            }
        }
        Ok(outside)
    }

    /// Refuses an outside endpoint that is two inside endpoints'.
    fn check_owners(&self, outside: &BTreeMap<usize, SocketAddrV4>) -> Result<()> {
        let mut owners = HashMap::new();
        for (flow, outside) in outside {
            let inside = inside(*flow)?;
            let owner = *owners.entry(*outside).or_insert(inside);
            ensure!(owner == inside, "{owner} and {inside} share {outside}");
        }
        Ok(())
    }

    /// Sends the first frame of each flow, as fast as it goes, to a gateway that
    /// knows none of them. Gives how many arrived, per second of the core.
    pub(super) fn open_flows(&mut self, flows: usize) -> Result<Rate> {
        let load = Load { way: Way::Out, bytes: frames::LEAST, flows };
        self.load = load;
        let frames = self.frames()?;
        let (near, far) = self.ends();
        near.generator.aim(&frames)?;
        far.sink.keep_one_in(B::KEEP_SHIFT)?;
        let before = far.sink.taken()?;
        let burst = near.generator.send(u32::try_from(flows)?)?;
        let taken = (far.sink.taken()? - before) as f64;
        let seen = self.look()?;
        ensure!(!seen.is_empty(), "the {} let nothing through", self.between.name());
        self.check_owners(&seen)?;
        self.between.check(&self.lab)?;
        let arrived = taken / burst.sent as f64;
        Ok(Rate { pps: 1e9 / burst.each * arrived, lost: 1.0 - arrived })
    }

    /// The outside endpoint of a frame's flow. Refuses a frame that is not what
    /// was sent, translated (or, on the floor, untouched).
    fn outside_of(&self, received: &Received) -> Result<SocketAddrV4> {
        let sent = self.sent(received.flow)?;
        let came = received.endpoints;
        let Some(Translation { address, ports, hops }) = self.between.translation() else {
            ensure!(came == sent && received.ttl == TTL, "{sent:?} was touched: {received:?}");
            return inside(received.flow);
        };
        let (outside, right, far) = match self.load.way {
            Way::Out => {
                let source = came.source;
                let right = *source.ip() == address
                    && ports.contains(&source.port())
                    && came.destination == sent.destination;
                (source, right, &self.net)
            }
            Way::Back => {
                let right =
                    came.destination == inside(received.flow)? && came.source == sent.source;
                (sent.destination, right, &self.host)
            }
        };
        ensure!(
            right && received.ttl == TTL - hops && received.destination_mac == far.mac,
            "{sent:?} came out of the {} wrong: {received:?}",
            self.between.name()
        );
        Ok(outside)
    }

    /// Where frames start, and where they end.
    fn ends(&mut self) -> (&mut End, &mut End) {
        match self.load.way {
            Way::Out => (&mut self.host, &mut self.net),
            Way::Back => (&mut self.net, &mut self.host),
        }
    }
}

/// The inside endpoint of a flow.
fn inside(flow: usize) -> Result<SocketAddrV4> {
    Ok(SocketAddrV4::new(HOST4, FIRST_PORT + u16::try_from(flow % ENDPOINTS)?))
}

/// The server's endpoint that a flow goes to.
fn server(flow: usize) -> Result<SocketAddrV4> {
    Ok(SocketAddrV4::new(NET4, SERVER_PORT + u16::try_from(flow / ENDPOINTS)?))
}

/// MAC address of a device.
pub(super) fn mac_of(namespace: &Namespace, device: &str) -> Result<[u8; 6]> {
    let link = namespace.link_json(device)?;
    let text = link.get("address").and_then(|address| address.as_str()).context("no MAC")?;
    let bytes: Vec<u8> = text
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16))
        .collect::<Result<_, _>>()
        .with_context(|| format!("not a MAC: {text}"))?;
    bytes.try_into().map_err(|_| anyhow::anyhow!("not a MAC: {text}"))
}
