//! What is refused, why, and that it changes nothing.

use proptest::prelude::*;

use super::super::cookie::Labels;
use super::super::packet::{HEAD, INITIATION, MAC, Malformed, RESPONSE};
use super::*;

/// MAC 1 begins here.
const SIGNED: usize = INITIATION - 2 * MAC;
const RESPONSE_SIGNED: usize = RESPONSE - 2 * MAC;

/// Writes MAC 1 anew, as anybody can who knows the receiver's key.
fn sign(packet: &[u8], receiver: u8) -> Vec<u8> {
    let mut signed = packet[..packet.len() - 2 * MAC].to_vec();
    Labels::new(&private(receiver).public()).sign(&mut signed, None);
    signed
}

fn reason(world: &mut World, packet: &[u8]) -> Option<Refusal> {
    let before = world.clients.clone();
    let refusal = world.ask(packet).err();
    if refusal.is_some() {
        assert_eq!(world.clients, before, "a refused packet has changed something");
    }
    refusal
}

#[test]
fn an_initiation_for_another_server_is_refused() {
    let mut world = World::new();
    world.gateway = gateway(GATEWAY, 44, &[CHACHA]);
    let packet = world.initiation();
    assert_eq!(reason(&mut world, &packet), Some(Refusal::WrongMac));
    // MAC 1 is no secret; what is behind it is.
    let signed = sign(&packet, SERVER);
    assert_eq!(reason(&mut world, &signed), Some(Refusal::BadNoise));
}

#[test]
fn an_unknown_client_is_refused_by_name() {
    let mut world = World::new();
    world.gateway = gateway(33, SERVER, &[CHACHA]);
    let packet = world.initiation();
    let unknown = Some(Refusal::UnknownClient(private(33).public()));
    assert_eq!(reason(&mut world, &packet), unknown);
}

#[test]
fn a_bit_flipped_anywhere_in_an_initiation_is_refused() {
    let mut world = World::new();
    // No flipped bit makes it 0, which is no path.
    let packet = world.initiation_by(3);
    for bit in 0..8 * SIGNED + 8 * MAC {
        let (at, mut wrong) = (bit / 8, packet.clone());
        wrong[at] ^= 1 << (bit % 8);
        let refusal = reason(&mut world, &wrong);
        match at {
            2 | 28.. => assert_eq!(refusal, Some(Refusal::WrongMac), "bit {bit}"),
            0 if bit >= 4 => assert_eq!(refusal, Some(Refusal::OtherVersion(wrong[0] >> 4))),
            _ => assert!(matches!(refusal, Some(Refusal::Malformed(_))), "bit {bit}: {refusal:?}"),
        }
    }
    // With the right MAC 1 each byte of the message is still proved.
    for at in HEAD..SIGNED {
        let mut wrong = packet.clone();
        wrong[at] ^= 1;
        let refusal = reason(&mut world, &sign(&wrong, SERVER));
        assert_eq!(refusal, Some(Refusal::BadNoise), "byte {at}");
    }
    // MAC 2 is looked at under load only.
    for at in SIGNED + MAC..INITIATION {
        let mut wrong = packet.clone();
        wrong[at] ^= 1;
        world.under_load = true;
        world.cookie_wanted(&wrong);
    }
    assert_eq!(world.client().last, None);
    world.under_load = false;
    let mut with_mac2 = packet;
    with_mac2[INITIATION - 1] ^= 1;
    world.answered(&with_mac2);
}

#[test]
fn a_bit_flipped_anywhere_in_a_response_is_refused() {
    let mut world = World::new();
    // No flipped bit makes it 0, which is no path.
    let packet = world.initiation_by(3);
    let (response, server) = world.answered(&packet);
    for bit in 0..8 * RESPONSE {
        let (at, mut wrong) = (bit / 8, response.clone());
        wrong[at] ^= 1 << (bit % 8);
        let ignored = world.take(&wrong).err();
        match at {
            28..32 => assert_eq!(ignored, Some(Ignored::OtherIndex), "bit {bit}"),
            2 | 32..108 => assert_eq!(ignored, Some(Ignored::WrongMac), "bit {bit}"),
            _ => assert!(matches!(ignored, Some(Ignored::Malformed(_))), "bit {bit}: {ignored:?}"),
        }
    }
    for at in HEAD..RESPONSE_SIGNED {
        let mut wrong = response.clone();
        wrong[at] ^= 1;
        let ignored = world.take(&sign(&wrong, GATEWAY)).err();
        assert_eq!(ignored, Some(Ignored::BadNoise), "byte {at}");
    }
    let gateway = world.established(&response);
    assert_eq!(words(gateway.keys), words(server.keys), "the right one is still taken");
}

#[test]
fn a_packet_that_is_cut_anywhere_is_refused() {
    let mut world = World::new();
    let packet = world.initiation();
    for length in 0..packet.len() {
        let cut = Some(Refusal::Malformed(Malformed::Length(length)));
        assert_eq!(reason(&mut world, &packet[..length]), cut);
    }
    let (response, _) = world.answered(&packet);
    world.under_load = true;
    let cookie = world.cookie_wanted(&packet);
    for answer in [&response, &cookie] {
        for length in 0..answer.len() {
            let cut = Some(Ignored::Malformed(Malformed::Length(length)));
            assert_eq!(world.take(&answer[..length]).err(), cut);
        }
    }
    assert!(world.take(&cookie).is_ok() && world.take(&response).is_ok());
}

#[test]
fn a_replayed_initiation_is_refused() {
    let mut world = World::new();
    let packet = world.initiation();
    world.answered(&packet);
    let replayed = Some(Refusal::Replayed(private(GATEWAY).public(), Duration::ZERO));
    assert_eq!(reason(&mut world, &packet), replayed);
    world.pass(Duration::from_secs(3600));
    assert_eq!(reason(&mut world, &packet), replayed);
}

#[test]
fn an_initiation_that_was_overtaken_is_refused() {
    let mut world = World::new();
    let early = world.initiation();
    world.pass(Duration::from_secs(1));
    let late = world.initiation();
    world.answered(&late);
    let behind = Duration::from_secs(1);
    let overtaken = Some(Refusal::Replayed(private(GATEWAY).public(), behind));
    assert_eq!(reason(&mut world, &early), overtaken);
}

#[test]
fn a_clock_that_jumps_back_is_named_and_does_no_harm() {
    let mut world = World::new();
    world.agree(Wish::New(id(100)));
    let hour = Duration::from_secs(3600);
    world.wall -= hour;
    world.gateway.start(world.now, Wish::New(id(100)));
    let sending = world.send(&[1]);
    // One nanosecond is what the stamp goes on by.
    assert_eq!(sending.clock_behind, Some(hour + Duration::from_nanos(1)));
    world.answered(&sending.packet);
    world.wall += hour + Duration::from_secs(1);
    world.gateway.start(world.now, Wish::New(id(100)));
    assert_eq!(world.send(&[1]).clock_behind, None);

    // A gateway that was started anew does not know it; the server says by how much.
    world.wall -= hour;
    world.gateway = gateway(GATEWAY, SERVER, &[CHACHA]);
    let packet = world.initiation();
    match reason(&mut world, &packet) {
        Some(Refusal::Replayed(client, behind)) => {
            assert_eq!(client, private(GATEWAY).public());
            assert!(behind > Duration::from_secs(3590) && behind <= hour, "{behind:?}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_client_without_a_common_suite_is_refused_by_name() {
    let mut world = World::new();
    world.gateway = gateway(GATEWAY, SERVER, &[CRC]);
    let packet = world.initiation();
    let refusal = world.ask(&packet).err();
    assert_eq!(refusal, Some(Refusal::NoSuite(private(GATEWAY).public())));
    assert!(world.client().last.is_some(), "it was authentic, and is not taken again");
}

#[test]
fn what_this_version_does_not_say_is_refused_even_of_a_client() {
    let mut world = World::new();
    let (server, random) = (private(SERVER).public(), &mut world.random);
    let (_, body) =
        noise::begin(&private(GATEWAY), &server, &[0; payload::INITIATION], random).expect("made");
    let head = packet::Head { path: 1, message: packet::Message::Initiation, index: 1 };
    let unsigned = [&head.encode()[..], &body, &[0; 2 * MAC]].concat();
    let refusal = reason(&mut world, &sign(&unsigned, SERVER));
    assert_eq!(refusal, Some(Refusal::BadPayload(private(GATEWAY).public())));
}

#[test]
fn an_answer_of_a_server_that_has_not_what_was_asked_for_is_ignored() {
    let answer = |epoch, suite, bytes: Option<[u8; payload::RESPONSE]>| {
        let mut world = World::new();
        let session = world.with_session();
        world.gateway.start(world.now, Wish::GoOn(session));
        let packet = world.send(&[1]).packet;
        let heard = noise::hear(&private(SERVER), &packet[HEAD..SIGNED], &mut world.random);
        let response = payload::Response { ours: session.theirs, epoch, suite };
        let say = bytes.unwrap_or_else(|| response.encode());
        let (body, _) = heard.and_then(|heard| heard.answer(&say)).expect("made");
        let mut answer = packet[..HEAD].to_vec();
        answer[24] = packet::Message::Response as u8;
        answer.extend(body);
        answer.extend([0; 2 * MAC]);
        let ignored = world.take(&sign(&answer, GATEWAY)).err();
        world.pass(Duration::from_secs(1));
        assert_eq!(matches!(world.poll(&[1]), Poll::Send(_)), ignored.is_some(), "it asks again");
        ignored
    };
    assert_eq!(answer(1, CHACHA, None), None);
    assert_eq!(answer(2, CHACHA, None), Some(Ignored::NotAsked));
    assert_eq!(answer(1, SIPHASH, None), Some(Ignored::NotAsked), "a session keeps its suite");
    assert_eq!(answer(0, CRC, None), Some(Ignored::NotAsked), "it was not offered");
    assert_eq!(answer(0, CRC, Some([0; 12])), Some(Ignored::BadPayload));
}

#[test]
fn each_end_refuses_what_only_the_other_takes() {
    let mut world = World::new();
    let packet = world.initiation();
    assert_eq!(world.take(&packet).err(), Some(Ignored::Initiation));
    let (response, _) = world.answered(&packet);
    assert_eq!(reason(&mut world, &response), Some(Refusal::NoInitiation));
    world.established(&response);
    assert_eq!(world.take(&response).err(), Some(Ignored::OtherIndex), "it is over");
    world.gateway.start(world.now, Wish::New(id(100)));
    assert_eq!(world.take(&response).err(), Some(Ignored::OtherIndex), "nothing is asked yet");
    world.gateway.stop();
    assert_eq!(world.poll(&[1]), Poll::Idle);
}

#[test]
fn every_refusal_has_a_name_of_its_own() {
    let key = private(1).public();
    let all = [
        Refusal::Malformed(Malformed::Kind),
        Refusal::NoInitiation,
        Refusal::WrongMac,
        Refusal::BadNoise,
        Refusal::UnknownClient(key),
        Refusal::BadPayload(key),
        Refusal::Replayed(key, Duration::ZERO),
        Refusal::NoSuite(key),
        Refusal::NoRandomness,
        Refusal::OtherVersion(2),
    ];
    assert_eq!(all.map(|refusal| refusal.name()), Refusal::NAMES);
    let names = std::collections::BTreeSet::from(Refusal::NAMES);
    assert_eq!(names.len(), all.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_bytes_are_refused(
        bytes in prop::collection::vec(any::<u8>(), 0..256),
        body: [u8; INITIATION],
        under_load: bool,
    ) {
        let mut world = World::new();
        let packet = world.initiation();
        let (response, _) = world.answered(&packet);
        world.under_load = under_load;
        prop_assert!(world.ask(&bytes).is_err());
        prop_assert!(world.take(&bytes).is_err());
        // Such that come further: with a right beginning, with a right MAC 1.
        for (right, receiver, to_server) in
            [(&packet, SERVER, true), (&response, GATEWAY, false)]
        {
            let mut wrong = right.clone();
            wrong[HEAD..].copy_from_slice(&body[..right.len() - HEAD]);
            for wrong in [sign(&wrong, receiver), wrong] {
                let taken = if to_server {
                    matches!(world.ask(&wrong), Ok(Answer::Response { .. }))
                } else {
                    world.take(&wrong).is_ok()
                };
                prop_assert!(!taken);
            }
        }
    }
}
