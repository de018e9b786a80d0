//! Disks in memory that die at a given step, and lose what was not synced.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::super::disk::{Disk, Disks};
use crate::notify::Body;

type Files = BTreeMap<(String, String), Vec<u8>>;

#[derive(Clone, Default)]
pub(in crate::notify) struct Ram(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// As the process sees it, by folder and name.
    now: Files,
    /// As it is after a power cut at the latest.
    durable: Files,
    folders: BTreeSet<String>,
    /// So many steps are left to this run.
    left: Option<u32>,
    /// Runs until now: what is left of an earlier one does nothing.
    run: u32,
    refuses: bool,
    /// Deliveries that a sync has promised, in order.
    promised: Vec<String>,
}

struct RamDisk {
    ram: Ram,
    folder: String,
    run: u32,
}

impl Ram {
    pub(in crate::notify) fn disk(&self, folder: &str) -> Box<dyn Disk> {
        let run = self.lock().run;
        Box::new(RamDisk { ram: self.clone(), folder: folder.to_owned(), run })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The process is killed at the step after these.
    pub(in crate::notify) fn dies_after(&self, steps: u32) {
        self.lock().left = Some(steps);
    }

    pub(in crate::notify) fn is_dead(&self) -> bool {
        self.lock().left == Some(0)
    }

    /// One step; false if the process does not live to do it.
    pub(in crate::notify) fn step(&self) -> bool {
        self.lock().step()
    }

    /// From now on it says that it is full, or no longer.
    pub(in crate::notify) fn refuse(&self, refuses: bool) {
        self.lock().refuses = refuses;
    }

    /// The process is gone; with `survivors` also the power: of each name that was
    /// not synced a bit says whether it is as it was before.
    pub(in crate::notify) fn crash(&self, survivors: Option<u64>) {
        let mut state = self.lock();
        if let Some(survivors) = survivors {
            let names: BTreeSet<_> =
                state.now.keys().chain(state.durable.keys()).cloned().collect();
            for (bit, name) in names.into_iter().enumerate() {
                if survivors >> (bit % 64) & 1 == 1 {
                    match state.durable.get(&name).cloned() {
                        Some(content) => state.now.insert(name, content),
                        None => state.now.remove(&name),
                    };
                }
            }
        }
        state.run += 1;
        state.left = None;
        state.settle();
    }

    /// Whether a power cut now would leave this body.
    pub(in crate::notify) fn holds(&self, body: &[u8]) -> bool {
        self.lock().durable.values().any(|content| content.ends_with(body))
    }

    /// A file that is there.
    pub(in crate::notify) fn put(&self, folder: &str, name: &str, content: &[u8]) {
        self.lock().now.insert((folder.to_owned(), name.to_owned()), content.to_vec());
    }

    pub(in crate::notify) fn promised(&self) -> Vec<String> {
        self.lock().promised.clone()
    }
}

impl State {
    fn step(&mut self) -> bool {
        match &mut self.left {
            None => true,
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                *left > 0
            }
        }
    }

    /// What is there now stays.
    fn settle(&mut self) {
        self.durable = self.now.clone();
        for ((_, name), content) in &self.durable {
            let body = content.get(65..).and_then(|body| serde_json::from_slice::<Body>(body).ok());
            let Some(body) = body.filter(|_| name.ends_with(".event")) else { continue };
            if !self.promised.contains(&body.delivery) {
                self.promised.push(body.delivery);
            }
        }
    }
}

impl RamDisk {
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.ram.lock();
        if state.run != self.run || !state.step() {
            return Err(io::Error::other("the process is dead"));
        }
        if state.refuses {
            return Err(ErrorKind::StorageFull.into());
        }
        Ok(state)
    }

    fn key(&self, name: &str) -> (String, String) {
        (self.folder.clone(), name.to_owned())
    }
}

impl Disks for Ram {
    fn open(&self, name: &str) -> io::Result<Box<dyn Disk>> {
        self.lock().folders.insert(name.to_owned());
        Ok(self.disk(name))
    }

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.lock().folders.iter().cloned().collect())
    }
}

impl Disk for RamDisk {
    fn names(&self) -> io::Result<Vec<String>> {
        let state = self.state()?;
        let own = state.now.keys().filter(|(folder, _)| *folder == self.folder);
        Ok(own.map(|(_, name)| name.clone()).collect())
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        self.state()?.now.get(&self.key(name)).cloned().ok_or(ErrorKind::NotFound.into())
    }

    fn write(&self, name: &str, content: &[u8]) -> io::Result<()> {
        match self.state() {
            Ok(mut state) => {
                state.now.insert(self.key(name), content.to_vec());
                Ok(())
            }
            Err(error) => {
                let mut state = self.ram.lock();
                if state.run == self.run && state.left == Some(0) {
                    // It died in the middle of it.
                    state.now.insert(self.key(name), content[..content.len() / 2].to_vec());
                    state.run += 1;
                }
                Err(error)
            }
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state()?;
        let content = state.now.remove(&self.key(from)).ok_or(ErrorKind::NotFound)?;
        state.now.insert(self.key(to), content);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let removed = self.state()?.now.remove(&self.key(name));
        removed.map(|_| ()).ok_or(ErrorKind::NotFound.into())
    }

    fn sync(&self) -> io::Result<()> {
        self.state()?.settle();
        Ok(())
    }

    fn remove_folder(&self) -> io::Result<()> {
        self.state()?.folders.remove(&self.folder);
        Ok(())
    }
}
