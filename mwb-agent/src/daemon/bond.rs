//! The bond beside the control loop: it is told what the loop knows of the network, and
//! goes on by itself.

use std::sync::Arc;

use mwb_common::maps::path_flag;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::control::Control;
use super::{carriers, clock};
use crate::api::bond::BondStatus;
use crate::bond::PrivateKey;
use crate::config::{self, Config};
use crate::health::NextHop;
use crate::net::Snapshot;
use crate::tunnel::{self, Known, Network, Settings, Start, Uplink};

/// A bond that runs, if there is one. It ends with this value.
pub(super) struct Bond {
    running: Option<Running>,
}

/// What is shown of a bond, if there is one.
pub(super) type Shown = Option<watch::Receiver<Arc<BondStatus>>>;

struct Running {
    known: watch::Sender<Known>,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Bond {
    /// Starts what the configuration says. `private` is there if it says something.
    pub(super) fn start(
        control: &Control,
        private: Option<PrivateKey>,
        first: &Snapshot,
    ) -> (Self, Shown) {
        let mut shown = None;
        let settings = Settings::of(&control.config).zip(private);
        if settings.is_none()
            && let Err(error) = tunnel::forget(&control.plane.with(|plane| plane.bond()))
        {
            tracing::warn!(%error, "what is left of a bond could not be cleared away");
        }
        let running = settings.map(|(settings, private)| {
            let (sender, known) = watch::channel(known(control, first));
            let lost = carriers::watch(known.clone());
            let maps = control.plane.with(|plane| plane.bond());
            let (view, seen) = watch::channel(Arc::default());
            shown = Some(seen);
            let bus = control.bus.clone();
            let start = Start { maps, bus, settings, private, known, lost, view };
            Running { known: sender, task: tokio::spawn(tunnel::run(start)) }
        });
        (Self { running }, shown)
    }

    /// Tells it of the network and the classes of service, if anything is new.
    pub(super) fn tell(&self, control: &Control, now: &Snapshot) {
        let Some(running) = &self.running else { return };
        let now = known(control, now);
        running.known.send_if_modified(|before| {
            let changed = *before != now;
            *before = now;
            changed
        });
    }
}

fn known(control: &Control, now: &Snapshot) -> Known {
    let classes = control.config.classes.at(clock::moment());
    Known { network: network(control, now), classes }
}

/// The network as the bond must know it. Carriers are those of `now`: what the control
/// loop has made of them comes later.
fn network(control: &Control, now: &Snapshot) -> Network {
    let Config { balance, .. } = control.config;
    let ifindex = |name: &str| now.device(name).map(|device| device.ifindex);
    let tunnel = control.config.tunnel();
    let uplinks = control.wans.iter().zip(&control.config.wans).map(|(wan, configured)| {
        let device = now.device(&configured.device);
        let path = &wan.present.path;
        let hop4 = wan.present.link.v4;
        Uplink {
            path: wan.path,
            name: configured.name.clone(),
            device: configured.device.clone(),
            ifindex: device.map(|device| device.ifindex),
            carrier: device.is_some_and(|device| device.carrier),
            v4: hop4.is_some_and(|hop| hop.mac != NextHop::Unresolved),
            v6: path.flags & path_flag::NEXT_HOP6 != 0 && path.address6 != [0; 16],
            mtu: path.mtu,
            priority: priority(control, configured),
            weight: configured.weight,
            capacity_up: configured.capacity.up,
            capacity_down: configured.capacity.down,
            metered: configured.metered,
        }
    });
    Network {
        balance,
        uplinks: uplinks.collect(),
        outer_device: tunnel.and_then(|tunnel| ifindex(tunnel.device)),
        inner_device: tunnel.and_then(|tunnel| ifindex(&tunnel.data_plane_end())),
    }
}

/// The operator's will goes before the configuration's order.
fn priority(control: &Control, configured: &config::Wan) -> u8 {
    match &control.forced {
        Some(forced) if forced.is(configured) => 0,
        Some(_) => configured.priority.saturating_add(1),
        None => configured.priority,
    }
}
