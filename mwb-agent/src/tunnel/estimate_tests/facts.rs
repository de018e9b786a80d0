//! What follows from facts that are made by hand.

use mwb_common::maps::PathState;

use super::super::stripe::{Candidate, Elephants};
use super::super::track::Losses;
use super::super::{Estimator, PathFacts, Reason, Verdict};
use super::world::{MS, SECOND};

/// A path that is shown to an estimator every 100 ms.
#[derive(Clone, Copy, Default)]
struct Path {
    state: PathState,
    capacity: Option<u64>,
}

impl Path {
    /// In the last 100 ms `sent` packets of 1,500 bytes left, of which `taken` arrived
    /// and the last, a probe, waited for so long.
    fn goes_on(&mut self, now: u64, sent: u64, taken: u64, way: u64, waited: u64) {
        let state = &mut self.state;
        state.sent += sent;
        state.sent_bytes += sent * 1_500;
        state.reply_sequence = state.sent;
        state.reply_packets += taken;
        state.reply_bytes += taken * 1_500;
        // As steady as the queue is: what came since the last one took 100 ms.
        state.reply_received_at = now - way + 5 * SECOND;
        state.reply_sent_at = now - 2 * way - waited;
        state.reply_at = now;
        state.alive_until = now + 150 * MS;
    }
}

struct Session {
    now: u64,
    estimator: Estimator,
    verdict: Verdict,
}

impl Session {
    fn new() -> Self {
        Self { now: 100 * SECOND, estimator: Estimator::new(), verdict: Verdict::default() }
    }

    fn tick<const N: usize>(&mut self, paths: &mut [Path; N], go: impl Fn(usize, u64, &mut Path)) {
        self.now += 100 * MS;
        for (index, path) in paths.iter_mut().enumerate() {
            go(index, self.now, path);
        }
        let facts: Vec<PathFacts> = (1u8..)
            .zip(paths.iter())
            .map(|(path, Path { state, capacity })| PathFacts {
                path,
                state: *state,
                capacity: *capacity,
                usable: true,
            })
            .collect();
        self.verdict = self.estimator.update(self.now, &facts);
    }
}

#[test]
fn losses_are_right_to_the_packet_and_do_not_depend_on_how_many_paths_there_are() {
    let mut session = Session::new();
    let mut paths = [Path::default(); 8];
    session.tick(&mut paths, |_, now, path| path.goes_on(now, 2, 2, 20 * MS, 0));
    for _ in 0..50 {
        session.tick(&mut paths, |index, now, path| {
            path.goes_on(now, 100, 100 - index as u64, 20 * MS, 0);
        });
    }
    for (index, path) in session.verdict.paths.iter().enumerate() {
        assert_eq!(path.lost, 50 * index as u64);
        assert!((path.loss - index as f64 / 100.0).abs() < 1e-3, "{} at {index}", path.loss);
    }
}

#[test]
fn a_packet_that_overtakes_a_probe_is_lost_in_one_interval_and_found_in_the_next() {
    let mut session = Session::new();
    let mut paths = [Path::default()];
    for taken in [2, 2, 9, 11, 10] {
        let sent = if taken == 2 { 2 } else { 10 };
        session.tick(&mut paths, |_, now, path| path.goes_on(now, sent, taken, 20 * MS, 0));
    }
    assert_eq!(session.verdict.paths[0].lost, 0);
}

#[test]
fn what_arrives_while_the_queue_has_grown_is_the_capacity_and_what_arrives_without_is_not() {
    let mut session = Session::new();
    let mut paths = [Path::default()];
    for _ in 0..20 {
        session.tick(&mut paths, |_, now, path| path.goes_on(now, 100, 100, 20 * MS, 0));
    }
    assert_eq!(session.verdict.paths[0].capacity, None);
    assert_eq!(session.verdict.paths[0].rate, 12_000_000);
    for _ in 0..3 {
        session.tick(&mut paths, |_, now, path| path.goes_on(now, 100, 80, 20 * MS, 30 * MS));
    }
    let path = &session.verdict.paths[0];
    assert_eq!(path.capacity, Some(9_600_000));
    assert_eq!(path.byte_time, (8e9 * 1024.0 / 9.6e6) as u32);
    // Less what the clocks may have drifted.
    assert_eq!(path.queue.as_millis(), 29);
    assert_eq!(path.loss, 0.0, "a full queue is no bad link");
    assert_eq!(path.lost, 60);
    // It is throttled, while we send what we have sent.
    for _ in 0..8 {
        session.tick(&mut paths, |_, now, path| path.goes_on(now, 80, 8, 20 * MS, 100 * MS));
    }
    let capacity = session.verdict.paths[0].capacity.unwrap_or(0);
    assert!((950_000..1_100_000).contains(&capacity), "{capacity}");
    // Somebody else fills it: what is left for the little that we send is no capacity.
    for waited in [0, 0, 0, 0, 100, 100, 100, 100, 100] {
        session.tick(&mut paths, |_, now, path| path.goes_on(now, 1, 1, 20 * MS, waited * MS));
    }
    assert_eq!(session.verdict.paths[0].capacity, Some(capacity));
}

#[test]
fn a_typed_capacity_is_a_bound() {
    let mut session = Session::new();
    let mut paths = [Path { capacity: Some(5_000_000), ..Path::default() }];
    for _ in 0..5 {
        session.tick(&mut paths, |_, now, path| path.goes_on(now, 100, 100, 20 * MS, 30 * MS));
    }
    assert_eq!(session.verdict.paths[0].capacity, Some(5_000_000));
}

#[test]
fn delays_are_those_beyond_the_shortest_path() {
    let mut session = Session::new();
    let mut paths = [Path::default(); 3];
    for _ in 0..20 {
        session.tick(&mut paths, |index, now, path| {
            path.goes_on(now, 2, 2, (30 - 10 * index as u64) * MS, 0);
        });
    }
    let delays: Vec<u32> = session.verdict.paths.iter().map(|path| path.delay).collect();
    assert_eq!(delays, [20_000_000, 10_000_000, 0]);
}

#[test]
fn a_path_that_loses_is_parked_and_comes_back_later_each_time() {
    let mut session = Session::new();
    let mut paths = [Path::default(); 2];
    let mut ticks_until = |parked: bool, taken: u64| {
        for ticks in 1..10_000 {
            session.tick(&mut paths, |index, now, path| {
                path.goes_on(now, 10, if index == 0 { 10 } else { taken }, 20 * MS, 0);
            });
            if (session.verdict.paths[1].parked == Some(Reason::Loss)) == parked {
                assert!(session.verdict.paths[0].parked.is_none());
                return ticks;
            }
        }
        panic!("never")
    };
    assert!(ticks_until(true, 5) <= 10);
    let mut before = 0;
    for _ in 0..4 {
        let away = ticks_until(false, 10);
        assert!(away > 50 && away > before * 5 / 4, "{away} after {before}");
        before = away;
        assert!(ticks_until(true, 5) <= 20);
    }
}

/// Path 2 answers nothing for so many ticks, then all for so many, under a stream; how many
/// of these it was parked for, and why.
fn dies(
    session: &mut Session,
    paths: &mut [Path; 2],
    dead: u32,
    alive: u32,
) -> (u32, Option<Reason>) {
    for _ in 0..dead {
        session.tick(paths, |index, now, path| match index {
            0 => path.goes_on(now, 100, 100, 20 * MS, 0),
            _ => path.state.sent += 100,
        });
    }
    let (mut parked, mut why) = (0, None);
    for _ in 0..alive {
        session.tick(paths, |_, now, path| {
            path.goes_on(now, 100, 100, 20 * MS, 0);
        });
        let reason = session.verdict.paths[1].parked;
        assert_eq!(session.verdict.paths[0].parked, None);
        parked += u32::from(reason.is_some());
        why = why.or(reason);
    }
    (parked, why)
}

#[test]
fn a_path_that_was_dead_is_used_when_it_lives_and_later_each_time_if_it_dies_again() {
    let mut session = Session::new();
    let mut paths = [Path::default(); 2];
    assert_eq!(dies(&mut session, &mut paths, 0, 50), (0, None));
    // All that was lost is counted, and not held against it.
    assert_eq!(dies(&mut session, &mut paths, 20, 100), (0, None));
    assert_eq!((session.verdict.paths[1].lost, session.verdict.paths[1].loss), (2_000, 0.0));
    for hold in [5, 10, 20, 40] {
        let (parked, why) = dies(&mut session, &mut paths, 20, 1_000);
        assert_eq!(why, Some(Reason::Unsteady));
        assert!((hold * 10 - 2..=hold * 10 + 2).contains(&parked), "{parked} of {hold} s");
    }
    // It does not come back before it has lived for that long.
    assert_eq!(dies(&mut session, &mut paths, 20, 500).0, 500);
    assert!(dies(&mut session, &mut paths, 20, 2_000).0 > 1_200);
    // And begins anew after some calm minutes.
    assert_eq!(dies(&mut session, &mut paths, 0, 4_000), (0, None));
    assert_eq!(dies(&mut session, &mut paths, 20, 100), (0, None));
}

#[test]
fn paths_that_all_die_at_once_are_not_to_blame() {
    let mut session = Session::new();
    let mut paths = [Path::default(); 2];
    for _ in 0..3 {
        for alive in [true; 20].into_iter().chain([false; 20]) {
            session.tick(&mut paths, |_, now, path| {
                if alive {
                    path.goes_on(now, 10, 10, 20 * MS, 0);
                } else {
                    path.state.sent += 10;
                }
            });
            assert!(session.verdict.paths.iter().all(|path| path.parked.is_none()));
        }
    }
}

#[test]
fn a_path_that_is_probed_once_a_second_is_parked_for_what_it_loses_and_for_nothing_else() {
    let mut session = Session::new();
    let mut paths = [Path::default(); 2];
    // In how many ticks of so many seconds it was parked, when some bring no answer.
    let mut go_on = |seconds: u64, is_silent: &dyn Fn(u64) -> bool| {
        let mut parked = 0;
        for tick in 0..seconds * 10 {
            session.tick(&mut paths, |index, now, path| match (index, tick % 10) {
                (0, _) => path.goes_on(now, 4, 4, 20 * MS, 0),
                // A probe, but nothing of the far end's to answer.
                (_, 0) if is_silent(tick / 10) => path.state.sent += 1,
                (_, 0) => {
                    path.goes_on(now, 2, 2, 30 * MS, 0);
                    path.state.alive_until = now + 3_500 * MS;
                }
                _ => {}
            });
            parked += u64::from(session.verdict.paths[1].parked.is_some());
            assert_eq!(session.verdict.paths[0].parked, None);
        }
        (parked, session.verdict.paths[1].clone())
    };
    let (parked, path) = go_on(600, &|_| false);
    assert_eq!((parked, path.lost, path.loss, path.delay), (0, 0, 0.0, 10_000_000));
    let (parked, path) = go_on(600, &|second| second % 20 == 7);
    assert!(parked == 0 && path.lost == 30 && path.loss < 0.06, "{parked} {path:?}");
    // It lives so long without an answer.
    let (parked, path) = go_on(60, &|second| (10..12).contains(&second));
    assert_eq!((parked, path.lost), (0, 32));
    let (_, path) = go_on(60, &|second| second % 2 == 0);
    assert_eq!(path.parked, Some(Reason::Loss));
    let (_, path) = go_on(120, &|_| false);
    assert_eq!(path.parked, None, "it comes back while it is idle");
}

#[test]
fn a_path_that_is_far_behind_is_parked() {
    let mut session = Session::new();
    let mut paths = [Path::default(); 2];
    for _ in 0..5 {
        session.tick(&mut paths, |index, now, path| {
            path.goes_on(now, 2, 2, if index == 0 { 20 } else { 600 } * MS, 0);
        });
    }
    let parked: Vec<_> = session.verdict.paths.iter().map(|path| path.parked).collect();
    assert_eq!(parked, [None, Some(Reason::Long)]);
}

#[test]
fn a_train_says_what_a_path_carries_that_carries_nothing() {
    let mut session = Session::new();
    let mut paths = [Path::default(); 2];
    let calm = |_: usize, now: u64, path: &mut Path| path.goes_on(now, 2, 2, 20 * MS, 0);
    session.tick(&mut paths, calm);
    session.estimator.sent_train(2, session.now, 48_000);
    // 48,000 bytes take 38.4 ms at 10 Mbit/s; one alone, the round trip of 40.
    paths[1].state.sized_at = session.now + 40 * MS + 38_400_000;
    session.tick(&mut paths, calm);
    assert_eq!(session.verdict.paths[1].capacity, None, "more may come");
    session.tick(&mut paths, calm);
    assert_eq!(session.verdict.paths[1].capacity, Some(10_000_000));
}

#[test]
fn another_session_begins_with_nothing() {
    let mut session = Session::new();
    let mut paths = [Path::default()];
    for _ in 0..5 {
        session.tick(&mut paths, |_, now, path| path.goes_on(now, 10, 9, 20 * MS, 30 * MS));
    }
    paths = [Path::default()];
    session.tick(&mut paths, |_, now, path| path.goes_on(now, 2, 2, 20 * MS, 0));
    let path = &session.verdict.paths[0];
    assert_eq!((path.lost, path.capacity, path.rate), (0, None, 0));
}

fn candidate(path: u8, capacity: f64, rate: f64, full: bool) -> Candidate {
    Candidate {
        path,
        capacity: Some(capacity),
        rate,
        carried: rate,
        full,
        way: 20e6,
        round_trip: 40e6,
        jitter: 0.0,
        loss: Losses::default(),
    }
}

/// Where the far end does not put packets in order: what is far apart is not taken together.
fn elephants() -> Elephants {
    let mut elephants = Elephants::default();
    elephants.hold = 0.0;
    elephants
}

#[test]
fn elephants_go_home_when_several_paths_carry_less_than_one() {
    let mut elephants = elephants();
    let mut now = SECOND;
    let mut go = |elephants: &mut Elephants, rates: [f64; 2], seconds: u64| {
        let mut stripe = 0;
        for _ in 0..seconds * 10 {
            now += 100 * MS;
            // Alone, the home is full at once.
            let full = stripe == 0b10;
            let rates = if full { [48e6, 0.0] } else { rates };
            let paths = [candidate(1, 50e6, rates[0], full), candidate(2, 50e6, rates[1], false)];
            stripe = elephants.decide(now, &paths).0;
        }
        stripe
    };
    assert_eq!(go(&mut elephants, [45e6, 45e6], 10), 0b110);
    assert_eq!(go(&mut elephants, [20e6, 20e6], 2), 0b110);
    assert_eq!(go(&mut elephants, [20e6, 20e6], 2), 0b10);
    assert_eq!(go(&mut elephants, [20e6, 20e6], 8), 0b10);
    // It is tried again after 10 s, and then after 20.
    assert_eq!(go(&mut elephants, [20e6, 20e6], 2), 0b110);
    assert_eq!(go(&mut elephants, [20e6, 20e6], 19), 0b10);
    assert_eq!(go(&mut elephants, [45e6, 45e6], 10), 0b110);
}

#[test]
fn several_paths_are_not_to_blame_if_nobody_has_more_to_send() {
    let mut elephants = elephants();
    let mut now = SECOND;
    let mut go = |elephants: &mut Elephants, rates: [f64; 2], full: bool| {
        now += 100 * MS;
        let paths = [candidate(1, 50e6, rates[0], full), candidate(2, 50e6, rates[1], false)];
        elephants.decide(now, &paths).0
    };
    for _ in 0..100 {
        go(&mut elephants, [10e6, 10e6], false);
    }
    assert_eq!(go(&mut elephants, [50e6, 0.0], true), 0b110);
}

#[test]
fn several_paths_are_not_to_blame_for_what_nobody_sends() {
    let mut elephants = elephants();
    let mut now = SECOND;
    let mut go = |rates: [f64; 2], full: bool| {
        now += 100 * MS;
        let paths = [candidate(1, 50e6, rates[0], full), candidate(2, 50e6, rates[1], false)];
        elephants.decide(now, &paths).0
    };
    for _ in 0..100 {
        assert_eq!(go([20e3, 20e3], false), 0b110, "there are only probes");
    }
    assert_eq!(go([50e6, 20e3], true), 0b110);
}

#[test]
fn a_home_is_left_for_one_that_is_clearly_better_and_for_a_while() {
    let mut elephants = elephants();
    let far = |capacity: f64| Candidate { way: 80e6, ..candidate(2, capacity, 0.0, false) };
    let near = candidate(1, 50e6, 0.0, false);
    let mut now = SECOND;
    let mut go = |capacity: f64, seconds: u64| {
        let mut stripe = 0;
        for _ in 0..seconds * 10 {
            now += 100 * MS;
            stripe = elephants.decide(now, &[near.clone(), far(capacity)]).0;
        }
        stripe
    };
    assert_eq!(go(20e6, 1), 0b10);
    assert_eq!(go(60e6, 10), 0b10);
    assert_eq!(go(70e6, 1), 0b10);
    assert_eq!(go(70e6, 1), 0b100);
    assert_eq!(go(45e6, 10), 0b100);
    assert_eq!(elephants.decide(now, &[near, far(20e6)]).0, 0b10, "far better: at once");
}

#[test]
fn a_home_that_carries_much_in_spite_of_losses_is_not_left() {
    let mut elephants = elephants();
    let losses = Losses { sent: 10_000.0, lost: 100.0 };
    let home = Candidate { loss: losses, ..candidate(1, 30e6, 25e6, true) };
    let other = candidate(2, 10e6, 0.0, false);
    let alone = 1 << 1;
    for second in 0..20 {
        let (stripe, _) = elephants.decide(second * SECOND, &[home.clone(), other.clone()]);
        assert_eq!(stripe, alone, "after {second} s");
    }
    // A flow that takes losses for a full queue has less of it than of the other.
    let home = Candidate { carried: 2e6, rate: 2e6, ..home };
    for second in 20..22 {
        let (stripe, _) = elephants.decide(second * SECOND, &[home.clone(), other.clone()]);
        assert_eq!(stripe, 1 << 2, "after {second} s");
    }
}

#[test]
fn a_path_that_loses_some_is_clean_for_flows_whose_losses_are_repaired() {
    let stripe = |part: f64, repaired: bool| {
        let loss = Losses { sent: 10_000.0, lost: 10_000.0 * part };
        let paths =
            [candidate(1, 50e6, 25e6, true), Candidate { loss, ..candidate(2, 50e6, 25e6, true) }];
        let paths = if repaired { paths.map(|path| path.repaired()) } else { paths };
        let mut elephants = Elephants::default();
        elephants.decide(SECOND, &paths);
        // By then the far end knows.
        elephants.decide(2 * SECOND, &paths).0 & 0b0110
    };
    assert_eq!([0.0, 0.05].map(|part| stripe(part, false)), [0b0110, 0b0010]);
    assert_eq!([0.0, 0.05, 0.2].map(|part| stripe(part, true)), [0b0110, 0b0110, 0b0010]);
}
