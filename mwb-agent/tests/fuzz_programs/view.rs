//! A reader of frames that knows nothing of the project's own parser: where the
//! fields lie, and what the checksums sum up to. The oracle stands on it.

/// Ethernet without tags.
pub(crate) const LINK: usize = 14;

/// Whether a packet is a part of a larger one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Whole,
    First,
    Later,
}

/// An IP packet in a frame, or in an ICMP error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) v6: bool,
    /// Offset of the IP header.
    pub(crate) network: usize,
    /// Offset of what the transport protocol makes of it.
    pub(crate) transport: usize,
    /// Offset of its end; may lie behind the frame's in an ICMP error.
    pub(crate) end: usize,
    pub(crate) protocol: u8,
    pub(crate) part: Part,
}

/// Address of either family; IPv4 in the first four bytes.
pub(crate) type Address = [u8; 16];

pub(crate) fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub(crate) fn put16(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(place) = bytes.get_mut(at..at + 2) {
        place.copy_from_slice(&value.to_be_bytes());
    }
}

impl View {
    /// The packet of an untagged frame; none if it is not IP, or contradicts
    /// itself.
    pub(crate) fn of(frame: &[u8]) -> Option<View> {
        let view = match be16(frame, 12)? {
            0x0800 => Self::v4(frame, LINK)?,
            0x86dd => Self::v6(frame, LINK)?,
            _ => return None,
        };
        (view.transport <= view.end && view.end <= frame.len()).then_some(view)
    }

    /// A packet at `at` that an ICMP error quotes: whatever its length says, it
    /// ends with the bytes.
    pub(crate) fn at(bytes: &[u8], at: usize) -> Option<View> {
        let view = match bytes.get(at)? >> 4 {
            4 => Self::v4(bytes, at),
            6 => Self::v6(bytes, at),
            _ => None,
        };
        view.map(|view| View { end: bytes.len(), ..view })
    }

    fn v4(bytes: &[u8], at: usize) -> Option<View> {
        let first = *bytes.get(at)?;
        let header = usize::from(first & 15) * 4;
        let total = usize::from(be16(bytes, at + 2)?);
        if first >> 4 != 4 || header < 20 || bytes.len() < at + header {
            return None;
        }
        let part = match be16(bytes, at + 6)? & 0x3fff {
            0 => Part::Whole,
            0x2000 => Part::First,
            _ => Part::Later,
        };
        let protocol = *bytes.get(at + 9)?;
        let (transport, end) = (at + header, at + total);
        Some(View { v6: false, network: at, transport, end, protocol, part })
    }

    fn v6(bytes: &[u8], at: usize) -> Option<View> {
        if bytes.get(at)? >> 4 != 6 {
            return None;
        }
        let end = at + 40 + usize::from(be16(bytes, at + 4)?);
        let mut view = View {
            v6: true,
            network: at,
            transport: at + 40,
            end,
            protocol: *bytes.get(at + 6)?,
            part: Part::Whole,
        };
        bytes.get(at..at + 40)?;
        while let 0 | 43 | 44 | 51 | 60 = view.protocol {
            let (next, length) =
                (*bytes.get(view.transport)?, usize::from(*bytes.get(view.transport + 1)?));
            let size = match view.protocol {
                44 => {
                    view.part = match be16(bytes, view.transport + 2)? & 0xfff8 {
                        0 => Part::First,
                        _ => Part::Later,
                    };
                    8
                }
                51 => (length + 2) * 4,
                _ => (length + 1) * 8,
            };
            view.transport += size;
            view.protocol = next;
            // Behind a first fragment's header there may be more (RFC 8200, 4.1).
            if view.part == Part::Later {
                break;
            }
        }
        Some(view)
    }

    fn address(&self, bytes: &[u8], v4: usize, v6: usize) -> Address {
        let (at, length) = if self.v6 { (v6, 16) } else { (v4, 4) };
        let mut address = [0; 16];
        if let Some(from) = bytes.get(self.network + at..self.network + at + length) {
            address[..length].copy_from_slice(from);
        }
        address
    }

    pub(crate) fn source(&self, bytes: &[u8]) -> Address {
        self.address(bytes, 12, 8)
    }

    pub(crate) fn destination(&self, bytes: &[u8]) -> Address {
        self.address(bytes, 16, 24)
    }

    /// Where the source address lies.
    pub(crate) fn source_at(&self) -> std::ops::Range<usize> {
        if self.v6 {
            self.network + 8..self.network + 24
        } else {
            self.network + 12..self.network + 16
        }
    }

    /// Where the destination address lies.
    pub(crate) fn destination_at(&self) -> std::ops::Range<usize> {
        if self.v6 {
            self.network + 24..self.network + 40
        } else {
            self.network + 16..self.network + 20
        }
    }

    /// Where TTL or hop limit lies.
    pub(crate) fn hops_at(&self) -> usize {
        self.network + if self.v6 { 7 } else { 8 }
    }

    /// Type of an ICMP message.
    pub(crate) fn icmp_type(&self, bytes: &[u8]) -> Option<u8> {
        let icmp = matches!((self.v6, self.protocol), (false, 1) | (true, 58));
        if icmp && self.part != Part::Later { bytes.get(self.transport).copied() } else { None }
    }

    /// Whether it is an ICMP error, which speaks of another packet.
    pub(crate) fn is_icmp_error(&self, bytes: &[u8]) -> bool {
        match self.icmp_type(bytes) {
            Some(kind) if self.v6 => kind < 128,
            Some(kind) => matches!(kind, 3 | 4 | 5 | 11 | 12),
            None => false,
        }
    }

    /// Where the source's and the destination's port lie. An ICMP query has its
    /// identifier in the place of the one who asks.
    pub(crate) fn ports_at(&self, bytes: &[u8]) -> [Option<usize>; 2] {
        if self.part == Part::Later {
            return [None; 2];
        }
        match (self.protocol, self.icmp_type(bytes)) {
            (6 | 17, _) => [Some(self.transport), Some(self.transport + 2)],
            (1, Some(8 | 13)) | (58, Some(128)) => [Some(self.transport + 4), None],
            (1, Some(0 | 14)) | (58, Some(129)) => [None, Some(self.transport + 4)],
            _ => [None; 2],
        }
    }

    /// Whether it is an ICMP query or the answer to one, and does not say which
    /// by where its identifier stands, since that is 0.
    pub(crate) fn is_nameless_query(&self, bytes: &[u8]) -> bool {
        let kind = self.icmp_type(bytes);
        kind.is_some() && !self.is_icmp_error(bytes) && self.ports(bytes) == [0; 2]
    }

    /// Whether a router may cut it into pieces.
    pub(crate) fn is_divisible(&self, bytes: &[u8]) -> bool {
        let field = be16(bytes, self.network + 6);
        !self.v6 && field.is_some_and(|field| field & 0x4000 == 0)
    }

    /// Whether it is the answer to an ICMP query.
    pub(crate) fn is_query_answer(&self, bytes: &[u8]) -> bool {
        matches!((self.v6, self.icmp_type(bytes)), (false, Some(0 | 14)) | (true, Some(129)))
    }

    /// The ports; 0 where there is none.
    pub(crate) fn ports(&self, bytes: &[u8]) -> [u16; 2] {
        self.ports_at(bytes).map(|at| at.and_then(|at| be16(bytes, at)).unwrap_or_default())
    }

    /// Where the transport's checksum lies.
    pub(crate) fn check_at(&self) -> Option<usize> {
        if self.part == Part::Later {
            return None;
        }
        match (self.v6, self.protocol) {
            (_, 6) => Some(self.transport + 16),
            (_, 17) => Some(self.transport + 6),
            (false, 1) | (true, 58) => Some(self.transport + 2),
            _ => None,
        }
    }

    /// What the IPv4 header sums up to: 0 if its checksum is right.
    pub(crate) fn header_sum(&self, bytes: &[u8]) -> u16 {
        if self.v6 {
            return 0;
        }
        sum(bytes.get(self.network..self.transport).unwrap_or_default(), 0)
    }

    /// What the transport's bytes and its pseudo-header sum up to: 0 if the
    /// checksum is right and all of it is there. `None`: there is no checksum.
    pub(crate) fn transport_sum(&self, bytes: &[u8]) -> Option<u16> {
        let check = be16(bytes, self.check_at()?)?;
        if self.protocol == 17 && !self.v6 && check == 0 {
            return None;
        }
        let body = bytes.get(self.transport..self.end.min(bytes.len())).unwrap_or_default();
        Some(sum(body, self.pseudo_sum(bytes)))
    }

    fn pseudo_sum(&self, bytes: &[u8]) -> u32 {
        if !self.v6 && self.protocol == 1 {
            return 0;
        }
        let addresses = self.source_at().start..self.destination_at().end;
        let length = self.end.saturating_sub(self.transport);
        u32::from(sum(bytes.get(addresses).unwrap_or_default(), 0))
            + u32::from(self.protocol)
            + length as u32
    }

    /// Whether the checksum is that of the pseudo-header alone, as if a device
    /// had still to make the rest of it.
    pub(crate) fn looks_pending(&self, bytes: &[u8]) -> bool {
        let check = self.check_at().and_then(|at| be16(bytes, at));
        check.is_some_and(|check| u32::from(check) % 0xffff == self.pseudo_sum(bytes) % 0xffff)
    }
}

/// Ones' complement sum with the bits of `start`, where 0xffff counts as 0.
fn sum(bytes: &[u8], start: u32) -> u16 {
    let mut sum = u64::from(start);
    for pair in bytes.chunks(2) {
        let low = pair.get(1).copied().unwrap_or_default();
        sum += u64::from(u16::from_be_bytes([pair[0], low]));
    }
    (sum % 0xffff) as u16
}

/// Makes the checksums of a frame right, as far as it has any.
pub(crate) fn repair(frame: &mut [u8]) {
    if let Some(view) = View::of(frame) {
        repair_at(frame, &view);
    }
}

/// The same for a packet that `view` has seen.
pub(crate) fn repair_at(frame: &mut [u8], view: &View) {
    if !view.v6 {
        put16(frame, view.network + 10, 0);
        let check = !view.header_sum(frame);
        put16(frame, view.network + 10, check);
    }
    if view.part == Part::Whole
        && let Some(at) = view.check_at()
        && at + 2 <= view.end
        && let Some(sum) = view.transport_sum(frame)
    {
        let old = be16(frame, at).unwrap_or_default();
        let rest = (u32::from(sum) + 0xffff - u32::from(old % 0xffff)) % 0xffff;
        let check = !(rest as u16);
        put16(frame, at, if check == 0 && view.protocol == 17 { 0xffff } else { check });
    }
}

#[test]
fn a_repaired_packet_sums_up_to_zero_and_a_flipped_bit_shows() {
    use crate::world::{host_echo, host_tcp, host_udp, v6};

    for packet in [host_udp(5_000), host_tcp(5_000), host_echo(5_000)] {
        for packet in [packet.clone(), v6(&packet)] {
            let mut frame = packet.bytes();
            let view = View::of(&frame).expect("a packet");
            assert_eq!((view.header_sum(&frame), view.transport_sum(&frame)), (0, Some(0)));
            let whole = frame.clone();
            frame[view.transport + 7] ^= 4;
            assert_ne!(view.transport_sum(&frame), Some(0));
            repair(&mut frame);
            assert_eq!(view.transport_sum(&frame), Some(0));
            frame[view.transport + 7] ^= 4;
            repair(&mut frame);
            assert_eq!(frame, whole);
        }
    }
}
