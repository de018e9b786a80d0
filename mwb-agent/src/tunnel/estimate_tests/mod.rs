mod facts;
mod order;
mod sum;
mod tcp;
mod world;

use world::{MS, SECOND, World};

/// Rate in Mbit/s, delay in ms, loss.
type Links<'a> = &'a [(u64, u64, f64)];

const EVEN: Links<'_> = &[(50, 20, 0.0), (50, 20, 0.0)];
const FOUR: Links<'_> = &[(25, 20, 0.0), (25, 20, 0.0), (25, 20, 0.0), (25, 20, 0.0)];

/// Downloads, from 2 s on; the flows begin one after the other.
fn downloads(links: Links<'_>, typed: bool, flows: u64) -> World {
    let mut world = World::new(links);
    world.typed = typed;
    for flow in 0..flows {
        world.start(2 * SECOND + flow * 100 * MS);
    }
    world.run(2 * SECOND);
    world
}

/// Goodput in Mbit/s over 8 s of downloads, with what comes at the beginning.
fn goodput(links: Links<'_>, typed: bool, flows: u64) -> f64 {
    downloads(links, typed, flows).goodput(10 * SECOND)
}

/// Asserts the rule for one and for four flows, with capacities typed and without.
fn is_never_worse(links: Links<'_>) {
    for flows in [1, 4] {
        let alone = links.iter().map(|link| goodput(&[*link], false, flows));
        let best = alone.fold(0.0, f64::max);
        for typed in [false, true] {
            let bonded = goodput(links, typed, flows);
            let what = format!("{flows} flows, typed {typed}: {bonded:.1} of {best:.1} Mbit/s");
            assert!(bonded >= 0.95 * best, "{what}");
        }
    }
}

#[test]
fn two_even_links_are_never_worse_than_one() {
    is_never_worse(EVEN);
}

#[test]
fn a_small_and_longer_link_does_no_harm() {
    is_never_worse(&[(100, 10, 0.0), (20, 60, 0.0)]);
}

#[test]
fn a_longer_link_that_loses_some_does_no_harm() {
    is_never_worse(&[(30, 30, 0.0), (10, 80, 0.01)]);
}

#[test]
fn a_tiny_link_by_satellite_does_no_harm() {
    is_never_worse(&[(100, 5, 0.0), (5, 300, 0.0)]);
}

#[test]
fn a_link_that_loses_half_does_no_harm_and_is_parked() {
    let links: Links<'_> = &[(50, 20, 0.0), (50, 20, 0.5)];
    is_never_worse(links);
    let mut world = World::new(links);
    world.run(10 * SECOND);
    let parked: Vec<_> = world.verdict.paths.iter().map(|path| path.parked).collect();
    assert_eq!(parked, [None, Some(super::Reason::Loss)]);
}

#[test]
fn four_even_links_are_never_worse_than_one() {
    is_never_worse(FOUR);
}

#[test]
fn a_link_that_is_throttled_meanwhile_is_left() {
    for link in 0..2 {
        for typed in [false, true] {
            let mut world = downloads(EVEN, typed, 1);
            world.change(6 * SECOND, link, 5);
            world.run(6 * SECOND);
            // The rest of 50 Mbit/s is what was in the queue, which now takes a second: the
            // far end waits for it as long as it holds packets.
            let first = world.goodput(8 * SECOND);
            assert!(first >= 0.8 * 45.6, "{link} {typed}: {first:.1} Mbit/s");
            let later = world.goodput(12 * SECOND);
            assert!(later >= 0.95 * 45.6, "{link} {typed}: {later:.1} Mbit/s");
        }
    }
}

#[test]
fn a_link_that_was_throttled_takes_part_again() {
    let mut world = downloads(EVEN, false, 4);
    world.change(5 * SECOND, 0, 5);
    world.change(8 * SECOND, 0, 50);
    world.run(14 * SECOND);
    let rate = world.goodput(17 * SECOND);
    assert!(rate > 80.0, "{rate:.1} Mbit/s");
}

#[test]
fn one_download_by_two_even_links_is_clearly_faster_than_by_one() {
    let one = goodput(&EVEN[..1], false, 1);
    for typed in [false, true] {
        let two = goodput(EVEN, typed, 1);
        assert!(two > 1.7 * one, "typed {typed}: {two:.1} and {one:.1} Mbit/s");
    }
}

#[test]
fn links_that_differ_a_little_are_used_together_too() {
    for (links, least) in
        [(&[(50, 20, 0.0), (50, 25, 0.0)][..], 80.0), (&[(30, 25, 0.0), (100, 20, 0.0)], 105.0)]
    {
        for flows in [1, 4] {
            let rate = goodput(links, true, flows);
            assert!(rate > least, "{links:?}, {flows} flows: {rate:.1} Mbit/s");
        }
    }
}

#[test]
fn delays_that_vary_do_not_make_two_links_worse_than_one() {
    for jitter in [1, 3, 10] {
        for typed in [false, true] {
            let mut world = downloads(EVEN, typed, 1);
            for link in &mut world.links {
                link.jitter = jitter * MS;
            }
            let rate = world.goodput(10 * SECOND);
            assert!(rate > 0.95 * 45.6, "{jitter} ms, typed {typed}: {rate:.1} Mbit/s");
        }
    }
}

#[test]
fn links_that_stall_now_and_then_are_still_better_together() {
    // In both ways to know capacities: what a stall has dropped may be taken for loss.
    let rate = |links, most| {
        let rates = [false, true].map(|typed| {
            let mut world = downloads(links, typed, 4);
            world.stalls(most);
            world.goodput(10 * SECOND)
        });
        (rates[0] + rates[1]) / 2.0
    };
    for (most, times) in [(30 * MS, 1.6), (120 * MS, 1.2)] {
        let (one, two) = (rate(&EVEN[..1], most), rate(EVEN, most));
        assert!(two > times * one, "{} ms: {two:.1} and {one:.1} Mbit/s", most / MS);
    }
}

#[test]
fn what_the_operator_says_is_too_much_is_found_out() {
    let mut world = downloads(EVEN, false, 1);
    world.says = Some(200);
    let rate = world.goodput(10 * SECOND);
    assert!(rate > 0.95 * 45.6, "{rate:.1} Mbit/s");
    for path in &world.verdict.paths {
        let capacity = path.capacity.unwrap_or(0) / 1_000_000;
        assert!((45..56).contains(&capacity), "{capacity} Mbit/s");
    }
}

#[test]
fn a_small_flow_does_not_wait_in_the_queue_of_an_elephant() {
    for (links, most) in [
        // The elephant goes by all that there are, and fills their queues of 100 ms: what
        // is left is to be in the shortest.
        (&[(50, 10, 0.0), (50, 35, 0.0)][..], 110),
        (&[(100, 10, 0.0), (20, 60, 0.0)], 110),
        // It has the first one for itself.
        (&[(100, 5, 0.0), (5, 300, 0.0)], 100),
    ] {
        for typed in [false, true] {
            let mut world = downloads(links, typed, 1);
            world.run(4 * SECOND);
            world.talks();
            world.run(10 * SECOND);
            let mean = world.delays.iter().sum::<u64>() / world.delays.len() as u64 / MS;
            assert!(mean < most, "{links:?}: {mean} ms");
        }
    }
}
