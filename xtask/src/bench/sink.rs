//! The sink: an XDP program that counts the frames of a benchmark at the end of
//! their way, drops them, and keeps some to be looked at.

use anyhow::{Context as _, Result, anyhow};
use aya::{Ebpf, maps::PerCpuArray};

use super::kernel::{self, SAMPLE_HEAD, SAMPLES, Sample, Sampling};
use crate::lab::Namespace;

/// A sink on one device, for as long as it is held.
pub(super) struct Sink {
    ebpf: Ebpf,
}

impl Sink {
    /// Puts a sink on `device`.
    pub(super) fn new(object: &[u8], namespace: &Namespace, device: &str) -> Result<Self> {
        let mut ebpf = kernel::load(object)?;
        namespace.enter(|| kernel::attach(&mut ebpf, "sink", device))?;
        Ok(Self { ebpf })
    }

    /// Frames counted so far.
    pub(super) fn taken(&self) -> Result<u64> {
        let map = self.ebpf.map("TAKEN").ok_or_else(|| anyhow!("no map TAKEN"))?;
        let taken: PerCpuArray<_, u64> = PerCpuArray::try_from(map)?;
        Ok(taken.get(&0, 0)?.iter().sum())
    }

    /// Forgets the kept frames, and keeps one frame in 2^`shift` from now on.
    pub(super) fn keep_one_in(&mut self, shift: u8) -> Result<()> {
        let sampling: Sampling = [(1 << shift) - 1, u64::from(shift)];
        kernel::array::<Sampling>(&mut self.ebpf, "SAMPLING")?.set(0, sampling, 0)?;
        let mut kept = kernel::array::<Sample>(&mut self.ebpf, "KEPT")?;
        (0..SAMPLES).try_for_each(|slot| kept.set(slot, [0; size_of::<Sample>()], 0))?;
        Ok(())
    }

    /// The kept frames.
    pub(super) fn kept(&mut self) -> Result<Vec<Vec<u8>>> {
        let kept = kernel::array::<Sample>(&mut self.ebpf, "KEPT")?;
        let mut frames = Vec::new();
        for slot in 0..SAMPLES {
            let sample = kept.get(&slot, 0)?;
            let length = sample.first_chunk::<SAMPLE_HEAD>().context("a sample has a length")?;
            let length = usize::try_from(u64::from_ne_bytes(*length))?;
            if length > 0 {
                let frame = sample.get(SAMPLE_HEAD..SAMPLE_HEAD + length);
                frames.push(frame.context("a sample is longer than its slot")?.to_vec());
            }
        }
        Ok(frames)
    }
}
