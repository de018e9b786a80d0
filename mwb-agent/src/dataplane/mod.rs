//! Everything between the agent and the kernel side: loading, attaching,
//! pinning, typed maps, batch reads, test runs. The only module that knows aya.
//! Must not know: configuration files, health, netlink.
//!
//! [`DataPlane`] has the programs and writes the settings; [`Tables`] reads
//! what the kernel side fills in, from any thread.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use aya::util::KernelVersion;
use mwb_common::maps::{Control, Device, Family, Liveness, Path, Selection};

mod attach;
mod batch;
mod bond;
#[cfg(test)]
mod bond_live_tests;
mod btf;
mod choice;
mod clsact;
mod error;
mod forget;
mod forwards;
mod handed;
mod load;
mod losses;
mod maps;
mod named;
mod pins;
mod policy;
#[cfg(test)]
mod policy_tests;
mod rulebook;
mod runs;
mod spec;
mod sys;
mod tables;
mod test_run;
#[cfg(test)]
pub(crate) mod testing;
mod ticks;
#[cfg(feature = "trace")]
mod trace;

pub use batch::Table;
pub use bond::BondMaps;
pub use error::{Error, MapDifference};
pub use forwards::Forward;
pub use handed::HandedRing;
pub use named::NamedTables;
pub(crate) use rulebook::monotonic;
pub use rulebook::{Rulebook, Rules};
pub use runs::{ProgramRuns, measure_runs};
pub use spec::{
    Attachment, CounterRow, DeviceSpec, Hook, HookChoice, Mode, Options, PIN_ROOT, PrefixRule,
    ProgramId, Programs, Role,
};
pub use tables::{Forwarded, Tables, Waiting};
pub use test_run::TestOutcome;

use maps::Settings;
use pins::Pins;
use policy::PolicyTables;
use ticks::Ticks;

/// The loaded data plane. Dropping it leaves everything that is pinned in
/// place: forwarding goes on.
pub struct DataPlane {
    object: aya::Ebpf,
    settings: Settings,
    tables: Tables,
    bond: BondMaps,
    ticks: Ticks,
    policy: PolicyTables,
    named: NamedTables,
    rules: Rules,
    /// `None`: nothing is pinned, and nothing can be attached for long.
    pins: Option<Pins>,
    /// Interface index of each device that this process attached.
    attached: BTreeMap<String, u32>,
    /// Whether the kernel has TCX links (6.6).
    has_tcx: bool,
    /// The kernel lets XDP redirect frames in several buffers (6.3).
    redirects_fragments: bool,
    /// Why nothing watches what is lost behind an XDP redirect, if so.
    unwatched: Option<String>,
}

impl DataPlane {
    /// Makes the place for an instance's pins: what opening needs the right to
    /// mount for.
    ///
    /// # Errors
    /// When bpffs cannot be had.
    pub fn prepare(options: &Options) -> Result<(), Error> {
        Pins::of(options)?.create(options)
    }

    /// Opens the data plane of an instance: takes over what is pinned, makes
    /// what is missing, loads the programs. Attaches nothing; only the slow path
    /// of what is attached already is replaced.
    ///
    /// # Errors
    /// When bpffs cannot be had, pinned maps differ from what is asked for,
    /// another layout is attached, or the kernel refuses a program.
    pub fn open(options: &Options) -> Result<Self, Error> {
        let pins = Pins::of(options)?;
        pins.create(options)?;
        pins.refuse_other_layouts(&options.instance)?;
        Self::load(options, Some(pins))
    }

    /// The same with maps that nobody else sees and that end with this value:
    /// for tests and for a look at what the verifier says. Cannot attach.
    ///
    /// # Errors
    /// As [`DataPlane::open`].
    pub fn open_unpinned(options: &Options) -> Result<Self, Error> {
        Self::load(options, None)
    }

    fn load(options: &Options, pins: Option<Pins>) -> Result<Self, Error> {
        let layout = btf::kernel_layout();
        let known = layout.as_ref().copied().unwrap_or_default();
        let mut object = load::load(options, pins.as_ref(), &known)?;
        let unwatched = match (layout, &pins) {
            (Ok(_), Some(pins)) => losses::watch(&mut object, pins).err().map(|e| e.to_string()),
            (Ok(_), None) => Some("nothing is pinned".to_owned()),
            (Err(error), _) => Some(format!("the kernel's types are not known: {error}")),
        };
        if let (Some(why), Some(_)) = (&unwatched, &pins) {
            tracing::warn!(why, "frames that are lost behind an XDP redirect are not counted");
        }
        #[cfg(feature = "trace")]
        trace::start(&mut object);
        let rules = Rules::of(&object)?;
        let named = NamedTables::of(&object)?;
        let mut settings = Settings::take(&mut object)?;
        // Every program is loaded: what was there goes on until it is replaced,
        // and nothing is attached yet that would find a place empty.
        for id in load::programs().filter(|&id| options.programs.contain(id)) {
            if let Some(index) = id.slow() {
                settings.set_slow(index, load::descriptor(&object, id)?)?;
            }
            if let Some(index) = id.next() {
                settings.set_next(index, load::descriptor(&object, id)?)?;
            }
        }
        let tables = settings.tables(&mut object)?;
        let bond = BondMaps::take(&mut object)?;
        let ticks = Ticks::take(&mut object)?;
        let policy = PolicyTables::take(&mut object)?;
        let since = |major, minor| {
            KernelVersion::current()
                .is_ok_and(|kernel| kernel >= KernelVersion::new(major, minor, 0))
        };
        Ok(Self {
            object,
            settings,
            tables,
            bond,
            ticks,
            policy,
            named,
            rules,
            pins,
            attached: BTreeMap::new(),
            has_tcx: since(6, 6),
            redirects_fragments: since(6, 3),
            unwatched,
        })
    }

    /// Handles for reading counters and tables, from any thread.
    #[must_use]
    pub fn tables(&self) -> Tables {
        self.tables.clone()
    }

    /// Handles of the bond's maps, from any thread.
    #[must_use]
    pub fn bond(&self) -> BondMaps {
        self.bond.clone()
    }

    /// Lets packets make probes when the agent is late with them: by way of the kernel's
    /// end of the bond's device, by its index in the caller's network. To be told anew
    /// when the device is a new one.
    ///
    /// # Errors
    /// When there is no such device, or the kernel refuses the write.
    pub fn set_ticks(&mut self, outer_device: u32) -> Result<(), Error> {
        self.ticks.set(outer_device)
    }

    /// Handles for reading what the kernel side decides by, from any thread.
    #[must_use]
    pub fn rules(&self) -> Rules {
        self.rules.clone()
    }

    /// Why [`Tables::losses`] stays empty, if the kernel does not let us watch.
    #[must_use]
    pub fn unwatched(&self) -> Option<&str> {
        self.unwatched.as_deref()
    }

    /// Every counter that is not zero; see [`Tables::counters`].
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn counters(&self) -> Result<Vec<CounterRow>, Error> {
        self.tables.counters()
    }

    /// Writes the settings that hold for all flows.
    ///
    /// # Errors
    /// When the kernel refuses the write.
    pub fn set_control(&mut self, control: &Control) -> Result<(), Error> {
        self.settings.set_control(control)
    }

    /// Reads the settings that hold for all flows; zeros in a fresh map.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn control(&self) -> Result<Control, Error> {
        self.settings.control()
    }

    /// Writes a device's entry without attaching anything: for test runs. What
    /// [`DataPlane::attach`] needs it writes by itself.
    ///
    /// # Errors
    /// When the index is beyond the table, or the kernel refuses the write.
    pub fn set_device(&mut self, ifindex: u32, device: Device) -> Result<(), Error> {
        self.settings.set_device("the device", ifindex, device)
    }

    /// Writes what may change of an attached device: how packets leave by it, and
    /// from which addresses it sends ICMP errors. One that is not attached is left
    /// alone.
    ///
    /// # Errors
    /// When the kernel refuses the write.
    pub fn revise_device(
        &mut self,
        device: &str,
        flags: u8,
        address4: Option<Ipv4Addr>,
        address6: Option<Ipv6Addr>,
    ) -> Result<(), Error> {
        let Some(&ifindex) = self.attached.get(device) else { return Ok(()) };
        let entry = self.settings.device(ifindex)?;
        let (address4, address6) = attach::addresses(address4, address6);
        self.settings.set_device(device, ifindex, Device { flags, address4, address6, ..entry })
    }

    /// Writes a WAN's entry, in one update.
    ///
    /// # Errors
    /// When `id` is not a path id, or the kernel refuses the write.
    pub fn set_path(&mut self, id: u8, path: &Path) -> Result<(), Error> {
        self.settings.set_path(id, path)
    }

    /// Reads a WAN's entry: an agent that starts goes on from its generation.
    ///
    /// # Errors
    /// When `id` is not a path id, or the kernel refuses to read.
    pub fn path(&self, id: u8) -> Result<Path, Error> {
        self.settings.path(id)
    }

    /// Writes until when each path is alive: one update of the one entry.
    ///
    /// # Errors
    /// When the kernel refuses the write.
    pub fn set_liveness(&mut self, liveness: &Liveness) -> Result<(), Error> {
        self.settings.set_liveness(liveness)
    }

    /// Reads until when each path is alive: what an agent before us has left.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn liveness(&self) -> Result<Liveness, Error> {
        self.settings.liveness()
    }

    /// Reads the path choice of a family: what an agent before us has left.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn selection(&self, family: Family) -> Result<Selection, Error> {
        self.settings.selection(0, family)
    }

    /// Writes the path choice of a family, in one update.
    ///
    /// # Errors
    /// When the kernel refuses the write.
    pub fn set_selection(&mut self, family: Family, selection: &Selection) -> Result<(), Error> {
        self.settings.set_selection(0, family, selection)
    }

    /// Makes the prefix tables hold exactly these rules, by applying the
    /// difference: there is no moment without the rules that stay.
    ///
    /// # Errors
    /// When there are too many, or the kernel refuses a write.
    pub fn set_prefixes(
        &mut self,
        v4: &[PrefixRule<Ipv4Addr>],
        v6: &[PrefixRule<Ipv6Addr>],
    ) -> Result<(), Error> {
        self.settings.set_prefixes(v4, v6)
    }
}
