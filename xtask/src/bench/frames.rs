//! The frames of a benchmark: how they are made, and what they must look like
//! after a gateway has translated them. The oracle computes every checksum over
//! the whole packet, so that nothing of the data plane's arithmetic is trusted.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::{Context as _, Result, bail, ensure};
use etherparse::{Ipv4Header, PacketBuilder, SlicedPacket, TransportSlice, UdpHeader};

use super::kernel::{HEAD, MAGIC};

/// Ethernet, IPv4 and UDP.
const HEADERS: usize = 14 + 20 + 8;
/// Where the number of the flow stands.
const FLOW_NUMBER: usize = HEADERS + MAGIC.len();
/// TTL of frames as they are sent.
pub(super) const TTL: u8 = 64;
/// Shortest frame there is.
pub(super) const LEAST: usize = HEAD;

/// Where frames of one flow come from and go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Endpoints {
    /// Sender.
    pub(super) source: SocketAddrV4,
    /// Receiver.
    pub(super) destination: SocketAddrV4,
}

/// A frame of flow `number`, `length` bytes of Ethernet without FCS.
pub(super) fn build(
    number: usize,
    macs: ([u8; 6], [u8; 6]),
    endpoints: Endpoints,
    length: usize,
) -> Result<Vec<u8>> {
    ensure!(length >= HEAD, "a frame has at least {HEAD} bytes");
    let mut payload: Vec<u8> = MAGIC.to_vec();
    payload.extend(u32::try_from(number)?.to_be_bytes());
    // Something that a checksum notices when it is moved or cut.
    payload.extend((payload.len()..length - HEADERS).map(|i| (i * 7 % 251) as u8));
    let Endpoints { source, destination } = endpoints;
    let mut frame = Vec::with_capacity(length);
    PacketBuilder::ethernet2(macs.0, macs.1)
        .ipv4(source.ip().octets(), destination.ip().octets(), TTL)
        .udp(source.port(), destination.port())
        .write(&mut frame, &payload)
        .context("cannot build a frame")?;
    ensure!(frame.len() == length, "{} bytes instead of {length}", frame.len());
    Ok(frame)
}

/// What a received frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Received {
    /// Number of the flow.
    pub(super) flow: usize,
    /// Addresses and ports as they arrived.
    pub(super) endpoints: Endpoints,
    /// Remaining hops.
    pub(super) ttl: u8,
    /// Receiver's MAC.
    pub(super) destination_mac: [u8; 6],
}

/// Reads a frame as it arrived, and refuses one with a wrong checksum, length or
/// payload.
pub(super) fn read(frame: &[u8], length: usize) -> Result<Received> {
    ensure!(frame.len() == length, "{} bytes arrived where {length} were sent", frame.len());
    let packet = SlicedPacket::from_ethernet(frame).context("not a packet any more")?;
    let Some(etherparse::NetSlice::Ipv4(ip)) = &packet.net else { bail!("not IPv4 any more") };
    let Some(TransportSlice::Udp(udp)) = &packet.transport else { bail!("not UDP any more") };
    let ip = ip.header().to_header();
    let wanted = ip.calc_header_checksum();
    ensure!(
        ip.header_checksum == wanted,
        "IPv4 checksum {:04x}, not {wanted:04x}",
        ip.header_checksum
    );
    let payload = udp.payload();
    check_udp(&ip, &udp.to_header(), payload)?;
    let flow = number_of(frame)?;
    let expected = build(flow, ([0; 6], [0; 6]), nowhere(), length)?;
    ensure!(
        frame.get(HEADERS..) == expected.get(HEADERS..),
        "the payload of flow {flow} is not what was sent"
    );
    let mut destination_mac = [0; 6];
    destination_mac.copy_from_slice(frame.get(..6).context("shorter than a MAC")?);
    Ok(Received {
        flow,
        endpoints: Endpoints {
            source: SocketAddrV4::new(Ipv4Addr::from(ip.source), udp.source_port()),
            destination: SocketAddrV4::new(Ipv4Addr::from(ip.destination), udp.destination_port()),
        },
        ttl: ip.time_to_live,
        destination_mac,
    })
}

fn check_udp(ip: &Ipv4Header, udp: &UdpHeader, payload: &[u8]) -> Result<()> {
    ensure!(usize::from(udp.length) == 8 + payload.len(), "UDP length {}", udp.length);
    let wanted = udp.calc_checksum_ipv4(ip, payload).context("no UDP checksum of this")?;
    ensure!(udp.checksum == wanted, "UDP checksum {:04x}, not {wanted:04x}", udp.checksum);
    Ok(())
}

fn number_of(frame: &[u8]) -> Result<usize> {
    let bytes = frame.get(FLOW_NUMBER..FLOW_NUMBER + 4).context("shorter than its flow number")?;
    let mut number = [0; 4];
    number.copy_from_slice(bytes);
    Ok(usize::try_from(u32::from_be_bytes(number))?)
}

fn nowhere() -> Endpoints {
    let nowhere = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
    Endpoints { source: nowhere, destination: nowhere }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THERE: Endpoints = Endpoints {
        source: SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 10), 4000),
        destination: SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 250), 9),
    };
    const MACS: ([u8; 6], [u8; 6]) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);

    #[test]
    fn a_frame_reads_as_it_was_built() -> Result<()> {
        for length in [64, 65, 1400] {
            let frame = build(777, MACS, THERE, length)?;
            let received = read(&frame, length)?;
            assert_eq!(
                received,
                Received { flow: 777, endpoints: THERE, ttl: TTL, destination_mac: MACS.1 }
            );
        }
        Ok(())
    }

    #[test]
    fn a_changed_bit_anywhere_behind_the_macs_is_noticed() -> Result<()> {
        let frame = build(3, MACS, THERE, 64)?;
        for byte in 12..frame.len() {
            let mut wrong = frame.clone();
            wrong[byte] ^= 0x10;
            assert!(read(&wrong, 64).is_err(), "byte {byte}");
        }
        Ok(())
    }
}
