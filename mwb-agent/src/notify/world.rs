//! What the receivers' tasks have of the world: time, chance and disks. Tests
//! have others.
//!
//! Must not know: who uses it.

use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::disk::{Disks, Folders};

#[derive(Clone)]
pub(super) struct World {
    /// Milliseconds since 1970.
    pub(super) clock: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// A number from 0 to 1.
    pub(super) chance: Arc<dyn Fn() -> f64 + Send + Sync>,
    pub(super) disks: Arc<dyn Disks>,
}

impl World {
    /// The real one, with its queues below a folder.
    pub(super) fn real(folder: &Path) -> Self {
        Self {
            clock: Arc::new(unix_ms),
            chance: Arc::new(chance),
            disks: Arc::new(Folders(folder.to_owned())),
        }
    }
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Without random bytes the longest wait: patience harms nobody.
fn chance() -> f64 {
    getrandom::u32().map_or(1.0, |bits| f64::from(bits) / f64::from(u32::MAX))
}
