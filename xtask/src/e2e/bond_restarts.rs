//! Agents of a bond end and come back under a stream each way; who may not be part of a
//! bond is refused, and nothing leaves in clear meanwhile.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};

use super::{
    Case,
    bond_scene::{BondScene, End, bonded, play},
    checks,
};
use crate::lab::{
    BondConfig, Key, LabSpec,
    address::{BOND_PORT, NET4, SERVER4},
    capture::{Capture, Passing, addresses},
    is_emulated,
    traffic::{Course, Duplex, ping},
    wait_for, wait_until,
};

const EVERY: Duration = Duration::from_millis(1);

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, who) in [
        ("the_gateways_agent", &[End::Gateway][..]),
        ("the_servers_agent", &[End::Server]),
        ("both_agents", &End::BOTH),
    ] {
        for killed in [false, true] {
            let how = if killed { "was_killed" } else { "was_stopped" };
            let name = format!("streams_go_on_while_{name}_{how}_and_comes_back");
            cases.push(Case::new(&name, move || {
                let scene = BondScene::new(LabSpec::direct(2), |config| config)?;
                play(scene, |scene| streams_go_on(scene, who, killed))
            }));
        }
    }
    cases.push(bonded(
        "streams_go_on_while_a_nat_in_between_forgets_them",
        || LabSpec::direct(1),
        |config| config,
        a_rebinding_loses_nothing,
    ));
    cases.push(Case::new("a_client_with_a_strange_key_is_refused_and_told", || {
        refused(
            |config, lab_key| {
                config.with_gateway("bond.private_key_file", lab_key.file.to_string_lossy())
            },
            "unknown",
        )
    }));
    cases.push(Case::new("a_server_with_a_strange_key_is_never_believed", || {
        refused(
            |config, lab_key| config.with_gateway("bond.server_public_key", lab_key.public.clone()),
            "",
        )
    }));
    cases.push(Case::new("a_suite_that_the_server_was_not_asked_for_is_refused", || {
        refused(|config, _| config.with_gateway("bond.suite", "crc32"), "suite")
    }));
    if std::env::var_os("MWB_TEST_WHOLE").is_some() {
        cases.push(bonded(
            "keys_are_renewed_after_two_minutes_under_a_stream",
            || LabSpec::direct(2),
            |config| config,
            keys_are_renewed,
        ));
        for (name, end) in [("gateways", End::Gateway), ("servers", End::Server)] {
            let name = format!("streams_outlive_the_keys_while_the_{name}_agent_is_dead");
            cases.push(Case::new(&name, move || {
                let scene = BondScene::new(LabSpec::direct(2), |config| config)?;
                play(scene, |scene| streams_outlive_the_keys(scene, end))
            }));
        }
    }
    cases
}

fn streams(scene: &BondScene) -> Result<Duplex> {
    let to = SocketAddr::new(NET4.into(), 7);
    let duplex = Duplex::start(scene.lab.host(), scene.lab.net(), to, EVERY)?;
    duplex.go_on(300, EVERY)?;
    Ok(duplex)
}

/// Neither direction stands still for longer than `gap`, nor loses more than that.
fn went_on(course: &Course, way: &str, gap: Duration) -> Result<()> {
    let (lost, span) = (course.lost(), course.lost_span());
    let gap = if is_emulated() { 5 * gap } else { gap };
    ensure!(span <= gap, "{way}: {lost} lost, over {span:?} at most");
    ensure!(course.duplicated == 0, "{way}: {} came twice", course.duplicated);
    Ok(())
}

/// The data plane goes on by itself, and the one who comes back goes on with the session
/// or puts a new one in its place.
fn streams_go_on(scene: &mut BondScene, who: &[End], killed: bool) -> Result<()> {
    let duplex = streams(scene)?;
    let heard = |scene: &BondScene, end: End| -> Result<(u32, u32)> {
        let sessions = scene.tables(end)?.sessions()?;
        sessions.first().map(|(_, session)| (session.ours, session.epoch)).context("a session")
    };
    let before = [heard(scene, End::Gateway)?, heard(scene, End::Server)?];
    for &end in who {
        let agent = scene.agent(end);
        if killed { agent.kill()? } else { agent.stop()? }
    }
    duplex.go_on(700, EVERY)?;
    for &end in who {
        scene.agent(end).relaunch()?;
    }
    // Keys are made in the life of each process: there is another epoch, or session.
    let soon = Duration::from_secs(if is_emulated() { 30 } else { 6 });
    wait_until("there are new keys at both ends", soon, || {
        let now = [heard(scene, End::Gateway)?, heard(scene, End::Server)?];
        ensure!(now[0] != before[0] && now[1] != before[1], "{before:?}, then {now:?}");
        Ok(true)
    })?;
    scene.wait_for_paths(2)?;
    duplex.go_on(500, EVERY)?;
    let report = duplex.stop()?;
    for (way, course) in [("there", &report.there), ("back", &report.back)] {
        went_on(course, way, Duration::from_millis(200))?;
    }
    lives(scene)
}

/// The one that lives goes on with keys that are older than they should be, says so, and
/// has new ones once the other is back.
fn streams_outlive_the_keys(scene: &mut BondScene, dead: End) -> Result<()> {
    let living = if dead == End::Gateway { End::Server } else { End::Gateway };
    let duplex = streams(scene)?;
    scene.agent(dead).kill()?;
    // 180 s and what is left of the last second.
    duplex.go_on(200_000, EVERY)?;
    let said = scene.agent(living).log();
    ensure!(said.contains("older than 180 s"), "the {living:?} says: {said}");
    scene.agent(dead).relaunch()?;
    let epoch = |scene: &BondScene| -> Result<(u32, u32)> {
        let sessions = scene.tables(living)?.sessions()?;
        sessions.first().map(|(_, session)| (session.ours, session.epoch)).context("a session")
    };
    let before = epoch(scene)?;
    wait_until("there are new keys", Duration::from_secs(40), || Ok(epoch(scene)? != before))?;
    duplex.go_on(500, EVERY)?;
    let report = duplex.stop()?;
    for (way, course) in [("there", &report.there), ("back", &report.back)] {
        went_on(course, way, Duration::from_millis(200))?;
    }
    lives(scene)
}

fn lives(scene: &BondScene) -> Result<()> {
    checks::pings_pass(&scene.lab)
}

/// A stateless translation at the provider that changes the gateway's port from one
/// moment to the next, as a NAT does that has lost its state.
fn a_rebinding_loses_nothing(scene: &mut BondScene) -> Result<()> {
    let nat = |port: u16| {
        format!(
            "table ip nat {{}}\ndelete table ip nat\ntable ip nat {{\n  chain early {{\n    \
             type filter hook prerouting priority raw;\n    \
             iifname \"gw0\" udp dport {BOND_PORT} udp sport {BOND_PORT} udp sport set {port}\n    \
             iifname \"up0\" ip saddr {SERVER4} udp dport {port} udp dport set {BOND_PORT}\n  }}\n}}\n"
        )
    };
    let server_port = |scene: &BondScene| -> Result<u16> {
        let paths = scene.tables(End::Server)?.paths()?;
        let path = paths.first().context("a path")?;
        let moved = path.state.moved == path.path.generation + 1;
        Ok(u16::from_be_bytes(if moved { path.state.remote_port } else { path.path.remote_port }))
    };
    let duplex = streams(scene)?;
    let mut reports = Vec::new();
    for port in [20_001, 30_001, 40_001] {
        scene.lab.isp(0).nft(&nat(port))?;
        wait_for("the server follows", Duration::from_secs(5), || {
            Ok((server_port(scene)? == port).then_some(()))
        })?;
        duplex.go_on(300, EVERY)?;
        reports.push(port);
    }
    let report = duplex.stop()?;
    // From the gateway nothing is lost; to it, what was on its way to the old port.
    ensure!(report.there.lost() == 0, "{} lost on the way there", report.there.lost());
    let lost = report.back.lost();
    ensure!(lost <= 20 * reports.len() as u64, "{lost} lost on the way back");
    went_on(&report.back, "back", Duration::from_millis(50))?;
    lives(scene)
}

/// Nobody gets in, nothing gets out, and who can do something about it is told why.
fn refused(
    configure: impl Fn(BondConfig, &Key) -> BondConfig + Send + Sync,
    told: &str,
) -> Result<()> {
    let mut stranger = None;
    let scene = BondScene::launched(
        LabSpec::direct(1),
        |lab| {
            stranger = Some(Key::make(&lab.scratch().join("stranger.key"))?);
            Ok(())
        },
        |config| config,
    );
    let scene = scene?;
    let key = stranger.context("a key was made")?;
    play(scene, |scene| {
        scene.wait_until_up().context("as it should be, before")?;
        let config = configure(scene.config.clone(), &key);
        scene.gateway.stop()?;
        scene.gateway.remove_data_plane()?;
        scene.gateway.rewrite(&config.gateway)?;
        let said = scene.server.log().len();
        scene.gateway.relaunch()?;
        let deadline = Duration::from_secs(20);
        scene.gateway.wait_for_status("its programs are in place", deadline, |status| {
            status.lan.iter().all(|lan| lan.hook.is_some())
                && status.wans.iter().all(|wan| wan.hook.is_some() && wan.state == "up")
        })?;
        wait_until("it asks and is not answered", Duration::from_secs(20), || {
            let log = scene.server.log();
            let new = log.get(said..).unwrap_or_default().to_lowercase();
            ensure!(new.contains(told), "the server says: {new}");
            Ok(true)
        })?;
        let capture = Capture::start(scene.lab.isp(0), "gw0", Passing::In, "ip or ip6")?;
        for to in checks::FAMILIES {
            let report = ping(scene.lab.host(), to, 10, Duration::from_millis(100), &[])?;
            ensure!(report.received == 0, "{to} answers: {}", report.output);
        }
        let living = scene.tables(End::Gateway)?.living()?;
        ensure!(living == 0, "{living} paths live");
        // Not even in clear.
        let frames = capture.finish()?;
        frames.audit_leaks()?;
        let to_the_bond = frames.frames.iter().filter_map(|frame| addresses(frame));
        let asked = to_the_bond.filter(|(_, to)| *to == SERVER4).count();
        ensure!(asked > 0, "the gateway did not ask");
        let no_session = scene.counted(End::Gateway, "no_session")?;
        ensure!(no_session >= 20, "{no_session} counted as without a session");
        Ok(())
    })
}

fn keys_are_renewed(scene: &mut BondScene) -> Result<()> {
    let epoch = |scene: &BondScene| -> Result<(u32, u32)> {
        let sessions = scene.tables(End::Server)?.sessions()?;
        sessions.first().map(|(_, session)| (session.ours, session.epoch)).context("a session")
    };
    let duplex = streams(scene)?;
    let (id, before) = epoch(scene)?;
    wait_until(
        "there is another epoch",
        Duration::from_secs(150),
        || Ok(epoch(scene)?.1 > before),
    )?;
    duplex.go_on(5000, EVERY)?;
    ensure!(epoch(scene)?.0 == id, "the session is another one");
    let report = duplex.stop()?;
    let lost = report.there.lost() + report.back.lost();
    ensure!(lost == 0, "{lost} lost while keys were renewed");
    Ok(())
}
