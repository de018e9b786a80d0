//! The control loop with a data plane of its own: what the operator forces, and
//! what becomes of flows that are left.

use std::sync::Arc;

use tokio::sync::watch;

use super::*;
use crate::daemon::beat::Plane;
use crate::daemon::fixture;
use crate::daemon::view::View;
use crate::dataplane::testing::{Instance, in_network, make_veth};
use crate::events::Bus;
use crate::health::{Asking, Held, Measured, Reason, Report, State};
use crate::net::{Reachability, Snapshot};

const SECOND: Duration = Duration::from_secs(1);

/// A gateway with a fiber, a cable beside it, and LTE for emergencies.
struct Scene {
    control: Control,
    plane: Plane,
    bus: Bus,
    view: watch::Receiver<Arc<View>>,
    now: Instant,
    _instance: Instance,
}

impl Scene {
    fn new(name: &str) -> Self {
        let text = "
version: 1
mode: steer
balance: round_robin
lan: [lan0]
failover: {failback: cut}
wans:
  - {name: fiber, device: wan0}
  - {name: cable, device: wan1, failback: drain(5m)}
  - {name: lte, device: wan2, priority: 1, failback: drain(30s)}
";
        let config = crate::config::parse(text, "f").unwrap_or_else(|error| panic!("{error}"));
        let mut network = Snapshot::default();
        for (number, device) in (0_u8..).zip(["lan0", "wan0", "wan1", "wan2"]) {
            let (ifindex, own) = (make_veth(device), format!("198.51.{number}.2/24"));
            let gateway = format!("198.51.{number}.1");
            network.devices.push(fixture::device(ifindex, device, &[own.as_str()]));
            network.routes.push(fixture::route("0.0.0.0/0", Some(&gateway), ifindex));
            network.neighbours.push(fixture::neighbour(ifindex, &gateway, Reachability::Fresh));
        }
        let (instance, bus) = (Instance::new(name), Bus::default());
        let plane = Plane::new(instance.open(), SECOND);
        let (sender, view) = watch::channel(Arc::new(View::default()));
        let control = Control::new(config, plane.clone(), bus.clone(), &network, sender);
        let mut control = control.unwrap_or_else(|error| panic!("{error}"));
        control.begin(&network).unwrap_or_else(|error| panic!("{error}"));
        let mut scene =
            Self { control, plane, bus, view, now: Instant::now(), _instance: instance };
        for path in 1..=3 {
            scene.hear(path, State::Up);
        }
        scene
    }

    /// Health says how a WAN is.
    fn hear(&mut self, path: u8, state: State) {
        let report = Report {
            path,
            state,
            reason: Reason::Answers,
            transition: None,
            measured: Measured::default(),
            held: Held::default(),
            asking: Asking::default(),
            rounds: Vec::new(),
            switched: None,
        };
        self.control.report(report).unwrap_or_else(|error| panic!("{error}"));
        self.after(Duration::ZERO);
    }

    fn after(&mut self, time: Duration) {
        self.now = self.now.max(Instant::now()) + time;
        self.control.decide(self.now).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Who gets new flows, as the API shows it.
    fn active(&self) -> Vec<String> {
        self.view.borrow().failover.active.clone()
    }

    fn forced(&self) -> Option<String> {
        self.view.borrow().failover.forced.clone()
    }

    /// The epochs of the paths in the kernel.
    fn epochs(&self) -> [u8; 3] {
        let epoch = |path| self.plane.with(|plane| plane.path(path)).map(|path| path.epoch);
        [1, 2, 3].map(|path| epoch(path).unwrap_or_else(|error| panic!("{error}")))
    }

    /// Messages and reasons of one kind of event.
    fn told(&self, kind: EventKind) -> Vec<(String, String)> {
        let events = self.bus.since(0).into_iter().filter(|event| event.kind == kind);
        events.map(|event| (event.message, event.reason)).collect()
    }
}

#[test]
fn a_forced_wan_gets_new_flows_and_flows_on_the_others_follow_their_policies() {
    in_network("a_forced_wan_gets_new_flows", || {
        let mut scene = Scene::new("forced");
        assert_eq!(scene.active(), ["fiber", "cable"]);
        assert_eq!(scene.epochs(), [0, 0, 0]);
        let done = scene.control.force("lte", None).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(done.message, "lte gets all new flows, while it works");
        assert_eq!((scene.active(), scene.forced()), (vec!["lte".into()], Some("lte".into())));
        // The fiber's flows are cut at once, the cable's have their time.
        assert_eq!(scene.epochs(), [1, 0, 0]);
        let drains: Vec<bool> =
            scene.view.borrow().wans.iter().map(|wan| wan.drain_until_unix_ms.is_some()).collect();
        assert_eq!(drains, [false, true, false]);
        scene.after(299 * SECOND);
        assert_eq!(scene.epochs(), [1, 0, 0]);
        scene.after(2 * SECOND);
        assert_eq!(scene.epochs(), [1, 1, 0]);
        // It fails, and is used again when it is back.
        scene.hear(3, State::Down);
        assert_eq!(
            (scene.active(), scene.forced()),
            (vec!["fiber".into(), "cable".into()], Some("lte".into()))
        );
        scene.hear(3, State::Up);
        assert_eq!(scene.active(), ["lte"]);
        let said = scene.control.release().map(|done| done.message);
        assert_eq!(said.as_deref(), Ok("health and configuration decide again"));
        assert_eq!((scene.active(), scene.forced()), (vec!["fiber".into(), "cable".into()], None));
        scene.after(31 * SECOND);
        assert_eq!(scene.epochs()[2], 1);
        let said = scene.control.release().map(|done| done.message);
        assert_eq!(said.as_deref(), Ok("no WAN was forced"));
        let told = scene.told(EventKind::Forced);
        let messages: Vec<&str> = told.iter().map(|(message, _)| message.as_str()).collect();
        let expected = ["lte gets all new flows, while it works", "lte is not forced any more"];
        assert_eq!(messages, expected);
        let drained = scene.told(EventKind::Drain);
        let cut = |name: &str, reason: &str| {
            drained.contains(&(format!("flows on {name} are made anew"), reason.to_owned()))
        };
        assert!(cut("fiber", "failback: cut"), "{drained:?}");
        assert!(cut("lte", "failback: drain(30s); that time is over"), "{drained:?}");
    });
}

#[test]
fn a_rehearsal_says_what_would_be_different_and_changes_nothing() {
    in_network("a_rehearsal_says", || {
        let mut scene = Scene::new("forced-dry");
        let before = (scene.active(), scene.epochs());
        let said = scene.control.rehearse(Some("lte")).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(said.message, "lte would get all new flows, while it works");
        assert_eq!(said.changes, ["new flows of IPv4: fiber 50 %, cable 50 % → lte 100 %"]);
        scene.after(2 * SECOND);
        assert_eq!((scene.active(), scene.epochs()), before);
        assert_eq!((scene.forced(), scene.told(EventKind::Forced)), (None, Vec::new()));
        let said = scene.control.rehearse(None).map(|done| done.message);
        assert_eq!(said.as_deref(), Ok("nothing would be different"));
        scene.control.force("lte", None).unwrap_or_else(|error| panic!("{error}"));
        let said = scene.control.rehearse(None).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(said.changes, ["new flows of IPv4: lte 100 % → fiber 50 %, cable 50 %"]);
        assert_eq!(scene.active(), ["lte"]);
        let wrong = scene.control.rehearse(Some("dsl"));
        assert!(matches!(&wrong, Err(Refusal::Wrong(why)) if why.contains("`dsl`")), "{wrong:?}");
    });
}

#[test]
fn a_forced_failover_ends_with_its_time() {
    in_network("a_forced_failover_ends_with_its_time", || {
        let mut scene = Scene::new("forced-time");
        let done = scene.control.force("lte", Some(60 * SECOND));
        let message = done.map(|done| done.message);
        assert_eq!(message.as_deref(), Ok("lte gets all new flows for 1m, while it works"));
        assert!(scene.view.borrow().failover.forced_until_unix_ms.is_some());
        scene.after(59 * SECOND);
        assert_eq!(scene.active(), ["lte"]);
        scene.after(2 * SECOND);
        assert_eq!((scene.active(), scene.forced()), (vec!["fiber".into(), "cable".into()], None));
        let told = scene.told(EventKind::Forced);
        assert_eq!(told.last().map(|(_, reason)| reason.as_str()), Some("its time is over"));
    });
}

#[test]
fn what_cannot_be_forced_is_refused_and_changes_nothing() {
    in_network("what_cannot_be_forced_is_refused", || {
        let mut scene = Scene::new("forced-refused");
        scene.hear(3, State::Down);
        let wrong = scene.control.force("dsl", None);
        let expected = "no WAN is named `dsl`; there are: fiber, cable, lte";
        assert_eq!(wrong, Err(Refusal::Wrong(expected.to_owned())));
        let down = scene.control.force("lte", None);
        assert_eq!(down, Err(Refusal::Conflict("lte is down: answers".to_owned())));
        assert_eq!((scene.forced(), scene.epochs()), (None, [0, 0, 0]));
        assert_eq!(scene.told(EventKind::Forced), []);
    });
}

#[test]
fn a_forced_wan_that_is_not_configured_any_more_is_not_forced() {
    in_network("a_forced_wan_that_is_not_configured_any_more", || {
        let mut scene = Scene::new("forced-gone");
        scene.control.force("cable", None).unwrap_or_else(|error| panic!("{error}"));
        // Another name is the same WAN.
        scene.control.config.wans[1].name = "coax".to_owned();
        scene.after(SECOND);
        assert_eq!(scene.forced().as_deref(), Some("coax"));
        let mut config = scene.control.config.clone();
        config.wans.remove(1);
        scene.control.reconfigure(config, &Snapshot::default());
        scene.after(SECOND);
        assert_eq!(scene.forced(), None);
        let told = scene.told(EventKind::Forced);
        let reason = told.last().map(|(_, reason)| reason.as_str());
        assert_eq!(reason, Some("the WAN is not configured any more"));
    });
}
