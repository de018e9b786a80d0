//! Faults of links as health meets them: full ones, dead targets, cuts under traffic; and
//! what is told of them and kept.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt as _,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::{
    Case, Lane,
    scene::{Hook, Scene, play},
};
use crate::lab::{
    Direction, GatewayConfig, LabSpec, LinkSpec, Shape,
    address::NET4,
    traffic::{EchoServer, EchoStream, Iperf, IperfServer, serve},
    wait_until,
};

const PATIENCE: Duration = Duration::from_secs(15);
/// How soon a hard failure is to be found under traffic. Guests without acceleration have
/// more.
fn soon() -> Duration {
    if crate::lab::is_emulated() { Duration::from_secs(3) } else { Duration::from_secs(1) }
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![
        Case::new(Lane::Alone, "a_wan_that_is_full_is_not_down", || {
            let link = LinkSpec::new(20_000_000, Duration::from_millis(20));
            let shapes = [Shape::both(&link), Shape::both(&link)];
            play(Scene::new(Hook::Xdp, LabSpec::shaped(shapes), GatewayConfig::ranked)?, a_full_wan)
        }),
        case(Lane::Together, "a_dead_target_beside_traffic_is_no_dead_wan", a_dead_target),
        case(Lane::Together, "webhooks_get_each_event_once_over_an_outage_of_theirs", webhooks),
        case(Lane::Together, "the_past_of_a_wan_is_kept_over_a_restart", the_past),
    ];
    for (cut, name) in [
        (Cut::Way(Direction::Up), "upwards"),
        (Cut::Way(Direction::Down), "downwards"),
        (Cut::Uplink, "behind_the_provider"),
    ] {
        cases.push(case(
            Lane::Alone,
            &format!("a_cut_{name}_under_traffic_is_found_within_a_second"),
            move |scene| a_cut_under_traffic(scene, cut),
        ));
    }
    cases
}

fn case(
    lane: Lane,
    name: &str,
    test: impl Fn(&mut Scene) -> Result<()> + Send + Sync + 'static,
) -> Case {
    Case::new(lane, name, move || {
        play(Scene::new(Hook::Xdp, LabSpec::relayed(2), GatewayConfig::ranked)?, |scene| {
            test(scene)
        })
    })
}

#[derive(Clone, Copy, Debug)]
enum Cut {
    Way(Direction),
    Uplink,
}

/// What was told of the first WAN's state since an event.
fn changes(scene: &Scene, since: u64) -> Result<Vec<String>> {
    let events = scene.gateway.api().events(since)?;
    let of_first = events
        .into_iter()
        .filter(|event| event.kind == "wan_state" && event.wan.as_deref() == Some("wan0"));
    Ok(of_first.map(|event| format!("{} ({})", event.message, event.reason)).collect())
}

fn a_full_wan(scene: &mut Scene) -> Result<()> {
    let server = IperfServer::start(scene.lab.net(), (NET4, 5201).into())?;
    let since = scene.latest_event()?;
    let seconds = if super::is_whole() { 60 } else { 6 };
    for reverse in [false, true] {
        let load = Iperf { reverse, streams: 4, ..Iperf::tcp(seconds) };
        let report = load.start(scene.lab.host(), &server)?.finish()?;
        ensure!(report.received_rate > 10e6, "{report:?}");
    }
    let told = changes(scene, since)?;
    let down = told.iter().find(|told| told.contains("is down"));
    ensure!(down.is_none(), "{told:#?}");
    let status = scene.gateway.api().status()?;
    ensure!(status.wans[0].active && status.wans[0].failovers == 0, "{:?}", status.wans[0]);
    Ok(())
}

fn a_dead_target(scene: &mut Scene) -> Result<()> {
    let echo = EchoServer::start(scene.lab.net(), SocketAddr::from((NET4, 7)))?;
    let mut stream = EchoStream::connect(scene.lab.host(), echo.address(), PATIENCE)?;
    let since = scene.latest_event()?;
    let deaf = "table inet deaf {\n  chain input {\n    type filter hook input priority 0;\n    \
                icmp type echo-request drop\n    icmpv6 type echo-request drop\n  }\n}\n";
    scene.lab.net().nft(deaf)?;
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(4) {
        stream.exchange(b"the link works")?;
    }
    let told = changes(scene, since)?;
    ensure!(told.is_empty(), "{told:#?}");
    // Without traffic nothing speaks for it any more.
    scene
        .gateway
        .wait_for_status("it is down", PATIENCE, |status| status.wans[0].state == "down")?;
    Ok(())
}

fn a_cut_under_traffic(scene: &mut Scene, cut: Cut) -> Result<()> {
    let echo = EchoServer::start(scene.lab.net(), SocketAddr::from((NET4, 7)))?;
    let mut stream = EchoStream::connect(scene.lab.host(), echo.address(), soon())?;
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(1) {
        stream.exchange(b"the link works")?;
    }
    let since = scene.latest_event()?;
    let at = SystemTime::now().duration_since(UNIX_EPOCH)?;
    match cut {
        Cut::Way(way) => scene.lab.wan(0).blackhole(&[way], true)?,
        Cut::Uplink => scene.lab.wan(0).uplink(false)?,
    }
    // What is sent meets silence, as it would be.
    stream.exchange(b"does anybody hear?").err().context("an answer over a cut link")?;
    wait_until("it is found", PATIENCE, || {
        Ok(changes(scene, since)?.iter().any(|told| told.contains("is down")))
    })?;
    let events = scene.gateway.api().events(since)?;
    let down = events.iter().find(|event| event.kind == "wan_state").context("it was told")?;
    let after = Duration::from_millis(down.unix_ms).saturating_sub(at);
    println!("found after {after:?}: {}", down.reason);
    ensure!(after < soon(), "found after {after:?}");
    Ok(())
}

/// What a receiver got: deliveries by their ids, and how often each.
type Got = Arc<Mutex<Vec<(String, Value)>>>;

fn webhooks(scene: &mut Scene) -> Result<()> {
    let folder = scene.lab.scratch().to_path_buf();
    let secret = folder.join("secret");
    fs::write(&secret, "between you and me\n")?;
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600))?;
    let notify = json!({
        "directory": folder.join("notify"),
        "receivers": [{
            "name": "ops", "url": format!("http://{NET4}:9090/hook"), "secret_file": secret,
            "events": ["wan_state", "failover", "failback"], "timeout": "2s",
        }],
    });
    scene.config = scene.config.clone().with("notify", notify);
    scene.gateway.rewrite(&scene.config)?;
    scene.gateway.stop()?;
    scene.gateway.relaunch()?;
    scene.gateway.wait_until_up()?;
    // Nobody listens yet.
    for on in [false, true, false, true] {
        scene.lab.wan(1).carrier(on)?;
        let state = if on { "testing" } else { "down" };
        scene.gateway.wait_for_status(state, PATIENCE, |status| {
            status.wans[1].state == state || on && status.wans[1].state == "up"
        })?;
    }
    let got = Got::default();
    let refusals = Arc::new(Mutex::new(2_u32));
    let (kept, left) = (got.clone(), refusals.clone());
    let (_, _server) = serve(scene.lab.net(), (NET4, 9090).into(), move |stream: TcpStream| {
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut reader = BufReader::new(stream);
        let (mut line, mut length, mut signed) = (String::new(), 0, false);
        while reader.read_line(&mut line)? > 2 {
            let lower = line.to_lowercase();
            if let Some(value) = lower.strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
            signed |= lower.starts_with("x-mwb-signature: sha256=");
            line.clear();
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let mut left = left.lock().unwrap_or_else(PoisonError::into_inner);
        let status = if *left > 0 { "503 Busy" } else { "204 Thanks" };
        if *left > 0 {
            *left -= 1;
        } else {
            let body: Value = serde_json::from_slice(&body)?;
            ensure!(signed, "not signed: {body}");
            let id = body["delivery"].as_str().unwrap_or_default().to_owned();
            kept.lock().unwrap_or_else(PoisonError::into_inner).push((id, body));
        }
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nRetry-After: 1\r\n\r\n");
        reader.into_inner().write_all(answer.as_bytes())?;
        Ok(())
    })?;
    let wanted: Vec<u64> = scene
        .gateway
        .api()
        .events(0)?
        .into_iter()
        .filter(|event| ["wan_state", "failover", "failback"].contains(&event.kind.as_str()))
        .map(|event| event.id)
        .collect();
    ensure!(wanted.len() >= 4, "{wanted:?}");
    let ids = || -> Vec<u64> {
        let got = got.lock().unwrap_or_else(PoisonError::into_inner);
        got.iter().filter_map(|(_, body)| body["id"].as_u64()).collect()
    };
    wait_until("all are told", Duration::from_secs(60), || Ok(ids().len() >= wanted.len()))?;
    let told = ids();
    ensure!(told.starts_with(&wanted), "told {told:?}, wanted {wanted:?}");
    let mut times: BTreeMap<String, u32> = BTreeMap::new();
    for (id, _) in got.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        *times.entry(id.clone()).or_default() += 1;
    }
    ensure!(times.values().all(|times| *times == 1), "{times:?}");
    let shown = scene.gateway.mwb(&["notify"])?;
    ensure!(shown.contains("ops") && shown.contains("webhook"), "{shown}");
    let tested = scene.gateway.mwb(&["notify", "--test", "ops"])?;
    ensure!(tested.contains("ops took it"), "{tested}");
    Ok(())
}

fn the_past(scene: &mut Scene) -> Result<()> {
    let file = scene.lab.scratch().join("history.db");
    scene.config = scene.config.clone().with("history", json!({"file": file}));
    scene.gateway.rewrite(&scene.config)?;
    scene.gateway.stop()?;
    scene.gateway.relaunch()?;
    scene.gateway.wait_until_up()?;
    scene.lab.wan(0).uplink(false)?;
    scene
        .gateway
        .wait_for_status("it is down", PATIENCE, |status| status.wans[0].state == "down")?;
    scene.lab.wan(0).uplink(true)?;
    scene.gateway.wait_for_status("it is up", PATIENCE, |status| status.wans[0].state == "up")?;
    // What is in memory is written at the end.
    scene.gateway.stop()?;
    scene.gateway.relaunch()?;
    scene.gateway.wait_until_up()?;
    let text = scene.gateway.mwb(&["history", "wan0", "--since", "1h", "--json"])?;
    let history: Value = serde_json::from_str(&text)?;
    let changes: Vec<String> = history["changes"]
        .as_array()
        .context("changes")?
        .iter()
        .filter_map(|change| {
            Some(format!("{} {}", change["from"].as_str()?, change["to"].as_str()?))
        })
        .collect();
    for wanted in ["up down", "down testing", "testing up"] {
        ensure!(changes.iter().any(|change| change == wanted), "no {wanted} in {changes:?}");
    }
    let rounds = history["summary"]["rounds"].as_u64().unwrap_or(0);
    let lost = history["summary"]["lost"].as_u64().unwrap_or(0);
    ensure!(rounds > 10 && lost > 0 && lost < rounds, "{}", history["summary"]);
    ensure!(history["outages"] == 1, "{}", history["outages"]);
    let drawn = scene.gateway.mwb(&["history", "wan0", "--since", "1h", "--ascii"])?;
    ensure!(drawn.is_ascii() && drawn.contains("wan0, all methods"), "{drawn}");
    println!("{drawn}");
    let by_ping = scene.gateway.mwb(&["history", "wan0", "--since", "1h", "--method", "ping"])?;
    ensure!(by_ping.contains("wan0, ping"), "{by_ping}");
    Ok(())
}
