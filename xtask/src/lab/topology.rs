//! Builds the namespaces and links of a lab, and takes them down.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{
    address::{self, MAX_WANS},
    concentrator, fq,
    janitor::{Janitor, Litter},
    link::LinkSpec,
    namespace::{Namespace, feed, output_of},
    settings::configure_kernels,
    wan::Wan,
};

/// What to build.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LabSpec {
    /// The WANs, in the order of their numbers.
    pub wans: Vec<WanSpec>,
    /// Leaves checksum and segmentation offloads of the hosts' devices as the
    /// kernel has them. Only for devices without an XDP program at the far end:
    /// XDP redirects frames whose checksum is still to be made, and the
    /// receiver drops them.
    pub offloads: bool,
    /// There is a server (a concentrator) on the Internet, for bonds. WANs are
    /// without offloads then in any case.
    pub server: bool,
}

/// One WAN.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WanSpec {
    /// `None`: a plain veth pair, as fast as it goes, which can only be cut by
    /// carrier or beyond the provider. Else a relay.
    pub shape: Option<Shape>,
    /// The link carries packets without Ethernet, between tun devices; it has no
    /// shape then.
    pub tun: bool,
}

/// Both directions of a relayed link.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shape {
    /// Gateway to provider.
    pub up: LinkSpec,
    /// Provider to gateway.
    pub down: LinkSpec,
    /// Carried by the lab's own relay even where the kernel has netem.
    pub by_relay: bool,
}

impl Shape {
    /// The same in both directions.
    #[must_use]
    pub fn both(spec: &LinkSpec) -> Self {
        Self { up: spec.clone(), down: spec.clone(), by_relay: false }
    }
}

impl LabSpec {
    /// `count` plain WANs.
    #[must_use]
    pub fn direct(count: usize) -> Self {
        Self { wans: vec![WanSpec::default(); count], ..Self::default() }
    }

    /// A relayed WAN for every shape.
    #[must_use]
    pub fn shaped(shapes: impl IntoIterator<Item = Shape>) -> Self {
        let wans =
            shapes.into_iter().map(|shape| WanSpec { shape: Some(shape), tun: false }).collect();
        Self { wans, ..Self::default() }
    }

    /// `count` WANs without Ethernet.
    #[must_use]
    pub fn tun(count: usize) -> Self {
        Self { wans: vec![WanSpec { shape: None, tun: true }; count], ..Self::default() }
    }

    /// `count` relayed WANs that do nothing yet, but can be shaped and cut.
    #[must_use]
    pub fn relayed(count: usize) -> Self {
        Self::shaped((0..count).map(|_| Shape::default()))
    }

    /// The same with a server.
    #[must_use]
    pub fn with_server(mut self) -> Self {
        self.server = true;
        self
    }

    /// The same with the hosts' offloads left on.
    #[must_use]
    pub fn with_offloads(mut self) -> Self {
        self.offloads = true;
        self
    }
}

/// A running lab. Dropping it removes everything.
#[derive(Debug)]
pub struct Lab {
    wans: Vec<Wan>,
    host: Namespace,
    gw: Namespace,
    net: Namespace,
    isps: Vec<Namespace>,
    srv: Option<Namespace>,
    prefix: String,
    scratch: PathBuf,
    // Last: its drop sweeps what the handles above have let go.
    janitor: Janitor,
}

impl Lab {
    /// Builds a lab under a prefix of its own.
    ///
    /// # Errors
    /// When this is not root, or the kernel refuses a device or setting.
    pub fn new(spec: &LabSpec) -> Result<Self> {
        ensure!(
            nix::unistd::geteuid().is_root(),
            "the lab makes network namespaces: run it as root"
        );
        ensure!(spec.wans.len() <= MAX_WANS, "a lab has at most {MAX_WANS} WANs");
        let prefix = format!("mwb-{}", random_name()?);
        let mut janitor = Janitor::start()?;
        let scratch = std::env::temp_dir().join(&prefix);
        janitor.announce(Litter::Directory(scratch.clone()))?;
        for instance in [&prefix, &server_instance(&prefix)] {
            janitor.announce(Litter::Directory(Path::new(crate::lab::PINS).join(instance)))?;
        }
        fs::create_dir(&scratch).with_context(|| format!("cannot make {}", scratch.display()))?;

        let relayed = spec.wans.iter().any(|wan| wan.shape.is_some());
        let mut names = vec!["host".to_owned(), "gw".to_owned(), "net".to_owned()];
        names.extend((1..=spec.wans.len()).map(|number| format!("isp{number}")));
        names.extend(relayed.then(|| "relay".to_owned()));
        names.extend(spec.server.then(|| "srv".to_owned()));
        let mut namespaces = make_namespaces(&mut janitor, &prefix, &names, &scratch)?.into_iter();
        let mut next = || namespaces.next().context("as many namespaces as names");
        let (host, gw, net) = (next()?, next()?, next()?);
        let isps = spec.wans.iter().map(|_| next()).collect::<Result<Vec<_>>>()?;
        let relay = if relayed { Some(next()?) } else { None };
        let srv = if spec.server { Some(next()?) } else { None };

        configure_kernels(&host, &gw, &net, &isps)?;
        make_devices(spec, &host, &gw, &net, &isps, relay.as_ref())?;
        configure_lan(&host, &gw)?;
        configure_net(&net, spec.wans.len())?;
        let mut wans = Vec::new();
        for (index, wan) in spec.wans.iter().enumerate() {
            let isp = isps.get(index).context("one provider a WAN")?;
            let relay = wan.shape.as_ref().zip(relay.as_ref());
            let offloads = spec.offloads && !spec.server;
            wans.push(Wan::build(index, &gw, isp, relay, offloads, wan.tun)?);
        }
        if let Some(srv) = &srv {
            concentrator::join_internet(srv, &net)?;
        }
        if !spec.offloads {
            host.ethtool_features("lan0", &["tx", "off", "gro", "on"])?;
        }
        fq::pace(&host, &net, spec.wans.len(), spec.server)?;
        Ok(Self { wans, host, gw, net, isps, srv, prefix, scratch, janitor })
    }

    /// The LAN host.
    #[must_use]
    pub fn host(&self) -> &Namespace {
        &self.host
    }

    /// The gateway.
    #[must_use]
    pub fn gw(&self) -> &Namespace {
        &self.gw
    }

    /// The Internet: servers for everybody.
    #[must_use]
    pub fn net(&self) -> &Namespace {
        &self.net
    }

    /// The server's.
    ///
    /// # Errors
    /// When the lab has none.
    pub fn srv(&self) -> Result<&Namespace> {
        self.srv.as_ref().context("this lab has no server: it was built without one")
    }

    /// Provider of WAN `index` (from 0).
    ///
    /// # Panics
    /// When there is no such WAN.
    #[must_use]
    pub fn isp(&self, index: usize) -> &Namespace {
        &self.isps[index]
    }

    /// WAN `index` (from 0).
    ///
    /// # Panics
    /// When there is no such WAN.
    #[must_use]
    pub fn wan(&self, index: usize) -> &Wan {
        &self.wans[index]
    }

    /// All WANs.
    #[must_use]
    pub fn wans(&self) -> &[Wan] {
        &self.wans
    }

    /// What every name of this lab starts with; also the agent's instance name.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Instance name of the server's agent.
    #[must_use]
    pub fn server_instance(&self) -> String {
        server_instance(&self.prefix)
    }

    /// Directory for files of this lab; it goes with it.
    #[must_use]
    pub fn scratch(&self) -> &Path {
        &self.scratch
    }

    /// Process id of the janitor, for tests of the clean-up.
    #[must_use]
    pub fn janitor_id(&self) -> u32 {
        self.janitor.id()
    }

    /// Adds a namespace to the lab (a concentrator, a second site).
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn add_namespace(&mut self, name: &str) -> Result<Namespace> {
        let names = [name.to_owned()];
        let made = make_namespaces(&mut self.janitor, &self.prefix, &names, &self.scratch)?;
        made.into_iter().next().context("one namespace for one name")
    }
}

fn server_instance(prefix: &str) -> String {
    format!("{prefix}-srv")
}

/// Joins two namespaces by a veth pair, both ends up.
///
/// # Errors
/// When the kernel refuses, or a name is taken.
pub fn connect(left: (&Namespace, &str), right: (&Namespace, &str)) -> Result<()> {
    join(left, right)?;
    left.0.ip(&format!("link set {} up\n", left.1))?;
    right.0.ip(&format!("link set {} up\n", right.1))
}

/// A veth pair, both ends down.
pub(super) fn join(left: (&Namespace, &str), right: (&Namespace, &str)) -> Result<()> {
    feed_ip(&veth(left, right))
}

fn veth(left: (&Namespace, &str), right: (&Namespace, &str)) -> String {
    // Eight queues would be made on an eight-core machine; tests want one that
    // keeps the order.
    format!(
        "link add name {} numtxqueues 1 numrxqueues 1 netns {} type veth \
         peer name {} numtxqueues 1 numrxqueues 1 netns {}\n",
        left.1,
        left.0.name(),
        right.1,
        right.0.name(),
    )
}

fn feed_ip(batch: &str) -> Result<()> {
    let mut command = Command::new("ip");
    command.args(["-batch", "-"]);
    feed(command, batch, "for the lab")
}

fn make_namespaces(
    janitor: &mut Janitor,
    prefix: &str,
    names: &[String],
    scratch: &Path,
) -> Result<Vec<Namespace>> {
    let names: Vec<String> = names.iter().map(|name| format!("{prefix}-{name}")).collect();
    let mut batch = String::new();
    for name in &names {
        janitor.announce(Litter::Namespace(name.clone()))?;
        batch.push_str(&format!("netns add {name}\n"));
    }
    feed_ip(&batch)?;
    names.iter().map(|name| Namespace::open(name, scratch)).collect()
}

fn make_devices(
    spec: &LabSpec,
    host: &Namespace,
    gw: &Namespace,
    net: &Namespace,
    isps: &[Namespace],
    relay: Option<&Namespace>,
) -> Result<()> {
    let mut batch = veth((host, "lan0"), (gw, "lan0"));
    for (index, (wan, isp)) in spec.wans.iter().zip(isps).enumerate() {
        let (device, uplink) = (format!("wan{index}"), format!("isp{index}"));
        if wan.tun {
            // Its ends come with the one who carries.
        } else if wan.shape.is_some() {
            let Some(relay) = relay else { bail!("a shaped link needs the relay's namespace") };
            batch.push_str(&veth((gw, &device), (relay, &format!("a{index}"))));
            batch.push_str(&veth((relay, &format!("b{index}")), (isp, "gw0")));
        } else {
            batch.push_str(&veth((gw, &device), (isp, "gw0")));
        }
        batch.push_str(&veth((isp, "up0"), (net, &uplink)));
    }
    feed_ip(&batch)
}

fn configure_lan(host: &Namespace, gw: &Namespace) -> Result<()> {
    use address::{GATEWAY4, GATEWAY6, HOST4, HOST6, LAN4_LENGTH};
    host.ip(&format!(
        "link set lo up\nlink set lan0 up\n\
         addr add {HOST4}/{LAN4_LENGTH} dev lan0\naddr add {HOST6}/64 dev lan0 nodad\n\
         route add default via {GATEWAY4}\nroute add default via {GATEWAY6}\n"
    ))?;
    gw.ip(&format!(
        "link set lo up\nlink set lan0 up\n\
         addr add {GATEWAY4}/{LAN4_LENGTH} dev lan0\naddr add {GATEWAY6}/64 dev lan0 nodad\n"
    ))
}

fn configure_net(net: &Namespace, wans: usize) -> Result<()> {
    use address::{
        NET4, NET4_SECOND, NET6, net_uplink4, net_uplink6, outside6, provider_uplink4,
        provider_uplink6, wan4,
    };
    let mut batch = format!(
        "link set lo up\naddr add {NET4}/32 dev lo\naddr add {NET4_SECOND}/32 dev lo\n\
         addr add {NET6}/128 dev lo nodad\n"
    );
    for index in 0..wans {
        let (near4, near6) = (net_uplink4(index), net_uplink6(index));
        let (isp4, isp6) = (provider_uplink4(index), provider_uplink6(index));
        let [a, b, c, d] = wan4(index).octets();
        batch.push_str(&format!(
            "link set isp{index} up\n\
             addr add {near4}/30 dev isp{index}\naddr add {near6}/64 dev isp{index} nodad\n\
             route add {a}.{b}.{c}.{}/28 via {isp4}\n\
             route add 2001:db8:f{:03x}::/64 via {isp6}\nroute add {} via {isp6}\n",
            d & 0xf0,
            index + 1,
            outside6(index),
        ));
    }
    net.ip(&batch)
}

/// Six random letters or digits.
fn random_name() -> Result<String> {
    let mut bytes = [0; 3];
    let file = fs::File::open("/dev/urandom").context("no /dev/urandom")?;
    std::io::Read::read_exact(&mut &file, &mut bytes).context("no random bytes")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The kernel's release, as `uname -r` gives it.
///
/// # Errors
/// When `uname` is missing.
pub fn kernel_release() -> Result<String> {
    let mut command = Command::new("uname");
    command.arg("-r");
    Ok(output_of(command, "on this machine")?.trim().to_owned())
}
