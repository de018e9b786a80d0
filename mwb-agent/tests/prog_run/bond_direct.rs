//! The short ways of a server: from the bond to the uplink, and back, in one go; and the
//! way through the device for what they do not take.

use mwb_common::integrity::Suite;
use mwb_common::maps::Direction;
use mwb_common::reason::Reason;
use mwb_common::wire::{Header, Kind, inner};

use crate::bond_packet::{Sealed, inner_of};
use crate::bond_probes::probe_to;
use crate::bond_world::{Door, End, ROUTER_MAC, SERVER, Side, UPLINK_MAC};
use crate::gateway::{XDP_DROP, XDP_REDIRECT};
use crate::moved::difference;
use crate::network::in_the_world;
use crate::packet::Packet;
use crate::world::{GATEWAY, PORT, answer, host_udp};

const SUITE: Suite = Suite::SipHash;

/// A server in the world, with nothing seen.
fn server(lan: u32) -> End {
    let mut end = End::new(lan, Side::Server);
    end.reset(SUITE, false);
    end
}

/// A packet of the gateway, as it comes to the server.
fn sealed(sequence: u64, packet: &Packet) -> Vec<u8> {
    let base = probe_to(Side::Server, SUITE, false, sequence, 0).header;
    let header = Header { kind: Kind::Data, inner: inner::IPV4, ..base };
    let text = &inner_of(packet);
    Sealed { side: Side::Gateway, suite: SUITE, header, text, is_v6: false }.arriving()
}

/// What comes of a frame at the uplink: the verdict, the packet, and each count that moved.
fn at_uplink(end: &mut End, frame: &[u8]) -> (u32, Vec<u8>, Vec<(Direction, Reason)>) {
    let before = end.counters();
    let came = end.run(Door::Wan(1), frame);
    let moved = difference(&before, end.counters());
    assert!(moved.iter().all(|row| row.packets == 1), "{moved:?}");
    (came.verdict, came.packet, moved.iter().map(|row| (row.direction, row.reason)).collect())
}

/// As it leaves the server.
fn out(sent: &Packet) -> Packet {
    sent.with(|p| {
        p.source = SERVER.into();
        (p.from, p.to) = (UPLINK_MAC, ROUTER_MAC);
        p.ttl -= 1;
    })
}

#[test]
fn what_a_server_opens_leaves_by_its_uplink_and_the_answer_goes_into_the_bond() {
    let name = "what_a_server_opens_leaves_by_its_uplink_and_the_answer_goes_into_the_bond";
    in_the_world(name, |lan| {
        let mut end = server(lan);
        end.steer();
        let sent = host_udp(PORT);
        let (verdict, packet, counts) = at_uplink(&mut end, &sealed(1, &sent));
        assert_eq!((verdict, &packet), (XDP_REDIRECT, &out(&sent).bytes()));
        let both = [(Direction::In, Reason::ToDevice), (Direction::Out, Reason::Forwarded)];
        assert_eq!(sorted(counts), sorted(both.into()));
        let before = end.state(1).sent;
        let (verdict, _, counts) = at_uplink(&mut end, &answer(&out(&sent)).bytes());
        assert_eq!((verdict, end.state(1).sent), (XDP_REDIRECT, before + 1));
        let both = [(Direction::In, Reason::Forwarded), (Direction::Out, Reason::Bonded)];
        assert_eq!(sorted(counts), sorted(both.into()));
    });
}

#[test]
fn what_the_short_way_does_not_take_goes_through_the_device_as_it_was() {
    let name = "what_the_short_way_does_not_take_goes_through_the_device_as_it_was";
    in_the_world(name, |lan| {
        let cases = [
            ("at its end", host_udp(PORT).with(|p| p.ttl = 1)),
            ("a fragment", host_udp(PORT).with(|p| p.fragment = (0, true))),
            ("to the server itself", host_udp(PORT).with(|p| p.destination = SERVER.into())),
        ];
        for (what, packet) in cases {
            let mut end = server(lan);
            let long = at_uplink(&mut end, &sealed(1, &packet));
            assert_eq!(
                (long.0, &long.2[..]),
                (XDP_REDIRECT, &[(Direction::In, Reason::ToDevice)][..])
            );
            end.steer();
            assert_eq!(at_uplink(&mut end, &sealed(2, &packet)), long, "{what}");
        }
    });
}

#[test]
fn what_is_dropped_on_the_short_way_is_counted_there() {
    in_the_world("what_is_dropped_on_the_short_way_is_counted_there", |lan| {
        let mut end = server(lan);
        end.steer();
        let forged = host_udp(PORT).with(|p| p.source = GATEWAY.into());
        let (verdict, _, counts) = at_uplink(&mut end, &sealed(1, &forged));
        assert_eq!(verdict, XDP_DROP);
        let both = [(Direction::In, Reason::ToDevice), (Direction::Out, Reason::ForeignSource)];
        assert_eq!(sorted(counts), sorted(both.into()));
    });
}

fn sorted(mut counts: Vec<(Direction, Reason)>) -> Vec<(u8, u8)> {
    counts.sort_by_key(|(direction, reason)| (*direction as u8, *reason as u8));
    counts.into_iter().map(|(direction, reason)| (direction as u8, reason as u8)).collect()
}
