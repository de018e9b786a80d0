//! The configuration of an agent of a lab.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{
    Lab,
    address::{INSIDE6, NET4, NET6, outside6},
};

/// An agent's configuration for a lab. JSON is YAML, so what is edited here as
/// a value is written as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentConfig {
    value: Value,
}

impl AgentConfig {
    /// One that says this and nothing else.
    pub(super) fn of(value: Value) -> Self {
        Self { value }
    }

    /// That of a steering gateway: all of the lab's WANs with equal weights, IPv4
    /// and IPv6, probes to the lab's Internet.
    #[must_use]
    pub fn new(lab: &Lab) -> Self {
        let wans: Vec<Value> = (0..lab.wans().len())
            .map(|index| {
                json!({
                    "name": format!("wan{index}"),
                    "device": format!("wan{index}"),
                    "gateway": "auto",
                    "gateway6": "auto",
                    "ipv6_prefix": outside6(index),
                })
            })
            .collect();
        Self {
            value: json!({
                "version": 1,
                "role": "gateway",
                "mode": "steer",
                "hook": "auto",
                "lan": ["lan0"],
                "balance": "per_flow",
                "ipv6_prefix": INSIDE6,
                "wans": wans,
                "failover": {"failback_after": "1s"},
                "health": {
                    "interval": "200ms",
                    "retries": 3,
                    "method": "ping",
                    "targets": [NET4.to_string(), NET6.to_string()],
                },
                "api": {"socket": lab.scratch().join("mwb.sock")},
            }),
        }
    }

    /// Sets a key, named by its place as in `nat.ports` or `wans.0.weight`; the place
    /// behind the last of a list makes it longer.
    #[must_use]
    pub fn with(mut self, place: &str, value: impl Into<Value>) -> Self {
        let mut here = &mut self.value;
        for part in place.split('.') {
            here = match part.parse::<usize>() {
                Ok(index) => {
                    if let Some(list) = here.as_array_mut().filter(|list| list.len() == index) {
                        list.push(Value::Null);
                    }
                    &mut here[index]
                }
                Err(_) => &mut here[part],
            };
        }
        *here = value.into();
        self
    }

    /// Takes a key away, named as for [`Self::with`].
    #[must_use]
    pub fn without(mut self, place: &str) -> Self {
        let (parent, key) = place.rsplit_once('.').unwrap_or(("", place));
        let pointer: String = parent
            .split('.')
            .filter(|part| !part.is_empty())
            .fold(String::new(), |pointer, part| pointer + "/" + part);
        match self.value.pointer_mut(&pointer) {
            Some(Value::Object(map)) => drop(map.remove(key)),
            Some(Value::Array(list)) => {
                if let Some(index) = key.parse().ok().filter(|&index: &usize| index < list.len()) {
                    list.remove(index);
                }
            }
            _ => {}
        }
        self
    }

    /// What a key is set to, named as for [`Self::with`].
    #[must_use]
    pub fn value(&self, place: &str) -> Option<&Value> {
        self.value.pointer(&format!("/{}", place.replace('.', "/")))
    }

    /// WANs are as well as their next hops, whatever is behind these.
    #[must_use]
    pub fn watching_gateways(self) -> Self {
        self.without("health.targets")
    }

    /// All goes by the first WAN while that works; the second stands behind it.
    #[must_use]
    pub fn ranked(self) -> Self {
        self.with("balance", "failover").with("wans.1.priority", 1)
    }

    /// The file's text.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{:#}\n", self.value)
    }

    pub(super) fn socket(&self) -> Result<PathBuf> {
        let path = self.value["api"]["socket"].as_str().context("the API has a socket")?;
        Ok(PathBuf::from(path))
    }

    /// Name of each WAN, and whether it carries IPv6.
    pub(super) fn wans(&self) -> Vec<(String, bool)> {
        let rows = self.value["wans"].as_array().map(Vec::as_slice).unwrap_or_default();
        let read = |wan: &Value| {
            Some((wan["name"].as_str()?.to_owned(), wan.get("ipv6_prefix").is_some()))
        };
        rows.iter().filter_map(read).collect()
    }
}
