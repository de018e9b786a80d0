//! Commands that do all that commands may do.

use std::path::Path;

use super::*;

/// A receiver that runs a script of the shell; `$1` is a folder.
fn script(home: &Home, text: &str, timeout: Duration, at_once: usize) -> Vec<Receiver> {
    let folder = home.path("").display().to_string();
    let command = ["/bin/sh", "-c", text, "hook", &folder].map(str::to_owned).to_vec();
    let kind = Kind::Exec { command, timeout, at_once };
    vec![Receiver { name: "hook".to_owned(), filter: Filter::default(), kind }]
}

async fn start(home: &Home, bus: &Bus, receivers: Vec<Receiver>) -> Notifier {
    let notifier =
        Notifier::start(bus.clone(), 0, home.settings(), receivers, Fake::default()).await;
    notifier.expect("started")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// Whether a process is there and no zombie.
fn runs(pid: &str) -> bool {
    let state = read(&Path::new("/proc").join(pid.trim()).join("stat"));
    state.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

#[tokio::test]
async fn a_command_has_the_event_on_its_input_and_in_a_clean_environment() {
    let (home, bus) = (Home::new(), Bus::new(8));
    let text =
        "cat > \"$1/in\"; env > \"$1/env.new\"; pwd > \"$1/pwd\"; mv \"$1/env.new\" \"$1/env\"";
    let notifier = start(&home, &bus, script(&home, text, DEFAULT_TIMEOUT, 1)).await;
    bus.publish(EventKind::Failover, Some("fiber"), "it's \"down\"\0; $(id)", "two\nlines");
    wait_until("it has run", || status(&notifier, "hook").delivered == 1).await;
    let body: Body = serde_json::from_str(&read(&home.path("in"))).expect("JSON");
    assert_eq!((body.id, body.kind.as_str()), (1, "failover"));
    assert_eq!(body.message, "it's \"down\"\0; $(id)");
    let environment = read(&home.path("env"));
    for line in [
        "MWB_EVENT_ID=1",
        "MWB_EVENT_KIND=failover",
        "MWB_EVENT_WAN=fiber",
        "MWB_EVENT_MESSAGE=it's \"down\"; $(id)",
        "MWB_EVENT_REASON=two",
        "MWB_EVENT_GATEWAY=gw-1",
        "MWB_EVENT_RECEIVER=hook",
        &format!("MWB_EVENT_UNIX_MS={}", body.unix_ms),
        &format!("MWB_EVENT_DELIVERY={}", body.delivery),
    ] {
        assert!(environment.lines().any(|found| found == line), "{line} in {environment}");
    }
    // What is not ours comes from the shell itself.
    let names = environment.lines().filter_map(|line| line.split_once('=')).map(|pair| pair.0);
    for name in names {
        let known = name.starts_with("MWB_EVENT_") || ["PATH", "PWD", "SHLVL", "_"].contains(&name);
        assert!(known, "{name}");
    }
    assert_eq!(read(&home.path("pwd")), "/\n");
}

#[tokio::test]
async fn a_command_that_takes_too_long_is_killed_with_its_children() {
    let (home, bus) = (Home::new(), Bus::new(8));
    let text = "sleep 600 & echo $! > \"$1/child\"; echo $$ > \"$1/parent\"; wait";
    let time = Duration::from_millis(500);
    let notifier = start(&home, &bus, script(&home, text, time, 1)).await;
    publish(&bus, 1);
    wait_until("it is killed", || status(&notifier, "hook").dropped.failed == 1).await;
    let (parent, child) = (read(&home.path("parent")), read(&home.path("child")));
    assert!(!parent.is_empty() && !child.is_empty());
    wait_until("both are gone", || !runs(&parent) && !runs(&child)).await;
    let error = status(&notifier, "hook").last_error.expect("told").message;
    assert!(error.contains("took longer than 500ms"), "{error}");
}

#[tokio::test]
async fn a_command_does_not_outlive_the_notifier() {
    let (home, bus) = (Home::new(), Bus::new(8));
    let text = "sleep 600 & echo $! > \"$1/child\"; wait";
    let notifier = start(&home, &bus, script(&home, text, DEFAULT_TIMEOUT, 1)).await;
    publish(&bus, 1);
    wait_until("it runs", || runs(&read(&home.path("child")))).await;
    notifier.stop(Duration::from_millis(10)).await;
    wait_until("it is gone", || !runs(&read(&home.path("child")))).await;
}

#[tokio::test]
async fn one_command_runs_after_another_in_the_order_of_the_events() {
    let (home, bus) = (Home::new(), Bus::new(64));
    let text = "mkdir \"$1/lock\" || echo overlap >> \"$1/log\"; echo $MWB_EVENT_ID >> \"$1/log\"; \
                sleep 0.01; rmdir \"$1/lock\"";
    let notifier = start(&home, &bus, script(&home, text, DEFAULT_TIMEOUT, 1)).await;
    publish(&bus, 20);
    notifier.test("hook").await.expect("taken");
    wait_until("all have run", || status(&notifier, "hook").delivered == 20).await;
    let log: Vec<String> = read(&home.path("log")).lines().map(str::to_owned).collect();
    let mut events = log.clone();
    events.retain(|id| id != "0");
    assert_eq!(events, (1..=20).map(|id: u64| id.to_string()).collect::<Vec<_>>());
    assert_eq!(log.len(), 21, "{log:?}");
}

#[tokio::test]
async fn as_many_commands_run_at_once_as_may() {
    let (home, bus) = (Home::new(), Bus::new(64));
    // Each waits until three are there.
    let text = "mkdir -p \"$1/now\"; : > \"$1/now/$$\"; \
                until [ $(ls \"$1/now\" | wc -l) -ge 3 ]; do sleep 0.01; done";
    let notifier = start(&home, &bus, script(&home, text, DEFAULT_TIMEOUT, 3)).await;
    publish(&bus, 3);
    wait_until("all have run", || status(&notifier, "hook").delivered == 3).await;
}

#[tokio::test]
async fn commands_that_fail_are_counted_and_told() {
    let (home, bus) = (Home::new(), Bus::new(8));
    let notifier = start(&home, &bus, script(&home, "exit 3", DEFAULT_TIMEOUT, 1)).await;
    publish(&bus, 2);
    wait_until("both have failed", || status(&notifier, "hook").dropped.failed == 2).await;
    let error = status(&notifier, "hook").last_error.expect("told").message;
    assert_eq!(error, "/bin/sh ended with exit status: 3");
    let tested = notifier.test("hook").await;
    assert!(matches!(tested, Err(NotifyError::Failed { .. })), "{tested:?}");
    let mut receivers = script(&home, "", DEFAULT_TIMEOUT, 1);
    if let Kind::Exec { command, .. } = &mut receivers[0].kind {
        *command = vec!["/nonexistent/hook".to_owned()];
    }
    notifier.set_receivers(receivers).await.expect("set");
    publish(&bus, 1);
    wait_until("it cannot be started", || status(&notifier, "hook").dropped.failed == 3).await;
    let error = status(&notifier, "hook").last_error.expect("told").message;
    assert!(error.starts_with("/nonexistent/hook cannot be started"), "{error}");
}

#[tokio::test]
async fn neither_much_output_nor_unread_input_stops_a_command() {
    let (home, bus) = (Home::new(), Bus::new(8));
    let text = "exec 0<&-; head -c 3000000 /dev/zero; head -c 3000000 /dev/zero >&2";
    let notifier = start(&home, &bus, script(&home, text, DEFAULT_TIMEOUT, 1)).await;
    bus.publish(EventKind::System, None, "x".repeat(1_000_000), "");
    wait_until("it has run", || status(&notifier, "hook").delivered == 1).await;
}

#[tokio::test]
async fn what_a_command_leaves_behind_is_not_waited_for() {
    let (home, bus) = (Home::new(), Bus::new(8));
    let text = "sleep 600 & echo $! > \"$1/child\"";
    let notifier = start(&home, &bus, script(&home, text, DEFAULT_TIMEOUT, 1)).await;
    publish(&bus, 1);
    let begun = Instant::now();
    wait_until("it has run", || status(&notifier, "hook").delivered == 1).await;
    assert!(begun.elapsed() < DEFAULT_TIMEOUT / 2, "{:?}", begun.elapsed());
    let child = read(&home.path("child"));
    assert!(runs(&child));
    let pid = child.trim().parse().expect("a number");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)
        .expect("it was there");
}

#[tokio::test]
async fn a_flood_of_events_for_a_command_is_bounded_and_the_latest_stay() {
    let (home, bus) = (Home::new(), Bus::new(64));
    let text = "echo $MWB_EVENT_ID >> \"$1/log\"; until [ -e \"$1/go\" ]; do sleep 0.01; done";
    let settings = Settings { queue: 5, ..home.settings() };
    let receivers = script(&home, text, DEFAULT_TIMEOUT, 1);
    let notifier = Notifier::start(bus.clone(), 0, settings, receivers, Fake::default())
        .await
        .expect("started");
    publish(&bus, 1);
    wait_until("the first runs", || read(&home.path("log")) == "1\n").await;
    publish(&bus, 20);
    wait_until("the oldest are gone", || status(&notifier, "hook").dropped.queue_full == 15).await;
    assert_eq!(status(&notifier, "hook").queued, 6);
    fs::write(home.path("go"), "").expect("written");
    wait_until("all have run", || status(&notifier, "hook").delivered == 6).await;
    assert_eq!(read(&home.path("log")), "1\n17\n18\n19\n20\n21\n");
}
