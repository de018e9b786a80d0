//! The data plane under the fuzzer: one that no pin outlives, set up anew for
//! every episode, and run through both forms the way the kernel would.

use bytemuck::Pod;
use mwb_agent::dataplane::{
    CounterRow, DataPlane, Error, Hook, Options, PrefixRule, ProgramId, Programs, Role, Table,
};
use mwb_common::maps::{
    Control, Device, Direction, Family, HANDOVER, Path, Prefix, Selection, hook, index, path_flag,
    prefix_class, role,
};

use crate::view::{Address, LINK};
use crate::world;

/// The loopback device: what a test run comes in through.
const LOOPBACK: u32 = 1;
/// `struct __sk_buff` up to its last field, and where its mark lies.
const SKB_CONTEXT: usize = 192;
const MARK: usize = 8;
/// Return codes of XDP programs.
pub(crate) const XDP_DROP: u32 = 1;
pub(crate) const XDP_PASS: u32 = 2;
pub(crate) const XDP_REDIRECT: u32 = 4;
/// Entries of the tables: few enough that some episodes fill them.
const ENTRIES: (u32, u32) = (2_048, 1_024);

/// Where a packet comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    Lan,
    Wan(u8),
    /// Turned round by the LAN side, as if from that WAN.
    Turned(u8),
}

impl From {
    pub(crate) fn direction(self) -> Direction {
        if self == From::Lan { Direction::Out } else { Direction::In }
    }
}

/// What an episode, or a part of one, runs under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    /// Living paths, a bit each.
    pub(crate) alive: u8,
    /// Paths whose IPv4 next hop is known, and IPv6.
    pub(crate) resolved: [u8; 2],
    /// Of each path; with it goes the address.
    pub(crate) generation: [u8; 2],
    pub(crate) epoch: [u8; 2],
    pub(crate) filtering: u8,
    pub(crate) source_limit: u8,
    pub(crate) by_hash: u8,
    /// Whether ICMP errors have a source to come from.
    pub(crate) answers: u8,
    /// Whether a WAN's own address is known as that WAN's.
    pub(crate) own: u8,
    /// Which frames WANs and LAN take from XDP.
    pub(crate) takes_xdp: u8,
    /// MTU of both paths.
    pub(crate) mtu: u16,
    /// Highest NAT port.
    pub(crate) port_max: u16,
}

/// Lowest NAT port.
pub(crate) const PORT_MIN: u16 = 10_000;

impl Setting {
    /// The words of it, for a file.
    pub(crate) fn words(&self) -> [u16; 15] {
        let Setting { alive, resolved, generation, epoch, .. } = *self;
        [
            alive.into(),
            resolved[0].into(),
            resolved[1].into(),
            generation[0].into(),
            generation[1].into(),
            epoch[0].into(),
            epoch[1].into(),
            self.filtering.into(),
            self.source_limit.into(),
            self.by_hash.into(),
            self.answers.into(),
            self.own.into(),
            self.takes_xdp.into(),
            self.mtu,
            self.port_max,
        ]
    }

    pub(crate) fn of_words(words: [u16; 15]) -> Setting {
        let byte = |at: usize| words[at] as u8;
        Setting {
            alive: byte(0),
            resolved: [byte(1), byte(2)],
            generation: [byte(3), byte(4)],
            epoch: [byte(5), byte(6)],
            filtering: byte(7),
            source_limit: byte(8),
            by_hash: byte(9),
            answers: byte(10),
            own: byte(11),
            takes_xdp: byte(12),
            mtu: words[13],
            port_max: words[14],
        }
    }

    /// The IPv4 address of path 1 or 2.
    pub(crate) fn address4(&self, path: u8) -> [u8; 4] {
        let (base, generation) = match path {
            1 => (world::WAN1, self.generation[0]),
            _ => (world::WAN2, self.generation[1]),
        };
        let [a, b, c, d] = base.octets();
        // Every dial gives another one.
        [a, b, c, d + generation % 4]
    }

    pub(crate) fn path(&self, id: u8) -> Path {
        let base = if id == 1 { world::path1() } else { world::path2() };
        let place = usize::from(id - 1);
        let mut flags = path_flag::PRESENT | path_flag::HAS_V4 | path_flag::HAS_V6;
        for (bits, flag) in
            self.resolved.into_iter().zip([path_flag::NEXT_HOP4, path_flag::NEXT_HOP6])
        {
            if bits & id != 0 {
                flags |= flag;
            }
        }
        Path {
            flags,
            generation: u32::from(self.generation[place]),
            epoch: self.epoch[place],
            address4: self.address4(id),
            mtu: u32::from(self.mtu),
            ..base
        }
    }

    /// The address that ICMP errors to there come from, if any do.
    pub(crate) fn answers_from(&self, from: From, v6: bool) -> Option<Address> {
        let device = self.device(from, hook::TC);
        let mut address = [0; 16];
        if v6 {
            address = device.address6;
        } else {
            address[..4].copy_from_slice(&device.address4);
        }
        (address != [0; 16]).then_some(address)
    }

    /// The device table's entry for packets from there.
    fn device(&self, from: From, hook: u8) -> Device {
        let mut device = match from {
            From::Lan => Device {
                role: role::INSIDE,
                mac: world::LAN_MAC,
                address4: world::GATEWAY.octets(),
                address6: world::GATEWAY6.octets(),
                ..Device::default()
            },
            From::Wan(path) | From::Turned(path) => Device {
                role: role::OUTSIDE,
                path,
                mac: self.path(path).source_mac,
                address4: self.address4(path),
                address6: world::WAN1_6.octets(),
                ..Device::default()
            },
        };
        device.hook = hook;
        device.takes_xdp = self.takes_xdp;
        if self.answers == 0 {
            (device.address4, device.address6) = ([0; 4], [0; 16]);
        }
        device
    }

    fn prefixes4(&self) -> Vec<PrefixRule<std::net::Ipv4Addr>> {
        let mut rules = world::prefixes4();
        rules.retain(|rule| rule.address != world::WAN1 && rule.address != world::WAN2);
        for path in [1, 2] {
            let known = if self.own == 0 { 0 } else { path };
            rules.push(PrefixRule {
                address: self.address4(path).into(),
                length: 32,
                prefix: Prefix { class: prefix_class::LOCAL, path: known, reserved: [0; 2] },
            });
        }
        rules
    }
}

/// What a packet came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Kernel,
    Drop,
    Redirect,
}

/// What became of a packet.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) verdict: Verdict,
    pub(crate) packet: Vec<u8>,
}

/// A data plane and the form that packets meet first.
pub(crate) struct Engine {
    plane: DataPlane,
    form: Hook,
    lan: u32,
    pub(crate) setting: Setting,
    /// What the entry of the loopback device is made for.
    entered: Option<(From, u8)>,
}

impl Engine {
    /// `lan` is the index of the device that inside hosts are behind.
    pub(crate) fn open(form: Hook, lan: u32, setting: Setting) -> Result<Self, String> {
        let (flow_entries, mapping_entries) = ENTRIES;
        let options = Options {
            flow_entries,
            mapping_entries,
            programs: Programs::Steering,
            ..Options::new("fuzz")
        };
        let plane = DataPlane::open_unpinned(&options).map_err(|error| error.to_string())?;
        Ok(Engine { plane, form, lan, setting, entered: None })
    }

    pub(crate) fn form(&self) -> Hook {
        self.form
    }

    /// Forgets every flow.
    pub(crate) fn reset(&mut self) -> Result<(), String> {
        let tables = self.plane.tables();
        empty(tables.flows4())
            .and_then(|()| empty(tables.flows6()))
            .and_then(|()| empty(tables.mappings()))
            .and_then(|()| empty(tables.ports()))
            .and_then(|()| empty(tables.mappings_made()))
            .and_then(|()| empty(tables.contacts()))
            .and_then(|()| empty(tables.fragments()))
            .map_err(|error| error.to_string())
    }

    /// Goes on under `setting`.
    pub(crate) fn apply(&mut self, setting: Setting) -> Result<(), String> {
        self.setting = setting;
        self.entered = None;
        self.write().map_err(|error| error.to_string())
    }

    fn write(&mut self) -> Result<(), Error> {
        let setting = self.setting;
        let plane = &mut self.plane;
        plane.set_control(&Control {
            port_min: PORT_MIN,
            port_max: setting.port_max,
            seed: 1,
            source_limit: setting.source_limit.into(),
            filtering: setting.filtering,
            ..Control::default()
        })?;
        let choice = if setting.by_hash != 0 { index::FLOW_HASH } else { index::COUNTER };
        let mut selection = Selection { index: choice, ..world::selection() };
        for slot in selection.slots.iter_mut().skip(1).step_by(2) {
            *slot = 2;
        }
        let alive: Vec<u8> = [1, 2].into_iter().filter(|path| setting.alive & path != 0).collect();
        for path in [1, 2] {
            plane.set_path(path, &setting.path(path))?;
            let device = setting.device(From::Wan(path), hook::TC);
            plane.set_device(setting.path(path).ifindex, device)?;
        }
        plane.set_device(self.lan, setting.device(From::Lan, hook::TC))?;
        plane.set_liveness(&world::liveness(&alive))?;
        plane.set_selection(Family::V4, &selection)?;
        plane.set_selection(Family::V6, &selection)?;
        plane.set_prefixes(&setting.prefixes4(), &world::prefixes6())
    }

    /// Every counter that is not zero.
    pub(crate) fn counters(&self) -> Result<Vec<CounterRow>, String> {
        self.plane.counters().map_err(|error| error.to_string())
    }

    /// Fragments that wait for the first of their datagram.
    pub(crate) fn waiting(&self) -> Result<u64, String> {
        let waiting = self.plane.tables().waiting(0).map_err(|error| error.to_string())?;
        Ok((waiting.in_time + waiting.late) as u64)
    }

    /// Whether the kernel makes a test run of such a frame: an skb has at least
    /// the header that its EtherType says.
    pub(crate) fn takes(&self, packet: &[u8]) -> bool {
        let least = match packet.get(12..14) {
            _ if self.form == Hook::Xdp => 0,
            Some([0x08, 0x00]) => 20,
            Some([0x86, 0xdd]) => 40,
            _ => 0,
        };
        packet.len() >= LINK + least
    }

    /// Runs a packet to its end: one that the XDP form hands over goes on through
    /// the TC form.
    pub(crate) fn run(&mut self, from: From, packet: &[u8]) -> Result<Outcome, String> {
        if self.form == Hook::Xdp && !matches!(from, From::Turned(_)) {
            let outcome = self.step(from, Hook::Xdp, packet)?;
            let marked = outcome.packet.strip_prefix(&HANDOVER.to_ne_bytes()[..]);
            match marked {
                Some(rest) if outcome.packet.len() == packet.len() + 4 => {
                    if outcome.verdict != Verdict::Kernel {
                        return Err("handed over, and not passed".to_owned());
                    }
                    if rest != packet {
                        return Err(format!("handed over changed: {}", hex(rest)));
                    }
                }
                _ => return Ok(outcome),
            }
        }
        self.step(from, Hook::Tcx, packet)
    }

    fn step(&mut self, from: From, form: Hook, packet: &[u8]) -> Result<Outcome, String> {
        let kind = if form == Hook::Xdp { hook::XDP } else { hook::TC };
        if self.entered != Some((from, kind)) {
            let device = self.setting.device(from, kind);
            self.plane.set_device(LOOPBACK, device).map_err(|error| error.to_string())?;
            self.entered = Some((from, kind));
        }
        let role = if from == From::Lan { Role::Inside } else { Role::Outside };
        let mut context = [0; SKB_CONTEXT];
        let context = if let From::Turned(_) = from {
            context[MARK..MARK + 4].copy_from_slice(&HANDOVER.to_ne_bytes());
            Some(&context[..])
        } else {
            None
        };
        let program = ProgramId::of(role, form).ok_or("no program for it")?;
        let outcome = self
            .plane
            .test_run(program, packet, context, 1)
            .map_err(|error| format!("the kernel refuses to run it: {error}"))?;
        // Of the TC form TC_ACT_SHOT, TC_ACT_UNSPEC, which is -1, TC_ACT_REDIRECT.
        let verdict = match (form, outcome.verdict) {
            (Hook::Xdp, XDP_DROP) | (Hook::Tcx, 2) => Verdict::Drop,
            (Hook::Xdp, XDP_PASS) | (Hook::Tcx, u32::MAX) => Verdict::Kernel,
            (Hook::Xdp, XDP_REDIRECT) | (Hook::Tcx, 7) => Verdict::Redirect,
            (form, other) => return Err(format!("verdict {} of {}", other as i32, form.name())),
        };
        Ok(Outcome { verdict, packet: outcome.packet })
    }
}

fn empty<K: Pod, V: Pod>(table: &Table<K, V>) -> Result<(), Error> {
    let mut keys = Vec::new();
    table.for_each(|key, _| keys.push(*key))?;
    table.remove(&keys).map(drop)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
