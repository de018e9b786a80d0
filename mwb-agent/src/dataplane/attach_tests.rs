//! Attaching to real devices: what stays, what is taken over, what goes.

use aya::programs::links::{FdLink, PinnedLink};
use mwb_common::maps::{Device, hook, role, takes_xdp};

use super::super::spec::{Hook, HookChoice, Mode};
use super::super::testing::{Instance, in_network, make_veth, run, wan};
use super::*;

/// Link id and program id behind a pin.
pub(in super::super) fn link(instance: &Instance, suffix: &str) -> Option<(u32, u32)> {
    let pin = PinnedLink::from_pin(instance.pin("wan0", suffix)).ok()?;
    let info = FdLink::from(pin).info().expect("a link");
    Some((info.id(), info.program_id()))
}

#[test]
fn the_device_table_says_what_is_attached() {
    in_network("the_device_table_says_what_is_attached", || {
        let instance = Instance::new("table");
        let ifindex = make_veth("wan0");
        let mut plane = instance.open();
        for (choice, hook) in [(HookChoice::Xdp, hook::XDP), (HookChoice::Tcx, hook::TC)] {
            let spec = wan("wan0", ifindex, choice);
            plane.attach(&spec).expect("attached");
            // Only a device with a native XDP program takes frames from XDP.
            let takes_xdp = match choice {
                HookChoice::Xdp if plane.redirects_fragments => takes_xdp::FRAGMENTED,
                HookChoice::Xdp => takes_xdp::LINEAR,
                _ => takes_xdp::NONE,
            };
            let (role, mac) = (role::OUTSIDE, spec.mac);
            let expected = Device { role, path: 1, hook, takes_xdp, mac, ..Device::default() };
            assert_eq!(plane.tables.devices().expect("a read"), [(ifindex, expected)]);
        }
        plane.detach("wan0").expect("detached");
        assert_eq!(plane.tables.devices().expect("a read"), []);
    });
}

#[test]
fn a_changed_hook_detaches_the_other_form() {
    in_network("a_changed_hook_detaches_the_other_form", || {
        let instance = Instance::new("change");
        let ifindex = make_veth("wan0");
        instance.open().attach(&wan("wan0", ifindex, HookChoice::Xdp)).expect("attached");
        assert!(run("ip link show wan0").contains("xdp"));

        let tcx = instance.open().attach(&wan("wan0", ifindex, HookChoice::Tcx)).expect("attached");
        let (mode, pin) = instance.tc();
        assert_eq!((tcx.hook, tcx.mode), (Hook::Tcx, mode));
        assert!(!run("ip link show wan0").contains("xdp"));
        assert_eq!(link(&instance, pins::XDP), None);
        assert!(instance.pin("wan0", pin).exists());
    });
}

#[test]
fn a_device_made_anew_is_attached_anew() {
    in_network("a_device_made_anew_is_attached_anew", || {
        let instance = Instance::new("anew");
        let old = make_veth("wan0");
        let mut plane = instance.open();
        plane.attach(&wan("wan0", old, HookChoice::Xdp)).expect("attached");
        run("ip link del wan0");
        let new = make_veth("wan0");
        assert_ne!(old, new);
        plane.attach(&wan("wan0", new, HookChoice::Xdp)).expect("attached");
        assert!(run("ip link show wan0").contains("xdp"));
        let devices = plane.tables.devices().expect("a read");
        assert_eq!(devices.iter().map(|(ifindex, _)| *ifindex).collect::<Vec<_>>(), [new]);
    });
}

#[test]
fn a_device_with_a_dot_in_its_name_is_attached_like_any_other() {
    in_network("a_device_with_a_dot_in_its_name_is_attached_like_any_other", || {
        let instance = Instance::new("dot");
        let ifindex = make_veth("wan0.5");
        instance.open().attach(&wan("wan0.5", ifindex, HookChoice::Tcx)).expect("attached");
        assert!(instance.pin("wan0.5", instance.tc().1).exists());
        assert_eq!(DataPlane::remove(&instance.options).expect("removed"), ["wan0.5"]);
    });
}

#[test]
fn a_driver_without_native_xdp_gets_generic_with_the_reason() {
    in_network("a_driver_without_native_xdp_gets_generic_with_the_reason", || {
        let instance = Instance::new("generic");
        run("ip link set lo up");
        let spec = wan("lo", 1, HookChoice::Xdp);
        let first = instance.open().attach(&spec).expect("attached");
        assert_eq!((first.hook, first.mode), (Hook::Xdp, Mode::Generic));
        assert!(first.reason.contains("does not support"), "{}", first.reason);
        // A link does not say how it runs; we find out.
        let second = instance.open().attach(&spec).expect("attached");
        assert_eq!((second.hook, second.mode), (Hook::Xdp, Mode::Generic));
    });
}

#[test]
fn jumbo_frames_are_no_obstacle_to_native_xdp() {
    in_network("jumbo_frames_are_no_obstacle_to_native_xdp", || {
        let instance = Instance::new("jumbo");
        let ifindex = make_veth("wan0");
        run("ip link set wan0 mtu 9000");
        run("ip link set wan0p mtu 9000");
        let spec = wan("wan0", ifindex, HookChoice::Xdp);
        let attachment = instance.open().attach(&spec).expect("attached");
        assert_eq!((attachment.hook, attachment.mode), (Hook::Xdp, Mode::Native));
    });
}

#[test]
fn a_driver_that_still_finds_the_mtu_too_large_is_explained() {
    let text = describe(&io::Error::from_raw_os_error(libc::ERANGE));
    assert!(text.contains("MTU is too large"), "{text}");
}

#[test]
fn a_foreign_xdp_program_is_respected_and_named() {
    in_network("a_foreign_xdp_program_is_respected_and_named", || {
        let (theirs, ours) = (Instance::new("theirs"), Instance::new("ours"));
        let ifindex = make_veth("wan0");
        let spec = wan("wan0", ifindex, HookChoice::Xdp);
        theirs.open().attach(&spec).expect("attached");
        let mut plane = ours.open();
        let error = plane.attach(&spec).expect_err("the device is taken").to_string();
        let (mode, pin) = ours.tc();
        // Programs of TCX stand beside each other, filters have one place.
        let what = if mode == Mode::Tcx { "another XDP program" } else { "another filter" };
        assert!(error.contains(what), "{error}");
        assert_eq!(plane.tables.devices().expect("a read"), [], "nothing of the attempt stays");
        assert!(link(&theirs, pins::XDP).is_some());
        if mode == Mode::Clsact {
            assert!(run("tc filter show dev wan0 ingress").contains("direct-action"));
        }
        assert!(!ours.pin("wan0", pin).exists(), "nothing of the attempt stays");
    });
}

#[test]
fn devices_that_the_configuration_lost_are_detached() {
    in_network("devices_that_the_configuration_lost_are_detached", || {
        let instance = Instance::new("others");
        let (wan0, wan1) = (make_veth("wan0"), make_veth("wan1"));
        let mut before = instance.open();
        for (name, ifindex) in [("wan0", wan0), ("wan1", wan1)] {
            before.attach(&wan(name, ifindex, HookChoice::Xdp)).expect("attached");
        }
        drop(before);
        let mut after = instance.open();
        after.attach(&wan("wan1", wan1, HookChoice::Xdp)).expect("attached");
        assert_eq!(after.detach_others(&[]).expect("detached"), ["wan0"]);
        assert!(!run("ip link show wan0").contains("xdp"));
        assert!(run("ip link show wan1").contains("xdp"));
        let devices = after.tables.devices().expect("a read");
        assert_eq!(devices.iter().map(|(ifindex, _)| *ifindex).collect::<Vec<_>>(), [wan1]);
    });
}

#[test]
fn a_named_device_keeps_its_programs_though_it_could_not_be_attached_anew() {
    in_network("a_named_device_keeps_its_programs_though_it_could_not_be_attached_anew", || {
        let instance = Instance::new("kept");
        let (wan0, wan1) = (make_veth("wan0"), make_veth("wan1"));
        let mut before = instance.open();
        for (name, ifindex) in [("wan0", wan0), ("wan1", wan1)] {
            before.attach(&wan(name, ifindex, HookChoice::Xdp)).expect("attached");
        }
        let entries = before.tables.devices().expect("a read");
        drop(before);
        let mut after = instance.open();
        after.attach(&wan("wan0", wan0, HookChoice::Xdp)).expect("attached");
        let refused = DeviceSpec { mac: [0; 6], ..wan("wan1", wan1, HookChoice::Xdp) };
        assert!(after.attach(&refused).is_err());
        assert!(after.serves("wan1", wan1).expect("a read"));
        assert!(!after.serves("wan1", wan0).expect("a read"), "another device of that name");
        let named = ["wan0".to_owned(), "wan1".to_owned()];
        assert_eq!(after.detach_others(&named).expect("detached"), [] as [&str; 0]);
        assert!(run("ip link show wan1").contains("xdp"));
        assert_eq!(after.tables.devices().expect("a read"), entries);
        assert_eq!(after.detach_others(&[]).expect("detached"), ["wan1"]);
        assert!(!after.serves("wan1", wan1).expect("a read"));
    });
}

#[test]
fn remove_leaves_nothing_and_may_be_repeated() {
    in_network("remove_leaves_nothing_and_may_be_repeated", || {
        let instance = Instance::new("remove");
        let ifindex = make_veth("wan0");
        instance.open().attach(&wan("wan0", ifindex, HookChoice::Xdp)).expect("attached");
        assert_eq!(DataPlane::remove(&instance.options).expect("removed"), ["wan0"]);
        assert!(!run("ip link show wan0").contains("xdp"));
        assert!(!instance.options.pin_root.join(&instance.options.instance).exists());
        assert!(DataPlane::remove(&instance.options).expect("removed").is_empty());
    });
}

#[test]
fn a_device_without_ethernet_gets_the_tc_form_only() {
    in_network("a_device_without_ethernet_gets_the_tc_form_only", || {
        let instance = Instance::new("tun");
        run("ip tuntap add dev tun0 mode tun");
        run("ip link set tun0 up");
        let ifindex = nix::net::if_::if_nametoindex("tun0").expect("a device");
        let spec = |hook| DeviceSpec {
            driver: "tun".to_owned(),
            mac: [0; 6],
            flags: device_flag::NO_ETHERNET,
            address4: Some(Ipv4Addr::new(198, 51, 100, 2)),
            ..wan("tun0", ifindex, hook)
        };
        let mut plane = instance.open();
        for choice in [HookChoice::Auto, HookChoice::Tcx] {
            let attachment = plane.attach(&spec(choice)).expect("attached");
            assert_eq!((attachment.hook, attachment.mode), (Hook::Tcx, instance.tc().0));
        }
        let error = plane.attach(&spec(HookChoice::Xdp)).expect_err("XDP sees no packet there");
        assert!(error.to_string().contains("`hook: tcx`"), "{error}");
        let entry = Device {
            role: role::OUTSIDE,
            path: 1,
            hook: hook::TC,
            flags: device_flag::NO_ETHERNET,
            address4: [198, 51, 100, 2],
            ..Device::default()
        };
        assert_eq!(plane.tables.devices().expect("a read"), [(ifindex, entry)]);

        let unknown = DeviceSpec { flags: 0, ..spec(HookChoice::Auto) };
        assert!(matches!(plane.attach(&unknown), Err(Error::NoMac(_))));
    });
}

#[test]
fn the_source_of_icmp_errors_follows_the_devices_address() {
    in_network("the_source_of_icmp_errors_follows_the_devices_address", || {
        let instance = Instance::new("addresses");
        let ifindex = make_veth("wan0");
        let mut plane = instance.open();
        let first = Ipv4Addr::new(198, 51, 100, 2);
        let spec = wan("wan0", ifindex, HookChoice::Tcx);
        plane.attach(&DeviceSpec { address4: Some(first), ..spec }).expect("attached");
        let before = plane.settings.device(ifindex).expect("a read");
        assert_eq!((before.address4, before.address6), (first.octets(), [0; 16]));

        let second = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
        plane.revise_device("wan0", device_flag::TO_PEER, None, Some(second)).expect("a write");
        let after = Device {
            flags: device_flag::TO_PEER,
            address4: [0; 4],
            address6: second.octets(),
            ..before
        };
        assert_eq!(plane.settings.device(ifindex).expect("a read"), after);
        plane.revise_device("wan9", 0, Some(first), None).expect("nothing to do");
    });
}

#[test]
fn without_tcx_exactly_our_clsact_filter_comes_stays_and_goes() {
    in_network("without_tcx_exactly_our_clsact_filter_comes_stays_and_goes", || {
        let instance = Instance::new("clsact");
        let ifindex = make_veth("wan0");
        run("tc qdisc add dev wan0 clsact");
        run("tc filter add dev wan0 ingress protocol ip pref 10 u32 match u32 0 0 flowid 1:1");
        let filters = || {
            let listing = run("tc filter show dev wan0 ingress");
            let count = |text| listing.matches(text).count();
            assert_eq!(count("direct-action"), count(" outside_tc direct-action"), "{listing}");
            (count("direct-action"), count("flowid 1:1"))
        };
        let spec = wan("wan0", ifindex, HookChoice::Tcx);
        // The second replaces the first.
        for _ in 0..2 {
            let mut plane = instance.open();
            plane.has_tcx = false;
            let attachment = plane.attach(&spec).expect("attached");
            assert_eq!((attachment.hook, attachment.mode), (Hook::Tcx, Mode::Clsact));
            drop(plane);
            assert_eq!(filters(), (1, 1), "it stays when the agent is gone");
        }
        assert_eq!(DataPlane::remove(&instance.options).expect("removed"), ["wan0"]);
        assert_eq!(filters(), (0, 1));
    });
}

#[test]
fn without_tcx_a_filter_is_known_by_its_device_and_anothers_is_left_alone() {
    in_network("without_tcx_a_filter_is_known_by_its_device_and_anothers_is_left_alone", || {
        let (theirs, ours) = (Instance::new("filter-theirs"), Instance::new("filter-ours"));
        let open = |instance: &Instance| {
            let mut plane = instance.open();
            plane.has_tcx = false;
            plane
        };
        let (wan0, wan1) = (make_veth("wan0"), make_veth("wan1"));
        let mut before = open(&theirs);
        for (name, ifindex) in [("wan0", wan0), ("wan1", wan1)] {
            before.attach(&wan(name, ifindex, HookChoice::Tcx)).expect("attached");
        }
        let entries = before.tables.devices().expect("a read");
        drop(before);

        let mut plane = open(&ours);
        let error = plane.attach(&wan("wan0", wan0, HookChoice::Tcx)).expect_err("it is taken");
        assert!(error.to_string().contains("another filter"), "{error}");
        assert!(run("tc filter show dev wan0 ingress").contains("direct-action"));
        assert!(!plane.serves("wan0", wan0).expect("a read"));

        let mut after = open(&theirs);
        assert!(after.serves("wan0", wan0).expect("a read"));
        assert!(!after.serves("wan0", wan1).expect("a read"), "another device of that name");
        let named = ["wan0".to_owned(), "wan1".to_owned()];
        assert_eq!(after.detach_others(&named).expect("detached"), [] as [&str; 0]);
        assert_eq!(after.tables.devices().expect("a read"), entries);
        run("ip link del wan0");
        let anew = make_veth("wan0");
        assert!(!after.serves("wan0", anew).expect("a read"), "it was made anew");
        after.detach("wan1").expect("detached");
        assert!(!run("tc filter show dev wan1 ingress").contains("direct-action"));
        assert!(after.tables.devices().expect("a read").iter().all(|(index, _)| *index != wan1));
    });
}
