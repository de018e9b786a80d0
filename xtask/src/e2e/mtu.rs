//! What is too big: links smaller than others, near and far, are found out from
//! both sides, and the gateway says so itself where it is the router.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::AsRawFd as _,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use super::{
    Case, Lane, checks,
    errors::{any, socket},
    packets::{self, Packet, flag},
    port::Port,
    scene::{Scene, both_hooks},
};
use crate::lab::{
    LabSpec, Namespace,
    address::{
        GATEWAY4, GATEWAY6, HOST4, NET4, NET4_SECOND, outside6, provider_uplink4, provider_uplink6,
        wan4,
    },
    capture::{Capture, Captured, Passing},
    traffic::{EchoServer, EchoStream, FileServer, curl, ping, transfer},
    wait_until,
};

/// MTU of a link that is smaller than the LAN's.
const SMALL: usize = 1400;

/// More addresses of the lab's Internet, one a family.
const NET6_SECOND: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xff, 0, 0, 0, 0, 2);
const SECOND: [IpAddr; 2] = [IpAddr::V4(NET4_SECOND), IpAddr::V6(NET6_SECOND)];

const PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |lane, name, test| {
        cases.extend(both_hooks(lane, name, || LabSpec::direct(1), |config| config, test));
    };
    add(
        Lane::Together,
        "a_small_link_behind_the_provider_is_found_out",
        a_small_link_far_away_is_found_out,
    );
    add(
        Lane::Together,
        "a_small_wan_is_found_out_and_answered_by_the_gateway",
        a_small_wan_is_found_out,
    );
    add(Lane::Together, "a_small_lan_is_found_out_from_outside", a_small_lan_is_found_out);
    add(Lane::Together, "mss_is_clamped_to_the_wan_both_ways", mss_is_clamped);
    add(Lane::Alone, "answers_to_what_is_too_big_are_limited_in_rate", answers_are_limited);
    cases
}

/// The provider's link to the Internet is small, and nothing but its ICMP says
/// so: the servers promise the usual segment size.
fn a_small_link_far_away_is_found_out(scene: &mut Scene) -> Result<()> {
    let lab = &scene.lab;
    lab.isp(0).ip(&format!("link set up0 mtu {SMALL}\n"))?;
    let [a, b, c, d] = wan4(0).octets();
    lab.net().ip(&format!(
        "route replace {a}.{b}.{c}.{}/28 via {} mtu lock {SMALL} advmss 1460\n\
         route replace {} via {} mtu lock {SMALL} advmss 1440\n",
        d & 0xf0,
        provider_uplink4(0),
        outside6(0),
        provider_uplink6(0),
    ))?;
    lab.net().ip(&format!("addr add {NET6_SECOND}/128 dev lo nodad\n"))?;
    // What is asked by ping must not have been learnt by TCP, nor the other way.
    for (to, asked) in checks::FAMILIES.into_iter().zip(SECOND) {
        let size = if to.is_ipv4() { "1472" } else { "1452" };
        let arguments = ["-M", "do", "-s", size];
        let report = ping(lab.host(), asked, 2, Duration::from_millis(50), &arguments)?;
        ensure!(report.received == 0, "{to}: a packet was larger than a link: {}", report.output);
        let said = report.output.to_lowercase();
        ensure!(
            said.contains(&format!("mtu = {SMALL}")) || said.contains(&format!("mtu={SMALL}")),
            "{to}: the host was not told: {}",
            report.output
        );
        let route = lab.host().run("ip", ["route", "get", &asked.to_string()])?;
        ensure!(route.contains(&format!("mtu {SMALL}")), "{to}: not learnt: {route}");
        // The same found out by TCP, both ways at once.
        let server = EchoServer::start(lab.net(), SocketAddr::new(to, 7))?;
        transfer(lab.host(), server.address(), 2 << 20).with_context(|| format!("with {to}"))?;
        let route = lab.host().run("ip", ["route", "get", &to.to_string()])?;
        ensure!(route.contains(&format!("mtu {SMALL}")), "{to}: not learnt by TCP: {route}");
    }
    Ok(())
}

/// Smaller than the LAN: the gateway itself is the router that must say so.
fn a_small_wan_is_found_out(scene: &mut Scene) -> Result<()> {
    let lab = &scene.lab;
    shrink((lab.gw(), "wan0"), (lab.isp(0), "gw0"))?;
    lab.net().ip(&format!("addr add {NET6_SECOND}/128 dev lo nodad\n"))?;
    let gateways: [IpAddr; 2] = [GATEWAY4.into(), GATEWAY6.into()];
    for (to, gateway) in SECOND.into_iter().zip(gateways) {
        let size = if to.is_ipv4() { "1472" } else { "1452" };
        // The agent sees the new MTU a moment after it is set.
        wait_until("the gateway says what is too big", Duration::from_secs(5), || {
            let arguments = ["-M", "do", "-s", size];
            let report = ping(lab.host(), to, 1, Duration::ZERO, &arguments)?;
            let said = report.output.to_lowercase();
            ensure!(report.received == 0, "{to}: it passed");
            ensure!(
                said.contains(&format!("from {gateway}"))
                    && (said.contains(&format!("mtu = {SMALL}"))
                        || said.contains(&format!("mtu={SMALL}"))),
                "{to}: {}",
                report.output
            );
            Ok(true)
        })?;
        let route = lab.host().run("ip", ["route", "get", &to.to_string()])?;
        ensure!(route.contains(&format!("mtu {SMALL}")), "{to}: not learnt: {route}");
    }
    ensure!(scene.counted("out", "too_big")? >= 2, "nothing is counted as too big");
    checks::transfers_are_whole(lab, 2 << 20)?;
    checks::downloads_are_whole(lab, 2 << 20)
}

fn shrink(left: (&Namespace, &str), right: (&Namespace, &str)) -> Result<()> {
    for (namespace, device) in [left, right] {
        namespace.ip(&format!("link set {device} mtu {SMALL}\n"))?;
    }
    Ok(())
}

/// A server that sends more than the LAN takes learns it from the gateway.
fn a_small_lan_is_found_out(scene: &mut Scene) -> Result<()> {
    let lab = &scene.lab;
    shrink((lab.gw(), "lan0"), (lab.host(), "lan0"))?;
    for from in checks::FAMILIES {
        let server = socket(lab.net(), SocketAddr::new(from, 9))?;
        let client = socket(lab.host(), any(from))?;
        client.send_to(b"tell me all", SocketAddr::new(from, 9))?;
        let (_, seen) = server.recv_from(&mut [0; 64]).context("the question did not arrive")?;
        server.connect(seen)?;
        never_fragment(&server)?;
        let answer = [7; 1450];
        let told = Capture::start(lab.isp(0), "gw0", Passing::In, "icmp or icmp6")?;
        wait_until("the server learns the MTU", PATIENCE, || {
            // The first leaves and is answered, a later one is refused.
            Ok(server.send(&answer).is_err() && path_mtu(&server)? == SMALL)
        })
        .with_context(|| match told.finish() {
            Ok(captured) => format!("it was told {:02x?}", captured.frames.first()),
            Err(error) => format!("{error:#}"),
        })?;
        let fits = [8; SMALL - 48];
        // An error that came meanwhile is told by the next call.
        wait_until("what fits is sent", PATIENCE, || Ok(server.send(&fits).is_ok()))?;
        let mut buffer = [0; 2048];
        let length = client.recv(&mut buffer).context("what fits did not arrive")?;
        ensure!(buffer[..length] == fits, "{from}: {length} bytes arrived");
        let server = FileServer::start(lab.net(), SocketAddr::new(from, 80))?;
        curl(lab.host(), &server.url(1 << 20), &[])?.expect_content(1 << 20)?;
    }
    ensure!(scene.counted("in", "too_big")? >= 2, "nothing is counted as too big");
    Ok(())
}

/// Sets the socket to probe the path MTU and never to fragment.
fn never_fragment(socket: &UdpSocket) -> Result<()> {
    let (level, option) = mtu_option(socket, libc::IP_MTU_DISCOVER, libc::IPV6_MTU_DISCOVER)?;
    let value = libc::IP_PMTUDISC_DO;
    // SAFETY: `value` is a valid int of the given length.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    ensure!(result == 0, "{}", std::io::Error::last_os_error());
    Ok(())
}

/// What the kernel knows of the connected socket's path.
fn path_mtu(socket: &UdpSocket) -> Result<usize> {
    let (level, option) = mtu_option(socket, libc::IP_MTU, libc::IPV6_MTU)?;
    let mut value: libc::c_int = 0;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes into `value`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    ensure!(result == 0, "{}", std::io::Error::last_os_error());
    Ok(usize::try_from(value)?)
}

fn mtu_option(
    socket: &UdpSocket,
    v4: libc::c_int,
    v6: libc::c_int,
) -> Result<(libc::c_int, libc::c_int)> {
    Ok(match socket.local_addr()? {
        SocketAddr::V4(_) => (libc::IPPROTO_IP, v4),
        SocketAddr::V6(_) => (libc::IPPROTO_IPV6, v6),
    })
}

/// Both hosts say 1460 (1440 over IPv6), and both hear what fits through the WAN.
fn mss_is_clamped(scene: &mut Scene) -> Result<()> {
    let lab = &scene.lab;
    shrink((lab.gw(), "wan0"), (lab.isp(0), "gw0"))?;
    for (to, headers) in checks::FAMILIES.into_iter().zip([40, 60]) {
        let wanted = u16::try_from(SMALL - headers)?;
        let server = EchoServer::start(lab.net(), SocketAddr::new(to, 7))?;
        wait_until("both SYNs are clamped", Duration::from_secs(5), || {
            let outside = Capture::start(lab.isp(0), "gw0", Passing::In, "tcp or ip6 proto 6")?;
            let inside = Capture::start(lab.host(), "lan0", Passing::In, "tcp or ip6 proto 6")?;
            let patience = Duration::from_secs(2);
            EchoStream::connect(lab.host(), server.address(), patience)?;
            let (outside, inside) = (mss_of(&outside.finish()?), mss_of(&inside.finish()?));
            ensure!(
                outside == [wanted] && inside == [wanted],
                "{to}: SYN {outside:?}, SYN-ACK {inside:?}, {wanted} wanted"
            );
            Ok(true)
        })?;
    }
    Ok(())
}

/// The MSS of every SYN and SYN-ACK.
fn mss_of(captured: &Captured) -> Vec<u16> {
    captured
        .frames
        .iter()
        .filter_map(|frame| Packet::read(frame.get(14..)?))
        .filter(|packet| packet.flags & flag::SYN != 0)
        .filter_map(|packet| packet.mss)
        .collect()
}

/// A burst of what is too big is dropped whole, but not answered whole.
fn answers_are_limited(scene: &mut Scene) -> Result<()> {
    const BURST: u64 = 20_000;
    let lab = &scene.lab;
    shrink((lab.gw(), "wan0"), (lab.isp(0), "gw0"))?;
    let from = SocketAddr::from((HOST4, 4000));
    let mut big = packets::udp(from, SocketAddr::from((NET4, 9)), &[1; 1450])?;
    // Don't fragment.
    big[6] = 0x40;
    let (header, _) = etherparse::Ipv4Header::from_slice(&big)?;
    big[10..12].copy_from_slice(&header.calc_header_checksum().to_be_bytes());
    let mut port = Port::lan(lab)?;
    wait_until("the new MTU is seen", Duration::from_secs(5), || {
        port.send(&[big.clone()])?;
        Ok(scene.counted("out", "too_big")? > 0)
    })?;
    let before = scene.counted("out", "too_big")? + scene.counted("out", "answer_limited")?;
    let mut answers = 0;
    for _ in 0..BURST / 500 {
        port.send(&vec![big.clone(); 500])?;
        answers += port.pending(|packet, _| (packet.icmp == Some((3, 4))).then_some(()))?.len();
    }
    wait_until("all are counted", Duration::from_secs(5), || {
        let (big, limited) =
            (scene.counted("out", "too_big")?, scene.counted("out", "answer_limited")?);
        Ok(big + limited >= before + BURST)
    })?;
    answers += port.pending(|packet, _| (packet.icmp == Some((3, 4))).then_some(()))?.len();
    let limited = scene.counted("out", "answer_limited")?;
    ensure!(answers > 0 && limited > BURST / 2, "{answers} answers, {limited} not answered");
    Ok(())
}
