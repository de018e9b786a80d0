//! What the traffic of a WAN says about it. Pure.
//!
//! Packets of flows that came in by the WAN are from beyond the first hop: what
//! the modem or the gateway sends itself is of no flow, and must not be counted.
//! They prove the way in. The way out they prove as far as they answer, which
//! counters show badly: of what peers send again into a cut way out a few come
//! for seconds. So packets are **proof** only if they are at least a quarter of
//! what came lately, or a SYN-ACK is among them.
//!
//! **Silence** is when packets go out where proof came within [`TWO_WAY`], and
//! there has been none for [`SILENCE`]. An answer to a probe ends it until there
//! is proof again: that is traffic to nobody.
//!
//! [`SYNS`] without an answer for [`SYNS_FOR`] are a sign against whatever comes
//! in. A way out that is cut under a mere inbound stream, without a SYN, is not
//! noticed here.
//!
//! Must not know: probes, paces.

use std::time::{Duration, Instant};

/// For how long packets that came back prove that the link works: one sample
/// of 250 ms and a late tick.
pub(super) const FRESH: Duration = Duration::from_millis(300);
/// How long nothing must come back to packets that go out.
pub(super) const SILENCE: Duration = Duration::from_millis(200);
/// Within so long packets must have come back for their end to be a sign.
pub(super) const TWO_WAY: Duration = Duration::from_secs(30);
/// A pause that traffic may make: what is silent for longer is cut.
pub(super) const STALL: Duration = Duration::from_millis(600);
/// SYNs in a row without an answer that are a sign.
pub(super) const SYNS: u64 = 2;
/// How old the first of these must be: most of the Internet answers sooner.
pub(super) const SYNS_FOR: Duration = Duration::from_millis(300);
/// Packets that come back are proof from this part of their usual rate on, which
/// is an average over [`USUAL_OVER`].
const PROOF_FROM: f64 = 0.25;
const USUAL_OVER: Duration = Duration::from_secs(1);

/// What has passed a WAN since the sample before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Packets of flows that went out.
    pub out_packets: u64,
    /// Packets of flows that came back.
    pub back_packets: u64,
    /// SYNs that went out.
    pub syns_out: u64,
    /// SYN-ACKs that came back.
    pub synacks_back: u64,
}

/// What is known of the traffic of one WAN.
#[derive(Clone, Debug, Default)]
pub(super) struct Passive {
    last_sample: Option<Instant>,
    /// Packets that come back in a second.
    usual_back: f64,
    last_proof: Option<Instant>,
    last_out: Option<Instant>,
    /// SYNs since the last SYN-ACK or answer, and when the first was seen.
    syns: u64,
    syns_since: Option<Instant>,
    silence_since: Option<Instant>,
    /// An answer has come under silence; there was no proof since.
    to_nobody: bool,
}

impl Passive {
    /// Takes what has passed since the sample before. Whether silence has begun.
    pub(super) fn take(&mut self, now: Instant, sample: Sample) -> bool {
        if sample.synacks_back > 0 {
            (self.syns, self.syns_since) = (0, None);
        } else if sample.syns_out > 0 {
            self.syns = self.syns.saturating_add(sample.syns_out);
            self.syns_since.get_or_insert(now);
        }
        let out = sample.out_packets > 0 || sample.syns_out > 0;
        if out {
            self.last_out = Some(now);
        }
        if self.is_proof(now, sample) {
            self.last_proof = Some(now);
            (self.silence_since, self.to_nobody) = (None, false);
            return false;
        }
        let since = self.last_proof.map(|at| now.duration_since(at));
        let quiet = since.is_some_and(|since| (SILENCE..TWO_WAY).contains(&since));
        let begins = out && quiet && !self.to_nobody && self.silence_since.is_none();
        if begins {
            self.silence_since = Some(now);
        }
        begins
    }

    /// A probe was answered.
    pub(super) fn answered(&mut self) {
        (self.syns, self.syns_since) = (0, None);
        if self.silence_since.take().is_some() {
            self.to_nobody = true;
        }
    }

    /// Until when proof holds; `None` if there never was any.
    #[must_use]
    pub(super) fn fresh_until(&self) -> Option<Instant> {
        self.last_proof.map(|at| at + FRESH)
    }

    /// From when on traffic that is silent has paused for too long; `None` if it is
    /// not silent.
    #[must_use]
    pub(super) fn stalled_at(&self) -> Option<Instant> {
        self.silence_since.and(self.last_proof).map(|at| at + STALL)
    }

    /// Whether packets went out within `time`.
    #[must_use]
    pub(super) fn went_out(&self, now: Instant, time: Duration) -> bool {
        self.last_out.is_some_and(|at| now.duration_since(at) < time)
    }

    /// Whether SYNs go unanswered.
    #[must_use]
    pub(super) fn syns_unanswered(&self, now: Instant) -> bool {
        let old = |at: Instant| now.duration_since(at) >= SYNS_FOR;
        self.syns >= SYNS && self.syns_since.is_some_and(old)
    }

    /// Whether what came back proves anything; takes it into what is usual.
    fn is_proof(&mut self, now: Instant, sample: Sample) -> bool {
        let since = self.last_sample.map(|at| now.duration_since(at));
        // Half of a short period would make a rate of one packet a great one.
        let period = since.unwrap_or(USUAL_OVER).max(Duration::from_millis(50));
        self.last_sample = Some(now);
        let back = sample.back_packets.max(sample.synacks_back);
        let rate = back as f64 / period.as_secs_f64();
        let proof = sample.synacks_back > 0 || (back > 0 && rate >= self.usual_back * PROOF_FROM);
        let gain = (period.as_secs_f64() / USUAL_OVER.as_secs_f64()).min(1.0);
        self.usual_back += (rate - self.usual_back) * gain;
        proof
    }
}

#[cfg(test)]
#[path = "passive_tests.rs"]
mod tests;
