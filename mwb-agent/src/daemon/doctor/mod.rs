//! What is right and wrong with the gateway. [`facts`] and [`sample`] read,
//! everything else judges what they have read and is pure.

use std::time::Duration;

use super::beat::Plane;
use super::view::View;
use crate::api::Unavailable;
use crate::api::bond::BondStatus;
use crate::api::doctor::{Area, Finding, ProgramCost, Report, Severity};
use crate::dataplane::{Error, Rules, Tables, measure_runs};
use crate::flows::Usage;
use crate::net::Snapshot;

mod bottleneck;
mod facts;
mod flow;
mod sample;
mod settings;
#[cfg(test)]
mod tests;

use facts::{Facts, Narrow};
use flow::Passed;
use sample::Sample;

/// What an examination rests on.
pub(super) struct Source {
    plane: Plane,
    tables: Tables,
    rules: Rules,
    view: View,
    network: Snapshot,
    usage: Usage,
    narrow: Vec<Narrow>,
}

impl Source {
    pub(super) fn new(
        (plane, tables, rules): (&Plane, &Tables, &Rules),
        view: &View,
        network: &Snapshot,
        usage: &Usage,
        bond: Option<&BondStatus>,
    ) -> Self {
        Self {
            plane: plane.clone(),
            tables: tables.clone(),
            rules: rules.clone(),
            view: view.clone(),
            network: network.clone(),
            usage: usage.clone(),
            narrow: bond.map(Narrow::all).unwrap_or_default(),
        }
    }
}

/// Examines everything; takes `watch` and a little more.
pub(super) async fn examine(source: Source, watch: Duration) -> Result<Report, Unavailable> {
    // Without the right to it, whoever asks may have switched it on.
    let measuring = measure_runs().ok();
    let first = sample(&source).await?;
    tokio::time::sleep(watch).await;
    let second = sample(&source).await?;
    drop(measuring);
    let read = move || {
        let Source { view, network, usage, rules, plane, narrow, .. } = &source;
        let unwatched = plane.with(|plane| plane.unwatched().map(str::to_owned));
        let facts = Facts::read(view, network, usage, rules, unwatched)?;
        Ok(Facts { narrow: narrow.clone(), ..facts })
    };
    let facts = blocking(read).await?;
    Ok(judge(&facts, &Passed::between(&first, &second)))
}

async fn sample(source: &Source) -> Result<Sample, Unavailable> {
    let (plane, tables) = (source.plane.clone(), source.tables.clone());
    blocking(move || Sample::take(&plane, &tables)).await
}

async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Unavailable> {
    let done = tokio::task::spawn_blocking(read).await;
    done.map_err(|error| Unavailable(format!("the examination ended: {error}")))?
        .map_err(|error| Unavailable(error.to_string()))
}

/// The report about what was read.
fn judge(facts: &Facts, passed: &Passed) -> Report {
    let mut findings = Vec::new();
    settings::judge(facts, &mut findings);
    flow::judge(facts, passed, &mut findings);
    findings.sort_by_key(|finding: &Finding| (finding.area, std::cmp::Reverse(finding.severity)));
    Report {
        seconds: passed.seconds,
        bottleneck: bottleneck::find(facts, passed),
        findings,
        programs: passed.programs.iter().map(cost).collect(),
    }
}

fn cost(program: &flow::ProgramPassed) -> ProgramCost {
    let measured = program.measured.then_some(program.nanoseconds);
    ProgramCost {
        program: program.name.to_owned(),
        runs_per_second: program.runs,
        nanoseconds: measured.filter(|_| program.runs > 0.0),
        cpu: measured.map(|nanoseconds| nanoseconds * program.runs / 1e9),
    }
}

fn finding(area: Area, subject: &str, severity: Severity, fact: impl Into<String>) -> Finding {
    Finding { area, subject: subject.to_owned(), severity, fact: fact.into(), fix: None }
}

fn with_fix(finding: Finding, fix: impl Into<String>) -> Finding {
    Finding { fix: Some(fix.into()), ..finding }
}
