//! Sessions: how they begin, go on and take each other's place.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mwb_common::maps::{PathState, Session, SessionState, bond_path_flag, session_flag};

use super::world::{End, World, in_world, wait_until};
use crate::bond::{Os, PrivateKey};
use crate::tunnel::address;

/// The sessions that packets find, with their slots.
fn sessions(end: &End) -> Vec<(u32, Session)> {
    (0..end.maps.slots())
        .map(|slot| (slot, end.maps.session(slot).expect("a read")))
        .filter(|(_, session)| session.flags & session_flag::PRESENT != 0)
        .collect()
}

/// Where a path of a session leads to, if it has joined.
fn remote(end: &End, slot: u32, path: u8) -> Option<SocketAddr> {
    let entry = end.maps.path(slot, path).expect("a read");
    (entry.flags & bond_path_flag::PRESENT != 0).then(|| address::written(&entry))
}

fn bytes(key: &mwb_common::integrity::seal::Key) -> &[u8] {
    bytemuck::bytes_of(key)
}

/// Both ends have one session, all paths have joined, and the keys are the same.
fn wait_for_bond(world: &World) -> (Session, Session) {
    let World { gateway, server, .. } = world;
    wait_until("one session with two paths at each end", || {
        [gateway, server].iter().all(|end| match &sessions(end)[..] {
            [(slot, _)] => [1, 2].iter().all(|path| remote(end, *slot, *path).is_some()),
            _ => false,
        })
    });
    let ([(slot, ours)], [(other, theirs)]) = (&sessions(gateway)[..], &sessions(server)[..])
    else {
        panic!("a session has gone");
    };
    assert_eq!((ours.theirs, ours.ours), (theirs.ours, theirs.theirs));
    assert_eq!((ours.epoch, ours.suite), (theirs.epoch, theirs.suite));
    assert_eq!((ours.sender, theirs.sender), (0, 1));
    let place = (ours.epoch & 1) as usize;
    assert_eq!(bytes(&ours.seal[place]), bytes(&theirs.open[place]));
    assert_eq!(bytes(&ours.open[place]), bytes(&theirs.seal[place]));
    assert_ne!(bytes(&ours.open[place]), bytes(&ours.seal[place]));
    for (path, net) in [(1, "198.51.100"), (2, "192.0.2")] {
        assert_eq!(remote(gateway, *slot, path), "203.0.113.250:7000".parse().ok());
        assert_eq!(remote(server, *other, path), format!("{net}.2:7000").parse().ok());
    }
    (*ours, *theirs)
}

#[test]
fn both_ends_come_to_a_session_and_every_path_joins_it() {
    in_world("both_ends_come_to_a_session_and_every_path_joins_it", |world| {
        world.start();
        let (ours, theirs) = wait_for_bond(world);
        assert_eq!((ours.epoch, ours.opens, ours.seals), (0, 1, 0));
        assert_eq!(ours.ours % 4, world.gateway.maps.bond().expect("a read").slot);
        assert_eq!((theirs.flags & session_flag::ROAMS, theirs.mtu), (session_flag::ROAMS, 1_300));
        wait_until("the client's addresses lead into its session", || {
            world.server.maps.owners().expect("a read") == [1, 0]
        });
        let bond = world.server.maps.bond().expect("a read");
        assert_eq!((bond.role, bond.port, bond.slot_mask), (2, [0x1b, 0x58], 3));
        assert!(world.server.has_said("client site1 has a session"), "{:?}", world.server.said());
    });
}

#[test]
fn both_ends_know_which_paths_are_metered_and_when_that_changes() {
    in_world("both_ends_know_which_paths_are_metered_and_when_that_changes", |world| {
        world.gateway.network.uplinks[1].metered = true;
        world.start();
        wait_for_bond(world);
        let metered = |end: &End| {
            let (slot, _) = *sessions(end).first()?;
            Some([1, 2].map(|path| {
                let entry = end.maps.path(slot, path).expect("a read");
                entry.flags & bond_path_flag::METERED != 0
            }))
        };
        let wait = |world: &World, expected: [bool; 2]| {
            let ends = [&world.gateway, &world.server];
            wait_until("both know", || ends.iter().all(|end| metered(end) == Some(expected)));
        };
        wait(world, [false, true]);
        let bond = world.server.maps.bond().expect("a read");
        assert_eq!((bond.idle_interval, bond.idle_dead_after), (1_000_000_000, 3_500_000_000));
        // What the client has said once is not forgotten by the agent that comes next, which
        // goes on from what the kernel side has opened.
        let (slot, _) = sessions(&world.server)[0];
        let state = SessionState { heard: 1, cursor: 0 };
        world.server.maps.set_session_state(slot, &state).expect("a write");
        world.server.stop();
        world.start_server();
        wait(world, [false, true]);
        world.gateway.stop();
        world.gateway.network.uplinks[0].metered = true;
        world.gateway.network.uplinks[1].metered = false;
        world.start_gateway();
        wait(world, [true, false]);
        world.gateway.network.uplinks[0].metered = false;
        world.gateway.tell();
        wait(world, [false, false]);
    });
}

#[test]
fn an_agent_that_is_restarted_goes_on_with_the_session() {
    in_world("an_agent_that_is_restarted_goes_on_with_the_session", |world| {
        world.start();
        let (before, _) = wait_for_bond(world);
        world.gateway.stop();
        world.start_gateway();
        wait_until("new keys at both ends", || {
            [&world.gateway, &world.server]
                .iter()
                .all(|end| matches!(&sessions(end)[..], [(_, session)] if session.epoch == 1))
        });
        wait_until(
            "the server seals with them",
            || matches!(&sessions(&world.server)[..], [(_, session)] if session.seals == 1),
        );
        let (after, theirs) = wait_for_bond(world);
        assert_eq!((after.ours, after.theirs), (before.ours, before.theirs));
        assert_eq!((after.opens, after.seals, theirs.opens), (3, 1, 3));
        // What the old keys sealed is still opened.
        assert_eq!(bytes(&after.open[0]), bytes(&before.open[0]));
        // Then the server's end: what it goes on from is what the kernel side has opened.
        let (slot, _) = sessions(&world.server)[0];
        let state = SessionState { heard: 2, cursor: 0 };
        world.server.maps.set_session_state(slot, &state).expect("a write");
        world.server.stop();
        world.start_server();
        world.gateway.stop();
        world.start_gateway();
        wait_until("the keys after those", || {
            matches!(&sessions(&world.server)[..], [(_, session)]
                if session.epoch == 2 && session.seals == 0)
        });
        let (last, _) = wait_for_bond(world);
        assert_eq!(last.ours, before.ours);
    });
}

#[test]
fn a_servers_agent_that_is_restarted_has_keys_soon() {
    in_world("a_servers_agent_that_is_restarted_has_keys_soon", |world| {
        world.start();
        wait_for_bond(world);
        // As if the kernel sides were at work: probes are answered, and packets opened.
        let (slot, _) = sessions(&world.gateway)[0];
        for path in [1, 2] {
            let state =
                PathState { alive_until: u64::MAX, reply_at: u64::MAX, ..PathState::default() };
            world.gateway.maps.put_path_state(slot, path, &state).expect("a write");
        }
        let (slot, _) = sessions(&world.server)[0];
        let state = SessionState { heard: 1, cursor: 0 };
        world.server.maps.set_session_state(slot, &state).expect("a write");
        world.server.stop();
        let stopped = Instant::now();
        world.start_server();
        wait_until("new keys at both ends", || {
            [&world.gateway, &world.server]
                .iter()
                .all(|end| matches!(&sessions(end)[..], [(_, session)] if session.epoch == 1))
        });
        let took = stopped.elapsed();
        assert!(took < Duration::from_secs(8), "{took:?}");
    });
}

#[test]
fn a_server_that_has_lost_its_sessions_gets_new_ones() {
    in_world("a_server_that_has_lost_its_sessions_gets_new_ones", |world| {
        world.start();
        let (before, _) = wait_for_bond(world);
        world.server.stop();
        for (slot, _) in sessions(&world.server) {
            world.server.maps.clear(slot).expect("a write");
        }
        world.start_server();
        world.gateway.stop();
        world.start_gateway();
        wait_until(
            "a session that is a new one",
            || matches!(&sessions(&world.server)[..], [(_, session)] if session.ours != before.theirs),
        );
        let (after, _) = wait_for_bond(world);
        assert_eq!((after.ours, after.epoch), (before.ours, 0), "the gateway keeps its number");
    });
}

#[test]
fn a_key_that_is_not_right_gets_no_session_and_both_ends_say_so() {
    in_world("a_key_that_is_not_right_gets_no_session_and_both_ends_say_so", |world| {
        let other = PrivateKey::generate(&mut Os).expect("a key");
        // The server does not know this gateway.
        let config = world.server_config(&[other.public()]);
        world.server.start(config, world.keys[1].clone());
        world.start_gateway();
        wait_until("the gateway says that nobody answers", || {
            world.gateway.has_said("no answer from 203.0.113.250:7000")
        });
        assert!(
            world.gateway.has_said("does it have our public key"),
            "{:?}",
            world.gateway.said()
        );
        assert!(sessions(&world.gateway).is_empty() && sessions(&world.server).is_empty());
        // Until the operator puts it right.
        world.server.stop();
        world.start_server();
        wait_for_bond(world);
    });
}

#[test]
fn a_carrier_that_goes_is_known_at_the_other_end_at_once() {
    in_world("a_carrier_that_goes_is_known_at_the_other_end_at_once", |world| {
        world.start();
        wait_for_bond(world);
        let down = |end: &End, path| {
            let (slot, _) = sessions(end)[0];
            end.maps.path(slot, path).expect("a read").flags & bond_path_flag::DOWN != 0
        };
        assert!(!down(&world.gateway, 1) && !down(&world.server, 1));
        world.gateway.network.uplinks[0].carrier = false;
        world.gateway.tell();
        wait_until("the path is not used here", || down(&world.gateway, 1));
        wait_until("nor there", || down(&world.server, 1));
        assert!(!down(&world.gateway, 2) && !down(&world.server, 2));
        // It is back once its probes are answered, which nobody does here.
        world.gateway.network.uplinks[0].carrier = true;
        world.gateway.tell();
        std::thread::sleep(Duration::from_millis(300));
        assert!(down(&world.gateway, 1) && down(&world.server, 1));
    });
}

#[test]
fn what_an_agent_held_for_down_is_looked_at_anew_by_the_next_one() {
    in_world("what_an_agent_held_for_down_is_looked_at_anew_by_the_next_one", |world| {
        world.start();
        wait_for_bond(world);
        let down = |end: &End, path| {
            let (slot, _) = sessions(end)[0];
            end.maps.path(slot, path).expect("a read").flags & bond_path_flag::DOWN != 0
        };
        world.gateway.network.uplinks[0].carrier = false;
        world.gateway.tell();
        wait_until("the path is used at neither end", || {
            down(&world.gateway, 1) && down(&world.server, 1)
        });
        // The carrier comes back while nobody looks.
        world.gateway.stop();
        world.gateway.network.uplinks[0].carrier = true;
        world.start_gateway();
        wait_until("the path is not held here any more", || !down(&world.gateway, 1));
        wait_until("nor there", || !down(&world.server, 1));
    });
}

#[test]
fn a_wan_that_is_none_any_more_leaves_the_session() {
    in_world("a_wan_that_is_none_any_more_leaves_the_session", |world| {
        world.start();
        wait_for_bond(world);
        world.gateway.network.uplinks.remove(1);
        world.gateway.tell();
        for end in [&world.gateway, &world.server] {
            wait_until("the path is gone", || {
                let (slot, _) = sessions(end)[0];
                remote(end, slot, 2).is_none() && remote(end, slot, 1).is_some()
            });
        }
    });
}

#[test]
fn two_clients_have_sessions_and_addresses_of_their_own() {
    let name = "two_clients_have_sessions_and_addresses_of_their_own";
    in_world(name, |world| {
        let (mut other, key) = world.another(name);
        let keys = [world.keys[0].public(), key.public()];
        let config = world.server_config(&keys);
        world.server.start(config, world.keys[1].clone());
        world.start_gateway();
        let config = world.gateway_config(world.keys[1].public());
        other.start(config, key);
        wait_until("two sessions, each with the paths of its gateway", || {
            let mut paths: Vec<usize> = sessions(&world.server)
                .iter()
                .map(|(slot, _)| {
                    let joined = |path: &u8| remote(&world.server, *slot, *path).is_some();
                    (1..=3).filter(joined).count()
                })
                .collect();
            paths.sort_unstable();
            paths == [1, 2]
        });
        let [(_, one), (_, two)] = &sessions(&world.server)[..] else {
            panic!("a session has gone")
        };
        assert_ne!(bytes(&one.seal[0]), bytes(&two.seal[0]));
        assert!(keys.iter().all(|key| [one.peer, two.peer].contains(key.bytes())));
        wait_until("the addresses of each lead into its session", || {
            world.server.maps.owners().expect("a read") == [2, 0]
        });
        // One that goes away takes nothing from the other.
        other.stop();
        assert_eq!(sessions(&world.server).len(), 2);
        let (slot, _) = sessions(&other)[0];
        assert_eq!(remote(&other, slot, 1), "203.0.113.250:7000".parse().ok());
    });
}
