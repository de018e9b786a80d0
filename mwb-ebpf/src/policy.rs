//! The policy rule that a new flow falls under. Only asked when a flow is opened: what is
//! open goes on as it began.

use core::ptr;

use aya_ebpf::maps::lpm_trie::Key;
use bytemuck::{Pod, Zeroable};
use mwb_common::{
    maps::{Family, FlowKey4, FlowKey6},
    parse::ETHERNET,
    policy::{
        KNOWN_SOURCES, KnownSource, NamedAddress, OUTLETS, PLACES_PER_ENTRY, POLICY_GROUPS,
        POLICY_RULES as RULES, POLICY_SETS as SETS, Policed4, Policed6, PolicyMac, PolicyRule,
        PolicyState, Properties, RuleBits, SPACE_BITS, Side, Tables, action, first_rule,
        known_source, place, space,
    },
    reason::Reason,
};

use crate::{
    frame::{Frame, opaque},
    maps::{
        POLICING, POLICY, POLICY_ADDRESSES, POLICY_HITS, POLICY_MACS, POLICY_PLACES,
        POLICY_PREFIXES4, POLICY_PREFIXES6, POLICY_RULES, POLICY_SETS, POLICY_SOURCES,
    },
    path::{Place, now},
};

/// A packet whose rule is asked for, and the rules that are still in question. In a map:
/// a set is a quarter of the stack.
#[repr(C, align(8))]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(crate) struct Policing {
    left: RuleBits,
    state: PolicyState,
    destination: NamedAddress,
    packet: Properties,
    reserved: u32,
}

impl Policing {
    #[inline(always)]
    fn bank(&self) -> u32 {
        self.state.bank as u32 & 1
    }
}

/// What a rule wants, as a global function can say it: see [`PolicyRule`].
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Wanted(u32);

/// There is no rule.
pub(crate) const NONE: Wanted = Wanted(0);

impl Wanted {
    /// What a global function was given.
    #[inline(always)]
    pub(crate) fn of(said: u32) -> Self {
        Self(said)
    }

    /// The inverse.
    #[inline(always)]
    pub(crate) fn said(self) -> u32 {
        self.0
    }

    #[inline(always)]
    fn rule(self) -> PolicyRule {
        bytemuck::cast(self.0)
    }

    /// The outlet, below [`OUTLETS`].
    #[inline(always)]
    pub(crate) fn outlet(self) -> u8 {
        self.rule().outlet & (OUTLETS as u8 - 1)
    }

    /// Whether it lets the flow be opened; counts it if not.
    #[inline(always)]
    pub(crate) fn may_open(self) -> Result<(), Reason> {
        if self.rule().action == action::BLOCK {
            self.count();
            return Err(Reason::PolicyBlocked);
        }
        Ok(())
    }

    /// Counts a flow that was opened, or a packet that was blocked, under its rule.
    #[inline(always)]
    pub(crate) fn count(self) {
        let rule = self.rule();
        if rule.action == action::NONE {
            return;
        }
        if let Some(hits) = POLICY_HITS.get_ptr_mut(rule.hits as u32) {
            // SAFETY: a per-CPU value, and programs do not preempt each other.
            unsafe { *hits += 1 };
        }
    }
}

/// What the rules want with an IPv4 packet that may open a flow to a place. Of one that is
/// not for a WAN they are not asked: there may be many, and all come here.
#[inline(always)]
pub(crate) fn rule4<F: Frame>(frame: &F, key: &FlowKey4, to: Place) -> Result<Wanted, Reason> {
    let Some(policing) = begin(frame, to) else { return Ok(NONE) };
    let [_, tos]: [u8; 2] = frame.read(ETHERNET).ok_or(Reason::Malformed)?;
    policing.packet.dscp = tos >> 2;
    Ok(Wanted(policy4(key)))
}

/// The same of IPv6.
#[inline(always)]
pub(crate) fn rule6<F: Frame>(frame: &F, key: &FlowKey6, to: Place) -> Result<Wanted, Reason> {
    let Some(policing) = begin(frame, to) else { return Ok(NONE) };
    let [high, low]: [u8; 2] = frame.read(ETHERNET).ok_or(Reason::Malformed)?;
    // Version, then the traffic class, of which the code point is the upper six bits.
    policing.packet.dscp = (high << 2 | low >> 6) & 63;
    Ok(Wanted(policy6(key)))
}

/// Room for a question, if there are rules.
#[inline(always)]
fn begin<F: Frame>(frame: &F, to: Place) -> Option<&'static mut Policing> {
    let state = POLICY.get_ptr(0)?.cast::<u64>();
    // SAFETY: the one word of a map's value, which the agent writes whole.
    let state: PolicyState = bytemuck::cast(unsafe { ptr::read_volatile(state) });
    if state.words == 0 || !matches!(to, Place::Wan(_)) {
        return None;
    }
    let policing = room()?;
    policing.state = state;
    policing.packet.ifindex = frame.ingress();
    policing.packet.mark = frame.mark();
    policing.packet.mac = frame.read(6)?;
    Some(policing)
}

#[inline(always)]
fn room() -> Option<&'static mut Policing> {
    let policing = POLICING.get_ptr_mut(0)?;
    // SAFETY: a per-CPU value, programs do not preempt each other, and nobody keeps it
    // beyond the answer.
    Some(unsafe { &mut *policing })
}

/// What the first rule that matches wants, see [`Wanted`]. A global function, like the
/// next ones: the verifier walks it once. Called before the flow is opened and not while
/// it is: together they would be too much for the stack.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn policy4(key: *const FlowKey4) -> u32 {
    // SAFETY: the caller passes a key on its stack.
    let Some(key) = (unsafe { key.as_ref() }) else { return 0 };
    if let Some(policing) = room() {
        policing.destination = NamedAddress::v4(key.destination);
    }
    find(InKernel {
        key,
        protocol: key.protocol,
        ports: (key.source_port, key.destination_port),
        bank: 0,
        asks: 0,
        generation: 0,
    })
}

/// The same of IPv6.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn policy6(key: *const FlowKey6) -> u32 {
    // SAFETY: the caller passes a key on its stack.
    let Some(key) = (unsafe { key.as_ref() }) else { return 0 };
    if let Some(policing) = room() {
        policing.destination = NamedAddress(key.destination);
    }
    find(InKernel {
        key,
        protocol: key.protocol,
        ports: (key.source_port, key.destination_port),
        bank: 0,
        asks: 0,
        generation: 0,
    })
}

#[inline(always)]
fn find<K: Ends>(mut tables: InKernel<'_, K>) -> u32 {
    let Some(policing) = room() else { return 0 };
    (tables.bank, tables.asks) = (policing.bank(), policing.state.asks);
    tables.generation = policing.state.generation;
    policing.packet.protocol = tables.protocol;
    policing.packet.source_port = u16::from_be_bytes(tables.ports.0);
    policing.packet.port = u16::from_be_bytes(tables.ports.1);
    let packet = policing.packet;
    let Some(rule) = first_rule(&mut tables, &packet) else { return 0 };
    let rule = tables.bank * RULES as u32 + rule;
    POLICY_RULES.get(rule).map_or(0, |rule| bytemuck::cast(*rule))
}

/// Begins with the rules that two sets have in common; 0: there are none.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn policy_begin(first: u32, second: u32) -> u32 {
    let Some(policing) = room() else { return 0 };
    let bank = policing.bank();
    let (Some(first), Some(second)) = (set(bank, first), set(bank, second)) else { return 0 };
    policing.left.common(first, second, policing.state.words as u32) as u32
}

/// Keeps of the rules in question those of a set; 0: none is left.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn policy_narrow(number: u32) -> u32 {
    let Some(policing) = room() else { return 0 };
    let Some(bits) = set(policing.bank(), number) else { return 0 };
    policing.left.narrow(bits, policing.state.words as u32) as u32
}

/// A set of a bank.
#[inline(always)]
fn set(bank: u32, number: u32) -> Option<&'static RuleBits> {
    POLICY_SETS.get(bank * SETS as u32 + (number & (SETS as u32 - 1)))
}

/// The first rule that is left, and one; 0: none.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn policy_first() -> u32 {
    let Some(policing) = POLICING.get(0) else { return 0 };
    policing.left.first(policing.state.words as u32).map_or(0, |rule| rule + 1)
}

/// The group of names that the destination is of now. In a map: its address is too much
/// for the stack.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn policy_group() -> u32 {
    let Some(policing) = POLICING.get(0) else { return 0 };
    let Some(named) = POLICY_ADDRESSES.get_ptr(&policing.destination) else { return 0 };
    // SAFETY: one word of an entry, which is written whole; it may become another
    // address's at this moment, for one flow.
    let named = unsafe { *named };
    named.group_at(now()) as u32 & (POLICY_GROUPS as u32 - 1)
}

/// Addresses of a flow, asked for in the prefix tables.
trait Ends {
    /// What it is an address of.
    const FAMILY: Family;
    /// The source, for [`KnownSource::address`].
    fn source(&self) -> [u64; 2];
    /// The set of one of them.
    fn set(&self, space: u32, side: Side) -> u16;
}

impl Ends for FlowKey4 {
    const FAMILY: Family = Family::V4;

    #[inline(always)]
    fn source(&self) -> [u64; 2] {
        bytemuck::cast(NamedAddress::v4(self.source))
    }

    #[inline(always)]
    fn set(&self, space: u32, side: Side) -> u16 {
        let address = if side as u8 == 0 { self.source } else { self.destination };
        let key = Key::new(SPACE_BITS + 32, Policed4 { space, address });
        POLICY_PREFIXES4.get(&key).map_or(0, |set| *set)
    }
}

impl Ends for FlowKey6 {
    const FAMILY: Family = Family::V6;

    #[inline(always)]
    fn source(&self) -> [u64; 2] {
        bytemuck::cast(self.source)
    }

    #[inline(always)]
    fn set(&self, space: u32, side: Side) -> u16 {
        let address = if side as u8 == 0 { self.source } else { self.destination };
        let key = Key::new(SPACE_BITS + 128, Policed6 { space, address });
        POLICY_PREFIXES6.get(&key).map_or(0, |set| *set)
    }
}

/// The tables of the bank in use.
struct InKernel<'a, K> {
    key: &'a K,
    protocol: u8,
    ports: ([u8; 2], [u8; 2]),
    bank: u32,
    asks: u16,
    generation: u32,
}

impl<K: Ends> Tables for InKernel<'_, K> {
    #[inline(always)]
    fn asks(&self) -> u16 {
        self.asks
    }

    #[inline(always)]
    fn prefix(&mut self, side: Side) -> u16 {
        let space = space(self.bank, side);
        if side as u8 == Side::Destination as u8 {
            return self.key.set(space, side);
        }
        let address = self.key.source();
        let place = known_source(address) & (KNOWN_SOURCES as u32 - 1);
        let Some(known) = POLICY_SOURCES.get_ptr_mut(place) else { return 0 };
        // SAFETY: a per-CPU value, and programs do not preempt each other.
        let known = unsafe { &mut *known };
        let family = K::FAMILY as u16;
        if known.generation != self.generation || known.address != address || known.family != family
        {
            let (generation, set) = (self.generation, self.key.set(space, side));
            *known = KnownSource { address, generation, set, family };
        }
        known.set
    }

    #[inline(always)]
    fn group(&mut self) -> u32 {
        policy_group()
    }

    #[inline(always)]
    fn place(&mut self, place: u32) -> u16 {
        let place = self.bank * place::ALL + place;
        let Some(places) = POLICY_PLACES.get(place / PLACES_PER_ENTRY as u32) else { return 0 };
        places.sets[opaque(place) as usize & (PLACES_PER_ENTRY - 1)]
    }

    #[inline(always)]
    fn mac(&mut self, mac: [u8; 6]) -> Option<u16> {
        let set = POLICY_MACS.get_ptr(PolicyMac { mac, bank: self.bank as u8, reserved: 0 })?;
        // SAFETY: a plain field of an entry that may become another's: the agent changes
        // only the bank that is not in use.
        Some(unsafe { *set })
    }

    #[inline(always)]
    fn begin(&mut self, [first, second]: [u16; 2]) -> bool {
        policy_begin(first as u32, second as u32) != 0
    }

    #[inline(always)]
    fn narrow(&mut self, set: u16) -> bool {
        policy_narrow(set as u32) != 0
    }

    #[inline(always)]
    fn first(&self) -> Option<u32> {
        policy_first().checked_sub(1)
    }
}
