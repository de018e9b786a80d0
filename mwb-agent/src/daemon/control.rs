//! The control loop's state: takes what the network and health say, decides,
//! writes what has changed, and tells what it did.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mwb_common::maps::{Family, MAX_PATHS, Path, Selection, path_flag};
use tokio::sync::watch;

use super::alarms::Shortage;
use super::beat::Plane;
use super::differences;
use super::ports::Port;
use super::prefixes::{self, Rules};
use super::rates::Rates;
use super::view::View;
use super::wan::{self, Present};
use crate::config::{Config, Failback};
use crate::dataplane::Error;
use crate::events::{Bus, EventKind};
use crate::failover::{self, Carries, Change, Decision, Ledger, Load, Member, Memory, Plan};
use crate::health::{Link, Measured, NextHop, Reason, Report, Start, State};
use crate::net::Snapshot;

/// A WAN as the control loop knows it.
pub(super) struct Wan {
    pub(super) port: Port,
    pub(super) present: Present,
    /// What the kernel side has.
    written: Path,
    link: watch::Sender<Link>,
    pub(super) state: State,
    pub(super) reason: Reason,
    pub(super) measured: Measured,
    pub(super) failovers: u64,
    pub(super) last_change: Option<u64>,
    /// Since when the next hop of IPv4 and IPv6 has not told its MAC.
    mute: [Option<Instant>; 2],
}

/// A next hop that has been mute for so long takes no new flows of its family.
const MUTE: Duration = Duration::from_secs(2);

/// The control loop's state.
pub(super) struct Control {
    pub(super) config: Config,
    plane: Plane,
    bus: Bus,
    pub(super) lan: Vec<Port>,
    pub(super) wans: Vec<Wan>,
    rules: Option<Rules>,
    memory: Memory,
    ledger: Ledger,
    pub(super) decision: Option<Decision>,
    /// What the kernel side has, by family.
    pub(super) written: [Option<(Plan, Selection)>; 2],
    pub(super) failovers: u64,
    pub(super) last_failover: Option<u64>,
    pub(super) rates: Rates,
    pub(super) view: watch::Sender<Arc<View>>,
}

impl Control {
    /// Takes over where an earlier run of the agent has left.
    pub(super) fn new(
        config: Config,
        plane: Plane,
        bus: Bus,
        network: &Snapshot,
        view: watch::Sender<Arc<View>>,
    ) -> Result<Self, Error> {
        let liveness = plane.with(|plane| plane.liveness())?;
        let some_lived = liveness.alive_until.iter().any(|until| *until > 0);
        let mut wans = Vec::new();
        for (path, configured) in (1u8..).zip(&config.wans) {
            let pinned = plane.with(|plane| plane.path(path))?;
            let present = wan::present(&config, configured, network, &pinned);
            // The same WAN as before, and it was dead while others lived.
            let dead = some_lived
                && liveness.alive_until.get(usize::from(path)) == Some(&0)
                && pinned.flags & path_flag::PRESENT != 0
                && pinned.address4 == present.path.address4;
            let state = if dead { State::Down } else { State::Unknown };
            let reason = if dead { Reason::DownBeforeRestart } else { Reason::Started };
            let (link, _) = watch::channel(present.link.clone());
            wans.push(Wan {
                port: Port::wan(path, configured),
                present,
                written: pinned,
                link,
                state,
                reason,
                measured: Measured::default(),
                failovers: 0,
                last_change: None,
                mute: [None; 2],
            });
        }
        let down = (1u8..).zip(&wans).filter(|(_, wan)| wan.state == State::Down).map(|(id, _)| id);
        let ledger = Ledger::new(down);
        Ok(Self {
            lan: config.lan.iter().map(Port::lan).collect(),
            config,
            plane,
            bus,
            wans,
            rules: None,
            memory: Memory::default(),
            ledger,
            decision: None,
            written: [None, None],
            failovers: 0,
            last_failover: None,
            rates: Rates::new(),
            view,
        })
    }

    /// What each WAN's health task begins with.
    pub(super) fn watched(&self) -> Vec<(u8, Start, watch::Receiver<Link>)> {
        let start = |wan: &Wan| if wan.state == State::Down { Start::Down } else { Start::Unknown };
        (1u8..).zip(&self.wans).map(|(id, wan)| (id, start(wan), wan.link.subscribe())).collect()
    }

    /// Writes everything for the first time, in the order in which a packet
    /// must not find a part missing; LAN ports come last.
    pub(super) fn begin(&mut self, network: &Snapshot) -> Result<(), Error> {
        self.write_rules(network)?;
        for path in (1..=MAX_PATHS).filter(|path| *path > self.wans.len()) {
            let path = u8::try_from(path).unwrap_or(u8::MAX);
            self.plane.with(|plane| plane.set_path(path, &Path::default()))?;
        }
        self.follow_wans(network)?;
        self.decide(Instant::now())?;
        for port in &mut self.lan {
            port.follow(&self.plane, &self.bus, network)?;
        }
        let others = self.plane.with(|plane| plane.detach_others())?;
        if !others.is_empty() {
            tracing::info!(
                devices = others.join(", "),
                "detached what the configuration no longer names"
            );
        }
        self.publish();
        Ok(())
    }

    /// The network has changed, or may be asked for again what was refused.
    pub(super) fn network(&mut self, network: &Snapshot) -> Result<(), Error> {
        self.write_rules(network)?;
        self.follow_wans(network)?;
        for port in &mut self.lan {
            if let Err(error) = port.follow(&self.plane, &self.bus, network) {
                tracing::error!(device = port.device, %error, "not attached");
            }
        }
        self.decide(Instant::now())
    }

    fn write_rules(&mut self, network: &Snapshot) -> Result<(), Error> {
        let rules = prefixes::rules(&self.config, network);
        if self.rules.as_ref() != Some(&rules) {
            self.plane.with(|plane| plane.set_prefixes(&rules.v4, &rules.v6))?;
            self.rules = Some(rules);
        }
        Ok(())
    }

    fn follow_wans(&mut self, network: &Snapshot) -> Result<(), Error> {
        for (path, (wan, configured)) in (1u8..).zip(self.wans.iter_mut().zip(&self.config.wans)) {
            if let Err(error) = wan.port.follow(&self.plane, &self.bus, network) {
                tracing::error!(wan = configured.name, device = wan.port.device, %error, "not attached");
            }
            let mut present = wan::present(&self.config, configured, network, &wan.present.path);
            if !wan.port.is_attached() {
                // Answers would not be translated back.
                present.path.flags = 0;
            }
            differences::tell(&self.bus, &configured.name, &wan.present, &present);
            if present.path != wan.written {
                self.plane.with(|plane| plane.set_path(path, &present.path))?;
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
        let index = usize::from(report.path).wrapping_sub(1);
        let (Some(wan), Some(configured)) = (self.wans.get_mut(index), self.config.wans.get(index))
        else {
            return Ok(());
        };
        (wan.state, wan.measured) = (report.state, report.measured);
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
        let members: Vec<Member> =
            (1u8..).zip(&self.wans).map(|(id, wan)| self.member(id, wan, now)).collect();
        let decision = failover::decide(self.config.balance, &members, &mut self.memory, now);
        if self.decision.as_ref().map(|before| &before.alive) != Some(&decision.alive) {
            self.plane.set_alive(decision.alive.clone())?;
        }
        for (family, plan) in [(Family::V4, &decision.v4), (Family::V6, &decision.v6)] {
            let written = &mut self.written[family as usize];
            if written.as_ref().map(|(plan, _)| plan) != Some(plan) {
                let selection = plan.compile();
                self.plane.with(|plane| plane.set_selection(family, &selection))?;
                *written = Some((plan.clone(), selection));
            }
        }
        for change in self.ledger.enter(&decision, &members) {
            self.tell(&change);
        }
        self.decision = Some(decision);
        self.publish();
        Ok(())
    }

    fn member(&self, path: u8, wan: &Wan, now: Instant) -> Member {
        let configured = self.config.wans.get(usize::from(path) - 1);
        let (up, down) = configured.map_or((None, None), |c| (c.capacity.up, c.capacity.down));
        let load = |rates: &[super::rates::Rate], capacity| {
            let rate = rates.get(usize::from(path)).copied().unwrap_or_default();
            Load { rate: rate.now, peak: rate.peak, capacity }
        };
        let [mute4, mute6] =
            wan.mute.map(|since| since.is_some_and(|since| now.duration_since(since) >= MUTE));
        let carries = |flag, mute| match (wan.present.path.flags & flag != 0, mute) {
            (false, _) => Carries::No,
            (true, true) => Carries::Mute,
            (true, false) => Carries::Yes,
        };
        Member {
            path,
            priority: configured.map_or(u8::MAX, |c| c.priority),
            forced: false,
            failback: configured.map_or(Failback::Stay, |c| c.failback),
            weight: configured.map_or(1, |c| u32::from(c.weight)),
            state: wan.state,
            v4: carries(path_flag::HAS_V4, mute4),
            v6: carries(path_flag::HAS_V6, mute6),
            measured: wan.measured,
            up: load(&self.rates.up, up),
            down: load(&self.rates.down, down),
        }
    }

    fn tell(&mut self, change: &Change) {
        let name = |path: &u8| {
            let index = usize::from(*path).wrapping_sub(1);
            self.config.wans.get(index).map_or("?", |wan| wan.name.as_str())
        };
        let reason = |path: &u8| {
            let wan = self.wans.get(usize::from(*path).wrapping_sub(1));
            wan.map_or_else(String::new, |wan| format!("{}: {}", name(path), wan.reason))
        };
        match change {
            Change::Failover { from, to } => {
                let to = to.iter().map(name).collect::<Vec<_>>().join(", ");
                let message = format!("traffic leaves {} for {to}", name(from));
                self.bus.publish(EventKind::Failover, Some(name(from)), message, reason(from));
                self.failovers += 1;
                self.last_failover = Some(unix_ms());
                if let Some(wan) = self.wans.get_mut(usize::from(*from).wrapping_sub(1)) {
                    wan.failovers += 1;
                }
            }
            Change::Failback { to } => {
                let message = format!("{} carries new flows again", name(to));
                self.bus.publish(EventKind::Failback, Some(name(to)), message, reason(to));
            }
            Change::NothingUsable => {
                let message = "no WAN is usable: all are used as if they were";
                let reasons: Vec<String> =
                    (1u8..).zip(&self.wans).map(|(path, _)| reason(&path)).collect();
                self.bus.publish(EventKind::Failover, None, message, reasons.join("; "));
            }
        }
    }

    /// Tells of packets that were refused for want of room.
    pub(super) fn exhausted(&self, shortage: &Shortage) {
        let index = usize::from(shortage.path).wrapping_sub(1);
        let wan = self.config.wans.get(index).map(|wan| wan.name.as_str());
        let message = format!("{} packets were dropped", shortage.packets);
        self.bus.publish(EventKind::NatExhausted, wan, message, shortage.reason.describe());
    }
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
