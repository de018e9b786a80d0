//! What is looked up when somebody asks: flows, the reason of a decision, what
//! is wrong. Each takes a thread for blocking work, one at a time.

use std::sync::Arc;
use std::time::Duration;

use mwb_common::maps::{Flow, FlowKey4, FlowKey6, bond_role};
use mwb_common::nat::{inbound4, inbound6, v4};
use tokio::sync::{Semaphore, watch};

use super::beat::Plane;
use super::bond::Shown;
use super::bucket_view;
use super::control::Control;
use super::doctor;
use super::domains::Domains;
use super::flow_view::{self, Pair};
use super::policy::PolicyView;
use super::view::View;
use crate::api::Unavailable;
use crate::api::doctor::Report;
use crate::api::explain::Explanation;
use crate::api::flows::{FlowList, FlowQuery, FlowRow};
use crate::dataplane::{BondMaps, Error, Rules, Tables, monotonic};
use crate::explain::bonded::{self, Bonded};
use crate::explain::{Entry, Facts, Packet, Policy, Ruled, meet, words};
use crate::flows::Usage;
use crate::net::Snapshot;
use crate::policy::Met;

/// Looks things up.
pub(super) struct Look {
    plane: Plane,
    tables: Tables,
    bond: BondMaps,
    rules: Rules,
    view: watch::Receiver<Arc<View>>,
    network: watch::Receiver<Snapshot>,
    usage: watch::Receiver<Usage>,
    shown: Shown,
    domains: Domains,
    /// A full table is some ten megabytes: one dump at a time.
    one: Semaphore,
    /// It watches for seconds, which flows must not wait for.
    doctor: Semaphore,
}

impl Look {
    pub(super) fn new(
        control: &Control,
        view: watch::Receiver<Arc<View>>,
        network: watch::Receiver<Snapshot>,
        usage: watch::Receiver<Usage>,
        shown: Shown,
    ) -> Self {
        let (tables, bond, rules) =
            control.plane.with(|plane| (plane.tables(), plane.bond(), plane.rules()));
        Self {
            plane: control.plane.clone(),
            domains: control.domains.clone(),
            tables,
            bond,
            rules,
            view,
            network,
            usage,
            shown,
            one: Semaphore::new(1),
            doctor: Semaphore::new(1),
        }
    }

    /// Names of the WANs, by path id from 1.
    fn names(&self) -> Vec<String> {
        let view = self.view.borrow();
        let most = view.wans.iter().map(|wan| usize::from(wan.path)).max().unwrap_or(0);
        let mut names = vec![String::new(); most];
        for wan in &view.wans {
            let index = usize::from(wan.path).checked_sub(1);
            if let Some(name) = index.and_then(|index| names.get_mut(index)) {
                name.clone_from(&wan.name);
            }
        }
        names
    }

    /// Open flows.
    pub(super) async fn flows(&self, query: FlowQuery) -> Result<FlowList, Unavailable> {
        let (tables, bond, names) = (self.tables.clone(), self.bond.clone(), self.names());
        self.alone(move || flow_view::read(&tables, &bond, &query, &names, monotonic())).await
    }

    /// Why a packet goes where it goes.
    pub(super) async fn why(
        &self,
        packet: Packet,
        entry: Entry,
        balance: &'static str,
    ) -> Result<Explanation, Unavailable> {
        let policy = Arc::clone(&self.view.borrow().policy);
        let device = policy.device(&packet, &entry, &self.network.borrow());
        let (tables, rules, names) = (self.tables.clone(), self.rules.clone(), self.names());
        let (maps, domains) = (self.bond.clone(), self.domains.clone());
        self.alone(move || {
            let bond = maps.bond()?;
            if bond.role == bond_role::GATEWAY {
                let bonded = Bonded::read(&maps, bond, &packet)?;
                let book = rules.read()?;
                let opened = bonded.opened();
                let row =
                    opened.and_then(|(n, bucket)| bucket_view::row(n, bucket, &names, book.now));
                return Ok(bonded::explain(&book, &names, balance, (&packet, &bonded), row));
            }
            let of = domains.names_of(packet.destination.address);
            let met = meet(&policy.given, &packet, &entry, device, of);
            explain(&tables, &rules, (&names, balance), &policy, met, &packet)
        })
        .await
    }

    /// What is right and wrong.
    pub(super) async fn doctor(&self, watch: Duration) -> Result<Report, Unavailable> {
        let view = Arc::clone(&self.view.borrow());
        let network = self.network.borrow().clone();
        let usage = self.usage.borrow().clone();
        let kernel = (&self.plane, &self.tables, &self.rules);
        let bond = self.shown.as_ref().map(|shown| Arc::clone(&shown.borrow()));
        let source = doctor::Source::new(kernel, &view, &network, &usage, bond.as_deref());
        let _one = self.doctor.acquire().await.map_err(|error| Unavailable(error.to_string()))?;
        doctor::examine(source, watch).await
    }

    async fn alone<T: Send + 'static>(
        &self,
        look: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Unavailable> {
        let _one = self.one.acquire().await.map_err(|error| Unavailable(error.to_string()))?;
        let found = tokio::task::spawn_blocking(look).await;
        found
            .map_err(|error| Unavailable(format!("the look-up ended: {error}")))?
            .map_err(|error| Unavailable(error.to_string()))
    }
}

fn explain(
    tables: &Tables,
    rules: &Rules,
    (names, balance): (&[String], &str),
    policy: &PolicyView,
    met: Met,
    packet: &Packet,
) -> Result<Explanation, Error> {
    let book = rules.read()?;
    let ruled = Ruled::of(met.rule.and_then(|place| policy.given.get(place)));
    let facts = Facts::read_ruled(tables, rules, &book, packet, ruled)?;
    let row = match (facts.flow, packet.key4(), packet.key6()) {
        (Some(out), Some(key), _) => row4(tables, key, out, names, book.now)?,
        (Some(out), None, Some(key)) => row6(tables, key, out, names, book.now)?,
        _ => None,
    };
    let (balance, words) = policy.words(met.rule, balance);
    let policy = Policy { rules: words, met };
    let outlet = ruled.outlet();
    let context = words::Context { book: &book, names, balance, flow: row, policy, outlet };
    Ok(words::explain(context, packet, &facts))
}

fn row4(
    tables: &Tables,
    key: FlowKey4,
    out: Flow,
    names: &[String],
    now: u64,
) -> Result<Option<FlowRow>, Error> {
    let back = tables.flows4().get(&inbound4(&key, v4(&out.address), out.port, out.path))?;
    Ok(flow_view::row4(&Pair { key, out, back }, names, now))
}

fn row6(
    tables: &Tables,
    key: FlowKey6,
    out: Flow,
    names: &[String],
    now: u64,
) -> Result<Option<FlowRow>, Error> {
    let back = tables.flows6().get(&inbound6(&key, out.address, out.path))?;
    Ok(flow_view::row6(&Pair { key, out, back }, names, now))
}
