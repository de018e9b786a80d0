//! A cache for unit tests: complete, with scripts in the place of QEMU and its
//! tools, and a kernel that is none. It goes with the value.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Error, Result};

use super::cache::{self, Cache, Kernel};
use super::{kernel, parts};
use crate::exec;

/// The kernel that it has.
const KERNEL: &str = "6.12";

pub(super) struct StandIn {
    cache: Cache,
    kernel: Kernel,
}

impl StandIn {
    /// With this script as QEMU.
    pub(super) fn make(qemu: &str) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("mwb-vm-stand-in-{}-{number}", std::process::id());
        let made = Self {
            cache: Cache::at(&std::env::temp_dir().join(name)),
            kernel: KERNEL.parse().map_err(Error::msg)?,
        };
        cache::complete(&made.cache.tools(), &parts::tools_recipe(), |new| {
            let directory = new.join("usr/bin");
            fs::create_dir_all(&directory)?;
            for tool in parts::TOOLS {
                let script = if tool == parts::QEMU { qemu } else { "" };
                exec::write_script(&directory.join(tool), script)?;
            }
            Ok(fs::write(new.join(parts::VMEXIT), "")?)
        })?;
        let packages = made.cache.packages().join(KERNEL);
        cache::complete(&packages, "", |new| Ok(fs::write(new.join("linux.deb"), "")?))?;
        let recipe = kernel::recipe(&packages.join("linux.deb"));
        cache::complete(&made.cache.kernel(&made.kernel), &recipe, |new| {
            Ok(fs::write(new.join(kernel::MODULE_ARCHIVE), "")?)
        })?;
        Ok(made)
    }

    pub(super) fn cache(&self) -> &Cache {
        &self.cache
    }

    pub(super) fn kernel(&self) -> Kernel {
        self.kernel.clone()
    }

    /// Where a program of the cache lies.
    pub(super) fn program(&self, tool: &str) -> PathBuf {
        self.cache.tools().join("usr/bin").join(tool)
    }

    /// Puts something that is no package in the place of a kernel's.
    pub(super) fn break_kernel(&self, name: &str) -> Result<Kernel> {
        cache::complete(&self.cache.packages().join(name), "", |new| {
            Ok(fs::write(new.join("linux-image.deb"), "not a package")?)
        })?;
        name.parse().map_err(Error::msg)
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.cache.root());
    }
}
