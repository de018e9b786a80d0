//! Which path id a WAN has: the data plane knows WANs by number, the operator
//! by name, and the number stays with the device. Pure.

use mwb_common::maps::{MAX_PATHS, Path};

use crate::config::Wan;

/// Highest path id.
const LAST: u8 = MAX_PATHS as u8;

/// Path ids for WANs, in their order. `known` are the devices that have an id
/// already: a WAN on one of them keeps it. Others get the lowest id that nobody
/// has; only if there is none, one of a device that is no WAN any more.
pub(super) fn assign(known: &[(u8, [u8; 16])], wans: &[Wan]) -> Vec<u8> {
    let own = |wan: &Wan| {
        let device = padded(&wan.device);
        known.iter().find(|(_, known)| *known == device).map(|(id, _)| *id)
    };
    let mut ids: Vec<Option<u8>> = wans.iter().map(own).collect();
    for index in 0..ids.len() {
        if ids.get(index).is_some_and(Option::is_none) {
            let taken = |id: &u8| ids.contains(&Some(*id));
            let had = |id: &u8| known.iter().any(|(known, _)| known == id);
            let free = (1..=LAST).find(|id| !taken(id) && !had(id));
            let id = free.or_else(|| (1..=LAST).find(|id| !taken(id)));
            if let Some(slot) = ids.get_mut(index) {
                *slot = id;
            }
        }
    }
    // There are as many ids as there can be WANs.
    ids.into_iter().map(|id| id.unwrap_or(0)).collect()
}

/// The devices that pinned paths are on; `paths` by path id from 1.
pub(super) fn known(paths: &[Path]) -> Vec<(u8, [u8; 16])> {
    let entries = (1u8..).zip(paths).map(|(id, path)| (id, path.device));
    entries.filter(|(_, device)| *device != [0; 16]).collect()
}

/// A name as the path table has it. Names that fit are 15 bytes at most.
pub(super) fn padded(name: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (byte, &letter) in bytes.iter_mut().zip(name.as_bytes()) {
        *byte = letter;
    }
    bytes
}

/// The entry of a path that is no WAN's any more: whatever was made over it is
/// void, also when another WAN gets the id.
pub(super) fn vacated(before: &Path) -> Path {
    let in_use = *before != vacant(before);
    let generation = before.generation.wrapping_add(u32::from(in_use));
    Path { generation, ..vacant(before) }
}

/// What lasts of a path.
fn vacant(path: &Path) -> Path {
    Path { generation: path.generation, epoch: path.epoch, ..Path::default() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::config;

    fn wans(devices: &[&str]) -> Vec<Wan> {
        let list: String =
            devices.iter().map(|d| format!("  - {{name: n-{d}, device: {d}}}\n")).collect();
        let text = format!("version: 1\nmode: steer\nlan: [lan0]\nwans:\n{list}");
        config::parse(&text, "f").unwrap_or_else(|error| panic!("{error}")).wans
    }

    fn known_as(devices: &[(u8, &str)]) -> Vec<(u8, [u8; 16])> {
        devices.iter().map(|(id, device)| (*id, padded(device))).collect()
    }

    #[test]
    fn a_device_keeps_its_id_and_a_new_one_gets_the_lowest_that_is_free() {
        assert_eq!(assign(&[], &wans(&["a", "b", "c"])), [1, 2, 3]);
        let known = known_as(&[(1, "a"), (2, "b"), (4, "d")]);
        assert_eq!(assign(&known, &wans(&["d", "new", "a", "other", "b"])), [4, 3, 1, 5, 2]);
        // That of `a` is free from the next time on.
        assert_eq!(assign(&known, &wans(&["new", "b"])), [3, 2]);
        assert_eq!(
            assign(&known_as(&[(2, "b"), (3, "new")]), &wans(&["b", "new", "x"])),
            [2, 3, 1]
        );
    }

    #[test]
    fn ids_of_lost_devices_are_used_when_there_are_no_others() {
        let devices: Vec<String> = (0..33).map(|n| format!("w{n}")).collect();
        let all: Vec<(u8, &str)> = (1..=32).zip(devices.iter().map(String::as_str)).collect();
        let mut configured: Vec<&str> = all.iter().map(|(_, device)| *device).collect();
        configured[7] = "fresh";
        let ids = assign(&known_as(&all), &wans(&configured));
        assert_eq!(ids, (1..=32).collect::<Vec<u8>>());
    }

    #[test]
    fn a_path_that_is_vacated_is_so_once() {
        let used =
            Path { flags: 1, generation: 7, epoch: 3, device: padded("a"), ..Path::default() };
        let gone = vacated(&used);
        assert_eq!(gone, Path { generation: 8, epoch: 3, ..Path::default() });
        assert_eq!(vacated(&gone), gone);
        assert_eq!(vacated(&Path::default()), Path::default());
    }

    #[test]
    fn the_devices_of_the_path_table_are_known_by_their_ids() {
        let path = |device| Path { device: padded(device), ..Path::default() };
        let found = known(&[path("wan0"), Path::default(), path("fifteen-letters")]);
        assert_eq!(found, known_as(&[(1, "wan0"), (3, "fifteen-letters")]));
    }

    proptest! {
        #[test]
        fn ids_are_unique_valid_kept_and_the_same_when_asked_again(
            before in prop::sample::subsequence((0..40).collect::<Vec<u8>>(), 0..=32),
            after in prop::sample::subsequence((0..40).collect::<Vec<u8>>(), 1..=32),
        ) {
            let names = |numbers: &[u8]| numbers.iter().map(|n| format!("d{n}")).collect::<Vec<_>>();
            let parsed = |numbers: &[u8]| {
                let names = names(numbers);
                wans(&names.iter().map(String::as_str).collect::<Vec<_>>())
            };
            let with_ids = |ids: &[u8], numbers: &[u8]| -> Vec<(u8, [u8; 16])> {
                ids.iter().copied().zip(names(numbers).iter().map(|name| padded(name))).collect()
            };
            let known: Vec<_> = match before.as_slice() {
                [] => Vec::new(),
                before => with_ids(&assign(&[], &parsed(before)), before),
            };
            let ids = assign(&known, &parsed(&after));
            prop_assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), after.len());
            prop_assert!(ids.iter().all(|id| (1..=LAST).contains(id)));
            let now = with_ids(&ids, &after);
            for (id, device) in &known {
                let kept = now.iter().find(|(_, other)| other == device);
                prop_assert!(kept.is_none_or(|(now, _)| now == id));
            }
            prop_assert_eq!(assign(&now, &parsed(&after)), ids);
        }
    }
}
