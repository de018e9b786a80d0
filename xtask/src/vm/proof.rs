//! Proves that a VM tells the truth: exit codes, outputs, and every way in which
//! a guest comes to a bad end.

use std::fmt;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::cache::Cache;
use super::ending::{self, Ending};
use super::guest::{Limits, Machine, Remains, Stream};
use super::pack::Job;
use super::parts;
use crate::build::TestBinary;
use crate::outcome::{Outcome, Verdict};

/// First part of their names.
pub(super) const PREFIX: &str = "proof/";
const PATIENCE: Duration = Duration::from_secs(120);
/// Longer than a guest takes to boot; where cores are shared with much else it may
/// still be booting after this, and then gets twice as long.
const HANGS_FOR: Duration = Duration::from_secs(12);

/// The executable of [`FAILING`].
pub(super) const EXECUTABLE: &str = "mwb-agent/tests/prog_run";
/// A test that fails where [`TOLD`] is set.
const FAILING: &str = "this_one_fails_when_it_is_told_to";
const TOLD: &str = "MWB_TEST_FAILS";

/// A guest to try out.
pub(super) struct Trial<'a> {
    pub(super) machine: &'a Machine,
    pub(super) cache: &'a Cache,
    pub(super) base: &'a Path,
    /// Has the test that fails.
    pub(super) tests: &'a TestBinary,
    /// Gives its executable without what only a debugger needs, and its place.
    pub(super) slim: &'a (dyn Fn() -> Result<(PathBuf, String)> + Sync),
}

/// Why a proof cannot be made here.
#[derive(Debug)]
struct Skip(&'static str);

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Skip {}

type Proof = fn(&Trial<'_>) -> Result<()>;

/// On which kernels a proof runs: not all of them have to do with the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum On {
    One,
    Each,
}

const ALL: [(&str, On, Proof); 11] = [
    ("proof/an_exit_code_and_both_outputs_arrive", On::Each, exit_code),
    ("proof/a_test_fails_in_the_guest_as_on_the_host", On::One, failure),
    ("proof/a_kill_in_the_guest_is_its_exit_code", On::One, killed),
    ("proof/a_panic_is_reported_with_the_kernels_log", On::Each, panic),
    ("proof/a_hang_is_ended_and_reported", On::Each, hang),
    ("proof/a_guest_that_goes_off_is_reported", On::One, off),
    ("proof/a_complaint_of_the_kernel_is_found_beside_a_result", On::Each, complaint),
    ("proof/many_lines_arrive_whole_and_in_order", On::One, lines),
    ("proof/a_warm_cache_needs_no_network", On::One, without_network),
    ("proof/cargos_runner_runs_a_test_in_a_guest", On::One, runner),
    ("proof/a_shell_runs_what_is_typed", On::One, shell),
];

/// Names of the proofs.
pub(super) fn names() -> Vec<String> {
    ALL.iter().map(|(name, ..)| (*name).to_owned()).collect()
}

/// Whether the proof of that name is one for every kernel.
pub(super) fn is_for_each_kernel(name: &str) -> bool {
    ALL.iter().any(|(known, on, _)| *known == name && *on == On::Each)
}

/// Runs the proof of that name.
pub(super) fn outcome(name: &str, trial: &Trial<'_>) -> Outcome {
    let start = Instant::now();
    let result = match ALL.iter().find(|(known, ..)| *known == name) {
        Some((.., proof)) => match proof(trial) {
            Ok(()) => Verdict::Passed,
            Err(error) => match error.downcast_ref::<Skip>() {
                Some(Skip(why)) => Verdict::Skipped((*why).to_owned()),
                None => Verdict::Failed(format!("{error:#}")),
            },
        },
        None => Verdict::Failed("there is no such proof".to_owned()),
    };
    Outcome { name: name.to_owned(), result, seconds: start.elapsed().as_secs_f64() }
}

impl Trial<'_> {
    /// How a script ends, with what it printed on either output.
    fn run(&self, script: &str, silence: Duration) -> Result<(Remains, String, String)> {
        let job = Job {
            command: ["bash", "-c", script].map(Into::into).into(),
            directory: "/root".into(),
            ..Job::default()
        };
        self.run_job(&job, silence)
    }

    fn run_job(&self, job: &Job, silence: Duration) -> Result<(Remains, String, String)> {
        let limits = Limits { total: PATIENCE, silence };
        let (mut out, mut errors) = (Vec::new(), Vec::new());
        let remains =
            self.machine.run(self.cache, self.base, job, limits, |stream, bytes| match stream {
                Stream::Out => out.extend_from_slice(bytes),
                Stream::Errors => errors.extend_from_slice(bytes),
            })?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok((remains, text(out), text(errors)))
    }
}

fn exit_code(trial: &Trial<'_>) -> Result<()> {
    let (remains, out, errors) =
        trial.run("uname -r; echo 'the reason' >&2; exit 200", PATIENCE)?;
    ensure!(remains.ending == Ending::Code(200), "{:?}", remains.ending);
    ensure!(remains.ending.code() == 200, "{}", remains.ending.code());
    let kernel = format!("{}.", trial.machine.kernel);
    ensure!(out.starts_with(&kernel), "it runs Linux {out}");
    ensure!(errors == "the reason\n", "{errors}");
    Ok(())
}

fn failure(trial: &Trial<'_>) -> Result<()> {
    let TestBinary { executable, directory, .. } = trial.tests;
    let arguments = ["--exact", FAILING];
    // A backtrace names lines only where the executable has them.
    let told = [(TOLD, "1"), ("RUST_BACKTRACE", "0")];
    let here =
        Command::new(executable).args(arguments).current_dir(directory).envs(told).output()?;
    let command = [executable.into()].into_iter().chain(arguments.map(Into::into)).collect();
    let job = Job {
        command,
        directory: directory.clone(),
        environment: told.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        files: vec![(trial.slim)()?],
    };
    let (remains, out, _) = trial.run_job(&job, PATIENCE)?;
    let code = u8::try_from(here.status.code().context("it was killed")?)?;
    ensure!(code != 0 && remains.ending == Ending::Code(code), "{code}, {:?}", remains.ending);
    let (here, there) = (lasting(&String::from_utf8(here.stdout)?), lasting(&out));
    ensure!(here == there && here.contains("it was told to"), "{here}\nbut\n{there}");
    Ok(())
}

/// What a test executable prints, without numbers of threads and times.
fn lasting(text: &str) -> String {
    let time = |word: &str| word.starts_with(|c: char| c.is_ascii_digit()) && word.ends_with('s');
    let word = |word: &&str| !word.starts_with('(') && !time(word);
    let line = |line: &str| line.split(' ').filter(word).collect::<Vec<_>>().join(" ");
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

fn killed(trial: &Trial<'_>) -> Result<()> {
    let (remains, ..) = trial.run("kill -9 $$", PATIENCE)?;
    ensure!(remains.ending == Ending::Code(137), "{:?}", remains.ending);
    Ok(())
}

fn panic(trial: &Trial<'_>) -> Result<()> {
    let (remains, out, _) =
        trial.run("echo before; echo c > /proc/sysrq-trigger; echo after", PATIENCE)?;
    ensure!(remains.ending == Ending::Panic, "{:?}", remains.ending);
    ensure!(remains.ending.code() == 125 && out == "before\n", "{out}");
    let tail = ending::tail(&remains.log);
    ensure!(tail.contains("sysrq triggered crash"), "{tail}");
    Ok(())
}

fn hang(trial: &Trial<'_>) -> Result<()> {
    let script = "echo before; echo '<4>the last word' > /dev/kmsg; exec sleep 1000";
    let mut limit = HANGS_FOR;
    loop {
        let start = Instant::now();
        let (remains, out, _) = trial.run(script, limit)?;
        ensure!(remains.ending == Ending::TimedOut(limit), "{:?}", remains.ending);
        ensure!(remains.ending.code() == 124, "{}", remains.ending.code());
        ensure!(start.elapsed() < PATIENCE, "after {:?}", start.elapsed());
        if out.is_empty() && 2 * limit < PATIENCE {
            limit *= 2;
            continue;
        }
        let tail = ending::tail(&remains.log);
        ensure!(tail.contains("the last word") && out == "before\n", "{out}{tail}");
        return Ok(());
    }
}

fn off(trial: &Trial<'_>) -> Result<()> {
    for way in ["poweroff", "reboot"] {
        // A job that says it has ended has not.
        let forged = "echo 'mwb-vm: exit 0' > /dev/console";
        let script = format!("{forged}; echo '<4>the last word' > /dev/kmsg; busybox {way} -f");
        let (remains, ..) = trial.run(&script, PATIENCE)?;
        ensure!(remains.ending == Ending::Off, "{way}: {:?}", remains.ending);
        let tail = ending::tail(&remains.log);
        ensure!(tail.contains("the last word"), "{way}: {tail}");
        ensure!(remains.ending.code() == 125, "{way}");
    }
    Ok(())
}

fn lines(trial: &Trial<'_>) -> Result<()> {
    let (remains, out, _) = trial.run("seq 1 200000", PATIENCE)?;
    ensure!(remains.ending == Ending::Code(0), "{:?}", remains.ending);
    let right = out.lines().zip(1..).all(|(line, number)| line == number.to_string());
    ensure!(right && out.lines().count() == 200_000, "{} lines came", out.lines().count());
    Ok(())
}

fn complaint(trial: &Trial<'_>) -> Result<()> {
    let script = "echo '<4>WARNING: CPU: 0 PID: 1 at a test' > /dev/kmsg; exit 7";
    let (remains, ..) = trial.run(script, PATIENCE)?;
    ensure!(remains.ending == Ending::Code(7), "{:?}", remains.ending);
    let told = ending::complaint(&remains.log).unwrap_or_default();
    ensure!(told.contains("at a test"), "{told}; the log:\n{}", remains.log);
    let (remains, ..) = trial.run("exit 7", PATIENCE)?;
    ensure!(ending::complaint(&remains.log).is_none(), "a guest complains: {}", remains.log);
    Ok(())
}

/// In a network namespace of its own, a thread has none, nor has what it starts.
fn without_network(trial: &Trial<'_>) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Skip("a network namespace needs root").into());
    }
    std::thread::scope(|scope| {
        let alone = scope.spawn(|| -> Result<()> {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)?;
            parts::ensure(trial.cache, std::slice::from_ref(&trial.machine.kernel))?;
            let (remains, ..) = trial.run("exit 0", PATIENCE)?;
            ensure!(remains.ending == Ending::Code(0), "{:?}", remains.ending);
            Ok(())
        });
        alone.join().map_err(|_| anyhow::anyhow!("it panicked"))?
    })
}

fn runner(trial: &Trial<'_>) -> Result<()> {
    let TestBinary { executable, directory, .. } = trial.tests;
    for (argument, code, words) in
        [("--exact", 0, "test result: ok. 1 passed"), ("--no-such-option", 101, "no-such-option")]
    {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["vm", "runner", "--kernel", &trial.machine.kernel.to_string()]);
        command.arg(executable).args([argument, FAILING]).current_dir(directory);
        let output = command.stdin(Stdio::null()).output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let all = format!("{}{}", text(&output.stdout), text(&output.stderr));
        let good = output.status.code() == Some(code) && all.contains(words);
        ensure!(good, "{argument}: {}:\n{all}", output.status);
    }
    Ok(())
}

fn shell(trial: &Trial<'_>) -> Result<()> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["vm", "shell", "--kernel", &trial.machine.kernel.to_string()]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn()?;
    let mut keyboard = child.stdin.take().context("standard input is not piped")?;
    let mut screen = child.stdout.take().context("standard output is not piped")?;
    let (sender, pieces) = mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = screen.read(&mut buffer) {
            if sender.send(buffer[..length].to_vec()).is_err() {
                break;
            }
        }
    });
    let mut shown = String::new();
    let start = Instant::now();
    let mut typed = false;
    loop {
        match pieces.recv_timeout(PATIENCE.saturating_sub(start.elapsed())) {
            Ok(piece) => shown += &String::from_utf8_lossy(&piece),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                child.kill()?;
                bail!("the shell does not end: {shown}");
            }
        }
        if !typed && shown.ends_with("# ") {
            keyboard.write_all(b"echo kernel $((40 + 2)) $MWB_GUEST $(uname -r); exit 7\n")?;
            typed = true;
        }
    }
    let (status, told) = (child.wait()?, format!("kernel 42 1 {}.", trial.machine.kernel));
    ensure!(shown.contains(&told) && status.code() == Some(7), "{status}: {shown}");
    Ok(())
}
