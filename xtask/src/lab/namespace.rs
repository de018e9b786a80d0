//! A named network namespace: run things in it, configure it.
//!
//! Entering is `setns` on the network alone. `ip netns exec` would also give a
//! new `/sys` mount, in which `/sys/fs/bpf` is not the machine's: the agent
//! could not pin. Knows nothing of topologies.

use std::{
    ffi::OsStr,
    fs::File,
    io::Write as _,
    os::{fd::AsRawFd as _, unix::process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    thread,
};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::sched::{CloneFlags, setns};

use super::process::Process;

/// An open network namespace. Dropping it does not remove it: the lab's janitor
/// does.
#[derive(Clone, Debug)]
pub struct Namespace {
    name: String,
    file: Arc<File>,
    scratch: PathBuf,
}

impl Namespace {
    /// Opens `/run/netns/<name>`; logs of its processes go to `scratch`.
    ///
    /// # Errors
    /// When there is no such namespace.
    pub fn open(name: &str, scratch: &Path) -> Result<Self> {
        let path = Path::new("/run/netns").join(name);
        let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Self { name: name.to_owned(), file: Arc::new(file), scratch: scratch.to_owned() })
    }

    /// Full name, as `ip netns` shows it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where logs of its processes go.
    #[must_use]
    pub fn scratch(&self) -> &Path {
        &self.scratch
    }

    /// Runs `work` on a thread of its own inside the namespace and gives back
    /// its result. Sockets made there stay in the namespace wherever they are
    /// used; processes are started with [`Self::command`] instead.
    ///
    /// # Errors
    /// What `work` fails with, or a refused `setns`.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(self.file.as_ref(), CloneFlags::CLONE_NEWNET)
                    .with_context(|| format!("cannot enter namespace {}", self.name))?;
                work()
            });
            inside.join().map_err(|_| anyhow!("work in namespace {} panicked", self.name))?
        })
    }

    /// Starts a thread inside the namespace that lives as long as `work` does.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn thread<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<thread::JoinHandle<Result<T>>> {
        let file = Arc::clone(&self.file);
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                setns(file.as_ref(), CloneFlags::CLONE_NEWNET)
                    .context("cannot enter the namespace")?;
                work()
            })
            .with_context(|| format!("cannot start thread {name}"))
    }

    /// A command that will run inside the namespace, in a process group of its
    /// own: the terminal's Ctrl-C is for us, and we end what we started.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.process_group(0);
        let file = Arc::clone(&self.file);
        // SAFETY: between fork and exec only `setns` is called, which is
        // async-signal-safe, on a handle that the closure keeps open.
        unsafe {
            command.pre_exec(move || {
                if libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) == 0 {
                    Ok(())
                } else {
                    Err(std::io::Error::last_os_error())
                }
            });
        }
        command
    }

    /// Runs a program to its end and gives its standard output.
    ///
    /// # Errors
    /// When it cannot be started or fails; the error holds what it printed.
    pub fn run<S: AsRef<OsStr>>(
        &self,
        program: &str,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<String> {
        let mut command = self.command(program);
        command.args(arguments).stdin(Stdio::null());
        output_of(command, &format!("in {}", self.name))
    }

    /// Starts a program that runs beside us, its output in a log of the lab,
    /// and that ends when the handle is dropped.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn<S: AsRef<OsStr>>(
        &self,
        program: &str,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<Process> {
        let mut command = self.command(program);
        command.args(arguments);
        Process::spawn(command, &self.scratch)
    }

    /// Applies lines of `ip` commands in one go.
    ///
    /// # Errors
    /// The first line that is refused.
    pub fn ip(&self, batch: &str) -> Result<()> {
        self.batch("ip", batch)
    }

    /// Applies lines of `tc` commands in one go.
    ///
    /// # Errors
    /// The first line that is refused.
    pub fn tc(&self, batch: &str) -> Result<()> {
        self.batch("tc", batch)
    }

    /// Applies an nftables script.
    ///
    /// # Errors
    /// When nft refuses it.
    pub fn nft(&self, script: &str) -> Result<()> {
        let mut command = self.command("nft");
        command.args(["-f", "-"]);
        feed(command, script, &format!("in {}", self.name))
    }

    /// Sets `/proc/sys/<key>` (with slashes) of the namespace.
    ///
    /// # Errors
    /// When the kernel refuses the value.
    pub fn sysctl(&self, settings: &[(&str, &str)]) -> Result<()> {
        self.enter(|| {
            for (key, value) in settings {
                std::fs::write(Path::new("/proc/sys").join(key), value)
                    .with_context(|| format!("cannot set {key} = {value} in {}", self.name))?;
            }
            Ok(())
        })
    }

    /// Reads `/proc/sys/<key>` of the namespace.
    ///
    /// # Errors
    /// When there is no such key.
    pub fn read_sysctl(&self, key: &str) -> Result<String> {
        self.enter(|| {
            let path = Path::new("/proc/sys").join(key);
            Ok(std::fs::read_to_string(path)
                .with_context(|| format!("no {key}"))?
                .trim()
                .to_owned())
        })
    }

    /// Sets features of a device, as `ethtool -K DEVICE …` does.
    ///
    /// # Errors
    /// When the device refuses.
    pub fn ethtool_features(&self, device: &str, features: &[&str]) -> Result<()> {
        self.run("ethtool", ["-K", device].into_iter().chain(features.iter().copied())).map(drop)
    }

    /// A value of `/sys/class/net/<device>/…`-like figures through `ip -j -s link`.
    ///
    /// # Errors
    /// When there is no such device.
    pub fn link_json(&self, device: &str) -> Result<serde_json::Value> {
        let text = self.run("ip", ["-j", "-d", "-s", "link", "show", "dev", device])?;
        let rows: Vec<serde_json::Value> =
            serde_json::from_str(&text).context("ip gave no JSON")?;
        rows.into_iter().next().ok_or_else(|| anyhow!("no device {device} in {}", self.name))
    }

    fn batch(&self, program: &str, lines: &str) -> Result<()> {
        let mut command = self.command(program);
        command.args(["-batch", "-"]);
        feed(command, lines, &format!("in {}", self.name))
    }
}

/// Runs a command to its end with `input` on its standard input.
pub(super) fn feed(mut command: Command, input: &str, place: &str) -> Result<()> {
    let what = format!("{} {place}", command.get_program().display());
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {what}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A refused script is reported by the exit code, not by the broken pipe.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().with_context(|| format!("cannot wait for {what}"))?;
    if !output.status.success() {
        bail!(
            "{what} failed: {}{}\nit was given:\n{input}",
            String::from_utf8_lossy(&output.stderr),
            String::from_utf8_lossy(&output.stdout),
        );
    }
    Ok(())
}

/// Runs a command to its end and gives its standard output.
pub(super) fn output_of(mut command: Command, place: &str) -> Result<String> {
    let what = format!("{command:?} {place}");
    let output = command.output().with_context(|| format!("cannot start {what}"))?;
    if !output.status.success() {
        bail!(
            "{what} failed ({}): {}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr),
            String::from_utf8_lossy(&output.stdout),
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
