//! The packet generator: live frames made by a program of the lab's object and
//! redirected into a device, all of it on one CPU.
//!
//! The kernel runs the whole path (gateway and sink included) in the softirq
//! behind each batch, on the CPU that generates, and gives the time that took
//! per frame: without what others did on that CPU in between, and without the
//! start of the run, which waits for tens of milliseconds (the kernel patches
//! the program into its XDP dispatcher). So packets per second are packets per
//! second of one core, whatever share of it a busy machine leaves us. What a
//! busy machine makes the kernel leave to ksoftirqd is not in that time: 1 % of
//! the kernel's work at a load of 8, half a percent of ours.

use anyhow::{Context as _, Result, anyhow, ensure};
use aya::{Ebpf, TestRun as _, TestRunAttrs, TestRunOptions, maps::xdp::DevMap};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

use super::kernel::{self, HEAD, MAX_FLOWS, SAMPLE_HEAD, Sample, Turn};
use crate::lab::Namespace;

/// Frames that are made before they are flushed: one NAPI budget.
const BATCH: u32 = 64;

/// What was sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Burst {
    /// Frames.
    pub(super) sent: u64,
    /// Time of the core for each, all the way to the sink, in nanoseconds.
    pub(super) each: f64,
}

/// A generator that sends out of one device.
pub(super) struct Generator {
    namespace: Namespace,
    ebpf: Ebpf,
    frame: Vec<u8>,
}

impl Generator {
    /// Loads a generator that sends out of `device`.
    pub(super) fn new(object: &[u8], namespace: &Namespace, device: &str) -> Result<Self> {
        let mut ebpf = kernel::load(object)?;
        kernel::program(&mut ebpf, "generate")?;
        // The index is looked up, by us and by the kernel, in the namespace of
        // the caller.
        namespace.enter(|| {
            let index = nix::net::if_::if_nametoindex(device)
                .with_context(|| format!("no device {device}"))?;
            let map = ebpf.map_mut("OUTPUT").ok_or_else(|| anyhow!("no map OUTPUT"))?;
            let mut output = DevMap::try_from(map)?;
            output.set(0, index, None, 0).with_context(|| format!("cannot send out of {device}"))
        })?;
        Ok(Self { namespace: namespace.clone(), ebpf, frame: Vec::new() })
    }

    /// What to send from now on: the frames of all flows, in turn. They may
    /// differ in their first [`HEAD`] bytes only.
    pub(super) fn aim(&mut self, frames: &[Vec<u8>]) -> Result<()> {
        self.frame = write_heads(&mut self.ebpf, frames)?;
        Ok(())
    }

    /// Has what is behind the heads written every time as well: for a subject that
    /// changes it. To be called after [`Self::aim`].
    pub(super) fn write_whole(&mut self) -> Result<()> {
        let mut sample: Sample = [0; size_of::<Sample>()];
        let room = sample.get_mut(SAMPLE_HEAD..SAMPLE_HEAD + self.frame.len());
        room.context("longer than a sample")?.copy_from_slice(&self.frame);
        sample[..SAMPLE_HEAD].copy_from_slice(&(self.frame.len() as u64).to_ne_bytes());
        kernel::array::<Sample>(&mut self.ebpf, "WHOLE")?.set(0, sample, 0)?;
        Ok(())
    }

    /// Sends `count` frames, as fast as it goes.
    pub(super) fn send(&mut self, count: u32) -> Result<Burst> {
        let before = self.sent()?;
        let Self { namespace, ebpf, frame } = self;
        let program = kernel::program(ebpf, "generate")?;
        let each = namespace.enter(|| {
            take_a_core()?;
            let options = TestRunOptions {
                data_in: Some(frame),
                repeat: count,
                attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
                ..TestRunOptions::default()
            };
            let run = program.test_run(options).context("the kernel does not run live frames")?;
            // It cuts fractions of a nanosecond off.
            Ok(run.duration.as_nanos() as f64 + 0.5)
        })?;
        Ok(Burst { sent: self.sent()? - before, each })
    }

    fn sent(&mut self) -> Result<u64> {
        let turn: Turn = kernel::array(&mut self.ebpf, "TURN")?.get(&0, 0)?;
        Ok(turn[0])
    }
}

/// Fills the maps of `write_head` in the kernel object, and gives the frame to
/// start from.
pub(super) fn write_heads(ebpf: &mut Ebpf, frames: &[Vec<u8>]) -> Result<Vec<u8>> {
    let first = frames.first().context("no frames to send")?;
    ensure!(frames.len() <= MAX_FLOWS, "at most {MAX_FLOWS} flows");
    let mut heads = kernel::array::<[u8; HEAD]>(ebpf, "HEADS")?;
    for (index, frame) in frames.iter().enumerate() {
        ensure!(frame.get(HEAD..) == first.get(HEAD..), "flows differ behind their heads");
        let head = frame.first_chunk::<HEAD>().context("shorter than its head")?;
        heads.set(u32::try_from(index)?, head, 0)?;
    }
    let mut turn = kernel::array::<Turn>(ebpf, "TURN")?;
    let [sent, _] = turn.get(&0, 0)?;
    // The next flow is the lower half of the word, their number the upper.
    turn.set(0, [sent, (frames.len() as u64) << 32], 0)?;
    Ok(first.clone())
}

/// Puts this thread on the last CPU it may use, in front of everything else
/// there.
pub(super) fn take_a_core() -> Result<()> {
    let this = Pid::from_raw(0);
    let allowed = sched_getaffinity(this).context("which CPUs may be used?")?;
    let last = (0..CpuSet::count()).rev().find(|&core| allowed.is_set(core) == Ok(true));
    let mut set = CpuSet::new();
    set.set(last.context("no CPU may be used")?)?;
    sched_setaffinity(this, &set).context("cannot stay on one CPU")?;
    // SAFETY: a plain system call; who 0 is the calling thread.
    let refused = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -20) } != 0;
    ensure!(!refused, "cannot raise the priority: {}", std::io::Error::last_os_error());
    Ok(())
}
