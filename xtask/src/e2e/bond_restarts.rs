//! Agents of a bond end and come back under a stream each way, keys are renewed, and a NAT
//! in between forgets.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};

use super::{
    Case, Lane,
    bond_scene::{BondScene, End, bonded, play},
    checks, is_whole,
};
use crate::lab::{
    LabSpec,
    address::{BOND_PORT, NET4, SERVER4},
    is_emulated,
    traffic::{Course, Duplex},
    wait_for, wait_until,
};

pub(super) const EVERY: Duration = Duration::from_millis(1);

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
            cases.push(Case::new(Lane::Alone, &name, move || {
                let scene = BondScene::new(LabSpec::direct(2), |config| config)?;
                play(scene, |scene| streams_go_on(scene, who, killed))
            }));
        }
    }
    cases.push(bonded(
        Lane::Alone,
        "streams_go_on_while_a_nat_in_between_forgets_them",
        || LabSpec::direct(1),
        |config| config,
        a_rebinding_loses_nothing,
    ));
    if is_whole() {
        cases.push(bonded(
            Lane::Alone,
            "keys_are_renewed_after_two_minutes_under_a_stream",
            || LabSpec::direct(2),
            |config| config,
            keys_are_renewed,
        ));
        for (name, end) in [("gateways", End::Gateway), ("servers", End::Server)] {
            let name = format!("streams_outlive_the_keys_while_the_{name}_agent_is_dead");
            cases.push(Case::new(Lane::Alone, &name, move || {
                let scene = BondScene::new(LabSpec::direct(2), |config| config)?;
                play(scene, |scene| streams_outlive_the_keys(scene, end))
            }));
        }
    }
    cases
}

pub(super) fn streams(scene: &BondScene) -> Result<Duplex> {
    let to = SocketAddr::new(NET4.into(), 7);
    let duplex = Duplex::start(scene.lab.host(), scene.lab.net(), to, EVERY)?;
    duplex.go_on(300, EVERY)?;
    Ok(duplex)
}

/// Neither direction stands still for longer than `gap`, nor loses more than that.
pub(super) fn went_on(course: &Course, way: &str, gap: Duration) -> Result<()> {
    let (lost, span) = (course.lost(), course.lost_span());
    let gap = if is_emulated() { 5 * gap } else { gap };
    ensure!(span <= gap, "{way}: {lost} lost, over {span:?} at most");
    ensure!(course.duplicated == 0, "{way}: {} came twice", course.duplicated);
    Ok(())
}

/// Session and epoch, the gateway's first.
pub(super) type Keys = [(u32, u32); 2];

pub(super) fn keys(scene: &BondScene) -> Result<Keys> {
    let of = |end: End| -> Result<(u32, u32)> {
        let sessions = scene.tables(end)?.sessions()?;
        sessions.first().map(|(_, session)| (session.ours, session.epoch)).context("a session")
    };
    Ok([of(End::Gateway)?, of(End::Server)?])
}

/// How soon an agent that has come back has new keys.
pub(super) fn soon() -> Duration {
    Duration::from_secs(if is_emulated() { 30 } else { 6 })
}

/// Waits until both ends have other keys.
pub(super) fn keys_are_new(scene: &BondScene, before: Keys, soon: Duration) -> Result<()> {
    wait_until("there are new keys at both ends", soon, || {
        let now = keys(scene)?;
        ensure!(now[0] != before[0] && now[1] != before[1], "{before:?}, then {now:?}");
        Ok(true)
    })
    .map(drop)
}

/// The data plane goes on by itself, and the one who comes back goes on with the session
/// or puts a new one in its place.
fn streams_go_on(scene: &mut BondScene, who: &[End], killed: bool) -> Result<()> {
    let duplex = streams(scene)?;
    let before = keys(scene)?;
    for &end in who {
        let agent = scene.agent(end);
        if killed { agent.kill()? } else { agent.stop()? }
    }
    duplex.go_on(700, EVERY)?;
    for &end in who {
        scene.agent(end).relaunch()?;
    }
    // Keys are made in the life of each process: there is another epoch, or session.
    keys_are_new(scene, before, soon())?;
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
    let before = keys(scene)?;
    scene.agent(dead).relaunch()?;
    keys_are_new(scene, before, Duration::from_secs(40))?;
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

fn keys_are_renewed(scene: &mut BondScene) -> Result<()> {
    let server = |scene: &BondScene| Ok::<_, anyhow::Error>(keys(scene)?[1]);
    let duplex = streams(scene)?;
    let (id, before) = server(scene)?;
    wait_until("there is another epoch", Duration::from_secs(150), || {
        Ok(server(scene)?.1 > before)
    })?;
    duplex.go_on(5000, EVERY)?;
    ensure!(server(scene)?.0 == id, "the session is another one");
    let report = duplex.stop()?;
    let lost = report.there.lost() + report.back.lost();
    ensure!(lost == 0, "{lost} lost while keys were renewed");
    Ok(())
}
