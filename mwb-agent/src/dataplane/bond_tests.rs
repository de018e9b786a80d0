use mwb_common::integrity::seal::Key;
use mwb_common::maps::{bond_path_flag, session_flag};

use super::super::DataPlane;
use super::super::testing::{in_network, maps_alone};
use super::*;

fn maps(name: &str) -> (DataPlane, BondMaps) {
    let plane = maps_alone(name);
    let maps = plane.bond();
    (plane, maps)
}

#[test]
fn a_slot_that_is_cleared_has_nothing_left_and_its_neighbours_have() {
    in_network("a_slot_that_is_cleared_has_nothing_left_and_its_neighbours_have", || {
        let (_plane, maps) = maps("clear");
        assert!(maps.slots().is_power_of_two() && maps.slots() >= 4);
        let key = Key::new([7; 32]);
        for slot in 0..3 {
            let session = Session {
                ours: 4 + slot,
                flags: session_flag::PRESENT,
                seal: [key; 2],
                open: [key; 2],
                ..Session::default()
            };
            maps.set_session(slot, &session).expect("a write");
            let path = BondPath { flags: bond_path_flag::PRESENT, ..BondPath::default() };
            let state = PathState { sent: 9, ..PathState::default() };
            for id in [1, 15] {
                maps.set_path(slot, id, &path).expect("a write");
                maps.inner.path_states.put(&path_index(slot, id), &state).expect("a write");
            }
            let bucket = Bucket { opened: 5, ..Bucket::default() };
            for number in [0, 4_095] {
                maps.inner.buckets.put(&bucket_index(slot, number), &bucket).expect("a write");
            }
        }
        maps.clear(1).expect("a write");
        let session = maps.session(1).expect("a read");
        assert!(bytemuck::bytes_of(&session).iter().all(|byte| *byte == 0), "keys stay behind");
        for (slot, left) in [(0, true), (1, false), (2, true)] {
            assert_eq!(maps.session(slot).expect("a read").ours != 0, left);
            for id in [1, 15] {
                assert_eq!(maps.path(slot, id).expect("a read").flags != 0, left, "{slot} {id}");
                assert_eq!(maps.path_state(slot, id).expect("a read").sent != 0, left);
            }
            let numbers: Vec<u16> =
                maps.buckets(slot).expect("a read").into_iter().map(|(number, _)| number).collect();
            assert_eq!(numbers, if left { vec![0, 4_095] } else { Vec::new() });
        }
    });
}

#[test]
fn owners_become_what_is_asked_for() {
    in_network("owners_become_what_is_asked_for", || {
        let (_plane, maps) = maps("owners");
        let net = |text: &str| text.parse::<IpNet>().expect("a prefix");
        let table = |rows: &[(&str, u32)]| -> BTreeMap<IpNet, u32> {
            rows.iter().map(|(text, slot)| (net(text), *slot)).collect()
        };
        // One stays, one changes hands, one goes, one comes.
        for (rows, count) in [
            (table(&[("192.0.2.0/26", 1), ("192.0.2.64/26", 2), ("2001:db8:a::/48", 1)]), [2, 1]),
            (table(&[("192.0.2.0/26", 3), ("192.0.2.64/26", 2), ("192.0.2.128/32", 2)]), [3, 0]),
            (table(&[]), [0, 0]),
        ] {
            maps.set_owners(&rows).expect("a write");
            assert_eq!(maps.owners().expect("a read"), count);
            for (net, slot) in rows {
                let IpAddr::V4(address) = net.network() else { continue };
                let mut key = [0; 8];
                key[..4].copy_from_slice(&u32::from(net.prefix_len()).to_ne_bytes());
                key[4..].copy_from_slice(&address.octets());
                let owner = maps.inner.owners4.get(&key).expect("a read");
                assert_eq!(owner, Some(Owner { slot }), "{net}");
            }
        }
    });
}
