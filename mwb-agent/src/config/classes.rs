//! Classes of service of a bond: what the file says, and what the kernel side is told.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;
use mwb_common::classes::{CLASS_RULES, ClassRule, class, class_test, repair};

use super::class_paths::{Among, read_among};
use super::hours::{Hours, Moment};
use super::policy_read::{World, read_hours};
use super::prefix::{check_host_bits, read_net};
use super::reader::{Cursor, Fault, Fields};
use super::schema;
use super::terms::{
    DSCPS, PROTOCOLS, WITH_PORTS, read_dscp, read_protocol, read_range, show_range, word_of,
};

#[cfg(test)]
mod tests;

/// What packets are treated unlike others, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classes {
    /// The first that matches says the class.
    pub rules: Vec<ClassSpec>,
    /// Rate in bit/s of copies that a metered path carries.
    pub metered_copies: u64,
}

impl Default for Classes {
    fn default() -> Self {
        Self { rules: Vec::new(), metered_copies: METERED_COPIES }
    }
}

/// Calls of one or two, and names.
const METERED_COPIES: u64 = 200_000;

impl Classes {
    /// Bits of [`repair`] that any rule has.
    #[must_use]
    pub fn repairs(&self) -> u8 {
        self.rules.iter().fold(0, |all, rule| all | rule.repair)
    }

    /// With what counts at a moment; of a machine that does not tell the time, no rule that
    /// depends on it.
    #[must_use]
    pub fn at(&self, now: Option<Moment>) -> Self {
        let mut classes = self.clone();
        for rule in &mut classes.rules {
            rule.counts = rule.time.is_none_or(|time| now.is_some_and(|now| time.has(now)));
        }
        classes
    }
}

/// Which packets have a class. The peer is one end of a packet's flow, either of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassSpec {
    /// One of [`class`].
    pub class: u8,
    /// Bits of [`repair`].
    pub repair: u8,
    /// The peer's address.
    pub peer: Option<IpNet>,
    /// The peer's port.
    pub port: Option<RangeInclusive<u16>>,
    /// IP protocol.
    pub protocol: Option<u8>,
    /// Differentiated services code point.
    pub dscp: Option<u8>,
    /// Length of the packet in bytes from its IP header on.
    pub length: Option<RangeInclusive<u16>>,
    /// The paths that they go by, if not by any.
    pub among: Option<Among>,
    /// When it counts, if not always.
    pub time: Option<Hours>,
    /// Whether it does now; as it is read, it does.
    pub counts: bool,
}

impl ClassSpec {
    /// As the kernel side reads it. `id` says which path a WAN has.
    #[must_use]
    pub fn rule(&self, id: impl Fn(&str) -> Option<u8>) -> ClassRule {
        let mut rule = ClassRule { class: self.class, repair: self.repair, ..ClassRule::ALL };
        rule.paths = self.among.as_ref().map_or(0, |among| among.bits(id));
        if let Some(peer) = self.peer {
            let (address, mask) = match peer {
                IpNet::V4(net) => (padded(net.network().octets()), padded(net.netmask().octets())),
                IpNet::V6(net) => (net.network().octets(), net.netmask().octets()),
            };
            (rule.address, rule.mask) = (bytemuck::cast(address), bytemuck::cast(mask));
            rule.family = if peer.addr().is_ipv6() { 6 } else { 4 };
            rule.tests |= class_test::FAMILY;
        }
        if let Some(port) = &self.port {
            rule.ports = [*port.start(), *port.end()];
            rule.tests |= class_test::PORT;
        }
        if let Some(protocol) = self.protocol {
            rule.protocol = protocol;
            rule.tests |= class_test::PROTOCOL;
        }
        if let Some(dscp) = self.dscp {
            rule.dscp = dscp;
            rule.tests |= class_test::DSCP;
        }
        if let Some(length) = &self.length {
            rule.lengths = [*length.start(), *length.end()];
        }
        if !self.counts {
            rule.tests |= class_test::NEVER;
        }
        rule
    }

    /// What a rule of the kernel side that counts was made of, but for its time. `name` says
    /// which WAN has a path, at a gateway.
    #[must_use]
    pub fn of(rule: &ClassRule, name: impl Fn(u8) -> Option<String>) -> Self {
        let asked = |test: u8| rule.tests & test != 0;
        let (address, mask): ([u8; 16], [u8; 16]) =
            (bytemuck::cast(rule.address), bytemuck::cast(rule.mask));
        let length = u8::try_from(u128::from_be_bytes(mask).leading_ones()).unwrap_or(128);
        let peer = if rule.family == 4 {
            let [a, b, c, d, ..] = address;
            IpNet::new(IpAddr::from([a, b, c, d]), length)
        } else {
            IpNet::new(IpAddr::from(address), length)
        };
        let range = |[from, to]: [u16; 2]| from..=to;
        Self {
            class: rule.class,
            repair: rule.repair,
            peer: peer.ok().filter(|_| asked(class_test::FAMILY)),
            port: asked(class_test::PORT).then(|| range(rule.ports)),
            protocol: asked(class_test::PROTOCOL).then_some(rule.protocol),
            dscp: asked(class_test::DSCP).then_some(rule.dscp),
            length: (rule.lengths != ClassRule::ALL.lengths).then(|| range(rule.lengths)),
            among: Among::of(rule.paths, name),
            time: None,
            counts: true,
        }
    }

    /// Name of the class.
    #[must_use]
    pub fn name(&self) -> &'static str {
        class_name(self.class)
    }
}

/// The word in the file for one of [`class`].
#[must_use]
pub fn class_name(class: u8) -> &'static str {
    class::NAMES.get(usize::from(class)).copied().unwrap_or("unknown")
}

fn padded([a, b, c, d]: [u8; 4]) -> [u8; 16] {
    [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
}

/// As it is written in the file.
impl fmt::Display for ClassSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{class: {}", self.name())?;
        let repairs = REPAIRS.iter().filter(|(_, bit)| self.repair & bit != 0);
        match repairs.map(|(word, _)| *word).collect::<Vec<_>>().as_slice() {
            [] => {}
            [one] => write!(f, ", repair: {one}")?,
            several => write!(f, ", repair: [{}]", several.join(", "))?,
        }
        if let Some(peer) = self.peer {
            write!(f, ", peer: {peer}")?;
        }
        if let Some(protocol) = self.protocol {
            write!(f, ", protocol: {}", word_of(&PROTOCOLS, protocol))?;
        }
        if let Some(port) = &self.port {
            write!(f, ", port: {}", show_range(port))?;
        }
        if let Some(dscp) = self.dscp {
            write!(f, ", dscp: {}", word_of(&DSCPS, dscp))?;
        }
        if let Some(length) = &self.length {
            write!(f, ", length: {}", show_range(length))?;
        }
        if let Some(among) = &self.among {
            write!(f, ", {among}")?;
        }
        if let Some(time) = &self.time {
            write!(f, ", time: {time}")?;
        }
        f.write_str("}")
    }
}

/// Words for repairs, in the order in which they are tried.
const REPAIRS: [(&str, u8); 2] = [("fec", repair::FEC), ("retransmit", repair::RETRANSMIT)];
/// The section `classes`.
pub(super) fn read_classes(classes: &Fields<'_>, world: &World<'_>) -> Result<Classes, Fault> {
    let rate = |at: &Cursor<'_>| at.rate(&schema::METERED_COPIES);
    Ok(Classes {
        rules: classes.or("rules", Vec::new(), |at| read_rules(at, world))?,
        metered_copies: classes.or("metered_copies", METERED_COPIES, rate)?,
    })
}

fn read_rules(at: &Cursor<'_>, world: &World<'_>) -> Result<Vec<ClassSpec>, Fault> {
    let items = at.items("[{class: duplicate, protocol: udp, port: 5060-5061}]")?;
    if items.len() > CLASS_RULES {
        return Err(
            at.fault(format!("{} rules", items.len()), format!("give at most {CLASS_RULES}"))
        );
    }
    let mut rules: Vec<ClassSpec> = Vec::with_capacity(items.len());
    for item in &items {
        let spec = read_rule(&item.fields(&schema::CLASS_RULE)?, world)?;
        let same = |other: &&ClassSpec| {
            let (class, repair, among) = (spec.class, spec.repair, spec.among.clone());
            // One without counts at all of them.
            let time = other.time.or(spec.time);
            ClassSpec { class, repair, among, time, ..(*other).clone() } == spec
        };
        if let Some(other) = rules.iter().find(same) {
            return Err(item.fault(
                format!("what it matches, `{other}` has before it"),
                "remove one of the two",
            ));
        }
        rules.push(spec);
    }
    Ok(rules)
}

fn read_rule(rule: &Fields<'_>, world: &World<'_>) -> Result<ClassSpec, Fault> {
    let class = read_class(rule.required("class")?)?;
    let repair = match rule.get("repair") {
        None => 0,
        Some(at) if class == class::DUPLICATE => {
            return Err(at.key_fault(
                "what is sent twice is not repaired",
                "remove it, or write another class",
            ));
        }
        Some(at) if class == class::BLOCK => {
            return Err(at.key_fault("what is dropped is not repaired", "remove it"));
        }
        Some(at) => read_repair(at)?,
    };
    let among = read_among(rule, (class, repair), world)?;
    let peer = rule.get("peer").map(read_peer).transpose()?;
    let protocol = rule.get("protocol").map(read_protocol).transpose()?;
    let dscp = rule.get("dscp").map(read_dscp).transpose()?;
    let port = match rule.get("port") {
        None => None,
        Some(at) => {
            if let Some(protocol) = protocol.filter(|protocol| !WITH_PORTS.contains(protocol)) {
                return Err(at.key_fault(
                    format!("`{}` has no ports", word_of(&PROTOCOLS, protocol)),
                    "remove it, or write `protocol: udp` or `tcp`",
                ));
            }
            Some(read_range(at, &schema::PORT, "a port or a range of ports", "5060-5061")?)
        }
    };
    let length = match rule.get("length") {
        None => None,
        Some(at) => Some(read_range(at, &schema::LENGTH, "a range of bytes", "20-200")?),
    };
    let time = read_hours(rule, &schema::CLASS_TIME)?;
    Ok(ClassSpec { class, repair, peer, port, protocol, dscp, length, among, time, counts: true })
}

fn read_class(at: &Cursor<'_>) -> Result<u8, Fault> {
    let word = at.show();
    if REPAIRS.iter().any(|(repair, _)| *repair == word) {
        return Err(at.fault(
            format!("`{word}` is no class, it is a repair"),
            format!("write `repair: {word}` beside another class, like `class: auto`"),
        ));
    }
    let words = [class::DUPLICATE, class::STRIPE, class::PIN, class::AUTO, class::BLOCK];
    at.word(&words.map(|number| (class::NAMES[usize::from(number)], number)), &[])
}

/// A word, or a list of words.
fn read_repair(at: &Cursor<'_>) -> Result<u8, Fault> {
    if !at.is_list() {
        return at.word(&REPAIRS, &[]);
    }
    let items = at.items("[fec, retransmit]")?;
    if items.is_empty() {
        return Err(at.fault(
            "the list is empty",
            "write `fec`, `retransmit` or `[fec, retransmit]`, or remove the key",
        ));
    }
    let mut bits = 0;
    for item in &items {
        let bit = item.word(&REPAIRS, &[])?;
        if bits & bit != 0 {
            let word = item.show();
            return Err(item.fault(format!("`{word}` is given twice"), "remove one of the two"));
        }
        bits |= bit;
    }
    Ok(bits)
}

fn read_peer(at: &Cursor<'_>) -> Result<IpNet, Fault> {
    let prefix = read_net(at, "a prefix", "203.0.113.0/24")?;
    check_host_bits(at, prefix)?;
    Ok(prefix)
}
