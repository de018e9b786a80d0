//! Gets what a test VM is made of, once: QEMU and tools, kernels, and the small
//! program that ends a VM. When all is there, nothing is looked up or fetched.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::apt::{Apt, Unavailable};
use super::cache::{self, Cache, Kernel};
use super::kernel;
use crate::exec;

/// QEMU, and what unpacks and packs kernels.
const PACKAGES: [&str; 6] =
    ["qemu-system-x86", "busybox-static", "kmod", "zstd", "lz4", "xz-utils"];
/// The emulator's program.
pub(super) const QEMU: &str = "qemu-system-x86_64";
/// The program that ends a VM.
pub(super) const VMEXIT: &str = "vmexit";
const VMEXIT_SOURCE: &str = include_str!("guest/vmexit.rs");

/// Makes sure that the cache has everything for `kernels`.
///
/// # Errors
/// Names what is missing and why it could not be had.
pub(super) fn ensure(cache: &Cache, kernels: &[Kernel]) -> Result<()> {
    if missing(cache, kernels).is_empty() {
        return Ok(());
    }
    check_machine()?;
    // Another one may have fetched it while this one waited.
    let _lock = cache.lock()?;
    let missing = missing(cache, kernels);
    get(cache, &missing, Age::Any).with_context(|| {
        let names: Vec<String> = missing.iter().map(Part::words).collect();
        format!("the test VM lacks {}, under {}", names.join(", "), cache.root().display())
    })
}

/// Replaces everything for `kernels` by what the archives have now. What is there
/// stays until the new is complete.
///
/// # Errors
/// As of [`ensure`].
pub(super) fn refresh(cache: &Cache, kernels: &[Kernel]) -> Result<()> {
    check_machine()?;
    let _lock = cache.lock()?;
    let all: Vec<Part<'_>> =
        std::iter::once(Part::Tools).chain(kernels.iter().map(Part::Kernel)).collect();
    get(cache, &all, Age::New)
}

/// Whether an error of [`ensure`] says that this machine cannot have the parts,
/// not that something is wrong with them.
pub(super) fn are_unavailable(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Unavailable>().is_some()
}

fn check_machine() -> Result<()> {
    if std::env::consts::ARCH == "x86_64" {
        return Ok(());
    }
    let why = "the test VM is an x86-64 machine, and is made on one only";
    Err(Unavailable(why.to_owned()).into())
}

/// Which package of a kernel will do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Age {
    /// The one that was downloaded before.
    Any,
    /// The archive's newest.
    New,
}

/// Something that is not in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part<'a> {
    Tools,
    Kernel(&'a Kernel),
}

impl Part<'_> {
    fn words(&self) -> String {
        match self {
            Part::Tools => "QEMU and its tools".to_owned(),
            Part::Kernel(kernel) => format!("Linux {kernel}"),
        }
    }
}

fn missing<'a>(cache: &Cache, kernels: &'a [Kernel]) -> Vec<Part<'a>> {
    let mut missing = Vec::new();
    if !cache::is_complete(&cache.tools(), &tools_recipe()) {
        missing.push(Part::Tools);
    }
    for kernel in kernels {
        let ready = package(cache, kernel).is_some_and(|package| {
            cache::is_complete(&cache.kernel(kernel), &kernel::recipe(&package))
        });
        if !ready {
            missing.push(Part::Kernel(kernel));
        }
    }
    missing
}

fn tools_recipe() -> String {
    format!("1 {}\n{VMEXIT_SOURCE}", PACKAGES.join(" "))
}

/// The package of a kernel, downloaded before.
fn package(cache: &Cache, kernel: &Kernel) -> Option<PathBuf> {
    let entries = fs::read_dir(cache.packages().join(kernel.to_string())).ok()?;
    entries
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
}

fn get(cache: &Cache, missing: &[Part<'_>], age: Age) -> Result<()> {
    let to_download: Vec<&Kernel> = missing
        .iter()
        .filter_map(|part| match part {
            Part::Kernel(kernel) => {
                (age == Age::New || package(cache, kernel).is_none()).then_some(*kernel)
            }
            Part::Tools => None,
        })
        .collect();
    let tools = missing.contains(&Part::Tools);
    if tools || !to_download.is_empty() {
        eprintln!("test VM: getting its parts into {}", cache.root().display());
        let apt = Apt::prepare(&cache.apt(), &to_download)?;
        apt.update()?;
        if tools {
            cache::complete(&cache.tools(), &tools_recipe(), |new| {
                apt.unpack_with_dependencies(&PACKAGES, new)?;
                make_vmexit(new)
            })?;
        }
        for kernel in to_download {
            let directory = cache.packages().join(kernel.to_string());
            cache::complete(&directory, "", |new| apt.download_kernel(kernel, new))?;
        }
    }
    for part in missing {
        if let Part::Kernel(kernel) = part {
            let package = package(cache, kernel).context("the package is gone again")?;
            let recipe = kernel::recipe(&package);
            cache::complete(&cache.kernel(kernel), &recipe, |new| {
                kernel::make(cache, &package, new)
            })?;
        }
    }
    Ok(())
}

/// A static program: the guest needs it before anything else is sure to work.
fn make_vmexit(directory: &Path) -> Result<()> {
    let source = directory.join("vmexit.rs");
    fs::write(&source, VMEXIT_SOURCE)?;
    let mut command = Command::new("rustc");
    command.args([
        "--edition",
        "2024",
        "-O",
        "-C",
        "target-feature=+crt-static",
        "-C",
        "strip=symbols",
    ]);
    command.arg("-o").arg(directory.join(VMEXIT)).arg(&source);
    exec::run_step("rustc vmexit", &mut command, Duration::from_secs(120))
}

#[cfg(test)]
mod tests {
    use super::super::sources;
    use super::*;

    #[test]
    fn an_empty_cache_lacks_everything_and_a_cut_network_is_told() -> Result<()> {
        let scratch = std::env::temp_dir().join(format!("mwb-vm-parts-{}", std::process::id()));
        let cache = Cache::at(&scratch);
        let kernels = ["6.1", "6.12"].map(|name| name.parse().map_err(anyhow::Error::msg));
        let kernels = kernels.into_iter().collect::<Result<Vec<Kernel>>>()?;
        assert_eq!(missing(&cache, &kernels).len(), 3);
        let by_network =
            sources::mirrors().is_ok_and(|found| found.archive.uri.starts_with("http"));
        if !nix::unistd::geteuid().is_root() || check_machine().is_err() || !by_network {
            println!(
                "skipped: an_empty_cache_lacks_everything_and_a_cut_network_is_told: needs root, \
                 x86-64, and apt with an archive of Debian's in a network"
            );
            return Ok(());
        }
        // What this thread starts has no network.
        let told = std::thread::scope(|scope| {
            let alone = scope.spawn(|| {
                nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)?;
                Ok::<_, anyhow::Error>(ensure(&cache, &kernels))
            });
            alone.join().map_err(|_| anyhow::anyhow!("it panicked"))?
        })?;
        assert!(told.as_ref().is_err_and(are_unavailable), "{told:?}");
        let text = told.err().map_or_else(String::new, |error| format!("{error:#}"));
        fs::remove_dir_all(&scratch)?;
        for words in ["QEMU", "Linux 6.1,", "Linux 6.12", "cannot be reached", "vm setup"] {
            assert!(text.contains(words), "{words} is not in: {text}");
        }
        Ok(())
    }

    #[test]
    fn a_part_that_is_broken_is_not_one_that_cannot_be_had() -> Result<()> {
        let scratch = std::env::temp_dir().join(format!("mwb-vm-broken-{}", std::process::id()));
        let cache = Cache::at(&scratch);
        let kernels = vec!["6.1".parse().map_err(anyhow::Error::msg)?];
        cache::complete(&cache.tools(), &tools_recipe(), |_| Ok(()))?;
        cache::complete(&cache.packages().join("6.1"), "", |new| {
            Ok(fs::write(new.join("linux-image.deb"), "not a package")?)
        })?;
        let error = ensure(&cache, &kernels).err().context("a broken package was taken")?;
        fs::remove_dir_all(&scratch)?;
        assert!(!are_unavailable(&error), "{error:#}");
        assert!(format!("{error:#}").contains("Linux 6.1"), "{error:#}");
        Ok(())
    }
}
