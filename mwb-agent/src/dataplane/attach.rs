//! Attaching programs to devices, taking over what an agent before us attached.
//!
//! The device table is written before the first program runs on a device, so no
//! packet meets a program that does not know the device; when only the hook
//! changes, it is written after the new form runs, so no packet meets neither.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd as _, BorrowedFd};

use aya::programs::Program;
use mwb_common::maps::{Device, device_flag, hook};

use super::DataPlane;
use super::choice::{choose, choose_xdp, takes_xdp};
use super::clsact;
use super::error::Error;
use super::load::descriptor;
use super::pins::{self, Pins, keep, open_link, release};
use super::spec::{Attachment, DeviceSpec, Hook, HookChoice, Mode, Options, ProgramId};
use super::sys;

impl DataPlane {
    /// Attaches a device, or replaces the programs of one that is attached
    /// already: atomically, without a packet that meets neither. Changes of
    /// hook, role and path are carried out; a device that was made anew under
    /// its old name is attached anew.
    ///
    /// # Errors
    /// When the index is beyond the device table, another XDP program holds the
    /// device, or the kernel refuses; the message says which. Nothing new stays
    /// attached then.
    pub fn attach(&mut self, spec: &DeviceSpec) -> Result<Attachment, Error> {
        let ethernet = spec.flags & device_flag::NO_ETHERNET == 0;
        if ethernet && spec.mac == [0; 6] {
            return Err(Error::NoMac(spec.name.clone()));
        }
        let (hook, reason) = if spec.role.needs_xdp() {
            choose_xdp(spec, ethernet)?
        } else if !ethernet && spec.hook == HookChoice::Xdp {
            return Err(Error::NoEthernet(spec.name.clone()));
        } else {
            choose(spec.hook, &spec.driver, ethernet)
        };
        let pins = self.pins(&spec.name)?;
        self.forget_stale(&pins, spec)?;
        let before = self.settings.device(spec.ifindex).unwrap_or_default();
        let wanted = entry(spec, hook);
        let known = (before.role, before.path) == (wanted.role, wanted.path);
        if !known {
            self.settings.set_device(&spec.name, spec.ifindex, wanted)?;
        }
        let attachment = match self.attach_forms(&pins, spec, hook, reason) {
            Ok(attachment) => attachment,
            Err(error) => {
                if !known {
                    release(&pins.link(&spec.name, pins::TC))?;
                    clsact::detach(&pins, &spec.name)?;
                }
                self.settings.set_device(&spec.name, spec.ifindex, before)?;
                return Err(error);
            }
        };
        let takes_xdp = takes_xdp(attachment.mode, &spec.driver, self.redirects_fragments);
        let done = Device { takes_xdp, ..entry(spec, attachment.hook) };
        self.settings.set_device(&spec.name, spec.ifindex, done)?;
        if attachment.hook == Hook::Tcx {
            release(&pins.link(&spec.name, pins::XDP))?;
        }
        if ProgramId::of(spec.role, Hook::Tcx).is_none() {
            release(&pins.link(&spec.name, pins::TC))?;
            clsact::detach(&pins, &spec.name)?;
        }
        self.attached.insert(spec.name.clone(), spec.ifindex);
        Ok(attachment)
    }

    /// Whether a device runs programs of this instance, whoever attached them: an
    /// attempt to attach that failed leaves those of before.
    ///
    /// # Errors
    /// When a pin cannot be read.
    pub fn serves(&self, name: &str, ifindex: u32) -> Result<bool, Error> {
        // A LAN port may run none, and be ours.
        if self.attached.get(name) == Some(&ifindex) {
            return Ok(true);
        }
        let pins = self.pins(name)?;
        for suffix in [pins::XDP, pins::TC] {
            if open_link(&pins.link(name, suffix))?.is_some_and(|(_, on)| on == ifindex) {
                return Ok(true);
            }
        }
        // Of a device that was made anew under its name the table knows nothing.
        Ok(clsact::device(&pins, name) == Some(ifindex)
            && self.settings.device(ifindex)? != Device::default())
    }

    /// Detaches a device and forgets it. A device that is not attached, or is
    /// gone, is no error.
    ///
    /// # Errors
    /// When a pin cannot be removed or the device table not be written.
    pub fn detach(&mut self, name: &str) -> Result<(), Error> {
        let pins = self.pins(name)?;
        let mut indexes: Vec<u32> = self.attached.remove(name).into_iter().collect();
        for suffix in [pins::XDP, pins::TC] {
            indexes.extend(release(&pins.link(name, suffix))?);
        }
        indexes.extend(clsact::device(&pins, name));
        clsact::detach(&pins, name)?;
        for ifindex in indexes.into_iter().filter(|ifindex| *ifindex != 0) {
            self.settings.set_device(name, ifindex, Device::default())?;
        }
        Ok(())
    }

    /// Detaches every device but those named and those that this process has
    /// attached: what an agent before us served and the configuration names no
    /// more. A device that is named keeps the programs of before even if it
    /// could not be attached anew.
    ///
    /// # Errors
    /// As [`DataPlane::detach`].
    pub fn detach_others(&mut self, named: &[String]) -> Result<Vec<String>, Error> {
        let mut others: Vec<String> = Vec::new();
        let mut kept: Vec<u32> = Vec::new();
        let pins = self.pins("")?;
        for (device, suffix, path) in pins.link_pins()? {
            if named.contains(&device) {
                if suffix == pins::CLSACT {
                    kept.extend(clsact::device(&pins, &device));
                } else {
                    kept.extend(open_link(&path)?.map(|(_, ifindex)| ifindex));
                }
            } else if !self.attached.contains_key(&device) && !others.contains(&device) {
                others.push(device);
            }
        }
        for device in &others {
            self.detach(device)?;
        }
        kept.extend(self.attached.values());
        // Entries of devices that are gone have no link that could name them.
        for (ifindex, _) in self.tables.devices()? {
            if !kept.contains(&ifindex) {
                self.settings.set_device("", ifindex, Device::default())?;
            }
        }
        Ok(others)
    }

    /// Detaches and removes everything of an instance, of every layout version.
    /// Returns the devices that were detached.
    ///
    /// # Errors
    /// When a pin cannot be removed.
    pub fn remove(options: &Options) -> Result<Vec<String>, Error> {
        let ours = Pins::of(options)?;
        let mut devices = Vec::new();
        for layout in ours.layouts()? {
            for (device, suffix, path) in layout.link_pins()? {
                if suffix == pins::CLSACT {
                    clsact::detach(&layout, &device)?;
                } else {
                    release(&path)?;
                }
                if !devices.contains(&device) {
                    devices.push(device);
                }
            }
            layout.remove()?;
        }
        ours.remove_instance()?;
        Ok(devices)
    }

    fn pins(&self, device: &str) -> Result<Pins, Error> {
        self.pins.clone().ok_or_else(|| Error::Attach {
            device: device.to_owned(),
            form: "any",
            message: "this data plane was opened without pins".to_owned(),
        })
    }

    /// Drops what belongs to an earlier device of the same name.
    fn forget_stale(&mut self, pins: &Pins, spec: &DeviceSpec) -> Result<(), Error> {
        let mut old: Vec<u32> = self.attached.get(&spec.name).copied().into_iter().collect();
        for suffix in [pins::XDP, pins::TC] {
            let path = pins.link(&spec.name, suffix);
            if let Some((_, ifindex)) = open_link(&path)?
                && ifindex != spec.ifindex
            {
                old.extend(release(&path)?);
            }
        }
        for ifindex in old.into_iter().filter(|old| *old != 0 && *old != spec.ifindex) {
            self.settings.set_device(&spec.name, ifindex, Device::default())?;
        }
        Ok(())
    }

    fn attach_forms(
        &mut self,
        pins: &Pins,
        spec: &DeviceSpec,
        hook: Hook,
        reason: String,
    ) -> Result<Attachment, Error> {
        // Also under XDP: the TC form takes what XDP hands over.
        let tc = if ProgramId::of(spec.role, Hook::Tcx).is_some() {
            self.attach_tc(pins, spec)?
        } else {
            Mode::Routed
        };
        if hook == Hook::Tcx {
            return Ok(Attachment { hook, mode: tc, reason });
        }
        match self.attach_xdp(pins, spec)? {
            Ok(Mode::Native) => Ok(Attachment { hook, mode: Mode::Native, reason }),
            Ok(mode) => Ok(Attachment {
                hook,
                mode,
                reason: format!("{reason}; generic, as the driver refused native XDP before"),
            }),
            Err(refusal) if spec.hook == HookChoice::Auto && !spec.role.needs_xdp() => {
                Ok(Attachment {
                    hook: Hook::Tcx,
                    mode: tc,
                    reason: format!("{reason}, but refused it: {}", describe(&refusal)),
                })
            }
            Err(refusal) => {
                let mode = self.attach_generic(pins, spec, &refusal)?;
                let reason = format!("{reason}; generic, as native XDP was refused: ");
                Ok(Attachment { hook, mode, reason: reason + &describe(&refusal) })
            }
        }
    }

    /// Native XDP. The inner error is a refusal that leaves other ways.
    fn attach_xdp(
        &mut self,
        pins: &Pins,
        spec: &DeviceSpec,
    ) -> Result<Result<Mode, io::Error>, Error> {
        let program = self.form(spec, Hook::Xdp)?;
        let path = pins.link(&spec.name, pins::XDP);
        if let Some((link, _)) = open_link(&path)? {
            if sys::link_update(link.as_fd(), program).is_ok() {
                return Ok(Ok(running_mode(program, spec.ifindex)));
            }
            release(&path)?;
        }
        match sys::link_create(program, spec.ifindex, sys::ATTACH_XDP, sys::XDP_NATIVE) {
            Ok(link) => keep(&link, &path).map(|()| Ok(Mode::Native)),
            Err(error) => Ok(Err(error)),
        }
    }

    fn attach_generic(
        &mut self,
        pins: &Pins,
        spec: &DeviceSpec,
        refusal: &io::Error,
    ) -> Result<Mode, Error> {
        let failed = |error: &io::Error| {
            let (device, message) = (spec.name.clone(), describe(error));
            if spec.role.needs_xdp() {
                return Error::BondNeedsXdp { device, message };
            }
            Error::Attach { device, form: pins::XDP, message }
        };
        if matches!(
            refusal.raw_os_error(),
            Some(libc::EBUSY | libc::EEXIST | libc::ENODEV | libc::EPERM)
        ) {
            return Err(failed(refusal));
        }
        let program = self.form(spec, Hook::Xdp)?;
        let link = sys::link_create(program, spec.ifindex, sys::ATTACH_XDP, sys::XDP_GENERIC)
            .map_err(|error| failed(&error))?;
        keep(&link, &pins.link(&spec.name, pins::XDP))?;
        Ok(Mode::Generic)
    }

    fn attach_tc(&mut self, pins: &Pins, spec: &DeviceSpec) -> Result<Mode, Error> {
        if !self.has_tcx {
            let name = ProgramId::of(spec.role, Hook::Tcx).map_or("", ProgramId::name);
            let Some(Program::SchedClassifier(program)) = self.object.program_mut(name) else {
                return Err(Error::Missing(name));
            };
            return clsact::attach(program, pins, &spec.name).map(|()| Mode::Clsact);
        }
        let program = self.form(spec, Hook::Tcx)?;
        let path = pins.link(&spec.name, pins::TC);
        if let Some((link, _)) = open_link(&path)? {
            if sys::link_update(link.as_fd(), program).is_ok() {
                return Ok(Mode::Tcx);
            }
            release(&path)?;
        }
        let link = sys::link_create(program, spec.ifindex, sys::ATTACH_TCX_INGRESS, 0).map_err(
            |error| Error::Attach {
                device: spec.name.clone(),
                form: pins::TC,
                message: describe(&error),
            },
        )?;
        keep(&link, &path)?;
        Ok(Mode::Tcx)
    }

    /// The program of a device's role in a form that it has.
    fn form(&self, spec: &DeviceSpec, hook: Hook) -> Result<BorrowedFd<'_>, Error> {
        let id = ProgramId::of(spec.role, hook).ok_or(Error::Missing("a program"))?;
        descriptor(&self.object, id).map(|fd| fd.as_fd())
    }
}

fn entry(spec: &DeviceSpec, form: Hook) -> Device {
    let (address4, address6) = addresses(spec.address4, spec.address6);
    Device {
        role: spec.role.number(),
        path: spec.path,
        hook: match form {
            Hook::Xdp => hook::XDP,
            Hook::Tcx => hook::TC,
        },
        mac: spec.mac,
        flags: spec.flags,
        address4,
        address6,
        ..Device::default()
    }
}

/// As the device table has them: zero for none.
pub(super) fn addresses(v4: Option<Ipv4Addr>, v6: Option<Ipv6Addr>) -> ([u8; 4], [u8; 16]) {
    (v4.map_or([0; 4], |a| a.octets()), v6.map_or([0; 16], |a| a.octets()))
}

/// How a link that was taken over runs: links do not say, but a second native
/// attachment is refused with EBUSY beside a native one and with EEXIST beside
/// a generic one, or with EOPNOTSUPP if the driver can do no other
/// (`dev_xdp_attach` in net/core/dev.c).
fn running_mode(program: BorrowedFd<'_>, ifindex: u32) -> Mode {
    match sys::link_create(program, ifindex, sys::ATTACH_XDP, sys::XDP_NATIVE) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EEXIST | libc::EOPNOTSUPP)) => {
            Mode::Generic
        }
        _ => Mode::Native,
    }
}

/// The kernel's refusals in words; it gives none itself.
fn describe(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::ERANGE) => {
            "the MTU is too large for native XDP: lower it, or use `hook: tcx`".to_owned()
        }
        Some(libc::EBUSY | libc::EEXIST) => {
            "another XDP program is attached (`ip link show` names it): remove it, or use \
             `hook: tcx`"
                .to_owned()
        }
        Some(libc::EOPNOTSUPP) => "the driver does not support it".to_owned(),
        Some(libc::ENODEV) => "there is no such device any more".to_owned(),
        Some(libc::EPERM) => "not permitted: it needs CAP_BPF and CAP_NET_ADMIN".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
#[path = "attach_tests.rs"]
pub(super) mod tests;

#[cfg(test)]
#[path = "programs_tests.rs"]
mod programs_tests;

#[cfg(test)]
#[path = "upgrade_tests.rs"]
mod upgrade_tests;
