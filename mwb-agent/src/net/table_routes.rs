//! The routes in the tables of WANs: which there should be, and their form in netlink.
//!
//! A table has a default route and what is on the link, and no more: all that the main
//! table knows better is asked there before ([`rules`](super::rules)).
//!
//! Must not know: rules.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::RouteMessageBuilder;

use super::ROUTE_PROTOCOL;
use super::tables::{WanTable, Wanted, number, range};

/// What the kernel takes when nobody says one; we do, so that routes can be compared.
const METRIC6: u32 = 1024;

/// A route of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TableRoute {
    pub(super) table: u32,
    pub(super) destination: IpNet,
    pub(super) ifindex: u32,
    pub(super) gateway: Option<IpAddr>,
    /// The gateway is on the link though in no subnet.
    pub(super) onlink: bool,
}

impl fmt::Display for TableRoute {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "the route {} of table {}", self.destination, self.table)?;
        match self.gateway {
            Some(gateway) => write!(formatter, " by {gateway}"),
            None => Ok(()),
        }
    }
}

/// A route that is in a table that may be ours.
#[derive(Clone, Debug)]
pub(super) struct RouteThere {
    pub(super) table: u32,
    pub(super) protocol: u8,
    pub(super) is_ours: bool,
    /// `None`: it has what none of ours has.
    pub(super) route: Option<TableRoute>,
    pub(super) message: RouteMessage,
}

impl RouteThere {
    /// Whether the kernel can have one in the place of the other in one step.
    pub(super) fn is_in_place_of(&self, new: &TableRoute) -> bool {
        self.is_ours
            && self.route.as_ref().is_some_and(|route| {
                route.table == new.table && route.destination == new.destination
            })
    }
}

/// The routes that there should be: subnets before default routes, whose gateways are
/// found by them.
pub(super) fn routes(wanted: &Wanted) -> Vec<TableRoute> {
    let mut routes: Vec<TableRoute> = Vec::new();
    for wan in &wanted.wans {
        let Some(ifindex) = wan.ifindex else { continue };
        let table = number(wan.path);
        let mut add = |destination: IpNet, gateway: Option<IpAddr>, onlink| {
            let is_there =
                routes.iter().any(|is| is.table == table && is.destination == destination);
            if !is_there {
                routes.push(TableRoute { table, destination, ifindex, gateway, onlink });
            }
        };
        for subnet in wan.subnets.iter().filter(|net| net.prefix_len() > 0) {
            add(*subnet, None, false);
        }
        for (everything, gateway) in defaults(wan) {
            let onlink = gateway.is_some_and(|ip| {
                !is_link_local6(ip) && !wan.subnets.iter().any(|net| net.contains(&ip))
            });
            add(everything, gateway, onlink);
        }
    }
    routes
}

fn defaults(wan: &WanTable) -> impl Iterator<Item = (IpNet, Option<IpAddr>)> {
    let four = IpNet::new_assert(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
    let six = IpNet::new_assert(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0);
    let four = wan.gateway4.map(|gateway| (four, gateway.map(IpAddr::V4)));
    let six = wan.gateway6.map(|gateway| (six, gateway.map(IpAddr::V6)));
    four.into_iter().chain(six)
}

fn is_link_local6(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

impl TableRoute {
    /// As netlink has it.
    pub(super) fn message(&self) -> RouteMessage {
        let protocol = RouteProtocol::Other(ROUTE_PROTOCOL);
        let scope = if self.gateway.is_some() { RouteScope::Universe } else { RouteScope::Link };
        let mut message = match self.destination {
            IpNet::V4(net) => RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(net.addr(), net.prefix_len())
                .scope(scope)
                .output_interface(self.ifindex)
                .table_id(self.table)
                .protocol(protocol)
                .build(),
            IpNet::V6(net) => RouteMessageBuilder::<Ipv6Addr>::new()
                .destination_prefix(net.addr(), net.prefix_len())
                .priority(METRIC6)
                .output_interface(self.ifindex)
                .table_id(self.table)
                .protocol(protocol)
                .build(),
        };
        let gateway = self.gateway.map(|gateway| match gateway {
            IpAddr::V4(ip) => RouteAddress::Inet(ip),
            IpAddr::V6(ip) => RouteAddress::Inet6(ip),
        });
        message.attributes.extend(gateway.map(RouteAttribute::Gateway));
        if self.onlink {
            message.header.flags.insert(RouteFlags::Onlink);
        }
        message
    }
}

/// `None`: it is of a table that is never ours.
pub(super) fn there(message: RouteMessage) -> Option<RouteThere> {
    let header = &message.header;
    let mut table = u32::from(header.table);
    let (mut to, mut device, mut gateway, mut metric) = (None, None, None, 0);
    let mut is_known = header.kind == RouteType::Unicast && header.tos == 0;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(is) => table = *is,
            RouteAttribute::Destination(RouteAddress::Inet(ip)) => to = Some(IpAddr::V4(*ip)),
            RouteAttribute::Destination(RouteAddress::Inet6(ip)) => to = Some(IpAddr::V6(*ip)),
            RouteAttribute::Oif(ifindex) => device = Some(*ifindex),
            RouteAttribute::Gateway(RouteAddress::Inet(ip)) => gateway = Some(IpAddr::V4(*ip)),
            RouteAttribute::Gateway(RouteAddress::Inet6(ip)) => gateway = Some(IpAddr::V6(*ip)),
            RouteAttribute::Priority(is) => metric = *is,
            RouteAttribute::MultiPath(_) | RouteAttribute::Via(_) => is_known = false,
            _ => {}
        }
    }
    if !range().contains(&table) {
        return None;
    }
    let v6 = header.address_family == AddressFamily::Inet6;
    let (unspecified, usual) = if v6 {
        (IpAddr::V6(Ipv6Addr::UNSPECIFIED), METRIC6)
    } else {
        (IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0)
    };
    let to = IpNet::new(to.unwrap_or(unspecified), header.destination_prefix_length).ok();
    let onlink = header.flags.contains(RouteFlags::Onlink);
    let route = to
        .zip(device)
        .filter(|_| is_known && metric == usual)
        .map(|(destination, ifindex)| TableRoute { table, destination, ifindex, gateway, onlink });
    let protocol = u8::from(header.protocol);
    Some(RouteThere { table, protocol, is_ours: protocol == ROUTE_PROTOCOL, route, message })
}
