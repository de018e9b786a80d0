//! Traffic of all kinds crosses a bond unharmed: both families inside and outside,
//! every suite, one path or many, and that of the two ends themselves.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};

use super::{
    Case, Lane,
    bond_scene::{BondScene, End, bonded, play},
    checks,
};
use crate::lab::{
    Family, LabSpec, LinkSpec, Loss, Shape,
    address::{
        HOST4, HOST6, INNER_GATEWAY4, INNER_GATEWAY6, INNER_SERVER4, INNER_SERVER6, SERVER4,
    },
    capture::{Capture, Passing, addresses},
    is_emulated,
    traffic::{EchoServer, EchoStream, FileServer, curl, ping},
};

const SUITES: [&str; 3] = ["chacha20poly1305", "siphash", "crc32"];

pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![bonded(
        Lane::Together,
        "a_ping_crosses_a_bond",
        || LabSpec::direct(1),
        |config| config,
        |scene| checks::pings_pass(&scene.lab),
    )];
    for family in Family::BOTH {
        for suite in SUITES {
            let name = format!("all_traffic_crosses_a_bond_of_{suite}_over_ip{family:?}");
            cases.push(Case::new(Lane::Together, &name.to_lowercase(), move || {
                let scene = BondScene::new(LabSpec::direct(2), |config| {
                    config.over(family).with_suite(suite)
                })?;
                play(scene, all_traffic_crosses)
            }));
        }
    }
    cases.push(bonded(
        Lane::Together,
        "the_ends_of_a_bond_reach_each_other_and_the_internet",
        || LabSpec::direct(2),
        |config| config,
        the_ends_reach_each_other,
    ));
    cases.push(Case::new(
        Lane::Together,
        "an_address_of_no_client_is_unreachable_and_asked_for_once",
        || {
            let scene = BondScene::new(LabSpec::direct(2), |config| {
                config.with_server("server.clients.0.prefixes.2", "2001:db8:a::/52")
            })?;
            play(scene, |scene| what_is_nobodys_is_unreachable(scene))
        },
    ));
    cases.push(bonded(
        Lane::Together,
        "all_traffic_crosses_a_bond_from_a_lan_port_in_tcx",
        || LabSpec::direct(2),
        |config| {
            let lan = serde_json::json!([{"device": "lan0", "hook": "tcx"}]);
            config.with_gateway("lan", lan)
        },
        |scene| {
            let hooks = scene.gateway.api().status()?.lan;
            ensure!(hooks.iter().all(|lan| lan.hook.as_deref() == Some("tcx")), "{hooks:?}");
            all_traffic_crosses(scene)
        },
    ));
    for paths in [2, 3, 8] {
        cases.push(Case::new(
            Lane::Alone,
            &format!("tcp_and_datagrams_are_whole_over_{paths}_paths"),
            move || {
                let scene = BondScene::new(LabSpec::direct(paths), |config| {
                    config.with_gateway("balance", "round_robin")
                })?;
                play(scene, |scene| all_paths_carry(scene, paths))
            },
        ));
    }
    cases.push(Case::new(Lane::Together, "transfers_by_a_good_and_a_bad_link_are_whole", || {
        let link = |rate, delay, loss| {
            let link = LinkSpec::new(rate, Duration::from_millis(delay)).with_loss(loss);
            Shape { up: link.clone(), down: link, ..Shape::default() }
        };
        let spec = LabSpec::shaped([
            link(30_000_000, 30, Loss::None),
            link(10_000_000, 80, Loss::Random(0.01)),
        ]);
        // Up and down at the same time.
        let scene = BondScene::new(spec, |config| config)?;
        play(scene, |scene| checks::transfers_are_whole(&scene.lab, 2 << 20))
    }));
    cases
}

/// What of the server's prefix no client owns is answered there, and does not go round
/// between it and its provider.
fn what_is_nobodys_is_unreachable(scene: &BondScene) -> Result<()> {
    let nobody = "2001:db8:a:f000::1".parse()?;
    let capture = Capture::start(scene.lab.net(), "srv0", Passing::In, "ip6 and icmp6")?;
    let report = ping(scene.lab.host(), nobody, 1, Duration::from_secs(1), &[])?;
    ensure!(report.received == 0, "{}", report.output);
    let told = report.output.to_lowercase().matches("unreachable").count();
    ensure!(told == 1, "told {told} times: {}", report.output);
    let frames = capture.finish()?;
    let towards = frames.frames.iter().filter_map(|frame| addresses(frame));
    let left = towards.filter(|(_, to)| *to == nobody).count();
    ensure!(left == 0, "{left} packets went to the provider");
    checks::pings_pass(&scene.lab)
}

fn all_traffic_crosses(scene: &mut BondScene) -> Result<()> {
    checks::pings_pass(&scene.lab)?;
    checks::transfers_are_whole(&scene.lab, 5 << 20)?;
    checks::downloads_are_whole(&scene.lab, 10 << 20)?;
    for to in checks::FAMILIES {
        scene.datagrams_arrive_once(to, 1000)?;
    }
    nothing_is_wrong(scene)
}

/// Neither end has refused anything of the other.
fn nothing_is_wrong(scene: &BondScene) -> Result<()> {
    for end in End::BOTH {
        for wrong in ["bad_check", "bond_malformed", "unknown_session", "replayed", "inner_source"]
        {
            let count = scene.counted(end, wrong)?;
            ensure!(count == 0, "{count} packets {wrong} at the {end:?}");
        }
    }
    Ok(())
}

/// By ping and by TCP, with the addresses that they have inside.
fn the_ends_reach_each_other(scene: &mut BondScene) -> Result<()> {
    let BondScene { lab, .. } = scene;
    let srv = lab.srv()?;
    let ways = [
        (lab.gw(), INNER_SERVER4.into()),
        (lab.gw(), INNER_SERVER6.into()),
        (srv, INNER_GATEWAY4.into()),
        (srv, INNER_GATEWAY6.into()),
        (srv, HOST4.into()),
        (srv, HOST6.into()),
        (lab.host(), INNER_SERVER4.into()),
        (lab.host(), INNER_SERVER6.into()),
        (lab.gw(), checks::FAMILIES[0]),
        (lab.gw(), checks::FAMILIES[1]),
    ];
    for (from, to) in ways {
        let report = ping(from, to, 5, Duration::from_millis(10), &[])?;
        ensure!(report.received == 5, "{} to {to}: {}", from.name(), report.output);
    }
    const BYTES: u64 = 5 << 20;
    for to in checks::FAMILIES {
        let files = FileServer::start(lab.net(), SocketAddr::new(to, 80))?;
        curl(lab.gw(), &files.url(BYTES), &[])?.expect_content(BYTES)?;
    }
    // What the gateway sends to the Internet comes out at the server.
    let server = EchoServer::start(lab.net(), SocketAddr::new(checks::FAMILIES[0], 7))?;
    let stream = EchoStream::connect(lab.gw(), server.address(), Duration::from_secs(5))?;
    ensure!(stream.seen_as().ip() == SERVER4, "the Internet sees {}", stream.seen_as());
    Ok(())
}

fn all_paths_carry(scene: &mut BondScene, paths: usize) -> Result<()> {
    const COUNT: u64 = 4000;
    let sent = |scene: &BondScene, end: End| -> Result<Vec<u64>> {
        (0..paths).map(|wan| Ok(scene.path(end, wan)?.state.sent)).collect()
    };
    let before = [sent(scene, End::Gateway)?, sent(scene, End::Server)?];
    let through = out_of_the_device(scene)?;
    for to in checks::FAMILIES {
        scene.datagrams_arrive_once(to, COUNT / 2)?;
    }
    let through = out_of_the_device(scene)? - through;
    let most = if is_emulated() { COUNT / 50 } else { COUNT / 10 };
    ensure!(through < most, "{through} packets took the long way at the server");
    for (end, before) in End::BOTH.into_iter().zip(before) {
        let share = COUNT / paths as u64;
        for (wan, (after, before)) in sent(scene, end)?.into_iter().zip(before).enumerate() {
            let carried = after - before;
            ensure!(carried * 10 >= share * 9, "WAN {wan} carried {carried} from the {end:?}");
        }
    }
    tcp_is_whole(scene, paths)?;
    nothing_is_wrong(scene)
}

/// Both ways, by all paths.
fn tcp_is_whole(scene: &BondScene, paths: usize) -> Result<()> {
    const BYTES: u64 = 3 << 20;
    let data = |end: End| -> Result<Vec<u64>> {
        let bytes = (0..paths).map(|wan| Ok(scene.path(end, wan)?.state.sent_bytes));
        bytes.collect()
    };
    let before = End::BOTH.map(data);
    checks::transfers_are_whole(&scene.lab, BYTES)?;
    checks::downloads_are_whole(&scene.lab, BYTES)?;
    for (end, before) in End::BOTH.into_iter().zip(before) {
        // Of both families.
        let least = 2 * BYTES / paths as u64 / 2;
        for (wan, (after, before)) in data(end)?.into_iter().zip(before?).enumerate() {
            let carried = after - before;
            ensure!(carried > least, "WAN {wan} carried {carried} bytes of TCP from the {end:?}");
        }
    }
    Ok(())
}

/// Packets that came out of the bond by the server's end of its device so far. What goes
/// in there is ticks, too.
fn out_of_the_device(scene: &BondScene) -> Result<u64> {
    let text = scene.lab.srv()?.run("ip", ["-s", "-j", "link", "show", "mwb0"])?;
    let rows: serde_json::Value = serde_json::from_str(&text).context("ip gave no JSON")?;
    rows[0]["stats64"]["rx"]["packets"].as_u64().context("no count of mwb0")
}
