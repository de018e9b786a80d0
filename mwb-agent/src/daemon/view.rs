//! What the API is told: snapshots of the control loop, completed with the data
//! plane's counters at the moment of the question.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mwb_common::reason::Verdict;
use tokio::sync::watch;

use super::bond::Shown;
use super::domains::Domains;
use super::look::Look;
use super::past::Past;
use super::policy::PolicyView;
use super::rates::{Total, Totals};
use super::telling::Telling;
use crate::api::bond::BondStatus;
use crate::api::doctor::Report;
use crate::api::explain::Explanation;
use crate::api::flows::{FlowList, FlowQuery};
use crate::api::past::{History, HistoryQuery};
use crate::api::policy::{AddressStatus, PolicyStatus};
use crate::api::snapshot::{
    CounterRow, FailoverStatus, LanStatus, NatStatus, Status, Traffic, WanStatus,
};
use crate::api::{Changes, Source, Unavailable};
use crate::config::Role;
use crate::dataplane::{self, Tables};
use crate::events::Bus;
use crate::explain::{Entry, Packet};
use crate::flows::Usage;
use crate::notify;

/// What the control loop knows.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    pub(super) lan: Vec<LanStatus>,
    /// Without traffic: counters are read when somebody asks.
    pub(super) wans: Vec<WanStatus>,
    pub(super) failover: FailoverStatus,
    /// The configuration may change while the agent runs.
    pub(super) balance: &'static str,
    pub(super) policy: Arc<PolicyView>,
    pub(super) bond: Option<BondView>,
}

/// What advice depends on, of a machine with a bond.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BondView {
    /// The kernel's end of its device.
    pub(super) device: String,
    /// It is the gateway's end: everything goes there.
    pub(super) is_gateway: bool,
}

/// Answers for the API.
pub(super) struct Answers {
    pub(super) instance: String,
    pub(super) role: Role,
    pub(super) mode: &'static str,
    pub(super) started: Instant,
    pub(super) view: watch::Receiver<Arc<View>>,
    pub(super) usage: watch::Receiver<Usage>,
    pub(super) tables: Tables,
    pub(super) bond: Shown,
    pub(super) domains: Domains,
    pub(super) bus: Bus,
    pub(super) changes: Changes,
    pub(super) look: Look,
    pub(super) past: Past,
    pub(super) telling: Telling,
}

impl Answers {
    async fn rows(&self) -> Result<Vec<dataplane::CounterRow>, Unavailable> {
        let tables = self.tables.clone();
        let rows = tokio::task::spawn_blocking(move || tables.counters()).await;
        rows.map_err(|error| Unavailable(format!("reading counters: {error}")))?
            .map_err(|error| Unavailable(error.to_string()))
    }

    /// Frames lost behind an XDP redirect, by the names of our devices.
    async fn losses(
        &self,
        lan: &[LanStatus],
        wans: &[WanStatus],
    ) -> Result<BTreeMap<String, u64>, Unavailable> {
        let lan = lan.iter().map(|lan| (lan.ifindex, &lan.device));
        let devices = lan.chain(wans.iter().map(|wan| (wan.ifindex, &wan.device)));
        let there: Vec<(u32, String)> =
            devices.filter_map(|(ifindex, device)| Some((ifindex?, device.clone()))).collect();
        let tables = self.tables.clone();
        let read = move || {
            let losses =
                there.into_iter().map(|(ifindex, name)| Ok((name, tables.losses(ifindex)?)));
            losses
                .filter(|lost| !matches!(lost, Ok((_, 0))))
                .collect::<Result<_, dataplane::Error>>()
        };
        let losses = tokio::task::spawn_blocking(read).await;
        losses
            .map_err(|error| Unavailable(format!("reading losses: {error}")))?
            .map_err(|error| Unavailable(error.to_string()))
    }

    fn nat(&self, wans: &[WanStatus]) -> NatStatus {
        let usage = self.usage.borrow();
        let used = |path: u8| usage.ports_used.get(usize::from(path)).copied().unwrap_or(0) as u64;
        let ports_used: BTreeMap<String, u64> =
            wans.iter().map(|wan| (wan.name.clone(), used(wan.path))).collect();
        NatStatus {
            mappings: usage.mappings as u64,
            flows4: usage.flows4 as u64,
            flows6: usage.flows6 as u64,
            ports_used,
            flow_capacity: usage.flow_capacity as u64,
        }
    }
}

impl Source for Answers {
    async fn status(&self) -> Result<Status, Unavailable> {
        let totals = Totals::of(&self.rows().await?, self.role == Role::Gateway);
        let View { lan, mut wans, failover, balance, .. } = View::clone(&self.view.borrow());
        for wan in &mut wans {
            let of =
                |totals: &[Total]| totals.get(usize::from(wan.path)).copied().unwrap_or_default();
            (wan.tx, wan.rx) = (traffic(of(&totals.up)), traffic(of(&totals.down)));
        }
        let redirect_losses = self.losses(&lan, &wans).await?;
        Ok(Status {
            redirect_losses,
            bond: self.bond.as_ref().map(|bond| BondStatus::clone(&bond.borrow())),
            notify: self.telling.notifier().status(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            instance: self.instance.clone(),
            role: self.role.name().to_owned(),
            mode: self.mode.to_owned(),
            balance: balance.to_owned(),
            uptime_seconds: self.started.elapsed().as_secs_f64(),
            lan,
            nat: self.nat(&wans),
            wans,
            failover,
        })
    }

    async fn counters(&self) -> Result<Vec<CounterRow>, Unavailable> {
        let rows = self.rows().await?;
        let view = self.view.borrow();
        let name = |row: &dataplane::CounterRow| {
            let wan = view.wans.iter().find(|wan| wan.path == row.path);
            called(wan.map(|wan| wan.name.as_str()), self.role, row)
        };
        let row = |row: dataplane::CounterRow| CounterRow {
            direction: row.direction.name().to_owned(),
            wan: name(&row),
            reason: row.reason.name().to_owned(),
            verdict: verdict(row.reason.verdict()).to_owned(),
            protocol: row.protocol.to_owned(),
            packets: row.packets,
            bytes: row.bytes,
        };
        Ok(rows.into_iter().map(row).collect())
    }

    async fn policy(&self) -> Result<PolicyStatus, Unavailable> {
        let view = Arc::clone(&self.view.borrow().policy);
        if view.rules.is_empty() {
            return Ok(PolicyStatus::default());
        }
        let (tables, domains) = (self.tables.clone(), self.domains.clone());
        let counted = tokio::task::spawn_blocking(move || {
            let mut rules = view.with_hits(&tables.policy_hits()?);
            domains.count(&view, &mut rules);
            Ok::<_, dataplane::Error>(PolicyStatus { rules, domains: domains.status() })
        });
        let counted = counted.await;
        counted
            .map_err(|error| Unavailable(format!("reading counters: {error}")))?
            .map_err(|error| Unavailable(error.to_string()))
    }

    async fn addresses(&self, rule: &str) -> Result<Vec<AddressStatus>, Unavailable> {
        let view = Arc::clone(&self.view.borrow().policy);
        let (rule, domains) = (rule.to_owned(), self.domains.clone());
        let listed = tokio::task::spawn_blocking(move || domains.list(&view, &rule)).await;
        listed.map_err(|error| Unavailable(format!("reading addresses: {error}")))
    }

    async fn flows(&self, query: FlowQuery) -> Result<FlowList, Unavailable> {
        self.look.flows(query).await
    }

    async fn why(&self, packet: Packet, entry: Entry) -> Result<Explanation, Unavailable> {
        let balance = self.view.borrow().balance;
        self.look.why(packet, entry, balance).await
    }

    async fn doctor(&self, watch: Duration) -> Result<Report, Unavailable> {
        self.look.doctor(watch).await
    }

    async fn history(&self, query: HistoryQuery) -> Result<History, Unavailable> {
        let past = self.past.clone();
        let asked = tokio::task::spawn_blocking(move || past.ask(&query)).await;
        asked.map_err(|error| Unavailable(format!("reading the history: {error}")))?
    }

    async fn notified(&self) -> Result<notify::Status, Unavailable> {
        Ok(self.telling.notifier().status())
    }

    async fn test_receiver(&self, name: &str) -> Result<notify::Tested, String> {
        self.telling.notifier().test(name).await.map_err(|error| error.to_string())
    }

    fn events(&self) -> &Bus {
        &self.bus
    }

    fn changes(&self) -> &Changes {
        &self.changes
    }
}

/// What people call that which has carried the packets of a row; `wan` is the name of the
/// WAN that has its path id.
fn called(wan: Option<&str>, role: Role, row: &dataplane::CounterRow) -> String {
    let path = row.path;
    if path == 0 {
        return "none".to_owned();
    }
    // The paths of all clients are counted by their numbers, which are no WAN's here.
    if role == Role::Server && row.reason.is_of_bond() {
        return format!("path {path}");
    }
    // A path of an earlier configuration has counters and no name.
    wan.map_or_else(|| format!("path{path}"), str::to_owned)
}

fn traffic(total: Total) -> Traffic {
    Traffic { packets: total.packets, bytes: total.bytes }
}

const fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Forward => "forward",
        Verdict::Kernel => "kernel",
        Verdict::Drop => "drop",
    }
}

#[cfg(test)]
mod tests {
    use mwb_common::maps::Direction;
    use mwb_common::reason::Reason;

    use super::*;

    #[test]
    fn what_a_server_counts_of_its_clients_paths_is_no_uplinks() {
        let row = |path, reason| dataplane::CounterRow {
            direction: Direction::Out,
            path,
            reason,
            protocol: "udp4",
            packets: 1,
            bytes: 100,
        };
        let uplink = |path: u8| (path == 1).then_some("uplink");
        for (role, path, reason, expected) in [
            (Role::Server, 1, Reason::Forwarded, "uplink"),
            (Role::Server, 1, Reason::Bonded, "path 1"),
            (Role::Server, 2, Reason::BadCheck, "path 2"),
            (Role::Server, 0, Reason::BondMessage, "none"),
            (Role::Server, 3, Reason::Forwarded, "path3"),
            (Role::Gateway, 1, Reason::Bonded, "uplink"),
        ] {
            assert_eq!(called(uplink(path), role, &row(path, reason)), expected);
        }
    }
}
