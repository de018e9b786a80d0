//! Which hook a device gets, and which frames it takes, as pure functions of
//! what the operator asked for and of the driver.

use mwb_common::maps::takes_xdp;

use super::error::Error;
use super::spec::{DeviceSpec, Hook, HookChoice, Mode};

/// Drivers with native XDP (the kernel's `ndo_bpf`) whose packets come off a
/// wire: one packet at a time, with full checksums.
const NATIVE_XDP: &[&str] = &[
    "am65-cpsw-nuss",
    "amazon-ena",
    "atlantic",
    "bnxt_en",
    "cpsw",
    "cpsw-switch",
    "ena",
    "fec",
    "fsl_dpaa",
    "fsl_dpaa2_eth",
    "fsl_enetc",
    "fsl_enetc4",
    "fsl_enetc_vf",
    "fun_eth",
    "gve",
    "hv_netvsc",
    "i40e",
    "ice",
    "iavf",
    "idpf",
    "igb",
    "igc",
    "ionic",
    "ixgbe",
    "ixgbevf",
    "lan966x-switch",
    "mana",
    "mlx4_en",
    "mlx5_core",
    "mtk_soc_eth",
    "mvneta",
    "mvpp2",
    "netsec",
    "nfp",
    "qede",
    "rvu_nicpf",
    "rvu_nicvf",
    "sfc",
    "sfc_siena",
    "st_gmac",
    "stmmac",
    "stmmaceth",
    "thunder_nicvf",
    "thunder-nicvf",
    "tsnep",
    "virtio_net",
    "vmxnet3",
    "xen-netfront",
    "vif",
];

/// Software devices: their packets may be 64 KB segments with partial checksums
/// from sockets of this machine, or have no Ethernet header.
const SOFTWARE: &[(&str, &str)] = &[
    ("veth", "local sockets and containers send partial checksums through it"),
    ("bridge", "local ports send partial checksums through it"),
    ("bond", "its ports do the work"),
    ("bonding", "its ports do the work"),
    ("team", "its ports do the work"),
    ("tun", "it carries large segments and may have no Ethernet header"),
    ("tap", "it carries large segments with partial checksums"),
    ("ppp", "it has no Ethernet header"),
    ("wireguard", "it has no Ethernet header"),
    ("wwan", "it has no Ethernet header"),
    ("rmnet", "it has no Ethernet header"),
    ("vlan", "it stands on another device"),
    ("802.1Q VLAN Support", "it stands on another device"),
    ("macvlan", "it stands on another device"),
    ("ipvlan", "it stands on another device"),
    ("vxlan", "it is a tunnel"),
    ("geneve", "it is a tunnel"),
    ("gre", "it is a tunnel"),
    ("gretap", "it is a tunnel"),
    ("ipip", "it is a tunnel"),
    ("sit", "it is a tunnel"),
    ("dummy", "it has no wire"),
    ("ifb", "it has no wire"),
    ("loopback", "it has no wire"),
];

/// Drivers that send frames of several buffers in their `ndo_xdp_xmit`
/// (`NETDEV_XDP_ACT_NDO_XMIT_SG`). The kernel drops such a frame on its way to
/// any other (`__xdp_enqueue` in kernel/bpf/devmap.c), and tells only
/// tracepoints: on one that is not in this list it goes by way of the TC form.
const SENDS_FRAGMENTS: &[&str] = &[
    "fsl_enetc",
    "i40e",
    "ice",
    "mlx5_core",
    "mtk_soc_eth",
    "mvneta",
    "tsnep",
    "veth",
    "virtio_net",
];

/// Which frames the XDP form of another device may redirect to one that runs
/// in this mode: drivers set up their queues for it with their own program.
/// Before 6.3 a kernel redirects none in several buffers (`fragments` is false).
pub(super) fn takes_xdp(mode: Mode, driver: &str, fragments: bool) -> u8 {
    if mode != Mode::Native {
        takes_xdp::NONE
    } else if fragments && SENDS_FRAGMENTS.contains(&driver) {
        takes_xdp::FRAGMENTED
    } else {
        takes_xdp::LINEAR
    }
}

/// The hook to try first on a device that can run no other than XDP, and why.
pub(super) fn choose_xdp(spec: &DeviceSpec, ethernet: bool) -> Result<(Hook, String), Error> {
    let refuse = |message: &str| {
        let (device, message) = (spec.name.clone(), message.to_owned());
        Err(Error::BondNeedsXdp { device, message })
    };
    match spec.hook {
        _ if !ethernet => refuse(
            "its packets have no Ethernet header (tun, ppp, wireguard, ...), so XDP programs \
             never see them; take the Ethernet device in front of it, or steer without a bond",
        ),
        HookChoice::Tcx => {
            refuse("bonds are opened in XDP: take `hook: auto` or `hook: xdp` for this device")
        }
        HookChoice::Xdp => Ok((Hook::Xdp, "set by the configuration".to_owned())),
        HookChoice::Auto => Ok((Hook::Xdp, "a bond needs XDP".to_owned())),
    }
}

/// The hook to try first, and why.
pub(super) fn choose(choice: HookChoice, driver: &str, ethernet: bool) -> (Hook, String) {
    match choice {
        HookChoice::Xdp => (Hook::Xdp, "set by the configuration".to_owned()),
        HookChoice::Tcx => (Hook::Tcx, "set by the configuration".to_owned()),
        HookChoice::Auto if !ethernet => (
            Hook::Tcx,
            "its packets have no Ethernet header: XDP programs never see them".to_owned(),
        ),
        HookChoice::Auto => automatic(driver),
    }
}

fn automatic(driver: &str) -> (Hook, String) {
    if let Some((_, why)) = SOFTWARE.iter().find(|(kind, _)| *kind == driver) {
        return (Hook::Tcx, format!("{driver}: {why}"));
    }
    if NATIVE_XDP.contains(&driver) {
        return (Hook::Xdp, format!("driver {driver} has native XDP"));
    }
    let driver = if driver.is_empty() { "of unknown name" } else { driver };
    (Hook::Tcx, format!("driver {driver} is not known for native XDP; `hook: xdp` tries it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_takes_xdp_on_a_nic_that_has_it_natively() {
        let (hook, reason) = choose(HookChoice::Auto, "ixgbe", true);
        assert_eq!(hook, Hook::Xdp);
        assert_eq!(reason, "driver ixgbe has native XDP");
    }

    #[test]
    fn auto_takes_tcx_on_devices_that_carry_segments_or_no_ethernet() {
        for driver in ["veth", "bridge", "tun", "ppp", "wireguard"] {
            let (hook, reason) = choose(HookChoice::Auto, driver, true);
            assert_eq!(hook, Hook::Tcx, "{driver}");
            assert!(reason.starts_with(driver), "{reason}");
        }
    }

    #[test]
    fn auto_takes_tcx_on_a_driver_it_does_not_know() {
        assert_eq!(choose(HookChoice::Auto, "r8169", true).0, Hook::Tcx);
        assert_eq!(choose(HookChoice::Auto, "", true).0, Hook::Tcx);
    }

    #[test]
    fn the_configuration_beats_the_driver() {
        assert_eq!(choose(HookChoice::Xdp, "veth", true).0, Hook::Xdp);
        assert_eq!(choose(HookChoice::Tcx, "ixgbe", true).0, Hook::Tcx);
    }

    #[test]
    fn auto_takes_tcx_where_there_is_no_ethernet_whatever_the_driver() {
        let (hook, reason) = choose(HookChoice::Auto, "ixgbe", false);
        assert_eq!(hook, Hook::Tcx);
        assert!(reason.contains("no Ethernet header"), "{reason}");
    }

    #[test]
    fn only_native_xdp_takes_frames_and_only_some_drivers_those_of_several_buffers() {
        assert_eq!(takes_xdp(Mode::Native, "veth", true), takes_xdp::FRAGMENTED);
        assert_eq!(takes_xdp(Mode::Native, "veth", false), takes_xdp::LINEAR);
        assert_eq!(takes_xdp(Mode::Native, "ixgbe", true), takes_xdp::LINEAR);
        assert_eq!(takes_xdp(Mode::Native, "", true), takes_xdp::LINEAR);
        for mode in [Mode::Generic, Mode::Tcx, Mode::Clsact, Mode::Routed] {
            assert_eq!(takes_xdp(mode, "veth", true), takes_xdp::NONE);
        }
    }

    #[test]
    fn what_sends_fragments_is_known_for_native_xdp_or_for_software() {
        let known = |driver| {
            NATIVE_XDP.contains(&driver) || SOFTWARE.iter().any(|(kind, _)| *kind == driver)
        };
        assert!(SENDS_FRAGMENTS.iter().all(|driver| known(*driver)));
    }

    #[test]
    fn no_driver_is_in_both_lists() {
        for (kind, _) in SOFTWARE {
            assert!(!NATIVE_XDP.contains(kind), "{kind}");
        }
    }
}
