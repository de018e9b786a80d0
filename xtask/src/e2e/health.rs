//! Each way to check a WAN, against real servers: what is well, what is not, and whether
//! the agent says why.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU16, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::{
    Case, Lane,
    certificate::certificate,
    resolver::dnsmasq,
    scene::{Hook, Scene, play},
};
use crate::lab::{
    GatewayConfig, LabSpec, Namespace, Process,
    address::{NET4, wan4},
    traffic::{Server, serve},
    wait_until,
};

const PATIENCE: Duration = Duration::from_secs(15);

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("http_checks_tell_a_wrong_status_a_wrong_body_and_a_slow_server", http),
        case("https_checks_tell_what_is_wrong_with_a_certificate", https),
        case("dns_checks_tell_a_wrong_answer_and_a_dead_server", dns),
        case("tcp_checks_tell_a_wrong_greeting_and_a_closed_port", tcp),
        case("a_plugin_says_whether_a_wan_is_up_degraded_or_down", exec),
        case("one_dead_target_of_two_is_no_dead_wan_and_a_quorum_of_two_is", quorum),
        case("a_wan_that_is_only_observed_is_used_all_the_same", observe),
        case("the_check_that_works_is_chosen_by_itself", auto),
    ]
}

fn case(name: &str, test: fn(&mut Scene) -> Result<()>) -> Case {
    Case::new(Lane::Together, name, move || {
        play(Scene::new(Hook::Xdp, LabSpec::direct(2), GatewayConfig::watching_gateways)?, test)
    })
}

/// A web server whose answer can change.
struct Web {
    address: SocketAddr,
    status: Arc<AtomicU16>,
    /// Milliseconds before it answers.
    delay: Arc<AtomicU64>,
    /// Requests so far, by who asked.
    asked: Arc<std::sync::Mutex<Vec<SocketAddr>>>,
    _server: Server,
}

impl Web {
    fn start(net: &Namespace, port: u16) -> Result<Self> {
        let (status, delay) = (Arc::new(AtomicU16::new(200)), Arc::new(AtomicU64::new(0)));
        let asked = Arc::new(std::sync::Mutex::new(Vec::new()));
        let (now, wait, who) = (status.clone(), delay.clone(), asked.clone());
        let (address, server) = serve(net, (NET4, port).into(), move |stream: TcpStream| {
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            who.lock().map(|mut who| who.push(stream.peer_addr().unwrap_or((NET4, 0).into()))).ok();
            let mut reader = BufReader::new(stream);
            let mut line = String::new();
            while reader.read_line(&mut line)? > 2 {
                line.clear();
            }
            thread::sleep(Duration::from_millis(wait.load(Ordering::Relaxed)));
            let status = now.load(Ordering::Relaxed);
            // What a provider's portal would say has status 200 as well.
            let body = if status == 299 { "log in first" } else { "all is well" };
            let status = if status == 299 { 200 } else { status };
            let length = body.len();
            let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n\r\n{body}");
            reader.into_inner().write_all(head.as_bytes())?;
            Ok(())
        })?;
        Ok(Self { address, status, delay, asked, _server: server })
    }
}

/// Gives the first WAN a health of its own, and has the agent take it.
fn check_first(scene: &mut Scene, health: Value) -> Result<()> {
    scene.config = scene.config.clone().with("wans.0.health", health);
    scene.gateway.rewrite(&scene.config)?;
    scene.gateway.mwb(&["reload"]).map(drop)
}

/// After this a check that fails, or has no answer within its two seconds, has told so.
const SOON: Duration = Duration::from_secs(3);

/// A new check finds the WAN up, which it was by the one before.
fn stays_up(scene: &mut Scene) -> Result<()> {
    thread::sleep(SOON);
    expect(scene, "up", "")
}

fn expect(scene: &mut Scene, state: &str, why: &str) -> Result<()> {
    let what = format!("the first WAN is {state}: {why}");
    let other = scene.gateway.wait_for_status(&what, PATIENCE, |status| {
        status.wans[0].state == state && status.wans[0].reason.contains(why)
    })?;
    // The other one is watched as before.
    ensure!(other.0.wans[1].state == "up", "the second WAN is {:?}", other.0.wans[1]);
    Ok(())
}

fn http(scene: &mut Scene) -> Result<()> {
    let web = Web::start(scene.lab.net(), 8080)?;
    let url = format!("http://{}/health", web.address);
    let health = json!({
        "method": "http", "timeout": "500ms",
        "http": {"url": url, "body": "all is well", "status": [200, 204]},
    });
    check_first(scene, health)?;
    stays_up(scene)?;
    let asked = || web.asked.lock().map(|asked| asked.clone()).unwrap_or_default();
    wait_until("it is asked", PATIENCE, || Ok(asked().len() > 3))?;
    let from = asked();
    ensure!(from.iter().all(|from| from.ip() == wan4(0)), "asked by {from:?}");
    web.status.store(503, Ordering::Relaxed);
    expect(scene, "down", "503")?;
    web.status.store(200, Ordering::Relaxed);
    expect(scene, "up", "")?;
    web.status.store(299, Ordering::Relaxed);
    expect(scene, "down", "all is well")?;
    web.status.store(200, Ordering::Relaxed);
    expect(scene, "up", "")?;
    web.delay.store(2_000, Ordering::Relaxed);
    expect(scene, "down", "no answer")?;
    web.delay.store(0, Ordering::Relaxed);
    expect(scene, "up", "")
}

fn https(scene: &mut Scene) -> Result<()> {
    let folder = scene.lab.scratch().join("tls");
    let good = certificate(&folder, "good", "20990101000000Z")?;
    let expired = certificate(&folder, "expired", "20210101000000Z")?;
    let _good = tls_server(scene.lab.net(), &good, 8443)?;
    let _expired = tls_server(scene.lab.net(), &expired, 8444)?;
    let health = |port: u16, more: Value| {
        let mut https =
            json!({"url": format!("https://{NET4}:{port}/"), "server_name": "www.example.net"});
        if let (Some(https), Value::Object(more)) = (https.as_object_mut(), more) {
            https.extend(more);
        }
        json!({"method": "https", "https": https})
    };
    let known = good.with_extension("crt");
    check_first(scene, health(8443, json!({"ca_file": known})))?;
    stays_up(scene)?;
    // Of no authority that the system knows.
    check_first(scene, health(8443, json!({})))?;
    expect(scene, "down", "self-signed")?;
    check_first(scene, health(8443, json!({"verify_tls": false})))?;
    stays_up(scene)?;
    let known = expired.with_extension("crt");
    check_first(scene, health(8444, json!({"ca_file": known})))?;
    expect(scene, "down", "expired")?;
    let known = good.with_extension("crt");
    let other = json!({"ca_file": known, "server_name": "www.example.org"});
    check_first(scene, health(8443, other))?;
    expect(scene, "down", "www.example.org")
}

fn tls_server(net: &Namespace, certificate: &Path, port: u16) -> Result<Process> {
    let path = |ending: &str| certificate.with_extension(ending).display().to_string();
    let accept = format!("{NET4}:{port}");
    let (crt, key) = (path("crt"), path("key"));
    let process = net
        .spawn("openssl", ["s_server", "-www", "-accept", &accept, "-cert", &crt, "-key", &key])?;
    wait_until("openssl listens", PATIENCE, || {
        net.enter(|| Ok(TcpStream::connect((NET4, port)).is_ok()))
    })?;
    Ok(process)
}

fn dns(scene: &mut Scene) -> Result<()> {
    let records = ["--address=/www.example.net/192.0.2.80", "--txt-record=www.example.net,v=1"];
    let mut server = dnsmasq(scene.lab.net(), &NET4.to_string(), &records)?;
    let health = |dns: Value| json!({"method": "dns", "timeout": "500ms", "dns": dns});
    let name = "www.example.net";
    let server4 = NET4.to_string();
    check_first(scene, health(json!({"name": name, "server": server4, "expect": "192.0.2.0/24"})))?;
    stays_up(scene)?;
    check_first(scene, health(json!({"name": name, "server": server4, "expect": "192.0.2.81"})))?;
    expect(scene, "down", "192.0.2.81")?;
    check_first(
        scene,
        health(json!({"name": name, "server": server4, "type": "TXT", "expect": "v=1"})),
    )?;
    stays_up(scene)?;
    check_first(scene, health(json!({"name": "nowhere.example.org", "server": server4})))?;
    expect(scene, "down", "nowhere.example.org")?;
    check_first(scene, health(json!({"name": name, "server": server4})))?;
    stays_up(scene)?;
    server.kill()?;
    scene
        .gateway
        .wait_for_status("nobody answers", PATIENCE, |status| status.wans[0].state == "down")?;
    Ok(())
}

fn tcp(scene: &mut Scene) -> Result<()> {
    let greet = |port: u16, words: &'static str| {
        serve(scene.lab.net(), (NET4, port).into(), move |mut stream: TcpStream| {
            stream.write_all(words.as_bytes())?;
            Ok(())
        })
    };
    let _servers = (greet(2222, "SSH-2.0-lab\r\n")?, greet(2525, "220 mail\r\n")?);
    let health = |port: u16| {
        json!({
            "method": "tcp", "targets": [NET4.to_string()],
            "tcp": {"port": port, "expect": "SSH-2.0"},
        })
    };
    check_first(scene, health(2222))?;
    stays_up(scene)?;
    check_first(scene, health(2525))?;
    expect(scene, "down", "SSH-2.0")?;
    check_first(scene, health(2323))?;
    expect(scene, "down", "refused")
}

fn exec(scene: &mut Scene) -> Result<()> {
    let folder = scene.lab.scratch().to_path_buf();
    let (script, code, seen) = (folder.join("check.sh"), folder.join("code"), folder.join("seen"));
    let text = format!(
        "#!/bin/sh\nenv > {}\nread code < {}\necho \"LINK - it is $code | rta=7ms\"\nexit $code\n",
        seen.display(),
        code.display()
    );
    fs::write(&script, text)?;
    fs::write(&code, "0\n")?;
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let command = json!([script, "-H", "somebody"]);
    check_first(scene, json!({"method": "exec", "exec": {"command": command}}))?;
    stays_up(scene)?;
    let (status, _) = scene.gateway.wait_for_status("its own time counts", PATIENCE, |status| {
        status.wans[0].rtt_ms.is_some_and(|rtt| (6.5..7.5).contains(&rtt))
    })?;
    ensure!(status.wans[0].state == "up", "{:?}", status.wans[0]);
    let environment = fs::read_to_string(&seen)?;
    for line in [
        "MWB_WAN=wan0".to_owned(),
        "MWB_DEVICE=wan0".to_owned(),
        format!("MWB_SOURCE4={}", wan4(0)),
    ] {
        ensure!(environment.lines().any(|other| other == line), "no {line} in\n{environment}");
    }
    fs::write(&code, "1\n")?;
    expect(scene, "degraded", "the check warns")?;
    fs::write(&code, "2\n")?;
    expect(scene, "down", "it is 2")?;
    fs::write(&code, "0\n")?;
    expect(scene, "up", "")
}

fn quorum(scene: &mut Scene) -> Result<()> {
    // One that is there, and one that nobody has.
    let targets = json!([NET4.to_string(), "203.0.113.199"]);
    check_first(scene, json!({"targets": targets}))?;
    stays_up(scene)?;
    let calm = scene.gateway.api().events(0)?.len();
    thread::sleep(Duration::from_secs(2));
    let later = scene.gateway.api().events(0)?;
    ensure!(later.len() == calm, "{later:?}");
    check_first(scene, json!({"targets": targets, "quorum": 2}))?;
    expect(scene, "down", "no answer")
}

fn observe(scene: &mut Scene) -> Result<()> {
    let web = Web::start(scene.lab.net(), 8080)?;
    let url = format!("http://{}/", web.address);
    check_first(scene, json!({"method": "http", "observe": true, "http": {"url": url}}))?;
    stays_up(scene)?;
    web.status.store(500, Ordering::Relaxed);
    expect(scene, "down", "500")?;
    let status = scene.gateway.api().status()?;
    ensure!(status.wans[0].active && status.wans[0].failovers == 0, "{:?}", status.wans[0]);
    // What the device says counts.
    scene.lab.wan(0).carrier(false)?;
    scene.gateway.wait_for_status("it is left", PATIENCE, |status| !status.wans[0].active)?;
    Ok(())
}

fn auto(scene: &mut Scene) -> Result<()> {
    let web = Web::start(scene.lab.net(), 8080)?;
    let url = format!("http://{}/", web.address);
    // Whom `ping` asks does not answer; that is no reason to leave the WAN.
    let health = json!({"method": "auto", "targets": ["203.0.113.199"], "http": {"url": url}});
    check_first(scene, health)?;
    let before = scene.gateway.api().events(0)?.last().map_or(0, |event| event.id);
    // It is chosen anew every minute; until then the one that works is heard as well.
    let chosen = |message: &str| message == "wan0 is checked by http, no more by ping";
    let limit = Duration::from_secs(if super::is_whole() { 100 } else { 5 });
    let start = Instant::now();
    wait_until("the WAN is as well as before", limit + PATIENCE, || {
        let events = scene.gateway.api().events(before)?;
        let left = events.iter().find(|event| event.kind == "wan_state");
        ensure!(left.is_none(), "{left:?}");
        let found = events.iter().any(|event| event.kind == "method" && chosen(&event.message));
        Ok(found || !super::is_whole() && start.elapsed() >= limit)
    })?;
    // And a dead link is one.
    scene.lab.wan(0).uplink(false)?;
    expect(scene, "down", "no answer")
}
