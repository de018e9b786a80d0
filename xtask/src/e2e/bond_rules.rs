//! Rules of classes that keep packets to paths, or let none pass, at both ends of a bond.

use std::{fs, net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::{
    Case, Lane,
    bond_cuts::{Cut, EVERY},
    bond_scene::{BondScene, End, play},
    checks,
    policy::days,
};
use crate::lab::{
    BondConfig, LabSpec,
    address::{HOST4, NET4},
    traffic::{Duplex, UdpServer, UdpStream},
    wait_until,
};

/// What the rule keeps to the second path.
const KEPT: u16 = 5061;
/// What the rule lets by no path.
const BLOCKED: u16 = 5062;
/// How many packets a stream has at least.
const COUNT: usize = 1_000;
/// How many two of them have.
const TWO_STREAMS: u64 = 2 * COUNT as u64;
/// A path that none of them goes by has less.
const FEW: u64 = COUNT as u64;
/// How long a path may take to come back.
const PATIENCE: Duration = Duration::from_secs(60);
/// Probes of a path while a stream runs, and more.
const PROBES: u64 = 200;

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(Lane::Together, "a_rule_of_a_bond_keeps_flows_to_a_path_or_drops_them", || {
            play(BondScene::launched(LabSpec::relayed(2), |_| Ok(()), ruled)?, rules_hold)
        }),
        Case::new(
            Lane::Together,
            "rules_of_a_bond_change_under_a_stream_that_loses_nothing",
            || play(BondScene::launched(LabSpec::relayed(2), |_| Ok(()), ranked)?, rules_change),
        ),
    ]
}

/// The first path is the better one.
fn ranked(config: BondConfig) -> BondConfig {
    config.with_gateway("wans.1.priority", 1)
}

fn ruled(config: BondConfig) -> BondConfig {
    let rules = |second: Value| {
        json!([
            {"class": "block", "protocol": "udp", "port": BLOCKED},
            {"class": "auto", "protocol": "udp", "port": KEPT, "paths": second},
        ])
    };
    ranked(config)
        .with_gateway("classes.rules", rules(json!("wan1")))
        .with_server("classes.rules", rules(json!(2)))
}

/// Until both paths answer probes, also the one that is spared.
fn both_answer(scene: &mut BondScene) -> Result<()> {
    for end in End::BOTH {
        let what = format!("both paths answer probes of the {end:?}");
        wait_until(&what, PATIENCE, || {
            ensure!(scene.agent(end).process().is_running()?, "the agent has ended");
            Ok(scene.tables(end)?.answered()? == 2)
        })?;
    }
    Ok(())
}

fn rules_hold(scene: &mut BondScene) -> Result<()> {
    both_answer(scene)?;
    for to in checks::FAMILIES {
        let kept = by_paths(scene, SocketAddr::new(to, KEPT))?;
        ensure!(
            kept.iter().all(|[first, second]| *first < PROBES && *second > COUNT as u64),
            "{kept:?}"
        );
        let other = by_paths(scene, SocketAddr::new(to, KEPT + 2))?;
        ensure!(
            other.iter().all(|[first, second]| *second < PROBES && *first > COUNT as u64),
            "{other:?}"
        );

        let before = scene.counted(End::Gateway, "policy_blocked")?;
        let server = UdpServer::start(scene.lab.net(), SocketAddr::new(to, BLOCKED))?;
        let report = UdpStream::new(50, Duration::from_millis(2)).run(scene.lab.host(), &server)?;
        ensure!(report.there.received == 0, "what is blocked arrived: {report:?}");
        let blocked = scene.counted(End::Gateway, "policy_blocked")? - before;
        ensure!(blocked == 50, "{blocked} are counted, of 50");
    }
    // While the path is cut others take its place, and it is used again.
    let to = SocketAddr::new(checks::FAMILIES[0], KEPT);
    let duplex = Duplex::start(scene.lab.host(), scene.lab.net(), to, EVERY)?;
    duplex.go_on(300, EVERY)?;
    Cut::Upwards.apply(scene.lab.wan(1), true)?;
    duplex.go_on(COUNT, EVERY)?;
    Cut::Upwards.apply(scene.lab.wan(1), false)?;
    let came = duplex.report();
    ensure!(came.there.lost() < 500, "{} lost while the path was cut", came.there.lost());
    both_answer(scene)?;
    duplex.stop().map(drop)?;
    let kept = by_paths(scene, to)?;
    ensure!(kept.iter().all(|[_, second]| *second > COUNT as u64), "{kept:?}");
    let shown = scene.shown(End::Gateway)?;
    let rows = shown["classes"].as_array().map_or(0, Vec::len);
    let matched = &shown["classes"][1]["matched"]["packets"];
    ensure!(rows == 3 && matched.as_u64() > Some(3 * COUNT as u64), "{:#}", shown["classes"]);
    Ok(())
}

/// Both ends are given other rules while a stream of each family goes both ways.
fn rules_change(scene: &mut BondScene) -> Result<()> {
    both_answer(scene)?;
    let streams: Vec<Duplex> = checks::FAMILIES
        .iter()
        .map(|to| {
            let to = SocketAddr::new(*to, KEPT);
            Duplex::start(scene.lab.host(), scene.lab.net(), to, EVERY)
        })
        .collect::<Result<_>>()?;
    let go_on = || streams.iter().try_for_each(|stream| stream.go_on(COUNT, EVERY));
    go_on()?;
    let of = |class: &str| json!({"class": class, "protocol": "udp", "port": KEPT});
    let (today, another_day) = days()?;
    let to = format!("{NET4}:{KEPT}");
    let at = |days: Vec<&str>, class: &str| {
        let mut rule = of(class);
        rule["time"] = json!({"days": days});
        rule
    };
    let kept = |paths: Value| {
        let mut rule = of("auto");
        rule["paths"] = paths;
        rule
    };
    for (rules, is_so, (what, class)) in [
        (
            [json!([at(another_day, "block"), kept(json!("wan1"))]), json!([kept(json!(2))])],
            (|[first, second]| first < FEW && second >= TWO_STREAMS) as fn([u64; 2]) -> bool,
            ("kept to the second path", "auto"),
        ),
        (
            [json!([at(today, "duplicate"), of("pin")]), json!([of("duplicate")])],
            |sent| sent.into_iter().all(|sent| sent >= TWO_STREAMS),
            ("sent twice", "duplicate"),
        ),
        (
            [json!([of("pin")]), json!([])],
            |[first, second]| first >= TWO_STREAMS && second < FEW,
            ("as if there were no rule", "pin"),
        ),
    ] {
        for (end, rules) in End::BOTH.into_iter().zip(rules) {
            take_rules(scene, end, rules)?;
        }
        let before = sent(scene)?;
        go_on()?;
        let now = grown(scene, before)?;
        ensure!(now.into_iter().all(is_so), "not {what}: {now:?}");
        let why = scene.gateway.mwb(&["why", "udp", &format!("{HOST4}:40000"), &to])?;
        ensure!(why.contains(&format!("{class}, by {{class: {class}")), "not {class}: {why}");
    }
    let matched = scene.shown(End::Gateway)?["classes"][0]["matched"]["packets"].as_u64();
    ensure!(
        matched >= Some(TWO_STREAMS),
        "{matched:?} of {TWO_STREAMS} are counted by the new rule"
    );

    for stream in streams {
        let report = stream.stop()?;
        for (way, course) in [("there", report.there), ("back", report.back)] {
            let (lost, twice) = (course.lost(), course.duplicated);
            ensure!(lost + twice == 0, "{way}: {lost} lost, {twice} came twice");
        }
    }
    take_rules(scene, End::Gateway, json!([of("block")]))?;
    let server = UdpServer::start(scene.lab.net(), SocketAddr::new(checks::FAMILIES[0], KEPT))?;
    let report = UdpStream::new(50, Duration::from_millis(2)).run(scene.lab.host(), &server)?;
    ensure!(report.there.received == 0, "what is blocked arrived: {report:?}");
    let blocked = scene.counted(End::Gateway, "policy_blocked")?;
    ensure!(blocked == 50, "{blocked} are counted, of 50");
    Ok(())
}

/// Has a running agent take other rules.
fn take_rules(scene: &BondScene, end: End, rules: Value) -> Result<()> {
    let config = match end {
        End::Gateway => &scene.config.gateway,
        End::Server => &scene.config.server,
    };
    let file = scene.lab.scratch().join("changed.yaml");
    fs::write(&file, config.clone().with("classes.rules", rules.clone()).text())?;
    let said = scene.agent_of(end).mwb(&["apply", &file.to_string_lossy()])?;
    // Behind them what none has matched, if there are any.
    let classes = |rows: &Value| -> Vec<String> {
        let rows = rows.as_array().into_iter().flatten();
        rows.filter_map(|row| row["class"].as_str()).map(str::to_owned).collect()
    };
    let mut expected = classes(&rules);
    expected.extend((!expected.is_empty()).then(|| "auto".to_owned()));
    wait_until("the kernel side has the rules", PATIENCE, || {
        Ok(classes(&scene.shown(end)?["classes"]) == expected)
    })
    .with_context(|| said)
    .map(drop)
}

/// How many packets each end has sent by either path.
fn sent(scene: &BondScene) -> Result<[[u64; 2]; 2]> {
    let mut all = [[0; 2]; 2];
    for (row, end) in all.iter_mut().zip(End::BOTH) {
        for (wan, sent) in row.iter_mut().enumerate() {
            *sent = scene.path(end, wan)?.state.sent;
        }
    }
    Ok(all)
}

/// How many more that is than before.
fn grown(scene: &BondScene, before: [[u64; 2]; 2]) -> Result<[[u64; 2]; 2]> {
    let mut grown = sent(scene)?;
    for (grown, before) in grown.iter_mut().flatten().zip(before.iter().flatten()) {
        *grown -= before;
    }
    Ok(grown)
}

/// How many packets each end sends by either path while a stream goes there and back.
fn by_paths(scene: &BondScene, to: SocketAddr) -> Result<[[u64; 2]; 2]> {
    let before = sent(scene)?;
    let duplex = Duplex::start(scene.lab.host(), scene.lab.net(), to, EVERY)?;
    duplex.go_on(COUNT, EVERY)?;
    let report = duplex.stop()?;
    ensure!(report.there.lost() + report.back.lost() == 0, "{to}: lost on living paths");
    grown(scene, before)
}
