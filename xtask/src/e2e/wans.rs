//! WANs as they are: they vanish and come back, look all alike, have odd gateways,
//! VLAN devices, no Ethernet, or large frames.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;

use super::{
    Case, Lane,
    change::reload,
    checks,
    packets::Packet,
    port::host_of,
    scene::{Hook, Scene, both_hooks, play},
    skip,
};
use crate::lab::{
    GatewayConfig, Lab, LabSpec,
    address::{NET4, provider_uplink4, provider4, wan4},
    capture::{Capture, Passing},
    is_guest, kernel_release,
    traffic::{EchoServer, EchoStream, UdpServer, UdpStream, WhoServer, ping, transfer},
    wait_until,
};

const PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn cases() -> Vec<Case> {
    let mut cases = both_hooks(
        Lane::Together,
        "a_wan_that_was_pulled_out_works_when_it_is_back",
        || LabSpec::direct(2),
        GatewayConfig::ranked,
        a_pulled_wan_works_again,
    );
    let mut add = |name: &str,
                   prepare: fn(&Lab) -> Result<()>,
                   configure: fn(GatewayConfig) -> GatewayConfig,
                   spec: fn() -> LabSpec,
                   test: fn(&mut Scene) -> Result<()>| {
        for hook in Hook::BOTH {
            cases.push(Case::new(Lane::Together, &format!("{name}_by_{hook}"), move || {
                play(Scene::prepared(hook, spec(), prepare, configure)?, test)
            }));
        }
    };
    add(
        "two_wans_with_the_same_addresses_both_work",
        make_twins,
        two_of_ipv4,
        || LabSpec::direct(2),
        twins_both_work,
    );
    add(
        "a_wan_with_a_host_address_works",
        give_host_address,
        |config| config,
        || LabSpec::direct(1),
        all_passes,
    );
    add(
        "a_wan_with_a_link_local_gateway_works",
        give_link_local_gateway,
        |config| config,
        || LabSpec::direct(1),
        all_passes,
    );
    add(
        "a_wan_without_ethernet_works",
        |_| Ok(()),
        |config| config.with("wans.0.hook", "tcx"),
        || LabSpec::tun(1),
        a_wan_without_ethernet_works,
    );
    add("jumbo_frames_pass", make_jumbo, |config| config, || LabSpec::direct(1), jumbo_frames_pass);
    add(
        "a_wan_on_a_vlan_device_works",
        make_vlan,
        |config| config.with("wans.0.device", VLAN).with("wans.0.hook", "tcx"),
        || LabSpec::direct(1),
        all_passes,
    );
    cases.push(a_peer_is_entered());
    cases
}

/// Packets enter the other end of a veth straight away until somebody puts a
/// queueing discipline in the way, and from then on all pass through that.
fn a_peer_is_entered() -> Case {
    Case::new(
        Lane::Together,
        "a_veth_is_passed_over_only_while_nothing_would_miss_it_by_tcx",
        || {
            let scene =
                Scene::new(Hook::Tcx, LabSpec::direct(1), GatewayConfig::watching_gateways)?;
            play(scene, |scene| {
                let server = EchoServer::start(scene.lab.net(), SocketAddr::from((NET4, 7)))?;
                let mut stream = EchoStream::connect(scene.lab.host(), server.address(), PATIENCE)?;
                let sent = |scene: &Scene, stream: &mut EchoStream| -> Result<[u64; 2]> {
                    let before = [transmitted(scene, "wan0")?, transmitted(scene, "lan0")?];
                    for _ in 0..MANY {
                        stream.exchange(b"by which way?")?;
                    }
                    let after = [transmitted(scene, "wan0")?, transmitted(scene, "lan0")?];
                    Ok([after[0] - before[0], after[1] - before[1]])
                };
                // Programs of clsact are in the way themselves (docs/KERNELS.md).
                let status = scene.gateway.api().status()?;
                let mode = status.wans[0].hook_mode.as_deref();
                let has_tcx = has_tcx(&kernel_release()?)?;
                ensure!(mode == Some(if has_tcx { "tcx" } else { "clsact" }), "{mode:?}");
                if !has_tcx {
                    is_told(scene, false)?;
                    let queued = sent(scene, &mut stream)?;
                    ensure!(
                        queued.iter().all(|&sent| sent >= MANY),
                        "{queued:?} were sent by devices"
                    );
                    return Ok(());
                }
                is_told(scene, true)?;
                let direct = sent(scene, &mut stream)?;
                ensure!(
                    direct.iter().all(|&sent| sent < MANY / 2),
                    "{direct:?} were sent by devices"
                );
                scene.lab.gw().tc("qdisc add dev wan0 root pfifo limit 1000\n\
                               qdisc add dev lan0 clsact\n")?;
                is_told(scene, false)?;
                let queued = sent(scene, &mut stream)?;
                ensure!(queued.iter().all(|&sent| sent >= MANY), "{queued:?} were sent by devices");
                scene.lab.gw().tc("qdisc del dev wan0 root\nqdisc del dev lan0 clsact\n")?;
                is_told(scene, true)?;
                reload(scene, scene.config.clone().with("redirect_peer", "off"))?;
                is_told(scene, false)?;
                let queued = sent(scene, &mut stream)?;
                ensure!(queued.iter().all(|&sent| sent >= MANY), "{queued:?} were sent by devices");
                Ok(())
            })
        },
    )
}

/// TCX came with Linux 6.6.
fn has_tcx(release: &str) -> Result<bool> {
    let mut numbers = release.split('.').map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Ok((major, minor) >= (6, 6)),
        _ => bail!("a kernel of release {release}"),
    }
}

/// Exchanges, of which each is a packet each way and acknowledgements.
const MANY: u64 = 100;

fn transmitted(scene: &Scene, device: &str) -> Result<u64> {
    let link = scene.lab.gw().link_json(device)?;
    link["stats64"]["tx"]["packets"].as_u64().context("a device counts what it sends")
}

fn is_told(scene: &Scene, to_peer: bool) -> Result<()> {
    wait_until("status says which way packets go", PATIENCE, || {
        let status = scene.gateway.api().status()?;
        let lans = status.lan.iter().map(|lan| &lan.hook_reason);
        let mut reasons = lans.chain(status.wans.iter().map(|wan| &wan.hook_reason));
        Ok(reasons.all(|reason| reason.contains("redirect_peer") == to_peer))
    })
    .map(drop)
}

/// As when a modem is pulled out and put in again: programs are attached anew,
/// traffic leaves it, and comes back.
fn a_pulled_wan_works_again(scene: &mut Scene) -> Result<()> {
    let server = UdpServer::start(scene.lab.net(), SocketAddr::from((NET4, 7)))?;
    for _ in 0..2 {
        let stream = UdpStream::new(1_000_000, Duration::from_millis(2));
        let stream = stream.start(scene.lab.host(), &server)?;
        wait_until("datagrams arrive by the first WAN", Duration::from_secs(15), || {
            let report = stream.report();
            Ok(report.there.received > 20 && report.sources.iter().any(|one| one.ip() == wan4(0)))
        })?;
        scene.lab.wan(0).unplug()?;
        wait_until("datagrams arrive by the second WAN", PATIENCE, || {
            Ok(stream.report().sources.iter().any(|source| source.ip() == wan4(1)))
        })?;
        scene.gateway.wait_for_status("the device is missed", PATIENCE, |status| {
            status.wans[0].state != "up" && status.wans[0].reason.contains("missing")
        })?;
        scene.lab.wan(0).plug_in()?;
        let (status, _) = scene.gateway.wait_for_status(
            "it is attached and in use again",
            Duration::from_secs(15),
            |status| status.wans[0].active && status.wans[0].next_hop4 && status.wans[0].next_hop6,
        )?;
        ensure!(
            status.wans[0].hook == status.wans[1].hook,
            "attached by {:?}, not {:?}",
            status.wans[0].hook,
            status.wans[1].hook
        );
        let report = stream.stop()?;
        ensure!(report.there.longest_gap < Duration::from_secs(1), "silence: {report:?}");
        wait_until("new flows use it", PATIENCE, || {
            let tcp = EchoServer::start(scene.lab.net(), SocketAddr::from((NET4, 7)))?;
            Ok(checks::spread(&scene.lab, tcp.address(), 4)? == [4, 0])
        })?;
    }
    checks::pings_pass(&scene.lab)?;
    checks::transfers_are_whole(&scene.lab, 1 << 20)
}

/// Two modems out of one box: the same subnet, gateway and address on both, each
/// with a NAT of its own behind it.
fn make_twins(lab: &Lab) -> Result<()> {
    for index in 0..2 {
        lab.isp(index).nft(
            "table ip modem {\n  chain out {\n    type nat hook postrouting priority srcnat;\n    \
             oifname \"up0\" masquerade\n  }\n}\n",
        )?;
    }
    lab.isp(1).ip(&format!("addr flush dev gw0\naddr add {}/28 dev gw0\n", provider4(0)))?;
    lab.gw().ip(&format!(
        "addr flush dev wan1\naddr add {}/28 dev wan1\n\
         route add default via {} dev wan1 metric 101\n",
        wan4(0),
        provider4(0)
    ))
}

fn two_of_ipv4(config: GatewayConfig) -> GatewayConfig {
    ["wans.0", "wans.1"]
        .into_iter()
        .fold(config, |config, wan| {
            config.without(&format!("{wan}.ipv6_prefix")).without(&format!("{wan}.gateway6"))
        })
        .without("ipv6_prefix")
        .with("balance", "round_robin")
        .with("health.targets", json!([NET4.to_string()]))
}

/// Who asks is seen as the modem's address: both are used, evenly, and every
/// answer finds its way.
fn twins_both_work(scene: &mut Scene) -> Result<()> {
    let who = WhoServer::start(scene.lab.net(), SocketAddr::from((NET4, 7)))?;
    let mut used = [0; 2];
    for _ in 0..20 {
        let socket = scene.lab.host().enter(|| Ok(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?))?;
        let seen = who.ask(&socket)?.ip();
        let modem = (0..2).find(|&index| seen == provider_uplink4(index));
        used[modem.with_context(|| format!("{seen} is no modem"))?] += 1;
    }
    ensure!(used == [10, 10], "flows by modem: {used:?}");
    let server = EchoServer::start(scene.lab.net(), SocketAddr::from((NET4, 7)))?;
    for _ in 0..4 {
        transfer(scene.lab.host(), server.address(), 1 << 20)?;
    }
    // The gateway they share is reached through either.
    let report = ping(scene.lab.host(), provider4(0).into(), 5, Duration::from_millis(20), &[])?;
    ensure!(report.received == 5, "{}", report.output);
    // One of them fails: the other goes on.
    scene.lab.wan(0).uplink(false)?;
    scene.gateway.wait_for_status("the first is down", PATIENCE, |status| {
        status.wans[0].state == "down" && status.wans[1].state == "up"
    })?;
    let socket = scene.lab.host().enter(|| Ok(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?))?;
    for _ in 0..5 {
        let seen = who.ask(&socket)?.ip();
        ensure!(seen == provider_uplink4(1), "{seen} after the first failed");
    }
    Ok(())
}

/// A /32 and a gateway outside of it.
fn give_host_address(lab: &Lab) -> Result<()> {
    lab.gw().ip(&format!(
        "addr del {0}/28 dev wan0\naddr add {0}/32 dev wan0\n\
         route replace default via {1} dev wan0 onlink metric 100\n",
        wan4(0),
        provider4(0)
    ))
}

/// As some fibre providers have it.
fn give_link_local_gateway(lab: &Lab) -> Result<()> {
    const GATEWAY: &str = "169.254.1.1";
    lab.isp(0).ip(&format!(
        "addr del {}/28 dev gw0\naddr add {GATEWAY}/32 dev gw0\nroute add {} dev gw0\n",
        provider4(0),
        wan4(0)
    ))?;
    lab.gw().ip(&format!(
        "addr del {0}/28 dev wan0\naddr add {0}/32 dev wan0\n\
         route replace default via {GATEWAY} dev wan0 onlink metric 100\n\
         route replace default via fe80::1 dev wan0 metric 100\n",
        wan4(0),
    ))?;
    lab.isp(0).ip("addr add fe80::1/64 dev gw0 nodad\n")
}

fn all_passes(scene: &mut Scene) -> Result<()> {
    checks::pings_pass(&scene.lab)?;
    checks::transfers_are_whole(&scene.lab, 4 << 20)?;
    checks::datagrams_arrive_once(&scene.lab, 500)?;
    let lost = scene.packets(|row| row.verdict == "drop")?;
    ensure!(lost == 0, "{lost} packets dropped");
    Ok(())
}

fn a_wan_without_ethernet_works(scene: &mut Scene) -> Result<()> {
    let status = scene.gateway.api().status()?;
    ensure!(status.wans[0].hook.as_deref() == Some("tcx"), "{:?}", status.wans[0]);
    let capture = Capture::start(scene.lab.isp(0), "gw0", Passing::In, "ip or ip6")?;
    all_passes(scene)?;
    // Without Ethernet, frames begin with the IP header.
    let captured = capture.finish()?;
    let inside = captured
        .frames
        .iter()
        .filter_map(|packet| Packet::read(packet))
        .filter(|packet| packet.from.ip() == host_of(packet.from.ip()))
        .count();
    ensure!(captured.frames.len() > 1000, "only {} packets seen", captured.frames.len());
    ensure!(inside == 0, "{inside} packets with an inside source outside");
    Ok(())
}

/// On the LAN, the WAN and beyond.
const JUMBO: usize = 9000;

fn make_jumbo(lab: &Lab) -> Result<()> {
    for (namespace, device) in [
        (lab.host(), "lan0"),
        (lab.gw(), "lan0"),
        (lab.gw(), "wan0"),
        (lab.isp(0), "gw0"),
        (lab.isp(0), "up0"),
        (lab.net(), "isp0"),
    ] {
        namespace.ip(&format!("link set {device} mtu {JUMBO}\n"))?;
    }
    Ok(())
}

fn jumbo_frames_pass(scene: &mut Scene) -> Result<()> {
    for to in checks::FAMILIES {
        let headers = if to.is_ipv4() { 28 } else { 48 };
        // The largest that fits, some between, the least.
        for size in [JUMBO - headers, 8000, 4096, 3500, 1500, 8] {
            let arguments = ["-M", "do", "-s", &size.to_string()];
            let report = ping(scene.lab.host(), to, 3, Duration::from_millis(10), &arguments)?;
            ensure!(report.received == 3, "{to}, {size} bytes: {}", report.output);
        }
        let server = UdpServer::start(scene.lab.net(), SocketAddr::new(to, 7))?;
        let stream = UdpStream { size: 8000, ..UdpStream::new(200, Duration::from_millis(1)) };
        let report = stream.run(scene.lab.host(), &server)?;
        let back = report.back.context("echoes were asked for")?;
        ensure!(report.there.received == 200 && back.received == 200, "{to}: {report:?}");
    }
    checks::transfers_are_whole(&scene.lab, 10 << 20)?;
    checks::downloads_are_whole(&scene.lab, 10 << 20)
}

/// The WAN of the tagged port.
const VLAN: &str = "wan0.7";

/// The WAN's addresses move to a tagged device on both ends.
fn make_vlan(lab: &Lab) -> Result<()> {
    let made = lab.gw().ip(&format!("link add link wan0 name {VLAN} type vlan id 7\n"));
    if made.is_err() && !is_guest() {
        return skip("the kernel has no 8021q: a VLAN device cannot be made");
    }
    made?;
    lab.isp(0).ip("link add link gw0 name gw0.7 type vlan id 7\n")?;
    for (namespace, bare, tagged) in [(lab.gw(), "wan0", VLAN), (lab.isp(0), "gw0", "gw0.7")] {
        let addresses = namespace.run("ip", ["-j", "addr", "show", "dev", bare])?;
        let rows: serde_json::Value = serde_json::from_str(&addresses)?;
        namespace.ip(&format!("addr flush dev {bare}\nlink set {tagged} up\n"))?;
        for info in rows[0]["addr_info"].as_array().context("a list of addresses")? {
            let address = info["local"].as_str().context("an address")?;
            if info["scope"] == "global" {
                namespace
                    .ip(&format!("addr add {address}/{} dev {tagged}\n", info["prefixlen"]))?;
            }
        }
    }
    lab.gw().ip(&format!(
        "route replace default via {} dev {VLAN} metric 100\n\
         route replace default via {} dev {VLAN} metric 100\n",
        provider4(0),
        crate::lab::address::provider6(0)
    ))?;
    lab.isp(0).ip(&format!(
        "route replace {} via {}\n",
        crate::lab::address::outside6(0),
        crate::lab::address::wan6(0)
    ))
}
