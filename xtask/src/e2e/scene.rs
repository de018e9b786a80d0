//! A lab with our gateway in it, as most tests want one.

use std::{fmt, fs, path::Path, process::Command};

use anyhow::{Context as _, Result, anyhow, ensure};

use super::{Case, Lane};
use crate::lab::{Agent, Gateway, GatewayConfig, Lab, LabSpec};

/// How the gateway's programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hook {
    /// XDP, on devices whose packets look as they do on a wire.
    Xdp,
    /// TCX, on devices whose far ends leave checksums and segmentation to
    /// others, as local hosts on veth do.
    Tcx,
}

impl Hook {
    pub(super) const BOTH: [Hook; 2] = [Hook::Xdp, Hook::Tcx];

    /// In the configuration and in status.
    pub(super) fn name(self) -> &'static str {
        match self {
            Hook::Xdp => "xdp",
            Hook::Tcx => "tcx",
        }
    }

    /// The hosts of the lab as this hook meets them in the field.
    fn suit(self, spec: LabSpec) -> LabSpec {
        match self {
            Hook::Xdp => spec,
            Hook::Tcx => spec.with_offloads(),
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A lab with a gateway that is up.
pub(super) struct Scene {
    pub(super) gateway: Gateway,
    pub(super) config: GatewayConfig,
    pub(super) lab: Lab,
}

impl Scene {
    /// Builds it.
    pub(super) fn new(
        hook: Hook,
        spec: LabSpec,
        configure: impl FnOnce(GatewayConfig) -> GatewayConfig,
    ) -> Result<Self> {
        Self::prepared(hook, spec, |_| Ok(()), configure)
    }

    /// Builds it, with something done to the lab before the gateway starts.
    pub(super) fn prepared(
        hook: Hook,
        spec: LabSpec,
        prepare: impl FnOnce(&Lab) -> Result<()>,
        configure: impl FnOnce(GatewayConfig) -> GatewayConfig,
    ) -> Result<Self> {
        let lab = Lab::new(&hook.suit(spec))?;
        prepare(&lab)?;
        let config = configure(GatewayConfig::new(&lab).with("hook", hook.name()));
        let gateway = Gateway::start(&lab, &config)?;
        let status = gateway.api().status()?;
        let hooks = status.lan.iter().map(|lan| &lan.hook);
        // A device that was given a hook of its own has that.
        let wans = status
            .wans
            .iter()
            .enumerate()
            .filter(|(index, _)| config.value(&format!("wans.{index}.hook")).is_none());
        for used in hooks.chain(wans.map(|(_, wan)| &wan.hook)) {
            ensure!(used.as_deref() == Some(hook.name()), "a device uses {used:?}: {status:#?}");
        }
        Ok(Self { gateway, config, lab })
    }

    /// Packets counted so far in rows that `wanted` takes.
    pub(super) fn packets(
        &self,
        wanted: impl Fn(&crate::lab::api::CounterRow) -> bool,
    ) -> Result<u64> {
        let rows = self.gateway.api().counters()?;
        Ok(rows.iter().filter(|row| wanted(row)).map(|row| row.packets).sum())
    }

    /// Packets counted so far under a reason, in one direction.
    pub(super) fn counted(&self, direction: &str, reason: &str) -> Result<u64> {
        self.packets(|row| row.direction == direction && row.reason == reason)
    }

    /// Number of the latest event; 0: there was none.
    pub(super) fn latest_event(&self) -> Result<u64> {
        Ok(self.gateway.api().events(0)?.last().map_or(0, |event| event.id))
    }

    /// Entries of a pinned table, as the kernel itself has them.
    pub(super) fn entries(&self, table: &str) -> Result<usize> {
        let instance = Path::new(crate::lab::PINS).join(self.lab.prefix());
        // One version of the layout at a time.
        let version = fs::read_dir(&instance)?.next().context("nothing is pinned")??;
        let pin = version.path().join("maps").join(table);
        let output = Command::new("bpftool")
            .args(["-j", "map", "dump", "pinned"])
            .arg(&pin)
            .output()
            .context("cannot start bpftool")?;
        let rows: Vec<serde::de::IgnoredAny> = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("bpftool said of {}: {output:?}", pin.display()))?;
        Ok(rows.len())
    }

    /// Memory that the agent has asked for, in KiB: not that of its program.
    pub(super) fn resident(&mut self) -> Result<u64> {
        let path = format!("/proc/{}/status", self.gateway.process().id());
        let status = fs::read_to_string(path)?;
        let line =
            status.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("RssAnon")?;
        line.trim().trim_end_matches(" kB").parse().context("a number of KiB")
    }
}

/// What a reader of a failure wants to know of an agent: its counters, and the last lines
/// of its log.
pub(super) fn evidence(agent: &Agent, lines: usize) -> [String; 2] {
    let log = agent.log();
    let all: Vec<&str> = log.lines().collect();
    let tail = all[all.len().saturating_sub(lines)..].join("\n");
    let counters = match agent.api().counters() {
        Ok(rows) => rows
            .iter()
            .map(|row| {
                format!(
                    "{} {} {} {} {}",
                    row.direction, row.wan, row.reason, row.protocol, row.packets
                )
            })
            .collect::<Vec<_>>()
            .join("\n"),
        Err(error) => format!("{error:#}"),
    };
    [counters, tail]
}

/// A test in a scene, with evidence when it fails.
pub(super) fn play(scene: Scene, test: impl FnOnce(&mut Scene) -> Result<()>) -> Result<()> {
    let mut scene = scene;
    test(&mut scene).map_err(|error| {
        let [counters, tail] = evidence(&scene.gateway, 30);
        anyhow!("{error:#}\n\ncounters:\n{counters}\nthe end of the agent's log:\n{tail}")
    })
}

/// A case for each hook, in a plain lab of `wans` WANs and with the
/// configuration of [`GatewayConfig::new`] but for `configure`.
pub(super) fn both_hooks(
    lane: Lane,
    name: &str,
    spec: fn() -> LabSpec,
    configure: fn(GatewayConfig) -> GatewayConfig,
    test: fn(&mut Scene) -> Result<()>,
) -> Vec<Case> {
    Hook::BOTH
        .into_iter()
        .map(|hook| {
            Case::new(lane, &format!("{name}_by_{hook}"), move || {
                play(Scene::new(hook, spec(), configure)?, test)
            })
        })
        .collect()
}
