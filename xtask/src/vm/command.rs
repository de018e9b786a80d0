//! What a developer types: one command, one shell or one test executable in a
//! fresh VM.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::cache::{Cache, Kernel};
use super::ending::{self, Ending};
use super::guest::{Limits, Machine, Remains, Scratch, Stream};
use super::kernel::RELEASE;
use super::pack::{self, Job};
use super::{PROMISED, parts, test};

/// Name of the variable with the kernel of [`runner`].
const KERNEL: &str = "MWB_VM_KERNEL";

/// Arguments of `cargo xtask vm setup`.
#[derive(Debug, clap::Args)]
pub struct SetupArgs {
    /// The kernels to get.
    #[arg(long, value_name = "KERNEL,…", value_delimiter = ',', default_values = PROMISED)]
    kernel: Vec<Kernel>,
    /// Replace what is there by what the archives have now.
    #[arg(long)]
    refresh: bool,
}

/// The machine to make.
#[derive(Debug, clap::Args)]
struct MachineArgs {
    /// Its kernel.
    #[arg(long, default_value = PROMISED[1])]
    kernel: Kernel,
    /// How many processors.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    cpus: u32,
    /// Its memory, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    memory: u32,
    /// A file of this machine and its place in the guest; programs come with
    /// their libraries.
    #[arg(long, value_name = "SRC:DST", value_parser = file)]
    file: Vec<(PathBuf, String)>,
}

/// Arguments of `cargo xtask vm run`.
#[derive(Debug, clap::Args)]
pub struct RunArgs {
    #[command(flatten)]
    machine: MachineArgs,
    /// Seconds after which the guest is ended.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    timeout: u64,
    /// The command: a program of the guest, or a file of this machine.
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Arguments of `cargo xtask vm shell`.
#[derive(Debug, clap::Args)]
pub struct ShellArgs {
    #[command(flatten)]
    machine: MachineArgs,
}

/// Arguments of `cargo xtask vm runner`.
#[derive(Debug, clap::Args)]
pub struct RunnerArgs {
    /// The kernel; also by the variable MWB_VM_KERNEL.
    #[arg(long)]
    kernel: Option<Kernel>,
    /// The test executable and its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    command: Vec<OsString>,
}

fn file(text: &str) -> Result<(PathBuf, String), String> {
    match text.split_once(':') {
        Some((from, to)) if !from.is_empty() && to.starts_with('/') => {
            Ok((from.into(), to.to_owned()))
        }
        _ => Err("write SRC:/DST, a file here and its place in the guest".to_owned()),
    }
}

impl MachineArgs {
    fn machine(&self) -> Machine {
        Machine { kernel: self.kernel.clone(), cpus: self.cpus, memory: self.memory }
    }
}

/// Gets what is missing, and shows what is there.
pub(super) fn setup(args: &SetupArgs) -> Result<ExitCode> {
    let cache = Cache::open()?;
    if args.refresh {
        parts::refresh(&cache, &args.kernel)?;
    }
    let (kernels, lacking) = parts::ensure_each(&cache, &args.kernel);
    for lack in &lacking {
        println!("{lack}");
    }
    if kernels.is_empty() {
        return Ok(ExitCode::FAILURE);
    }
    println!("cache    {}", cache.root().display());
    println!("QEMU     {}", cache.tool(parts::QEMU)?.program.display());
    for kernel in &kernels {
        let release = fs::read_to_string(cache.kernel(kernel).join(RELEASE))?;
        println!("kernel   {kernel}: {release}");
    }
    Ok(if lacking.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs a command in a fresh VM.
pub(super) fn run(args: &RunArgs) -> Result<ExitCode> {
    run_in(&Cache::open()?, args, hand_on)
}

fn run_in(cache: &Cache, args: &RunArgs, sink: impl FnMut(Stream, &[u8])) -> Result<ExitCode> {
    let mut files = args.machine.file.clone();
    let mut command = args.command.clone();
    // A path of this machine goes along by itself.
    let program = PathBuf::from(&command[0]);
    if program.components().count() > 1 && program.is_file() {
        let place = std::path::absolute(&program)?;
        command[0] = place.clone().into();
        files.push((program, place.display().to_string()));
    }
    let job = Job { command, directory: "/root".into(), files, ..Job::default() };
    let limit = Duration::from_secs(args.timeout);
    finish(&start(cache, &args.machine.machine(), &job, limit, sink)?)
}

/// Runs a test executable as cargo does, in a fresh VM.
pub(super) fn runner(args: &RunnerArgs) -> Result<ExitCode> {
    let executable = Path::new(&args.command[0]);
    ensure!(executable.is_file(), "there is no file {}", executable.display());
    let executable = std::path::absolute(executable)?;
    let mut command = args.command.clone();
    command[0] = executable.clone().into();
    let mut files = beside(&executable);
    files.extend(test::documents()?);
    let job = Job {
        command,
        directory: std::env::current_dir()?,
        environment: std::env::vars().filter(|(name, _)| name.starts_with("CARGO_")).collect(),
        files,
    };
    let kernel = match &args.kernel {
        Some(kernel) => kernel.clone(),
        None => std::env::var(KERNEL)
            .unwrap_or_else(|_| PROMISED[1].to_owned())
            .parse()
            .map_err(anyhow::Error::msg)?,
    };
    let machine = Machine { kernel, cpus: 2, memory: 2048 };
    let limit = Duration::from_secs(30 * 60);
    finish(&start(&Cache::open()?, &machine, &job, limit, hand_on)?)
}

/// A test executable, and the programs of its package that it may start.
pub(super) fn beside(executable: &Path) -> Vec<(PathBuf, String)> {
    let programs = ["mwb-agent", "mwb"].iter().filter_map(|name| {
        Some(executable.parent()?.parent()?.join(name)).filter(|program| program.is_file())
    });
    std::iter::once(executable.to_owned())
        .chain(programs)
        .map(|path| (path.clone(), path.display().to_string()))
        .collect()
}

fn start(
    cache: &Cache,
    machine: &Machine,
    job: &Job,
    limit: Duration,
    sink: impl FnMut(Stream, &[u8]),
) -> Result<Remains> {
    parts::ensure(cache, std::slice::from_ref(&machine.kernel))?;
    let scratch = Scratch::make(cache)?;
    let base = scratch.join("base");
    pack::base(cache, &base)?;
    let limits = Limits { total: limit, silence: limit };
    machine.run(cache, &base, job, limits, sink)
}

/// Hands on what the guest prints. Nobody listens any more: it goes on to its end.
fn hand_on(stream: Stream, bytes: &[u8]) {
    let _ = match stream {
        Stream::Out => io::stdout().write_all(bytes).and_then(|()| io::stdout().flush()),
        Stream::Errors => io::stderr().write_all(bytes),
    };
}

/// What a command prints in a fresh VM.
///
/// # Errors
/// When there can be no VM, or it has a mishap. The command's own exit code is
/// the caller's to judge, by what it prints.
pub(super) fn output(
    kernel: &Kernel,
    files: Vec<(PathBuf, String)>,
    command: &[&str],
) -> Result<String> {
    let command = command.iter().map(Into::into).collect();
    let job = Job { command, directory: "/root".into(), files, ..Job::default() };
    let machine = Machine { kernel: kernel.clone(), cpus: 2, memory: 2048 };
    let mut text = Vec::new();
    let limit = Duration::from_secs(600);
    let remains = start(&Cache::open()?, &machine, &job, limit, |stream, bytes| match stream {
        Stream::Out => text.extend_from_slice(bytes),
        Stream::Errors => eprint!("{}", String::from_utf8_lossy(bytes)),
    })?;
    let Remains { ending, log } = &remains;
    ensure!(!ending.is_mishap(), "{ending}\n{}", ending::tail(log));
    if let Some(complaint) = ending::complaint(log) {
        bail!("the guest's kernel complained:\n{complaint}");
    }
    String::from_utf8(text).context("what it prints is no text")
}

fn finish(remains: &Remains) -> Result<ExitCode> {
    let Remains { ending, log } = remains;
    if ending.is_mishap() {
        eprint!("vm: {ending}\n{}", ending::tail(log));
    } else if let Some(complaint) = ending::complaint(log) {
        eprint!("vm: the guest's kernel complained:\n{complaint}");
    }
    Ok(ExitCode::from(ending.code()))
}

/// Opens a shell in a fresh VM.
pub(super) fn shell(args: &ShellArgs) -> Result<ExitCode> {
    let cache = Cache::open()?;
    parts::ensure(&cache, std::slice::from_ref(&args.machine.kernel))?;
    let scratch = Scratch::make(&cache)?;
    let base = scratch.join("base");
    pack::base(&cache, &base)?;
    let job = Job {
        command: vec!["true".into()],
        directory: "/root".into(),
        files: args.machine.file.clone(),
        ..Job::default()
    };
    let remains = args.machine.machine().shell(&cache, &base, &job)?;
    match remains.ending {
        // Ended from the keyboard.
        Ending::Off => Ok(ExitCode::SUCCESS),
        _ => finish(&remains),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::stand_in::StandIn;
    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        run: RunArgs,
    }

    #[test]
    fn a_guest_that_prints_for_ever_ends_with_124_when_its_time_is_out() -> Result<()> {
        let place = StandIn::make("exec yes")?;
        let kernel = place.kernel().to_string();
        let line = ["run", "--kernel", &kernel, "--timeout", "2", "--", "yes"];
        let args = Line::try_parse_from(line)?.run;
        let (start, mut printed) = (std::time::Instant::now(), false);
        let code = run_in(place.cache(), &args, |_, bytes| printed |= !bytes.is_empty())?;
        assert_eq!(code, ExitCode::from(124));
        assert!(printed && start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
        Ok(())
    }
}
