//! Debian packages, downloaded and unpacked beside this machine's own: apt with
//! lists, sources and downloads of its own, and `dpkg -x`. Installs nothing.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::cache::Kernel;
use super::sources::{self, Mirrors};
use crate::exec;

const LIMIT: Duration = Duration::from_secs(15 * 60);
/// The release whose security archive has kernels 6.1 and 6.12.
const OLD: &str = "bookworm";
/// The release whose backports have newer ones.
const NEW: &str = "trixie";
/// Kernels that [`OLD`] has.
const OF_OLD: [&str; 2] = ["6.1", "6.12"];

/// An apt with a state of its own.
#[derive(Debug)]
pub(super) struct Apt {
    home: PathBuf,
    /// The release to take QEMU from.
    tools_release: String,
}

impl Apt {
    /// Writes its sources: the archives that this machine already uses, and those
    /// of their releases that have what is asked for.
    ///
    /// # Errors
    /// When the machine has no apt, or no Debian archive among its sources.
    pub(super) fn prepare(home: &Path, kernels: &[&Kernel]) -> Result<Self> {
        for program in ["apt-get", "apt-cache", "dpkg"] {
            if exec::find(program).is_none() {
                bail!("this machine has no {program}: the parts of the VM are Debian packages");
            }
        }
        let mirrors = sources::mirrors()?;
        let own = release();
        let backports = format!("{own}-backports");
        let text = source_list(&mirrors, &own, kernels);
        for directory in ["lists/partial", "cache/archives/partial", "parts"] {
            let path = home.join(directory);
            fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        }
        fs::write(home.join("sources.list"), text)?;
        // The QEMU of Debian 12 itself is half as fast as that of its backports.
        let tools_release = if own == OLD { backports } else { own };
        Ok(Self { home: home.to_owned(), tools_release })
    }

    /// Fetches the lists of packages.
    ///
    /// # Errors
    /// When one of the archives cannot be reached.
    pub(super) fn update(&self) -> Result<()> {
        let mut command = self.command("apt-get");
        command.args(["update", "--error-on=any"]);
        exec::run_step("apt-get update (its own lists)", &mut command, LIMIT)
    }

    /// Downloads what is missing on this machine to run `packages`, and unpacks
    /// it into `directory`.
    ///
    /// # Errors
    /// When a package is unknown or cannot be downloaded.
    pub(super) fn unpack_with_dependencies(
        &self,
        packages: &[&str],
        directory: &Path,
    ) -> Result<()> {
        let mut command = self.command("apt-get");
        command.args(["install", "-y", "--download-only", "--no-install-recommends"]);
        command.args(["-t", &self.tools_release]).args(packages);
        let what = format!("download {}", packages.join(" "));
        exec::run_step(&what, &mut command, LIMIT)?;
        for entry in fs::read_dir(self.home.join("cache/archives"))? {
            let path = entry?.path();
            if path.extension() == Some(OsStr::new("deb")) {
                unpack(&path, directory)?;
            }
        }
        Ok(())
    }

    /// Downloads the newest package of a kernel into `directory`.
    ///
    /// # Errors
    /// When the archives have none, or it cannot be downloaded.
    pub(super) fn download_kernel(&self, kernel: &Kernel, directory: &Path) -> Result<()> {
        let prefix = format!("linux-image-{kernel}.");
        let names = self.command("apt-cache").args(["pkgnames", &prefix]).output()?;
        let names = String::from_utf8_lossy(&names.stdout).into_owned();
        let Some(name) = newest(names.lines()) else {
            bail!("the package archive has no {prefix}*-cloud-amd64");
        };
        fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
        let mut command = self.command("apt-get");
        command.args(["download", name]).current_dir(directory);
        exec::run_step(&format!("download {name}"), &mut command, LIMIT)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let option =
            |name: &str, place: &str| format!("{name}={}", self.home.join(place).display());
        command.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C");
        for setting in [
            option("Dir::Etc::sourcelist", "sources.list"),
            option("Dir::Etc::sourceparts", "parts"),
            option("Dir::State::lists", "lists"),
            option("Dir::Cache", "cache"),
            // Neither root nor the machine's own lock is needed to download.
            "Debug::NoLocking=1".to_owned(),
            "APT::Sandbox::User=".to_owned(),
            "APT::Get::List-Cleanup=0".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Acquire::Retries=1".to_owned(),
            "Acquire::http::Timeout=20".to_owned(),
        ] {
            command.args(["-o", &setting]);
        }
        command.arg("-q");
        command
    }
}

/// Unpacks a package into a directory.
///
/// # Errors
/// When it cannot be read.
pub(super) fn unpack(package: &Path, directory: &Path) -> Result<()> {
    let name = package.file_name().unwrap_or_default().display();
    let mut command = Command::new("dpkg");
    command.arg("-x").args([package, directory]);
    exec::run_step(&format!("unpack {name}"), &mut command, LIMIT)
}

/// The name of this machine's release; the one of [`OLD`] where it has none.
fn release() -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    name.map_or(OLD, |name| name.trim_matches('"')).to_owned()
}

fn source_list(mirrors: &Mirrors, own: &str, kernels: &[&Kernel]) -> String {
    let Mirrors { archive, security } = mirrors;
    let mut suites = vec![own.to_owned()];
    if own == OLD {
        suites.push(format!("{OLD}-backports"));
    }
    if kernels.iter().any(|kernel| !OF_OLD.contains(&kernel.to_string().as_str())) {
        suites.push(format!("{NEW}-backports"));
    }
    let mut text: String = suites.iter().map(|suite| archive.line(suite)).collect();
    if let Some(security) = security {
        text += &security.line(&format!("{OLD}-security"));
    }
    text
}

/// The newest of the kernels for virtual machines that are signed packages.
fn newest<'a>(names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    names.filter(|name| name.ends_with("-cloud-amd64")).max_by_key(|name| numbers(name))
}

/// Every number in a name, in order.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|one: char| !one.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::sources::Source;
    use super::*;

    #[test]
    fn the_newest_kernel_is_by_number_and_not_by_letter() {
        let names = [
            "linux-image-6.1.0-9-cloud-amd64",
            "linux-image-6.1.0-56-cloud-amd64",
            "linux-image-6.1.0-57-rt-amd64",
            "linux-image-6.1.0-58-cloud-amd64-dbg",
            "linux-image-6.1.0-58-cloud-amd64-unsigned",
        ];
        assert_eq!(newest(names.into_iter()), Some("linux-image-6.1.0-56-cloud-amd64"));
        assert_eq!(newest(["linux-image-6.1.0-9-amd64"].into_iter()), None);
    }

    #[test]
    fn newer_kernels_come_from_the_next_release_and_only_if_asked_for() -> Result<(), String> {
        let archive =
            Source { uri: "http://mirror.example.org/debian".into(), ..Source::default() };
        let security = Source { uri: "http://mirror.example.org/s".into(), ..Source::default() };
        let mirrors = Mirrors { archive, security: Some(security) };
        let (old, new) = ("6.12".parse()?, "6.18".parse()?);
        let text = source_list(&mirrors, OLD, &[&old]);
        assert!(!text.contains(NEW) && text.contains("/s bookworm-security main"), "{text}");
        assert!(text.contains("bookworm-backports"), "{text}");
        assert!(source_list(&mirrors, OLD, &[&old, &new]).contains("trixie-backports"));
        assert!(!source_list(&mirrors, NEW, &[&old]).contains("bookworm-backports"));
        Ok(())
    }
}
