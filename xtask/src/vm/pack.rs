//! What a guest finds in its file system: this machine's tools with their
//! libraries, the programs that are to run, and the first process. Knows nothing
//! of kernels and of why something runs.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::cache::Cache;
use super::cpio::Archive;
use super::parts::VMEXIT;
use crate::exec;
use crate::setup::machine::TOOLS;

/// The first process.
const INIT: &str = include_str!("guest/init.sh");
/// What the guest runs: a script.
const JOB: &str = "/mwb/job";
/// Taken from this machine besides [`TOOLS`], if it is there.
const MORE_TOOLS: [&str; 5] = ["bash", "tc", "bridge", "unshare", "turnutils_natdiscovery"];
/// Directories that a machine has.
const DIRECTORIES: [&str; 14] = [
    "/usr/bin",
    "/usr/sbin",
    "/usr/lib",
    "/usr/lib64",
    "/etc",
    "/proc",
    "/sys",
    "/dev",
    "/tmp",
    "/run",
    "/root",
    "/mnt",
    "/var/tmp",
    "/mwb",
];
/// Files of this machine that its tools read, and their directories.
const SETTINGS: [&str; 6] = [
    "/etc/ld.so.cache",
    "/etc/protocols",
    "/etc/services",
    "/etc/iproute2",
    "/usr/share/iproute2",
    "/usr/lib/tc",
];
/// Accounts and names, which are not this machine's business.
const ACCOUNTS: [(&str, &str); 5] = [
    ("/etc/passwd", "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534:nobody:/:/bin/false\n"),
    ("/etc/group", "root:x:0:\nnogroup:x:65534:\n"),
    ("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    ("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n"),
    ("/etc/hostname", "mwb-vm\n"),
];
/// Variables that reach the guest start so.
const VARIABLES: [&str; 2] = [OURS, "RUST_"];
const OURS: &str = "MWB_";
/// But those that are about this side.
const HERE: &str = "MWB_VM_";

type Variables = Vec<(String, String)>;
/// Files on this machine, and where they lie in the guest.
type Files = Vec<(PathBuf, String)>;

/// What a guest is to run.
#[derive(Clone, Debug, Default)]
pub(super) struct Job {
    /// Program and arguments.
    pub(super) command: Vec<std::ffi::OsString>,
    /// Where it runs; made if it is not there.
    pub(super) directory: PathBuf,
    /// What it finds in its environment, besides `MWB_…` and `RUST_…`.
    pub(super) environment: Variables,
    /// What it finds there besides. Programs come with their libraries.
    pub(super) files: Files,
}

impl Job {
    /// The script that runs it; `passed` are variables of this process.
    fn script(&self, passed: &[(String, String)]) -> Vec<u8> {
        let mut text = b"set -e\n".to_vec();
        let mut line = |words: &[&OsStr]| {
            let quoted: Vec<Vec<u8>> = words.iter().map(|word| quote(word)).collect();
            text.extend(quoted.join(&b' '));
            text.push(b'\n');
        };
        line(&["cd".as_ref(), self.directory.as_os_str()]);
        // By `env`, because the shell takes no names like CARGO_BIN_EXE_mwb-agent.
        let environment: Vec<String> = passed
            .iter()
            .chain(&self.environment)
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let mut words: Vec<&OsStr> = vec!["exec".as_ref(), "env".as_ref()];
        words.extend(environment.iter().map(AsRef::<OsStr>::as_ref));
        words.extend(self.command.iter().map(AsRef::<OsStr>::as_ref));
        line(&words);
        text
    }
}

/// Those of `variables` that reach the guest, and the files that they name: each lies
/// there where it lies here.
///
/// # Errors
/// When one of ours names a place where no file is: a guest has no other of this
/// machine's directories, and nothing that is written there comes back.
fn passed(variables: impl Iterator<Item = (String, String)>) -> Result<(Variables, Files)> {
    let (mut passed, mut files) = (Variables::new(), Files::new());
    for (name, mut value) in variables {
        if !VARIABLES.iter().any(|start| name.starts_with(start)) || name.starts_with(HERE) {
            continue;
        }
        if name.starts_with(OURS) && value.contains('/') {
            let path = std::path::absolute(&value)?;
            ensure!(
                path.is_file(),
                "{name} is {value}, which is no file of this machine, and a VM gets files only: \
                 unset it, or have it name one"
            );
            value = path.display().to_string();
            files.push((path, value.clone()));
        }
        passed.push((name, value));
    }
    Ok((passed, files))
}

/// One word for the shell, whatever is in it.
fn quote(word: &OsStr) -> Vec<u8> {
    let mut quoted = b"'".to_vec();
    for &byte in word.as_bytes() {
        if byte == b'\'' {
            quoted.extend(b"'\\''");
        } else {
            quoted.push(byte);
        }
    }
    quoted.push(b'\'');
    quoted
}

/// Writes the archive that every guest starts with to `to`.
///
/// # Errors
/// When a tool is missing or cannot be read.
pub(super) fn base(cache: &Cache, to: &Path) -> Result<()> {
    let file = File::create(to).with_context(|| to.display().to_string())?;
    let mut archive = Archive::new(BufWriter::new(file));
    for name in ["bin", "sbin", "lib", "lib64"] {
        archive.root_link(name, &format!("usr/{name}"))?;
    }
    for path in DIRECTORIES {
        archive.directory(path)?;
    }
    archive.device("/dev/console", (5, 1))?;
    archive.device("/dev/null", (1, 3))?;
    archive.link("/var/run", "/run")?;
    archive.file("/init", 0o755, INIT.as_bytes())?;
    for (path, text) in ACCOUNTS {
        archive.file(path, 0o644, text.as_bytes())?;
    }
    archive.file("/mwb/vmexit", 0o755, &read(&cache.tools().join(VMEXIT))?)?;

    let mut libraries = BTreeMap::new();
    let tools = TOOLS.iter().map(|tool| tool.binary).chain(MORE_TOOLS);
    for path in tools.filter_map(exec::find) {
        program(&mut archive, &mut libraries, &path, &path.display().to_string())?;
    }
    ensure!(exec::find("bash").is_some(), "there is no bash here");
    archive.link("/bin/bash", &shell())?;
    // Busybox's own shell would run busybox's `ip` instead of the real one.
    archive.link("/bin/sh", "bash")?;
    let busybox = cache.tool("busybox")?;
    archive.file("/bin/busybox", 0o755, &read(&busybox.program)?)?;
    let names = exec::ask(&busybox.program, &["--list"]).context("busybox does not run")?;
    for name in names.lines() {
        // A link must not shadow a tool that lies in the other directory.
        let known = ["/usr/bin", "/usr/sbin"].map(|at| archive.has(&format!("{at}/{name}")));
        if known == [false, false] {
            archive.link(&format!("/bin/{name}"), "/bin/busybox")?;
        }
    }
    archive.link("/sbin/modprobe", "/bin/busybox")?;
    for path in SETTINGS {
        tree(&mut archive, Path::new(path))?;
    }
    finish(archive, libraries)
}

/// Where bash lies on this machine.
fn shell() -> String {
    exec::find("bash").map_or_else(String::new, |path| path.display().to_string())
}

/// Appends what `job` needs to the archive in `to`.
///
/// # Errors
/// When a file cannot be read, or a variable names none.
pub(super) fn add_job(job: &Job, to: &Path) -> Result<()> {
    let file = File::options().append(true).open(to).with_context(|| to.display().to_string())?;
    let mut archive = Archive::new(BufWriter::new(file));
    archive.directory(&job.directory.display().to_string())?;
    let (variables, named) = passed(std::env::vars())?;
    archive.file(JOB, 0o755, &job.script(&variables))?;
    let mut libraries = BTreeMap::new();
    for (from, place) in job.files.iter().chain(&named) {
        program(&mut archive, &mut libraries, from, place)?;
    }
    finish(archive, libraries)
}

/// Makes the archive of one guest: those of `parts`, and `job`.
///
/// # Errors
/// When a file cannot be read or written.
pub(super) fn image(parts: &[&Path], job: &Job, to: &Path) -> Result<()> {
    let mut out = File::create(to).with_context(|| to.display().to_string())?;
    for part in parts {
        let mut part = File::open(part).with_context(|| part.display().to_string())?;
        io::copy(&mut part, &mut out)?;
    }
    drop(out);
    add_job(job, to)
}

type Libraries = BTreeMap<String, PathBuf>;

/// Adds a file as it is, and notes the libraries that it needs to run.
fn program(
    archive: &mut Archive<impl io::Write>,
    libraries: &mut Libraries,
    from: &Path,
    place: &str,
) -> Result<()> {
    let content = read(from)?;
    let permissions = fs::metadata(from)?.permissions().mode();
    archive.file(place, permissions, &content)?;
    if content.starts_with(b"\x7fELF") {
        libraries.extend(needed(from)?);
    }
    Ok(())
}

fn finish(mut archive: Archive<impl io::Write>, libraries: Libraries) -> Result<()> {
    for (place, from) in libraries {
        archive.file(&place, 0o755, &read(&from)?)?;
    }
    archive.finish()?;
    Ok(())
}

/// The libraries that a program loads, by where it looks for them.
fn needed(program: &Path) -> Result<Libraries> {
    let output = Command::new("ldd").arg(program).output().context("ldd")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let missing: BTreeSet<&str> = text.lines().filter(|line| line.contains("not found")).collect();
    ensure!(missing.is_empty(), "{} lacks libraries: {missing:?}", program.display());
    Ok(listed(&text))
}

/// `name => /path (0x…)` and `/path (0x…)`.
fn listed(text: &str) -> Libraries {
    let path = |line: &str| {
        let (path, _) = line.rsplit_once(" (0x")?;
        let path = path.rsplit("=> ").next()?.trim();
        path.starts_with('/').then(|| (path.to_owned(), PathBuf::from(path)))
    };
    text.lines().filter_map(path).collect()
}

/// Adds a file or what is in a directory, if it is there.
fn tree(archive: &mut Archive<impl io::Write>, path: &Path) -> Result<()> {
    if let Ok(entries) = fs::read_dir(path) {
        for entry in entries.flatten() {
            tree(archive, &entry.path())?;
        }
    } else if path.is_file() {
        archive.file(&path.display().to_string(), 0o644, &read(path)?)?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_reaches_the_shell_word_by_word() -> Result<()> {
        let job = Job {
            command: ["printf", "<%s>", "two words", "it's", "$HOME;*", ""].map(Into::into).into(),
            directory: "/".into(),
            environment: vec![("A-1".into(), "b c".into())],
            files: Vec::new(),
        };
        let script = job.script(&[("MWB_X".into(), "1".into())]);
        let mut command = Command::new("bash");
        let output = command.arg("-c").arg(OsStr::from_bytes(&script)).output()?;
        assert_eq!(String::from_utf8_lossy(&output.stdout), "<two words><it's><$HOME;*><>");
        assert!(String::from_utf8_lossy(&script).contains("'MWB_X=1' 'A-1=b c'"));
        Ok(())
    }

    #[test]
    fn what_a_variable_names_goes_along_or_is_refused() -> Result<()> {
        let read = |name: &str, value: &str| {
            passed(
                [("HOME", "/root"), (name, value)].map(|(a, b)| (a.into(), b.into())).into_iter(),
            )
        };
        let (variables, files) = read("MWB_TEST_OTHER_AGENT", "./Cargo.toml")?;
        let here = std::env::current_dir()?.join("Cargo.toml");
        let place = here.display().to_string();
        assert_eq!(variables, [("MWB_TEST_OTHER_AGENT".to_owned(), place.clone())]);
        assert_eq!(files, [(here, place)]);
        for nowhere in ["/nonexistent/agent", "/tmp"] {
            let refused = read("MWB_TEST_OTHER_AGENT", nowhere).err().map(|why| why.to_string());
            assert!(refused.is_some_and(|why| why.contains("MWB_TEST_OTHER_AGENT is /")));
        }
        for (name, value, known) in [
            ("MWB_TEST_WHOLE", "1", 1),
            ("RUST_SRC_PATH", "/nonexistent", 1),
            ("MWB_VM_CACHE", "/nonexistent", 0),
        ] {
            let (variables, files) = read(name, value)?;
            assert_eq!((variables.len(), files.len()), (known, 0), "{name}");
        }
        Ok(())
    }

    #[test]
    fn libraries_are_read_from_what_ldd_prints() {
        let text = "\tlinux-vdso.so.1 (0x00007ffc)\n\
            \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f1)\n\
            \t/lib64/ld-linux-x86-64.so.2 (0x00007f2)\n\
            \tstatically linked\n";
        let found: Vec<String> = listed(text).into_keys().collect();
        assert_eq!(found, ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]);
    }
}
