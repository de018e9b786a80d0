//! The ring by which the kernel side hands the agent packets of a bond.

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};

use aya::maps::{MapData, RingBuf};
use mwb_common::maps::{Handed, names};

use super::error::Error;
use super::maps::take;

/// The reader's end. There is one for each agent.
pub struct HandedRing {
    ring: RingBuf<MapData>,
}

impl HandedRing {
    pub(super) fn take(object: &mut aya::Ebpf) -> Result<Self, Error> {
        Ok(Self { ring: take(object, names::HANDED)? })
    }

    /// Gives `each` at most `most` packets with their text; says how many there were.
    pub fn read(&mut self, most: usize, mut each: impl FnMut(&Handed, &[u8])) -> usize {
        let mut count = 0;
        while count < most
            && let Some(record) = self.ring.next()
        {
            count += 1;
            let Some((head, text)) = record.split_at_checked(size_of::<Handed>()) else { continue };
            let head: Handed = bytemuck::pod_read_unaligned(head);
            if let Some(text) = text.get(..usize::from(head.length)) {
                each(&head, text);
            }
        }
        count
    }
}

impl AsFd for HandedRing {
    /// It can be read when there is something.
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the ring owns the descriptor and lives as long as what is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) }
    }
}
