//! What an operator can get wrong is said, with place and fix.

use std::{fs, process::Output, time::Duration};

use anyhow::{Context as _, Result, ensure};

use super::{
    Case, Lane, checks,
    scene::{Hook, Scene, play},
};
use crate::{
    build,
    lab::{Gateway, GatewayConfig, Lab, LabSpec},
};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            Lane::Together,
            "a_bad_configuration_is_refused_with_place_and_fix",
            bad_configurations,
        ),
        Case::new(Lane::Together, "a_missing_device_is_named", a_missing_device_is_named),
        Case::new(Lane::Together, "hook_auto_takes_tcx_on_veth_and_says_why", hook_auto),
        Case::new(Lane::Together, "hooks_can_differ_between_devices", hooks_can_differ),
        Case::new(
            Lane::Together,
            "the_operators_command_shows_what_the_agent_does",
            the_operators_command,
        ),
    ]
}

/// Wrong edits of a good file, and what must be said: the line and column of
/// the mistake, the value, and what is allowed.
fn bad_configurations() -> Result<()> {
    let lab = Lab::new(&LabSpec::direct(1))?;
    let good = GatewayConfig::new(&lab).text();
    let wrong = [
        ("\"balance\": \"per_flow\"", "\"balance\": \"per_flwo\"", "per_flow"),
        ("\"balance\":", "\"balanse\":", "balance"),
        ("\"failback_after\": \"1s\"", "\"failback_after\": \"1\"", "1s"),
        ("\"version\": 1", "\"version\": 2", "version"),
        ("\"mode\": \"steer\"", "\"mode\": \"steal\"", "steer"),
    ];
    for (number, (right, mistake, hint)) in wrong.into_iter().enumerate() {
        let text = good.replace(right, mistake);
        ensure!(text != good, "{right} is not in the file:\n{good}");
        let place = text.find(mistake).context("the mistake is there")?;
        let line = text[..place].lines().count().max(1);
        let path = lab.scratch().join(format!("wrong-{number}.yaml"));
        fs::write(&path, &text)?;
        let path = path.to_string_lossy().into_owned();
        let made = build::artifacts()?;
        let mut agent = lab.gw().command(&made.agent);
        agent.args(["--config", &path, "--instance", lab.prefix()]);
        let mut check = lab.gw().command(&made.mwb);
        check.args(["check", &path]);
        for mut command in [agent, check] {
            let output = command.output()?;
            let said = said(&output);
            let expected = format!("{path}:{line}:");
            ensure!(output.status.code() == Some(2), "{mistake}: {}: {said}", output.status);
            ensure!(said.contains(&expected), "{mistake}: no {expected} in: {said}");
            ensure!(said.contains(hint), "{mistake}: no {hint:?} in: {said}");
        }
    }
    let path = lab.scratch().join("good.yaml");
    fs::write(&path, &good)?;
    let mut check = lab.gw().command(&build::artifacts()?.mwb);
    let output = check.arg("check").arg(&path).output()?;
    ensure!(output.status.success(), "the good file: {}", said(&output));
    let missing = lab.scratch().join("missing.yaml");
    let mut agent = lab.gw().command(&build::artifacts()?.agent);
    let output = agent.arg("--config").arg(&missing).output()?;
    let said = said(&output);
    ensure!(!output.status.success() && said.contains("missing.yaml"), "a missing file: {said}");
    Ok(())
}

fn said(output: &Output) -> String {
    let out = String::from_utf8_lossy(&output.stdout);
    format!("{out}{}", String::from_utf8_lossy(&output.stderr))
}

/// A WAN whose device is not there is down with a reason that names it, the
/// other works; when the device appears it is used.
fn a_missing_device_is_named() -> Result<()> {
    let lab = Lab::new(&LabSpec::direct(2))?;
    let config = GatewayConfig::new(&lab).with("wans.1.device", "wan9");
    let mut gateway = Gateway::launch(&lab, &config)?;
    let (status, _) = gateway.wait_for_status(
        "the first WAN is up and the second is named",
        Duration::from_secs(20),
        |status| {
            status.wans[0].state == "up" && status.wans[0].next_hop4 && status.wans[0].next_hop6
        },
    )?;
    let second = &status.wans[1];
    ensure!(second.state != "up" && second.device == "wan9", "{second:?}");
    ensure!(second.reason.contains("missing"), "{second:?}");
    ensure!(gateway.log().contains("wan9"), "the log does not name it:\n{}", gateway.log());
    checks::pings_pass(&lab)?;
    lab.gw().ip("link set wan1 down\nlink set wan1 name wan9\nlink set wan9 up\n")?;
    restore_addresses(&lab)?;
    gateway
        .wait_for_status("the second WAN is up", Duration::from_secs(20), |status| {
            status.wans[1].state == "up" && status.wans[1].next_hop4
        })
        .map(drop)
}

/// Routes go when a device goes down.
fn restore_addresses(lab: &Lab) -> Result<()> {
    use crate::lab::address::{provider4, provider6};
    lab.gw().ip(&format!(
        "route replace default via {} metric 101\nroute replace default via {} metric 101\n",
        provider4(1),
        provider6(1)
    ))
}

fn hook_auto() -> Result<()> {
    let lab = Lab::new(&LabSpec::direct(1).with_offloads())?;
    let mut gateway = Gateway::start(&lab, &GatewayConfig::new(&lab))?;
    let status = gateway.api().status()?;
    let (lan, wan) = (&status.lan[0], &status.wans[0]);
    for (hook, reason) in [(&lan.hook, &lan.hook_reason), (&wan.hook, &wan.hook_reason)] {
        ensure!(hook.as_deref() == Some("tcx"), "auto took {hook:?}: {reason}");
        ensure!(reason.contains("veth"), "the reason is {reason:?}");
    }
    checks::transfers_are_whole(&lab, 10 << 20)?;
    gateway.stop()
}

/// XDP towards the LAN and TCX towards one of the WANs, and the other way round.
fn hooks_can_differ() -> Result<()> {
    for (lan, wan) in [("xdp", "tcx"), ("tcx", "xdp")] {
        let lab = Lab::new(&LabSpec::direct(2))?;
        let config = GatewayConfig::new(&lab)
            .with("lan", serde_json::json!([{"device": "lan0", "hook": lan}]))
            .with("hook", lan)
            .with("wans.1.hook", wan)
            .with("balance", "round_robin");
        let gateway = Gateway::start(&lab, &config)?;
        let status = gateway.api().status()?;
        let used = [&status.lan[0].hook, &status.wans[0].hook, &status.wans[1].hook];
        let wanted = [lan, lan, wan].map(|hook| Some(hook.to_owned()));
        ensure!(used.map(Clone::clone) == wanted, "hooks are {used:?}");
        // By each WAN, both ways.
        for _ in 0..2 {
            checks::pings_pass(&lab)?;
            checks::transfers_are_whole(&lab, 5 << 20)?;
            checks::datagrams_arrive_once(&lab, 500)?;
        }
    }
    Ok(())
}

fn the_operators_command() -> Result<()> {
    let scene = Scene::new(Hook::Xdp, LabSpec::direct(2), |config| config)?;
    play(scene, |scene| {
        checks::pings_pass(&scene.lab)?;
        for command in ["status", "wans", "counters", "events"] {
            let text = scene.gateway.mwb(&[command])?;
            ensure!(!text.trim().is_empty(), "mwb {command} says nothing");
            let json = scene.gateway.mwb(&[command, "--json"])?;
            let _: serde_json::Value = serde_json::from_str(&json)
                .with_context(|| format!("mwb {command} --json says:\n{json}"))?;
        }
        let wans = scene.gateway.mwb(&["wans"])?;
        ensure!(wans.contains("wan0") && wans.contains("wan1"), "mwb wans says:\n{wans}");
        let metrics = scene.gateway.api().metrics()?;
        for line in [
            "mwb_wan_up{wan=\"wan0\"} 1",
            "mwb_wan_rtt_seconds{wan=\"wan1\"}",
            "mwb_packets_total{",
            "mwb_nat_flows{",
            "mwb_hook_info{",
            "mwb_build_info{",
        ] {
            ensure!(metrics.contains(line), "no {line} in the metrics:\n{metrics}");
        }
        // The same on loopback, where Prometheus asks.
        let url = "http://127.0.0.1:9800/metrics";
        let scraped = scene.lab.gw().run("curl", ["-sS", "--fail", "--noproxy", "*", url])?;
        ensure!(scraped.contains("mwb_wan_up{wan=\"wan0\"} 1"), "loopback says:\n{scraped}");
        Ok(())
    })
}
