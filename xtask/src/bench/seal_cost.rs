//! Nanoseconds per packet of the two programs of a bond, by test runs. Sealing makes a
//! packet longer and has a sequence for each, and a sealed packet is taken once only. So
//! each turn of sealing begins with the frame as it was, and each turn of opening with
//! another frame that was sealed before.

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf, TestRun as _, TestRunOptions,
    programs::{ProgramFd, Xdp},
};
use mwb_common::maps::Bond;

use super::{
    generator::{take_a_core, write_heads},
    kernel::{self, SAMPLE_HEAD, Sample, XDP_PASS, XDP_REDIRECT},
    prog_run::{Cost, Place, Repeat, fastest},
    tunnel::TunnelLane,
};
use crate::lab::{Agent, BondTables};

/// Of sealing: short, so that some run is not held up on a busy machine.
const SEALING: Repeat = Repeat { turns: 4_000, runs: 41 };
/// Frames that are sealed, then opened: no more than what a window of sequences holds.
const FRAMES: u32 = 2048;
/// Test runs of opening, of which the fastest counts: noise only adds.
const RUNS: usize = 15;
/// More than a sealed frame has.
const ROOM: usize = 2048;

/// Costs of both programs for frames of one length.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Costs {
    /// Choose, encapsulate, seal.
    pub(super) seal: Cost,
    /// Open, check, decapsulate.
    pub(super) open: Cost,
}

/// Measures both in the lane of a bond, with frames of `bytes`.
pub(super) fn measure(object: &[u8], lane: &TunnelLane, bytes: usize) -> Result<Costs> {
    let [gateway, server] = lane.agents()?;
    let frame = lane.first_frame(bytes)?;
    let mut sealer = Sealer::new(object, gateway, &frame)?;
    let seal = sealer.cost()?;
    Ok(Costs { seal, open: open(object, server, &mut sealer)? })
}

/// Seals one frame as often as it is asked to.
struct Sealer<'a> {
    ebpf: Ebpf,
    agent: &'a Agent,
    place: Place,
    frame: Vec<u8>,
}

impl<'a> Sealer<'a> {
    fn new(object: &[u8], agent: &'a Agent, frame: &[u8]) -> Result<Self> {
        let mut ebpf = kernel::load(object)?;
        let place = Place::find(agent.place(), "lan0")?;
        let frame = write_heads(&mut ebpf, &[frame.to_vec()])?;
        kernel::array::<u64>(&mut ebpf, "LENGTH")?.set(0, frame.len() as u64, 0)?;
        Ok(Self { ebpf, agent, place, frame })
    }

    fn cost(&mut self) -> Result<Cost> {
        let empty = kernel::program(&mut self.ebpf, "pass")?.fd()?.try_clone()?;
        let subject = self.place.program()?;
        let floor = self.run(&empty, XDP_PASS)?;
        let total = self.run(&subject, XDP_REDIRECT)?;
        Ok(Cost { total, floor })
    }

    fn run(&mut self, subject: &ProgramFd, verdict: u32) -> Result<f64> {
        kernel::programs(&mut self.ebpf, "SUBJECT")?.set(0, subject, 0)?;
        let Self { ebpf, agent, place, frame } = self;
        let rerun = kernel::program(ebpf, "rerun_grown")?;
        agent.place().enter(|| fastest(rerun, frame, place.index, verdict, SEALING))
    }

    /// Sealed frames, each with a sequence of its own.
    fn sealed(&mut self) -> Result<Vec<Vec<u8>>> {
        let subject = self.place.program()?;
        kernel::programs(&mut self.ebpf, "SUBJECT")?.set(0, &subject, 0)?;
        let Self { ebpf, agent, place, frame } = self;
        let rerun: &Xdp = kernel::program(ebpf, "rerun_grown")?;
        let context = place.context(frame.len())?;
        agent.place().enter(|| {
            (0..FRAMES)
                .map(|_| {
                    let mut out = vec![0; ROOM];
                    let run = rerun.test_run(TestRunOptions {
                        data_in: Some(frame),
                        data_out: Some(&mut out),
                        ctx_in: Some(&context),
                        ..TestRunOptions::default()
                    })?;
                    ensure!(run.return_value == XDP_REDIRECT, "not sealed: {}", run.return_value);
                    out.truncate(usize::try_from(run.data_size_out)?);
                    Ok(out)
                })
                .collect()
        })
    }
}

/// What opening costs, of frames that are sealed anew before each run.
fn open(object: &[u8], server: &Agent, sealer: &mut Sealer<'_>) -> Result<Cost> {
    let place = Place::find(server.place(), "wan0")?;
    let mut ebpf = kernel::load(object)?;
    let empty = kernel::program(&mut ebpf, "pass")?.fd()?.try_clone()?;
    let subject = place.program()?;
    let mut cost = Cost { total: f64::INFINITY, floor: f64::INFINITY };
    // What it opens is not to be steered besides: the device that it would go on by is not
    // known, and it takes the way through it.
    let tables = BondTables::open(server)?;
    let bond = tables.bond()?;
    tables.put_bond(&Bond { outer_device: 0, ..bond })?;
    for _ in 0..RUNS {
        let sealed = sealer.sealed()?;
        let first = sealed.first().context("no frames")?.clone();
        let mut whole = kernel::array::<Sample>(&mut ebpf, "WHOLE")?;
        for (slot, frame) in (0..).zip(&sealed) {
            let mut sample: Sample = [0; size_of::<Sample>()];
            sample[..SAMPLE_HEAD].copy_from_slice(&(frame.len() as u64).to_ne_bytes());
            let room = sample.get_mut(SAMPLE_HEAD..SAMPLE_HEAD + frame.len());
            room.context("a sealed frame is longer than its slot")?.copy_from_slice(frame);
            whole.set(slot, sample, 0)?;
        }
        let mut run = |subject: &ProgramFd, verdict: u32| -> Result<f64> {
            kernel::array::<u64>(&mut ebpf, "NEXT")?.set(0, 0, 0)?;
            kernel::programs(&mut ebpf, "SUBJECT")?.set(0, subject, 0)?;
            let rerun: &Xdp = kernel::program(&mut ebpf, "rerun_frames")?;
            let context = place.context(first.len())?;
            server.place().enter(|| {
                take_a_core()?;
                let run = rerun.test_run(TestRunOptions {
                    data_in: Some(&first),
                    ctx_in: Some(&context),
                    repeat: FRAMES,
                    ..TestRunOptions::default()
                })?;
                ensure!(run.return_value == verdict, "verdict {}", run.return_value);
                Ok(run.duration.as_nanos() as f64)
            })
        };
        cost.floor = cost.floor.min(run(&empty, XDP_PASS)?);
        let before = delivered(server)?;
        cost.total = cost.total.min(run(&subject, XDP_REDIRECT)?);
        let opened = delivered(server)? - before;
        ensure!(opened >= u64::from(FRAMES), "{opened} of {FRAMES} frames were opened");
    }
    tables.put_bond(&bond)?;
    Ok(cost)
}

/// Packets that came out of the bond at the server.
fn delivered(server: &Agent) -> Result<u64> {
    let rows = server.api().counters()?;
    let out = rows.iter().filter(|row| row.reason == "to_device");
    Ok(out.map(|row| row.packets).sum())
}
