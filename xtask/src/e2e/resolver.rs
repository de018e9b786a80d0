//! A resolver that knows what it is told and nothing else.

use anyhow::Result;

use crate::lab::{Namespace, Process};

/// Starts dnsmasq in `net` on these addresses, with these records as its arguments.
pub(super) fn dnsmasq(net: &Namespace, listen: &str, records: &[&str]) -> Result<Process> {
    let listen = format!("--listen-address={listen}");
    let always = [
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--no-resolv",
        "--no-hosts",
        "--bind-interfaces",
        "--pid-file=",
        "--user=root",
        &listen,
    ];
    net.spawn("dnsmasq", always.iter().chain(records))
}
