//! The programs under a fuzzer: both entry points of steering in both forms get real
//! packets that were spoilt, by `BPF_PROG_TEST_RUN`, and keep their contracts:
//!
//! 1. The kernel runs every packet, and the verdict is one of three.
//! 2. Every packet is counted exactly once, in the end, under a reason that
//!    means what happened to it. What the XDP form hands over goes on through
//!    the TC form; what is turned round comes in again.
//! 3. A checksum is as right, or as wrong, as it was: nothing is broken, and
//!    nothing that was broken is made good.
//! 4. What leaves has an address and a port of its path, the station of its next
//!    hop, one hop less, its own length; nothing else has changed. An outside
//!    endpoint is never two inside endpoints'.
//! 5. What is delivered goes to the owner of the endpoint that it came to, from
//!    someone whom the filter admits.
//! 6. What the kernel gets is as it came.
//! 7. An ICMP error of our own is well formed and quotes what came.
//!
//! `craft` makes packets, `mutate` spoils them, `engine` runs them, `view` reads
//! them without the project's parser, `model` remembers, `check` judges,
//! `episode` puts it together. `campaign` runs one episode after the other; a failure
//! is shrunk and written down. The programs of the bond have contracts of their own,
//! which [`bond`] tells.
//!
//! Without being told a run is short, and the same every time. `cargo xtask
//! fuzz programs` (or `bond`) makes it long, by the variables `MWB_FUZZ_…`.

mod bond;
mod campaign;
mod check;
mod craft;
mod engine;
mod episode;
mod found;
mod model;
mod mutate;
mod plan;
mod random;
mod record;
mod shrink;
mod view;

#[path = "../prog_run/bond_packet.rs"]
#[expect(dead_code, reason = "the packets of the table tests, more than are needed here")]
mod bond_packet;
#[path = "../prog_run/bond_world.rs"]
#[expect(dead_code, reason = "the bond of the table tests, larger than is needed here")]
mod bond_world;
#[path = "../prog_run/moved.rs"]
mod moved;
#[path = "../prog_run/network.rs"]
mod network;
#[path = "../prog_run/packet.rs"]
#[expect(
    dead_code,
    reason = "the builder of the table tests, which makes more than is needed here"
)]
mod packet;
#[path = "../prog_run/world.rs"]
#[expect(dead_code, reason = "the little world of the table tests, larger than is needed here")]
mod world;

use mwb_agent::dataplane::Hook;

use crate::campaign::Met;
use crate::engine::{Engine, Setting};
use crate::plan::Plan;

/// Packets of a run that nobody has told how long to be.
const SHORT: u64 = 200_000;
/// The seed of such a run.
const SEED: u64 = 0x6d77_6200;
/// Both forms, by what `--form` calls them.
const FORMS: [(&str, Hook); 2] = [("xdp", Hook::Xdp), ("tcx", Hook::Tcx)];

#[test]
fn mutated_packets_break_no_contract() {
    let plan = Plan::read(SEED, SHORT);
    let forms = plan.forms(&FORMS);
    let open = |lan| -> Vec<Engine> {
        let open = |form: &Hook| Engine::open(*form, lan, first_setting()).expect("a data plane");
        forms.iter().map(open).collect()
    };
    let met = campaign::run("mutated_packets_break_no_contract", &plan, open);
    if !met.is_empty() {
        for form in &forms {
            met_everything(form.name(), met.get(form.name()).unwrap_or(&Met::default()));
        }
    }
}

/// A fuzzer that does not get in proves nothing, and one form does not prove the
/// other.
fn met_everything(form: &str, met: &Met) {
    for direction in ["out", "in"] {
        let share = met.count(direction, "forwarded") as f64 / met.inputs.max(1) as f64;
        assert!(share > 0.02, "only {share:.3} of {form}'s packets were sent on {direction}");
    }
    let known = episode::reasons();
    let is_met = |reason: &&&str| met.tally.keys().any(|row| row.1 == **reason);
    let reasons = known.iter().filter(is_met).count();
    assert!(reasons >= 20, "{form} met only {reasons} of {} reasons", known.len());
}

/// What a data plane is opened with, before an episode says otherwise.
fn first_setting() -> Setting {
    Setting::of_words([3, 3, 3, 1, 1, 0, 0, 0, 0, 0, 1, 1, 2, 1_500, 65_535])
}
