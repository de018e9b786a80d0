//! Forward error correction of a bond: what the file says about what this end sends.

use std::ops::RangeInclusive;
use std::time::Duration;

use mwb_common::classes::repair;

use super::reader::{Cursor, Fault, Fields};
use super::{Classes, schema};

/// How packets whose rule has [`repair::FEC`] are protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fec {
    /// Parity packets of a block, 1 to 8; `None`: as many as the paths' losses ask for.
    pub parity: Option<u8>,
    /// Packets of a block, 2 to 32.
    pub block: u8,
    /// How long a block waits for more packets.
    pub wait: Duration,
    /// Blocks that are filled in turn, 1 to 8.
    pub interleave: u8,
}

impl Default for Fec {
    fn default() -> Self {
        Self { parity: None, block: 32, wait: Duration::from_millis(10), interleave: 1 }
    }
}

/// The section `fec`. Without a rule that asks for it, it means nothing.
pub(super) fn read_fec(file: &Fields<'_>, classes: &Classes) -> Result<Fec, Fault> {
    if let Some(at) = file.get("fec")
        && classes.repairs() & repair::FEC == 0
    {
        return Err(at.key_fault(
            "it has no effect: no rule of `classes` has `repair: fec`",
            "add such a rule, or remove this",
        ));
    }
    let fec = file.section("fec", &schema::FEC)?;
    let default = Fec::default();
    Ok(Fec {
        parity: fec.or("parity", default.parity, read_parity)?,
        block: fec.or("block", default.block, |at| small(at, &schema::FEC_BLOCK))?,
        wait: fec.or("wait", default.wait, |at| at.duration(&schema::FEC_WAIT))?,
        interleave: fec
            .or("interleave", default.interleave, |at| small(at, &schema::FEC_INTERLEAVE))?,
    })
}

fn read_parity(at: &Cursor<'_>) -> Result<Option<u8>, Fault> {
    if at.is_integer() {
        return small(at, &schema::FEC_PARITY).map(Some);
    }
    at.parsed("`auto` or a number of packets", "auto or 2", |text| (text == "auto").then_some(None))
}

fn small(at: &Cursor<'_>, range: &RangeInclusive<u32>) -> Result<u8, Fault> {
    at.integer(range).map(|number| u8::try_from(number).unwrap_or(u8::MAX))
}
