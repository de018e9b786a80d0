//! A lab with a bond in it: a gateway, a server, and paths that live at both ends.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use serde_json::Value;

use super::{Case, Lane, scene::evidence};
use crate::lab::{
    Agent, BondConfig, BondTables, Gateway, Lab, LabSpec, PathView, Server,
    address::{HOST6, SERVER4},
    is_emulated, start_limit,
    traffic::{UdpServer, UdpStream},
    wait_until,
};

/// One of the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Gateway,
    Server,
}

impl End {
    pub(super) const BOTH: [End; 2] = [End::Gateway, End::Server];
}

/// A lab with a bond.
pub(super) struct BondScene {
    pub(super) gateway: Gateway,
    pub(super) server: Server,
    pub(super) config: BondConfig,
    pub(super) lab: Lab,
}

impl BondScene {
    /// Builds it and waits until every path lives at both ends.
    pub(super) fn new(
        spec: LabSpec,
        configure: impl FnOnce(BondConfig) -> BondConfig,
    ) -> Result<Self> {
        Self::prepared(spec, |_| Ok(()), configure)
    }

    /// The same, with something done to the lab before the agents start.
    pub(super) fn prepared(
        spec: LabSpec,
        prepare: impl FnOnce(&Lab) -> Result<()>,
        configure: impl FnOnce(BondConfig) -> BondConfig,
    ) -> Result<Self> {
        let mut scene = Self::launched(spec, prepare, configure)?;
        scene.wait_until_up().map_err(|error| scene.explain(&error))?;
        Ok(scene)
    }

    /// The same without waiting for anything.
    pub(super) fn launched(
        spec: LabSpec,
        prepare: impl FnOnce(&Lab) -> Result<()>,
        configure: impl FnOnce(BondConfig) -> BondConfig,
    ) -> Result<Self> {
        let lab = Lab::new(&spec.with_server())?;
        prepare(&lab)?;
        let config = configure(BondConfig::new(&lab)?);
        let server = Server::launch(&lab, &config.server)?;
        let gateway = Gateway::launch(&lab, &config.gateway)?;
        Ok(Self { gateway, server, config, lab })
    }

    /// Waits until every path lives at both ends.
    pub(super) fn wait_until_up(&mut self) -> Result<()> {
        self.wait_for_paths(self.lab.wans().len())
    }

    /// Waits until so many paths live at both ends.
    pub(super) fn wait_for_paths(&mut self, count: usize) -> Result<()> {
        for end in End::BOTH {
            let what = format!("{count} paths live at the {end:?}");
            wait_until(&what, start_limit(), || {
                let agent = self.agent(end);
                ensure!(agent.process().is_running()?, "the agent has ended");
                let living = self.tables(end)?.living()?;
                ensure!(living == count, "{living} live");
                Ok(true)
            })?;
        }
        Ok(())
    }

    /// An end's agent.
    pub(super) fn agent(&mut self, end: End) -> &mut Agent {
        match end {
            End::Gateway => &mut self.gateway,
            End::Server => &mut self.server,
        }
    }

    /// The same, to ask only.
    pub(super) fn agent_of(&self, end: End) -> &Agent {
        match end {
            End::Gateway => &self.gateway,
            End::Server => &self.server,
        }
    }

    /// An end's bond, as its API shows it.
    pub(super) fn shown(&self, end: End) -> Result<Value> {
        Ok(serde_json::from_str(&self.agent_of(end).api().get("/v1/bond")?)?)
    }

    /// An end's tables.
    pub(super) fn tables(&self, end: End) -> Result<BondTables> {
        match end {
            End::Gateway => BondTables::open(&self.gateway),
            End::Server => BondTables::open(&self.server),
        }
    }

    /// The path over a WAN, as an end has it.
    pub(super) fn path(&self, end: End, wan: usize) -> Result<PathView> {
        // The server knows WANs by the ids of their paths only; ids of WANs run from 1.
        let near = self.tables(End::Gateway)?.paths()?;
        let mut by_device = near.into_iter().filter(|path| usize::from(path.path.via) == wan + 1);
        let ours = by_device.next().with_context(|| format!("no path over WAN {wan}"))?;
        if end == End::Gateway {
            return Ok(ours);
        }
        let far = self.tables(End::Server)?.paths()?;
        far.into_iter().find(|path| path.id == ours.id).context("the server lacks the path")
    }

    /// Packets counted so far under a reason at an end, both directions.
    pub(super) fn counted(&self, end: End, reason: &str) -> Result<u64> {
        let rows = self.agent_of(end).api().counters()?;
        Ok(rows.iter().filter(|row| row.reason == reason).map(|row| row.packets).sum())
    }

    /// Numbered datagrams and their echoes arrive, each once, and come from where the
    /// server lets them out.
    pub(super) fn datagrams_arrive_once(&self, to: IpAddr, count: u64) -> Result<()> {
        let (count, interval) = if is_emulated() {
            (count / 5, Duration::from_millis(1))
        } else {
            (count, Duration::from_micros(200))
        };
        let server = UdpServer::start(self.lab.net(), SocketAddr::new(to, 7))?;
        let report = UdpStream::new(count, interval).run(self.lab.host(), &server)?;
        let back = report.back.context("echoes were asked for")?;
        ensure!(
            report.there.received == count && back.received == count,
            "{to}: not everything arrived: {report:?}"
        );
        ensure!(report.there.duplicated + back.duplicated == 0, "{to}: duplicates: {report:?}");
        let outside: IpAddr = if to.is_ipv4() { SERVER4.into() } else { HOST6.into() };
        let sources = &report.sources;
        ensure!(
            sources.len() == 1 && sources.iter().all(|source| source.ip() == outside),
            "{to}: seen as {sources:?}"
        );
        Ok(())
    }

    /// An error with what a reader of a failure wants to know.
    pub(super) fn explain(&self, error: &anyhow::Error) -> anyhow::Error {
        let mut text = format!("{error:#}\n");
        for end in End::BOTH {
            let agent = self.agent_of(end);
            let [counters, tail] = evidence(agent, 25);
            let paths = match self.tables(end).and_then(|tables| tables.paths()) {
                Ok(paths) => format!("{paths:#?}"),
                Err(error) => format!("{error:#}"),
            };
            let sessions = match agent.api().get("/v1/bond") {
                Ok(sessions) => sessions,
                Err(error) => format!("{error:#}"),
            };
            text.push_str(&format!(
                "\nthe {end:?}'s counters:\n{counters}\nsessions: {sessions}\npaths: {paths}\nthe end of its \
                 log:\n{tail}\n"
            ));
        }
        anyhow!(text)
    }
}

/// A test in a scene, with evidence when it fails.
pub(super) fn play(
    scene: BondScene,
    test: impl FnOnce(&mut BondScene) -> Result<()>,
) -> Result<()> {
    let mut scene = scene;
    test(&mut scene).map_err(|error| scene.explain(&error))
}

/// A case in a bond with the settings of [`BondConfig::new`] but for `configure`.
pub(super) fn bonded(
    lane: Lane,
    name: &str,
    spec: fn() -> LabSpec,
    configure: fn(BondConfig) -> BondConfig,
    test: fn(&mut BondScene) -> Result<()>,
) -> Case {
    Case::new(lane, name, move || play(BondScene::new(spec(), configure)?, test))
}
