//! Gets what a test VM is made of, once: QEMU and tools, kernels, and the small
//! program that ends a VM. When all is there, nothing is looked up or fetched.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::apt::{Apt, Unavailable};
use super::cache::{self, Cache, Kernel};
use super::kernel;
use crate::exec;
use crate::outcome::Verdict;

/// QEMU, and what unpacks and packs kernels.
const PACKAGES: [&str; 6] =
    ["qemu-system-x86", "busybox-static", "kmod", "zstd", "lz4", "xz-utils"];
/// Their programs that are used here.
pub(super) const TOOLS: [&str; 6] = [QEMU, "busybox", "kmod", "zstd", "lz4", "xz"];
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

/// As [`ensure`], each kernel by itself: one that cannot be had keeps no other away.
/// Gives those that are there, and why each of the others is not.
pub(super) fn ensure_each(cache: &Cache, kernels: &[Kernel]) -> (Vec<Kernel>, Vec<Lack>) {
    let none = |error: &anyhow::Error| {
        (Vec::new(), kernels.iter().map(|kernel| Lack::of(kernel, error)).collect())
    };
    // Together, they cost one look at the archive.
    match ensure(cache, kernels) {
        Ok(()) => return (kernels.to_vec(), Vec::new()),
        Err(error) if kernels.len() == 1 => return none(&error),
        Err(_) => {}
    }
    // Without QEMU all of them come to the same.
    if let Err(error) = ensure(cache, &[]) {
        return none(&error);
    }
    let (mut there, mut lacking) = (Vec::new(), Vec::new());
    for kernel in kernels {
        match ensure(cache, std::slice::from_ref(kernel)) {
            Ok(()) => there.push(kernel.clone()),
            Err(error) => lacking.push(Lack::of(kernel, &error)),
        }
    }
    (there, lacking)
}

/// A kernel that there is no VM with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lack {
    pub(super) kernel: Kernel,
    /// This machine cannot have it; else something is wrong with it.
    is_unavailable: bool,
    why: String,
}

impl Lack {
    fn of(kernel: &Kernel, error: &anyhow::Error) -> Self {
        let unavailable = why_unavailable(error);
        let is_unavailable = unavailable.is_some();
        let why = unavailable.unwrap_or_else(|| format!("{error:#}"));
        Self { kernel: kernel.clone(), is_unavailable, why }
    }

    /// What a test on it comes to.
    pub(super) fn verdict(self) -> Verdict {
        if self.is_unavailable { Verdict::Skipped(self.why) } else { Verdict::Failed(self.why) }
    }
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.is_unavailable { "skipped" } else { "failed" };
        write!(f, "Linux {}: {how}: {}", self.kernel, self.why)
    }
}

/// Why this machine cannot have the parts, in one line; `None` if an error says that
/// something is wrong with them.
pub(super) fn why_unavailable(error: &anyhow::Error) -> Option<String> {
    error.is::<Unavailable>().then(|| {
        // It shows what a download had to say.
        format!("{error:#}").split_whitespace().collect::<Vec<_>>().join(" ")
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
    /// All of them.
    Tools,
    /// One that was there when the others were fetched.
    Lost(&'static str),
    Kernel(&'a Kernel),
}

impl Part<'_> {
    fn words(&self) -> String {
        match self {
            Part::Tools => "QEMU and its tools".to_owned(),
            Part::Lost(tool) => format!("{tool} or a library of it"),
            Part::Kernel(kernel) => format!("Linux {kernel}"),
        }
    }
}

fn missing<'a>(cache: &Cache, kernels: &'a [Kernel]) -> Vec<Part<'a>> {
    let mut missing = Vec::new();
    if !cache::is_complete(&cache.tools(), &tools_recipe()) {
        missing.push(Part::Tools);
    } else {
        // Of the packages only those were fetched that this machine lacked on that day.
        let lost = TOOLS.into_iter().filter(|tool| !cache.tool(tool).is_ok_and(|tool| tool.runs()));
        missing.extend(lost.map(Part::Lost));
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

pub(super) fn tools_recipe() -> String {
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
            Part::Tools | Part::Lost(_) => None,
        })
        .collect();
    let tools = missing.iter().any(|part| matches!(part, Part::Tools | Part::Lost(_)));
    if tools || !to_download.is_empty() {
        eprintln!("test VM: getting its parts into {}", cache.root().display());
        let apt = Apt::prepare(&cache.apt(), &to_download)?;
        apt.update()?;
        if tools {
            cache::complete(&cache.tools(), &tools_recipe(), |new| {
                apt.unpack_with_dependencies(&PACKAGES, new)?;
                make_vmexit(new)
            })?;
            if let Some(lost) = self::missing(cache, &[]).first() {
                let lost = lost.words();
                bail!("dpkg takes {lost} for installed, and it is gone: install it again");
            }
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
    use super::super::stand_in::StandIn;
    use super::*;

    /// What `of` gives without a network; `None` where the machine cannot cut itself off.
    fn without_network<T: Send>(test: &str, of: impl FnOnce() -> T + Send) -> Result<Option<T>> {
        let by_network =
            sources::mirrors().is_ok_and(|found| found.archive.uri.starts_with("http"));
        if !nix::unistd::geteuid().is_root() || check_machine().is_err() || !by_network {
            println!(
                "skipped: {test}: needs root, x86-64, and apt with an archive of Debian's in a \
                 network"
            );
            return Ok(None);
        }
        // What this thread starts has no network.
        std::thread::scope(|scope| {
            let alone = scope.spawn(|| {
                nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)?;
                Ok(Some(of()))
            });
            alone.join().map_err(|_| anyhow::anyhow!("it panicked"))?
        })
    }

    #[test]
    fn an_empty_cache_lacks_everything_and_a_cut_network_is_told() -> Result<()> {
        let scratch = std::env::temp_dir().join(format!("mwb-vm-parts-{}", std::process::id()));
        let cache = Cache::at(&scratch);
        let kernels = ["6.1", "6.12"].map(|name| name.parse().map_err(anyhow::Error::msg));
        let kernels = kernels.into_iter().collect::<Result<Vec<Kernel>>>()?;
        assert_eq!(missing(&cache, &kernels).len(), 3);
        let test = "an_empty_cache_lacks_everything_and_a_cut_network_is_told";
        let Some(told) =
            without_network(test, || (ensure(&cache, &kernels), ensure_each(&cache, &kernels)))?
        else {
            return Ok(());
        };
        fs::remove_dir_all(&scratch)?;
        let (told, (there, lacking)) = told;
        let why = told.as_ref().err().and_then(why_unavailable);
        let text = why.with_context(|| format!("{told:?}"))?;
        for words in ["QEMU", "Linux 6.1,", "Linux 6.12", "cannot be reached", "vm setup"] {
            assert!(text.contains(words), "{words} is not in: {text}");
        }
        assert!(!text.contains('\n'), "{text}");
        assert!(there.is_empty());
        let told: Vec<String> = lacking.iter().map(ToString::to_string).collect();
        assert!(
            told[0].starts_with("Linux 6.1: skipped: ") && told[0].contains("QEMU"),
            "{told:?}"
        );
        assert!(told[1].starts_with("Linux 6.12: skipped: "), "{told:?}");
        Ok(())
    }

    #[test]
    fn a_tool_that_this_machine_has_lost_is_fetched_again() -> Result<()> {
        let place = StandIn::make("")?;
        let kernels = [place.kernel()];
        assert_eq!(missing(place.cache(), &kernels), []);
        let test = "a_tool_that_this_machine_has_lost_is_fetched_again";
        if exec::find(QEMU).is_some() {
            println!("skipped: {test}: this machine has QEMU beside the cache's");
            return Ok(());
        }
        fs::remove_file(place.program(QEMU))?;
        assert_eq!(missing(place.cache(), &kernels), [Part::Lost(QEMU)]);
        let Some(told) = without_network(test, || ensure(place.cache(), &kernels))? else {
            return Ok(());
        };
        let why = told.as_ref().err().and_then(why_unavailable);
        let text = why.with_context(|| format!("{told:?}"))?;
        assert!(text.contains(QEMU) && text.contains("vm setup"), "{text}");
        Ok(())
    }

    #[test]
    fn a_kernel_that_cannot_be_had_keeps_no_other_away() -> Result<()> {
        let place = StandIn::make("")?;
        let kernels = [place.break_kernel("6.1")?, place.kernel()];
        let (there, lacking) = ensure_each(place.cache(), &kernels);
        assert_eq!(there, kernels[1..]);
        assert_eq!(lacking.len(), 1, "{lacking:?}");
        assert!(lacking[0].to_string().starts_with("Linux 6.1: failed: "), "{lacking:?}");
        Ok(())
    }

    #[test]
    fn a_part_that_is_broken_is_not_one_that_cannot_be_had() -> Result<()> {
        let place = StandIn::make("")?;
        let broken = place.break_kernel("6.1")?;
        let error = ensure(place.cache(), &[broken]).err().context("a broken package was taken")?;
        assert_eq!(why_unavailable(&error), None, "{error:#}");
        assert!(format!("{error:#}").contains("Linux 6.1"), "{error:#}");
        Ok(())
    }
}
