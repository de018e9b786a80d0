//! The one list of verdict reasons. A packet that reaches a program leaves it
//! with exactly one of these, and is counted under it. Numbers are part of the
//! map layout and of users' dashboards: they are never reused.

/// What happens to a packet that ends with a given reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Rewritten and sent out of another device by us.
    Forward,
    /// Left untouched to the Linux network stack.
    Kernel,
    /// Dropped.
    Drop,
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $number:literal, $verdict:ident, $text:literal;)+) => {
        /// Why a packet left the data plane the way it did.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Reason {
            $($(#[doc = $doc])+ $name = $number,)+
        }

        impl Reason {
            /// Every reason, in the order of the numbers.
            pub const ALL: &'static [Reason] = &[$(Reason::$name,)+];

            /// The reason's name in metrics, status and documents.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Reason::$name => $text,)+ }
            }

            /// Whether there is a reason with this number.
            #[inline(always)]
            #[must_use]
            pub const fn is_number(number: u8) -> bool {
                matches!(number, $($number)|+)
            }

            /// What happens to the packet.
            #[inline(always)]
            #[must_use]
            pub const fn verdict(self) -> Verdict {
                match self { $(Reason::$name => Verdict::$verdict,)+ }
            }

            /// One sentence on when it is given, for people.
            #[must_use]
            pub const fn describe(self) -> &'static str {
                match self { $(Reason::$name => concat!($($doc),+).trim_ascii(),)+ }
            }
        }
    };
}

reasons! {
    /// Translated and sent on by the data plane.
    Forwarded = 0, Forward, "forwarded";
    /// Translated and handed to the kernel's neighbour code, which resolves the next hop and sends it.
    NeighbourUnresolved = 1, Forward, "neighbour_unresolved";
    /// To the gateway or between LAN ports.
    Local = 2, Kernel, "local";
    /// To a multicast, broadcast or link-local address.
    Multicast = 3, Kernel, "multicast";
    /// To a prefix that the configuration leaves to the kernel.
    Bypass = 4, Kernel, "bypass";
    /// Neither IPv4 nor IPv6 (ARP, LLDP, PPPoE, ...).
    NotIp = 5, Kernel, "not_ip";
    /// Carries a VLAN tag: it belongs to the VLAN device above.
    Tagged = 6, Kernel, "tagged";
    /// From the LAN, and its TTL or hop limit ends here: the kernel answers.
    TtlExpired = 7, Kernel, "ttl_expired";
    /// From a WAN, to the gateway, and of no flow of ours.
    NoMapping = 8, Kernel, "no_mapping";
    /// A fragment from a WAN, to the gateway, and of no flow of ours.
    OutsideFragment = 9, Kernel, "outside_fragment";
    /// An ICMP error from a WAN to the gateway that is about no flow of ours.
    OutsideIcmpError = 10, Kernel, "outside_icmp_error";
    /// Came in through a device that is not configured.
    NotOurs = 11, Kernel, "not_ours";
    /// To another host's MAC address: a switch has flooded it.
    OtherHost = 12, Kernel, "other_host";
    /// Translated and turned round to the LAN, being to one of our own outside ports: counted again, from the WAN.
    Hairpinned = 13, Forward, "hairpinned";
    /// Too short for its own headers, or their lengths contradict each other; or an ICMP error about a flow of ours whose checksum is wrong.
    Malformed = 16, Drop, "malformed";
    /// No WAN can carry this address family.
    NoPath = 17, Drop, "no_path";
    /// No free port on the WAN's address: answered with ICMP if it is from the LAN.
    PortsExhausted = 18, Drop, "ports_exhausted";
    /// The flow table is full: answered with ICMP if it is from the LAN.
    FlowTableFull = 19, Drop, "flow_table_full";
    /// Of a protocol that is not translated: not TCP, UDP, ICMP, SCTP, GRE or ESP.
    UnsupportedProtocol = 20, Drop, "unsupported_protocol";
    // 21 was a fragment from the LAN.
    /// An ICMP error from the LAN that is about no flow of ours.
    InsideIcmpError = 22, Drop, "inside_icmp_error";
    /// Larger than the next link's MTU: answered with ICMP.
    TooBig = 23, Drop, "too_big";
    /// The LAN has no route to the inside host.
    NoRoute = 24, Drop, "no_route";
    /// From a WAN, of no flow, and not to the gateway.
    Unsolicited = 25, Drop, "unsolicited";
    /// From the LAN with a source that cannot be one: the gateway's, loopback, multicast, or outside the NPTv6 prefix.
    ForeignSource = 26, Drop, "foreign_source";
    /// Its next hop is not resolved and the driver has no metadata to hand it to the TC form with.
    HandoverFailed = 27, Drop, "handover_failed";
    /// A fragment whose datagram's first one did not come in time, or found no room to wait for it.
    FragmentOrphan = 28, Drop, "fragment_orphan";
    /// From a WAN, and its TTL or hop limit ends here: answered with ICMP.
    Expired = 29, Drop, "expired";
    /// Its inside address has as many mappings as it may have: answered with ICMP if it is from the LAN.
    SourceLimit = 30, Drop, "source_limit";
    /// Another inside host already uses the outside endpoint, which the protocol gives no way to change: answered with ICMP if it is from the LAN.
    EndpointTaken = 31, Drop, "endpoint_taken";
    /// Too big, or at the end of its TTL, and not answered: ICMP errors are limited in rate.
    AnswerLimited = 32, Drop, "answer_limited";
    /// A SYN from a WAN to a port that is an inside host's, from someone whom the filter keeps out.
    Filtered = 33, Drop, "filtered";
    /// Sealed, and sent into the bond by this path.
    Bonded = 34, Forward, "bonded";
    /// Came out of the bond by this path, and was sent on to the LAN.
    Unbonded = 35, Forward, "unbonded";
    /// Came out of the bond by this path, and was given to the kernel's end of the bond's device, or on a server to the programme there.
    ToDevice = 36, Forward, "to_device";
    /// A probe of the far end, answered.
    ProbeReflected = 37, Forward, "probe_reflected";
    /// A probe of ours, sent.
    ProbeSent = 38, Forward, "probe_sent";
    /// An answer to a probe of ours: taken.
    ProbeAnswered = 39, Drop, "probe_answered";
    /// A message for the agent: a handshake, or of a session.
    BondMessage = 40, Kernel, "bond_message";
    /// A message for the agent, over the rate that it takes.
    MessageLimited = 41, Drop, "message_limited";
    /// To the bond's port, and no packet of this version of the protocol.
    BondMalformed = 42, Drop, "bond_malformed";
    /// Of a session that is not there.
    UnknownSession = 43, Drop, "unknown_session";
    /// Of a path that has not joined its session.
    UnknownPath = 44, Drop, "unknown_path";
    /// Of an epoch whose keys are not there.
    UnknownEpoch = 45, Drop, "unknown_epoch";
    /// Its tag or CRC is wrong: not what was sealed, or not by the far end.
    BadCheck = 46, Drop, "bad_check";
    /// It came before on its path.
    Replayed = 47, Drop, "replayed";
    /// So much older than the newest of its path that nobody knows whether it came before.
    ReplayTooOld = 48, Drop, "replay_too_old";
    /// Another copy of it came before, by whatever path.
    Duplicate = 49, Drop, "duplicate";
    /// Out of the bond, with a source that is not the client's.
    InnerSource = 50, Drop, "inner_source";
    /// Out of the bond, and what is inside is no IP packet.
    InnerMalformed = 51, Drop, "inner_malformed";
    /// For the bond, and no session carries it.
    NoSession = 52, Drop, "no_session";
    /// For the bond, and larger than any path takes: the kernel answers, or divides it.
    BondTooBig = 53, Kernel, "bond_too_big";
    /// To the far end of a session, and no path to it is there.
    NoBondPath = 54, Drop, "no_bond_path";
    /// For a probe that is not due or not possible.
    TickIgnored = 55, Drop, "tick_ignored";
    /// Given to the data plane's end of the bond's device, with a copy that makes a probe.
    Ticked = 56, Forward, "ticked";
    /// Given to the data plane's end of the bond's device twice: each copy is counted again, by the path that it takes.
    Copied = 57, Forward, "copied";
    /// Came out of the bond ahead of its turn, or behind one that is: the agent has it, and gives it back, to be counted again.
    Ahead = 58, Drop, "ahead";
    /// Parity of packets that may get lost, of ours: sealed, and sent by this path.
    ParitySent = 59, Forward, "parity_sent";
    /// Parity of packets that may have got lost, of the far end: the agent has it.
    ParityTaken = 60, Drop, "parity_taken";
    /// The first packet of a flow from the LAN that a policy rule blocks.
    PolicyBlocked = 61, Drop, "policy_blocked";
}

impl Reason {
    /// Whether it is given by the programs of a bond. What is counted under it has a path of
    /// the bond, which on a server is none of its own: its clients number them.
    #[must_use]
    pub const fn is_of_bond(self) -> bool {
        self as u8 >= Self::Bonded as u8 && self as u8 <= Self::ParityTaken as u8
    }
}

// Whoever adds one that is no bond's has to say so there.
const _: () = assert!(Reason::ALL[Reason::ALL.len() - 1] as u8 == Reason::PolicyBlocked as u8);

/// Slots kept for reasons in the counter map; numbers stay below it.
pub const REASON_SLOTS: usize = 64;

const _: () = {
    let mut i = 0;
    while i < Reason::ALL.len() {
        assert!((Reason::ALL[i] as usize) < REASON_SLOTS);
        i += 1;
    }
};
