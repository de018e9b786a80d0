//! Which queueing disciplines the kernel has.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use super::namespace::Namespace;

/// Whether there is the discipline `kind`. Each is tried once.
pub(super) fn is_available(namespace: &Namespace, kind: &'static str) -> bool {
    static KNOWN: Mutex<Option<HashMap<&str, bool>>> = Mutex::new(None);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    *known.get_or_insert_default().entry(kind).or_insert_with(|| {
        namespace.tc(&format!("qdisc add dev lo root {kind}\nqdisc del dev lo root\n")).is_ok()
    })
}
