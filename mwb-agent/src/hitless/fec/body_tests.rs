use proptest::prelude::*;

use super::super::tests::ip;
use super::*;

const BLOCK: Id = Id { path: 15, number: 0xaabb_ccdd };
const FIRST: u64 = 0x0102_0304_0506_0708;
const GAPS: [u8; 2] = [1, 255];

fn sample() -> Vec<u8> {
    start(BLOCK, 7, FIRST, &GAPS, (3, 2), 30).0
}

#[test]
fn a_body_is_what_the_table_says() {
    let mut expected = vec![0, 3, 3, 2, 0xaa, 0xbb, 0xcc, 0xdd, 0, 30, 15, 7];
    expected.extend([1, 2, 3, 4, 5, 6, 7, 8, 1, 255]);
    expected.extend([0; 30]);
    assert_eq!(sample(), expected);
    assert_eq!(start(BLOCK, 7, FIRST, &GAPS, (3, 2), 30).1, 22);
    assert_eq!(sample().len(), overhead(3) + 20);
    let body = Body::parse(&expected).expect("it is one");
    assert_eq!((body.parity, body.index, body.block, body.wait), (3, 2, BLOCK, 7));
    let sequences = [FIRST, FIRST + 1, FIRST + 256];
    let expected = sequences.map(|sequence| Member { path: 15, sequence });
    assert_eq!(members(15, body.first, body.gaps).collect::<Vec<_>>(), expected);
    assert_eq!(body.shard, [0; 30]);
}

#[test]
fn a_body_is_longer_than_its_packet_by_the_overhead() {
    assert_eq!([0, 1, 2, 32].map(overhead), [30, 30, 31, 61]);
}

#[test]
fn each_way_to_be_none_has_its_name() {
    let refused = |at: usize, byte: u8| {
        let mut bytes = sample();
        bytes[at] = byte;
        Body::parse(&bytes).map(|_| ())
    };
    let counts = |data, parity, index| Err(Malformed::Counts { data, parity, index });
    assert_eq!(refused(0, 1), Err(Malformed::Version(1)));
    assert_eq!(refused(1, 0), counts(0, 3, 2));
    assert_eq!(refused(1, 33), counts(33, 3, 2));
    assert_eq!(refused(2, 0), counts(3, 0, 2));
    assert_eq!(refused(2, 9), counts(3, 9, 2));
    assert_eq!(refused(2, 2), counts(3, 2, 2));
    assert_eq!(refused(3, 3), counts(3, 3, 3));
    assert_eq!(refused(10, 0), Err(Malformed::Path(0)));
    assert_eq!(refused(10, 16), Err(Malformed::Path(16)));
    assert_eq!([0, 255].map(|wait| refused(11, wait)), [Ok(()); 2], "any wait");
    assert_eq!(refused(9, 29), Err(Malformed::Length));
    assert_eq!(refused(9, 31), Err(Malformed::Length));
    assert_eq!(refused(1, 2), Err(Malformed::Length));
    assert_eq!(refused(1, 32), Err(Malformed::Length));
    assert_eq!(refused(20, 0), Err(Malformed::Sequences));
    assert_eq!(refused(21, 0), Err(Malformed::Sequences));
    assert_eq!(Body::parse(&sample()[..19]), Err(Malformed::Short));
    assert_eq!(Body::parse(&sample()[..20]), Err(Malformed::Length));
    assert_eq!(Body::parse(&sample()[..51]), Err(Malformed::Length));
    let short = start(BLOCK, 7, FIRST, &GAPS, (3, 2), 29).0;
    assert_eq!(Body::parse(&short), Err(Malformed::Length));
}

#[test]
fn an_error_says_what_is_wrong() {
    let counts = Malformed::Counts { data: 33, parity: 2, index: 5 };
    let said = [
        (Malformed::Short, "parity shorter than its head of 20 bytes"),
        (Malformed::Version(7), "parity of version 7, not 0"),
        (counts, "parity 5 of a block of 33 and 2: there is none"),
        (Malformed::Path(16), "parity for path 16, not 1 to 15"),
        (Malformed::Length, "parity of another length than it says"),
        (Malformed::Sequences, "parity for sequences that are 0, repeat or wrap"),
    ];
    for (error, message) in said {
        assert_eq!(error.to_string(), message);
    }
}

#[test]
fn sequences_are_not_0_and_do_not_wrap() {
    let parse = |first| Body::parse(&start(BLOCK, 7, first, &GAPS, (1, 0), 30).0).map(|_| ());
    assert_eq!(parse(0), Err(Malformed::Sequences));
    assert_eq!(parse(1), Ok(()));
    assert_eq!(parse(u64::MAX - 256), Ok(()));
    assert_eq!(parse(u64::MAX - 255), Err(Malformed::Sequences));
    assert_eq!(parse(u64::MAX), Err(Malformed::Sequences));
}

#[test]
fn a_shard_is_inspected_before_it_is_a_packet() {
    let header = Header { inner: 4, flags: 0xfe, bucket: 0x0102, number: 0x0304_0506 };
    let packet = ip(4, 20, 1);
    let mut shard = Vec::new();
    append_shard(&mut shard, header, &packet);
    assert_eq!(shard[..10], [0, 20, 4, 0xfe, 1, 2, 3, 4, 5, 6]);
    assert_eq!(shard[10..], packet);
    assert_eq!(inspect_shard(&shard), Some((header, &packet[..])));
    shard.extend([0; 9]);
    assert_eq!(inspect_shard(&shard), Some((header, &packet[..])), "filled up");

    let with = |at: usize, byte: u8| {
        let mut shard = shard.clone();
        shard[at] = byte;
        inspect_shard(&shard).map(|(header, _)| header)
    };
    assert_eq!(with(3, 7), Some(Header { flags: 7, ..header }), "any flags");
    assert_eq!(with(0, 1), None, "longer than the shard");
    assert_eq!(with(1, 19), None, "too short");
    assert_eq!(with(1, 21), None, "longer than the packet says");
    assert_eq!(with(2, 6), None, "another version than the packet");
    assert_eq!(with(2, 5), None, "no IP");
    assert_eq!(with(10, 0x65), None, "another version than the shard");
    assert_eq!(with(13, 21), None, "the packet says more");
    assert_eq!(with(38, 1), None, "not filled up with 0");
    assert_eq!(inspect_shard(&shard[..9]), None);
    assert_eq!(inspect_shard(&[0; 10]), None);
}

#[test]
fn a_packet_is_as_long_as_it_says() {
    for length in 20..1500 {
        assert!(is_sound(4, &ip(4, length, 1)));
        assert!(!is_sound(6, &ip(4, length, 1)));
        assert!(length < 40 || is_sound(6, &ip(6, length, 1)));
        assert!(!is_sound(4, &ip(4, length, 1)[..length - 1]));
    }
    assert!(is_sound(4, &ip(4, 65_535, 1)));
    assert!(is_sound(6, &ip(6, 65_535 + 40, 1)));
    assert!(!is_sound(6, &ip(6, 1000, 1)[..999]));
    assert!(!is_sound(4, &ip(4, 19, 1)), "too short for IP");
    assert!(!is_sound(4, &[0x45, 0, 0]));
    assert!(!is_sound(6, &[0x60, 0, 0, 0, 0]));
    assert!(!is_sound(4, &[]));
    assert!(!is_sound(0, &ip(0, 40, 1)));
}

proptest! {
    #[test]
    fn any_bytes_are_a_body_or_are_refused(
        mut bytes in prop::collection::vec(0u8..40, 0..300),
        is_long: bool,
    ) {
        // Half of them as long as they say.
        if is_long && let Some(data) = bytes.get(1).map(|data| usize::from(*data))
            && let Some(length) = bytes.len().checked_sub(19 + data)
        {
            bytes[8..10].copy_from_slice(&(length as u16).to_be_bytes());
            bytes[0] = 0;
        }
        if let Ok(body) = Body::parse(&bytes) {
            prop_assert_eq!(bytes.len(), HEAD + body.gaps.len() + body.shard.len());
            let all: Vec<Member> = members(body.block.path, body.first, body.gaps).collect();
            prop_assert_eq!(all.len(), usize::from(bytes[1]));
            prop_assert!(all.is_sorted_by(|a, b| a.sequence < b.sequence));
            prop_assert_ne!(all[0].sequence, 0);
        }
    }
}
