//! The gateway is replaced, and changed on trial, while a thousand flows run, and
//! none of them notices.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use super::{
    Case, Lane, checks,
    scene::{Scene, both_hooks},
};
use crate::{
    build,
    lab::{
        Gateway, GatewayConfig, Lab, LabSpec,
        address::NET4,
        is_emulated,
        traffic::{EchoServer, EchoStream, Fleet, FleetServers, FlowRecord, ping},
        wait_until,
    },
};

/// Flows that run while something is changed, half of them of IPv6.
const FLOWS: usize = 1000;
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Path of another version's agent: upgrades go from it to this one and back.
/// Without it, they go from this one to itself.
const OTHER_AGENT: &str = "MWB_TEST_OTHER_AGENT";

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |lane, name, spec, configure, test| {
        cases.extend(both_hooks(lane, name, spec, configure, test))
    };
    let two: fn() -> LabSpec = || LabSpec::direct(2);
    let same: fn(GatewayConfig) -> GatewayConfig = |config| config;
    add(
        Lane::Alone,
        "an_upgrade_costs_no_packet_of_1000_flows",
        two,
        same,
        an_upgrade_costs_nothing,
    );
    add(Lane::Alone, "what_is_applied_on_trial_goes_back_by_itself", two, same, a_trial_goes_back);
    add(Lane::Together, "a_wrong_file_changes_nothing", two, same, a_wrong_file_changes_nothing);
    add(
        Lane::Together,
        "a_data_plane_of_another_layout_is_refused_with_the_way_out",
        || LabSpec::direct(1),
        same,
        another_layout_is_refused,
    );
    cases
}

/// A fleet that is under way, with connections beside it.
pub(super) struct Load {
    fleet: Fleet,
    kept: Vec<EchoStream>,
    _servers: (FleetServers, [EchoServer; 2]),
}

impl Load {
    pub(super) fn start(lab: &Lab) -> Result<Self> {
        let servers = FleetServers::start(lab.net(), &checks::FAMILIES)?;
        let [four, six] =
            checks::FAMILIES.map(|to| EchoServer::start(lab.net(), SocketAddr::new(to, 7)));
        let echo = [four?, six?];
        let kept = (0..20)
            .map(|number| EchoStream::connect(lab.host(), echo[number % 2].address(), PATIENCE))
            .collect::<Result<Vec<_>>>()?;
        let rate = if is_emulated() { 500 } else { 4000 };
        let fleet = Fleet::start(lab.host(), &servers, FLOWS, rate)?;
        fleet.wait_for_answers(1, PATIENCE)?;
        Ok(Self { fleet, kept, _servers: (servers, echo) })
    }

    /// After something was changed: every flow goes on.
    pub(super) fn goes_on(&mut self, what: &str) -> Result<()> {
        self.fleet.wait_for_answers(1, PATIENCE).with_context(|| what.to_owned())?;
        for stream in &mut self.kept {
            stream.exchange(what.as_bytes()).with_context(|| what.to_owned())?;
        }
        Ok(())
    }

    /// Ends it and expects that nothing was lost or doubled.
    pub(super) fn finish(self) -> Result<Vec<FlowRecord>> {
        let flows = self.fleet.stop()?;
        let sent: u32 = flows.iter().map(|flow| flow.sent).sum();
        let lost: u32 = flows.iter().map(|flow| flow.sent - flow.answered).sum();
        let doubled: u32 = flows.iter().map(|flow| flow.doubled).sum();
        ensure!(lost + doubled == 0, "{lost} of {sent} datagrams lost, {doubled} doubled");
        ensure!(flows.len() == FLOWS && sent > 1000, "{} flows, {sent} datagrams", flows.len());
        let by_six = |flow: &&FlowRecord| flow.seen_as.iter().any(SocketAddr::is_ipv6);
        let six = flows.iter().filter(by_six).count();
        ensure!(six == FLOWS / 2, "{six} of {FLOWS} flows were seen over IPv6");
        Ok(flows)
    }
}

pub(super) fn reload(scene: &mut Scene, config: GatewayConfig) -> Result<String> {
    scene.gateway.rewrite(&config)?;
    scene.config = config;
    scene.gateway.mwb(&["reload"])
}

/// Stopped and started, killed and started: another agent takes over its flows
/// and goes on counting.
fn an_upgrade_costs_nothing(scene: &mut Scene) -> Result<()> {
    let forwarded = |scene: &Scene| scene.packets(|row| row.reason == "forwarded");
    let mut load = Load::start(&scene.lab)?;
    let before = forwarded(scene)?;
    let mut programs = program_ids(scene)?;
    let ours = &build::artifacts()?.agent;
    let other = std::env::var_os(OTHER_AGENT).map_or_else(|| ours.clone(), PathBuf::from);
    for (agent, killed) in [(&other, false), (ours, true), (&other, false), (ours, false)] {
        scene.gateway.change_agent(agent.clone());
        if killed {
            scene.gateway.kill()?;
        } else {
            scene.gateway.stop()?;
        }
        scene.gateway.restart(&scene.lab)?;
        load.goes_on("another agent runs")?;
        let now = program_ids(scene)?;
        ensure!(
            now.len() == programs.len() && now.iter().all(|id| !programs.contains(id)),
            "programs {programs:?} were not replaced: {now:?}"
        );
        programs = now;
    }
    let flows = load.finish()?;
    let moved = flows.iter().filter(|flow| flow.seen_as.len() > 1).count();
    ensure!(moved == 0, "{moved} flows moved to another WAN or port");
    let sent: u32 = flows.iter().map(|flow| flow.sent).sum();
    let counted = forwarded(scene)? - before;
    ensure!(counted >= u64::from(sent), "{sent} datagrams, {counted} counted since: it began anew");
    Ok(())
}

/// Ids of the programs in the pinned links; a filter has none, and its program's
/// pin is beside them.
fn program_ids(scene: &Scene) -> Result<Vec<u64>> {
    let pins = layout(scene)?.join("links");
    let mut ids = Vec::new();
    for pin in fs::read_dir(&pins)? {
        let pin = pin?.path();
        let is_filter = pin.to_string_lossy().ends_with("clsact");
        let (kind, id) = if is_filter { ("prog", "id") } else { ("link", "prog_id") };
        let output =
            Command::new("bpftool").args(["-j", kind, "show", "pinned"]).arg(&pin).output()?;
        let shown: serde_json::Value =
            serde_json::from_slice(&output.stdout).with_context(|| format!("{output:?}"))?;
        ids.push(shown[id].as_u64().with_context(|| format!("no program: {shown}"))?);
    }
    ensure!(!ids.is_empty(), "no links in {}", pins.display());
    Ok(ids)
}

/// Where the data plane of the scene is pinned.
fn layout(scene: &Scene) -> Result<std::path::PathBuf> {
    let instance = Path::new(crate::lab::PINS).join(scene.lab.prefix());
    Ok(fs::read_dir(&instance)?.next().context("nothing is pinned")??.path())
}

/// It acts, goes back when nobody confirms, and stays when somebody does.
fn a_trial_goes_back(scene: &mut Scene) -> Result<()> {
    let mut load = Load::start(&scene.lab)?;
    let first = fs::read_to_string(scene.gateway.config_file())?;
    let trial = scene.config.clone().with("balance", "failover");
    let file = scene.lab.scratch().join("trial.yaml");
    fs::write(&file, trial.text())?;
    let path = file.to_string_lossy().into_owned();
    let balance = |scene: &Scene| Ok::<_, anyhow::Error>(scene.gateway.api().status()?.balance);

    scene.gateway.mwb(&["apply", &path, "--confirm", "2s"])?;
    ensure!(balance(scene)? == "failover", "it does not act");
    ensure!(fs::read_to_string(scene.gateway.config_file())? == first, "the file has changed");
    load.goes_on("a trial began")?;
    wait_until("the former one is back", PATIENCE, || Ok(balance(scene)? == "per_flow"))?;
    load.goes_on("a trial ended")?;
    ensure!(scene.gateway.mwb(&["confirm"]).is_err(), "there is something to confirm");

    scene.gateway.mwb(&["apply", &path, "--confirm", "60s"])?;
    scene.gateway.mwb(&["confirm"])?;
    ensure!(balance(scene)? == "failover", "it does not act");
    ensure!(
        fs::read_to_string(scene.gateway.config_file())? == trial.text(),
        "the file is not what was confirmed"
    );
    let former = format!("{}.previous", scene.gateway.config_file().display());
    ensure!(fs::read_to_string(&former)? == first, "{former} is not the former file");
    load.goes_on("a trial was confirmed")?;

    // A restart before it is confirmed runs what the file says.
    let again = trial.with("balance", "round_robin");
    fs::write(&file, again.text())?;
    scene.gateway.mwb(&["apply", &path, "--confirm", "60s"])?;
    ensure!(balance(scene)? == "round_robin", "it does not act");
    scene.gateway.kill()?;
    scene.gateway.restart(&scene.lab)?;
    ensure!(balance(scene)? == "failover", "a trial outlived its agent");
    // For good at once.
    scene.gateway.mwb(&["apply", &path])?;
    ensure!(balance(scene)? == "round_robin", "it does not act");
    ensure!(
        fs::read_to_string(scene.gateway.config_file())? == again.text(),
        "the file is not what was applied"
    );
    load.goes_on("another was applied")?;
    load.finish().map(drop)
}

/// What is wrong is said with its place, and nothing is different.
fn a_wrong_file_changes_nothing(scene: &mut Scene) -> Result<()> {
    let before = scene.gateway.api().status()?;
    let good = scene.config.text();
    for (right, wrong) in [
        ("\"balance\": \"per_flow\"", "\"balance\": \"per_flwo\""),
        ("\"device\": \"wan1\"", "\"device\": \"wan0\""),
        ("\"mode\": \"steer\"", "\"mode\": \"steer\","),
    ] {
        let text = good.replace(right, wrong);
        ensure!(text != good, "{right} is not in the file");
        fs::write(scene.gateway.config_file(), &text)?;
        let output = scene.gateway.mwb_command(&["reload"])?.output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!output.status.success(), "{wrong} was taken: {said}");
        let name = scene.gateway.config_file().display().to_string();
        ensure!(said.contains(&format!("{name}:")), "{wrong}: no place in: {said}");
        let path = scene.lab.scratch().join("wrong.yaml");
        fs::write(&path, &text)?;
        let path = path.to_string_lossy().into_owned();
        let output = scene.gateway.mwb_command(&["apply", &path, "--confirm", "5s"])?.output()?;
        ensure!(!output.status.success(), "{wrong} was applied");
    }
    let now = scene.gateway.api().status()?;
    ensure!(
        now.balance == before.balance && now.wans.len() == before.wans.len(),
        "something is different: {now:#?}"
    );
    fs::write(scene.gateway.config_file(), good)?;
    scene.gateway.mwb(&["reload"])?;
    checks::pings_pass(&scene.lab)
}

/// Another version's programs are attached: two data planes must not run, and the
/// way out is told and works.
fn another_layout_is_refused(scene: &mut Scene) -> Result<()> {
    scene.gateway.stop()?;
    let ours = layout(scene)?;
    let theirs = ours.with_file_name("v1");
    for part in ["maps", "links"] {
        fs::create_dir_all(theirs.join(part))?;
    }
    for pin in fs::read_dir(ours.join("links"))? {
        let pin = pin?;
        fs::rename(pin.path(), theirs.join("links").join(pin.file_name()))?;
    }
    let made = build::artifacts()?;
    let mut agent = scene.lab.gw().command(&made.agent);
    agent.arg("--config").arg(scene.gateway.config_file());
    let output = agent.args(["--instance", scene.lab.prefix()]).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!output.status.success(), "it runs beside another layout: {said}");
    ensure!(said.contains("--detach") && said.contains("v1"), "no way out in: {said}");
    // It still forwards.
    let report = ping(scene.lab.host(), IpAddr::V4(NET4), 3, Duration::from_millis(20), &[])?;
    ensure!(report.received == 3, "the refusal broke what runs: {}", report.output);
    scene.gateway.detach(&scene.lab)?;
    let config = scene.config.clone();
    let gateway = Gateway::start(&scene.lab, &config)?;
    scene.gateway = gateway;
    checks::pings_pass(&scene.lab)
}
