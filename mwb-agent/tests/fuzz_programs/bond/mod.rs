//! The programs of the bond under the fuzzer: a gateway and a server, each in a data
//! plane of its own, with one session of one suite and two paths. What goes in at one
//! end is spoilt before, behind, or in between, and comes to the other. The contracts:
//!
//! 1. A packet that differs in any bit that is authenticated is never delivered, and
//!    changes nothing that is kept of a path or a session. One that nobody has touched
//!    is, in any order but never twice.
//! 2. What is sealed opens to the packet that went in: of the right length, with a hop
//!    less if it is from a LAN port, and an MSS that is no larger; a checksum inside is
//!    as right, or as wrong, as it was. Sequences have no gaps.
//! 3. The outside is right to the byte: addresses, ports, lengths, both checksums. The
//!    path is one that lives, if any does, and the keys are those of the epoch.
//! 4. Every packet is counted exactly once: what came in is what was sent on, and each
//!    drop by its reason, which follows from docs/protocol.md.
//! 5. What the kernel gets is as it came; behind the bond's device it gets nothing.
//! 6. A valid packet passes at any time, whatever came before.
//!
//! `craft` makes packets and spoils them, `inside` judges what goes into the bond,
//! `outside` what comes out of it, `view` says what a packet should come to, `stage`
//! puts it together. The forms are the suites.

mod craft;
mod episode;
mod inside;
mod outside;
mod record;
mod seen;
mod setting;
mod stage;
mod view;

use mwb_common::integrity::Suite;

use crate::campaign::{self, Met};
use crate::plan::Plan;
use stage::Pair;

/// Packets of a run that nobody has told how long to be.
const SHORT: u64 = 60_000;
/// The seed of such a run.
const SEED: u64 = 0x6d77_6210;
/// All suites, by what `--form` calls them.
const FORMS: [(&str, Suite); 3] = [
    ("chacha20poly1305", Suite::ChaCha20Poly1305),
    ("siphash", Suite::SipHash),
    ("crc32", Suite::Crc32),
];

fn form(suite: Suite) -> &'static str {
    FORMS.iter().find(|(_, form)| *form == suite).map_or("", |(name, _)| name)
}

#[test]
fn mutated_packets_of_a_bond_break_no_contract() {
    let plan = Plan::read(SEED, SHORT);
    let suites = plan.forms(&FORMS);
    let open = |lan| suites.iter().map(|suite| Pair::open(lan, *suite)).collect();
    let met = campaign::run("mutated_packets_of_a_bond_break_no_contract", &plan, open);
    if !met.is_empty() {
        for suite in &suites {
            met_everything(form(*suite), met.get(form(*suite)).unwrap_or(&Met::default()));
        }
    }
}

/// A fuzzer that does not get in proves nothing, and one suite does not prove another.
fn met_everything(form: &str, met: &Met) {
    if met.inputs < SHORT / 4 {
        return;
    }
    for (direction, reason) in [("out", "bonded"), ("in", "to_device")] {
        let share = met.count(direction, reason) as f64 / met.inputs as f64;
        assert!(share > 0.05, "only {share:.3} of {form}'s packets were {reason}");
    }
    for reason in OUT {
        assert!(met.count("out", reason) > 0, "{form} never met {reason} on the way in");
    }
    // A hop is looked up anew after a second: a short run may have none to the LAN.
    let lasts = met.inputs > 10 * SHORT;
    for reason in IN.into_iter().filter(|reason| lasts || *reason != "unbonded") {
        assert!(met.count("in", reason) > 0, "{form} never met {reason} on the way out");
    }
}

/// What a packet can come to that goes into a bond.
const OUT: [&str; 12] = [
    "bonded",
    "probe_sent",
    "tick_ignored",
    "no_session",
    "bond_too_big",
    "local",
    "multicast",
    "bypass",
    "ttl_expired",
    "not_ip",
    "tagged",
    "malformed",
];
/// What one can come to that comes out of it, or does not. Messages are limited in rate
/// where more of them come.
const IN: [&str; 16] = [
    "to_device",
    "unbonded",
    "probe_reflected",
    "probe_answered",
    "bond_message",
    "bond_malformed",
    "unknown_session",
    "unknown_path",
    "unknown_epoch",
    "bad_check",
    "replayed",
    "replay_too_old",
    "duplicate",
    "inner_source",
    "inner_malformed",
    "other_host",
];
