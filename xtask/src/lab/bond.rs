//! The two configurations of a bond, with keys that were made for it.

use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    net::IpAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::build;

use super::{
    Lab,
    address::{
        BOND_PORT, INNER_GATEWAY4, INNER_GATEWAY6, INNER_SERVER4, INNER_SERVER6, INNER4_LENGTH,
        INSIDE6, LAN4, NET4, NET6, SERVER4, SERVER6,
    },
    concentrator::UPLINK,
    config::AgentConfig,
};

/// Both ends of a bond: a gateway on all of the lab's WANs, and the server.
#[derive(Clone, Debug, PartialEq)]
pub struct BondConfig {
    /// The gateway's.
    pub gateway: AgentConfig,
    /// The server's.
    pub server: AgentConfig,
}

impl BondConfig {
    /// With all settings as they are by default, over IPv4.
    ///
    /// # Errors
    /// When `mwb` makes no keys.
    pub fn new(lab: &Lab) -> Result<Self> {
        let gateway_key = Key::make(&lab.scratch().join("gateway.key"))?;
        let server_key = Key::make(&lab.scratch().join("server.key"))?;
        let wans: Vec<Value> = (0..lab.wans().len())
            .map(|index| {
                json!({
                    "name": format!("wan{index}"),
                    "device": format!("wan{index}"),
                    "gateway": "auto",
                    "gateway6": "auto",
                })
            })
            .collect();
        let gateway = json!({
            "version": 1,
            "role": "gateway",
            "mode": "bond",
            // What `auto` would not take for veth; the hosts of this lab make whole
            // packets.
            "hook": "xdp",
            "lan": ["lan0"],
            "wans": wans,
            "health": {"targets": [NET4.to_string(), NET6.to_string()]},
            "bond": {
                "server": format!("{SERVER4}:{BOND_PORT}"),
                "private_key_file": gateway_key.file,
                "server_public_key": server_key.public,
                "addresses": [format!("{INNER_GATEWAY4}/32"), format!("{INNER_GATEWAY6}/128")],
            },
            "api": {"socket": lab.scratch().join("mwb.sock")},
        });
        let server = json!({
            "version": 1,
            "role": "server",
            "hook": "xdp",
            "wans": [{
                "name": "uplink",
                "device": UPLINK,
                "gateway": "auto",
                "gateway6": "auto",
                "ipv6_prefix": INSIDE6,
            }],
            "ipv6_prefix": INSIDE6,
            "health": {"targets": [NET4.to_string(), NET6.to_string()]},
            "server": {
                "private_key_file": server_key.file,
                "addresses": [
                    format!("{INNER_SERVER4}/{INNER4_LENGTH}"),
                    format!("{INNER_SERVER6}/128"),
                ],
                "clients": [{
                    "name": "site1",
                    "public_key": gateway_key.public,
                    "prefixes": [LAN4, format!("{INNER_GATEWAY4}/32"), INSIDE6],
                }],
            },
            "api": {"socket": lab.scratch().join("server.sock")},
        });
        Ok(Self { gateway: AgentConfig::of(gateway), server: AgentConfig::of(server) })
    }

    /// The same over this family of addresses.
    #[must_use]
    pub fn over(self, family: Family) -> Self {
        let server = match family {
            Family::V4 => format!("{SERVER4}:{BOND_PORT}"),
            Family::V6 => format!("[{SERVER6}]:{BOND_PORT}"),
        };
        self.with_gateway("bond.server", server)
    }

    /// The same with a suite, asked for by name and accepted.
    #[must_use]
    pub fn with_suite(self, suite: &str) -> Self {
        self.with_gateway("bond.suite", suite).with_server("server.suites", vec![suite])
    }

    /// Sets a key of the gateway's, named by its place.
    #[must_use]
    pub fn with_gateway(mut self, place: &str, value: impl Into<Value>) -> Self {
        self.gateway = self.gateway.with(place, value);
        self
    }

    /// Sets a key of the server's, named by its place.
    #[must_use]
    pub fn with_server(mut self, place: &str, value: impl Into<Value>) -> Self {
        self.server = self.server.with(place, value);
        self
    }
}

/// Family of the addresses that a bond's own packets have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const BOTH: [Family; 2] = [Family::V4, Family::V6];

    /// The server's address of this family.
    #[must_use]
    pub fn server(self) -> IpAddr {
        match self {
            Family::V4 => SERVER4.into(),
            Family::V6 => SERVER6.into(),
        }
    }
}

/// A pair of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The file with the private one.
    pub file: PathBuf,
    /// The public one, as configurations have it.
    pub public: String,
}

impl Key {
    /// Makes a pair as an operator does: `mwb keygen` into a file, `mwb pubkey` of it.
    ///
    /// # Errors
    /// When one of them fails.
    pub fn make(file: &Path) -> Result<Self> {
        let private = mwb("keygen", Stdio::null())?;
        let _ = fs::remove_file(file);
        let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
        out.write_all(private.as_bytes()).context("cannot write a key")?;
        let public = mwb("pubkey", File::open(file)?.into())?.trim().to_owned();
        Ok(Self { file: file.to_owned(), public })
    }
}

fn mwb(command: &str, input: Stdio) -> Result<String> {
    let program = &build::artifacts()?.mwb;
    let output = Command::new(program).arg(command).stdin(input).output()?;
    ensure!(
        output.status.success(),
        "mwb {command} failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).context("a key is text")
}
