//! Devices and their programs: attached when they are there, again when they
//! are made anew, with the result for the operator.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use mwb_common::maps::device_flag;

use super::beat::Plane;
use crate::config::{self, Config, Mode, PeerRedirect};
use crate::dataplane::{Attachment, DeviceSpec, Error, HookChoice, Role};
use crate::events::{Bus, EventKind};
use crate::net::{self, Device, Snapshot};

/// Wait before a refused attachment is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// What a program was attached to: with another index or MAC, it is anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    ifindex: u32,
    mac: Option<[u8; 6]>,
}

/// One device that is to have our programs.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) device: String,
    role: Role,
    path: u8,
    choice: HookChoice,
    redirect_peer: PeerRedirect,
    /// The WAN's name, for events.
    wan: Option<String>,
    /// Of the data plane's end of a bond's device: the kernel's end.
    kernel_end: Option<String>,
    /// The device as it was last seen.
    pub(super) ifindex: Option<u32>,
    attached: Option<(Identity, Attachment)>,
    /// Flags and addresses, as the data plane has them.
    written: (u8, Option<Ipv4Addr>, Option<Ipv6Addr>),
    /// Why nothing is, and when it was last tried.
    refused: Option<(Instant, String)>,
    reported_missing: bool,
    /// The device on which programs of an agent before us go on.
    inherited: Option<u32>,
    /// What is attached is not what the configuration asks for any more.
    is_stale: bool,
}

impl Port {
    /// A LAN port.
    pub(super) fn lan(config: &Config, lan: &config::Lan) -> Self {
        let role = match config.mode {
            Mode::Steer => Role::Inside,
            Mode::Bond => Role::BondInside,
        };
        Self::new(&lan.device, role, 0, (lan.hook, lan.redirect_peer), None)
    }

    /// The port of the WAN with this path id.
    pub(super) fn wan(path: u8, config: &Config, wan: &config::Wan) -> Self {
        let role = match (config.role, config.mode) {
            (config::Role::Server, _) => Role::Uplink,
            (config::Role::Gateway, Mode::Bond) => Role::BondOutside,
            (config::Role::Gateway, Mode::Steer) => Role::Outside,
        };
        let choices = (wan.hook, wan.redirect_peer);
        Self::new(&wan.device, role, path, choices, Some(wan.name.clone()))
    }

    /// The data plane's end of a bond's device.
    pub(super) fn bond(tunnel: &config::Tunnel<'_>) -> Self {
        let choices = (config::HookChoice::Auto, PeerRedirect::Off);
        let port = Self::new(&tunnel.data_plane_end(), Role::BondDevice, 0, choices, None);
        Self { kernel_end: Some(tunnel.device.to_owned()), ..port }
    }

    fn new(
        device: &str,
        role: Role,
        path: u8,
        (hook, redirect_peer): (config::HookChoice, PeerRedirect),
        wan: Option<String>,
    ) -> Self {
        Self {
            device: device.to_owned(),
            role,
            path,
            choice: choice(hook),
            redirect_peer,
            wan,
            kernel_end: None,
            ifindex: None,
            attached: None,
            written: (0, None, None),
            refused: None,
            reported_missing: false,
            inherited: None,
            is_stale: false,
        }
    }

    /// Takes what the configuration says now about a LAN port.
    pub(super) fn revise_lan(&mut self, lan: &config::Lan) {
        self.redirect_peer = lan.redirect_peer;
        self.revise(lan.hook);
    }

    /// Takes what the configuration says now about a WAN.
    pub(super) fn revise_wan(&mut self, wan: &config::Wan) {
        self.wan = Some(wan.name.clone());
        self.redirect_peer = wan.redirect_peer;
        self.revise(wan.hook);
    }

    /// With another hook it is attached anew, in one step, at the next look.
    fn revise(&mut self, hook: config::HookChoice) {
        let choice = choice(hook);
        if choice != self.choice {
            (self.choice, self.is_stale, self.refused) = (choice, true, None);
        }
    }

    /// Whether our programs run on the device that is there now.
    pub(super) fn is_attached(&self) -> bool {
        self.attached.as_ref().is_some_and(|(to, _)| Some(to.ifindex) == self.ifindex)
    }

    /// Whether programs of ours run on it, be it those of an agent before us that
    /// could not be replaced.
    pub(super) fn is_served(&self) -> bool {
        self.is_attached() || self.inherited.is_some() && self.inherited == self.ifindex
    }

    /// Hook, mode and reason for status.
    pub(super) fn hook(&self) -> (Option<String>, Option<String>, String) {
        match &self.attached {
            Some((_, Attachment { hook, mode, reason })) if self.is_attached() => {
                let to_peer = if self.written.0 & device_flag::TO_PEER == 0 {
                    ""
                } else {
                    "; what is sent to it enters its other end straight away (redirect_peer)"
                };
                let reason = format!("{reason}{to_peer}");
                (Some(hook.name().to_owned()), Some(mode.name().to_owned()), reason)
            }
            _ => {
                let why = self.refused.as_ref().map_or("device missing", |(_, why)| why);
                (None, None, why.to_owned())
            }
        }
    }

    fn flags(&self, device: &Device) -> u8 {
        // Hosts are reached by Ethernet.
        let headless = self.wan.is_some() && device.headless;
        // A gateway's bond sends by XDP alone, which knows no such way.
        let steers = matches!(self.role, Role::Inside | Role::Outside | Role::Uplink);
        let asked = steers && self.redirect_peer == PeerRedirect::Auto;
        let to_peer = asked && device.opens_to_peer;
        (if headless { device_flag::NO_ETHERNET } else { 0 })
            | if to_peer { device_flag::TO_PEER } else { 0 }
    }

    /// Whom frames are for that the data plane sends by the device itself.
    fn mac(&self, device: &Device, network: &Snapshot) -> Option<[u8; 6]> {
        match &self.kernel_end {
            Some(kernel_end) => network.device(kernel_end)?.mac,
            None => device.mac,
        }
    }

    /// The device as the data plane must know it.
    fn spec(&self, device: &Device, mac: Option<[u8; 6]>, driver: String) -> DeviceSpec {
        DeviceSpec {
            name: self.device.clone(),
            ifindex: device.ifindex,
            role: self.role,
            path: self.path,
            mac: mac.unwrap_or_default(),
            hook: self.choice,
            driver,
            flags: self.flags(device),
            address4: device.source4(),
            address6: device.source6(),
        }
    }

    /// Follows the device: attaches what is there and not attached.
    ///
    /// # Errors
    /// When the kernel refuses. It is tried again at a later call.
    pub(super) fn follow(
        &mut self,
        plane: &Plane,
        bus: &Bus,
        network: &Snapshot,
    ) -> Result<(), Error> {
        let Some(device) = network.device(&self.device) else { return self.miss(plane, bus) };
        self.reported_missing = false;
        let moved = self.ifindex != Some(device.ifindex);
        self.ifindex = Some(device.ifindex);
        let early = self.refused.as_ref().is_some_and(|(at, _)| at.elapsed() < RETRY);
        let mac = self.mac(device, network);
        let identity = Identity { ifindex: device.ifindex, mac };
        let done = self.attached.as_ref().is_some_and(|(attached, _)| *attached == identity);
        let revised = (self.flags(device), device.source4(), device.source6());
        if done && !self.is_stale {
            if self.written != revised {
                let (flags, v4, v6) = revised;
                plane.with(|plane| plane.revise_device(&self.device, flags, v4, v6))?;
                self.written = revised;
            }
            return Ok(());
        }
        if early && !moved {
            return Ok(());
        }
        let driver = net::driver(device).unwrap_or_else(|error| {
            tracing::warn!(%error, "the hook is chosen without knowing the driver");
            String::new()
        });
        let spec = self.spec(device, mac, driver);
        match plane.with_slow(|plane| plane.attach(&spec))? {
            Ok(attachment) => {
                let Attachment { hook, mode, reason } = &attachment;
                let message = format!(
                    "{} ({}) has its programs: {}, {}",
                    self.device,
                    self.role.name(),
                    hook.name(),
                    mode.name()
                );
                bus.publish(EventKind::HookAttached, self.wan.as_deref(), message, reason.clone());
                self.attached = Some((identity, attachment));
                self.written = revised;
                self.is_stale = false;
                self.refused = None;
                Ok(())
            }
            Err(error) => {
                let known = self.refused.as_ref().is_some_and(|(_, why)| *why == error.to_string());
                self.refused = Some((Instant::now(), error.to_string()));
                let serves = plane.with(|plane| plane.serves(&self.device, device.ifindex));
                self.inherited = serves.unwrap_or(false).then_some(device.ifindex);
                if known { Ok(()) } else { Err(error) }
            }
        }
    }

    /// The device is not there.
    fn miss(&mut self, plane: &Plane, bus: &Bus) -> Result<(), Error> {
        self.ifindex = None;
        if !self.reported_missing {
            self.reported_missing = true;
            let message = format!("{} is missing", self.device);
            bus.publish(EventKind::DeviceMissing, self.wan.as_deref(), message, "no such device");
        }
        if self.attached.is_some() {
            // The kernel gives its index to other devices one day.
            plane.with_slow(|plane| plane.detach(&self.device))??;
            self.attached = None;
        }
        Ok(())
    }
}

fn choice(hook: config::HookChoice) -> HookChoice {
    match hook {
        config::HookChoice::Auto => HookChoice::Auto,
        config::HookChoice::Xdp => HookChoice::Xdp,
        config::HookChoice::Tcx => HookChoice::Tcx,
    }
}

#[cfg(test)]
#[path = "ports_tests.rs"]
mod tests;
