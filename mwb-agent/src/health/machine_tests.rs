use super::*;
use proptest::prelude::*;

const SETTINGS: Settings = Settings {
    retries: 3,
    failback_after: Duration::from_secs(5),
    hold_down_max: Duration::from_secs(60),
};
const INTERVAL: Duration = Duration::from_millis(200);

fn machine() -> (Machine, Instant) {
    let now = Instant::now();
    (Machine::new(SETTINGS, now), now)
}

fn answer() -> Input {
    Input::Answer(None)
}

fn miss() -> Input {
    Input::Miss(Cause::NoAnswer)
}

fn poor() -> Input {
    Input::Answer(Some(Poor::Loss(0.1, 0.05)))
}

/// Feeds inputs one interval apart.
fn feed(machine: &mut Machine, now: &mut Instant, inputs: impl IntoIterator<Item = Input>) {
    for input in inputs {
        *now += INTERVAL;
        machine.observe(*now, input);
    }
}

#[test]
fn the_first_answer_makes_an_unknown_wan_up() {
    let (mut machine, now) = machine();
    assert!(machine.state().is_usable());
    let transition = machine.observe(now, answer());
    assert_eq!(transition.map(|t| (t.from, t.to)), Some((State::Unknown, State::Up)));
}

#[test]
fn fewer_misses_than_retries_change_nothing() {
    let (mut machine, mut now) = machine();
    feed(&mut machine, &mut now, [answer(), miss(), miss(), answer(), miss(), miss()]);
    assert_eq!(machine.state(), State::Up);
}

#[test]
fn as_many_misses_as_retries_make_it_down_with_their_cause() {
    let (mut machine, mut now) = machine();
    let unresolved = || Input::Miss(Cause::NextHopUnresolved);
    feed(&mut machine, &mut now, [answer(), unresolved(), unresolved()]);
    let transition = machine.observe(now, unresolved());
    assert_eq!(transition.map(|t| t.reason), Some(Reason::Misses(3, Cause::NextHopUnresolved)));
    assert_eq!(machine.state(), State::Down);
}

#[test]
fn a_lost_carrier_makes_it_down_at_once() {
    for start in [vec![], vec![answer()], vec![answer(), poor()]] {
        let (mut machine, mut now) = machine();
        feed(&mut machine, &mut now, start);
        assert!(machine.observe(now, Input::CarrierLost).is_some_and(|t| t.to == State::Down));
        assert_eq!(machine.reason(), &Reason::CarrierLost);
    }
}

#[test]
fn the_reason_of_a_down_wan_is_the_latest() {
    let (mut machine, mut now) = machine();
    feed(&mut machine, &mut now, [Input::DeviceMissing, Input::CarrierLost, miss(), miss()]);
    assert_eq!(machine.reason(), &Reason::CarrierLost);
    feed(&mut machine, &mut now, [miss()]);
    assert_eq!(machine.reason(), &Reason::Misses(3, Cause::NoAnswer));
}

#[test]
fn it_is_used_again_after_it_has_answered_for_the_failback_time() {
    let (mut machine, mut now) = machine();
    feed(&mut machine, &mut now, [answer(), miss(), miss(), miss(), answer()]);
    assert_eq!(machine.state(), State::Testing);
    assert!(!machine.state().is_usable());
    feed(&mut machine, &mut now, std::iter::repeat_n(answer(), 24));
    assert_eq!(machine.state(), State::Testing);
    feed(&mut machine, &mut now, [answer()]);
    assert_eq!(machine.state(), State::Up);
}

#[test]
fn an_outage_while_testing_starts_the_failback_time_anew() {
    let (mut machine, mut now) = machine();
    feed(&mut machine, &mut now, [Input::CarrierLost, answer()]);
    feed(&mut machine, &mut now, std::iter::repeat_n(answer(), 20));
    feed(&mut machine, &mut now, [miss(), miss(), miss()]);
    assert_eq!(machine.state(), State::Down);
    feed(&mut machine, &mut now, std::iter::repeat_n(answer(), 25));
    assert_eq!(machine.state(), State::Testing);
    feed(&mut machine, &mut now, [answer()]);
    assert_eq!(machine.state(), State::Up);
}

#[test]
fn a_poor_wan_is_degraded_until_it_is_good_again() {
    let (mut machine, mut now) = machine();
    feed(&mut machine, &mut now, [answer(), poor()]);
    assert_eq!(machine.state(), State::Degraded);
    assert!(machine.state().is_usable());
    feed(&mut machine, &mut now, [answer()]);
    assert_eq!(machine.state(), State::Up);
}

#[test]
fn a_wan_that_comes_back_poor_is_degraded() {
    let (mut machine, mut now) = machine();
    feed(&mut machine, &mut now, [Input::CarrierLost]);
    feed(&mut machine, &mut now, std::iter::repeat_n(poor(), 27));
    assert_eq!(machine.state(), State::Degraded);
}

#[test]
fn a_wan_that_was_down_before_a_restart_must_prove_itself() {
    let now = Instant::now();
    let mut machine = Machine::down(SETTINGS, now);
    assert!(!machine.state().is_usable());
    assert!(machine.observe(now, answer()).is_some_and(|t| t.to == State::Testing));
}

#[test]
fn a_relapse_doubles_the_time_until_it_is_used_again() {
    let (mut machine, mut now) = machine();
    feed(&mut machine, &mut now, [answer()]);
    for (relapses, hold) in [(0, 5), (1, 10), (2, 20), (3, 40), (4, 60), (5, 60)] {
        feed(&mut machine, &mut now, [Input::CarrierLost, answer()]);
        let held = machine.held();
        assert_eq!((held.relapses, held.time), (relapses, Duration::from_secs(hold)));
        assert_eq!(held.until, Some(now + held.time));
        feed(&mut machine, &mut now, std::iter::repeat_n(answer(), hold as usize * 5 - 1));
        assert_eq!(machine.state(), State::Testing);
        feed(&mut machine, &mut now, [answer()]);
        assert_eq!((machine.state(), machine.held().until), (State::Up, None));
    }
}

#[test]
fn what_flaps_between_good_and_poor_relapses_too() {
    let (mut machine, mut now) = machine();
    feed(&mut machine, &mut now, [answer(), poor(), answer(), poor()]);
    assert_eq!(machine.held().relapses, 1);
    // From there to down is the same failure.
    feed(&mut machine, &mut now, [Input::CarrierLost]);
    assert_eq!(machine.held().relapses, 1);
}

#[test]
fn a_calm_wan_forgets_its_relapses() {
    let (mut machine, mut now) = machine();
    feed(&mut machine, &mut now, [answer(), poor(), answer(), poor(), answer(), poor(), answer()]);
    assert_eq!((machine.held().relapses, machine.held().time), (2, SETTINGS.failback_after * 4));
    feed(&mut machine, &mut now, std::iter::repeat_n(answer(), 60 * 5 + 2));
    assert_eq!((machine.held().relapses, machine.held().time), (2, SETTINGS.failback_after * 2));
    feed(&mut machine, &mut now, std::iter::repeat_n(answer(), 60 * 5));
    assert_eq!((machine.held().relapses, machine.held().time), (0, SETTINGS.failback_after));
}

#[test]
fn other_settings_keep_state_and_history() {
    let (mut machine, mut now) = machine();
    feed(&mut machine, &mut now, [answer(), poor(), answer(), Input::CarrierLost, answer()]);
    assert_eq!(machine.state(), State::Testing);
    machine.configure(Settings { failback_after: Duration::from_secs(1), ..SETTINGS });
    assert_eq!(machine.state(), State::Testing);
    assert_eq!((machine.held().relapses, machine.held().time), (1, Duration::from_secs(2)));
    feed(&mut machine, &mut now, std::iter::repeat_n(answer(), 10));
    assert_eq!(machine.state(), State::Up);
}

fn input() -> impl Strategy<Value = Input> {
    prop_oneof![
        6 => Just(answer()),
        6 => Just(miss()),
        2 => Just(poor()),
        1 => Just(Input::Miss(Cause::NextHopUnresolved)),
        1 => Just(Input::CarrierLost),
        1 => Just(Input::DeviceMissing),
    ]
}

fn is_answer(input: &Input) -> bool {
    matches!(input, Input::Answer(_))
}

proptest! {
    #[test]
    fn the_state_agrees_with_the_history(inputs in prop::collection::vec(input(), 1..200)) {
        let (mut machine, mut now) = machine();
        let mut history: Vec<(Input, State)> = Vec::new();
        for input in inputs {
            now += INTERVAL;
            let before = machine.state();
            let hold = machine.held().time;
            let transition = machine.observe(now, input.clone());
            let after = machine.state();
            // A transition is told exactly when the state changes.
            prop_assert_eq!(transition.as_ref().map(|t| (t.from, t.to)), (before != after).then_some((before, after)));
            history.push((input.clone(), after));

            let answers = history.iter().rev().take_while(|(input, _)| is_answer(input)).count();
            let silent = history.iter().rev().take_while(|(input, _)| !is_answer(input)).count();
            // Nothing unanswered for `retries` probes is usable or tested.
            if silent >= SETTINGS.retries as usize {
                prop_assert_eq!(after, State::Down);
            }
            // An answer never leaves a WAN down, a miss never brings one up.
            if answers > 0 {
                prop_assert_ne!(after, State::Down);
            } else {
                prop_assert!(after == before || after == State::Down);
            }
            // Leaving never waits, however long the return takes.
            if matches!(input, Input::CarrierLost | Input::DeviceMissing) {
                prop_assert_eq!(after, State::Down);
            }
            prop_assert!(hold >= SETTINGS.failback_after && hold <= SETTINGS.hold_down_max);
            // From an outage to use it takes the hold-down.
            if !before.is_usable() && after.is_usable() {
                let testing = history.iter().rev().skip(1).take_while(|(_, state)| *state == State::Testing).count();
                prop_assert!(INTERVAL * testing as u32 >= hold);
            }
        }
    }
}
