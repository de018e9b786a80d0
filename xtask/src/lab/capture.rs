//! Captures what passes a device, and audits it: every checksum right, nothing
//! inside seen outside. Parses with a library of its own, not with the code
//! that it judges.

use std::{
    fs::File,
    net::IpAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use etherparse::{LaxNetSlice, LaxSlicedPacket, TransportSlice};
use nix::sys::signal::Signal;
use pcap_file::pcap::PcapReader;

use super::{Namespace, Process, address, is_emulated, wait_for, wait_until};

/// Bytes kept of a frame: a whole one of an MTU of 1,500. More would leave room
/// for too few frames in tcpdump's ring, which has slots of this size.
const SNAPLEN: usize = 2048;

/// A running capture.
#[derive(Debug)]
pub struct Capture {
    process: Process,
    file: PathBuf,
}

/// Frames of a finished capture, Ethernet header first.
#[derive(Debug)]
pub struct Captured {
    /// In the order they passed.
    pub frames: Vec<Vec<u8>>,
}

/// Which frames of a device to capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passing {
    /// Those that come in through it.
    In,
    /// Those that it sends.
    Out,
    /// All.
    Both,
}

impl Capture {
    /// Starts to capture what `filter` (as tcpdump reads it) lets through.
    ///
    /// # Errors
    /// When tcpdump does not come up.
    pub fn start(
        namespace: &Namespace,
        device: &str,
        passing: Passing,
        filter: &str,
    ) -> Result<Self> {
        let direction = match passing {
            Passing::In => "in",
            Passing::Out => "out",
            Passing::Both => "inout",
        };
        let name = format!("{}-{device}-{direction}.pcap", namespace.name());
        let file = namespace.scratch().join(name);
        let path = file.to_string_lossy().into_owned();
        let process = namespace.spawn(
            "tcpdump",
            [
                "-n",
                "-i",
                device,
                "-Q",
                direction,
                "-w",
                &path,
                "-U",
                "-Z",
                "root",
                "-s",
                &SNAPLEN.to_string(),
                "-B",
                "65536",
                "--immediate-mode",
                filter,
            ],
        )?;
        let mut capture = Self { process, file };
        wait_until("tcpdump listens", Duration::from_secs(5), || {
            ensure!(capture.process.is_running()?, "it ended: {}", capture.process.log());
            Ok(capture.process.log().contains("listening on"))
        })?;
        Ok(capture)
    }

    /// Ends the capture and reads it.
    ///
    /// # Errors
    /// When tcpdump lost frames, or its file cannot be read.
    pub fn finish(mut self) -> Result<Captured> {
        self.read_all()?;
        self.process.signal(Signal::SIGINT)?;
        let log = self.process.finish(Duration::from_secs(10))?;
        let dropped = log
            .lines()
            .rev()
            .find_map(|line| line.strip_suffix(" packets dropped by kernel"))
            .context("tcpdump says nothing of drops")?;
        ensure!(dropped.trim() == "0", "the capture is not whole: {dropped} frames dropped");
        let file = File::open(&self.file).context("no capture file")?;
        let mut reader = PcapReader::new(file).context("not a capture file")?;
        let mut frames = Vec::new();
        while let Some(packet) = reader.next_packet() {
            frames.push(packet.context("a broken capture file")?.data.into_owned());
        }
        Ok(Captured { frames })
    }

    /// Waits until tcpdump has read what the kernel holds for it, which it would
    /// lose when it is interrupted: its counts stand still then. Where a stream
    /// goes on they never do, and a short wait must be enough.
    fn read_all(&mut self) -> Result<()> {
        let enough = Duration::from_millis(if is_emulated() { 3000 } else { 500 });
        let start = Instant::now();
        let mut last = String::new();
        while start.elapsed() < enough {
            let now = self.counts()?;
            if std::mem::replace(&mut last, now.clone()) == now {
                break;
            }
        }
        Ok(())
    }

    /// How much it has captured up to now, in its own words.
    fn counts(&mut self) -> Result<String> {
        let said = |log: &str| -> Vec<String> {
            log.lines().filter(|line| line.contains(" captured, ")).map(str::to_owned).collect()
        };
        let before = said(&self.process.log()).len();
        self.process.signal(Signal::SIGUSR1)?;
        let what = "tcpdump tells its counts";
        let (counts, _) = wait_for(what, Duration::from_secs(10), || {
            ensure!(self.process.is_running()?, "it ended: {}", self.process.log());
            Ok(said(&self.process.log()).split_off(before).pop())
        })
        .with_context(|| self.process.log())?;
        Ok(counts)
    }
}

/// What an audit has looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Audited {
    /// IPv4 and IPv6 packets.
    pub packets: u64,
    /// TCP, UDP, ICMP and ICMPv6 checksums found right.
    pub checksums: u64,
    /// UDP over IPv4 without a checksum.
    pub without: u64,
}

impl Captured {
    /// Recomputes the checksum of every header and payload.
    ///
    /// # Errors
    /// When one is wrong; the first few are named.
    pub fn audit_checksums(&self) -> Result<Audited> {
        let mut audited = Audited::default();
        let mut wrong = Vec::new();
        for (number, frame) in self.frames.iter().enumerate() {
            if let Err(error) = audit_frame(frame, &mut audited) {
                wrong.push(format!("frame {number}: {error:#}: {}", hex(frame)));
            }
        }
        if !wrong.is_empty() {
            bail!("{} wrong checksums:\n{}", wrong.len(), first(&wrong));
        }
        Ok(audited)
    }

    /// Expects no packet from an inside address.
    ///
    /// # Errors
    /// When there is one; the first few are named.
    pub fn audit_leaks(&self) -> Result<u64> {
        let mut packets = 0;
        let mut leaks = Vec::new();
        for (number, frame) in self.frames.iter().enumerate() {
            let Some((source, _)) = addresses(frame) else { continue };
            packets += 1;
            if is_inside(source) {
                leaks.push(format!("frame {number} from {source}: {}", hex(frame)));
            }
        }
        if !leaks.is_empty() {
            bail!("{} packets with an inside source outside:\n{}", leaks.len(), first(&leaks));
        }
        Ok(packets)
    }
}

fn first(lines: &[String]) -> String {
    lines.iter().take(5).cloned().collect::<Vec<_>>().join("\n")
}

fn hex(frame: &[u8]) -> String {
    frame.iter().take(80).map(|byte| format!("{byte:02x}")).collect()
}

fn is_inside(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.octets()[..3] == address::HOST4.octets()[..3],
        IpAddr::V6(address) => address.segments()[..3] == address::HOST6.segments()[..3],
    }
}

/// Source and destination of an IP packet in an Ethernet frame.
#[must_use]
pub fn addresses(frame: &[u8]) -> Option<(IpAddr, IpAddr)> {
    match LaxSlicedPacket::from_ethernet(frame).ok()?.net? {
        LaxNetSlice::Ipv4(ip) => {
            let header = ip.header();
            Some((header.source_addr().into(), header.destination_addr().into()))
        }
        LaxNetSlice::Ipv6(ip) => {
            let header = ip.header();
            Some((header.source_addr().into(), header.destination_addr().into()))
        }
        LaxNetSlice::Arp(_) => None,
    }
}

fn audit_frame(frame: &[u8], audited: &mut Audited) -> Result<()> {
    ensure!(frame.len() != SNAPLEN, "a merged frame, not all of it captured");
    let packet = LaxSlicedPacket::from_ethernet(frame).context("not an Ethernet frame")?;
    let (pseudo, fragmented) = match &packet.net {
        Some(LaxNetSlice::Ipv4(ip)) => {
            ensure!(sum(ip.header().slice()) == 0xffff, "the IPv4 header's checksum");
            let header = ip.header();
            let addresses = [header.source(), header.destination()].concat();
            (addresses, ip.payload().fragmented)
        }
        Some(LaxNetSlice::Ipv6(ip)) => {
            let header = ip.header();
            let addresses = [header.source(), header.destination()].concat();
            (addresses, ip.payload().fragmented)
        }
        _ => return Ok(()),
    };
    audited.packets += 1;
    if fragmented {
        // Only the whole datagram has a checksum to look at.
        return Ok(());
    }
    let (protocol, segment, name) = match &packet.transport {
        Some(TransportSlice::Tcp(tcp)) => (6, tcp.slice().to_vec(), "the TCP checksum"),
        Some(TransportSlice::Udp(udp)) => {
            if udp.checksum() == 0 && pseudo.len() == 8 {
                audited.without += 1;
                return Ok(());
            }
            (17, udp.slice().to_vec(), "the UDP checksum")
        }
        Some(TransportSlice::Icmpv4(icmp)) => {
            ensure!(sum(icmp.slice()) == 0xffff, "the ICMP checksum");
            audited.checksums += 1;
            return Ok(());
        }
        Some(TransportSlice::Icmpv6(icmp)) => (58, icmp.slice().to_vec(), "the ICMPv6 checksum"),
        Some(TransportSlice::Igmp(_)) | None => return Ok(()),
    };
    let mut whole = pseudo;
    whole.extend(u32::try_from(segment.len())?.to_be_bytes());
    whole.extend([0, 0, 0, protocol]);
    whole.extend(segment);
    ensure!(sum(&whole) == 0xffff, "{name}");
    audited.checksums += 1;
    Ok(())
}

/// Ones' complement sum (RFC 1071) of everything, 0xffff when it is right.
fn sum(bytes: &[u8]) -> u16 {
    let mut total: u32 = 0;
    for pair in bytes.chunks(2) {
        let high = u32::from(pair[0]) << 8;
        total += high | u32::from(pair.get(1).copied().unwrap_or(0));
        total = (total & 0xffff) + (total >> 16);
    }
    u16::try_from(total).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    fn udp4(source: [u8; 4]) -> Result<Vec<u8>> {
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4(source, [203, 0, 113, 250], 64)
            .udp(4000, 5000);
        let mut frame = Vec::new();
        builder.write(&mut frame, b"hello")?;
        Ok(frame)
    }

    fn tcp6() -> Result<Vec<u8>> {
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv6(address::wan6(0).octets(), address::NET6.octets(), 64)
            .tcp(4000, 5000, 1, 100);
        let mut frame = Vec::new();
        builder.write(&mut frame, b"hello")?;
        Ok(frame)
    }

    #[test]
    fn right_checksums_pass_and_are_counted() -> Result<()> {
        let captured = Captured { frames: vec![udp4([198, 51, 100, 2])?, tcp6()?] };
        let audited = captured.audit_checksums()?;
        assert_eq!(audited, Audited { packets: 2, checksums: 2, without: 0 });
        Ok(())
    }

    #[test]
    fn a_flipped_bit_anywhere_in_a_packet_is_found() -> Result<()> {
        for frame in [udp4([198, 51, 100, 2])?, tcp6()?] {
            // The last byte is payload; the 20th is in the IP header.
            for place in [frame.len() - 1, frame.len() - 6] {
                let mut frame = frame.clone();
                frame[place] ^= 4;
                assert!(Captured { frames: vec![frame] }.audit_checksums().is_err());
            }
        }
        Ok(())
    }

    #[test]
    fn a_udp_datagram_without_checksum_is_right_over_ipv4() -> Result<()> {
        let mut frame = udp4([198, 51, 100, 2])?;
        frame[14 + 20 + 6..14 + 20 + 8].fill(0);
        let audited = Captured { frames: vec![frame] }.audit_checksums()?;
        assert_eq!(audited.without, 1);
        Ok(())
    }

    #[test]
    fn an_inside_source_outside_is_a_leak() -> Result<()> {
        let outside = Captured { frames: vec![udp4([198, 51, 100, 2])?] };
        assert_eq!(outside.audit_leaks()?, 1);
        let leak = Captured { frames: vec![udp4([192, 0, 2, 10])?] };
        assert!(leak.audit_leaks().is_err());
        Ok(())
    }
}
