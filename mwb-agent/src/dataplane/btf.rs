//! Where the running kernel keeps a field, from its own type information
//! (`Documentation/bpf/btf.rst` in the kernel's source). Only what that takes:
//! structs by name, their members, their offsets.

use std::fs;
use std::io;
use std::os::linux::fs::MetadataExt as _;

use mwb_common::maps::KernelLayout;

const VMLINUX: &str = "/sys/kernel/btf/vmlinux";
const MAGIC: u16 = 0xeb9f;
const KIND_STRUCT: u32 = 4;

/// The layout that the watching programs need, and the network namespace of the
/// calling thread.
pub(super) fn kernel_layout() -> io::Result<KernelLayout> {
    let types = fs::read(VMLINUX)?;
    let btf = Btf::new(&types).ok_or_else(|| io::Error::other("unreadable type information"))?;
    let offset = |name: &str, member: &str| {
        btf.offset(name, member)
            .ok_or_else(|| io::Error::other(format!("no `{member}` in `struct {name}`")))
    };
    let inode = fs::metadata("/proc/thread-self/ns/net")?.st_ino();
    Ok(KernelLayout {
        ifindex: offset("net_device", "ifindex")?,
        network: offset("net_device", "nd_net")?,
        inode: offset("net", "ns")? + offset("ns_common", "inum")?,
        ours: u32::try_from(inode).map_err(io::Error::other)?,
    })
}

/// Type information in the byte order of this machine.
struct Btf<'a> {
    types: &'a [u8],
    strings: &'a [u8],
}

impl<'a> Btf<'a> {
    fn new(bytes: &'a [u8]) -> Option<Self> {
        if u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?) != MAGIC {
            return None;
        }
        let field = |at| Some(word(bytes, at)? as usize);
        let header = field(4)?;
        let section = |offset: usize, length: usize| {
            let start = header.checked_add(offset)?;
            bytes.get(start..start.checked_add(length)?)
        };
        Some(Self {
            types: section(field(8)?, field(12)?)?,
            strings: section(field(16)?, field(20)?)?,
        })
    }

    /// Offset in bytes of a member of the first struct of that name that has it.
    fn offset(&self, name: &str, member: &str) -> Option<u32> {
        let mut at = 0;
        while at < self.types.len() {
            let (called, info) = (word(self.types, at)?, word(self.types, at + 4)?);
            let (count, kind) = ((info & 0xffff) as usize, info >> 24 & 0x1f);
            at += 12;
            if kind == KIND_STRUCT && self.is(called, name) {
                for place in (at..).step_by(12).take(count) {
                    if self.is(word(self.types, place)?, member) {
                        let bits = word(self.types, place + 8)?;
                        // With the flag the upper byte is the size of a bit field.
                        let bits = if info >> 31 == 1 { bits & 0xff_ffff } else { bits };
                        return Some(bits / 8);
                    }
                }
            }
            at += match kind {
                // Integers, variables and declaration tags.
                1 | 14 | 17 => 4,
                // Arrays.
                3 => 12,
                // Structs, unions, sections, 64-bit enumerations.
                4 | 5 | 15 | 19 => count * 12,
                // Enumerations, function prototypes.
                6 | 13 => count * 8,
                _ => 0,
            };
        }
        None
    }

    fn is(&self, at: u32, name: &str) -> bool {
        self.strings
            .get(at as usize..)
            .and_then(|rest| rest.strip_prefix(name.as_bytes()))
            .is_some_and(|rest| rest.first() == Some(&0))
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An integer, a struct `s` with `a` and a bit field `b`, and an array
    /// between them.
    fn example() -> Vec<u8> {
        let strings = b"\0int\0s\0a\0b\0";
        let types: &[u32] = &[
            1,
            1 << 24,
            4,
            32, // int, 4 bytes
            0,
            3 << 24,
            0,
            1,
            1,
            2, // int[2]
            5,
            1 << 31 | 4 << 24 | 2,
            8,
            7,
            1,
            0,
            9,
            1,
            3 << 24 | 32, // struct s
        ];
        let length = u32::try_from(types.len() * 4).expect("a few types");
        let mut bytes = [&MAGIC.to_ne_bytes()[..], &[1, 0]].concat();
        let names = u32::try_from(strings.len()).expect("a few names");
        for value in [24, 0, length, length, names].iter().chain(types) {
            bytes.extend(value.to_ne_bytes());
        }
        bytes.extend(strings);
        bytes
    }

    #[test]
    fn a_member_is_found_behind_other_types() {
        let bytes = example();
        let btf = Btf::new(&bytes).expect("type information");
        assert_eq!((btf.offset("s", "a"), btf.offset("s", "b")), (Some(0), Some(4)));
        assert_eq!((btf.offset("s", "c"), btf.offset("in", "a")), (None, None));
    }

    #[test]
    fn what_is_cut_off_is_refused() {
        let bytes = example();
        for length in 0..bytes.len() {
            let found = Btf::new(&bytes[..length]).and_then(|btf| btf.offset("s", "b"));
            assert_eq!(found, None, "{length} bytes");
        }
    }
}
