//! Links of different MTUs under one bond: nothing is lost for its length, and what is
//! too long is answered.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use super::{
    Case, Lane,
    bond_scene::{BondScene, End, play},
    checks,
};
use crate::lab::{
    BondConfig, Family, Lab, LabSpec,
    traffic::{EchoServer, FileServer, UdpServer, UdpStream, curl, ping, transfer},
    wait_until,
};

/// MTU of the narrow link, from the IP header on.
const NARROW: u32 = 1400;
/// The same where all are narrower than IPv6 needs.
const NARROWEST: u32 = 1200;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for family in Family::BOTH {
        let name = format!("paths_of_1400_and_1500_bytes_lose_nothing_over_ip{family:?}");
        cases.push(Case::new(Lane::Together, &name.to_lowercase(), move || {
            let scene = BondScene::prepared(LabSpec::direct(2), narrow, |config| {
                config.over(family).with_gateway("balance", "round_robin")
            })?;
            play(scene, lengths_are_found)
        }));
    }
    cases.push(Case::new(Lane::Together, "paths_of_1200_bytes_alone_carry_ipv4", || {
        let prepare = |lab: &Lab| (0..2).try_for_each(|wan| shrink(lab, wan, NARROWEST));
        let configure = |config: BondConfig| config.with_gateway("balance", "round_robin");
        let scene = BondScene::prepared(LabSpec::direct(2), prepare, configure)?;
        play(scene, ipv4_fits)
    }));
    cases
}

/// Makes the second provider's link to the Internet narrow: neither end sees that.
fn narrow(lab: &Lab) -> Result<()> {
    shrink(lab, 1, NARROW)
}

fn shrink(lab: &Lab, wan: usize, mtu: u32) -> Result<()> {
    lab.isp(wan).ip(&format!("link set up0 mtu {mtu}\n"))?;
    lab.net().ip(&format!("link set isp{wan} mtu {mtu}\n"))
}

/// No path takes what any of IPv6 has to fit: IPv4 goes on with shorter packets.
fn ipv4_fits(scene: &mut BondScene) -> Result<()> {
    for end in End::BOTH {
        wait_until("the session takes what its paths do", Duration::from_secs(30), || {
            let inner = inner(scene, end)?;
            ensure!((NARROWEST - 100..NARROWEST).contains(&inner), "the {end:?}: {inner} bytes");
            Ok(true)
        })?;
    }
    let to = checks::FAMILIES[0];
    let inner = inner(scene, End::Gateway)?;
    longest_pass(scene, to, inner)?;
    too_long_is_answered(scene, to, inner)?;
    // Divided by the sender's own kernel, there and back.
    let server = UdpServer::start(scene.lab.net(), SocketAddr::new(to, 8))?;
    let stream = UdpStream { size: 3000, ..UdpStream::new(200, Duration::from_millis(1)) };
    let report = stream.run(scene.lab.host(), &server)?;
    let back = report.back.context("echoes were asked for")?;
    ensure!(report.there.lost + back.lost == 0, "in pieces: {report:?}");
    let echo = EchoServer::start(scene.lab.net(), SocketAddr::new(to, 7))?;
    transfer(scene.lab.host(), echo.address(), 5 << 20)?;
    let files = FileServer::start(scene.lab.net(), SocketAddr::new(to, 80))?;
    curl(scene.lab.host(), &files.url(5 << 20), &[])?.expect_content(5 << 20)
}

fn lengths_are_found(scene: &mut BondScene) -> Result<()> {
    for end in End::BOTH {
        wait_until("each path's MTU is found", Duration::from_secs(30), || {
            let found = [scene.path(end, 0)?.path.mtu, scene.path(end, 1)?.path.mtu];
            let right = found[0] > 1450 && (NARROW - 60..=NARROW).contains(&found[1]);
            ensure!(right, "the {end:?} has {found:?}");
            ensure!(inner(scene, end)? < NARROW, "{} bytes inside", inner(scene, end)?);
            Ok(true)
        })?;
    }
    let inner = inner(scene, End::Gateway)?;
    for to in checks::FAMILIES {
        longest_pass(scene, to, inner)?;
        too_long_is_answered(scene, to, inner)?;
    }
    // TCP finds its own length: by its MSS, and in either direction.
    checks::transfers_are_whole(&scene.lab, 5 << 20)?;
    checks::downloads_are_whole(&scene.lab, 5 << 20)
}

/// Datagrams of the greatest length pass whole, and by round robin go by all paths.
fn longest_pass(scene: &BondScene, to: IpAddr, inner: u32) -> Result<()> {
    let headers = if to.is_ipv4() { 20 } else { 40 };
    let server = UdpServer::start(scene.lab.net(), SocketAddr::new(to, 7))?;
    let size = usize::try_from(inner)? - headers - 8;
    let stream = UdpStream { size, ..UdpStream::new(1000, Duration::from_millis(1)) };
    let report = stream.run(scene.lab.host(), &server)?;
    let back = report.back.context("echoes were asked for")?;
    ensure!(report.there.lost + back.lost == 0, "{to}, {size} bytes: {report:?}");
    Ok(())
}

/// The longest inner packet that an end's session takes.
fn inner(scene: &BondScene, end: End) -> Result<u32> {
    let sessions = scene.tables(end)?.sessions()?;
    Ok(sessions.first().context("a session")?.1.mtu)
}

/// A packet that must not be divided is answered with the length that passes; one that
/// may be is divided, and arrives.
fn too_long_is_answered(scene: &BondScene, to: IpAddr, inner: u32) -> Result<()> {
    let whole = ["-M", "do", "-s", "1440"];
    let report = ping(scene.lab.host(), to, 3, Duration::from_millis(50), &whole)?;
    let said = report.output.to_lowercase();
    ensure!(report.received == 0, "{to}: too long, and passed: {said}");
    let told = said.contains(&format!("mtu = {inner}"))
        || said.contains(&format!("mtu={inner}"))
        || said.contains(&format!("mtu: {inner}"));
    ensure!(told, "{to}: nobody tells of {inner} bytes: {said}");
    let divided = ["-M", "dont", "-s", "3000"];
    let report = ping(scene.lab.host(), to, 5, Duration::from_millis(50), &divided)?;
    // IPv6 divides at the source only: the answer that first tells the far host of a
    // smaller length is lost for it.
    let least = if to.is_ipv6() { 4 } else { 5 };
    ensure!(report.received >= least, "{to}: divided, and lost: {}", report.output);
    Ok(())
}
