//! `BPF_PROG_TEST_RUN`: one packet through one program, without a device.

use std::time::Duration;

use aya::TestRunOptions;
use aya::programs::{SchedClassifier, TestRun as _, Xdp};

use super::DataPlane;
use super::error::Error;
use super::spec::{Hook, ProgramId};

/// Room in the output for headers and metadata that a program puts in front, and
/// for a longer fragment that waited and leaves in the packet's place.
const HEADROOM: usize = 512 + mwb_common::maps::HELD_BYTES;

/// What a program did to a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestOutcome {
    /// The program's return value: `XDP_*` or `TC_ACT_*`.
    pub verdict: u32,
    /// The packet afterwards, with the metadata in front of it if there is any.
    pub packet: Vec<u8>,
    /// The context afterwards (`struct xdp_md` or `struct __sk_buff`); empty
    /// if none was given.
    pub context: Vec<u8>,
    /// Mean time of a run.
    pub duration: Duration,
}

impl DataPlane {
    /// Runs `packet` through a program `repeat` times. `context` is a
    /// `struct xdp_md` or `struct __sk_buff`; without one the packet comes in
    /// through the loopback device of the caller's network namespace.
    ///
    /// # Errors
    /// When the kernel refuses to run it.
    pub fn test_run(
        &self,
        id: ProgramId,
        packet: &[u8],
        context: Option<&[u8]>,
        repeat: u32,
    ) -> Result<TestOutcome, Error> {
        let mut packet_out = vec![0; packet.len() + HEADROOM];
        let mut context_out = context.map(<[u8]>::to_vec).unwrap_or_default();
        let mut options = TestRunOptions::new();
        options.data_in = Some(packet);
        options.data_out = Some(&mut packet_out);
        options.repeat = repeat;
        if let Some(context) = context {
            options.ctx_in = Some(context);
            options.ctx_out = Some(&mut context_out);
        }
        let program = self.object.program(id.name()).ok_or(Error::Missing(id.name()))?;
        let result = match id.hook() {
            Hook::Xdp => <&Xdp>::try_from(program).and_then(|xdp| xdp.test_run(options)),
            Hook::Tcx => <&SchedClassifier>::try_from(program).and_then(|tc| tc.test_run(options)),
        }
        .map_err(Error::program(id.name()))?;
        packet_out.truncate(result.data_size_out as usize);
        context_out.truncate(result.ctx_size_out as usize);
        Ok(TestOutcome {
            verdict: result.return_value,
            packet: packet_out,
            context: context_out,
            duration: result.duration,
        })
    }
}
