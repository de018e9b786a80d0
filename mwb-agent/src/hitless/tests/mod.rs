//! All engines together, as the two ends of a bond use them, against a list of what was
//! sent: two simulated ends, with what the kernel side does (`mwb_common::turns` and
//! `mwb_common::window`) and what the agent does around the engines; paths that lose, delay,
//! double and die; and what has to hold of it whatever happens.

mod fixed;
mod memory;
mod receiver;
mod scenario;
mod sender;
mod world;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::sample::select;

use mwb_common::wire::flag;

use super::fec::{Amount, Settings};
use super::reorder::Why;
use scenario::{Class, Death, Gone, Key, Link, MS, Restart, START, Scenario};
use world::World;

const ALL: [Class; 5] = [Class::Plain, Class::Copied, Class::Retransmit, Class::Fec, Class::Both];

fn links(loss: u64) -> impl Strategy<Value = Vec<Link>> {
    let link = (
        500..8_000u64,
        0..4_000u64,
        prop_oneof![1 => Just(0), 2 => 0..=loss],
        prop_oneof![Just(0), 0..20u64],
    )
        .prop_map(|(delay, jitter, loss, twice)| Link { delay, jitter, loss, twice });
    prop::collection::vec(link, 2..=4)
}

fn blocks() -> impl Strategy<Value = Settings> {
    let parity = prop_oneof![Just(Amount::Auto), (1..=4u8).prop_map(Amount::Fixed)];
    (2..=32u8, parity, 1..15u64, 1..=4u8).prop_map(|(data, parity, wait, interleave)| Settings {
        data,
        parity,
        wait: wait * MS,
        interleave,
    })
}

prop_compose! {
    /// Nobody dies, and nothing is started anew.
    fn scenarios(classes: &'static [Class], loss: u64)(
        links in links(loss),
        flows in prop::collection::vec(select(classes), 1..=4),
        first in prop_oneof![Just(1), Just(u32::MAX - 40), any::<u32>()],
        packets in prop::collection::vec(
            (
                prop_oneof![40 => 0..1_000u64, 10 => 0..6_000u64, 1 => 0..700_000u64],
                0..4usize,
                prop_oneof![20..100usize, 20..1_400usize],
            ),
            20..200,
        ),
        blocks in blocks(),
        tick in prop_oneof![100..500u64, 100..3_000u64],
        seed: u64,
    ) -> Scenario {
        let (deaths, restarts, unlucky, room) = (Vec::new(), Vec::new(), 2, usize::MAX);
        Scenario { links, flows, first, packets, blocks, deaths, restarts, unlucky, tick, room, seed }
    }
}

/// Of one path after another. `known`: the ends know of each of them.
fn deaths(known: bool) -> impl Strategy<Value = Vec<Death>> {
    let death = (1..5u8, 0..200_000u64, 1_000..300_000u64, 5_000..150_000u64);
    prop::collection::vec(death, 0..3).prop_map(move |deaths| {
        let mut free = 0;
        let mut after = |(path, pause, lasts, seen)| {
            let (at, lasts) = (free + pause, lasts + if known { seen } else { 0 });
            free = at + lasts + seen;
            Death { path, at, lasts, seen }
        };
        deaths.into_iter().map(&mut after).collect()
    })
}

fn restarts() -> impl Strategy<Value = Vec<Restart>> {
    let how = select(vec![Gone::Ends, Gone::Killed, Gone::Stalls]);
    let restart = (0..300_000u64, 0..600_000u64, how);
    let of = |(at, away, how)| vec![Restart { at, away, how }];
    prop_oneof![Just(Vec::new()), restart.prop_map(of)]
}

prop_compose! {
    /// Whatever can happen.
    fn wild()(
        scenario in scenarios(&ALL, 300),
        mut deaths in deaths(false),
        restarts in restarts(),
        unlucky in 0..5u32,
        room in prop_oneof![Just(usize::MAX), 1..20usize],
    ) -> Scenario {
        deaths.retain(|death| usize::from(death.path) <= scenario.links.len());
        Scenario { deaths, restarts, unlucky, room, ..scenario }
    }
}

type Judged = Result<(), TestCaseError>;

/// Each packet is delivered once at most, as it was sent.
fn nothing_twice_and_nothing_else(world: &World) -> Judged {
    let mut seen = BTreeSet::new();
    for got in &world.receiver.delivered {
        prop_assert!(seen.insert(got.key), "{:?} twice", got.key);
        let sent = world.sent.get(&got.key).map(|sent| &sent.text);
        prop_assert_eq!(Some(&got.text), sent);
    }
    Ok(())
}

fn delivered(world: &World) -> BTreeSet<Key> {
    world.receiver.delivered.iter().map(|got| got.key).collect()
}

/// What arrived or can be computed is delivered, and nothing else: where an agent was away,
/// of what can be computed perhaps not all, and where it was killed, not what it had.
fn what_came_is_delivered(world: &World) -> Judged {
    let scenario = &world.scenario;
    let (got, computable) = (delivered(world), world.computable());
    for key in world.sent.keys() {
        let (arrived, is_there) = (world.arrived.contains(key), got.contains(key));
        let whole = scenario.restarts.is_empty() && scenario.room == usize::MAX;
        let died = world.receiver.died.contains(key);
        if arrived && !died || computable.contains(key) && whole {
            prop_assert!(is_there, "{key:?} is missing");
        }
        prop_assert!(!is_there || arrived || computable.contains(key), "{key:?} is made up");
    }
    Ok(())
}

/// Buckets that may begin anew in a receiver: where nothing is sent for so long that it does,
/// and where a session is a new one. With which packet they do is a matter of luck.
fn anew(world: &World) -> BTreeSet<u16> {
    let mut last = BTreeMap::new();
    let mut sent: Vec<_> = world.sent.iter().map(|(key, sent)| (sent.at[0], key.0)).collect();
    sent.sort_unstable();
    let mut is_anew = |&(at, bucket): &(u64, u16)| {
        at - last.insert(bucket, at).unwrap_or(START) > 450 * MS || world.scenario.first == 1
    };
    sent.into_iter().filter(|sent| is_anew(sent)).map(|(_, bucket)| bucket).collect()
}

/// Packets of a bucket come in the order of their numbers, but for those of which it is
/// known that they are late. None of the `punctual` is, in buckets that do not begin anew, and
/// if each packet of those with parity says so: else it may take one to know that what is
/// lost before it can be computed.
fn order_is_kept(world: &World, punctual: &[Class]) -> Judged {
    let mut newest: BTreeMap<u16, u32> = BTreeMap::new();
    let anew = anew(world);
    for got in &world.receiver.delivered {
        let index = got.key.1.wrapping_sub(world.scenario.first);
        let newest = newest.entry(got.key.0).or_default();
        if index + 1 > *newest {
            *newest = index + 1;
            continue;
        }
        let class = world.scenario.flows[usize::from(got.key.0)];
        let says_so = world.scenario.paths().all(|(path, _)| {
            class != Class::Fec || world.scenario.flags(got.key.0, path) & flag::FEC != 0
        });
        let may_be = anew.contains(&got.key.0) || !punctual.contains(&class) || !says_so;
        prop_assert!(got.late && may_be, "{:?} comes behind {newest}", got.key);
    }
    Ok(())
}

/// Each packet that may be computed is in one block, but of clean paths. Blocks are given up
/// of which more was lost than parity came, and no others.
fn each_block_is_accounted_for(world: &World) -> Judged {
    let scenario = &world.scenario;
    let mut members = BTreeSet::new();
    let mut hopeless = 0;
    for block in world.blocks() {
        let lost = world.lost_of(&block);
        hopeless += u64::from(block.came > 0 && lost.len() > block.came);
        for member in block.members {
            prop_assert!(members.insert(member), "{member:?} is in two blocks");
        }
    }
    for (key, sent) in &world.sent {
        let may = scenario.flags(key.0, sent.place.0) & flag::FEC != 0;
        prop_assert_eq!(members.contains(&sent.place), may, "{:?}", key);
    }
    let Some(agent) = &world.receiver.agent else { return Ok(()) };
    let used = agent.decoder.statistics();
    prop_assert_eq!(used.unrecoverable, hopeless);
    prop_assert_eq!((used.wrong, used.malformed, used.refused, used.evicted), (0, 0, 0, 0));
    Ok(())
}

/// Nothing is held longer than it may, and in the end nothing is.
fn nothing_stays(world: &World) -> Judged {
    let (sender, receiver) = (&world.sender, &world.receiver);
    let stalls = |restart: &Restart| restart.how == Gone::Stalls;
    let punctual = !world.scenario.restarts.iter().any(stalls);
    prop_assert!(receiver.overdue.is_empty() || !punctual, "{:?}", receiver.overdue);
    prop_assert_eq!(sender.next_due(), None);
    prop_assert_eq!(
        (sender.resend.statistics().held, sender.resend.statistics().held_bytes),
        (0, 0)
    );
    prop_assert!(sender.encoders.values().all(|encoder| encoder.next_due().is_none()));
    let Some(agent) = &receiver.agent else { return Ok(()) };
    prop_assert_eq!(agent.next_due(), None);
    prop_assert_eq!(agent.decoder.statistics().memory, 0);
    for (_, statistics) in agent.reorder.statistics() {
        prop_assert_eq!((statistics.held, statistics.bytes), (0, 0));
    }
    if world.scenario.restarts.iter().all(|restart| restart.how != Gone::Killed) {
        prop_assert!(receiver.turns.iter().all(|turns| !turns.is_out()));
    }
    Ok(())
}

/// All were released because it was their turn, and none was sent again.
fn nothing_waits_in_vain(world: &World) -> Judged {
    let agent = world.receiver.agent.iter();
    for (_, statistics) in agent.flat_map(|agent| agent.reorder.statistics()) {
        prop_assert_eq!(statistics.released(Why::Turn), statistics.taken);
    }
    prop_assert_eq!(world.sender.resend.statistics().again, 0);
    Ok(())
}

/// A packet is sent again at most three times, not later than 200 ms after the first.
fn nothing_is_sent_too_often(world: &World) -> Judged {
    // From the kernel side to the agent, and back.
    let slack = 2 * world.scenario.slack() + MS;
    for (key, sent) in &world.sent {
        let copies = if world.scenario.flows[usize::from(key.0)] == Class::Copied { 2 } else { 4 };
        prop_assert!(sent.at.len() <= copies);
        let took = sent.at.last().unwrap_or(&START) - sent.at[0];
        prop_assert!(took <= 200 * MS + slack, "{key:?} again after {took} ns");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    /// Whatever happens.
    #[test]
    fn nothing_comes_twice_or_stays_and_all_that_came_is_delivered(scenario in wild()) {
        let world = World::run(&scenario);
        nothing_twice_and_nothing_else(&world)?;
        what_came_is_delivered(&world)?;
        nothing_is_sent_too_often(&world)?;
        nothing_stays(&world)?;
        // Where agents go, and where they have no room, others go on meanwhile.
        if scenario.restarts.is_empty() && scenario.room == usize::MAX {
            order_is_kept(&world, &[Class::Plain, Class::Copied, Class::Fec])?;
            each_block_is_accounted_for(&world)?;
        }
    }

    #[test]
    fn without_loss_all_is_delivered_in_order(scenario in scenarios(&ALL, 0)) {
        let world = World::run(&scenario);
        nothing_twice_and_nothing_else(&world)?;
        nothing_stays(&world)?;
        prop_assert_eq!(world.receiver.delivered.len(), world.sent.len());
        order_is_kept(&world, &ALL)?;
        if anew(&world).is_empty() {
            nothing_waits_in_vain(&world)?;
        }
    }

    /// From when on the sender has heard of arrivals. No packet is lost by chance more than
    /// once, and no two paths are dead at a time.
    #[test]
    fn what_is_sent_again_is_all_delivered(
        scenario in scenarios(&[Class::Retransmit, Class::Both], 100),
        mut deaths in deaths(true),
        restart in prop::option::weighted(0.3, (0..300_000u64, 0..60_000u64)),
    ) {
        deaths.retain(|death| usize::from(death.path) <= scenario.links.len());
        let restart = restart.map(|(at, away)| Restart { at, away, how: Gone::Ends });
        let restarts = restart.into_iter().collect();
        let world = World::run(&Scenario { deaths, restarts, unlucky: 1, ..scenario });
        nothing_twice_and_nothing_else(&world)?;
        nothing_stays(&world)?;
        if world.scenario.restarts.is_empty() {
            order_is_kept(&world, &ALL)?;
        }
        let (got, heard) = (delivered(&world), world.sender.heard.unwrap_or(u64::MAX));
        for (key, sent) in &world.sent {
            let is_there = got.contains(key);
            prop_assert!(is_there || sent.at[0] < heard, "{key:?} is missing");
        }
    }
}
