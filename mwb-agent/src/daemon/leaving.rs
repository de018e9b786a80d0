//! What a WAN or a LAN port leaves behind when it is none any more: its entry
//! in the path table and its programs. Cleared away once everything else knows
//! of it, and again if the kernel refuses.

use std::collections::{BTreeMap, BTreeSet};

use mwb_common::maps::Path;

use super::control::Control;
use super::identity;
use crate::dataplane::Error;

/// What is to be cleared away.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Leaving {
    /// By path id, the entry as it is.
    paths: BTreeMap<u8, Path>,
    devices: BTreeSet<String>,
}

impl Leaving {
    /// Begins with paths that are in use by nobody.
    pub(super) fn of_paths<'a>(paths: impl IntoIterator<Item = (u8, &'a Path)>) -> Self {
        let paths = paths.into_iter().filter(|(_, path)| identity::vacated(path) != **path);
        Self { paths: paths.map(|(id, path)| (id, *path)).collect(), devices: BTreeSet::new() }
    }

    /// A WAN is none any more.
    pub(super) fn path(&mut self, id: u8, written: Path) {
        self.paths.insert(id, written);
    }

    /// A device has no role any more, or not that one.
    pub(super) fn device(&mut self, name: &str) {
        self.devices.insert(name.to_owned());
    }

    /// What somebody has again is not cleared away.
    pub(super) fn except<'a>(&mut self, ids: &[u8], devices: impl Iterator<Item = &'a str>) {
        self.paths.retain(|id, _| !ids.contains(id));
        for device in devices {
            self.devices.remove(device);
        }
    }
}

impl Control {
    /// Clears away what is to be. Flows of a path that goes are void, and made
    /// anew elsewhere with their next packet.
    pub(super) fn leave(&mut self) -> Result<(), Error> {
        while let Some((&id, path)) = self.leaving.paths.first_key_value() {
            let vacant = identity::vacated(path);
            self.plane.with(|plane| plane.set_path(id, &vacant))?;
            self.leaving.paths.remove(&id);
        }
        while let Some(device) = self.leaving.devices.first().cloned() {
            self.plane.with_slow(|plane| plane.detach(&device))??;
            self.leaving.devices.remove(&device);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_that_were_in_use_are_cleared_away_and_none_that_is_again() {
        let used = Path { flags: 1, device: identity::padded("wan0"), ..Path::default() };
        let vacant = identity::vacated(&used);
        let mut leaving = Leaving::of_paths([(1, &used), (2, &vacant), (3, &Path::default())]);
        assert_eq!(leaving, Leaving { paths: [(1, used)].into(), ..Leaving::default() });
        leaving.path(4, used);
        leaving.device("wan0");
        leaving.device("lan1");
        leaving.except(&[1, 9], ["lan1", "lan0"].into_iter());
        let devices = [String::from("wan0")].into();
        assert_eq!(leaving, Leaving { paths: [(4, used)].into(), devices });
    }
}
