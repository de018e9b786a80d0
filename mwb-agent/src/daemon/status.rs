//! What the control loop knows, in the shapes of the API.

use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

use mwb_common::maps::{Family, path_flag};

use super::control::{Control, Wan, at_unix_ms};
use super::ports::Port;
use super::view::{BondView, View};
use crate::api::snapshot::{
    CheckScore, Checks, FailoverStatus, LanStatus, Traffic, WanState, WanStatus,
};
use crate::config;
use crate::failover::Decision;
use crate::health::{Asking, NextHop, Scored, State};

impl Control {
    /// Lets the API see what is now.
    pub(super) fn publish(&self) {
        let active = self.decision.as_ref().map(Decision::active).unwrap_or_default();
        let lan = self.lan.iter().map(lan_status).collect();
        let wans = self.wans.iter().zip(&self.config.wans);
        let wans: Vec<WanStatus> =
            wans.map(|(wan, configured)| self.wan_status(wan, configured, &active)).collect();
        let names = wans.iter().filter(|wan| wan.active).map(|wan| wan.name.clone()).collect();
        let failover = FailoverStatus {
            active: names,
            count: self.failovers,
            last_unix_ms: self.last_failover,
            forced: self.forced.as_ref().and_then(|f| f.name(&self.config)).map(str::to_owned),
            forced_until_unix_ms: self.forced.as_ref().and_then(|f| f.until).map(at_unix_ms),
        };
        self.view.send_replace(Arc::new(View {
            lan,
            wans,
            failover,
            balance: self.config.balance.name(),
            policy: self.policies.view(),
            bond: self.config.tunnel().map(|tunnel| BondView {
                device: tunnel.device.to_owned(),
                is_gateway: self.config.bond.is_some(),
            }),
        }));
    }

    fn wan_status(&self, wan: &Wan, configured: &config::Wan, active: &[u8]) -> WanStatus {
        let path = wan.path;
        let (hook, hook_mode, hook_reason) = wan.port.hook();
        let link = &wan.present.link;
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let slots = self.written[Family::V4 as usize].as_ref().map_or(0.0, |(_, selection)| {
            let own = selection.slots.iter().filter(|slot| **slot == path).count();
            own as f64 / selection.slots.len() as f64
        });
        let flags = wan.present.path.flags;
        let gateway6 = Ipv6Addr::from(wan.present.path.gateway6);
        WanStatus {
            name: configured.name.clone(),
            device: configured.device.clone(),
            ifindex: wan.port.ifindex,
            path,
            state: api_state(wan.state),
            reason: wan.reason.to_string(),
            carrier: link.carrier,
            address4: link.v4.map(|hop| hop.source),
            gateway4: link.v4.and_then(|hop| hop.gateway),
            gateway6: (flags & path_flag::HAS_V6 != 0 && !gateway6.is_unspecified())
                .then_some(gateway6),
            next_hop4: link.v4.is_some_and(|hop| hop.mac != NextHop::Unresolved),
            next_hop6: flags & path_flag::NEXT_HOP6 != 0,
            hook,
            hook_mode,
            hook_reason,
            priority: configured.priority,
            weight: configured.weight,
            capacity_up: configured.capacity.up,
            capacity_down: configured.capacity.down,
            share: slots,
            active: active.contains(&path),
            rtt_ms: wan.measured.rtt.map(ms),
            jitter_ms: wan.measured.jitter.map(ms),
            loss: wan.measured.loss,
            rx: Traffic::default(),
            tx: Traffic::default(),
            failovers: wan.failovers,
            last_change_unix_ms: wan.last_change,
            failback: configured.failback.to_string(),
            drain_until_unix_ms: self.drains.until(path, configured.failback).map(at_unix_ms),
            hold_down_seconds: wan.held.time.as_secs_f64(),
            hold_until_unix_ms: wan.held.until.map(at_unix_ms),
            relapses: wan.held.relapses,
            checks: checks(&wan.asking, configured.health.observe),
        }
    }
}

fn checks(asking: &Asking, observe: bool) -> Checks {
    let score = |score: &Scored| CheckScore {
        method: score.kind.name().to_owned(),
        reliability: score.reliability,
        tried: score.tried,
        answered: score.answered,
        lies: score.lies,
    };
    Checks {
        method: asking.by.map(|kind| kind.name().to_owned()),
        interval_ms: asking.interval.as_secs_f64() * 1e3,
        loaded: asking.loaded,
        observe,
        scores: asking.scores.iter().map(score).collect(),
    }
}

fn lan_status(port: &Port) -> LanStatus {
    let (hook, hook_mode, hook_reason) = port.hook();
    LanStatus { device: port.device.clone(), ifindex: port.ifindex, hook, hook_mode, hook_reason }
}

const fn api_state(state: State) -> WanState {
    match state {
        State::Unknown => WanState::Unknown,
        State::Up => WanState::Up,
        State::Degraded => WanState::Degraded,
        State::Testing => WanState::Testing,
        State::Down => WanState::Down,
    }
}
