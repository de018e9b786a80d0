//! The agent as a process, in a network of its own: what rights it keeps, that
//! it still does its work with them, and that it keeps its secret.
//!
//! ```text
//!   lan0p ── lan0 192.0.2.1/24 ┤agent├ wan0 198.51.100.2/24 ── wan0p
//! ```

use std::fs::{self, File, Permissions};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use mwb_agent::api::client;
use mwb_agent::api::snapshot::Status;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

const INSTANCE: &str = "rights-test";
const TOKEN: &str = "a1b2c3d4e5f60718293a4b5c6d7e8f90";
const DEADLINE: Duration = Duration::from_secs(60);

/// BPF, NET_ADMIN, NET_RAW and PERFMON by their numbers in linux/capability.h.
const KEPT: u64 = 1 << 39 | 1 << 12 | 1 << 13 | 1 << 38;

const CONFIG: &str = "\
version: 1
mode: steer
lan: [lan0]
wans:
  - {name: fiber, device: wan0, gateway: 198.51.100.1}
api: {listen: '127.0.0.1:9801', socket: SOCKET, token_file: TOKEN_FILE}
";

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split_whitespace()).status();
    assert!(status.is_ok_and(|status| status.success()), "`ip {arguments}` failed");
}

fn make_wan() {
    ip("link add wan0 type veth peer name wan0p");
    ip("link set wan0 up");
    ip("link set wan0p up");
    ip("addr add 198.51.100.2/24 dev wan0");
}

fn make_network() {
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
    ip("link set lo up");
    ip("link add lan0 type veth peer name lan0p");
    ip("link set lan0 up");
    ip("link set lan0p up");
    ip("addr add 192.0.2.1/24 dev lan0");
    make_wan();
}

/// A running agent; its end takes its data plane away.
struct Agent {
    child: Child,
    socket: PathBuf,
    log: PathBuf,
    _folder: TempDir,
}

impl Agent {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (socket, token) = (folder.path().join("mwb.sock"), folder.path().join("token"));
        fs::write(&token, TOKEN).expect("written");
        fs::set_permissions(&token, Permissions::from_mode(0o600)).expect("set");
        let config = folder.path().join("gateway.yaml");
        let text = CONFIG
            .replace("SOCKET", &socket.display().to_string())
            .replace("TOKEN_FILE", &token.display().to_string());
        fs::write(&config, text).expect("written");
        let log = folder.path().join("log");
        let child = Command::new(env!("CARGO_BIN_EXE_mwb-agent"))
            .args(["--instance", INSTANCE, "--config"])
            .arg(&config)
            .env("RUST_LOG", "trace")
            .stdin(Stdio::null())
            .stderr(File::create(&log).expect("a log"))
            .spawn()
            .expect("the agent starts");
        Self { child, socket, log, _folder: folder }
    }

    fn status(&self) -> Option<Status> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let body = runtime.expect("a runtime").block_on(client::get(&self.socket, "/v1/status"));
        serde_json::from_str(&body.ok()?).ok()
    }

    /// The interface index of the WAN's device once programs are attached to it.
    fn attached(&self) -> Option<u32> {
        let status = self.status()?;
        let wan = status.wans.first()?;
        wan.hook.as_ref().and(wan.ifindex)
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Ends it as systemd does, and waits.
    fn stop(&mut self) {
        let pid = i32::try_from(self.child.id()).expect("a process id");
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let _ = self.child.wait();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop();
        let detached = Command::new(env!("CARGO_BIN_EXE_mwb-agent"))
            .args(["--detach", "--instance", INSTANCE])
            .stdout(Stdio::null())
            .status();
        if !detached.is_ok_and(|status| status.success()) {
            println!("instance {INSTANCE} stays behind");
        }
    }
}

fn wait_for<T>(what: &str, agent: &Agent, mut find: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = find() {
            return found;
        }
        assert!(Instant::now() < end, "no {what} in {DEADLINE:?}:\n{}", agent.log());
        thread::sleep(Duration::from_millis(20));
    }
}

/// A set of capabilities as a thread's status file has it.
fn set(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
    let word = line.unwrap_or_else(|| panic!("no {name} in {status}"));
    u64::from_str_radix(word, 16).unwrap_or_else(|_| panic!("{name} is {word}"))
}

fn every_thread_has_only_what_is_kept(pid: u32) {
    let mut threads = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).expect("its threads") {
        let path: PathBuf = thread.expect("a thread").path().join("status");
        let Ok(status) = fs::read_to_string(&path) else { continue };
        threads += 1;
        for (name, expected) in
            [("CapEff", KEPT), ("CapPrm", KEPT), ("CapBnd", KEPT), ("CapInh", 0), ("CapAmb", 0)]
        {
            assert_eq!(set(&status, name), expected, "{name} of {}", path.display());
        }
        assert_eq!(set(&status, "NoNewPrivs"), 1, "{}", path.display());
    }
    assert!(threads > 2, "{threads} threads");
}

fn change_over_tcp(token: &str) -> String {
    let mut stream = TcpStream::connect("127.0.0.1:9801").expect("the agent listens");
    let request = format!(
        "POST /v1/reload HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
         authorization: Bearer {token}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("read");
    answer
}

fn in_a_network(name: &str, test: impl FnOnce() + Send) {
    if !nix::unistd::geteuid().is_root() || !Path::new("/sys/fs/bpf").exists() {
        return println!("skipped: {name}: needs root");
    }
    let ended = thread::scope(|scope| {
        let inside = || {
            make_network();
            test();
        };
        scope.spawn(inside).join()
    });
    if let Err(panic) = ended {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn with_four_rights_the_agent_serves_a_device_that_is_made_anew_and_tells_no_secret() {
    let name = "with_four_rights_the_agent_serves_a_device_that_is_made_anew_and_tells_no_secret";
    in_a_network(name, || {
        let mut agent = Agent::start();
        let first = wait_for("program on wan0", &agent, || agent.attached());
        every_thread_has_only_what_is_kept(agent.child.id());

        ip("link del wan0");
        wait_for("notice that wan0 is gone", &agent, || {
            agent.status().filter(|status| status.wans.iter().all(|wan| wan.ifindex.is_none()))
        });
        make_wan();
        let second = wait_for("program on the new wan0", &agent, || {
            agent.attached().filter(|ifindex| *ifindex != first)
        });
        assert_ne!(first, second);

        let refused = change_over_tcp("not the token, but as long as one");
        assert!(refused.starts_with("HTTP/1.1 401"), "{refused}");
        let done = change_over_tcp(TOKEN);
        assert!(done.starts_with("HTTP/1.1 200"), "{done}\n{}", agent.log());
        agent.stop();
        let log = agent.log();
        assert!(log.contains("agent_started"), "{log}");
        assert!(!log.contains(TOKEN), "the log has the token:\n{log}");
    });
}

#[test]
fn an_agent_without_a_right_that_it_needs_says_which() {
    if !nix::unistd::geteuid().is_root() {
        return println!("skipped: an_agent_without_a_right_that_it_needs_says_which: needs root");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("gateway.yaml");
    let text = CONFIG
        .replace("SOCKET", &folder.path().join("mwb.sock").display().to_string())
        .replace(", token_file: TOKEN_FILE", "");
    fs::write(&config, text.replace("'127.0.0.1:9801'", "off")).expect("written");
    let agent = env!("CARGO_BIN_EXE_mwb-agent");
    let command = format!("exec {agent} --instance {INSTANCE}-less --config {}", config.display());
    // Its rights are taken before it starts, by the shell's own thread.
    let output = without_net_raw(|| Command::new("sh").args(["-c", &command]).output());
    let output = output.expect("a shell");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("the agent needs CAP_NET_RAW"), "{said}");
    let detach = Command::new(agent)
        .args(["--detach", "--instance", &format!("{INSTANCE}-less")])
        .stdout(Stdio::null())
        .status();
    assert!(detach.is_ok_and(|status| status.success()));
}

/// Does something on a thread that has no right to raw sockets, and whose
/// children have none.
fn without_net_raw<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    use caps::{CapSet, Capability};
    let done = thread::scope(|scope| {
        let inside = || {
            caps::drop(None, CapSet::Bounding, Capability::CAP_NET_RAW).expect("dropped");
            act()
        };
        scope.spawn(inside).join()
    });
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
