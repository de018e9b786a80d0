//! Another configuration for a control loop that runs: only what differs is
//! touched. Who is checked, what is refused and when it comes back: `changes`.

use super::control::{Control, Wan};
use super::identity;
use super::ports::Port;
use super::start::{forget_counters, read_hits};
use crate::config::Config;
use crate::net::Snapshot;

impl Control {
    /// Takes a valid configuration. It is in force as far as the kernel lets us
    /// when this returns; what the kernel refuses is tried again with the next
    /// look, and told.
    ///
    /// New WANs are in place before those that go are cleared away, so that no
    /// packet finds nothing.
    pub(super) fn reconfigure(&mut self, new: Config, network: &Snapshot) {
        self.config = new;
        self.revise_wans(network);
        self.revise_lans();
        let (ids, plane) = (self.paths(), self.plane.clone());
        let devices: Vec<String> = self.devices().map(str::to_owned).collect();
        self.leaving.except(&ids, devices.iter().map(String::as_str));
        plane.set_dead_after(super::dead_after(&self.config));
        // Shares are compared with those of before, and small differences are
        // let pass: not when the operator wants them.
        self.memory.forget_shares();
        self.policies.follow(&self.config, &read_hits(&plane));
        self.settles = None;
        if let Err(error) = self.network(network) {
            tracing::error!(%error, "the data plane could not be told; it is tried again");
        }
    }

    /// WANs follow the configuration: those whose device stays go on as they
    /// are, whatever their name and place.
    fn revise_wans(&mut self, network: &Snapshot) {
        let known: Vec<(u8, [u8; 16])> =
            self.wans.iter().map(|wan| (wan.path, identity::padded(&wan.port.device))).collect();
        let ids = identity::assign(&known, &self.config.wans);
        let mut before = std::mem::take(&mut self.wans);
        for (&path, configured) in ids.iter().zip(&self.config.wans) {
            let own = before.iter().position(|wan| wan.port.device == configured.device);
            if let Some(index) = own {
                let mut wan = before.swap_remove(index);
                wan.port.revise_wan(configured);
                self.wans.push(wan);
                continue;
            }
            // What is not read is taken to be worth nothing: the entry is
            // written in any case.
            let pinned = self.plane.with(|plane| plane.path(path)).unwrap_or_default();
            forget_counters(&self.plane, path, &pinned);
            self.rates.forget(path);
            self.ledger.forget(path);
            self.drains.forget(path);
            let wan = Wan::new(path, &self.config, configured, network, pinned);
            self.wans.push(Wan { is_new: true, ..wan });
        }
        for wan in before {
            self.ledger.forget(wan.path);
            self.leaving.path(wan.path, wan.written);
            self.leaving.device(&wan.port.device);
        }
    }

    fn revise_lans(&mut self) {
        let mut before = std::mem::take(&mut self.lan);
        for configured in &self.config.lan {
            let own = before.iter().position(|port| port.device == configured.device);
            let port = match own {
                Some(index) => {
                    let mut port = before.swap_remove(index);
                    port.revise_lan(configured);
                    port
                }
                None => Port::lan(&self.config, configured),
            };
            self.lan.push(port);
        }
        for port in before {
            self.leaving.device(&port.device);
        }
    }

    /// LAN ports that a configuration names and that are not there.
    pub(super) fn missing_lan(config: &Config, network: &Snapshot) -> Option<(String, String)> {
        let missing: Vec<&str> = config
            .lan
            .iter()
            .map(|lan| lan.device.as_str())
            .filter(|device| network.device(device).is_none())
            .collect();
        let there: Vec<&str> = network.devices.iter().map(|device| device.name.as_str()).collect();
        (!missing.is_empty()).then(|| (missing.join(", "), there.join(", ")))
    }
}
