//! The shapes of `/v1/doctor`: what is right and wrong with the gateway, and
//! what limits it.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::flows::words;

/// For how long to watch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DoctorQuery {
    /// Seconds over which counters are compared, 1 to 30; 1 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
}

/// The answer of `/v1/doctor`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Report {
    /// Seconds over which counters were compared.
    pub seconds: f64,
    /// What limits the gateway at this moment; null: nothing that can be seen.
    pub bottleneck: Option<Bottleneck>,
    /// Everything that was looked at.
    pub findings: Vec<Finding>,
    /// The kernel's part of the work, by program.
    pub programs: Vec<ProgramCost>,
}

impl Report {
    /// The worst severity among the findings.
    #[must_use]
    pub fn worst(&self) -> Severity {
        self.findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Ok)
    }
}

/// What limits the gateway.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Bottleneck {
    /// What: a CPU, a queue, a table, a link.
    pub what: String,
    /// How it shows.
    pub fact: String,
    /// What to do about it.
    pub fix: String,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Finding {
    /// The part of the gateway it belongs to.
    pub area: Area,
    /// Which one: a device, a table, a setting.
    pub subject: String,
    /// How it is.
    pub severity: Severity,
    /// What was seen.
    pub fact: String,
    /// What to do; null if nothing needs doing.
    pub fix: Option<String>,
}

/// What a program costs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ProgramCost {
    /// Its name in the kernel.
    pub program: String,
    /// Runs per second.
    pub runs_per_second: f64,
    /// Mean time of a run in nanoseconds; null if it did not run or was not
    /// measured.
    pub nanoseconds: Option<f64>,
    /// Part of one CPU that it takes, 0 to 1 per CPU; null if not measured.
    pub cpu: Option<f64>,
}

words! {
    /// How a finding is.
    #[derive(PartialOrd, Ord)]
    Severity {
        /// As it should be.
        Ok = "ok",
        /// Works, and costs or will cost something.
        Warn = "warn",
        /// Does not work.
        Bad = "bad",
    }
}

words! {
    /// Part of the gateway.
    #[derive(PartialOrd, Ord)]
    Area {
        /// What the kernel can do.
        Kernel = "kernel",
        /// Where packets are taken.
        Hook = "hook",
        /// What devices do with packets before or after us.
        Offload = "offload",
        /// Kernel settings.
        Sysctl = "sysctl",
        /// Sizes of packets.
        Mtu = "mtu",
        /// How full tables are.
        Table = "table",
        /// Where packets are lost between hands.
        Queue = "queue",
        /// Who is busy.
        Cpu = "cpu",
    }
}
