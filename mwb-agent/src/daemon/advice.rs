//! Settings of the system without which the gateway does not work as a whole.

use std::fs;
use std::path::Path;

use crate::events::{Bus, EventKind};

/// Where the kernel shows its settings.
const ROOT: &str = "/proc/sys/net";

/// Tells of forwarding that is switched off: whatever the data plane leaves to
/// the kernel (between LAN ports, to bypassed destinations) stays there then.
pub(super) fn tell(bus: &Bus, ipv6: bool) {
    for (key, message) in missing(Path::new(ROOT), ipv6) {
        let reason = format!("{key} is 0; `sysctl -w {key}=1`, or install deploy/sysctl.d");
        bus.publish(EventKind::System, None, message, reason);
    }
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
}
