use proptest::prelude::*;

use super::*;

const SECOND: u64 = 1_000_000_000;
const TICK: u64 = SECOND / 10;
const RTT: u64 = SECOND / 25;

/// A path that passes what is not longer than `passes`, polled ten times a second.
struct Path {
    now: u64,
    passes: u32,
    alive: bool,
    idle: bool,
    loss: f64,
    answer: Option<(u64, u32)>,
    facts: (u32, u64),
    probes: u32,
    seed: u64,
}

impl Path {
    fn new(passes: u32) -> Self {
        Self {
            now: 1_000 * SECOND,
            passes,
            alive: true,
            idle: false,
            loss: 0.0,
            answer: None,
            facts: (0, 0),
            probes: 0,
            seed: 0x9e37_79b9_7f4a_7c15,
        }
    }

    fn lost(&mut self) -> bool {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        ((self.seed >> 11) as f64 / (1u64 << 53) as f64) < self.loss
    }

    fn tick(&mut self, search: &mut Search, loss: f64) {
        self.now += TICK;
        if let Some((at, length)) = self.answer.take_if(|(at, _)| *at <= self.now) {
            self.facts = (length, at);
        }
        let (sized, sized_at) = self.facts;
        let Self { alive, idle, .. } = *self;
        let facts = Facts { alive, idle, rtt: RTT, sized, sized_at, loss };
        if let Some(length) = search.poll(self.now, &facts) {
            self.probes += 1;
            if length <= self.passes && self.alive && !self.lost() {
                self.answer = Some((self.now + RTT, length));
            }
        }
    }

    /// Until nothing is to be found out; in how many seconds.
    fn settle(&mut self, search: &mut Search) -> f64 {
        let begin = self.now;
        while !search.is_settled() || search.probe.is_some() {
            self.tick(search, self.loss);
            assert!(self.now < begin + 120 * SECOND, "no end");
        }
        (self.now - begin) as f64 / SECOND as f64
    }

    fn go(&mut self, search: &mut Search, seconds: u64, loss: f64) {
        for _ in 0..seconds * SECOND / TICK {
            self.tick(search, loss);
        }
    }
}

#[test]
fn the_mtu_of_the_interface_is_found_with_one_probe() {
    for most in [1_500, 1_492, 9_000] {
        let (mut path, mut search) = (Path::new(most), Search::new(false, most));
        assert_eq!(search.mtu(), FIRST);
        assert!(path.settle(&mut search) < 0.5);
        assert_eq!((search.mtu(), path.probes), (most, 1));
    }
}

#[test]
fn common_lengths_are_found_exactly_and_soon() {
    for passes in COMMON {
        let (mut path, mut search) = (Path::new(passes), Search::new(false, 1_500));
        let took = path.settle(&mut search);
        assert_eq!(search.mtu(), passes);
        assert!(took < 7.0, "{passes} after {took} s");
    }
}

#[test]
fn an_idle_path_is_looked_at_seldom_and_at_once_when_it_is_in_use_again() {
    let (mut path, mut search) = (Path::new(1_500), Search::new(false, 1_500));
    path.settle(&mut search);
    let probes = |path: &mut Path, search: &mut Search, seconds| {
        let before = path.probes;
        path.go(search, seconds, 0.0);
        path.probes - before
    };
    assert_eq!(probes(&mut path, &mut search, 300), 9, "each comes after the last answer");
    path.idle = true;
    assert_eq!(probes(&mut path, &mut search, 3_000), 5);
    probes(&mut path, &mut search, 60);
    path.idle = false;
    assert_eq!(probes(&mut path, &mut search, 1), 1);
    assert_eq!((search.mtu(), search.is_settled()), (1_500, true));
}

#[test]
fn a_path_that_does_not_take_the_base_is_searched_below_it() {
    for passes in [LEAST4, 700, 1_000, 1_199, BASE4, 1_203] {
        let (mut path, mut search) = (Path::new(passes), Search::new(false, 1_500));
        let took = path.settle(&mut search);
        let found = search.mtu();
        assert!(found <= passes && found + GRAIN >= passes, "{found} of {passes}");
        assert!(took < 15.0, "{passes} after {took} s");
        // It passes more, or less, later.
        path.passes = 1_500;
        path.go(&mut search, 70, 0.0);
        assert_eq!(search.mtu(), 1_500);
        path.passes = 600;
        path.go(&mut search, 60, 0.0);
        assert!((600 - GRAIN..=600).contains(&search.mtu()), "{}", search.mtu());
    }
    // What passes nothing is left at the least, and so is IPv6.
    for (is_v6, least) in [(false, LEAST4), (true, BASE6)] {
        let (mut path, mut search) = (Path::new(500), Search::new(is_v6, 1_500));
        path.settle(&mut search);
        assert_eq!(search.mtu(), least);
    }
}

#[test]
fn a_black_hole_is_found_by_losses_within_two_seconds_and_without_them_within_a_minute() {
    for (loss, seconds) in [(0.3, 2), (0.0, 60)] {
        let (mut path, mut search) = (Path::new(1_500), Search::new(true, 1_500));
        path.settle(&mut search);
        path.go(&mut search, 20, 0.0);
        path.passes = 1_420;
        let begin = path.now;
        while search.mtu() > 1_420 {
            path.tick(&mut search, loss);
        }
        // On a path that loses much, more probes are sent before one is believed.
        assert!(path.now - begin <= seconds * SECOND, "{} s", (path.now - begin) / SECOND);
        // Packets of the session are not made shorter before it is known how short.
        assert_eq!((search.mtu(), search.is_settled()), (BASE6, false));
        path.go(&mut search, 10, 0.0);
        assert_eq!(search.mtu(), 1_420);
    }
}

#[test]
fn a_path_that_passes_more_again_is_used_again() {
    let (mut path, mut search) = (Path::new(1_400), Search::new(false, 1_500));
    path.settle(&mut search);
    path.passes = 1_500;
    path.go(&mut search, 70, 0.0);
    assert_eq!(search.mtu(), 1_500);
}

#[test]
fn what_is_known_costs_next_to_nothing() {
    let (mut path, mut search) = (Path::new(1_400), Search::new(false, 1_500));
    path.settle(&mut search);
    let before = path.probes;
    path.go(&mut search, 3_600, 0.0);
    let probes = path.probes - before;
    assert_eq!(search.mtu(), 1_400);
    assert!((110..260).contains(&probes), "{probes} in an hour");
}

#[test]
fn a_path_that_does_not_answer_at_all_is_no_black_hole() {
    let (mut path, mut search) = (Path::new(1_500), Search::new(false, 1_500));
    path.settle(&mut search);
    path.alive = false;
    let before = path.probes;
    path.go(&mut search, 120, 1.0);
    assert_eq!((search.mtu(), path.probes), (1_500, before));
}

#[test]
fn a_path_that_loses_some_is_not_taken_for_a_shorter_one() {
    for seed in 1..40 {
        let (mut path, mut search) = (Path::new(1_500), Search::new(false, 1_500));
        (path.loss, path.seed) = (0.3, seed << 20 | 0x5851);
        path.settle(&mut search);
        assert_eq!(search.mtu(), 1_500, "{seed}");
        path.go(&mut search, 60, 0.3);
        assert_eq!(search.mtu(), 1_500, "{seed}");
    }
}

#[test]
fn another_interface_is_another_search() {
    let (mut path, mut search) = (Path::new(1_500), Search::new(false, 1_500));
    path.settle(&mut search);
    search.restart(1_280);
    assert_eq!(search.mtu(), 1_280);
    path.go(&mut search, 5, 0.0);
    assert_eq!(search.mtu(), 1_280);
    search.restart(1_500);
    path.go(&mut search, 2, 0.0);
    assert_eq!(search.mtu(), 1_500);
}

#[test]
fn inner_packets_fit_every_path_that_is_known() {
    let outer = |mtu, is_v6, settled| Outer { mtu, is_v6, settled, alive: true };
    let suite = Suite::ChaCha20Poly1305;
    assert_eq!((overhead(suite, false), overhead(Suite::Crc32, true)), (68, 80));
    let ethernet = outer(1_500, false, true);
    assert_eq!(inner(suite, &[ethernet], 0), 1_432);
    assert_eq!(inner(suite, &[ethernet, outer(1_500, true, true)], 0), 1_412);
    assert_eq!(inner(suite, &[ethernet, outer(1_400, false, true)], 0), 1_332);
    assert_eq!(inner(suite, &[ethernet, outer(FIRST, true, false)], 0), 1_432);
    assert_eq!(inner(suite, &[outer(FIRST, true, false)], 0), LEAST_INNER);
    assert_eq!(inner(suite, &[ethernet, outer(BASE4, false, true)], 0), 1_432);
    assert_eq!(inner(suite, &[], 0), LEAST_INNER);
    // And so does their parity, where it can.
    assert_eq!(inner(suite, &[ethernet], 61), 1_371);
    assert_eq!(inner(suite, &[outer(1_400, false, true)], 61), LEAST_INNER);
    assert_eq!(inner(suite, &[outer(1_200, false, true)], 61), 1_132);
}

#[test]
fn packets_are_shorter_than_ipv6_needs_only_while_narrow_paths_live_alone() {
    let suite = Suite::ChaCha20Poly1305;
    let path = |mtu, alive| Outer { mtu, is_v6: false, settled: true, alive };
    let [wide, narrow, narrower] = [1_500, BASE4, 1_000].map(|mtu| path(mtu, true));
    let dead = Outer { alive: false, ..wide };
    assert_eq!(inner(suite, &[wide, narrow, narrower], 0), 1_432);
    assert_eq!(inner(suite, &[dead, narrow], 0), 1_132);
    assert_eq!(inner(suite, &[dead, narrow, narrower], 0), 932);
    assert_eq!(inner(suite, &[dead, narrow, Outer { alive: false, ..narrower }], 0), 1_132);
    // What is enough for the one family of outer packets is not for the other.
    assert_eq!(inner(suite, &[path(1_348, true)], 0), LEAST_INNER);
    assert_eq!(inner(suite, &[path(1_347, true)], 0), LEAST_INNER - 1);
    assert_eq!(inner(suite, &[Outer { is_v6: true, ..path(1_367, true) }], 0), LEAST_INNER - 1);
    // Before it is known how narrow one is, nothing is made so short.
    assert_eq!(inner(suite, &[Outer { settled: false, ..narrow }], 0), LEAST_INNER);
    assert_eq!(inner(suite, &[wide, Outer { settled: false, ..narrow }], 0), 1_432);
    // When none lives, all may come back.
    assert_eq!(inner(suite, &[dead, Outer { alive: false, ..narrow }], 0), 1_432);
    assert_eq!(inner(suite, &[Outer { alive: false, ..narrow }], 0), 1_132);
}

proptest! {
    #[test]
    fn what_is_found_passes_and_is_nearly_all_that_does(
        passes in LEAST4..9_001, most in 1_400u32..9_001, is_v6: bool,
    ) {
        let passes = if is_v6 { passes.max(BASE6) } else { passes };
        let (mut path, mut search) = (Path::new(passes), Search::new(is_v6, most));
        path.settle(&mut search);
        let all = passes.min(most);
        prop_assert!(search.mtu() <= all);
        prop_assert!(search.mtu() + GRAIN >= all, "{} of {all}", search.mtu());
    }

    #[test]
    fn any_facts_are_taken(
        facts in prop::collection::vec((any::<bool>(), any::<u32>(), any::<u32>(), any::<u32>()), 0..100),
        most in 0u32..70_000,
    ) {
        let mut search = Search::new(false, most);
        for (number, (alive, rtt, sized, sized_at)) in (1u64..).zip(facts) {
            let (rtt, sized_at) = (u64::from(rtt), u64::from(sized_at));
            let facts = Facts { alive, idle: false, rtt, sized, sized_at, loss: 0.0 };
            let probe = search.poll(number * SECOND, &facts);
            prop_assert!(probe.is_none_or(|length| length <= most));
            prop_assert!(search.mtu() <= most);
        }
    }
}
