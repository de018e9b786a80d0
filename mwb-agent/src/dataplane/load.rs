//! Loading: maps made or taken over, programs handed to the verifier.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use aya::maps::{MapInfo, MapType};
use aya::programs::{Program, ProgramError, ProgramFd};
use aya::{Ebpf, EbpfLoader, VerifierLogLevel};
use mwb_common::classes::{CLASS_COUNTS, CLASS_ENTRIES, ClassCount, ClassRule};
use mwb_common::maps::{
    BOND_PATHS, BUCKETS, Bond, BondPath, Bucket, Budget, CONTACT_ENTRIES, COUNTER_ENTRIES, Contact,
    Control, Counters, DEVICE_SLOTS, Device, FRAGMENT_ENTRIES, Flow, FlowKey4, FlowKey6, Fragment,
    GuardedFlowWindow, GuardedPathWindow, GuardedTurns, HANDED_BYTES, HELD_SLOTS, Held,
    KernelLayout, Liveness, Mapping, MappingKey, OWNER_ENTRIES, Owner, PATH_SLOTS, PREFIX_ENTRIES,
    Path as WanPath, PathState, PortKey, PortOwner, Prefix, SOURCE_ENTRIES, Selection, Session,
    SessionState, TICK_DEVICES, names, next, slow,
};
use mwb_common::policy::{
    NameBits, Named, NamedAddress, PLACE_ENTRIES, POLICY_ADDRESSES, POLICY_BANKS, POLICY_GROUPS,
    POLICY_HITS, POLICY_MACS, POLICY_NAMES, POLICY_PREFIXES, POLICY_RULES, POLICY_SETS, Policed4,
    Policed6, PolicyMac, PolicyPlaces, PolicyRule, PolicyState, RuleBits, SELECTION_ENTRIES,
};

use super::error::{Error, MapDifference};
use super::pins::Pins;
use super::spec::{Options, ProgramId};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/mwb"));

/// How many lines of the verifier's log an operator gets to see.
const LOG_LINES: usize = 40;
/// Times that a program is loaded at most.
const ATTEMPTS: usize = 5;

/// What a map must look like for this agent.
struct Shape {
    kind: MapType,
    key: usize,
    value: usize,
    entries: u32,
}

fn shape(name: &'static str, options: &Options) -> Result<Shape, Error> {
    fn array<V>(entries: usize) -> Shape {
        Shape {
            kind: MapType::Array,
            key: size_of::<u32>(),
            value: size_of::<V>(),
            entries: u32::try_from(entries).unwrap_or(u32::MAX),
        }
    }
    fn hash<K, V>(entries: u32) -> Shape {
        Shape { kind: MapType::Hash, key: size_of::<K>(), value: size_of::<V>(), entries }
    }
    fn lru<K, V>(entries: usize) -> Shape {
        let entries = u32::try_from(entries).unwrap_or(u32::MAX);
        Shape { kind: MapType::LruHash, ..hash::<K, V>(entries) }
    }
    let slots = options.session_slots;
    let per_path = slots as usize * BOND_PATHS;
    let per_bucket = slots as usize * BUCKETS;
    let sources = u32::try_from(SOURCE_ENTRIES).unwrap_or(u32::MAX);
    let trie = |address: usize, value: usize, entries: usize| Shape {
        kind: MapType::LpmTrie,
        key: size_of::<u32>() + address,
        value,
        entries: u32::try_from(entries).unwrap_or(u32::MAX),
    };
    let prefixes = |address: usize| trie(address, size_of::<Prefix>(), PREFIX_ENTRIES);
    let policed = |address: usize| trie(address, size_of::<u16>(), POLICY_PREFIXES);
    let macs = u32::try_from(POLICY_MACS).unwrap_or(u32::MAX);
    let addresses = u32::try_from(POLICY_ADDRESSES).unwrap_or(u32::MAX);
    let owners = |address: usize| trie(address, size_of::<Owner>(), OWNER_ENTRIES);
    Ok(match name {
        names::DEVICES => array::<Device>(DEVICE_SLOTS),
        names::CONTROL => array::<Control>(1),
        names::PATHS => array::<WanPath>(PATH_SLOTS),
        names::LIVENESS => array::<Liveness>(1),
        names::SELECTIONS => array::<Selection>(SELECTION_ENTRIES),
        names::CURSORS => array::<u64>(SELECTION_ENTRIES),
        names::PREFIXES4 => prefixes(4),
        names::PREFIXES6 => prefixes(16),
        names::FLOWS4 => hash::<FlowKey4, Flow>(options.flow_entries),
        names::FLOWS6 => hash::<FlowKey6, Flow>(options.flow_entries),
        names::MAPPINGS => hash::<MappingKey, Mapping>(options.mapping_entries),
        names::PORTS => hash::<PortKey, PortOwner>(options.mapping_entries),
        names::COUNTERS => {
            Shape { kind: MapType::PerCpuArray, ..array::<Counters>(COUNTER_ENTRIES) }
        }
        names::MAPPINGS_MADE | names::MAPPINGS_ENDED => hash::<[u8; 4], u32>(sources),
        names::CONTACTS => lru::<FlowKey4, Contact>(CONTACT_ENTRIES),
        names::FRAGMENTS => lru::<FlowKey6, Fragment>(FRAGMENT_ENTRIES),
        names::HELD => array::<Held>(HELD_SLOTS),
        names::BUDGET => Shape { kind: MapType::PerCpuArray, ..array::<Budget>(1) },
        names::XMIT_LOSSES => Shape { kind: MapType::PerCpuArray, ..array::<u64>(DEVICE_SLOTS) },
        names::SLOW => Shape { kind: MapType::ProgramArray, ..array::<u32>(slow::PROGRAMS) },
        names::POLICY => array::<PolicyState>(1),
        names::POLICY_PLACES => array::<PolicyPlaces>(PLACE_ENTRIES),
        names::POLICY_MACS => hash::<PolicyMac, u16>(macs),
        names::POLICY_PREFIXES4 => policed(size_of::<Policed4>()),
        names::POLICY_PREFIXES6 => policed(size_of::<Policed6>()),
        names::POLICY_SETS => array::<RuleBits>(POLICY_BANKS * POLICY_SETS),
        names::POLICY_RULES => array::<PolicyRule>(POLICY_BANKS * POLICY_RULES),
        names::POLICY_HITS => Shape { kind: MapType::PerCpuArray, ..array::<u64>(POLICY_HITS) },
        names::POLICY_ADDRESSES => hash::<NamedAddress, Named>(addresses),
        names::POLICY_GROUPS => array::<NameBits>(POLICY_GROUPS),
        names::POLICY_NAMES => array::<u64>(POLICY_NAMES),
        names::BOND => array::<Bond>(1),
        names::CLASSES => array::<ClassRule>(CLASS_ENTRIES),
        names::CLASS_COUNTS => {
            Shape { kind: MapType::PerCpuArray, ..array::<ClassCount>(CLASS_COUNTS) }
        }
        names::SESSIONS => array::<Session>(slots as usize),
        names::SESSION_STATES => array::<SessionState>(slots as usize),
        names::SESSION_SELECTIONS => array::<Selection>(slots as usize),
        names::BOND_PATHS => array::<BondPath>(per_path),
        names::PATH_STATES => array::<PathState>(per_path),
        names::PATH_WINDOWS => array::<GuardedPathWindow>(per_path),
        names::FLOW_WINDOWS => array::<GuardedFlowWindow>(per_bucket),
        names::BUCKETS => array::<Bucket>(per_bucket),
        names::TURNS => array::<GuardedTurns>(per_bucket),
        names::HANDED => {
            Shape { kind: MapType::RingBuf, key: 0, value: 0, ..array::<u32>(HANDED_BYTES) }
        }
        names::LEASE => array::<u64>(1),
        names::OWNERS4 => owners(4),
        names::OWNERS6 => owners(16),
        names::TICKS => Shape { kind: MapType::DevMap, ..array::<[u32; 2]>(TICK_DEVICES) },
        names::NEXT => Shape { kind: MapType::ProgramArray, ..array::<u32>(next::PROGRAMS) },
        other => return Err(Error::Missing(other)),
    })
}

/// In what a pinned map differs from what it must be. aya opens a pinned map
/// without a look at it, and then believes its own definition; so the look is
/// ours.
fn differences(path: &Path, expected: &Shape) -> Result<Vec<MapDifference>, Error> {
    let map = "pinned map";
    let info = MapInfo::from_pin(path).map_err(Error::map(map))?;
    let kind = info.map_type().map_err(Error::map(map))?;
    let properties = [
        ("type", format!("{kind:?}"), format!("{:?}", expected.kind)),
        ("key size", info.key_size().to_string(), expected.key.to_string()),
        ("value size", info.value_size().to_string(), expected.value.to_string()),
        ("max_entries", info.max_entries().to_string(), expected.entries.to_string()),
    ];
    Ok(properties
        .into_iter()
        .filter(|(_, found, expected)| found != expected)
        .map(|(what, found, expected)| MapDifference {
            path: path.to_owned(),
            what,
            found,
            expected,
        })
        .collect())
}

/// Makes or takes over the maps and loads the programs. Without `pins` the
/// maps live as long as the returned object. Nothing is made before all that is
/// pinned has been found fit.
pub(super) fn load(
    options: &Options,
    pins: Option<&Pins>,
    layout: &KernelLayout,
) -> Result<Ebpf, Error> {
    let mut loader = EbpfLoader::new();
    // aya's first attempt is silent at any level; the level is for the second.
    loader.verifier_log_level(VerifierLogLevel::DEBUG);
    loader.override_global(names::KERNEL_LAYOUT, layout, true);
    let mut differing = Vec::new();
    for &name in names::PINNED {
        let expected = shape(name, options)?;
        loader.map_max_entries(name, expected.entries);
        if let Some(pins) = pins {
            let path = pins.map(name);
            if path.exists() {
                differing.extend(differences(&path, &expected)?);
            }
            loader.map_pin_path(name, path);
        }
    }
    if !differing.is_empty() {
        let instance = options.instance.clone();
        return Err(Error::MapsDiffer { instance, differences: differing });
    }
    let mut object = loader.load(OBJECT).map_err(|error| Error::Load(Box::new(error)))?;
    for id in programs().filter(|&id| options.programs.contain(id)) {
        let program = object.program_mut(id.name()).ok_or(Error::Missing(id.name()))?;
        load_program(program).map_err(|error| refusal(id, error))?;
    }
    Ok(object)
}

/// The programs that the object has.
pub(super) fn programs() -> impl Iterator<Item = ProgramId> {
    ProgramId::ALL.into_iter().filter(|id| names::programs::ALL.contains(&id.name()))
}

/// The descriptor of a program that is loaded.
pub(super) fn descriptor(object: &Ebpf, id: ProgramId) -> Result<&ProgramFd, Error> {
    match object.program(id.name()) {
        Some(Program::Xdp(program)) => program.fd(),
        Some(Program::SchedClassifier(program)) => program.fd(),
        Some(_) => Err(ProgramError::UnexpectedProgramType),
        None => return Err(Error::Missing(id.name())),
    }
    .map_err(Error::program(id.name()))
}

fn load_program(program: &mut Program) -> Result<(), ProgramError> {
    insist(|| match program {
        Program::Xdp(xdp) => xdp.load(),
        Program::SchedClassifier(tc) => tc.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    })
}

/// Loads a program again when the verifier has stopped on its way for a signal to this
/// thread (`EAGAIN`): that says nothing of the program.
pub(super) fn insist(load: impl FnMut() -> Result<(), ProgramError>) -> Result<(), ProgramError> {
    tried(load, |error| {
        matches!(error, ProgramError::LoadError { io_error, .. }
            if io_error.kind() == ErrorKind::WouldBlock)
    })
}

fn tried<E>(mut load: impl FnMut() -> Result<(), E>, passes: impl Fn(&E) -> bool) -> Result<(), E> {
    for _ in 1..ATTEMPTS {
        match load() {
            Err(error) if passes(&error) => {}
            done => return done,
        }
    }
    load()
}

fn refusal(id: ProgramId, error: ProgramError) -> Error {
    let ProgramError::LoadError { io_error, verifier_log } = error else {
        return Error::program(id.name())(error);
    };
    Error::Verifier {
        program: id.name().to_owned(),
        kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
            .map_or_else(|_| "of unknown release".to_owned(), |release| release.trim().to_owned()),
        source: io_error,
        log: last_lines(&verifier_log.to_string(), LOG_LINES),
    }
}

fn last_lines(log: &str, count: usize) -> String {
    let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_loaded_again_when_what_was_in_the_way_passes_and_then_only() {
        for (passes, failures, expected) in [
            (true, 0, (true, 1)),
            (true, 2, (true, 3)),
            (true, 4, (true, 5)),
            (true, 5, (false, 5)),
            (false, 1, (false, 1)),
        ] {
            let mut tries = 0;
            let load = || {
                tries += 1;
                if tries <= failures { Err(()) } else { Ok(()) }
            };
            let done = tried(load, |()| passes).is_ok();
            assert_eq!((done, tries), expected, "{passes}, {failures} times");
        }
    }

    #[test]
    fn every_pinned_map_has_a_shape() {
        let options = Options::new("test");
        for &name in names::PINNED {
            assert!(shape(name, &options).is_ok(), "{name} has no shape");
        }
    }

    #[test]
    fn the_log_keeps_its_last_lines() {
        assert_eq!(last_lines("a\n\nb\nc\n", 2), "b\nc");
        assert_eq!(last_lines("", 2), "");
    }
}
