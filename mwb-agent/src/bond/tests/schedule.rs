//! When the gateway sends what by which path.

use super::*;

/// What is sent in the first two minutes, with seconds, if nobody answers.
fn unanswered(world: &mut World, paths: &[u8]) -> Vec<(u64, Sending)> {
    let mut sent = Vec::new();
    while world.now - world.start < Duration::from_secs(120) {
        match world.poll(paths) {
            Poll::Send(sending) => sent.push(((world.now - world.start).as_secs(), sending)),
            Poll::Wait(due) => {
                assert!(due > world.now);
                let early = Duration::from_nanos(1);
                let time = due - world.now - early;
                world.pass(time);
                assert_eq!(world.poll(paths), Poll::Wait(due), "not before its time");
                world.pass(early);
            }
            other => panic!("{other:?}"),
        }
    }
    sent
}

#[test]
fn an_initiation_is_sent_again_at_growing_intervals_by_each_path_in_turn() {
    let mut world = World::new();
    world.gateway.start(world.now, Wish::New(id(100)));
    let sent = unanswered(&mut world, &[7, 2, 4]);
    let times: Vec<u64> = sent.iter().map(|(time, _)| *time).collect();
    assert_eq!(times, [0, 1, 3, 7, 15, 31, 47, 63, 79, 95, 111]);
    let paths: Vec<u8> = sent.iter().map(|(_, sending)| sending.path).collect();
    assert_eq!(paths[..7], [2, 4, 7, 2, 4, 7, 2]);
    for (_, sending) in &sent {
        assert_eq!((sending.packet[2], sending.clock_behind), (sending.path, None));
    }
    // Index, and ephemeral key.
    for part in [28..32, 32..64] {
        let parts: std::collections::BTreeSet<&[u8]> =
            sent.iter().map(|(_, sending)| &sending.packet[part.clone()]).collect();
        assert_eq!(parts.len(), sent.len(), "each initiation has its own");
    }
    // Only the last one can be answered; the server takes it.
    let last = &sent[sent.len() - 1].1.packet;
    let (response, _) = world.answered(last);
    world.established(&response);
}

#[test]
fn a_server_whose_host_answers_is_asked_more_often() {
    let mut world = World::new();
    world.gateway.start(world.now, Wish::New(id(100)));
    let hurry = Duration::from_secs(2);
    let mut sent = Vec::new();
    for _ in 0..120 {
        if world.now - world.start < Duration::from_secs(8) {
            world.gateway.hurry(world.now, hurry);
        }
        if matches!(world.poll(&[1]), Poll::Send(_)) {
            sent.push((world.now - world.start).as_millis());
        }
        world.pass(Duration::from_millis(200));
    }
    // And as seldom as ever when it is gone.
    assert_eq!(sent, [0, 1_000, 3_000, 5_200, 7_400, 9_600]);
}

#[test]
fn without_a_path_it_waits_for_one() {
    let mut world = World::new();
    world.gateway.start(world.now, Wish::New(id(100)));
    assert_eq!(world.poll(&[]), Poll::NoPath);
    assert_eq!(world.poll(&[0]), Poll::NoPath, "0 is no path");
    world.pass(Duration::from_secs(60));
    assert_eq!(world.send(&[3]).path, 3);
    assert_eq!(world.poll(&[]), Poll::Wait(world.now + Duration::from_secs(1)));
}

#[test]
fn the_next_handshake_begins_where_the_last_one_came_through() {
    let mut world = World::new();
    world.gateway.start(world.now, Wish::New(id(100)));
    world.send(&[1, 2, 3]);
    world.pass(Duration::from_secs(1));
    let sending = world.send(&[1, 2, 3]);
    assert_eq!(sending.path, 2);
    let (response, _) = world.answered(&sending.packet);
    world.established(&response);
    world.pass(Duration::from_secs(120));
    world.gateway.start(world.now, Wish::New(id(100)));
    assert_eq!(world.send(&[1, 2, 3]).path, 2);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.send(&[1, 2, 3]).path, 3);
}

#[test]
fn a_handshake_that_is_begun_anew_is_sent_at_once() {
    let mut world = World::new();
    world.gateway.start(world.now, Wish::New(id(100)));
    for wait in [1, 2, 4] {
        world.send(&[1]);
        world.pass(Duration::from_secs(wait));
    }
    let old = world.send(&[1]);
    world.gateway.start(world.now, Wish::New(id(200)));
    let new = world.send(&[1]);
    assert_eq!(world.poll(&[1]), Poll::Wait(world.now + Duration::from_secs(1)));
    let (late, _) = world.answered(&old.packet);
    assert_eq!(world.take(&late).err(), Some(Ignored::OtherIndex));
    let (response, server) = world.answered(&new.packet);
    assert_eq!((world.established(&response).ours, server.theirs), (id(200), id(200)));
}

#[test]
fn after_the_last_epoch_there_is_a_new_session() {
    let mut world = World::new();
    let session = Running { epoch: u32::MAX, ..world.with_session() };
    let (gateway, server) = world.agree(Wish::GoOn(session));
    assert_eq!((gateway.epoch, server.epoch), (0, 0));
}
