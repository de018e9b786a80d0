//! Rows about protocols of which only the addresses are translated, and about
//! what is bounded: mappings of a source, segment sizes, epochs.

use mwb_common::maps::{Control, Family, Path, SLOTS, Selection};
use mwb_common::reason::Reason;

use crate::answers::refused;
use crate::gateway::From::{Lan, Wan};
use crate::gateway::Gateway;
use crate::packet::{ACK, Packet, Transport};
use crate::row::{Row, Then, after, forwarded, slow, untouched};
use crate::world::{
    FRIEND, HOST, NEIGHBOUR2, OTHER_REMOTE, PORT, answer, control, delivered, host_tcp, host_udp,
    out_by1, out_by2, path1, path2, selection, v6,
};

pub(crate) fn rows() -> Vec<Row> {
    [addresses_only(), limited(), segments(), epochs(), priority_tags()]
        .into_iter()
        .flatten()
        .collect()
}

fn raw(protocol: u8) -> Packet {
    // SCTP: ports, tag, checksum; GRE: flags, type; ESP: SPI, sequence.
    let bytes = vec![0x9c, 0x40, 1, 187, 9, 9, 9, 9, 7, 7, 7, 7];
    host_udp(PORT).with(|p| p.transport = Transport::Raw { protocol, bytes })
}

const GRE: u8 = 47;
const ESP: u8 = 50;
const SCTP: u8 = 132;

/// The other direction of an SCTP packet.
fn back(packet: &Packet) -> Packet {
    packet.with(|p| {
        if let Transport::Raw { protocol: SCTP, bytes } = &mut p.transport {
            bytes[..4].rotate_left(2);
        }
    })
}

/// Name, number, that HOST has sent one, and that FRIEND has.
type Kind = (&'static str, u8, fn(&mut Gateway), fn(&mut Gateway));

fn addresses_only() -> Vec<Row> {
    let kinds: [Kind; 3] = [
        (
            "gre",
            GRE,
            |g| g.send(Lan, &raw(GRE)),
            |g| {
                g.send(Lan, &raw(GRE).with(|p| p.source = FRIEND.into()));
            },
        ),
        (
            "esp",
            ESP,
            |g| g.send(Lan, &raw(ESP)),
            |g| {
                g.send(Lan, &raw(ESP).with(|p| p.source = FRIEND.into()));
            },
        ),
        (
            "sctp",
            SCTP,
            |g| g.send(Lan, &raw(SCTP)),
            |g| {
                g.send(Lan, &raw(SCTP).with(|p| p.source = FRIEND.into()));
            },
        ),
    ];
    let mut rows = Vec::new();
    for (name, protocol, sent, taken) in kinds {
        let packet = raw(protocol);
        let reply = back(&answer(&out_by1(&packet)));
        let elsewhere = packet.with(|p| p.destination = OTHER_REMOTE.into());
        rows.extend([
            forwarded(name, Lan, &packet, &out_by1(&packet), (1, "other4")),
            forwarded(format!("{name} again"), Lan, &packet, &out_by1(&packet), (1, "other4"))
                .given(sent),
            forwarded(
                format!("{name} over ipv6"),
                Lan,
                &v6(&packet),
                &out_by1(&v6(&packet)),
                (1, "other6"),
            ),
            forwarded(
                format!("an answer of {name}"),
                Wan(1),
                &reply,
                &delivered(&reply),
                (1, "other4"),
            )
            .given(sent),
            forwarded(
                format!("{name} to another remote than a neighbour's"),
                Lan,
                &elsewhere,
                &out_by1(&elsewhere),
                (1, "other4"),
            )
            .given(taken),
            untouched(
                format!("{name} of no flow"),
                Wan(1),
                reply.bytes(),
                Reason::NoMapping,
                (1, "other4"),
            ),
        ]);
        let name = format!("{name} to the remote of a neighbour");
        rows.extend(after(refused(name, &packet, Reason::EndpointTaken, "other4"), taken));
    }
    rows
}

fn limited() -> Vec<Row> {
    fn one_each(gateway: &mut Gateway) {
        gateway.set_control(Control { source_limit: 1, ..control() });
        gateway.send(Lan, &host_udp(PORT + 1));
    }
    let udp = host_udp(PORT);
    let out =
        |name: &str, packet: &Packet| forwarded(name, Lan, packet, &out_by1(packet), (1, "udp4"));
    let elsewhere = host_udp(PORT + 1).with(|p| p.destination = OTHER_REMOTE.into());
    let friends = udp.with(|p| p.source = FRIEND.into());
    vec![
        out("a flow of a mapping that it has", &elsewhere).given(one_each),
        out("another source has mappings of its own", &friends).given(one_each),
        out("a mapping that is over makes room", &udp).given(|gateway| {
            one_each(gateway);
            gateway.tables().mappings_ended().put(&HOST.octets(), &1).expect("a write");
        }),
        out("counts wrap", &udp).given(|gateway| {
            gateway.set_control(Control { source_limit: 1, ..control() });
            let tables = gateway.tables();
            tables.mappings_made().put(&HOST.octets(), &2).expect("a write");
            tables.mappings_ended().put(&HOST.octets(), &3).expect("a write");
        }),
    ]
}

/// The maximum segment size as a TCP option, with `before` in front of it.
fn mss(before: usize, value: u16) -> Vec<u8> {
    let [high, low] = value.to_be_bytes();
    let mut options = vec![1; before];
    options.extend([2, 4, high, low]);
    options.resize(options.len().next_multiple_of(4), 1);
    options
}

fn segments() -> Vec<Row> {
    fn narrow(gateway: &mut Gateway) {
        gateway.set_path(1, Path { mtu: 1_400, ..path1() });
    }
    fn narrow_and_open(gateway: &mut Gateway) {
        narrow(gateway);
        gateway.send(Lan, &host_tcp(PORT));
        gateway.send(Lan, &v6(&host_tcp(PORT)));
    }
    let with = |packet: &Packet, options: Vec<u8>| packet.with(|p| p.tcp_options = options);
    let plain = |packet: &Packet| {
        packet.with(|p| {
            if let Transport::Tcp { flags, .. } = &mut p.transport {
                *flags = ACK;
            }
        })
    };
    let mut rows = Vec::new();
    for (family, syn, most, protocol) in
        [("", host_tcp(PORT), 1_360, "tcp4"), (" over ipv6", v6(&host_tcp(PORT)), 1_340, "tcp6")]
    {
        for before in 0..4 {
            let (asked, got) = (with(&syn, mss(before, 1_460)), with(&syn, mss(before, most)));
            let name = format!("a segment size behind {before} bytes{family}");
            rows.push(forwarded(name, Lan, &asked, &out_by1(&got), (1, protocol)).given(narrow));
            let reply = |packet: &Packet| answer(&out_by1(packet));
            let name = format!("a segment size in the answer behind {before} bytes{family}");
            rows.push(
                forwarded(name, Wan(1), &reply(&asked), &delivered(&reply(&got)), (1, protocol))
                    .given(narrow_and_open),
            );
        }
        let same = |name: &str, packet: Packet| {
            let name = format!("{name}{family}");
            forwarded(name, Lan, &packet, &out_by1(&packet), (1, protocol)).given(narrow)
        };
        rows.extend([
            same("a segment size that fits", with(&syn, mss(0, most))),
            same("a small segment size", with(&syn, mss(1, 536))),
            same("a syn without options", syn.clone()),
            same("an option that ends nowhere", with(&syn, vec![1, 1, 8, 0])),
            same(
                "a segment size behind the end of options",
                with(&syn, vec![0, 2, 4, 5, 180, 0, 0, 0]),
            ),
            same("no syn", plain(&with(&syn, mss(0, 1_460)))),
        ]);
    }
    rows
}

fn epochs() -> Vec<Row> {
    /// All prefer path 2 from now on, and path 1 lets go of its flows.
    fn cut(gateway: &mut Gateway) {
        let selection = Selection { slots: [2; SLOTS], ..selection() };
        gateway.set_selection(Family::V4, &selection);
        gateway.set_selection(Family::V6, &selection);
        gateway.set_path(1, Path { epoch: 1, ..path1() });
        gateway.set_path(2, Path { epoch: 1, ..path2() });
    }
    let (udp, udp6) = (host_udp(PORT), v6(&host_udp(PORT)));
    let elsewhere = udp.with(|p| p.destination = OTHER_REMOTE.into());
    let to_neighbour = udp.with(|p| p.destination = NEIGHBOUR2.into());
    let reply = answer(&out_by1(&udp));
    vec![
        forwarded("a flow of an older epoch is made anew", Lan, &udp, &out_by2(&udp), (2, "udp4"))
            .given(|gateway| {
                gateway.send(Lan, &host_udp(PORT));
                cut(gateway);
            }),
        forwarded("an ipv6 flow of an older epoch", Lan, &udp6, &out_by2(&udp6), (2, "udp6"))
            .given(|gateway| {
                gateway.send(Lan, &v6(&host_udp(PORT)));
                cut(gateway);
            }),
        forwarded("so is a mapping", Lan, &elsewhere, &out_by2(&elsewhere), (2, "udp4")).given(
            |gateway| {
                gateway.send(Lan, &host_udp(PORT));
                cut(gateway);
            },
        ),
        forwarded("a flow of the new epoch stays", Lan, &udp, &out_by2(&udp), (2, "udp4")).given(
            |gateway| {
                cut(gateway);
                gateway.send(Lan, &host_udp(PORT));
                gateway.set_selection(Family::V4, &selection());
            },
        ),
        forwarded(
            "one that had no choice stays",
            Lan,
            &to_neighbour,
            &out_by2(&to_neighbour),
            (2, "udp4"),
        )
        .given(|gateway| {
            gateway.send(Lan, &host_udp(PORT).with(|p| p.destination = NEIGHBOUR2.into()));
            gateway.set_path(2, Path { epoch: 9, ..path2() });
            gateway.set_selection(Family::V4, &selection());
        }),
        forwarded(
            "answers still arrive by the old path",
            Wan(1),
            &reply,
            &delivered(&reply),
            (1, "udp4"),
        )
        .given(|gateway| {
            gateway.send(Lan, &host_udp(PORT));
            cut(gateway);
        }),
    ]
}

/// The XDP form sees the tag of a priority; the TC form gets the frame without.
fn priority_tags() -> Vec<Row> {
    let tagged = |packet: &Packet| packet.with(|p| p.tags = vec![(0x8100, 0xa000)]).bytes();
    [
        ("a priority tag", tagged(&host_udp(PORT))),
        ("a priority tag over ipv6", tagged(&v6(&host_udp(PORT)))),
    ]
    .into_iter()
    .map(|(name, frame)| {
        let [_, handed_over] = slow(name, Lan, frame, Then::Ignored, (0, "other4"));
        handed_over
    })
    .collect()
}
