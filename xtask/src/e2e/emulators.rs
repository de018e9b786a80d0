//! The two emulators of a link, the kernel's netem and our relay, do the same
//! with the same profile: what is proven over one holds over the other. Where
//! the kernel has no netem (and no fq) there is nothing to compare.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};

use super::{Case, Lane, skip};
use crate::lab::{
    Direction, Lab, LabSpec, LinkSpec, Loss, Namespace, Shape,
    address::{provider4, wan4},
    is_emulated,
    traffic::{Iperf, IperfServer, UdpServer, UdpStream, ping},
    wait_until,
};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(Lane::Alone, "netem_and_the_relay_do_the_same", netem_and_the_relay_do_the_same),
        Case::new(Lane::Together, "hosts_pace_with_fq", hosts_pace_with_fq),
    ]
}

/// The profile: slow enough for an emulated machine to keep up with.
const RATE: u64 = 8_000_000;
const DELAY: Duration = Duration::from_millis(30);
const JITTER: Duration = Duration::from_millis(10);
const LOSS: f64 = 0.05;
/// Per packet, of entering and of leaving a burst of loss: 4 % in bursts of 4.
const BURST: (f64, f64) = (0.01, 0.25);
/// Share of packets that overtake.
const REORDER: f64 = 0.25;
/// Of a datagram on the wire: Ethernet, IPv4 and UDP headers.
const HEADERS: u64 = 14 + 20 + 8;

/// What a link does, measured from outside.
#[derive(Debug)]
struct Behaviour {
    /// Round trip in the middle, and how far round trips scatter, in ms.
    trip: f64,
    scatter: f64,
    /// Share of datagrams lost.
    loss: f64,
    /// Share of datagrams that arrived behind a later one, where none was to.
    disorder: f64,
    /// Share of datagrams lost in bursts, and how many in one.
    burst_loss: f64,
    burst_length: f64,
    /// Share of datagrams that were overtaken.
    overtaken: f64,
    /// Bits per second that come out when twice the rate goes in.
    rate: f64,
    /// Round trip beside that, in ms: with the queue full.
    full: f64,
    /// What TCP gets, in bits per second.
    tcp: f64,
    /// Share of datagrams in a blackhole that arrive.
    through_blackhole: f64,
}

fn netem_and_the_relay_do_the_same() -> Result<()> {
    let lossless = LinkSpec { jitter: JITTER, seed: 7, ..LinkSpec::new(RATE, DELAY) };
    // With one seed the relay would delay a request and its reply alike.
    let down = LinkSpec { seed: 8, ..lossless.clone() };
    let shapes =
        [true, false].map(|by_relay| Shape { by_relay, up: lossless.clone(), down: down.clone() });
    let lab = Lab::new(&LabSpec::shaped(shapes))?;
    ensure!(lab.wan(0).relay_id()?.is_some(), "netem was taken where the relay was wanted");
    if lab.wan(1).relay_id()?.is_some() {
        return skip("this kernel has no netem");
    }
    for (direction, spec) in [(Direction::Up, &lossless), (Direction::Down, &down)] {
        let relay = measure(&lab, 0, direction, spec).context("the relay")?;
        let netem = measure(&lab, 1, direction, spec).context("netem")?;
        let both = format!("{direction:?}: relay {relay:?}, netem {netem:?}");
        for link in [&relay, &netem] {
            ensure!(link.through_blackhole == 0.0, "out of a blackhole: {both}");
            // A sender that is moved to another processor may overtake itself.
            let moved = if is_emulated() { 0.005 } else { 0.001 };
            ensure!(link.disorder < moved, "jitter changes the order: {both}");
        }
        // What is set is what both do, within what an emulated machine's clock
        // adds to a round trip.
        for (what, pair, set, share) in [
            ("round trip", [relay.trip, netem.trip], 2e3 * DELAY.as_secs_f64(), 0.15),
            ("loss", [relay.loss, netem.loss], LOSS, 0.2),
            // Some 150 bursts of a length that scatters, and some 90 overtakers that
            // pass one each unless that one overtakes too: four standard deviations.
            (
                "loss in bursts",
                [relay.burst_loss, netem.burst_loss],
                BURST.0 / (BURST.0 + BURST.1),
                0.45,
            ),
            ("length of a burst", [relay.burst_length, netem.burst_length], 1.0 / BURST.1, 0.35),
            ("overtaken", [relay.overtaken, netem.overtaken], REORDER * (1.0 - REORDER), 0.4),
            // Netem sends nothing for the time that an emulated machine wakes it late.
            ("rate", [relay.rate, netem.rate], RATE as f64, if is_emulated() { 0.2 } else { 0.1 }),
            // 100 ms of queue on top.
            ("full queue", [relay.full, netem.full], 2e3 * DELAY.as_secs_f64() + 100.0, 0.2),
        ] {
            for value in pair {
                ensure!((value - set).abs() <= share * set, "{what} is not {set}: {both}");
            }
        }
        for (what, a, b, share) in
            [("scatter", relay.scatter, netem.scatter, 0.4), ("TCP", relay.tcp, netem.tcp, 0.15)]
        {
            ensure!((a - b).abs() <= share * a.max(b), "{what} differs: {both}");
        }
    }
    Ok(())
}

/// Sends all that is told of over WAN `index` in one direction.
fn measure(
    lab: &Lab,
    index: usize,
    direction: Direction,
    lossless: &LinkSpec,
) -> Result<Behaviour> {
    let near = SocketAddr::from((wan4(index), 4000));
    let far = SocketAddr::from((provider4(index), 4000));
    let (from, at, to) = match direction {
        Direction::Up => (lab.gw(), lab.isp(index), far),
        Direction::Down => (lab.isp(index), lab.gw(), near),
    };
    let wan = lab.wan(index);
    wait_until("the link answers", Duration::from_secs(10), || {
        Ok(ping(from, to.ip(), 1, Duration::ZERO, &[])?.received == 1)
    })?;
    let report = ping(from, to.ip(), 200, Duration::from_millis(20), &[])?;
    let trip = report.median().context("no reply")?;
    let scatter = report.scatter().context("no reply")?;

    let server = UdpServer::start(at, to)?;
    let small = |count| UdpStream {
        echo: false,
        size: 64,
        ..UdpStream::new(count, Duration::from_micros(400))
    };
    wan.set(direction, lossless.clone().with_loss(Loss::Random(LOSS)))?;
    let lossy = small(16_000).run(from, &server)?;
    let (enter, leave) = BURST;
    wan.set(direction, lossless.clone().with_loss(Loss::Burst { enter, leave }))?;
    let burst = small(16_000).run(from, &server)?.there;

    // One datagram after the other is half of the delay behind it, so that one
    // which skips the delay overtakes the one before it and no other.
    let steady = LinkSpec { jitter: Duration::ZERO, delay: DELAY / 2, ..lossless.clone() };
    wan.set(direction, LinkSpec { reorder: REORDER, ..steady })?;
    let disordered = UdpStream { echo: false, ..UdpStream::new(500, DELAY / 3) };
    let disordered = disordered.run(from, &server)?.there;
    wan.set(direction, lossless.clone())?;
    wan.blackhole(&[direction], true)?;
    let swallowed = small(200).run(from, &server)?;
    wan.blackhole(&[direction], false)?;

    // A machine that is held up sends less, never more: the second best of three
    // counts.
    let mut counts = Vec::new();
    while counts.len() < 3 && !matches!(counts.as_slice(), [a, b] if good(a) && good(b)) {
        counts.push(overload(lab, index, direction, (from, &server))?);
    }
    counts.sort_by(|(a, _): &(f64, Duration), (b, _)| b.total_cmp(a));
    let (rate, full) = counts[1];

    let server = IperfServer::start(at, SocketAddr::new(to.ip(), 5201))?;
    let tcp = Iperf::tcp(6).run(from, &server)?.received_rate;
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    Ok(Behaviour {
        trip: milliseconds(trip),
        scatter: milliseconds(scatter),
        loss: lossy.there.lost as f64 / lossy.sent as f64,
        disorder: lossy.there.reordered as f64 / lossy.sent as f64,
        burst_loss: burst.lost as f64 / (burst.lost + burst.received) as f64,
        burst_length: burst.lost as f64 / burst.lost_runs as f64,
        overtaken: disordered.reordered as f64 / disordered.received as f64,
        rate,
        full: milliseconds(full),
        tcp,
        through_blackhole: swallowed.there.received as f64 / swallowed.sent as f64,
    })
}

fn good((rate, _): &(f64, Duration)) -> bool {
    *rate > 0.95 * RATE as f64
}

/// What comes out of WAN `index`, in bits per second, when twice the rate goes
/// in, and the round trip beside it.
fn overload(
    lab: &Lab,
    index: usize,
    direction: Direction,
    (from, server): (&Namespace, &UdpServer),
) -> Result<(f64, Duration)> {
    let overflowed =
        || Ok::<_, anyhow::Error>(lab.wan(index).stats()?.direction(direction).overflowed);
    let before = overflowed()?;
    let stream =
        UdpStream { echo: false, size: 1400, ..UdpStream::new(6_000, Duration::from_micros(700)) };
    let run = stream.start(from, server)?;
    wait_until("the queue is full", Duration::from_secs(5), || Ok(overflowed()? > before))?;
    let beside = ping(from, server.address().ip(), 50, Duration::from_millis(40), &[])?;
    let full = beside.median().context("no reply beside the stream")?;
    let overload = run.finish()?;
    ensure!(overload.there.lost > 0, "twice the rate fits: {overload:?}");
    let span = overload.there.span.as_secs_f64();
    Ok((((overload.there.received - 1) * (1400 + HEADERS) * 8) as f64 / span, full))
}

/// The hosts of the lab pace as servers of the Internet do.
fn hosts_pace_with_fq() -> Result<()> {
    let lab = Lab::new(&LabSpec::direct(1))?;
    let mut paced = Vec::new();
    for (namespace, device) in [(lab.host(), "lan0"), (lab.net(), "isp0")] {
        let text = namespace.run("tc", ["-j", "qdisc", "show", "dev", device])?;
        paced.push(text.contains(r#""kind":"fq""#));
    }
    match paced.as_slice() {
        [true, true] => Ok(()),
        [false, false] if lab.host().tc("qdisc add dev lo root fq\n").is_err() => {
            skip("this kernel has no fq")
        }
        _ => anyhow::bail!("fq is there, and paces (host, Internet): {paced:?}"),
    }
}
