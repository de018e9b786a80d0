//! What tests of this module need: a network of their own, and an instance of
//! their own that leaves nothing behind.

use std::path::PathBuf;
use std::process::Command;
use std::thread;

use nix::sched::{CloneFlags, unshare};

use super::{DataPlane, DeviceSpec, HookChoice, Mode, Options, Programs, Role};

/// Runs `test` in a network namespace that ends with it, or says why not.
pub(crate) fn in_network(name: &str, test: impl FnOnce() + Send) {
    let result = thread::scope(|scope| {
        scope
            .spawn(|| match enter() {
                Ok(()) => test(),
                Err(why) => println!("skipped: {name}: {why}"),
            })
            .join()
    });
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

/// A data plane of a few entries, without programs, that nobody else sees: for what is in
/// its maps.
pub(crate) fn maps_alone(name: &str) -> DataPlane {
    let options = Options {
        flow_entries: 64,
        mapping_entries: 64,
        programs: Programs::None,
        ..Options::new(name)
    };
    DataPlane::open_unpinned(&options).expect("a data plane")
}

fn enter() -> Result<(), String> {
    if !nix::unistd::geteuid().is_root() {
        return Err("needs root".to_owned());
    }
    unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| format!("no network namespace: {errno}"))
}

/// Runs a command in the calling thread's network; returns what it printed.
pub(crate) fn run(line: &str) -> String {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().unwrap_or_default())
        .args(words)
        .output()
        .unwrap_or_else(|error| panic!("`{line}`: {error}"));
    assert!(output.status.success(), "`{line}`: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Makes a veth pair whose one end is `name`; returns its index.
pub(crate) fn make_veth(name: &str) -> u32 {
    run(&format!("ip link add {name} type veth peer name {name}p"));
    run(&format!("ip link set {name} up"));
    nix::net::if_::if_nametoindex(name).expect("a device")
}

/// An instance that is removed with this value.
pub(crate) struct Instance {
    pub(crate) options: Options,
}

impl Instance {
    pub(crate) fn new(name: &str) -> Self {
        let name = format!("{name}-{}", std::process::id());
        let options = Options { flow_entries: 64, mapping_entries: 64, ..Options::new(&name) };
        Self { options }
    }

    pub(crate) fn open(&self) -> DataPlane {
        DataPlane::open(&self.options).expect("a data plane")
    }

    /// How the TC form is attached on this kernel, and what its pin is called.
    pub(crate) fn tc(&self) -> (Mode, &'static str) {
        if self.open().has_tcx {
            (Mode::Tcx, super::pins::TC)
        } else {
            (Mode::Clsact, super::pins::CLSACT)
        }
    }

    pub(crate) fn pin(&self, device: &str, suffix: &str) -> PathBuf {
        super::pins::Pins::of(&self.options).expect("a good name").link(device, suffix)
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if let Err(error) = DataPlane::remove(&self.options) {
            println!("instance {} stays behind: {error}", self.options.instance);
        }
    }
}

/// A WAN port.
pub(crate) fn wan(name: &str, ifindex: u32, hook: HookChoice) -> DeviceSpec {
    DeviceSpec {
        name: name.to_owned(),
        ifindex,
        role: Role::Outside,
        path: 1,
        hook,
        driver: "veth".to_owned(),
        mac: [2, 0, 0, 0, 0, 1],
        flags: 0,
        address4: None,
        address6: None,
    }
}
