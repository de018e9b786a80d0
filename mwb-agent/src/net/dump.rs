//! Requests to the kernel: read everything, resolve a neighbour.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::TryStreamExt;
use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, State,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType, RouteVia,
};
use rtnetlink::{Handle, RouteMessageBuilder};

use super::peer::LARGEST;
use super::{Address, Device, Error, Neighbour, Peer, Reachability, Route, Snapshot, Watched};

/// A socket for requests: never shared with events, which may overrun theirs.
#[derive(Clone, Debug)]
pub struct Requests {
    pub(super) handle: Handle,
}

impl Requests {
    /// Opens the socket in the network namespace of the calling thread. Must be
    /// called inside the runtime.
    ///
    /// # Errors
    /// When the kernel gives none.
    pub fn open() -> Result<Self, Error> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(Error::Open)?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// Reads the whole network; neighbours of the WANs only, and what is in the
    /// way of packets to watched devices only.
    ///
    /// # Errors
    /// When a dump fails.
    pub async fn snapshot(&self, watched: &Watched) -> Result<Snapshot, Error> {
        let mut devices = self.devices().await?;
        self.addresses(&mut devices).await?;
        self.look_at_peers(&mut devices, watched).await;
        let wans: Vec<u32> =
            devices.iter().filter(|d| watched.wans.contains(&d.name)).map(|d| d.ifindex).collect();
        let mut routes = self.routes(RouteMessageBuilder::<Ipv4Addr>::new().build()).await?;
        routes.extend(self.routes(RouteMessageBuilder::<Ipv6Addr>::new().build()).await?);
        let neighbours = self.neighbours(&wans).await?;
        Ok(Snapshot { devices, routes, neighbours })
    }

    async fn devices(&self) -> Result<Vec<Device>, Error> {
        let links = self.handle.link().get().execute().try_collect::<Vec<_>>().await;
        let links = links.map_err(dump("devices"))?;
        let mut devices: Vec<Device> = links.into_iter().filter_map(device).collect();
        devices.sort_by_key(|device| device.ifindex);
        Ok(devices)
    }

    async fn addresses(&self, devices: &mut [Device]) -> Result<(), Error> {
        let addresses = self.handle.address().get().execute().try_collect::<Vec<_>>().await;
        for message in addresses.map_err(dump("addresses"))? {
            let on = devices.iter_mut().find(|device| device.ifindex == message.header.index);
            if let (Some(device), Some(address)) = (on, address(&message)) {
                device.addresses.push(address);
            }
        }
        Ok(())
    }

    async fn routes(&self, of: RouteMessage) -> Result<Vec<Route>, Error> {
        let routes = self.handle.route().get(of).execute().try_collect::<Vec<_>>().await;
        Ok(routes.map_err(dump("routes"))?.iter().flat_map(next_hops).collect())
    }

    async fn neighbours(&self, of: &[u32]) -> Result<Vec<Neighbour>, Error> {
        let neighbours = self.handle.neighbours().get().execute().try_collect::<Vec<_>>().await;
        let neighbours = neighbours.map_err(dump("neighbours"))?;
        Ok(neighbours
            .iter()
            .filter(|n| of.contains(&n.header.ifindex))
            .filter_map(neighbour)
            .collect())
    }

    /// Asks the kernel to resolve or confirm a neighbour, as a packet to it
    /// would. Returns when the kernel has begun; the result comes as an event.
    ///
    /// # Errors
    /// When the kernel refuses, for instance because the device is gone.
    pub async fn resolve(&self, ifindex: u32, address: IpAddr) -> Result<(), Error> {
        let request = self
            .handle
            .neighbours()
            .add(ifindex, address)
            .state(NeighbourState::None)
            .flags(NeighbourFlags::Use)
            .replace();
        let failed = |source| Error::Resolve { address, source: Box::new(source) };
        request.execute().await.map_err(failed)
    }
}

fn dump(what: &'static str) -> impl FnOnce(rtnetlink::Error) -> Error {
    move |source| Error::Dump { what, source: Box::new(source) }
}

fn device(link: LinkMessage) -> Option<Device> {
    let flags = link.header.flags;
    let (mut name, mut kind, mut address, mut mtu, mut operational) = (None, None, None, 0, true);
    let (mut namespace, mut other_end, mut largest) = (None, None, LARGEST);
    for attribute in link.attributes {
        match attribute {
            LinkAttribute::IfName(is) => name = Some(is),
            LinkAttribute::Mtu(is) => mtu = is,
            LinkAttribute::Address(is) => address = Some(is),
            LinkAttribute::OperState(is) => {
                // Devices that know nothing of carriers are always `Unknown`.
                operational = matches!(is, State::Up | State::Unknown);
            }
            LinkAttribute::LinkNetNsId(is) => namespace = Some(is),
            LinkAttribute::Link(is) => other_end = Some(is),
            LinkAttribute::GsoMaxSize(is) | LinkAttribute::GsoIpv4MaxSize(is) => {
                largest = largest.min(is);
            }
            LinkAttribute::LinkInfo(infos) => {
                kind = infos.into_iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    let ethernet = link.header.link_layer_type == LinkLayerType::Ether;
    let headless = matches!(
        link.header.link_layer_type,
        LinkLayerType::None
            | LinkLayerType::Ppp
            | LinkLayerType::Rawip
            | LinkLayerType::Tunnel
            | LinkLayerType::Tunnel6
            | LinkLayerType::Sit
            | LinkLayerType::Ipgre
            | LinkLayerType::Ip6gre
    );
    let up = flags.contains(LinkFlags::Up);
    let peer = match (kind.as_deref(), namespace, other_end) {
        (Some("veth"), Some(namespace), Some(ifindex)) if up && largest >= LARGEST => {
            Some(Peer { namespace, ifindex })
        }
        _ => None,
    };
    Some(Device {
        ifindex: link.header.index,
        name: name?,
        kind,
        peer,
        opens_to_peer: false,
        mac: address.filter(|_| ethernet).and_then(|address| address.try_into().ok()),
        headless,
        resolves: ethernet && !flags.contains(LinkFlags::Noarp),
        mtu,
        carrier: flags.contains(LinkFlags::Up | LinkFlags::LowerUp) && operational,
        addresses: Vec::new(),
    })
}

fn address(message: &AddressMessage) -> Option<Address> {
    let (mut local, mut peer) = (None, None);
    let mut flags = AddressFlags::from_bits_retain(u32::from(message.header.flags.bits()));
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => peer = Some(*ip),
            AddressAttribute::Flags(is) => flags = *is,
            _ => {}
        }
    }
    // IPv6 has the address itself in `Address`; IPv4 the peer's, which is the
    // address itself unless the link is point to point.
    let ip = local.or(peer)?;
    let unfit = AddressFlags::Secondary
        | AddressFlags::Tentative
        | AddressFlags::Dadfailed
        | AddressFlags::Deprecated;
    Some(Address {
        ip,
        net: IpNet::new(peer.unwrap_or(ip), message.header.prefix_len).ok()?.trunc(),
        global: matches!(message.header.scope, AddressScope::Universe | AddressScope::Site),
        preferred: !flags.intersects(unfit),
    })
}

/// One route for each next hop; none if it is not a unicast route of the main
/// table.
fn next_hops(message: &RouteMessage) -> Vec<Route> {
    let header = &message.header;
    let mut table = u32::from(header.table);
    let (mut destination, mut metric, mut hops) = (None, 0, Vec::new());
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(to) => destination = ip(to),
            RouteAttribute::Priority(is) => metric = *is,
            RouteAttribute::Table(is) => table = *is,
            RouteAttribute::MultiPath(several) => {
                hops.extend(
                    several.iter().map(|hop| (hop.interface_index, gateway(&hop.attributes))),
                );
            }
            RouteAttribute::Oif(ifindex) => hops.push((*ifindex, gateway(&message.attributes))),
            _ => {}
        }
    }
    if header.kind != RouteType::Unicast || table != u32::from(RouteHeader::RT_TABLE_MAIN) {
        return Vec::new();
    }
    let unspecified = match header.address_family {
        AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        _ => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let destination =
        IpNet::new(destination.unwrap_or(unspecified), header.destination_prefix_length);
    let Ok(destination) = destination else { return Vec::new() };
    hops.into_iter()
        .map(|(ifindex, gateway)| Route { destination, gateway, ifindex, metric })
        .collect()
}

fn gateway(attributes: &[RouteAttribute]) -> Option<IpAddr> {
    attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(address) => ip(address),
        RouteAttribute::Via(RouteVia::Inet(address)) => Some(IpAddr::V4(*address)),
        RouteAttribute::Via(RouteVia::Inet6(address)) => Some(IpAddr::V6(*address)),
        _ => None,
    })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}

fn neighbour(message: &NeighbourMessage) -> Option<Neighbour> {
    let state = match message.header.state {
        NeighbourState::Reachable
        | NeighbourState::Delay
        | NeighbourState::Probe
        | NeighbourState::Permanent => Reachability::Fresh,
        NeighbourState::Stale => Reachability::Stale,
        NeighbourState::Incomplete => Reachability::Incomplete,
        NeighbourState::Failed | NeighbourState::None => Reachability::Failed,
        // Multicast addresses and the like.
        _ => return None,
    };
    let (mut to, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => {
                to = Some(IpAddr::V4(*address));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => {
                to = Some(IpAddr::V6(*address));
            }
            NeighbourAttribute::LinkLayerAddress(address) => {
                mac = address.as_slice().try_into().ok()
            }
            _ => {}
        }
    }
    let valid = matches!(state, Reachability::Fresh | Reachability::Stale);
    Some(Neighbour { ifindex: message.header.ifindex, ip: to?, mac: mac.filter(|_| valid), state })
}
