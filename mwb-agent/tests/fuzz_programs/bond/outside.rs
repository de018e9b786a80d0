//! What comes out of the bond: how an authentic packet that is new ends, and what the end
//! knows afterwards.

use mwb_common::integrity::Suite;
use mwb_common::maps::PathState;
use mwb_common::reason::Reason;

use super::inside::{Known, Outside, outside};
use super::seen::Seen;
use super::setting::Setting;
use super::view::{Head, head, ip_length, kind, owner, payload, payload_at};
use crate::bond_packet::open_payload;
use crate::bond_world::{DP_MAC, MWB0_MAC, Side};
use crate::check::ensure;
use crate::engine::{XDP_DROP, XDP_REDIRECT};
use crate::view::{LINK, View, be16};
use crate::world::{HOST_MAC, LAN_MAC};

/// A frame of the bond with a packet that the far end has sealed, and what became of it.
pub(super) struct Came<'a> {
    pub(super) setting: Setting,
    pub(super) suite: Suite,
    pub(super) side: Side,
    pub(super) wan: u8,
    pub(super) frame: &'a [u8],
    pub(super) head: Head,
    pub(super) text: &'a [u8],
    pub(super) before: &'a Known,
    pub(super) after: &'a Known,
    pub(super) verdict: u32,
    pub(super) out: &'a [u8],
}

impl Came<'_> {
    /// Judges how it ended; gives the reason.
    pub(super) fn judge(&self, seen: &mut Seen) -> Result<Reason, String> {
        let Head { path, sequence, .. } = self.head;
        let newest = sequence > seen.newest(path);
        if let Err(reason) = seen.take(path, sequence) {
            self.is_dropped(reason)?;
            ensure(self.before == self.after, || format!("{reason:?}, and something changed"))?;
            return Ok(reason);
        }
        let mut state = self.heard(newest)?;
        let reason = match self.head.kind {
            kind::PROBE if self.text.len() < 48 => Reason::BondMalformed,
            kind::PROBE => {
                self.reflected(&mut state)?;
                Reason::ProbeReflected
            }
            kind::REPLY if self.text.len() < 48 => Reason::BondMalformed,
            kind::REPLY => {
                self.answered(&mut state)?;
                Reason::ProbeAnswered
            }
            // No agent is there to be given a copy.
            kind::PARITY => {
                state.untold += 1;
                Reason::ParityTaken
            }
            _ => {
                state.untold += u64::from(self.head.flags >> 3 & 1);
                self.data(seen)?
            }
        };
        if matches!(reason, Reason::ToDevice | Reason::Unbonded | Reason::ProbeReflected) {
            ensure(self.verdict == XDP_REDIRECT, || format!("{reason:?}, and not sent on"))?;
        } else {
            self.is_dropped(reason)?;
        }
        self.is_known(path, &state)?;
        Ok(reason)
    }

    fn is_dropped(&self, reason: Reason) -> Result<(), String> {
        ensure(self.verdict == XDP_DROP, || format!("verdict {} of {reason:?}", self.verdict))
    }

    /// What is kept of the path of a packet that was taken.
    fn heard(&self, newest: bool) -> Result<PathState, String> {
        let Came { frame, before, after, head, .. } = *self;
        let (now, mut state) = (after.path(head.path), *before.path(head.path));
        let (at, end) = payload_at(frame).ok_or("no payload")?;
        state.received += 1;
        state.received_bytes += (end - LINK) as u64;
        ensure(now.heard >= state.heard && now.heard > 0, || "it was not heard".to_owned())?;
        state.heard = now.heard;
        if newest && state.taken != u32::from(head.taken) {
            let lives = now.alive_until > now.heard;
            ensure(lives, || "more was taken, and the path does not live".to_owned())?;
            (state.taken, state.alive_until) = (head.taken.into(), now.alive_until);
        }
        if !newest || self.side == Side::Gateway {
            return Ok(state);
        }
        // A client may be somewhere else now.
        let is_v6 = at == LINK + 48;
        let path = self.setting.path(self.side, head.path);
        let mut source = [0; 16];
        let from = if is_v6 { &frame[LINK + 8..LINK + 24] } else { &frame[LINK + 12..LINK + 16] };
        source[..from.len()].copy_from_slice(from);
        let port = [frame[at - 8], frame[at - 7]];
        let moved = state.moved == path.generation + 1;
        let (remote, remote_port, via) = if moved {
            (state.remote, state.remote_port, state.via)
        } else {
            (path.remote, path.remote_port, path.via)
        };
        if (remote, remote_port, via) != (source, port, self.wan) {
            (state.remote, state.remote_port, state.via) = (source, port, self.wan);
            (state.is_v6, state.moves) = (is_v6.into(), state.moves + 1);
            state.moved = path.generation + 1;
        }
        Ok(state)
    }

    /// Nothing else is known than what should be.
    fn is_known(&self, id: u8, state: &PathState) -> Result<(), String> {
        let mut expected = *self.before;
        expected.paths[usize::from(id - 1)] = *state;
        let epoch = self.setting.epoch();
        if u32::from(self.head.flags) & 1 == epoch & 1 {
            expected.session.heard = epoch + 1;
        }
        ensure(expected == *self.after, || {
            format!("known is {:?}, and not {expected:?}", self.after)
        })
    }

    /// A probe goes back with what its reply says.
    fn reflected(&self, state: &mut PathState) -> Result<(), String> {
        let Came { frame, out, side, suite, .. } = *self;
        let (at, end) = payload_at(frame).ok_or("no payload")?;
        let view = View::of(out).ok_or("a reply that is no packet")?;
        let is_v6 = at == LINK + 48;
        let address = |v4: usize, v6: usize| {
            let from = if is_v6 { &frame[v6..v6 + 16] } else { &frame[v4..v4 + 4] };
            let mut address = [0; 16];
            address[..from.len()].copy_from_slice(from);
            address
        };
        let turned = Outside {
            macs: [core::array::from_fn(|i| frame[6 + i]), core::array::from_fn(|i| frame[i])],
            source: address(LINK + 16, LINK + 24),
            destination: address(LINK + 12, LINK + 8),
            ports: [at - 6, at - 8].map(|at| be16(frame, at).unwrap_or_default()),
        };
        outside(out, is_v6, &turned)?;
        ensure(out.len() <= end, || format!("{} bytes answer {end}", view.end))?;
        let sealed = payload(out).ok_or("a reply without a payload")?;
        let (_, text) = open_payload(side, suite, sealed).ok_or("a reply that does not open")?;
        let reply = head(sealed).ok_or("a reply without a header")?;
        let parity = self.after.parity(self.setting, side);
        let expected = Head {
            kind: kind::REPLY,
            flags: parity,
            path: self.head.path,
            inner: 0,
            session: side.other().session(),
            sequence: state.sent + 1,
            bucket: 0,
            taken: state.received as u16,
            flow_sequence: 0,
        };
        ensure(reply == expected, || format!("{reply:?}, and not {expected:?}"))?;
        let length = (end - LINK) as u16;
        let says = [
            &self.text[..8],
            text.get(8..16).unwrap_or_default(),
            &self.head.sequence.to_be_bytes(),
            &state.received.to_be_bytes(),
            &state.received_bytes.to_be_bytes(),
            &length.to_be_bytes(),
            &[0; 6],
        ]
        .concat();
        ensure(text == says, || format!("the reply {text:02x?}, and not {says:02x?}"))?;
        state.sent += 1;
        state.sent_bytes += (out.len() - LINK) as u64;
        // When it left is anything: it says so.
        let left = self.text.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        (state.lag, state.lag_at) = (state.heard.wrapping_sub(left), state.heard);
        state.announced = u32::from(self.head.flags & 0x10 != 0);
        Ok(())
    }

    /// A reply that is newer than the last, to a probe that was sent, says how the path is.
    fn answered(&self, state: &mut PathState) -> Result<(), String> {
        let word = |at: usize| {
            let bytes = self.text.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
            bytes.map(u64::from_be_bytes).ok_or("a reply that ends too soon")
        };
        let sequence = word(16)?;
        if sequence <= state.reply_sequence || sequence > state.sent {
            return Ok(());
        }
        let now = self.after.path(self.head.path);
        state.reply_sequence = sequence;
        state.reply_sent_at = word(0)?;
        state.reply_received_at = word(8)?;
        (state.reply_packets, state.reply_bytes) = (word(24)?, word(32)?);
        let (at, _) = payload_at(self.frame).ok_or("no payload")?;
        let length = be16(self.text, 40).map_or(0, usize::from);
        let least = at - LINK + if self.suite == Suite::ChaCha20Poly1305 { 40 } else { 32 } + 48;
        if length > least {
            (state.sized, state.sized_at) = (length as u32, now.reply_at);
        }
        // Times are the kernel's.
        let lives = now.alive_until > now.reply_at && now.reply_at == now.heard;
        ensure(lives, || "an answer, and the path does not live".to_owned())?;
        (state.reply_at, state.alive_until) = (now.reply_at, now.alive_until);
        (state.rtt, state.rtt_variation) = (now.rtt, now.rtt_variation);
        Ok(())
    }

    /// What is inside is delivered as it was sealed, or not at all.
    fn data(&self, seen: &mut Seen) -> Result<Reason, String> {
        let Came { text, out, head, .. } = *self;
        // Flags 1 to 3, and 5.
        if head.flags & 0x2e != 0
            && let Err(reason) = seen.take_flow(head.bucket, head.flow_sequence)
        {
            return Ok(reason);
        }
        if ip_length(text, head.inner) != Some(text.len()) {
            return Ok(Reason::InnerMalformed);
        }
        if self.side == Side::Server && owner(text, head.inner) != Some(self.side.slot()) {
            return Ok(Reason::InnerSource);
        }
        if self.verdict != XDP_REDIRECT {
            return Err(format!("verdict {} of a valid packet", self.verdict));
        }
        let ethertype: [u8; 2] = if head.inner == 6 { [0x86, 0xdd] } else { [8, 0] };
        if out == [&MWB0_MAC[..], &DP_MAC, &ethertype, text].concat() {
            return Ok(Reason::ToDevice);
        }
        let may = self.side == Side::Gateway && self.setting.direct;
        ensure(may, || format!("{text:02x?} became {out:02x?}"))?;
        ensure(out[..5] == HOST_MAC[..5] && out[6..12] == LAN_MAC, || {
            format!("delivered to the station {:02x?}", &out[..12])
        })?;
        let hops = if head.inner == 6 { 7 } else { 8 };
        ensure(text[hops] > 1, || format!("delivered with {} hops", text[hops]))?;
        let mut expected = text.to_vec();
        expected[hops] -= 1;
        let frame = [&out[..12], &ethertype, &expected].concat();
        let (was, is) = match head.inner {
            4 => (sum_of(text), sum_of(out.get(LINK..).unwrap_or_default())),
            _ => (0, 0),
        };
        ensure(was == is, || "the inner header's checksum".to_owned())?;
        let mut same = out.to_vec();
        if head.inner == 4 && same.len() == frame.len() {
            same[LINK + 10..LINK + 12].copy_from_slice(&frame[LINK + 10..LINK + 12]);
        }
        ensure(same == frame, || format!("{text:02x?} was delivered as {out:02x?}"))?;
        Ok(Reason::Unbonded)
    }
}

/// What an IPv4 header sums up to.
fn sum_of(packet: &[u8]) -> u16 {
    let frame = [&[0; 12][..], &[8, 0], packet].concat();
    View::at(&frame, LINK).map_or(0, |view| view.header_sum(&frame))
}
