//! Map names as they stand in the object file and under the pin directory.

/// `Array<Device>` by interface index.
pub const DEVICES: &str = "DEVICES";
/// `Array<Control>` with one entry.
pub const CONTROL: &str = "CONTROL";
/// `Array<Path>` by path id.
pub const PATHS: &str = "PATHS";
/// `Array<Liveness>` with one entry.
pub const LIVENESS: &str = "LIVENESS";
/// `Array<Selection>` by [`crate::policy::selection_index`].
pub const SELECTIONS: &str = "SELECTIONS";
/// `Array<u64>` by [`crate::policy::selection_index`]: the running slot index.
pub const CURSORS: &str = "CURSORS";
/// `LpmTrie<[u8; 4], Prefix>`.
pub const PREFIXES4: &str = "PREFIXES4";
/// `LpmTrie<[u8; 16], Prefix>`.
pub const PREFIXES6: &str = "PREFIXES6";
/// `HashMap<FlowKey4, Flow>`.
pub const FLOWS4: &str = "FLOWS4";
/// `HashMap<FlowKey6, Flow>`.
pub const FLOWS6: &str = "FLOWS6";
/// `HashMap<MappingKey, Mapping>`.
pub const MAPPINGS: &str = "MAPPINGS";
/// `HashMap<PortKey, PortOwner>`.
pub const PORTS: &str = "PORTS";
/// `PerCpuArray<Counters>` by [`super::counter_entry`].
pub const COUNTERS: &str = "COUNTERS";
/// `HashMap<[u8; 4], u32>`: mappings ever made for an inside address. Only
/// the kernel side counts.
pub const MAPPINGS_MADE: &str = "MAPPINGS_MADE";
/// `HashMap<[u8; 4], u32>`: how many of them are over. Only the agent counts.
pub const MAPPINGS_ENDED: &str = "MAPPINGS_ENDED";
/// `LruHashMap<FlowKey4, Contact>` by the key of an inbound packet without
/// its source port.
pub const CONTACTS: &str = "CONTACTS";
/// `LruHashMap<FlowKey6, Fragment>`, see [`super::Fragment`].
pub const FRAGMENTS: &str = "FRAGMENTS";
/// `Array<Held>`.
pub const HELD: &str = "HELD";
/// `PerCpuArray<Budget>` with one entry: ICMP errors that may be sent.
pub const BUDGET: &str = "BUDGET";
/// `ProgramArray` by [`super::slow`].
pub const SLOW: &str = "SLOW";
/// `Array<PolicyState>` with one entry.
pub const POLICY: &str = "POLICY";
/// `Array<PolicyPlaces>`: of each bank all of [`crate::policy::place`].
pub const POLICY_PLACES: &str = "POLICY_PLACES";
/// `HashMap<PolicyMac, u16>`: sets of MACs.
pub const POLICY_MACS: &str = "POLICY_MACS";
/// `LpmTrie<Policed4, u16>`: sets of prefixes.
pub const POLICY_PREFIXES4: &str = "POLICY_PREFIXES4";
/// `LpmTrie<Policed6, u16>`, the same.
pub const POLICY_PREFIXES6: &str = "POLICY_PREFIXES6";
/// `Array<RuleBits>`: of each bank its sets, by number.
pub const POLICY_SETS: &str = "POLICY_SETS";
/// `Array<PolicyRule>`: of each bank its rules, by number.
pub const POLICY_RULES: &str = "POLICY_RULES";
/// `PerCpuArray<u64>` by [`crate::policy::PolicyRule::hits`].
pub const POLICY_HITS: &str = "POLICY_HITS";
/// `HashMap<NamedAddress, Named>`: addresses of names that rules ask for.
pub const POLICY_ADDRESSES: &str = "POLICY_ADDRESSES";
/// `Array<NameBits>`: the names of each group, for the agent's next run.
pub const POLICY_GROUPS: &str = "POLICY_GROUPS";
/// `Array<u64>`: a hash of each name, 0 = none, for the agent's next run.
pub const POLICY_NAMES: &str = "POLICY_NAMES";

/// `PerCpuArray<u64>` by interface index: frames that XDP programs have
/// redirected to a device and that it did not take.
pub const XMIT_LOSSES: &str = "XMIT_LOSSES";
/// `Array<Bond>` with one entry.
pub const BOND: &str = "BOND";
/// `Array<ClassRule>`, in the order in which they are asked.
pub const CLASSES: &str = "CLASSES";
/// `PerCpuArray<ClassCount>` by rule.
pub const CLASS_COUNTS: &str = "CLASS_COUNTS";
/// `Array<Session>` by slot.
pub const SESSIONS: &str = "SESSIONS";
/// `Array<SessionState>` by slot.
pub const SESSION_STATES: &str = "SESSION_STATES";
/// `Array<Selection>` by slot of the session: its slot table.
pub const SESSION_SELECTIONS: &str = "SESSION_SELECTIONS";
/// `Array<BondPath>` by [`super::path_index`].
pub const BOND_PATHS: &str = "BOND_PATHS";
/// `Array<PathState>` by [`super::path_index`].
pub const PATH_STATES: &str = "PATH_STATES";
/// `Array<GuardedPathWindow>` by [`super::path_index`].
pub const PATH_WINDOWS: &str = "PATH_WINDOWS";
/// `Array<GuardedFlowWindow>` by [`super::bucket_index`].
pub const FLOW_WINDOWS: &str = "FLOW_WINDOWS";
/// `Array<Bucket>` by [`super::bucket_index`].
pub const BUCKETS: &str = "BUCKETS";
/// `Array<GuardedTurns>` by [`super::bucket_index`].
pub const TURNS: &str = "TURNS";
/// `RingBuf` of [`super::Handed`], each with its text.
pub const HANDED: &str = "HANDED";
/// `Array<u64>` with one entry: until when the agent takes what it is handed, in ns.
pub const LEASE: &str = "LEASE";
/// `LpmTrie<[u8; 4], Owner>`: inner addresses of clients.
pub const OWNERS4: &str = "OWNERS4";
/// `LpmTrie<[u8; 16], Owner>`, the same.
pub const OWNERS6: &str = "OWNERS6";
/// `DevMap`: where a packet goes that is also to make a probe: the kernel's end of the
/// bond's device, once for it and once for its copy.
pub const TICKS: &str = "TICKS";
/// `ProgramArray` by [`super::next`].
pub const NEXT: &str = "NEXT";
/// Global of type [`super::KernelLayout`].
pub const KERNEL_LAYOUT: &str = "KERNEL_LAYOUT";

/// Every map that is pinned.
pub const PINNED: &[&str] = &[
    DEVICES,
    CONTROL,
    PATHS,
    LIVENESS,
    SELECTIONS,
    CURSORS,
    PREFIXES4,
    PREFIXES6,
    FLOWS4,
    FLOWS6,
    MAPPINGS,
    PORTS,
    COUNTERS,
    MAPPINGS_MADE,
    MAPPINGS_ENDED,
    CONTACTS,
    FRAGMENTS,
    HELD,
    BUDGET,
    SLOW,
    POLICY,
    POLICY_PLACES,
    POLICY_MACS,
    POLICY_PREFIXES4,
    POLICY_PREFIXES6,
    POLICY_SETS,
    POLICY_RULES,
    POLICY_HITS,
    POLICY_ADDRESSES,
    POLICY_GROUPS,
    POLICY_NAMES,
    XMIT_LOSSES,
    BOND,
    CLASSES,
    CLASS_COUNTS,
    SESSIONS,
    SESSION_STATES,
    SESSION_SELECTIONS,
    BOND_PATHS,
    PATH_STATES,
    PATH_WINDOWS,
    FLOW_WINDOWS,
    BUCKETS,
    TURNS,
    HANDED,
    LEASE,
    OWNERS4,
    OWNERS6,
    TICKS,
    NEXT,
];

/// Program names in the object file: entry point and form.
pub mod programs {
    /// LAN side, XDP form.
    pub const INSIDE_XDP: &str = "inside_xdp";
    /// LAN side, TCX/clsact form.
    pub const INSIDE_TC: &str = "inside_tc";
    /// WAN side, XDP form.
    pub const OUTSIDE_XDP: &str = "outside_xdp";
    /// WAN side, TCX/clsact form.
    pub const OUTSIDE_TC: &str = "outside_tc";
    /// LAN side, IPv4: what is rare and long, called by `inside_tc`.
    pub const INSIDE_SLOW4: &str = "inside_slow4";
    /// The same for IPv6.
    pub const INSIDE_SLOW6: &str = "inside_slow6";
    /// WAN side, IPv4: what is rare and long, called by `outside_tc`.
    pub const OUTSIDE_SLOW4: &str = "outside_slow4";
    /// The same for IPv6.
    pub const OUTSIDE_SLOW6: &str = "outside_slow6";
    /// Into the bond: of a LAN port, and of the data plane's end of the device.
    pub const BOND_INSIDE: &str = "bond_inside";
    /// Out of the bond: of a WAN port.
    pub const BOND_OUTSIDE: &str = "bond_outside";
    /// Out of the bond of a server, and on: called by `bond_outside`.
    pub const BOND_OPENED: &str = "bond_opened";
    /// To an uplink of a server, but not to its bond: called by `bond_outside`.
    pub const UPLINK_XDP: &str = "uplink_xdp";
    /// Into the bond of a server: called by `uplink_xdp`.
    pub const BOND_INTO: &str = "bond_into";
    /// What the agent gives back: called by `bond_inside`.
    pub const BOND_BACK: &str = "bond_back";
    /// Counts what a device's driver does not take from XDP.
    pub const DEVMAP_XMIT: &str = "devmap_xmit";
    /// Counts what does not get as far as the driver.
    pub const REDIRECT_ERR: &str = "redirect_err";
    /// Lets a packet socket of the agent have what a resolver on the gateway answers.
    pub const DNS_ANSWERS: &str = "dns_answers";
    /// Those that only watch, with their tracepoints: a kernel may refuse
    /// them.
    pub const WATCHING: &[(&str, &str)] =
        &[(DEVMAP_XMIT, "xdp_devmap_xmit"), (REDIRECT_ERR, "xdp_redirect_err")];
    /// All that packets go through.
    pub const ALL: &[&str] = &[
        INSIDE_XDP,
        INSIDE_TC,
        INSIDE_SLOW4,
        INSIDE_SLOW6,
        OUTSIDE_XDP,
        OUTSIDE_TC,
        OUTSIDE_SLOW4,
        OUTSIDE_SLOW6,
        BOND_INSIDE,
        BOND_OUTSIDE,
        BOND_OPENED,
        UPLINK_XDP,
        BOND_INTO,
        BOND_BACK,
    ];
}
