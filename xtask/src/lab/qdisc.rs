//! Which queueing disciplines the kernel has.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use anyhow::{Context as _, Result};

use super::{is_guest, namespace::Namespace};

/// Whether there is the discipline `kind`. Each is tried once.
///
/// # Errors
/// When a test VM does not have it: its kernel does.
pub(super) fn is_available(namespace: &Namespace, kind: &'static str) -> Result<bool> {
    static KNOWN: Mutex<Option<HashMap<&str, bool>>> = Mutex::new(None);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let known = known.get_or_insert_default();
    if let Some(&is_there) = known.get(kind) {
        return Ok(is_there);
    }
    let tried = namespace.tc(&format!("qdisc add dev lo root {kind}\nqdisc del dev lo root\n"));
    let is_there = tried.is_ok();
    if is_guest() {
        tried.with_context(|| format!("a test VM without {kind}"))?;
    }
    known.insert(kind, is_there);
    Ok(is_there)
}
