//! Plain Linux as the gateway between the lab's LAN and its WANs: to prove the
//! tests by, and to measure against.

use std::time::Duration;

use anyhow::Result;

use super::{
    Lab, Namespace,
    address::{provider4, provider6},
    wait::wait_until,
};

/// Linux forwarding and masquerading in the lab's `gw`.
#[derive(Debug)]
pub struct KernelGateway {
    gw: Namespace,
}

/// Which WAN plain Linux uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelRouting {
    /// The first one that has a route.
    First,
    /// All, by the hash of the flow.
    Multipath,
}

impl KernelGateway {
    /// Lets the kernel masquerade what leaves through a WAN.
    ///
    /// # Errors
    /// When nftables or the routes are refused.
    pub fn start(lab: &Lab, routing: KernelRouting) -> Result<Self> {
        let gw = lab.gw().clone();
        gw.nft(
            "table inet mwb_masquerade {\n  chain postrouting {\n    \
             type nat hook postrouting priority srcnat;\n    \
             oifname \"wan*\" masquerade\n  }\n}\n",
        )?;
        if routing == KernelRouting::Multipath {
            let mut hops4 = String::new();
            let mut hops6 = String::new();
            for index in 0..lab.wans().len() {
                hops4.push_str(&format!(" nexthop via {} dev wan{index}", provider4(index)));
                hops6.push_str(&format!(" nexthop via {} dev wan{index}", provider6(index)));
            }
            gw.sysctl(&[
                ("net/ipv4/fib_multipath_hash_policy", "1"),
                ("net/ipv6/fib_multipath_hash_policy", "1"),
            ])?;
            gw.ip(&format!(
                "route add default metric 10{hops4}\nroute add ::/0 metric 10{hops6}\n"
            ))?;
        }
        Ok(Self { gw })
    }

    /// Waits until conntrack has let go of everything: for a clean start.
    ///
    /// # Errors
    /// When it does not.
    pub fn wait_until_idle(&self, deadline: Duration) -> Result<()> {
        wait_until("conntrack is empty", deadline, || {
            Ok(self.gw.read_sysctl("net/netfilter/nf_conntrack_count")? == "0")
        })
        .map(drop)
    }
}

impl Drop for KernelGateway {
    fn drop(&mut self) {
        // The namespace may be gone already.
        let _ = self.gw.nft("delete table inet mwb_masquerade\n");
        let _ = self.gw.ip("route del default metric 10\nroute del ::/0 metric 10\n");
    }
}
