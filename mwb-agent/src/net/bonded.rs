//! The device of a bond: a veth pair, of which one end is the kernel's, with
//! addresses and routes, and the other the data plane's, with its programs only.
//!
//! What leaves by the kernel's end must be whole when the data plane sees it:
//! checksums put in, segments cut, no longer than a packet. Nobody answers ARP or
//! neighbour discovery at the other end, so there is none: routes lead to a next hop
//! of our own with a permanent neighbour entry, which a FIB look-up from XDP takes.
//!
//! What is made stays when the agent goes; the next one takes it over. Must not
//! know: sessions, who is at the far end.

use futures_util::TryStreamExt;
use ipnet::{IpNet, Ipv6Net};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::NeighbourState;
use rtnetlink::{LinkUnspec, LinkVeth};

use super::bonded_routes::{self, NEXT_HOP4, NEXT_HOP6};
use super::features;
use super::{BondedRoute, Error, Requests};

/// What a feature of the kernel's end should be: all is off that leaves work undone for
/// the next device, and on what makes it take frames from XDP at any time (veth has its
/// receive loop for these with GRO).
fn kernel_end(feature: &str) -> Option<bool> {
    match feature {
        "rx-gro" => Some(true),
        "tx-gso-list" | "tx-gso-partial" => Some(false),
        // New kernels have new ones.
        _ if feature.starts_with("tx-checksum-") => Some(false),
        _ if feature.starts_with("tx-") && feature.ends_with("-segmentation") => Some(false),
        _ => None,
    }
}

/// What the alias of the kernel's end begins with; the instance follows.
const ALIAS: &str = "mwb bond of instance ";

/// What the device of a bond should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BondedSpec {
    /// The agent that it belongs to.
    pub instance: String,
    /// Name of the kernel's end.
    pub device: String,
    /// Name of the data plane's end.
    pub data_plane_end: String,
    /// The longest packet that can be sent by it, in bytes from the IP header on. What
    /// fits a session is the route's matter.
    pub mtu: u32,
    /// Addresses of the kernel's end. Any others go.
    pub addresses: Vec<IpNet>,
    /// Routes that lead to it. Any others that we have made go. `None`: they stay as they
    /// are.
    pub routes: Option<Vec<BondedRoute>>,
    /// Prefixes that are ours as a whole: addresses there that no route leads to are
    /// unreachable, for everybody.
    pub owned: Vec<Ipv6Net>,
}

/// The device of a bond, as it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bonded {
    /// Interface index of the kernel's end.
    pub kernel_end: u32,
    /// Interface index of the data plane's end.
    pub data_plane_end: u32,
    /// MAC of the kernel's end.
    pub kernel_mac: [u8; 6],
    /// MAC of the data plane's end.
    pub data_plane_mac: [u8; 6],
}

/// An end of a pair.
struct End {
    ifindex: u32,
    mac: [u8; 6],
    mtu: u32,
    up: bool,
    noarp: bool,
    /// It makes itself no IPv6 address, or cannot have one.
    is_silent: bool,
    alias: Option<String>,
    /// Index of the other end, if it is a veth whose other end is in this network
    /// namespace.
    other: Option<u32>,
}

impl Bonded {
    /// Makes the device as `spec` says, from whatever is there of it. What is right
    /// is not touched: packets go on.
    ///
    /// # Errors
    /// When there is a device of such a name that is none of ours, somebody else has one
    /// of the routes, or the kernel refuses.
    pub async fn ensure(requests: &Requests, spec: &BondedSpec) -> Result<Self, Error> {
        if requests.end(&spec.device).await?.is_none()
            && requests.end(&spec.data_plane_end).await?.is_none()
        {
            requests.make(spec).await?;
        }
        let (kernel, data_plane) = requests.pair(spec).await?;
        requests.set(&spec.device, &kernel, spec).await?;
        requests.set(&spec.data_plane_end, &data_plane, spec).await?;
        features::switch(&spec.device, kernel_end)
            .map_err(|source| Error::Features { device: spec.device.clone(), source })?;
        requests.set_addresses(kernel.ifindex, spec).await?;
        requests.set_next_hops(kernel.ifindex, &spec.device, data_plane.mac).await?;
        if let Some(routes) = &spec.routes {
            bonded_routes::set(requests, kernel.ifindex, &spec.device, routes).await?;
        }
        bonded_routes::set_unreachable(requests, &spec.instance, &spec.owned).await?;
        Ok(Self {
            kernel_end: kernel.ifindex,
            data_plane_end: data_plane.ifindex,
            kernel_mac: kernel.mac,
            data_plane_mac: data_plane.mac,
        })
    }

    /// Takes away the devices of an instance, with their addresses and routes, and tells
    /// their names.
    ///
    /// # Errors
    /// When the kernel cannot be asked, or refuses.
    pub async fn remove(requests: &Requests, instance: &str) -> Result<Vec<String>, Error> {
        let links = requests.handle.link().get().execute().try_collect::<Vec<_>>().await;
        let links = links.map_err(change("reading devices"))?;
        let alias = format!("{ALIAS}{instance}");
        let ours = |link: &&LinkMessage| {
            let end = end(link);
            end.other.is_some() && end.alias.as_ref() == Some(&alias)
        };
        let mut removed = Vec::new();
        for link in links.iter().filter(ours) {
            let name = name(link).unwrap_or_default();
            let request = requests.handle.link().del(link.header.index);
            request.execute().await.map_err(change(format!("removing {name}")))?;
            removed.push(name);
        }
        bonded_routes::set_unreachable(requests, instance, &[]).await?;
        Ok(removed)
    }
}

impl Requests {
    async fn end(&self, device: &str) -> Result<Option<End>, Error> {
        // By name in a dump: a request for one that is not there is an error in
        // several forms.
        let links = self.handle.link().get().execute().try_collect::<Vec<_>>().await;
        let links = links.map_err(change("reading devices"))?;
        Ok(links.iter().find(|link| name(link).as_deref() == Some(device)).map(end))
    }

    /// Makes the pair.
    async fn make(&self, spec: &BondedSpec) -> Result<(), Error> {
        let pair = LinkVeth::new(&spec.device, &spec.data_plane_end).build();
        let request = self.handle.link().add(pair);
        request.execute().await.map_err(change(format!("making {}", spec.device)))?;
        Ok(())
    }

    /// No address of its own: nobody is there to find it unique.
    async fn silence(&self, device: &str, end: &End) -> Result<(), Error> {
        let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
        let ipv6 = LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![mode])]);
        let link = LinkUnspec::new_with_index(end.ifindex).append_extra_attribute(ipv6);
        match self.handle.link().set(link.build()).execute().await {
            Err(error) if has_no_ipv6(&error) => Ok(()),
            result => result.map_err(change(format!("silencing {device}"))),
        }
    }

    /// Both ends, if they are one pair and of this instance.
    async fn pair(&self, spec: &BondedSpec) -> Result<(End, End), Error> {
        let foreign = |device: &str, why: String| Error::Foreign { device: device.to_owned(), why };
        let Some(kernel) = self.end(&spec.device).await? else {
            let why = format!("its other end is not `{}`", spec.device);
            return Err(foreign(&spec.data_plane_end, why));
        };
        let Some(data_plane) = self.end(&spec.data_plane_end).await? else {
            let why = format!("it has no other end `{}`", spec.data_plane_end);
            return Err(foreign(&spec.device, why));
        };
        if kernel.other != Some(data_plane.ifindex) || data_plane.other != Some(kernel.ifindex) {
            let why = format!("it and `{}` are not the ends of one veth", spec.data_plane_end);
            return Err(foreign(&spec.device, why));
        }
        match &kernel.alias {
            Some(alias) if *alias != format!("{ALIAS}{}", spec.instance) => {
                Err(foreign(&spec.device, format!("it is the `{alias}`")))
            }
            _ => Ok((kernel, data_plane)),
        }
    }

    /// Makes an end as it should be.
    async fn set(&self, device: &str, end: &End, spec: &BondedSpec) -> Result<(), Error> {
        if !end.is_silent {
            self.silence(device, end).await?;
        }
        let alias = format!("{ALIAS}{}", spec.instance);
        let needs_alias = device == spec.device && end.alias.as_ref() != Some(&alias);
        if end.up && end.noarp && end.mtu == spec.mtu && !needs_alias {
            return Ok(());
        }
        let mut link = LinkUnspec::new_with_index(end.ifindex).arp(false).mtu(spec.mtu).up();
        if needs_alias {
            link = link.append_extra_attribute(LinkAttribute::IfAlias(alias));
        }
        let request = self.handle.link().set(link.build());
        request.execute().await.map_err(change(format!("setting {device}")))
    }

    async fn set_addresses(&self, ifindex: u32, spec: &BondedSpec) -> Result<(), Error> {
        let device = &spec.device;
        let request = self.handle.address().get().set_link_index_filter(ifindex);
        let all = request.execute().try_collect::<Vec<_>>().await;
        let all = all.map_err(change(format!("reading addresses of {device}")))?;
        let there: Vec<(IpNet, AddressMessage)> = all
            .into_iter()
            .filter(|message| message.header.index == ifindex)
            .filter_map(|message| Some((net(&message)?, message)))
            .collect();
        for address in spec.addresses.iter().filter(|a| !there.iter().any(|(net, _)| net == *a)) {
            let request = self.handle.address();
            let mut request = request.add(ifindex, address.addr(), address.prefix_len());
            if address.addr().is_ipv6() {
                // In use at once: nobody else can have it there.
                let flags = AddressAttribute::Flags(AddressFlags::Nodad);
                request.message_mut().attributes.push(flags);
            }
            request.execute().await.map_err(change(format!("giving {address} to {device}")))?;
        }
        for (net, message) in there.into_iter().filter(|(net, _)| !spec.addresses.contains(net)) {
            let request = self.handle.address().del(message);
            request.execute().await.map_err(change(format!("taking {net} from {device}")))?;
        }
        Ok(())
    }

    async fn set_next_hops(&self, ifindex: u32, device: &str, mac: [u8; 6]) -> Result<(), Error> {
        for next_hop in [NEXT_HOP4.into(), NEXT_HOP6.into()] {
            let request = self.handle.neighbours().add(ifindex, next_hop).link_layer_address(&mac);
            let result = request.state(NeighbourState::Permanent).replace().execute().await;
            let what = format!("setting the neighbour {next_hop}");
            match result {
                Err(error) if next_hop.is_ipv6() => of_ipv6(error, device, what)?,
                result => result.map_err(change(what))?,
            }
        }
        Ok(())
    }
}

fn name(link: &LinkMessage) -> Option<String> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    })
}

fn end(link: &LinkMessage) -> End {
    let flags = link.header.flags;
    let (mut mac, mut mtu, mut alias) = ([0; 6], 0, None);
    let (mut is_veth, mut other, mut elsewhere) = (false, None, false);
    let mut is_silent = true;
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::Address(is) => mac = is.as_slice().try_into().unwrap_or_default(),
            LinkAttribute::Mtu(is) => mtu = *is,
            LinkAttribute::IfAlias(is) => alias = Some(is.clone()),
            LinkAttribute::Link(is) => other = Some(*is),
            LinkAttribute::LinkNetNsId(_) => elsewhere = true,
            LinkAttribute::AfSpecUnspec(families) => is_silent = !makes_addresses(families),
            LinkAttribute::LinkInfo(infos) => {
                is_veth = infos
                    .iter()
                    .any(|info| matches!(info, LinkInfo::Kind(kind) if kind.to_string() == "veth"));
            }
            _ => {}
        }
    }
    End {
        ifindex: link.header.index,
        mac,
        mtu,
        up: flags.contains(LinkFlags::Up),
        noarp: flags.contains(LinkFlags::Noarp),
        is_silent,
        alias,
        other: other.filter(|_| is_veth && !elsewhere),
    }
}

fn makes_addresses(families: &[AfSpecUnspec]) -> bool {
    let ipv6 = families.iter().filter_map(|family| match family {
        AfSpecUnspec::Inet6(facts) => Some(facts),
        _ => None,
    });
    ipv6.flatten().any(|fact| match fact {
        AfSpecInet6::AddrGenMode(mode) => *mode != In6AddrGenMode::None,
        _ => false,
    })
}

fn net(message: &AddressMessage) -> Option<IpNet> {
    let find = |local: bool| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(ip) if local => Some(*ip),
            AddressAttribute::Address(ip) if !local => Some(*ip),
            _ => None,
        })
    };
    IpNet::new(find(true).or_else(|| find(false))?, message.header.prefix_len).ok()
}

/// The errno of an answer.
pub(super) fn code(error: &rtnetlink::Error) -> Option<i32> {
    match error {
        rtnetlink::Error::NetlinkError(message) => Some(-message.raw_code()),
        _ => None,
    }
}

/// Whether the machine has no IPv6, built in or switched on, if that may be why of an
/// error: then nothing of it could go another way either.
pub(super) fn has_no_ipv6(error: &rtnetlink::Error) -> bool {
    let off = || std::fs::read_to_string("/proc/sys/net/ipv6/conf/all/disable_ipv6");
    match code(error) {
        Some(libc::EAFNOSUPPORT | libc::EOPNOTSUPP) => true,
        Some(libc::EACCES | libc::EINVAL) => off().map_or(true, |value| value.trim() == "1"),
        _ => false,
    }
}

/// What an error of IPv6 on a device is.
pub(super) fn of_ipv6(error: rtnetlink::Error, device: &str, what: String) -> Result<(), Error> {
    if has_no_ipv6(&error) {
        return Ok(());
    }
    match code(&error) {
        Some(libc::EACCES | libc::EINVAL) => Err(Error::Ipv6Off(device.to_owned())),
        _ => Err(change(what)(error)),
    }
}

pub(super) fn change(what: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> Error {
    let what = what.into();
    move |source| Error::Change { what, source: Box::new(source) }
}
