//! The control loop's state: takes what the network and health say, decides,
//! writes what has changed, and tells what it did.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mwb_common::maps::{Family, Path, Selection, path_flag};
use tokio::sync::watch;

use super::alarms::Shortage;
use super::beat::Plane;
use super::differences;
use super::domains::Domains;
use super::forced::Forced;
use super::forwards::Forwards;
use super::identity;
use super::leaving::Leaving;
use super::policy::Policies;
use super::ports::Port;
use super::prefixes::{self, Rules};
use super::rates::Rates;
use super::start::write_control;
use super::view::View;
use super::wan::{self, Present};
use crate::config::{self, Config};
use crate::dataplane::Error;
use crate::events::{Bus, EventKind};
use crate::failover::{
    self, Carries, Change, Decision, Drains, Ledger, Load, Member, Memory, Plan,
};
use crate::health::{Asking, Held, Link, Measured, NextHop, Reason, Report, State};
use crate::net::Snapshot;

/// A WAN as the control loop knows it.
pub(super) struct Wan {
    /// Path id; it stays with the device.
    pub(super) path: u8,
    pub(super) port: Port,
    pub(super) present: Present,
    /// What the kernel side has.
    pub(super) written: Path,
    pub(super) link: watch::Sender<Link>,
    pub(super) state: State,
    pub(super) reason: Reason,
    pub(super) measured: Measured,
    pub(super) held: Held,
    pub(super) asking: Asking,
    pub(super) failovers: u64,
    pub(super) last_change: Option<u64>,
    /// It was added while others ran: until it is heard from, they go first.
    pub(super) is_new: bool,
    /// Since when the next hop of IPv4 and IPv6 has not told its MAC.
    pub(super) mute: [Option<Instant>; 2],
}

/// A next hop that has been mute for so long takes no new flows of its family.
const MUTE: Duration = Duration::from_secs(2);

/// The control loop's state.
pub(super) struct Control {
    pub(super) config: Config,
    pub(super) plane: Plane,
    pub(super) bus: Bus,
    pub(super) lan: Vec<Port>,
    /// The data plane's end of a bond's device.
    pub(super) device: Option<Port>,
    /// The kernel's end, as the data plane knows it for probes that packets make.
    pub(super) ticks: Option<u32>,
    /// In the order of the configuration.
    pub(super) wans: Vec<Wan>,
    pub(super) rules: Option<Rules>,
    pub(super) forwards: Forwards,
    /// What a WAN or LAN port that is none any more has left behind.
    pub(super) leaving: Leaving,
    /// Until when the path choice of the agent before us stays, see `start`.
    pub(super) settles: Option<Instant>,
    pub(super) memory: Memory,
    pub(super) ledger: Ledger,
    pub(super) drains: Drains,
    pub(super) forced: Option<Forced>,
    pub(super) decision: Option<Decision>,
    pub(super) policies: Policies,
    pub(super) domains: Domains,
    /// What the kernel side has, by family.
    pub(super) written: [Option<(Plan, Selection)>; 2],
    pub(super) failovers: u64,
    pub(super) last_failover: Option<u64>,
    pub(super) rates: Rates,
    pub(super) view: watch::Sender<Arc<View>>,
}

impl Control {
    /// The network has changed, or may be asked for again what was refused.
    pub(super) fn network(&mut self, network: &Snapshot) -> Result<(), Error> {
        write_control(&self.plane, &self.config)?;
        self.write_rules(network)?;
        if let Err(error) = self.follow_device(network) {
            tracing::error!(%error, "the bond's device is not attached");
        }
        self.follow_wans(network)?;
        for port in &mut self.lan {
            if let Err(error) = port.follow(&self.plane, &self.bus, network) {
                tracing::error!(device = port.device, %error, "not attached");
            }
        }
        self.decide(Instant::now())?;
        self.leave()?;
        self.follow_forwards()
    }

    /// The WAN with a path id and what the configuration says about it.
    pub(super) fn wan(&self, path: u8) -> Option<(&Wan, &config::Wan)> {
        self.wans.iter().zip(&self.config.wans).find(|(wan, _)| wan.path == path)
    }

    /// What a WAN is called; for messages.
    fn name(&self, path: u8) -> &str {
        self.wan(path).map_or("?", |(_, configured)| configured.name.as_str())
    }

    /// Path ids in the order of the configuration.
    pub(super) fn paths(&self) -> Vec<u8> {
        self.wans.iter().map(|wan| wan.path).collect()
    }

    /// Forwards follow the configuration, and their ports as they come free.
    pub(super) fn follow_forwards(&mut self) -> Result<(), Error> {
        let wans: Vec<(u8, &config::Wan)> =
            self.wans.iter().map(|wan| wan.path).zip(&self.config.wans).collect();
        self.forwards.follow(&self.plane, &self.bus, &wans)
    }

    pub(super) fn write_rules(&mut self, network: &Snapshot) -> Result<(), Error> {
        self.policies.see(&self.config, network);
        self.follow_domains();
        let rules = prefixes::rules(&self.config, &self.paths(), network);
        if self.rules.as_ref() != Some(&rules) {
            self.plane.with(|plane| plane.set_prefixes(&rules.v4, &rules.v6))?;
            self.rules = Some(rules);
        }
        Ok(())
    }

    /// The bond's device, if there is one: programs, and where packets make probes.
    pub(super) fn follow_device(&mut self, network: &Snapshot) -> Result<(), Error> {
        let Some(port) = &mut self.device else { return Ok(()) };
        port.follow(&self.plane, &self.bus, network)?;
        let tunnel = self.config.tunnel();
        let kernel_end = tunnel.and_then(|tunnel| network.device(tunnel.device));
        let Some(ifindex) = kernel_end.map(|device| device.ifindex) else { return Ok(()) };
        if self.ticks != Some(ifindex) {
            self.plane.with(|plane| plane.set_ticks(ifindex))?;
            self.ticks = Some(ifindex);
        }
        Ok(())
    }

    pub(super) fn follow_wans(&mut self, network: &Snapshot) -> Result<(), Error> {
        for (wan, configured) in self.wans.iter_mut().zip(&self.config.wans) {
            if let Err(error) = wan.port.follow(&self.plane, &self.bus, network) {
                tracing::error!(wan = configured.name, device = wan.port.device, %error, "not attached");
            }
            let mut present = wan::present(&self.config, configured, network, &wan.present.path);
            if !wan.port.is_served() {
                // Answers would not be translated back.
                present.path.flags = 0;
            }
            present.path.device = identity::padded(&configured.device);
            present.path.name = identity::padded(&configured.name);
            differences::tell(&self.bus, &configured.name, &wan.present, &present);
            if present.path != wan.written {
                self.plane.with(|plane| plane.set_path(wan.path, &present.path))?;
                wan.written = present.path;
            }
            for (mute, next_hop) in wan.mute.iter_mut().zip(wan::next_hops(&present)) {
                let unresolved = next_hop == Some(NextHop::Unresolved);
                *mute = unresolved.then(|| mute.unwrap_or_else(Instant::now));
            }
            wan.link.send_if_modified(|link| {
                let changed = *link != present.link;
                link.clone_from(&present.link);
                changed
            });
            wan.present = present;
        }
        Ok(())
    }

    /// The next hops that the kernel should be asked to resolve.
    pub(super) fn to_resolve(&self, network: &Snapshot) -> Vec<(u32, std::net::IpAddr)> {
        self.wans.iter().flat_map(|wan| wan::to_resolve(&wan.present, network)).collect()
    }

    /// Health has something to say about a WAN.
    pub(super) fn report(&mut self, report: Report) -> Result<(), Error> {
        let mut wans = self.wans.iter_mut().zip(&self.config.wans);
        let Some((wan, configured)) = wans.find(|(wan, _)| wan.path == report.path) else {
            return Ok(());
        };
        (wan.state, wan.measured) = (report.state, report.measured);
        let held = std::mem::replace(&mut wan.held, report.held);
        differences::tell_held(&self.bus, &configured.name, held, report.held);
        if let Some((from, to, why)) = report.switched {
            let (from, to) = (from.name(), to.name());
            let message = format!("{} is checked by {to}, no more by {from}", configured.name);
            self.bus.publish(EventKind::Method, Some(&configured.name), message, why);
        }
        wan.asking = report.asking;
        let Some(transition) = report.transition else {
            wan.reason = report.reason;
            return Ok(());
        };
        wan.last_change = Some(unix_ms());
        let message = format!(
            "{} is {}, was {}",
            configured.name,
            transition.to.name(),
            transition.from.name()
        );
        let reason = transition.reason.to_string();
        self.bus.publish(EventKind::WanState, Some(&configured.name), message, reason);
        wan.reason = report.reason;
        self.decide(Instant::now())
    }

    /// Decides, and writes what is new. Liveness goes first: a dead path must
    /// not get another flow.
    pub(super) fn decide(&mut self, now: Instant) -> Result<(), Error> {
        self.expire_forced(now);
        let wans = self.wans.iter().zip(&self.config.wans);
        let forced = self.forced.as_ref();
        let members: Vec<Member> =
            wans.map(|(wan, configured)| self.member(wan, configured, forced, now)).collect();
        let decision = failover::decide(self.config.balance, &members, &mut self.memory, now);
        if self.decision.as_ref().map(|before| &before.alive) != Some(&decision.alive) {
            self.plane.set_alive(decision.alive.clone())?;
        }
        let settles = self.settles(now);
        for (family, plan) in [(Family::V4, &decision.v4), (Family::V6, &decision.v6)] {
            let written = &mut self.written[family as usize];
            let keep = settles && written.is_some();
            if !keep && written.as_ref().map(|(plan, _)| plan) != Some(plan) {
                let selection = plan.compile();
                self.plane.with(|plane| plane.set_selection(family, &selection))?;
                *written = Some((plan.clone(), selection));
            }
        }
        for change in self.ledger.enter(&decision, &members) {
            self.tell(&change);
        }
        // New flows know where to go: now others may have to follow them.
        if !settles {
            for step in self.drains.enter(self.config.balance, &decision, &members, now) {
                self.follow_left(step)?;
            }
        }
        self.decision = Some(decision);
        self.decide_policy(&members, now)?;
        self.view_policy();
        self.publish();
        Ok(())
    }

    pub(super) fn member(
        &self,
        wan: &Wan,
        configured: &config::Wan,
        forced: Option<&Forced>,
        now: Instant,
    ) -> Member {
        let load = |rates: &[super::rates::Rate], capacity| {
            let rate = rates.get(usize::from(wan.path)).copied().unwrap_or_default();
            Load { rate: rate.now, peak: rate.peak, capacity }
        };
        let [mute4, mute6] =
            wan.mute.map(|since| since.is_some_and(|since| now.duration_since(since) >= MUTE));
        let untried = wan.is_new && wan.state == State::Unknown;
        let carries = |flag, mute| match (wan.present.path.flags & flag != 0, mute || untried) {
            (false, _) => Carries::No,
            (true, true) => Carries::Mute,
            (true, false) => Carries::Yes,
        };
        Member {
            path: wan.path,
            priority: configured.priority,
            forced: forced.is_some_and(|forced| forced.is(configured)),
            failback: configured.failback,
            weight: u32::from(configured.weight),
            state: acted_upon(wan, configured),
            v4: carries(path_flag::HAS_V4, mute4),
            v6: carries(path_flag::HAS_V6, mute6),
            measured: wan.measured,
            up: load(&self.rates.up, configured.capacity.up),
            down: load(&self.rates.down, configured.capacity.down),
        }
    }

    fn tell(&mut self, change: &Change) {
        let name = |path: &u8| self.name(*path);
        let reason = |path: &u8| {
            let wan = self.wan(*path);
            wan.map_or_else(String::new, |(wan, _)| format!("{}: {}", name(path), wan.reason))
        };
        match change {
            Change::Failover { from, to } => {
                let to = to.iter().map(name).collect::<Vec<_>>().join(", ");
                let message = format!("traffic leaves {} for {to}", name(from));
                self.bus.publish(EventKind::Failover, Some(name(from)), message, reason(from));
                self.failovers += 1;
                self.last_failover = Some(unix_ms());
                if let Some(wan) = self.wans.iter_mut().find(|wan| wan.path == *from) {
                    wan.failovers += 1;
                }
            }
            Change::Failback { to } => {
                let message = format!("{} carries new flows again", name(to));
                self.bus.publish(EventKind::Failback, Some(name(to)), message, reason(to));
            }
            Change::NothingUsable => {
                let message = "no WAN is usable: all are used as if they were";
                let reasons: Vec<String> = self.wans.iter().map(|wan| reason(&wan.path)).collect();
                self.bus.publish(EventKind::Failover, None, message, reasons.join("; "));
            }
        }
    }

    /// Tells of packets that were refused for want of room.
    pub(super) fn exhausted(&self, shortage: &Shortage) {
        let wan = self.wan(shortage.path).map(|(_, configured)| configured.name.as_str());
        let message = format!("{} packets were dropped", shortage.packets);
        self.bus.publish(EventKind::NatExhausted, wan, message, shortage.reason.describe());
    }
}

/// The state that is acted upon: of a WAN that is only observed what checks find is
/// told, but what its device says counts.
pub(super) fn acted_upon(wan: &Wan, configured: &config::Wan) -> State {
    let by_device = matches!(wan.reason, Reason::CarrierLost | Reason::DeviceMissing);
    if configured.health.observe && !by_device { State::Up } else { wan.state }
}

/// A time of the monotonic clock, in milliseconds since 1970.
pub(super) fn at_unix_ms(time: Instant) -> u64 {
    let ahead = time.saturating_duration_since(Instant::now());
    unix_ms().saturating_add(u64::try_from(ahead.as_millis()).unwrap_or(u64::MAX))
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
