//! Batches against real maps.

use std::collections::HashSet;

use aya::maps::{HashMap, Map, MapData};
use mwb_common::maps::{Direction, Flow, FlowKey4, counter_place};
use mwb_common::reason::Reason;

use super::super::testing::in_network;
use super::super::{DataPlane, Options, Programs};
use super::*;

fn key(number: u32) -> FlowKey4 {
    FlowKey4 { source: number.to_be_bytes(), protocol: 17, ..FlowKey4::default() }
}

/// A data plane whose IPv4 flow table holds `count` flows.
fn filled(count: u32) -> DataPlane {
    let options =
        Options { flow_entries: count, programs: Programs::None, ..Options::new("batch") };
    let plane = DataPlane::open_unpinned(&options).expect("a data plane");
    let tables = plane.tables();
    let fd = tables.flows4().fd().try_clone_to_owned().expect("a descriptor");
    let map = Map::from_map_data(MapData::from_fd(fd).expect("a map")).expect("a map");
    let mut flows: HashMap<_, FlowKey4, Flow> = map.try_into().expect("a hash map");
    for number in 0..count {
        let flow = Flow { last_seen: u64::from(number), ..Flow::default() };
        flows.insert(key(number), flow, 0).expect("room");
    }
    plane
}

fn read(
    walk: impl FnOnce(&mut dyn FnMut(&FlowKey4, &[Flow])) -> Result<(), Error>,
) -> Vec<(FlowKey4, u64)> {
    let mut entries = Vec::new();
    walk(&mut |key, values| entries.push((*key, values[0].last_seen))).expect("a read");
    entries
}

fn is_whole(entries: &[(FlowKey4, u64)], count: u32) -> bool {
    let expected: HashSet<_> = (0..count).map(|number| (key(number), u64::from(number))).collect();
    entries.len() == expected.len() && entries.iter().all(|entry| expected.contains(entry))
}

#[test]
fn a_dump_has_every_entry_once() {
    in_network("a_dump_has_every_entry_once", || {
        let plane = filled(10_000);
        let tables = plane.tables();
        let entries = read(|each| tables.flows4().for_each(each));
        assert!(is_whole(&entries, 10_000));
    });
}

#[test]
fn a_batch_grows_to_the_longest_bucket() {
    in_network("a_batch_grows_to_the_longest_bucket", || {
        let plane = filled(1_000);
        let tables = plane.tables();
        let entries = read(|each| tables.flows4().walk(1, each));
        assert!(is_whole(&entries, 1_000));
    });
}

#[test]
fn a_kernel_without_batches_gives_the_same() {
    in_network("a_kernel_without_batches_gives_the_same", || {
        let plane = filled(1_000);
        let tables = plane.tables();
        let table = tables.flows4();
        assert!(is_whole(&read(|each| table.for_each_singly(each)), 1_000));
        assert_eq!(table.remove_singly(&[key(1), key(1), key(5_000)]).expect("a removal"), 1);
        assert_eq!(read(|each| table.for_each_singly(each)).len(), 999);
    });
}

#[test]
fn removing_skips_what_is_gone_already() {
    in_network("removing_skips_what_is_gone_already", || {
        let plane = filled(1_000);
        let tables = plane.tables();
        let table = tables.flows4();
        // Gone at the start, in the middle, twice in a row and at the end.
        let keys: Vec<_> = [9_999, 1, 2, 9_998, 9_997, 3, 1, 9_996].map(key).to_vec();
        assert_eq!(table.remove(&keys).expect("a removal"), 3);
        let left: HashSet<_> = read(|each| table.for_each(each)).into_iter().collect();
        assert_eq!(left.len(), 997);
        assert!(table.get(&key(1)).expect("a read").is_none());
        assert!(table.get(&key(4)).expect("a read").is_some());
    });
}

#[test]
fn counters_are_summed_over_all_cpus() {
    in_network("counters_are_summed_over_all_cpus", || {
        let options = Options {
            flow_entries: 64,
            mapping_entries: 64,
            programs: Programs::Steering,
            ..Options::new("counters")
        };
        let plane = DataPlane::open_unpinned(&options).expect("a data plane");
        assert_eq!(plane.counters().expect("a read"), []);
        // An ARP packet through an unconfigured device, on every CPU in turn.
        let mut packet = [0; 60];
        packet[12..14].copy_from_slice(&[8, 6]);
        let online = aya::util::online_cpus().expect("CPUs");
        for cpu in &online {
            let mut set = nix::sched::CpuSet::new();
            set.set(*cpu as usize).expect("a CPU");
            nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set).expect("a CPU");
            plane
                .test_run(super::super::ProgramId::InsideXdp, &packet, None, 1)
                .expect("a test run");
        }
        let rows = plane.counters().expect("a read");
        let [row] = rows.as_slice() else { panic!("one counter: {rows:?}") };
        assert_eq!((row.direction, row.reason), (Direction::Out, Reason::NotOurs));
        assert_eq!((row.packets, row.bytes), (online.len() as u64, 46 * online.len() as u64));
        assert_ne!(counter_place(Reason::NotOurs, 0), 0);
    });
}
