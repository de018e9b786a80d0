//! The exec check: a command of the operator's own, by the convention of the
//! monitoring plugins (exit code 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN).
//!
//! The command is told the WAN in its environment and binds itself; nothing
//! makes it. It runs in a process group of its own, and no member of the group
//! outlives the check: neither one that is over time nor one that is left
//! behind. A process that leaves its group (setsid) is on its own.
//!
//! Must not know: what the command does.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, Interest};
use tokio::process::{ChildStdout, Command};
use tokio::time::Instant;

use super::budget::Budget;
use super::{Bad, Ended, Good, Invalid, Target, Via, perfdata};

/// How much of what the command writes is kept. The rest is read, so that it is
/// not stopped by a full pipe, and forgotten.
const MOST_OUTPUT: usize = 16 << 10;
/// Where commands that a plugin calls are looked for.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A command with its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exec {
    program: String,
    arguments: Vec<String>,
}

impl Exec {
    /// The program, by its absolute path, and its arguments. No shell reads
    /// them.
    ///
    /// # Errors
    /// A path that is not absolute, or a zero byte.
    pub fn new<T: AsRef<str>>(command: &[T]) -> Result<Self, Invalid> {
        let mut words = command.iter().map(|word| word.as_ref().to_owned());
        let program = words.next().unwrap_or_default();
        let arguments: Vec<String> = words.collect();
        if !Path::new(&program).is_absolute() {
            let why = "is not the absolute path of a program";
            return Err(Invalid::new("command", program, why));
        }
        if let Some(word) = [&program].into_iter().chain(&arguments).find(|w| w.contains('\0')) {
            return Err(Invalid::new("command", word.as_str(), "has a zero byte in it"));
        }
        Ok(Self { program, arguments })
    }

    /// Its time is what the command measured, if it tells, and else what it
    /// took.
    pub(super) async fn ask(
        &self,
        via: &Via,
        target: Option<&Target>,
        budget: &Budget,
    ) -> Result<Good, Bad> {
        let start = Instant::now();
        let mut output = Vec::new();
        let run = self.run(via, target, &mut output);
        let status = budget.within(|| format!("{} was ended", self.program), run).await?;
        let took = start.elapsed();
        let status = status
            .map_err(|error| Bad::NotSent(format!("{} cannot be run: {error}", self.program)))?;
        let (message, perfdata) = perfdata::parse(&String::from_utf8_lossy(&output));
        let warning = match (status.code(), status.signal()) {
            (Some(0), _) => false,
            (Some(1), _) => true,
            (code, signal) => {
                let how = match (code, signal) {
                    (Some(2), _) => Ended::Critical,
                    (Some(3), _) => Ended::Unknown,
                    (_, Some(signal)) => Ended::Signal(signal),
                    (code, None) => Ended::Code(code.unwrap_or_default()),
                };
                let message = if message.is_empty() { "no message".to_owned() } else { message };
                return Err(Bad::Exec { how, message });
            }
        };
        let time = perfdata::time(&perfdata).unwrap_or(took);
        Ok(Good { time, detail: message, warning, perfdata })
    }

    /// Runs the command to its end. Dropped before, it ends it.
    async fn run(
        &self,
        via: &Via,
        target: Option<&Target>,
        output: &mut Vec<u8>,
    ) -> io::Result<ExitStatus> {
        let mut child = self.command(via, target).spawn()?;
        let gone = || io::Error::from(io::ErrorKind::NotFound);
        let pid = child.id().ok_or_else(gone)?.cast_signed();
        let group = Group(Pid::from_raw(pid));
        let end = pidfd(pid)?;
        // SAFETY: an `OwnedFd` owns one descriptor, gives always that one, and
        // does not close it before it is dropped.
        let end = unsafe { AsyncFd::register_with_interest(end, Interest::READABLE) }?;
        let mut stdout = child.stdout.take().ok_or_else(gone)?;
        let mut open = true;
        let mut part = [0; 4096];
        loop {
            tokio::select! {
                ended = end.readable() => {
                    ended?.retain_ready();
                    break;
                }
                read = stdout.read(&mut part), if open => {
                    let read = read?;
                    open = read > 0;
                    keep(output, part.get(..read).unwrap_or_default());
                }
            }
        }
        // It has ended and is not reaped: its number is still its group's.
        drop(group);
        drain(stdout, output)?;
        child.wait().await
    }

    fn command(&self, via: &Via, target: Option<&Target>) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .env_clear()
            .env("PATH", PATH)
            .env("LANG", "C")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .kill_on_drop(true);
        let told = [
            ("MWB_WAN", via.wan.clone()),
            ("MWB_DEVICE", via.device.clone()),
            ("MWB_SOURCE4", via.source4.map(|source| source.to_string())),
            ("MWB_SOURCE6", via.source6.map(|source| source.to_string())),
            ("MWB_TARGET", target.map(ToString::to_string)),
        ];
        for (name, value) in told {
            if let Some(value) = value {
                command.env(name, value);
            }
        }
        command
    }
}

/// A process group whose leader is not reaped; dropped, all its members end.
#[derive(Debug)]
struct Group(Pid);

impl Drop for Group {
    fn drop(&mut self) {
        // It fails only if the group has no member that can be ended.
        let _ = killpg(self.0, Signal::SIGKILL);
    }
}

/// A descriptor that is readable when the process has ended.
fn pidfd(pid: libc::pid_t) -> io::Result<OwnedFd> {
    // SAFETY: the call takes two numbers and touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// What is left in the pipe. A process outside of the group may hold its other
/// end, so nobody waits for that to close.
fn drain(stdout: ChildStdout, output: &mut Vec<u8>) -> io::Result<()> {
    let fd = stdout.into_owned_fd()?;
    set_nonblocking(&fd)?;
    let mut pipe = File::from(fd);
    let mut part = [0; 4096];
    // Who keeps writing is not listened to for ever.
    for _ in 0..=(MOST_OUTPUT / part.len()) {
        match pipe.read(&mut part) {
            Ok(0) => break,
            Ok(read) => keep(output, part.get(..read).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn set_nonblocking(fd: &OwnedFd) -> io::Result<()> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

fn keep(output: &mut Vec<u8>, part: &[u8]) {
    let room = MOST_OUTPUT.saturating_sub(output.len());
    output.extend_from_slice(part.get(..part.len().min(room)).unwrap_or_default());
}

#[cfg(test)]
#[path = "exec_tests.rs"]
mod tests;
