//! The maps. Keys and values are `mwb_common::maps`; the sizes here are
//! defaults that the agent may override when it makes them.

use aya_ebpf::{
    btf_maps::{Array, HashMap, LpmTrie, PerCpuArray},
    macros::btf_map,
};
use mwb_common::maps::{
    COUNTER_SLOTS, Control, Counter, DEVICE_SLOTS, Device, FLOW_ENTRIES, Flow, FlowKey4, FlowKey6,
    Liveness, MAPPING_ENTRIES, Mapping, MappingKey, PATH_SLOTS, PREFIX_ENTRIES, Path, PortKey,
    PortOwner, Prefix, Selection,
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
