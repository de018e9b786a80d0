//! Addresses of names that policy rules ask for: tables that the kernel side only reads.
//! Cheap to clone and free of locks, so that an address is there at once. Must not know:
//! names, rules.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use aya::programs::{ProgramError, SocketFilter};
use mwb_common::maps::names::{self, programs::DNS_ANSWERS};
use mwb_common::policy::{NameBits, Named, NamedAddress};

use super::DataPlane;
use super::batch::Table;
use super::error::Error;
use super::load::insist;
use super::rulebook::open;

/// Handles of the tables.
#[derive(Clone)]
pub struct NamedTables {
    inner: Arc<Inner>,
}

struct Inner {
    addresses: Table<NamedAddress, Named>,
    groups: Table<u32, NameBits>,
    names: Table<u32, u64>,
}

impl NamedTables {
    /// Copies the handles, before others take the maps.
    pub(super) fn of(object: &aya::Ebpf) -> Result<Self, Error> {
        Ok(Self {
            inner: Arc::new(Inner {
                addresses: open(object, names::POLICY_ADDRESSES)?,
                groups: open(object, names::POLICY_GROUPS)?,
                names: open(object, names::POLICY_NAMES)?,
            }),
        })
    }

    /// Every address.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn addresses(&self) -> Result<Vec<(NamedAddress, Named)>, Error> {
        let mut all = Vec::new();
        self.inner.addresses.for_each(|address, values| {
            all.extend(values.iter().map(|named| (*address, *named)));
        })?;
        Ok(all)
    }

    /// The names of each group, by its number.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn groups(&self) -> Result<Vec<NameBits>, Error> {
        by_number(&self.inner.groups, NameBits::NONE)
    }

    /// What stands for each name, by its number; 0: there is none.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn names(&self) -> Result<Vec<u64>, Error> {
        by_number(&self.inner.names, 0)
    }

    /// Writes what stands for the name of a number.
    ///
    /// # Errors
    /// When there is no such number, or the kernel refuses the write.
    pub fn set_name(&self, number: u16, name: u64) -> Result<(), Error> {
        self.inner.names.put(&u32::from(number), &name)
    }

    /// Writes an address. Its group must have been told ([`DataPlane::set_name_group`]).
    ///
    /// # Errors
    /// When the table is full, or the kernel refuses the write.
    pub fn put(&self, address: NamedAddress, named: Named) -> Result<(), Error> {
        self.inner.addresses.put(&address, &named)
    }

    /// Takes an address away. That it is not there is no error.
    ///
    /// # Errors
    /// When the kernel refuses the write.
    pub fn remove(&self, address: NamedAddress) -> Result<(), Error> {
        self.inner.addresses.remove(&[address]).map(drop)
    }
}

fn by_number<V: bytemuck::Pod>(table: &Table<u32, V>, none: V) -> Result<Vec<V>, Error> {
    let mut all = vec![none; table.capacity() as usize];
    table.for_each(|&number, values| {
        if let (Some(place), Some(value)) = (all.get_mut(number as usize), values.first()) {
            *place = *value;
        }
    })?;
    Ok(all)
}

impl DataPlane {
    /// Handles of the tables of names' addresses, from any thread.
    #[must_use]
    pub fn named(&self) -> NamedTables {
        self.named.clone()
    }

    /// A program for packet sockets, which lets them have what a resolver on this machine
    /// answers and nothing else.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn answers_filter(&mut self) -> Result<OwnedFd, Error> {
        let program = self.object.program_mut(DNS_ANSWERS).ok_or(Error::Missing(DNS_ANSWERS))?;
        let refused = Error::program(DNS_ANSWERS);
        let descriptor = (|| {
            let filter: &mut SocketFilter = program.try_into()?;
            if filter.fd().is_err() {
                insist(|| filter.load())?;
            }
            let descriptor = filter.fd()?.as_fd().try_clone_to_owned();
            descriptor.map_err(ProgramError::IOError)
        })();
        descriptor.map_err(refused)
    }
}
