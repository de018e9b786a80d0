use proptest::prelude::*;

use super::*;

#[test]
fn every_field_has_its_place() {
    let mut bits = [0; 16];
    (bits[0], bits[15]) = (0x0102_0304_0506_0708, 0x8000_0000_0000_0001);
    let ack = Ack { path: 15, highest: 0x1112_1314_1516_1718, bits };
    let mut bytes = [0; LENGTH];
    bytes[0] = 15;
    bytes[8..16].copy_from_slice(&[0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18]);
    bytes[16..24].copy_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8]);
    (bytes[136], bytes[143]) = (0x80, 1);
    assert_eq!(ack.encode(), bytes);
    assert_eq!(Ack::decode(&bytes), Ok(ack));
}

#[test]
fn what_no_acknowledgement_says_is_refused() {
    let good = all(3, 5_000).encode();
    let with = |at: usize, value: u8| {
        let mut bytes = good;
        bytes[at] = value;
        Ack::decode(&bytes)
    };
    assert_eq!(with(0, 0), Err(NoAck::Path(0)));
    assert_eq!(with(0, 16), Err(NoAck::Path(16)));
    for at in 1..8 {
        assert_eq!(with(at, 1), Err(NoAck::Reserved), "{at}");
    }
    assert_eq!(Ack::decode(&good[..143]), Err(NoAck::Length(143)));
    assert_eq!(Ack::decode(&[good.as_slice(), &[0]].concat()), Err(NoAck::Length(145)));
    assert_eq!(Ack::decode(&[]), Err(NoAck::Length(0)));
    assert_eq!(Ack::decode(&[0; LENGTH]), Err(NoAck::Path(0)));
    let nothing = Ack { path: 1, highest: 0, bits: [0; 16] };
    assert_eq!(Ack::decode(&nothing.encode()), Err(NoAck::Sequence));
}

#[test]
fn a_bit_below_sequence_1_is_refused() {
    for highest in [1, 2, 63, 64, 65, 66, 129, 1_023, 1_024, 1_025] {
        assert_eq!(Ack::decode(&all(1, highest).encode()), Ok(all(1, highest)), "{highest}");
        let stray = highest - 1;
        if stray < REACH {
            let mut ack = Ack { path: 1, highest, bits: [0; 16] };
            ack.bits[stray as usize / 64] = 1 << (stray % 64);
            assert_eq!(Ack::decode(&ack.encode()), Err(NoAck::Sequence), "{highest}");
        }
    }
}

#[test]
fn it_tells_of_1024_below_the_highest() {
    let ack = all(1, 5_000);
    assert!(!ack.says_taken(5_001));
    assert!(ack.says_taken(5_000) && ack.says_taken(4_999) && ack.says_taken(3_976));
    assert!(!ack.says_taken(3_975) && !ack.says_taken(0));
    assert_eq!(ack.lowest(), 3_976);
    assert_eq!(all(1, 1_025).lowest(), 1);
    assert_eq!(all(1, 1).lowest(), 1);
}

#[test]
fn an_error_says_what_is_wrong() {
    let said = NoAck::Length(7).to_string();
    assert_eq!(said, "7 bytes are not an acknowledgement");
    assert_eq!(NoAck::Path(16).to_string(), "path 16 is not of 1 to 15");
}

proptest! {
    #[test]
    fn any_bytes_are_refused_or_come_back(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(ack) = Ack::decode(&bytes) {
            prop_assert_eq!(ack.encode().to_vec(), bytes);
        }
    }

    /// Bytes that are close to right, so that all of the checks are reached.
    #[test]
    fn bytes_of_the_right_length_are_refused_or_come_back(
        path in 0u8..18,
        reserved in prop::sample::select(vec![0u8, 0, 0, 1]),
        highest in prop_oneof![0u64..1_100, any::<u64>()],
        bits in prop_oneof![Just([0u64; 16]), any::<[u64; 16]>()],
    ) {
        let mut bytes = Ack { path, highest, bits }.encode();
        bytes[7] = reserved;
        let stray = (0..1_024).any(|bit| {
            bits[bit / 64] >> (bit % 64) & 1 != 0 && bit as u64 + 1 >= highest
        });
        let good = (1..=15).contains(&path) && reserved == 0 && highest != 0 && !stray;
        prop_assert_eq!(Ack::decode(&bytes).is_ok(), good);
        if let Ok(ack) = Ack::decode(&bytes) {
            prop_assert_eq!(ack.encode(), bytes);
        }
    }

    /// Against one bit after the other.
    #[test]
    fn what_was_taken_above_is_counted(
        highest in 1u64..3_000,
        below in 0u64..1_200,
        seed in any::<u64>(),
    ) {
        let ack = of(1, highest, |sequence| seed.rotate_left(sequence as u32 % 61) & 1 != 0);
        let sequence = highest.saturating_sub(below);
        let above = (sequence + 1..=highest + 2).filter(|above| ack.says_taken(*above)).count();
        prop_assert_eq!(ack.taken_above(sequence), above as u32);
    }
}
