//! What the kernel of a namespace is set to before it has devices.

use anyhow::Result;

use super::namespace::Namespace;

/// Settings that must stand before there are devices.
pub(super) fn configure_kernels(
    host: &Namespace,
    gw: &Namespace,
    net: &Namespace,
    isps: &[Namespace],
) -> Result<()> {
    for namespace in [host, gw, net].into_iter().chain(isps) {
        be_plain(namespace)?;
    }
    for namespace in [gw].into_iter().chain(isps) {
        forward(namespace)?;
    }
    keep_ports_free(gw)
}

/// What every namespace of a lab is set to.
pub(super) fn be_plain(namespace: &Namespace) -> Result<()> {
    // Addresses work at once and stay when a device goes down.
    namespace.sysctl(&[
        ("net/ipv6/conf/default/accept_dad", "0"),
        ("net/ipv6/conf/all/accept_dad", "0"),
        ("net/ipv6/conf/default/accept_ra", "0"),
        ("net/ipv6/conf/all/accept_ra", "0"),
        ("net/ipv6/conf/all/keep_addr_on_down", "1"),
        ("net/ipv6/conf/default/keep_addr_on_down", "1"),
        ("net/ipv4/conf/all/rp_filter", "0"),
        ("net/ipv4/conf/default/rp_filter", "0"),
        // Tests send bursts that expire on the way; every one is answered.
        ("net/ipv4/icmp_ratelimit", "0"),
        ("net/ipv6/icmp/ratelimit", "0"),
    ])
}

/// Makes a router of a namespace.
pub(super) fn forward(namespace: &Namespace) -> Result<()> {
    namespace.sysctl(&[("net/ipv4/ip_forward", "1"), ("net/ipv6/conf/all/forwarding", "1")])
}

/// As deploy/sysctl.d does: a gateway's own sockets stay below the NAT ports.
pub(super) fn keep_ports_free(namespace: &Namespace) -> Result<()> {
    namespace.sysctl(&[("net/ipv4/ip_local_port_range", "1024 9999")])
}
