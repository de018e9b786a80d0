//! A server under load, from the first initiation to the session.

use super::super::cookie::LASTS;
use super::*;

/// A gateway whose initiation by path 1 was answered with a cookie, and the time
/// has come for the next.
fn with_cookie() -> World {
    let mut world = World::new();
    world.under_load = true;
    let packet = world.initiation();
    let message = world.cookie_wanted(&packet);
    assert!(matches!(world.take(&message), Ok(Taken::Cookie)));
    world
}

#[test]
fn under_load_a_gateway_that_shows_its_cookie_is_answered() {
    let mut world = with_cookie();
    assert_eq!(world.client().last, None, "nothing was done for the first initiation");
    world.pass(Duration::from_secs(1));
    let sending = world.send(&[1, 2]);
    assert_eq!(sending.path, 1, "a cookie is of one address: the path stays");
    let (response, server) = world.answered(&sending.packet);
    let gateway = world.established(&response);
    assert_eq!(words(gateway.keys), words(server.keys));
    // The next handshake begins with it.
    world.gateway.start(world.now, Wish::New(id(100)));
    let sending = world.send(&[1]);
    world.answered(&sending.packet);
}

#[test]
fn a_cookie_does_not_help_at_another_address() {
    for other in [([192, 0, 2, 1], 7001), ([192, 0, 2, 9], 7000)] {
        let mut world = with_cookie();
        world.pass(Duration::from_secs(1));
        world.from = other.into();
        let sending = world.send(&[1]);
        world.cookie_wanted(&sending.packet);
    }
}

#[test]
fn a_cookie_that_is_too_old_does_not_help() {
    // The gateway uses it no more.
    let mut world = with_cookie();
    world.pass(LASTS - Duration::from_secs(1));
    let sending = world.send(&[1]);
    assert_ne!(sending.packet[172..], [0; 16]);
    world.pass(Duration::from_secs(16));
    let sending = world.send(&[1]);
    assert_eq!(sending.packet[172..], [0; 16], "no MAC 2 by then");
    world.cookie_wanted(&sending.packet);
    // And if it did, the server would not have it.
    let mut world = with_cookie();
    world.pass(Duration::from_secs(1));
    let sending = world.send(&[1]);
    world.pass(2 * LASTS);
    world.cookie_wanted(&sending.packet);
}

#[test]
fn after_a_cookie_the_next_initiation_is_a_second_behind_the_last() {
    let mut world = World::new();
    world.under_load = true;
    world.gateway.start(world.now, Wish::New(id(100)));
    for wait in [1, 2, 4, 8] {
        world.send(&[1]);
        world.pass(Duration::from_secs(wait));
    }
    // The next one would be 16 s away.
    let sending = world.send(&[1]);
    world.pass(Duration::from_millis(300));
    let message = world.cookie_wanted(&sending.packet);
    assert!(world.take(&message).is_ok());
    assert_eq!(world.poll(&[1]), Poll::Wait(world.now + Duration::from_millis(700)));
    world.pass(Duration::from_millis(700));
    let sending = world.send(&[1]);
    world.answered(&sending.packet);
}

#[test]
fn a_cookie_that_was_of_no_use_does_not_hold_the_handshake_on_its_path() {
    let mut world = with_cookie();
    world.pass(Duration::from_secs(1));
    let sending = world.send(&[1, 2, 3]);
    assert_eq!(sending.path, 1);
    world.from = ([192, 0, 2, 9], 7000).into();
    let message = world.cookie_wanted(&sending.packet);
    assert!(world.take(&message).is_ok());
    let Poll::Wait(due) = world.poll(&[1, 2, 3]) else { panic!("not now") };
    assert_eq!(due, world.now + Duration::from_secs(2), "and is not sooner");
    world.pass(Duration::from_secs(2));
    assert_eq!(world.send(&[1, 2, 3]).path, 2);
}

#[test]
fn a_cookie_message_counts_once_and_for_its_initiation_only() {
    let mut world = World::new();
    world.under_load = true;
    let first = world.initiation();
    let message = world.cookie_wanted(&first);
    let mut forged = message.clone();
    forged[87] ^= 1;
    assert_eq!(world.take(&forged).err(), Some(Ignored::BadCookie));
    assert!(world.take(&message).is_ok());
    assert_eq!(world.take(&message).err(), Some(Ignored::Repeated));
    world.pass(Duration::from_secs(1));
    world.send(&[1]);
    assert_eq!(world.take(&message).err(), Some(Ignored::OtherIndex));
    // What it says is bound to the initiation's MAC 1, not to the index alone.
    let mut moved = message;
    world.pass(Duration::from_secs(2));
    let next = world.send(&[1]);
    moved[28..32].copy_from_slice(&next.packet[28..32]);
    assert_eq!(world.take(&moved).err(), Some(Ignored::BadCookie));
}

#[test]
fn a_server_that_is_no_longer_under_load_does_not_look_at_mac_2() {
    let mut world = with_cookie();
    world.pass(Duration::from_secs(1));
    world.under_load = false;
    world.from = ([192, 0, 2, 9], 1).into();
    let sending = world.send(&[1]);
    world.answered(&sending.packet);
}
