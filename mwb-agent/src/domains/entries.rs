//! What a book takes and gives, and numbers and keys of the kernel side's tables. Pure. Must
//! not know: what is in a book.

use std::net::IpAddr;

use mwb_common::policy::{NameBits, Named, NamedAddress};

use crate::config::Domain;

/// What is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A hash of the name that has a number; 0: none has.
    Name(u16, u64),
    /// The names of a group that no address is of yet.
    Group(u16, NameBits),
    /// An address.
    Address(NamedAddress, Named),
    /// One that goes.
    Gone(NamedAddress),
}

/// What an agent before us has left.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// A hash of the name of each number; 0: there is none.
    pub names: Vec<u64>,
    /// Names of each group.
    pub groups: Vec<NameBits>,
    /// The addresses.
    pub addresses: Vec<(NamedAddress, Named)>,
}

/// What has become of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learned {
    /// No rule asks for any of its names.
    Others,
    /// Its addresses are known.
    Ours,
}

/// An address for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The address.
    pub address: IpAddr,
    /// The name that was asked for last; `None`: by an agent before us.
    pub name: Option<String>,
    /// How long it is still good for, in ns.
    pub left: u64,
}

pub(super) fn in_turn(first: u16, count: usize) -> impl Iterator<Item = u16> {
    let count = u16::try_from(count).unwrap_or(u16::MAX);
    (first..count).chain(0..first.min(count))
}

pub(super) fn following(number: u16, count: usize) -> u16 {
    if usize::from(number) + 1 < count { number + 1 } else { 0 }
}

/// What the next run of an agent knows a name by (FNV-1a of its text), not 0.
pub(super) fn hash(domain: &Domain) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in domain.to_string().bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash.max(1)
}

pub(super) fn to_key(address: IpAddr) -> NamedAddress {
    match address {
        IpAddr::V4(address) => NamedAddress::v4(address.octets()),
        IpAddr::V6(address) => NamedAddress(address.octets()),
    }
}

pub(super) fn from_key(NamedAddress(octets): NamedAddress) -> IpAddr {
    IpAddr::from(octets).to_canonical()
}
