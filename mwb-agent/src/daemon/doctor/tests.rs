//! Findings about gateways made up for it: each trouble is found, named and
//! has its fix, and a sound gateway has none.

use std::collections::BTreeMap;

use mwb_common::reason::Reason;

use super::facts::{Device, Facts, Fill, Kernel, Narrow, Sysctls};
use super::flow::{CpuParts, Passed, ProgramPassed};
use super::sample::{Backlog, DeviceCounts};
use super::*;
use crate::api::bond::{BondPathStatus, BondSession};
use crate::daemon::view::BondView;

fn device(name: &str, wan: Option<&str>) -> Device {
    let features = ["rx-lro", "rx-gro-hw", "rx-vlan-hw-parse"];
    Device {
        name: name.to_owned(),
        wan: wan.map(str::to_owned),
        there: true,
        ifindex: Some(if name == "wan1" { 8 } else { 7 }),
        driver: "igc".to_owned(),
        mtu: 1_500,
        hook: Some("xdp".to_owned()),
        mode: Some("native".to_owned()),
        why: "driver igc has native XDP".to_owned(),
        features: Some(features.map(|feature| (feature.to_owned(), false)).into()),
        rp_filter: Some("2".to_owned()),
        accept_ra: Some("2".to_owned()),
        speed: Some(1_000_000_000),
        capacity: (None, None),
    }
}

/// Everything as it should be.
fn sound() -> (Facts, Passed) {
    let facts = Facts {
        kernel: Kernel {
            release: "6.12".to_owned(),
            btf: true,
            jit: Some("1".to_owned()),
            realtime: false,
        },
        devices: vec![
            device("lan0", None),
            device("wan0", Some("fiber")),
            device("wan1", Some("lte")),
        ],
        sysctls: Sysctls {
            ip_forward: Some("1".to_owned()),
            ipv6_forwarding: Some("1".to_owned()),
            local_ports: Some((1_024, 9_999)),
            rp_filter_all: Some("0".to_owned()),
        },
        tables: vec![Fill { table: "IPv4 flows".to_owned(), used: 10, room: 100, fix: "grow" }],
        contacts: Some((131_072, 131_072)),
        ports: (10_000, 65_535),
        ipv6: true,
        bond: None,
        narrow: Vec::new(),
        unwatched: None,
    };
    let counts = DeviceCounts { received: 1_000, sent: 1_000, ..DeviceCounts::default() };
    let names = ["lan0", "wan0", "wan1"];
    let passed = Passed {
        seconds: 1.0,
        devices: names.map(|name| (name.to_owned(), counts)).into(),
        cpus: vec![CpuParts { busy: 0.2, softirq: 0.1 }; 2],
        backlogs: vec![Backlog { processed: 100, dropped: 0, squeezed: 0 }],
        drops: BTreeMap::new(),
        forwarded: 1_000,
        programs: vec![ProgramPassed {
            name: "inside_xdp",
            runs: 1_000.0,
            nanoseconds: 200.0,
            measured: true,
        }],
        losses: BTreeMap::new(),
    };
    (facts, passed)
}

#[test]
fn a_sound_gateway_has_no_trouble_and_no_bottleneck() {
    let (facts, passed) = sound();
    let report = judge(&facts, &passed);
    let troubles: Vec<_> =
        report.findings.iter().filter(|found| found.severity != Severity::Ok).collect();
    assert!(troubles.is_empty(), "{troubles:?}");
    assert_eq!((report.worst(), &report.bottleneck), (Severity::Ok, &None));
    assert_eq!(report.programs[0].cpu, Some(0.0002));
    let areas = [Area::Kernel, Area::Hook, Area::Offload, Area::Sysctl, Area::Mtu, Area::Table];
    for area in areas.into_iter().chain([Area::Queue, Area::Cpu]) {
        assert!(report.findings.iter().any(|found| found.area == area), "{area:?}");
    }
}

fn bond(is_gateway: bool) -> Option<BondView> {
    Some(BondView { device: "lan0".to_owned(), is_gateway })
}

#[test]
fn what_is_no_trouble_in_a_bond_is_not_told() {
    let trouble = |harm: &dyn Fn(&mut Facts)| {
        let (mut facts, passed) = sound();
        harm(&mut facts);
        judge(&facts, &passed).worst()
    };
    let with = |facts: &mut Facts, is_gateway, harm: &dyn Fn(&mut Facts)| {
        harm(facts);
        facts.bond = bond(is_gateway);
    };
    // Its own device is a veth whose packets are whole.
    let veth = |facts: &mut Facts| facts.devices[0].driver = "veth".to_owned();
    assert_eq!(trouble(&veth), Severity::Warn);
    assert_eq!(trouble(&|facts| with(facts, false, &veth)), Severity::Ok);
    // No ports are given to flows at a gateway; at a server they are.
    let ports = |facts: &mut Facts| facts.sysctls.local_ports = Some((32_768, 60_999));
    assert_eq!(trouble(&|facts| with(facts, false, &ports)), Severity::Warn);
    assert_eq!(trouble(&|facts| with(facts, true, &ports)), Severity::Ok);
    // A server with one uplink hears its clients by the default route.
    let strict = |facts: &mut Facts| {
        facts.devices.truncate(2);
        facts.devices[1].rp_filter = Some("1".to_owned());
    };
    assert_eq!(trouble(&|facts| with(facts, false, &strict)), Severity::Ok);
}

/// What is done to a sound gateway.
type Harm = fn(&mut Facts, &mut Passed);

#[test]
fn each_trouble_is_found_with_its_severity_and_its_fix() {
    let harms: &[(Area, &str, Severity, &str, Harm)] = &[
        (Area::Kernel, "jit", Severity::Bad, "bpf_jit_enable=1", |f, _| {
            f.kernel.jit = Some("0".to_owned());
        }),
        (Area::Kernel, "btf", Severity::Warn, "BTF", |f, _| f.kernel.btf = false),
        (Area::Kernel, "realtime", Severity::Bad, "PREEMPT_RT", |f, _| f.kernel.realtime = true),
        (Area::Kernel, "bpf stats", Severity::Warn, "root", |_, p| p.programs.clear()),
        (Area::Hook, "wan0", Severity::Bad, "journalctl", |f, _| f.devices[1].hook = None),
        (Area::Hook, "wan0", Severity::Bad, "appears", |f, _| {
            (f.devices[1].hook, f.devices[1].there) = (None, false);
        }),
        (Area::Hook, "wan0", Severity::Warn, "hook: tcx", |f, _| {
            f.devices[1].mode = Some("generic".to_owned());
        }),
        (Area::Offload, "wan0", Severity::Bad, "lro off", |f, _| feature(f, "rx-lro")),
        (Area::Offload, "wan0", Severity::Warn, "rx-gro-hw off", |f, _| feature(f, "rx-gro-hw")),
        (Area::Offload, "wan0", Severity::Warn, "rxvlan off", |f, _| {
            feature(f, "rx-vlan-hw-parse");
        }),
        (Area::Offload, "lan0", Severity::Warn, "PEER tx off", |f, _| {
            f.devices[0].driver = "veth".to_owned();
        }),
        (Area::Sysctl, "net.ipv4.ip_forward", Severity::Bad, "ip_forward=1", |f, _| {
            f.sysctls.ip_forward = Some("0".to_owned());
        }),
        (Area::Sysctl, "net.ipv6.conf.all.forwarding", Severity::Bad, "forwarding=1", |f, _| {
            f.sysctls.ipv6_forwarding = Some("0".to_owned());
        }),
        (Area::Sysctl, "net.ipv6.conf.wan1.accept_ra", Severity::Warn, "accept_ra=2", |f, _| {
            f.devices[2].accept_ra = Some("1".to_owned());
        }),
        (Area::Sysctl, "net.ipv4.ip_local_port_range", Severity::Warn, "1024 9999", |f, _| {
            f.sysctls.local_ports = Some((32_768, 60_999));
        }),
        (Area::Sysctl, "net.ipv4.conf.wan0.rp_filter", Severity::Warn, "rp_filter=2", |f, _| {
            f.devices[1].rp_filter = Some("1".to_owned());
        }),
        (Area::Sysctl, "net.ipv4.conf.wan0.rp_filter", Severity::Bad, "rp_filter=2", |f, _| {
            // Also with one WAN alone.
            f.devices.truncate(2);
            f.devices[1].rp_filter = Some("1".to_owned());
            f.bond = bond(true);
        }),
        (Area::Offload, "wan0", Severity::Warn, "`ethtool -K PEER tx off` on", |f, _| {
            f.devices[1].driver = "veth".to_owned();
            f.bond = bond(true);
        }),
        (Area::Hook, "wan0", Severity::Warn, "native XDP", |f, _| {
            f.devices[1].mode = Some("generic".to_owned());
            f.bond = bond(true);
        }),
        (Area::Mtu, "wan1", Severity::Bad, "mtu 1280", |f, _| f.devices[2].mtu = 1_000),
        (Area::Mtu, "lte", Severity::Warn, "take 1348 bytes", |f, _| {
            let path = BondPathStatus { wan: "lte".to_owned(), ..BondPathStatus::default() };
            let wide = BondPathStatus { mtu: 1_348, inner_mtu: 1_280, ..path.clone() };
            let narrow = BondPathStatus { mtu: 1_200, inner_mtu: 1_132, ..path };
            let session = BondSession { paths: vec![wide, narrow], ..BondSession::default() };
            f.narrow =
                Narrow::all(&BondStatus { sessions: vec![session], ..BondStatus::default() });
        }),
        (Area::Table, "IPv4 flows", Severity::Warn, "grow", |f, _| f.tables[0].used = 80),
        (Area::Table, "IPv4 flows", Severity::Bad, "grow", |f, _| f.tables[0].used = 95),
        (Area::Queue, "wan0", Severity::Bad, "ethtool -G wan0", |_, p| {
            counts(p).receive_drops = 1;
        }),
        (Area::Queue, "wan0", Severity::Bad, "txqueuelen", |_, p| counts(p).send_drops = 1),
        (Area::Kernel, "watching", Severity::Warn, "BTF", |f, _| {
            f.unwatched = Some("no BTF".to_owned());
        }),
        (Area::Queue, "wan1", Severity::Bad, "ethtool -G wan1 tx", |_, p| {
            p.losses.insert(8, 1);
        }),
        (Area::Queue, "backlog", Severity::Bad, "netdev_max_backlog", |_, p| {
            p.backlogs[0].dropped = 1;
        }),
        (Area::Queue, "budget", Severity::Warn, "netdev_budget", |_, p| {
            p.backlogs[0].squeezed = 11;
        }),
        (Area::Queue, "ports_exhausted", Severity::Bad, "widen nat.ports", |_, p| {
            p.drops.insert(Reason::PortsExhausted, 3);
        }),
        (Area::Cpu, "cpu1", Severity::Warn, "receive queues", |_, p| p.cpus[1].softirq = 0.95),
    ];
    for (area, subject, severity, fix, harm) in harms {
        let (mut facts, mut passed) = sound();
        harm(&mut facts, &mut passed);
        let report = judge(&facts, &passed);
        let troubles: Vec<_> =
            report.findings.iter().filter(|found| found.severity != Severity::Ok).collect();
        let [found] = troubles.as_slice() else { panic!("{area:?} {subject}: {troubles:?}") };
        assert_eq!((found.area, found.subject.as_str()), (*area, *subject), "{found:?}");
        assert_eq!((found.severity, report.worst()), (*severity, *severity), "{found:?}");
        assert!(found.fix.as_ref().is_some_and(|text| text.contains(fix)), "{found:?}");
    }
}

fn feature(facts: &mut Facts, name: &str) {
    if let Some(features) = &mut facts.devices[1].features {
        features.insert(name.to_owned(), true);
    }
}

fn counts(passed: &mut Passed) -> &mut DeviceCounts {
    passed.devices.entry("wan0".to_owned()).or_default()
}

#[test]
fn the_bottleneck_is_named() {
    let harms: &[(&str, Harm)] = &[
        ("cpu1", |_, p| p.cpus[1].softirq = 0.95),
        ("receive queue of wan0", |_, p| counts(p).receive_drops = 9),
        ("queue of received packets", |_, p| p.backlogs[0].dropped = 9),
        ("flow_table_full", |_, p| {
            p.drops.insert(Reason::FlowTableFull, 3);
        }),
        ("fiber", |_, p| counts(p).sent_bytes = 120_000_000),
        ("fiber", |f, p| {
            f.devices[1].capacity = (None, Some(10_000_000));
            counts(p).received_bytes = 1_240_000;
        }),
        ("transmit ring of wan1", |_, p| {
            p.losses.insert(8, 9);
        }),
        ("transmit queue of wan0", |_, p| counts(p).send_drops = 9),
    ];
    for (what, harm) in harms {
        let (mut facts, mut passed) = sound();
        harm(&mut facts, &mut passed);
        let found = judge(&facts, &passed).bottleneck;
        assert_eq!(found.as_ref().map(|found| found.what.as_str()), Some(*what), "{found:?}");
    }
}

#[test]
fn a_cpu_without_reserve_explains_the_losses_of_its_queues() {
    let (facts, mut passed) = sound();
    passed.cpus[0] = CpuParts { busy: 1.0, softirq: 0.99 };
    counts(&mut passed).receive_drops = 9;
    let found = judge(&facts, &passed).bottleneck.expect("a bottleneck");
    assert_eq!(found.what, "cpu0");
    assert!(found.fact.contains("99 %"), "{found:?}");
    assert!(found.fix.contains("1 CPUs have time"), "{found:?}");
}

#[test]
fn drops_that_are_right_are_no_trouble() {
    let (facts, mut passed) = sound();
    passed.drops.insert(Reason::Unsolicited, 1_000);
    let report = judge(&facts, &passed);
    assert_eq!((report.worst(), report.bottleneck), (Severity::Ok, None));
}

#[test]
fn what_was_not_measured_has_no_figure() {
    let (facts, mut passed) = sound();
    passed.programs[0] = ProgramPassed { name: "inside_xdp", ..ProgramPassed::default() };
    let report = judge(&facts, &passed);
    assert_eq!((report.programs[0].nanoseconds, report.programs[0].cpu), (None, None));
}
