//! The control loop with a data plane and devices of its own: what a restart
//! leaves alone, and that changes of the configuration go there and back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ipnet::IpNet;
use mwb_common::maps::{FORWARD, Path, Prefix, Selection, path_flag};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use tokio::sync::watch;

use super::beat::Plane;
use super::control::Control;
use super::view::View;
use super::{dead_after, fixture, identity, revision};
use crate::config::{self, Config};
use crate::dataplane::testing::{Instance, in_network, make_veth};
use crate::dataplane::{Rulebook, Rules, Tables};
use crate::events::Bus;
use crate::health::{Asking, Held, Measured, Reason, Report, State};
use crate::net::{Reachability, Snapshot};

const DEVICES: [&str; 6] = ["lan0", "lan1", "wan0", "wan1", "wan2", "wan3"];

/// Devices in a network of their own, and an instance.
struct World {
    instance: Instance,
    network: Snapshot,
}

impl World {
    fn new(name: &str) -> Self {
        let mut network = Snapshot::default();
        for (number, device) in (0_u8..).zip(DEVICES) {
            let ifindex = make_veth(device);
            let own = format!("198.51.{number}.2/24");
            network.devices.push(fixture::device(ifindex, device, &[own.as_str()]));
            if device.starts_with("wan") {
                let gateway = format!("198.51.{number}.1");
                network.routes.push(fixture::route("0.0.0.0/0", Some(&gateway), ifindex));
                network.neighbours.push(fixture::neighbour(ifindex, &gateway, Reachability::Fresh));
            }
        }
        Self { instance: Instance::new(name), network }
    }

    /// A new run of the agent, until `begin`.
    fn agent(&self, config: &Config) -> Agent {
        let plane = self.instance.open();
        let (tables, rules) = (plane.tables(), plane.rules());
        let plane = Plane::new(plane, dead_after(config));
        let (view, _) = watch::channel(Arc::new(View::default()));
        let control = Control::new(config.clone(), plane, Bus::new(8), &self.network, view);
        Agent { control: control.expect("a control loop"), tables, rules }
    }
}

struct Agent {
    control: Control,
    tables: Tables,
    rules: Rules,
}

impl Agent {
    fn begin(&mut self, world: &World) {
        self.control.begin(&world.network).expect("a beginning");
    }

    fn reload(&mut self, world: &World, config: &Config) {
        self.control.reconfigure(config.clone(), &world.network);
    }

    /// Health says how a WAN is.
    fn hear(&mut self, device: &str, state: State) {
        let report = Report {
            path: self.path(device),
            state,
            reason: Reason::Answers,
            transition: None,
            measured: Measured::default(),
            held: Held::default(),
            asking: Asking::default(),
            rounds: Vec::new(),
            switched: None,
        };
        self.control.report(report).expect("taken");
        self.control.decide(std::time::Instant::now()).expect("decided");
    }

    fn path(&self, device: &str) -> u8 {
        let wan = self.control.wans.iter().find(|wan| wan.port.device == device);
        wan.map(|wan| wan.path).expect("a WAN")
    }

    fn book(&self) -> Rulebook {
        self.rules.read().expect("a read")
    }

    fn state(&self) -> Kernel {
        Kernel::of(&self.book(), &self.tables)
    }
}

/// Outside port, protocol, device, inside address and port.
type ForwardRow = ([u8; 2], u8, [u8; 16], [u8; 4], [u8; 2]);

/// What the kernel side goes by, without times, and by device in the place of
/// path ids and generations.
#[derive(Clone, Debug, PartialEq)]
struct Kernel {
    control: (u16, u16, u32, u8),
    paths: BTreeMap<[u8; 16], Path>,
    alive: BTreeSet<[u8; 16]>,
    slots: Vec<[u8; 16]>,
    ranking: Vec<[u8; 16]>,
    prefixes: BTreeSet<(IpNet, u8, [u8; 16])>,
    forwards: BTreeSet<ForwardRow>,
    devices: BTreeMap<u32, (u8, [u8; 16], u8)>,
}

impl Kernel {
    fn of(book: &Rulebook, tables: &Tables) -> Self {
        let device = |id: u8| book.paths.get(usize::from(id)).map_or([0; 16], |path| path.device);
        let used = |path: &&Path| path.flags & path_flag::PRESENT != 0;
        let paths = book
            .paths
            .iter()
            .filter(used)
            .map(|path| (path.device, Path { generation: 0, epoch: 0, ..*path }));
        let alive = (0_u8..).zip(book.liveness.alive_until).filter(|(_, until)| *until > 0);
        let Selection { slots, ranking, .. } = &book.selections[0];
        let mut forwards = BTreeSet::new();
        tables
            .ports()
            .for_each(|key, owners| {
                let owners = owners.iter().filter(|owner| owner.last_used == FORWARD);
                forwards.extend(owners.map(|owner| {
                    let inside = owner.inside;
                    (key.port, key.protocol, device(key.path), inside.address, inside.port)
                }));
            })
            .expect("a read");
        let devices = tables.devices().expect("a read").into_iter();
        Self {
            control: (
                book.control.port_min,
                book.control.port_max,
                book.control.source_limit,
                book.control.filtering,
            ),
            paths: paths.collect(),
            alive: alive.map(|(id, _)| device(id)).collect(),
            slots: {
                let mut slots: Vec<_> = slots.iter().map(|id| device(*id)).collect();
                slots.sort_unstable();
                slots
            },
            ranking: ranking.iter().take_while(|id| **id != 0).map(|id| device(*id)).collect(),
            prefixes: book
                .prefixes
                .iter()
                .map(|(net, Prefix { class, path, .. })| (*net, *class, device(*path)))
                .collect(),
            forwards,
            devices: devices.map(|(id, d)| (id, (d.role, device(d.path), d.hook))).collect(),
        }
    }
}

fn parsed(text: &str) -> Config {
    config::parse(text, "f").unwrap_or_else(|error| panic!("{}\n{text}", error.render()))
}

/// Weighted, so that shares say what the configuration says.
fn file(lan: &str, wans: &[&str], extra: &str) -> Config {
    let wans: String = wans.iter().map(|wan| format!("  - {{{wan}}}\n")).collect();
    parsed(&format!(
        "version: 1\nmode: steer\nbalance: weighted\nlan: [{lan}]\nwans:\n{wans}{extra}"
    ))
}

const A: &str = "name: a, device: wan0, weight: 30";
const B: &str = "name: b, device: wan1, weight: 70";
const C: &str = "name: c, device: wan2, priority: 1, \
                 forwards: [{protocol: tcp, port: 443, to: 192.0.2.10}]";

#[test]
fn a_restart_rewrites_nothing_at_any_moment() {
    in_network("a_restart_rewrites_nothing_at_any_moment", || {
        let world = World::new("restart");
        let config = file("lan0", &[A, B, C], "");
        let mut first = world.agent(&config);
        first.begin(&world);
        for (device, state) in [("wan0", State::Up), ("wan1", State::Down), ("wan2", State::Up)] {
            first.hear(device, state);
        }
        let before = first.state();
        assert_eq!(before.alive, ["wan0", "wan2"].map(identity::padded).into());
        assert_eq!(before.slots, [identity::padded("wan0"); 1024]);
        let generations = first.book().paths.iter().map(|path| path.generation).collect::<Vec<_>>();
        let (rules, tables) = (first.rules.clone(), first.tables.clone());
        drop(first);

        let over = AtomicBool::new(false);
        let (mut agent, looks) = std::thread::scope(|scope| {
            let watcher = scope.spawn(|| {
                let mut looks = 0;
                while !over.load(Ordering::Relaxed) {
                    let book = rules.read().expect("a read");
                    let now = Kernel::of(&book, &tables);
                    // A map is read entry by entry: what a look finds missing
                    // must be missing twice.
                    assert_eq!(now, before, "look {looks}");
                    looks += 1;
                }
                looks
            });
            // The order of the file says nothing about path ids.
            let mut agent = world.agent(&file("lan0", &[C, B, A], ""));
            agent.begin(&world);
            over.store(true, Ordering::Relaxed);
            (agent, watcher.join().expect("nothing was different"))
        });
        assert!(looks > 3, "{looks} looks");
        let book = agent.book();
        assert_eq!(book.paths.iter().map(|path| path.generation).collect::<Vec<_>>(), generations);
        // Once health has spoken, new choices count: the dead one is back.
        for device in ["wan0", "wan1", "wan2"] {
            agent.hear(device, State::Up);
        }
        let shares = agent.state().slots;
        let of = |device| shares.iter().filter(|slot| **slot == identity::padded(device)).count();
        assert_eq!((of("wan0"), of("wan1"), of("wan2")), (307, 717, 0));
    });
}

#[test]
fn what_was_renamed_removed_and_added_while_no_agent_ran_is_so_after_the_start() {
    let name = "what_was_renamed_removed_and_added_while_no_agent_ran_is_so_after_the_start";
    in_network(name, || {
        let world = World::new("away");
        let mut agent = world.agent(&file("lan0, lan1", &[A, B, C], ""));
        agent.begin(&world);
        assert_eq!((agent.path("wan1"), agent.path("wan2")), (2, 3));
        let removed = agent.book().paths[1];
        drop(agent);
        let renamed = "name: z, device: wan2";
        let config = file("lan0", &["name: d, device: wan3", renamed, B], "");
        let mut agent = world.agent(&config);
        agent.begin(&world);
        // An id of before is not given away at the moment at which it is freed.
        assert_eq!([agent.path("wan1"), agent.path("wan2"), agent.path("wan3")], [2, 3, 4]);
        let book = agent.book();
        assert_eq!(book.paths[3].name, identity::padded("z"));
        let vacated = Path { generation: removed.generation + 1, ..Path::default() };
        assert_eq!(book.paths[1], vacated);
        let state = agent.state();
        assert!(state.forwards.is_empty());
        let roles: Vec<_> = state.devices.values().map(|(role, path, _)| (*role, *path)).collect();
        let wan = |device| (2, identity::padded(device));
        assert_eq!(roles, [(1, [0; 16]), wan("wan1"), wan("wan2"), wan("wan3")]);
    });
}

#[test]
fn a_reload_keeps_what_stays_and_clears_away_what_goes() {
    in_network("a_reload_keeps_what_stays_and_clears_away_what_goes", || {
        let world = World::new("reload");
        let mut agent = world.agent(&file("lan0", &[A, B, C], ""));
        agent.begin(&world);
        for device in ["wan0", "wan1", "wan2"] {
            agent.hear(device, State::Up);
        }
        agent.hear("wan2", State::Down);
        let before = agent.book().paths;
        let renamed = "name: other, device: wan2, weight: 10";
        agent.reload(&world, &file("lan1", &[renamed, B, "name: d, device: wan3"], ""));
        let book = agent.book();
        assert_eq!([agent.path("wan2"), agent.path("wan1"), agent.path("wan3")], [3, 2, 4]);
        assert_eq!(book.paths[2], before[2], "nobody asked for a change of it");
        let expected = Path { name: identity::padded("other"), ..before[3] };
        assert_eq!(book.paths[3], expected, "its flows go on under another name");
        assert_eq!(book.paths[1].flags, 0);
        assert_eq!(book.paths[1].generation, before[1].generation + 1, "flows of it are void");
        // What is known of a WAN stays known: it is still down.
        assert_eq!(agent.state().alive, ["wan1", "wan3"].map(identity::padded).into());
        // A new one must be heard from before it gets flows beside others.
        let share = |agent: &Agent, device| {
            agent.state().slots.iter().filter(|slot| **slot == identity::padded(device)).count()
        };
        assert_eq!((share(&agent, "wan1"), share(&agent, "wan3")), (1024, 0));
        agent.hear("wan3", State::Up);
        assert_eq!(share(&agent, "wan3"), 602);
        let roles: Vec<u8> = agent.state().devices.values().map(|(role, _, _)| *role).collect();
        assert_eq!(roles, [1, 2, 2, 2], "lan0 and wan0 have none any more");
        // The freed id goes to the next that comes.
        agent.reload(&world, &file("lan1", &[renamed, B, A], ""));
        assert_eq!(agent.path("wan0"), 1);
        assert!(agent.book().paths[1].generation > before[1].generation + 1);
    });
}

/// One of many configurations of the world.
fn any_config() -> impl Strategy<Value = Config> {
    let devices = prop::sample::subsequence(vec![0_u8, 1, 2, 3], 1..=4).prop_shuffle();
    let wan = (0_u8..2, 1_u16..4, 0_u8..2, 0_u16..3);
    (devices, prop::collection::vec(wan, 4), 0_usize..4, 0_usize..3, 0_u8..3).prop_map(
        |(devices, wans, lan, filtering, bypass)| {
            let lines: Vec<String> = devices
                .iter()
                .zip(wans)
                .map(|(device, (name, weight, priority, forwards))| {
                    let forwards: Vec<String> = (0..forwards)
                        .map(|n| format!("{{protocol: udp, port: {}, to: 192.0.2.9}}", n + weight))
                        .collect();
                    format!(
                        "name: n{device}{name}, device: wan{device}, weight: {weight}, priority: \
                         {priority}, forwards: [{}]",
                        forwards.join(", ")
                    )
                })
                .collect();
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            let prefixes: Vec<String> = (0..bypass).map(|n| format!("192.0.{n}.0/24")).collect();
            let extra = format!(
                "bypass: [{}]\nnat: {{filtering: {}, mappings_per_source: {bypass}}}\n",
                prefixes.join(", "),
                config::Filtering::ALL[filtering].name()
            );
            let lan = ["lan0", "lan1", "lan0, lan1", "{device: lan0, hook: tcx}"][lan];
            file(lan, &lines, &extra)
        },
    )
}

#[test]
fn a_reload_leads_to_where_a_start_does_and_the_way_back_restores() {
    in_network("a_reload_leads_to_where_a_start_does_and_the_way_back_restores", || {
        let (world, fresh) = (World::new("there"), Instance::new("fresh"));
        let base = file("lan0", &[A, B, C], "");
        let mut agent = world.agent(&base);
        agent.begin(&world);
        let settled = |agent: &mut Agent| {
            let devices: Vec<String> =
                agent.control.config.wans.iter().map(|wan| wan.device.clone()).collect();
            for device in &devices {
                agent.hear(device, State::Up);
            }
            agent.state()
        };
        let start = settled(&mut agent);
        drop(fresh);
        let mut runner = TestRunner::new(ProptestConfig::with_cases(24));
        let agent = std::cell::RefCell::new(agent);
        let result = runner.run(&any_config(), |config| {
            let mut agent = agent.borrow_mut();
            agent.reload(&world, &config);
            let there = settled(&mut agent);
            // The same again is nothing to do.
            let told = revision::between(&agent.control.config, &config);
            prop_assert_eq!(told, revision::Revision::default());
            let entries = agent.book().paths;
            agent.reload(&world, &config);
            prop_assert_eq!(&settled(&mut agent), &there);
            prop_assert_eq!(&agent.book().paths, &entries, "not even a generation");
            // What is there is what the configuration says.
            prop_assert_eq!(there.paths.len(), config.wans.len());
            prop_assert_eq!(there.alive.len(), config.wans.len());
            prop_assert_eq!(there.devices.len(), config.wans.len() + config.lan.len());
            let forwards: usize = config.wans.iter().map(|wan| wan.forwards.len()).sum();
            prop_assert_eq!(there.forwards.len(), forwards);
            agent.reload(&world, &base);
            prop_assert_eq!(&settled(&mut agent), &start);
            Ok(())
        });
        result.unwrap_or_else(|error| panic!("{error}"));
    });
}
