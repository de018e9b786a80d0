//! What a run has shown, for people and as JSON.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{felt::Felt, load::Figures};
use crate::lab::{address::wan4, api::Status};

/// Connections in a row that show that a failover is over.
const STREAK: usize = 10;

/// When the first WAN was cut and healed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Acts {
    pub(super) cut: Instant,
    pub(super) healed: Option<Instant>,
}

/// Everything a run has found.
#[derive(Debug)]
pub(super) struct Summary {
    pub(super) scenario: &'static str,
    pub(super) took: Duration,
    pub(super) acts: Option<Acts>,
    /// Of a bond.
    pub(super) felt: Option<Felt>,
    pub(super) figures: Figures,
    pub(super) status: Option<Status>,
    pub(super) exit_reason: String,
    /// Whether something went wrong.
    pub(super) error: Option<anyhow::Error>,
}

/// Offered and delivered of one kind of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counted {
    kind: &'static str,
    offered: u64,
    delivered: u64,
}

impl Summary {
    /// Time after the cut until new connections succeed, [`STREAK`] in a row: a
    /// link that loses packets loses a connection now and then in any case.
    /// `None` without a cut, or when they did not succeed before it was healed.
    fn failover_gap(&self) -> Option<Duration> {
        let acts = self.acts?;
        let until = acts.healed.unwrap_or_else(Instant::now);
        let attempts: Vec<_> = self
            .figures
            .attempts
            .iter()
            .filter(|attempt| attempt.start >= acts.cut && attempt.start < until)
            .collect();
        attempts
            .windows(STREAK)
            .find(|streak| streak.iter().all(|attempt| attempt.seen_as.is_some()))
            .map(|streak| streak[0].start - acts.cut)
    }

    /// Time after the healing until new connections use the first WAN again.
    fn failback(&self) -> Option<Duration> {
        let healed = self.acts?.healed?;
        let first = |attempt: &&crate::lab::traffic::Attempt| {
            attempt.start >= healed && attempt.seen_as.is_some_and(|seen| seen.ip() == wan4(0))
        };
        self.figures.attempts.iter().find(first).map(|attempt| attempt.start - healed)
    }

    fn counted(&self) -> [Counted; 4] {
        let figures = &self.figures;
        let whole = figures.attempts.iter().filter(|attempt| attempt.seen_as.is_some()).count();
        let datagrams = || figures.datagrams.iter();
        // A datagram counts there and its echo back.
        let back = |report: &crate::lab::traffic::UdpReport| {
            report.there.received + report.back.map_or(0, |back| back.received)
        };
        [
            Counted {
                kind: "new connections",
                offered: figures.attempts.len() as u64,
                delivered: whole as u64,
            },
            Counted {
                kind: "downloads",
                offered: figures.downloads_begun,
                delivered: figures.downloads_whole,
            },
            Counted {
                kind: "datagrams",
                offered: datagrams().map(|report| report.sent + report.there.received).sum(),
                delivered: datagrams().map(back).sum(),
            },
            Counted {
                kind: "echo requests",
                offered: figures.pings.iter().map(|report| report.sent).sum(),
                delivered: figures.pings.iter().map(|report| report.received).sum(),
            },
        ]
    }

    pub(super) fn json(&self) -> Value {
        let milliseconds =
            |time: Option<Duration>| time.map(|time| (time.as_secs_f64() * 1e3).round());
        let pick = |side: fn(&Counted) -> u64| -> Value {
            self.counted()
                .iter()
                .map(|one| (one.kind.replace(' ', "_"), Value::from(side(one))))
                .collect::<serde_json::Map<_, _>>()
                .into()
        };
        let wans: Vec<Value> = self
            .status
            .iter()
            .flat_map(|status| &status.wans)
            .map(|wan| {
                json!({
                    "name": wan.name,
                    "state": wan.state,
                    "hook": wan.hook,
                    "tx_bytes": wan.tx.bytes,
                    "rx_bytes": wan.rx.bytes,
                    "failovers": wan.failovers,
                })
            })
            .collect();
        json!({
            "scenario": self.scenario,
            "seconds": (self.took.as_secs_f64() * 10.0).round() / 10.0,
            "offered": pick(|one| one.offered),
            "delivered": pick(|one| one.delivered),
            "download_bytes": self.figures.download_bytes,
            "failover_gap_ms": milliseconds(self.failover_gap()),
            "failback_ms": milliseconds(self.failback()),
            "wans": wans,
            "felt": self.felt.as_ref().map(Felt::json),
            "exit_reason": self.exit_reason,
        })
    }

    pub(super) fn text(&self) -> String {
        let mut lines = vec![format!(
            "{:.1} s of scenario {}: {}",
            self.took.as_secs_f64(),
            self.scenario,
            self.exit_reason
        )];
        for one in self.counted() {
            lines.push(format!(
                "  {:<16}{:>8} of {:>8} delivered",
                one.kind, one.delivered, one.offered
            ));
        }
        lines.push(format!(
            "  {:<16}{:>8.1} MB",
            "downloaded",
            self.figures.download_bytes as f64 / 1e6
        ));
        if self.acts.is_some() {
            let gap = self.failover_gap();
            let gap = gap.map_or("not over".to_owned(), |gap| format!("{} ms", gap.as_millis()));
            lines.push(format!("  failover gap of new connections: {gap}"));
        }
        if let Some(back) = self.failback() {
            lines.push(format!("  back on the first WAN after {:.1} s", back.as_secs_f64()));
        }
        lines.extend(self.felt.iter().flat_map(Felt::lines));
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::lab::traffic::Attempt;

    #[test]
    fn a_summary_tells_the_gap_and_the_way_back() {
        let cut = Instant::now();
        let healed = cut + Duration::from_secs(2);
        let attempt = |after: u64, wan: Option<usize>| Attempt {
            start: cut + Duration::from_millis(after),
            seen_as: wan.map(|wan| SocketAddr::new(wan4(wan).into(), 10_000)),
        };
        let attempts = vec![attempt(0, None), attempt(300, Some(1)), attempt(580, None)];
        let streak = (0..10).map(|number| attempt(600 + 20 * number, Some(1)));
        let back = [attempt(2100, Some(1)), attempt(4500, Some(0))];
        let attempts = attempts.into_iter().chain(streak).chain(back).collect();
        let summary = Summary {
            scenario: "cut",
            took: Duration::from_secs(5),
            acts: Some(Acts { cut, healed: Some(healed) }),
            felt: None,
            figures: Figures { attempts, ..Figures::default() },
            status: None,
            exit_reason: "the time is up".to_owned(),
            error: None,
        };
        let json = summary.json();
        assert_eq!(json["failover_gap_ms"], 600.0);
        assert_eq!(json["failback_ms"], 2500.0);
        assert_eq!(json["offered"]["new_connections"], 15);
        assert_eq!(json["delivered"]["new_connections"], 13);
    }
}
