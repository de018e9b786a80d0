//! Debian packages, downloaded and unpacked beside this machine's own: apt with
//! lists, sources and downloads of its own, and `dpkg -x`. Installs nothing.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::cache::Kernel;
use super::sources::{self, Mirrors};
use crate::exec;

const NO_DOWNLOAD: &str = "the package archive does not give it";
const LIMIT: Duration = Duration::from_secs(15 * 60);
/// The release whose security archive has kernels 6.1 and 6.12.
const OLD: &str = "bookworm";
/// The release whose backports have newer ones.
const NEW: &str = "trixie";
/// Kernels that [`OLD`] has.
const OF_OLD: [&str; 2] = ["6.1", "6.12"];

/// Why packages cannot be had on this machine: nothing here is wrong, and
/// nothing here can mend it.
#[derive(Debug)]
pub(super) struct Unavailable(pub(super) String);

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unavailable {}

/// What apt says when an archive cannot be reached or does not have something; of
/// all else that it says something here is wrong.
const UNREACHED: [&str; 9] = [
    "Failed to fetch",
    "Could not resolve",
    "Could not connect",
    "Unable to connect",
    "Network is unreachable",
    "Unable to locate package",
    "does not have a Release file",
    "no longer has a Release file",
    "no installation candidate",
];

/// What a step of apt came to; `why` tells what it means if there was no archive.
fn had(done: Result<()>, why: &str) -> Result<()> {
    let Err(error) = done else { return Ok(()) };
    let text = format!("{error:#}");
    // One that answers too slowly to be of use is out of reach as well.
    if error.is::<exec::Overdue>() || UNREACHED.iter().any(|words| text.contains(words)) {
        return Err(error.context(Unavailable(why.to_owned())));
    }
    Err(error)
}

/// An apt with a state of its own.
#[derive(Debug)]
pub(super) struct Apt {
    home: PathBuf,
    /// The release to take QEMU from.
    tools_release: String,
    /// Whether the machine takes Debian's security updates.
    has_security: bool,
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
                let why = format!("no {program} here, and its parts are Debian packages");
                return Err(Unavailable(why).into());
            }
        }
        let mirrors = sources::mirrors().map_err(|error| Unavailable(error.to_string()))?;
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
        let has_security = mirrors.security.is_some();
        Ok(Self { home: home.to_owned(), tools_release, has_security })
    }

    /// Fetches the lists of packages.
    ///
    /// # Errors
    /// When one of the archives cannot be reached.
    pub(super) fn update(&self) -> Result<()> {
        let mut command = self.command("apt-get");
        command.args(["update", "--error-on=any"]);
        let done = exec::run_step("apt-get update (its own lists)", &mut command, LIMIT);
        had(
            done,
            "the package archive cannot be reached; with a network, `cargo xtask vm setup` gets all",
        )
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
        let archives = self.home.join("cache/archives");
        let packages_of = |directory: &Path| -> Result<Vec<PathBuf>> {
            let entries =
                fs::read_dir(directory).with_context(|| directory.display().to_string())?;
            let paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
            let is_package = |path: &PathBuf| path.extension() == Some(OsStr::new("deb"));
            Ok(paths.into_iter().filter(is_package).collect())
        };
        // What an earlier download left need not be what this one wants.
        for stale in packages_of(&archives)? {
            fs::remove_file(&stale).with_context(|| stale.display().to_string())?;
        }
        let mut command = self.command("apt-get");
        command.args(["install", "-y", "--download-only", "--no-install-recommends"]);
        command.args(["-t", &self.tools_release]).args(packages);
        let what = format!("download {}", packages.join(" "));
        had(exec::run_step(&what, &mut command, LIMIT), NO_DOWNLOAD)?;
        packages_of(&archives)?.iter().try_for_each(|package| unpack(package, directory))
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
            return Err(Unavailable(self.lacks(kernel)).into());
        };
        fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
        let mut command = self.command("apt-get");
        command.args(["download", name]).current_dir(directory);
        had(exec::run_step(&format!("download {name}"), &mut command, LIMIT), NO_DOWNLOAD)
    }

    fn lacks(&self, kernel: &Kernel) -> String {
        let lacks = format!("the package archive has no linux-image-{kernel}.*-cloud-amd64");
        if self.has_security || !OF_OLD.contains(&kernel.to_string().as_str()) {
            return lacks;
        }
        format!(
            "{lacks}: it is a security update of Debian 12, and apt's sources have none; with a \
             line `deb MIRROR-security {OLD}-security main` they have"
        )
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

    #[test]
    fn an_archive_that_is_out_of_reach_is_told_from_what_is_wrong_here() {
        let is_unavailable = |done: Result<()>| {
            had(done, "out of reach").is_err_and(|error| error.is::<Unavailable>())
        };
        let unavailable = |text: &str| is_unavailable(Err(anyhow::anyhow!("apt-get: {text}")));
        for text in [
            "E: Failed to fetch http://mirror.example.org/x  Could not connect",
            "E: The repository 'http://mirror.example.org x Release' does not have a Release file.",
            "E: The repository 'http://mirror.example.org x Release' no longer has a Release file.",
            "E: Package 'qemu-system-x86' has no installation candidate",
            "E: Unable to locate package qemu-system-x86",
        ] {
            assert!(unavailable(text), "{text}");
        }
        let mut slow = Command::new("sleep");
        let limit = Duration::from_millis(50);
        assert!(is_unavailable(exec::run_step("wait", slow.arg("60"), limit)));
        assert!(!unavailable("E: You don't have enough free space in /var/cache/apt/archives/."));
        assert!(!unavailable("E: Unmet dependencies. Try 'apt --fix-broken install'"));
        assert!(had(Ok(()), "").is_ok());
    }

    /// Makes a package of these names, and in `archive` all that apt wants to find there.
    const MAKE_ARCHIVE: &str = r#"
        set -e; cd "$0"; mkdir archive; all=archive/Packages
        for name; do
            mkdir -p "$name/DEBIAN" "$name/usr/bin"; echo here > "$name/usr/bin/$name"
            printf 'Package: %s\nVersion: 1\nArchitecture: all\nMaintainer: x\n' "$name" \
                > "$name/DEBIAN/control"
            echo 'Description: x' >> "$name/DEBIAN/control"
            dpkg-deb --build "$name" "archive/$name.deb" > /dev/null
            cat "$name/DEBIAN/control" >> $all
            printf 'Filename: ./%s.deb\nSize: %s\nSHA256: %s\n\n' "$name" \
                $(stat -c %s "archive/$name.deb") $(sha256sum < "archive/$name.deb" | cut -c-64) >> $all
        done
        printf 'Suite: here\nSHA256:\n %s %s Packages\n' \
            $(sha256sum < $all | cut -c-64) $(stat -c %s $all) > archive/Release
    "#;

    #[test]
    fn what_an_archive_has_is_fetched_and_what_it_lacks_is_unavailable() -> Result<()> {
        if ["apt-get", "dpkg-deb"].iter().any(|program| exec::find(program).is_none()) {
            println!(
                "skipped: what_an_archive_has_is_fetched_and_what_it_lacks_is_unavailable: needs \
                 apt-get and dpkg-deb"
            );
            return Ok(());
        }
        let home = std::env::temp_dir().join(format!("mwb-vm-apt-{}", std::process::id()));
        for directory in ["lists/partial", "cache/archives/partial", "parts"] {
            fs::create_dir_all(home.join(directory))?;
        }
        let mut make = Command::new("bash");
        make.args(["-c", MAKE_ARCHIVE]).arg(&home);
        make.args(["mwb-emulator", "linux-image-6.1.9-cloud-amd64"]);
        exec::run_step("make an archive", &mut make, LIMIT)?;
        let line = format!("deb [trusted=yes] copy:{}/archive ./\n", home.display());
        fs::write(home.join("sources.list"), line)?;
        let apt = Apt { home: home.clone(), tools_release: "here".into(), has_security: true };
        apt.update()?;
        let tools = home.join("tools");
        apt.unpack_with_dependencies(&["mwb-emulator"], &tools)?;
        assert_eq!(fs::read_to_string(tools.join("usr/bin/mwb-emulator"))?, "here\n");
        let kernel = |name: &str| name.parse::<Kernel>().map_err(anyhow::Error::msg);
        apt.download_kernel(&kernel("6.1")?, &home.join("kernel"))?;
        assert!(
            fs::read_dir(home.join("kernel"))?.flatten().any(|entry| {
                entry.file_name().to_string_lossy().starts_with("linux-image-6.1.9")
            })
        );
        let lacks = apt.download_kernel(&kernel("6.12")?, &home.join("kernel"));
        assert!(lacks.is_err_and(|error| error.is::<Unavailable>()));
        let lacks = apt.unpack_with_dependencies(&["mwb-nothing"], &tools);
        assert!(lacks.is_err_and(|error| error.is::<Unavailable>()));
        fs::write(home.join("sources.list"), "deb [trusted=no] copy:/nonexistent here main\n")?;
        assert!(apt.update().is_err_and(|error| error.is::<Unavailable>()));
        fs::remove_dir_all(&home)?;
        Ok(())
    }

    #[test]
    fn whoever_lacks_the_security_archive_is_told_its_line() -> Result<(), String> {
        let apt = |has_security| Apt { home: "/".into(), tools_release: OLD.into(), has_security };
        let (old, new) = ("6.1".parse()?, "6.18".parse()?);
        assert!(apt(false).lacks(&old).contains("bookworm-security main"));
        assert!(!apt(true).lacks(&old).contains("MIRROR"));
        assert!(!apt(false).lacks(&new).contains("MIRROR"));
        Ok(())
    }
}
