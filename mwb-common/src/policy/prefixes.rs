//! The prefixes of one side and address family: which rules name each, and what the
//! longest match must say, which is that of all prefixes that cover it. Must not know:
//! numbers of sets, what a rule else asks for.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::RuleBits;

/// Network address and length in bits; in this order, all that a prefix covers comes
/// right behind it.
pub(super) type Key<const N: usize> = ([u8; N], u8);

/// A prefix without host bits.
pub(super) fn key<const N: usize>(mut address: [u8; N], length: u8) -> Key<N> {
    let length = usize::from(length).min(N * 8);
    for (i, byte) in address.iter_mut().enumerate() {
        let kept = length.saturating_sub(i * 8).min(8);
        *byte &= (0xff00_u16 >> kept).to_be_bytes()[1];
    }
    (address, u8::try_from(length).unwrap_or(u8::MAX))
}

/// Whether all of `inner` lies in `outer`.
fn covers<const N: usize>(outer: &Key<N>, inner: &Key<N>) -> bool {
    outer.1 <= inner.1 && key(inner.0, outer.1).0 == outer.0
}

/// The prefixes that rules name. The one of all addresses is always among them.
#[derive(Clone, Debug)]
pub(super) struct Prefixes<const N: usize> {
    /// The rules that name a prefix, each as often as it does.
    owners: BTreeMap<Key<N>, Vec<u16>>,
    /// The rules that ask for no address here.
    any: RuleBits,
}

impl<const N: usize> Prefixes<N> {
    pub(super) fn new(any: RuleBits) -> Self {
        Self { owners: [(key([0; N], 0), Vec::new())].into(), any }
    }

    pub(super) fn len(&self) -> usize {
        self.owners.len()
    }

    pub(super) fn add(&mut self, key: Key<N>, row: u16) {
        self.owners.entry(key).or_default().push(row);
    }

    /// Every prefix with what it must say.
    pub(super) fn all(&self) -> Vec<(Key<N>, RuleBits)> {
        let mut around: Vec<(Key<N>, RuleBits)> = Vec::new();
        let mut all = Vec::with_capacity(self.owners.len());
        for (key, owners) in &self.owners {
            while around.last().is_some_and(|(outer, _)| !covers(outer, key)) {
                around.pop();
            }
            let mut bits = around.last().map_or(self.any, |(_, bits)| *bits);
            add(&mut bits, Some(owners));
            around.push((*key, bits));
            all.push((*key, bits));
        }
        all
    }
}

fn add(bits: &mut RuleBits, owners: Option<&Vec<u16>>) {
    for row in owners.into_iter().flatten() {
        bits.add(usize::from(*row));
    }
}
