//! Every packet is somewhere: delivered, or counted under its reason; and what
//! leaves is right to the last bit.

use std::{
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use super::{
    Case, Lane, checks,
    frames::{self, Injector},
    scene::{Scene, both_hooks},
};
use crate::lab::{
    LabSpec,
    address::NET4,
    capture::{Capture, Passing},
    traffic::{UdpServer, UdpStream, ping},
    wait_until,
};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add =
        |lane, name, spec, test| cases.extend(both_hooks(lane, name, spec, |config| config, test));
    add(
        Lane::Alone,
        "offered_is_delivered_plus_counted",
        || LabSpec::direct(2),
        offered_is_accounted_for,
    );
    add(
        Lane::Together,
        "each_bad_packet_is_counted_under_its_reason",
        || LabSpec::direct(1),
        bad_packets,
    );
    add(
        Lane::Together,
        "checksums_are_right_and_nothing_inside_leaks",
        || LabSpec::relayed(2),
        audited,
    );
    cases
}

/// A stream mixed with packets that cannot pass: what the LAN offered, captured
/// at its source, is what the counters add up to; what they say was forwarded
/// is what arrived.
fn offered_is_accounted_for(scene: &mut Scene) -> Result<()> {
    const COUNT: u64 = 5000;
    const BAD: u64 = 50;
    let server = UdpServer::start(scene.lab.net(), SocketAddr::new(NET4.into(), 7))?;
    let injector = Injector::new(&scene.lab)?;
    // From here on nothing but the test sends: all neighbours are known.
    checks::pings_pass(&scene.lab)?;
    let out = |scene: &Scene| scene.packets(|row| row.direction == "out");
    let before_udp = scene.packets(|row| row.direction == "in" && row.protocol == "udp4")?;
    let before_forwarded = scene
        .packets(|row| row.direction == "out" && is_sent(&row.reason) && row.protocol == "udp4")?;
    // A neighbour that is asked after once more, right when the capture begins or
    // ends, may be in the one count and not in the other.
    let before = out(scene)?;
    let capture = Capture::start(scene.lab.host(), "lan0", Passing::Out, "")?;
    let begun = out(scene)?;
    let run = UdpStream::new(COUNT, Duration::from_micros(200)).start(scene.lab.host(), &server)?;
    for _ in 0..BAD {
        for bad in frames::bad_from_the_lan(&scene.lab)? {
            injector.send(&bad.frame)?;
        }
    }
    let report = run.finish()?;
    let back = report.back.context("echoes were asked for")?;
    let ended = out(scene)?;
    let offered = capture.finish()?.frames.len() as u64;
    let after = out(scene)?;
    ensure!(offered >= COUNT + BAD * 3, "the capture saw {offered} frames");
    let counted = (ended - begun)..=(after - before);
    ensure!(counted.contains(&offered), "{offered} frames offered, {counted:?} counted");
    ensure!(counted.end() - counted.start() < 10, "something else was sent: {counted:?}");
    let forwarded = scene
        .packets(|row| row.direction == "out" && is_sent(&row.reason) && row.protocol == "udp4")?
        - before_forwarded;
    ensure!(
        forwarded == report.there.received && forwarded == COUNT,
        "{forwarded} forwarded, {} arrived of {COUNT}",
        report.there.received
    );
    let returned =
        scene.packets(|row| row.direction == "in" && row.protocol == "udp4")? - before_udp;
    ensure!(
        returned == report.there.received && back.received == returned,
        "{} echoes sent, {returned} counted, {} arrived",
        report.there.received,
        back.received
    );
    Ok(())
}

fn is_sent(reason: &str) -> bool {
    matches!(reason, "forwarded" | "neighbour_unresolved")
}

/// Each kind on its own, counted once under exactly its reason.
fn bad_packets(scene: &mut Scene) -> Result<()> {
    checks::pings_pass(&scene.lab)?;
    let injector = Injector::new(&scene.lab)?;
    for bad in frames::bad_from_the_lan(&scene.lab)? {
        let before = scene.counted("out", bad.reason)?;
        let total = scene.packets(|row| row.direction == "out")?;
        for _ in 0..7 {
            injector.send(&bad.frame)?;
        }
        wait_until(&format!("{} are counted", bad.name), Duration::from_secs(2), || {
            Ok(scene.packets(|row| row.direction == "out")? >= total + 7)
        })?;
        let counted = scene.counted("out", bad.reason)? - before;
        ensure!(counted == 7, "{}: 7 sent, {counted} counted as {}", bad.name, bad.reason);
    }
    Ok(())
}

/// All kinds of traffic, captured where no merging happens: every checksum is
/// right, and nothing has an inside source outside.
fn audited(scene: &mut Scene) -> Result<()> {
    let lab = &scene.lab;
    lab.host().ip("link set lan0 gro_max_size 1\n")?;
    let outside = lab
        .wans()
        .iter()
        .map(|wan| wan.capture(Passing::In, "ip or ip6"))
        .collect::<Result<Vec<_>>>()?;
    let inside = Capture::start(lab.host(), "lan0", Passing::In, "ip or ip6")?;
    checks::pings_pass(lab)?;
    checks::transfers_are_whole(lab, 2 << 20)?;
    checks::downloads_are_whole(lab, 2 << 20)?;
    checks::datagrams_arrive_once(lab, 500)?;
    for to in checks::FAMILIES {
        // In fragments; and one that is answered by an error.
        let report = ping(lab.host(), to, 3, Duration::from_millis(20), &["-s", "4000"])?;
        ensure!(report.received == 3, "{}", report.output);
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = lab.host().enter(|| Ok(UdpSocket::bind(any)?))?;
        socket.send_to(b"anybody?", SocketAddr::new(to, 4444))?;
    }
    let mut packets = 0;
    for capture in outside {
        let captured = capture.finish()?;
        packets += captured.audit_leaks()?;
        captured.audit_checksums()?;
    }
    ensure!(packets > 1000, "only {packets} packets were seen outside");
    let audited = inside.finish()?.audit_checksums()?;
    ensure!(audited.checksums > 1000, "only {audited:?} inside");
    Ok(())
}
