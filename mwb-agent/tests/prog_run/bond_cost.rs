//! What a packet costs. Not asserted: a busy machine has no time to promise.
//! `cargo test --test prog_run -- --ignored --nocapture bond_cost`.

use mwb_common::maps::BondPath;
use mwb_common::wire::{Header, Kind, inner};

use crate::bond_world::{Door, End, SUITES, Sealed, Side, inner_of, path};
use crate::in_the_world;
use crate::world::{PORT, host_udp};

/// Single runs, of which the least counts.
const RUNS: u64 = 3_000;
/// Runs in one go, and of how many goes the least counts.
const REPEAT: u32 = 3_000;
const GOES: u64 = 40;

/// Sealing leaves a packet that is none for the inside, and opening one that is none for
/// the outside, so that a test run cannot repeat them: each run stands alone, with the
/// price of a run by itself, and less of the caches. Only a packet whose check is wrong
/// stays as it is, and is repeated: that is opening up to the verdict.
#[test]
#[ignore = "a measurement"]
fn bond_cost_of_a_packet_by_suite_and_length() {
    in_the_world("bond_cost_of_a_packet_by_suite_and_length", |lan| {
        let mut gateway = End::new(lan, Side::Gateway);
        let mut server = End::new(lan, Side::Server);
        let tagged = host_udp(PORT).with(|p| p.tags = vec![(0x8100, 5)]).bytes();
        let program = gateway.enter(Door::Device);
        let floor = least(RUNS, |_| run(&gateway, program, &tagged, 1));
        let repeated = least(GOES, |_| run(&gateway, program, &tagged, REPEAT));
        println!("a packet that ends at once: {floor} ns alone, {repeated} ns repeated");
        for suite in SUITES {
            for length in [64_usize, 512, 1_400] {
                gateway.reset(suite, false);
                server.reset(suite, false);
                gateway.change_session(|session| session.mtu = 1_500);
                gateway.set_path(1, &BondPath { mtu: 1_600, ..path(Side::Gateway, 1, false) });
                let packet = host_udp(PORT).with(|p| p.payload = vec![7; length - 28]);
                let program = gateway.enter(Door::Device);
                let bytes = packet.bytes();
                let seal = least(RUNS, |_| run(&gateway, program, &bytes, 1));
                let text = inner_of(&packet);
                let sealed = |sequence| {
                    let header = Header {
                        kind: Kind::Data,
                        flags: 0,
                        path: 1,
                        inner: inner::IPV4,
                        session: Side::Server.session(),
                        sequence,
                        bucket: 0,
                        flow_sequence: 0,
                    };
                    Sealed { side: Side::Gateway, suite, header, text: &text, is_v6: false }
                        .arriving()
                };
                let program = server.enter(Door::Wan(1));
                let open = least(RUNS, |number| run(&server, program, &sealed(number + 1), 1));
                let mut bad = sealed(1);
                bad[70] ^= 1;
                let refused = least(GOES, |_| run(&server, program, &bad, REPEAT));
                println!(
                    "{suite:?}, {length} bytes: sealed in {seal} ns, opened in {open} ns, refused in {refused} ns"
                );
            }
        }
    });
}

fn run(end: &End, program: mwb_agent::dataplane::ProgramId, frame: &[u8], times: u32) -> u128 {
    end.plane.test_run(program, frame, None, times).expect("a run").duration.as_nanos()
}

fn least(times: u64, run: impl Fn(u64) -> u128) -> u128 {
    (0..times).map(run).min().unwrap_or_default()
}
