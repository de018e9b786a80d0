//! Which programs devices get in a bond and on a server.

use mwb_common::maps::{hook, role, takes_xdp};

use super::super::spec::{Hook, HookChoice, Mode, Role};
use super::super::testing::{Instance, in_network, make_veth, run, wan};
use super::*;

/// A device in a role.
fn device(name: &str, ifindex: u32, role: Role, hook: HookChoice) -> DeviceSpec {
    DeviceSpec { role, ..wan(name, ifindex, hook) }
}

/// Id of the program behind a pin.
fn attached(instance: &Instance, device: &str, suffix: &str) -> Option<u32> {
    use aya::programs::links::{FdLink, PinnedLink};
    let pin = PinnedLink::from_pin(instance.pin(device, suffix)).ok()?;
    Some(FdLink::from(pin).info().expect("a link").program_id())
}

fn id(plane: &DataPlane, program: ProgramId) -> u32 {
    let program = plane.object.program(program.name()).expect("it is there");
    program.info().expect("it is loaded").id()
}

#[test]
fn a_gateway_of_a_bond_has_xdp_programs_alone() {
    in_network("a_gateway_of_a_bond_has_xdp_programs_alone", || {
        let instance = Instance::new("bonded");
        let (wan0, lan0, lan1) = (make_veth("wan0"), make_veth("lan0"), make_veth("lan1"));
        let end = make_veth("mwb0-dp");
        let mut plane = instance.open();
        // A veth would steer in TCX.
        let spec = device("wan0", wan0, Role::BondOutside, HookChoice::Auto);
        let attachment = plane.attach(&spec).expect("attached");
        assert_eq!((attachment.hook, attachment.mode), (Hook::Xdp, Mode::Native));
        let spec = device("lan0", lan0, Role::BondInside, HookChoice::Xdp);
        plane.attach(&spec).expect("attached");
        let spec = device("lan1", lan1, Role::BondInside, HookChoice::Auto);
        let left = plane.attach(&spec).expect("attached");
        assert_eq!((left.hook, left.mode), (Hook::Tcx, Mode::Routed), "the kernel forwards");
        let kernel_mac = [2, 0, 0, 0, 0, 9];
        let spec = device("mwb0-dp", end, Role::BondDevice, HookChoice::Auto);
        let attachment = plane.attach(&DeviceSpec { mac: kernel_mac, ..spec }).expect("attached");
        assert_eq!((attachment.hook, attachment.mode), (Hook::Xdp, Mode::Native));
        let inside = id(&plane, ProgramId::BondInside);
        let outside = id(&plane, ProgramId::BondOutside);
        for (name, program) in [("wan0", outside), ("lan0", inside), ("mwb0-dp", inside)] {
            assert_eq!(attached(&instance, name, pins::XDP), Some(program), "{name}");
            assert!(!instance.pin(name, instance.tc().1).exists(), "{name}");
        }
        assert_eq!(attached(&instance, "lan1", pins::XDP), None);
        assert!(!run("ip link show lan1").contains("xdp"));
        let table = plane.tables.devices().expect("a read");
        let entry = |ifindex| table.iter().find(|(other, _)| *other == ifindex).map(|(_, e)| *e);
        let end = entry(end).expect("it is known");
        assert_eq!((end.role, end.mac), (role::DEVICE, kernel_mac));
        let left = entry(lan1).expect("it is known");
        let expected = (role::INSIDE, hook::TC, takes_xdp::NONE);
        assert_eq!((left.role, left.hook, left.takes_xdp), expected);
    });
}

#[test]
fn the_uplink_of_a_server_steers_what_is_of_no_bond() {
    in_network("the_uplink_of_a_server_steers_what_is_of_no_bond", || {
        let instance = Instance::new("server");
        let (wan0, mwb0) = (make_veth("wan0"), make_veth("mwb0"));
        let mut plane = instance.open();
        let spec = device("wan0", wan0, Role::Uplink, HookChoice::Auto);
        let attachment = plane.attach(&spec).expect("attached");
        assert_eq!((attachment.hook, attachment.mode), (Hook::Xdp, Mode::Native));
        plane.attach(&device("mwb0", mwb0, Role::Inside, HookChoice::Xdp)).expect("attached");
        let outside = Some(id(&plane, ProgramId::BondOutside));
        assert_eq!(attached(&instance, "wan0", pins::XDP), outside);
        let inside = Some(id(&plane, ProgramId::InsideXdp));
        assert_eq!(attached(&instance, "mwb0", pins::XDP), inside);
        // For what the XDP form hands over.
        for name in ["wan0", "mwb0"] {
            assert!(instance.pin(name, instance.tc().1).exists(), "{name}");
        }
    });
}

#[test]
fn a_gateway_that_steered_and_bonds_now_keeps_no_program_of_before() {
    in_network("a_gateway_that_steered_and_bonds_now_keeps_no_program_of_before", || {
        let instance = Instance::new("turned");
        let wan0 = make_veth("wan0");
        let tc = instance.tc().1;
        let steers = device("wan0", wan0, Role::Outside, HookChoice::Auto);
        let bonds = device("wan0", wan0, Role::BondOutside, HookChoice::Auto);
        assert_eq!(instance.open().attach(&steers).expect("attached").hook, Hook::Tcx);
        assert!(instance.pin("wan0", tc).exists());
        let mut plane = instance.open();
        assert_eq!(plane.attach(&bonds).expect("attached").hook, Hook::Xdp);
        assert!(!instance.pin("wan0", tc).exists());
        let outside = Some(id(&plane, ProgramId::BondOutside));
        assert_eq!(attached(&instance, "wan0", pins::XDP), outside);
        // And back.
        assert_eq!(instance.open().attach(&steers).expect("attached").hook, Hook::Tcx);
        assert_eq!(attached(&instance, "wan0", pins::XDP), None);
        assert!(instance.pin("wan0", tc).exists());
    });
}

#[test]
fn a_wan_without_ethernet_is_refused_in_a_bond() {
    in_network("a_wan_without_ethernet_is_refused_in_a_bond", || {
        let instance = Instance::new("headless");
        let wan0 = make_veth("wan0");
        let spec = DeviceSpec {
            flags: device_flag::NO_ETHERNET,
            mac: [0; 6],
            ..device("wan0", wan0, Role::BondOutside, HookChoice::Auto)
        };
        let error = instance.open().attach(&spec).expect_err("refused").to_string();
        assert!(error.contains("wan0 cannot carry a bond"), "{error}");
    });
}
