//! Where the parts of a test VM lie on this machine, and which are there.
//! Fetches nothing.

use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;

use anyhow::{Context as _, Result, bail};
use nix::fcntl::{Flock, FlockArg};

use crate::exec;

/// Name of the variable that puts the cache elsewhere.
const PLACE: &str = "MWB_VM_CACHE";
/// Written last of all into what is complete; holds what it was made from.
const COMPLETE: &str = "complete";

/// A kernel by the first two numbers of its version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kernel(String);

impl FromStr for Kernel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |part: &str| !part.is_empty() && part.bytes().all(|one| one.is_ascii_digit());
        match text.split_once('.') {
            Some((major, minor)) if number(major) && number(minor) => Ok(Self(text.to_owned())),
            _ => Err("a kernel is written as its first two numbers, as in 6.12".to_owned()),
        }
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The cache.
#[derive(Clone, Debug)]
pub(super) struct Cache {
    root: PathBuf,
}

impl Cache {
    /// The user's cache, whether or not it is there.
    ///
    /// # Errors
    /// When there is no telling where the user keeps caches.
    pub(super) fn open() -> Result<Self> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let root = variable(PLACE)
            .map(PathBuf::from)
            .or_else(|| variable("XDG_CACHE_HOME").map(|home| Path::new(&home).join("mwb-vm")))
            .or_else(|| variable("HOME").map(|home| Path::new(&home).join(".cache/mwb-vm")))
            .with_context(|| format!("neither {PLACE} nor HOME is set: no place for a cache"))?;
        Ok(Self { root: std::path::absolute(root)? })
    }

    #[cfg(test)]
    pub(super) fn at(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Its top.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Apt's own state: lists, packages, sources.
    pub(super) fn apt(&self) -> PathBuf {
        self.root.join("apt")
    }

    /// QEMU and the tools, unpacked.
    pub(super) fn tools(&self) -> PathBuf {
        self.root.join("tools")
    }

    /// Downloaded packages of kernels.
    pub(super) fn packages(&self) -> PathBuf {
        self.root.join("packages")
    }

    /// A kernel made ready.
    pub(super) fn kernel(&self, kernel: &Kernel) -> PathBuf {
        self.root.join("kernels").join(kernel.to_string())
    }

    /// Where machines that run keep their files.
    pub(super) fn runs(&self) -> PathBuf {
        self.root.join("runs")
    }

    /// Keeps others from changing the cache for as long as the result lives.
    pub(super) fn lock(&self) -> Result<Flock<File>> {
        fs::create_dir_all(&self.root).with_context(|| self.root.display().to_string())?;
        let path = self.root.join("lock");
        let file = File::create(&path).with_context(|| path.display().to_string())?;
        Flock::lock(file, FlockArg::LockExclusive)
            .map_err(|(_, errno)| errno)
            .with_context(|| path.display().to_string())
    }

    /// A tool: from here, or this machine's own. With it, what the search path
    /// of libraries must begin with.
    pub(super) fn tool(&self, name: &str) -> Result<Tool> {
        let tools = self.tools();
        for directory in ["usr/bin", "usr/sbin", "bin", "sbin"] {
            let program = tools.join(directory).join(name);
            if program.is_file() {
                return Ok(Tool { program, home: Some(tools) });
            }
        }
        let Some(program) = exec::find(name) else { bail!("there is no {name} here") };
        Ok(Tool { program, home: None })
    }
}

/// A program of the cache or of this machine.
#[derive(Clone, Debug)]
pub(super) struct Tool {
    /// The program.
    pub(super) program: PathBuf,
    /// The tree of packages it was unpacked with.
    pub(super) home: Option<PathBuf>,
}

impl Tool {
    /// A command of it that finds its libraries.
    pub(super) fn command(&self) -> Command {
        self.command_of(&self.program)
    }

    fn command_of(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        if let Some(home) = &self.home {
            let libraries = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];
            let places: Vec<String> =
                libraries.iter().map(|place| home.join(place).display().to_string()).collect();
            command.env("LD_LIBRARY_PATH", places.join(":"));
        }
        command
    }

    /// Whether all libraries are there that it loads.
    pub(super) fn runs(&self) -> bool {
        let mut command = self.command_of("ldd");
        let output = command.arg(&self.program).stdin(Stdio::null()).output();
        output.is_ok_and(|output| !String::from_utf8_lossy(&output.stdout).contains("not found"))
    }
}

/// Whether `directory` was completed from `recipe`.
pub(super) fn is_complete(directory: &Path, recipe: &str) -> bool {
    fs::read_to_string(directory.join(COMPLETE)).is_ok_and(|known| known == recipe)
}

/// Makes `directory` anew by `make`, in one step for whoever looks.
pub(super) fn complete(
    directory: &Path,
    recipe: &str,
    make: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    let mut new = directory.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    remove(&new)?;
    fs::create_dir_all(&new).with_context(|| new.display().to_string())?;
    make(&new)?;
    fs::write(new.join(COMPLETE), recipe).with_context(|| new.display().to_string())?;
    remove(directory)?;
    fs::rename(&new, directory).with_context(|| directory.display().to_string())
}

fn remove(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| directory.display().to_string())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_two_numbers() {
        assert_eq!("6.12".parse::<Kernel>().map(|one| one.to_string()), Ok("6.12".to_owned()));
        for wrong in ["6", "6.", "6.x", "6.1.0", "../6.1", ""] {
            assert!(wrong.parse::<Kernel>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_was_not_finished_or_was_made_otherwise_is_not_complete() -> Result<()> {
        let scratch = std::env::temp_dir().join(format!("mwb-vm-cache-{}", std::process::id()));
        let place = scratch.join("6.12");
        assert!(complete(&place, "one", |_| bail!("the power went")).is_err());
        assert!(!is_complete(&place, "one"));
        complete(&place, "one", |new| Ok(fs::write(new.join("x"), "x")?))?;
        assert!(is_complete(&place, "one") && !is_complete(&place, "two"));
        complete(&place, "two", |_| Ok(()))?;
        assert!(is_complete(&place, "two") && !place.join("x").exists());
        fs::remove_dir_all(scratch)?;
        Ok(())
    }
}
