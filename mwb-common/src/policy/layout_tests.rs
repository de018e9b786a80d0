//! What lies beside what in the tables and in the flows.

use std::collections::BTreeSet;

use super::*;
use crate::maps::{Choice, MappingKey, OUTLET_VIA};

#[test]
fn a_choice_keeps_slot_and_outlet_apart() {
    for outlet in [0, 1, 63] {
        for slot in [0, 1, 1_023] {
            let choice = Choice { place: Choice::place_of(outlet, slot), ..Choice::default() };
            assert_eq!((choice.outlet(), u32::from(choice.slot())), (outlet, slot));
        }
    }
    // Of a running counter or a hash the low bits count.
    let choice = Choice { place: Choice::place_of(5, u32::MAX), ..Choice::default() };
    assert_eq!((choice.outlet(), choice.slot()), (5, 1_023));
}

#[test]
fn a_mapping_is_of_a_path_or_of_an_outlet() {
    let of = |via| MappingKey { via, ..MappingKey::default() };
    assert_eq!((of(0).path(), of(0).outlet()), (0, 0));
    assert_eq!((of(32).path(), of(32).outlet()), (32, 0));
    assert_eq!((of(OUTLET_VIA + 1).path(), of(OUTLET_VIA + 1).outlet()), (0, 1));
    assert_eq!((of(OUTLET_VIA + 63).path(), of(OUTLET_VIA + 63).outlet()), (0, 63));
}

#[test]
fn all_places_are_apart() {
    let fixed = [place::NO_SOURCE_PORT, place::NO_PORT, place::OTHER_MAC, place::ACTIVE];
    let ranges = [
        (place::SOURCE_PORT, 65_536),
        (place::PORT, 65_536),
        (place::device(0), 65_536),
        (place::PROTOCOL, 256),
        (place::DSCP, 64),
        (place::MARK, 1_024),
        (place::GROUP, 1_024),
    ];
    let single = fixed.into_iter().map(|place| (place, 1));
    let all: Vec<u32> = ranges.into_iter().chain(single).flat_map(|(at, n)| at..at + n).collect();
    let apart: BTreeSet<&u32> = all.iter().collect();
    assert_eq!(apart.len(), all.len());
    assert!(all.iter().all(|place| *place < place::ALL));
}
