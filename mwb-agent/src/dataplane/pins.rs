//! The pin directory: `<root>/<instance>/v<ABI>/{maps,links,watchers}` on bpffs.
//! Must not know programs or what the maps mean.

use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use mwb_common::maps::ABI_VERSION;
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::error::Error;
use super::spec::Options;
use super::sys;

/// Suffix of the pin of a device's XDP link.
pub(super) const XDP: &str = "xdp";
/// Suffix of the pin of a device's TCX link.
pub(super) const TC: &str = "tc";
/// Suffix of the pin that marks a clsact filter: netlink filters have no link
/// that could be pinned, so their program is.
pub(super) const CLSACT: &str = "clsact";

/// The directories of one instance.
#[derive(Clone, Debug)]
pub(super) struct Pins {
    instance: PathBuf,
    version: u32,
}

impl Pins {
    /// Names the directories of our layout; touches nothing.
    pub(super) fn of(options: &Options) -> Result<Self, Error> {
        let name = &options.instance;
        let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        if name.is_empty() || name.len() > 32 || !name.chars().all(good) {
            return Err(Error::Instance(name.clone()));
        }
        Ok(Self { instance: options.pin_root.join(name), version: ABI_VERSION })
    }

    fn base(&self) -> PathBuf {
        self.instance.join(format!("v{}", self.version))
    }

    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.base().join("maps").join(name)
    }

    pub(super) fn links(&self) -> PathBuf {
        self.base().join("links")
    }

    /// The link of a program that only watches.
    pub(super) fn watcher(&self, program: &str) -> PathBuf {
        self.watchers().join(program)
    }

    fn watchers(&self) -> PathBuf {
        self.base().join("watchers")
    }

    /// bpffs refuses names with a dot, which VLAN devices have; a colon no
    /// device has.
    pub(super) fn link(&self, device: &str, suffix: &str) -> PathBuf {
        self.links().join(format!("{}-{suffix}", device.replace('.', ":")))
    }

    /// Makes the directories, after bpffs if that is missing.
    pub(super) fn create(&self, options: &Options) -> Result<(), Error> {
        ensure_bpffs(&options.pin_root)?;
        for directory in [self.base().join("maps"), self.links(), self.watchers()] {
            fs::create_dir_all(&directory).map_err(Error::pins("making", &directory))?;
        }
        Ok(())
    }

    /// Refuses to run beside another layout that is still attached: two data
    /// planes would translate the same packets.
    pub(super) fn refuse_other_layouts(&self, instance: &str) -> Result<(), Error> {
        for other in self.layouts()? {
            if other.version != self.version && !other.link_pins()?.is_empty() {
                return Err(Error::OtherLayout {
                    instance: instance.to_owned(),
                    found: other.version,
                    ours: self.version,
                });
            }
        }
        Ok(())
    }

    /// This instance in every layout version that has a directory.
    pub(super) fn layouts(&self) -> Result<Vec<Pins>, Error> {
        Ok(entries(&self.instance)?
            .iter()
            .filter_map(|path| path.file_name().and_then(OsStr::to_str)?.strip_prefix('v'))
            .filter_map(|number| number.parse().ok())
            .map(|version| Pins { instance: self.instance.clone(), version })
            .collect())
    }

    /// Every pin in the links directory as (device, suffix, path).
    pub(super) fn link_pins(&self) -> Result<Vec<(String, String, PathBuf)>, Error> {
        Ok(entries(&self.links())?
            .into_iter()
            .filter_map(|path| {
                let name = path.file_name().and_then(OsStr::to_str)?;
                let (device, suffix) = name.rsplit_once('-')?;
                Some((device.replace(':', "."), suffix.to_owned(), path.clone()))
            })
            .collect())
    }

    /// Removes every pin of this layout and its directories.
    pub(super) fn remove(&self) -> Result<(), Error> {
        for directory in [self.links(), self.watchers(), self.base().join("maps")] {
            for pin in entries(&directory)? {
                remove_pin(&pin)?;
            }
            remove_directory(&directory)?;
        }
        remove_directory(&self.base())
    }

    /// Removes the instance's directory if no layout is left in it.
    pub(super) fn remove_instance(&self) -> Result<(), Error> {
        if entries(&self.instance)?.is_empty() { remove_directory(&self.instance) } else { Ok(()) }
    }
}

/// Removes one pin; that it is gone already is no error.
pub(super) fn remove_pin(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(Error::pins("removing", path)(error))
        }
        _ => Ok(()),
    }
}

fn remove_directory(path: &Path) -> Result<(), Error> {
    match fs::remove_dir(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(Error::pins("removing", path)(error))
        }
        _ => Ok(()),
    }
}

/// The paths in a directory; none if there is no such directory.
fn entries(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    match fs::read_dir(directory) {
        Ok(listing) => listing
            .map(|entry| entry.map(|e| e.path()))
            .collect::<Result<_, _>>()
            .map_err(Error::pins("reading", directory)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Error::pins("reading", directory)(error)),
    }
}

fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|fs| fs.filesystem_type() == BPF_FS_MAGIC)
}

/// Mounts bpffs at the parent of the pin root unless it is there.
fn ensure_bpffs(pin_root: &Path) -> Result<(), Error> {
    let existing = pin_root.ancestors().find(|path| path.exists());
    if existing.is_some_and(is_bpffs) {
        return Ok(());
    }
    let target = pin_root.parent().unwrap_or(pin_root);
    fs::create_dir_all(target).map_err(Error::pins("making", target))?;
    mount(Some("bpf"), target, Some("bpf"), MsFlags::empty(), None::<&str>)
        .map_err(|errno| Error::Mount { path: target.to_owned(), source: errno.into() })
}

/// Opens a pinned link and says which device it is on (0: one that is gone).
pub(super) fn open_link(path: &Path) -> Result<Option<(OwnedFd, u32)>, Error> {
    let link = match sys::open_pin(path) {
        Ok(link) => link,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::pins("opening", path)(error)),
    };
    let ifindex = sys::link_ifindex(link.as_fd()).map_err(Error::pins("reading", path))?;
    Ok(Some((link, ifindex.unwrap_or(0))))
}

/// Detaches a pinned link and removes the pin; returns the device it was on.
/// Removing the pin alone detaches later, when the kernel gets to it.
pub(super) fn release(path: &Path) -> Result<Option<u32>, Error> {
    let Some((link, ifindex)) = open_link(path)? else { return Ok(None) };
    if ifindex != 0 {
        sys::link_detach(link.as_fd()).map_err(Error::pins("detaching", path))?;
    }
    remove_pin(path)?;
    Ok(Some(ifindex))
}

/// Pins a link.
pub(super) fn keep(link: &OwnedFd, path: &Path) -> Result<(), Error> {
    sys::pin(link.as_fd(), path).map_err(Error::pins("pinning", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_name_cannot_leave_the_pin_root() {
        for name in ["", "..", "a/b", "A", "a b", &"x".repeat(33)] {
            assert!(matches!(Pins::of(&Options::new(name)), Err(Error::Instance(_))), "{name:?}");
        }
    }

    #[test]
    fn pins_carry_the_layout_version() -> Result<(), Error> {
        let pins = Pins::of(&Options::new("site-a"))?;
        let base = format!("/sys/fs/bpf/mwb/site-a/v{ABI_VERSION}");
        assert_eq!(pins.map("FLOWS4"), Path::new(&base).join("maps/FLOWS4"));
        assert_eq!(pins.link("wan0", XDP), Path::new(&base).join("links/wan0-xdp"));
        Ok(())
    }
}
