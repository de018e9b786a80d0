use super::*;
use proptest::prelude::*;

const A: MethodId = MethodId(0);
const B: MethodId = MethodId(1);
const C: MethodId = MethodId(2);
const RTT: Duration = Duration::from_millis(20);
const ANSWERED: Outcome = Outcome::Answered(RTT);

/// What happens, and when, in ms.
#[derive(Clone, Copy, Debug)]
enum Event {
    Result(MethodId, Outcome),
    Traffic(Evidence),
}

/// What counts in the end, of methods that usually answer and do not lie.
fn counted(events: &[(u64, Event)]) -> Vec<(MethodId, Counted)> {
    counted_among(events, |_| Standing { answers: true, lies: false })
}

fn counted_among(
    events: &[(u64, Event)],
    standing: impl Fn(MethodId) -> Standing,
) -> Vec<(MethodId, Counted)> {
    let start = Instant::now();
    let mut ledger = Ledger::default();
    for &(ms, event) in events {
        let at = start + Duration::from_millis(ms);
        match event {
            Event::Result(method, outcome) => ledger.result(at, method, outcome),
            Event::Traffic(evidence) => ledger.evidence(at, evidence),
        }
    }
    let end = start + Duration::from_secs(100_000);
    std::iter::from_fn(|| ledger.settle(end, &standing)).collect()
}

fn failures(counted: &[(MethodId, Counted)], method: MethodId) -> usize {
    counted.iter().filter(|&&one| one == (method, Counted::Failed)).count()
}

const FAILS: Event = Event::Result(A, Outcome::Failed);
const BYTES: Event = Event::Traffic(Evidence::BytesBack);
const SILENCE: Event = Event::Traffic(Evidence::SilenceUnderTraffic);

#[test]
fn a_failure_counts_if_bytes_came_back_before_and_after() {
    let all = [(0, BYTES), (100, FAILS), (200, BYTES)];
    assert_eq!(counted(&all), [(A, Counted::Failed)]);
    assert_eq!(counted(&all[..2]), []);
    assert_eq!(counted(&all[1..]), []);
}

#[test]
fn a_failure_counts_if_another_method_answered_before_and_after() {
    let answers = |ms| (ms, Event::Result(B, ANSWERED));
    let all = [answers(0), (100, FAILS), answers(200)];
    assert_eq!(failures(&counted(&all), A), 1);
    assert_eq!(failures(&counted(&all[..2]), A), 0);
    // Its own answers are no evidence against it: so loses a link.
    let own = |ms| (ms, Event::Result(A, ANSWERED));
    assert_eq!(failures(&counted(&[own(0), (100, FAILS), own(200)]), A), 0);
}

#[test]
fn what_is_further_away_than_the_window_says_nothing() {
    let window = u64::try_from(WINDOW.as_millis()).unwrap_or_default();
    for (distance, count) in [(window, 1), (window + 1, 0)] {
        let events = [(10_000 - distance, BYTES), (10_000, FAILS), (10_000 + distance, BYTES)];
        assert_eq!(failures(&counted(&events), A), count, "{distance}");
    }
}

#[test]
fn one_answer_is_outvoted_by_two_that_usually_answer_and_do_not() {
    let around = |ms, c: Outcome| [(ms, Event::Result(B, ANSWERED)), (ms + 1, Event::Result(C, c))];
    let events = |c| [&around(0, c)[..], &[(100, FAILS)], &around(200, c)].concat();
    assert_eq!(failures(&counted(&events(ANSWERED)), A), 1);
    assert_eq!(failures(&counted(&events(Outcome::Failed)), A), 0);
    // What never answers has no vote.
    let filtered = |method| Standing { answers: method != C, lies: false };
    assert_eq!(failures(&counted_among(&events(Outcome::Failed), filtered), A), 1);
}

#[test]
fn the_answers_of_a_known_liar_are_evidence_for_nothing() {
    let answers = |ms| (ms, Event::Result(B, ANSWERED));
    let liar = |method| Standing { answers: true, lies: method == B };
    let events = [answers(0), (100, FAILS), answers(200)];
    assert_eq!(failures(&counted_among(&events, liar), A), 0);
}

#[test]
fn an_answer_while_traffic_and_another_method_say_dead_is_a_lie() {
    let dead = |ms| [(ms, SILENCE), (ms + 1, Event::Result(B, Outcome::Failed))];
    let answers = [(100, Event::Result(A, ANSWERED))];
    let all = [&dead(0)[..], &answers, &dead(200)].concat();
    assert!(counted(&all).contains(&(A, Counted::Lied)));
    // At the end of an outage it is the first to say the truth.
    for end in [BYTES, Event::Result(C, ANSWERED)] {
        let truth = [&all[..], &[(300, end)]].concat();
        assert!(counted(&truth).contains(&(A, Counted::Answered(RTT))), "{end:?}");
    }
    // Silence alone is traffic to nobody; a failure alone is a broken method.
    for one in 0..2 {
        let half = [&dead(0)[one..=one], &answers, &dead(200)[one..=one]].concat();
        assert!(counted(&half).contains(&(A, Counted::Answered(RTT))), "{one}");
    }
}

#[test]
fn nothing_counts_before_the_window_is_over() {
    let start = Instant::now();
    let mut ledger = Ledger::default();
    let standing = |_| Standing { answers: true, lies: false };
    ledger.result(start, A, ANSWERED);
    assert_eq!(ledger.settle(start + WINDOW - RTT, standing), None);
    assert_eq!(ledger.settle(start + WINDOW, standing), Some((A, Counted::Answered(RTT))));
    assert_eq!(ledger.settle(start + WINDOW, standing), None);
}

proptest! {
    /// Of an outage that is longer than both windows no method has a bad mark,
    /// whatever was asked when.
    #[test]
    fn an_outage_costs_no_truthful_method_anything(
        outage in 6_001u64..60_000, rounds in prop::collection::vec((50u64..400, 0u8..3), 50..400),
        traffic in any::<bool>(),
    ) {
        let cut = 5_000..5_000 + outage;
        let (mut ms, mut events) = (0, Vec::new());
        for (wait, method) in rounds {
            ms += wait;
            let dead = cut.contains(&ms);
            let outcome = if dead { Outcome::Failed } else { ANSWERED };
            events.push((ms, Event::Result(MethodId(method), outcome)));
            let evidence = if dead { SILENCE } else { BYTES };
            events.extend(traffic.then_some((ms, evidence)));
        }
        let bad = |one: &&(MethodId, Counted)| !matches!(one.1, Counted::Answered(_));
        let counted = counted(&events);
        prop_assert_eq!(counted.iter().find(bad), None);
    }

    /// The ledger keeps no more than the windows need.
    #[test]
    fn what_is_judged_and_old_is_forgotten(rounds in 1_000u64..5_000) {
        let start = Instant::now();
        let mut ledger = Ledger::default();
        for round in 0..rounds {
            let now = start + Duration::from_millis(100) * u32::try_from(round).unwrap_or(0);
            ledger.result(now, A, ANSWERED);
            while ledger.settle(now, |_| Standing { answers: true, lies: false }).is_some() {}
        }
        prop_assert!(ledger.seen.len() <= 62, "{}", ledger.seen.len());
    }
}
