//! Runs one command for one event.
//!
//! Must not know: queues, what the event means.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};

use super::body::Body;
use super::prepare::ExecTarget;

/// Of what a command writes, so many bytes of each stream are logged.
const LOGGED: usize = 4_096;
/// A command that has ended has written all. Only a child that it left behind
/// holds its streams open: that is not waited for longer.
const LEFT_OPEN: Duration = Duration::from_millis(200);
/// A variable has at most so many bytes; the input has all of it. The kernel
/// starts nothing with one of 128 KiB (MAX_ARG_STRLEN).
const LONGEST_VALUE: usize = 16 << 10;
/// Where programs are that the command calls.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs it to its end, at most for its time.
///
/// # Errors
/// When it cannot be started, fails or takes too long, in words for people.
pub(super) async fn run(target: &ExecTarget, body: &Body) -> Result<(), String> {
    let Some((program, arguments)) = target.command.split_first() else {
        return Err("there is no command".to_owned());
    };
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(environment(body)).current_dir("/");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A group of its own, so that its children can be killed with it.
    command.process_group(0).kill_on_drop(true);
    let child = command.spawn().map_err(|error| format!("{program} cannot be started: {error}"))?;
    let mut group = Group(child);
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let ended =
        tokio::time::timeout(target.timeout, attend(&mut group, body, &mut out, &mut err)).await;
    tracing::debug!(
        receiver = body.receiver,
        delivery = body.delivery,
        stdout = %String::from_utf8_lossy(&out),
        stderr = %String::from_utf8_lossy(&err),
        "output of {program}, of each stream the first {LOGGED} bytes",
    );
    match ended {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(format!("{program} ended with {status}")),
        Ok(Err(error)) => Err(format!("{program} cannot be waited for: {error}")),
        Err(_) => {
            group.kill();
            // Killed, it ends at once; that it does is what is waited for.
            let _ = group.0.wait().await;
            Err(format!("{program} took longer than {:?} and was killed", target.timeout))
        }
    }
}

/// Feeds it, reads what it says and waits for its end.
async fn attend(
    group: &mut Group,
    body: &Body,
    out: &mut Vec<u8>,
    err: &mut Vec<u8>,
) -> io::Result<ExitStatus> {
    let (stdin, stdout, stderr) =
        (group.0.stdin.take(), group.0.stdout.take(), group.0.stderr.take());
    let feed = async {
        if let Some(mut stdin) = stdin {
            // Not to read it is the command's own affair.
            let _ = stdin.write_all(&body.to_json()).await;
        }
    };
    let talk = async { tokio::join!(feed, keep(stdout, out), keep(stderr, err)) };
    let mut talk = std::pin::pin!(talk);
    let mut talking = true;
    loop {
        tokio::select! {
            _ = &mut talk, if talking => talking = false,
            status = group.0.wait() => {
                if talking {
                    let _ = tokio::time::timeout(LEFT_OPEN, talk).await;
                }
                return status;
            }
        }
    }
}

/// Keeps the beginning of a stream, and reads the rest so that nobody waits.
async fn keep(stream: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut stream) = stream else { return };
    let mut buffer = [0; 4_096];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        let room = LOGGED.saturating_sub(kept.len());
        kept.extend_from_slice(&buffer[..count.min(room)]);
    }
}

fn environment(body: &Body) -> Vec<(&'static str, String)> {
    let mut variables = vec![
        ("PATH", PATH.to_owned()),
        ("MWB_EVENT_ID", body.id.to_string()),
        ("MWB_EVENT_UNIX_MS", body.unix_ms.to_string()),
        ("MWB_EVENT_KIND", body.kind.clone()),
        ("MWB_EVENT_MESSAGE", body.message.clone()),
        ("MWB_EVENT_REASON", body.reason.clone()),
        ("MWB_EVENT_GATEWAY", body.gateway.clone()),
        ("MWB_EVENT_RECEIVER", body.receiver.clone()),
        ("MWB_EVENT_DELIVERY", body.delivery.clone()),
    ];
    variables.extend(body.wan.clone().map(|wan| ("MWB_EVENT_WAN", wan)));
    for (_, value) in &mut variables {
        // No variable can hold it.
        value.retain(|character| character != '\0');
        value.truncate(value.floor_char_boundary(LONGEST_VALUE));
    }
    variables
}

/// A command and its children, which do not outlive the interest in it.
struct Group(Child);

impl Group {
    /// Kills them, unless the command has ended: its number may be another's then.
    fn kill(&self) {
        let Some(id) = self.0.id().and_then(|id| i32::try_from(id).ok()) else { return };
        // That they are gone already is no error.
        let _ = killpg(Pid::from_raw(id), Signal::SIGKILL);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}
