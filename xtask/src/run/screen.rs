//! The live view: a table that is drawn over itself on a terminal, plain lines
//! elsewhere.

use std::{
    io::{IsTerminal as _, Write},
    time::Duration,
};

use super::load::Figures;
use crate::lab::api::{Event, Status, Volume};

/// Time between two plain lines.
const LINE_EVERY: Duration = Duration::from_secs(2);

/// Where a run is shown.
pub(super) struct Screen {
    /// Standard error when standard output is for JSON.
    out: Box<dyn Write>,
    terminal: bool,
    drawn: usize,
    last_line: Option<Duration>,
    previous: Option<(Duration, Vec<(Volume, Volume)>)>,
}

/// What is shown.
pub(super) struct Scene<'a> {
    pub(super) at: Duration,
    pub(super) scenario: &'static str,
    pub(super) metrics: &'a str,
    pub(super) status: &'a Status,
    pub(super) figures: &'a Figures,
    pub(super) event: Option<&'a Event>,
}

impl Screen {
    pub(super) fn new(json: bool) -> Self {
        let (out, terminal): (Box<dyn Write>, bool) = if json {
            (Box::new(std::io::stderr()), std::io::stderr().is_terminal())
        } else {
            (Box::new(std::io::stdout()), std::io::stdout().is_terminal())
        };
        Self { out, terminal, drawn: 0, last_line: None, previous: None }
    }

    /// Whether a person watches it change.
    pub(super) fn is_watched(&self) -> bool {
        self.terminal
    }

    /// Something that stays.
    pub(super) fn say(&mut self, line: &str) {
        self.wipe();
        // A closed pipe must not end the run: its summary is still to come.
        let _ = writeln!(self.out, "{line}");
        let _ = self.out.flush();
    }

    /// The state of things now.
    pub(super) fn show(&mut self, scene: &Scene<'_>) {
        let rates = self.rates(scene);
        if self.terminal {
            let table = fit(&table(scene, &rates), width());
            self.wipe();
            self.drawn = table.lines().count();
            let _ = writeln!(self.out, "{table}");
            let _ = self.out.flush();
        } else if self.last_line.is_none_or(|last| scene.at >= last + LINE_EVERY) {
            self.last_line = Some(scene.at);
            let line = line(scene, &rates);
            self.say(&line);
        }
    }

    fn wipe(&mut self) {
        if self.drawn > 0 {
            let _ = write!(self.out, "\x1b[{}A\x1b[J", self.drawn);
            self.drawn = 0;
        }
    }

    /// Bits per second to and from each WAN since the last look.
    fn rates(&mut self, scene: &Scene<'_>) -> Vec<(f64, f64)> {
        let now: Vec<_> = scene.status.wans.iter().map(|wan| (wan.tx, wan.rx)).collect();
        let rate = |before: Volume, after: Volume, seconds: f64| {
            after.bytes.saturating_sub(before.bytes) as f64 * 8.0 / seconds
        };
        let rates = match &self.previous {
            Some((then, before)) if scene.at > *then => {
                let seconds = (scene.at - *then).as_secs_f64();
                now.iter()
                    .zip(before)
                    .map(|(now, before)| {
                        (rate(before.0, now.0, seconds), rate(before.1, now.1, seconds))
                    })
                    .collect()
            }
            _ => vec![(0.0, 0.0); now.len()],
        };
        self.previous = Some((scene.at, now));
        rates
    }
}

/// Columns of the terminal: a line that wraps would be wiped only in part.
fn width() -> usize {
    // SAFETY: all zeros is a valid winsize, and the call only writes to it.
    let size = unsafe {
        let mut size: libc::winsize = std::mem::zeroed();
        libc::ioctl(libc::STDERR_FILENO, libc::TIOCGWINSZ, &raw mut size);
        size
    };
    if size.ws_col == 0 { 80 } else { usize::from(size.ws_col) }
}

fn fit(text: &str, width: usize) -> String {
    let cut = |line: &str| line.chars().take(width).collect::<String>();
    text.lines().map(cut).collect::<Vec<_>>().join("\n")
}

fn table(scene: &Scene<'_>, rates: &[(f64, f64)]) -> String {
    let mut lines = vec![
        format!(
            "{:>5.1} s  scenario {}  balance {}  {}",
            scene.at.as_secs_f64(),
            scene.scenario,
            scene.status.balance,
            scene.metrics
        ),
        format!(
            "{:<8}{:<10}{:<6}{:>7}{:>11}{:>8}{:>13}{:>13}{:>11}",
            "WAN", "state", "hook", "share", "rtt", "loss", "to WAN", "from WAN", "failovers"
        ),
    ];
    for (wan, rate) in scene.status.wans.iter().zip(rates) {
        lines.push(format!(
            "{:<8}{:<10}{:<6}{:>5.0} %{:>11}{:>8}{:>13}{:>13}{:>11}",
            wan.name,
            wan.state,
            wan.hook.as_deref().unwrap_or("-"),
            wan.share * 100.0,
            wan.rtt_ms.map_or("-".to_owned(), |rtt| format!("{rtt:.1} ms")),
            wan.loss.map_or("-".to_owned(), |loss| format!("{:.0} %", loss * 100.0)),
            megabits(rate.0),
            megabits(rate.1),
            wan.failovers,
        ));
    }
    lines.push(traffic(scene.figures));
    if let Some(event) = scene.event {
        lines.push(format!("last event: {}", event.message));
    }
    lines.join("\n")
}

fn line(scene: &Scene<'_>, rates: &[(f64, f64)]) -> String {
    let wans: Vec<String> = scene
        .status
        .wans
        .iter()
        .zip(rates)
        .map(|(wan, rate)| format!("{} {} {}", wan.name, wan.state, megabits(rate.0 + rate.1)))
        .collect();
    format!("{:>5.1} s  {}  {}", scene.at.as_secs_f64(), wans.join("  "), traffic(scene.figures))
}

fn traffic(figures: &Figures) -> String {
    let connected = figures.attempts.iter().filter(|attempt| attempt.seen_as.is_some()).count();
    let sent: u64 = figures.datagrams.iter().map(|report| report.sent).sum();
    let lost: u64 = figures.datagrams.iter().map(|report| report.there.lost).sum();
    format!(
        "connections {connected}/{}  downloads {}/{}  datagrams {}/{sent}",
        figures.attempts.len(),
        figures.downloads_whole,
        figures.downloads_begun,
        sent - lost,
    )
}

fn megabits(rate: f64) -> String {
    format!("{:.1} Mbit/s", rate / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_never_wraps() {
        assert_eq!(fit("0123456789\n012", 5), "01234\n012");
    }
}
