//! All orders of a few packets.

use super::model::Model;
use super::*;

/// Calls `with` for each order of the numbers.
fn permute(numbers: &mut Vec<u32>, from: usize, with: &mut impl FnMut(&[u32])) {
    if from == numbers.len() {
        return with(numbers);
    }
    for other in from..numbers.len() {
        numbers.swap(from, other);
        permute(numbers, from + 1, with);
        numbers.swap(from, other);
    }
}

#[test]
fn every_order_of_seven_comes_out_in_order_and_never_later_than_needed() {
    for count in 1..=7 {
        for start in [0, u32::MAX - 2] {
            permute(&mut (0..count).collect(), 0, &mut |order| {
                let mut bench = Bench::new(ROOMY);
                for (at, number) in order.iter().enumerate() {
                    bench.take_all(start, &[start.wrapping_add(*number)]);
                    let there = &order[..=at];
                    let run = (0..count).take_while(|number| there.contains(number)).count();
                    assert_eq!(bench.out.len(), run, "{order:?}");
                }
                let expected = (0..count).map(|number| start.wrapping_add(number));
                assert_eq!(bench.released(), all(Why::Turn, expected), "{order:?}");
            });
        }
    }
}

#[test]
fn every_order_behind_a_gap_comes_out_in_order_at_the_deadline() {
    for count in 2..=7 {
        permute(&mut (0..count).collect(), 0, &mut |order| {
            // The last of the order is lost.
            let (lost, order) = order.split_last().unwrap_or((&0, &[]));
            let mut bench = Bench::new(ROOMY);
            bench.take_all(0, order);
            bench.expire_at(bench.now + 50 * MS);
            let mut expected = all(Why::Turn, 0..*lost);
            expected.extend(all(Why::Deadline, lost + 1..count));
            assert_eq!(bench.released(), expected, "{order:?}");
        });
    }
}

#[test]
fn every_order_of_five_by_every_choice_of_two_paths_is_as_in_the_model() {
    permute(&mut (0..5).collect(), 0, &mut |order| {
        for paths in 0..1 << 5 {
            let (mut bench, mut model) = (Bench::new(ROOMY), Model::new(ROOMY));
            // The first is missing.
            for number in order {
                let packet = by(1 + (paths >> number & 1) as u8, 0b110, number + 1, 0);
                model.take(&packet, bench.now, 50 * MS);
                bench.take(packet);
            }
            model.expire(bench.now + 50 * MS);
            bench.expire_at(bench.now + 50 * MS);
            let expected: Vec<_> = model.take_log().iter().map(|line| (line.1, line.2)).collect();
            assert_eq!(bench.released(), expected, "{order:?} {paths:b}");
        }
    });
}
