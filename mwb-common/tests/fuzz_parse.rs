//! The parser under a fuzzer that learns: a frame that makes the parser answer
//! in a way that none has before joins the corpus, and is spoilt further. The
//! way of an answer is everything about it but addresses and ports.
//!
//! Contracts: it never panics, never points out of the frame, and does not
//! contradict itself: padding behind a packet means nothing, what is accepted
//! whole is accepted as a part, an ICMP error's quote is read as the packet was.
//! What it accepts as TCP or UDP, an independent parser (etherparse) reads with
//! the same ports.
//!
//! Without being told a run is short, and the same every time. `cargo xtask
//! fuzz parser` makes it long, by the variables `MWB_FUZZ_…`.

use std::collections::HashSet;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::time::{Duration, Instant};

use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TcpHeader, TcpOptions, TransportSlice};
use mwb_common::parse::{
    NOT_QUOTED, Refusal, Transport, ethertype, parse_ethernet, parse_ipv4, parse_ipv6, parse_mss,
    parse_quoted, parse_transport,
};

/// Frames of a run that nobody has told how long to be.
const SHORT: u64 = 200_000;
/// The seed of such a run.
const SEED: u64 = 0x6d77_6230;
/// Ways of answering that such a run must find: fewer, and it does not get in.
const WAYS: usize = 1_000;
/// Longest frame.
const LONGEST: usize = 512;

/// xorshift64* (Vigna 2016).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: usize) -> usize {
        ((self.next() >> 11) % n as u64) as usize
    }

    fn byte(&mut self) -> u8 {
        (self.next() >> 32) as u8
    }
}

/// One real packet of each kind.
fn seeds() -> Vec<Vec<u8>> {
    let link = || PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let v6 = || {
        let (from, to) = ([0x20; 16], [0x21; 16]);
        link().ipv6(from, to, 64)
    };
    let v4 = || link().ipv4([192, 0, 2, 10], [203, 0, 113, 1], 64);
    let tcp = || {
        let mut header = TcpHeader::new(4_000, 443, 7, 1_000);
        header.syn = true;
        header.options = TcpOptions::try_from_slice(&[2, 4, 5, 180, 1, 1, 4, 2]).expect("options");
        header
    };
    let mut frames = Vec::new();
    let mut put = |write: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = Vec::new();
        write(&mut frame);
        frames.push(frame);
    };
    let payload = [0x5a; 24];
    put(&|frame| v4().udp(4_000, 53).write(frame, &payload).expect("a packet"));
    put(&|frame| v6().udp(4_000, 53).write(frame, &payload).expect("a packet"));
    put(&|frame| v4().tcp_header(tcp()).write(frame, &payload).expect("a packet"));
    put(&|frame| v6().tcp_header(tcp()).write(frame, &payload).expect("a packet"));
    put(&|frame| v4().icmpv4_echo_request(7, 1).write(frame, &payload).expect("a packet"));
    put(&|frame| v6().icmpv6_echo_reply(7, 1).write(frame, &payload).expect("a packet"));
    put(&|frame| {
        let inner = v4().udp(4_000, 53);
        let mut quoted = Vec::new();
        inner.write(&mut quoted, &payload).expect("a packet");
        v4().icmpv4_raw(3, 3, [0; 4]).write(frame, &quoted[14..]).expect("a packet");
    });
    put(&|frame| {
        let inner = v6().tcp_header(tcp());
        let mut quoted = Vec::new();
        inner.write(&mut quoted, &payload).expect("a packet");
        v6().icmpv6_raw(2, 0, [0, 0, 5, 0]).write(frame, &quoted[14..]).expect("a packet");
    });
    frames
}

/// What an answer was like.
type Way = DefaultHasher;

/// Everything the data plane would ask about a frame; broken contracts panic.
fn walk(frame: &[u8], way: &mut Way) {
    let link = match parse_ethernet(frame) {
        Ok(link) => link,
        Err(refusal) => return refused(refusal, 0, way),
    };
    assert!(link.network as usize <= frame.len());
    (link.tags, link.ethertype == ethertype::IPV4).hash(way);
    let (v6, protocol, transport, end, part) = match link.ethertype {
        ethertype::IPV4 => match parse_ipv4(frame, link.network) {
            Ok(ip) => {
                let (whole, later) = (!ip.is_fragment(), ip.is_later_fragment());
                assert!(!(whole && later), "a later fragment is a fragment");
                (false, ip.header.protocol, ip.transport, ip.end, (whole, later))
            }
            Err(refusal) => return refused(refusal, 1, way),
        },
        ethertype::IPV6 => match parse_ipv6(frame, link.network) {
            Ok(ip) => {
                assert!(ip.fragment || !ip.later, "a later fragment is a fragment");
                (true, ip.protocol, ip.transport, ip.end, (!ip.fragment, ip.later))
            }
            Err(refusal) => return refused(refusal, 2, way),
        },
        _ => return,
    };
    assert!(link.network < transport && transport <= end && end as usize <= frame.len());
    let known = matches!(protocol, 1 | 6 | 17 | 47 | 50 | 58 | 132);
    let headers = transport - link.network;
    (v6, if known { protocol } else { 255 }, part, headers, (end - transport).min(24) / 4)
        .hash(way);
    let (whole, later) = part;
    if later {
        return;
    }
    let read = parse_transport(frame, protocol, transport, end, whole);
    check_transport(frame, protocol, transport, end, read);
    match read {
        Ok(t) => {
            (t.opens, t.check == 0, t.payload - transport, t.tcp_flags & 2).hash(way);
            if protocol == 6 {
                let mss = parse_mss(frame, t.source_field, t.payload);
                assert!(mss.is_none_or(|(at, _)| at + 2 <= t.payload), "an MSS behind its header");
                mss.map(|(at, _)| at - transport).hash(way);
            }
            if whole {
                agrees(frame, v6, protocol, t.ports);
            }
        }
        Err(refusal) => {
            refused(refusal, 3, way);
            if refusal == Refusal::IcmpError {
                walk_quote(frame, transport + 8, end, way);
            }
        }
    }
}

fn refused(refusal: Refusal, stage: u8, way: &mut Way) {
    (stage, refusal as u8).hash(way);
}

fn check_transport(
    frame: &[u8],
    protocol: u8,
    at: u32,
    end: u32,
    read: Result<Transport, Refusal>,
) {
    // A part of a packet has less to contradict itself with.
    let part = parse_transport(frame, protocol, at, end, false);
    if let Ok(t) = read {
        assert_eq!(part, Ok(t), "accepted whole, and not as a part");
        for field in [t.check, t.source_field, t.destination_field] {
            assert!(field == 0 || at <= field && field + 2 <= end, "a field out of the packet");
        }
        assert!(at < t.payload && t.payload <= end, "a payload out of the packet");
    }
    // What an error quotes of it is read the same, for as long as it is quoted.
    let quoted = parse_quoted(frame, protocol, at, end);
    if let (Ok(t), Ok(q)) = (read, quoted) {
        assert_eq!(t.ports, q.ports, "the quote has other ports");
        assert_eq!(
            (t.check, t.source_field, t.destination_field),
            (q.check, q.source_field, q.destination_field),
            "the quote has other fields"
        );
    }
    assert!(read.is_err() || quoted.is_ok() || end - at < 8, "a whole packet cannot be quoted");
}

fn walk_quote(frame: &[u8], at: u32, end: u32, way: &mut Way) {
    let Some(first) = frame.get(at as usize) else { return };
    let (protocol, transport) = match first >> 4 {
        4 => (frame.get(at as usize + 9), at + u32::from(first & 15) * 4),
        _ => (frame.get(at as usize + 6), at + 40),
    };
    let Some(protocol) = protocol else { return };
    match parse_quoted(frame, *protocol, transport, end) {
        Ok(q) => {
            (*protocol, q.check == 0, q.check == NOT_QUOTED).hash(way);
            for field in [q.check, q.source_field, q.destination_field] {
                let known = field == 0 || field == NOT_QUOTED || field + 2 <= end;
                assert!(known, "a field out of the quote");
            }
        }
        Err(refusal) => refused(refusal, 4, way),
    }
}

/// The reference reads the same ports, if it reads the frame at all.
fn agrees(frame: &[u8], v6: bool, protocol: u8, ports: [u8; 4]) {
    let Ok(reference) = SlicedPacket::from_ethernet(frame) else { return };
    let family = match &reference.net {
        Some(NetSlice::Ipv4(_)) => false,
        Some(NetSlice::Ipv6(_)) => true,
        _ => return,
    };
    assert_eq!(family, v6, "the reference sees another family");
    let (number, from, to) = match &reference.transport {
        Some(TransportSlice::Udp(udp)) => (17, udp.source_port(), udp.destination_port()),
        Some(TransportSlice::Tcp(tcp)) => (6, tcp.source_port(), tcp.destination_port()),
        _ => return,
    };
    let [a, b] = from.to_be_bytes();
    let [c, d] = to.to_be_bytes();
    assert_eq!((protocol, ports), (number, [a, b, c, d]), "the reference reads it differently");
}

/// The way of an answer, which padding does not change.
fn answer(frame: &[u8], padding: usize) -> u64 {
    let mut way = Way::new();
    walk(frame, &mut way);
    let way = way.finish();
    if padding > 0 && parse_ethernet(frame).is_ok_and(|link| link.ethertype == ethertype::IPV4) {
        let mut padded = frame.to_vec();
        padded.resize(frame.len() + padding, 0xa5);
        let (before, after) = (parse_ipv4(frame, 14), parse_ipv4(&padded[..], 14));
        if let (Ok(before), Ok(after)) = (before, after) {
            let places = (before.transport, before.end);
            assert_eq!(places, (after.transport, after.end), "padding is taken for payload");
        }
    }
    way
}

fn spoil(random: &mut Random, frame: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..=random.below(4) {
        // Headers are more telling than what is behind them.
        let reach = if random.below(4) == 0 { frame.len() } else { frame.len().min(64) };
        let at = random.below(reach.max(1));
        match random.below(9) {
            _ if frame.is_empty() => frame.extend([random.byte(); 20]),
            0 | 1 => frame[at] ^= 1 << random.below(8),
            2 => frame[at] = random.byte(),
            3 => {
                frame[at] = [0, 1, 4, 6, 17, 43, 44, 47, 50, 51, 58, 60, 132, 255][random.below(14)]
            }
            4 => frame.insert(at, random.byte()),
            5 => frame.truncate(at),
            6 => {
                // An IPv6 extension header, or IPv4 options.
                let word = [random.byte(), 0, 1, 4, 0, 0, 0, 0];
                let place = if frame.get(12) == Some(&0x86) { 54 } else { 34 };
                let place = place.min(frame.len());
                frame.splice(place..place, word);
            }
            7 => {
                let from = random.below(other.len().max(1));
                frame.truncate(at);
                frame.extend(other.get(from..).unwrap_or_default());
            }
            _ => {
                frame.splice(at.min(12)..at.min(12), [0x81, 0, 0, 5]);
            }
        }
    }
    frame.truncate(LONGEST);
    if random.below(2) == 0 {
        fit(frame);
    }
}

/// Makes the network header's length that of the frame.
fn fit(frame: &mut [u8]) {
    let length = frame.len().saturating_sub(14);
    let (at, value) = match frame.get(12..14) {
        Some([0x08, 0x00]) => (16, length),
        Some([0x86, 0xdd]) => (18, length.saturating_sub(40)),
        _ => return,
    };
    if let Some(place) = frame.get_mut(at..at + 2) {
        place.copy_from_slice(&(value as u16).to_be_bytes());
    }
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(format!("MWB_FUZZ_{name}")).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

#[test]
fn spoilt_frames_break_no_contract() {
    let started = Instant::now();
    let until = number("SECONDS").map(|seconds| started + Duration::from_secs(seconds));
    let inputs = number("INPUTS").unwrap_or(if until.is_some() { u64::MAX } else { SHORT });
    let seed = number("SEED").unwrap_or(SEED);
    let mut random = Random(seed | 1);
    let mut corpus = seeds();
    let mut ways: HashSet<u64> = corpus.iter().map(|frame| answer(frame, 9)).collect();
    assert_eq!(ways.len(), corpus.len(), "two seeds are alike");
    let mut done = 0;
    while done < inputs && (done % 1_024 != 0 || until.is_none_or(|end| Instant::now() < end)) {
        done += 1;
        let mut frame = corpus[random.below(corpus.len())].clone();
        let other = random.below(corpus.len());
        spoil(&mut random, &mut frame, &corpus[other]);
        let told = frame.clone();
        let padding = random.below(40);
        let result = std::panic::catch_unwind(|| answer(&told, padding));
        let Ok(way) = result else {
            let bytes: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
            panic!("frame {done} of seed {seed}: {bytes}");
        };
        if ways.insert(way) {
            corpus.push(frame);
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{done} frames, {seconds:.1} s, {:.0} a second, {} ways to answer, seed {seed}",
        done as f64 / seconds,
        ways.len()
    );
    assert!(done < SHORT || ways.len() >= WAYS, "only {} ways to answer were found", ways.len());
}
