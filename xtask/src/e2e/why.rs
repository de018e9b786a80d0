//! `mwb why`: what it says of a packet is what happens to it, and each part of
//! the decision is named with what would change it.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{
    Case, Lane,
    change::reload,
    checks,
    explain::json,
    port::host_of,
    scene::{Scene, both_hooks},
};
use crate::lab::{LabSpec, address::wan4, traffic::WhoServer};

const PATIENCE: Duration = Duration::from_secs(10);
/// Flows of each family: enough that both WANs get some.
const FLOWS: usize = 12;

pub(super) fn cases() -> Vec<Case> {
    both_hooks(
        Lane::Together,
        "mwb_why_says_what_then_happens",
        || LabSpec::direct(2),
        |config| config,
        why_comes_true,
    )
}

/// An answer of `mwb why`.
struct Answer(Value);

impl Answer {
    fn to(scene: &Scene, packet: &[&str]) -> Result<Self> {
        Ok(Self(json(scene, &[&["why", "--json"], packet].concat())?))
    }

    /// What is said of a part of the decision.
    fn step(&self, what: &str) -> String {
        let steps = self.0["steps"].as_array().map(Vec::as_slice).unwrap_or_default();
        let said = steps.iter().filter(|step| step["what"] == what);
        said.filter_map(|step| step["said"].as_str()).collect::<Vec<_>>().join("; ")
    }

    /// All of these words are said of a part of the decision.
    fn says(&self, what: &str, words: &[&str]) -> Result<()> {
        let said = self.step(what);
        let missing: Vec<_> = words.iter().filter(|word| !said.contains(**word)).collect();
        ensure!(missing.is_empty(), "no {missing:?} in what is said of {what}: {:#}", self.0);
        Ok(())
    }

    /// All of these would change it.
    fn would_change_by(&self, causes: &[&str]) -> Result<()> {
        let list = self.0["would_change"].as_array().map(Vec::as_slice).unwrap_or_default();
        for cause in causes {
            let named =
                list.iter().any(|one| one.as_str().is_some_and(|text| text.contains(cause)));
            ensure!(named, "{cause:?} would change it, which is not said: {:#}", self.0);
        }
        Ok(())
    }

    fn wan(&self) -> Result<&str> {
        ensure!(self.0["outcome"]["verdict"] == "forward", "{:#}", self.0);
        self.0["outcome"]["wan"].as_str().with_context(|| format!("no WAN: {:#}", self.0))
    }

    /// The slot that a step names: the number behind the word.
    fn slot(&self, what: &str) -> Result<u32> {
        let said = self.step(what).replace("the next slot is", "slot");
        let mut words = said.split([' ', ',']).skip_while(|word| *word != "slot").skip(1);
        let number = words.next().and_then(|word| word.parse().ok());
        number.with_context(|| format!("{what} names no slot: {:#}", self.0))
    }
}

fn other(wan: &str) -> &'static str {
    if wan == "wan0" { "wan1" } else { "wan0" }
}

/// A socket of the host whose flow is asked about.
struct Asked {
    socket: UdpSocket,
    far: SocketAddr,
}

impl Asked {
    fn new(scene: &Scene, far: SocketAddr) -> Result<Self> {
        let near = host_of(far.ip());
        let socket = scene.lab.host().enter(|| Ok(UdpSocket::bind((near, 0))?))?;
        Ok(Self { socket, far })
    }

    fn why(&self, scene: &Scene) -> Result<Answer> {
        let (near, far) = (self.socket.local_addr()?.to_string(), self.far.to_string());
        Answer::to(scene, &["udp", &near, &far])
    }

    /// It sends: the WAN by which it left, and what was seen.
    fn leaves_by(&self, scene: &Scene, who: &WhoServer) -> Result<(String, SocketAddr)> {
        let seen = who.ask(&self.socket)?;
        Ok((format!("wan{}", checks::wan_of(&scene.lab, seen.ip())?), seen))
    }
}

fn why_comes_true(scene: &mut Scene) -> Result<()> {
    for to in checks::FAMILIES {
        let far = SocketAddr::new(to, 9);
        let who = WhoServer::start(scene.lab.net(), far)?;
        let mut flows: BTreeMap<String, Vec<Asked>> = BTreeMap::new();
        for _ in 0..FLOWS {
            let asked = Asked::new(scene, far)?;
            let wan =
                a_packet_and_its_flow(scene, &asked, &who).with_context(|| format!("with {to}"))?;
            flows.entry(wan).or_default().push(asked);
        }
        ensure!(flows.len() == 2, "all {FLOWS} went by {:?}", flows.keys());
        scene.lab.wan(0).uplink(false)?;
        scene.gateway.wait_for_status("the first WAN is down", PATIENCE, |status| {
            status.wans[0].state == "down"
        })?;
        the_answers_change(scene, &flows, &who)?;
        scene.lab.wan(0).uplink(true)?;
        scene.gateway.wait_for_status("the first WAN is used again", PATIENCE, |status| {
            status.wans[0].active && status.wans[0].state == "up"
        })?;
    }
    what_does_not_leave(scene)?;
    by_a_counter(scene)
}

/// What it says of a packet that was not sent yet is what happens to it, and what
/// it says of the flow then is how it came about.
fn a_packet_and_its_flow(scene: &Scene, asked: &Asked, who: &WhoServer) -> Result<String> {
    let ranking = ["wan0 (alive)", "wan1 (alive)"];
    let to = asked.far.ip().to_string();
    let told = asked.why(scene)?;
    ensure!(told.0["flow"].is_null(), "a flow that is not there: {:#}", told.0);
    ensure!(told.0["outcome"]["certain"] == true, "per_flow leaves no choice: {:#}", told.0);
    let wan = told.wan()?.to_owned();
    told.says("flow", &["there is none"])?;
    told.says("rule", &[&to, "a WAN of our choice"])?;
    if asked.far.is_ipv4() {
        told.says("mapping", &["no outside port yet"])?;
    }
    told.says("mode", &["per_flow", "1024 slots", "by the hash of the flow"])?;
    told.says("slot", &[&format!("of {wan}")])?;
    told.says("liveness", &[&format!("{wan} is alive")])?;
    told.says("ranking", &ranking)?;
    let death = format!("the death of {wan}: it would go to {}", other(&wan));
    let failover = format!("`mwb failover WAN` to another WAN than {wan}");
    told.would_change_by(&[&death, &failover, &format!("a prefix in `bypass` that holds {to}")])?;
    let slot = told.slot("slot")?;

    let (left, seen) = asked.leaves_by(scene, who)?;
    ensure!(left == wan, "it left by {left}: {:#}", told.0);

    let told = asked.why(scene)?;
    ensure!(told.0["flow"]["wan"] == *wan && told.wan()? == wan, "it is on {wan}: {:#}", told.0);
    ensure!(told.0["flow"]["outside"]["port"] == seen.port(), "seen as {seen}: {:#}", told.0);
    told.says("flow", &[&format!("led to {wan}"), &format!("it stands: {wan} is alive")])?;
    ensure!(told.slot("flow")? == slot, "it was slot {slot}: {:#}", told.0);
    told.says("rule", &[&to, "a WAN of our choice"])?;
    told.says("mode", &["per_flow"])?;
    told.says("ranking", &ranking)?;
    told.would_change_by(&[&death, &failover, &format!("another address of {wan}")])?;
    Ok(wan)
}

/// The first WAN is dead: its flows are told to go by the other, and do; those of
/// the other one stay, and have nowhere else to go.
fn the_answers_change(
    scene: &Scene,
    flows: &BTreeMap<String, Vec<Asked>>,
    who: &WhoServer,
) -> Result<()> {
    for (wan, flows) in flows {
        for asked in flows {
            let told = asked.why(scene)?;
            ensure!(told.wan()? == "wan1", "by a dead WAN: {:#}", told.0);
            if wan == "wan0" {
                told.says("flow", &["there is one, on wan0", "it is made anew: wan0 is dead"])?;
                without_the_first(&told)?;
            } else {
                told.says("flow", &["it stands: wan1 is alive"])?;
                told.would_change_by(&["the life of another WAN"])?;
            }
            let (left, _) = asked.leaves_by(scene, who)?;
            ensure!(left == "wan1", "it left by {left}: {:#}", told.0);
        }
    }
    // And one that was never sent.
    let told = Asked::new(scene, flows["wan0"][0].far)?.why(scene)?;
    ensure!(told.wan()? == "wan1", "by a dead WAN: {:#}", told.0);
    without_the_first(&told)
}

/// Slots and ranking are of the other WAN alone, behind which there is none.
fn without_the_first(told: &Answer) -> Result<()> {
    told.says("rule", &["a WAN of our choice"])?;
    told.says("mode", &["per_flow"])?;
    told.says("slot", &["of wan1"])?;
    told.says("liveness", &["wan1 is alive"])?;
    told.says("ranking", &["wan1 (alive)"])?;
    ensure!(!told.step("ranking").contains("wan0"), "a dead WAN is ranked: {:#}", told.0);
    told.would_change_by(&["the death of wan1: no WAN would be alive", "`mwb failover WAN`"])
}

/// Not through us, and not at all; and what is no packet.
fn what_does_not_leave(scene: &Scene) -> Result<()> {
    for (packet, verdict) in [
        (["tcp", "192.0.2.10:4000", "192.0.2.1:22"], "kernel"),
        (["udp", "192.0.2.1:4000", "203.0.113.250:9"], "drop"),
    ] {
        let told = Answer::to(scene, &packet)?;
        ensure!(told.0["outcome"]["verdict"] == verdict, "{packet:?}: {:#}", told.0);
    }
    let said = scene.gateway.mwb(&["why", "udp", "192.0.2.10:4000", "203.0.113.250:9"])?;
    for word in ["rule", "mode", "slot", "liveness", "ranking", "wan"] {
        ensure!(said.contains(word), "no {word} for people:\n{said}");
    }
    let own = wan4(1).to_string();
    let wrong = scene.gateway.mwb_command(&["why", "udp", "nonsense", &own])?.output()?;
    ensure!(wrong.status.code() == Some(2), "{wrong:?}");
    Ok(())
}

/// Another mode gives another answer: by a counter it is a guess, which comes
/// true if nobody is faster.
fn by_a_counter(scene: &mut Scene) -> Result<()> {
    let config = scene.config.clone().with("balance", "round_robin");
    reload(scene, config)?;
    let far = SocketAddr::new(checks::FAMILIES[0], 9);
    let who = WhoServer::start(scene.lab.net(), far)?;
    for _ in 0..4 {
        let asked = Asked::new(scene, far)?;
        let told = asked.why(scene)?;
        ensure!(told.0["outcome"]["certain"] == false, "a counter is a guess: {:#}", told.0);
        let possible = told.0["outcome"]["possible"].as_array().map_or(0, Vec::len);
        ensure!(possible == 2, "two WANs are possible: {:#}", told.0);
        told.says("mode", &["round_robin", "by a counter"])?;
        told.says("slot", &["the next slot is", told.wan()?])?;
        told.would_change_by(&["another new flow that takes the next slot"])?;
        let (left, _) = asked.leaves_by(scene, &who)?;
        ensure!(left == told.wan()?, "it left by {left}: {:#}", told.0);
        let slot = told.slot("slot")?;
        let then = asked.why(scene)?;
        ensure!(then.slot("flow")? == slot, "it was slot {slot}: {:#}", then.0);
    }
    Ok(())
}
