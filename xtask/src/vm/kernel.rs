//! A kernel made ready to boot: its uncompressed image out of Debian's, and the
//! modules that a test VM needs in an archive. Downloads nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use super::apt;
use super::cache::Cache;
use super::cpio::Archive;

/// The modules, by name.
const MODULES: &str = include_str!("modules.txt");
/// The uncompressed kernel. QEMU starts it without the decompressor, which is
/// slow where instructions are emulated.
pub(super) const IMAGE: &str = "vmlinux";
/// Archive of the modules.
pub(super) const MODULE_ARCHIVE: &str = "modules.cpio";
/// Holds what `uname -r` says.
pub(super) const RELEASE: &str = "release";
const ELF: &[u8] = b"\x7fELF";

/// What a kernel is made ready from: its package and this file's work.
pub(super) fn recipe(package: &Path) -> String {
    let name = package.file_name().unwrap_or_default().display();
    format!("2 {name}\n{MODULES}")
}

/// Makes the kernel of `package` ready in `directory`.
///
/// # Errors
/// When the package is not what it should be, or a tool is missing.
pub(super) fn make(cache: &Cache, package: &Path, directory: &Path) -> Result<()> {
    let unpacked = directory.join("unpacked");
    apt::unpack(package, &unpacked)?;
    let boot = unpacked.join("boot");
    let name = names_in(&boot)?
        .into_iter()
        .find_map(|name| Some((name.strip_prefix("vmlinuz-")?.to_owned(), boot.join(&name))));
    let (release, compressed) = name.context("the package holds no kernel")?;
    let bytes = fs::read(&compressed)?;
    let image =
        decompress(cache, &bytes).with_context(|| format!("cannot read the kernel {release}"))?;
    fs::write(directory.join(IMAGE), image)?;
    fs::write(directory.join(RELEASE), &release)?;
    pack_modules(cache, &unpacked, &release, &directory.join(MODULE_ARCHIVE))
        .with_context(|| format!("cannot pack the modules of {release}"))?;
    fs::remove_dir_all(unpacked)?;
    Ok(())
}

/// How the payload of a kernel image is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packing {
    Zstd,
    Lz4,
    Xz,
    Gzip,
}

impl Packing {
    fn of(payload: &[u8]) -> Option<Self> {
        let magics: [(&[u8], Self); 4] = [
            (b"\x28\xb5\x2f\xfd", Self::Zstd),
            (b"\x02\x21\x4c\x18", Self::Lz4),
            (b"\xfd7zXZ\0", Self::Xz),
            (b"\x1f\x8b", Self::Gzip),
        ];
        magics.iter().find(|(magic, _)| payload.starts_with(magic)).map(|(_, packing)| *packing)
    }

    fn program(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Lz4 => "lz4",
            Self::Xz => "xz",
            Self::Gzip => "gzip",
        }
    }
}

/// The packed kernel in an image, as of Documentation/arch/x86/boot.rst: offset
/// and length of the payload stand in the header, the offset counted from the
/// end of the real-mode code.
fn payload(image: &[u8]) -> Result<&[u8]> {
    let word = |at: usize| -> Result<usize> {
        let bytes = image.get(at..at + 4).context("it is too short")?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize)
    };
    ensure!(image.get(0x202..0x206) == Some(b"HdrS"), "it has no boot header");
    // 0 means 4, for kernels older than any here.
    let sectors = match image[0x1f1] {
        0 => 4,
        some => usize::from(some),
    };
    let start = (sectors + 1) * 512 + word(0x248)?;
    let end = start + word(0x24c)?;
    image.get(start..end).context("it is shorter than its header says")
}

fn decompress(cache: &Cache, image: &[u8]) -> Result<Vec<u8>> {
    let payload = payload(image)?;
    let packing = Packing::of(payload).context("it is packed in a way unknown here")?;
    // The size of what is unpacked stands behind all but xz, which ends itself.
    let payload = match packing {
        Packing::Xz => payload,
        _ => &payload[..payload.len() - 4],
    };
    let mut command = cache.tool(packing.program())?.command();
    command.arg("-dc").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().with_context(|| format!("{command:?}"))?;
    let mut input = child.stdin.take().context("standard input is not piped")?;
    let output = std::thread::scope(|scope| {
        // It may stop before it has read what stands behind.
        scope.spawn(move || input.write_all(payload).ok());
        child.wait_with_output()
    })?;
    // The end of the input is not a clean one to every program: look at the result.
    ensure!(output.stdout.starts_with(ELF), "{} gave no ELF file", packing.program());
    Ok(output.stdout)
}

fn pack_modules(cache: &Cache, unpacked: &Path, release: &str, to: &Path) -> Result<()> {
    let place = ["usr/lib/modules", "lib/modules"]
        .map(|place| unpacked.join(place).join(release))
        .into_iter()
        .find(|place| place.is_dir())
        .context("there are none")?;
    // kmod looks under /lib only.
    let tree = unpacked.join("packed");
    let full = unpacked.join("full");
    for root in [&tree, &full] {
        fs::create_dir_all(root.join("lib/modules"))?;
    }
    let from = full.join("lib/modules").join(release);
    fs::rename(place, &from)?;
    depmod(cache, &full, release)?;
    let needed = closure(&wanted(), &fs::read_to_string(from.join("modules.dep"))?);

    let into = tree.join("lib/modules").join(release);
    let mut packed: BTreeMap<&str, Vec<PathBuf>> = BTreeMap::new();
    for module in &needed {
        let file = into.join(module);
        fs::create_dir_all(file.parent().context("a module lies in a directory")?)?;
        fs::rename(from.join(module), &file)?;
        match file.extension().and_then(OsStr::to_str) {
            Some("xz") => packed.entry("xz").or_default().push(file),
            Some("zst") => packed.entry("zstd").or_default().push(file),
            _ => {}
        }
    }
    for (program, files) in packed {
        run(cache.tool(program)?.command().args(["-d", "-q"]).args(files))?;
    }
    for name in ["modules.order", "modules.builtin", "modules.builtin.modinfo"] {
        if from.join(name).exists() {
            fs::copy(from.join(name), into.join(name))?;
        }
    }
    depmod(cache, &tree, release)?;
    let mut archive = Archive::new(BufWriter::new(File::create(to)?));
    add_tree(&mut archive, &into, &format!("/lib/modules/{release}"))?;
    archive.finish()?;
    Ok(())
}

fn depmod(cache: &Cache, root: &Path, release: &str) -> Result<()> {
    // The link of that name in the package points outside the tree.
    let mut command = cache.tool("kmod")?.command();
    run(command.arg0("depmod").arg("-b").arg(root).arg(release))
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        let program = command.get_program().display();
        bail!("{program}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

fn wanted() -> BTreeSet<&'static str> {
    MODULES.lines().filter(|line| !line.starts_with('#')).flat_map(str::split_whitespace).collect()
}

/// Files of the modules `wanted` and of all that they need, by `modules.dep`.
fn closure(wanted: &BTreeSet<&str>, dependencies: &str) -> BTreeSet<String> {
    let needs: BTreeMap<&str, &str> =
        dependencies.lines().filter_map(|line| line.split_once(':')).collect();
    let mut found = BTreeSet::new();
    // modules.dep names everything that a module needs, not only the next.
    for (file, needed) in needs {
        if wanted.contains(module_name(file).as_str()) {
            found.insert(file.to_owned());
            found.extend(needed.split_whitespace().map(str::to_owned));
        }
    }
    found
}

/// `kernel/net/8021q/8021q.ko.xz` is `8021q`; `-` in a file is `_` in a name.
fn module_name(file: &str) -> String {
    let base = file.rsplit('/').next().unwrap_or(file);
    base.split(".ko").next().unwrap_or(base).replace('-', "_")
}

fn add_tree(archive: &mut Archive<impl std::io::Write>, from: &Path, to: &str) -> Result<()> {
    for name in names_in(from)? {
        let (file, place) = (from.join(&name), format!("{to}/{name}"));
        if file.is_dir() {
            add_tree(archive, &file, &place)?;
        } else {
            archive.file(&place, 0o644, &fs::read(&file)?)?;
        }
    }
    Ok(())
}

fn names_in(directory: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(directory).with_context(|| directory.display().to_string())?;
    let mut names: Vec<String> =
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(sectors: u8, payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; (usize::from(sectors) + 1) * 512 + 100];
        image[0x1f1] = sectors;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x248..0x24c].copy_from_slice(&100_u32.to_le_bytes());
        let length = u32::try_from(payload.len()).unwrap_or_default();
        image[0x24c..0x250].copy_from_slice(&length.to_le_bytes());
        image.extend_from_slice(payload);
        image.extend_from_slice(b"what comes behind");
        image
    }

    #[test]
    fn the_payload_is_where_the_header_says() -> Result<()> {
        assert_eq!(payload(&image(7, b"\x28\xb5\x2f\xfdxyz"))?, b"\x28\xb5\x2f\xfdxyz");
        let mut cut = image(7, b"payload");
        cut.truncate(4_100);
        assert!(payload(&cut).is_err());
        assert!(payload(b"short").is_err());
        assert!(payload(&[0; 4_096]).is_err());
        Ok(())
    }

    #[test]
    fn a_packing_is_known_by_its_magic() {
        assert_eq!(Packing::of(b"\x02\x21\x4c\x18rest"), Some(Packing::Lz4));
        assert_eq!(Packing::of(b"\xfd7zXZ\0rest"), Some(Packing::Xz));
        assert_eq!(Packing::of(b"BZh9"), None);
    }

    #[test]
    fn a_packed_kernel_is_unpacked() -> Result<()> {
        let cache = Cache::at(Path::new("/nonexistent"));
        let mut child =
            Command::new("gzip").args(["-c", "/proc/self/exe"]).stdout(Stdio::piped()).spawn()?;
        let mut packed = Vec::new();
        std::io::Read::read_to_end(&mut child.stdout.take().context("piped")?, &mut packed)?;
        child.wait()?;
        packed.extend_from_slice(&[0; 4]);
        assert!(decompress(&cache, &image(3, &packed))?.starts_with(ELF));
        let spoilt = [&b"\x1f\x8b"[..], &[0; 40]].concat();
        assert!(decompress(&cache, &image(3, &spoilt)).is_err());
        Ok(())
    }

    #[test]
    fn a_module_comes_with_what_it_needs() {
        let dep = "kernel/net/a-b.ko.xz: kernel/lib/c.ko.xz kernel/lib/d.ko.xz\n\
                   kernel/lib/c.ko.xz: kernel/lib/d.ko.xz\n\
                   kernel/lib/d.ko.xz:\n\
                   kernel/lib/e.ko.xz:\n";
        let found = closure(&BTreeSet::from(["a_b", "gone"]), dep);
        let files: Vec<_> = found.iter().map(String::as_str).collect();
        assert_eq!(files, ["kernel/lib/c.ko.xz", "kernel/lib/d.ko.xz", "kernel/net/a-b.ko.xz"]);
        assert!(wanted().contains("sch_netem"));
    }
}
