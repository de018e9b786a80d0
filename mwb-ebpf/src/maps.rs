//! The maps. Keys and values are `mwb_common::maps`; the sizes here are
//! defaults that the agent may override when it makes them.

use crate::{
    bond::{FlowGuard, HOPS_KEPT, Hop, PathGuard, TurnsGuard, Work},
    deliver::Lookup,
    divide::LONGEST,
    nat::Claim,
    opening::Opening,
    policy::Policing,
};
use aya_ebpf::{
    btf_maps::{Array, DevMap, HashMap, LpmTrie, LruHashMap, PerCpuArray, ProgramArray, RingBuf},
    macros::btf_map,
};
use mwb_common::classes::{CLASS_COUNTS as COUNTS, CLASS_ENTRIES, ClassCount, ClassRule};
use mwb_common::maps::{
    BOND_PATHS as PATHS_OF_SESSION, BUCKETS as BUCKETS_OF_SESSION, Bond, BondPath, Bucket, Budget,
    CONTACT_ENTRIES, COUNTER_ENTRIES, Contact, Control, Counters, DEVICE_SLOTS, Device,
    FLOW_ENTRIES, FRAGMENT_ENTRIES, Flow, FlowKey4, FlowKey6, Fragment, HANDED_BYTES, HELD_SLOTS,
    Held, Liveness, MAPPING_ENTRIES, Mapping, MappingKey, OWNER_ENTRIES, Owner, PATH_SLOTS,
    PREFIX_ENTRIES, Path, PathState, PortKey, PortOwner, Prefix, SESSION_SLOTS, SOURCE_ENTRIES,
    Selection, Session, SessionState, TICK_DEVICES, next, slow,
};
use mwb_common::messages::SHARES as SHARES_OF_HANDSHAKES;
use mwb_common::policy::{
    KNOWN_SOURCES, KnownSource, NameBits, Named, NamedAddress, PLACE_ENTRIES,
    POLICY_ADDRESSES as ADDRESSES, POLICY_BANKS, POLICY_GROUPS as GROUPS, POLICY_HITS as HITS,
    POLICY_MACS as MACS, POLICY_NAMES as NAMES, POLICY_PREFIXES, POLICY_RULES as RULES,
    POLICY_SETS as SETS, Policed4, Policed6, PolicyMac, PolicyPlaces, PolicyRule, PolicyState,
    RuleBits, SELECTION_ENTRIES,
};

#[btf_map]
pub(crate) static DEVICES: Array<Device, DEVICE_SLOTS> = Array::new();
#[btf_map]
pub(crate) static CONTROL: Array<Control, 1> = Array::new();
#[btf_map]
pub(crate) static PATHS: Array<Path, PATH_SLOTS> = Array::new();
#[btf_map]
pub(crate) static LIVENESS: Array<Liveness, 1> = Array::new();
#[btf_map]
pub(crate) static SELECTIONS: Array<Selection, SELECTION_ENTRIES> = Array::new();
#[btf_map]
pub(crate) static CURSORS: Array<u64, SELECTION_ENTRIES> = Array::new();
#[btf_map]
pub(crate) static PREFIXES4: LpmTrie<[u8; 4], Prefix, PREFIX_ENTRIES> = LpmTrie::new();
#[btf_map]
pub(crate) static PREFIXES6: LpmTrie<[u8; 16], Prefix, PREFIX_ENTRIES> = LpmTrie::new();
#[btf_map]
pub(crate) static FLOWS4: HashMap<FlowKey4, Flow, FLOW_ENTRIES> = HashMap::new();
#[btf_map]
pub(crate) static FLOWS6: HashMap<FlowKey6, Flow, FLOW_ENTRIES> = HashMap::new();
#[btf_map]
pub(crate) static MAPPINGS: HashMap<MappingKey, Mapping, MAPPING_ENTRIES> = HashMap::new();
#[btf_map]
pub(crate) static PORTS: HashMap<PortKey, PortOwner, MAPPING_ENTRIES> = HashMap::new();
#[btf_map]
pub(crate) static COUNTERS: PerCpuArray<Counters, COUNTER_ENTRIES> = PerCpuArray::new();
#[btf_map]
pub(crate) static MAPPINGS_MADE: HashMap<[u8; 4], u32, SOURCE_ENTRIES> = HashMap::new();
#[btf_map]
pub(crate) static MAPPINGS_ENDED: HashMap<[u8; 4], u32, SOURCE_ENTRIES> = HashMap::new();
#[btf_map]
pub(crate) static CONTACTS: LruHashMap<FlowKey4, Contact, CONTACT_ENTRIES> = LruHashMap::new();
#[btf_map]
pub(crate) static FRAGMENTS: LruHashMap<FlowKey6, Fragment, FRAGMENT_ENTRIES> = LruHashMap::new();
#[btf_map]
pub(crate) static HELD: Array<Held, HELD_SLOTS> = Array::new();
#[btf_map]
pub(crate) static BUDGET: PerCpuArray<Budget, 1> = PerCpuArray::new();
#[btf_map]
pub(crate) static SLOW: ProgramArray<{ slow::PROGRAMS }> = ProgramArray::new();
#[btf_map]
pub(crate) static POLICY: Array<PolicyState, 1> = Array::new();
#[btf_map]
pub(crate) static POLICY_PLACES: Array<PolicyPlaces, PLACE_ENTRIES> = Array::new();
#[btf_map]
pub(crate) static POLICY_MACS: HashMap<PolicyMac, u16, MACS> = HashMap::new();
#[btf_map]
pub(crate) static POLICY_PREFIXES4: LpmTrie<Policed4, u16, POLICY_PREFIXES> = LpmTrie::new();
#[btf_map]
pub(crate) static POLICY_PREFIXES6: LpmTrie<Policed6, u16, POLICY_PREFIXES> = LpmTrie::new();
#[btf_map]
pub(crate) static POLICY_SETS: Array<RuleBits, { POLICY_BANKS * SETS }> = Array::new();
#[btf_map]
pub(crate) static POLICY_RULES: Array<PolicyRule, { POLICY_BANKS * RULES }> = Array::new();
#[btf_map]
pub(crate) static POLICY_HITS: PerCpuArray<u64, HITS> = PerCpuArray::new();
#[btf_map]
pub(crate) static POLICY_ADDRESSES: HashMap<NamedAddress, Named, ADDRESSES> = HashMap::new();
/// The agent's own, like the next: its next run finds them here.
#[btf_map]
pub(crate) static POLICY_GROUPS: Array<NameBits, GROUPS> = Array::new();
#[btf_map]
pub(crate) static POLICY_NAMES: Array<u64, NAMES> = Array::new();
/// What is known of sources; nobody else reads it.
#[btf_map]
pub(crate) static POLICY_SOURCES: PerCpuArray<KnownSource, KNOWN_SOURCES> = PerCpuArray::new();
/// A packet whose rule is asked for.
#[btf_map]
pub(crate) static POLICING: PerCpuArray<Policing, 1> = PerCpuArray::new();
/// A flow that is being opened.
#[btf_map]
pub(crate) static OPENING: PerCpuArray<Opening, 1> = PerCpuArray::new();
#[btf_map]
pub(crate) static XMIT_LOSSES: PerCpuArray<u64, DEVICE_SLOTS> = PerCpuArray::new();
/// A packet that is being divided. Twice as long as the longest: the verifier
/// sees that a piece may begin anywhere in the first half.
#[btf_map]
pub(crate) static PAYLOAD: PerCpuArray<[u8; 2 * LONGEST], 1> = PerCpuArray::new();
/// A look-up in the kernel's routing table.
#[btf_map]
pub(crate) static LOOKUP: PerCpuArray<Lookup, 1> = PerCpuArray::new();
/// A search for a port.
#[btf_map]
pub(crate) static CLAIM: PerCpuArray<Claim, 1> = PerCpuArray::new();

#[btf_map]
pub(crate) static BOND: Array<Bond, 1> = Array::new();
#[btf_map]
pub(crate) static CLASSES: Array<ClassRule, CLASS_ENTRIES> = Array::new();
#[btf_map]
pub(crate) static CLASS_COUNTS: PerCpuArray<ClassCount, COUNTS> = PerCpuArray::new();
#[btf_map]
pub(crate) static SESSIONS: Array<Session, SESSION_SLOTS> = Array::new();
#[btf_map]
pub(crate) static SESSION_STATES: Array<SessionState, SESSION_SLOTS> = Array::new();
#[btf_map]
pub(crate) static SESSION_SELECTIONS: Array<Selection, SESSION_SLOTS> = Array::new();
#[btf_map]
pub(crate) static BOND_PATHS: Array<BondPath, { SESSION_SLOTS * PATHS_OF_SESSION }> = Array::new();
#[btf_map]
pub(crate) static PATH_STATES: Array<PathState, { SESSION_SLOTS * PATHS_OF_SESSION }> =
    Array::new();
#[btf_map]
pub(crate) static PATH_WINDOWS: Array<PathGuard, { SESSION_SLOTS * PATHS_OF_SESSION }> =
    Array::new();
#[btf_map]
pub(crate) static FLOW_WINDOWS: Array<FlowGuard, { SESSION_SLOTS * BUCKETS_OF_SESSION }> =
    Array::new();
#[btf_map]
pub(crate) static BUCKETS: Array<Bucket, { SESSION_SLOTS * BUCKETS_OF_SESSION }> = Array::new();
#[btf_map]
pub(crate) static TURNS: Array<TurnsGuard, { SESSION_SLOTS * BUCKETS_OF_SESSION }> = Array::new();
#[btf_map]
pub(crate) static HANDED: RingBuf<u8, HANDED_BYTES> = RingBuf::new();
#[btf_map]
pub(crate) static LEASE: Array<u64, 1> = Array::new();
#[btf_map]
pub(crate) static OWNERS4: LpmTrie<[u8; 4], Owner, OWNER_ENTRIES> = LpmTrie::new();
#[btf_map]
pub(crate) static OWNERS6: LpmTrie<[u8; 16], Owner, OWNER_ENTRIES> = LpmTrie::new();
#[btf_map]
pub(crate) static TICKS: DevMap<TICK_DEVICES> = DevMap::new();
#[btf_map]
pub(crate) static NEXT: ProgramArray<{ next::PROGRAMS }> = ProgramArray::new();
/// What is put together for a packet of the bond.
#[btf_map]
pub(crate) static WORK: PerCpuArray<Work, 1> = PerCpuArray::new();
/// Handshakes that the agent may be given, by share.
#[btf_map]
pub(crate) static SHARES: PerCpuArray<Budget, SHARES_OF_HANDSHAKES> = PerCpuArray::new();
/// Next hops to the LAN, out of the bond.
#[btf_map]
pub(crate) static HOPS: PerCpuArray<Hop, HOPS_KEPT> = PerCpuArray::new();
