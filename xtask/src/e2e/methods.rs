//! The ways to check a WAN side by side, one for each of six WANs, against nginx, dnsmasq and a
//! server with a greeting: on links that are slow, that lose packets and that are dead behind
//! a provider who answers, and with servers that are wrong or gone while the links work.

use std::{
    fs,
    io::Write as _,
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::{
    Case, Lane,
    certificate::certificate,
    resolver::dnsmasq,
    scene::{Hook, Scene, play},
};
use crate::lab::{
    Direction, GatewayConfig, LabSpec, Loss, Namespace, Process,
    address::NET4,
    api::Status,
    traffic::{EchoServer, EchoStream, Server, serve},
    wait_until,
};

const PATIENCE: Duration = Duration::from_secs(20);
/// In the order of the WANs.
const METHODS: [&str; 6] = ["ping", "http", "https", "dns", "tcp", "exec"];
/// Round trips that a check takes at least, in the same order.
const TRIPS: [f64; 6] = [1.0, 2.0, 3.0, 1.0, 1.0, 2.0];
/// Those of them that ask the web server.
const OF_WEB: [usize; 3] = [1, 2, 5];
/// Each way.
const DELAY: Duration = Duration::from_millis(40);
const WELL: &str = "all is well\n";

pub(super) fn cases() -> Vec<Case> {
    vec![Case::new(Lane::Together, "each_method_tells_a_bad_link_from_a_bad_target", || {
        let spec = LabSpec::relayed(METHODS.len());
        let configure = |config: GatewayConfig| {
            // Three round trips of a handshake are no fault of a slow link.
            config.watching_gateways().with("health.degraded", json!({"latency": "2s"}))
        };
        play(Scene::new(Hook::Xdp, spec, configure)?, each)
    })]
}

/// What the checks ask.
struct Targets {
    /// The file that the web server gives.
    page: PathBuf,
    web: Process,
    names: Process,
    _greeting: Server,
}

impl Targets {
    fn start(net: &Namespace, folder: &Path, certificate: &Path) -> Result<Self> {
        let page = folder.join("www/health");
        fs::create_dir_all(folder.join("www"))?;
        fs::write(&page, WELL)?;
        let web = nginx(net, folder, certificate)?;
        let record = "--address=/www.example.net/192.0.2.80";
        let names = dnsmasq(net, &NET4.to_string(), &[record])?;
        let (_, greeting) = serve(net, (NET4, 2222).into(), |mut stream: TcpStream| {
            stream.write_all(b"SSH-2.0-lab\r\n")?;
            Ok(())
        })?;
        Ok(Self { page, web, names, _greeting: greeting })
    }
}

/// Starts nginx: `www/health` in its folder, by HTTP and HTTPS.
fn nginx(net: &Namespace, folder: &Path, certificate: &Path) -> Result<Process> {
    let at = folder.display();
    let certificate = certificate.display();
    let text = format!(
        "daemon off;\nuser root;\nworker_processes 1;\npid {at}/nginx.pid;\n\
         error_log stderr;\nevents {{}}\nhttp {{\n  access_log off;\n  \
         client_body_temp_path {at}/body;\n  proxy_temp_path {at}/proxy;\n  \
         fastcgi_temp_path {at}/fastcgi;\n  uwsgi_temp_path {at}/uwsgi;\n  \
         scgi_temp_path {at}/scgi;\n  server {{\n    listen {NET4}:80;\n    \
         listen {NET4}:443 ssl;\n    ssl_certificate {certificate}.crt;\n    \
         ssl_certificate_key {certificate}.key;\n    root {at}/www;\n  }}\n}}\n"
    );
    let file = folder.join("nginx.conf");
    fs::write(&file, text)?;
    let file = file.display().to_string();
    let process = net.spawn("nginx", ["-e", "stderr", "-c", &file])?;
    wait_until("nginx listens", PATIENCE, || {
        net.enter(|| Ok(TcpStream::connect((NET4, 443)).is_ok()))
    })?;
    Ok(process)
}

/// A plugin that asks the web server by curl.
fn plugin(folder: &Path) -> Result<PathBuf> {
    let script = folder.join("check_web.sh");
    let text = format!(
        "#!/bin/sh\nif curl -fsS -m 2 --interface \"$MWB_DEVICE\" http://{NET4}/health; then\n  \
         exit 0\nelse\n  echo 'WEB - no page'\n  exit 2\nfi\n"
    );
    fs::write(&script, text)?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    Ok(script)
}

/// How each WAN is checked, in the order of [`METHODS`].
fn health(plugin: &Path, authority: &Path) -> [Value; 6] {
    let of = |method: &str, settings: Value| json!({"method": method, method: settings});
    [
        json!({"method": "ping", "targets": [NET4.to_string()]}),
        of("http", json!({"url": format!("http://{NET4}/health"), "body": "all is well"})),
        of(
            "https",
            json!({
                "url": format!("https://{NET4}/health"), "body": "all is well",
                "server_name": "www.example.net", "ca_file": authority,
            }),
        ),
        of(
            "dns",
            json!({"name": "www.example.net", "server": NET4.to_string(), "expect": "192.0.2.80"}),
        ),
        json!({
            "method": "tcp", "targets": [NET4.to_string()],
            "tcp": {"port": 2222, "expect": "SSH-2.0"},
        }),
        of("exec", json!({"command": [plugin]})),
    ]
}

fn each(scene: &mut Scene) -> Result<()> {
    let folder = scene.lab.scratch().join("targets");
    fs::create_dir_all(&folder)?;
    let certificate = certificate(&folder, "web", "20990101000000Z")?;
    let mut targets = Targets::start(scene.lab.net(), &folder, &certificate)?;
    let checks = health(&plugin(&folder)?, &certificate.with_extension("crt"));
    for (wan, health) in checks.into_iter().enumerate() {
        scene.config = scene.config.clone().with(&format!("wans.{wan}.health"), health);
    }
    scene.gateway.rewrite(&scene.config)?;
    scene.gateway.mwb(&["reload"])?;
    a_slow_link_is_up(scene)?;
    a_lossy_link_is_not_down(scene)?;
    a_dead_link_is_down_though_its_provider_answers(scene)?;
    a_wrong_page_is_told(scene, &targets)?;
    a_dead_target_is_no_dead_link(scene, &mut targets)
}

/// Waits for a state of these WANs.
fn expect(scene: &mut Scene, wans: &[usize], state: &str, why: &str) -> Result<Status> {
    let what = format!("{wans:?} are {state}: {why}");
    let (status, _) = scene.gateway.wait_for_status(&what, PATIENCE, |status| {
        let wans = wans.iter().map(|&wan| &status.wans[wan]);
        wans.into_iter().all(|wan| wan.state == state && wan.reason.contains(why))
    })?;
    Ok(status)
}

fn all() -> Vec<usize> {
    (0..METHODS.len()).collect()
}

fn change_links(scene: &Scene, delay: Duration, loss: Loss) -> Result<()> {
    for wan in scene.lab.wans() {
        for way in Direction::BOTH {
            wan.change(way, |link| (link.delay, link.loss) = (delay, loss))?;
        }
    }
    Ok(())
}

fn a_slow_link_is_up(scene: &mut Scene) -> Result<()> {
    expect(scene, &all(), "up", "")?;
    change_links(scene, DELAY, Loss::None)?;
    let trip = 2.0 * DELAY.as_secs_f64() * 1e3;
    let slow = |status: &Status, wan: usize| {
        let rtt = status.wans[wan].rtt_ms.unwrap_or(0.0);
        // It is smoothed, and hears the delay of its own round trips only.
        rtt > 0.9 * trip * TRIPS[wan] && rtt < 2.0 * trip * TRIPS[wan] + 100.0
    };
    let begin = scene.latest_event()?;
    scene.gateway.wait_for_status("each tells how slow its link is", PATIENCE, |status| {
        (0..METHODS.len()).all(|wan| slow(status, wan))
    })?;
    none_is_down_since(scene, begin, &all())?;
    expect(scene, &all(), "up", "").map(drop)
}

fn a_lossy_link_is_not_down(scene: &mut Scene) -> Result<()> {
    change_links(scene, DELAY, Loss::Random(0.02))?;
    let begin = scene.latest_event()?;
    // Probes alone: nothing but the checks crosses these links.
    std::thread::sleep(Duration::from_secs(if super::is_whole() { 60 } else { 8 }));
    none_is_down_since(scene, begin, &all())?;
    let mut lost = 0;
    for wan in scene.lab.wans() {
        let stats = wan.stats()?;
        lost += stats.up.lost + stats.down.lost;
    }
    ensure!(lost > 5, "the links have lost {lost} packets");
    change_links(scene, DELAY, Loss::None)
}

fn a_dead_link_is_down_though_its_provider_answers(scene: &mut Scene) -> Result<()> {
    for (on, state) in [(false, "down"), (true, "up")] {
        scene.lab.wans().iter().try_for_each(|wan| wan.uplink(on))?;
        expect(scene, &all(), state, "")?;
    }
    Ok(())
}

fn a_wrong_page_is_told(scene: &mut Scene, targets: &Targets) -> Result<()> {
    let [http, https, exec] = OF_WEB;
    fs::remove_file(&targets.page)?;
    expect(scene, &[http, https], "down", "404")?;
    let status = expect(scene, &[exec], "down", "no page")?;
    for wan in all().into_iter().filter(|wan| !OF_WEB.contains(wan)) {
        ensure!(status.wans[wan].state == "up", "{}: {:?}", METHODS[wan], status.wans[wan]);
    }
    // The plugin is content with any page.
    fs::write(&targets.page, "log in first\n")?;
    expect(scene, &[http, https], "down", "all is well")?;
    expect(scene, &[exec], "up", "")?;
    fs::write(&targets.page, WELL)?;
    expect(scene, &all(), "up", "").map(drop)
}

/// While answers to packets come back by a WAN, the silence of whom is asked is no outage.
fn a_dead_target_is_no_dead_link(scene: &mut Scene, targets: &mut Targets) -> Result<()> {
    change_links(scene, Duration::ZERO, Loss::None)?;
    let echo = EchoServer::start(scene.lab.net(), SocketAddr::from((NET4, 7)))?;
    let mut streams = Vec::new();
    for _ in 0..60 {
        streams.push(EchoStream::connect(scene.lab.host(), echo.address(), PATIENCE)?);
    }
    let mut exchange_for = |time: Duration| -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < time {
            streams.iter_mut().try_for_each(|stream| stream.exchange(b"it works").map(drop))?;
        }
        Ok(())
    };
    exchange_for(Duration::from_secs(1))?;
    let begin = scene.latest_event()?;
    let deaf = "table inet deaf {\n  chain input {\n    type filter hook input priority 0;\n    \
                icmp type echo-request drop\n    tcp dport 2222 drop\n  }\n}\n";
    scene.lab.net().nft(deaf)?;
    targets.names.kill()?;
    targets.web.kill()?;
    exchange_for(Duration::from_secs(5))?;
    none_is_down_since(scene, begin, &[0, 1, 2, 3, 4])
}

/// None of these WANs was told to be down since an event.
fn none_is_down_since(scene: &Scene, event: u64, wans: &[usize]) -> Result<()> {
    for told in scene.gateway.api().events(event)? {
        let of = |wan: &usize| told.wan.as_deref() == Some(&format!("wan{wan}"));
        let down = told.kind == "wan_state" && told.message.contains("is down");
        let wan = wans.iter().find(|wan| of(wan) && down);
        ensure!(
            wan.is_none(),
            "{}: {} ({})",
            METHODS[*wan.context("one")?],
            told.message,
            told.reason
        );
    }
    Ok(())
}
