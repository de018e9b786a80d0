use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};

use super::*;
use crate::health::plan::{Echo, Way};
use crate::health::{Answer, Cause, Hop, NextHop, Outcome};

/// A link whose far end answers after a time, or not at all.
#[derive(Clone, Default)]
struct Fake {
    far_end: Arc<Mutex<FarEnd>>,
}

#[derive(Default)]
struct FarEnd {
    rtt: Option<Duration>,
    resolved: bool,
    sent: u32,
    plan: Option<Plan>,
    /// What each answer says, if it is not well.
    wrong: Option<String>,
    /// By way: those that answer though the link is dead, or do not though it works.
    broken: Vec<(usize, bool)>,
    asked: Vec<usize>,
    under_way: Vec<(Instant, u16, usize)>,
}

impl Fake {
    fn far_end(&self) -> std::sync::MutexGuard<'_, FarEnd> {
        self.far_end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answers_after(&self, ms: Option<u64>) {
        self.far_end().rtt = ms.map(Duration::from_millis);
    }
}

impl Checker for Fake {
    fn aim(&mut self, plan: &Plan) {
        self.far_end().plan = Some(plan.clone());
    }

    fn bind(&mut self, link: &Link) -> std::io::Result<()> {
        self.far_end().resolved = link.v4.is_some_and(|hop| hop.mac != NextHop::Unresolved);
        Ok(())
    }

    fn send(&mut self, round: u16, way: usize) -> Result<u32, Cause> {
        let mut far_end = self.far_end();
        if !far_end.resolved {
            return Err(Cause::NextHopUnresolved);
        }
        far_end.sent += 1;
        far_end.asked.push(way);
        let broken = far_end.broken.iter().find(|(other, _)| *other == way);
        let rtt = match broken {
            Some((_, true)) => far_end.rtt.or(Some(Duration::from_millis(20))),
            Some((_, false)) => None,
            None => far_end.rtt,
        };
        if let Some(rtt) = rtt {
            far_end.under_way.push((now() + rtt, round, way));
        }
        Ok(1)
    }

    fn take(&mut self) -> Option<Answer> {
        let mut far_end = self.far_end();
        let here = far_end.under_way.iter().position(|(arrival, ..)| *arrival <= now())?;
        let (_, round, way) = far_end.under_way.remove(here);
        let outcome = match &far_end.wrong {
            Some(why) => Outcome::Wrong(why.clone()),
            None => Outcome::Good { time: None, warning: false },
        };
        Some(Answer { round, way, who: 0, outcome })
    }

    async fn ready(&mut self) {
        let next = self.far_end().under_way.iter().map(|(arrival, ..)| *arrival).min();
        until(next).await;
    }
}

const INTERVAL: Duration = Duration::from_millis(200);
const TARGET: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

fn plan(ways: usize) -> Plan {
    let way = Way::Ping { echo: Echo::default(), targets: vec![TARGET] };
    Plan { ways: vec![way; ways], quorum: 1, per_round: None, timeout: Duration::from_secs(2) }
}

fn link(mac: NextHop) -> Link {
    let hop = Hop { source: Ipv4Addr::LOCALHOST, gateway: None, mac };
    Link { ifindex: Some(3), carrier: true, v4: Some(hop), v6: None }
}

struct Scene {
    fake: Fake,
    schedule: watch::Sender<Schedule>,
    link: watch::Sender<Link>,
    passed: watch::Sender<Passed>,
    reports: mpsc::Receiver<Report>,
}

impl Scene {
    fn new(start: Start, mac: NextHop, rtt: Option<u64>) -> Self {
        Self::with(start, mac, rtt, plan(1))
    }

    fn with(start: Start, mac: NextHop, rtt: Option<u64>, plan: Plan) -> Self {
        let fake = Fake::default();
        fake.answers_after(rtt);
        let schedule = Schedule {
            interval: INTERVAL,
            settings: Settings {
                retries: 3,
                failback_after: Duration::from_secs(5),
                hold_down_max: Duration::from_secs(300),
            },
            thresholds: Thresholds {
                latency: Duration::from_millis(200),
                jitter: Duration::from_millis(100),
                loss: 0.05,
                recover_after: Duration::from_secs(5),
            },
            plan,
            budget: None,
        };
        let schedule = watch::Sender::new(schedule);
        let (sender, receiver) = watch::channel(link(mac));
        let passed = watch::Sender::new(Passed::default());
        let watched =
            Told { schedule: schedule.subscribe(), link: receiver, passed: passed.subscribe() };
        let (told, reports) = mpsc::channel(64);
        tokio::spawn(super::watch(1, start, 7, watched, fake.clone(), told));
        Self { fake, schedule, link: sender, passed, reports }
    }

    /// Packets pass for a while, ten of each in 100 ms; back only if `answered`. True if
    /// the state never changed.
    async fn passes(&mut self, time: Duration, answered: bool) -> bool {
        let end = now() + time;
        let mut calm = true;
        while now() < end {
            self.passed.send_modify(|passed| {
                passed.out += 10;
                passed.back += if answered { 10 } else { 0 };
            });
            calm &= self.is_calm_for(Duration::from_millis(100)).await;
        }
        calm
    }

    /// The next change of state and when it came, from now.
    async fn change(&mut self) -> Option<(State, Duration)> {
        let start = now();
        while let Some(report) = self.reports.recv().await {
            if let Some(transition) = report.transition {
                return Some((transition.to, now() - start));
            }
        }
        None
    }

    /// Takes reports for a while; true if the state never changed.
    async fn is_calm_for(&mut self, time: Duration) -> bool {
        tokio::time::timeout(time, self.change()).await.is_err()
    }
}

const MAC: NextHop = NextHop::Mac([2; 6]);

#[tokio::test(start_paused = true)]
async fn a_cut_is_noticed_within_700_ms_and_ended_after_the_failback_time() {
    let mut scene = Scene::new(Start::Unknown, MAC, Some(20));
    assert!(scene.change().await.is_some_and(|(state, _)| state == State::Up));
    assert!(scene.is_calm_for(Duration::from_secs(3)).await);
    scene.fake.answers_after(None);
    let down = scene.change().await;
    assert!(
        down.is_some_and(|(state, after)| state == State::Down && after.as_millis() <= 700),
        "{down:?}"
    );
    scene.fake.answers_after(Some(20));
    assert!(scene.change().await.is_some_and(|(state, _)| state == State::Testing));
    let up = scene.change().await;
    assert!(
        up.is_some_and(
            |(state, after)| state == State::Up && after.as_millis().abs_diff(5000) <= 200
        ),
        "{up:?}"
    );
    // What was lost in the outage is not held against it.
    assert!(scene.is_calm_for(Duration::from_secs(60)).await);
}

#[tokio::test(start_paused = true)]
async fn a_slow_link_is_up_from_the_start() {
    let mut scene = Scene::new(Start::Unknown, MAC, Some(190));
    assert!(scene.change().await.is_some_and(|(state, _)| state == State::Up));
    assert!(scene.is_calm_for(Duration::from_secs(60)).await);
}

#[tokio::test(start_paused = true)]
async fn a_satellite_link_is_degraded_and_not_down() {
    let mut scene = Scene::new(Start::Unknown, MAC, Some(650));
    assert!(scene.change().await.is_some_and(|(state, _)| state == State::Up));
    assert!(scene.change().await.is_some_and(|(state, _)| state == State::Degraded));
    assert!(scene.is_calm_for(Duration::from_secs(60)).await);
}

#[tokio::test(start_paused = true)]
async fn while_the_next_hop_is_unresolved_probes_are_missed() {
    let mut scene = Scene::new(Start::Unknown, NextHop::Unresolved, Some(20));
    assert!(scene.change().await.is_some_and(|(state, _)| state == State::Down));
    assert_eq!(scene.fake.far_end().sent, 0);
    scene.link.send_replace(link(MAC));
    assert!(scene.change().await.is_some_and(|(state, _)| state == State::Testing));
}

#[tokio::test(start_paused = true)]
async fn a_lost_carrier_is_told_at_once_and_stops_the_probes() {
    let mut scene = Scene::new(Start::Unknown, MAC, Some(20));
    assert!(scene.change().await.is_some_and(|(state, _)| state == State::Up));
    scene.link.send_modify(|link| link.carrier = false);
    let down = scene.change().await;
    assert!(down.is_some_and(|(state, after)| state == State::Down && after.is_zero()), "{down:?}");
    let sent = scene.fake.far_end().sent;
    assert!(scene.is_calm_for(Duration::from_secs(3)).await);
    assert_eq!(scene.fake.far_end().sent, sent);
}

#[tokio::test(start_paused = true)]
async fn a_wan_given_up_before_a_restart_starts_down() {
    let mut scene = Scene::new(Start::Down, MAC, Some(20));
    assert!(scene.change().await.is_some_and(|(state, _)| state == State::Testing));
}

#[tokio::test(start_paused = true)]
async fn a_wan_that_flaps_is_held_for_longer_each_time_and_left_at_once() {
    let mut scene = Scene::new(Start::Unknown, MAC, Some(20));
    assert!(scene.change().await.is_some_and(|(state, _)| state == State::Up));
    for hold in [5, 10, 20, 40] {
        scene.link.send_modify(|link| link.carrier = false);
        let down = scene.change().await;
        assert!(down.is_some_and(|(to, after)| to == State::Down && after.is_zero()), "{down:?}");
        scene.link.send_modify(|link| link.carrier = true);
        assert!(scene.change().await.is_some_and(|(state, _)| state == State::Testing));
        let up = scene.change().await;
        let late = |after: Duration| after.abs_diff(Duration::from_secs(hold)) <= INTERVAL;
        assert!(up.is_some_and(|(to, after)| to == State::Up && late(after)), "{hold}: {up:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_held_wan_says_for_how_long_and_why() {
    let mut scene = Scene::new(Start::Down, MAC, Some(20));
    let testing = loop {
        let report = scene.reports.recv().await.unwrap_or_else(|| panic!("the watcher has ended"));
        if report.state == State::Testing {
            break report;
        }
    };
    assert_eq!((testing.held.time, testing.held.relapses), (Duration::from_secs(5), 0));
    let left = testing.held.until.map(|until| until - now());
    assert!(left.is_some_and(|left| left <= Duration::from_secs(5)), "{left:?}");
}

#[tokio::test(start_paused = true)]
async fn other_settings_apply_to_a_wan_that_is_watched() {
    let mut scene = Scene::new(Start::Unknown, MAC, Some(20));
    assert!(scene.change().await.is_some_and(|(state, _)| state == State::Up));
    assert_eq!(scene.fake.far_end().plan, Some(plan(1)));
    let mut other = plan(1);
    other.quorum = 2;
    scene.schedule.send_modify(|schedule| {
        schedule.interval = INTERVAL * 5;
        schedule.settings.retries = 2;
        schedule.plan.clone_from(&other);
    });
    // It stays up through the change, and is then asked less often.
    assert!(scene.is_calm_for(Duration::from_secs(10)).await);
    assert_eq!(scene.fake.far_end().plan, Some(other));
    let sent = scene.fake.far_end().sent;
    assert!(scene.is_calm_for(Duration::from_secs(10)).await);
    assert_eq!(scene.fake.far_end().sent - sent, 10);
    scene.fake.answers_after(None);
    let down = scene.change().await;
    let late = |after: Duration| after > Duration::from_secs(1) && after <= Duration::from_secs(3);
    assert!(down.is_some_and(|(to, after)| to == State::Down && late(after)), "{down:?}");
    // The sender may go: the last settings stay.
    drop(scene.schedule);
    scene.fake.answers_after(Some(20));
    assert!(scene.reports.recv().await.is_some());
}

#[tokio::test(start_paused = true)]
async fn what_answers_as_it_should_not_is_down_at_once_and_says_why() {
    let mut scene = Scene::new(Start::Unknown, MAC, Some(20));
    assert!(scene.change().await.is_some_and(|(state, _)| state == State::Up));
    scene.fake.far_end().wrong = Some("status 503 in place of 200".to_owned());
    let begun = now();
    let reason = loop {
        let report = scene.reports.recv().await.expect("it is watched");
        if let Some(transition) = report.transition {
            assert_eq!(transition.to, State::Down);
            break transition.reason.to_string();
        }
    };
    assert_eq!(reason, "checks fail: status 503 in place of 200");
    assert!(now() - begun <= Duration::from_millis(700), "{:?}", now() - begun);
}

#[tokio::test(start_paused = true)]
async fn while_packets_come_back_probes_without_an_answer_say_nothing() {
    let mut scene = Scene::new(Start::Unknown, MAC, Some(20));
    assert!(scene.change().await.is_some_and(|(state, _)| state == State::Up));
    assert!(scene.passes(Duration::from_secs(2), true).await);
    // Nobody answers any more, but the link works.
    scene.fake.answers_after(None);
    assert!(scene.passes(Duration::from_secs(60), true).await);
    // Now it does not: within a second.
    let begun = now();
    let mut down = None;
    while down.is_none() && now() - begun < Duration::from_secs(5) {
        scene.passed.send_modify(|passed| passed.out += 10);
        let step = tokio::time::timeout(Duration::from_millis(100), scene.change()).await;
        down = step.ok().flatten().map(|(state, _)| (state, now() - begun));
    }
    assert!(
        down.is_some_and(|(state, after)| state == State::Down && after < Duration::from_secs(1)),
        "{down:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_link_in_calm_use_is_asked_less_often_and_an_idle_one_is_not() {
    let mut scene = Scene::new(Start::Unknown, MAC, Some(20));
    scene.passes(Duration::from_secs(1200), true).await;
    let before = scene.fake.far_end().sent;
    scene.passes(Duration::from_secs(60), true).await;
    let busy = scene.fake.far_end().sent - before;
    assert!((12..100).contains(&busy), "{busy} rounds in a minute");
    let before = scene.fake.far_end().sent;
    assert!(scene.is_calm_for(Duration::from_secs(60)).await);
    let idle = scene.fake.far_end().sent - before;
    assert!((290..=301).contains(&idle), "{idle} rounds in a minute");
}

#[tokio::test(start_paused = true)]
async fn a_metered_link_is_asked_within_its_budget() {
    let mut scene = Scene::new(Start::Unknown, MAC, Some(20));
    assert!(scene.change().await.is_some_and(|(state, _)| state == State::Up));
    let bytes = plan(1).ways[0].bytes(None);
    scene.schedule.send_modify(|schedule| schedule.budget = Some(1_000_000));
    let before = scene.fake.far_end().sent;
    assert!(scene.is_calm_for(Duration::from_secs(86_400)).await);
    let sent = u64::from(scene.fake.far_end().sent - before);
    assert!(sent * bytes <= 1_000_000, "{sent} rounds of {bytes} bytes");
    assert!(sent * bytes > 500_000, "{sent} rounds of {bytes} bytes");
}

#[tokio::test(start_paused = true)]
async fn one_way_that_is_broken_does_not_bring_down_a_link_that_another_proves() {
    let mut scene = Scene::with(Start::Unknown, MAC, Some(20), plan(2));
    assert!(scene.change().await.is_some_and(|(state, _)| state == State::Up));
    assert!(scene.is_calm_for(Duration::from_secs(30)).await);
    scene.fake.far_end().broken = vec![(0, false)];
    let mut chosen = None;
    let end = now() + Duration::from_secs(400);
    while chosen.is_none() && now() < end {
        let report = scene.reports.recv().await.expect("it is watched");
        assert!(report.transition.is_none(), "{report:?}");
        chosen = report.switched;
    }
    assert!(chosen.is_some(), "the way that works was never chosen");
    // And a cut is still one.
    scene.fake.far_end().broken.clear();
    assert!(scene.is_calm_for(Duration::from_secs(10)).await);
    scene.fake.answers_after(None);
    let down = scene.change().await;
    assert!(
        down.is_some_and(|(to, after)| to == State::Down && after.as_millis() <= 1_000),
        "{down:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_way_out_that_is_cut_under_an_inbound_stream_is_told_by_connections_without_an_answer() {
    let mut scene = Scene::new(Start::Unknown, MAC, Some(20));
    assert!(scene.change().await.is_some_and(|(state, _)| state == State::Up));
    assert!(scene.passes(Duration::from_secs(2), true).await);
    scene.fake.answers_after(None);
    let begun = now();
    let mut down = None;
    while down.is_none() && now() - begun < Duration::from_secs(10) {
        // A stream goes on coming in; nobody answers what is asked.
        scene.passed.send_modify(|passed| {
            passed.back += 10;
            passed.out += 1;
            passed.syns += 1;
        });
        let step = tokio::time::timeout(Duration::from_millis(100), scene.change()).await;
        down = step.ok().flatten().map(|(state, _)| (state, now() - begun));
    }
    assert!(
        down.is_some_and(|(state, after)| state == State::Down && after < Duration::from_secs(2)),
        "{down:?}"
    );
}
