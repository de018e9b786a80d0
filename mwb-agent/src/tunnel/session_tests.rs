use std::num::NonZeroU32;

use mwb_common::integrity::seal::{Key, seal};
use mwb_common::maps::{BondPath, SessionState};

use super::super::aging::Age;
use super::*;
use crate::bond::lifetime::OVER_AFTER;
use crate::bond::{Os, PrivateKey};
use crate::dataplane::DataPlane;
use crate::dataplane::testing::{in_network, maps_alone};

fn maps(name: &str) -> (DataPlane, BondMaps) {
    let plane = maps_alone(name);
    let maps = plane.bond();
    (plane, maps)
}

fn established(epoch: u32) -> Established {
    let id = |number| NonZeroU32::new(number).expect("not 0");
    Established {
        ours: id(0x1002),
        theirs: id(0x2001),
        epoch,
        suite: Suite::SipHash,
        keys: [1, 2].map(|end| Key::new([epoch as u8 * 16 + end; 32])),
    }
}

fn peer() -> PublicKey {
    PrivateKey::generate(&mut Os).expect("a key").public()
}

/// A session of the end that answered, which packets find.
fn responder(maps: &BondMaps) -> Session {
    let established = established(0);
    let session = Session::install(maps, 2, peer(), &established, Sender::Responder, 0);
    let mut session = session.expect("a write");
    session.present(maps).expect("a write");
    session
}

/// The kernel side has opened a packet of an epoch.
fn heard(maps: &BondMaps, epoch: u32) {
    let state = SessionState { heard: epoch + 1, cursor: 0 };
    maps.set_session_state(2, &state).expect("a write");
}

fn key(byte: u8) -> [u8; 32] {
    [byte; 32]
}

fn bytes(key: &Key) -> &[u8] {
    bytemuck::bytes_of(key)
}

#[test]
fn the_end_that_answers_seals_with_new_keys_only_once_it_has_heard_them() {
    in_network("the_end_that_answers_seals_with_new_keys_only_once_it_has_heard_them", || {
        let (_plane, maps) = maps("renew");
        let mut session = responder(&maps);
        heard(&maps, 0);
        assert!(session.look(&maps).expect("a read"));
        session.renew(&maps, &established(1)).expect("a write");
        let entry = maps.session(2).expect("a read");
        assert_eq!((entry.epoch, entry.opens, entry.seals), (1, 3, 0));
        assert_eq!(session.running().map(|running| running.epoch), Some(0));
        assert_eq!(bytes(&entry.seal[1]), key(0x12), "the second key is the answering end's");
        assert_eq!(bytes(&entry.open[1]), key(0x11));
        assert_eq!(bytes(&entry.open[0]), key(0x01), "what is on its way is still opened");
        // The client has not received the answer, and asks once more.
        session.renew(&maps, &established(1)).expect("a write");
        assert_eq!(maps.session(2).expect("a read").seals, 0);
        heard(&maps, 1);
        assert!(session.look(&maps).expect("a read"));
        assert!(!session.look(&maps).expect("a read"), "once");
        assert_eq!(maps.session(2).expect("a read").seals, 1);
        // The next keys take the place of the first ones; the second ones seal meanwhile.
        session.renew(&maps, &established(2)).expect("a write");
        let entry = maps.session(2).expect("a read");
        assert_eq!((entry.epoch, entry.opens, entry.seals), (2, 3, 1));
        assert_eq!(bytes(&entry.open[0]), key(0x21));
        assert_eq!(session.sealing_epoch(), 1);
    });
}

#[test]
fn what_is_said_in_a_session_that_hides_nothing_is_hidden_and_cannot_be_forged() {
    in_network("what_is_said_is_hidden", || {
        let (_plane, maps) = maps("said");
        let mut session = responder(&maps);
        let text = b"which paths there are";
        let packet = session.seal(3, text).expect("keys that seal");
        assert!(!packet.windows(text.len()).any(|part| part == text));
        let mut far = Keys::new(0, Sender::Initiator, established(0).message_keys());
        assert_eq!(far.open(&packet).map(|opened| opened.text), Ok(text.to_vec()));
        // Those that know the session's suite, and its keys for data.
        let [first, second] = established(0).keys;
        for suite in [Suite::ChaCha20Poly1305, Suite::SipHash, Suite::Crc32] {
            for key in [&first, &second] {
                let fields = [&[0; 8], &packet[..24]].concat();
                let mut forged = [fields, vec![0; suite.check_length() as usize]].concat();
                forged.extend_from_slice(text);
                seal(&mut forged, 8, suite, key, Sender::Responder).expect("a packet");
                assert_eq!(far.open(&forged[8..]), Err(Refused::BadCheck), "{suite:?}");
            }
        }
    });
}

#[test]
fn keys_are_wiped_when_their_time_is_over_and_with_the_last_the_session_ends() {
    in_network("keys_are_wiped_when_their_time_is_over", || {
        let (_plane, maps) = maps("expire");
        let mut session = responder(&maps);
        heard(&maps, 0);
        session.look(&maps).expect("a read");
        session.renew(&maps, &established(1)).expect("a write");
        heard(&maps, 1);
        session.look(&maps).expect("a read");
        let now = Instant::now();
        session.made = [now.checked_sub(OVER_AFTER), Some(now)];
        assert_eq!(session.expire(&maps, now, false).expect("a write"), Age::Good);
        let entry = maps.session(2).expect("a read");
        assert_eq!(entry.opens, 2);
        assert_eq!((bytes(&entry.seal[0]), bytes(&entry.open[0])), (&key(0)[..], &key(0)[..]));
        assert_eq!(bytes(&entry.open[1]), key(0x11));
        assert_eq!(session.expire(&maps, now + OVER_AFTER, false).expect("a write"), Age::Over);
        let entry = maps.session(2).expect("a read");
        assert_eq!((entry.opens, entry.flags & session_flag::PRESENT), (0, 0));
        assert_eq!(bytes(&entry.seal[1]), key(0));
        assert_eq!(session.seal(1, b"text"), None, "nothing is sealed any more");
    });
}

/// A path that an authentic packet came by so long ago.
fn hear_by(maps: &BondMaps, session: &mut Session, ago: Duration) {
    let remote = std::net::SocketAddr::from(([198, 51, 100, 1], 7_000));
    session.join(maps, 1, remote, 1).expect("a write");
    let link = session.paths.get_mut(&1).expect("a path");
    link.state.heard = monotonic() - ago.as_nanos() as u64;
}

#[test]
fn keys_that_seal_are_kept_beyond_their_time_while_packets_come_and_no_others_are() {
    in_network("keys_that_seal_are_kept_beyond_their_time", || {
        let (_plane, maps) = maps("kept");
        let mut session = responder(&maps);
        assert!(!session.hears(monotonic()), "nothing ever came");
        hear_by(&maps, &mut session, Duration::from_secs(9));
        assert!(session.hears(monotonic()));
        assert!(!session.hears(monotonic() + 2_000_000_000), "that was too long ago");
        heard(&maps, 0);
        session.hear(&maps, Some(0)).expect("a write");
        session.renew(&maps, &established(1)).expect("a write");
        session.hear(&maps, Some(1)).expect("a write");
        // The client never heard of the keys of epoch 2: those of epoch 1 seal.
        session.renew(&maps, &established(2)).expect("a write");
        let now = Instant::now();
        session.made = [Some(now), now.checked_sub(OVER_AFTER)];
        assert_eq!(session.expire(&maps, now, true).expect("a write"), Age::Overdue);
        assert_eq!(session.expire(&maps, now, true).expect("a write"), Age::Good, "told once");
        assert!(session.is_overdue() && session.is_due(now + OVER_AFTER));
        // Hours later; what does not seal went when its time was over.
        let later = now + 100 * OVER_AFTER;
        assert_eq!(session.expire(&maps, later, true).expect("a write"), Age::Good);
        let entry = maps.session(2).expect("a read");
        assert_eq!((entry.opens, entry.seals), (2, 1));
        assert_eq!((bytes(&entry.open[0]), bytes(&entry.open[1])), (&key(0)[..], &key(0x11)[..]));
        assert_ne!(entry.flags & session_flag::PRESENT, 0);
        // New ones that the client has heard of end it, and the old ones.
        session.renew(&maps, &established(2)).expect("a write");
        session.hear(&maps, Some(2)).expect("a write");
        assert!(!session.is_overdue());
        session.made[0] = Some(later);
        assert_eq!(session.expire(&maps, later, true).expect("a write"), Age::Good);
        assert_eq!(maps.session(2).expect("a read").opens, 1);
        // And when nothing comes any more the session ends.
        let end = later + OVER_AFTER;
        assert_eq!(session.expire(&maps, end, true).expect("a write"), Age::Overdue);
        assert_eq!(session.expire(&maps, end, false).expect("a write"), Age::Over);
        let entry = maps.session(2).expect("a read");
        assert_eq!((entry.opens, entry.flags & session_flag::PRESENT), (0, 0));
    });
}

#[test]
fn a_session_is_taken_over_without_its_keys_and_lasts_for_a_handshake() {
    in_network("a_session_is_taken_over_without_its_keys_and_lasts_for_a_handshake", || {
        let (_plane, maps) = maps("over");
        let session = responder(&maps);
        let (peer, ours) = (session.peer, session.ours);
        let path = BondPath { flags: bond_path_flag::PRESENT, via: 3, ..BondPath::default() };
        maps.set_path(2, 7, &path).expect("a write");
        drop(session);
        // As if it was made when the machine began.
        let mut entry = maps.session(2).expect("a read");
        entry.established = 0;
        maps.set_session(2, &entry).expect("a write");
        heard(&maps, 0);
        let taken = Session::take_over(&maps, 2).expect("a read").expect("a session");
        let mut taken = taken;
        assert_eq!((taken.peer, taken.ours, taken.paths.len()), (peer, ours, 1));
        assert_eq!(taken.paths[&7].via(), 3);
        assert!(taken.is_heard() && !taken.has_keys());
        assert_eq!(taken.seal(7, b"text"), None, "what was counted with these keys is not known");
        let now = Instant::now();
        let soon = now + GRACE - Duration::from_secs(1);
        assert_eq!(taken.expire(&maps, soon, false).expect("a write"), Age::Good);
        // From then on it is kept if its packets come, as by whoever made the keys.
        let late = now + OVER_AFTER;
        assert_eq!(taken.expire(&maps, late, true).expect("a write"), Age::Overdue);
        assert_eq!(taken.expire(&maps, late, false).expect("a write"), Age::Over);
        // Not in another slot than its number says, and not one that has ended.
        assert!(Session::take_over(&maps, 2).expect("a read").is_none());
        entry.ours = 0x1001;
        maps.set_session(2, &entry).expect("a write");
        assert!(Session::take_over(&maps, 2).expect("a read").is_none());
        assert!(Session::take_over(&maps, 0).expect("a read").is_none());
    });
}

#[test]
fn inner_packets_are_as_long_as_every_path_takes() {
    in_network("inner_packets_are_as_long_as_every_path_takes", || {
        let (_plane, maps) = maps("fit");
        let mut session = responder(&maps);
        let remote = |last: u8| std::net::SocketAddr::from(([198, 51, 100, last], 7_000));
        assert!(session.join(&maps, 1, remote(1), 1).expect("a write"));
        assert!(!session.join(&maps, 1, remote(1), 1).expect("a write"), "nothing is new");
        let most = mtu::FIRST - mtu::overhead(Suite::SipHash, false);
        assert_eq!(maps.session(2).expect("a read").mtu, most);
        assert!(session.set_mtu(&maps, 1, 1_500).expect("a write"));
        assert_eq!(maps.session(2).expect("a read").mtu, most + 1_500 - mtu::FIRST);
        // One that takes less bounds both.
        assert!(session.join(&maps, 2, remote(2), 1).expect("a write"));
        assert_eq!(maps.session(2).expect("a read").mtu, most);
        session.leave(&maps, 2).expect("a write");
        assert_eq!(maps.session(2).expect("a read").mtu, most + 1_500 - mtu::FIRST);
        // What was seen of a path that has left must not count for the one after it.
        let left = BondPath { generation: 1, ..BondPath::default() };
        assert_eq!(maps.path(2, 2).expect("a read"), left);
        session.join(&maps, 2, remote(2), 1).expect("a write");
        assert_eq!(maps.path(2, 2).expect("a read").generation, 2);
        session.leave(&maps, 2).expect("a write");
        // A far end that is another one makes what was seen of the old one void.
        let before = maps.path(2, 1).expect("a read").generation;
        assert!(session.join(&maps, 1, remote(9), 1).expect("a write"));
        assert_eq!(maps.path(2, 1).expect("a read").generation, before + 1);
    });
}

#[test]
fn a_bond_that_is_none_any_more_leaves_no_keys() {
    in_network("a_bond_that_is_none_any_more_leaves_no_keys", || {
        let (_plane, maps) = maps("forget");
        drop(responder(&maps));
        let bond = maps::Bond { role: maps::bond_role::SERVER, ..maps::Bond::default() };
        maps.set_bond(&bond).expect("a write");
        maps.set_owners(&[("10.1.0.0/24".parse().expect("a prefix"), 2)].into()).expect("a write");
        crate::tunnel::forget(&maps).expect("a write");
        let entry = maps.session(2).expect("a read");
        assert!(bytemuck::bytes_of(&entry).iter().all(|byte| *byte == 0));
        assert_eq!(maps.bond().expect("a read"), maps::Bond::default());
        assert_eq!(maps.owners().expect("a read"), [0, 0]);
        crate::tunnel::forget(&maps).expect("nothing to do");
    });
}
