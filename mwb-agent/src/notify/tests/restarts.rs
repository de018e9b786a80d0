//! Runs that end at any point, and what the next ones make of it.

use proptest::prelude::*;

use super::*;

const URL: &str = "http://192.0.2.80/hook";
/// Each run publishes so many.
const EVENTS: u64 = 12;

/// One run of the agent.
#[derive(Clone, Debug)]
struct Run {
    /// How many steps (of the disk, or of a request) it lives.
    steps: u32,
    /// What the webhook answers, again and again.
    answers: Vec<Answer>,
    /// Pauses between events, in milliseconds.
    pauses: Vec<u64>,
    /// What becomes of what was not synced; without it only the process ends.
    power_cut: Option<u64>,
}

fn answer() -> impl Strategy<Value = Answer> {
    prop_oneof![
        4 => Just(Answer::Status(204)),
        1 => Just(Answer::Status(500)),
        1 => Just(Answer::Later(429, Duration::from_secs(3))),
        1 => Just(Answer::Lost),
        1 => Just(Answer::LostAfter),
        1 => Just(Answer::Never),
    ]
}

fn run() -> impl Strategy<Value = Run> {
    let answers = prop::collection::vec(answer(), 1..8);
    let pauses = prop::collection::vec(prop_oneof![Just(0_u64), 1_u64..4_000], 1..6);
    (1_u32..120, answers, pauses, prop::option::of(any::<u64>()))
        .prop_map(|(steps, answers, pauses, power_cut)| Run { steps, answers, pauses, power_cut })
}

/// A webhook that is reached by a process which may die.
#[derive(Clone)]
struct Mortal {
    ram: Ram,
    answers: Arc<Mutex<Vec<Answer>>>,
    got: Arc<Mutex<Vec<String>>>,
    /// A request for what was not on disk.
    too_early: Arc<Mutex<Vec<String>>>,
}

fn locked<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Post for Mortal {
    async fn post(
        &self,
        _: &str,
        _: &[(&str, String)],
        body: Vec<u8>,
        _: Duration,
    ) -> Result<Reply, String> {
        if !self.ram.step() {
            return std::future::pending().await;
        }
        let delivery = serde_json::from_slice::<Body>(&body).expect("a body").delivery;
        if !self.ram.holds(&body) {
            locked(&self.too_early).push(delivery.clone());
        }
        let answer = {
            let mut answers = locked(&self.answers);
            answers.rotate_left(1);
            answers.last().copied().unwrap_or(Answer::Status(200))
        };
        if !matches!(answer, Answer::Lost) {
            locked(&self.got).push(delivery);
        }
        if !self.ram.step() {
            return std::future::pending().await;
        }
        match answer {
            Answer::Status(status) => Ok(Reply { status, retry_after: None }),
            Answer::Later(status, after) => Ok(Reply { status, retry_after: Some(after) }),
            Answer::Lost | Answer::LostAfter => Err("connection reset".to_owned()),
            Answer::Never => std::future::pending().await,
        }
    }
}

/// One run, until it dies, or for a minute.
async fn live(home: &Home, ram: &Ram, webhook: &Mortal, run: &Run) {
    ram.dies_after(run.steps);
    *locked(&webhook.answers) = run.answers.clone();
    let bus = Bus::new(64);
    let settings = Settings { backoff: Backoff::default(), ..home.settings() };
    let receivers = vec![home.webhook("ops", URL)];
    let post = Arc::new(webhook.clone());
    let notifier = Notifier::start_in(world(ram), bus.clone(), 0, settings, receivers, post).await;
    let end = Instant::now() + Duration::from_secs(60);
    for n in 0..EVENTS {
        bus.publish(EventKind::Failover, Some("lte"), format!("event {n}"), "");
        let pause = run.pauses[usize::try_from(n).unwrap_or(0) % run.pauses.len()];
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    while notifier.is_ok() && !ram.is_dead() && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    drop(notifier);
    ram.crash(run.power_cut);
    tokio::time::sleep(Duration::from_millis(1)).await;
}

async fn runs(runs: Vec<Run>) -> (Vec<String>, Vec<String>, Vec<String>) {
    let (home, ram) = (Home::new(), Ram::default());
    let webhook = Mortal {
        ram: ram.clone(),
        answers: Arc::default(),
        got: Arc::default(),
        too_early: Arc::default(),
    };
    for run in &runs {
        live(&home, &ram, &webhook, run).await;
    }
    // The last one lives, and its webhook has recovered.
    *locked(&webhook.answers) = vec![Answer::Status(200)];
    let (bus, settings) = (Bus::new(64), home.settings());
    let receivers = vec![home.webhook("ops", URL)];
    let post = Arc::new(webhook.clone());
    let last = Notifier::start_in(world(&ram), bus.clone(), 0, settings, receivers, post).await;
    let last = last.expect("started");
    publish(&bus, EVENTS);
    wait_until("all are told", || {
        let status = status(&last, "ops");
        status.queued == 0 && status.delivered >= EVENTS
    })
    .await;
    let dropped = status(&last, "ops").dropped;
    assert_eq!(dropped.total(), 0, "{dropped:?}");
    last.stop(DEADLINE).await;
    let got = locked(&webhook.got).clone();
    let too_early = locked(&webhook.too_early).clone();
    (got, ram.promised(), too_early)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]
    /// To a webhook that looks at `delivery`: the same one may come again, but
    /// nothing is missing, and nothing new comes out of order.
    #[test]
    fn what_was_on_disk_comes_exactly_once_wherever_a_run_ends(
        all in prop::collection::vec(run(), 0..5),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        let (got, promised, too_early) = runtime.block_on(runs(all));
        prop_assert!(too_early.is_empty(), "sent before they were on disk: {too_early:?}");
        let mut once: Vec<String> = Vec::new();
        for delivery in got {
            if !once.contains(&delivery) {
                once.push(delivery);
            }
        }
        prop_assert_eq!(once, promised);
    }
}
