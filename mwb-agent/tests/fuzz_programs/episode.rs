//! An episode: a gateway that knows nothing, some thousand packets, and the
//! counters at its end. What comes builds on what has left, so that flows are
//! met, answered, spoken of in errors, cut into fragments; then most of it is
//! spoilt a little.

use mwb_agent::dataplane::CounterRow;
use mwb_common::maps::Direction;
use mwb_common::reason::{Reason, Verdict as Meant};

use crate::campaign::{Failure, Subject, Tally};
use crate::check::{Left, check};
use crate::craft;
use crate::engine::{Engine, From, Outcome, Setting, Verdict};
use crate::model::Model;
use crate::mutate::mutate;
use crate::random::Random;
use crate::record::Step;
use crate::view::{Part, View};
use crate::{moved, world};

/// MTU of the device that inside hosts are behind.
const LAN_MTU: u16 = 1_500;
/// Packets between two changes of the setting, on average.
const UNDER_ONE_SETTING: usize = 400;

/// How the packets of one direction ended.
#[derive(Clone, Copy, Debug, Default)]
struct Ends {
    kernel: u64,
    dropped: u64,
    forwarded: u64,
    answered: u64,
    /// Fragments that were dropped, or wait, or have gone in again.
    fragments: u64,
    /// Of what was dropped, what may have been sent in pieces.
    divisible: u64,
    bytes: u64,
}

/// A gateway in the middle of an episode.
struct Stage<'a> {
    engine: &'a mut Engine,
    model: Model,
    ends: [Ends; 2],
    inputs: u64,
    before: Vec<CounterRow>,
    waiting: u64,
}

impl<'a> Stage<'a> {
    fn new(engine: &'a mut Engine) -> Result<Self, String> {
        engine.reset()?;
        let (before, waiting) = (engine.counters()?, engine.waiting()?);
        let ends = [Ends::default(); 2];
        Ok(Stage { engine, model: Model::default(), ends, inputs: 0, before, waiting })
    }

    fn perform(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Set(setting) => {
                for path in [1, 2] {
                    if setting.path(path).generation != self.engine.setting.path(path).generation {
                        self.model.redial(path);
                    }
                }
                self.engine.apply(*setting)
            }
            Step::Packet(from, packet) => self.packet(*from, packet),
        }
    }

    fn packet(&mut self, from: From, packet: &[u8]) -> Result<(), String> {
        if !self.engine.takes(packet) {
            return Ok(());
        }
        let outcome = self.engine.run(from, packet)?;
        let left = check(&self.engine.setting, &mut self.model, from, packet, &outcome)?;
        self.note(from, packet, &outcome, left);
        if let Some(Left::Turned(path)) = left {
            return self.packet(From::Turned(path), &outcome.packet).map_err(|wrong| {
                format!("turned round as {}: {wrong}", crate::engine::hex(&outcome.packet))
            });
        }
        Ok(())
    }

    fn note(&mut self, from: From, packet: &[u8], outcome: &Outcome, left: Option<Left>) {
        self.inputs += 1;
        let ends = &mut self.ends[from.direction() as usize];
        ends.bytes += packet.len() as u64;
        match (outcome.verdict, left) {
            (Verdict::Kernel, _) => ends.kernel += 1,
            (Verdict::Drop, _) => {
                ends.dropped += 1;
                if let Some(view) = View::of(packet) {
                    ends.fragments += u64::from(view.part != Part::Whole);
                    let size = view.end - view.network;
                    let mtu = usize::from(self.engine.setting.mtu.min(LAN_MTU));
                    ends.divisible += u64::from(size > mtu && view.is_divisible(packet));
                }
            }
            (Verdict::Redirect, Some(Left::Answered)) => ends.answered += 1,
            (Verdict::Redirect, _) => ends.forwarded += 1,
        }
    }

    /// Every packet is counted exactly once, under a reason that means what has
    /// happened to it.
    fn finish(self) -> Result<(u64, Tally), String> {
        let waiting = self.engine.waiting()?;
        let moved = moved::difference(&self.before, self.engine.counters()?);
        let mut tally = Tally::new();
        let (mut silent, mut pieces) = (0, 0);
        for direction in Direction::ALL {
            let ends = self.ends[direction as usize];
            let counted = |meant: Meant| -> u64 {
                let rows = moved.iter().filter(|row| row.direction == direction);
                rows.filter(|row| row.reason.verdict() == meant).map(|row| row.packets).sum()
            };
            let equal = |what: &str, counted: u64, seen: u64| {
                if counted == seen {
                    return Ok(());
                }
                let rows: Vec<_> = moved
                    .iter()
                    .filter(|row| row.direction == direction && row.packets > 0)
                    .map(|row| (row.path, row.reason.name(), row.protocol, row.packets))
                    .collect();
                Err(format!("{} packets {what}, {counted} counted: {rows:?}", seen))
            };
            equal("left to the kernel", counted(Meant::Kernel), ends.kernel)?;
            // What is sent in pieces has no packet left to send on.
            let forwarded = counted(Meant::Forward);
            let divided = forwarded.saturating_sub(ends.forwarded);
            if divided > ends.divisible {
                equal("sent on", forwarded, ends.forwarded)?;
            }
            equal("sent on", forwarded, ends.forwarded + divided)?;
            pieces += divided;
            // A fragment that waits is counted when it comes in again, or is
            // dropped in the end: neither is seen by this episode.
            let dropped = counted(Meant::Drop);
            let gone = ends.dropped + ends.answered - divided;
            if dropped > gone + self.waiting || dropped + ends.fragments < gone {
                equal("dropped or answered", dropped, gone)?;
            }
            silent += gone.saturating_sub(dropped);
            let bytes: u64 =
                moved.iter().filter(|row| row.direction == direction).map(|row| row.bytes).sum();
            if bytes > ends.bytes + self.waiting * 2_048 {
                equal("bytes came", bytes, ends.bytes)?;
            }
        }
        if silent + self.waiting < waiting {
            return Err(format!("{waiting} fragments wait, {silent} were not counted"));
        }
        for row in &moved {
            *tally.entry((row.direction.name(), row.reason.name())).or_default() += row.packets;
        }
        *tally.entry(("both", "waiting or come in again")).or_default() += silent;
        *tally.entry(("both", "sent in pieces")).or_default() += pieces;
        Ok((self.inputs, tally))
    }
}

impl Subject for Engine {
    type Step = Step;

    const TARGET: &'static str = "programs";

    fn form(&self) -> &'static str {
        Engine::form(self).name()
    }

    fn run(&mut self, seed: u64, packets: usize) -> Result<(u64, Tally), Box<Failure<Step>>> {
        run(self, seed, packets)
    }

    fn replay(&mut self, steps: &[Step]) -> Result<u64, String> {
        let mut stage = Stage::new(self)?;
        for step in steps {
            stage.perform(step)?;
        }
        stage.finish().map(|(inputs, _)| inputs)
    }
}

/// Runs about `packets` packets that follow from `seed`.
fn run(engine: &mut Engine, seed: u64, packets: usize) -> Result<(u64, Tally), Box<Failure<Step>>> {
    let mut random = Random::new(seed);
    let mut steps = Vec::new();
    let fail = |wrong, steps| Box::new(Failure { wrong, steps });
    let mut stage = Stage::new(engine).map_err(|wrong| fail(wrong, Vec::new()))?;
    let mut setting = any_setting(&mut random);
    let mut queue: Vec<(From, Vec<u8>)> = Vec::new();
    steps.push(Step::Set(setting));
    while let Some(step) = steps.last() {
        if let Err(wrong) = stage.perform(step) {
            return Err(fail(wrong, steps));
        }
        if steps.len() > packets {
            break;
        }
        let next = if random.below(UNDER_ONE_SETTING) == 0 {
            setting = another_setting(&mut random, setting);
            Step::Set(setting)
        } else {
            let (from, mut packet) = match queue.pop() {
                Some(next) => next,
                None => packet(&mut random, &stage.model, setting, &mut queue),
            };
            if random.chance(45) {
                mutate(&mut random, &mut packet);
            }
            Step::Packet(from, packet)
        };
        steps.push(next);
    }
    stage.finish().map_err(|wrong| fail(wrong, steps))
}

/// What comes next, before it is spoilt. Others may have to follow it: they are
/// put into `queue`.
fn packet(
    random: &mut Random,
    model: &Model,
    setting: Setting,
    queue: &mut Vec<(From, Vec<u8>)>,
) -> (From, Vec<u8>) {
    let path = 1 + random.below(2) as u8;
    let mac = |path: u8| setting.path(path).source_mac;
    let sent = (!model.sent.is_empty()).then(|| &model.sent[random.below(model.sent.len())]);
    let came = (!model.delivered.is_empty())
        .then(|| &model.delivered[random.below(model.delivered.len())]);
    let (from, packet) = match (random.below(20), sent, came) {
        // Answers, now and then from the wrong side.
        (0..8, Some((by, frame)), _) => {
            let by = if random.chance(95) { *by } else { path };
            let answer =
                craft::answer(random, frame, mac(by)).map(|answer| (From::Wan(by), answer));
            answer.unwrap_or_else(|| (From::Lan, craft::from_lan(random)))
        }
        // Errors about what has left.
        (8, Some((by, frame)), _) => {
            let error = craft::error(random, frame, mac(*by)).map(|error| (From::Wan(*by), error));
            error.unwrap_or_else(|| (From::Lan, craft::from_lan(random)))
        }
        // Errors about what was delivered.
        (9, _, Some((_, frame))) => {
            let error = craft::error(random, frame, world::LAN_MAC).map(|mut error| {
                // Its router, or the host.
                if let Some(view) = View::of(&error)
                    && !view.v6
                {
                    let place = view.source_at();
                    error[place].copy_from_slice(&world::HOST.octets());
                    crate::view::repair(&mut error);
                }
                (From::Lan, error)
            });
            error.unwrap_or_else(|| (From::Lan, craft::from_lan(random)))
        }
        (10, _, _) => {
            let ports = model.ports();
            (From::Wan(path), craft::unasked(random, path, &ports))
        }
        // To an outside endpoint of ours, from the LAN.
        (11, Some((by, frame)), _) => {
            let hairpin = hairpin(random, setting, *by, frame);
            (From::Lan, hairpin.unwrap_or_else(|| craft::from_lan(random)))
        }
        _ => (From::Lan, craft::from_lan(random)),
    };
    if random.chance(6)
        && let Some(pieces) = craft::fragments(random, &packet)
    {
        queue.extend(pieces.into_iter().map(|piece| (from, piece)));
        if let Some(first) = queue.pop() {
            return first;
        }
    }
    (from, packet)
}

/// A packet from the LAN to the endpoint that `frame` has left from.
fn hairpin(random: &mut Random, setting: Setting, path: u8, frame: &[u8]) -> Option<Vec<u8>> {
    let view = View::of(frame).filter(|view| !view.v6 && matches!(view.protocol, 6 | 17))?;
    let base = if view.protocol == 6 { world::host_tcp(1) } else { world::host_udp(1) };
    let own = 40_000 + random.below(48) as u16;
    let packet = base.with(|p| {
        p.source = if random.chance(50) { world::HOST.into() } else { world::FRIEND.into() };
        p.destination = std::net::Ipv4Addr::from(setting.address4(path)).into();
        if let crate::packet::Transport::Tcp { source, destination, .. }
        | crate::packet::Transport::Udp { source, destination, .. } = &mut p.transport
        {
            (*source, *destination) = (own, view.ports(frame)[0]);
        }
    });
    Some(packet.bytes())
}

fn any_setting(random: &mut Random) -> Setting {
    let mut rarely = |value: u8, usual: u8| if random.chance(20) { value } else { usual };
    let takes_xdp = rarely(0, 2);
    let own = rarely(0, 1);
    let answers = rarely(0, 1);
    let resolved = [rarely(1, 3), rarely(2, 3)];
    Setting {
        alive: *random.pick(&[3, 3, 3, 1, 2, 0]),
        resolved,
        generation: [1, 1],
        epoch: [0, 0],
        filtering: random.below(3) as u8,
        source_limit: *random.pick(&[0, 0, 0, 20, 3]),
        by_hash: random.below(2) as u8,
        answers,
        own,
        takes_xdp,
        mtu: *random.pick(&[1_500, 1_500, 1_500, 1_280, 600]),
        port_max: *random.pick(&[65_535, 65_535, 65_535, 10_100]),
    }
}

/// Something else has changed.
fn another_setting(random: &mut Random, old: Setting) -> Setting {
    let path = random.below(2);
    let mut new = old;
    match random.below(6) {
        0 | 1 => new.alive = random.below(4) as u8,
        2 => new.generation[path] = new.generation[path].wrapping_add(1).max(1),
        3 => new.epoch[path] = new.epoch[path].wrapping_add(1),
        4 => new.resolved[path] = random.below(4) as u8,
        _ => new.mtu = *random.pick(&[1_500, 1_280, 600]),
    }
    new
}

/// Every reason that has been given, by name.
pub(crate) fn reasons() -> Vec<&'static str> {
    Reason::ALL.iter().map(|reason| reason.name()).collect()
}
