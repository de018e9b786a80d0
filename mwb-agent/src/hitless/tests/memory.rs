//! What both ends keep at the greatest rates and delays that a bond is made for.

use super::*;

/// What all of it may take, in bytes.
const MOST: usize = 64 << 20;
/// Paths, of 100 Mbit/s each.
const PATHS: usize = 8;
/// Bytes of a packet.
const LENGTH: usize = 1_400;
/// In so many µs all paths carry one.
const EVERY: usize = LENGTH * 8 / (100 * PATHS);

/// So many ms of it, one path being 200 ms longer than the others, and each losing 1 %: most
/// of what comes is ahead of its turn for so long, and all is kept to be sent again and to
/// compute from.
fn full(ms: usize) -> Scenario {
    let link = |delay| Link { delay, jitter: 500, loss: 10, twice: 0 };
    let mut links = vec![link(5_000); PATHS];
    links[0].delay = 205_000;
    Scenario {
        links,
        // As many as it takes to have none stand further ahead than a flow may.
        flows: vec![Class::Both; 64],
        first: 1_000,
        packets: (0..ms * 1_000 / EVERY).map(|index| (EVERY as u64, index % 64, LENGTH)).collect(),
        blocks: Settings::default(),
        deaths: Vec::new(),
        restarts: Vec::new(),
        unlucky: 1,
        tick: 1_000,
        room: usize::MAX,
        seed: 3,
    }
}

#[test]
fn eight_paths_of_100_mbit_s_and_200_ms_take_less_than_64_mib() -> Judged {
    let world = World::run(&full(450));
    nothing_twice_and_nothing_else(&world)?;
    nothing_stays(&world)?;
    let [sender, receiver] = world.held;
    println!(
        "{} packets; at most {} KiB at the sender, {} KiB at the receiver",
        world.sent.len(),
        sender >> 10,
        receiver >> 10
    );
    // Less would be for less than that.
    assert!(sender > 4 << 20 && receiver > 16 << 20, "{sender} and {receiver} bytes");
    assert!(sender + receiver < MOST, "{sender} and {receiver} bytes");
    Ok(())
}
