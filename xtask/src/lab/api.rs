//! The agent's API as a client sees it: HTTP over its unix socket, and the
//! shapes of its answers.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, de::DeserializeOwned};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A client of one agent.
#[derive(Clone, Debug)]
pub struct Api {
    socket: PathBuf,
}

/// `/v1/status`, as far as tests look at it.
#[derive(Clone, Debug, Deserialize)]
pub struct Status {
    /// Version of the agent.
    pub version: String,
    /// Instance name.
    pub instance: String,
    /// `steer`.
    pub mode: String,
    /// How the WANs share.
    pub balance: String,
    /// LAN devices.
    pub lan: Vec<DeviceStatus>,
    /// WANs in the order of the configuration.
    pub wans: Vec<WanStatus>,
    /// NAT use.
    pub nat: NatStatus,
    /// Which WANs are used, and how often that changed.
    pub failover: FailoverStatus,
}

/// A LAN device.
#[derive(Clone, Debug, Deserialize)]
pub struct DeviceStatus {
    /// Name.
    pub device: String,
    /// `xdp` or `tcx`; `None` while nothing is attached.
    pub hook: Option<String>,
    /// Why that, or why none.
    pub hook_reason: String,
}

/// Part of [`Status`], as the agent's last sweep saw it.
#[derive(Clone, Debug, Deserialize)]
pub struct NatStatus {
    /// Inside endpoints with an outside port.
    pub mappings: u64,
    /// IPv4 flows.
    pub flows4: u64,
    /// IPv6 flows.
    pub flows6: u64,
}

/// Part of [`Status`].
#[derive(Clone, Debug, Deserialize)]
pub struct FailoverStatus {
    /// Names of the WANs in use.
    pub active: Vec<String>,
    /// Changes so far.
    pub count: u64,
    /// The WAN that the operator sends new flows to.
    pub forced: Option<String>,
    /// When that ends by itself, if it does.
    pub forced_until_unix_ms: Option<u64>,
}

/// A WAN.
#[derive(Clone, Debug, Deserialize)]
pub struct WanStatus {
    /// Name in the configuration.
    pub name: String,
    /// Device.
    pub device: String,
    /// `up`, `down`, `degraded`, `testing`, `unknown`.
    pub state: String,
    /// Why.
    pub reason: String,
    /// Whether the next hop's MAC is known.
    pub next_hop4: bool,
    /// Whether the next hop's MAC is known.
    pub next_hop6: bool,
    /// `xdp` or `tcx`; `None` while nothing is attached.
    pub hook: Option<String>,
    /// `native`, `generic`, `tcx`, `clsact` or `routed`.
    pub hook_mode: Option<String>,
    /// Why that, or why none.
    pub hook_reason: String,
    /// Share of new IPv4 flows, 0 to 1.
    pub share: f64,
    /// Whether it is in use.
    pub active: bool,
    /// Smoothed round trip.
    pub rtt_ms: Option<f64>,
    /// Loss of probes, 0 to 1.
    pub loss: Option<f64>,
    /// From the WAN.
    pub rx: Volume,
    /// To the WAN.
    pub tx: Volume,
    /// Times it failed.
    pub failovers: u64,
    /// Until when its flows may stay, while they are draining.
    pub drain_until_unix_ms: Option<u64>,
    /// How long it must be well before it is used again.
    pub hold_down_seconds: f64,
    /// When it may be used again, while it is held.
    pub hold_until_unix_ms: Option<u64>,
    /// How often it failed soon after it came back.
    pub relapses: u32,
}

/// Packets and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Volume {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// A row of `/v1/counters`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct CounterRow {
    /// `out` or `in`.
    pub direction: String,
    /// WAN, or `none`.
    pub wan: String,
    /// Reason.
    pub reason: String,
    /// `forward`, `kernel`, `drop`.
    pub verdict: String,
    /// Protocol class.
    pub protocol: String,
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// A row of `/v1/events`.
#[derive(Clone, Debug, Deserialize)]
pub struct Event {
    /// Number, growing.
    pub id: u64,
    /// When.
    pub unix_ms: u64,
    /// What kind.
    pub kind: String,
    /// Which WAN, if one.
    pub wan: Option<String>,
    /// For people.
    pub message: String,
    /// Why.
    pub reason: String,
}

impl Api {
    /// A client of the agent behind `socket`.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// Path of the socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// `/v1/status`.
    ///
    /// # Errors
    /// When the agent does not answer, or answers something else.
    pub fn status(&self) -> Result<Status> {
        self.json("/v1/status")
    }

    /// `/v1/counters`.
    ///
    /// # Errors
    /// When the agent does not answer, or answers something else.
    pub fn counters(&self) -> Result<Vec<CounterRow>> {
        self.json("/v1/counters")
    }

    /// `/v1/events` after `since`.
    ///
    /// # Errors
    /// When the agent does not answer, or answers something else.
    pub fn events(&self, since: u64) -> Result<Vec<Event>> {
        self.json(&format!("/v1/events?since={since}"))
    }

    /// `/metrics`.
    ///
    /// # Errors
    /// When the agent does not answer.
    pub fn metrics(&self) -> Result<String> {
        self.get("/metrics")
    }

    /// Any document.
    ///
    /// # Errors
    /// When there is no answer, or not one of success.
    pub fn get(&self, path: &str) -> Result<String> {
        let mut stream = UnixStream::connect(&self.socket)
            .with_context(|| format!("no agent behind {}", self.socket.display()))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        // HTTP/1.0: the answer ends with the connection, whatever its length.
        write!(stream, "GET {path} HTTP/1.0\r\nHost: agent\r\n\r\n").context("cannot ask")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).context("no answer")?;
        let (head, body) = answer.split_once("\r\n\r\n").context("not an HTTP answer")?;
        let status = head.split(' ').nth(1).unwrap_or_default();
        if status != "200" {
            bail!("GET {path}: {status}: {body}");
        }
        Ok(body.to_owned())
    }

    fn json<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let body = self.get(path)?;
        serde_json::from_str(&body).with_context(|| format!("GET {path} answered:\n{body}"))
    }
}
