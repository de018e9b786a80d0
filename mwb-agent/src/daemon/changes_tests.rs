use std::fs;
use std::path::Path;

use super::*;
use crate::config::Balance;

const SECOND: Duration = Duration::from_secs(1);

/// Has a configuration, and says no to LAN ports named `absent`.
struct Target {
    config: Config,
    taken: usize,
}

impl Configurable for Target {
    fn config(&self) -> &Config {
        &self.config
    }

    fn check(&self, new: &Config) -> Result<(), Refusal> {
        if new.lan.iter().any(|lan| lan.device == "absent") {
            return Err(Refusal::Wrong("no such device: absent".to_owned()));
        }
        Ok(())
    }

    fn take(&mut self, new: Config) {
        self.config = new;
        self.taken += 1;
    }
}

fn text(balance: &str, lan: &str) -> String {
    format!(
        "version: 1\nmode: steer\nbalance: {balance}\nlan: [{lan}]\nwans: [{{name: a, device: wan0}}]\n"
    )
}

/// A file with `round_robin` that goes with this value, and what it is in.
struct World {
    folder: PathBuf,
    file: PathBuf,
    bus: Bus,
    changer: Changer,
    target: Target,
    now: Instant,
}

impl World {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("mwb-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let file = folder.join("gateway.yaml");
        fs::write(&file, text("round_robin", "lan0")).expect("a file");
        let config = config::load(&file).expect("a configuration");
        let bus = Bus::new(64);
        let changer = Changer::new(file.clone(), bus.clone());
        let target = Target { config, taken: 0 };
        Self { folder, file, bus, changer, target, now: Instant::now() }
    }

    fn reload(&mut self) -> Result<Done, Refusal> {
        self.changer.reload(&mut self.target, self.now)
    }

    fn apply(&mut self, text: &str, confirm: Option<Duration>) -> Result<Done, Refusal> {
        self.changer.apply(&mut self.target, text.to_owned(), confirm, self.now)
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.changer.expire(&mut self.target, self.now);
    }

    fn written(&self) -> String {
        fs::read_to_string(&self.file).expect("a file")
    }

    fn messages(&self) -> Vec<String> {
        self.bus.since(0).into_iter().map(|event| event.message).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn a_reload_takes_what_the_file_says_and_tells_the_difference() {
    let mut world = World::new("reload");
    let nothing = world.reload().expect("a reload");
    assert_eq!((nothing.changes.len(), world.target.taken), (0, 0));
    assert_eq!(world.messages(), [] as [&str; 0]);
    fs::write(&world.file, text("failover", "lan0")).expect("a file");
    let done = world.reload().expect("a reload");
    assert_eq!(done.changes, ["balance: round_robin → failover"]);
    assert_eq!(world.target.config.balance, Balance::Failover);
    assert_eq!(world.bus.since(0)[0].reason, "balance: round_robin → failover");
    assert_eq!(world.reload().expect("a reload").changes, [] as [&str; 0]);
    assert_eq!(world.target.taken, 1);
}

#[test]
fn what_is_wrong_changes_nothing() {
    let mut world = World::new("wrong");
    let cases = [
        (text("sideways", "lan0"), "unknown value `sideways`"),
        (format!("{}nat: {{flows: 64}}\n", text("failover", "lan0")), "--detach"),
        (format!("{}api: {{listen: off}}\n", text("failover", "lan0")), "restart"),
        (text("failover", "absent"), "no such device"),
    ];
    for (wrong, why) in cases {
        fs::write(&world.file, &wrong).expect("a file");
        for refused in
            [world.reload(), world.apply(&wrong, None), world.apply(&wrong, Some(SECOND))]
        {
            let refusal = refused.expect_err(why).to_string();
            assert!(refusal.contains(why), "{refusal}");
        }
        assert_eq!((world.target.taken, world.changer.deadline()), (0, None));
    }
    fs::remove_file(&world.file).expect("it was there");
    assert!(matches!(world.reload(), Err(Refusal::Wrong(_))));
    assert_eq!(world.messages(), [] as [&str; 0]);
}

#[test]
fn an_error_in_the_file_names_the_place() {
    let mut world = World::new("place");
    fs::write(&world.file, text("fialover", "lan0")).expect("a file");
    let refusal = world.reload().expect_err("a wrong word").to_string();
    let place = format!("{}:3:10: balance:", world.file.display());
    assert!(
        refusal.starts_with(&place) && refusal.contains("did you mean `failover`?"),
        "{refusal}"
    );
}

#[test]
fn what_is_applied_for_good_becomes_the_file() {
    let mut world = World::new("apply");
    let new = text("failover", "lan0");
    let done = world.apply(&new, None).expect("applied");
    assert_eq!((done.changes.len(), done.confirm_until_unix_ms), (1, None));
    assert_eq!(world.written(), new);
    let former = fs::read_to_string(file::previous(&world.file)).expect("a file");
    assert_eq!(former, text("round_robin", "lan0"));
    world.pass(1_000 * SECOND);
    assert_eq!(world.target.config.balance, Balance::Failover);
}

#[test]
fn what_cannot_be_written_does_not_stay_in_force() {
    let mut world = World::new("unwritten");
    fs::remove_file(&world.file).expect("it was there");
    let refused = world.apply(&text("failover", "lan0"), None);
    assert!(matches!(refused, Err(Refusal::Failed(_))), "{refused:?}");
    assert_eq!(world.target.config.balance, Balance::RoundRobin);
    assert_eq!(world.messages(), [] as [&str; 0]);
}

#[test]
fn a_trial_comes_back_by_itself_at_its_time() {
    let mut world = World::new("trial");
    let done = world.apply(&text("failover", "lan0"), Some(60 * SECOND)).expect("applied");
    assert!(done.confirm_until_unix_ms.is_some());
    assert_eq!(world.changer.deadline(), Some(world.now + 60 * SECOND));
    assert_eq!(world.written(), text("round_robin", "lan0"), "only what is confirmed is written");
    world.pass(59 * SECOND);
    assert_eq!(world.target.config.balance, Balance::Failover);
    world.pass(SECOND);
    assert_eq!(world.target.config.balance, Balance::RoundRobin);
    assert_eq!(world.changer.deadline(), None);
    let messages = world.messages();
    assert_eq!(messages.len(), 2, "{messages:?}");
    assert!(messages[1].contains("the former configuration is back"), "{messages:?}");
    assert!(matches!(world.changer.confirm(world.now), Err(Refusal::Conflict(_))));
}

#[test]
fn a_confirmed_trial_stays_and_becomes_the_file() {
    let mut world = World::new("confirm");
    let new = text("failover", "lan0");
    world.apply(&new, Some(60 * SECOND)).expect("applied");
    world.pass(30 * SECOND);
    world.changer.confirm(world.now).expect("confirmed");
    assert_eq!(world.written(), new);
    world.pass(1_000 * SECOND);
    assert_eq!((world.target.config.balance, world.target.taken), (Balance::Failover, 1));
    assert!(matches!(world.changer.confirm(world.now), Err(Refusal::Conflict(_))));
}

#[test]
fn a_trial_that_cannot_be_written_is_not_confirmed_and_comes_back() {
    let mut world = World::new("unconfirmed");
    world.apply(&text("failover", "lan0"), Some(60 * SECOND)).expect("applied");
    fs::remove_file(&world.file).expect("it was there");
    let refusal = world.changer.confirm(world.now).expect_err("no file").to_string();
    assert!(refusal.contains("comes back in 60 s"), "{refusal}");
    world.pass(60 * SECOND);
    assert_eq!(world.target.config.balance, Balance::RoundRobin);
}

#[test]
fn while_a_trial_runs_nothing_else_is_changed() {
    let mut world = World::new("during");
    world.apply(&text("failover", "lan0"), Some(60 * SECOND)).expect("applied");
    world.pass(20 * SECOND);
    let other = text("weighted", "lan0");
    for refused in [world.reload(), world.apply(&other, None), world.apply(&other, Some(SECOND))] {
        let refusal = refused.expect_err("a trial runs");
        assert!(
            matches!(&refusal, Refusal::Conflict(why) if why.contains("wait 40 s")),
            "{refusal}"
        );
    }
    assert_eq!(world.target.taken, 1);
    assert_eq!(world.written(), text("round_robin", "lan0"));
}

#[test]
fn the_way_there_and_back_is_told_in_few_words() {
    let mut world = World::new("words");
    let prefixes: Vec<String> = (0..20).map(|n| format!("192.0.2.{n}/32")).collect();
    let many = format!("{}bypass: [{}]\n", text("round_robin", "lan0"), prefixes.join(", "));
    let done = world.apply(&many, Some(SECOND)).expect("applied");
    assert_eq!(done.changes.len(), 20);
    assert!(done.message.contains("20 changes"), "{}", done.message);
    let event = world.bus.since(0).remove(0);
    assert!(event.reason.ends_with("; and 12 more"), "{}", event.reason);
}

#[test]
fn a_file_elsewhere_is_not_touched() {
    let mut world = World::new("elsewhere");
    let names = |folder: &Path| fs::read_dir(folder).expect("a folder").count();
    let before = names(&world.folder);
    world.apply(&text("failover", "lan0"), Some(SECOND)).expect("applied");
    world.pass(SECOND);
    assert_eq!(names(&world.folder), before, "a trial that ends leaves no file");
}
