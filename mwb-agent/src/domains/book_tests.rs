use std::net::{Ipv4Addr, Ipv6Addr};

use mwb_common::policy::NamedAddress;
use proptest::prelude::*;

use super::*;

/// A time to begin with.
const T: u64 = 5_000 * SECOND;

fn domain(text: &str) -> Domain {
    Domain::parse(text).expect(text)
}

fn domains(texts: &[&str]) -> Vec<Domain> {
    texts.iter().map(|text| domain(text)).collect()
}

/// A book, and the kernel side's tables as its changes make them.
#[derive(Default)]
struct World {
    book: Book,
    tables: Tables,
}

#[derive(Default, Debug, PartialEq)]
struct Tables {
    names: BTreeMap<u16, u64>,
    groups: BTreeMap<u16, NameBits>,
    addresses: BTreeMap<NamedAddress, Named>,
}

impl Tables {
    fn write(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Name(number, hash) => drop(self.names.insert(number, hash)),
                Change::Group(group, names) => {
                    assert!(self.addresses.values().all(|named| named.group() != group));
                    self.groups.insert(group, names);
                }
                Change::Address(address, named) => drop(self.addresses.insert(address, named)),
                Change::Gone(address) => drop(self.addresses.remove(&address)),
            }
        }
    }

    fn found(&self) -> Found {
        let names = (0..1_024).map(|number| self.names.get(&number).copied().unwrap_or(0));
        let groups = (0..1_024).map(|n| self.groups.get(&n).copied().unwrap_or(NameBits::NONE));
        let addresses = self.addresses.iter().map(|(address, named)| (*address, *named));
        Found { names: names.collect(), groups: groups.collect(), addresses: addresses.collect() }
    }

    /// What the kernel side finds.
    fn names_of(&self, address: IpAddr, now: u64) -> NameBits {
        let named = self.addresses.get(&to_key(address));
        let group = named.map_or(0, |named| named.group_at(now));
        self.groups.get(&group).copied().unwrap_or(NameBits::NONE)
    }
}

impl World {
    fn with(texts: &[&str]) -> Self {
        let mut world = Self::default();
        world.follow(texts);
        world
    }

    fn follow(&mut self, texts: &[&str]) {
        let domains = domains(texts);
        let changes = self.book.follow(&domains.iter().collect::<Vec<_>>());
        self.tables.write(changes);
    }

    fn learn(&mut self, names: &[&str], addresses: &[(IpAddr, u32)], now: u64) -> Learned {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let answer = Answer { names, addresses: addresses.to_vec() };
        let (learned, changes) = self.book.learn(&answer, now);
        self.tables.write(changes);
        learned
    }

    /// Another agent takes over.
    fn restart(&mut self, now: u64) {
        let (book, changes) = Book::found(&self.tables.found(), now);
        self.book = book;
        self.tables.write(changes);
    }

    /// Whether the kernel side takes an address for one of a name.
    fn has(&self, address: IpAddr, text: &str, now: u64) -> bool {
        let number = self.book.number_of(&domain(text));
        let names = self.tables.names_of(address, now);
        number.is_some_and(|number| names.has(usize::from(number)))
    }
}

fn v4(last: u8) -> IpAddr {
    Ipv4Addr::new(203, 0, 113, last).into()
}

fn v6(last: u16) -> IpAddr {
    Ipv6Addr::new(0x2001, 0xdb8, 0xff, 0, 0, 0, 0, last).into()
}

#[test]
fn a_name_means_itself_and_a_star_all_below_it() {
    for (asked, exact, below) in [
        ("example.net", true, false),
        ("a.example.net", false, true),
        ("a.b.example.net", false, true),
        ("badexample.net", false, false),
        ("net", false, false),
        ("example.net.org", false, false),
        ("", false, false),
    ] {
        let mut world = World::with(&["example.net", "*.example.net"]);
        let learned = world.learn(&[asked], &[(v4(1), 300)], T);
        assert_eq!(learned == Learned::Ours, exact || below, "{asked}");
        assert_eq!(world.has(v4(1), "example.net", T), exact, "{asked}");
        assert_eq!(world.has(v4(1), "*.example.net", T), below, "{asked}");
    }
}

#[test]
fn every_name_on_the_way_counts() {
    let mut world = World::with(&["www.example.net", "*.cdn.example", "other.example"]);
    world.learn(&["www.example.net", "e1.cdn.example"], &[(v4(1), 300), (v6(1), 300)], T);
    for address in [v4(1), v6(1)] {
        assert!(world.has(address, "www.example.net", T) && world.has(address, "*.cdn.example", T));
        assert!(!world.has(address, "other.example", T));
    }
    assert_eq!(world.book.count(&domains(&["www.example.net"])), 2);
    assert_eq!(world.book.count(&domains(&["www.example.net", "*.cdn.example"])), 2);
    assert_eq!(world.book.count(&domains(&["other.example"])), 0);
    let listed = world.book.list(&domains(&["*.cdn.example"]), T + SECOND);
    assert_eq!(listed.len(), 2);
    assert_eq!(listed[0].name.as_deref(), Some("www.example.net"));
    assert_eq!(listed[0].left, 299 * SECOND);
}

#[test]
fn an_address_is_good_for_a_minute_at_least_and_a_day_at_most() {
    for (ttl, seconds) in [(0, 60), (59, 60), (61, 61), (86_400, 86_400), (u32::MAX, 86_400)] {
        let mut world = World::with(&["a.example"]);
        world.learn(&["a.example"], &[(v4(1), ttl)], T);
        let end = T + seconds * SECOND;
        assert!(world.has(v4(1), "a.example", end - SECOND), "{ttl}");
        // No agent has to be there for that.
        assert!(!world.has(v4(1), "a.example", end), "{ttl}");
        world.tables.write(world.book.expire(end));
        assert!(world.tables.addresses.is_empty() && world.book.is_empty(), "{ttl}");
    }
}

#[test]
fn each_answer_gives_it_more_time_and_none_takes_some_away() {
    let mut world = World::with(&["a.example"]);
    world.learn(&["a.example"], &[(v4(1), 100)], T);
    world.learn(&["a.example"], &[(v4(1), 100)], T + 50 * SECOND);
    assert!(world.has(v4(1), "a.example", T + 149 * SECOND));
    world.learn(&["a.example"], &[(v4(1), 10)], T + 50 * SECOND);
    assert!(world.has(v4(1), "a.example", T + 149 * SECOND));
    world.tables.write(world.book.expire(T + 149 * SECOND));
    assert_eq!(world.book.len(), 1);
}

#[test]
fn an_address_of_two_names_is_of_each_for_its_own_time() {
    let mut world = World::with(&["a.example", "b.example"]);
    world.learn(&["a.example"], &[(v4(1), 100)], T);
    world.learn(&["b.example"], &[(v4(1), 1_000)], T);
    assert!(world.has(v4(1), "a.example", T) && world.has(v4(1), "b.example", T));
    let later = T + 100 * SECOND;
    world.tables.write(world.book.expire(later));
    assert!(!world.has(v4(1), "a.example", later) && world.has(v4(1), "b.example", later));
}

#[test]
fn a_name_that_stays_keeps_its_addresses_when_others_come_and_go() {
    let mut world = World::with(&["a.example", "b.example"]);
    world.learn(&["a.example"], &[(v4(1), 300), (v6(1), 300)], T);
    world.learn(&["b.example"], &[(v4(2), 300)], T);
    world.learn(&["a.example", "b.example"], &[(v4(3), 300)], T);
    world.follow(&["c.example", "a.example"]);
    for address in [v4(1), v6(1), v4(3)] {
        assert!(world.has(address, "a.example", T), "{address}");
        assert!(!world.has(address, "c.example", T), "{address}");
    }
    assert_eq!(world.tables.addresses.len(), 3);
    assert_eq!(world.book.names_of(v4(2), T), NameBits::NONE);
    world.follow(&[]);
    assert!(world.tables.addresses.is_empty());
    assert!(world.tables.names.values().all(|hash| *hash == 0));
}

#[test]
fn another_agent_knows_what_each_address_is_whatever_it_is_told_then() {
    let mut world = World::with(&["a.example", "b.example"]);
    world.learn(&["a.example"], &[(v4(1), 100)], T);
    world.learn(&["b.example"], &[(v4(2), 300), (v4(3), 300)], T);
    world.learn(&["a.example"], &[(v4(3), 300)], T);
    let later = T + 200 * SECOND;
    world.restart(later);
    world.follow(&["c.example", "b.example"]);
    for (last, is_b) in [(1, false), (2, true), (3, true)] {
        assert_eq!(world.has(v4(last), "b.example", later), is_b, "{last}");
        assert!(!world.has(v4(last), "c.example", later), "{last}");
    }
    assert_eq!(world.tables.addresses.len(), 2);
    assert_eq!(world.book.list(&domains(&["b.example"]), later)[0].name, None);
    world.tables.write(world.book.expire(T + 300 * SECOND));
    assert!(world.tables.addresses.is_empty());
}

#[test]
fn when_it_is_full_what_is_over_first_makes_room() {
    let mut world = World::with(&["a.example"]);
    let address = |n: u32| IpAddr::from(Ipv4Addr::from(0xcb00_0000 + n));
    let most = u32::try_from(POLICY_ADDRESSES).expect("a number");
    for n in 0..most {
        world.learn(&["a.example"], &[(address(n), 1_000 + n)], T);
    }
    assert_eq!((world.tables.addresses.len(), world.book.pushed_out()), (POLICY_ADDRESSES, 0));
    world.learn(&["a.example"], &[(address(most), 10_000)], T);
    // One that is known already needs no room.
    world.learn(&["a.example"], &[(address(5), 10_000)], T);
    assert_eq!((world.tables.addresses.len(), world.book.pushed_out()), (POLICY_ADDRESSES, 1));
    assert!(!world.has(address(0), "a.example", T) && world.has(address(most), "a.example", T));
}

#[test]
fn more_sets_of_names_than_there_are_groups_are_refused_and_counted() {
    let names: Vec<String> = (0..12).map(|n| format!("n{n}.example")).collect();
    let mut world = World::with(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let mut refused = 0;
    for bits in 1..2_000_u32 {
        let chosen = names.iter().enumerate().filter(|(n, _)| bits >> n & 1 != 0);
        let chosen: Vec<&str> = chosen.map(|(_, name)| name.as_str()).collect();
        let address = IpAddr::from(Ipv4Addr::from(0xcb00_0000 + bits));
        world.learn(&chosen, &[(address, 300)], T);
        refused += u64::from(world.tables.names_of(address, T) == NameBits::NONE);
    }
    assert_eq!((refused, world.book.refused()), (1_999 - 1_023, 1_999 - 1_023));
    // Room that is given back is taken again.
    world.tables.write(world.book.expire(T + 300 * SECOND));
    assert_eq!(world.tables.addresses.len(), 0);
    world.learn(&["n0.example", "n11.example"], &[(v4(1), 300)], T + 300 * SECOND);
    assert!(world.has(v4(1), "n11.example", T + 300 * SECOND));
}

#[test]
fn a_group_that_is_refused_loses_its_addresses() {
    let mut world = World::with(&["a.example", "b.example"]);
    world.learn(&["a.example"], &[(v4(1), 300), (v4(2), 300)], T);
    world.learn(&["b.example"], &[(v4(3), 300)], T);
    let group = world.tables.addresses[&to_key(v4(1))].group();
    world.tables.write(world.book.disown(group));
    assert_eq!((world.tables.addresses.len(), world.book.refused()), (1, 2));
}

/// What may happen.
#[derive(Clone, Debug)]
enum Event {
    Learn { names: Vec<usize>, addresses: Vec<(u8, u32)> },
    Follow(Vec<usize>),
    Wait(u64),
    Restart,
}

const NAMES: [&str; 5] = ["a.example", "*.a.example", "b.example", "*.example", "c.example"];
const ASKED: [&str; 5] = ["a.example", "x.a.example", "b.example", "y.example", "z.org"];

fn event() -> impl Strategy<Value = Event> {
    let names = || prop::collection::vec(0..5_usize, 0..4);
    prop_oneof![
        6 => (names(), prop::collection::vec((0..6_u8, 0..400_u32), 1..3))
            .prop_map(|(names, addresses)| Event::Learn { names, addresses }),
        2 => names().prop_map(Event::Follow),
        3 => (0..200_u64).prop_map(Event::Wait),
        1 => Just(Event::Restart),
    ]
}

proptest! {
    /// The tables against a list of all that was said.
    #[test]
    fn the_tables_have_what_was_said_and_is_not_over(
        events in prop::collection::vec(event(), 1..60),
    ) {
        let mut world = World::default();
        let mut now = T;
        let mut said: BTreeMap<(usize, u8), u64> = BTreeMap::new();
        let mut wanted: BTreeSet<usize> = BTreeSet::new();
        for event in events {
            match event {
                Event::Learn { names, addresses } => {
                    let asked: Vec<&str> = names.iter().map(|name| ASKED[*name]).collect();
                    let given: Vec<(IpAddr, u32)> =
                        addresses.iter().map(|(last, ttl)| (v4(*last), *ttl)).collect();
                    world.learn(&asked, &given, now);
                    for name in wanted.iter().filter(|name| {
                        let domain = domain(NAMES[**name]);
                        asked.iter().any(|asked| match domain.below {
                            true => asked.ends_with(&format!(".{}", domain.name)),
                            false => *asked == domain.name,
                        })
                    }) {
                        for (last, ttl) in &addresses {
                            let until = now + u64::from(*ttl).clamp(60, 86_400) * SECOND;
                            let known = said.entry((*name, *last)).or_default();
                            *known = until.max(*known);
                        }
                    }
                }
                Event::Follow(names) => {
                    wanted = names.iter().copied().collect();
                    world.follow(&wanted.iter().map(|name| NAMES[*name]).collect::<Vec<_>>());
                    said.retain(|(name, _), _| wanted.contains(name));
                }
                Event::Wait(seconds) => {
                    now += seconds * SECOND;
                    let changes = world.book.expire(now);
                    world.tables.write(changes);
                    said.retain(|_, until| *until > now);
                }
                Event::Restart => {
                    let before: Vec<NameBits> =
                        (0..6).map(|last| world.tables.names_of(v4(last), now)).collect();
                    world.restart(now);
                    let after: Vec<NameBits> =
                        (0..6).map(|last| world.tables.names_of(v4(last), now)).collect();
                    prop_assert_eq!(before, after);
                    world.follow(&wanted.iter().map(|name| NAMES[*name]).collect::<Vec<_>>());
                    // Of several names the longest time is known, to 65 µs.
                    for last in 0..6 {
                        let end = world.tables.addresses.get(&to_key(v4(last)));
                        let end = end.map(|named| named.until()).unwrap_or_default();
                        said.iter_mut()
                            .filter(|((_, other), _)| *other == last)
                            .for_each(|(_, until)| *until = end);
                    }
                }
            }
            for name in &wanted {
                for last in 0..6 {
                    let is = said.get(&(*name, last)).is_some_and(|until| *until > now);
                    prop_assert_eq!(world.has(v4(last), NAMES[*name], now), is, "{} {}", name, last);
                }
            }
            let known = said.iter().filter(|(_, until)| **until > now).map(|((_, last), _)| last);
            prop_assert_eq!(world.book.len(), known.collect::<BTreeSet<_>>().len());
        }
    }
}
