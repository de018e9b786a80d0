//! The history of a WAN as text for people. Pure: each column is a slice of time of
//! one length, and a slice without data stays blank.
//!
//! Must not know: where the history comes from, terminals.

use std::fmt::Write as _;

use crate::store::{Change, Period, State, Summary, Tally};

/// Most columns of the chart.
pub const COLUMNS: usize = 72;
/// Lines of the chart of latencies.
const LINES: usize = 8;
/// Columns between two times below the chart.
const TICK: usize = 12;
/// Beyond this ratio of greatest to least the scale is logarithmic.
const LINEAR_UP_TO: f64 = 20.0;

/// What is drawn.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// Name of the WAN.
    pub wan: &'a str,
    /// The method, `""` for all together.
    pub method: &'a str,
    /// First second since 1970.
    pub since_s: i64,
    /// The second after the last.
    pub until_s: i64,
    /// What there is, of one length, best asked for with [`COLUMNS`].
    pub periods: &'a [Period],
    /// The span in one piece.
    pub summary: &'a Summary,
    /// Changes to be listed, newest first.
    pub changes: &'a [Change],
}

/// The characters that are drawn with.
struct Pen {
    eighths: [char; 9],
    /// By number of the state.
    states: [char; 5],
    axis: char,
    tick_left: char,
    corner: char,
    line: char,
    tick_down: char,
    arrow: &'static str,
}

const BLOCKS: Pen = Pen {
    eighths: [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'],
    states: ['?', '█', '▒', '░', 'x'],
    axis: '│',
    tick_left: '┤',
    corner: '└',
    line: '─',
    tick_down: '┬',
    arrow: "→",
};

const ASCII: Pen = Pen {
    eighths: [' ', '.', '.', '.', ':', ':', ':', '#', '#'],
    states: ['?', '#', '=', '-', 'x'],
    axis: '|',
    tick_left: '+',
    corner: '+',
    line: '-',
    tick_down: '+',
    arrow: "->",
};

/// Loss from nothing to much, and from which part on.
const LOSS: [(char, f64); 4] = [('#', 0.2), ('!', 0.05), (':', 0.01), ('.', 0.0)];

/// The whole text, each line ended; `ascii` without any other character.
#[must_use]
pub fn draw(view: &View<'_>, ascii: bool) -> String {
    let pen = if ascii { &ASCII } else { &BLOCKS };
    let mut out = header(view);
    match Slices::new(view) {
        Some(slices) => {
            out.push('\n');
            latency(&mut out, &slices, pen);
            marks(&mut out, "loss", &slices, pen, loss_mark);
            marks(&mut out, "state", &slices, pen, |tally| state_mark(tally, pen));
            times(&mut out, &slices, view, pen);
            legend(&mut out, slices.length_s, pen);
        }
        None => out.push_str("no data in this time\n"),
    }
    changes(&mut out, view.changes, pen);
    let mut text = String::new();
    for line in out.lines() {
        // Names and reasons come from configurations and kernels.
        let clean = |c: char| if c.is_control() || (ascii && !c.is_ascii()) { '?' } else { c };
        text.extend(line.trim_end().chars().map(clean));
        text.push('\n');
    }
    text
}

fn header(view: &View<'_>) -> String {
    let sum = &view.summary.tally;
    let outages = &view.summary.outages;
    let method = if view.method.is_empty() { "all methods" } else { view.method };
    let (since, until) = (date_time(view.since_s), date_time(view.until_s));
    let mut out = format!("{}, {method}, {since} to {until} UTC\n", view.wan);
    let _ = write!(out, "availability {}, ", percent(view.summary.availability));
    let _ = match outages.count {
        0 => write!(out, "no outages"),
        1 => write!(out, "1 outage of {}", span(outages.longest_ms)),
        count => write!(out, "{count} outages, longest {}", span(outages.longest_ms)),
    };
    let lasts = if outages.open_since_ms.is_some() { " (goes on)" } else { "" };
    let rounds = if sum.sent() == 1 { "round" } else { "rounds" };
    let _ = writeln!(out, "{lasts}; loss {} of {} {rounds}", percent(sum.loss()), sum.sent());
    let (min, max) = sum.range_us.unzip();
    let _ = write!(
        out,
        "latency min {}, avg {}, p95 {}, max {}; jitter {}",
        millis(min.map(f64::from)),
        millis(sum.mean_us()),
        millis(sum.percentile_us(950).map(f64::from)),
        millis(max.map(f64::from)),
        millis(sum.jitter_us()),
    );
    if let Some(run) = view.summary.run {
        let what = if run.answered { "answered" } else { "lost" };
        let _ = write!(out, "; last {} {what}", run.length);
    }
    out.push('\n');
    out
}

/// The columns.
struct Slices {
    first_s: i64,
    length_s: i64,
    tallies: Vec<Option<Tally>>,
}

impl Slices {
    /// `None` if nothing is known.
    fn new(view: &View<'_>) -> Option<Self> {
        let within = |period: &&Period| {
            period.start_s < view.until_s && period.start_s + period.length_s > view.since_s
        };
        let step = view.periods.iter().filter(within).map(|period| period.length_s).max()?;
        let count = |length_s: i64| {
            let first = view.since_s.div_euclid(length_s);
            usize::try_from((view.until_s - 1).div_euclid(length_s) - first + 1).unwrap_or(0)
        };
        let span = view.until_s - view.since_s;
        let mut length_s = step * (span / COLUMNS as i64 / step).max(1);
        while count(length_s) > COLUMNS {
            length_s += step;
        }
        let first_s = view.since_s.div_euclid(length_s) * length_s;
        let mut tallies: Vec<Option<Tally>> = vec![None; count(length_s)];
        for period in view.periods.iter().filter(within) {
            let column = usize::try_from((period.start_s - first_s) / length_s).ok();
            if let Some(slot) = column.and_then(|column| tallies.get_mut(column)) {
                slot.get_or_insert_default().merge(&period.tally);
            }
        }
        Some(Self { first_s, length_s, tallies })
    }
}

/// Where a latency is drawn.
struct Scale {
    low: f64,
    high: f64,
    is_log: bool,
}

impl Scale {
    fn new(least: f64, greatest: f64) -> Self {
        let is_log = greatest / least > LINEAR_UP_TO;
        let round = |value: f64, steps: &[f64], up: bool| {
            let ten = 10_f64.powf(value.log10().floor());
            let mut steps = steps.iter().map(|step| step * ten);
            // A hair, so that a round value is its own.
            let found = match up {
                true => steps.find(|&step| step >= value * 0.999_999),
                false => steps.rfind(|&step| step <= value * 1.000_001),
            };
            found.unwrap_or(value)
        };
        if is_log {
            let steps = [1.0, 2.0, 5.0, 10.0];
            let (low, high) = (round(least, &steps, false), round(greatest, &steps, true));
            return Self { low, high, is_log };
        }
        let steps = [1.0, 1.2, 1.6, 2.0, 2.4, 3.2, 4.0, 5.0, 6.0, 8.0, 10.0];
        Self { low: 0.0, high: round(greatest, &steps, true), is_log }
    }

    /// From 0 at the bottom to 1 at the top.
    fn height(&self, value: f64) -> f64 {
        match self.is_log {
            true => (value / self.low).ln() / (self.high / self.low).ln(),
            false => value / self.high,
        }
    }

    fn at(&self, height: f64) -> f64 {
        match self.is_log {
            true => self.low * (self.high / self.low).powf(height),
            false => self.high * height,
        }
    }
}

fn latency(out: &mut String, slices: &Slices, pen: &Pen) {
    // No less than the microsecond that latencies are kept in.
    let p95 = |tally: &Tally| tally.percentile_us(950).map(|us| f64::from(us.max(1)) / 1e3);
    let values: Vec<Option<f64>> =
        slices.tallies.iter().map(|slot| slot.as_ref().and_then(p95)).collect();
    let known = || values.iter().flatten().copied();
    let Some((least, greatest)) =
        known().zip(known()).reduce(|(a, b), (c, d)| (a.min(c), b.max(d)))
    else {
        out.push_str("no round was answered\n");
        return;
    };
    let scale = Scale::new(least, greatest);
    let _ = match scale.is_log {
        true => writeln!(out, "latency, p95 in ms, logarithmic from {}", short(scale.low)),
        false => writeln!(out, "latency, p95 in ms"),
    };
    let steps = |value: f64| (scale.height(value) * (LINES * 8) as f64).round().max(1.0) as usize;
    for line in (0..LINES).rev() {
        // Every other line names the value at its upper edge.
        let (label, axis) = match line % 2 {
            1 => (short(scale.at((line + 1) as f64 / LINES as f64)), pen.tick_left),
            _ => (String::new(), pen.axis),
        };
        let _ = write!(out, "{label:>7} {axis}");
        for value in &values {
            let filled = value.map_or(0, |value| steps(value).saturating_sub(line * 8).min(8));
            out.push(pen.eighths[filled]);
        }
        out.push('\n');
    }
}

/// One line with a mark for each slice that has data.
fn marks(out: &mut String, name: &str, slices: &Slices, pen: &Pen, mark: impl Fn(&Tally) -> char) {
    let _ = write!(out, "{name:>7} {}", pen.axis);
    out.extend(slices.tallies.iter().map(|slot| slot.as_ref().map_or(' ', &mark)));
    out.push('\n');
}

fn loss_mark(tally: &Tally) -> char {
    match tally.loss() {
        Some(loss) if loss > 0.0 => {
            LOSS.iter().find(|&&(_, from)| loss >= from).map_or(' ', |&(mark, _)| mark)
        }
        _ => ' ',
    }
}

/// The worst state of a slice: a short outage in a long slice is seen.
fn state_mark(tally: &Tally, pen: &Pen) -> char {
    let order = [State::Down, State::Testing, State::Degraded, State::Up, State::Unknown];
    let worst = order.into_iter().find(|&state| tally.in_state_ms(state) > 0);
    worst.map_or(' ', |state| pen.states[state as usize])
}

fn times(out: &mut String, slices: &Slices, view: &View<'_>, pen: &Pen) {
    let _ = write!(out, "{:>7} {}", "", pen.corner);
    let columns = 0..slices.tallies.len();
    out.extend(columns.clone().map(|at| if at % TICK == 0 { pen.tick_down } else { pen.line }));
    let _ = write!(out, "\n{:>7}  ", "UTC");
    for column in columns.step_by(TICK) {
        let second = slices.first_s + column as i64 * slices.length_s;
        let label = moment(second, view.until_s - view.since_s);
        let _ = write!(out, "{label:<TICK$}");
    }
    out.push('\n');
}

fn legend(out: &mut String, length_s: i64, pen: &Pen) {
    let [unknown, up, degraded, testing, down] = pen.states;
    let _ = writeln!(
        out,
        "        a column is {}; blank: no data\n        \
         loss: blank none, . below 1 %, : below 5 %, ! below 20 %, # more\n        \
         state, the worst: {up} up, {degraded} degraded, {testing} testing, {down} down, \
         {unknown} unknown",
        span(length_s.unsigned_abs().saturating_mul(1000)),
    );
}

fn changes(out: &mut String, changes: &[Change], pen: &Pen) {
    match changes.len() {
        0 => return,
        1 => out.push_str("\nlast change of state\n"),
        count => {
            let _ = writeln!(out, "\nlast {count} changes of state, newest first");
        }
    }
    for change in changes {
        let when = date_time_s(change.at.wall_ms.div_euclid(1000));
        let step = format!("{} {} {}", change.from.name(), pen.arrow, change.to.name());
        let _ = write!(out, "  {when}  {step:<20}  {}", change.reason.replace(['\n', '\r'], " "));
        let _ = match &*change.method {
            "" => writeln!(out),
            method => writeln!(out, " ({method})"),
        };
    }
}

#[path = "chart_units.rs"]
mod units;
use units::{date_time, date_time_s, millis, moment, percent, short, span};

#[cfg(test)]
#[path = "chart_tests.rs"]
mod tests;
