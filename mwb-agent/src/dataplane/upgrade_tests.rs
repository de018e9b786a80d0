//! One agent after another: what is taken over, what is kept, what is refused.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use mwb_common::maps::{self, Flow, FlowKey4, names};

use super::super::spec::{Hook, HookChoice, Mode};
use super::super::testing::{Instance, in_network, make_veth, wan};
use super::tests::link;
use super::*;

#[test]
fn a_restarted_agent_replaces_the_programs_in_the_links_it_finds() {
    in_network("a_restarted_agent_replaces_the_programs_in_the_links_it_finds", || {
        let instance = Instance::new("takeover");
        let ifindex = make_veth("wan0");
        let spec = wan("wan0", ifindex, HookChoice::Xdp);

        let first = instance.open().attach(&spec).expect("attached");
        assert_eq!((first.hook, first.mode), (Hook::Xdp, Mode::Native));
        // A filter is replaced in its place, without a link.
        let suffixes =
            if instance.tc().0 == Mode::Tcx { &[pins::XDP, pins::TC][..] } else { &[pins::XDP] };
        let links = || -> Vec<_> {
            suffixes.iter().map(|suffix| link(&instance, suffix).expect("pinned")).collect()
        };
        let before = links();

        // The first data plane is gone; its links are not.
        let second = instance.open().attach(&spec).expect("attached");
        assert_eq!(second, first);
        for (before, after) in before.iter().zip(links()) {
            assert_eq!(before.0, after.0, "the link must be the same");
            assert_ne!(before.1, after.1, "the program must be another");
        }
    });
}

/// Program ids in the slow path.
fn slow_path(pin: &Path) -> [u32; maps::slow::PROGRAMS] {
    let map = sys::open_pin(pin).expect("a pin");
    std::array::from_fn(|index| {
        let index = u32::try_from(index).expect("a short array");
        let mut id = [0_u32];
        sys::lookup_into(map.as_fd(), &index, &mut id).expect("a read");
        id[0]
    })
}

#[test]
fn an_upgraded_agent_keeps_flows_and_counters_and_never_empties_the_slow_path() {
    let name = "an_upgraded_agent_keeps_flows_and_counters_and_never_empties_the_slow_path";
    in_network(name, || {
        let instance = Instance::new("upgrade");
        let spec = wan("wan0", make_veth("wan0"), HookChoice::Xdp);
        let pin = Pins::of(&instance.options).expect("a good name").map(names::SLOW);

        let mut old = instance.open();
        old.attach(&spec).expect("attached");
        let (key, flow) =
            (FlowKey4 { protocol: 17, ..FlowKey4::default() }, Flow { path: 1, ..Flow::default() });
        old.tables().flows4().put(&key, &flow).expect("room");
        old.test_run(ProgramId::OutsideTc, &[0; 64], None, 3).expect("a run");
        let counters = old.counters().expect("a read");
        assert_eq!(counters.iter().map(|row| row.packets).sum::<u64>(), 3);
        drop(old);
        let before = slow_path(&pin);

        let ended = AtomicBool::new(false);
        thread::scope(|scope| {
            let watch = scope.spawn(|| {
                let mut looks = 0;
                while !ended.load(Ordering::Relaxed) {
                    assert!(slow_path(&pin).iter().all(|id| *id != 0), "an empty place");
                    looks += 1;
                }
                looks
            });
            let mut new = instance.open();
            new.attach(&spec).expect("attached");
            ended.store(true, Ordering::Relaxed);
            assert!(watch.join().expect("no empty place") > 0);
            assert_eq!(new.tables().flows4().get(&key).expect("a read"), Some(flow));
            assert_eq!(new.counters().expect("a read"), counters);
        });
        let after = slow_path(&pin);
        assert!(before.iter().zip(&after).all(|(old, new)| old != new), "{before:?} {after:?}");
    });
}

/// An XDP program without fragments, as an agent before them had.
static LAB: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lab"));

#[test]
fn a_program_without_fragments_is_replaced_in_its_link_by_one_with_them() {
    let name = "a_program_without_fragments_is_replaced_in_its_link_by_one_with_them";
    in_network(name, || {
        let instance = Instance::new("frags");
        let spec = wan("wan0", make_veth("wan0"), HookChoice::Xdp);
        drop(instance.open());
        let mut lab = aya::Ebpf::load(LAB).expect("an object");
        let program: &mut aya::programs::Xdp =
            lab.program_mut("rerun").expect("a program").try_into().expect("an XDP program");
        program.load().expect("loaded");
        let fd = program.fd().expect("loaded").as_fd();
        let old = sys::link_create(fd, spec.ifindex, sys::ATTACH_XDP, sys::XDP_NATIVE);
        keep(&old.expect("attached"), &instance.pin("wan0", pins::XDP)).expect("pinned");
        let before = link(&instance, pins::XDP).expect("pinned");

        let attachment = instance.open().attach(&spec).expect("attached");
        assert_eq!((attachment.hook, attachment.mode), (Hook::Xdp, Mode::Native));
        let after = link(&instance, pins::XDP).expect("pinned");
        assert_eq!(before.0, after.0, "the link must be the same");
        assert_ne!(before.1, after.1, "the program must be another");
    });
}

#[test]
fn another_layout_that_is_attached_is_refused_until_it_is_removed() {
    in_network("another_layout_that_is_attached_is_refused_until_it_is_removed", || {
        let instance = Instance::new("layout");
        let ifindex = make_veth("wan0");
        instance.open().attach(&wan("wan0", ifindex, HookChoice::Tcx)).expect("attached");
        let directory = instance.options.pin_root.join(&instance.options.instance);
        let ours = directory.join(format!("v{}", mwb_common::maps::ABI_VERSION));
        std::fs::rename(ours, directory.join("v999")).expect("renamed");

        let Err(error) = DataPlane::open(&instance.options) else { panic!("two layouts") };
        assert!(error.to_string().contains("v999"), "{error}");
        assert!(error.to_string().contains("mwb-agent --detach"), "{error}");
        assert_eq!(DataPlane::remove(&instance.options).expect("removed"), ["wan0"]);
        drop(instance.open());
    });
}

#[test]
fn maps_of_another_size_are_refused_with_the_way_out() {
    in_network("maps_of_another_size_are_refused_with_the_way_out", || {
        let instance = Instance::new("sizes");
        drop(instance.open());
        let larger = Options { flow_entries: 128, ..instance.options.clone() };
        let Err(error) = DataPlane::open(&larger) else { panic!("other maps were accepted") };
        let text = error.to_string();
        for part in ["FLOWS4 has max_entries 64, needs 128", "FLOWS6 has", "mwb-agent --detach"] {
            assert!(text.contains(part), "no `{part}` in: {text}");
        }
        assert!(!text.contains("MAPPINGS"), "only what differs is named: {text}");
        drop(instance.open());
    });
}

#[test]
fn maps_of_another_form_are_refused_with_all_that_differs() {
    in_network("maps_of_another_form_are_refused_with_all_that_differs", || {
        let instance = Instance::new("forms");
        drop(instance.open());
        // As if another agent had made CONTROL: a table of counters is none.
        let pins = Pins::of(&instance.options).expect("a good name");
        std::fs::remove_file(pins.map(names::CONTROL)).expect("removed");
        std::fs::rename(pins.map(names::COUNTERS), pins.map(names::CONTROL)).expect("renamed");
        let Err(Error::MapsDiffer { differences, .. }) = DataPlane::open(&instance.options) else {
            panic!("another map was accepted")
        };
        let what: Vec<_> = differences.iter().map(|difference| difference.what).collect();
        assert_eq!(what, ["type", "value size", "max_entries"]);
        assert!(differences.iter().all(|difference| difference.path.ends_with(names::CONTROL)));
        assert!(!pins.map(names::COUNTERS).exists(), "nothing is made before all is found fit");
    });
}
