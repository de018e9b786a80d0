//! The history on disk: hands in what health says, and answers for the API.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::api::Unavailable;
use crate::api::past::{History, HistoryQuery, StateChange, Stretch};
use crate::config;
use crate::events::{Bus, EventKind};
use crate::health::{Ended, Kind, Reason, Report, State};
use crate::store::{
    self, Change, Error, Moment, Outcome, Period, Retention, Round, Settings, Tally, Writer, chart,
};

/// How long the end of the agent waits for what is to be written.
const CLOSING: Duration = Duration::from_secs(2);
/// Messages that may wait for the disk: some seconds of 32 WANs in doubt.
const QUEUE: usize = 4_096;
/// Changes that an answer has.
const CHANGES: usize = 100;
/// Of these, those that a drawing lists.
const LISTED: usize = 10;

/// What is kept, if anything is.
#[derive(Clone, Debug, Default)]
pub(super) struct Past {
    kept: Option<Kept>,
    /// Why nothing is kept, though it should be.
    refused: Option<String>,
}

#[derive(Clone, Debug)]
struct Kept {
    file: PathBuf,
    writer: Writer,
    /// What was last said of the disk.
    error: Option<String>,
}

impl Past {
    /// Begins to keep what the configuration wants kept.
    /// Where that cannot be, says so: packets do not wait for a disk.
    pub(super) fn start(history: Option<&config::History>, bus: &Bus) -> Self {
        let Some(config::History { file, fine, medium, coarse, changes }) = history else {
            return Self::default();
        };
        let retention =
            Retention { raw: *fine, five_minutes: *medium, hours: *coarse, changes: *changes };
        let settings = Settings { path: file.clone(), retention, queue: QUEUE };
        match Writer::start(settings) {
            Ok(writer) => {
                let kept = Kept { file: file.clone(), writer, error: None };
                Self { kept: Some(kept), refused: None }
            }
            Err(error) => {
                let why = error.to_string();
                bus.publish(EventKind::History, None, "no history is kept", why.clone());
                Self { kept: None, refused: Some(why) }
            }
        }
    }

    /// Keeps what a report says about a WAN.
    pub(super) fn enter(&self, wan: &str, report: &Report) {
        let Some(Kept { writer, .. }) = &self.kept else { return };
        let (wan, at): (Arc<str>, Moment) = (wan.into(), Moment::now());
        for (kind, ended) in &report.rounds {
            let outcome = match ended {
                Ended::Answered(time) => Outcome::Answered(*time),
                Ended::Lost => Outcome::Lost,
            };
            let method = kind.name().into();
            writer.record(Round { wan: wan.clone(), method, at, outcome });
        }
        if let Some(transition) = &report.transition {
            // What its device says, no method has found.
            let by_device =
                matches!(transition.reason, Reason::CarrierLost | Reason::DeviceMissing);
            let by = report.asking.by.filter(|_| !by_device);
            writer.state(Change {
                wan,
                method: by.map_or("", Kind::name).into(),
                at,
                from: kept_state(transition.from),
                to: kept_state(transition.to),
                reason: transition.reason.to_string(),
            });
        }
    }

    /// A WAN is not configured any more.
    pub(super) fn forget(&self, wan: &str) {
        if let Some(kept) = &self.kept {
            kept.writer.forget(wan);
        }
    }

    /// Says what has become of the disk, once.
    pub(super) fn tell(&mut self, bus: &Bus) {
        let Some(kept) = &mut self.kept else { return };
        let error = kept.writer.condition().error;
        if kept.error == error {
            return;
        }
        let message = match &error {
            Some(_) => "the history cannot be written",
            None => "the history is written again",
        };
        bus.publish(EventKind::History, None, message, error.clone().unwrap_or_default());
        kept.error = error;
    }

    /// Writes what is still to be written.
    pub(super) fn close(&self) {
        if let Some(kept) = &self.kept
            && let Err(error) = kept.writer.close(CLOSING)
        {
            tracing::warn!(%error, "the end of the history is lost");
        }
    }

    /// Answers a question. Reads the disk.
    pub(super) fn ask(&self, query: &HistoryQuery) -> Result<History, Unavailable> {
        let Some(kept) = &self.kept else {
            let why = match &self.refused {
                Some(why) => format!("nothing is kept: {why}; mend that, and restart the agent"),
                None => "nothing is kept: add a section `history` to the configuration and \
                         restart the agent"
                    .to_owned(),
            };
            return Err(Unavailable(why));
        };
        let failed = |error: Error| Unavailable(error.to_string());
        let reader = match store::reader(&kept.file) {
            Ok(reader) => reader,
            Err(Error::Missing { .. }) => {
                return Err(Unavailable("nothing is kept yet; ask again in 10 s".to_owned()));
            }
            Err(error) => return Err(failed(error)),
        };
        let method = query.method.clone().unwrap_or_default();
        let series = reader.series().map_err(failed)?;
        let (wan, is_known) = (&query.wan, series.iter().any(|(wan, _)| *wan == query.wan));
        if !is_known || !series.contains(&(wan.clone(), method.clone())) {
            let known: Vec<String> = series
                .iter()
                .filter(|(other, method)| if is_known { other == wan } else { method.is_empty() })
                .map(|(other, method)| if is_known { method.clone() } else { other.clone() })
                .filter(|name| !name.is_empty())
                .collect();
            let what = if is_known { "by that method" } else { "of a WAN of that name" };
            return Err(Unavailable(format!(
                "nothing is kept {what}; there is {}",
                known.join(", ")
            )));
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let until = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let seconds = i64::try_from(query.seconds.unwrap_or(86_400)).unwrap_or(i64::MAX);
        let since = until.saturating_sub(seconds);
        let summary = reader.summary(wan, &method, since, until).map_err(failed)?;
        let periods = reader.periods(wan, &method, since, until, chart::COLUMNS).map_err(failed)?;
        let changes = reader.changes(wan, CHANGES).map_err(failed)?;
        let drawn = chart::draw(
            &chart::View {
                wan,
                method: &method,
                since_s: since,
                until_s: until,
                periods: &periods,
                summary: &summary,
                changes: changes.get(..LISTED.min(changes.len())).unwrap_or_default(),
            },
            query.ascii,
        );
        let in_a_row = |answered: bool| {
            summary.run.filter(|run| run.answered == answered).map_or(0, |run| run.length)
        };
        Ok(History {
            wan: wan.clone(),
            method,
            since,
            until,
            summary: stretch(since, seconds, &summary.tally),
            availability: summary.availability,
            outages: summary.outages.count,
            longest_outage_seconds: summary.outages.longest_ms as f64 / 1e3,
            answered_in_a_row: in_a_row(true),
            lost_in_a_row: in_a_row(false),
            periods: periods
                .iter()
                .map(|Period { start_s, length_s, tally }| stretch(*start_s, *length_s, tally))
                .collect(),
            changes: changes.into_iter().map(shown).collect(),
            chart: drawn,
        })
    }
}

fn stretch(start: i64, seconds: i64, tally: &Tally) -> Stretch {
    let ms = |us: f64| us / 1e3;
    let percentile = |per_mille| tally.percentile_us(per_mille).map(|us| ms(f64::from(us)));
    let (min, max) = tally.range_us.unzip();
    let state = |state: store::State| {
        let seconds = tally.in_state_ms(state) as f64 / 1e3;
        (seconds > 0.0).then(|| (state.name().to_owned(), seconds))
    };
    Stretch {
        start,
        seconds,
        rounds: tally.sent(),
        lost: tally.lost,
        min_ms: min.map(|us| ms(f64::from(us))),
        avg_ms: tally.mean_us().map(ms),
        p50_ms: percentile(500),
        p95_ms: percentile(950),
        p99_ms: percentile(990),
        max_ms: max.map(|us| ms(f64::from(us))),
        jitter_ms: tally.jitter_us().map(ms),
        states: store::State::ALL.into_iter().filter_map(state).collect::<BTreeMap<_, _>>(),
    }
}

fn shown(change: Change) -> StateChange {
    StateChange {
        unix_ms: change.at.wall_ms,
        from: change.from.name().to_owned(),
        to: change.to.name().to_owned(),
        reason: change.reason,
        method: change.method.to_string(),
    }
}

const fn kept_state(state: State) -> store::State {
    match state {
        State::Unknown => store::State::Unknown,
        State::Up => store::State::Up,
        State::Degraded => store::State::Degraded,
        State::Testing => store::State::Testing,
        State::Down => store::State::Down,
    }
}
