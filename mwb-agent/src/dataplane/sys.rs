//! The `bpf()` commands that aya does not offer: batches of map elements, and
//! links that say which device they are on. Layouts are those of
//! `union bpf_attr` in `linux/bpf.h`; the kernel takes any prefix of it.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use bytemuck::{Pod, Zeroable};

const BPF_MAP_LOOKUP_ELEM: u32 = 1;
const BPF_MAP_UPDATE_ELEM: u32 = 2;
const BPF_MAP_DELETE_ELEM: u32 = 3;
const BPF_MAP_GET_NEXT_KEY: u32 = 4;
const BPF_OBJ_PIN: u32 = 6;
const BPF_OBJ_GET: u32 = 7;
const BPF_OBJ_GET_INFO_BY_FD: u32 = 15;
const BPF_MAP_LOOKUP_BATCH: u32 = 24;
const BPF_MAP_DELETE_BATCH: u32 = 27;
const BPF_LINK_CREATE: u32 = 28;
const BPF_LINK_UPDATE: u32 = 29;
const BPF_LINK_DETACH: u32 = 34;

/// `BPF_XDP` of `enum bpf_attach_type`.
pub(super) const ATTACH_XDP: u32 = 37;
/// `BPF_TCX_INGRESS` of `enum bpf_attach_type`.
pub(super) const ATTACH_TCX_INGRESS: u32 = 46;
/// `XDP_FLAGS_SKB_MODE`.
pub(super) const XDP_GENERIC: u32 = 1 << 1;
/// `XDP_FLAGS_DRV_MODE`.
pub(super) const XDP_NATIVE: u32 = 1 << 2;

const LINK_TYPE_XDP: u32 = 6;
const LINK_TYPE_TCX: u32 = 11;

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct ElementAttr {
    map_fd: i32,
    padding: u32,
    key: u64,
    value_or_next_key: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: i32,
    elem_flags: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct ObjectAttr {
    pathname: u64,
    bpf_fd: i32,
    file_flags: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct InfoAttr {
    bpf_fd: i32,
    info_len: u32,
    info: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct LinkCreateAttr {
    prog_fd: i32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
    // relative_fd and expected_revision of TCX; zero for XDP.
    options: [u64; 6],
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct LinkUpdateAttr {
    link_fd: i32,
    new_prog_fd: i32,
    flags: u32,
    old_prog_fd: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct LinkDetachAttr {
    link_fd: i32,
}

/// The head of `struct bpf_link_info` with the part that XDP and TCX share.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct LinkInfoAttr {
    kind: u32,
    id: u32,
    prog_id: u32,
    padding: u32,
    ifindex: u32,
    attach_type: u32,
    rest: [u64; 8],
}

/// Runs one command.
///
/// # Safety
/// Every address in `attr` must be valid for what the command does with it for
/// the time of the call.
unsafe fn bpf<A: Pod>(command: u32, attr: &mut A) -> io::Result<i64> {
    // SAFETY: `attr` is an exclusive reference to plain data of that size; the
    // addresses in it are the caller's promise.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<A>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn owned(fd: i64) -> io::Result<OwnedFd> {
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just returned this descriptor, to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn address<T>(of: &[T]) -> u64 {
    of.as_ptr().expose_provenance() as u64
}

fn address_mut<T>(of: &mut [T]) -> u64 {
    of.as_mut_ptr().expose_provenance() as u64
}

/// Looks up one element into `values`; says whether there is one. `values` has
/// one value, or one per possible CPU.
pub(super) fn lookup_into<K: Pod, V: Pod>(
    map: BorrowedFd<'_>,
    key: &K,
    values: &mut [V],
) -> io::Result<bool> {
    let mut attr = ElementAttr {
        map_fd: map.as_raw_fd(),
        key: address(std::slice::from_ref(key)),
        value_or_next_key: address_mut(values),
        ..Zeroable::zeroed()
    };
    // SAFETY: `key` and `values` live through the call; callers open the map by
    // a type that was checked to have these key and value sizes.
    match unsafe { bpf(BPF_MAP_LOOKUP_ELEM, &mut attr) } {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Writes one element, whether there is one or not.
pub(super) fn update<K: Pod, V: Pod>(map: BorrowedFd<'_>, key: &K, value: &V) -> io::Result<()> {
    update_lanes(map, key, std::slice::from_ref(value))
}

/// Writes one element of a map that has a value per CPU: one for each.
pub(super) fn update_lanes<K: Pod, V: Pod>(
    map: BorrowedFd<'_>,
    key: &K,
    values: &[V],
) -> io::Result<()> {
    let mut attr = ElementAttr {
        map_fd: map.as_raw_fd(),
        key: address(std::slice::from_ref(key)),
        value_or_next_key: address(values),
        ..Zeroable::zeroed()
    };
    // SAFETY: `key` and `values` live through the call and are only read; callers
    // open the map by a type that was checked to have these sizes, and know how
    // many values it has.
    unsafe { bpf(BPF_MAP_UPDATE_ELEM, &mut attr) }.map(drop)
}

/// Deletes one element; says whether there was one.
pub(super) fn delete<K: Pod>(map: BorrowedFd<'_>, key: &K) -> io::Result<bool> {
    let mut attr = ElementAttr {
        map_fd: map.as_raw_fd(),
        key: address(std::slice::from_ref(key)),
        ..Zeroable::zeroed()
    };
    // SAFETY: `key` lives through the call and has the map's key size.
    match unsafe { bpf(BPF_MAP_DELETE_ELEM, &mut attr) } {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The key after `key`, or the first one.
pub(super) fn next_key<K: Pod>(map: BorrowedFd<'_>, key: Option<&K>) -> io::Result<Option<K>> {
    let mut next = [K::zeroed()];
    let mut attr = ElementAttr {
        map_fd: map.as_raw_fd(),
        key: key.map_or(0, |key| address(std::slice::from_ref(key))),
        value_or_next_key: address_mut(&mut next),
        ..Zeroable::zeroed()
    };
    // SAFETY: `key` and `next` live through the call and have the key's size.
    match unsafe { bpf(BPF_MAP_GET_NEXT_KEY, &mut attr) } {
        Ok(_) => Ok(Some(next[0])),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What one batch call did: how many elements, and how it ended.
pub(super) struct Batch {
    /// Elements read or deleted.
    pub(super) count: usize,
    /// `Ok` if there may be more.
    pub(super) result: io::Result<()>,
}

/// Reads up to `keys.len()` elements from where `cursor` points, and moves it.
/// `values` holds a fixed number of `V` for every key.
pub(super) fn lookup_batch<K: Pod, V: Pod>(
    map: BorrowedFd<'_>,
    first: bool,
    cursor: &mut [u8],
    keys: &mut [K],
    values: &mut [V],
) -> Batch {
    let mut next = cursor.to_vec();
    let mut attr = BatchAttr {
        in_batch: if first { 0 } else { address(cursor) },
        out_batch: address_mut(&mut next),
        keys: address_mut(keys),
        values: address_mut(values),
        count: u32::try_from(keys.len()).unwrap_or(u32::MAX),
        map_fd: map.as_raw_fd(),
        ..Zeroable::zeroed()
    };
    // SAFETY: all four buffers live through the call; `count` is the length of
    // `keys`, callers size `values` and `cursor` to match (batch.rs).
    let result = unsafe { bpf(BPF_MAP_LOOKUP_BATCH, &mut attr) }.map(drop);
    cursor.copy_from_slice(&next);
    Batch { count: attr.count as usize, result }
}

/// Deletes the elements of `keys` in order, up to the first that is not there.
pub(super) fn delete_batch<K: Pod>(map: BorrowedFd<'_>, keys: &[K]) -> Batch {
    let mut attr = BatchAttr {
        keys: address(keys),
        count: u32::try_from(keys.len()).unwrap_or(u32::MAX),
        map_fd: map.as_raw_fd(),
        ..Zeroable::zeroed()
    };
    // SAFETY: `keys` lives through the call and is only read.
    let result = unsafe { bpf(BPF_MAP_DELETE_BATCH, &mut attr) }.map(drop);
    Batch { count: attr.count as usize, result }
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

/// Pins a program or link.
pub(super) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let mut attr = ObjectAttr {
        pathname: address(path.as_bytes_with_nul()),
        bpf_fd: object.as_raw_fd(),
        file_flags: 0,
    };
    // SAFETY: the path is a C string that lives through the call.
    unsafe { bpf(BPF_OBJ_PIN, &mut attr) }.map(drop)
}

/// Opens a pin.
pub(super) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let mut attr = ObjectAttr { pathname: address(path.as_bytes_with_nul()), ..Zeroable::zeroed() };
    // SAFETY: the path is a C string that lives through the call.
    owned(unsafe { bpf(BPF_OBJ_GET, &mut attr) }?)
}

/// Attaches a program to a device; closing the link detaches it unless pinned.
pub(super) fn link_create(
    program: BorrowedFd<'_>,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
) -> io::Result<OwnedFd> {
    let mut attr = LinkCreateAttr {
        prog_fd: program.as_raw_fd(),
        target_ifindex: ifindex,
        attach_type,
        flags,
        options: [0; 6],
    };
    // SAFETY: no addresses in it.
    owned(unsafe { bpf(BPF_LINK_CREATE, &mut attr) }?)
}

/// Replaces a link's program: a packet meets the old one or the new one.
pub(super) fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = LinkUpdateAttr {
        link_fd: link.as_raw_fd(),
        new_prog_fd: program.as_raw_fd(),
        ..Zeroable::zeroed()
    };
    // SAFETY: no addresses in it.
    unsafe { bpf(BPF_LINK_UPDATE, &mut attr) }.map(drop)
}

/// Detaches a link from its device at once, whoever else holds it.
pub(super) fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = LinkDetachAttr { link_fd: link.as_raw_fd() };
    // SAFETY: no addresses in it.
    unsafe { bpf(BPF_LINK_DETACH, &mut attr) }.map(drop)
}

/// The device a link is on; 0 if that device is gone, `None` if the link is
/// neither XDP nor TCX.
pub(super) fn link_ifindex(link: BorrowedFd<'_>) -> io::Result<Option<u32>> {
    let mut info = [LinkInfoAttr::zeroed()];
    let mut attr = InfoAttr {
        bpf_fd: link.as_raw_fd(),
        info_len: u32::try_from(size_of::<LinkInfoAttr>()).unwrap_or(0),
        info: address_mut(&mut info),
    };
    // SAFETY: `info` lives through the call and is as long as `info_len` says.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr) }?;
    let [info] = info;
    Ok(matches!(info.kind, LINK_TYPE_XDP | LINK_TYPE_TCX).then_some(info.ifindex))
}
