//! The network that test runs are in.

use std::process::Command;
use std::thread;

use nix::sched::{CloneFlags, unshare};

use crate::world;

/// Runs `test` in a network of its own with the little world's LAN in it; its
/// argument is the index of the LAN device. Says why if that cannot be had here.
pub(crate) fn in_the_world(name: &str, test: impl FnOnce(u32) + Send) {
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

/// A network of this thread's own; gives the index of the LAN device. The namespace
/// ends with the thread.
pub(crate) fn make_network() -> Result<u32, String> {
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
