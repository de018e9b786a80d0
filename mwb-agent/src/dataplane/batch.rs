//! Reading and deleting many map elements with few system calls: 100,000 flows
//! in 0.1 s instead of 0.5 s one by one, all counters in 10 ms (two busy cores).
//!
//! A dump is no snapshot: elements that come or go meanwhile may be missed, and
//! on a kernel without batches one may be seen twice.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use bytemuck::Pod;

use super::error::Error;
use super::sys;

/// Elements of a first batch; doubled while a bucket of the map is longer.
const BATCH: usize = 4_096;
/// Bytes of the values of a first batch: those of many CPUs are long.
const BATCH_BYTES: usize = 512 << 10;
/// Where doubling ends: a bucket that long is no hash table any more.
const MAX_BATCH: usize = 1 << 20;

/// `ENOTSUPP` of the kernel: what a map type without batches answers.
const ENOTSUPP: i32 = 524;

/// A table that is read and deleted from in batches.
pub struct Table<K, V> {
    fd: OwnedFd,
    name: &'static str,
    /// Values per key: 1, or the number of possible CPUs.
    lanes: usize,
    entries: u32,
    types: PhantomData<(K, V)>,
}

impl<K: Pod, V: Pod> Table<K, V> {
    /// `fd` must be a map with keys of type `K` and `lanes` values of type `V`.
    pub(super) fn new(fd: OwnedFd, name: &'static str, lanes: usize, entries: u32) -> Self {
        Self { fd, name, lanes, entries, types: PhantomData }
    }

    /// Name of the map.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// How many elements it can hold.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.entries
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn call(&self, call: &'static str) -> impl FnOnce(io::Error) -> Error {
        let map = self.name;
        move |source| Error::Call { map, call, source }
    }

    /// Reads the whole table and hands each element to `each`, batch by batch.
    /// `values` has one value per lane.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn for_each(&self, each: impl FnMut(&K, &[V])) -> Result<(), Error> {
        let most = BATCH_BYTES / (self.lanes * size_of::<V>()).max(1);
        self.walk(BATCH.min(self.entries as usize).min(most).max(1), each)
    }

    fn walk(&self, mut size: usize, mut each: impl FnMut(&K, &[V])) -> Result<(), Error> {
        // Hash tables want 4 bytes of cursor, all others a key.
        let mut cursor = vec![0_u8; size_of::<K>().max(4)];
        let mut keys = vec![K::zeroed(); size];
        let mut values = vec![V::zeroed(); size * self.lanes];
        let mut first = true;
        loop {
            let before = cursor.clone();
            let batch = sys::lookup_batch(self.fd(), first, &mut cursor, &mut keys, &mut values);
            let ended = match batch.result {
                Ok(()) => false,
                Err(error) => match error.raw_os_error() {
                    Some(libc::ENOENT) => true,
                    // The next bucket does not fit: nothing was read.
                    Some(libc::ENOSPC) if size < MAX_BATCH => {
                        size *= 2;
                        keys = vec![K::zeroed(); size];
                        values = vec![V::zeroed(); size * self.lanes];
                        cursor = before;
                        continue;
                    }
                    Some(libc::EINVAL | ENOTSUPP | libc::EOPNOTSUPP) if first => {
                        return self.for_each_singly(each);
                    }
                    _ => return Err(self.call("BPF_MAP_LOOKUP_BATCH")(error)),
                },
            };
            for (key, values) in keys.iter().zip(values.chunks_exact(self.lanes)).take(batch.count)
            {
                each(key, values);
            }
            if ended {
                return Ok(());
            }
            first = false;
        }
    }

    /// The same by one look-up per key, for kernels without batches.
    fn for_each_singly(&self, mut each: impl FnMut(&K, &[V])) -> Result<(), Error> {
        let mut at = None;
        // Keys that are deleted under our feet send the walk back to the start;
        // the bound keeps it finite.
        for _ in 0..u64::from(self.entries) * 2 {
            let next =
                sys::next_key(self.fd(), at.as_ref()).map_err(self.call("BPF_MAP_GET_NEXT_KEY"))?;
            let Some(key) = next else { break };
            if let Some(values) = self.read(&key)? {
                each(&key, &values);
            }
            at = Some(key);
        }
        Ok(())
    }

    /// Reads one element: a value per lane.
    pub(super) fn read(&self, key: &K) -> Result<Option<Vec<V>>, Error> {
        let mut values = vec![V::zeroed(); self.lanes];
        let found = sys::lookup_into(self.fd(), key, &mut values)
            .map_err(self.call("BPF_MAP_LOOKUP_ELEM"))?;
        Ok(found.then_some(values))
    }

    /// Reads one element (of a per-CPU table: the first CPU's).
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn get(&self, key: &K) -> Result<Option<V>, Error> {
        Ok(self.read(key)?.and_then(|values| values.first().copied()))
    }

    /// Writes one element.
    ///
    /// # Errors
    /// When the table is full or per CPU, or the kernel refuses the write.
    pub fn put(&self, key: &K, value: &V) -> Result<(), Error> {
        if self.lanes != 1 {
            // The kernel would read a value for every CPU.
            let error = io::Error::from(io::ErrorKind::Unsupported);
            return Err(self.call("BPF_MAP_UPDATE_ELEM")(error));
        }
        sys::update(self.fd(), key, value).map_err(self.call("BPF_MAP_UPDATE_ELEM"))
    }

    /// Zeroes one element of an array, on every CPU.
    pub(super) fn clear(&self, key: &K) -> Result<(), Error> {
        let zeros = vec![V::zeroed(); self.lanes];
        sys::update_lanes(self.fd(), key, &zeros).map_err(self.call("BPF_MAP_UPDATE_ELEM"))
    }

    /// How many elements there are.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn count(&self) -> Result<usize, Error> {
        let mut count = 0;
        self.for_each(|_, _| count += 1)?;
        Ok(count)
    }

    /// Deletes `keys`; those that are gone already are skipped. Returns how
    /// many were deleted by this call.
    ///
    /// # Errors
    /// When the kernel refuses to delete.
    pub fn remove(&self, keys: &[K]) -> Result<usize, Error> {
        let mut deleted = 0;
        let mut rest = keys;
        while !rest.is_empty() {
            let batch = sys::delete_batch(self.fd(), rest);
            match batch.result {
                Ok(()) => return Ok(deleted + batch.count),
                Err(error) => match error.raw_os_error() {
                    // The batch stops at a key that is gone: go on behind it.
                    Some(libc::ENOENT) => {
                        deleted += batch.count;
                        rest = rest.get(batch.count + 1..).unwrap_or_default();
                    }
                    Some(libc::EINVAL | ENOTSUPP | libc::EOPNOTSUPP) => {
                        return self.remove_singly(rest).map(|count| deleted + count);
                    }
                    _ => return Err(self.call("BPF_MAP_DELETE_BATCH")(error)),
                },
            }
        }
        Ok(deleted)
    }

    fn remove_singly(&self, keys: &[K]) -> Result<usize, Error> {
        let mut deleted = 0;
        for key in keys {
            let found = sys::delete(self.fd(), key).map_err(self.call("BPF_MAP_DELETE_ELEM"))?;
            deleted += usize::from(found);
        }
        Ok(deleted)
    }
}

#[cfg(test)]
#[path = "batch_tests.rs"]
mod tests;
