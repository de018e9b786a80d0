//! A routing table for each WAN, and the rules that lead there: what the gateway's own
//! sockets use that are bound to a WAN or have its address, and what the data plane leaves
//! to the kernel.
//!
//! Ours is what has [`ROUTE_PROTOCOL`] and lies in our ranges, tables from [`TABLES`] and
//! [`PRIORITIES`](super::rules::PRIORITIES). All else is somebody else's and never touched; a
//! table of such a number that has somebody else's routes is refused. What should be there
//! and is goes on untouched; else what is new is added before what is old goes, so that
//! there is a way at any moment.
//!
//! Must not know: configuration, health, who hands rules in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use futures_util::TryStreamExt;
use ipnet::IpNet;
use mwb_common::maps::MAX_PATHS;
use netlink_packet_route::rule::RuleMessage;
use rtnetlink::{IpVersion, RouteMessageBuilder};

use super::bonded::{change, code, has_no_ipv6};
use super::rule_message::{self, RuleThere};
use super::rules::{self, KernelRule, Rule};
use super::table_routes::{self, RouteThere, TableRoute};
use super::{Error, Requests};

/// The table of a WAN has this number and its path id on top.
pub const TABLES: u32 = 7_700;

/// The table of a path.
#[must_use]
pub fn number(path: u8) -> u32 {
    TABLES + u32::from(path)
}

/// The tables that may be ours.
pub(super) fn range() -> RangeInclusive<u32> {
    TABLES + 1..=TABLES + MAX_PATHS as u32
}

/// What should be there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The WANs, in the order of preference among those with the same address.
    pub wans: Vec<WanTable>,
    /// Subnets of WANs that what has the address of another WAN reaches by that other, and
    /// not straight: nobody else's route lies in them.
    pub apart: Vec<IpNet>,
    /// What else leads to these tables, in its order.
    pub rules: Vec<KernelRule>,
}

/// What the table of a WAN holds, and who is led there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WanTable {
    /// Path id, from 1 to [`MAX_PATHS`].
    pub path: u8,
    /// Interface name: rules go by it, so that they stay while the device is away.
    pub device: String,
    /// Interface index, while the device is there and can have routes.
    pub ifindex: Option<u32>,
    /// Its own addresses: what is sent from there leaves by it.
    pub addresses: Vec<IpAddr>,
    /// On the link; host bits zero.
    pub subnets: Vec<IpNet>,
    /// The IPv4 next hop of its default route; `Some(None)`: everybody is on the link,
    /// `None`: there is no way.
    pub gateway4: Option<Option<Ipv4Addr>>,
    /// The same of IPv6.
    pub gateway6: Option<Option<Ipv6Addr>>,
    /// Rules that are handed in may lead there now.
    pub usable: bool,
}

/// How many requests it took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Routes and rules that were made, or made anew.
    pub made: usize,
    /// Routes and rules that were taken away.
    pub removed: usize,
}

impl Changes {
    /// Everything was as it should be.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// The tables of WANs and their rules, as the kernel has them.
#[derive(Clone, Copy, Debug)]
pub struct Tables;

/// What is there of ours.
struct There {
    rules: Vec<RuleThere>,
    routes: Vec<RouteThere>,
    has_ipv6: bool,
}

impl Tables {
    /// Makes the tables and rules those that are wanted.
    ///
    /// # Errors
    /// When somebody else uses a table, a rule cannot be had, or the kernel refuses. What
    /// is there then stays.
    pub async fn ensure(requests: &Requests, wanted: &Wanted) -> Result<Changes, Error> {
        let mut rules = rules::rules(wanted)?;
        let mut routes = table_routes::routes(wanted);
        let there = requests.there().await?;
        if !there.has_ipv6 {
            rules.retain(|rule| !rule.v6);
            routes.retain(|route| route.destination.addr().is_ipv4());
        }
        let ours = |table| wanted.wans.iter().any(|wan| number(wan.path) == table);
        if let Some(foreign) = there.routes.iter().find(|is| !is.is_ours && ours(is.table)) {
            return Err(Error::TableTaken { table: foreign.table, protocol: foreign.protocol });
        }
        let plan = plan(&there, &rules, &routes);
        if plan.rules.iter().any(|rule| rule.selector.dscp.is_some()) {
            requests.try_dscp().await?;
        }
        let mut changes = Changes::default();
        for (route, replace) in plan.routes {
            changes.made += usize::from(requests.make_route(route, replace).await?);
        }
        for rule in plan.rules {
            requests.make_rule(rule).await?;
            changes.made += 1;
        }
        changes.removed = requests.take_away(&plan.old_rules, &plan.old_routes).await?;
        Ok(changes)
    }

    /// Takes all of ours away, whoever it led to.
    ///
    /// # Errors
    /// When the kernel cannot be asked, or refuses.
    pub async fn remove(requests: &Requests) -> Result<Changes, Error> {
        let there = requests.there().await?;
        let plan = plan(&there, &[], &[]);
        let removed = requests.take_away(&plan.old_rules, &plan.old_routes).await?;
        Ok(Changes { made: 0, removed })
    }
}

/// What is to be done, in this order.
struct Plan<'p> {
    /// To be made; in the place of what is there of the same destination, or as well.
    routes: Vec<(&'p TableRoute, bool)>,
    rules: Vec<&'p Rule>,
    /// To be taken away.
    old_rules: Vec<&'p RuleThere>,
    old_routes: Vec<&'p RouteThere>,
}

fn plan<'p>(there: &'p There, rules: &'p [Rule], routes: &'p [TableRoute]) -> Plan<'p> {
    let has_rule = |rule: &&Rule| there.rules.iter().any(|old| old.rule.as_ref() == Some(*rule));
    let new_rules = rules.iter().filter(|rule| !has_rule(rule)).collect();
    let mut old_rules: Vec<&RuleThere> = Vec::new();
    for (index, old) in there.rules.iter().enumerate() {
        let is_first = !there.rules.iter().take(index).any(|other| other.rule == old.rule);
        let is_wanted = old.rule.as_ref().is_some_and(|rule| rules.contains(rule));
        if !(is_wanted && is_first) {
            old_rules.push(old);
        }
    }
    // Those that end the search first, so that nothing ends there that had a way before.
    old_rules.sort_by_key(|old| std::cmp::Reverse(old.priority));
    let ours = || there.routes.iter().enumerate().filter(|(_, old)| old.is_ours);
    let (mut new_routes, mut replaced) = (Vec::new(), Vec::new());
    for route in routes {
        if ours().any(|(_, old)| old.route.as_ref() == Some(route)) {
            continue;
        }
        let old = ours().find(|(_, old)| old.is_in_place_of(route)).map(|(index, _)| index);
        new_routes.push((route, old.is_some()));
        replaced.extend(old);
    }
    let is_old = |index: &usize, old: &RouteThere| {
        !replaced.contains(index) && !old.route.as_ref().is_some_and(|old| routes.contains(old))
    };
    let old_routes = ours().filter(|(index, old)| is_old(index, old)).map(|(_, old)| old).collect();
    Plan { routes: new_routes, rules: new_rules, old_rules, old_routes }
}

impl Requests {
    async fn there(&self) -> Result<There, Error> {
        let mut all = self.rules(IpVersion::V4).await?;
        let has_ipv6 = match self.rules(IpVersion::V6).await {
            Ok(six) => {
                all.extend(six);
                true
            }
            Err(Error::Change { source, .. }) if has_no_ipv6(&source) => false,
            Err(error) => return Err(error),
        };
        let rules = all.into_iter().filter_map(rule_message::there).collect();
        let mut routes = Vec::new();
        for of in [
            RouteMessageBuilder::<Ipv4Addr>::new().build(),
            RouteMessageBuilder::<Ipv6Addr>::new().build(),
        ] {
            match self.handle.route().get(of).execute().try_collect::<Vec<_>>().await {
                Ok(all) => routes.extend(all.into_iter().filter_map(table_routes::there)),
                Err(error) if has_no_ipv6(&error) => {}
                Err(error) => return Err(change("reading routes")(error)),
            }
        }
        Ok(There { rules, routes, has_ipv6 })
    }

    async fn rules(&self, of: IpVersion) -> Result<Vec<RuleMessage>, Error> {
        let rules = self.handle.rule().get(of).execute().try_collect::<Vec<_>>().await;
        rules.map_err(change("reading routing rules"))
    }

    /// Whether it was made; a device that has just gone has no routes, and the next
    /// snapshot of the network says so.
    async fn make_route(&self, route: &TableRoute, replace: bool) -> Result<bool, Error> {
        let request = self.handle.route().add(route.message());
        let request = if replace { request.replace() } else { request };
        match request.execute().await {
            Ok(()) => Ok(true),
            Err(error) if code(&error) == Some(libc::ENETDOWN) => Ok(false),
            Err(error) if route.destination.addr().is_ipv6() && has_no_ipv6(&error) => Ok(false),
            Err(_) if !self.has_device(route.ifindex).await? => Ok(false),
            Err(error) => Err(change(format!("adding {route}"))(error)),
        }
    }

    async fn has_device(&self, ifindex: u32) -> Result<bool, Error> {
        let links = self.handle.link().get().execute().try_collect::<Vec<_>>().await;
        let links = links.map_err(change("reading devices"))?;
        Ok(links.iter().any(|link| link.header.index == ifindex))
    }

    async fn make_rule(&self, rule: &Rule) -> Result<(), Error> {
        let mut request = self.handle.rule().add();
        *request.message_mut() = rule.message();
        match request.execute().await {
            // Somebody was quicker.
            Err(error) if code(&error) == Some(libc::EEXIST) => Ok(()),
            result => result.map_err(change(format!("adding rule {}", rule.priority))),
        }
    }

    /// How many of them were there.
    async fn take_away(
        &self,
        rules: &[&RuleThere],
        routes: &[&RouteThere],
    ) -> Result<usize, Error> {
        let mut removed = 0;
        for rule in rules {
            let message = rule.rule.as_ref().map_or_else(|| rule.message.clone(), Rule::message);
            let request = self.handle.rule().del(message);
            let what = format!("removing rule {}", rule.priority);
            removed += usize::from(gone(request.execute().await, what)?);
        }
        for route in routes {
            let request = self.handle.route().del(route.message.clone());
            let what = format!("removing a route of table {}", route.table);
            removed += usize::from(gone(request.execute().await, what)?);
        }
        Ok(removed)
    }

    /// Whether the kernel tells packets by their code point: one that cannot takes the rule
    /// for one without.
    async fn try_dscp(&self) -> Result<(), Error> {
        let trial = Rule::trial();
        self.make_rule(&trial).await?;
        let there = self.rules(IpVersion::V4).await;
        let request = self.handle.rule().del(trial.message());
        gone(request.execute().await, "removing a rule on trial".to_owned())?;
        let is_trial = |there: RuleThere| there.rule.as_ref() == Some(&trial);
        let is_there = there?.into_iter().filter_map(rule_message::there).any(is_trial);
        if is_there { Ok(()) } else { Err(Error::NoDscp) }
    }
}

/// Whether something was there to be removed: a device that goes takes its routes with it.
fn gone(result: Result<(), rtnetlink::Error>, what: String) -> Result<bool, Error> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if matches!(code(&error), Some(libc::ESRCH | libc::ENOENT)) => Ok(false),
        Err(error) => Err(change(what)(error)),
    }
}

#[cfg(test)]
#[path = "tables_life_tests.rs"]
mod life_tests;
#[cfg(test)]
#[path = "tables_properties.rs"]
mod properties;
#[cfg(test)]
#[path = "tables_tests.rs"]
mod tests;
