//! What is on this machine, as plain facts. Installs nothing, decides nothing.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::exec;
use crate::workspace::{DEFAULT_TOOLCHAIN, TOOLCHAIN_VARIABLE};

/// A program that the lab or the tests call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tool {
    /// The program.
    pub binary: &'static str,
    /// The Debian package that has it.
    pub package: &'static str,
}

/// Every program that the lab and the tests call.
pub const TOOLS: &[Tool] = &[
    Tool { binary: "ip", package: "iproute2" },
    Tool { binary: "ping", package: "iputils-ping" },
    Tool { binary: "ethtool", package: "ethtool" },
    Tool { binary: "iperf3", package: "iperf3" },
    Tool { binary: "tcpdump", package: "tcpdump" },
    Tool { binary: "nft", package: "nftables" },
    Tool { binary: "curl", package: "curl" },
    Tool { binary: "bpftool", package: "bpftool" },
    Tool { binary: "dig", package: "bind9-dnsutils" },
    Tool { binary: "traceroute", package: "traceroute" },
    Tool { binary: "openssl", package: "openssl" },
    Tool { binary: "dnsmasq", package: "dnsmasq-base" },
    Tool { binary: "turnserver", package: "coturn" },
    Tool { binary: "nginx", package: "nginx" },
];

/// Oldest compiler that builds the kernel side (the workspace's `rust-version`).
pub const OLDEST_RUSTC: (u32, u32) = (1, 95);

/// A compiler that could build the kernel side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toolchain {
    /// Its name for rustup, or the path of a compiler that rustup does not know.
    pub name: String,
    /// Major and minor version of the compiler.
    pub rustc: (u32, u32),
    /// Major version of its LLVM.
    pub llvm: u32,
    /// The source of `core` lies beside it.
    pub source: bool,
    /// It comes with cargo.
    pub cargo: bool,
    /// It comes with clippy.
    pub clippy: bool,
}

impl Toolchain {
    /// Why it cannot build the kernel side, whatever else is installed.
    #[must_use]
    pub fn refusal(&self) -> Option<String> {
        let (major, minor) = self.rustc;
        if self.rustc < OLDEST_RUSTC {
            Some(format!(
                "rustc {major}.{minor} is older than {}.{}",
                OLDEST_RUSTC.0, OLDEST_RUSTC.1
            ))
        } else if !self.source {
            Some("it has no rust-src, the source of core".to_owned())
        } else if !self.cargo {
            Some("it has no cargo".to_owned())
        } else {
            None
        }
    }
}

/// The linker of eBPF objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Linker {
    /// Major and minor version.
    pub version: (u32, u32),
    /// Major version of the LLVM in it; `None` if it does not show.
    pub llvm: Option<u32>,
}

/// Everything that setup decides by.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// This process may install packages and mount.
    pub root: bool,
    /// `rustup` is on the search path.
    pub rustup: bool,
    /// `apt-get` is on the search path.
    pub apt: bool,
    /// What rustup knows.
    pub toolchains: Vec<Toolchain>,
    /// The distribution's own compiler.
    pub system: Option<Toolchain>,
    /// What the user asked for by [`TOOLCHAIN_VARIABLE`].
    pub wanted: Option<String>,
    /// `bpf-linker`.
    pub linker: Option<Linker>,
    /// Major versions of LLVM whose development files are there.
    pub llvm_dev: Vec<u32>,
    /// Tools that are not there.
    pub missing_tools: Vec<Tool>,
    /// Components of the userspace toolchain that are not there.
    pub missing_components: Vec<&'static str>,
    /// A BPF file system is mounted at `/sys/fs/bpf`.
    pub bpffs: bool,
}

/// Looks.
#[must_use]
pub fn detect() -> Machine {
    let rustup = exec::find("rustup").is_some();
    let listing = if rustup { exec::ask("rustup", &["toolchain", "list", "-v"]) } else { None };
    let toolchains = listing
        .as_deref()
        .map(parse_toolchains)
        .unwrap_or_default()
        .into_iter()
        .filter_map(|(name, sysroot)| inspect(name, &sysroot))
        .collect();
    Machine {
        root: nix::unistd::geteuid().is_root(),
        rustup,
        apt: exec::find("apt-get").is_some(),
        toolchains,
        system: inspect("/usr/bin/rustc".to_owned(), Path::new("/usr")),
        wanted: std::env::var(TOOLCHAIN_VARIABLE).ok().filter(|name| !name.is_empty()),
        linker: detect_linker(),
        llvm_dev: (19..=40).filter(|&n| llvm_prefix(n).join("bin/llvm-config").is_file()).collect(),
        missing_tools: TOOLS
            .iter()
            .copied()
            .filter(|tool| exec::find(tool.binary).is_none())
            .collect(),
        missing_components: missing_components(),
        bpffs: bpffs_is_mounted(),
    }
}

/// Where Debian keeps an LLVM.
#[must_use]
pub fn llvm_prefix(major: u32) -> PathBuf {
    PathBuf::from(format!("/usr/lib/llvm-{major}"))
}

/// The compiler under `sysroot`, if there is one.
fn inspect(name: String, sysroot: &Path) -> Option<Toolchain> {
    let bin = sysroot.join("bin");
    let (rustc, llvm) = parse_rustc(&exec::ask(bin.join("rustc"), &["-vV"])?)?;
    let library = sysroot.join("lib/rustlib/src/rust/library");
    Some(Toolchain {
        name,
        rustc,
        llvm,
        // `-Z build-std` reads both.
        source: library.join("core/src/lib.rs").is_file() && library.join("Cargo.lock").is_file(),
        cargo: bin.join("cargo").is_file(),
        clippy: bin.join("cargo-clippy").is_file() && bin.join("clippy-driver").is_file(),
    })
}

fn detect_linker() -> Option<Linker> {
    let file = exec::find("bpf-linker")?;
    let version = parse_linker_version(&exec::ask(&file, &["--version"])?)?;
    let libraries = exec::ask("ldd", &[&file.to_string_lossy()]).unwrap_or_default();
    Some(Linker { version, llvm: parse_llvm_library(&libraries) })
}

fn missing_components() -> Vec<&'static str> {
    let Some(sysroot) = exec::ask("rustc", &["--print", "sysroot"]) else {
        return Vec::new();
    };
    let bin = Path::new(sysroot.trim()).join("bin");
    [("cargo-fmt", "rustfmt"), ("cargo-clippy", "clippy")]
        .into_iter()
        .filter(|(binary, _)| !bin.join(binary).is_file())
        .map(|(_, component)| component)
        .collect()
}

fn bpffs_is_mounted() -> bool {
    nix::sys::statfs::statfs("/sys/fs/bpf")
        .is_ok_and(|fs| fs.filesystem_type() == nix::sys::statfs::FsType(libc::BPF_FS_MAGIC))
}

/// Compiler version and LLVM major from `rustc -vV`.
fn parse_rustc(text: &str) -> Option<((u32, u32), u32)> {
    let value = |key| text.lines().find_map(|line| line.strip_prefix(key));
    let llvm = value("LLVM version: ")?.split('.').next()?.trim().parse().ok()?;
    Some((parse_version(value("release: ")?)?, llvm))
}

/// Version from `bpf-linker --version`.
fn parse_linker_version(text: &str) -> Option<(u32, u32)> {
    parse_version(text.trim().strip_prefix("bpf-linker ")?)
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.trim().split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// LLVM major from the libraries that `ldd` lists.
fn parse_llvm_library(text: &str) -> Option<u32> {
    let (_, rest) = text.split_once("libLLVM")?;
    let digits = rest.trim_start_matches(|c: char| !c.is_ascii_digit());
    digits.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Name and place of each line of `rustup toolchain list -v`.
fn parse_toolchains(text: &str) -> Vec<(String, PathBuf)> {
    text.lines()
        .filter_map(|line| {
            let name = line.split_whitespace().next()?;
            let place = &line[line.find('/')?..];
            Some((name.to_owned(), PathBuf::from(place.trim())))
        })
        .collect()
}

/// Order in which usable toolchains are taken; smaller is better.
#[must_use]
pub fn preference(machine: &Machine, toolchain: &Toolchain) -> u8 {
    if machine.wanted.as_deref().is_some_and(|name| is_called(toolchain, name)) {
        0
    } else if toolchain.name == DEFAULT_TOOLCHAIN {
        1
    } else if toolchain.name.starts_with("nightly-20") {
        // A dated nightly does not change under one's feet.
        2
    } else if toolchain.name.starts_with("nightly") {
        3
    } else {
        4
    }
}

/// rustup shows `nightly` as `nightly-x86_64-unknown-linux-gnu`.
#[must_use]
pub fn is_called(toolchain: &Toolchain, name: &str) -> bool {
    toolchain.name == name
        || toolchain
            .name
            .strip_prefix(name)
            .is_some_and(|rest| rest.starts_with(&format!("-{}", std::env::consts::ARCH)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_llvm_of_a_compiler_is_read_from_its_version() {
        let text = "rustc 1.97.0-nightly (e50aa6fba 2026-05-19)\nbinary: rustc\n\
                    host: x86_64-unknown-linux-gnu\nrelease: 1.97.0-nightly\nLLVM version: 22.1.4\n";
        assert_eq!(parse_rustc(text), Some(((1, 97), 22)));
        assert_eq!(parse_rustc("error: no such toolchain"), None);
    }

    #[test]
    fn the_llvm_of_a_linker_is_read_from_its_libraries() {
        let ldd = "\tlinux-vdso.so.1\n\tlibLLVM.so.22.1 => /usr/lib/llvm-22/lib/libLLVM.so.22.1\n";
        assert_eq!(parse_llvm_library(ldd), Some(22));
        assert_eq!(parse_llvm_library("\tlibLLVM-19.so.1 => /usr/lib/x\n"), Some(19));
        assert_eq!(parse_llvm_library("\tstatically linked\n"), None);
    }

    #[test]
    fn the_version_of_a_linker_is_read() {
        assert_eq!(parse_linker_version("bpf-linker 0.13.0\n"), Some((0, 13)));
        assert_eq!(parse_linker_version("ld 2.40"), None);
    }

    #[test]
    fn toolchains_are_listed_with_their_places() {
        let text = "stable-x86_64-unknown-linux-gnu (active, default) /root/.rustup/toolchains/s\n\
                    mwb-ebpf /usr\nno toolchain here\n";
        assert_eq!(
            parse_toolchains(text),
            [
                (
                    "stable-x86_64-unknown-linux-gnu".to_owned(),
                    PathBuf::from("/root/.rustup/toolchains/s")
                ),
                ("mwb-ebpf".to_owned(), PathBuf::from("/usr")),
            ]
        );
    }

    #[test]
    fn a_short_name_is_the_toolchain_of_this_machine() {
        let arch = std::env::consts::ARCH;
        let toolchain = Toolchain {
            name: format!("nightly-{arch}-unknown-linux-gnu"),
            rustc: (1, 97),
            llvm: 22,
            source: true,
            cargo: true,
            clippy: true,
        };
        assert!(is_called(&toolchain, "nightly"));
        assert!(!is_called(&toolchain, "night"));
        assert!(!is_called(&toolchain, "stable"));
    }
}
