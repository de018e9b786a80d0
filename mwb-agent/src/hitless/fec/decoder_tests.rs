use super::super::body::overhead;
use super::super::tests::{Sent, arrive, ip, send};
use super::*;

#[path = "decoder_fuzz_tests.rs"]
mod fuzz;

const MS: u64 = 1_000_000;

fn decoder() -> Decoder {
    Decoder::new(Limits::default())
}

/// Shows data by its place in the block.
fn data(decoder: &mut Decoder, sent: &Sent, place: usize, now: u64) -> Vec<Recovered> {
    let mut out = Vec::new();
    arrive(decoder, &sent.packets[place], now, &mut out);
    out
}

/// What [`Decoder::parity`] returns for a body that says `wait`.
fn in_ms(wait: u64) -> Result<u64, Malformed> {
    Ok(wait * MS)
}

fn parity(decoder: &mut Decoder, sent: &Sent, index: usize, now: u64) -> Vec<Recovered> {
    let mut out = Vec::new();
    assert_eq!(decoder.parity(&sent.parity[index], now, &mut out), in_ms(10));
    out
}

impl Decoder {
    /// What is counted step by step, counted anew.
    fn check(&self) {
        let mut heap = 0;
        for (member, shard) in self.packets.iter() {
            heap += shard.len();
            assert!(self.packets.contains(member));
        }
        let mut awaited = BTreeSet::new();
        for (id, block) in self.blocks.iter() {
            heap += block.memory();
            if matches!(block.outcome(), None | Some(Outcome::Recovered)) {
                awaited.extend(block.missing().map(|(_, member)| (member, id.number)));
            }
        }
        assert_eq!(self.heap, heap);
        assert_eq!(self.awaited, awaited);
        assert!(self.memory() <= self.limits.memory);
    }
}

#[test]
fn what_does_not_fit_less_memory_is_forgotten() {
    let sent = send(8, 1, 1, 1);
    let mut decoder = decoder();
    for place in 0..8 {
        data(&mut decoder, &sent, place, 0);
    }
    let half = decoder.statistics().memory / 2;
    decoder.set_memory(half);
    decoder.check();
    let statistics = decoder.statistics();
    assert!(statistics.memory <= half && statistics.memory > 0, "{statistics:?}");
    assert!((2..8).contains(&statistics.evicted), "{statistics:?}");
}

#[test]
fn parity_may_come_before_between_and_after() {
    let sent = send(4, 2, 1, 1);
    for first in 0..=3 {
        let mut decoder = decoder();
        let mut out = Vec::new();
        for place in 0..first {
            out.extend(data(&mut decoder, &sent, place, 0));
        }
        out.extend(parity(&mut decoder, &sent, 1, 0));
        for place in first..3 {
            out.extend(data(&mut decoder, &sent, place, 0));
        }
        assert_eq!(out, [sent.packets[3].clone()], "{first}");
        decoder.check();
    }
}

#[test]
fn parity_of_a_block_that_is_complete_is_useless() {
    let sent = send(3, 2, 1, 1);
    let mut decoder = decoder();
    for place in 0..3 {
        data(&mut decoder, &sent, place, 0);
    }
    for index in [0, 1, 0] {
        assert!(parity(&mut decoder, &sent, index, 0).is_empty());
    }
    let statistics = decoder.statistics();
    assert_eq!((statistics.useless, statistics.late, statistics.blocks), (3, 0, 1));
    decoder.check();
}

#[test]
fn parity_that_waits_until_its_block_is_complete_is_useless() {
    let sent = send(3, 2, 1, 1);
    let mut decoder = decoder();
    data(&mut decoder, &sent, 0, 0);
    parity(&mut decoder, &sent, 0, 0);
    parity(&mut decoder, &sent, 0, 0);
    assert_eq!(decoder.statistics().useless, 1, "came twice");
    // Two are missing. One comes: the other is recovered, and is late.
    assert_eq!(data(&mut decoder, &sent, 1, 0), [sent.packets[2].clone()]);
    assert!(data(&mut decoder, &sent, 2, 0).is_empty());
    assert!(parity(&mut decoder, &sent, 1, 0).is_empty());
    let statistics = decoder.statistics();
    assert_eq!((statistics.useless, statistics.late, statistics.recovered), (1, 1, 1));
    decoder.check();
}

#[test]
fn a_block_is_given_up_after_its_time_and_parity_is_late_then() {
    let sent = send(3, 2, 1, 1);
    let mut decoder = decoder();
    parity(&mut decoder, &sent, 0, 0);
    data(&mut decoder, &sent, 0, 300 * MS - 1);
    assert_eq!(decoder.statistics().unrecoverable, 0);
    decoder.expire(300 * MS);
    assert_eq!(decoder.statistics().unrecoverable, 1);
    parity(&mut decoder, &sent, 1, 599 * MS);
    data(&mut decoder, &sent, 1, 599 * MS);
    decoder.check();
    let statistics = decoder.statistics();
    assert_eq!((statistics.late, statistics.unrecoverable), (1, 1));
    decoder.expire(900 * MS);
    decoder.check();
    assert_eq!(decoder.statistics().memory, 0);
}

#[test]
fn data_is_forgotten_after_its_time() {
    let sent = send(3, 2, 1, 1);
    let mut decoder = decoder();
    data(&mut decoder, &sent, 0, 0);
    data(&mut decoder, &sent, 1, MS);
    // What would recover the last comes too late: the first has gone.
    assert!(parity(&mut decoder, &sent, 0, 300 * MS).is_empty());
    assert_eq!(data(&mut decoder, &sent, 0, 300 * MS), [sent.packets[2].clone()]);
    decoder.check();
}

#[test]
fn a_block_whose_data_was_forgotten_is_given_up() {
    let sent = send(3, 2, 1, 1);
    let mut decoder = decoder();
    data(&mut decoder, &sent, 0, 0);
    parity(&mut decoder, &sent, 0, 200 * MS);
    assert!(data(&mut decoder, &sent, 1, 310 * MS).is_empty());
    assert_eq!(decoder.statistics().unrecoverable, 1);
    assert_eq!(decoder.statistics().wrong, 0);
    decoder.check();
}

#[test]
fn of_two_blocks_with_one_number_the_older_is_given_up() {
    let (old, new) = (send(3, 2, 1, 1), send(3, 2, 50, 2));
    let mut decoder = decoder();
    parity(&mut decoder, &old, 0, 0);
    data(&mut decoder, &old, 0, 0);
    // The peer was restarted, and counts blocks from 0 again.
    parity(&mut decoder, &new, 0, MS);
    assert_eq!(decoder.statistics().unrecoverable, 1);
    decoder.check();
    assert!(data(&mut decoder, &old, 1, MS).is_empty());
    data(&mut decoder, &new, 2, MS);
    assert_eq!(data(&mut decoder, &new, 0, MS), [new.packets[1].clone()]);
    // Now that has ended: the old one begins anew, and the end of the other is no longer known.
    assert_eq!(parity(&mut decoder, &old, 1, MS), [old.packets[2].clone()]);
    assert_eq!(decoder.statistics().unrecoverable, 1);
    decoder.check();
}

#[test]
fn a_block_is_another_if_anything_of_it_is() {
    let sent = send(3, 2, 1, 1);
    let change = |at: usize, bits| {
        let mut body = sent.parity[1].clone();
        body[at] ^= bits;
        body
    };
    let mut longer = change(9, 0);
    longer[9] += 1;
    longer.push(0);
    let others = [
        (change(2, 1), "more parity"),
        (change(19, 128), "another first sequence"),
        (change(20, 64), "another gap"),
        (longer, "a longer shard"),
    ];
    for (other, how) in others {
        let mut decoder = decoder();
        parity(&mut decoder, &sent, 0, 0);
        assert_eq!(decoder.parity(&other, 0, &mut Vec::new()), in_ms(10), "{how}");
        let statistics = decoder.statistics();
        assert_eq!((statistics.blocks, statistics.unrecoverable), (2, 1), "{how}");
        decoder.check();
    }
}

#[test]
fn a_number_that_is_used_again_has_the_newer_packet() {
    let (old, new) = (send(3, 1, 1, 1), send(3, 1, 1, 2));
    let mut decoder = decoder();
    for place in 0..2 {
        data(&mut decoder, &old, place, 0);
        data(&mut decoder, &new, place, 0);
        decoder.check();
    }
    assert_eq!(parity(&mut decoder, &new, 0, 0), [new.packets[2].clone()]);
}

#[test]
fn what_can_be_no_packet_is_counted_and_not_given() {
    // Data that is not what the sender had: what is computed of it is noise.
    let (sent, other) = (send(4, 2, 1, 1), send(4, 2, 1, 2));
    let mut decoder = decoder();
    data(&mut decoder, &sent, 0, 0);
    data(&mut decoder, &other, 1, 0);
    parity(&mut decoder, &sent, 0, 0);
    assert!(parity(&mut decoder, &sent, 1, 0).is_empty());
    let statistics = decoder.statistics();
    assert_eq!((statistics.wrong, statistics.recovered, statistics.unrecoverable), (2, 0, 1));
    decoder.check();
    data(&mut decoder, &sent, 2, 0);
    assert_eq!(decoder.statistics().early, 0, "none was computed");
}

#[test]
fn a_sender_that_counts_anew_gets_no_wrong_packet() {
    // Same numbers of blocks, same sequences, other packets: any mixture of both.
    let (old, new) = (send(4, 2, 1, 1), send(4, 2, 1, 2));
    for mixture in 0u32..1 << 12 {
        let has = |bit: usize| mixture & 1 << bit != 0;
        let (mut decoder, mut out) = (decoder(), Vec::new());
        for place in (0..3).filter(|place| has(*place)) {
            out.extend(data(&mut decoder, &old, place, 0));
        }
        (0..2).filter(|n| has(3 + n)).for_each(|n| out.extend(parity(&mut decoder, &old, n, 0)));
        (0..2).filter(|n| has(5 + n)).for_each(|n| out.extend(parity(&mut decoder, &new, n, 0)));
        for place in (0..4).filter(|place| has(7 + place)) {
            out.extend(data(&mut decoder, &new, place, 0));
        }
        out.extend(parity(&mut decoder, &new, usize::from(has(11)), 0));
        decoder.check();
        for packet in &out {
            let is_sent = old.packets.contains(packet) || new.packets.contains(packet);
            assert!(is_sent, "{mixture:b}");
        }
    }
}

#[test]
fn data_longer_than_the_block_is_not_of_it() {
    let sent = send(2, 1, 1, 1);
    let mut decoder = decoder();
    let long = Recovered { bytes: ip(4, 1600, 1), ..sent.packets[0].clone() };
    arrive(&mut decoder, &long, 0, &mut Vec::new());
    assert!(parity(&mut decoder, &sent, 0, 0).is_empty());
    let statistics = decoder.statistics();
    assert_eq!((statistics.unrecoverable, statistics.recovered), (1, 0));
    assert_eq!(statistics.wrong, 0, "nothing was computed of it");
    decoder.check();
}

#[test]
fn it_says_when_something_has_to_go() {
    let sent = send(3, 2, 1, 1);
    let mut decoder = decoder();
    assert_eq!(decoder.next_due(), None);
    parity(&mut decoder, &sent, 0, 5 * MS);
    data(&mut decoder, &sent, 0, 8 * MS);
    // 300 ms, and an eighth of that.
    assert_eq!(decoder.next_due(), Some(342_500_000));
    decoder.expire(342_500_000);
    // The packet has gone; that the block was given up is known since.
    assert_eq!(decoder.statistics().unrecoverable, 1);
    assert_eq!(decoder.next_due(), Some(680 * MS));
    decoder.expire(680 * MS);
    assert_eq!(decoder.next_due(), None);
    data(&mut decoder, &sent, 0, 700 * MS);
    assert_eq!(decoder.next_due(), Some(1_037_500_000), "of data alone");
}

#[test]
fn a_body_that_is_none_is_counted_and_changes_nothing() {
    let sent = send(2, 1, 1, 1);
    let mut decoder = decoder();
    let mut out = Vec::new();
    let short = &sent.parity[0][..overhead(2)];
    assert_eq!(decoder.parity(short, 0, &mut out), Err(Malformed::Length));
    assert_eq!(decoder.parity(&[], 0, &mut out), Err(Malformed::Short));
    let statistics = decoder.statistics();
    assert_eq!((statistics.malformed, statistics.parity, statistics.memory), (2, 2, 0));
}

#[test]
fn it_says_how_long_blocks_of_the_sender_wait() {
    let sent = send(3, 2, 1, 1);
    let mut decoder = decoder();
    let mut wait = |index: usize, byte: u8| {
        let mut body = sent.parity[index].clone();
        body[11] = byte;
        decoder.parity(&body, 0, &mut Vec::new())
    };
    assert_eq!([(0, 0), (1, 1), (1, 255)].map(|(n, byte)| wait(n, byte)), [0, 1, 255].map(in_ms));
    let statistics = decoder.statistics();
    assert_eq!((statistics.blocks, statistics.unrecoverable), (1, 0), "they need not agree");
    assert_eq!(statistics.useless, 1, "useless, and says it all the same");
    assert_eq!(data(&mut decoder, &sent, 1, 0).len(), 2);
    assert_eq!(decoder.parity(&sent.parity[0], 0, &mut Vec::new()), in_ms(10), "late");
    let mut tiny = Decoder::new(Limits { memory: 100, ..Limits::default() });
    assert_eq!(tiny.parity(&sent.parity[0], 0, &mut Vec::new()), in_ms(10), "refused");
}

#[test]
fn a_computed_packet_that_arrives_after_all_is_counted_once() {
    let sent = send(4, 2, 1, 1);
    let mut decoder = decoder();
    data(&mut decoder, &sent, 0, 0);
    data(&mut decoder, &sent, 1, 0);
    parity(&mut decoder, &sent, 0, 0);
    assert_eq!(parity(&mut decoder, &sent, 1, MS), sent.packets[2..]);
    let kept = decoder.statistics().memory;
    for (place, now, early) in [(1, 2, 0), (3, 3, 1), (3, 4, 1), (2, 300, 2), (2, 300, 2)] {
        assert!(data(&mut decoder, &sent, place, now * MS).is_empty());
        assert!(parity(&mut decoder, &sent, 1, now * MS).is_empty(), "never computed again");
        decoder.check();
        assert_eq!(decoder.statistics().early, early, "{place} at {now}");
    }
    let statistics = decoder.statistics();
    assert_eq!((statistics.recovered, statistics.late, statistics.blocks), (2, 5, 1));
    assert_eq!((statistics.useless, statistics.unrecoverable), (0, 0));
    decoder.expire(301 * MS);
    assert!(decoder.statistics().memory < kept, "the block has been forgotten");
}

#[test]
fn a_computed_packet_is_not_awaited_any_more_when_its_block_is_forgotten() {
    let sent = send(3, 1, 1, 1);
    let (mut decoder, mut out) = (decoder(), Vec::new());
    let compute = |decoder: &mut Decoder, now| {
        data(decoder, &sent, 0, now);
        data(decoder, &sent, 1, now);
        parity(decoder, &sent, 0, now)
    };
    assert_eq!(compute(&mut decoder, 0).len(), 1);
    assert!(data(&mut decoder, &sent, 2, 300 * MS).is_empty());
    assert_eq!(decoder.statistics().early, 0, "after its time");

    assert!(compute(&mut decoder, 700 * MS).len() == 1);
    // Another block with its number.
    let other = send(3, 1, 50, 2);
    assert_eq!(decoder.parity(&other.parity[0], 700 * MS, &mut out), in_ms(10));
    decoder.check();
    assert!(data(&mut decoder, &sent, 2, 700 * MS).is_empty());
    assert_eq!(decoder.statistics().early, 0, "after its block");
}

#[test]
fn a_packet_that_two_blocks_computed_arrives_once() {
    let sent = send(2, 1, 1, 1);
    let mut decoder = decoder();
    data(&mut decoder, &sent, 0, 0);
    for number in 0..2 {
        let mut body = sent.parity[0].clone();
        body[7] = number;
        assert_eq!(decoder.parity(&body, 0, &mut Vec::new()), in_ms(10));
    }
    for _ in 0..2 {
        data(&mut decoder, &sent, 1, 0);
        decoder.check();
        let statistics = decoder.statistics();
        assert_eq!((statistics.recovered, statistics.early), (2, 1));
    }
}

#[test]
fn when_the_memory_is_used_up_the_oldest_is_forgotten() {
    let mut decoder = Decoder::new(Limits { memory: 20_000, ..Limits::default() });
    let first = send(3, 1, 1, 1);
    parity(&mut decoder, &first, 0, 0);
    for sequence in 1..=100 {
        let packet =
            Recovered { path: 1, sequence, bytes: ip(4, 1400, 1), ..first.packets[0].clone() };
        arrive(&mut decoder, &packet, 1, &mut Vec::new());
        decoder.check();
    }
    let statistics = decoder.statistics();
    assert!(statistics.evicted > 80, "{statistics:?}");
    assert_eq!(statistics.unrecoverable, 1, "the block was older than all packets");
    // The newest are there.
    assert!(decoder.packets.contains(&Member { path: 1, sequence: 100 }));

    let mut tiny = Decoder::new(Limits { memory: 100, ..Limits::default() });
    parity(&mut tiny, &first, 0, 0);
    data(&mut tiny, &first, 0, 0);
    assert_eq!(tiny.statistics().refused, 2);
    tiny.check();
}
