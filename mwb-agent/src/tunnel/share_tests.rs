use std::net::SocketAddr;
use std::num::NonZeroU32;

use mwb_common::integrity::Suite;
use mwb_common::integrity::seal::{Key, Sender};
use tokio::sync::{mpsc, watch};

use super::*;
use crate::bond::{Established, Os, PrivateKey};
use crate::config::{self, Config};
use crate::dataplane::testing::{in_network, maps_alone};
use crate::events::Bus;
use crate::tunnel::estimate::Reason;
use crate::tunnel::settings::Settings;
use crate::tunnel::sockets::Sockets;
use crate::tunnel::ticks::Beat;

fn config() -> Config {
    let text = "version: 1\nmode: bond\nlan: [lan0]\nwans: [{name: a, device: wan0}]\nbond:\n  \
                server: \"203.0.113.250:7000\"\n  private_key_file: /dev/null\n  \
                server_public_key: NqnP4z4u49EyW2/lx5QXo6mx9BrGxDTentAf2N++HAY=\n  \
                addresses: [10.9.0.1/32]\n";
    config::parse(text, "test").unwrap_or_else(|error| panic!("{}", error.render()))
}

/// A session with paths 1 to 3 that all live, path 3 with the worse priority.
pub(in crate::tunnel) fn in_session(name: &str, test: impl FnOnce(&mut Core, &mut Session) + Send) {
    in_network(name, || {
        let plane = maps_alone("share");
        let maps = plane.bond();
        let settings = Settings::of(&config()).expect("a bond");
        let sockets = Sockets::new(7_000, mpsc::channel(1).0);
        let mut core =
            Core::new(maps, Bus::default(), settings, sockets, watch::channel(Beat::default()).0);
        let id = NonZeroU32::new(4).expect("not 0");
        let established = Established {
            ours: id,
            theirs: id,
            epoch: 0,
            suite: Suite::SipHash,
            keys: [Key::new([1; 32]); 2],
        };
        let peer = PrivateKey::generate(&mut Os).expect("a key").public();
        let mut session = Session::install(&core.maps, 0, peer, &established, Sender::Initiator, 0)
            .expect("a write");
        for path in 1..=3 {
            let remote = SocketAddr::from(([198, 51, 100, path], 7_000));
            session.join(&core.maps, path, remote, path).expect("a write");
        }
        session.present(&core.maps).expect("a write");
        (session.stripe, session.repaired) = (u32::MAX, u16::MAX);
        for link in session.paths.values_mut() {
            link.state.alive_until = u64::MAX;
        }
        test(&mut core, &mut session);
    });
}

fn wanted(path: u8, _: &Link) -> Wanted {
    Wanted { priority: u8::from(path == 3), weight: u16::from(path), capacity: None }
}

/// How many slots each path has.
fn slots(core: &Core) -> [usize; 4] {
    let table = core.maps.selection(0).expect("a read");
    [0, 1, 2, 3].map(|path| table.slots.iter().filter(|slot| **slot == path).count())
}

fn parked(core: &Core) -> Vec<u8> {
    let is_parked =
        |path: &u8| core.maps.path(0, *path).expect("a read").flags & bond_path_flag::PARKED != 0;
    (1..=3).filter(is_parked).collect()
}

#[test]
fn paths_of_the_best_priority_share_and_the_others_stand_aside() {
    in_session("paths_of_the_best_priority_share_and_the_others_stand_aside", |core, session| {
        share(core, session, Balance::Adaptive, wanted).expect("a write");
        let entry = core.maps.session(0).expect("a read");
        assert_eq!(
            (entry.choice, entry.stripe, entry.repaired),
            (bond_choice::ARRIVAL, 0b0110 << ANNOUNCED | 0b0111, 0b0111)
        );
        assert_eq!(parked(core), [3]);
        // What is worse than nothing is not striped over, and stands aside while another lives.
        if let Some(link) = session.paths.get_mut(&1) {
            link.verdict.parked = Some(Reason::Loss);
        }
        share(core, session, Balance::Adaptive, wanted).expect("a write");
        assert_eq!(core.maps.session(0).expect("a read").stripe, 0b0100 << ANNOUNCED | 0b0101);
        assert_eq!(parked(core), [1, 3]);
        // Of nothing better the standby is the best.
        if let Some(link) = session.paths.get_mut(&2) {
            link.state.alive_until = 0;
        }
        share(core, session, Balance::Adaptive, wanted).expect("a write");
        assert_eq!(parked(core), [1, 2]);
    });
}

#[test]
fn other_modes_have_their_slots_and_park_nobody() {
    in_session("other_modes_have_their_slots_and_park_nobody", |core, session| {
        share(core, session, Balance::Adaptive, wanted).expect("a write");
        share(core, session, Balance::Weighted, wanted).expect("a write");
        let entry = core.maps.session(0).expect("a read");
        assert_eq!((entry.choice, entry.stripe, entry.repaired), (bond_choice::COUNTER, 0, 0));
        assert!(parked(core).is_empty());
        let [none, one, two, three] = slots(core);
        assert_eq!((none, three, one + two), (0, 0, 1_024));
        assert!((340..=342).contains(&one), "{one}");
        share(core, session, Balance::PerFlow, wanted).expect("a write");
        assert_eq!(core.maps.session(0).expect("a read").choice, bond_choice::BUCKET);
        share(core, session, Balance::Failover, wanted).expect("a write");
        assert_eq!(slots(core), [0, 1_024, 0, 0]);
        if let Some(link) = session.paths.get_mut(&1) {
            link.state.alive_until = 0;
        }
        share(core, session, Balance::Failover, wanted).expect("a write");
        assert_eq!(slots(core), [0, 0, 1_024, 0]);
    });
}
