//! Addresses of names, as the kernel side finds them. Must not know: names, what a group
//! stands for.

use bytemuck::{Pod, Zeroable};

/// An address of names that rules ask for: IPv4 as IPv6 (RFC 4291, 2.5.5.2).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Pod, Zeroable)]
pub struct NamedAddress(pub [u8; 16]);

impl NamedAddress {
    /// Of IPv4.
    #[inline(always)]
    #[must_use]
    pub const fn v4([a, b, c, d]: [u8; 4]) -> Self {
        Self([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d])
    }
}

/// Which group an address is of, and until when.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Named(u64);

impl Named {
    /// `until` is in ns of the monotonic clock, and kept to 65 µs.
    #[inline(always)]
    #[must_use]
    pub const fn new(group: u16, until: u64) -> Self {
        Self(until & !0xffff | group as u64)
    }

    /// The group, whatever the time.
    #[inline(always)]
    #[must_use]
    pub const fn group(self) -> u16 {
        self.0 as u16
    }

    /// Until when it is of that.
    #[inline(always)]
    #[must_use]
    pub const fn until(self) -> u64 {
        self.0 & !0xffff
    }

    /// The group at a time of the monotonic clock, in ns; 0: of none any more.
    #[inline(always)]
    #[must_use]
    pub const fn group_at(self, now: u64) -> u16 {
        if self.until() > now { self.group() } else { 0 }
    }
}

const _: () = {
    assert!(size_of::<NamedAddress>() == 16);
    assert!(size_of::<Named>() == 8);
};
