//! Routes that lead to the device of a bond, of a protocol number of our own: those of
//! others are never touched.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::TryStreamExt;
use ipnet::{IpNet, Ipv6Net};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteProtocol, RouteType,
};
use rtnetlink::RouteMessageBuilder;

use super::bonded::{change, has_no_ipv6, of_ipv6};
use super::{Error, Requests};

/// The protocol number of our routes; `ip route` can list them by it.
pub const ROUTE_PROTOCOL: u8 = 77;
/// The next hop of our IPv4 routes. It is nobody, on a link that nobody else is on
/// (RFC 3927), and stands for the data plane.
pub(super) const NEXT_HOP4: Ipv4Addr = Ipv4Addr::new(169, 254, 77, 1);
/// The same of our IPv6 routes.
pub(super) const NEXT_HOP6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x77);
/// `RTAX_MTU` as a bit of `RTAX_LOCK`: a FIB look-up heeds only an MTU that is locked.
const LOCKED_MTU: u32 = 1 << 2;
/// Halves of all addresses: more specific than the default route of any WAN, which
/// sockets that are bound to its device go on using.
const HALVES: [(IpAddr, u8); 4] = [
    (IpAddr::V4(Ipv4Addr::UNSPECIFIED), 1),
    (IpAddr::V4(Ipv4Addr::new(128, 0, 0, 0)), 1),
    (IpAddr::V6(Ipv6Addr::UNSPECIFIED), 1),
    (IpAddr::V6(Ipv6Addr::new(0x8000, 0, 0, 0, 0, 0, 0, 0)), 1),
];

/// A route that leads to the device of a bond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BondedRoute {
    /// Where to; host bits zero.
    pub destination: IpNet,
    /// The longest packet that goes there, in bytes from the IP header on; `None`: what
    /// the route has, or the device's. IPv6 never has less than 1280 (RFC 8200, 5).
    pub mtu: Option<u32>,
}

impl BondedRoute {
    /// Everything, beside the default routes that there are.
    #[must_use]
    pub fn everything(mtu: Option<u32>) -> Vec<Self> {
        let halves = HALVES.into_iter().map(|(address, length)| IpNet::new_assert(address, length));
        halves.map(|destination| Self { destination, mtu }).collect()
    }
}

/// Metric of the routes of an instance to what is nobody's: worse than any that leads to
/// somebody, and of that instance alone, for such a route has no device that tells whose it
/// is (FNV-1a).
fn metric(instance: &str) -> u32 {
    let step = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    instance.bytes().fold(0x811c_9dc5, step) | 1 << 31
}

/// Makes the prefixes of which an instance answers for the rest those that are wanted: what
/// no other route leads to is unreachable there, and does not go back to where it came from.
pub(super) async fn set_unreachable(
    requests: &Requests,
    instance: &str,
    wanted: &[Ipv6Net],
) -> Result<(), Error> {
    let metric = metric(instance);
    let all = requests.main_routes(RouteMessageBuilder::<Ipv6Addr>::new().build()).await?;
    let is_its = |route: &There| {
        route.is_ours
            && route.message.header.kind == RouteType::Unreachable
            && route.metric == metric
    };
    let there: Vec<IpNet> = all.into_iter().filter(is_its).map(|route| route.destination).collect();
    for net in wanted.iter().filter(|net| !there.contains(&IpNet::V6(**net))) {
        match requests.handle.route().add(unreachable(*net, metric)).execute().await {
            Err(error) if has_no_ipv6(&error) => {}
            result => result.map_err(change(format!("adding the unreachable route {net}")))?,
        }
    }
    for net in there {
        let IpNet::V6(net) = net else { continue };
        if !wanted.contains(&net) {
            let request = requests.handle.route().del(unreachable(net, metric));
            let result = request.execute().await;
            result.map_err(change(format!("removing the unreachable route {net}")))?;
        }
    }
    Ok(())
}

fn unreachable(net: Ipv6Net, metric: u32) -> RouteMessage {
    RouteMessageBuilder::<Ipv6Addr>::new()
        .destination_prefix(net.addr(), net.prefix_len())
        .kind(RouteType::Unreachable)
        .priority(metric)
        .protocol(RouteProtocol::Other(ROUTE_PROTOCOL))
        .build()
}

/// A route of the main table.
#[derive(Clone, Debug)]
struct There {
    destination: IpNet,
    device: Option<u32>,
    mtu: Option<u32>,
    is_ours: bool,
    metric: u32,
    is_whole: bool,
    message: RouteMessage,
}

/// Makes the routes by a device those that are wanted.
pub(super) async fn set(
    requests: &Requests,
    ifindex: u32,
    device: &str,
    wanted: &[BondedRoute],
) -> Result<(), Error> {
    let mut there = requests.main_routes(RouteMessageBuilder::<Ipv4Addr>::new().build()).await?;
    there.extend(requests.main_routes(RouteMessageBuilder::<Ipv6Addr>::new().build()).await?);
    for route in wanted {
        let same = |other: &&There| other.destination == route.destination;
        let own = there.iter().filter(same).find(|other| other.is_of(ifindex));
        // Of IPv4 the kernel puts 0 for none, of IPv6 1024.
        let metric = if route.destination.addr().is_ipv6() { 1024 } else { 0 };
        let foreign = |other: &&There| !other.is_of(ifindex) && other.metric == metric;
        if there.iter().filter(same).any(|other| foreign(&other)) {
            return Err(Error::RouteTaken {
                destination: route.destination,
                device: device.to_owned(),
            });
        }
        let mtu = route.mtu.or_else(|| own.and_then(|own| own.mtu));
        if own.is_some_and(|own| own.is_whole && own.mtu == mtu) {
            continue;
        }
        let request = requests.handle.route().add(message(route.destination, ifindex, mtu));
        let result = match own {
            Some(_) => request.replace().execute().await,
            None => request.execute().await,
        };
        let what = format!("adding the route {}", route.destination);
        match result {
            Err(error) if route.destination.addr().is_ipv6() => of_ipv6(error, device, what)?,
            result => result.map_err(change(what))?,
        }
    }
    let unwanted = |other: &&There| {
        other.is_of(ifindex) && !wanted.iter().any(|route| route.destination == other.destination)
    };
    for route in there.iter().filter(unwanted) {
        let request = requests.handle.route().del(route.message.clone());
        request
            .execute()
            .await
            .map_err(change(format!("removing the route {}", route.destination)))?;
    }
    Ok(())
}

impl There {
    fn is_of(&self, ifindex: u32) -> bool {
        self.is_ours && self.device == Some(ifindex)
    }
}

impl Requests {
    async fn main_routes(&self, of: RouteMessage) -> Result<Vec<There>, Error> {
        let routes = self.handle.route().get(of).execute().try_collect::<Vec<_>>().await;
        match routes {
            Ok(routes) => Ok(routes.into_iter().filter_map(there).collect()),
            Err(error) if has_no_ipv6(&error) => Ok(Vec::new()),
            Err(error) => Err(change("reading routes")(error)),
        }
    }
}

/// With its next hop's MAC known, and its MTU heeded by everybody.
fn message(destination: IpNet, ifindex: u32, mtu: Option<u32>) -> RouteMessage {
    let mut message = match destination {
        IpNet::V4(net) => RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(net.addr(), net.prefix_len())
            .gateway(NEXT_HOP4)
            .onlink()
            .output_interface(ifindex)
            .protocol(RouteProtocol::Other(ROUTE_PROTOCOL))
            .build(),
        IpNet::V6(net) => RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(net.addr(), net.prefix_len())
            .gateway(NEXT_HOP6)
            .onlink()
            .output_interface(ifindex)
            .protocol(RouteProtocol::Other(ROUTE_PROTOCOL))
            .build(),
    };
    if let Some(mtu) = mtu {
        let metrics = vec![RouteMetric::Lock(LOCKED_MTU), RouteMetric::Mtu(mtu)];
        message.attributes.push(RouteAttribute::Metrics(metrics));
    }
    message
}

/// `None`: it is of another table.
fn there(message: RouteMessage) -> Option<There> {
    let header = &message.header;
    let mut table = u32::from(header.table);
    let (mut to, mut device, mut mtu, mut metric) = (None, None, None, 0);
    let mut is_whole = false;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(ip)) => to = Some(IpAddr::V4(*ip)),
            RouteAttribute::Destination(RouteAddress::Inet6(ip)) => to = Some(IpAddr::V6(*ip)),
            RouteAttribute::Oif(ifindex) => device = Some(*ifindex),
            RouteAttribute::Priority(is) => metric = *is,
            RouteAttribute::Table(is) => table = *is,
            RouteAttribute::Gateway(RouteAddress::Inet(ip)) => is_whole = *ip == NEXT_HOP4,
            RouteAttribute::Gateway(RouteAddress::Inet6(ip)) => is_whole = *ip == NEXT_HOP6,
            RouteAttribute::Metrics(metrics) => {
                mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    if table != u32::from(RouteHeader::RT_TABLE_MAIN) {
        return None;
    }
    let unspecified = match header.address_family {
        netlink_packet_route::AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        _ => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let destination =
        IpNet::new(to.unwrap_or(unspecified), header.destination_prefix_length).ok()?;
    let is_ours = header.protocol == RouteProtocol::Other(ROUTE_PROTOCOL);
    Some(There { destination, device, mtu, is_ours, metric, is_whole, message })
}
