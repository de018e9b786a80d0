//! Events for what the network has changed about a WAN.

use super::wan::Present;
use crate::config::units::show_duration;
use crate::events::{Bus, EventKind};
use crate::health::{Held, Link, NextHop};

/// Tells for how much longer, or less long, a WAN must prove itself.
pub(super) fn tell_held(bus: &Bus, name: &str, before: Held, now: Held) {
    let time = show_duration(now.time);
    let (message, reason) = if now.relapses > before.relapses {
        let times = if now.relapses == 1 { "relapse" } else { "relapses" };
        (format!("{name} must be well for {time}"), format!("{} {times}", now.relapses))
    } else if now.relapses > 0 && now.time < before.time || now.relapses < before.relapses {
        (format!("{name} must be well for {time} only"), "it has been calm".to_owned())
    } else {
        return;
    };
    bus.publish(EventKind::HoldDown, Some(name), message, reason);
}

/// Tells what is different about a WAN's device.
pub(super) fn tell(bus: &Bus, name: &str, before: &Present, now: &Present) {
    let tell = |kind, message: String, reason: String| {
        bus.publish(kind, Some(name), message, reason);
    };
    let (old, new) = (&before.link, &now.link);
    if old.ifindex.is_some() && new.ifindex.is_some() && old.carrier != new.carrier {
        let message = if new.carrier { "carrier is back" } else { "carrier is lost" };
        tell(EventKind::Carrier, format!("{name}: {message}"), String::new());
    }
    let shown = |address: Option<String>| address.unwrap_or_else(|| "none".to_owned());
    let hop4 = |link: &Link| link.v4.map(|hop| (hop.source, hop.gateway));
    if new.ifindex.is_some() && hop4(old) != hop4(new) {
        let source = shown(new.v4.map(|hop| hop.source.to_string()));
        let gateway = shown(new.v4.and_then(|hop| hop.gateway).map(|gateway| gateway.to_string()));
        let message = format!("{name}: IPv4 address {source}, gateway {gateway}");
        let generation = format!("generation {}", now.path.generation);
        tell(EventKind::AddressChange, message, generation);
    }
    let lost = |link: &Link| link.v4.is_some_and(|hop| hop.mac == NextHop::Unresolved);
    let same_hop = hop4(old).is_some() && hop4(old) == hop4(new);
    if same_hop && lost(old) != lost(new) {
        let gateway = shown(new.v4.and_then(|hop| hop.gateway).map(|gateway| gateway.to_string()));
        let what = if lost(new) { "does not answer" } else { "is resolved" };
        tell(EventKind::Neighbour, format!("{name}: gateway {gateway} {what}"), String::new());
    }
}
