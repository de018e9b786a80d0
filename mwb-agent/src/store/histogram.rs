//! Latencies by size, so that percentiles of any span can be had by adding.
//!
//! Buckets are log-linear: 16 to each power of two of microseconds. A value is
//! told as the middle of its bucket, so it is off by at most 1/32 (3.2 %) of
//! itself; below 32 µs it is exact. Only buckets that hold something are kept.
//! Must not know: where it is stored, time.

/// Bits of a value that its bucket keeps below the highest one.
const KEPT_BITS: u32 = 4;
/// Buckets to each power of two.
const PER_OCTAVE: u32 = 1 << KEPT_BITS;
/// Number of buckets: enough for every `u32`.
const BUCKETS: u16 = 464;

/// How often latencies of each size were seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// Bucket and count, by bucket, none empty.
    buckets: Vec<(u16, u64)>,
}

impl Histogram {
    /// Counts one latency, in microseconds.
    pub fn add(&mut self, us: u32) {
        let bucket = bucket(us);
        match self.buckets.binary_search_by_key(&bucket, |&(held, _)| held) {
            Ok(at) => self.buckets[at].1 = self.buckets[at].1.saturating_add(1),
            Err(at) => self.buckets.insert(at, (bucket, 1)),
        }
    }

    /// Adds what another one holds: as if its values had been added here.
    pub fn merge(&mut self, other: &Histogram) {
        let mut at = 0;
        for &(bucket, count) in &other.buckets {
            while self.buckets.get(at).is_some_and(|&(held, _)| held < bucket) {
                at += 1;
            }
            match self.buckets.get_mut(at) {
                Some((held, sum)) if *held == bucket => *sum = sum.saturating_add(count),
                _ => self.buckets.insert(at, (bucket, count)),
            }
        }
    }

    /// Number of latencies counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().fold(0, |sum, &(_, count)| sum.saturating_add(count))
    }

    /// The latency in microseconds that `per_mille` of all do not exceed (nearest
    /// rank), off by at most 3.2 %; `None` if nothing was counted.
    #[must_use]
    pub fn percentile(&self, per_mille: u16) -> Option<u32> {
        let wanted = u128::from(self.count()) * u128::from(per_mille.min(1000));
        let rank = wanted.div_ceil(1000).max(1);
        let mut seen = 0_u128;
        for &(bucket, count) in &self.buckets {
            seen += u128::from(count);
            if seen >= rank {
                let (low, high) = bounds(bucket);
                return Some(low + (high - low) / 2);
            }
        }
        None
    }

    /// As bytes: for each bucket the distance from the one before and the count,
    /// both as LEB128. One WAN's 10 s come to some 20 bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.buckets.len() * 3);
        let mut before = 0;
        for &(bucket, count) in &self.buckets {
            put_number(&mut bytes, u64::from(bucket - before));
            put_number(&mut bytes, count);
            before = bucket;
        }
        bytes
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote; `None` if it did not write
    /// these.
    #[must_use]
    pub fn from_bytes(mut bytes: &[u8]) -> Option<Self> {
        let mut buckets: Vec<(u16, u64)> = Vec::new();
        while !bytes.is_empty() {
            let distance = u16::try_from(take_number(&mut bytes)?).ok()?;
            let count = take_number(&mut bytes)?;
            let bucket = match buckets.last() {
                None => distance,
                Some(_) if distance == 0 => return None,
                Some(&(before, _)) => before.checked_add(distance)?,
            };
            if bucket >= BUCKETS || count == 0 {
                return None;
            }
            buckets.push((bucket, count));
        }
        Some(Self { buckets })
    }
}

/// The bucket of a value.
fn bucket(us: u32) -> u16 {
    if us < PER_OCTAVE {
        return us as u16;
    }
    let octave = us.ilog2() - KEPT_BITS;
    // At most 27 * 16 + 31.
    (octave * PER_OCTAVE + (us >> octave)) as u16
}

/// The least and the greatest value of a bucket.
fn bounds(bucket: u16) -> (u32, u32) {
    let bucket = u32::from(bucket);
    if bucket < 2 * PER_OCTAVE {
        return (bucket, bucket);
    }
    let octave = bucket / PER_OCTAVE - 1;
    let low = (bucket % PER_OCTAVE + PER_OCTAVE) << octave;
    (low, low + ((1 << octave) - 1))
}

fn put_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let part = u64::from(byte & 0x7f);
        let shifted = part << shift;
        if shifted >> shift != part {
            return None;
        }
        number |= shifted;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
#[path = "histogram_tests.rs"]
mod tests;
