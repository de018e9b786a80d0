//! Episodes after each other, on as many data planes side by side as the plan says:
//! what is met is tallied by form, what breaks a contract is shrunk and written down.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::Instant;

use crate::network::make_network;
use crate::plan::Plan;
use crate::random::Random;
use crate::shrink;

/// Packets of one episode.
const EPISODE: usize = 4_096;
/// Most different failures that a run writes down.
const FAILURES: usize = 8;

/// Packets counted by direction and reason.
pub(crate) type Tally = BTreeMap<(&'static str, &'static str), u64>;

/// A failure, with everything done up to it.
#[derive(Debug)]
pub(crate) struct Failure<S> {
    pub(crate) wrong: String,
    pub(crate) steps: Vec<S>,
}

/// One thing that is done, and its line in a file.
pub(crate) trait Line: Clone {
    /// Whether it can be the first.
    fn begins(&self) -> bool;

    /// As text.
    fn line(&self) -> String;

    /// What [`Self::line`] has written.
    fn of_line(line: &str) -> Option<Self>;

    /// All of a file. Lines that begin with `#` and empty ones are for people.
    fn read(text: &str) -> Result<Vec<Self>, String> {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines.map(|line| Self::of_line(line).ok_or_else(|| format!("not a step: {line}"))).collect()
    }

    /// The text of a file.
    fn write(steps: &[Self]) -> String {
        steps.iter().map(|step| step.line() + "\n").collect()
    }
}

/// What is run: programs in a data plane, or in two.
pub(crate) trait Subject {
    /// What is done to it.
    type Step: Line;
    /// What `cargo xtask fuzz` calls it.
    const TARGET: &'static str;

    /// Which of its forms this is.
    fn form(&self) -> &'static str;

    /// Runs about `packets` packets that follow from `seed`; gives how many, and what
    /// they came to.
    fn run(&mut self, seed: u64, packets: usize) -> Result<(u64, Tally), Box<Failure<Self::Step>>>;

    /// Does these steps to one that knows nothing; gives how many packets.
    fn replay(&mut self, steps: &[Self::Step]) -> Result<u64, String>;
}

/// What one form has met.
#[derive(Default)]
pub(crate) struct Met {
    pub(crate) inputs: u64,
    pub(crate) tally: Tally,
}

impl Met {
    fn add(&mut self, inputs: u64, tally: Tally) {
        self.inputs += inputs;
        for (row, packets) in tally {
            *self.tally.entry(row).or_default() += packets;
        }
    }

    /// Packets of a direction that ended for a reason.
    pub(crate) fn count(&self, direction: &'static str, reason: &'static str) -> u64 {
        self.tally.get(&(direction, reason)).copied().unwrap_or_default()
    }
}

/// What one worker has done.
#[derive(Default)]
struct Done {
    episodes: u64,
    /// Packets of episodes that came to nothing.
    lost: u64,
    /// By the name of the form.
    met: BTreeMap<&'static str, Met>,
    failures: Vec<String>,
    kinds: BTreeSet<String>,
}

impl Done {
    fn inputs(&self) -> u64 {
        self.lost + self.met.values().map(|met| met.inputs).sum::<u64>()
    }
}

/// Runs what the plan says; `open` makes the subjects of a worker, in a network of its
/// own whose LAN device has the index that it gets. Gives what each form has met, or
/// nothing if that says nothing: the run was skipped, or repeated what a file said.
pub(crate) fn run<S: Subject>(
    name: &str,
    plan: &Plan,
    open: impl Fn(u32) -> Vec<S> + Sync,
) -> BTreeMap<&'static str, Met> {
    let started = Instant::now();
    let results: Vec<Result<Done, String>> = thread::scope(|scope| {
        let workers: Vec<_> = (0..plan.workers)
            .map(|worker| {
                let open = &open;
                scope.spawn(move || make_network().map(|lan| work(plan, worker, open(lan))))
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().expect("a worker")).collect()
    });
    let mut all = Done::default();
    for result in results {
        match result {
            Ok(done) => {
                all.episodes += done.episodes;
                all.failures.extend(done.failures);
                for (form, met) in done.met {
                    all.met.entry(form).or_default().add(met.inputs, met.tally);
                }
            }
            Err(why) => {
                println!("skipped: {name}: {why}");
                return BTreeMap::new();
            }
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    let inputs = all.inputs();
    let each = inputs as f64 / seconds;
    println!(
        "{inputs} packets in {} episodes, {seconds:.1} s, {each:.0} a second, seed {}",
        all.episodes, plan.seed
    );
    for (form, met) in &all.met {
        for ((direction, reason), packets) in &met.tally {
            println!("{form} {direction:>5} {reason:<26} {packets:>12}");
        }
    }
    assert!(all.failures.is_empty(), "contracts broken:\n{}", all.failures.join("\n"));
    if plan.repeat.is_some() { BTreeMap::new() } else { all.met }
}

fn work<S: Subject>(plan: &Plan, worker: usize, mut subjects: Vec<S>) -> Done {
    let mut done = Done::default();
    if let Some(file) = &plan.repeat {
        let text = std::fs::read_to_string(file).expect("the file of a failure");
        let steps = S::Step::read(&text).expect("the file of a failure");
        for subject in &mut subjects {
            match subject.replay(&steps) {
                Ok(inputs) => done.met.entry(subject.form()).or_default().inputs += inputs,
                Err(wrong) => done.failures.push(format!("{}: {wrong}", subject.form())),
            }
        }
        return done;
    }
    let mut seeds = Random::new(plan.seed.wrapping_add(worker as u64));
    let share = plan.inputs / plan.workers as u64;
    while !plan.is_over(done.inputs(), share) {
        let turn = done.episodes as usize % subjects.len();
        done.episodes += 1;
        let subject = &mut subjects[turn];
        let seed = seeds.next();
        match subject.run(seed, EPISODE) {
            Ok((inputs, tally)) => {
                done.met.entry(subject.form()).or_default().add(inputs, tally);
            }
            Err(failure) => {
                let form = subject.form();
                done.lost += failure.steps.len() as u64;
                // Figures apart, each kind of failure is wanted once.
                let kind = kind_of(&failure.wrong);
                if !done.kinds.insert(kind) {
                    continue;
                }
                let failure = shrink::shrink(subject, *failure);
                let written = shrink::write_down::<S>(&plan.directory, form, seed, &failure);
                let place =
                    written.map_or_else(|e| e.to_string(), |file| file.display().to_string());
                done.failures.push(format!(
                    "{form}, {} steps in {place}: {}",
                    failure.steps.len(),
                    failure.wrong
                ));
                if done.failures.len() >= FAILURES {
                    break;
                }
            }
        }
    }
    done
}

/// The first words of a failure, without its figures.
fn kind_of(wrong: &str) -> String {
    wrong.chars().filter(|letter| !letter.is_ascii_hexdigit()).take(20).collect()
}
