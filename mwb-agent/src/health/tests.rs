//! The checker with the kernel as the oracle: over a device without Ethernet,
//! whose far end is ours.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::icmp::{Icmp, Reply};
use super::machine::Settings;
use super::plan::{Echo, Way};
use super::prober::Prober;
use super::quality::Thresholds;
use super::watch::Schedule;
use super::*;
use crate::net::testing::{Tun, in_network, ip};

const US4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const FAR4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const US6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 2);
const TARGET6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xff, 0, 0, 0, 0, 1);
const INTERVAL: Duration = Duration::from_millis(50);
const SOON: Duration = Duration::from_secs(10);

fn make_tun() -> Tun {
    let tun = Tun::make("tun0").unwrap_or_else(|error| panic!("no tun device: {error}"));
    ip("link set tun0 up");
    ip(&format!("addr add {US4} peer {FAR4} dev tun0"));
    ip(&format!("addr add {US6}/64 dev tun0 nodad"));
    tun
}

fn link() -> Link {
    let index = nix::net::if_::if_nametoindex("tun0");
    let v4 = Hop { source: US4, gateway: Some(FAR4), mac: NextHop::NotNeeded };
    let v6 = Hop { source: US6, gateway: None, mac: NextHop::NotNeeded };
    Link { ifindex: index.ok(), carrier: true, v4: Some(v4), v6: Some(v6) }
}

/// The answer to an echo request, as its destination would give it; `None` for
/// anything else that the kernel sends by a new device.
fn answer(request: &[u8]) -> Option<Vec<u8>> {
    let mut reply = request.to_vec();
    let (addresses, size, icmp, question, answer) = match request.first()? >> 4 {
        4 => (12, 4, 20, 8, 0),
        _ => (8, 16, 40, 128, 129),
    };
    if *request.get(icmp)? != question {
        return None;
    }
    let (source, destination) = reply.get_mut(addresses..addresses + 2 * size)?.split_at_mut(size);
    source.swap_with_slice(destination);
    *reply.get_mut(icmp)? = answer;
    // RFC 1624, for a change of the type's byte alone.
    let old = u16::from_be_bytes([*request.get(icmp + 2)?, *request.get(icmp + 3)?]);
    let sum = u32::from(!old) + u32::from(!(u16::from(question) << 8)) + (u32::from(answer) << 8);
    let sum = (sum & 0xffff) + (sum >> 16);
    let check = !((sum & 0xffff) + (sum >> 16)) as u16;
    reply.get_mut(icmp + 2..icmp + 4)?.copy_from_slice(&check.to_be_bytes());
    Some(reply)
}

/// Answers what has been sent until told to stop.
async fn far_end(mut tun: Tun, answers: watch::Receiver<bool>) {
    let mut look = tokio::time::interval(Duration::from_millis(2));
    loop {
        look.tick().await;
        while let Some(packet) = tun.sent() {
            if *answers.borrow()
                && let Some(reply) = answer(&packet)
            {
                tun.arrive(&reply).unwrap_or_else(|error| panic!("nothing arrives: {error}"));
            }
        }
    }
}

/// The next answer, if it comes soon.
async fn next(checker: &mut Icmp) -> Option<Reply> {
    let wait = async {
        loop {
            if let Some(answer) = checker.take() {
                return answer;
            }
            checker.ready().await;
        }
    };
    tokio::time::timeout(SOON, wait).await.ok()
}

#[test]
fn probes_leave_by_a_device_without_ethernet_and_their_answers_are_heard() {
    in_network("probes_leave_by_a_device_without_ethernet", || async {
        let (_answers, told) = watch::channel(true);
        tokio::spawn(far_end(make_tun(), told));
        let mut checker = Icmp::new(3, *b"01234567");
        checker.bind(&link())?;
        // The far end, as nobody else is named.
        assert_eq!(checker.send(1), Ok(1));
        let from = IpAddr::V4(FAR4);
        assert_eq!(next(&mut checker).await, Some(Reply { round: 1, from, who: 0 }));
        // Larger ones, several, and each target known by its place.
        let echo = Echo { count: 2, size: 1_000, dont_fragment: true };
        checker.aim(echo, &[IpAddr::V4(FAR4), IpAddr::V6(TARGET6)], None);
        assert_eq!(checker.send(2), Ok(2));
        let mut heard = Vec::new();
        for _ in 0..4 {
            heard.extend(next(&mut checker).await.map(|reply| (reply.round, reply.who)));
        }
        heard.sort_unstable();
        assert_eq!(heard, [(2, 0), (2, 0), (2, 1), (2, 1)]);
        // In turn.
        checker.aim(Echo::default(), &[IpAddr::V4(FAR4), IpAddr::V6(TARGET6)], Some(1));
        for round in 3..7 {
            assert_eq!(checker.send(round), Ok(1));
            let who = next(&mut checker).await.map(|reply| reply.who);
            assert!(who.is_some(), "round {round}");
            heard.push((round, who.unwrap_or_default()));
        }
        assert_eq!(heard.iter().filter(|(round, who)| *round > 2 && *who == 0).count(), 2);
        // Without a gateway there must be a target.
        checker.aim(Echo::default(), &[], None);
        let mut lonely = link();
        lonely.v4 = lonely.v4.map(|hop| Hop { gateway: None, ..hop });
        checker.bind(&lonely)?;
        assert_eq!(checker.send(9), Err(Cause::NoTarget));
        Ok::<_, io::Error>(())
    });
}

#[test]
fn a_wan_without_ethernet_goes_down_and_comes_back() {
    in_network("a_wan_without_ethernet_goes_down_and_comes_back", || async {
        let (answers, told) = watch::channel(true);
        tokio::spawn(far_end(make_tun(), told));
        let schedule = Schedule {
            interval: INTERVAL,
            settings: Settings {
                retries: 3,
                failback_after: INTERVAL * 2,
                hold_down_max: Duration::ZERO,
            },
            thresholds: Thresholds {
                latency: SOON,
                jitter: SOON,
                loss: 1.0,
                recover_after: INTERVAL,
            },
            plan: Plan {
                ways: vec![Way::Ping { echo: Echo::default(), targets: Vec::new() }],
                quorum: 1,
                per_round: None,
                timeout: SOON,
            },
            budget: None,
        };
        let (_schedule, schedules) = watch::channel(schedule);
        let (_link, links) = watch::channel(link());
        let (_passed, passes) = watch::channel(Passed::default());
        let (told, mut reports) = mpsc::channel(64);
        let checker = Prober::new("wan", 1, "tun0", *b"01234567");
        let watched = Told { schedule: schedules, link: links, passed: passes };
        tokio::spawn(super::watch(1, Start::Unknown, 7, watched, checker, told));
        for (answered, wanted) in [(true, State::Up), (false, State::Down), (true, State::Up)] {
            answers.send_replace(answered);
            let change = async {
                while let Some(report) = reports.recv().await {
                    if report.state == wanted {
                        return;
                    }
                }
            };
            let in_time = tokio::time::timeout(SOON, change).await.is_ok();
            assert!(in_time, "not {wanted:?} within {SOON:?}");
        }
        Ok::<_, io::Error>(())
    });
}

#[test]
fn packets_that_were_turned_round_prove_nothing() {
    let before = Passed { out: 10, back: 100, syns: 1, answers: 1, turned: 50 };
    // Out, back, SYNs and answers that have passed, and how many were turned round.
    for ([out, back, syns, answers, turned], expected) in [
        ([0, 0, 0, 0, 0], [0, 0, 0, 0]),
        ([5, 7, 1, 2, 0], [5, 7, 1, 2]),
        // Only round; the counters are read one after the other.
        ([0, 40, 2, 2, 40], [0, 0, 0, 0]),
        ([0, 50, 2, 2, 40], [0, 0, 0, 0]),
        // Beside traffic that left, and came back.
        ([20, 90, 2, 2, 40], [20, 30, 2, 2]),
    ] {
        let now = Passed {
            out: before.out + out,
            back: before.back + back,
            syns: before.syns + syns,
            answers: before.answers + answers,
            turned: before.turned + turned,
        };
        let is = now.since(&before);
        let is = [is.out_packets, is.back_packets, is.syns_out, is.synacks_back];
        assert_eq!(is, expected, "{out} {back} {turned}");
    }
    // A data plane that was made anew.
    assert_eq!(Passed::default().since(&before), super::pace::Sample::default());
}
