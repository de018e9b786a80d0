//! Names of policy rules at work: answers that are heard on LAN ports become addresses in
//! the kernel side's tables. Shared between the control loop, which says what to listen for
//! and where, the thread that listens, and whoever asks.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mwb_common::policy::{NameBits, POLICY_ADDRESSES};

use super::beat::Plane;
use super::policy::PolicyView;
use crate::api::policy::{AddressStatus, DeafDevice, DomainStatus, RuleStatus};
use crate::config::{Domain, Policy};
use crate::dataplane::{Error, NamedTables, monotonic};
use crate::domains::{Book, Change, Counts, Ears, Found, Heard, Learned, Listener, Reader};

/// A handle. Cheap to clone.
#[derive(Clone)]
pub(super) struct Domains {
    inner: Arc<Inner>,
}

struct Inner {
    plane: Plane,
    tables: NamedTables,
    state: Mutex<State>,
    listener: Mutex<Hearing>,
}

/// What is known. Locked before the data plane, never behind it.
#[derive(Default)]
struct State {
    /// `None`: no rule has asked for a name yet, and what was left is not read.
    book: Option<Book>,
    counts: Counts,
    /// Answers with a name of ours, and others.
    ours: u64,
    others: u64,
    /// A write has failed, and was told.
    failed: bool,
}

#[derive(Default)]
enum Hearing {
    /// No rule asks for a name.
    #[default]
    NotYet,
    Runs(Listener),
    /// It could not be started.
    Refused(String),
}

impl Domains {
    pub(super) fn new(plane: &Plane) -> Self {
        let inner = Inner {
            plane: plane.clone(),
            tables: plane.with(|plane| plane.named()),
            state: Mutex::default(),
            listener: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Follows the names that rules ask for, and gives each its number. The first time this
    /// takes over what an agent before us has left.
    pub(super) fn follow(&self, policy: &Policy) -> Result<BTreeMap<Domain, u16>, Error> {
        let domains = policy.domains();
        let mut state = self.inner.state();
        let book = match &mut state.book {
            Some(book) => book,
            None if domains.is_empty() => return Ok(BTreeMap::new()),
            empty => {
                let (book, changes) = Book::found(&self.inner.found()?, monotonic());
                let book = empty.insert(book);
                self.inner.write(book, changes)?;
                book
            }
        };
        let changes = book.follow(&domains);
        self.inner.write(book, changes)?;
        let number = |domain: &&Domain| Some(((*domain).clone(), book.number_of(domain)?));
        Ok(domains.iter().filter_map(number).collect())
    }

    /// Hears answers on these devices, known by index.
    pub(super) fn listen(&self, devices: BTreeMap<u32, String>) {
        let mut hearing = self.inner.hearing();
        if !devices.is_empty() && !matches!(*hearing, Hearing::Runs(_)) {
            let before = matches!(*hearing, Hearing::Refused(_));
            *hearing = match self.start() {
                Ok(listener) => Hearing::Runs(listener),
                Err(why) => {
                    if !before {
                        tracing::error!(why, "answers of the resolver are not heard");
                    }
                    Hearing::Refused(why)
                }
            };
        }
        if let Hearing::Runs(listener) = &*hearing {
            listener.listen(devices);
        }
    }

    fn start(&self) -> Result<Listener, String> {
        let filter = self.inner.plane.with(|plane| plane.answers_filter());
        let filter = filter.map_err(|error| error.to_string())?;
        let inner = Arc::downgrade(&self.inner);
        let mut reader = Reader::default();
        let hear = move |heard: Heard<'_>| {
            if let Some(inner) = inner.upgrade() {
                inner.hear(&mut reader, heard);
            }
        };
        Listener::start(filter, hear).map_err(|error| format!("starting the thread: {error}"))
    }

    /// Names that an address is known to be of.
    pub(super) fn names_of(&self, address: IpAddr) -> NameBits {
        let state = self.inner.state();
        let book = state.book.as_ref();
        book.map_or(NameBits::NONE, |book| book.names_of(address, monotonic()))
    }

    /// Says of rules how many addresses are known of their names.
    pub(super) fn count(&self, view: &PolicyView, rules: &mut [RuleStatus]) {
        let state = self.inner.state();
        let of = |domains| state.book.as_ref().map_or(0, |book| book.count(domains) as u64);
        for (rule, domains) in rules.iter_mut().zip(&view.domains) {
            rule.addresses = (!domains.is_empty()).then(|| of(domains));
        }
    }

    /// The addresses of a rule's names.
    pub(super) fn list(&self, view: &PolicyView, rule: &str) -> Vec<AddressStatus> {
        let place = view.rules.iter().position(|one| one.name == rule);
        let domains = place.and_then(|place| view.domains.get(place)).map_or(&[][..], |list| list);
        let state = self.inner.state();
        let listed = state.book.iter().flat_map(|book| book.list(domains, monotonic()));
        let shown = listed.map(|listed| AddressStatus {
            address: listed.address.to_string(),
            name: listed.name,
            seconds_left: listed.left / 1_000_000_000,
        });
        shown.collect()
    }

    /// What the API shows of all of it; `None`: no rule has asked for a name.
    pub(super) fn status(&self) -> Option<DomainStatus> {
        let (ears, why) = match &*self.inner.hearing() {
            Hearing::Runs(listener) => (listener.ears(), None),
            Hearing::NotYet => (Ears::default(), None),
            Hearing::Refused(why) => (Ears::default(), Some(why.clone())),
        };
        let state = self.inner.state();
        let book = state.book.as_ref()?;
        let deaf = ears.deaf.into_iter().map(|(device, why)| DeafDevice { device, why });
        let none = why.map(|why| DeafDevice { device: "all".to_owned(), why });
        Some(DomainStatus {
            addresses: book.len() as u64,
            capacity: POLICY_ADDRESSES as u64,
            pushed_out: book.pushed_out(),
            refused: book.refused(),
            answers: state.ours,
            of_others: state.others,
            without_address: state.counts.without_address,
            unreadable: state.counts.unreadable,
            given_up: state.counts.given_up,
            dropped: ears.dropped,
            heard: ears.devices,
            deaf: deaf.chain(none).collect(),
        })
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hearing(&self) -> MutexGuard<'_, Hearing> {
        self.listener.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn found(&self) -> Result<Found, Error> {
        Ok(Found {
            names: self.tables.names()?,
            groups: self.tables.groups()?,
            addresses: self.tables.addresses()?,
        })
    }

    fn hear(&self, reader: &mut Reader, heard: Heard<'_>) {
        let now = monotonic();
        let answers = match heard {
            Heard::Packet(packet) => reader.take(packet, now),
            Heard::Second => {
                reader.expire(now);
                Vec::new()
            }
        };
        let mut state = self.state();
        let State { book, counts, ours, others, failed } = &mut *state;
        *counts = reader.counts();
        let Some(book) = book else { return };
        let mut changes = Vec::new();
        if matches!(heard, Heard::Second) {
            changes = book.expire(now);
        }
        for answer in answers {
            let (learned, more) = book.learn(&answer, now);
            *(if learned == Learned::Ours { &mut *ours } else { &mut *others }) += 1;
            changes.extend(more);
        }
        let written = self.write(book, changes);
        if let Err(error) = &written
            && !*failed
        {
            tracing::error!(%error, "addresses of names could not be written");
        }
        *failed = written.is_err();
    }

    /// Writes changes in their order. A group that the kernel side has no room for has no
    /// addresses; the error is the first one of what else went wrong.
    fn write(&self, book: &mut Book, changes: Vec<Change>) -> Result<(), Error> {
        let mut refused: BTreeSet<u16> = BTreeSet::new();
        let mut changes = VecDeque::from(changes);
        let mut first = Ok(());
        while let Some(change) = changes.pop_front() {
            let done = match change {
                Change::Name(number, hash) => self.tables.set_name(number, hash),
                Change::Group(group, names) => {
                    let told = self.plane.with(|plane| plane.set_name_group(group, names));
                    if told.is_ok() {
                        refused.remove(&group);
                    } else {
                        refused.insert(group);
                        changes.extend(book.disown(group));
                    }
                    // That there is no room is counted, and no fault.
                    if matches!(told, Err(Error::Policy(_))) { Ok(()) } else { told }
                }
                Change::Address(_, named) if refused.contains(&named.group()) => Ok(()),
                Change::Address(address, named) => self.tables.put(address, named),
                Change::Gone(address) => self.tables.remove(address),
            };
            first = first.and(done);
        }
        first
    }
}
