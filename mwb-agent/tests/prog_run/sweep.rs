//! Expiry against tables that the programs have filled.

use std::time::{Duration, Instant};

use mwb_agent::dataplane::{Forward, Hook, Tables};
use mwb_agent::flows::{Sweeper, Timeouts, Usage};
use mwb_common::maps::{Control, Path};

use crate::gateway::From::{Lan, Wan};
use crate::gateway::{Gateway, Gateways};
use crate::lasting::with_flags;
use crate::network::in_the_world;
use crate::packet::{ACK, Packet};
use crate::world::{
    HOST, PORT, answer, control, host_echo, host_tcp, host_udp, out_by1, path1, v6,
};

/// Mappings, IPv4 flows, IPv6 flows, ports of path 1.
fn figures(usage: &Usage) -> (usize, usize, usize, usize) {
    (usage.mappings, usage.flows4, usage.flows6, usage.ports_used.get(1).copied().unwrap_or(0))
}

/// Entries of both flow tables, of the mappings and of the ports.
pub(crate) fn entries(tables: &Tables) -> [usize; 4] {
    let mut counts = [0; 4];
    tables.flows4().for_each(|_, _| counts[0] += 1).expect("a read");
    tables.flows6().for_each(|_, _| counts[1] += 1).expect("a read");
    tables.mappings().for_each(|_, _| counts[2] += 1).expect("a read");
    tables.ports().for_each(|_, _| counts[3] += 1).expect("a read");
    counts
}

/// Three IPv4 flows with an answer each, and one IPv6 flow.
fn open_flows(gateway: &mut Gateway) {
    for sent in [host_udp(PORT), host_tcp(PORT), host_echo(PORT), v6(&host_udp(PORT))] {
        gateway.send(Lan, &sent);
        gateway.send(Wan(1), &answer(&out_by1(&sent)));
    }
    // The third packet opens the connection (RFC 9293, 3.5).
    gateway.send(Lan, &with_flags(&host_tcp(PORT), ACK));
}

fn in_a_gateway(name: &str, test: impl Fn(&mut Gateway) + Send + Sync) {
    in_the_world(name, |lan| {
        let mut gateways = Gateways::new(lan);
        for form in [Hook::Xdp, Hook::Tcx] {
            test(gateways.fresh(form, (64, 64)).expect("a data plane"));
        }
    });
}

#[test]
fn flows_in_use_are_counted_and_kept() {
    in_a_gateway("flows_in_use_are_counted_and_kept", |gateway| {
        open_flows(gateway);
        let mut sweeper = Sweeper::new(gateway.tables(), Timeouts::default());
        for _ in 0..2 {
            let usage = sweeper.sweep().expect("a sweep");
            assert_eq!(figures(&usage), (3, 3, 1, 3));
            assert_eq!(usage.flow_capacity, 32);
            assert_eq!(entries(&gateway.tables()), [6, 2, 3, 3]);
        }
    });
}

#[test]
fn idle_flows_leave_nothing_behind_and_may_be_opened_again() {
    in_a_gateway("idle_flows_leave_nothing_behind_and_may_be_opened_again", |gateway| {
        open_flows(gateway);
        let nothing = Duration::ZERO;
        let timeouts = Timeouts {
            udp: nothing,
            icmp: nothing,
            tcp_established: nothing,
            tcp_transitory: nothing,
        };
        let mut sweeper = Sweeper::new(gateway.tables(), timeouts);
        // The programs' clock has a grain of some milliseconds.
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut usage = sweeper.sweep().expect("a sweep");
        while figures(&usage) != (0, 0, 0, 0) && Instant::now() < deadline {
            usage = sweeper.sweep().expect("a sweep");
        }
        assert_eq!(figures(&usage), (0, 0, 0, 0));
        assert_eq!(entries(&gateway.tables()), [0; 4]);
        open_flows(gateway);
        assert_eq!(entries(&gateway.tables()), [6, 2, 3, 3]);
    });
}

#[test]
fn an_open_tcp_connection_outlives_other_idle_flows() {
    in_a_gateway("an_open_tcp_connection_outlives_other_idle_flows", |gateway| {
        open_flows(gateway);
        let nothing = Duration::ZERO;
        let timeouts = Timeouts {
            udp: nothing,
            icmp: nothing,
            tcp_transitory: nothing,
            ..Timeouts::default()
        };
        let mut sweeper = Sweeper::new(gateway.tables(), timeouts);
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut usage = sweeper.sweep().expect("a sweep");
        while figures(&usage) != (1, 1, 0, 1) && Instant::now() < deadline {
            usage = sweeper.sweep().expect("a sweep");
        }
        // Its mapping and port stay with it, idle as they are.
        assert_eq!(figures(&usage), (1, 1, 0, 1));
        assert_eq!(entries(&gateway.tables()), [2, 0, 1, 1]);
        let next: Packet = answer(&out_by1(&host_tcp(PORT)));
        gateway.send(Wan(1), &next);
    });
}

#[test]
fn the_sweeper_makes_room_for_sources_that_had_all_they_may() {
    in_a_gateway("the_sweeper_makes_room_for_sources_that_had_all_they_may", |gateway| {
        gateway.set_control(Control { source_limit: 2, ..control() });
        gateway.send(Lan, &host_udp(PORT));
        gateway.send(Lan, &host_udp(PORT + 1));
        let third = host_udp(PORT + 2);
        gateway.try_send(Lan, &third);
        assert_eq!(gateway.tables().mappings().count().expect("a read"), 2);

        let timeouts = Timeouts { udp: Duration::ZERO, ..Timeouts::default() };
        let mut sweeper = Sweeper::new(gateway.tables(), timeouts);
        let deadline = Instant::now() + Duration::from_secs(5);
        while sweeper.sweep().expect("a sweep").mappings > 0 && Instant::now() < deadline {}
        gateway.send(Lan, &third);

        // With nothing left, nothing is remembered.
        while gateway.tables().mappings_made().count().expect("a read") > 0
            && Instant::now() < deadline
        {
            sweeper.sweep().expect("a sweep");
        }
        assert_eq!(gateway.tables().mappings_made().count().expect("a read"), 0);
        assert_eq!(gateway.tables().mappings_ended().count().expect("a read"), 0);
    });
}

#[test]
fn a_forward_outlives_every_sweep() {
    in_a_gateway("a_forward_outlives_every_sweep", |gateway| {
        let forward = Forward { path: 1, protocol: 6, port: 443, to: HOST, to_port: 8_443 };
        gateway.set_forwards(&[forward]);
        let nothing = Duration::ZERO;
        let timeouts = Timeouts {
            udp: nothing,
            icmp: nothing,
            tcp_established: nothing,
            tcp_transitory: nothing,
        };
        let mut sweeper = Sweeper::new(gateway.tables(), timeouts);
        for _ in 0..3 {
            assert_eq!(figures(&sweeper.sweep().expect("a sweep")), (0, 0, 0, 1));
        }
        assert_eq!(gateway.tables().forwards().expect("a read").len(), 1);
    });
}

#[test]
fn a_forward_stays_one_when_its_host_sends_from_the_port() {
    in_a_gateway("a_forward_stays_one_when_its_host_sends_from_the_port", |gateway| {
        crate::outward::only_ports(gateway, PORT, PORT);
        // On the WAN's own subnet: the mapping is of that WAN, as a forward is.
        let neighbour = |last| host_udp(PORT).with(|p| p.destination = [198, 51, 100, last].into());
        gateway.send(Lan, &neighbour(7));
        let forward = Forward { path: 1, protocol: 17, port: PORT, to: HOST, to_port: PORT };
        gateway.set_forwards(&[forward]);
        gateway.send(Lan, &neighbour(8));
        assert_eq!(gateway.tables().forwards().expect("a read").len(), 1);
    });
}

#[test]
fn flows_of_a_changed_address_go_at_once() {
    in_a_gateway("flows_of_a_changed_address_go_at_once", |gateway| {
        open_flows(gateway);
        gateway.set_path(1, Path { generation: 2, ..path1() });
        let mut sweeper = Sweeper::new(gateway.tables(), Timeouts::default());
        let usage = sweeper.sweep().expect("a sweep");
        // The ports rest for their timeout: late answers must not reach others.
        assert_eq!(figures(&usage), (0, 0, 0, 3));
        assert_eq!(entries(&gateway.tables()), [0, 0, 0, 3]);
    });
}

#[test]
fn the_sweeper_reports_as_long_as_someone_listens() {
    in_a_gateway("the_sweeper_reports_as_long_as_someone_listens", |gateway| {
        open_flows(gateway);
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(async {
            let (sender, mut receiver) = tokio::sync::watch::channel(Usage::default());
            let sweeper = Sweeper::new(gateway.tables(), Timeouts::default());
            let (_timeouts, told) = tokio::sync::watch::channel(Timeouts::default());
            let running = tokio::spawn(sweeper.run(Duration::from_millis(10), told, sender));
            let limit = Duration::from_secs(10);
            tokio::time::timeout(limit, receiver.changed())
                .await
                .expect("a report in time")
                .expect("a sweeper");
            assert_eq!(figures(&receiver.borrow_and_update()), (3, 3, 1, 3));
            drop(receiver);
            tokio::time::timeout(limit, running).await.expect("an end in time").expect("no panic");
        });
    });
}
