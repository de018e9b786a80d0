//! Frames that no socket would send, put on the LAN as they are.

use anyhow::Result;
use etherparse::{IpNumber, Ipv4Header, PacketBuilder};

use super::port::mac;
use crate::lab::{
    Lab,
    address::{GATEWAY4, HOST4, HOST6, NET4, NET6},
    raw::RawSocket,
};

/// A frame that cannot be translated, and the reason it must be counted under.
pub(super) struct Bad {
    pub(super) name: &'static str,
    pub(super) reason: &'static str,
    pub(super) frame: Vec<u8>,
}

/// Sends frames from the LAN host's device.
pub(super) struct Injector {
    socket: RawSocket,
}

impl Injector {
    pub(super) fn new(lab: &Lab) -> Result<Self> {
        Ok(Self { socket: lab.host().enter(|| RawSocket::open("lan0"))? })
    }

    pub(super) fn send(&self, frame: &[u8]) -> Result<()> {
        let (sent, _) = self.socket.send(&[frame.to_vec()])?;
        anyhow::ensure!(sent == 1, "the device refused a frame");
        Ok(())
    }
}

const PAYLOAD: &[u8] = b"not a packet for the Internet";
const STRANGER: [u8; 6] = [2, 0, 0, 0, 0, 99];
const MULTICAST: [u8; 6] = [1, 0, 0x5e, 0, 0, 251];

/// One of each kind.
pub(super) fn bad_from_the_lan(lab: &Lab) -> Result<Vec<Bad>> {
    let host = mac((lab.host(), "lan0"))?;
    let gateway = mac((lab.gw(), "lan0"))?;
    let lan = Lan { host, gateway };
    let net6 = NET6.octets();
    let mut bad = Vec::new();
    let mut add = |name, reason, frame| bad.push(Bad { name, reason, frame });

    add("an OSPF packet", "unsupported_protocol", lan.frame(&lan.ipv4(IpNumber::OSPFIGP, 64)?));
    let mut long = lan.ipv4(IpNumber::UDP, 64)?;
    long.total_len += 100;
    add("a packet shorter than it says", "malformed", lan.frame(&long));

    let udp = |builder: etherparse::PacketBuilderStep<etherparse::IpHeaders>| {
        let mut frame = Vec::new();
        builder.udp(4000, 9).write(&mut frame, PAYLOAD).map(|()| frame)
    };
    let from = |to| PacketBuilder::ethernet2(host, to);
    let (near, far) = (HOST4.octets(), NET4.octets());
    add("a packet at its last hop", "ttl_expired", udp(from(gateway).ipv4(near, far, 1))?);
    let gateways = GATEWAY4.octets();
    add(
        "a packet of the gateway's own",
        "foreign_source",
        udp(from(gateway).ipv4(gateways, far, 64))?,
    );
    let foreign = [0x20, 1, 0xd, 0xb8, 0xb, 0xad, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    add(
        "a packet of a foreign prefix",
        "foreign_source",
        udp(from(gateway).ipv6(foreign, net6, 64))?,
    );
    add("a packet for another station", "other_host", udp(from(STRANGER).ipv4(near, far, 64))?);
    add("a packet for many", "multicast", udp(from(MULTICAST).ipv4(near, [224, 0, 0, 251], 64))?);
    let tagged = from(gateway).single_vlan(7.try_into()?);
    let mut frame = Vec::new();
    tagged.ipv4(near, far, 64).udp(4000, 9).write(&mut frame, PAYLOAD)?;
    add("a tagged packet", "tagged", frame);

    let mut frame = Vec::new();
    let unreachable = etherparse::Icmpv4Type::DestinationUnreachable(
        etherparse::icmpv4::DestUnreachableHeader::Port,
    );
    let quoted = lan.frame(&lan.ipv4(IpNumber::UDP, 64)?).split_off(14);
    from(gateway).ipv4(near, far, 64).icmpv4(unreachable).write(&mut frame, &quoted)?;
    add("an ICMP error", "inside_icmp_error", frame);
    let mut frame = Vec::new();
    let unreachable = etherparse::Icmpv6Type::DestinationUnreachable(
        etherparse::icmpv6::DestUnreachableCode::Port,
    );
    let near6 = HOST6.octets();
    from(gateway).ipv6(near6, net6, 64).icmpv6(unreachable).write(&mut frame, &[0; 48])?;
    add("an ICMPv6 error", "inside_icmp_error", frame);

    let mut frame = [gateway.as_slice(), &host, &[0x88, 0xcc]].concat();
    frame.resize(60, 0);
    add("a frame without IP", "not_ip", frame);
    Ok(bad)
}

struct Lan {
    host: [u8; 6],
    gateway: [u8; 6],
}

impl Lan {
    fn ipv4(&self, protocol: IpNumber, ttl: u8) -> Result<Ipv4Header> {
        let length = u16::try_from(PAYLOAD.len())?;
        Ok(Ipv4Header::new(length, ttl, protocol, HOST4.octets(), NET4.octets())?)
    }

    /// The header as it is, with a right checksum, and the payload.
    fn frame(&self, header: &Ipv4Header) -> Vec<u8> {
        let mut header = header.clone();
        header.header_checksum = header.calc_header_checksum();
        let ethernet = [self.gateway.as_slice(), &self.host, &[8, 0]].concat();
        [ethernet.as_slice(), &header.to_bytes(), PAYLOAD].concat()
    }
}
