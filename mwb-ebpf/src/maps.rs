//! The maps. Keys and values are `mwb_common::maps`; the sizes here are
//! defaults that the agent may override when it makes them.

use crate::{deliver::Lookup, divide::LONGEST, nat::Claim, opening::Opening};
use aya_ebpf::{
    btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, ProgramArray},
    macros::btf_map,
};
use mwb_common::maps::{
    Budget, CONTACT_ENTRIES, COUNTER_SLOTS, Contact, Control, Counter, DEVICE_SLOTS, Device,
    FLOW_ENTRIES, FRAGMENT_ENTRIES, Flow, FlowKey4, FlowKey6, Fragment, HELD_SLOTS, Held, Liveness,
    MAPPING_ENTRIES, Mapping, MappingKey, PATH_SLOTS, PREFIX_ENTRIES, Path, PortKey, PortOwner,
    Prefix, SOURCE_ENTRIES, Selection, slow,
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
pub(crate) static SELECTIONS: Array<Selection, 2> = Array::new();
#[btf_map]
pub(crate) static CURSORS: Array<u64, 2> = Array::new();
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
pub(crate) static COUNTERS: PerCpuArray<Counter, COUNTER_SLOTS> = PerCpuArray::new();
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
