//! Every packet is somewhere: delivered, or counted under its reason; and what
//! leaves is right to the last bit.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use super::{
    Case, checks,
    frames::{self, Injector},
    scene::{Scene, both_hooks},
};
use crate::lab::{
    LabSpec, Namespace,
    address::NET4,
    capture::{Capture, Passing},
    traffic::{UdpServer, UdpStream, ping},
    wait_until,
};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name, spec, test| cases.extend(both_hooks(name, spec, |config| config, test));
    add("offered_is_delivered_plus_counted", || LabSpec::direct(2), offered_is_accounted_for);
    add("each_bad_packet_is_counted_under_its_reason", || LabSpec::direct(1), bad_packets);
    add("fragments_and_icmp_errors_are_never_mangled", || LabSpec::relayed(1), nothing_is_mangled);
    add("checksums_are_right_and_nothing_inside_leaks", || LabSpec::relayed(2), audited);
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
    let before_out = scene.packets(|row| row.direction == "out")?;
    let before_udp = scene.packets(|row| row.direction == "in" && row.protocol == "udp4")?;
    let before_forwarded = scene
        .packets(|row| row.direction == "out" && is_sent(&row.reason) && row.protocol == "udp4")?;
    let capture = Capture::start(scene.lab.host(), "lan0", Passing::Out, "")?;
    let run = UdpStream::new(COUNT, Duration::from_micros(200)).start(scene.lab.host(), &server)?;
    for _ in 0..BAD {
        for bad in frames::bad_from_the_lan(&scene.lab)? {
            injector.send(&bad.frame)?;
        }
    }
    let report = run.finish()?;
    let back = report.back.context("echoes were asked for")?;
    let offered = capture.finish()?.frames.len() as u64;
    ensure!(offered >= COUNT + BAD * 3, "the capture saw {offered} frames");

    let counted = scene.packets(|row| row.direction == "out")? - before_out;
    ensure!(counted == offered, "{offered} frames offered, {counted} counted");
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

/// What is not translated yet is dropped or left to the kernel as it is.
fn nothing_is_mangled(scene: &mut Scene) -> Result<()> {
    let arriving = scene.lab.wan(0).capture(Passing::In, "ip or ip6")?;
    let delivered = Capture::start(scene.lab.host(), "lan0", Passing::In, "ip or ip6")?;
    for to in checks::FAMILIES {
        // Fragments from the LAN.
        let report = ping(scene.lab.host(), to, 3, Duration::from_millis(20), &["-s", "3000"])?;
        ensure!(report.received == 0, "fragments are translated: {}", report.output);
        // An ICMP error from outside: nobody listens on that port.
        let socket = scene.lab.host().enter(|| {
            let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            Ok(std::net::UdpSocket::bind(any)?)
        })?;
        for _ in 0..3 {
            socket.send_to(b"anybody?", SocketAddr::new(to, 4444))?;
        }
        // Fragments from outside: an answer larger than the MTU.
        ensure!(!large_answer_arrives(scene, to)?, "{to}: a fragmented answer is translated");
    }
    let reasons = [
        ("out", "inside_fragment", 6),
        ("in", "outside_icmp_error", 3),
        ("in", "outside_fragment", 2),
        // IPv6 is not addressed to the gateway, hence of no flow.
        ("in", "unsolicited", 5),
    ];
    for (direction, reason, least) in reasons {
        wait_until(&format!("{reason} is counted"), Duration::from_secs(2), || {
            let counted = scene.counted(direction, reason)?;
            ensure!(counted >= least, "{counted} counted, at least {least} expected");
            Ok(true)
        })?;
    }
    for capture in [arriving, delivered] {
        let captured = capture.finish()?;
        captured.audit_checksums()?;
    }
    Ok(())
}

/// Whether a small question to the Internet gets an answer of two fragments.
fn large_answer_arrives(scene: &Scene, from: IpAddr) -> Result<bool> {
    let any = |port| match from {
        IpAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
        IpAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
    };
    let open = |namespace: &Namespace, address| {
        namespace.enter(|| {
            let socket = UdpSocket::bind(address)?;
            socket.set_read_timeout(Some(Duration::from_secs(1)))?;
            Ok(socket)
        })
    };
    let far = SocketAddr::new(from, 9);
    let server = open(scene.lab.net(), far)?;
    let client = open(scene.lab.host(), any(0))?;
    client.send_to(b"tell me all", far)?;
    let mut buffer = [0; 4096];
    let (_, client_seen) = server.recv_from(&mut buffer).context("the question did not arrive")?;
    server.send_to(&[7; 2500], client_seen)?;
    Ok(client.recv_from(&mut buffer).is_ok())
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
