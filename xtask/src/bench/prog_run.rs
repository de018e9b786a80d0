//! Nanoseconds per packet of one attached program, by test runs. A program that
//! translates changes its packet, so each turn begins with a program of the
//! lab's object that writes the head anew and tail-calls the one under
//! measurement; the floor is the same with a program that does nothing.

use anyhow::{Context as _, Result, ensure};
use aya::{
    TestRun as _, TestRunOptions,
    programs::{ProgramFd, Xdp, loaded_programs},
};

use super::{
    generator::{take_a_core, write_heads},
    kernel::{self, XDP_PASS, XDP_REDIRECT},
};
use crate::lab::Namespace;

/// Turns of one test run, and test runs, of which the fastest counts: noise only adds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Repeat {
    pub(super) turns: u32,
    pub(super) runs: usize,
}

/// Some tens of milliseconds a run.
const LONG: Repeat = Repeat { turns: 200_000, runs: 9 };

/// What a program costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Cost {
    /// Nanoseconds per packet with everything around the program.
    pub(super) total: f64,
    /// What of it is not the program's.
    pub(super) floor: f64,
}

/// A device with the program that is attached to it.
pub(super) struct Place {
    /// Interface index.
    pub(super) index: u32,
    program: u32,
}

impl Place {
    /// Looks a device up.
    pub(super) fn find(namespace: &Namespace, device: &str) -> Result<Self> {
        let link = namespace.link_json(device)?;
        let number = |place: &str| {
            let number = link.pointer(place).and_then(serde_json::Value::as_u64);
            let number = number.with_context(|| format!("{device} has no {place}"))?;
            u32::try_from(number).context("larger than the kernel counts")
        };
        Ok(Self { index: number("/ifindex")?, program: number("/xdp/prog/id")? })
    }

    /// Its program.
    pub(super) fn program(&self) -> Result<ProgramFd> {
        program_by_id(self.program)
    }

    /// The context of a test run with a frame of `length` bytes that came in here.
    pub(super) fn context(&self, length: usize) -> Result<Vec<u8>> {
        context(length, self.index)
    }
}

/// Measures the XDP program attached to `device` with `frames`, as they come in
/// there, in turn. It must redirect them.
pub(super) fn measure(
    object: &[u8],
    namespace: &Namespace,
    device: &str,
    frames: &[Vec<u8>],
) -> Result<Cost> {
    let mut ebpf = kernel::load(object)?;
    let empty = kernel::program(&mut ebpf, "pass")?.fd()?.try_clone()?;
    let place = Place::find(namespace, device)?;
    let subject = place.program()?;
    let frame = write_heads(&mut ebpf, frames)?;
    let mut run = |program: &ProgramFd, verdict: u32| {
        kernel::programs(&mut ebpf, "SUBJECT")?.set(0, program, 0)?;
        let rerun = kernel::program(&mut ebpf, "rerun")?;
        namespace.enter(|| fastest(rerun, &frame, place.index, verdict, LONG))
    };
    let total = run(&subject, XDP_REDIRECT)?;
    let floor = run(&empty, XDP_PASS)?;
    Ok(Cost { total, floor })
}

/// Nanoseconds per turn of the fastest test run, on a device of the current
/// namespace.
pub(super) fn fastest(
    program: &Xdp,
    frame: &[u8],
    index: u32,
    verdict: u32,
    repeat: Repeat,
) -> Result<f64> {
    take_a_core()?;
    let context = context(frame.len(), index)?;
    let mut fastest = f64::INFINITY;
    for _ in 0..repeat.runs {
        let run = program
            .test_run(TestRunOptions {
                data_in: Some(frame),
                ctx_in: Some(&context),
                repeat: repeat.turns,
                ..TestRunOptions::default()
            })
            .context("the kernel does not run the program")?;
        ensure!(run.return_value == verdict, "verdict {}, not {verdict}", run.return_value);
        fastest = fastest.min(run.duration.as_nanos() as f64);
    }
    Ok(fastest)
}

/// `struct xdp_md`: data, data_end, data_meta, then where the packet came in.
fn context(length: usize, index: u32) -> Result<Vec<u8>> {
    let words = [0, u32::try_from(length)?, 0, index, 0, 0];
    Ok(words.into_iter().flat_map(u32::to_ne_bytes).collect())
}

fn program_by_id(id: u32) -> Result<ProgramFd> {
    for program in loaded_programs() {
        let program = program.context("cannot list the kernel's programs")?;
        if program.id() == id {
            return program.fd().context("cannot open an attached program");
        }
    }
    anyhow::bail!("program {id} is gone")
}
