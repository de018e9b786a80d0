//! ICMP errors pass with what they quote put right, so that what depends on them
//! works: traceroute, path-MTU discovery, closed ports. And the gateway sends
//! its own.

use std::{
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::AsRawFd as _,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{
    Case, checks,
    packets::{self, Packet, flag},
    port::{Port, host_of},
    scene::{Scene, both_hooks},
};
use crate::lab::{
    GatewayConfig, LabSpec, Namespace,
    address::{
        GATEWAY4, GATEWAY6, HOST4, HOST6, NET4, NET4_SECOND, NET6, net_uplink4, net_uplink6,
        outside6, provider_uplink4, provider_uplink6, provider4, provider6, wan4,
    },
    capture::{Capture, Captured, Passing},
    traffic::{EchoServer, FileServer, curl, ping, transfer},
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
    let mut add = |name, test| {
        cases.extend(both_hooks(name, || LabSpec::direct(1), |config| config, test));
    };
    add("a_closed_port_far_away_refuses_the_client", a_closed_port_refuses);
    add("traceroute_shows_every_hop", traceroute_shows_every_hop);
    add("a_small_link_behind_the_provider_is_found_out", a_small_link_far_away_is_found_out);
    add("a_small_wan_is_found_out_and_answered_by_the_gateway", a_small_wan_is_found_out);
    add("a_small_lan_is_found_out_from_outside", a_small_lan_is_found_out);
    add("mss_is_clamped_to_the_wan_both_ways", mss_is_clamped);
    add("answers_to_what_is_too_big_are_limited_in_rate", answers_are_limited);
    cases.extend(both_hooks(
        "errors_quote_what_each_side_knows",
        || LabSpec::direct(1),
        GatewayConfig::watching_gateways,
        errors_quote_what_each_side_knows,
    ));
    cases
}

fn any(family: IpAddr) -> SocketAddr {
    match family {
        IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

fn socket(namespace: &Namespace, address: SocketAddr) -> Result<UdpSocket> {
    namespace.enter(|| {
        let socket = UdpSocket::bind(address)?;
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        Ok(socket)
    })
}

fn a_closed_port_refuses(scene: &mut Scene) -> Result<()> {
    for to in checks::FAMILIES {
        let client = socket(scene.lab.host(), any(to))?;
        client.connect(SocketAddr::new(to, 4444))?;
        client.send(b"anybody?")?;
        match client.recv(&mut [0; 64]) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
            other => bail!("{to}: {other:?} where the port is closed"),
        }
    }
    Ok(())
}

/// The gateway, the provider, the server; by UDP, ICMP and TCP.
fn traceroute_shows_every_hop(scene: &mut Scene) -> Result<()> {
    let hops4: [IpAddr; 3] = [GATEWAY4.into(), provider4(0).into(), NET4.into()];
    let hops6: [IpAddr; 3] = [GATEWAY6.into(), provider6(0).into(), NET6.into()];
    for hops in [hops4, hops6] {
        let to = hops[2].to_string();
        for method in ["-U", "-I", "-T"] {
            let arguments = ["-n", "-q", "2", "-w", "1", "-m", "5", method, &to];
            let said = scene.lab.host().run("traceroute", arguments)?;
            let found: Vec<&str> =
                said.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1)).collect();
            let wanted = hops.map(|hop| hop.to_string());
            ensure!(found == wanted, "traceroute {method}:\n{said}");
            ensure!(!said.contains('*'), "a probe was not answered: {method}\n{said}");
        }
    }
    Ok(())
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
            crate::lab::traffic::EchoStream::connect(lab.host(), server.address(), patience)?;
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

/// Made by hand, in both directions, both families, about every protocol: outside
/// and inside each read of the packet that they themselves sent.
fn errors_quote_what_each_side_knows(scene: &mut Scene) -> Result<()> {
    let (mut lan, mut wan) = (Port::lan(&scene.lab)?, Port::wan(&scene.lab, 0)?);
    for to in checks::FAMILIES {
        let (v4, host) = (to.is_ipv4(), host_of(to));
        let (near, far) = (SocketAddr::new(host, 4000), SocketAddr::new(to, 53));
        let router: IpAddr = if v4 { net_uplink4(0).into() } else { net_uplink6(0).into() };
        let questions = [
            packets::udp(near, far, b"question")?,
            packets::tcp(near, far, flag::SYN, (1, 0), b"")?,
            packets::echo(host, to, 4000, false, b"question")?,
        ];
        for question in questions {
            let asked = Packet::read(&question).context("a packet")?;
            lan.send(std::slice::from_ref(&question))?;
            let outside = wan.hear("the question outside", |packet, bytes| {
                (packet.to.ip() == to && packet.protocol == asked.protocol).then(|| bytes.to_vec())
            })?;
            let seen = Packet::read(&outside).context("a packet")?;
            // Errors of a router on the way, about the packet as it left.
            let kinds: &[(u8, u8)] = if v4 {
                &[(3, 1), (3, 4), (11, 0), (12, 0)]
            } else {
                &[(1, 0), (2, 0), (3, 0), (4, 0)]
            };
            for &kind in kinds {
                let error = packets::error(router, seen.from.ip(), kind, 1400, &outside)?;
                wan.send(&[error])?;
                let (from, quoted, word) = lan.hear("the error inside", |packet, _| {
                    (packet.icmp == Some(kind) && packet.to.ip() == host)
                        .then(|| (packet.from.ip(), packet.payload.clone(), packet.icmp_word))
                })?;
                ensure!(from == router, "{kind:?}: from {from}");
                ensure!(word == 1400, "{kind:?}: the MTU has become {word}");
                same_packet(&quoted, &question).with_context(|| format!("{to} {kind:?} in"))?;
            }
            // An answer, and an error of the host about it.
            let answer = match asked.protocol {
                packets::UDP => packets::udp(far, seen.from, b"answer")?,
                packets::TCP => packets::tcp(far, seen.from, flag::SYN | flag::ACK, (7, 2), b"")?,
                _ => packets::echo(to, seen.from.ip(), seen.from.port(), true, b"answer")?,
            };
            wan.send(std::slice::from_ref(&answer))?;
            let inside = lan.hear("the answer inside", |packet, bytes| {
                (packet.from.ip() == to && packet.protocol == asked.protocol)
                    .then(|| bytes.to_vec())
            })?;
            let kind = if v4 { (3, 3) } else { (1, 4) };
            lan.send(&[packets::error(host, to, kind, 0, &inside)?])?;
            let (from, quoted) = wan.hear("the error outside", |packet, _| {
                (packet.icmp == Some(kind) && packet.to.ip() == to)
                    .then(|| (packet.from.ip(), packet.payload.clone()))
            })?;
            ensure!(from == seen.from.ip(), "an error from {from}, of a flow of {}", seen.from);
            same_packet(&quoted, &answer).with_context(|| format!("{to} out"))?;
        }
    }
    // About nothing that we know: into the kernel, and never into the LAN.
    let stranger = packets::udp(
        SocketAddr::from((wan4(0), 50_000)),
        SocketAddr::from((NET4, 53)),
        b"never sent",
    )?;
    let before = scene.counted("in", "outside_icmp_error")?;
    wan.send(&[packets::error(net_uplink4(0).into(), wan4(0).into(), (3, 1), 0, &stranger)?])?;
    wait_until("it is counted", Duration::from_secs(2), || {
        Ok(scene.counted("in", "outside_icmp_error")? == before + 1)
    })?;
    let leaked = lan.pending(|packet, _| (packet.icmp == Some((3, 1))).then_some(()))?;
    ensure!(leaked.is_empty(), "an error about nothing reached the LAN");
    let before = scene.counted("out", "inside_icmp_error")?;
    let unknown = packets::udp(
        SocketAddr::from((NET4, 53)),
        SocketAddr::from((HOST4, 50_000)),
        b"never came",
    )?;
    lan.send(&[packets::error(HOST4.into(), NET4.into(), (3, 3), 0, &unknown)?])?;
    let unknown = packets::udp(
        SocketAddr::from((NET6, 53)),
        SocketAddr::from((HOST6, 50_000)),
        b"never came",
    )?;
    lan.send(&[packets::error(HOST6.into(), NET6.into(), (1, 4), 0, &unknown)?])?;
    wait_until("both are counted", Duration::from_secs(2), || {
        Ok(scene.counted("out", "inside_icmp_error")? == before + 2)
    })
    .map(drop)
}

/// The quoted packet is the one that was sent: addresses, ports, and every
/// checksum as they were, but for the TTL.
fn same_packet(quoted: &[u8], sent: &[u8]) -> Result<()> {
    let whole = quoted.get(..sent.len()).context("it quotes less than it was given")?;
    let mut wanted = sent.to_vec();
    let v4 = sent.first().is_some_and(|first| first >> 4 == 4);
    // The TTL, and with it the checksum of an IPv4 header, changed on the way.
    let changed = if v4 { vec![8, 10, 11] } else { vec![7] };
    for place in changed {
        if let (Some(wanted), Some(is)) = (wanted.get_mut(place), whole.get(place)) {
            *wanted = *is;
        }
    }
    if v4 {
        let (header, _) = etherparse::Ipv4Header::from_slice(whole)?;
        ensure!(
            header.header_checksum == header.calc_header_checksum(),
            "the quoted header's checksum is wrong"
        );
    }
    ensure!(whole == wanted, "it quotes\n{whole:02x?}\nof what was sent as\n{wanted:02x?}");
    Ok(())
}
