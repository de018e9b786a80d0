use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};

use super::*;
use crate::health::{Answer, Hop, NextHop};

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
    targets: Vec<IpAddr>,
    under_way: Vec<(Instant, u16)>,
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
    fn aim(&mut self, targets: &[IpAddr]) {
        self.far_end().targets = targets.to_vec();
    }

    fn bind(&mut self, link: &Link) -> std::io::Result<()> {
        self.far_end().resolved = link.v4.is_some_and(|hop| hop.mac != NextHop::Unresolved);
        Ok(())
    }

    fn send(&mut self, round: u16) -> Result<(), Cause> {
        let mut far_end = self.far_end();
        if !far_end.resolved {
            return Err(Cause::NextHopUnresolved);
        }
        far_end.sent += 1;
        if let Some(rtt) = far_end.rtt {
            far_end.under_way.push((now() + rtt, round));
        }
        Ok(())
    }

    fn take(&mut self) -> Option<Answer> {
        let mut far_end = self.far_end();
        let here = far_end.under_way.iter().position(|(arrival, _)| *arrival <= now())?;
        let (_, round) = far_end.under_way.remove(here);
        Some(Answer { round, from: IpAddr::V4(Ipv4Addr::LOCALHOST) })
    }

    async fn ready(&mut self) {
        let next = self.far_end().under_way.iter().map(|(arrival, _)| *arrival).min();
        until(next).await;
    }
}

const INTERVAL: Duration = Duration::from_millis(200);
const TARGET: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

fn link(mac: NextHop) -> Link {
    let hop = Hop { source: Ipv4Addr::LOCALHOST, gateway: None, mac };
    Link { ifindex: Some(3), carrier: true, v4: Some(hop), v6: None }
}

struct Scene {
    fake: Fake,
    schedule: watch::Sender<Schedule>,
    link: watch::Sender<Link>,
    reports: mpsc::Receiver<Report>,
}

impl Scene {
    fn new(start: Start, mac: NextHop, rtt: Option<u64>) -> Self {
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
            targets: vec![TARGET],
        };
        let schedule = watch::Sender::new(schedule);
        let followed = schedule.subscribe();
        let (sender, receiver) = watch::channel(link(mac));
        let (told, reports) = mpsc::channel(64);
        tokio::spawn(super::watch(1, start, followed, fake.clone(), receiver, told));
        Self { fake, schedule, link: sender, reports }
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
    assert_eq!(scene.fake.far_end().targets, [TARGET]);
    let other: IpAddr = Ipv4Addr::new(192, 0, 2, 2).into();
    scene.schedule.send_modify(|schedule| {
        schedule.interval = INTERVAL * 5;
        schedule.settings.retries = 2;
        schedule.targets = vec![other];
    });
    // It stays up through the change, and is then asked less often.
    assert!(scene.is_calm_for(Duration::from_secs(10)).await);
    assert_eq!(scene.fake.far_end().targets, [other]);
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
