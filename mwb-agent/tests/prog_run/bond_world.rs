//! The little world of the bond: a gateway with two WANs and a server, either end in a
//! data plane of its own that is loaded once for a test.
//!
//! ```text
//!   HOST .9 ── lan0 ── gateway ──┬── wan1 198.51.100.2,   2001:db8:1ff::2 ──┐
//!                        │       └── wan2 198.51.100.130, 2001:db8:2ff::2 ──┴── server
//!                       mwb0                              203.0.113.250, 2001:db8:fa::250
//! ```
//!
//! Packets of a test run come in through the loopback device, which the entry of the
//! device table makes a LAN port, the bond's device or a WAN.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use mwb_agent::dataplane::{
    BondMaps, CounterRow, DataPlane, Options, ProgramId, Programs, TestOutcome,
};
use mwb_common::integrity::Suite;
use mwb_common::integrity::seal::{Key, Sender};
use mwb_common::maps::{
    Back, Bond, BondPath, Device, Direction, Family, Path, PathState, Session, back, bond_choice,
    bond_path_flag, bond_role, hook, path_flag, role, session_flag, takes_xdp,
};
use mwb_common::reason::Reason;
use mwb_common::wire::Header;

use crate::world;

pub(crate) const LOOPBACK: u32 = 1;
/// Devices that are named and not there: a test run sends nothing.
pub(crate) const WAN1_DEVICE: u32 = 101;
pub(crate) const WAN2_DEVICE: u32 = 102;
pub(crate) const INNER_DEVICE: u32 = 103;
pub(crate) const UPLINK_DEVICE: u32 = 104;

pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 250);
pub(crate) const SERVER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xfa, 0, 0, 0, 0, 0x250);
pub(crate) const WAN2_6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x2ff, 0, 0, 0, 0, 2);
pub(crate) const UPLINK_MAC: [u8; 6] = [2, 0, 0, 3, 0, 2];
pub(crate) const ROUTER_MAC: [u8; 6] = [2, 0, 0, 3, 0, 1];
/// The kernel's end of the bond's device.
pub(crate) const MWB0_MAC: [u8; 6] = [2, 0, 0, 4, 0, 1];
/// What the data plane sends into the device comes from here.
pub(crate) const DP_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0];

pub(crate) const GATEWAY_PORT: u16 = 7_001;
pub(crate) const SERVER_PORT: u16 = 7_000;
/// Sessions as each end numbers them; the low bits are slots.
pub(crate) const AT_GATEWAY: u32 = 0x0a0b_0c01;
pub(crate) const AT_SERVER: u32 = 0x1a1b_1c02;
pub(crate) const MTU: u32 = 1_400;
pub(crate) const EPOCH: u32 = 6;
pub(crate) const INTERVAL: u64 = 50_000_000;
pub(crate) const DEAD_AFTER: u64 = 150_000_000;
/// The same two for a metered path that is idle.
pub(crate) const IDLE_INTERVAL: u64 = 1_000_000_000;
pub(crate) const IDLE_DEAD_AFTER: u64 = 3_500_000_000;
pub(crate) const SUITES: [Suite; 3] = [Suite::ChaCha20Poly1305, Suite::SipHash, Suite::Crc32];

/// Which end of the bond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Gateway,
    Server,
}

impl Side {
    pub(crate) fn other(self) -> Self {
        match self {
            Side::Gateway => Side::Server,
            Side::Server => Side::Gateway,
        }
    }

    pub(crate) fn sender(self) -> Sender {
        match self {
            Side::Gateway => Sender::Initiator,
            Side::Server => Sender::Responder,
        }
    }

    pub(crate) fn session(self) -> u32 {
        match self {
            Side::Gateway => AT_GATEWAY,
            Side::Server => AT_SERVER,
        }
    }

    pub(crate) fn slot(self) -> u32 {
        self.session() & 3
    }

    pub(crate) fn port(self) -> u16 {
        match self {
            Side::Gateway => GATEWAY_PORT,
            Side::Server => SERVER_PORT,
        }
    }
}

/// The key of what `sender` seals in epochs of a parity.
pub(crate) fn key(sender: Side, parity: u32) -> Key {
    let first = 10 * sender.sender() as u8 + parity as u8 + 1;
    Key::new(core::array::from_fn(|i| first.wrapping_mul(17).wrapping_add(i as u8)))
}

/// Where a packet comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    Lan,
    Device,
    /// A WAN, by its number.
    Wan(u8),
}

/// A session of either side, with all that the kernel side looks at.
pub(crate) fn session(side: Side, suite: Suite) -> Session {
    let far = side.other();
    Session {
        ours: side.session(),
        theirs: far.session(),
        mtu: MTU,
        epoch: EPOCH,
        stripe: 0,
        suite: suite as u8,
        sender: side.sender() as u8,
        flags: session_flag::PRESENT | if side == Side::Server { session_flag::ROAMS } else { 0 },
        choice: bond_choice::BUCKET,
        opens: 1,
        seals: 0,
        seal: [key(side, 0), key(side, 1)],
        open: [key(far, 0), key(far, 1)],
        ..Session::default()
    }
}

pub(crate) fn remote(address: IpAddr) -> ([u8; 16], u8) {
    match address {
        IpAddr::V4(address) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&address.octets());
            (bytes, 0)
        }
        IpAddr::V6(address) => (address.octets(), 1),
    }
}

/// Path `id` of either side, over IPv4 or IPv6.
pub(crate) fn path(side: Side, id: u8, is_v6: bool) -> BondPath {
    let (remote, is_v6) = remote(address(side.other(), id, is_v6));
    BondPath {
        flags: bond_path_flag::PRESENT,
        mtu: 1_500,
        remote,
        remote_port: side.other().port().to_be_bytes(),
        is_v6,
        via: if side == Side::Gateway { id } else { 1 },
        generation: 7,
        ..BondPath::default()
    }
}

/// Where an end of path `id` is.
pub(crate) fn address(side: Side, id: u8, is_v6: bool) -> IpAddr {
    match (side, id, is_v6) {
        (Side::Server, _, false) => SERVER.into(),
        (Side::Server, _, true) => SERVER6.into(),
        (Side::Gateway, 2, false) => world::WAN2.into(),
        (Side::Gateway, 2, true) => WAN2_6.into(),
        (Side::Gateway, _, false) => world::WAN1.into(),
        (Side::Gateway, _, true) => world::WAN1_6.into(),
    }
}

/// MAC addresses of a frame that leaves by path `id`: to, from.
pub(crate) fn macs(side: Side, id: u8, is_v6: bool) -> [[u8; 6]; 2] {
    match (side, id, is_v6) {
        (Side::Server, ..) => [ROUTER_MAC, UPLINK_MAC],
        (Side::Gateway, 2, false) => [world::ISP2_MAC, world::WAN2_MAC],
        (Side::Gateway, 2, true) => [world::ISP2_MAC6, world::WAN2_MAC],
        (Side::Gateway, _, false) => [world::ISP1_MAC, world::WAN1_MAC],
        (Side::Gateway, _, true) => [world::ISP1_MAC6, world::WAN1_MAC],
    }
}

fn wan(side: Side, id: u8) -> Path {
    let both = path_flag::PRESENT | path_flag::HAS_V4 | path_flag::NEXT_HOP4 | path_flag::NEXT_HOP6;
    let four = |address| match address {
        IpAddr::V4(address) => address.octets(),
        IpAddr::V6(_) => [0; 4],
    };
    let six = |address| match address {
        IpAddr::V6(address) => address.octets(),
        IpAddr::V4(_) => [0; 16],
    };
    Path {
        ifindex: match (side, id) {
            (Side::Server, _) => UPLINK_DEVICE,
            (Side::Gateway, 2) => WAN2_DEVICE,
            (Side::Gateway, _) => WAN1_DEVICE,
        },
        flags: both,
        mtu: 1_500,
        address4: four(address(side, id, false)),
        address6: six(address(side, id, true)),
        source_mac: macs(side, id, false)[1],
        next_hop_mac4: macs(side, id, false)[0],
        next_hop_mac6: macs(side, id, true)[0],
        ..Path::default()
    }
}

/// An end of the bond, in a data plane.
pub(crate) struct End {
    pub(crate) plane: DataPlane,
    pub(crate) side: Side,
    lan: u32,
}

impl End {
    pub(crate) fn new(lan: u32, side: Side) -> Self {
        let programs = match side {
            Side::Gateway => Programs::Bond,
            // What is not for the bond is the steering programme's.
            Side::Server => Programs::Server,
        };
        let options =
            Options { flow_entries: 64, mapping_entries: 64, programs, ..Options::new("bond-run") };
        let plane = DataPlane::open_unpinned(&options).expect("a data plane");
        let mut end = Self { plane, side, lan };
        end.reset(Suite::ChaCha20Poly1305, false);
        end
    }

    pub(crate) fn maps(&self) -> BondMaps {
        self.plane.bond()
    }

    /// Begins anew: one session, by two paths over IPv4 or IPv6, the first of which is
    /// the better.
    pub(crate) fn reset(&mut self, suite: Suite, is_v6: bool) {
        for slot in 0..4 {
            self.maps().clear(slot).expect("a write");
        }
        self.set_up(suite, is_v6);
    }

    /// The same, where there is nothing to forget.
    pub(crate) fn set_up(&mut self, suite: Suite, is_v6: bool) {
        let side = self.side;
        let maps = self.maps();
        maps.set_bond(&bond(side)).expect("a write");
        maps.set_session(side.slot(), &session(side, suite)).expect("a write");
        maps.set_selection(side.slot(), &world::selection()).expect("a write");
        for id in [1, 2] {
            self.set_path(id, &path(side, id, is_v6));
            self.change_state(id, |state| {
                (state.alive_until, state.probe_due) = (u64::MAX, (u64::MAX >> 1) & !1);
            });
            self.plane.set_path(id, &wan(side, id)).expect("a write");
        }
        let owners = BTreeMap::from([
            (net("192.0.2.0/24"), side.slot()),
            (net("2001:db8:a::/48"), side.slot()),
            (net("192.0.2.77/32"), 3),
        ]);
        maps.set_owners(&owners).expect("a write");
        self.plane.set_prefixes(&world::prefixes4(), &world::prefixes6()).expect("a write");
        let device =
            Device { role: role::DEVICE, mac: MWB0_MAC, hook: hook::XDP, ..Device::default() };
        self.plane.set_device(INNER_DEVICE, device).expect("a write");
        let lan = Device { role: role::INSIDE, hook: hook::TC, ..Device::default() };
        self.plane.set_device(self.lan, lan).expect("a write");
    }

    pub(crate) fn set_path(&self, id: u8, path: &BondPath) {
        self.maps().set_path(self.side.slot(), id, path).expect("a write");
    }

    pub(crate) fn state(&self, id: u8) -> PathState {
        self.maps().path_state(self.side.slot(), id).expect("a state")
    }

    pub(crate) fn change_state(&self, id: u8, change: impl FnOnce(&mut PathState)) {
        let mut state = self.state(id);
        change(&mut state);
        self.maps().put_path_state(self.side.slot(), id, &state).expect("a write");
    }

    pub(crate) fn change_session(&self, change: impl FnOnce(&mut Session)) {
        let mut session = self.maps().session(self.side.slot()).expect("a session");
        change(&mut session);
        self.maps().set_session(self.side.slot(), &session).expect("a write");
    }

    /// The LAN port takes frames from XDP.
    pub(crate) fn lan_takes_xdp(&mut self) {
        let lan = Device { role: role::INSIDE, hook: hook::XDP, takes_xdp: 1, ..Device::default() };
        self.plane.set_device(self.lan, lan).expect("a write");
    }

    /// A server that steers by its first uplink, with the LAN port in the place of the
    /// kernel's end of the bond's device.
    pub(crate) fn steer(&mut self) {
        let outer_device = self.lan;
        self.maps().set_bond(&Bond { outer_device, ..bond(self.side) }).expect("a write");
        let xdp = Device { hook: hook::XDP, takes_xdp: takes_xdp::FRAGMENTED, ..Device::default() };
        let device = Device { role: role::INSIDE, mac: MWB0_MAC, ..xdp };
        self.plane.set_device(outer_device, device).expect("a write");
        let uplink = Device { role: role::OUTSIDE, path: 1, mac: UPLINK_MAC, ..xdp };
        self.plane.set_device(UPLINK_DEVICE, uplink).expect("a write");
        self.plane.set_control(&world::control()).expect("a write");
        self.plane.set_selection(Family::V4, &world::selection()).expect("a write");
        self.plane.set_liveness(&world::liveness(&[1])).expect("a write");
    }

    pub(crate) fn run(&mut self, door: Door, frame: &[u8]) -> TestOutcome {
        let id = self.enter(door);
        self.plane.test_run(id, frame, None, 1).expect("a test run")
    }

    /// Makes the loopback device what the door is; gives its program.
    pub(crate) fn enter(&mut self, door: Door) -> ProgramId {
        let xdp = Device { hook: hook::XDP, ..Device::default() };
        let (device, program) = match door {
            Door::Lan => {
                let mac = world::LAN_MAC;
                (Device { role: role::INSIDE, mac, ..xdp }, ProgramId::BondInside)
            }
            Door::Device => {
                (Device { role: role::DEVICE, mac: MWB0_MAC, ..xdp }, ProgramId::BondInside)
            }
            Door::Wan(path) => {
                let mac = wan(self.side, path).source_mac;
                (Device { role: role::OUTSIDE, path, mac, ..xdp }, ProgramId::BondOutside)
            }
        };
        self.plane.set_device(LOOPBACK, device).expect("a write");
        program
    }

    pub(crate) fn counters(&self) -> Vec<CounterRow> {
        self.plane.counters().expect("counters")
    }

    /// Runs it, and gives what came out with the one counter that moved.
    pub(crate) fn counted(&mut self, door: Door, frame: &[u8]) -> (TestOutcome, CounterRow) {
        let before = self.counters();
        let outcome = self.run(door, frame);
        let moved = crate::moved::difference(&before, self.counters());
        let [row] = moved.as_slice() else { panic!("one counter moves, not {moved:?}") };
        assert_eq!(row.packets, 1);
        let kinds = frame.first_chunk().zip(frame.get(12..).and_then(|rest| rest.first_chunk()));
        let is_back = kinds.is_some_and(|(&kind, &ethertype)| Back::is(kind, ethertype));
        // What the agent has sent goes out.
        let given = frame.get(..2).is_some_and(|kind| kind == back::AGAIN || kind == back::PARITY);
        let inward = matches!(door, Door::Wan(_)) || door == Door::Device && is_back && !given;
        let direction = if inward { Direction::In } else { Direction::Out };
        assert_eq!(row.direction, direction);
        (outcome, *row)
    }

    /// Runs it for the reason that it ends with.
    pub(crate) fn reason(&mut self, door: Door, frame: &[u8]) -> Reason {
        self.counted(door, frame).1.reason
    }

    /// A header from here, as the next packet of a path has it.
    pub(crate) fn header(&self, kind: mwb_common::wire::Kind, path: u8, sequence: u64) -> Header {
        Header {
            kind,
            flags: 0,
            path,
            inner: mwb_common::wire::inner::NONE,
            session: self.side.other().session(),
            sequence,
            bucket: 0,
            taken: 0,
            flow_sequence: 0,
        }
    }
}

pub(crate) fn net(text: &str) -> IpNet {
    text.parse().expect("a prefix")
}

pub(crate) fn bond(side: Side) -> Bond {
    Bond {
        probe_interval: INTERVAL,
        dead_after: DEAD_AFTER,
        idle_interval: IDLE_INTERVAL,
        idle_dead_after: IDLE_DEAD_AFTER,
        inner_device: INNER_DEVICE,
        outer_device: LOOPBACK,
        seed: 1,
        slot_mask: 3,
        slot: Side::Gateway.slot(),
        elephant_bytes: 1 << 20,
        port: side.port().to_be_bytes(),
        role: match side {
            Side::Gateway => bond_role::GATEWAY,
            Side::Server => bond_role::SERVER,
        },
        rules: 0,
        copy_budget: 0,
    }
}
