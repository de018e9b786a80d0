//! Real packets to start from: those of the fixtures, the answers to what has
//! left, ICMP errors about it, and its fragments.

use std::net::IpAddr;

use crate::packet::{ACK, Packet, SYN, Transport};
use crate::random::Random;
use crate::view::{LINK, Part, View, be16, put16, repair, repair_at};
use crate::world;

/// TCP with FIN, RST, data.
const FLAGS: &[u8] = &[SYN, SYN, ACK, ACK, SYN | ACK, ACK | 1, 4, ACK | 4];
/// Ports that inside hosts use: few, so that flows meet again.
const PORTS: u16 = 48;
/// IP protocols without ports that NAT can change, and some that nobody knows.
const PROTOCOLS: &[u8] = &[47, 50, 132, 47, 50, 132, 2, 89, 255, 1, 58];

fn port(random: &mut Random) -> u16 {
    if random.chance(90) { 40_000 + random.below(usize::from(PORTS)) as u16 } else { random.word() }
}

/// A packet that a LAN host might send.
pub(crate) fn from_lan(random: &mut Random) -> Vec<u8> {
    let v6 = random.chance(40);
    let base = match random.below(10) {
        0..4 => world::host_udp(port(random)),
        4..7 => world::host_tcp(port(random)),
        7..9 => world::host_echo(port(random)),
        _ => world::host_udp(port(random)).with(|p| {
            let protocol = *random.pick(PROTOCOLS);
            p.transport = Transport::Raw { protocol, bytes: vec![0; 8 + random.below(24)] };
        }),
    };
    let mut packet = if v6 { world::v6(&base) } else { base };
    packet.source = source(random, v6);
    packet.destination = destination(random, v6);
    describe(random, &mut packet);
    packet.bytes()
}

fn source(random: &mut Random, v6: bool) -> IpAddr {
    use world::{FOREIGN6, FRIEND, GATEWAY, GATEWAY6, HOST, HOST6, LOST6, SILENT, SILENT6};
    if v6 {
        (*random.pick(&[HOST6, HOST6, HOST6, SILENT6, LOST6, FOREIGN6, GATEWAY6])).into()
    } else {
        (*random.pick(&[HOST, HOST, HOST, FRIEND, FRIEND, SILENT, GATEWAY])).into()
    }
}

fn destination(random: &mut Random, v6: bool) -> IpAddr {
    use world::{
        BYPASSED, BYPASSED6, FRIEND, GATEWAY, GATEWAY6, NEIGHBOUR2, OTHER_REMOTE, REMOTE, REMOTE6,
        WAN1, WAN1_6, WAN2,
    };
    if v6 {
        let rare = [BYPASSED6, GATEWAY6, WAN1_6, "ff02::1".parse().expect("an address")];
        if random.chance(85) { REMOTE6.into() } else { (*random.pick(&rare)).into() }
    } else {
        let rare = [BYPASSED, GATEWAY, FRIEND, NEIGHBOUR2, WAN1, WAN1, WAN2, [224, 0, 0, 1].into()];
        match random.below(10) {
            0..6 => REMOTE.into(),
            6..8 => OTHER_REMOTE.into(),
            _ => (*random.pick(&rare)).into(),
        }
    }
}

/// Everything about a packet that is not its ends.
fn describe(random: &mut Random, packet: &mut Packet) {
    if random.chance(10) {
        packet.ttl = *random.pick(&[0, 1, 2, 255]);
    }
    packet.payload = match random.below(40) {
        0 => vec![0x5a; 1_400 + random.below(600)],
        1 => vec![0xff; random.below(600)],
        _ => (0..random.below(64)).map(|_| random.byte()).collect(),
    };
    packet.padding = if random.chance(10) { random.below(30) } else { 0 };
    if random.chance(5) {
        packet.tags = vec![(*random.pick(&[0x8100, 0x88a8]), *random.pick(&[0, 5]))];
    }
    match packet.source {
        IpAddr::V4(_) if random.chance(8) => packet.options = vec![1; 4 * (1 + random.below(10))],
        IpAddr::V6(_) if random.chance(12) => {
            let number = *random.pick(&[0, 60, 43, 51]);
            // The length byte counts words of 8, or of 4 minus 2 (51).
            let body = if number == 51 { vec![0; 7] } else { vec![0, 1, 4, 0, 0, 0, 0] };
            let body = if number == 51 { [&[0][..], &body[1..]].concat() } else { body };
            packet.extensions = vec![(number, body); 1 + random.below(3)];
        }
        _ => {}
    }
    match &mut packet.transport {
        Transport::Tcp { flags, destination, .. } => {
            *flags = *random.pick(FLAGS);
            *destination = *random.pick(&[443, 443, 80, 22]);
            if random.chance(30) {
                let [high, low] = u16::to_be_bytes(*random.pick(&[1_460, 8_960, 536, 65_535, 0]));
                // Alone, or behind what fills up and before what is allowed as well.
                let options = [vec![2, 4, high, low], vec![1, 2, 4, high, low, 4, 2, 0]];
                packet.tcp_options = random.pick(&options).clone();
            }
        }
        Transport::Udp { checksum, destination, .. } => {
            *checksum = packet.source.is_ipv6() || random.chance(85);
            *destination = *random.pick(&[443, 443, 53, 9]);
        }
        Transport::Echo { reply, .. } => *reply = random.chance(8),
        Transport::Icmp { .. } | Transport::Raw { .. } => {}
    }
}

/// A packet from a WAN that nobody has asked for. `ports` are outside ports that
/// are in use.
pub(crate) fn unasked(random: &mut Random, path: u8, ports: &[u16]) -> Vec<u8> {
    let known = if ports.is_empty() { 40_000 } else { *random.pick(ports) };
    let port = if random.chance(70) { known } else { random.word() };
    let base = match random.below(3) {
        0 => world::host_udp(9),
        1 => world::host_tcp(9),
        _ => world::host_echo(port),
    };
    let v6 = random.chance(30);
    let base = if v6 { world::v6(&base) } else { base };
    let mut packet = world::answer(&base);
    packet.to = if path == 1 { world::WAN1_MAC } else { world::WAN2_MAC };
    packet.destination = match (v6, path) {
        (false, 1) => world::WAN1.into(),
        (false, _) => world::WAN2.into(),
        (true, 1) => world::HOST6_OUT1.into(),
        (true, _) => world::HOST6_OUT2.into(),
    };
    packet.source = match v6 {
        true => world::REMOTE6.into(),
        false => {
            let remotes = [world::REMOTE, world::OTHER_REMOTE, [203, 0, 113, 77].into()];
            (*random.pick(&remotes)).into()
        }
    };
    describe(random, &mut packet);
    match &mut packet.transport {
        Transport::Tcp { destination, source, .. } | Transport::Udp { destination, source, .. } => {
            (*source, *destination) = (*random.pick(&[443, 80, 53, 1000]), port);
        }
        _ => {}
    }
    packet.bytes()
}

/// What the other end answers to `sent`, coming in at `mac`.
pub(crate) fn answer(random: &mut Random, sent: &[u8], mac: [u8; 6]) -> Option<Vec<u8>> {
    let view = View::of(sent)?;
    let mut frame = sent.to_vec();
    let (from, to) = (view.source_at(), view.destination_at());
    frame[from.clone()].copy_from_slice(&sent[to.clone()]);
    frame[to].copy_from_slice(&sent[from]);
    frame[..6].copy_from_slice(&mac);
    frame[6..12].copy_from_slice(&[2, 0, 0, 7, 7, 7]);
    frame[view.hops_at()] = *random.pick(&[57, 57, 57, 57, 1, 2]);
    match (view.ports_at(sent), view.icmp_type(sent)) {
        (_, Some(8)) if !view.v6 => frame[view.transport] = 0,
        (_, Some(0)) if !view.v6 => frame[view.transport] = 8,
        (_, Some(kind @ (128 | 129))) if view.v6 => frame[view.transport] = kind ^ 1,
        ([Some(a), Some(b)], _) => {
            let [source, destination] = view.ports(sent);
            put16(&mut frame, a, destination);
            put16(&mut frame, b, source);
        }
        _ => {}
    }
    repair(&mut frame);
    Some(frame)
}

/// An ICMP error about `seen`, from a router or the host that got it. `to_lan`
/// tells whose MAC it is sent to.
pub(crate) fn error(random: &mut Random, seen: &[u8], mac: [u8; 6]) -> Option<Vec<u8>> {
    let about = View::of(seen)?;
    let longest = about.end - about.network;
    let quoted = match random.below(3) {
        0 => longest,
        1 => longest.min(about.transport - about.network + 8),
        _ => random.below(longest + 1),
    };
    let quote = seen.get(about.network..about.network + quoted.min(1_000))?;
    let (header, protocol) = if about.v6 { (40, 58) } else { (20, 1) };
    let mut frame = [&mac[..], &[2, 0, 0, 7, 7, 7], &seen[12..14]].concat();
    frame.resize(LINK + header + 8, 0);
    let length = (frame.len() - LINK + quote.len()) as u16;
    if about.v6 {
        frame[LINK] = 0x60;
        put16(&mut frame, LINK + 4, length - 40);
        frame[LINK + 6] = protocol;
        frame[LINK + 7] = 60;
        let router = world::REMOTE6.octets();
        frame[LINK + 8..LINK + 24].copy_from_slice(&router);
    } else {
        frame[LINK] = 0x45;
        put16(&mut frame, LINK + 2, length);
        frame[LINK + 8] = 60;
        frame[LINK + 9] = protocol;
        frame[LINK + 12..LINK + 16].copy_from_slice(&[203, 0, 113, 1]);
    }
    // It goes to the one who has sent what it is about.
    let to = if about.v6 { LINK + 24..LINK + 40 } else { LINK + 16..LINK + 20 };
    frame[to].copy_from_slice(&seen[about.source_at()]);
    if random.chance(50) {
        // From the host itself.
        let from = if about.v6 { LINK + 8..LINK + 24 } else { LINK + 12..LINK + 16 };
        frame[from].copy_from_slice(&seen[about.destination_at()]);
    }
    let at = LINK + header;
    let kinds: &[[u8; 2]] = if about.v6 {
        &[[1, 4], [2, 0], [3, 0], [4, 1]]
    } else {
        &[[3, 3], [3, 4], [3, 1], [11, 0], [12, 0], [5, 1]]
    };
    let kind: [u8; 2] = *random.pick(kinds);
    frame[at..at + 2].copy_from_slice(&kind);
    put16(&mut frame, at + 6, 1_280);
    frame.extend(quote);
    repair(&mut frame);
    Some(frame)
}

/// Cuts a packet into fragments. Their offsets are right; whether the first has
/// the whole transport header is left to chance.
pub(crate) fn fragments(random: &mut Random, frame: &[u8]) -> Option<Vec<Vec<u8>>> {
    let view = View::of(frame)?;
    let body = frame.get(view.transport..view.end)?;
    if view.part != Part::Whole || body.len() < 16 || view.v6 && view.transport != LINK + 40 {
        return None;
    }
    let pieces = 2 + random.below(2);
    let size = (body.len() / pieces).next_multiple_of(8).max(8);
    let identification = random.word();
    let count = body.len().div_ceil(size);
    let mut frames: Vec<Vec<u8>> = body
        .chunks(size)
        .enumerate()
        .map(|(number, piece)| {
            let offset = (number * size / 8) as u16;
            let more = number + 1 < count;
            fragment(&frame[..view.transport], &view, piece, offset, more, identification)
        })
        .collect();
    // Any order.
    for last in (1..frames.len()).rev() {
        frames.swap(last, random.below(last + 1));
    }
    Some(frames)
}

fn fragment(
    head: &[u8],
    view: &View,
    piece: &[u8],
    offset: u16,
    more: bool,
    identification: u16,
) -> Vec<u8> {
    let mut frame = head.to_vec();
    if view.v6 {
        frame[LINK + 6] = 44;
        frame.extend([view.protocol, 0]);
        frame.extend((offset << 3 | u16::from(more)).to_be_bytes());
        frame.extend([0, 0]);
        frame.extend(identification.to_be_bytes());
        put16(&mut frame, LINK + 4, (8 + piece.len()) as u16);
    } else {
        put16(&mut frame, LINK + 2, (head.len() - LINK + piece.len()) as u16);
        put16(&mut frame, LINK + 4, identification);
        put16(&mut frame, LINK + 6, offset | u16::from(more) << 13);
    }
    frame.extend(piece);
    if let Some(view) = View::of(&frame) {
        // Only the header's: the transport's covers all of them.
        repair_at(&mut frame, &View { part: Part::Later, ..view });
    }
    frame
}

#[test]
fn fragments_put_together_are_the_packet() {
    let mut random = Random::new(1);
    for packet in [world::host_udp(7), world::v6(&world::host_tcp(7))] {
        let frame = packet.with(|p| p.payload = (0..200).collect()).bytes();
        let view = View::of(&frame).expect("a packet");
        let mut body = vec![0; view.end - view.transport];
        let pieces = fragments(&mut random, &frame).expect("a packet that can be cut");
        assert!(pieces.len() > 1);
        for piece in &pieces {
            let part = View::of(piece).expect("a packet");
            assert_ne!(part.part, Part::Whole);
            let field = if part.v6 { part.transport - 6 } else { LINK + 6 };
            let word = be16(piece, field).expect("an offset");
            let at = usize::from(if part.v6 { word & !7 } else { (word & 0x1fff) * 8 });
            let bytes = &piece[part.transport..part.end];
            body[at..at + bytes.len()].copy_from_slice(bytes);
        }
        assert_eq!(body, frame[view.transport..view.end]);
    }
}

#[test]
fn an_answer_and_an_error_are_well_formed() {
    let mut random = Random::new(2);
    for packet in [world::host_udp(7), world::host_tcp(7), world::host_echo(7)] {
        for packet in [packet.clone(), world::v6(&packet)] {
            let sent = packet.bytes();
            let back = answer(&mut random, &sent, world::WAN1_MAC).expect("an answer");
            let view = View::of(&back).expect("a packet");
            assert_eq!((view.header_sum(&back), view.transport_sum(&back)), (0, Some(0)));
            let told = error(&mut random, &sent, world::WAN1_MAC).expect("an error");
            let view = View::of(&told).expect("a packet");
            assert!(view.is_icmp_error(&told));
            assert_eq!((view.header_sum(&told), view.transport_sum(&told)), (0, Some(0)));
        }
    }
}
