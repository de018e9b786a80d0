//! Policy rules by name: what a resolver on the gateway answers to a host says where the
//! host's flows leave, with the agent and without it, and nobody else can say so.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::{
    Case, Lane, checks,
    explain::json,
    packets,
    policy::{Flow, PATIENCE, shown, with_rules},
    port::Port,
    resolver::dnsmasq,
    scene::{Hook, Scene, both_hooks, play},
};
use crate::lab::{
    GatewayConfig, LabSpec, Process,
    address::{GATEWAY4, GATEWAY6, HOST4, HOST6, NET4, NET4_SECOND, NET6},
    traffic::WhoServer,
    wait_until,
};

/// The least time that an answer counts for.
const LEAST: Duration = Duration::from_secs(60);

pub(super) fn cases() -> Vec<Case> {
    // Without a rule everything goes by the first WAN.
    let plain: fn(GatewayConfig) -> GatewayConfig = GatewayConfig::ranked;
    let spec = || LabSpec::direct(2);
    let name = "flows_to_a_name_leave_by_the_wan_of_its_rule";
    let mut cases = both_hooks(Lane::Together, name, spec, plain, flows_to_a_name);
    let name = "an_address_of_a_name_is_steered_for_its_time";
    cases.push(Case::new(Lane::Together, name, move || {
        play(Scene::new(Hook::Xdp, spec(), plain)?, an_address_has_its_time)
    }));
    cases
}

/// A resolver on the gateway, for hosts on the LAN.
fn resolver(scene: &Scene) -> Result<Process> {
    let listen = format!("{GATEWAY4},{GATEWAY6}");
    let www = format!("--host-record=www.example.net,{NET4},{NET6},120");
    let second = format!("--host-record=second.example.org,{NET4_SECOND},3600");
    let alias = "--cname=shop.example.com,second.example.org";
    let brief = format!("--host-record=brief.example.net,{NET4},{NET6},1");
    let process = dnsmasq(scene.lab.gw(), &listen, &[&www, &second, alias, &brief])?;
    wait_until("the resolver answers", PATIENCE, || {
        Ok(ask(scene, GATEWAY4.into(), "www.example.net", "A", &[]).is_ok())
    })?;
    Ok(process)
}

/// Has the host ask for a name; gives what it is told.
fn ask(scene: &Scene, server: IpAddr, name: &str, kind: &str, more: &[&str]) -> Result<String> {
    let server = format!("@{server}");
    let question = ["+short", "+tries=1", "+time=2", &server, name, kind];
    let said = scene.lab.host().run("dig", [more, &question[..]].concat())?;
    ensure!(!said.trim().is_empty(), "{name} has no {kind}");
    Ok(said)
}

/// How many addresses a rule has.
fn addresses(scene: &Scene, rule: &str) -> Result<u64> {
    shown(scene, rule)?["addresses"].as_u64().context("a number of addresses")
}

fn waits_for(scene: &Scene, rule: &str, count: u64) -> Result<()> {
    wait_until(&format!("rule {rule} has {count} addresses"), PATIENCE, || {
        Ok(addresses(scene, rule)? == count)
    })
    .map(drop)
}

fn leave_by(scene: &Scene, wan: usize, to: &[IpAddr], when: &str) -> Result<()> {
    for to in to {
        let left = Flow::to(*to, 7001).leaves_by(scene).context(when.to_owned())?;
        ensure!(left == wan, "{when}, a flow to {to} left by wan{left}");
    }
    Ok(())
}

fn flows_to_a_name(scene: &mut Scene) -> Result<()> {
    let (named, second) = ([IpAddr::from(NET4), NET6.into()], [IpAddr::from(NET4_SECOND)]);
    let by_name = json!({"name": "named", "domain": "*.example.net", "use": "wan1"});
    let _resolver = resolver(scene)?;
    with_rules(scene, json!([by_name]))?;
    wait_until("answers are heard on the LAN", PATIENCE, || {
        Ok(json(scene, &["policy", "--json"])?["domains"]["heard"] == json!(["lan0"]))
    })?;
    leave_by(scene, 0, &named, "before anybody has asked")?;

    // By UDP, over both families.
    ask(scene, GATEWAY4.into(), "www.example.net", "A", &[])?;
    ask(scene, GATEWAY6.into(), "www.example.net", "AAAA", &[])?;
    waits_for(scene, "named", 2)?;
    leave_by(scene, 1, &named, "with its addresses known")?;
    leave_by(scene, 0, &second, "with nobody having asked for it")?;
    ask(scene, GATEWAY4.into(), "second.example.org", "A", &[])?;
    leave_by(scene, 0, &second, "with no rule for its name")?;

    // By TCP, and by another name; what is known stays.
    let alias = json!({"name": "alias", "domain": ["shop.example.com"], "use": "wan1"});
    with_rules(scene, json!([{"port": 9, "use": "block"}, alias, by_name]))?;
    leave_by(scene, 1, &named, "after a reload")?;
    ask(scene, GATEWAY6.into(), "shop.example.com", "A", &["+tcp"])?;
    waits_for(scene, "alias", 1)?;
    leave_by(scene, 1, &second, "with its alias asked for by TCP")?;
    what_is_said(scene)?;
    forged(scene)?;

    // Without the agent, and with another one.
    scene.gateway.kill()?;
    let left = without_agent(scene, NET4.into())?;
    ensure!(left == 1, "without an agent it left by wan{left}");
    scene.gateway.restart(&scene.lab)?;
    waits_for(scene, "named", 2)?;
    leave_by(scene, 1, &named, "with another agent")?;
    leave_by(scene, 1, &second, "with another agent")?;

    // A rule for another name has none of it.
    let other = json!({"name": "other", "domain": "other.example.net", "use": "wan1"});
    with_rules(scene, json!([other]))?;
    leave_by(scene, 0, &named, "with a rule for another name")?;
    ensure!(addresses(scene, "other")? == 0, "{:#}", shown(scene, "other")?);
    Ok(())
}

/// What an answer says for a second counts for [`LEAST`], whether an agent is there or not.
fn an_address_has_its_time(scene: &mut Scene) -> Result<()> {
    let brief = [IpAddr::from(NET4), NET6.into()];
    let second = IpAddr::from(NET4_SECOND);
    let names = json!(["brief.example.net", "second.example.org"]);
    let _resolver = resolver(scene)?;
    with_rules(scene, json!([{"name": "named", "domain": names, "use": "wan1"}]))?;
    wait_until("answers are heard on the LAN", PATIENCE, || {
        Ok(json(scene, &["policy", "--json"])?["domains"]["heard"] == json!(["lan0"]))
    })?;
    let asked = Instant::now();
    for (name, kind) in
        [("second.example.org", "A"), ("brief.example.net", "A"), ("brief.example.net", "AAAA")]
    {
        ask(scene, GATEWAY4.into(), name, kind, &[])?;
    }
    let known = Instant::now();
    waits_for(scene, "named", 3)?;
    // One flow of each goes on as it began.
    let open: Vec<(WhoServer, UdpSocket)> = brief
        .iter()
        .map(|to| {
            let server = WhoServer::start(scene.lab.net(), SocketAddr::new(*to, 7003))?;
            Ok((server, Flow::to(*to, 7003).socket(scene)?))
        })
        .collect::<Result<_>>()?;
    let stay = |when: &str| {
        open.iter().try_for_each(|(server, socket)| {
            let left = checks::wan_of(&scene.lab, server.ask(socket)?.ip())?;
            ensure!(left == 1, "{when}, an open flow left by wan{left}");
            Ok(())
        })
    };
    stay("when it was new")?;
    scene.gateway.kill()?;

    thread::sleep((asked + LEAST - PATIENCE).saturating_duration_since(Instant::now()));
    let left: Vec<usize> =
        brief.iter().map(|to| without_agent(scene, *to)).collect::<Result<_>>()?;
    // On a machine that was busy all that time it says nothing.
    if asked.elapsed() < LEAST {
        ensure!(left == [1, 1], "before their time was over, they left by {left:?}");
    }
    thread::sleep((known + LEAST).saturating_duration_since(Instant::now()));
    for to in brief {
        let what = format!("new flows to {to} leave as if it had no name");
        wait_until(&what, PATIENCE, || Ok(without_agent(scene, to)? == 0))?;
    }
    ensure!(without_agent(scene, second)? == 1, "the other name had its hour");
    stay("when the time of its name was over")?;

    scene.gateway.restart(&scene.lab)?;
    waits_for(scene, "named", 1)?;
    leave_by(scene, 0, &brief, "with another agent")?;
    leave_by(scene, 1, &[second], "with another agent")
}

/// The WAN that a new flow leaves by, of which no agent can say why.
fn without_agent(scene: &Scene, to: IpAddr) -> Result<usize> {
    let server = WhoServer::start(scene.lab.net(), SocketAddr::new(to, 7002))?;
    let seen = server.ask(&Flow::to(to, 7002).socket(scene)?)?;
    checks::wan_of(&scene.lab, seen.ip())
}

/// What people and machines are told.
fn what_is_said(scene: &Scene) -> Result<()> {
    let list = json(scene, &["policy", "--json", "--addresses", "named"])?;
    let list = list.as_array().context("a list")?;
    let of = |address: IpAddr| list.iter().find(|one| one["address"] == address.to_string());
    for address in [IpAddr::from(NET4), NET6.into()] {
        let one = of(address).with_context(|| format!("no {address} in {list:?}"))?;
        ensure!(one["name"] == "www.example.net", "{one}");
        ensure!(one["seconds_left"].as_u64().is_some_and(|left| left <= 120), "{one}");
    }
    let table = scene.gateway.mwb(&["policy"])?;
    for words in ["ADDRESSES", "domain: \"*.example.net\"", "answers on lan0"] {
        ensure!(table.contains(words), "no {words} in\n{table}");
    }
    let wrong = scene.gateway.mwb_command(&["policy", "--addresses", "rule-1"])?.output()?;
    ensure!(wrong.status.code() == Some(2), "{wrong:?}");
    let metrics = scene.gateway.api().metrics()?;
    for words in [
        "mwb_policy_addresses{rule=\"named\"} 2",
        "mwb_domain_addresses 3",
        "mwb_domain_answers_total{result=\"unreadable\"} 0",
        "mwb_domain_missed_total{cause=\"queue_full\"} 0",
    ] {
        ensure!(metrics.contains(words), "no {words} in\n{metrics}");
    }
    Ok(())
}

/// A host says what a resolver would say: to the gateway, and through it.
fn forged(scene: &Scene) -> Result<()> {
    let before = json(scene, &["policy", "--json"])?["domains"].clone();
    // The host itself goes on hearing what it is told.
    let (host, gateway) = (scene.lab.host(), scene.lab.gw());
    let port = Port::between((host, "lan0"), (gateway, "lan0"))?;
    let (host4, host6) = (IpAddr::from(HOST4), IpAddr::from(HOST6));
    let (us4, us6) = (IpAddr::from(GATEWAY4), IpAddr::from(GATEWAY6));
    let mut frames = Vec::new();
    for (from, to) in [
        (host4, us4),
        (host6, us6),
        (us4, host4),
        (us6, host6),
        (host4, NET4.into()),
        (host6, NET6.into()),
    ] {
        let (from, to) = (SocketAddr::new(from, 53), SocketAddr::new(to, 40_000));
        frames.push(packets::udp(from, to, &answer())?);
    }
    port.send(&frames)?;
    // An honest one behind them is heard: those before it have been by then.
    let count = |status: &Value| status["answers"].as_u64().context("a number of answers");
    let answers = count(&before)?;
    ask(scene, GATEWAY4.into(), "www.example.net", "A", &[])?;
    wait_until("the next answer is heard", PATIENCE, || {
        Ok(count(&json(scene, &["policy", "--json"])?["domains"])? > answers)
    })?;
    let after = json(scene, &["policy", "--json"])?["domains"].clone();
    ensure!(count(&after)? == answers + 1, "{before:#} and {after:#}");
    ensure!(after["addresses"] == before["addresses"], "{before:#} and {after:#}");
    Ok(())
}

/// `www.example.net` is 203.0.113.66, for an hour.
fn answer() -> Vec<u8> {
    let name = b"\x03www\x07example\x03net\0";
    let mut message = vec![0, 7, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0];
    message.extend_from_slice(name);
    message.extend_from_slice(&[0, 1, 0, 1, 0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0x0e, 0x10, 0, 4]);
    message.extend_from_slice(&[203, 0, 113, 66]);
    message
}
