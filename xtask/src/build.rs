//! `cargo xtask build`: the agent's binaries and the kernel side's objects, and
//! where they lie.

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use cargo_metadata::Message;
use object::{Object as _, ObjectSymbol as _};

use crate::{exec, setup, workspace};

/// Longest time that a build may take.
pub const LIMIT: Duration = Duration::from_secs(30 * 60);
/// The object with the product's programs.
pub const OBJECT: &str = "mwb";
/// The object with the benchmarks' generator and sink.
pub const LAB_OBJECT: &str = "lab";

/// Arguments of `cargo xtask build`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Optimise the agent as for use; the kernel side always is.
    #[arg(long)]
    release: bool,
}

/// What a build made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifacts {
    /// The daemon.
    pub agent: PathBuf,
    /// The operator's command.
    pub mwb: PathBuf,
    /// The directory of the eBPF objects [`OBJECT`] and [`LAB_OBJECT`].
    pub objects_dir: PathBuf,
}

/// A test executable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestBinary {
    /// Package and target: `mwb-agent`, `mwb-agent/tests/prog_run`.
    pub name: String,
    /// The executable.
    pub executable: PathBuf,
    /// The directory that cargo would start it in.
    pub directory: PathBuf,
}

/// What cargo's messages tell.
#[derive(Debug, Default)]
pub struct Messages {
    agent: Option<PathBuf>,
    mwb: Option<PathBuf>,
    objects_dir: Option<PathBuf>,
    /// Test executables, in the order cargo made them.
    pub tests: Vec<TestBinary>,
}

impl Messages {
    /// Takes one line of `--message-format=json`.
    pub fn read(&mut self, line: &str) {
        for message in Message::parse_stream(Cursor::new(line)).map_while(Result::ok) {
            match message {
                Message::CompilerArtifact(artifact) => self.artifact(artifact),
                Message::BuildScriptExecuted(script)
                    if package_name(&script.package_id.repr) == "mwb-agent" =>
                {
                    self.objects_dir = Some(script.out_dir.into_std_path_buf());
                }
                _ => {}
            }
        }
    }

    fn artifact(&mut self, artifact: cargo_metadata::Artifact) {
        let Some(executable) = artifact.executable.map(|path| path.into_std_path_buf()) else {
            return;
        };
        if artifact.profile.test {
            let package = package_name(&artifact.package_id.repr).to_owned();
            let name = match artifact.target.kind.first() {
                Some(cargo_metadata::TargetKind::Test) => {
                    format!("{package}/tests/{}", artifact.target.name)
                }
                Some(cargo_metadata::TargetKind::Bin) => {
                    format!("{package}/bin/{}", artifact.target.name)
                }
                _ => package,
            };
            let manifest = artifact.manifest_path.into_std_path_buf();
            let directory = manifest.parent().map(Path::to_path_buf).unwrap_or_default();
            self.tests.push(TestBinary { name, executable, directory });
        } else if artifact.target.name == "mwb-agent" {
            self.agent = Some(executable);
        } else if artifact.target.name == "mwb" {
            self.mwb = Some(executable);
        }
    }

    /// The agent's artifacts, if the build made all of them.
    ///
    /// # Errors
    /// Names what cargo did not tell of.
    pub fn artifacts(&self) -> Result<Artifacts> {
        let told = |what: &Option<PathBuf>, name: &str| {
            what.clone().with_context(|| format!("cargo did not tell where {name} is"))
        };
        Ok(Artifacts {
            agent: told(&self.agent, "mwb-agent")?,
            mwb: told(&self.mwb, "mwb")?,
            objects_dir: told(&self.objects_dir, "the output of mwb-agent's build script")?,
        })
    }
}

/// `path+file:///x/mwb-agent#0.1.0`, `path+file:///x/other#mwb-agent@0.1.0`.
fn package_name(id: &str) -> &str {
    let (place, version) = id.rsplit_once('#').unwrap_or((id, ""));
    match version.split_once('@') {
        Some((name, _)) => name,
        None => place.rsplit('/').next().unwrap_or(place),
    }
}

/// Runs the command.
///
/// # Errors
/// When the build or the check of its objects fails.
pub fn command(args: &Args) -> Result<ExitCode> {
    let made = build(args.release)?;
    println!("daemon       {}", made.agent.display());
    println!("command      {}", made.mwb.display());
    println!("kernel side  {}", made.objects_dir.join(OBJECT).display());
    Ok(ExitCode::SUCCESS)
}

static MADE: OnceLock<Artifacts> = OnceLock::new();

/// The artifacts to test with: built once in the life of this process, in
/// cargo's development profile, as the tests are.
///
/// # Errors
/// When setup or the build fails.
pub fn artifacts() -> Result<&'static Artifacts> {
    if let Some(made) = MADE.get() {
        return Ok(made);
    }
    let made = build(false)?;
    Ok(MADE.get_or_init(|| made))
}

/// Takes `made` as what [`artifacts`] gives: the test build has made them.
pub fn provide(made: Artifacts) {
    MADE.set(made).ok();
}

/// Sets up what is missing, builds the agent and checks its objects.
///
/// # Errors
/// When setup, the build or the check of its objects fails.
pub fn build(release: bool) -> Result<Artifacts> {
    let record = setup::ensure()?;
    let mut command = workspace::cargo(&record.toolchain)?;
    command.args(["build", "--package", "mwb-agent", "--bins"]);
    command.arg("--message-format=json-render-diagnostics");
    if release {
        command.arg("--release");
    }
    let mut messages = Messages::default();
    exec::watch("cargo build", &mut command, LIMIT, |line| messages.read(line))?;
    let made = messages.artifacts()?;
    check_objects(&made)?;
    Ok(made)
}

/// Refuses objects that hold a reachable panic: the verifier would, later and
/// in harder words.
///
/// # Errors
/// Names the symbols, or the object that cannot be read.
pub fn check_objects(made: &Artifacts) -> Result<()> {
    for name in [OBJECT, LAB_OBJECT] {
        let file = made.objects_dir.join(name);
        let bytes = fs::read(&file).with_context(|| format!("{}", file.display()))?;
        let panics = panics(&bytes).with_context(|| format!("{}", file.display()))?;
        if !panics.is_empty() {
            bail!("{} holds panics: {}", file.display(), panics.join(", "));
        }
    }
    Ok(())
}

/// Symbols of `core::panicking` in an object.
fn panics(bytes: &[u8]) -> Result<Vec<String>> {
    let object = object::File::parse(bytes).context("not an object file")?;
    let mut symbols = object.symbols().peekable();
    ensure!(symbols.peek().is_some(), "it has no symbols to check");
    // Mangled in either scheme, the module reads so.
    Ok(symbols
        .filter_map(|symbol| symbol.name().ok())
        .filter(|name| name.contains("4core9panicking"))
        .map(str::to_owned)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One line as cargo 1.95 writes it.
    fn artifact(id: &str, kind: &str, target: &str, test: bool, executable: &str) -> String {
        format!(
            r#"{{"reason":"compiler-artifact","package_id":"{id}","manifest_path":"/x/mwb-agent/Cargo.toml","target":{{"kind":["{kind}"],"crate_types":["bin"],"name":"{target}","src_path":"/x/a.rs","edition":"2024","doc":true,"doctest":false,"test":true}},"profile":{{"opt_level":"1","debuginfo":"line-tables-only","debug_assertions":true,"overflow_checks":true,"test":{test}}},"features":[],"filenames":["{executable}"],"executable":"{executable}","fresh":true}}"#
        )
    }

    const AGENT: &str = "path+file:///x/mwb-agent#0.1.0";

    #[test]
    fn executables_and_objects_are_found_in_cargos_messages() -> Result<()> {
        let mut messages = Messages::default();
        messages.read(&artifact(AGENT, "bin", "mwb-agent", false, "/t/debug/mwb-agent"));
        messages.read(&artifact(AGENT, "bin", "mwb", false, "/t/debug/mwb"));
        messages.read(
            r#"{"reason":"build-script-executed","package_id":"registry+https://example.org/i#libc@0.2.0","linked_libs":[],"linked_paths":[],"cfgs":[],"env":[],"out_dir":"/t/libc/out"}"#,
        );
        messages.read(&format!(
            r#"{{"reason":"build-script-executed","package_id":"{AGENT}","linked_libs":[],"linked_paths":[],"cfgs":[],"env":[],"out_dir":"/t/mwb-agent/out"}}"#
        ));
        messages.read("   Compiling something");
        let made = messages.artifacts()?;
        assert_eq!(made.agent, Path::new("/t/debug/mwb-agent"));
        assert_eq!(made.mwb, Path::new("/t/debug/mwb"));
        assert_eq!(made.objects_dir, Path::new("/t/mwb-agent/out"));
        Ok(())
    }

    #[test]
    fn a_test_executable_is_not_taken_for_the_daemon() {
        let mut messages = Messages::default();
        messages.read(&artifact(AGENT, "bin", "mwb-agent", true, "/t/deps/mwb_agent-1"));
        messages.read(&artifact(AGENT, "lib", "mwb_agent", true, "/t/deps/mwb_agent-2"));
        messages.read(&artifact(AGENT, "test", "prog_run", true, "/t/deps/prog_run-3"));
        assert!(messages.artifacts().is_err());
        let names: Vec<_> = messages.tests.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["mwb-agent/bin/mwb-agent", "mwb-agent", "mwb-agent/tests/prog_run"]);
        assert_eq!(messages.tests[0].directory, Path::new("/x/mwb-agent"));
    }

    #[test]
    fn the_package_is_read_from_either_form_of_its_id() {
        assert_eq!(package_name(AGENT), "mwb-agent");
        assert_eq!(package_name("path+file:///x/elsewhere#mwb-agent@0.1.0"), "mwb-agent");
        assert_eq!(package_name("registry+https://example.org/index#aya@0.14.0"), "aya");
    }

    #[test]
    fn a_panic_in_an_object_is_seen() -> Result<()> {
        use object::write::{Object, Symbol, SymbolSection};
        use object::{
            Architecture, BinaryFormat, Endianness, SymbolFlags, SymbolKind, SymbolScope,
        };
        let with = |name: &str| -> Result<Vec<u8>> {
            let mut made = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
            made.add_symbol(Symbol {
                name: name.as_bytes().to_vec(),
                value: 0,
                size: 0,
                kind: SymbolKind::Text,
                scope: SymbolScope::Linkage,
                weak: false,
                section: SymbolSection::Undefined,
                flags: SymbolFlags::None,
            });
            Ok(made.write()?)
        };
        assert_eq!(panics(&with("inside_xdp")?)?.len(), 0);
        assert_eq!(panics(&with("_ZN4core9panicking18panic_bounds_check17h0E")?)?.len(), 1);
        assert_eq!(panics(&with("_RNvNtCs0_4core9panicking5panic")?)?.len(), 1);
        assert!(panics(b"not an object").is_err());
        Ok(())
    }
}
