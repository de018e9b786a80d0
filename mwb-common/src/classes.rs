//! Classes of service of a bond: which packets are treated unlike others, by rules that
//! both sides read alike. The first rule that matches says the class.
//!
//! A rule speaks of *a peer*, one end of a packet's flow: it matches what is to the peer
//! and what is from it, so that one rule does for both directions.

use bytemuck::{Pod, Zeroable};

use crate::maps::FlowKey6;

/// Rules that there may be, of all clients together.
pub const CLASS_RULES: usize = 32;
/// Entries of their table: what is not in use is written, and then taken into use.
pub const CLASS_ENTRIES: usize = 2 * CLASS_RULES;

/// Which rules are in use, in one byte ([`crate::maps::Bond::rules`]), so that no packet
/// meets half a change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InUse(pub u8);

impl InUse {
    /// The bit of the second half of the table.
    const SECOND: u8 = 1 << 7;

    /// The entry of the first one.
    #[must_use]
    #[inline(always)]
    pub const fn first(self) -> u32 {
        if self.0 & Self::SECOND == 0 { 0 } else { CLASS_RULES as u32 }
    }

    /// How many they are.
    #[must_use]
    #[inline(always)]
    pub const fn count(self) -> u32 {
        (self.0 & !Self::SECOND) as u32
    }

    /// So many that are written while these are in use, up to [`CLASS_RULES`]: in the half
    /// that no packet looks at.
    #[must_use]
    pub const fn next(self, count: u8) -> Self {
        // Of no rules nobody looks at any.
        let half = if self.count() == 0 { 0 } else { !self.0 & Self::SECOND };
        Self(half | if count > CLASS_RULES as u8 { CLASS_RULES as u8 } else { count })
    }
}

/// Values of [`ClassRule::class`].
pub mod class {
    /// Small flows stay on a path, elephants go by several.
    pub const AUTO: u8 = 0;
    /// It stays on a path, however much it carries.
    pub const PIN: u8 = 1;
    /// It goes by several paths, however little it carries.
    pub const STRIPE: u8 = 2;
    /// Each packet goes by the two best paths; what comes first is taken.
    pub const DUPLICATE: u8 = 3;
    /// It is dropped.
    pub const BLOCK: u8 = 4;
    /// Names, by value.
    pub const NAMES: [&str; 5] = ["auto", "pin", "stripe", "duplicate", "block"];
}

/// Bits of [`ClassRule::repair`]: what becomes of packets that get lost.
pub mod repair {
    /// They are sent again, by another path.
    pub const RETRANSMIT: u8 = 1;
    /// What is lost is computed from parity that is sent by other paths.
    pub const FEC: u8 = 1 << 1;
}

/// Bits of [`ClassRule::tests`]: what a packet must have.
pub mod class_test {
    /// One of [`super::ClassRule::ports`].
    pub const PORT: u8 = 1;
    /// [`super::ClassRule::protocol`].
    pub const PROTOCOL: u8 = 1 << 1;
    /// [`super::ClassRule::dscp`].
    pub const DSCP: u8 = 1 << 2;
    /// [`super::ClassRule::family`].
    pub const FAMILY: u8 = 1 << 3;
    /// Nothing has it: the rule does not count at this time.
    pub const NEVER: u8 = 1 << 4;
}

/// In [`ClassRule::paths`]: no other path, even while none of these lives. No path has the
/// id 0.
pub const ONLY: u16 = 1;

/// The paths that [`ClassRule::paths`] lets a packet go by, by bit.
#[must_use]
#[inline(always)]
pub const fn among(paths: u16) -> u32 {
    if paths == 0 { u32::MAX } else { (paths & !ONLY) as u32 }
}

/// Whether it may go by others while none of those lives.
#[must_use]
#[inline(always)]
pub const fn falls_back(paths: u16) -> bool {
    paths != 0 && paths & ONLY == 0
}

/// A rule. The agent writes it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct ClassRule {
    /// The peer's address under `mask`: words of the bytes as they are sent, an IPv4
    /// address in the first four.
    pub address: [u64; 2],
    /// Bits of `address` that count.
    pub mask: [u64; 2],
    /// First and last port of the peer.
    pub ports: [u16; 2],
    /// Least and largest length of the inner packet, in bytes.
    pub lengths: [u16; 2],
    /// IP protocol.
    pub protocol: u8,
    /// Differentiated services code point (RFC 2474).
    pub dscp: u8,
    /// As [`FlowKey6::scope`]: 4 or 6.
    pub family: u8,
    /// Bits of [`class_test`].
    pub tests: u8,
    /// One of [`class`].
    pub class: u8,
    /// Bits of [`repair`].
    pub repair: u8,
    /// The paths that it goes by, by bit, and [`ONLY`]; 0: any.
    pub paths: u16,
}

impl ClassRule {
    /// All packets.
    pub const ALL: Self = Self {
        address: [0; 2],
        mask: [0; 2],
        ports: [0, u16::MAX],
        lengths: [0, u16::MAX],
        protocol: 0,
        dscp: 0,
        family: 0,
        tests: 0,
        class: class::AUTO,
        repair: 0,
        paths: 0,
    };

    /// Whether it counts at this time.
    #[must_use]
    pub fn counts(&self) -> bool {
        self.tests & class_test::NEVER == 0
    }

    /// Whether two are the same, but that one of them may not count at this time.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let always = |rule: &Self| Self { tests: rule.tests & !class_test::NEVER, ..*rule };
        always(self) == always(other)
    }

    /// Whether a packet of a flow is meant. Without ports its key has zeros there, which
    /// are none that a rule asks for. `length` is that of the inner packet.
    #[must_use]
    #[inline(always)]
    pub fn matches(&self, flow: &FlowKey6, dscp: u8, length: u32) -> bool {
        let asked = |test: u8| self.tests & test != 0;
        let [least, most] = self.lengths;
        if asked(class_test::NEVER) || length < least as u32 || length > most as u32 {
            return false;
        }
        if asked(class_test::PROTOCOL) && flow.protocol != self.protocol
            || asked(class_test::DSCP) && dscp != self.dscp
            || asked(class_test::FAMILY) && flow.scope != self.family
        {
            return false;
        }
        self.is_peer(&flow.destination, flow.destination_port)
            || self.is_peer(&flow.source, flow.source_port)
    }

    #[inline(always)]
    fn is_peer(&self, address: &[u8; 16], port: [u8; 2]) -> bool {
        let [first, second]: [u64; 2] = bytemuck::cast(*address);
        let off =
            (first ^ self.address[0]) & self.mask[0] | (second ^ self.address[1]) & self.mask[1];
        let port = u16::from_be_bytes(port);
        let [low, high] = self.ports;
        off == 0 && (self.tests & class_test::PORT == 0 || low <= port && port <= high)
    }
}

/// What a rule was asked for. The last one is of packets that none has matched.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct ClassCount {
    /// Packets; each once, however often it is sent.
    pub packets: u64,
    /// Their bytes, from the inner IP header on.
    pub bytes: u64,
}

/// Entries of their table.
pub const CLASS_COUNTS: usize = CLASS_RULES + 1;

/// Time that a budget can save up, in ns.
const SAVED: u64 = 1_000_000_000;

/// Whether a copy of `length` bytes is within a budget of `rate` bytes a second, and when
/// the budget will have been spent then: it is empty at `now`, and full a second before.
#[must_use]
#[inline(always)]
pub const fn spend(now: u64, spent: u64, length: u32, rate: u32) -> Option<u64> {
    if rate == u32::MAX {
        return Some(spent);
    }
    if rate == 0 {
        return None;
    }
    let full = now.saturating_sub(SAVED);
    let from = if spent > full { spent } else { full };
    let then = from + length as u64 * 1_000_000_000 / rate as u64;
    if then > now { None } else { Some(then) }
}

const _: () = assert!(size_of::<ClassRule>() == 48);
// SAFETY: `bytemuck::Pod` is derived: plain data without padding.
#[cfg(feature = "aya")]
unsafe impl aya::Pod for ClassRule {}
// SAFETY: the same.
#[cfg(feature = "aya")]
unsafe impl aya::Pod for ClassCount {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VOICE: FlowKey6 = FlowKey6 {
        source: [192, 0, 2, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        destination: [203, 0, 113, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        source_port: 40_000_u16.to_be_bytes(),
        destination_port: 5_060_u16.to_be_bytes(),
        protocol: 17,
        scope: 4,
        reserved: [0; 2],
    };

    fn words(bytes: [u8; 16]) -> [u64; 2] {
        bytemuck::cast(bytes)
    }

    fn back(flow: &FlowKey6) -> FlowKey6 {
        FlowKey6 {
            source: flow.destination,
            destination: flow.source,
            source_port: flow.destination_port,
            destination_port: flow.source_port,
            ..*flow
        }
    }

    #[test]
    fn each_test_alone_lets_in_what_it_names_and_nothing_else() {
        let asked = |tests: u8, change: fn(&mut ClassRule)| {
            let mut rule = ClassRule { tests, ..ClassRule::ALL };
            change(&mut rule);
            rule
        };
        let rows: [(ClassRule, bool); 15] = [
            (ClassRule::ALL, true),
            (asked(class_test::PORT, |rule| rule.ports = [5_060, 5_061]), true),
            (asked(class_test::PORT, |rule| rule.ports = [5_061, 5_070]), false),
            (asked(class_test::PORT, |rule| rule.ports = [39_999, 40_000]), true),
            (asked(class_test::PROTOCOL, |rule| rule.protocol = 17), true),
            (asked(class_test::PROTOCOL, |rule| rule.protocol = 6), false),
            (asked(class_test::DSCP, |rule| rule.dscp = 46), true),
            (asked(class_test::DSCP, |rule| rule.dscp = 0), false),
            (asked(class_test::FAMILY, |rule| rule.family = 4), true),
            (asked(class_test::FAMILY, |rule| rule.family = 6), false),
            (asked(0, |rule| rule.lengths = [200, 200]), true),
            (asked(0, |rule| rule.lengths = [0, 199]), false),
            (asked(class_test::NEVER, |_| ()), false),
            (asked(0, |rule| rule.lengths = [201, 1_500]), false),
            // What is not asked for does not count.
            (asked(0, |rule| (rule.protocol, rule.dscp, rule.family) = (6, 1, 6)), true),
        ];
        for (number, (rule, expected)) in rows.into_iter().enumerate() {
            for flow in [VOICE, back(&VOICE)] {
                assert_eq!(rule.matches(&flow, 46, 200), expected, "row {number}");
            }
        }
    }

    #[test]
    fn a_rule_that_does_not_count_is_the_same_rule_and_matches_nothing() {
        let of = |lengths| ClassRule { lengths, class: class::PIN, ..ClassRule::ALL };
        let (long, short) = (of([0, 300]), of([0, 100]));
        let never = ClassRule { tests: class_test::NEVER, ..long };
        for length in [0, 1, 300] {
            assert!(long.matches(&VOICE, 0, length) && !never.matches(&VOICE, 0, length));
        }
        assert!(long.counts() && !never.counts());
        assert!(long.is_same(&long) && long.is_same(&never) && never.is_same(&long));
        assert!(!long.is_same(&short) && !never.is_same(&short));
    }

    #[test]
    fn rules_are_written_where_none_are_in_use() {
        let mut now = InUse::default();
        for (count, expected) in
            [(3, (0, 3)), (32, (32, 32)), (1, (0, 1)), (0, (32, 0)), (2, (0, 2)), (200, (32, 32))]
        {
            let next = now.next(count);
            assert_eq!((next.first(), next.count()), expected);
            assert!(now.count() == 0 || now.first() != next.first());
            now = next;
        }
    }

    #[test]
    fn port_and_address_are_of_the_same_end() {
        let mut mask = [0; 16];
        mask[..3].fill(0xff);
        let rule = |address: [u8; 4], port: u16| {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&address);
            ClassRule {
                address: words(bytes),
                mask: words(mask),
                ports: [port, port],
                tests: class_test::PORT,
                ..ClassRule::ALL
            }
        };
        for flow in [VOICE, back(&VOICE)] {
            assert!(rule([203, 0, 113, 0], 5_060).matches(&flow, 0, 100));
            assert!(rule([192, 0, 2, 0], 40_000).matches(&flow, 0, 100));
            assert!(!rule([203, 0, 113, 0], 40_000).matches(&flow, 0, 100));
            assert!(!rule([203, 0, 112, 0], 5_060).matches(&flow, 0, 100));
        }
    }

    #[test]
    fn a_flow_without_ports_is_of_no_rule_that_asks_for_one() {
        let flow = FlowKey6 { source_port: [0; 2], destination_port: [0; 2], ..VOICE };
        let rule = ClassRule { ports: [1, u16::MAX], tests: class_test::PORT, ..ClassRule::ALL };
        assert!(!rule.matches(&flow, 0, 100));
    }

    proptest! {
        #[test]
        fn a_prefix_counts_to_its_length(
            address: [u8; 16], other: [u8; 16], length in 0_u32..=128,
        ) {
            let bits = u128::MAX.checked_shl(128 - length).unwrap_or(0);
            let under = |bytes: [u8; 16]| u128::from_be_bytes(bytes) & bits;
            let rule = ClassRule {
                address: words(under(address).to_be_bytes()),
                mask: words(bits.to_be_bytes()),
                ..ClassRule::ALL
            };
            let flow = FlowKey6 { source: [0xaa; 16], destination: other, ..VOICE };
            let expected = [other, [0xaa; 16]].iter().any(|end| under(*end) == under(address));
            prop_assert_eq!(rule.matches(&flow, 0, 0), expected);
        }

        /// Over any time a budget lets pass what its rate gives in it, and a second's more.
        #[test]
        fn a_budget_gives_its_rate_and_what_a_second_saves(
            rate in 1_u32..2_000_000_000,
            packets in prop::collection::vec((0_u64..200_000_000, 1_u32..2_000), 1..400),
        ) {
            let (mut now, mut spent, mut bytes) = (10_000_000_000, 0, 0_u64);
            let begin = now;
            for (pause, length) in packets {
                now += pause;
                let Some(then) = spend(now, spent, length, rate) else { continue };
                prop_assert!(then <= now);
                spent = then;
                bytes += u64::from(length);
            }
            let most = u128::from(now - begin + SAVED) * u128::from(rate) / 1_000_000_000;
            // Each packet's time is rounded down.
            prop_assert!(u128::from(bytes) <= most + 1 + u128::from(rate) * 400 / 1_000_000_000);
        }
    }

    #[test]
    fn a_budget_can_be_nothing_or_without_end() {
        assert_eq!(spend(5_000_000_000, 0, 1, 0), None);
        assert_eq!(spend(5_000_000_000, 7, 1_500, u32::MAX), Some(7));
        // Full, and so empty after a second's bytes.
        let now = 5_000_000_000;
        let spent = spend(now, 0, 1_000, 1_000);
        assert_eq!(spent, Some(now));
        assert_eq!(spend(now, now, 1, 1_000), None);
        assert_eq!(spend(now + 1_000_000, now, 1, 1_000), Some(now + 1_000_000));
    }
}
