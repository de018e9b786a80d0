use reed_solomon_erasure::galois_8::ReedSolomon;

use super::super::body::Body;
use super::super::tests::ip;
use super::*;

#[path = "encoder_fuzz_tests.rs"]
mod fuzz;

const MS: u64 = 1_000_000;

fn push(encoder: &mut Encoder, sequence: u64, bytes: &[u8], now: u64) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    let packet = Packet { sequence, bucket: 9, number: 5, flags: 8, inner: 4, bytes };
    encoder.push(&packet, now, &mut out);
    out
}

fn push_all(encoder: &mut Encoder, sequences: &[u64]) -> Vec<Vec<u8>> {
    sequences.iter().flat_map(|sequence| push(encoder, *sequence, &ip(4, 40, 1), 0)).collect()
}

fn fixed(data: u8, parity: u8) -> Settings {
    Settings { data, parity: Amount::Fixed(parity), ..Settings::default() }
}

/// One of path 3.
fn encoder(data: u8, parity: u8) -> Encoder {
    Encoder::new(3, fixed(data, parity))
}

fn sequences<'a>(bodies: impl IntoIterator<Item = &'a Vec<u8>>) -> Vec<Vec<u64>> {
    let of = |bytes: &Vec<u8>| {
        let body = Body::parse(bytes).expect("it is a body");
        let members = body::members(body.block.path, body.first, body.gaps);
        members.map(|member| member.sequence).collect()
    };
    bodies.into_iter().map(of).collect()
}

#[test]
fn a_block_closes_when_it_is_full_and_blocks_are_counted() {
    let mut encoder = encoder(3, 2);
    for block in 0..3u32 {
        let first = u64::from(block) * 10 + 1;
        assert!(push(&mut encoder, first, &ip(4, 40, 1), 0).is_empty());
        assert!(push(&mut encoder, first + 1, &ip(4, 90, 2), 0).is_empty());
        let out = push(&mut encoder, first + 4, &ip(4, 60, 3), 0);
        assert_eq!(out.len(), 2);
        for (index, bytes) in out.iter().enumerate() {
            let body = Body::parse(bytes).expect("it is a body");
            assert_eq!(body.block, Id { path: 3, number: block });
            assert_eq!((body.parity, body.index), (2, index as u8));
            assert_eq!(bytes.len(), overhead(3) + 90, "the longest packet");
        }
        assert_eq!(sequences(&out), [[first, first + 1, first + 4]; 2]);
    }
    let statistics = encoder.statistics();
    assert_eq!((statistics.packets, statistics.blocks, statistics.parity), (9, 3, 6));
    assert_eq!((statistics.data, statistics.data_bytes), (9, 3 * (40 + 90 + 60)));
    assert_eq!(statistics.parity_bytes, 6 * (overhead(3) as u64 + 90));
}

#[test]
fn shards_of_parity_are_those_of_the_crate() {
    let lengths = [700, 20, 1400, 41, 1399, 90];
    let mut encoder = encoder(6, 3);
    let mut shards = Vec::new();
    let mut out = Vec::new();
    for (sequence, length) in (1..).zip(lengths) {
        let bytes = ip(4, length, sequence as u32);
        out.extend(push(&mut encoder, sequence, &bytes, 0));
        let mut shard = Vec::new();
        let header = Header { inner: 4, flags: 8, bucket: 9, number: 5 };
        body::append_shard(&mut shard, header, &bytes);
        shard.resize(1410, 0);
        shards.push(shard);
    }
    let mut expected = vec![vec![0; 1410]; 3];
    let crates = ReedSolomon::new(6, 3).expect("counts are in range");
    crates.encode_sep(&shards, &mut expected).expect("lengths are equal");
    assert_eq!(out.len(), 3);
    for (bytes, expected) in out.iter().zip(&expected) {
        assert_eq!(Body::parse(bytes).expect("it is a body").shard, expected);
    }
}

#[test]
fn numbers_of_blocks_wrap() {
    let mut encoder = Encoder { number: u32::MAX, ..encoder(2, 1) };
    let out = push_all(&mut encoder, &[1, 2, 3, 4]);
    let of = |bytes: &Vec<u8>| Body::parse(bytes).expect("it is a body").block.number;
    assert_eq!(out.iter().map(of).collect::<Vec<_>>(), [u32::MAX, 0]);
}

#[test]
fn a_block_waits_no_longer_than_it_may_and_is_shorter_then() {
    let mut encoder = encoder(10, 1);
    assert_eq!(encoder.next_due(), None);
    push(&mut encoder, 1, &ip(4, 40, 1), 5 * MS);
    push(&mut encoder, 2, &ip(4, 40, 1), 9 * MS);
    assert_eq!(encoder.next_due(), Some(15 * MS));
    let mut out = Vec::new();
    encoder.expire(15 * MS - 1, &mut out);
    assert!(out.is_empty());
    encoder.expire(15 * MS, &mut out);
    assert_eq!(sequences(&out), [[1, 2]]);
    assert_eq!(encoder.next_due(), None);
    // A caller that is late closes it by the next packet, which is not of it.
    push(&mut encoder, 3, &ip(4, 40, 1), 20 * MS);
    let out = push(&mut encoder, 4, &ip(4, 40, 1), 40 * MS);
    assert_eq!(sequences(&out), [[3]]);
    assert_eq!(encoder.next_due(), Some(50 * MS));
}

#[test]
fn packets_come_in_any_order_up_to_255_apart() {
    // Two that are just near enough, above and below.
    let mut encoder = encoder(4, 1);
    let out = push_all(&mut encoder, &[300, 301, 555, 302, 300, 45, 100, 299]);
    assert_eq!(sequences(&out), [[300, 301, 302, 555], [45, 100, 299, 300]]);
    // Two that are just too far.
    let out = push_all(&mut encoder, &[300, 301, 45, 46, 302, 303, 304]);
    assert_eq!(sequences(&out), [vec![300, 301], vec![45, 46], vec![302, 303, 304]][..2]);
    assert_eq!(sequences(&push_all(&mut encoder, &[305])), [[302, 303, 304, 305]]);
    // The sender counts anew.
    let out = push_all(&mut encoder, &[u64::MAX, 1, 2, 3, 4]);
    assert_eq!(sequences(&out), [vec![u64::MAX], vec![1, 2, 3, 4]]);
    assert_eq!(encoder.statistics().skipped, 0);
}

#[test]
fn a_packet_that_an_open_block_has_is_skipped() {
    let mut encoder = Encoder::new(3, Settings { interleave: 2, ..fixed(2, 1) });
    // It does not change whose turn it is.
    let out = push_all(&mut encoder, &[1, 2, 2, 1, 1, 3, 4]);
    assert_eq!(sequences(&out), [[1, 3], [2, 4]]);
    assert_eq!((encoder.statistics().packets, encoder.statistics().skipped), (7, 3));
    let out = push_all(&mut encoder, &[3, 4, 5, 6]);
    assert_eq!(sequences(&out), [[3, 5], [4, 6]], "those were closed");
}

#[test]
fn bodies_fit_in_their_room() {
    let mut encoder = encoder(4, 1);
    encoder.set_room(1000);
    let mut push = |sequence, length| push(&mut encoder, sequence, &ip(4, length, 1), 0);
    assert!(push(1, 971).is_empty(), "skipped");
    assert!(push(2, 969).is_empty());
    assert!(push(3, 20).is_empty());
    // A third would make the bodies longer, though it is a short one.
    let out = push(4, 20);
    assert_eq!((sequences(&out), out[0].len()), (vec![vec![2, 3]], 1000));
    // A second that is itself too long.
    let out = push(5, 970);
    assert_eq!(sequences(&out), [[4]]);
    let out = push(6, 20);
    assert_eq!((sequences(&out), out[0].len()), (vec![vec![5]], 1000));
    assert_eq!(encoder.statistics().skipped, 1);
}

#[test]
fn a_block_that_is_too_long_for_a_new_room_is_closed_as_it_is() {
    let mut encoder = Encoder::new(3, Settings { interleave: 2, ..fixed(4, 1) });
    push(&mut encoder, 1, &ip(4, 500, 1), 5);
    push(&mut encoder, 2, &ip(4, 400, 1), 6);
    push(&mut encoder, 3, &ip(4, 100, 1), 7);
    encoder.set_room(531);
    assert_eq!(encoder.next_due(), Some(5 + 10 * MS), "just long enough");
    encoder.set_room(530);
    assert_eq!(encoder.next_due(), Some(5), "at once");
    // By a packet that is not of it, and by one that is skipped.
    let out = push(&mut encoder, 4, &ip(4, 100, 1), 8);
    assert_eq!((sequences(&out), out[0].len()), (vec![vec![1, 3]], 531));
    encoder.set_room(100);
    let out = push(&mut encoder, 5, &ip(4, 100, 1), 9);
    assert_eq!(sequences(&out), [[2, 4]]);
    assert_eq!((encoder.next_due(), encoder.statistics().skipped), (None, 1));
}

#[test]
fn bodies_say_how_long_blocks_wait() {
    let said = |wait| {
        let mut encoder = Encoder::new(3, Settings { wait, ..fixed(2, 1) });
        let mut out = push_all(&mut encoder, &[1, 2]);
        encoder.expire(u64::MAX, &mut out);
        Body::parse(&out[0]).expect("it is a body").wait
    };
    assert_eq!([0, 1, MS, MS + 1, 10 * MS].map(said), [0, 1, 1, 2, 10]);
    assert_eq!([255 * MS, 255 * MS + 1, u64::MAX].map(said), [255; 3]);
}

#[test]
fn sequences_go_up_to_the_last_there_is() {
    let mut encoder = encoder(3, 1);
    let last = [u64::MAX - 2, u64::MAX - 1, u64::MAX];
    assert_eq!(sequences(&push_all(&mut encoder, &last)), [last]);
}

#[test]
fn packets_go_round_among_the_open_blocks() {
    let mut encoder = Encoder::new(3, Settings { interleave: 3, ..fixed(2, 1) });
    let mut out = Vec::new();
    for sequence in 1..7 {
        out.extend(push(&mut encoder, sequence, &ip(4, 40, 1), sequence));
        assert_eq!(encoder.next_due().is_some(), sequence < 6);
    }
    assert_eq!(sequences(&out), [[1, 4], [2, 5], [3, 6]]);
    // A block that closed early does not change whose turn it is.
    push(&mut encoder, 7, &ip(4, 40, 1), 0);
    let out = push(&mut encoder, 8, &ip(4, 40, 1), 10 * MS);
    assert_eq!(sequences(&out), [[7]]);
    let mut out = Vec::new();
    for sequence in 9..12 {
        out.extend(push(&mut encoder, sequence, &ip(4, 40, 1), 10 * MS));
    }
    assert_eq!(sequences(&out), [[8, 11]]);
}

#[test]
fn on_clean_paths_nothing_is_kept() {
    let mut encoder = Encoder::new(3, Settings::default());
    let idle = encoder.statistics().memory;
    for sequence in 1..=50 {
        // Before anything is known, and then.
        if sequence == 25 {
            encoder.set_loss(0.000_9, 1.0);
        }
        assert!(push(&mut encoder, sequence, &ip(4, 1400, 1), 0).is_empty());
    }
    let statistics = encoder.statistics();
    assert_eq!((statistics.packets, statistics.clean, statistics.blocks), (50, 50, 0));
    assert_eq!(statistics.memory, idle);
    assert_eq!(encoder.next_due(), None);
}

#[test]
fn parity_is_by_loss_and_by_the_length_of_the_block() {
    let mut encoder = Encoder::new(3, Settings::default());
    let mut parity_of = |data_loss, parity_loss, length| {
        encoder.set_loss(data_loss, parity_loss);
        let sequences: Vec<u64> = (1..=length).collect();
        let mut out = push_all(&mut encoder, &sequences);
        encoder.expire(u64::MAX, &mut out);
        out.len()
    };
    assert_eq!(parity_of(0.05, 0.0, 32), 7);
    assert_eq!(parity_of(0.05, 0.05, 32), 8);
    assert_eq!(parity_of(0.05, 0.0, 10), 4);
    assert_eq!(parity_of(0.05, 0.0, 1), 1);
    assert_eq!(parity_of(0.0, 0.0, 32), 0);
    let statistics = encoder.statistics();
    assert_eq!((statistics.blocks, statistics.parity, statistics.clean), (4, 20, 32));
    assert_eq!(statistics.data, 32 + 32 + 10 + 1);
}

#[test]
fn loss_holds_for_blocks_that_are_open() {
    let mut encoder = Encoder::new(3, Settings { data: 2, ..Settings::default() });
    encoder.set_loss(0.5, 0.0);
    push(&mut encoder, 1, &ip(4, 40, 1), 0);
    encoder.set_loss(0.0, 0.0);
    let mut out = Vec::new();
    encoder.expire(10 * MS, &mut out);
    assert!(out.is_empty());
    let statistics = encoder.statistics();
    assert_eq!((statistics.blocks, statistics.data), (0, 0));
    assert_eq!((statistics.data_bytes, statistics.parity_bytes), (0, 0));
}

#[test]
fn a_packet_that_no_shard_can_be_of_is_skipped() {
    let mut encoder = encoder(2, 1);
    assert!(push(&mut encoder, 1, &ip(4, 1000, 1), 0).is_empty());
    let unsound = [
        ip(4, 19, 1),
        Vec::new(),
        ip(6, 1000, 1),
        ip(4, 1000, 1)[..999].to_vec(),
        ip(4, MOST_PACKET + 1, 1),
    ];
    for bytes in unsound {
        assert!(push(&mut encoder, 2, &bytes, 0).is_empty());
    }
    assert!(push(&mut encoder, 0, &ip(4, 1000, 1), 0).is_empty());
    assert_eq!(encoder.statistics().skipped, 6);
    let out = push(&mut encoder, 3, &ip(4, 20, 1), 0);
    assert_eq!(sequences(&out), [[1, 3]]);

    push(&mut encoder, 4, &ip(4, MOST_PACKET, 1), 0);
    assert_eq!(push(&mut encoder, 5, &ip(4, 20, 1), 0)[0].len(), 65_535 + 21);

    for path in [0, 16] {
        let mut encoder = Encoder::new(path, fixed(2, 1));
        assert!(push_all(&mut encoder, &[1, 2, 3]).is_empty());
        assert_eq!(encoder.statistics().skipped, 3, "no body can name the path");
    }
}

#[test]
fn settings_out_of_range_are_taken_as_the_nearest() {
    let settings = |data, parity, interleave| {
        let settings = Settings { interleave, ..fixed(data, parity) };
        let Settings { data, parity, interleave, .. } = Encoder::new(3, settings).settings;
        (data, parity, interleave)
    };
    assert_eq!(settings(0, 0, 0), (2, Amount::Fixed(1), 1));
    assert_eq!(settings(255, 255, 255), (32, Amount::Fixed(8), 8));
}

#[test]
fn memory_is_bounded_by_the_open_blocks() {
    let mut encoder = Encoder::new(3, Settings { interleave: 8, ..fixed(32, 1) });
    for sequence in 1..2000 {
        push(&mut encoder, sequence, &ip(4, 1500, 1), sequence * MS / 10);
        assert!(encoder.statistics().memory < 2 * 8 * 32 * (1500 + 40));
    }
}

#[test]
fn statistics_add_up() {
    let of = |n: u64| EncoderStatistics {
        packets: n,
        clean: n + 1,
        skipped: n + 2,
        blocks: n + 3,
        data: n + 4,
        data_bytes: n + 5,
        parity: n + 6,
        parity_bytes: n + 7,
        memory: n as usize + 8,
    };
    let mut sum = of(10);
    sum += of(100);
    let expected = EncoderStatistics {
        packets: 110,
        clean: 112,
        skipped: 114,
        blocks: 116,
        data: 118,
        data_bytes: 120,
        parity: 122,
        parity_bytes: 124,
        memory: 126,
    };
    assert_eq!(sum, expected);
}
