//! ICMP echo, with the ping of the system.

use std::{net::IpAddr, process::Stdio, time::Duration};

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;

use crate::lab::{Namespace, Process};

/// What ping says at its end.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PingReport {
    /// Requests sent.
    pub sent: u64,
    /// Replies received, without duplicates.
    pub received: u64,
    /// Replies that came twice.
    pub duplicates: u64,
    /// Mean round trip.
    pub mean: Duration,
    /// Round trips of the replies in the order they came.
    pub round_trips: Vec<Duration>,
    /// Everything it printed.
    pub output: String,
}

impl PingReport {
    /// Share of requests without a reply, 0 to 1.
    #[must_use]
    pub fn loss(&self) -> f64 {
        if self.sent == 0 { 0.0 } else { 1.0 - self.received as f64 / self.sent as f64 }
    }

    /// The round trip in the middle: a rare stumble of a shared machine does
    /// not move it.
    #[must_use]
    pub fn median(&self) -> Option<Duration> {
        let mut sorted = self.round_trips.clone();
        sorted.sort();
        sorted.get(sorted.len() / 2).copied()
    }

    /// How far round trips scatter: half of them lie within this much of each
    /// other, around the middle (the interquartile range).
    #[must_use]
    pub fn scatter(&self) -> Option<Duration> {
        let mut sorted = self.round_trips.clone();
        sorted.sort();
        let quarter = sorted.len() / 4;
        Some(*sorted.get(3 * quarter)? - *sorted.get(quarter)?)
    }
}

/// Sends `count` echo requests, one every `interval`.
///
/// # Errors
/// When ping cannot be run at all; no reply is not an error.
pub fn ping(
    namespace: &Namespace,
    to: IpAddr,
    count: u32,
    interval: Duration,
    arguments: &[&str],
) -> Result<PingReport> {
    let output = namespace
        .command("ping")
        .args(["-n", "-W", "1", "-c", &count.to_string()])
        .args(["-i", &format!("{:.3}", interval.as_secs_f64())])
        .args(arguments)
        .arg(to.to_string())
        .stdin(Stdio::null())
        .output()
        .context("cannot start ping")?;
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    parse(&text).with_context(|| format!("ping said:\n{text}"))
}

/// Echo requests until it is stopped.
#[derive(Debug)]
pub struct PingRun {
    process: Process,
}

impl PingRun {
    /// Starts a request every `interval`.
    ///
    /// # Errors
    /// When ping cannot be started.
    pub fn start(namespace: &Namespace, to: IpAddr, interval: Duration) -> Result<Self> {
        let (interval, to) = (format!("{:.3}", interval.as_secs_f64()), to.to_string());
        // -q: the log must not grow with time.
        Ok(Self {
            process: namespace.spawn("ping", ["-n", "-q", "-W", "1", "-i", &interval, &to])?,
        })
    }

    /// Ends it and gives its count.
    ///
    /// # Errors
    /// When it had ended before, or says nothing.
    pub fn stop(mut self) -> Result<PingReport> {
        self.process.signal(Signal::SIGINT)?;
        // Its exit code tells of lost replies, which is the report's to tell.
        self.process.wait(Duration::from_secs(5))?;
        let text = self.process.log();
        parse(&text).with_context(|| format!("ping said:\n{text}"))
    }
}

fn parse(text: &str) -> Result<PingReport> {
    let mut report = PingReport { output: text.to_owned(), ..PingReport::default() };
    for line in text.lines() {
        if let Some(time) = field(line, "time=", " ms").filter(|_| line.contains("bytes from")) {
            if line.ends_with("(DUP!)") {
                report.duplicates += 1;
            } else {
                report.round_trips.push(milliseconds(time)?);
            }
        }
        if line.contains("packets transmitted") {
            let number = |text: &str| text.trim().parse::<u64>().ok();
            report.sent = line.split(' ').next().and_then(number).context("packets sent")?;
            report.received = line
                .split(',')
                .find_map(|part| part.trim().strip_suffix(" received").and_then(number))
                .context("packets received")?;
        }
        if let Some(times) = line.strip_prefix("rtt min/avg/max/mdev = ") {
            report.mean = milliseconds(times.split('/').nth(1).unwrap_or_default())?;
        }
    }
    anyhow::ensure!(report.sent > 0, "no count of packets");
    Ok(report)
}

fn field<'a>(line: &'a str, before: &str, after: &str) -> Option<&'a str> {
    line.split_once(before)?.1.split_once(after).map(|(value, _)| value)
}

fn milliseconds(text: &str) -> Result<Duration> {
    let value: f64 = text.parse().with_context(|| format!("no time: {text:?}"))?;
    Ok(Duration::from_secs_f64(value / 1000.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_to_the_last_figure() -> Result<()> {
        let report = parse(
            "PING 203.0.113.250 (203.0.113.250) 56(84) bytes of data.\n\
             64 bytes from 203.0.113.250: icmp_seq=1 ttl=63 time=40.7 ms\n\
             64 bytes from 203.0.113.250: icmp_seq=2 ttl=63 time=20.1 ms\n\
             64 bytes from 203.0.113.250: icmp_seq=2 ttl=63 time=20.2 ms (DUP!)\n\n\
             --- 203.0.113.250 ping statistics ---\n\
             4 packets transmitted, 2 received, +1 duplicates, +1 errors, 50% packet loss, time 406ms\n\
             rtt min/avg/max/mdev = 20.100/30.400/40.700/10.300 ms\n",
        )?;
        assert_eq!((report.sent, report.received, report.duplicates), (4, 2, 1));
        assert_eq!(report.mean, Duration::from_micros(30_400));
        assert_eq!(report.round_trips.len(), 2);
        assert!((report.loss() - 0.5).abs() < f64::EPSILON);
        Ok(())
    }

    #[test]
    fn no_reply_at_all_is_a_report_too() -> Result<()> {
        let report = parse(
            "PING 203.0.113.250 (203.0.113.250) 56(84) bytes of data.\n\n\
             --- 203.0.113.250 ping statistics ---\n\
             5 packets transmitted, 0 received, 100% packet loss, time 4000ms\n\n",
        )?;
        assert_eq!((report.sent, report.received), (5, 0));
        Ok(())
    }
}
