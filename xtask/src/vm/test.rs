//! `cargo xtask vm test`: the tests of this machine in fresh guests, on every
//! kernel, and the count of each. Built once here; guests build nothing.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::cache::{Cache, Kernel};
use super::ending::{self, Ending};
use super::guest::{Limits, Machine, Remains, Scratch};
use super::pack::{self, Job};
use super::pieces::{Piece, Reader, Source};
use super::proof::{self, Trial};
use super::work::{self, Work};
use super::{PROMISED, inside, parts, smoke};
use crate::build::{self, Artifacts};
use crate::only::Only;
use crate::outcome::{Outcome, Verdict};
use crate::test::report::Report;
use crate::test::test_binaries;
use crate::{e2e, setup, workspace};

/// Documents that tests of the agent read, at the top of the checkout.
const DOCUMENTS: [&str; 2] = ["deploy", "docs"];
/// MiB of one guest.
const MEMORY: u32 = 2048;
/// MiB that QEMU needs besides.
const OVERHEAD: u32 = 512;
/// No test of ours is silent for so long. One that runs whole takes minutes where nothing
/// is emulated, and may be silent for [`WHOLE`] times as long.
const SILENCE: Duration = Duration::from_secs(600);
const TOTAL: Duration = Duration::from_secs(2 * 3600);
const WHOLE: u32 = 10;

/// Arguments of `cargo xtask vm test`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The kernels.
    #[arg(long, value_name = "KERNEL,…", value_delimiter = ',', default_values = PROMISED)]
    kernel: Vec<Kernel>,
    #[command(flatten)]
    only: Only,
    /// Load every program, and send one packet along each path.
    #[arg(long, conflicts_with = "patterns")]
    smoke: bool,
    /// Guests at once; by default as many as there are processors and memory.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    guests: Option<u32>,
}

impl Args {
    fn wants(&self, name: &str) -> bool {
        if self.smoke {
            return smoke::wants(name);
        }
        self.only.wants(name)
    }
}

/// Runs the command. A kernel that cannot be had is told, and makes it fail: it was
/// asked for.
///
/// # Errors
/// When the build fails, or a smoke test is not there.
pub(super) fn command(args: &Args) -> Result<ExitCode> {
    let cache = Cache::open()?;
    let (kernels, lacking) = parts::ensure_each(&cache, &args.kernel);
    for lack in &lacking {
        println!("{lack}");
    }
    if kernels.is_empty() {
        return Ok(ExitCode::FAILURE);
    }
    let record = setup::ensure()?;
    let binaries = test_binaries(&record)?;
    if args.smoke {
        smoke::check_names(&binaries)?;
    }
    let mut reports: BTreeMap<&Kernel, Report> =
        kernels.iter().map(|kernel| (kernel, Report::default())).collect();
    let Work { pieces, left_out } =
        work::collect(&kernels, &binaries, &|_, name| args.wants(name))?;
    for (kernel, outcome) in left_out {
        if let Some(report) = reports.get_mut(&kernel) {
            report.add([outcome]);
        }
    }
    let guests = args.guests.map(|guests| guests as usize);
    let took = run(&cache, pieces, guests, |kernel, outcomes| {
        // At once, not at the end: all kernels together take hours.
        let failures = outcomes.iter().filter_map(failure).collect::<String>();
        if let Some(report) = reports.get_mut(kernel) {
            report.add(outcomes);
        }
        print!("{failures}");
    })?;
    println!("\nthe guests took {:.0} s", took.as_secs_f64());
    for kernel in &kernels {
        println!("Linux {kernel}: {}", reports[kernel].count());
    }
    for lack in &lacking {
        println!("{lack}");
    }
    // A pattern may be about one kernel only.
    let good = lacking.is_empty()
        && reports.values().all(Report::has_no_failure)
        && reports.values().any(Report::is_good);
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What a failure has to say.
fn failure(outcome: &Outcome) -> Option<String> {
    let Verdict::Failed(why) = &outcome.result else { return None };
    Some(format!("\n---- {} ----\n{}\n\n", outcome.name, why.trim_end()))
}

/// Runs `work` and hands on what becomes of each test, by names that begin with
/// the kernel. Gives the time that it took.
///
/// # Errors
/// When the guests' files cannot be made.
pub(super) fn run(
    cache: &Cache,
    work: Vec<Piece>,
    guests_at_once: Option<usize>,
    mut add: impl FnMut(&Kernel, Vec<Outcome>),
) -> Result<Duration> {
    let start = Instant::now();
    let scratch = Scratch::make(cache)?;
    let guests = Guests::make(cache, &scratch)?;
    let queue = Mutex::new(VecDeque::from(work));
    let (sender, done) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..guests_at_once.unwrap_or_else(at_once) {
            let (queue, sender, guests) = (&queue, sender.clone(), &guests);
            scope.spawn(move || {
                let next = || queue.lock().ok().and_then(|mut work| work.pop_front());
                while let Some(piece) = next() {
                    let (outcomes, rest) = guests.run(&piece);
                    if let (Some(rest), Ok(mut work)) = (rest, queue.lock()) {
                        work.push_front(rest);
                    }
                    if sender.send((piece.kernel.clone(), outcomes)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        for (kernel, mut outcomes) in done {
            for outcome in &mut outcomes {
                outcome.name = format!("{kernel}/{}", outcome.name);
            }
            add(&kernel, outcomes);
        }
    });
    Ok(start.elapsed())
}

/// As many guests as there are processors, if there is the memory.
fn at_once() -> usize {
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let free = text.lines().find_map(|line| {
        line.strip_prefix("MemAvailable:")?.trim().strip_suffix(" kB")?.parse::<usize>().ok()
    });
    let each = (MEMORY + OVERHEAD) as usize * 1024;
    free.map_or(1, |free| (free / each).clamp(1, processors))
}

/// How long a guest of the tests may take.
fn limits(whole: bool) -> Limits {
    let times = if whole { WHOLE } else { 1 };
    Limits { total: times * TOTAL, silence: times * SILENCE }
}

/// What guests are made from.
struct Guests<'a> {
    cache: &'a Cache,
    base: PathBuf,
    /// This program without what only a debugger needs.
    program: PathBuf,
    artifacts: Artifacts,
    scratch: &'a Scratch,
    documents: Vec<(PathBuf, String)>,
}

impl<'a> Guests<'a> {
    fn make(cache: &'a Cache, scratch: &'a Scratch) -> Result<Self> {
        let base = scratch.join("base");
        pack::base(cache, &base)?;
        let documents = documents()?;
        let artifacts = build::artifacts()?.clone();
        let program = std::env::current_exe()?;
        Ok(Self { cache, base, program, artifacts, scratch, documents })
    }

    /// Runs a piece; gives what became of its tests, and what is left to do.
    fn run(&self, piece: &Piece) -> (Vec<Outcome>, Option<Piece>) {
        let machine = Machine { kernel: piece.kernel.clone(), cpus: 2, memory: MEMORY };
        if let Source::Proof(tests) = &piece.source {
            let slim = || self.slim(&tests.executable);
            let trial = Trial {
                machine: &machine,
                cache: self.cache,
                base: &self.base,
                tests,
                slim: &slim,
            };
            let outcomes = piece.tests.iter().map(|name| proof::outcome(name, &trial));
            return (outcomes.collect(), None);
        }
        let mut reader = Reader::new(piece);
        let limits = limits(e2e::is_whole());
        let ran = self.job(piece).and_then(|job| {
            machine.run(self.cache, &self.base, &job, limits, |stream, bytes| {
                reader.take(stream, bytes);
            })
        });
        let why = match &ran {
            Ok(Remains { ending, log }) if ending.is_mishap() => {
                format!("{ending}\n{}", ending::tail(log))
            }
            Ok(Remains { ending, .. }) => ending.to_string(),
            Err(error) => format!("{error:#}"),
        };
        let ending = ran.as_ref().ok().map(|remains| &remains.ending);
        let mishap = ending.is_some_and(Ending::is_mishap);
        let (mut outcomes, rest) = reader.finish(&why, ending);
        let complaint = ran.iter().filter(|_| !mishap).find_map(|ran| ending::complaint(&ran.log));
        outcomes.extend(complaint.map(|complaint| Outcome {
            name: piece.name_of_kernel_log(),
            result: Verdict::Failed(format!("the guest's kernel complained:\n{complaint}")),
            seconds: 0.0,
        }));
        // A test took the guest down: the others deserve one of their own.
        if let Some(another) = piece.for_another(&rest).filter(|_| mishap) {
            return (outcomes, Some(another));
        }
        outcomes.extend(rest.into_iter().map(|test| Outcome {
            name: piece.source.full_name(&test),
            result: Verdict::Failed(format!("did not run: {why}")),
            seconds: 0.0,
        }));
        (outcomes, None)
    }

    fn job(&self, piece: &Piece) -> Result<Job> {
        let Artifacts { agent, mwb, objects_dir } = &self.artifacts;
        let mut files = vec![self.slim(agent)?, self.slim(mwb)?];
        match &piece.source {
            Source::Binary(binary) => {
                files.push(self.slim(&binary.executable)?);
                files.extend(self.documents.iter().cloned());
                let mut command = vec![binary.executable.clone().into()];
                command.extend(["--test-threads=1", "--show-output", "--exact"].map(Into::into));
                command.extend(piece.tests.iter().map(Into::into));
                let manifest = binary.directory.display().to_string();
                Ok(Job {
                    command,
                    directory: binary.directory.clone(),
                    environment: vec![("CARGO_MANIFEST_DIR".to_owned(), manifest)],
                    files,
                })
            }
            Source::Inside | Source::Proof(_) => {
                files.push(self.slim(&self.program)?);
                for name in [build::OBJECT, build::LAB_OBJECT] {
                    let object = objects_dir.join(name);
                    files.push((object.clone(), object.display().to_string()));
                }
                let program = self.program.display().to_string();
                let line = inside::command_line(&program, &self.artifacts, &piece.tests);
                Ok(Job {
                    command: line.into_iter().map(Into::into).collect(),
                    directory: "/root".into(),
                    environment: Vec::new(),
                    files,
                })
            }
        }
    }

    /// A program without what only a debugger needs, for its place in the guest:
    /// a guest's file system lies in its memory.
    fn slim(&self, program: &Path) -> Result<(PathBuf, String)> {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let place = program.display().to_string();
        let name = program.file_name().context("a program has a name")?;
        let made = self.scratch.join(&name.to_string_lossy());
        let _one = ONE_AT_A_TIME.lock();
        if !made.exists() {
            let mut command = Command::new("strip");
            command.arg("--strip-debug").arg("-o").arg(&made).arg(program);
            // Without binutils it goes as it is.
            if !command.output().is_ok_and(|output| output.status.success()) {
                fs::copy(program, &made).with_context(|| place.clone())?;
            }
        }
        Ok((made, place))
    }
}

/// The documents that tests read, each in its own place.
///
/// # Errors
/// When they cannot be listed.
pub(super) fn documents() -> Result<Vec<(PathBuf, String)>> {
    let root = workspace::root()?;
    let mut documents = Vec::new();
    for name in DOCUMENTS {
        walk(&root.join(name), &mut documents)?;
    }
    Ok(documents)
}

fn walk(directory: &Path, files: &mut Vec<(PathBuf, String)>) -> Result<()> {
    let entries = fs::read_dir(directory).with_context(|| directory.display().to_string())?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            walk(&path, files)?;
        } else {
            files.push((path.clone(), path.display().to_string()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn the_smoke_test_is_not_to_be_picked_from() {
        assert!(Line::try_parse_from(["test", "--smoke"]).is_ok_and(|line| line.args.smoke));
        let refused = Line::try_parse_from(["test", "--smoke", "--only", "e2e/x"]);
        let why = refused.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(why.contains("'--smoke' cannot be used with '--only"), "{why}");
    }

    #[test]
    fn a_test_that_runs_whole_may_be_silent_for_longer() {
        assert_eq!((limits(false).silence, limits(false).total), (SILENCE, TOTAL));
        assert!(limits(true).silence > Duration::from_secs(3600));
        assert!(limits(true).total > limits(true).silence);
    }
}
