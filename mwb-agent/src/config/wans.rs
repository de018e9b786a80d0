//! Reading of WANs, and of what they share.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::Ipv6Net;

use super::forwards::read_forwards;
use super::prefix::read_ipv6_prefix;
use super::read::{check_count, read_hook, read_peer_redirect};
use super::reader::{Cursor, Fault, Fields};
use super::role::check_wan;
use super::{
    Capacity, Failback, Gateway, Health, HookChoice, Mode, PeerRedirect, Role, Wan, schema, units,
};

/// What the file says for WANs that do not say it themselves.
pub(super) struct Common {
    pub(super) hook: HookChoice,
    pub(super) redirect_peer: PeerRedirect,
    /// The LAN's IPv6 prefix.
    pub(super) inside: Option<Ipv6Net>,
    pub(super) failback: Failback,
    pub(super) role: Role,
    pub(super) mode: Mode,
}

impl Common {
    /// Whether the packets of bonds come and go by WANs.
    fn is_bonded(&self) -> bool {
        self.mode == Mode::Bond || self.role == Role::Server
    }
}

/// Reads the list of WANs.
pub(super) fn read_wans(
    at: &Cursor<'_>,
    common: &Common,
    devices: &mut Devices,
) -> Result<Vec<Wan>, Fault> {
    let items = at.items("[{name: fiber, device: wan0}]")?;
    let most = if common.mode == Mode::Bond { schema::BOND_WANS } else { schema::WANS };
    check_count(at, items.len(), most, "WANs")?;
    let mut wans: Vec<Wan> = Vec::with_capacity(items.len());
    for item in &items {
        let fields = item.fields(&schema::WAN)?;
        let wan = read_wan(&fields, common, devices)?;
        check_wan_among(&wan, &fields, &wans, common)?;
        wans.push(wan);
    }
    Ok(wans)
}

fn read_wan(wan: &Fields<'_>, common: &Common, devices: &mut Devices) -> Result<Wan, Fault> {
    check_wan(wan, common.role, common.mode)?;
    let ipv6_prefix = match wan.get("ipv6_prefix") {
        Some(at) => Some(read_outside_prefix(at, common.inside)?),
        None if common.role == Role::Server => common.inside,
        None => None,
    };
    if let Some(at) = wan.get("gateway6")
        && ipv6_prefix.is_none()
        && !common.is_bonded()
    {
        return Err(at.fault(
            "it has no effect: the WAN has no `ipv6_prefix`",
            "give the WAN the prefix its provider routes to it, or remove this",
        ));
    }
    let capacity = wan.section("capacity", &schema::CAPACITY)?;
    let rate = |key| capacity.get(key).map(|at| at.rate(&schema::RATE)).transpose();
    let weight = wan.or("weight", 100, |at| at.integer(&schema::WEIGHT))?;
    let priority = wan.or("priority", 0, |at| at.integer(&schema::PRIORITY))?;
    Ok(Wan {
        name: read_wan_name(wan.required("name")?)?,
        device: devices.read(wan.required("device")?)?,
        gateway4: wan.or("gateway", Gateway::Auto, read_gateway4)?,
        gateway6: wan.or("gateway6", Gateway::Auto, read_gateway6)?,
        // Both ranges fit their types.
        priority: u8::try_from(priority).unwrap_or(u8::MAX),
        weight: u16::try_from(weight).unwrap_or(u16::MAX),
        capacity: Capacity { up: rate("up")?, down: rate("down")? },
        metered: wan.or("metered", false, Cursor::boolean)?,
        hook: read_wan_hook(wan, common)?,
        redirect_peer: wan.or("redirect_peer", common.redirect_peer, read_peer_redirect)?,
        ipv6_prefix,
        failback: wan.or("failback", common.failback, read_failback)?,
        forwards: wan.or("forwards", Vec::new(), read_forwards)?,
        // Read when the rest of the file is known.
        health: Health::default(),
    })
}

fn read_wan_name(at: &Cursor<'_>) -> Result<String, Fault> {
    let name = read_name(at, "a WAN", schema::NAME_LENGTH)?;
    // Counters of packets without a WAN are listed under this word.
    if name == "none" {
        return Err(at.fault("`none` cannot be the name of a WAN", "choose another name"));
    }
    Ok(name)
}

/// What people call something; `whose` names that with its article.
pub(super) fn read_name(at: &Cursor<'_>, whose: &str, most: usize) -> Result<String, Fault> {
    let text = at.text("fiber")?;
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c);
    if text.is_empty() || text.len() > most || !text.chars().all(plain) {
        return Err(at.fault(
            format!("`{}` cannot be the name of {whose}", at.show()),
            format!("use 1 to {most} of a-z, 0-9, `_` and `-`"),
        ));
    }
    Ok(text.to_owned())
}

fn read_wan_hook(wan: &Fields<'_>, common: &Common) -> Result<HookChoice, Fault> {
    let hook = wan.or("hook", common.hook, read_hook)?;
    if hook != HookChoice::Tcx || !common.is_bonded() {
        return Ok(hook);
    }
    let message = "`hook: tcx` cannot be: packets of a bond are taken from a WAN by XDP";
    let fix = "write `hook: auto` or `hook: xdp` for this WAN";
    Err(wan.get("hook").map_or_else(|| wan.fault(message, fix), |at| at.fault(message, fix)))
}

fn read_outside_prefix(at: &Cursor<'_>, inside: Option<Ipv6Net>) -> Result<Ipv6Net, Fault> {
    let prefix = read_ipv6_prefix(at)?;
    let Some(inside) = inside else {
        return Err(at.fault(
            "it has no effect: the prefix of the LAN is not given",
            "add `ipv6_prefix` with the LAN's prefix at the top of the file, or remove this",
        ));
    };
    if prefix.prefix_len() != inside.prefix_len() {
        return Err(at.fault(
            format!(
                "`{prefix}` and the LAN's `{inside}` differ in length: they are translated one to one"
            ),
            format!("use a /{} here and there", inside.prefix_len().max(prefix.prefix_len())),
        ));
    }
    Ok(prefix)
}

/// Rules between a WAN and those before it.
fn check_wan_among(
    wan: &Wan,
    fields: &Fields<'_>,
    others: &[Wan],
    common: &Common,
) -> Result<(), Fault> {
    if others.iter().any(|other| other.name == wan.name) {
        return Err(fields
            .required("name")?
            .fault(format!("two WANs are named `{}`", wan.name), "name one of them otherwise"));
    }
    let Some(prefix) = wan.ipv6_prefix else { return Ok(()) };
    // A server's clients keep their addresses, by whichever WAN they leave.
    if common.role == Role::Server && Some(prefix) == common.inside {
        return Ok(());
    }
    let same = others.iter().find(|other| other.ipv6_prefix == Some(prefix));
    match same {
        Some(other) => Err(fields.required("ipv6_prefix")?.fault(
            format!("`{prefix}` is the prefix of WAN `{}` too", other.name),
            "each WAN needs the prefix that its own provider routes to it",
        )),
        None => Ok(()),
    }
}

fn read_gateway4(at: &Cursor<'_>) -> Result<Gateway<Ipv4Addr>, Fault> {
    read_gateway(at, "192.0.2.1", |address: &Ipv4Addr| {
        !address.is_unspecified()
            && !address.is_loopback()
            && !address.is_multicast()
            && !address.is_broadcast()
    })
}

fn read_gateway6(at: &Cursor<'_>) -> Result<Gateway<Ipv6Addr>, Fault> {
    read_gateway(at, "fe80::1", |address: &Ipv6Addr| {
        !address.is_unspecified() && !address.is_loopback() && !address.is_multicast()
    })
}

fn read_gateway<A: std::str::FromStr>(
    at: &Cursor<'_>,
    example: &str,
    usable: impl Fn(&A) -> bool,
) -> Result<Gateway<A>, Fault> {
    let family = if example.contains(':') { "an IPv6" } else { "an IPv4" };
    at.parsed(&format!("`auto` or {family} gateway"), &format!("auto or {example}"), |text| {
        if text == "auto" {
            return Some(Gateway::Auto);
        }
        text.parse().ok().filter(usable).map(Gateway::Address)
    })
}

/// What becomes of flows when a better WAN is back.
pub(super) fn read_failback(at: &Cursor<'_>) -> Result<Failback, Fault> {
    let example = schema::HOLD_DOWN;
    let words =
        [("stay", Failback::Stay), ("cut", Failback::Cut), ("drain(5m)", Failback::Drain(example))];
    let Ok(text) = at.text("stay") else { return at.word(&words, &[]) };
    let Some(inner) = text.strip_prefix("drain") else { return at.word(&words, &[]) };
    let inner = inner.strip_prefix('(').and_then(|inner| inner.strip_suffix(')'));
    let Some(time) = inner.and_then(units::parse_duration) else {
        return Err(at.fault(
            format!("`{}` does not say for how long flows may stay", at.show()),
            "write it like drain(5m)",
        ));
    };
    at.within(time, &schema::DRAIN, |time| format!("drain({})", units::show_duration(*time)))
        .map(Failback::Drain)
}

/// Every device that has been given a role, by name, with the key that did.
#[derive(Default)]
pub(super) struct Devices(Vec<String>);

impl Devices {
    /// Reads a device name that has no role yet.
    pub(super) fn read(&mut self, at: &Cursor<'_>) -> Result<String, Fault> {
        let text = at.text("wan0")?;
        // What the kernel accepts as a name (dev_valid_name).
        let allowed = |c: char| !c.is_whitespace() && !c.is_control() && c != '/' && c != ':';
        if text.is_empty()
            || text.len() > schema::DEVICE_LENGTH
            || text == "."
            || text == ".."
            || !text.chars().all(allowed)
        {
            return Err(at.fault(
                format!("`{}` cannot be the name of a network device", at.show()),
                format!(
                    "use at most {} characters without spaces, `/` and `:`",
                    schema::DEVICE_LENGTH
                ),
            ));
        }
        if self.has(text) {
            return Err(at.fault(
                format!("device `{text}` already is a LAN port or a WAN"),
                "give each device one role",
            ));
        }
        self.take(text);
        Ok(text.to_owned())
    }

    /// Whether a device has a role.
    pub(super) fn has(&self, device: &str) -> bool {
        self.0.iter().any(|other| other == device)
    }

    /// Gives a device a role.
    pub(super) fn take(&mut self, device: &str) {
        self.0.push(device.to_owned());
    }
}
