//! A gateway and a server in the middle of an episode.

use mwb_agent::dataplane::CounterRow;
use mwb_common::integrity::Suite;
use mwb_common::maps::{Device, Direction, HANDOVER, PathState, SessionState, hook, role};
use mwb_common::reason::{Reason, Verdict};
use mwb_common::wire::Kind;

use super::inside::{Judge, Known, Left, end};
use super::outside::Came;
use super::record::Step;
use super::seen::Seen;
use super::setting::{PATHS, Setting};
use super::view::{Claim, claim, payload};
use crate::bond_packet::{open_payload, outside};
use crate::bond_world::{DP_MAC, Door, End, MWB0_MAC, Side, macs};
use crate::campaign::Tally;
use crate::check::ensure;
use crate::engine::{XDP_DROP, XDP_PASS, XDP_REDIRECT};
use crate::moved::difference;
use crate::view::{LINK, be16};
use crate::world::{PORT, host_udp};

/// Reasons of which it is told beforehand who gets them.
const TOLD: [Reason; 21] = [
    Reason::Bonded,
    Reason::ProbeSent,
    Reason::Unbonded,
    Reason::ToDevice,
    Reason::ProbeReflected,
    Reason::ProbeAnswered,
    Reason::BondMessage,
    Reason::MessageLimited,
    Reason::BondMalformed,
    Reason::UnknownSession,
    Reason::UnknownPath,
    Reason::UnknownEpoch,
    Reason::BadCheck,
    Reason::Replayed,
    Reason::ReplayTooOld,
    Reason::Duplicate,
    Reason::InnerSource,
    Reason::InnerMalformed,
    Reason::Forwarded,
    Reason::Ticked,
    Reason::ParityTaken,
];

/// Both ends of a bond of one suite.
pub(crate) struct Pair {
    pub(super) suite: Suite,
    gateway: End,
    server: End,
    lan: u32,
}

impl Pair {
    pub(super) fn open(lan: u32, suite: Suite) -> Self {
        let (gateway, server) = (End::new(lan, Side::Gateway), End::new(lan, Side::Server));
        Pair { suite, gateway, server, lan }
    }

    fn end(&mut self, side: Side) -> &mut End {
        match side {
            Side::Gateway => &mut self.gateway,
            Side::Server => &mut self.server,
        }
    }

    fn apply(&mut self, setting: Setting) {
        for side in [Side::Gateway, Side::Server] {
            let session = setting.session(side, self.suite);
            let end = self.end(side);
            end.maps().set_session(side.slot(), &session).expect("a write");
            for id in PATHS {
                end.set_path(id, &setting.path(side, id));
                end.change_state(id, |state| state.alive_until = setting.alive_until(id));
            }
        }
        let takes = u8::from(setting.direct);
        let hook = if setting.direct { hook::XDP } else { hook::TC };
        let lan = Device { role: role::INSIDE, hook, takes_xdp: takes, ..Device::default() };
        self.gateway.plane.set_device(self.lan, lan).expect("a write");
    }
}

/// A packet that the programs have sealed.
pub(super) struct Sent {
    pub(super) to: Side,
    pub(super) wan: u8,
    /// As it comes to the far end.
    pub(super) frame: Vec<u8>,
}

/// An episode.
pub(super) struct Stage<'a> {
    pair: &'a mut Pair,
    pub(super) setting: Setting,
    pub(super) seen: [Seen; 2],
    before: [Vec<CounterRow>; 2],
    pub(super) inputs: u64,
    /// What the last step has sealed.
    pub(super) sent: Option<Sent>,
}

impl<'a> Stage<'a> {
    pub(super) fn new(pair: &'a mut Pair) -> Self {
        let suite = pair.suite;
        for side in [Side::Gateway, Side::Server] {
            let end = pair.end(side);
            // In no other slot there ever was anything.
            end.maps().clear(side.slot()).expect("a write");
            end.set_up(suite, false);
        }
        let before = [pair.gateway.counters(), pair.server.counters()];
        let setting = Setting::of_words([0, 1, 1_400, 6, 0, 0, 0, 0]);
        pair.apply(setting);
        Stage { pair, setting, seen: Default::default(), before, inputs: 0, sent: None }
    }

    pub(super) fn suite(&self) -> Suite {
        self.pair.suite
    }

    pub(super) fn perform(&mut self, step: &Step) -> Result<(), String> {
        self.sent = None;
        match step {
            Step::Set(setting) => {
                self.setting = *setting;
                self.pair.apply(*setting);
                Ok(())
            }
            Step::Inside(side, door, frame) => self.inside(*side, *door, frame).map(drop),
            Step::Outside(side, wan, genuine, frame) => {
                self.outside(*side, *wan, *genuine, frame).map(drop)
            }
            Step::Good(side) => self.good(*side),
        }
    }

    fn known(&mut self, side: Side) -> Known {
        let end = self.pair.end(side);
        let session = end.maps().session_state(side.slot()).expect("a state");
        // The running number of packets is nobody's business.
        let session = SessionState { cursor: 0, ..session };
        // So are the queues, and when a probe is due, which clocks decide.
        let paths = PATHS.map(|id| PathState {
            busy_until: 0,
            forced: 0,
            probe_due: 0,
            used_at: 0,
            ..end.state(id)
        });
        Known { paths, session }
    }

    /// Puts a packet into the bond.
    fn inside(&mut self, side: Side, door: Door, frame: &[u8]) -> Result<Option<Left>, String> {
        self.catch_up(side);
        let known = self.known(side);
        let outcome = self.pair.end(side).run(door, frame);
        let after = self.known(side);
        self.inputs += 1;
        let (setting, suite) = (self.setting, self.pair.suite);
        let seen = &mut self.seen[side as usize];
        let ends = seen.ends(Direction::Out);
        match (outcome.verdict, door) {
            (XDP_PASS, Door::Lan) => {
                ends.kernel += 1;
                ensure(outcome.packet == frame, || "left to the kernel, and changed".to_owned())?;
            }
            (XDP_DROP, Door::Lan) => ends.dropped += 1,
            (XDP_DROP, _) => ends.unheard += 1,
            (XDP_REDIRECT, _) => {
                let judge = Judge { setting, suite, side, door, known: &known };
                let left = judge.left(seen, frame, &outcome.packet)?;
                let probe = left.kind == Kind::Probe;
                seen.count(Direction::Out, if probe { Reason::ProbeSent } else { Reason::Bonded });
                let mut expected = known;
                let state = &mut expected.paths[usize::from(left.path - 1)];
                state.sent += 1;
                state.sent_bytes += (outcome.packet.len() - LINK) as u64;
                ensure(expected == after, || format!("known is {after:?}, not {expected:?}"))?;
                self.sent = Some(arriving(side, left.path, &outcome.packet));
                return Ok(Some(left));
            }
            (verdict, _) => return Err(format!("verdict {verdict} on the way in")),
        }
        ensure(known == after, || format!("nothing left, and known is {after:?}"))?;
        Ok(None)
    }

    /// The far end may have seen numbers of packets that nobody but the fuzzer has
    /// sealed: the end that would have sent them goes on behind them.
    fn catch_up(&mut self, side: Side) {
        for id in PATHS {
            let newest = self.seen[side.other() as usize].newest(id);
            let end = self.pair.end(side);
            if end.state(id).sent < newest {
                end.change_state(id, |state| state.sent = newest);
            }
        }
    }

    /// Has a packet come from a WAN. `genuine`: its payload is as the far end, or the
    /// fuzzer in its place, has sealed it.
    fn outside(
        &mut self,
        side: Side,
        wan: u8,
        genuine: bool,
        frame: &[u8],
    ) -> Result<Option<Reason>, String> {
        let before = self.known(side);
        let outcome = self.pair.end(side).run(Door::Wan(wan), frame);
        let after = self.known(side);
        self.inputs += 1;
        let (setting, suite) = (self.setting, self.pair.suite);
        let verdict = outcome.verdict;
        let claim = claim(setting, suite, side, wan, frame);
        if verdict == XDP_PASS {
            let marked = outcome.packet.strip_prefix(&HANDOVER.to_ne_bytes()[..]) == Some(frame);
            // Steering hands over what it leaves to its other form, which counts it.
            if marked && claim == Claim::Other && side == Side::Server {
                return Ok(None);
            }
            ensure(outcome.packet == frame, || "left to the kernel, and changed".to_owned())?;
        }
        let seen = &mut self.seen[side as usize];
        let opened = payload(frame).and_then(|sealed| open_payload(side.other(), suite, sealed));
        let reason = match (claim, opened) {
            (Claim::Other, _) => {
                let ends = seen.ends(Direction::In);
                match verdict {
                    XDP_PASS => ends.kernel += 1,
                    XDP_DROP => ends.dropped += 1,
                    other => return Err(format!("verdict {other} of what is not the bond's")),
                }
                None
            }
            (Claim::Refused(reason), _) => {
                let kernel = reason.verdict() == Verdict::Kernel;
                let right = verdict == if kernel { XDP_PASS } else { XDP_DROP };
                ensure(right, || format!("verdict {verdict} of {reason:?}"))?;
                Some(reason)
            }
            (Claim::Message, _) => match verdict {
                XDP_PASS => Some(Reason::BondMessage),
                XDP_DROP => Some(Reason::MessageLimited),
                other => return Err(format!("verdict {other} of a message")),
            },
            (Claim::Sealed(head), Some((_, text))) if genuine => {
                let (before, after, out) = (&before, &after, &outcome.packet[..]);
                let came = Came {
                    setting,
                    suite,
                    side,
                    wan,
                    frame,
                    head,
                    text: &text,
                    before,
                    after,
                    verdict,
                    out,
                };
                let reason = came.judge(seen)?;
                seen.count(Direction::In, reason);
                self.after(side, head.path);
                return Ok(Some(reason));
            }
            (Claim::Sealed(_), Some(_)) => return Err("the host opens what was spoilt".to_owned()),
            (Claim::Sealed(_), None) if genuine => {
                return Err("the host does not open what was sealed".to_owned());
            }
            (Claim::Sealed(_), None) => {
                ensure(verdict == XDP_DROP, || format!("verdict {verdict} of a spoilt packet"))?;
                Some(Reason::BadCheck)
            }
        };
        ensure(before == after, || format!("{reason:?}, and known is {after:?}"))?;
        if let Some(reason) = reason {
            seen.count(Direction::In, reason);
        }
        Ok(reason)
    }

    /// What a packet says can let its path live for a while: it is to live as the setting
    /// says.
    fn after(&mut self, side: Side, id: u8) {
        let until = self.setting.alive_until(id);
        self.pair.end(side).change_state(id, |state| state.alive_until = until);
    }

    /// A valid packet passes.
    fn good(&mut self, side: Side) -> Result<(), String> {
        let mut packet = host_udp(PORT);
        if side == Side::Server {
            std::mem::swap(&mut packet.source, &mut packet.destination);
        }
        (packet.to, packet.from) = (DP_MAC, MWB0_MAC);
        let left = self.inside(side, Door::Device, &packet.bytes())?;
        ensure(left.is_some_and(|left| left.kind == Kind::Data), || {
            "a valid packet was not sent".to_owned()
        })?;
        let Sent { to, wan, frame } = self.sent.take().ok_or("a valid packet was not sent")?;
        match self.outside(to, wan, true, &frame)? {
            Some(Reason::ToDevice | Reason::Unbonded) => Ok(()),
            other => Err(format!("a valid packet was not delivered: {other:?}")),
        }
    }

    /// Every packet is counted exactly once, and under the reason that it should be.
    pub(super) fn finish(mut self) -> Result<(u64, Tally), String> {
        for side in [Side::Gateway, Side::Server] {
            self.good(side)?;
        }
        let mut tally = Tally::new();
        let before = std::mem::take(&mut self.before);
        for (side, before) in [Side::Gateway, Side::Server].into_iter().zip(before) {
            let rows = difference(&before, self.pair.end(side).counters());
            let seen = &mut self.seen[side as usize];
            for direction in Direction::ALL {
                let rows = || rows.iter().filter(|row| row.direction == direction);
                let count = |wanted: &dyn Fn(Reason) -> bool| -> u64 {
                    rows().filter(|row| wanted(row.reason)).map(|row| row.packets).sum()
                };
                for reason in TOLD {
                    let (is, should) =
                        (count(&|other| other == reason), seen.counted(direction, reason));
                    ensure(is == should, || {
                        format!("{side:?}: {is} counted {reason:?} {direction:?}, not {should}")
                    })?;
                }
                let rest = |meant: Verdict| {
                    count(&|reason| !TOLD.contains(&reason) && reason.verdict() == meant)
                };
                let (kernel, dropped) = (rest(Verdict::Kernel), rest(Verdict::Drop));
                let addressed = [Reason::OtherHost, Reason::Multicast]
                    .map(|reason| seen.counted(direction, reason));
                let kernels = addressed.iter().sum::<u64>();
                let ends = *seen.ends(direction);
                let (least, least_dropped) = (ends.kernel + kernels, ends.dropped);
                let all = least + least_dropped + ends.unheard;
                let right = kernel + dropped + rest(Verdict::Forward) == all
                    && kernel >= least
                    && dropped >= least_dropped;
                ensure(right, || {
                    let rest: Vec<_> = rows()
                        .filter(|row| !TOLD.contains(&row.reason))
                        .map(|row| (row.reason, row.protocol, row.packets))
                        .collect();
                    format!("{side:?} {direction:?}: {ends:?}, {addressed:?}; counted {rest:?}")
                })?;
                for row in rows() {
                    *tally.entry((direction.name(), row.reason.name())).or_default() += row.packets;
                }
            }
        }
        Ok((self.inputs, tally))
    }
}

/// What `side` has sent by a path, as it comes to the far end, wherever the path may have
/// led it to.
fn arriving(side: Side, id: u8, frame: &[u8]) -> Sent {
    let is_v6 = be16(frame, 12) == Some(0x86dd);
    let far = side.other();
    let [from, to] = macs(far, id, is_v6);
    let payload = payload(frame).unwrap_or_default();
    let frame = outside([to, from], end(side, id, is_v6), end(far, id, is_v6), payload);
    Sent { to: far, wan: if far == Side::Server { 1 } else { id }, frame }
}
