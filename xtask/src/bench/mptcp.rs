//! The kernel's MPTCP over the links of a lab: the gateway itself downloads, with a
//! subflow by each WAN. The strongest peer of a bond, for TCP of hosts that speak it.

use std::time::Duration;

use anyhow::Result;

use crate::lab::{
    Lab, LabSpec,
    address::{NET4, provider4, wan4},
    traffic::{Bulk, Transport, download},
};

/// Whether this kernel has it.
pub(super) fn is_available(lab: &Lab) -> bool {
    lab.gw().read_sysctl("net/mptcp/enabled").is_ok_and(|value| value == "1")
}

/// A download over all links; `None` where the kernel has no MPTCP.
pub(super) fn measure(
    spec: &LabSpec,
    congestion: Option<&str>,
    length: Duration,
    meanwhile: impl FnOnce(&Lab) -> Result<()> + Send,
) -> Result<Option<Bulk>> {
    let lab = Lab::new(spec)?;
    if !is_available(&lab) {
        return Ok(None);
    }
    let mut batch = String::from("mptcp limits set subflows 8 add_addr_accepted 8\n");
    for index in 0..lab.wans().len() {
        let (own, table) = (wan4(index), 100 + index);
        batch.push_str(&format!(
            "rule add from {own} table {table}\n\
             route add default via {} dev wan{index} table {table}\n\
             mptcp endpoint add {own} dev wan{index} subflow\n",
            provider4(index)
        ));
    }
    lab.gw().ip(&batch)?;
    lab.net().ip("mptcp limits set subflows 8 add_addr_accepted 8\n")?;
    let act = || meanwhile(&lab);
    download(lab.gw(), lab.net(), NET4.into(), Transport::Mptcp, congestion, length, act).map(Some)
}
