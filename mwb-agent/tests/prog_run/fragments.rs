//! Rows about fragments: in order, out of order, and without their first one.
//! That what waited comes in again cannot be seen in a test run: here it is seen
//! that it waits, and that it waits no more.

use bytemuck::Zeroable as _;
use mwb_agent::dataplane::Hook;
use mwb_common::maps::{Fragment, Held, held};
use mwb_common::reason::Reason;

use crate::gateway::From::{self, Lan, Wan};
use crate::gateway::{Gateway, TC_ACT_SHOT};
use crate::lasting::in_a_gateway;
use crate::packet::{Packet, fragments};
use crate::row::{Row, Then, after, forwarded, slow, untouched};
use crate::world::{GATEWAY, GATEWAY6, PORT, answer, delivered, host_tcp, host_udp, out_by1, v6};

/// Three fragments' worth.
fn whole(packet: &Packet) -> Packet {
    packet.with(|p| p.payload = (0..2_500_u16).map(|i| i.to_le_bytes()[0]).collect())
}

fn cut(packet: &Packet) -> Vec<Vec<u8>> {
    fragments(&packet.bytes(), 1_000)
}

fn sent4() -> Vec<Vec<u8>> {
    cut(&whole(&host_udp(PORT)))
}

fn sent6() -> Vec<Vec<u8>> {
    cut(&whole(&v6(&host_udp(PORT))))
}

fn reply(packet: &Packet) -> Packet {
    answer(&out_by1(packet))
}

fn reply4() -> Vec<Vec<u8>> {
    cut(&whole(&reply(&host_udp(PORT))))
}

fn reply6() -> Vec<Vec<u8>> {
    cut(&whole(&reply(&v6(&host_udp(PORT)))))
}

fn opened(gateway: &mut Gateway) {
    gateway.send(Lan, &host_udp(PORT));
    gateway.send(Lan, &v6(&host_udp(PORT)));
}

/// Fragments of one datagram, how each leaves, and what has to have happened for
/// the first, and for the others.
type Kind = (&'static str, From, Vec<Vec<u8>>, Vec<Vec<u8>>, &'static str, [fn(&mut Gateway); 2]);

fn kinds() -> [Kind; 5] {
    let out = |packet: &Packet| cut(&out_by1(&whole(packet)));
    let into = |packet: &Packet| cut(&delivered(&whole(&reply(packet))));
    let (udp, tcp, udp6) = (host_udp(PORT), host_tcp(PORT), v6(&host_udp(PORT)));
    [
        ("udp", Lan, sent4(), out(&udp), "udp4", [|_| {}, |g| g.try_frame(Lan, &sent4()[0])]),
        (
            "tcp",
            Lan,
            cut(&whole(&tcp)),
            out(&tcp),
            "tcp4",
            [|_| {}, |g| g.try_frame(Lan, &cut(&whole(&host_tcp(PORT)))[0])],
        ),
        ("ipv6", Lan, sent6(), out(&udp6), "udp6", [|_| {}, |g| g.try_frame(Lan, &sent6()[0])]),
        (
            "an answer",
            Wan(1),
            reply4(),
            into(&udp),
            "udp4",
            [opened, |gateway| {
                opened(gateway);
                gateway.try_frame(Wan(1), &reply4()[0]);
            }],
        ),
        (
            "an ipv6 answer",
            Wan(1),
            reply6(),
            into(&udp6),
            "udp6",
            [opened, |gateway| {
                opened(gateway);
                gateway.try_frame(Wan(1), &reply6()[0]);
            }],
        ),
    ]
}

pub(crate) fn rows() -> Vec<Row> {
    [in_order(), waiting(), left_to_the_kernel(), odd_ones()].into_iter().flatten().collect()
}

fn in_order() -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, from, frames, leaving, protocol, given) in kinds() {
        for (number, (frame, out)) in frames.into_iter().zip(leaving).enumerate() {
            let name = format!("fragment {number} of {name}");
            let then = Then::Ends(Reason::Forwarded, Some(out));
            let row = slow(name, from, frame, then, (1, protocol));
            rows.extend(after(row, given[usize::from(number > 0)]));
        }
    }
    rows
}

fn waiting() -> Vec<Row> {
    let late = |name, from, frames: Vec<Vec<u8>>| {
        slow(name, from, frames[1].clone(), Then::Later, (0, "udp4"))
    };
    let first = |name, from, frames: Vec<Vec<u8>>, given| {
        after(slow(name, from, frames[0].clone(), Then::Later, (0, "udp4")), given)
    };
    fn ten() -> Vec<Vec<u8>> {
        fragments(&whole(&host_udp(PORT)).bytes(), 256)
    }
    let orphan = |name, frame: Vec<u8>, protocol| {
        slow(name, Lan, frame, Then::Ends(Reason::FragmentOrphan, None), (0, protocol))
    };
    let long = fragments(&host_udp(PORT).with(|p| p.payload = vec![7; 6_000]).bytes(), 2_048);
    [
        late("it waits for its first one", Lan, sent4()),
        late("it waits for its first one, ipv6", Lan, sent6()),
        late("it waits for its first one", Wan(1), reply4()),
        late("it waits for its first one, ipv6", Wan(1), reply6()),
        first("the first one that others wait for", Lan, sent4(), |g| {
            g.try_frame(Lan, &sent4()[1])
        }),
        first("the first one that others wait for, ipv6", Lan, sent6(), |gateway| {
            gateway.try_frame(Lan, &sent6()[2]);
        }),
        first("the first one that others wait for", Wan(1), reply4(), |gateway| {
            opened(gateway);
            gateway.try_frame(Wan(1), &reply4()[1]);
        }),
        after(orphan("more wait than there is room for", ten()[9].clone(), "udp4"), |gateway| {
            for frame in &ten()[1..9] {
                gateway.try_frame(Lan, frame);
            }
        }),
        orphan("too long to wait", long[1].clone(), "udp4"),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn left_to_the_kernel() -> Vec<Row> {
    fn to_gateway() -> Vec<Vec<u8>> {
        cut(&whole(&host_udp(PORT)).with(|p| p.destination = GATEWAY.into()))
    }
    fn to_gateway6() -> Vec<Vec<u8>> {
        cut(&whole(&v6(&host_udp(PORT))).with(|p| p.destination = GATEWAY6.into()))
    }
    let row = |name, from, frame: &[u8], reason, counted| {
        slow(name, from, frame.to_vec(), Then::Ends(reason, None), counted)
    };
    [
        row("the first one to the gateway", Lan, &to_gateway()[0], Reason::Local, (0, "udp4")),
        after(
            row("a later one to the gateway", Lan, &to_gateway()[1], Reason::Local, (0, "udp4")),
            |gateway| gateway.try_frame(Lan, &to_gateway()[0]),
        ),
        after(
            row(
                "a later ipv6 one to the gateway",
                Lan,
                &to_gateway6()[1],
                Reason::Local,
                (0, "udp6"),
            ),
            |gateway| gateway.try_frame(Lan, &to_gateway6()[0]),
        ),
        row("the first one of no flow", Wan(1), &reply4()[0], Reason::NoMapping, (1, "udp4")),
        after(
            row(
                "a later one of no flow",
                Wan(1),
                &reply4()[1],
                Reason::OutsideFragment,
                (1, "udp4"),
            ),
            |gateway| gateway.try_frame(Wan(1), &reply4()[0]),
        ),
        row(
            "the first ipv6 one of no flow",
            Wan(1),
            &reply6()[0],
            Reason::Unsolicited,
            (1, "udp6"),
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn odd_ones() -> Vec<Row> {
    // RFC 6946: a fragment of its own is a whole packet.
    let atomic = v6(&host_udp(PORT)).with(|p| {
        p.extensions = vec![(44, vec![0, 0, 0, 9, 9, 9, 9])];
    });
    // RFC 1858: a first fragment without the whole TCP header.
    let tiny = fragments(&host_tcp(PORT).bytes(), 16);
    let mut rows =
        vec![forwarded("an atomic fragment", Lan, &atomic, &out_by1(&atomic), (1, "udp6"))];
    rows.extend(slow(
        "a first one that ends in its tcp header",
        Lan,
        tiny[0].clone(),
        Then::Ends(Reason::Malformed, None),
        (0, "tcp4"),
    ));
    rows.push(untouched(
        "cut off in its fragment header",
        Lan,
        sent6()[0][..58].to_vec(),
        Reason::Malformed,
        (0, "other4"),
    ));
    rows
}

#[test]
fn what_waits_is_released_by_the_first_one_and_forgotten_by_nobody() {
    let name = "what_waits_is_released_by_the_first_one_and_forgotten_by_nobody";
    in_a_gateway(name, |gateway, form| {
        if form == Hook::Xdp {
            return;
        }
        for frames in [sent4(), sent6()] {
            let waiting = |gateway: &Gateway| {
                let waiting = gateway.tables().waiting(0).expect("a read");
                (waiting.in_time, waiting.late)
            };
            for frame in &frames[1..] {
                gateway.try_frame(Lan, frame);
            }
            assert_eq!(waiting(gateway), (frames.len() - 1, 0));
            let outcome = gateway.run(Lan, &frames[0]).expect("a test run");
            assert_eq!(outcome.verdict, TC_ACT_SHOT);
            assert_eq!(waiting(gateway), (0, 0));
        }
        assert_eq!(gateway.tables().fragments().count().expect("a read"), 2);
        assert_eq!(
            gateway.counters().expect("counters"),
            [],
            "what comes in again is counted then"
        );
    });
}

#[test]
fn a_fragment_waits_though_its_number_was_anothers_long_ago() {
    in_a_gateway("a_fragment_waits_though_its_number_was_anothers_long_ago", |gateway, form| {
        if form == Hook::Xdp {
            return;
        }
        for (waiting, frames) in (1..).zip([sent4(), sent6()]) {
            gateway.try_frame(Lan, &frames[0]);
            let tables = gateway.tables();
            let known = tables.fragments();
            let mut entries = Vec::new();
            known.for_each(|key, entry| entries.push((*key, entry[0]))).expect("a read");
            assert!(!entries.is_empty());
            for (key, entry) in entries {
                known.put(&key, &Fragment { until: 1, ..entry }).expect("a write");
            }
            gateway.try_frame(Lan, &frames[1]);
            assert_eq!(gateway.tables().waiting(0).expect("a read").in_time, waiting);
        }
    });
}

#[test]
fn what_has_waited_in_vain_makes_room_and_is_counted_as_what_it_was() {
    let name = "what_has_waited_in_vain_makes_room_and_is_counted_as_what_it_was";
    in_a_gateway(name, |gateway, form| {
        if form == Hook::Xdp {
            return;
        }
        let tables = gateway.tables();
        let late = Held {
            state: held::WAITS,
            until: 1,
            length: 114,
            path: 2,
            // TCP over IPv4, from a WAN.
            protocol: 1,
            direction: 1,
            ..Held::zeroed()
        };
        for slot in 0..tables.held_slots().capacity() {
            tables.held_slots().put(&slot, &late).expect("a write");
        }
        gateway.try_frame(Lan, &sent4()[1]);
        let counters = gateway.counters().expect("counters");
        let [row] = counters.as_slice() else { panic!("{counters:?}") };
        assert_eq!((row.reason, row.path), (Reason::FragmentOrphan, 2));
        assert_eq!((row.protocol, row.direction.name()), ("tcp4", "in"));
        assert_eq!((row.packets, row.bytes), (1, 100));
        let waiting = tables.waiting(2).expect("a read");
        assert_eq!((waiting.in_time, waiting.late), (1, waiting.capacity - 1));
    });
}
