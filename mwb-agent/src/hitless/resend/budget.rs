//! How many bytes may be sent again: a token bucket that bytes sent for the first time
//! fill.

/// The bucket. Counts in hundredths of a byte, so that a share of one byte is not lost.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    percent: u64,
    most: u64,
    left: u64,
}

impl Budget {
    /// A full one.
    pub(crate) fn new(percent: u32, burst: u64) -> Self {
        let most = burst.saturating_mul(100);
        Self { percent: u64::from(percent), most, left: most }
    }

    /// So many bytes were sent for the first time.
    pub(crate) fn earn(&mut self, bytes: usize) {
        let share = (bytes as u64).saturating_mul(self.percent);
        self.left = self.left.saturating_add(share).min(self.most);
    }

    /// Whether so many bytes are there.
    pub(crate) fn affords(&self, bytes: usize) -> bool {
        (bytes as u64).saturating_mul(100) <= self.left
    }

    /// Takes so many bytes, if they are there.
    pub(crate) fn spend(&mut self, bytes: usize) -> bool {
        let affords = self.affords(bytes);
        if affords {
            self.left -= bytes as u64 * 100;
        }
        affords
    }
}
