use super::*;
use proptest::prelude::*;

const PING: MethodId = MethodId(0);
const DNS: MethodId = MethodId(1);
const HTTP: MethodId = MethodId(2);
const METHODS: [MethodId; 3] = [PING, DNS, HTTP];
const ROUND: Duration = Duration::from_millis(200);

/// A run of rounds; what each method does is asked of `link`.
struct Run {
    auto: Auto,
    now: Instant,
    asked: Vec<MethodId>,
    switches: Vec<Switch>,
}

impl Run {
    fn new(seed: u64) -> Self {
        let now = Instant::now();
        let Some(auto) = Auto::new(&METHODS, now, seed) else { unreachable!("methods given") };
        Self { auto, now, asked: Vec::new(), switches: Vec::new() }
    }

    fn rounds(
        &mut self,
        count: usize,
        evidence: Option<Evidence>,
        mut link: impl FnMut(MethodId) -> Option<u64>,
    ) {
        for _ in 0..count {
            let method = self.auto.next(self.now);
            self.asked.push(method);
            self.now += ROUND;
            if let Some(evidence) = evidence {
                self.auto.evidence(self.now, evidence);
            }
            let outcome = link(method)
                .map_or(Outcome::Failed, |ms| Outcome::Answered(Duration::from_millis(ms)));
            self.auto.result(self.now, method, outcome);
            self.switches.extend(self.auto.evaluate(self.now));
        }
    }

    fn score(&self, method: MethodId) -> Score {
        let scores = self.auto.scores();
        let Some(score) = scores.into_iter().find(|score| score.method == method) else {
            unreachable!("a score for each method")
        };
        score
    }
}

const MINUTE: usize = 300;
const BYTES: Option<Evidence> = Some(Evidence::BytesBack);
const SILENCE: Option<Evidence> = Some(Evidence::SilenceUnderTraffic);

fn well(_: MethodId) -> Option<u64> {
    Some(20)
}

#[test]
fn without_a_method_there_is_no_choice_and_with_one_it_is_asked() {
    let now = Instant::now();
    assert!(Auto::new(&[], now, 1).is_none());
    let auto = Auto::new(&[HTTP, HTTP], now, 1);
    let asked = auto.map(|mut auto| {
        auto.result(now, HTTP, Outcome::Failed);
        (0..50).map(|_| auto.next(now)).collect::<Vec<_>>()
    });
    assert_eq!(asked, Some(vec![HTTP; 50]));
}

#[test]
fn one_round_of_ten_asks_the_others_in_turn() {
    let mut run = Run::new(1);
    run.rounds(1000, BYTES, well);
    for tenth in run.asked.chunks(10) {
        assert_eq!(tenth.iter().filter(|method| **method != PING).count(), 1, "{tenth:?}");
    }
    let others: Vec<MethodId> =
        run.asked.iter().copied().filter(|method| *method != PING).collect();
    assert!(others.chunks(2).all(|pair| pair == [DNS, HTTP]), "{others:?}");
}

#[test]
fn reliability_is_of_success_and_latency() {
    let mut run = Run::new(1);
    run.rounds(MINUTE, BYTES, |method| Some(if method == PING { 100 } else { 300 }));
    // 0.7 + 0.3 / 2, and 0.7 + 0.3 / 4.
    let ping = run.score(PING);
    assert!((ping.reliability - 0.85).abs() < 1e-9, "{ping:?}");
    assert!((run.score(DNS).reliability - 0.775).abs() < 1e-9);
    assert_eq!(ping.latency, Some(Duration::from_millis(100)));
    assert_eq!((ping.tried, ping.present), (ping.answered, true));
}

#[test]
fn a_filtered_method_is_left_at_the_next_evaluation() {
    for evidence in [BYTES, None] {
        let mut run = Run::new(2);
        run.rounds(2 * MINUTE, evidence, |method| (method != PING).then_some(20));
        let [switch] = &run.switches[..] else { unreachable!("{:?}", run.switches) };
        assert_eq!(switch.from, PING);
        assert!(matches!(switch.why, Why::Better(is, was) if is > 0.9 && was < 0.1), "{switch:?}");
        assert_eq!(run.auto.present(), switch.to);
    }
}

#[test]
fn the_best_other_method_is_asked_in_the_round_after_a_failure_is_known() {
    let mut run = Run::new(3);
    run.rounds(MINUTE / 2, None, |method| (method != HTTP).then_some(20));
    let before = run.asked.len();
    run.rounds(30, None, |method| (method == DNS).then_some(20));
    let since = &run.asked[before..];
    let Some(first) = since.iter().position(|method| *method == PING) else {
        unreachable!("{since:?}")
    };
    assert_eq!(since[first + 1..first + 7], [DNS, HTTP, PING, DNS, HTTP, PING]);
}

#[test]
fn a_link_that_is_down_for_half_a_minute_spoils_no_score() {
    for evidence in [SILENCE, None] {
        let mut run = Run::new(4);
        run.rounds(MINUTE, evidence.and(BYTES), well);
        let before = run.auto.scores();
        run.rounds(MINUTE / 2, evidence, |_| None);
        run.rounds(MINUTE, evidence.and(BYTES), well);
        for (score, before) in run.auto.scores().iter().zip(before) {
            assert!(score.reliability >= before.reliability - 1e-9, "{score:?}");
            assert_eq!((score.tried, score.lies), (score.answered, 0));
        }
        assert_eq!(run.switches, []);
    }
}

#[test]
fn a_slightly_better_method_is_not_switched_to() {
    let mut run = Run::new(5);
    // 0.90 against 0.95: http for ping, say.
    run.rounds(20 * MINUTE, BYTES, |method| Some(if method == PING { 50 } else { 20 }));
    assert_eq!(run.switches, []);
    // 0.77 against 0.95 is clear.
    run.rounds(2 * MINUTE, BYTES, |method| Some(if method == PING { 320 } else { 20 }));
    assert_eq!(run.switches.len(), 1);
}

#[test]
fn a_liar_is_left_within_seconds_of_an_outage_under_traffic_and_believed_no_more() {
    let mut run = Run::new(6);
    run.rounds(MINUTE, BYTES, well);
    let modem = |method: MethodId| (method == PING).then_some(1);
    run.rounds(50, SILENCE, modem);
    let [switch] = &run.switches[..] else { unreachable!("{:?}", run.switches) };
    assert_eq!((switch.from, switch.why), (PING, Why::Lies(3)));
    assert!(!run.auto.vouches(PING));
    assert!(run.auto.vouches(switch.to));
    // It answers well again, like any other; that makes nobody believe it.
    run.rounds(10 * MINUTE, BYTES, well);
    assert!(!run.auto.vouches(PING));
    assert_eq!(run.switches.len(), 1);
    // Lies are forgotten, one in 20 minutes.
    run.rounds(12 * MINUTE, BYTES, well);
    assert!(run.auto.vouches(PING));
    assert_eq!(run.score(PING).lies, 2);
}

#[test]
fn nobody_is_chosen_who_was_not_tried_five_times() {
    let mut run = Run::new(7);
    let mut tries = 0;
    run.rounds(4 * MINUTE, BYTES, |method| match method {
        PING => None,
        DNS => {
            tries += 1;
            (tries > 20).then_some(20)
        }
        _ => None,
    });
    for switch in &run.switches {
        assert_eq!(switch.to, DNS);
    }
    assert!(run.score(DNS).tried >= LEAST_TRIED);
    let mut fresh = Run::new(7);
    let now = fresh.now + EVALUATE_EVERY * 2;
    for count in 1..=LEAST_TRIED {
        fresh.auto.evidence(fresh.now, Evidence::BytesBack);
        fresh.auto.result(fresh.now, PING, Outcome::Failed);
        fresh.auto.result(fresh.now, DNS, Outcome::Answered(ROUND));
        fresh.auto.evidence(fresh.now, Evidence::BytesBack);
        let mut later = fresh.auto.clone();
        assert_eq!(later.evaluate(now).is_some(), count == LEAST_TRIED, "{count}");
    }
}

proptest! {
    #[test]
    fn one_seed_gives_one_run_and_every_score_is_in_range(
        seed in any::<u64>(), lost in prop::collection::vec((any::<bool>(), 1u64..2000), 50..600),
        evidence in prop::option::of(prop::bool::ANY),
    ) {
        let evidence = evidence.map(|bytes| {
            if bytes { Evidence::BytesBack } else { Evidence::SilenceUnderTraffic }
        });
        let go = || {
            let mut run = Run::new(seed);
            let mut outcomes = lost.iter();
            run.rounds(lost.len(), evidence, |_| {
                outcomes.next().and_then(|&(lost, ms)| (!lost).then_some(ms))
            });
            run
        };
        let (one, two) = (go(), go());
        prop_assert_eq!(&one.asked, &two.asked);
        prop_assert_eq!(&one.switches, &two.switches);
        for score in one.auto.scores() {
            prop_assert!((0.0..=1.0).contains(&score.reliability), "{score:?}");
            prop_assert!(score.answered <= score.tried);
        }
    }

    #[test]
    fn there_is_one_switch_a_minute_at_most_and_only_to_what_is_clearly_better(
        seed in any::<u64>(), answers in prop::collection::vec(0.0f64..1.0, 3),
    ) {
        let mut run = Run::new(seed);
        let mut random = Random::new(seed ^ 1);
        let minutes = 10;
        run.rounds(minutes * MINUTE, BYTES, |method| {
            (random.part() < answers[usize::from(method.0)]).then_some(20)
        });
        prop_assert!(run.switches.len() <= minutes);
        for switch in &run.switches {
            let clear = matches!(switch.why, Why::Better(is, was) if is > was * BETTER_BY);
            prop_assert!(clear, "{:?}", switch);
        }
    }
}
