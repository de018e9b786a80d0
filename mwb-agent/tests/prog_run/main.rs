//! One packet at a time through the real programs, by `BPF_PROG_TEST_RUN`: for
//! every verdict reason, in both forms and both address families, what comes in,
//! what must come out to the byte, and the one counter that must move.
//!
//! `world.rs` draws the addresses, `packet.rs` builds packets with checksums
//! from scratch, `gateway.rs` holds the data plane, `row.rs` runs a row; the rows
//! are in `frames.rs`, `outward.rs`, `inward.rs`, and by what they are about in
//! `answers.rs`, `errors.rs`, `fragments.rs`, `admission.rs` and `portless.rs`. Every test has a network namespace of its own, and every row
//! starts from an empty data plane that no pin outlives.
//!
//! The bond has a world of its own (`bond_world.rs`), in which either end is one, and
//! packets (`bond_packet.rs`); its rows are in `bond_reasons.rs`, and the other files that begin with `bond_` go through what
//! it promises.

mod admission;
mod answers;
mod bond_again;
mod bond_choice_of_path;
mod bond_classes;
mod bond_direct;
mod bond_entrance;
mod bond_metered;
mod bond_order;
mod bond_others;
mod bond_packet;
mod bond_parity;
mod bond_probes;
mod bond_reasons;
mod bond_roaming;
mod bond_sealing;
mod bond_spoilt;
mod bond_turns;
mod bond_world;
mod divided;
mod errors;
mod explained;
mod fragments;
mod frames;
mod gateway;
mod inward;
mod lasting;
mod moved;
mod network;
mod outward;
mod packet;
mod policy;
mod policy_mappings;
mod policy_names;
mod policy_random;
mod policy_sources;
mod portless;
mod requirements;
mod row;
mod sweep;
mod world;

#[path = "../fuzz_programs/random.rs"]
#[expect(dead_code, reason = "the choices of the fuzzers, more than are needed here")]
mod random;

use std::collections::BTreeSet;
use std::net::{TcpListener, UdpSocket};

use mwb_agent::dataplane::Hook;
use mwb_common::reason::Reason;

use crate::gateway::{From, Gateways};
use crate::network::in_the_world;
use crate::row::{Row, forwarded};
use crate::world::{PORT, from_port, host_tcp, host_udp, out_by1};

/// Runs rows in all their forms and names every one that failed.
fn run(name: &str, rows: Vec<Row>) {
    in_the_world(name, |lan| {
        let mut gateways = Gateways::new(lan);
        let mut failed = String::new();
        let mut runs = 0;
        for row in &rows {
            for form in row.forms {
                runs += 1;
                if let Err(wrong) = row.run(&mut gateways, *form) {
                    failed += &format!("{} ({}):\n{wrong}", row.name, form.name());
                }
            }
        }
        assert!(failed.is_empty(), "of {runs} runs these failed:\n{failed}");
        assert!(runs >= rows.len(), "a row has no form to run in");
    });
}

/// The quickest test that walks through every program: a row for each end that a
/// packet of each family comes to, in data planes that are loaded once.
#[test]
fn one_packet_comes_to_each_end() {
    let mut seen = BTreeSet::new();
    let mut rows = all_rows();
    rows.retain(|row| {
        let forms: Vec<_> = row.forms.iter().map(|form| form.name()).collect();
        let family = row.packet.get(12..14).map(<[u8]>::to_vec);
        let end = std::mem::discriminant(&row.then);
        let key = format!("{:?}", (row.reason(), end, family, forms));
        row.entries == (64, 64) && seen.insert(key)
    });
    run("one_packet_comes_to_each_end", rows);
}

fn all_rows() -> Vec<Row> {
    [
        frames::rows(),
        outward::rows(),
        inward::rows(),
        answers::rows(),
        errors::rows(),
        fragments::rows(),
        admission::rows(),
        portless::rows(),
        policy::rows(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[test]
fn frames_that_are_not_ours_are_left_alone() {
    run("frames_that_are_not_ours_are_left_alone", frames::rows());
}

#[test]
fn packets_from_the_lan_end_as_the_rows_say() {
    run("packets_from_the_lan_end_as_the_rows_say", outward::rows());
}

#[test]
fn packets_from_a_wan_end_as_the_rows_say() {
    run("packets_from_a_wan_end_as_the_rows_say", inward::rows());
}

#[test]
fn packets_that_are_too_big_or_old_are_answered() {
    run("packets_that_are_too_big_or_old_are_answered", answers::rows());
}

#[test]
fn errors_of_others_are_translated_with_what_they_quote() {
    run("errors_of_others_are_translated_with_what_they_quote", errors::rows());
}

#[test]
fn fragments_follow_their_first_one() {
    run("fragments_follow_their_first_one", fragments::rows());
}

#[test]
fn who_may_come_in_does_and_nobody_else() {
    run("who_may_come_in_does_and_nobody_else", admission::rows());
}

#[test]
fn what_has_no_ports_keeps_to_addresses_and_what_is_bounded_to_its_bounds() {
    run("what_has_no_ports_keeps_to_addresses_and_what_is_bounded_to_its_bounds", portless::rows());
}

#[test]
fn packets_that_a_rule_blocks_end_there() {
    run("packets_that_a_rule_blocks_end_there", policy::rows());
}

/// Given by rate: `answers.rs` has a test for it.
const WITHOUT_ROW: [Reason; 1] = [Reason::AnswerLimited];

#[test]
fn every_reason_has_a_row() {
    let mut covered: BTreeSet<Reason> = all_rows().iter().filter_map(Row::reason).collect();
    covered.extend(WITHOUT_ROW);
    covered.extend(bond_reasons::covered());
    let missing: Vec<_> = Reason::ALL.iter().filter(|reason| !covered.contains(reason)).collect();
    assert!(missing.is_empty(), "no row for {missing:?}");
}

#[test]
fn every_reason_has_a_row_in_both_forms_where_both_give_it() {
    for reason in Reason::ALL {
        let forms: BTreeSet<&str> = all_rows()
            .iter()
            .filter(|row| row.reason() == Some(*reason))
            .flat_map(|row| row.forms.iter().map(|form| form.name()))
            .collect();
        let expected: BTreeSet<&str> = match reason {
            reason if WITHOUT_ROW.contains(reason) => [].into(),
            // A bond is in XDP only, and has a table of its own.
            reason if bond_reasons::covered().contains(reason) => [].into(),
            // Only the TC form can have the kernel resolve and has a slow path,
            // only XDP hands over.
            Reason::NeighbourUnresolved
            | Reason::Hairpinned
            | Reason::TooBig
            | Reason::Expired
            | Reason::FragmentOrphan
            | Reason::OutsideFragment
            | Reason::OutsideIcmpError
            | Reason::InsideIcmpError
            | Reason::PortsExhausted
            | Reason::FlowTableFull
            | Reason::SourceLimit
            | Reason::EndpointTaken => [Hook::Tcx.name()].into(),
            Reason::HandoverFailed => [Hook::Xdp.name()].into(),
            _ => [Hook::Xdp.name(), Hook::Tcx.name()].into(),
        };
        assert_eq!(forms, expected, "{reason:?}");
    }
}

#[test]
fn rows_have_names_of_their_own() {
    let mut names = BTreeSet::new();
    for row in all_rows() {
        let key = (row.from.direction().name(), row.name.clone());
        assert!(names.insert(key), "two rows `{}`", row.name);
    }
}

#[test]
fn a_port_that_the_gateway_itself_uses_is_not_given_out() {
    let name = "a_port_that_the_gateway_itself_uses_is_not_given_out";
    in_the_world(name, |lan| {
        let mut gateways = Gateways::new(lan);
        let udp = UdpSocket::bind(("0.0.0.0", PORT)).expect("a socket");
        let tcp = TcpListener::bind(("0.0.0.0", PORT)).expect("a socket");
        for (packet, protocol) in [(host_udp(PORT), "udp4"), (host_tcp(PORT), "tcp4")] {
            let out = from_port(&out_by1(&packet), PORT + 1);
            let row = forwarded("a socket has the port", From::Lan, &packet, &out, (1, protocol))
                .given(|gateway| outward::only_ports(gateway, PORT, PORT + 1));
            for form in [Hook::Xdp, Hook::Tcx] {
                if let Err(wrong) = row.run(&mut gateways, form) {
                    panic!("{protocol} ({}):\n{wrong}", form.name());
                }
            }
        }
        drop((udp, tcp));
    });
}

/// So that it can be seen that a failure is told as it is, wherever it happens.
#[test]
fn this_one_fails_when_it_is_told_to() {
    assert!(std::env::var_os("MWB_TEST_FAILS").is_none(), "it was told to");
}
