//! The bond's programs on devices of a namespace: how they are attached, and that the
//! kernel moves frames between them.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use etherparse::PacketBuilder;
use mwb_common::integrity::Suite;
use mwb_common::maps::{
    Bond, BondPath, Device, Path, SLOTS, Selection, Session, bond_choice, bond_path_flag,
    bond_role, device_flag, hook, path_flag, role, session_flag, tick,
};
use mwb_common::reason::Reason;
use mwb_common::wire::{Fields, Kind};
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};

use super::testing::{Instance, in_network, make_veth, run, wan};
use super::{DataPlane, DeviceSpec, Error, Hook, HookChoice, Mode, Role};

const LAN_MAC: [u8; 6] = [2, 0, 0, 0, 1, 1];
const SERVER: [u8; 4] = [203, 0, 113, 250];
const SLOT: u32 = 1;
const PATIENCE: Duration = Duration::from_secs(20);

fn spec(name: &str, ifindex: u32, role: Role, hook: HookChoice) -> DeviceSpec {
    DeviceSpec { role, ..wan(name, ifindex, hook) }
}

/// The suffixes under which a device's programs are pinned.
fn pinned(instance: &Instance, device: &str) -> Vec<&'static str> {
    let all = [super::pins::XDP, super::pins::TC, super::pins::CLSACT];
    all.into_iter().filter(|suffix| instance.pin(device, suffix).exists()).collect()
}

fn entry(plane: &DataPlane, ifindex: u32) -> Device {
    let devices = plane.tables().devices().expect("a read");
    devices.into_iter().find(|(index, _)| *index == ifindex).expect("an entry").1
}

#[test]
fn devices_of_a_bond_run_xdp_and_only_an_uplink_the_tc_form_besides() {
    in_network("devices_of_a_bond_run_xdp_and_only_an_uplink_the_tc_form_besides", || {
        let instance = Instance::new("bond-forms");
        let tc = instance.tc().1;
        let ifindex = make_veth("wan0");
        let mut plane = instance.open();
        for (role, number, forms) in [
            (Role::BondOutside, role::OUTSIDE, vec![super::pins::XDP]),
            (Role::Uplink, role::OUTSIDE, vec![super::pins::XDP, tc]),
            (Role::BondDevice, role::DEVICE, vec![super::pins::XDP]),
            (Role::BondInside, role::INSIDE, vec![super::pins::XDP]),
        ] {
            for choice in [HookChoice::Auto, HookChoice::Xdp] {
                if (role, choice) == (Role::BondInside, HookChoice::Auto) {
                    continue;
                }
                let attachment =
                    plane.attach(&spec("wan0", ifindex, role, choice)).expect("attached");
                assert_eq!((attachment.hook, attachment.mode), (Hook::Xdp, Mode::Native));
                assert_eq!(pinned(&instance, "wan0"), forms, "{role:?}");
                let entry = entry(&plane, ifindex);
                assert_eq!((entry.role, entry.hook), (number, hook::XDP));
                assert!(plane.serves("wan0", ifindex).expect("an answer"));
            }
        }
        // A LAN port of veth runs nothing: the kernel routes.
        let lan = spec("wan0", ifindex, Role::BondInside, HookChoice::Auto);
        let attachment = plane.attach(&lan).expect("attached");
        assert_eq!((attachment.hook, attachment.mode), (Hook::Tcx, Mode::Routed));
        assert_eq!(pinned(&instance, "wan0"), Vec::<&str>::new());
        assert!(!run("ip link show wan0").contains("xdp"));
        assert_eq!(entry(&plane, ifindex).takes_xdp, 0);
        assert!(plane.serves("wan0", ifindex).expect("an answer"));
        // And the other way round, from and to a gateway that steers.
        let steering = wan("wan0", ifindex, HookChoice::Xdp);
        plane.attach(&steering).expect("attached");
        assert_eq!(pinned(&instance, "wan0"), [super::pins::XDP, tc]);
        plane
            .attach(&spec("wan0", ifindex, Role::BondOutside, HookChoice::Auto))
            .expect("attached");
        assert_eq!(pinned(&instance, "wan0"), [super::pins::XDP]);
        plane.detach("wan0").expect("detached");
        assert_eq!(pinned(&instance, "wan0"), Vec::<&str>::new());
        assert!(!plane.serves("wan0", ifindex).expect("an answer"));
    });
}

#[test]
fn an_agent_that_starts_replaces_the_program_in_the_link() {
    in_network("an_agent_that_starts_replaces_the_program_in_the_link", || {
        let instance = Instance::new("bond-upgrade");
        let ifindex = make_veth("wan0");
        let spec = spec("wan0", ifindex, Role::Uplink, HookChoice::Auto);
        instance.open().attach(&spec).expect("attached");
        let first = super::attach::tests::link(&instance, super::pins::XDP).expect("a link");
        assert!(run("ip link show wan0").contains("xdp"));
        instance.open().attach(&spec).expect("attached");
        let second = super::attach::tests::link(&instance, super::pins::XDP).expect("a link");
        assert_eq!(first.0, second.0, "the link stays");
        assert_ne!(first.1, second.1, "the program is another");
    });
}

#[test]
fn a_device_that_cannot_run_xdp_is_refused_with_what_to_do() {
    in_network("a_device_that_cannot_run_xdp_is_refused_with_what_to_do", || {
        let instance = Instance::new("bond-refused");
        let ifindex = make_veth("wan0");
        let mut plane = instance.open();
        let mut refused = |spec: &DeviceSpec| match plane.attach(spec) {
            Err(error @ Error::BondNeedsXdp { .. }) => error.to_string(),
            other => panic!("not refused: {other:?}"),
        };
        for role in [Role::BondOutside, Role::Uplink, Role::BondDevice] {
            let tcx = spec("wan0", ifindex, role, HookChoice::Tcx);
            assert!(refused(&tcx).contains("`hook: xdp`"), "{}", refused(&tcx));
            let headless = DeviceSpec {
                flags: device_flag::NO_ETHERNET,
                mac: [0; 6],
                ..spec("wan0", ifindex, role, HookChoice::Auto)
            };
            assert!(refused(&headless).contains("no Ethernet header"));
        }
        // Another's program holds the device.
        let other = Instance::new("bond-holder");
        other.open().attach(&wan("wan0", ifindex, HookChoice::Xdp)).expect("attached");
        let taken = spec("wan0", ifindex, Role::BondOutside, HookChoice::Auto);
        assert!(refused(&taken).contains("another XDP program"));
        assert_eq!(plane.tables().devices().expect("a read"), []);
        assert_eq!(pinned(&instance, "wan0"), Vec::<&str>::new());
    });
}

fn packet_socket(device: &str, protocol: i32) -> Socket {
    let protocol = (protocol as u16).to_be();
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(i32::from(protocol))))
        .expect("a packet socket");
    let index = nix::net::if_::if_nametoindex(device).expect("a device");
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: `sockaddr_ll` is one of the addresses that the storage is for.
    let address = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    address.sll_family = libc::sa_family_t::try_from(libc::AF_PACKET).expect("a family");
    address.sll_protocol = protocol;
    address.sll_ifindex = i32::try_from(index).expect("an index");
    let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).expect("a length");
    // SAFETY: the storage holds an address of that length.
    let address = unsafe { SockAddr::new(storage, length) };
    socket.bind(&address).expect("bound");
    socket.set_read_timeout(Some(Duration::from_millis(200))).expect("a time-out");
    socket
}

/// Writes a session with one path, by `wan`.
fn bond_by(plane: &mut DataPlane, wan: u32, [outer, inner]: [u32; 2]) {
    let maps = plane.bond();
    let bond = Bond {
        probe_interval: 50_000_000,
        dead_after: 150_000_000,
        inner_device: inner,
        outer_device: outer,
        slot_mask: 3,
        slot: SLOT,
        elephant_bytes: 1 << 20,
        port: 7_001_u16.to_be_bytes(),
        role: bond_role::GATEWAY,
        ..Bond::default()
    };
    maps.set_bond(&bond).expect("a write");
    let session = Session {
        ours: 0x100 | SLOT,
        theirs: 9,
        mtu: 1_400,
        suite: Suite::SipHash as u8,
        flags: session_flag::PRESENT,
        choice: bond_choice::BUCKET,
        opens: 1,
        ..Session::default()
    };
    maps.set_session(SLOT, &session).expect("a write");
    let table = Selection { slots: [1; SLOTS], ..bytemuck::Zeroable::zeroed() };
    maps.set_selection(SLOT, &table).expect("a write");
    let mut remote = [0; 16];
    remote[..4].copy_from_slice(&SERVER);
    let path = BondPath {
        flags: bond_path_flag::PRESENT,
        mtu: 1_500,
        remote,
        remote_port: 7_000_u16.to_be_bytes(),
        via: 1,
        ..BondPath::default()
    };
    maps.set_path(SLOT, 1, &path).expect("a write");
    let wan = Path {
        ifindex: wan,
        flags: path_flag::PRESENT | path_flag::HAS_V4 | path_flag::NEXT_HOP4,
        mtu: 1_500,
        address4: [198, 51, 100, 2],
        next_hop_mac4: [2, 9, 9, 9, 9, 9],
        ..Path::default()
    };
    plane.set_path(1, &wan).expect("a write");
    plane.set_prefixes(&[], &[]).expect("a write");
}

/// The kinds of the bond's packets that come out, until `enough` says so.
fn come_out(socket: &mut Socket, enough: impl Fn(&[Kind]) -> bool) -> Vec<Kind> {
    let deadline = Instant::now() + PATIENCE;
    let mut kinds = Vec::new();
    let mut frame = [0; 2_048];
    while !enough(&kinds) && Instant::now() < deadline {
        let Ok(length) = socket.read(&mut frame) else { continue };
        if length > 66 && frame[12..14] == [8, 0] && frame[30..34] == SERVER {
            let fields: Fields = bytemuck::pod_read_unaligned(&frame[42..66]);
            kinds.push(fields.decode().expect("a header").kind);
        }
    }
    kinds
}

/// A gateway between two veth pairs and the pair of the bond's device.
fn gateway(instance: &Instance, mode: Mode) -> (DataPlane, Socket, Socket) {
    let mut lan = make_veth("lan0");
    run("ip link set lan0p up");
    let mut name = "lan0";
    if mode == Mode::Generic {
        // Its driver has no XDP of its own.
        name = "mac0";
        run("ip link add link lan0 name mac0 address 02:00:00:00:01:01 type macvlan mode bridge");
        run("ip link set mac0 up");
        lan = nix::net::if_::if_nametoindex(name).expect("a device");
    }
    let wan = make_veth("wan0");
    run("ip link set wan0p up");
    run("ethtool -K wan0p gro on");
    let outer = make_veth("mwb0");
    run("ip link set mwb0p up");
    let inner = nix::net::if_::if_nametoindex("mwb0p").expect("a device");
    let mut plane = instance.open();
    let inside = DeviceSpec { mac: LAN_MAC, ..spec(name, lan, Role::BondInside, HookChoice::Xdp) };
    assert_eq!(plane.attach(&inside).expect("attached").mode, mode);
    plane.attach(&spec("wan0", wan, Role::BondOutside, HookChoice::Auto)).expect("attached");
    plane.attach(&spec("mwb0p", inner, Role::BondDevice, HookChoice::Auto)).expect("attached");
    bond_by(&mut plane, wan, [outer, inner]);
    (plane, packet_socket("lan0p", 0), packet_socket("wan0p", libc::ETH_P_ALL))
}

fn frame(payload: usize) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], LAN_MAC)
        .ipv4([192, 0, 2, 9], [203, 0, 113, 7], 64)
        .udp(40_000, 443);
    let mut frame = Vec::new();
    builder.write(&mut frame, &vec![0; payload]).expect("room");
    frame
}

fn count(plane: &DataPlane, reason: Reason) -> u64 {
    let rows = plane.counters().expect("counters");
    rows.iter().filter(|row| row.reason == reason).map(|row| row.packets).sum()
}

#[test]
fn ticks_of_the_agent_and_of_data_leave_as_probes_and_no_data_is_lost() {
    let name = "ticks_of_the_agent_and_of_data_leave_as_probes_and_no_data_is_lost";
    probes_of_ticks(name, "bond-ticks", Mode::Native);
}

#[test]
fn a_lan_port_in_generic_xdp_makes_ticks_of_data_and_loses_none() {
    let name = "a_lan_port_in_generic_xdp_makes_ticks_of_data_and_loses_none";
    probes_of_ticks(name, "bond-generic", Mode::Generic);
}

fn probes_of_ticks(name: &str, instance: &str, mode: Mode) {
    in_network(name, || {
        let instance = Instance::new(instance);
        let (mut plane, mut lan, mut wan) = gateway(&instance, mode);
        // The agent's, by way of the kernel's end.
        let mut agent = packet_socket("mwb0", 0);
        let to = tick::destination(tick::SHORT, SLOT, 1);
        let mut short = [&to[..], &[2, 0, 0, 0, 0, 1], &tick::ETHERTYPE].concat();
        short.resize(200, 0);
        agent.write_all(&short).expect("sent");
        assert_eq!(come_out(&mut wan, |kinds| !kinds.is_empty()), [Kind::Probe]);
        // Data alone makes none, as long as there is no way round.
        std::thread::sleep(Duration::from_millis(120));
        lan.write_all(&frame(10)).expect("sent");
        assert_eq!(come_out(&mut wan, |kinds| !kinds.is_empty()), [Kind::Data]);
        // Then it does, and is not lost; whether it is short or long.
        plane.set_ticks(nix::net::if_::if_nametoindex("mwb0").expect("a device")).expect("set");
        for length in [0, 10, 1_000] {
            std::thread::sleep(Duration::from_millis(120));
            lan.write_all(&frame(length)).expect("sent");
            let mut kinds = come_out(&mut wan, |kinds| kinds.len() == 2);
            kinds.sort_unstable_by_key(|kind| *kind as u8);
            assert_eq!(kinds, [Kind::Data, Kind::Probe], "{length}");
        }
        assert_eq!((count(&plane, Reason::Ticked), count(&plane, Reason::ProbeSent)), (3, 4));
        assert_eq!((count(&plane, Reason::Bonded), count(&plane, Reason::TickIgnored)), (4, 0));
    });
}
