//! Packets that no socket would send, or not in this order: made and read with
//! a library that the data plane does not use. A packet begins with its IP
//! header.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, bail, ensure};
use etherparse::{
    IpFragOffset, IpHeaders, IpNumber, Ipv4Header, Ipv6FragmentHeader, Ipv6Header, LaxIpSlice,
    LaxSlicedPacket, PacketBuilder, PacketBuilderStep, TcpHeader, TcpOptionElement, TransportSlice,
};

/// TTL and hop limit of what is made here.
pub(super) const TTL: u8 = 64;

/// ICMP, or ICMPv6 over IPv6.
pub(super) const ICMP: u8 = 1;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;

/// What a packet says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Packet {
    /// Sender and its port; for ICMP echo the identifier in place of either port.
    pub(super) from: SocketAddr,
    /// Receiver.
    pub(super) to: SocketAddr,
    /// Protocol; ICMPv6 is [`ICMP`] too.
    pub(super) protocol: u8,
    /// TTL or hop limit.
    pub(super) ttl: u8,
    /// Of a fragment: where it belongs.
    pub(super) fragment: Option<Piece>,
    /// Bits of a TCP header as in [`flag`].
    pub(super) flags: u8,
    /// MSS option of a TCP header.
    pub(super) mss: Option<u16>,
    /// Type and code of an ICMP message.
    pub(super) icmp: Option<(u8, u8)>,
    /// Bytes 4 to 8 of an ICMP message.
    pub(super) icmp_word: u32,
    /// What is behind the transport header; of a fragment, behind the IP headers.
    pub(super) payload: Vec<u8>,
}

/// Where a fragment belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) datagram: u32,
    pub(super) offset: usize,
    pub(super) more: bool,
}

/// Bits of a TCP header.
pub(super) mod flag {
    pub(in super::super) const FIN: u8 = 1;
    pub(in super::super) const SYN: u8 = 2;
    pub(in super::super) const RST: u8 = 4;
    pub(in super::super) const ACK: u8 = 16;
}

fn ip(from: IpAddr, to: IpAddr) -> Result<PacketBuilderStep<IpHeaders>> {
    Ok(match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), TTL),
        (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::ipv6(from.octets(), to.octets(), TTL),
        _ => bail!("{from} and {to} are of two families"),
    })
}

/// A UDP datagram.
pub(super) fn udp(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Result<Vec<u8>> {
    let mut packet = Vec::new();
    ip(from.ip(), to.ip())?.udp(from.port(), to.port()).write(&mut packet, payload)?;
    Ok(packet)
}

/// What a SYN made here says: less than any WAN of the lab would make of it.
const MSS: u16 = 1300;

/// A TCP segment; with [`flag::SYN`] it says [`MSS`].
pub(super) fn tcp(
    from: SocketAddr,
    to: SocketAddr,
    flags: u8,
    (sequence, acknowledged): (u32, u32),
    payload: &[u8],
) -> Result<Vec<u8>> {
    let mut header = TcpHeader::new(from.port(), to.port(), sequence, 65_000);
    header.fin = flags & flag::FIN != 0;
    header.syn = flags & flag::SYN != 0;
    header.rst = flags & flag::RST != 0;
    header.ack = flags & flag::ACK != 0;
    header.acknowledgment_number = acknowledged;
    if header.syn {
        header.set_options(&[TcpOptionElement::MaximumSegmentSize(MSS)])?;
    }
    let mut packet = Vec::new();
    ip(from.ip(), to.ip())?.tcp_header(header).write(&mut packet, payload)?;
    Ok(packet)
}

/// An echo request, or a reply.
pub(super) fn echo(
    from: IpAddr,
    to: IpAddr,
    identifier: u16,
    reply: bool,
    payload: &[u8],
) -> Result<Vec<u8>> {
    let (mut packet, ip) = (Vec::new(), ip(from, to)?);
    match (from.is_ipv4(), reply) {
        (true, false) => ip.icmpv4_echo_request(identifier, 1).write(&mut packet, payload)?,
        (true, true) => ip.icmpv4_echo_reply(identifier, 1).write(&mut packet, payload)?,
        (false, false) => ip.icmpv6_echo_request(identifier, 1).write(&mut packet, payload)?,
        (false, true) => ip.icmpv6_echo_reply(identifier, 1).write(&mut packet, payload)?,
    }
    Ok(packet)
}

/// A packet of any protocol, its payload as it is.
pub(super) fn raw(from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) -> Result<Vec<u8>> {
    let header = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let length = u16::try_from(payload.len())?;
            let number = IpNumber(protocol);
            let mut header = Ipv4Header::new(length, TTL, number, from.octets(), to.octets())?;
            header.header_checksum = header.calc_header_checksum();
            header.to_bytes().to_vec()
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let mut header = Ipv6Header { hop_limit: TTL, ..Ipv6Header::default() };
            header.source = from.octets();
            header.destination = to.octets();
            header.next_header = IpNumber(protocol);
            header.set_payload_length(payload.len())?;
            header.to_bytes().to_vec()
        }
        _ => bail!("{from} and {to} are of two families"),
    };
    Ok([header, payload.to_vec()].concat())
}

/// An ICMP or ICMPv6 error about a packet, of which it quotes the beginning.
pub(super) fn error(
    from: IpAddr,
    to: IpAddr,
    (kind, code): (u8, u8),
    word: u32,
    about: &[u8],
) -> Result<Vec<u8>> {
    let quoted = &about[..about.len().min(500)];
    let (mut packet, ip) = (Vec::new(), ip(from, to)?);
    if from.is_ipv4() {
        ip.icmpv4_raw(kind, code, word.to_be_bytes()).write(&mut packet, quoted)?;
    } else {
        ip.icmpv6_raw(kind, code, word.to_be_bytes()).write(&mut packet, quoted)?;
    }
    Ok(packet)
}

/// Cuts a packet into fragments of at most `size` bytes of payload, a multiple
/// of 8.
pub(super) fn fragments(packet: &[u8], datagram: u32, size: usize) -> Result<Vec<Vec<u8>>> {
    ensure!(size.is_multiple_of(8) && size > 0, "fragments are cut at multiples of 8");
    match packet.first().map(|first| first >> 4) {
        Some(4) => {
            let (header, payload) = Ipv4Header::from_slice(packet)?;
            pieces(payload, size)
                .map(|(offset, more, part)| {
                    let mut header = header.clone();
                    header.identification = u16::try_from(datagram)?;
                    header.dont_fragment = false;
                    header.more_fragments = more;
                    header.fragment_offset = place(offset)?;
                    header.set_payload_len(part.len())?;
                    header.header_checksum = header.calc_header_checksum();
                    Ok([&header.to_bytes()[..], part].concat())
                })
                .collect()
        }
        Some(6) => {
            let (header, payload) = Ipv6Header::from_slice(packet)?;
            pieces(payload, size)
                .map(|(offset, more, part)| {
                    let mut header = header.clone();
                    let next = header.next_header;
                    let extension = Ipv6FragmentHeader::new(next, place(offset)?, more, datagram);
                    header.next_header = IpNumber::IPV6_FRAGMENTATION_HEADER;
                    header.set_payload_length(part.len() + 8)?;
                    Ok([&header.to_bytes()[..], &extension.to_bytes()[..], part].concat())
                })
                .collect()
        }
        _ => bail!("not an IP packet"),
    }
}

fn pieces(payload: &[u8], size: usize) -> impl Iterator<Item = (usize, bool, &[u8])> {
    payload.chunks(size).enumerate().map(move |(number, part)| {
        let offset = number * size;
        (offset, offset + part.len() < payload.len(), part)
    })
}

fn place(offset: usize) -> Result<IpFragOffset> {
    IpFragOffset::try_new(u16::try_from(offset / 8)?).context("an offset")
}

/// Puts the fragments of one datagram together, in whatever order they came; the
/// packet that they were cut from, with its first fragment's header.
pub(super) fn reassemble(parts: &[Vec<u8>]) -> Result<Vec<u8>> {
    let mut read = Vec::new();
    for part in parts {
        let packet = Packet::read(part).context("not a packet")?;
        let piece = packet.fragment.context("not a fragment")?;
        read.push((piece, packet.payload, part));
    }
    read.sort_by_key(|(piece, ..)| piece.offset);
    let mut payload = Vec::new();
    for (piece, part, _) in &read {
        ensure!(piece.offset == payload.len(), "a gap at {}: {parts:02x?}", payload.len());
        payload.extend(part);
    }
    ensure!(read.last().is_some_and(|(piece, ..)| !piece.more), "the last one is missing");
    let (_, _, first) = read.first().context("no fragments")?;
    match first.first().map(|byte| byte >> 4) {
        Some(4) => {
            let (header, _) = Ipv4Header::from_slice(first)?;
            raw(
                IpAddr::from(header.source),
                IpAddr::from(header.destination),
                header.protocol.0,
                &payload,
            )
        }
        _ => {
            let (header, rest) = Ipv6Header::from_slice(first)?;
            let (extension, _) = Ipv6FragmentHeader::from_slice(rest)?;
            raw(
                IpAddr::from(header.source),
                IpAddr::from(header.destination),
                extension.next_header.0,
                &payload,
            )
        }
    }
}

impl Packet {
    /// Reads a packet.
    pub(super) fn read(packet: &[u8]) -> Option<Self> {
        Self::from(&LaxSlicedPacket::from_ip(packet).ok()?)
    }

    fn from(sliced: &LaxSlicedPacket<'_>) -> Option<Self> {
        let ip = match sliced.net.clone()? {
            etherparse::LaxNetSlice::Ipv4(ip) => LaxIpSlice::Ipv4(ip),
            etherparse::LaxNetSlice::Ipv6(ip) => LaxIpSlice::Ipv6(ip),
            etherparse::LaxNetSlice::Arp(_) => return None,
        };
        let (ttl, fragment) = match &ip {
            LaxIpSlice::Ipv4(ip) => {
                let header = ip.header();
                let piece = Piece {
                    datagram: header.identification().into(),
                    offset: usize::from(header.fragments_offset().value()) * 8,
                    more: header.more_fragments(),
                };
                (header.ttl(), header.is_fragmenting_payload().then_some(piece))
            }
            LaxIpSlice::Ipv6(ip) => {
                let header = ip.header();
                let fragment = (header.next_header() == IpNumber::IPV6_FRAGMENTATION_HEADER)
                    .then(|| Ipv6FragmentHeader::from_slice(ip.extensions().slice()).ok())
                    .flatten()
                    .map(|(extension, _)| Piece {
                        datagram: extension.identification,
                        offset: usize::from(extension.fragment_offset.value()) * 8,
                        more: extension.more_fragments,
                    });
                (header.hop_limit(), fragment)
            }
        };
        let body = ip.payload();
        let protocol = match body.ip_number {
            IpNumber::IPV6_ICMP => ICMP,
            number => number.0,
        };
        let (from, to) = (ip.source_addr(), ip.destination_addr());
        let mut seen = Self {
            from: SocketAddr::new(from, 0),
            to: SocketAddr::new(to, 0),
            protocol,
            ttl,
            fragment,
            flags: 0,
            mss: None,
            icmp: None,
            icmp_word: 0,
            payload: body.payload.to_vec(),
        };
        if let (None, Some(transport)) = (fragment, &sliced.transport) {
            seen.read_transport(transport);
        }
        Some(seen)
    }

    fn read_transport(&mut self, transport: &TransportSlice<'_>) {
        match transport {
            TransportSlice::Tcp(tcp) => {
                self.from.set_port(tcp.source_port());
                self.to.set_port(tcp.destination_port());
                self.flags = tcp.slice().get(13).copied().unwrap_or_default();
                self.mss = tcp.options_iterator().find_map(|option| match option {
                    Ok(TcpOptionElement::MaximumSegmentSize(mss)) => Some(mss),
                    _ => None,
                });
                self.payload = tcp.payload().to_vec();
            }
            TransportSlice::Udp(udp) => {
                self.from.set_port(udp.source_port());
                self.to.set_port(udp.destination_port());
                self.payload = udp.payload().to_vec();
            }
            TransportSlice::Icmpv4(icmp) => {
                self.read_icmp(icmp.type_u8(), icmp.code_u8(), icmp.bytes5to8(), [8, 0]);
                self.payload = icmp.slice().get(8..).unwrap_or_default().to_vec();
            }
            TransportSlice::Icmpv6(icmp) => {
                self.read_icmp(icmp.type_u8(), icmp.code_u8(), icmp.bytes5to8(), [128, 129]);
                self.payload = icmp.slice().get(8..).unwrap_or_default().to_vec();
            }
            TransportSlice::Igmp(_) => {}
        }
    }

    fn read_icmp(&mut self, kind: u8, code: u8, word: [u8; 4], echo: [u8; 2]) {
        self.icmp = Some((kind, code));
        self.icmp_word = u32::from_be_bytes(word);
        if echo.contains(&kind) {
            let identifier = u16::from_be_bytes([word[0], word[1]]);
            self.from.set_port(identifier);
            self.to.set_port(identifier);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    #[test]
    fn a_datagram_that_was_cut_and_shuffled_is_put_together_again() -> Result<()> {
        let v4 = |last| SocketAddr::from((Ipv4Addr::new(192, 0, 2, last), 4000));
        let v6 = |last| SocketAddr::from((Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last), 4000));
        for (from, to) in [(v4(1), v4(2)), (v6(1), v6(2))] {
            let whole = udp(from, to, &[7; 3000])?;
            let mut parts = fragments(&whole, 99, 1000)?;
            assert_eq!(parts.len(), 4);
            parts.reverse();
            let again = reassemble(&parts)?;
            assert_eq!(Packet::read(&again), Packet::read(&whole));
            assert!(reassemble(&parts[1..]).is_err(), "the last one is missing");
            assert!(reassemble(&parts[..3]).is_err(), "the first one is missing");
        }
        Ok(())
    }

    #[test]
    fn a_packet_says_what_it_was_made_of() -> Result<()> {
        let from = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 4000));
        let to = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 2), 80));
        let read = Packet::read(&tcp(from, to, flag::SYN, (1, 0), b"")?).context("read")?;
        assert_eq!((read.from, read.to, read.flags), (from, to, flag::SYN));
        assert_eq!(read.mss, Some(MSS));
        let read = Packet::read(&echo(from.ip(), to.ip(), 77, true, b"x")?).context("read")?;
        assert_eq!((read.icmp, read.to.port()), (Some((0, 0)), 77));
        Ok(())
    }
}
