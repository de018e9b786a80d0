//! The programs under a fuzzer: both entry points in both forms get real packets
//! that were spoilt, by `BPF_PROG_TEST_RUN`, and keep their contracts:
//!
//! 1. The kernel runs every packet, and the verdict is one of three.
//! 2. Every packet is counted exactly once, in the end, under a reason that
//!    means what happened to it. What the XDP form hands over goes on through
//!    the TC form; what is turned round comes in again.
//! 3. A checksum is as right, or as wrong, as it was: nothing is broken, and
//!    nothing that was broken is made good.
//! 4. What leaves has an address and a port of its path, the station of its next
//!    hop, one hop less, its own length; nothing else has changed. An outside
//!    endpoint is never two inside endpoints'.
//! 5. What is delivered goes to the owner of the endpoint that it came to, from
//!    someone whom the filter admits.
//! 6. What the kernel gets is as it came.
//! 7. An ICMP error of our own is well formed and quotes what came.
//!
//! `craft` makes packets, `mutate` spoils them, `engine` runs them, `view` reads
//! them without the project's parser, `model` remembers, `check` judges,
//! `episode` puts it together. A failure is shrunk and written down.
//!
//! Without being told a run is short, and the same every time. `cargo xtask
//! fuzz programs` makes it long, by the variables `MWB_FUZZ_…`.

mod check;
mod craft;
mod engine;
mod episode;
mod found;
mod model;
mod mutate;
mod random;
mod record;
mod shrink;
mod view;

#[path = "../prog_run/packet.rs"]
#[expect(
    dead_code,
    reason = "the builder of the table tests, which makes more than is needed here"
)]
mod packet;
#[path = "../prog_run/world.rs"]
#[expect(dead_code, reason = "the little world of the table tests, larger than is needed here")]
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use mwb_agent::dataplane::Hook;
use nix::sched::{CloneFlags, unshare};

use crate::engine::{Engine, Setting};
use crate::episode::Tally;
use crate::random::Random;

/// Packets of a run that nobody has told how long to be.
const SHORT: u64 = 200_000;
/// The seed of such a run.
const SEED: u64 = 0x6d77_6200;
/// Packets of one episode.
const EPISODE: usize = 4_096;
/// Most different failures that a run writes down.
const FAILURES: usize = 8;

/// What the environment says.
struct Plan {
    seed: u64,
    inputs: u64,
    until: Option<Instant>,
    workers: usize,
    repeat: Option<PathBuf>,
    forms: Vec<Hook>,
    directory: PathBuf,
}

impl Plan {
    fn read() -> Plan {
        let text = |name: &str| std::env::var(format!("MWB_FUZZ_{name}")).ok();
        let number = |name: &str| {
            text(name).map(|text| text.parse::<u64>().unwrap_or_else(|_| panic!("{name}={text}")))
        };
        let seconds = number("SECONDS").map(Duration::from_secs);
        let forms = match text("FORM").as_deref() {
            None => vec![Hook::Xdp, Hook::Tcx],
            Some("xdp") => vec![Hook::Xdp],
            Some("tcx") => vec![Hook::Tcx],
            Some(other) => panic!("FORM={other}"),
        };
        Plan {
            seed: number("SEED").unwrap_or(SEED),
            inputs: number("INPUTS").unwrap_or(if seconds.is_some() { u64::MAX } else { SHORT }),
            until: seconds.map(|seconds| Instant::now() + seconds),
            workers: number("WORKERS").map_or(1, |workers| workers as usize),
            repeat: text("REPEAT").map(PathBuf::from),
            forms,
            directory: text("FAILURES")
                .map_or_else(|| std::env::temp_dir().join("mwb-fuzz"), PathBuf::from),
        }
    }
}

/// What one worker has done.
#[derive(Default)]
struct Done {
    episodes: u64,
    /// By the name of the form.
    met: BTreeMap<&'static str, Met>,
    failures: Vec<String>,
    kinds: BTreeSet<String>,
}

/// What one form has met.
#[derive(Default)]
struct Met {
    inputs: u64,
    tally: Tally,
}

impl Met {
    fn add(&mut self, inputs: u64, tally: Tally) {
        self.inputs += inputs;
        for (row, packets) in tally {
            *self.tally.entry(row).or_default() += packets;
        }
    }
}

impl Done {
    fn inputs(&self) -> u64 {
        self.met.values().map(|met| met.inputs).sum()
    }
}

#[test]
fn mutated_packets_break_no_contract() {
    let plan = Plan::read();
    let started = Instant::now();
    let results: Vec<Result<Done, String>> = thread::scope(|scope| {
        let workers: Vec<_> = (0..plan.workers)
            .map(|worker| {
                let plan = &plan;
                scope.spawn(move || make_network().map(|lan| work(plan, worker, lan)))
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().expect("a worker")).collect()
    });
    let mut all = Done::default();
    for result in results {
        match result {
            Ok(done) => {
                all.episodes += done.episodes;
                all.failures.extend(done.failures);
                for (form, met) in done.met {
                    all.met.entry(form).or_default().add(met.inputs, met.tally);
                }
            }
            Err(why) => {
                return println!("skipped: mutated_packets_break_no_contract: {why}");
            }
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    let inputs = all.inputs();
    let each = inputs as f64 / seconds;
    println!(
        "{inputs} packets in {} episodes, {seconds:.1} s, {each:.0} a second, seed {}",
        all.episodes, plan.seed
    );
    for (form, met) in &all.met {
        for ((direction, reason), packets) in &met.tally {
            println!("{form} {direction:>5} {reason:<26} {packets:>12}");
        }
    }
    assert!(all.failures.is_empty(), "contracts broken:\n{}", all.failures.join("\n"));
    if plan.repeat.is_none() {
        for form in &plan.forms {
            let form = form.name();
            met_everything(form, all.met.get(form).unwrap_or(&Met::default()));
        }
    }
}

/// A fuzzer that does not get in proves nothing, and one form does not prove the
/// other.
fn met_everything(form: &str, met: &Met) {
    for direction in ["out", "in"] {
        let row = met.tally.iter().find(|(row, _)| **row == (direction, "forwarded"));
        let forwarded = row.map_or(0, |(_, packets)| *packets);
        let share = forwarded as f64 / met.inputs.max(1) as f64;
        assert!(share > 0.02, "only {share:.3} of {form}'s packets were sent on {direction}");
    }
    let known = episode::reasons();
    let is_met = |reason: &&&str| met.tally.keys().any(|row| row.1 == **reason);
    let reasons = known.iter().filter(is_met).count();
    assert!(reasons >= 20, "{form} met only {reasons} of {} reasons", known.len());
}

fn work(plan: &Plan, worker: usize, lan: u32) -> Done {
    let mut done = Done::default();
    let setting = first_setting();
    let mut engines: Vec<Engine> = plan
        .forms
        .iter()
        .map(|form| Engine::open(*form, lan, setting).expect("a data plane"))
        .collect();
    if let Some(file) = &plan.repeat {
        let text = std::fs::read_to_string(file).expect("the file of a failure");
        let steps = record::read(&text).expect("the file of a failure");
        for engine in &mut engines {
            match episode::replay(engine, &steps) {
                Ok(inputs) => done.met.entry(engine.form().name()).or_default().inputs += inputs,
                Err(wrong) => done.failures.push(format!("{}: {wrong}", engine.form().name())),
            }
        }
        return done;
    }
    let mut seeds = Random::new(plan.seed.wrapping_add(worker as u64));
    let share = plan.inputs / plan.workers as u64;
    while done.inputs() < share && plan.until.is_none_or(|until| Instant::now() < until) {
        let turn = done.episodes as usize % engines.len();
        done.episodes += 1;
        let engine = &mut engines[turn];
        let seed = seeds.next();
        match episode::run(engine, seed, EPISODE) {
            Ok((inputs, tally)) => {
                done.met.entry(engine.form().name()).or_default().add(inputs, tally);
            }
            Err(failure) => {
                let form = engine.form().name();
                // Figures apart, each kind of failure is wanted once.
                let kind = kind_of(&failure.wrong);
                if !done.kinds.insert(kind) {
                    continue;
                }
                let failure = shrink::shrink(engine, *failure);
                let written = shrink::write_down(&plan.directory, form, seed, &failure);
                let place =
                    written.map_or_else(|e| e.to_string(), |file| file.display().to_string());
                done.failures.push(format!(
                    "{form}, {} steps in {place}: {}",
                    failure.steps.len(),
                    failure.wrong
                ));
                if done.failures.len() >= FAILURES {
                    break;
                }
            }
        }
    }
    done
}

/// The first words of a failure, without its figures.
fn kind_of(wrong: &str) -> String {
    wrong.chars().filter(|letter| !letter.is_ascii_hexdigit()).take(20).collect()
}

/// What a data plane is opened with, before an episode says otherwise.
fn first_setting() -> Setting {
    Setting::of_words([3, 3, 3, 1, 1, 0, 0, 0, 0, 0, 1, 1, 2, 1_500, 65_535])
}

/// Runs `test` in a network of its own; its argument is the index of the LAN
/// device. Says why if that cannot be had here.
fn in_network(name: &str, test: impl FnOnce(u32) + Send) {
    let result = thread::scope(|scope| {
        scope
            .spawn(|| match make_network() {
                Ok(lan) => test(lan),
                Err(why) => println!("skipped: {name}: {why}"),
            })
            .join()
    });
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

/// A network of this thread's own with the little world's LAN in it; gives the
/// index of the LAN device. The namespace ends with the thread.
fn make_network() -> Result<u32, String> {
    if !nix::unistd::geteuid().is_root() {
        return Err("needs root".to_owned());
    }
    unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| format!("no network namespace: {errno}"))?;
    for line in world::NETWORK {
        let status = Command::new("ip")
            .args(line.split_whitespace())
            .status()
            .map_err(|error| format!("no `ip` (Debian: iproute2): {error}"))?;
        assert!(status.success(), "`ip {line}` failed");
    }
    for switch in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        std::fs::write(format!("/proc/sys/net/{switch}"), "1")
            .map_err(|error| format!("{switch}: {error}"))?;
    }
    nix::net::if_::if_nametoindex("lan0").map_err(|errno| format!("lan0: {errno}"))
}
