//! Pacing by the hosts, as on most servers of the Internet: fq (tc-fq(8)) on the
//! devices of the LAN host and of the Internet, where the kernel has it.

use anyhow::Result;

use super::{namespace::Namespace, qdisc};

/// Packets that may wait, of all flows and of one: tests send bursts, and a
/// packet that a host drops itself is no finding.
const LIMIT: u32 = 100_000;

/// Has host and Internet pace what they send. Without fq TCP paces itself.
pub(super) fn pace(host: &Namespace, net: &Namespace, wans: usize, server: bool) -> Result<()> {
    if !qdisc::is_available(host, "fq")? {
        return Ok(());
    }
    let line = |device: &str| {
        format!("qdisc replace dev {device} root fq limit {LIMIT} flow_limit {LIMIT}\n")
    };
    host.tc(&line("lan0"))?;
    let towards = (0..wans).map(|index| format!("isp{index}"));
    let towards = towards.chain(server.then(|| "srv0".to_owned()));
    net.tc(&towards.map(|device| line(&device)).collect::<String>())
}
