//! The lab itself: what it is set to is what it does, plain Linux passes the
//! checks that our gateway must pass, and it always goes away.

use std::{
    io::{BufRead as _, BufReader},
    net::{IpAddr, SocketAddr},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{Case, Lane, checks, skip};
use crate::lab::{
    Direction, KernelGateway, KernelRouting, Lab, LabSpec, LinkSpec, Loss, Process, Shape,
    address::{provider4, wan4},
    capture::{Capture, Passing},
    is_emulated,
    traffic::{Iperf, IperfServer, UdpServer, UdpStream, ping},
    wait_until,
};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(Lane::Alone, "a_link_measures_as_it_is_set", a_link_measures_as_it_is_set),
        Case::new(
            Lane::Together,
            "a_blackhole_swallows_one_direction",
            a_blackhole_swallows_one_direction,
        ),
        Case::new(Lane::Alone, "a_lost_carrier_comes_back", a_lost_carrier_comes_back),
        Case::new(
            Lane::Together,
            "a_killed_relay_cuts_its_link_alone",
            a_killed_relay_cuts_its_link_alone,
        ),
        Case::new(Lane::Alone, "plain_linux_carries_all_traffic", plain_linux_carries_all_traffic),
        Case::new(
            Lane::Alone,
            "plain_linux_carries_all_through_relays",
            plain_linux_carries_all_through_relays,
        ),
        Case::new(Lane::Together, "plain_linux_leaks_nothing", plain_linux_leaks_nothing),
        Case::new(Lane::Together, "labs_side_by_side_do_not_disturb_each_other", labs_side_by_side),
        Case::new(Lane::Together, "a_lab_goes_when_it_is_dropped", a_lab_goes_when_it_is_dropped),
        Case::new(Lane::Together, "a_lab_goes_after_a_panic", || goes_after(Some("panic"), None)),
        Case::new(Lane::Together, "a_lab_goes_after_an_interrupt", || {
            goes_after(None, Some(Signal::SIGINT))
        }),
        Case::new(Lane::Together, "a_lab_goes_after_a_kill", || {
            goes_after(None, Some(Signal::SIGKILL))
        }),
    ]
}

/// 50 Mbit/s, 20 ms, 1 % loss, within 10 %, in both directions; and every frame
/// is accounted for.
fn a_link_measures_as_it_is_set() -> Result<()> {
    const RATE: u64 = 50_000_000;
    const DELAY: Duration = Duration::from_millis(20);
    const LOSS: f64 = 0.01;
    // Ethernet, IPv4 and UDP headers.
    const HEADERS: u64 = 14 + 20 + 8;
    if is_emulated() {
        return skip(
            "50 Mbit/s within 10 % is beyond an emulated machine; \
             netem_and_the_relay_do_the_same measures one that it can do",
        );
    }
    let lossless = LinkSpec { seed: 42, ..LinkSpec::new(RATE, DELAY) };
    let lossy = lossless.clone().with_loss(Loss::Random(LOSS));
    let shape = Shape::both(&lossy);
    let lab = Lab::new(&LabSpec::shaped([shape]))?;
    let near = SocketAddr::from((wan4(0), 4000));
    let far = SocketAddr::from((provider4(0), 4000));

    // Neighbours first, so that no datagram waits for ARP.
    wait_until("the link answers", Duration::from_secs(5), || {
        Ok(ping(lab.gw(), provider4(0).into(), 1, Duration::ZERO, &[])?.received == 1)
    })?;
    let report = ping(lab.gw(), provider4(0).into(), 100, Duration::from_millis(10), &[])?;
    let trip = report.median().context("no reply at all")?;
    within("round trip in ms", trip.as_secs_f64() * 1e3, 2.0 * DELAY.as_secs_f64() * 1e3)?;

    for (direction, from, namespace, to) in
        [(Direction::Up, lab.gw(), lab.isp(0), far), (Direction::Down, lab.isp(0), lab.gw(), near)]
    {
        let server = UdpServer::start(namespace, to)?;
        // Well below the rate for the loss alone.
        let before = lab.wan(0).stats()?.direction(direction);
        // Without a seed the loss is a sample: 160,000 hold it within 10 % at
        // four standard deviations.
        let count = if lab.wan(0).relay_id()?.is_some() { 40_000 } else { 160_000 };
        let stream =
            UdpStream { echo: false, size: 64, ..UdpStream::new(count, Duration::from_micros(40)) };
        let report = stream.run(from, &server)?;
        let after = lab.wan(0).stats()?.direction(direction);
        within("loss in %", 100.0 * report.there.lost as f64 / report.sent as f64, 100.0 * LOSS)?;
        ensure!(report.sent == count, "{} of {count} sent", report.sent);
        ensure!(report.there.duplicated == 0 && report.there.reordered == 0, "{report:?}");
        // Neighbour discovery may add a frame or two of its own.
        let lost = after.lost - before.lost;
        ensure!(
            report.there.lost.abs_diff(lost) <= 2,
            "{} datagrams missing, {lost} frames lost by the relay: {after:?}",
            report.there.lost
        );
        ensure!(after.overflowed == before.overflowed, "less than the rate overflowed: {after:?}");
        ensure!(after.missed + after.refused == 0, "the relay was too slow: {after:?}");

        // Twice the rate for the rate; without loss, so that drops are overflow.
        lab.wan(0).set(direction, lossless.clone())?;
        let before = lab.wan(0).stats()?.direction(direction);
        let stream = UdpStream { size: 1400, count: 16_000, ..stream };
        let stream = UdpStream { interval: Duration::from_micros(115), ..stream };
        let start = Instant::now();
        let report = stream.run(from, &server)?;
        let took = start.elapsed();
        ensure!(took < Duration::from_secs(8), "sending took {took:?}");
        let after = lab.wan(0).stats()?.direction(direction);
        let span = report.there.span.as_secs_f64();
        let bits = (report.there.received - 1) * (1400 + HEADERS) * 8;
        within("rate in Mbit/s", bits as f64 / span / 1e6, RATE as f64 / 1e6)?;
        ensure!(after.overflowed > before.overflowed, "twice the rate did not overflow: {after:?}");
        ensure!(
            after.received
                == after.delivered + after.lost + after.overflowed + after.waiting + after.refused,
            "a frame is nowhere: {after:?}"
        );
    }

    // Without loss TCP gets nearly all of it, but for its start and headers.
    let server = IperfServer::start(lab.isp(0), far)?;
    for run in [Iperf::tcp(2), Iperf::tcp(2).reversed()] {
        let report = run.run(lab.gw(), &server)?;
        let share = report.received_rate / RATE as f64;
        ensure!((0.75..0.97).contains(&share), "TCP gets {share:.3} of the rate: {report:?}");
    }
    Ok(())
}

fn within(what: &str, measured: f64, set: f64) -> Result<()> {
    ensure!((measured - set).abs() <= 0.1 * set, "{what}: {measured:.3} measured, {set:.3} set");
    Ok(())
}

fn a_blackhole_swallows_one_direction() -> Result<()> {
    let lab = Lab::new(&LabSpec::relayed(1))?;
    let answers = || -> Result<bool> {
        Ok(ping(lab.gw(), provider4(0).into(), 1, Duration::ZERO, &[])?.received == 1)
    };
    ensure!(answers()?, "the link does not answer");
    for direction in Direction::BOTH {
        lab.wan(0).blackhole(&[direction], true)?;
        let before = lab.wan(0).stats()?;
        ensure!(!answers()?, "an answer through a blackhole: {direction:?}");
        let after = lab.wan(0).stats()?;
        let swallowed = |direction| {
            after.direction(direction).blackholed - before.direction(direction).blackholed
        };
        let other = if direction == Direction::Up { Direction::Down } else { Direction::Up };
        ensure!(swallowed(direction) > 0 && swallowed(other) == 0, "{before:?} {after:?}");
        lab.wan(0).blackhole(&[direction], false)?;
        wait_until("the link answers again", Duration::from_secs(5), answers)?;
    }
    Ok(())
}

/// With and without a relay, and at the provider's far end.
fn a_lost_carrier_comes_back() -> Result<()> {
    let spec = LabSpec {
        wans: [LabSpec::relayed(1).wans, LabSpec::direct(1).wans].concat(),
        ..LabSpec::default()
    };
    let lab = Lab::new(&spec)?;
    for wan in lab.wans() {
        let device = wan.device();
        let reaches = |to: IpAddr| -> Result<bool> {
            Ok(ping(lab.gw(), to, 1, Duration::ZERO, &["-I", &device])?.received == 1)
        };
        let carrier = || -> Result<bool> { Ok(lab.gw().link_json(&device)?["operstate"] == "UP") };
        for to in checks::FAMILIES {
            ensure!(reaches(to)?, "{device} does not reach {to}");
        }
        wan.carrier(false)?;
        wait_until("the carrier is lost", Duration::from_secs(2), || Ok(!carrier()?))?;
        wan.carrier(true)?;
        wait_until("the carrier is back", Duration::from_secs(2), carrier)?;
        for to in checks::FAMILIES {
            wait_until("the Internet is back", Duration::from_secs(5), || reaches(to))?;
        }
        wan.uplink(false)?;
        ensure!(!reaches(checks::FAMILIES[0])?, "the provider still forwards");
        ensure!(reaches(provider4(wan.index()).into())?, "the provider itself is gone");
        wan.uplink(true)?;
        wait_until("the Internet is back", Duration::from_secs(5), || {
            reaches(checks::FAMILIES[0])
        })?;
    }
    Ok(())
}

fn a_killed_relay_cuts_its_link_alone() -> Result<()> {
    // The relay, also where the kernel has netem.
    let shape = Shape { by_relay: true, ..Shape::default() };
    let lab = Lab::new(&LabSpec::shaped([shape.clone(), shape]))?;
    let reaches = |index: usize| -> Result<bool> {
        Ok(ping(lab.gw(), provider4(index).into(), 1, Duration::ZERO, &[])?.received == 1)
    };
    wait_until("both links answer", Duration::from_secs(5), || Ok(reaches(0)? && reaches(1)?))?;
    let relay = lab.wan(0).relay_id()?.context("netem was taken where the relay was wanted")?;
    kill(Pid::from_raw(relay.cast_signed()), Signal::SIGKILL)?;
    wait_until("the first link is cut", Duration::from_secs(5), || Ok(!reaches(0)?))?;
    ensure!(reaches(1)?, "the other link is cut too");
    ensure!(lab.wan(0).stats().is_err(), "a dead relay answers");
    Ok(())
}

fn plain_linux_carries_all_traffic() -> Result<()> {
    let lab = Lab::new(&LabSpec::direct(3))?;
    let _gateway = KernelGateway::start(&lab, KernelRouting::Multipath)?;
    carries_all(&lab)?;
    checks::bulk_flows(&lab, 1)
}

fn plain_linux_carries_all_through_relays() -> Result<()> {
    let lab = Lab::new(&LabSpec::relayed(3))?;
    let _gateway = KernelGateway::start(&lab, KernelRouting::Multipath)?;
    carries_all(&lab)?;
    checks::bulk_flows(&lab, 1)?;
    for wan in lab.wans() {
        let stats = wan.stats()?;
        for direction in Direction::BOTH {
            let stats = stats.direction(direction);
            ensure!(stats.oversized + stats.missed + stats.lost == 0, "{direction:?}: {stats:?}");
        }
    }
    Ok(())
}

fn carries_all(lab: &Lab) -> Result<()> {
    checks::pings_pass(lab)?;
    checks::transfers_are_whole(lab, 10 << 20)?;
    checks::downloads_are_whole(lab, 20 << 20)?;
    checks::datagrams_arrive_once(lab, 2000)?;
    for to in checks::FAMILIES {
        let server = crate::lab::traffic::EchoServer::start(lab.net(), SocketAddr::new(to, 7))?;
        let used = checks::spread(lab, server.address(), 300)?;
        ensure!(used.iter().all(|&flows| flows > 50), "{to}: flows a WAN: {used:?}");
    }
    Ok(())
}

/// The audit finds nothing with masquerading, and finds a leak without it.
fn plain_linux_leaks_nothing() -> Result<()> {
    let lab = Lab::new(&LabSpec::direct(1))?;
    {
        let _gateway = KernelGateway::start(&lab, KernelRouting::First)?;
        let capture = Capture::start(lab.isp(0), "gw0", Passing::In, "ip or ip6")?;
        checks::pings_pass(&lab)?;
        checks::datagrams_arrive_once(&lab, 500)?;
        let captured = capture.finish()?;
        ensure!(captured.audit_leaks()? >= 240, "the capture missed packets");
        captured.audit_checksums()?;
    }
    let capture = Capture::start(lab.isp(0), "gw0", Passing::In, "ip or ip6")?;
    let report = ping(lab.host(), checks::FAMILIES[0], 1, Duration::ZERO, &[])?;
    ensure!(report.received == 0, "an inside address is routed outside");
    ensure!(capture.finish()?.audit_leaks().is_err(), "a leak was not noticed");
    Ok(())
}

/// Three labs at once, each with its own traffic; the end of one is nothing to
/// the others.
fn labs_side_by_side() -> Result<()> {
    let build = || -> Result<(Lab, KernelGateway)> {
        let lab = Lab::new(&LabSpec::relayed(1))?;
        let gateway = KernelGateway::start(&lab, KernelRouting::First)?;
        Ok((lab, gateway))
    };
    let (first, second, third) = (build()?, build()?, build()?);
    let prefixes = [first.0.prefix(), second.0.prefix(), third.0.prefix()];
    ensure!(prefixes[0] != prefixes[1] && prefixes[1] != prefixes[2], "{prefixes:?}");
    thread::scope(|scope| {
        let work = scope.spawn(|| {
            checks::datagrams_arrive_once(&first.0, 3000)?;
            checks::transfers_are_whole(&first.0, 1 << 20)
        });
        let other = scope.spawn(|| checks::datagrams_arrive_once(&second.0, 3000));
        drop(third);
        for thread in [work, other] {
            thread.join().map_err(|_| anyhow!("a check panicked"))??;
        }
        Ok(())
    })
}

fn a_lab_goes_when_it_is_dropped() -> Result<()> {
    let lab = Lab::new(&LabSpec::relayed(1))?;
    let prefix = lab.prefix().to_owned();
    // Deliberately not killed by its handle.
    std::mem::forget(lab.host().spawn("sleep", ["600"])?);
    ensure!(!traces_of(&prefix)?.is_empty(), "there is no lab");
    drop(lab);
    let traces = traces_of(&prefix)?;
    ensure!(traces.is_empty(), "left behind: {traces:?}");
    Ok(())
}

/// A lab in another process, which ends in a bad way.
fn goes_after(argument: Option<&str>, signal: Option<Signal>) -> Result<()> {
    let mut command = Command::new("/proc/self/exe");
    command.arg(VICTIM).args(argument).stdin(Stdio::piped()).stdout(Stdio::piped());
    command.stderr(Stdio::null());
    let mut victim = Victim(command.spawn().context("cannot start the victim")?);
    let mut prefix = String::new();
    let output = victim.0.stdout.take().context("the victim has an output")?;
    BufReader::new(output).read_line(&mut prefix)?;
    let prefix = prefix.trim().to_owned();
    ensure!(!prefix.is_empty(), "the victim did not build a lab");
    if signal.is_some() {
        let traces = traces_of(&prefix)?;
        for trace in ["namespace", "directory", "process"] {
            ensure!(traces.iter().any(|found| found.starts_with(trace)), "no {trace}: {traces:?}");
        }
    }
    match signal {
        Some(signal) => kill(Pid::from_raw(victim.0.id().cast_signed()), signal)?,
        // It panics when its input ends.
        None => drop(victim.0.stdin.take()),
    }
    let status = victim.0.wait()?;
    ensure!(!status.success(), "the victim lived: {status}");
    wait_until("the lab is gone", Duration::from_secs(10), || {
        let traces = traces_of(&prefix)?;
        if !traces.is_empty() {
            bail!("left behind: {traces:?}");
        }
        Ok(true)
    })
    .map(drop)
}

struct Victim(Child);

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// First argument of a process that builds a lab and comes to a bad end.
pub(super) const VICTIM: &str = "lab-victim";

/// Builds a lab with something of everything, says its prefix, and waits to be
/// killed, or panics when its input ends.
pub(super) fn victim() -> Result<()> {
    let lab = Lab::new(&LabSpec::relayed(1))?;
    std::fs::create_dir_all(Path::new(crate::lab::PINS).join(lab.prefix()))?;
    let sleeper: Process = lab.host().spawn("sleep", ["600"])?;
    println!("{}", lab.prefix());
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    // The handle keeps it alive until here.
    drop(sleeper);
    panic!("the end of the input is the sign to panic");
}

/// What there is of a lab on this machine.
fn traces_of(prefix: &str) -> Result<Vec<String>> {
    let mut traces = Vec::new();
    let mut inodes = Vec::new();
    for entry in std::fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(prefix) {
            use std::os::unix::fs::MetadataExt as _;
            inodes.extend(entry.path().metadata().map(|metadata| metadata.ino()));
            traces.push(format!("namespace {name}"));
        }
    }
    for directory in [std::env::temp_dir(), crate::lab::PINS.into()] {
        let path = directory.join(prefix);
        if path.exists() {
            traces.push(format!("directory {}", path.display()));
        }
    }
    for entry in std::fs::read_dir("/proc")?.flatten() {
        use std::os::unix::fs::MetadataExt as _;
        let namespace = entry.path().join("ns/net");
        if namespace.metadata().is_ok_and(|metadata| inodes.contains(&metadata.ino())) {
            traces.push(format!("process {}", entry.file_name().to_string_lossy()));
        }
    }
    Ok(traces)
}
