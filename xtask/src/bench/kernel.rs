//! The kernel object `lab`: its maps as they lie in memory, and how it is
//! loaded. The twin of `mwb-ebpf/src/bin/lab.rs`, whose numbers these are.

use anyhow::{Context as _, Result, anyhow};
use aya::{
    Ebpf, Pod,
    maps::{Array, MapData, ProgramArray},
    programs::{ProgramError, Xdp, XdpMode},
};

/// Bytes of a frame that differ between flows, and the least length of one.
pub(super) const HEAD: usize = 64;
/// Most flows of a generator.
pub(super) const MAX_FLOWS: usize = 65_536;
/// What the payload of every frame begins with; the flow's number follows, in
/// network byte order.
pub(super) const MAGIC: [u8; 4] = *b"mwb!";
/// Frames that the sink can keep.
pub(super) const SAMPLES: u32 = 1024;
/// A kept frame: its length, then its bytes.
pub(super) type Sample = [u8; 1536];
/// Where a kept frame's bytes begin.
pub(super) const SAMPLE_HEAD: usize = 8;
/// Frames sent so far; number of the next flow and of all flows as two halves.
pub(super) type Turn = [u64; 2];
/// Mask and shift of the sink's running number.
pub(super) type Sampling = [u64; 2];

/// Verdicts, as the kernel numbers them.
pub(super) const XDP_PASS: u32 = 2;
/// See [`XDP_PASS`].
pub(super) const XDP_REDIRECT: u32 = 4;

/// Loads the object; its maps and programs live as long as the handle.
pub(super) fn load(object: &[u8]) -> Result<Ebpf> {
    Ebpf::load(object).context("the kernel refuses the lab's object")
}

/// Makes a program of the object ready to run.
pub(super) fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    let program = ebpf.program_mut(name).ok_or_else(|| anyhow!("no program {name}"))?;
    let program: &mut Xdp = program.try_into().context("the lab's programs are XDP")?;
    match program.load() {
        Ok(()) | Err(ProgramError::AlreadyLoaded) => Ok(program),
        Err(error) => Err(error).with_context(|| format!("the kernel refuses program {name}")),
    }
}

/// Attaches a program of the object to a device of the current namespace, for
/// as long as the object is held. Only native XDP: generic XDP would measure
/// something else.
pub(super) fn attach(ebpf: &mut Ebpf, name: &str, device: &str) -> Result<()> {
    program(ebpf, name)?
        .attach(device, XdpMode::Driver)
        .with_context(|| format!("cannot attach {name} to {device}"))
        .map(drop)
}

/// A map of the object that is an array.
pub(super) fn array<'a, V: Pod>(
    ebpf: &'a mut Ebpf,
    name: &str,
) -> Result<Array<&'a mut MapData, V>> {
    let map = ebpf.map_mut(name).ok_or_else(|| anyhow!("no map {name}"))?;
    Array::try_from(map).with_context(|| format!("{name} is not what it was"))
}

/// The map of the object that holds a program.
pub(super) fn programs<'a>(
    ebpf: &'a mut Ebpf,
    name: &str,
) -> Result<ProgramArray<&'a mut MapData>> {
    let map = ebpf.map_mut(name).ok_or_else(|| anyhow!("no map {name}"))?;
    ProgramArray::try_from(map).with_context(|| format!("{name} is not what it was"))
}
