//! One flow of TCP, and four, by links that differ, as the far end puts packets in order:
//! how near they come to the sum of what the links carry.

use super::world::{SECOND, World};
use super::{Links, downloads};

/// What of a link's rate is inside: 1,400 of 1,520 bytes.
const INSIDE: f64 = 1_400.0 / 1_520.0;
/// A flow takes this long to grow, in s, and is looked at for as long again.
const GROWN: u64 = 7;
const SEEN: u64 = 7;

/// The part of the sum that arrives once the flows have grown.
fn part(links: Links<'_>, typed: bool, flows: u64) -> f64 {
    let mut world = downloads(links, typed, flows);
    world.run((2 + GROWN) * SECOND);
    let sum: u64 = links.iter().map(|link| link.0).sum();
    world.goodput((2 + GROWN + SEEN) * SECOND) / (sum as f64 * INSIDE)
}

fn has_the_sum(links: Links<'_>) {
    for flows in [1, 4] {
        for typed in [false, true] {
            let part = part(links, typed, flows);
            assert!(part >= 0.93, "{links:?}, {flows} flows, typed {typed}: {part:.3}");
        }
    }
}

/// The second is longer by 0, 20, 50 and 100 ms.
fn pairs_have_the_sum(first: u64, second: u64) {
    for longer in [0, 20, 50, 100] {
        has_the_sum(&[(first, 5, 0.0), (second, 5 + longer, 0.0)]);
    }
}

#[test]
fn links_of_one_rate_have_the_sum() {
    pairs_have_the_sum(50, 50);
}

#[test]
fn links_of_which_the_shorter_is_twice_as_fast_have_the_sum() {
    pairs_have_the_sum(60, 30);
}

#[test]
fn links_of_which_the_longer_is_twice_as_fast_have_the_sum() {
    pairs_have_the_sum(30, 60);
}

#[test]
fn links_of_which_the_shorter_is_five_times_as_fast_have_the_sum() {
    pairs_have_the_sum(50, 10);
}

#[test]
fn links_of_which_the_longer_is_five_times_as_fast_have_the_sum() {
    pairs_have_the_sum(10, 50);
}

#[test]
fn three_and_four_links_have_the_sum() {
    has_the_sum(&[(30, 15, 0.0), (30, 15, 0.0), (30, 65, 0.0)]);
    has_the_sum(&[(50, 5, 0.0), (50, 55, 0.0), (50, 105, 0.0)]);
    has_the_sum(&[(50, 5, 0.0), (20, 25, 0.0), (10, 105, 0.0)]);
    has_the_sum(&[(25, 10, 0.0), (25, 30, 0.0), (25, 60, 0.0), (25, 100, 0.0)]);
}

#[test]
fn elsewhere_the_best_link_is_not_worse_for_the_others() {
    let others: [Links<'_>; 6] = [
        &[(100, 5, 0.0), (10, 55, 0.0)],
        &[(10, 5, 0.0), (100, 55, 0.0)],
        &[(50, 5, 0.0), (20, 300, 0.0)],
        &[(50, 5, 0.0), (50, 55, 0.01)],
        &[(50, 5, 0.0), (50, 55, 0.05)],
        &[(50, 5, 0.0), (50, 55, 0.0), (20, 300, 0.0)],
    ];
    for links in others {
        let most = links.iter().filter(|link| link.2 == 0.0).map(|link| link.0).max();
        let best = most.unwrap_or(0) as f64;
        let sum: u64 = links.iter().map(|link| link.0).sum();
        for flows in [1, 4] {
            for typed in [false, true] {
                let rate = part(links, typed, flows) * sum as f64;
                assert!(rate >= 0.95 * best, "{links:?}, {flows} flows, typed {typed}: {rate:.1}");
            }
        }
    }
}

#[test]
fn a_far_end_that_keeps_no_order_has_what_one_link_has() {
    for longer in [20, 100] {
        let mut world = World::new(&[(50, 5, 0.0), (50, 5 + longer, 0.0)]);
        world.keeps_no_order();
        world.start(2 * SECOND);
        world.run(5 * SECOND);
        let rate = world.goodput(12 * SECOND);
        assert!(rate >= 0.95 * 50.0 * INSIDE, "{longer} ms: {rate:.1} Mbit/s");
    }
}

#[test]
fn a_small_flow_waits_less_than_5_ms_beside_an_elephant_that_has_less_than_there_is() {
    for (links, mbit, most) in [
        // It has no need of the longer link, or some, and of its queue no use.
        (&[(50, 5, 0.0), (50, 55, 0.0)][..], 45, 10),
        (&[(50, 5, 0.0), (50, 5, 0.0)], 70, 10),
        (&[(50, 5, 0.0), (50, 55, 0.0)], 70, 11),
        (&[(50, 5, 0.0), (10, 55, 0.0)], 50, 11),
    ] {
        let mut world = World::new(links);
        world.typed = true;
        world.start_slow(2 * SECOND, mbit);
        world.run(7 * SECOND);
        world.talks();
        let rate = world.goodput(17 * SECOND);
        assert!(rate >= 0.98 * mbit as f64, "{links:?}: {rate:.1} of {mbit} Mbit/s");
        world.delays.sort_unstable();
        let late = world.delays[world.delays.len() * 99 / 100] / 1_000_000;
        assert!(late < most, "{links:?}, {mbit} Mbit/s: {late} ms");
    }
}
