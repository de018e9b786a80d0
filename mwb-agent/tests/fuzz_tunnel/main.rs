//! What the agent reads from the network, under a fuzzer on the host: packets that an
//! end of the tunnel has made are spoilt, and given to who reads them. The contracts:
//!
//! 1. Nothing panics, whatever the bytes and however many.
//! 2. What is made is read as it was made, and what is read is made again to the same
//!    bytes: no two texts say the same. It is read if, and only if, docs/protocol.md
//!    says so; `plain` has its words in code of its own.
//! 3. Nothing is read whose length is not that of what it says that it is.
//! 4. Of a sealed message any change is noticed, and a message that is refused changes
//!    nothing: the one that it was made from is still taken, once.
//! 5. A handshake comes to an end only by the packets that it was made of. But for MAC
//!    2, at which a server that is not under load does not look; and path and index are
//!    under MAC 1 only, which anybody can make: nothing follows from them.
//!
//! Without being told a run is short, and the same every time. `cargo xtask fuzz
//! tunnel` makes it long, by the variables `MWB_FUZZ_…`.

mod envelope;
mod handshake;
mod plain;
mod spoil;

#[path = "../fuzz_programs/plan.rs"]
#[expect(dead_code, reason = "a run here writes no files and has one worker")]
mod plan;
#[path = "../fuzz_programs/random.rs"]
mod random;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use crate::plan::Plan;
use crate::random::Random;

/// Inputs of a run that nobody has told how long to be, over all forms.
const SHORT: u64 = 100_000;
/// The seed of such a run.
const SEED: u64 = 0x6d77_6220;

/// How inputs ended.
type Tally = BTreeMap<&'static str, u64>;

/// What is read.
#[derive(Clone, Copy, Debug)]
enum Form {
    Header,
    Message,
    Envelope,
    Handshake,
}

const FORMS: [(&str, Form); 4] = [
    ("header", Form::Header),
    ("message", Form::Message),
    ("envelope", Form::Envelope),
    ("handshake", Form::Handshake),
];

/// Some inputs of a form; says what was wrong.
type Turn = Box<dyn FnMut(&mut Random, &mut Tally) -> Result<(), String>>;

impl Form {
    fn begin(self) -> Turn {
        match self {
            Form::Header => Box::new(plain::header),
            Form::Message => Box::new(plain::message),
            Form::Envelope => {
                let mut pair = envelope::Pair::new();
                Box::new(move |random, tally| pair.turn(random, tally))
            }
            Form::Handshake => {
                let mut world = handshake::World::new();
                Box::new(move |random, tally| world.turn(random, tally))
            }
        }
    }

    fn name(self) -> &'static str {
        FORMS[self as usize].0
    }

    /// How its inputs must have ended, or the fuzzer does not get in.
    fn ends(self) -> &'static [&'static str] {
        match self {
            Form::Header => &["read", "version", "malformed"],
            Form::Message => &["join", "joined", "down", "leave", "unknown", "length", "field"],
            Form::Envelope => &["opened", "malformed", "bad_check", "replayed"],
            Form::Handshake => &[
                "answered",
                "established",
                "cookie",
                "cookie_wanted",
                "malformed",
                "no_initiation",
                "wrong_mac",
                "bad_noise",
                "replayed",
                "other_index",
                "bad_cookie",
                "bad_payload",
            ],
        }
    }
}

fn count(tally: &mut Tally, end: &'static str) {
    *tally.entry(end).or_default() += 1;
}

#[test]
fn spoilt_packets_break_no_contract() {
    let plan = Plan::read(SEED, SHORT);
    let forms = plan.forms(&FORMS);
    let share = (plan.inputs / forms.len() as u64).max(1);
    let mut random = Random::new(plan.seed);
    let mut runs: Vec<(Form, Turn, Tally)> =
        forms.into_iter().map(|form| (form, form.begin(), Tally::new())).collect();
    let started = Instant::now();
    let done = |tally: &Tally| tally.values().sum::<u64>();
    // In turn, so that a run that is bounded by time has some of each.
    while runs.iter().any(|(.., tally)| !plan.is_over(done(tally), share)) {
        for (form, turn, tally) in &mut runs {
            let from = random.clone();
            let left = done(tally) < share;
            let result = catch_unwind(AssertUnwindSafe(|| {
                if left { turn(&mut random, tally) } else { Ok(()) }
            }));
            let Ok(Ok(())) = result else {
                let after = done(tally);
                panic!("{}, seed {}, after {after}: {from:?}, {result:?}", form.name(), plan.seed);
            };
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    let inputs: u64 = runs.iter().map(|(.., tally)| done(tally)).sum();
    let each = inputs as f64 / seconds;
    println!("{inputs} packets, {seconds:.1} s, {each:.0} a second, seed {}", plan.seed);
    for (form, _, tally) in &runs {
        for (end, packets) in tally {
            println!("{:<9} {end:<26} {packets:>12}", form.name());
        }
    }
    for (form, _, tally) in &runs {
        let never = |end: &&&str| !tally.contains_key(**end);
        let missing: Vec<_> = form.ends().iter().filter(never).collect();
        let short = done(tally) < SHORT / 10;
        assert!(short || missing.is_empty(), "no {} ended as {missing:?}", form.name());
    }
}
