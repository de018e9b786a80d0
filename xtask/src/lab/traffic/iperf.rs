//! Bulk traffic, with the iperf3 of the system.

use std::{net::SocketAddr, process::Stdio, time::Duration};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::lab::{Namespace, Process, wait_until};

/// An iperf3 server, for one run after another.
#[derive(Debug)]
pub struct IperfServer {
    process: Process,
    address: SocketAddr,
}

impl IperfServer {
    /// Listens in `namespace`.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(namespace: &Namespace, address: SocketAddr) -> Result<Self> {
        let (ip, port) = (address.ip().to_string(), address.port().to_string());
        let process = namespace.spawn("iperf3", ["-s", "-B", &ip, "-p", &port, "--forceflush"])?;
        let mut server = Self { process, address };
        wait_until("iperf3 listens", Duration::from_secs(5), || {
            if !server.process.is_running()? {
                bail!("iperf3 ended: {}", server.process.log());
            }
            Ok(server.process.log().contains("Server listening"))
        })?;
        Ok(server)
    }
}

/// What to run against an [`IperfServer`].
#[derive(Clone, Debug, PartialEq)]
pub struct Iperf {
    /// UDP at this many bits per second; `None`: TCP.
    pub udp: Option<u64>,
    /// TCP at no more than this many bits per second; `None`: as fast as it goes.
    pub pace: Option<u64>,
    /// Congestion control of TCP; `None`: the kernel's choice.
    pub congestion: Option<&'static str>,
    /// The server sends.
    pub reverse: bool,
    /// Length of the run in seconds.
    pub seconds: u32,
    /// Streams side by side.
    pub streams: u32,
}

impl Iperf {
    /// TCP for so many seconds, one stream.
    #[must_use]
    pub fn tcp(seconds: u32) -> Self {
        Self { udp: None, pace: None, congestion: None, reverse: false, seconds, streams: 1 }
    }

    /// UDP at a rate for so many seconds.
    #[must_use]
    pub fn udp(rate: u64, seconds: u32) -> Self {
        Self { udp: Some(rate), ..Self::tcp(seconds) }
    }

    /// The same, not faster than so many bits per second: beside traffic that
    /// must not lose a packet. At full speed a veth's ring of 256 frames
    /// overflows now and then when the CPU is late.
    #[must_use]
    pub fn paced(mut self, rate: u64) -> Self {
        self.pace = Some(rate);
        self
    }

    /// The same under a congestion control that the kernel has.
    #[must_use]
    pub fn under(mut self, congestion: &'static str) -> Self {
        self.congestion = Some(congestion);
        self
    }

    /// The same with the server sending.
    #[must_use]
    pub fn reversed(mut self) -> Self {
        self.reverse = true;
        self
    }

    /// Starts the client in `namespace`.
    ///
    /// # Errors
    /// When iperf3 cannot be started.
    pub fn start(&self, namespace: &Namespace, server: &IperfServer) -> Result<IperfRun> {
        let mut command = namespace.command("iperf3");
        command.args(["-J", "-c", &server.address.ip().to_string()]);
        command.args(["-p", &server.address.port().to_string()]);
        command.args(["-t", &self.seconds.to_string(), "-P", &self.streams.to_string()]);
        command.args(["--connect-timeout", "5000"]);
        if let Some(rate) = self.pace {
            command.args(["-b", &rate.to_string()]);
        }
        if let Some(rate) = self.udp {
            // Large enough to be worth it, small enough for every link's MTU, and a bond's.
            command.args(["-u", "-b", &rate.to_string(), "-l", "1200"]);
        }
        if let Some(congestion) = self.congestion {
            command.args(["-C", congestion]);
        }
        if self.reverse {
            command.arg("-R");
        }
        let process = Process::spawn_with_input(&mut command, namespace.scratch(), Stdio::null())?;
        Ok(IperfRun { process, spec: self.clone() })
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// When iperf3 fails; with what it said.
    pub fn run(&self, namespace: &Namespace, server: &IperfServer) -> Result<IperfReport> {
        self.start(namespace, server)?.finish()
    }
}

/// A running client.
#[derive(Debug)]
pub struct IperfRun {
    process: Process,
    spec: Iperf,
}

/// What iperf3 says at its end, from the receiver's side.
#[derive(Clone, Debug, PartialEq)]
pub struct IperfReport {
    /// Payload that the receiver got, in bits per second.
    pub received_rate: f64,
    /// Bytes the receiver got.
    pub received_bytes: u64,
    /// TCP segments sent again (TCP only).
    pub retransmits: Option<u64>,
    /// Share of datagrams that did not arrive, 0 to 1 (UDP only).
    pub loss: Option<f64>,
    /// Received bits per second in every interval of a second, as far as the
    /// client knows them.
    pub intervals: Vec<f64>,
}

impl IperfRun {
    /// Whether it still runs.
    ///
    /// # Errors
    /// When its state cannot be read.
    pub fn is_running(&mut self) -> Result<bool> {
        self.process.is_running()
    }

    /// Waits for the end and reads the report.
    ///
    /// # Errors
    /// When iperf3 fails; with what it said.
    pub fn finish(mut self) -> Result<IperfReport> {
        let patience = Duration::from_secs(u64::from(self.spec.seconds) + 20);
        let status = self.process.wait(patience).with_context(|| self.process.log())?;
        let text = self.process.log();
        let json: Value = serde_json::from_str(&text)
            .with_context(|| format!("iperf3 ({status}) gave no JSON:\n{text}"))?;
        if let Some(error) = json.get("error").and_then(Value::as_str) {
            bail!("iperf3: {error}");
        }
        read_report(&json, self.spec.udp.is_some())
    }
}

fn read_report(json: &Value, udp: bool) -> Result<IperfReport> {
    let end = json.get("end").context("the report has no end")?;
    let number =
        |section: &str, key: &str| end.get(section).and_then(|part| part.get(key)?.as_f64());
    // With UDP, `sum` is the receiver's view of a run; `sum_received` is not
    // filled by every version.
    let section = if udp { "sum" } else { "sum_received" };
    let rate = number(section, "bits_per_second").context("no rate in the report")?;
    let loss =
        if udp { number(section, "lost_percent").map(|percent| percent / 100.0) } else { None };
    // In UDP runs the rate is the sender's: what was lost did not arrive.
    let share = 1.0 - loss.unwrap_or(0.0);
    let bytes = number(section, "bytes").context("no bytes in the report")?;
    let intervals = json
        .get("intervals")
        .and_then(Value::as_array)
        .map(|rows| {
            rows.iter().filter_map(|row| row.get("sum")?.get("bits_per_second")?.as_f64()).collect()
        })
        .unwrap_or_default();
    Ok(IperfReport {
        received_rate: rate * share,
        received_bytes: (bytes * share) as u64,
        retransmits: end.get("sum_sent").and_then(|sum| sum.get("retransmits")?.as_u64()),
        loss,
        intervals,
    })
}
