//! An episode of a bond: what leaves one end comes to the other, as it is, spoilt, or
//! both, sooner or later, once or again.

use super::record::Step;
use super::setting::Setting;
use super::stage::{Pair, Stage};
use super::view::payload;
use super::{craft, form};
use crate::bond_world::{Door, Side};
use crate::campaign::{Failure, Subject, Tally};
use crate::mutate::mutate;
use crate::random::Random;

/// Packets between two changes of the setting, on average.
const UNDER_ONE_SETTING: usize = 300;
/// Frames that are kept to be sent again.
const KEPT: usize = 200;

impl Subject for Pair {
    type Step = Step;

    const TARGET: &'static str = "bond";

    fn form(&self) -> &'static str {
        form(self.suite)
    }

    fn run(&mut self, seed: u64, packets: usize) -> Result<(u64, Tally), Box<Failure<Step>>> {
        run(self, seed, packets)
    }

    fn replay(&mut self, steps: &[Step]) -> Result<u64, String> {
        let mut stage = Stage::new(self);
        for step in steps {
            stage.perform(step)?;
        }
        stage.finish().map(|(inputs, _)| inputs)
    }
}

/// A frame that comes from a WAN.
#[derive(Clone)]
struct Frame {
    to: Side,
    wan: u8,
    bytes: Vec<u8>,
}

/// What comes next.
struct Next {
    random: Random,
    /// On their way, the next one last.
    queue: Vec<Step>,
    /// Genuine ones of before.
    kept: Vec<Frame>,
}

fn run(pair: &mut Pair, seed: u64, packets: usize) -> Result<(u64, Tally), Box<Failure<Step>>> {
    let mut random = Random::new(seed);
    let mut setting = Setting::any(&mut random);
    let mut next = Next { random, queue: Vec::new(), kept: Vec::new() };
    let mut stage = Stage::new(pair);
    let mut steps = vec![Step::Set(setting)];
    let fail = |wrong, steps| Box::new(Failure { wrong, steps });
    while let Some(step) = steps.last() {
        if let Err(wrong) = stage.perform(step) {
            return Err(fail(wrong, steps));
        }
        if steps.len() > packets {
            break;
        }
        if let Some(sent) = stage.sent.take() {
            next.travel(&stage, Frame { to: sent.to, wan: sent.wan, bytes: sent.frame });
        }
        if next.random.below(UNDER_ONE_SETTING) == 0 {
            setting = setting.another(&mut next.random);
            steps.push(Step::Set(setting));
            continue;
        }
        let step = next.step(&stage);
        steps.push(step);
    }
    stage.finish().map_err(|wrong| fail(wrong, steps))
}

impl Next {
    /// What was sent comes to the far end: a spoilt copy before it, or after it, or in
    /// its place, or none.
    fn travel(&mut self, stage: &Stage<'_>, frame: Frame) {
        let whole = Step::Outside(frame.to, frame.wan, true, frame.bytes.clone());
        let mut steps = Vec::new();
        for _ in 0..self.random.below(3) {
            steps.push(self.spoilt(stage, &frame));
        }
        if self.random.chance(90) {
            let place = self.random.below(steps.len() + 1);
            steps.insert(place, whole);
        }
        self.queue.extend(steps);
        self.keep(frame);
    }

    fn keep(&mut self, frame: Frame) {
        if self.kept.len() < KEPT {
            self.kept.push(frame);
        } else {
            let place = self.random.below(KEPT);
            self.kept[place] = frame;
        }
    }

    fn spoilt(&mut self, stage: &Stage<'_>, frame: &Frame) -> Step {
        let mut bytes = frame.bytes.clone();
        craft::spoil(&mut self.random, stage.suite(), frame.to, &mut bytes);
        let genuine = payload(&bytes).is_some_and(|sealed| payload(&frame.bytes) == Some(sealed));
        Step::Outside(frame.to, frame.wan, genuine, bytes)
    }

    fn step(&mut self, stage: &Stage<'_>) -> Step {
        if let Some(step) = self.queue.pop() {
            return step;
        }
        let random = &mut self.random;
        let side = *random.pick(&[Side::Gateway, Side::Gateway, Side::Server]);
        match random.below(20) {
            0 => Step::Good(side),
            1 => Step::Inside(side, Door::Device, craft::ticked(random, side)),
            2 if !self.kept.is_empty() => {
                let frame = random.pick(&self.kept).clone();
                Step::Outside(frame.to, frame.wan, true, frame.bytes)
            }
            3 if !self.kept.is_empty() => {
                let frame = random.pick(&self.kept).clone();
                self.spoilt(stage, &frame)
            }
            4..10 => {
                let seen = &stage.seen[side as usize];
                let sent = stage.seen[side.other() as usize].newest(1);
                let (wan, bytes) = craft::sealed(random, stage.suite(), side, seen, sent);
                let frame = Frame { to: side, wan, bytes };
                if self.random.chance(25) {
                    return self.spoilt(stage, &frame);
                }
                self.keep(frame.clone());
                Step::Outside(side, wan, true, frame.bytes)
            }
            _ => {
                let lan = side == Side::Gateway && random.chance(60);
                let door = if lan { Door::Lan } else { Door::Device };
                let mut frame = craft::inner(random, side, door);
                if random.chance(40) {
                    mutate(random, &mut frame);
                }
                Step::Inside(side, door, frame)
            }
        }
    }
}
