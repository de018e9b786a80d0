//! Who may not be part of a bond is refused, and nothing leaves in clear meanwhile. Nor is
//! anything gained by handshakes that were recorded, by floods of them, or by a clock that
//! was set back.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::time::TimeSpec,
    time::{ClockId, clock_gettime, clock_settime},
};

use super::{
    Case, Lane,
    bond_attacker::{Attacker, PATIENCE, lives_on, sessions},
    bond_restarts::{EVERY, keys, keys_are_new, soon, streams, went_on},
    bond_scene::{BondScene, End, bonded, play},
    checks, packets, skip,
};
use crate::lab::{
    BondConfig, Key, LabSpec,
    address::{BOND_PORT, NET4, SERVER4, wan4},
    capture::{Capture, Passing, addresses},
    is_emulated, is_guest,
    traffic::{UdpServer, UdpStream, ping},
    wait_until,
};

/// First bytes of what this version says in handshakes.
const HANDSHAKE: u8 = 0x16;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    cases.push(Case::new(
        Lane::Together,
        "a_client_with_a_strange_key_is_refused_and_told",
        || {
            refused(
                |config, lab_key| {
                    config.with_gateway("bond.private_key_file", lab_key.file.to_string_lossy())
                },
                "unknown",
            )
        },
    ));
    cases.push(Case::new(Lane::Together, "a_server_with_a_strange_key_is_never_believed", || {
        refused(
            |config, lab_key| config.with_gateway("bond.server_public_key", lab_key.public.clone()),
            "",
        )
    }));
    cases.push(Case::new(
        Lane::Together,
        "a_suite_that_the_server_was_not_asked_for_is_refused",
        || refused(|config, _| config.with_gateway("bond.suite", "crc32"), "suite"),
    ));
    let mut add = |lane, name, test| {
        cases.push(bonded(lane, name, || LabSpec::direct(2), |config| config, test))
    };
    add(
        Lane::Together,
        "handshakes_that_were_recorded_make_nothing",
        recorded_handshakes_make_nothing,
    );
    add(Lane::Alone, "a_flood_of_handshakes_costs_a_session_nothing", a_flood_costs_nothing);
    cases.push(Case::new(
        Lane::Alone,
        "a_clock_that_was_set_back_is_told_and_costs_nothing",
        || {
            if !is_guest() {
                return skip("the clock of this machine is not a test's to set; a test VM's is");
            }
            let scene = BondScene::new(LabSpec::direct(2), |config| config)?;
            play(scene, a_clock_goes_back)
        },
    ));
    cases
}

/// Nobody gets in, nothing gets out, and who can do something about it is told why.
fn refused(
    configure: impl Fn(BondConfig, &Key) -> BondConfig + Send + Sync,
    told: &str,
) -> Result<()> {
    let mut stranger = None;
    let scene = BondScene::launched(
        LabSpec::direct(1),
        |lab| {
            stranger = Some(Key::make(&lab.scratch().join("stranger.key"))?);
            Ok(())
        },
        |config| config,
    );
    let scene = scene?;
    let key = stranger.context("a key was made")?;
    play(scene, |scene| {
        scene.wait_until_up().context("as it should be, before")?;
        let config = configure(scene.config.clone(), &key);
        scene.gateway.stop()?;
        scene.gateway.remove_data_plane()?;
        scene.gateway.rewrite(&config.gateway)?;
        let said = scene.server.log().len();
        scene.gateway.relaunch()?;
        let deadline = Duration::from_secs(20);
        scene.gateway.wait_for_status("its programs are in place", deadline, |status| {
            status.lan.iter().all(|lan| lan.hook.is_some())
                && status.wans.iter().all(|wan| wan.hook.is_some() && wan.state == "up")
        })?;
        wait_until("it asks and is not answered", Duration::from_secs(20), || {
            let log = scene.server.log();
            let new = log.get(said..).unwrap_or_default().to_lowercase();
            ensure!(new.contains(told), "the server says: {new}");
            Ok(true)
        })?;
        let capture = Capture::start(scene.lab.isp(0), "gw0", Passing::In, "ip or ip6")?;
        for to in checks::FAMILIES {
            let report = ping(scene.lab.host(), to, 10, Duration::from_millis(100), &[])?;
            ensure!(report.received == 0, "{to} answers: {}", report.output);
        }
        let living = scene.tables(End::Gateway)?.living()?;
        ensure!(living == 0, "{living} paths live");
        // Not even in clear.
        let frames = capture.finish()?;
        frames.audit_leaks()?;
        let to_the_bond = frames.frames.iter().filter_map(|frame| addresses(frame));
        let asked = to_the_bond.filter(|(_, to)| *to == SERVER4).count();
        ensure!(asked > 0, "the gateway did not ask");
        let no_session = scene.counted(End::Gateway, "no_session")?;
        ensure!(no_session >= 20, "{no_session} counted as without a session");
        Ok(())
    })
}

/// What `/v1/bond` of an end counts of handshakes under a name.
pub(super) fn handshakes(scene: &BondScene, end: End, name: &str) -> Result<u64> {
    let bond = scene.shown(end)?;
    let counts = &bond["handshakes"];
    // A reason that nothing was refused for has no count.
    Ok(counts.get(name).or(counts["refused"].get(name)).and_then(|n| n.as_u64()).unwrap_or(0))
}

/// Real ones, word for word, from where they came from and from elsewhere.
fn recorded_handshakes_make_nothing(scene: &mut BondScene) -> Result<()> {
    const TIMES: usize = 5;
    let mut attackers = [Attacker::at(scene, 0)?, Attacker::at(scene, 1)?];
    let before = keys(scene)?;
    let counts = |scene: &BondScene| -> Result<[u64; 2]> {
        let count = |name| handshakes(scene, End::Server, name);
        Ok([count("initiations")?, count("established")?])
    };
    let [came, made] = counts(scene)?;
    scene.gateway.kill()?;
    scene.gateway.relaunch()?;
    keys_are_new(scene, before, soon())?;
    scene.wait_for_paths(2)?;
    let (mut asked, mut answered) = (Vec::new(), Vec::new());
    wait_until("every handshake has been heard", PATIENCE, || {
        for attacker in &mut attackers {
            let is_one = |packet: &packets::Packet| packet.payload.first() == Some(&HANDSHAKE);
            asked.extend(attacker.near.overheard(|packet, _| {
                let to = packet.to.port() == BOND_PORT && is_one(packet);
                to.then(|| packet.payload.clone())
            })?);
            answered.extend(attacker.far.overheard(|packet, _| {
                let from = packet.from.port() == BOND_PORT && is_one(packet);
                from.then(|| packet.payload.clone())
            })?);
        }
        let now = counts(scene)?;
        let heard = [asked.len() as u64, answered.len() as u64];
        ensure!(heard == [now[0] - came, now[1] - made], "{heard:?} heard, {now:?} counted");
        Ok(heard[1] > 0)
    })?;

    let before = keys(scene)?;
    let [attacker, _] = &mut attackers;
    let refused = handshakes(scene, End::Server, "replayed")?;
    let elsewhere = SocketAddr::from((Ipv4Addr::new(198, 51, 100, 3), 9));
    for initiation in &asked {
        let again = vec![initiation.clone(); TIMES];
        attacker.say(&again)?;
        attacker.say_from(elsewhere, &again)?;
    }
    let all = (asked.len() * 2 * TIMES) as u64;
    wait_until("every initiation is refused as replayed", PATIENCE, || {
        let now = handshakes(scene, End::Server, "replayed")? - refused;
        ensure!(now == all, "{now} of {all}");
        Ok(true)
    })?;
    let told = attacker.far.overheard(|packet, _| {
        (packet.from.port() == BOND_PORT && packet.payload.first() == Some(&HANDSHAKE))
            .then_some(packet.to)
    })?;
    ensure!(told.is_empty(), "the server has answered {told:?}");

    let ignored = handshakes(scene, End::Gateway, "ignored")?;
    let (from, to) = (SocketAddr::from((SERVER4, BOND_PORT)), (wan4(0), BOND_PORT).into());
    for answer in &answered {
        let packet = packets::udp(from, to, answer)?;
        attacker.near.send(&vec![packet; TIMES])?;
    }
    let all = (answered.len() * TIMES) as u64;
    wait_until("every answer is ignored", PATIENCE, || {
        let now = handshakes(scene, End::Gateway, "ignored")? - ignored;
        ensure!(now == all, "{now} of {all}");
        Ok(true)
    })?;
    ensure!(keys(scene)? == before, "the keys are others");
    lives_on(scene)
}

/// The clock on the wall, set back until this is dropped.
struct SetBack(TimeSpec);

impl SetBack {
    fn by(seconds: i64) -> Result<Self> {
        let now = clock_gettime(ClockId::CLOCK_REALTIME)?;
        let less = TimeSpec::new(seconds, 0);
        clock_settime(ClockId::CLOCK_REALTIME, now - less)?;
        Ok(Self(less))
    }
}

impl Drop for SetBack {
    fn drop(&mut self) {
        let now = clock_gettime(ClockId::CLOCK_REALTIME);
        let _ = now.and_then(|now| clock_settime(ClockId::CLOCK_REALTIME, now + self.0));
    }
}

/// A gateway that comes back with a clock that is an hour behind gets no new keys, both
/// operators are told why, and the session that there is goes on meanwhile.
fn a_clock_goes_back(scene: &mut BondScene) -> Result<()> {
    let duplex = streams(scene)?;
    let before = keys(scene)?;
    scene.gateway.kill()?;
    let clock = SetBack::by(3600)?;
    scene.gateway.relaunch()?;
    // Agents of emulated machines take their time to start.
    let patience = Duration::from_secs(if is_emulated() { 240 } else { 60 });
    for (end, says) in
        [(End::Server, "s older than its last"), (End::Gateway, "do its clock and ours agree")]
    {
        let what = format!("the {end:?} says {says:?}");
        wait_until(&what, patience, || {
            let log = scene.agent(end).log();
            ensure!(log.contains(says), "it says: {log}");
            Ok(true)
        })?;
    }
    ensure!(keys(scene)? == before, "the keys are others");
    drop(clock);
    keys_are_new(scene, before, patience)?;
    duplex.go_on(500, EVERY)?;
    let report = duplex.stop()?;
    for (way, course) in [("there", &report.there), ("back", &report.back)] {
        went_on(course, way, Duration::from_millis(200))?;
    }
    lives_on(scene)
}

fn a_flood_costs_nothing(scene: &mut BondScene) -> Result<()> {
    const FLOOD: usize = 20_000;
    let attacker = Attacker::at(scene, 0)?;
    let stream = UdpStream::new(1_000_000, Duration::from_millis(1));
    let server = UdpServer::start(scene.lab.net(), SocketAddr::new(NET4.into(), 7))?;
    let run = stream.start(scene.lab.host(), &server)?;
    let before = messages(scene)?;
    let id = sessions(scene)?;
    let flood: Vec<Vec<u8>> = (0..FLOOD)
        .map(|number| {
            // An initiation in form.
            let mut packet = vec![0; 188];
            (packet[0], packet[2], packet[15], packet[24]) = (0x16, 1, 1, 1);
            packet[28..32].copy_from_slice(&u32::try_from(number).unwrap_or(0).to_be_bytes());
            packet
        })
        .collect();
    for part in flood.chunks(500) {
        attacker.say(part)?;
    }
    wait_until("the flood is counted", PATIENCE, || {
        let counted = messages(scene)? - before;
        ensure!(counted >= FLOOD as u64, "{counted} of {FLOOD}");
        Ok(true)
    })?;
    let limited = scene.counted(End::Server, "message_limited")?;
    ensure!(limited > 0, "the agent has to read every one of them");
    let report = run.stop()?;
    drop(server);
    let lost = report.there.lost + report.back.unwrap_or_default().lost;
    ensure!(lost == 0, "{lost} datagrams of a stream were lost: {report:?}");
    ensure!(sessions(scene)? == id, "the session is another one");
    lives_on(scene)
}

/// Messages for the server's agent, given to it or not.
pub(super) fn messages(scene: &BondScene) -> Result<u64> {
    Ok(scene.counted(End::Server, "bond_message")?
        + scene.counted(End::Server, "message_limited")?)
}
