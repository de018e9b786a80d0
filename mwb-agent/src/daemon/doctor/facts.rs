//! What stands still while it is looked at: settings, sizes, hooks.

use std::collections::BTreeMap;
use std::fs;

use mwb_common::maps::{PREFIX_ENTRIES, filtering, path_flag};

use super::super::view::{BondView, View};
use crate::api::bond::{BondPathStatus, BondStatus};
use crate::dataplane::{Error, Rules};
use crate::flows::Usage;
use crate::net::{self, Snapshot};
use crate::tunnel::mtu::LEAST_INNER;

/// Everything that does not count.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    pub(super) kernel: Kernel,
    pub(super) devices: Vec<Device>,
    pub(super) sysctls: Sysctls,
    pub(super) tables: Vec<Fill>,
    /// Remote addresses that are remembered, and how many can be; `None`: no
    /// filter asks for them.
    pub(super) contacts: Option<(usize, usize)>,
    /// NAT ports, lowest and highest.
    pub(super) ports: (u16, u16),
    /// Whether a WAN carries IPv6.
    pub(super) ipv6: bool,
    /// If there is one.
    pub(super) bond: Option<BondView>,
    /// Its paths that do not take all packets of IPv6.
    pub(super) narrow: Vec<Narrow>,
    /// Why losses behind XDP redirects are not seen, if they are not.
    pub(super) unwatched: Option<String>,
}

/// A path of a bond that does not take all packets of IPv6.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Narrow {
    pub(super) name: String,
    /// The longest that pass, in bytes from the outer IP header on, and inside.
    pub(super) mtu: u32,
    pub(super) inner: u32,
}

impl Narrow {
    /// Those of all sessions.
    pub(super) fn all(bond: &BondStatus) -> Vec<Self> {
        let paths = bond.sessions.iter().flat_map(|session| {
            session.paths.iter().map(move |path| (session.client.as_deref(), path))
        });
        let is_narrow = |path: &BondPathStatus| (1..LEAST_INNER).contains(&path.inner_mtu);
        let narrow = paths.filter(|(_, path)| is_narrow(path)).map(|(client, path)| {
            let name = match client {
                Some(client) => format!("{client}, path {}", path.path),
                None => path.wan.clone(),
            };
            Self { name, mtu: path.mtu, inner: path.inner_mtu }
        });
        narrow.collect()
    }
}

/// What the kernel can do.
#[derive(Clone, Debug, Default)]
pub(super) struct Kernel {
    pub(super) release: String,
    pub(super) btf: bool,
    pub(super) jit: Option<String>,
    /// PREEMPT_RT: its programs may preempt each other.
    pub(super) realtime: bool,
}

/// A device that is served.
#[derive(Clone, Debug, Default)]
pub(super) struct Device {
    pub(super) name: String,
    /// The WAN's name; `None`: a LAN port.
    pub(super) wan: Option<String>,
    pub(super) there: bool,
    pub(super) ifindex: Option<u32>,
    pub(super) driver: String,
    pub(super) mtu: u32,
    pub(super) hook: Option<String>,
    pub(super) mode: Option<String>,
    pub(super) why: String,
    /// Features by name; `None`: the driver does not tell.
    pub(super) features: Option<BTreeMap<String, bool>>,
    pub(super) rp_filter: Option<String>,
    pub(super) accept_ra: Option<String>,
    /// Speed of the link in bit/s.
    pub(super) speed: Option<u64>,
    /// Configured capacity towards the Internet and from it, in bit/s.
    pub(super) capacity: (Option<u64>, Option<u64>),
}

/// Settings of the whole machine; `None`: cannot be read.
#[derive(Clone, Debug, Default)]
pub(super) struct Sysctls {
    pub(super) ip_forward: Option<String>,
    pub(super) ipv6_forwarding: Option<String>,
    pub(super) local_ports: Option<(u16, u16)>,
    pub(super) rp_filter_all: Option<String>,
}

/// How full a table is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fill {
    pub(super) table: String,
    pub(super) used: u64,
    pub(super) room: u64,
    /// What to do when it fills up.
    pub(super) fix: &'static str,
}

impl Facts {
    /// Reads all of it: some milliseconds of blocking work.
    pub(super) fn read(
        view: &View,
        network: &Snapshot,
        usage: &Usage,
        rules: &Rules,
        unwatched: Option<String>,
    ) -> Result<Self, Error> {
        let book = rules.read()?;
        let lan = view.lan.iter().map(|lan| {
            let hook = (lan.hook.clone(), lan.hook_mode.clone(), lan.hook_reason.clone());
            device(&lan.device, None, hook, (None, None), network)
        });
        let wans = view.wans.iter().map(|wan| {
            let hook = (wan.hook.clone(), wan.hook_mode.clone(), wan.hook_reason.clone());
            let capacity = (wan.capacity_up, wan.capacity_down);
            device(&wan.device, Some(wan.name.clone()), hook, capacity, network)
        });
        let devices = lan.chain(wans).collect();
        let ports = (book.control.port_min, book.control.port_max);
        let mut tables = fills(usage);
        tables.push(Fill {
            table: "prefixes".to_owned(),
            used: rules.prefix_count()? as u64,
            room: PREFIX_ENTRIES as u64,
            fix: "name fewer prefixes in bypass, or route fewer networks beside the WANs",
        });
        if book.control.source_limit != 0 {
            let (used, room) = rules.sources()?;
            tables.push(Fill {
                table: "limited sources".to_owned(),
                used: used as u64,
                room: room as u64,
                fix: "addresses beyond are not limited: look for a scan from the LAN",
            });
        }
        let each = u64::from(ports.1.saturating_sub(ports.0)) + 1;
        for wan in &view.wans {
            let used = usage.ports_used.get(usize::from(wan.path)).copied().unwrap_or(0);
            tables.push(Fill {
                table: format!("ports of {}", wan.name),
                used: used as u64,
                // TCP, UDP and ICMP each have all of them.
                room: 3 * each,
                fix: "widen nat.ports, add a WAN, or limit sources by nat.mappings_per_source",
            });
        }
        let filters = book.control.filtering == filtering::ADDRESS;
        let contacts = filters.then(|| rules.contacts()).transpose()?;
        let carries = |path: &mwb_common::maps::Path| path.flags & path_flag::HAS_V6 != 0;
        Ok(Self {
            kernel: kernel(),
            devices,
            sysctls: sysctls(),
            tables,
            contacts,
            ports,
            ipv6: book.paths.iter().any(carries),
            bond: view.bond.clone(),
            narrow: Vec::new(),
            unwatched,
        })
    }
}

fn fills(usage: &Usage) -> Vec<Fill> {
    let larger = "set a larger nat.flows (after `mwb-agent --detach`), or shorter nat.timeouts";
    let fill = |table: &str, used: usize| Fill {
        table: table.to_owned(),
        used: used as u64,
        room: usage.flow_capacity as u64,
        fix: larger,
    };
    vec![
        fill("IPv4 flows", usage.flows4),
        fill("IPv6 flows", usage.flows6),
        fill("mappings", usage.mappings),
    ]
}

fn device(
    name: &str,
    wan: Option<String>,
    (hook, mode, why): (Option<String>, Option<String>, String),
    capacity: (Option<u64>, Option<u64>),
    network: &Snapshot,
) -> Device {
    let found = network.device(name);
    // Names with a dot are written with a slash in sysctl names, and as they
    // are in the file system.
    let setting = |family: &str, key: &str| {
        found.and_then(|_| word(&format!("/proc/sys/net/{family}/conf/{name}/{key}")))
    };
    let speed = fs::read_to_string(format!("/sys/class/net/{name}/speed")).ok();
    let megabits = speed.and_then(|text| text.trim().parse::<u64>().ok());
    Device {
        name: name.to_owned(),
        wan,
        there: found.is_some(),
        ifindex: found.map(|device| device.ifindex),
        driver: found.and_then(|device| net::driver(device).ok()).unwrap_or_default(),
        mtu: found.map_or(0, |device| device.mtu),
        hook,
        mode,
        why,
        features: net::features(name).ok(),
        rp_filter: setting("ipv4", "rp_filter"),
        accept_ra: setting("ipv6", "accept_ra"),
        speed: megabits.filter(|speed| *speed > 0).map(|speed| speed * 1_000_000),
        capacity,
    }
}

fn kernel() -> Kernel {
    Kernel {
        release: word("/proc/sys/kernel/osrelease").unwrap_or_default(),
        btf: fs::exists("/sys/kernel/btf/vmlinux").unwrap_or(false),
        jit: word("/proc/sys/net/core/bpf_jit_enable"),
        realtime: word("/sys/kernel/realtime").is_some_and(|word| word == "1"),
    }
}

fn sysctls() -> Sysctls {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok();
    let local_ports = range.and_then(|text| {
        let mut words = text.split_whitespace().map(str::parse);
        Some((words.next()?.ok()?, words.next()?.ok()?))
    });
    Sysctls {
        ip_forward: word("/proc/sys/net/ipv4/ip_forward"),
        ipv6_forwarding: word("/proc/sys/net/ipv6/conf/all/forwarding"),
        local_ports,
        rp_filter_all: word("/proc/sys/net/ipv4/conf/all/rp_filter"),
    }
}

fn word(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}
