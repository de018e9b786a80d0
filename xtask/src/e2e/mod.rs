//! Tests that push real packets through a real gateway, in the lab.
//!
//! ```text
//!   192.0.2.10            192.0.2.1
//!   2001:db8:a:1::10      2001:db8:a:1::1
//!                              ┌─ wan0 198.51.100.2 ═══ 198.51.100.1  isp1 ─┐
//!      host ─ lan0 ═══ lan0 ─ gw ─ wan1 198.51.100.18 ═══ .17         isp2 ─┼─ net
//!                              └─ wan2 198.51.100.34 ═══ .33          isp3 ─┘
//!                                      NPTv6 to 2001:db8:10n::/48       203.0.113.250
//!                                                                       2001:db8:ff::1
//! ```
//! Every test builds the lab it needs and names it in one sentence. A test that
//! runs with both hooks has a name for each. Each says whether it may run beside
//! others ([`Lane`]).

mod access;
mod accounts;
mod agent;
mod apart;
mod bond_accounts;
mod bond_again;
mod bond_attacker;
mod bond_attacks;
mod bond_audit;
mod bond_classes;
mod bond_cuts;
mod bond_floods;
mod bond_handshakes;
mod bond_leaves;
mod bond_loss;
mod bond_metered;
mod bond_mtu;
mod bond_order;
mod bond_parity;
mod bond_restarts;
mod bond_rules;
mod bond_scene;
mod bond_shares;
mod bond_small;
mod bond_stripe;
mod bond_traffic;
mod certificate;
mod change;
mod checks;
mod config;
mod cuts;
mod divide;
mod doctor;
#[cfg(test)]
mod documents;
mod domains;
mod emulators;
mod errors;
mod explain;
mod failback;
mod filtering;
mod flood;
mod forwards;
mod fragments;
mod frames;
mod hairpin;
mod health;
mod health_faults;
mod host;
mod lab;
mod limits;
mod methods;
mod mtu;
mod own_routes;
mod packets;
mod policy;
mod port;
mod protocols;
mod redial;
mod reload;
mod resolver;
mod scene;
mod spread;
mod states;
mod tags;
mod traffic;
mod wans;
mod why;

use std::{ffi::OsString, fmt, process::ExitCode, time::Instant};

use anyhow::{Error, Result};

pub use self::apart::Ran;

use crate::lab::exit_code;
use crate::outcome::{Outcome, Verdict};

/// What every name of these tests starts with.
pub const PREFIX: &str = "e2e/";

/// Set to 1: every long test runs whole, where it else runs a hundredth.
const WHOLE: &str = "MWB_TEST_WHOLE";

/// Long tests run whole.
pub(crate) fn is_whole() -> bool {
    std::env::var(WHOLE).is_ok_and(|value| value == "1")
}

/// Whether a test may run beside others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// It may: what it proves does not depend on how soon it gets a processor, within
    /// seconds, and it uses nothing that another lab has as well.
    Together,
    /// It may not: it measures rates, delays, silences of less than a second or memory, it
    /// must not lose a packet of a fast stream, or it uses what all labs of a machine share.
    /// Whoever is not sure says this.
    Alone,
}

/// One test.
pub struct Case {
    name: String,
    lane: Lane,
    run: Box<dyn Fn() -> Result<()> + Send + Sync>,
}

impl Case {
    fn new(lane: Lane, name: &str, run: impl Fn() -> Result<()> + Send + Sync + 'static) -> Self {
        Self { name: format!("{PREFIX}{name}"), lane, run: Box::new(run) }
    }

    /// Whether it may run beside others.
    #[must_use]
    pub fn lane(&self) -> Lane {
        self.lane
    }

    /// Its name, with [`PREFIX`].
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs it.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let start = Instant::now();
        let result = if nix::unistd::geteuid().is_root() {
            let run = std::panic::AssertUnwindSafe(&self.run);
            match std::panic::catch_unwind(run) {
                Ok(Ok(())) => Verdict::Passed,
                Ok(Err(error)) => match error.downcast_ref::<Skip>() {
                    Some(Skip(why)) => Verdict::Skipped(why.clone()),
                    None => Verdict::Failed(format!("{error:#}")),
                },
                Err(_) => Verdict::Failed("it panicked; see above".to_owned()),
            }
        } else {
            Verdict::Skipped("network namespaces need root".to_owned())
        };
        Outcome { name: self.name.clone(), result, seconds: start.elapsed().as_secs_f64() }
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Case").field(&self.name).finish()
    }
}

/// Every test of the lab, in the order they run.
#[must_use]
pub fn cases() -> Vec<Case> {
    [
        lab::cases(),
        emulators::cases(),
        config::cases(),
        traffic::cases(),
        host::cases(),
        accounts::cases(),
        spread::cases(),
        agent::cases(),
        cuts::cases(),
        divide::cases(),
        errors::cases(),
        mtu::cases(),
        fragments::cases(),
        filtering::cases(),
        hairpin::cases(),
        health::cases(),
        health_faults::cases(),
        forwards::cases(),
        protocols::cases(),
        states::cases(),
        limits::cases(),
        methods::cases(),
        flood::cases(),
        wans::cases(),
        tags::cases(),
        own_routes::cases(),
        redial::cases(),
        reload::cases(),
        change::cases(),
        failback::cases(),
        policy::cases(),
        domains::cases(),
        explain::cases(),
        why::cases(),
        doctor::cases(),
        access::cases(),
        bond_traffic::cases(),
        bond_stripe::cases(),
        bond_order::cases(),
        bond_again::cases(),
        bond_parity::cases(),
        bond_cuts::cases(),
        bond_classes::cases(),
        bond_metered::cases(),
        bond_restarts::cases(),
        bond_rules::cases(),
        bond_leaves::cases(),
        bond_shares::cases(),
        bond_loss::cases(),
        bond_small::cases(),
        bond_handshakes::cases(),
        bond_floods::cases(),
        bond_attacks::cases(),
        bond_audit::cases(),
        bond_mtu::cases(),
        bond_accounts::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Becomes the process that runs a test, or one that a test needs to come to a bad end, if
/// the command line asks for it.
#[must_use]
pub fn helper(mut arguments: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    let _program = arguments.next();
    let result = match arguments.next()?.to_str()? {
        lab::VICTIM => lab::victim(),
        apart::COMMAND => apart::main(arguments),
        _ => return None,
    };
    Some(exit_code(&result))
}

/// Why a test cannot run here.
#[derive(Debug)]
struct Skip(String);

impl fmt::Display for Skip {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Skip {}

/// Ends a test as skipped.
fn skip<T>(why: &str) -> Result<T> {
    Err(Error::new(Skip(why.to_owned())))
}
