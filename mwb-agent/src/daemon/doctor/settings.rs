//! Judges what stands still: kernel, hooks, offloads, sysctls, MTUs, tables.

use super::facts::{Device, Facts, Narrow};
use super::{finding, with_fix};
use crate::api::doctor::Area::{Hook, Kernel, Mtu, Offload, Sysctl, Table};
use crate::api::doctor::Finding;
use crate::api::doctor::Severity::{Bad, Ok, Warn};

/// From this part on a table is nearly full, and full.
const NEARLY: f64 = 0.80;
const FULL: f64 = 0.95;
/// RFC 8200, 5: what every link that carries IPv6 must take.
const IPV6_LEAST: u32 = 1_280;

pub(super) fn judge(facts: &Facts, out: &mut Vec<Finding>) {
    kernel(facts, out);
    for device in &facts.devices {
        hook(device, facts, out);
        offloads(device, facts, out);
    }
    forwarding(facts, out);
    if !is_bonded(facts) {
        ports(facts, out);
    }
    sources(facts, out);
    mtus(facts, out);
    tables(facts, out);
}

/// It is the gateway of a bond: nothing is translated, and everything goes to a server.
fn is_bonded(facts: &Facts) -> bool {
    facts.bond.as_ref().is_some_and(|bond| bond.is_gateway)
}

fn kernel(facts: &Facts, out: &mut Vec<Finding>) {
    let kernel = &facts.kernel;
    let uses = |mode: &str| facts.devices.iter().any(|d| d.mode.as_deref() == Some(mode));
    let release = format!("Linux {}", kernel.release);
    if uses("clsact") {
        let fact = format!("{release} has no TCX links (they came with 6.6): clsact is used");
        let fix = "nothing must be done; a newer kernel lets other tools share the hook in order";
        out.push(with_fix(finding(Kernel, "tcx", Ok, fact), fix));
    } else {
        let links = if uses("tcx") { "; its TCX links are used" } else { "" };
        out.push(finding(Kernel, "release", Ok, release + links));
    }
    if kernel.btf {
        out.push(finding(Kernel, "btf", Ok, "the kernel describes its types"));
    } else {
        let fact = "the kernel has no BTF: bpftool cannot show its structures";
        out.push(with_fix(
            finding(Kernel, "btf", Warn, fact),
            "use a kernel with CONFIG_DEBUG_INFO_BTF",
        ));
    }
    if kernel.realtime {
        let fact = "a real-time kernel (PREEMPT_RT): programs may interrupt each other halfway";
        out.push(with_fix(
            finding(Kernel, "realtime", Bad, fact),
            "use a kernel without PREEMPT_RT",
        ));
    }
    if let Some(why) = &facts.unwatched {
        let fact = format!("frames lost behind XDP redirects are not seen: {why}");
        let fix = "nothing must be done; a kernel with BTF and CAP_PERFMON for the agent lets them be counted";
        out.push(with_fix(finding(Kernel, "watching", Warn, fact), fix));
    }
    if kernel.jit.as_deref() == Some("0") {
        let fact = "programs are interpreted: several times slower than compiled";
        out.push(with_fix(finding(Kernel, "jit", Bad, fact), "sysctl net.core.bpf_jit_enable=1"));
    } else {
        out.push(finding(Kernel, "jit", Ok, "programs are compiled"));
    }
}

fn hook(device: &Device, facts: &Facts, out: &mut Vec<Finding>) {
    let name = device.name.as_str();
    let Some(hook) = &device.hook else {
        let fact = format!("no program is attached: {}", device.why);
        let fix = if device.there {
            "see the reason; `journalctl -u mwb-agent` has the kernel's own words"
        } else {
            "plug it in or create it; its programs are attached when it appears"
        };
        return out.push(with_fix(finding(Hook, name, Bad, fact), fix));
    };
    let mode = device.mode.as_deref().unwrap_or("-");
    let fact = format!("{hook} {mode}: {}", device.why);
    if mode == "generic" {
        let fix = if facts.bond.is_some() && device.wan.is_some() {
            "take a device whose driver has native XDP: generic XDP copies each packet"
        } else {
            "set `hook: tcx` for it: generic XDP copies each packet and is slower"
        };
        out.push(with_fix(finding(Hook, name, Warn, fact), fix));
    } else {
        out.push(finding(Hook, name, Ok, fact));
    }
}

fn offloads(device: &Device, facts: &Facts, out: &mut Vec<Finding>) {
    let name = device.name.as_str();
    if !device.there {
        return;
    }
    let Some(features) = &device.features else {
        return out.push(finding(Offload, name, Ok, "the driver does not tell its features"));
    };
    let on = |feature: &str| features.get(feature).copied().unwrap_or(false);
    let xdp = device.hook.as_deref() == Some("xdp");
    let before = out.len();
    if on("rx-lro") {
        let fact = "LRO merges packets that then cannot be forwarded as they came";
        out.push(with_fix(finding(Offload, name, Bad, fact), format!("ethtool -K {name} lro off")));
    }
    if xdp && on("rx-gro-hw") {
        let fact = "the device merges packets (rx-gro-hw) before XDP sees them";
        let fix = format!("ethtool -K {name} rx-gro-hw off");
        out.push(with_fix(finding(Offload, name, Warn, fact), fix));
    }
    if xdp && on("rx-vlan-hw-parse") {
        let fact = "the device strips VLAN tags before XDP sees them: tagged frames look untagged";
        let fix = format!("ethtool -K {name} rxvlan off, if VLANs stand on it");
        out.push(with_fix(finding(Offload, name, Warn, fact), fix));
    }
    // What comes in by the bond's device is whole: both of its ends are ours.
    let is_ours = facts.bond.as_ref().is_some_and(|bond| bond.device == device.name);
    if xdp && device.driver == "veth" && !is_ours {
        let fact = "what local sockets and containers send through the peer has partial \
            checksums, which cannot be seen from here and which XDP does not complete";
        let fix = if facts.bond.is_some() && device.wan.is_some() {
            "`ethtool -K PEER tx off` on its peer".to_owned()
        } else {
            format!("`hook: tcx` for {name}, or `ethtool -K PEER tx off` on its peer")
        };
        out.push(with_fix(finding(Offload, name, Warn, fact), fix));
    }
    if out.len() == before {
        out.push(finding(Offload, name, Ok, "nothing in the way"));
    }
}

fn forwarding(facts: &Facts, out: &mut Vec<Finding>) {
    let mut switch = |name: &str, value: &Option<String>, needed: &str| match value.as_deref() {
        Some("0") => {
            let fact = format!("0: {needed}");
            out.push(with_fix(finding(Sysctl, name, Bad, fact), format!("sysctl {name}=1")));
        }
        Some(value) => out.push(finding(Sysctl, name, Ok, value)),
        None => out.push(finding(Sysctl, name, Warn, "cannot be read")),
    };
    let needed = "the kernel finds no way to LAN hosts for answers from a WAN";
    switch("net.ipv4.ip_forward", &facts.sysctls.ip_forward, needed);
    if !facts.ipv6 {
        return;
    }
    switch("net.ipv6.conf.all.forwarding", &facts.sysctls.ipv6_forwarding, needed);
    if facts.sysctls.ipv6_forwarding.as_deref() == Some("0") {
        return;
    }
    for device in facts.devices.iter().filter(|device| device.wan.is_some() && device.there) {
        let setting = format!("net.ipv6.conf.{}.accept_ra", device.name);
        match device.accept_ra.as_deref() {
            Some(value @ ("0" | "1")) => {
                let fact = format!(
                    "{value}: a router hears no advertisements, so no default route comes by them"
                );
                let fix = format!("sysctl {setting}=2, or set gateway6 for the WAN");
                out.push(with_fix(finding(Sysctl, &setting, Warn, fact), fix));
            }
            Some(value) => out.push(finding(Sysctl, &setting, Ok, value)),
            None => {}
        }
    }
}

fn ports(facts: &Facts, out: &mut Vec<Finding>) {
    let name = "net.ipv4.ip_local_port_range";
    let (min, max) = facts.ports;
    match facts.sysctls.local_ports {
        Some((low, high)) if low <= max && min <= high => {
            let fact = format!(
                "{low}-{high} overlaps nat.ports {min}-{max}: the gateway's own connections and \
                 flows compete for ports"
            );
            let fix = match min.checked_sub(1).filter(|below| *below > 1_024) {
                Some(below) => format!("sysctl {name}=\"1024 {below}\", as deploy/sysctl.d has it"),
                None => "choose nat.ports that leaves some to the gateway".to_owned(),
            };
            out.push(with_fix(finding(Sysctl, name, Warn, fact), fix));
        }
        Some((low, high)) => {
            out.push(finding(Sysctl, name, Ok, format!("{low}-{high}, apart from nat.ports")));
        }
        None => out.push(finding(Sysctl, name, Warn, "cannot be read")),
    }
}

/// Answers to the gateway's own probes come in by a WAN that is not the one of
/// the default route: strict filtering drops them.
fn sources(facts: &Facts, out: &mut Vec<Finding>) {
    let strictness = |value: &Option<String>| value.as_deref().and_then(|v| v.parse::<u8>().ok());
    let all = strictness(&facts.sysctls.rp_filter_all).unwrap_or(0);
    let wans = facts.devices.iter().filter(|device| device.wan.is_some() && device.there);
    let several = wans.clone().count() > 1;
    for device in wans {
        let name = format!("net.ipv4.conf.{}.rp_filter", device.name);
        let Some(own) = strictness(&device.rp_filter) else { continue };
        // The stricter of both counts, where 2 (loose) is above 1 (strict).
        match own.max(all) {
            1 if is_bonded(facts) => {
                let fact = "strict: the kernel's way to the server is the bond, so the server's \
                    answers from a WAN are dropped and no session is made";
                let fix = format!("sysctl {name}=2");
                out.push(with_fix(finding(Sysctl, &name, Bad, fact), fix));
            }
            1 if several => {
                let fact = "strict: packets to the gateway itself from a WAN that is not its \
                    default route are dropped, probes' answers among them";
                let fix = format!("sysctl {name}=2");
                out.push(with_fix(finding(Sysctl, &name, Warn, fact), fix));
            }
            value => out.push(finding(Sysctl, &name, Ok, value.to_string())),
        }
    }
}

fn mtus(facts: &Facts, out: &mut Vec<Finding>) {
    let there = || facts.devices.iter().filter(|device| device.there);
    let lan = there().filter(|device| device.wan.is_none()).map(|device| device.mtu).max();
    for device in there() {
        let mtu = device.mtu;
        if facts.ipv6 && mtu < IPV6_LEAST {
            let fact = format!("{mtu}: below the {IPV6_LEAST} that IPv6 needs");
            let fix = format!("ip link set {} mtu {IPV6_LEAST}", device.name);
            out.push(with_fix(finding(Mtu, &device.name, Bad, fact), fix));
            continue;
        }
        let fact = match (&device.wan, lan) {
            (Some(_), Some(lan)) if mtu < lan => format!(
                "{mtu}, the LAN has {lan}: TCP is told the smaller segment size, other packets \
                 that are too big are answered with ICMP"
            ),
            _ => mtu.to_string(),
        };
        out.push(finding(Mtu, &device.name, Ok, fact));
    }
    for Narrow { name, mtu, inner } in &facts.narrow {
        let fact = format!(
            "packets of the bond may have {mtu} bytes there, so {inner} inside: those of IPv6 \
             may have {IPV6_LEAST}, and are lost while no other path lives"
        );
        let fix = format!("have links on the way take {} bytes", mtu + IPV6_LEAST - inner);
        out.push(with_fix(finding(Mtu, name, Warn, fact), fix));
    }
}

fn tables(facts: &Facts, out: &mut Vec<Finding>) {
    if let Some((used, room)) = facts.contacts {
        let fact = format!("{used} of {room}; the longest unused make room");
        out.push(finding(Table, "contacts", Ok, fact));
    }
    for fill in &facts.tables {
        let part = fill.used as f64 / fill.room.max(1) as f64;
        let fact = format!("{} of {} ({:.0} %)", fill.used, fill.room, part * 100.0);
        let severity = match part {
            part if part >= FULL => Bad,
            part if part >= NEARLY => Warn,
            _ => Ok,
        };
        let found = finding(Table, &fill.table, severity, fact);
        out.push(if severity == Ok { found } else { with_fix(found, fill.fix) });
    }
}
