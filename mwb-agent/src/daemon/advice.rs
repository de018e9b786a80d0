//! Settings of the system without which the gateway does not work as a whole.

use std::fs;
use std::path::Path;

use crate::config::{Config, Mode};
use crate::events::{Bus, EventKind};

/// Where the kernel shows its settings.
const ROOT: &str = "/proc/sys/net";

/// Tells of forwarding that is switched off: whatever the data plane leaves to
/// the kernel (between LAN ports, to bypassed destinations) stays there then. And
/// of what keeps a gateway from hearing the server of its bond.
pub(super) fn tell(bus: &Bus, config: &Config) {
    let root = Path::new(ROOT);
    for (key, message) in missing(root, carries_ipv6(config)) {
        let reason = format!("{key} is 0; `sysctl -w {key}=1`, or install deploy/sysctl.d");
        bus.publish(EventKind::System, None, message, reason);
    }
    if config.mode != Mode::Bond {
        return;
    }
    for wan in config.wans.iter().filter(|wan| is_strict(root, &wan.device)) {
        let message = format!("answers of the server by {} are dropped by the kernel", wan.name);
        let key = format!("net.ipv4.conf.{}.rp_filter", wan.device.replace('.', "/"));
        let reason = format!(
            "it filters by reverse path, and its way to the server is the bond; `sysctl -w {key}=2`"
        );
        bus.publish(EventKind::System, Some(&wan.name), message, reason);
    }
}

fn carries_ipv6(config: &Config) -> bool {
    let inside = config.tunnel().map_or(&[][..], |tunnel| tunnel.addresses);
    config.ipv6_prefix.is_some() || inside.iter().any(|net| net.addr().is_ipv6())
}

/// Whether strict reverse-path filtering is in force on a device: the larger number of
/// its own and that of all counts.
fn is_strict(root: &Path, device: &str) -> bool {
    let number = |of: &str| {
        let text = fs::read_to_string(root.join("ipv4/conf").join(of).join("rp_filter"));
        text.ok().and_then(|text| text.trim().parse::<u8>().ok()).unwrap_or(0)
    };
    number("all").max(number(device)) == 1
}

/// The settings that are off. One that cannot be read is not reported: the
/// kernel may have no such family.
fn missing(root: &Path, ipv6: bool) -> Vec<(&'static str, &'static str)> {
    let settings = [
        ("net.ipv4.ip_forward", "ipv4/ip_forward", "the kernel does not forward IPv4", true),
        (
            "net.ipv6.conf.all.forwarding",
            "ipv6/conf/all/forwarding",
            "the kernel does not forward IPv6",
            ipv6,
        ),
    ];
    let is_off = |file: &str| fs::read_to_string(root.join(file)).is_ok_and(|v| v.trim() == "0");
    settings
        .into_iter()
        .filter(|(_, file, _, wanted)| *wanted && is_off(file))
        .map(|(key, _, message, _)| (key, message))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwarding_that_is_off_is_told_for_the_families_in_use() {
        let root = std::env::temp_dir().join(format!("mwb-advice-{}", std::process::id()));
        let conf = root.join("ipv6/conf/all");
        fs::create_dir_all(&conf).expect("a folder");
        fs::create_dir_all(root.join("ipv4")).expect("a folder");
        let keys = |v4: &str, v6: &str, ipv6| {
            fs::write(root.join("ipv4/ip_forward"), v4).expect("a file");
            fs::write(conf.join("forwarding"), v6).expect("a file");
            missing(&root, ipv6).into_iter().map(|(key, _)| key).collect::<Vec<_>>()
        };
        assert_eq!(keys("1\n", "1\n", true), [] as [&str; 0]);
        assert_eq!(keys("0\n", "0\n", false), ["net.ipv4.ip_forward"]);
        let both = ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"];
        assert_eq!(keys("0\n", "0\n", true), both);
        fs::remove_dir_all(&root).expect("it was ours");
        assert_eq!(missing(&root, true), [], "nothing to read, nothing to say");
    }

    #[test]
    fn the_larger_of_two_numbers_says_whether_reverse_paths_are_filtered_strictly() {
        let root = std::env::temp_dir().join(format!("mwb-strict-{}", std::process::id()));
        let set = |of: &str, number: u8| {
            let folder = root.join("ipv4/conf").join(of);
            fs::create_dir_all(&folder).expect("a folder");
            fs::write(folder.join("rp_filter"), format!("{number}\n")).expect("a file");
        };
        let rows = [(0, 0, false), (0, 1, true), (1, 0, true), (2, 1, false), (1, 2, false)];
        for (all, own, strict) in rows {
            set("all", all);
            set("wan0", own);
            assert_eq!(is_strict(&root, "wan0"), strict, "{all} {own}");
        }
        fs::remove_dir_all(&root).expect("it was ours");
        assert!(!is_strict(&root, "wan0"), "nothing to read, nothing to say");
    }
}
