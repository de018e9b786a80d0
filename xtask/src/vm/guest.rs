//! One test VM, from start to end: QEMU with a kernel and an archive, the
//! guest's outputs, a time limit. Knows nothing of what runs inside.
//!
//! Instructions are emulated unless [`KVM`] asks for more: a KVM that is there
//! need not work for a kernel that does not expect it.

use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

use super::cache::{Cache, Kernel};
use super::ending::Ending;
use super::kernel::{IMAGE, MODULE_ARCHIVE};
use super::pack::{self, Job};
use super::parts::QEMU;
use crate::lab::{EMULATED, GUEST};

/// Name of the variable that lets QEMU use KVM.
const KVM: &str = "MWB_VM_KVM";

/// One of the guest's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    /// Standard output.
    Out,
    /// Standard error, and what QEMU itself has to say.
    Errors,
}

/// A machine to run jobs in.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    /// Its kernel.
    pub(super) kernel: Kernel,
    /// How many processors.
    pub(super) cpus: u32,
    /// MiB of memory.
    pub(super) memory: u32,
}

/// How long a guest may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// From start to end.
    pub(super) total: Duration,
    /// Without a word.
    pub(super) silence: Duration,
}

/// What is left of a guest.
#[derive(Clone, Debug)]
pub(super) struct Remains {
    /// How it ended.
    pub(super) ending: Ending,
    /// What its console showed.
    pub(super) log: String,
}

/// A directory of this run, which goes with it.
#[derive(Debug)]
pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// Makes it, and removes those of processes that are no more.
    pub(super) fn make(cache: &Cache) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let runs = cache.runs();
        for entry in fs::read_dir(&runs).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let owner = name.to_str().and_then(|name| name.split('-').next());
            if owner.is_some_and(|owner| !Path::new("/proc").join(owner).exists()) {
                // Another one may remove it at the same time.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = runs.join(format!("{}-{number}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        Ok(Self(path))
    }

    /// A place in it.
    pub(super) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The next run tries again.
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Machine {
    /// Runs `job` in a fresh guest, handing on what it prints; `base` is the
    /// archive of [`pack::base`].
    ///
    /// # Errors
    /// When the guest cannot be started. However it ends then is a result.
    pub(super) fn run(
        &self,
        cache: &Cache,
        base: &Path,
        job: &Job,
        limits: Limits,
        mut sink: impl FnMut(Stream, &[u8]),
    ) -> Result<Remains> {
        let scratch = Scratch::make(cache)?;
        let (image, log) = (scratch.join("image"), scratch.join("console"));
        let mut job = job.clone();
        job.environment.extend(told().map(|name| (name.to_owned(), "1".to_owned())));
        pack::image(&[&cache.kernel(&self.kernel).join(MODULE_ARCHIVE), base], &job, &image)?;
        let mut command = self.qemu(cache, &image, "")?;
        command.arg("-serial").arg(format!("file:{}", log.display()));
        command.args(["-device", "virtio-serial-pci"]);
        for (number, port) in [(1, "out"), (2, "errors")] {
            // Opened anew, a pipe takes what is written at its end. A character
            // device over QEMU's own standard output would need its input too.
            command.args(["-chardev", &format!("file,id={port},path=/dev/fd/{number},append=on")]);
            command.args(["-device", &format!("virtserialport,chardev={port},name={port}")]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("cannot start QEMU")?;
        let timed_out = stream(&mut child, limits, &mut sink);
        let status = child.wait().context("lost QEMU")?;
        let log = String::from_utf8_lossy(&fs::read(&log).unwrap_or_default()).into_owned();
        Ok(Remains { ending: Ending::read(&log, timed_out?, status.code()), log })
    }

    /// Gives the terminal to a shell in a fresh guest.
    ///
    /// # Errors
    /// When the guest cannot be started.
    pub(super) fn shell(&self, cache: &Cache, base: &Path, job: &Job) -> Result<Remains> {
        let scratch = Scratch::make(cache)?;
        let (image, log) = (scratch.join("image"), scratch.join("console"));
        pack::image(&[&cache.kernel(&self.kernel).join(MODULE_ARCHIVE), base], job, &image)?;
        let term = std::env::var("TERM").unwrap_or_else(|_| "linux".to_owned());
        // What the kernel does not know becomes the environment of what it starts.
        let told: String = told().map(|name| format!(" {name}=1")).collect();
        let line = format!("mwb.shell TERM_OF_HOST={term}{told}");
        let mut command = self.qemu(cache, &image, &line)?;
        let console = format!("stdio,id=console,mux=on,signal=off,logfile={}", log.display());
        command.args(["-chardev", &console, "-serial", "chardev:console"]);
        command.args(["-mon", "chardev=console"]);
        let status = command.status().context("cannot start QEMU")?;
        let log = String::from_utf8_lossy(&fs::read(&log).unwrap_or_default()).into_owned();
        Ok(Remains { ending: Ending::read(&log, None, status.code()), log })
    }

    fn qemu(&self, cache: &Cache, image: &Path, more: &str) -> Result<Command> {
        let qemu = cache.tool(QEMU)?;
        let mut command = qemu.command();
        for place in ["usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"] {
            if let Some(home) = &qemu.home {
                command.arg("-L").arg(home.join(place));
            }
        }
        // Never both: where KVM starts and then fails, QEMU does not fall back.
        if may_use_kvm() {
            command.args(["-accel", "kvm", "-cpu", "host"]);
        } else {
            command.args(["-accel", "tcg,thread=multi", "-cpu", "max"]);
        }
        command.args(["-M", "q35", "-nodefaults", "-no-user-config", "-display", "none"]);
        command.args(["-smp", &self.cpus.to_string(), "-m", &self.memory.to_string()]);
        command.args(["-no-reboot", "-device", "isa-debug-exit,iobase=0xf4,iosize=1"]);
        command.arg("-kernel").arg(cache.kernel(&self.kernel).join(IMAGE));
        command.arg("-initrd").arg(image);
        // A crash ends the machine, by `-no-reboot`.
        let line = "console=ttyS0 quiet panic=-1 oops=panic nokaslr mitigations=off";
        command.args(["-append", &format!("{line} {more}")]);
        // SAFETY: between fork and exec only `prctl` is called, which is
        // async-signal-safe. The thread that starts QEMU also waits for it.
        unsafe { command.pre_exec(|| set_pdeathsig(Signal::SIGKILL).map_err(Into::into)) };
        Ok(command)
    }
}

/// Variables that tell what runs in a guest where it is.
fn told() -> impl Iterator<Item = &'static str> {
    [GUEST].into_iter().chain((!may_use_kvm()).then_some(EMULATED))
}

fn may_use_kvm() -> bool {
    std::env::var_os(KVM).is_some_and(|value| value == "1")
}

/// Hands on what comes until all is told or the time is out; then the guest is
/// ended, and the limit given back.
fn stream(
    child: &mut Child,
    limits: Limits,
    sink: &mut impl FnMut(Stream, &[u8]),
) -> Result<Option<Duration>> {
    // A guest that prints faster than anyone reads has to wait.
    let (sender, pieces) = mpsc::sync_channel(16);
    let out = child.stdout.take().context("standard output is not piped")?;
    let errors = child.stderr.take().context("standard error is not piped")?;
    forward(out, Stream::Out, sender.clone());
    forward(errors, Stream::Errors, sender);
    let start = Instant::now();
    let mut heard = start;
    let mut ended = None;
    loop {
        match pieces.recv_timeout(Duration::from_millis(100)) {
            Ok((stream, bytes)) => {
                heard = Instant::now();
                sink(stream, &bytes);
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(ended),
            Err(RecvTimeoutError::Timeout) => {}
        }
        if ended.is_none() {
            ended = [(start, limits.total), (heard, limits.silence)]
                .into_iter()
                .find_map(|(since, limit)| (since.elapsed() > limit).then_some(limit));
            if ended.is_some() {
                child.kill().context("cannot end QEMU")?;
            }
        }
    }
}

fn forward(
    mut pipe: impl Read + Send + 'static,
    stream: Stream,
    to: SyncSender<(Stream, Vec<u8>)>,
) {
    thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = pipe.read(&mut buffer) {
            if to.send((stream, buffer[..length].to_vec())).is_err() {
                break;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::super::stand_in::StandIn;
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    /// How a guest ends whose QEMU is this script, and what it printed.
    fn run(qemu: &str, total: Duration, silence: Duration) -> Result<(Ending, String)> {
        let place = StandIn::make(qemu)?;
        let (cache, kernel) = (place.cache(), place.kernel());
        let base = cache.root().join("base");
        fs::write(&base, "")?;
        let job = Job { directory: "/".into(), ..Job::default() };
        let machine = Machine { kernel, cpus: 1, memory: 1 };
        let (mut out, start) = (Vec::new(), Instant::now());
        let limits = Limits { total, silence };
        let remains = machine.run(cache, &base, &job, limits, |stream, bytes| {
            if stream == Stream::Out && out.len() < 1000 {
                out.extend_from_slice(bytes);
            }
        })?;
        assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
        Ok((remains.ending, String::from_utf8_lossy(&out).into_owned()))
    }

    #[test]
    fn a_guest_that_prints_for_ever_is_ended_at_its_limit() -> Result<()> {
        let limit = Duration::from_secs(2);
        let (ending, out) = run("exec yes", limit, LONG)?;
        assert_eq!(ending, Ending::TimedOut(limit));
        assert!(out.starts_with("y\ny\n"), "{out}");
        Ok(())
    }

    #[test]
    fn a_guest_without_a_word_is_ended_for_that() -> Result<()> {
        let limit = Duration::from_secs(2);
        let (ending, out) = run("echo before; exec sleep 3600", LONG, limit)?;
        assert_eq!((ending, out.as_str()), (Ending::TimedOut(limit), "before\n"));
        Ok(())
    }

    #[test]
    fn what_a_guest_writes_to_its_console_is_its_result() -> Result<()> {
        let console = "for one; do case $one in file:*) log=${one#file:};; esac; done; \
            echo 'mwb-vm: exit 5' > \"$log\"; echo done";
        let (ending, out) = run(&format!("{console}; exit 43"), LONG, LONG)?;
        assert_eq!((ending, out.as_str()), (Ending::Code(5), "done\n"));
        let (ending, _) = run("exit 1", LONG, LONG)?;
        assert!(matches!(ending, Ending::Qemu(_)), "{ending}");
        Ok(())
    }
}
