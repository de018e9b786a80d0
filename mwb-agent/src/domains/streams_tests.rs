use std::net::SocketAddr;

use proptest::prelude::*;

use super::*;

const NOW: u64 = 1_000_000_000;

fn pair(host: u16) -> Pair {
    let near: SocketAddr = "192.0.2.1:53".parse().expect("an address");
    (near, SocketAddr::new(near.ip(), host))
}

fn begin(sequence: u32) -> Segment<'static> {
    Segment { sequence, begins: true, ends: false, bytes: &[] }
}

fn part(sequence: u32, bytes: &[u8]) -> Segment<'_> {
    Segment { sequence, begins: false, ends: false, bytes }
}

/// Takes segments of one connection; gives the messages.
fn all(streams: &mut Streams, segments: &[Segment<'_>]) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    for segment in segments {
        streams.take(pair(1), *segment, NOW, |message| messages.push(message.to_vec()));
    }
    messages
}

/// Messages as they are on the wire.
fn framed(messages: &[Vec<u8>]) -> Vec<u8> {
    let length = |message: &Vec<u8>| u16::try_from(message.len()).expect("short").to_be_bytes();
    messages.iter().flat_map(|message| [&length(message)[..], message].concat()).collect()
}

proptest! {
    #[test]
    fn however_messages_are_cut_and_sent_again_they_come_once_each(
        messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..12),
        cuts in prop::collection::vec((1..200_usize, 0..400_usize), 1..60),
        first: u32,
    ) {
        let bytes = framed(&messages);
        let mut streams = Streams::default();
        let mut seen = all(&mut streams, &[begin(first.wrapping_sub(1))]);
        let mut at = 0;
        for (length, back) in cuts.iter().cycle() {
            let from = at - back.min(&at);
            let to = bytes.len().min(at + length);
            let sequence = first.wrapping_add(u32::try_from(from).expect("short"));
            seen.extend(all(&mut streams, &[part(sequence, &bytes[from..to])]));
            at = to;
            if at == bytes.len() {
                break;
            }
        }
        prop_assert_eq!(seen, messages);
        prop_assert_eq!((streams.bytes, streams.given_up), (0, 0));
    }

    #[test]
    fn behind_a_gap_there_is_nothing_and_no_byte_is_left(
        messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..100), 2..6),
        gap in 1..50_u32,
    ) {
        let bytes = framed(&messages);
        let mut streams = Streams::default();
        let seen = all(&mut streams, &[begin(0), part(1, &bytes[..1]), part(2 + gap, &bytes[1..])]);
        prop_assert_eq!(seen.len(), 0);
        prop_assert_eq!((streams.open.len(), streams.bytes, streams.given_up), (0, 0, 1));
        let seen = all(&mut streams, &[part(1, &bytes)]);
        prop_assert_eq!(seen.len(), 0, "where messages begin is not known");
    }
}

#[test]
fn a_connection_that_ends_or_begins_anew_is_a_new_one() {
    let mut streams = Streams::default();
    let end = Segment { ends: true, ..part(1, &[0, 1, 7]) };
    assert_eq!(all(&mut streams, &[begin(0), begin(0), end]), [vec![7]]);
    assert!(streams.open.is_empty());
    let half = part(1, &[0, 9, 7]);
    assert_eq!(all(&mut streams, &[begin(0), half, begin(500), part(501, &[0, 1, 8])]), [vec![8]]);
    assert_eq!((streams.bytes, streams.given_up), (0, 0));
}

#[test]
fn one_without_its_beginning_is_not_read() {
    let mut streams = Streams::default();
    assert_eq!(all(&mut streams, &[part(1, &[0, 1, 8])]), Vec::<Vec<u8>>::new());
    assert_eq!(streams.given_up, 0);
}

#[test]
fn too_many_connections_and_too_many_bytes_end_the_oldest() {
    let mut streams = Streams::default();
    for host in 0..300 {
        streams.take(pair(host), begin(0), NOW + u64::from(host), |_| {});
    }
    assert_eq!((streams.open.len(), streams.given_up), (MOST, 44));
    assert!(!streams.open.contains_key(&pair(43)) && streams.open.contains_key(&pair(44)));
    let mut long = vec![0; 60_000];
    long[..2].copy_from_slice(&u16::MAX.to_be_bytes());
    for host in 44..300 {
        streams.take(pair(host), part(1, &long), NOW + 1_000 + u64::from(host), |_| {});
        assert!(streams.bytes <= MOST_BYTES, "{}", streams.bytes);
    }
    assert!(streams.open.contains_key(&pair(299)) && !streams.open.contains_key(&pair(44)));
    let held: usize = streams.open.values().map(|stream| stream.part.len()).sum();
    assert_eq!(held, streams.bytes);
}

#[test]
fn a_silent_connection_is_forgotten() {
    let mut streams = Streams::default();
    all(&mut streams, &[begin(0), part(1, &[0, 9, 7])]);
    streams.expire(NOW + SILENT);
    assert_eq!(streams.open.len(), 1);
    streams.expire(NOW + SILENT + 1);
    assert_eq!((streams.open.len(), streams.bytes, streams.given_up), (0, 0, 0));
}
