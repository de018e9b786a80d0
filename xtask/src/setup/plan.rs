//! What to do next, given what is there: pure decisions over a [`Machine`].
//!
//! One step at a time, because what a step brings (which LLVM a compiler has)
//! decides the next one. A step is never taken twice.

use super::machine::{Linker, Machine, Toolchain, is_called, preference};
use crate::workspace::DEFAULT_TOOLCHAIN;

/// The nightly that is installed where no usable compiler is. Dated, so that it
/// never replaces a nightly that the user has, and of an LLVM (22) that Debian
/// has too: bpf-linker must be built on one that is not older.
pub const NIGHTLY: &str = "nightly-2026-05-20";
/// Debian's own compiler, its cargo, the source of its library, and clippy.
pub const DEBIAN_RUST: [&str; 4] = ["rustc-web", "cargo-web", "rust-web-src", "rust-web-clippy"];
/// The bpf-linker that is built here.
pub const LINKER_VERSION: &str = "0.13.0";
/// Oldest bpf-linker that is taken as it is.
const OLDEST_LINKER: (u32, u32) = (0, 13);
/// LLVM versions that it can be built on.
const LINKER_LLVMS: std::ops::RangeInclusive<u32> = 21..=23;

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Mount a BPF file system.
    MountBpffs,
    /// Fetch the lists of Debian packages.
    AptUpdate,
    /// Install Debian packages.
    Apt(Vec<String>),
    /// Add components to the userspace toolchain.
    Components(Vec<String>),
    /// Make the distribution's compiler known to rustup as [`DEFAULT_TOOLCHAIN`].
    Link,
    /// Install [`NIGHTLY`] with the source of its library.
    Nightly,
    /// Build bpf-linker on this LLVM.
    Linker(u32),
}

impl Step {
    /// The step may fail without ending setup: there is another way.
    #[must_use]
    pub fn has_alternative(&self) -> bool {
        matches!(self, Step::AptUpdate | Step::Nightly)
    }
}

/// What setup found to be enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The toolchain of the kernel side.
    pub toolchain: Toolchain,
    /// The linker that goes with it.
    pub linker: Linker,
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Everything is there.
    Ready(Box<Choice>),
    /// Do this, then look again.
    Do(Step),
    /// It cannot be done from here: what to do about it.
    Stuck(String),
}

/// Decides. `offers` tells whether Debian has a package to install; `done` are
/// the steps already tried.
#[must_use]
pub fn next(machine: &Machine, offers: &dyn Fn(&str) -> bool, done: &[Step]) -> Next {
    if !machine.rustup {
        return Next::Stuck(
            "rustup is not on the search path, and only rustup can run a second compiler for the \
             kernel side: install it from https://rustup.rs (Debian 13: apt-get install rustup)"
                .to_owned(),
        );
    }
    if !machine.missing_components.is_empty() {
        let names = machine.missing_components.iter().map(ToString::to_string).collect();
        return once(Step::Components(names), done);
    }
    if !machine.missing_tools.is_empty() {
        let packages = machine.missing_tools.iter().map(|tool| tool.package.to_owned()).collect();
        return install(machine, packages, done);
    }
    if !machine.bpffs {
        if !machine.root {
            return Next::Stuck(
                "mount the BPF file system: sudo mount -t bpf bpf /sys/fs/bpf".into(),
            );
        }
        return once(Step::MountBpffs, done);
    }
    kernel_side(machine, offers, done)
}

/// Compiler and linker of the kernel side.
fn kernel_side(machine: &Machine, offers: &dyn Fn(&str) -> bool, done: &[Step]) -> Next {
    let mut usable: Vec<&Toolchain> =
        machine.toolchains.iter().filter(|one| one.refusal().is_none()).collect();
    usable.sort_by_key(|one| preference(machine, one));

    if let Some(linker) = machine.linker
        && let Some(one) = usable.iter().find(|one| fits(linker, one))
    {
        return Next::Ready(Box::new(Choice { toolchain: (*one).clone(), linker }));
    }
    let linkable = || usable.iter().map(|one| one.llvm).filter(|n| LINKER_LLVMS.contains(n));
    if let Some(llvm) = linkable().find(|n| machine.llvm_dev.contains(n)) {
        return once(Step::Linker(llvm), done);
    }
    if let Some(system) = &machine.system
        && system.refusal().is_none()
        && !usable.iter().any(|one| one.name == DEFAULT_TOOLCHAIN)
    {
        return once(Step::Link, done);
    }
    // Beyond this point something comes from outside.
    if machine.apt && !done.contains(&Step::AptUpdate) {
        return Next::Do(Step::AptUpdate);
    }
    if let Some(package) = linkable().map(|n| format!("llvm-{n}-dev")).find(|name| offers(name)) {
        return install(machine, vec![package], done);
    }
    if !done.contains(&Step::Nightly)
        && !machine.toolchains.iter().any(|one| is_called(one, NIGHTLY))
    {
        return Next::Do(Step::Nightly);
    }
    if DEBIAN_RUST.iter().all(|name| offers(name)) {
        let missing = DEBIAN_RUST.iter().map(ToString::to_string).collect();
        return install(machine, missing, done);
    }
    Next::Stuck(stuck(machine))
}

/// A linker reads what compilers of its own LLVM and older ones write. One that
/// does not show its LLVM (linked statically) gets the benefit of the doubt.
fn fits(linker: Linker, toolchain: &Toolchain) -> bool {
    linker.version >= OLDEST_LINKER && linker.llvm.is_none_or(|llvm| llvm >= toolchain.llvm)
}

fn install(machine: &Machine, packages: Vec<String>, done: &[Step]) -> Next {
    let names = packages.join(" ");
    if !machine.apt {
        return Next::Stuck(format!(
            "there is no apt-get here; install what these Debian packages hold: {names}"
        ));
    }
    if !machine.root {
        return Next::Stuck(format!(
            "installing needs root: sudo apt-get install --no-install-recommends {names}"
        ));
    }
    if !done.contains(&Step::AptUpdate) {
        return Next::Do(Step::AptUpdate);
    }
    once(Step::Apt(packages), done)
}

fn once(step: Step, done: &[Step]) -> Next {
    if done.contains(&step) {
        return Next::Stuck(format!("{} changed nothing", describe(&step)));
    }
    Next::Do(step)
}

fn stuck(machine: &Machine) -> String {
    let mut text = "nothing here builds the kernel side:\n".to_owned();
    for line in refusals(machine) {
        text += &format!("  {line}\n");
    }
    text + &format!(
        "either of these helps:\n  \
         rustup toolchain install {NIGHTLY} --profile minimal --component rust-src, and the \
         development files of LLVM 22\n  \
         apt-get install --no-install-recommends {} llvm-N-dev, where N is the LLVM that \
         `/usr/bin/rustc -vV` prints",
        DEBIAN_RUST.join(" ")
    )
}

/// Why each compiler is not the one, in words.
#[must_use]
pub fn refusals(machine: &Machine) -> Vec<String> {
    let mut lines = Vec::new();
    for one in &machine.toolchains {
        // Userspace toolchains without rust-src are as they should be.
        if one.name.starts_with("stable") || one.name.starts_with(|c: char| c.is_ascii_digit()) {
            continue;
        }
        if let Some(why) = one.refusal() {
            lines.push(format!("{} cannot be used: {why}", one.name));
        } else if let Some(linker) = machine.linker
            && !fits(linker, one)
        {
            let what = linker.llvm.map_or_else(|| "too old".into(), |n| format!("on LLVM {n}"));
            lines.push(format!(
                "{} cannot be used: it writes for LLVM {}, bpf-linker is {what}",
                one.name, one.llvm
            ));
        }
    }
    lines
}

/// A step in words.
#[must_use]
pub fn describe(step: &Step) -> String {
    match step {
        Step::MountBpffs => "mount the BPF file system at /sys/fs/bpf".to_owned(),
        Step::AptUpdate => "fetch the lists of Debian packages".to_owned(),
        Step::Apt(packages) => format!("install Debian packages {}", packages.join(" ")),
        Step::Components(names) => format!("add {} to the Rust toolchain", names.join(" and ")),
        Step::Link => format!("link Debian's compiler as rustup toolchain {DEFAULT_TOOLCHAIN}"),
        Step::Nightly => format!("install Rust {NIGHTLY} with rust-src"),
        Step::Linker(llvm) => format!("build bpf-linker {LINKER_VERSION} on LLVM {llvm}"),
    }
}

#[cfg(test)]
mod tests;
