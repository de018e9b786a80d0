use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const FILE: &str = include_str!("../../../docs/protocol-vectors.txt");

const A_JOIN: Join = Join {
    path: 3,
    serial: 0x0102_0304,
    priority: 5,
    balance: Balance::Adaptive,
    weight: 0x0708,
    capacity: 0x1112_1314_1516_1718,
    elephant_bytes: 0x2122_2324,
    metered: false,
};

#[test]
fn every_field_has_its_place() {
    let join = [
        1, 3, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x21,
        0x22, 0x23, 0x24,
    ];
    assert_eq!(Message::Join(A_JOIN).encode(), join);
    let mut metered = join;
    metered[2] = 1;
    assert_eq!(Message::Join(Join { metered: true, ..A_JOIN }).encode(), metered);
    let joined = Joined { path: 3, serial: 0x0102_0304, verdict: Verdict::NoRoom };
    assert_eq!(Message::Joined(joined).encode(), [2, 3, 0, 0, 1, 2, 3, 4, 1, 0, 0, 0]);
    let down = Down { serial: 0x0102_0304, paths: [1, 8, 255].into_iter().collect() };
    let mut bytes = [0; DOWN];
    bytes[..10].copy_from_slice(&[3, 0, 0, 0, 1, 2, 3, 4, 2, 1]);
    bytes[39] = 0x80;
    assert_eq!(Message::Down(down).encode(), bytes);
    let leave = Leave { path: 3, serial: 0x0102_0304 };
    assert_eq!(Message::Leave(leave).encode(), [4, 3, 0, 0, 1, 2, 3, 4]);
}

#[test]
fn what_no_message_says_is_refused() {
    let with = |message: Message, at: usize, value: u8| {
        let mut bytes = message.encode();
        bytes[at] = value;
        Message::decode(&bytes).err()
    };
    let join = Message::Join(A_JOIN);
    for number in [0, 5, 255] {
        assert_eq!(with(join, 0, number), Some(NoMessage::Unknown(number)));
    }
    // Path 0, a flag and a mode that there are not, a reserved byte.
    for (at, value) in [(1, 0), (2, 2), (2, 255), (3, 1), (9, 0), (9, 8), (9, 255)] {
        assert_eq!(with(join, at, value), Some(NoMessage::Field), "{value} at {at}");
    }
    let without_weight = Message::Join(Join { weight: 0, ..A_JOIN });
    assert_eq!(Message::decode(&without_weight.encode()), Err(NoMessage::Field));
    let without_serial = Message::Join(Join { serial: 0, ..A_JOIN });
    assert_eq!(Message::decode(&without_serial.encode()), Err(NoMessage::Field));
    let joined = Message::Joined(Joined { path: 1, serial: 1, verdict: Verdict::Taken });
    for (at, value) in [(1, 0), (2, 1), (8, 2), (9, 1), (11, 1)] {
        assert_eq!(with(joined, at, value), Some(NoMessage::Field), "{value} at {at}");
    }
    let down = Message::Down(Down { serial: 1, paths: PathSet::default() });
    for (at, value) in [(1, 1), (2, 1), (8, 1)] {
        assert_eq!(with(down, at, value), Some(NoMessage::Field), "{value} at {at}");
    }
}

#[test]
fn a_message_of_any_other_length_is_refused() {
    let messages = [
        Message::Join(A_JOIN),
        Message::Joined(Joined { path: 1, serial: 1, verdict: Verdict::Taken }),
        Message::Down(Down { serial: 1, paths: PathSet::default() }),
        Message::Leave(Leave { path: 1, serial: 1 }),
    ];
    for message in messages {
        let mut bytes = message.encode();
        for length in 0..bytes.len() {
            assert_eq!(Message::decode(&bytes[..length]), Err(NoMessage::Length(length)));
        }
        assert_eq!(Message::decode(&bytes), Ok(message));
        bytes.push(0);
        assert_eq!(Message::decode(&bytes), Err(NoMessage::Length(bytes.len())));
    }
}

#[test]
fn a_message_that_was_overtaken_or_comes_again_changes_nothing() {
    let mut newest = Newest::default();
    assert_eq!(newest.take(0, 1), News::New);
    assert_eq!(newest.take(0, 1), News::Again);
    assert_eq!(newest.take(0, 3), News::New);
    assert_eq!(newest.take(0, 2), News::Old);
    // After a restart: a new epoch, and serials from 1 on.
    assert_eq!(newest.take(1, 1), News::New);
    assert_eq!(newest.take(0, 4), News::Old);
    assert_eq!(newest.take(1, 1), News::Again);
}

/// What a vector says, in the words of the file.
fn said(message: &Message) -> String {
    match message {
        Message::Join(join) => format!(
            "join path {} serial {} priority {} balance {} weight {} capacity {} elephant {}{}",
            join.path,
            join.serial,
            join.priority,
            join.balance.name(),
            join.weight,
            join.capacity,
            join.elephant_bytes,
            if join.metered { " metered" } else { "" }
        ),
        Message::Joined(joined) => {
            let verdict = if joined.verdict == Verdict::Taken { "taken" } else { "no room" };
            format!("joined path {} serial {} {verdict}", joined.path, joined.serial)
        }
        Message::Down(down) => {
            let paths: Vec<String> = down.paths.iter().map(|path| path.to_string()).collect();
            format!("down serial {} paths {}", down.serial, paths.join(" "))
        }
        Message::Leave(leave) => format!("leave path {} serial {}", leave.path, leave.serial),
    }
}

fn bytes(digits: &str) -> Vec<u8> {
    let pairs = digits.trim().as_bytes().chunks(2);
    let pair =
        |pair: &[u8]| std::str::from_utf8(pair).ok().map(|pair| u8::from_str_radix(pair, 16));
    pairs.map(|digits| pair(digits).expect("ASCII").expect("hex digits")).collect()
}

/// That the packets are sealed so is tested in `mwb-common`.
#[test]
fn every_message_of_the_vectors_says_what_stands_beside_it() {
    let mut kinds = BTreeMap::new();
    for block in FILE.split("\n\n") {
        let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
        let Some(says) = field("says: ") else { continue };
        let text = bytes(field("text: ").expect("a text"));
        let message = Message::decode(&text).unwrap_or_else(|error| panic!("{says}: {error}"));
        assert_eq!(said(&message), says);
        assert_eq!(message.encode(), text, "{says}");
        *kinds.entry(text[0]).or_insert(0) += 1;
    }
    assert!((1..=4).all(|number| kinds.contains_key(&number)), "{kinds:?}");
}

fn any_message() -> impl Strategy<Value = Message> {
    let serials = (1u8.., 1u32..);
    let how = (any::<u8>(), 0..Balance::ALL.len(), 1u16..);
    let much = (any::<u64>(), any::<u32>(), any::<bool>());
    prop_oneof![
        (serials.clone(), how, much).prop_map(
            |((path, serial), (priority, balance, weight), (capacity, elephant_bytes, metered))| {
                let balance = Balance::ALL[balance];
                Message::Join(Join {
                    path,
                    serial,
                    priority,
                    balance,
                    weight,
                    capacity,
                    elephant_bytes,
                    metered,
                })
            }
        ),
        (serials.clone(), any::<bool>()).prop_map(|((path, serial), taken)| {
            let verdict = if taken { Verdict::Taken } else { Verdict::NoRoom };
            Message::Joined(Joined { path, serial, verdict })
        }),
        (1u32.., prop::collection::vec(1u8.., 0..20)).prop_map(|(serial, paths)| {
            Message::Down(Down { serial, paths: paths.into_iter().collect() })
        }),
        serials.prop_map(|(path, serial)| Message::Leave(Leave { path, serial })),
    ]
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(message in any_message()) {
        prop_assert_eq!(Message::decode(&message.encode()), Ok(message));
    }

    #[test]
    fn any_bytes_are_refused_or_are_what_is_encoded(
        bytes in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        if let Ok(message) = Message::decode(&bytes) {
            prop_assert_eq!(message.encode(), bytes);
        }
    }

    #[test]
    fn a_message_with_one_wrong_byte_is_refused_or_says_so(
        message in any_message(), at: prop::sample::Index, value: u8,
    ) {
        let mut bytes = message.encode();
        let at = at.index(bytes.len());
        bytes[at] = value;
        if let Ok(read) = Message::decode(&bytes) {
            prop_assert_eq!(read.encode(), bytes);
        }
    }

    #[test]
    fn a_set_has_the_paths_it_was_made_of(mut paths in prop::collection::vec(any::<u8>(), 0..40)) {
        let set: PathSet = paths.iter().copied().collect();
        paths.retain(|&path| path != 0);
        paths.sort_unstable();
        paths.dedup();
        prop_assert_eq!(set.iter().collect::<Vec<_>>(), paths);
    }
}
