//! What both ends have when all goes well.

use mwb_common::integrity::seal::{Sender, open, seal};
use mwb_common::wire::{Header, Kind, inner};

use super::*;

#[test]
fn both_ends_get_equal_keys_and_another_one_for_each_direction() {
    let mut world = World::new();
    let (gateway, server) = world.agree(Wish::New(id(100)));
    assert_eq!(words(gateway.keys), words(server.keys));
    assert_ne!(words(gateway.keys)[0], words(gateway.keys)[1]);
    assert_eq!((gateway.ours, gateway.theirs), (id(100), id(901)));
    assert_eq!((server.ours, server.theirs), (id(901), id(100)));
    assert_eq!((gateway.epoch, server.epoch), (0, 0));
    assert_eq!((gateway.suite, server.suite), (CHACHA, CHACHA));
    assert_eq!(world.poll(&[1]), Poll::Idle);
    let (again, _) = world.agree(Wish::New(id(100)));
    assert_ne!(words(again.keys), words(gateway.keys));
}

#[test]
fn a_packet_of_one_end_is_opened_by_the_other() {
    let mut world = World::new();
    let (gateway, server) = world.agree(Wish::New(id(100)));
    for (sender, from, to) in
        [(Sender::Initiator, &gateway, &server), (Sender::Responder, &server, &gateway)]
    {
        let header = Header {
            kind: Kind::Data,
            flags: 0,
            path: 1,
            inner: inner::NONE,
            session: from.theirs.get(),
            sequence: 1,
            bucket: 0,
            taken: 0,
            flow_sequence: 0,
        };
        assert_eq!(from.theirs, to.ours);
        let mut packet = vec![0; 8];
        packet.extend_from_slice(bytemuck::bytes_of(&header.encode()));
        packet.extend([0; 16]);
        packet.extend(b"hello");
        let sealed = seal(&mut packet, 8, from.suite, &from.keys[sender as usize], sender);
        assert_eq!(sealed, Ok(()));
        let other = &to.keys[1 - sender as usize];
        assert!(open(&mut packet.clone(), 8, to.suite, other, sender).is_err());
        assert_eq!(open(&mut packet, 8, to.suite, &to.keys[sender as usize], sender), Ok(()));
        assert!(packet.ends_with(b"hello"));
    }
}

#[test]
fn the_server_chooses_its_first_suite_that_the_gateway_accepts() {
    for (theirs, ours, chosen) in [
        (&[SIPHASH, CHACHA][..], &[CHACHA, SIPHASH][..], SIPHASH),
        (&[CRC, SIPHASH], &[SIPHASH, CHACHA], SIPHASH),
        (&[CRC, SIPHASH], &[SIPHASH, CRC], CRC),
    ] {
        let mut world = World::new();
        world.client().suites = theirs.to_vec();
        world.gateway = gateway(GATEWAY, SERVER, ours);
        let (gateway, server) = world.agree(Wish::New(id(100)));
        assert_eq!((gateway.suite, server.suite), (chosen, chosen));
    }
}

#[test]
fn a_session_goes_on_with_the_next_epoch_and_new_keys() {
    let mut world = World::new();
    let session = world.with_session();
    for epoch in 1..4 {
        world.pass(Duration::from_secs(120));
        let now = Running { epoch: epoch - 1, ..session };
        let (gateway, server) = world.agree(Wish::GoOn(now));
        assert_eq!((gateway.epoch, server.epoch), (epoch, epoch));
        assert_eq!((gateway.ours, gateway.theirs), (session.ours, session.theirs));
        assert_eq!((server.ours, server.theirs), (session.theirs, session.ours));
        assert_eq!(words(gateway.keys), words(server.keys));
        world.client().running = Some(running(&server));
    }
}

#[test]
fn an_epoch_whose_response_was_lost_is_asked_for_again() {
    let mut world = World::new();
    let session = world.with_session();
    world.gateway.start(world.now, Wish::GoOn(session));
    let lost = world.send(&[1]);
    let (late, first) = world.answered(&lost.packet);
    world.pass(Duration::from_secs(1));
    let sending = world.send(&[1]);
    let (response, server) = world.answered(&sending.packet);
    assert_eq!((first.epoch, server.epoch), (1, 1));
    assert_eq!(world.take(&late).err(), Some(Ignored::OtherIndex));
    let gateway = world.established(&response);
    assert_eq!(words(gateway.keys), words(server.keys));
    assert_ne!(words(first.keys), words(server.keys));
}

#[test]
fn a_server_that_has_lost_the_session_begins_a_new_one() {
    let mut world = World::new();
    let session = world.with_session();
    world.client().running = None;
    let (gateway, server) = world.agree(Wish::GoOn(Running { epoch: 7, ..session }));
    assert_eq!((gateway.epoch, server.epoch), (0, 0));
    assert_eq!(gateway.ours, session.ours);
    assert_ne!(gateway.theirs, session.theirs);
    assert_eq!(gateway.theirs, server.ours);
}

#[test]
fn a_session_that_is_not_the_one_in_use_does_not_go_on() {
    let other = |change: fn(&mut Running)| {
        let mut world = World::new();
        let mut session = world.with_session();
        change(&mut session);
        world.gateway.start(world.now, Wish::GoOn(session));
        let sending = world.send(&[1]);
        world.answered(&sending.packet).1
    };
    assert_eq!(other(|_| ()).epoch, 1);
    let changes: [fn(&mut Running); 4] = [
        |session| session.ours = id(5),
        |session| session.theirs = id(5),
        |session| session.epoch = 1,
        |session| session.epoch = u32::MAX,
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let server = other(change);
        assert_eq!((server.epoch, server.ours), (0, id(902)), "change {number}");
    }
}

#[test]
fn nobody_goes_on_with_the_session_of_another_client() {
    let mut world = World::new();
    let session = world.with_session();
    let client = Client { suites: vec![CHACHA], ..Client::default() };
    world.clients.insert(private(33).public(), client);
    world.gateway = gateway(33, SERVER, &[CHACHA]);
    world.gateway.start(world.now, Wish::GoOn(session));
    let sending = world.send(&[1]);
    let Ok(Answer::Response { client, established, .. }) = world.ask(&sending.packet) else {
        panic!("refused");
    };
    assert_eq!(client, private(33).public());
    assert_eq!((established.epoch, established.ours), (0, id(902)));
}

#[test]
fn a_suite_that_is_no_longer_allowed_ends_the_session() {
    let mut world = World::new();
    let session = world.with_session();
    world.client().suites = vec![SIPHASH];
    let (gateway, server) = world.agree(Wish::GoOn(session));
    assert_eq!((gateway.epoch, gateway.suite), (0, SIPHASH));
    assert_eq!((server.epoch, server.suite), (0, SIPHASH));
}

#[test]
fn answers_are_made_out_to_the_path_and_index_of_the_initiation() {
    let mut world = World::new();
    world.gateway.start(world.now, Wish::New(id(100)));
    let sending = world.send(&[9]);
    let (response, _) = world.answered(&sending.packet);
    world.under_load = true;
    let cookie = world.cookie_wanted(&sending.packet);
    for answer in [response, cookie] {
        assert_eq!(answer[2], 9);
        assert_eq!(answer[28..32], sending.packet[28..32]);
        assert!(answer.len() <= sending.packet.len(), "a server amplifies nothing");
    }
}
