//! A map that knows which of its entries is the oldest, and what its entries cost.

use std::collections::BTreeMap;

/// What the allocator may add to an allocation, in bytes.
pub(super) const ALLOCATION: usize = 24;

/// What an entry of so many bytes costs in a B-tree of the standard library, at its worst:
/// a node has room for 11 and may hold 5; nodes above it, and the allocator.
pub(super) const fn in_tree(entry: usize) -> usize {
    3 * entry + 2 * ALLOCATION
}

/// Trees and no tables: those double, and while they do there are two of them.
#[derive(Clone, Debug)]
pub(super) struct Aging<K, V> {
    entries: BTreeMap<K, (u64, V)>,
    /// Keys by serial, with the time they came.
    order: BTreeMap<u64, (K, u64)>,
    /// Serial of the next.
    serial: u64,
}

impl<K: Copy + Ord, V> Aging<K, V> {
    /// What an entry costs, in bytes, without what it has elsewhere.
    pub(super) const ENTRY: usize =
        in_tree(size_of::<(K, (u64, V))>()) + in_tree(size_of::<(u64, (K, u64))>());

    pub(super) fn new() -> Self {
        Self { entries: BTreeMap::new(), order: BTreeMap::new(), serial: 0 }
    }

    /// Adds an entry, as the newest, and returns the one that it replaces.
    pub(super) fn insert(&mut self, key: K, value: V, now: u64) -> Option<V> {
        let old = self.remove(&key);
        self.entries.insert(key, (self.serial, value));
        self.order.insert(self.serial, (key, now));
        self.serial += 1;
        old
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|(_, value)| value)
    }

    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.entries.get_mut(key).map(|(_, value)| value)
    }

    pub(super) fn contains(&self, key: &K) -> bool {
        self.entries.contains_key(key)
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let (serial, value) = self.entries.remove(key)?;
        self.order.remove(&serial);
        Some(value)
    }

    /// The key that came first of those there are, and when.
    pub(super) fn oldest(&self) -> Option<(K, u64)> {
        self.order.first_key_value().map(|(_, oldest)| *oldest)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter().map(|(key, (_, value))| (key, value))
    }
}
