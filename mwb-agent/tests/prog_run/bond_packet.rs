//! Packets of the bond, made and opened without its programs: the cipher is the host's, the
//! outside an independent builder's.

use std::net::IpAddr;

use etherparse::{IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, UdpHeader};
use mwb_common::integrity::Suite;
use mwb_common::integrity::seal::{Key, Sender, open, seal};
use mwb_common::wire::{FIELDS, Fields, Header, header_length};

use crate::bond_world::{Side, address, key, macs};
use crate::packet::Packet;

/// A packet of the bond as an independent builder makes it: `text` behind `header`,
/// sealed by `side`, on its way by path `id`.
pub(crate) struct Sealed<'a> {
    pub(crate) side: Side,
    pub(crate) suite: Suite,
    pub(crate) header: Header,
    pub(crate) text: &'a [u8],
    pub(crate) is_v6: bool,
}

impl Sealed<'_> {
    /// Behind UDP.
    pub(crate) fn payload(&self) -> Vec<u8> {
        let parity = u32::from(self.header.flags & 1);
        self.sealed_with(&key(self.side, parity), self.side.sender())
    }

    /// The same with any key.
    pub(crate) fn sealed_with(&self, key: &Key, sender: Sender) -> Vec<u8> {
        let mut buffer = vec![0; 8];
        buffer.extend(bytemuck::bytes_of(&self.header.encode()));
        buffer.resize(8 + header_length(self.suite) as usize, 0);
        buffer.extend(self.text);
        seal(&mut buffer, 8, self.suite, key, sender).expect("a packet");
        buffer.split_off(8)
    }

    /// The frame as it leaves the sender.
    pub(crate) fn frame(&self) -> Vec<u8> {
        let id = self.header.path;
        let [to, from] = macs(self.side, id, self.is_v6);
        let source = (address(self.side, id, self.is_v6), self.side.port());
        let far = self.side.other();
        let destination = (address(far, id, self.is_v6), far.port());
        outside([to, from], source, destination, &self.payload())
    }

    /// The frame as it comes to the far end.
    pub(crate) fn arriving(&self) -> Vec<u8> {
        let mut frame = self.frame();
        let [from, to] = macs(self.side.other(), self.header.path, self.is_v6);
        frame[..6].copy_from_slice(&to);
        frame[6..12].copy_from_slice(&from);
        frame
    }
}

/// A UDP packet on Ethernet: with IPv4 without a checksum and not to be divided, with
/// IPv6 with one.
pub(crate) fn outside(
    [to, from]: [[u8; 6]; 2],
    (source, source_port): (IpAddr, u16),
    (destination, destination_port): (IpAddr, u16),
    payload: &[u8],
) -> Vec<u8> {
    let mut udp = UdpHeader::without_ipv4_checksum(source_port, destination_port, payload.len())
        .expect("a payload that fits");
    let length = udp.length;
    let head = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let (source, destination) = (source.octets(), destination.octets());
            let mut header =
                Ipv4Header::new(length, 64, IpNumber::UDP, source, destination).expect("a length");
            header.dont_fragment = true;
            header.header_checksum = header.calc_header_checksum();
            [vec![0x08, 0x00], header.to_bytes().to_vec()].concat()
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let (source, destination) = (source.octets(), destination.octets());
            let header = Ipv6Header {
                traffic_class: 0,
                flow_label: Ipv6FlowLabel::ZERO,
                payload_length: length,
                next_header: IpNumber::UDP,
                hop_limit: 64,
                source,
                destination,
            };
            udp.checksum =
                udp.calc_checksum_ipv6_raw(source, destination, payload).expect("a checksum");
            [vec![0x86, 0xdd], header.to_bytes().to_vec()].concat()
        }
        _ => panic!("one address family per packet"),
    };
    [&to[..], &from, &head, &udp.to_bytes(), payload].concat()
}

/// The inner packet of a frame, without Ethernet and padding.
pub(crate) fn inner_of(packet: &Packet) -> Vec<u8> {
    let bytes = packet.bytes();
    bytes[14..bytes.len() - packet.padding].to_vec()
}

/// What is sealed in a frame that `side` has sent: its header and its text.
pub(crate) fn opened(side: Side, suite: Suite, frame: &[u8], is_v6: bool) -> (Header, Vec<u8>) {
    let at = if is_v6 { 62 } else { 42 };
    open_payload(side, suite, &frame[at..]).expect("it opens")
}

/// The same of what is behind UDP; none if `side` has not sealed it.
pub(crate) fn open_payload(side: Side, suite: Suite, payload: &[u8]) -> Option<(Header, Vec<u8>)> {
    let mut buffer = [&[0; 8], payload].concat();
    let fields: Fields = bytemuck::pod_read_unaligned(payload.get(..FIELDS as usize)?);
    let header = fields.decode().ok()?;
    let key = key(side, u32::from(header.flags & 1));
    open(&mut buffer, 8, suite, &key, side.sender()).ok()?;
    Some((header, buffer.split_off(8 + header_length(suite) as usize)))
}
