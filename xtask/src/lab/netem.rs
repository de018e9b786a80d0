//! A link by the kernel: a bridge between the two devices; on what each sends,
//! netem for loss, delay and order, and behind it tbf for the rate and a queue
//! that is measured in bytes (netem's own counts packets).
//!
//! Where it differs from the relay: it has no seed, and the queue comes after
//! the delay.

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{
    link::{Direction, DirectionStats, LinkSpec, LinkStats, Loss},
    namespace::Namespace,
    shaper::Shaper,
    topology::Shape,
};

/// Packets that may be on their way: no limit of its own.
const ON_THE_WAY: u64 = 100_000;
/// "As fast as it goes", in bits per second. netem has it as its rate too: with
/// some rate it keeps the order under jitter, without one it does not.
const NO_RATE: u64 = 100_000_000_000;
/// Least bytes that tbf may send at once.
const BURST: u64 = 2 * 1514;

/// A running link.
#[derive(Debug)]
pub(super) struct Netem {
    namespace: Namespace,
    up: Side,
    down: Side,
}

/// One direction.
#[derive(Debug)]
struct Side {
    /// The device that sends it.
    device: String,
    spec: LinkSpec,
    stats: DirectionStats,
    /// Drops that are in `stats` already.
    drops: u64,
}

impl Netem {
    pub(super) fn start(
        namespace: &Namespace,
        near: &str,
        far: &str,
        shape: &Shape,
    ) -> Result<Self> {
        let bridge = format!("br-{near}");
        namespace.ip(&format!(
            "link add {bridge} type bridge forward_delay 0 mcast_snooping 0\n\
             link set {bridge} addrgenmode none up\n\
             link set {near} master {bridge}\nlink set {far} master {bridge}\n"
        ))?;
        let side = |device: &str, spec: &LinkSpec| Side {
            device: device.to_owned(),
            spec: spec.clone(),
            stats: DirectionStats::default(),
            drops: 0,
        };
        let netem = Self {
            namespace: namespace.clone(),
            up: side(far, &shape.up),
            down: side(near, &shape.down),
        };
        for side in [&netem.up, &netem.down] {
            netem.namespace.tc(&side.lines("add"))?;
        }
        Ok(netem)
    }

    fn side(&mut self, direction: Direction) -> &mut Side {
        match direction {
            Direction::Up => &mut self.up,
            Direction::Down => &mut self.down,
        }
    }
}

impl Shaper for Netem {
    fn spec(&self, direction: Direction) -> &LinkSpec {
        match direction {
            Direction::Up => &self.up.spec,
            Direction::Down => &self.down.spec,
        }
    }

    fn set(&mut self, direction: Direction, spec: LinkSpec) -> Result<()> {
        // What was dropped until now was dropped under the old setting.
        self.stats()?;
        let namespace = self.namespace.clone();
        let side = self.side(direction);
        side.spec = spec;
        namespace.tc(&side.lines("change"))
    }

    fn stats(&mut self) -> Result<LinkStats> {
        for side in [&mut self.up, &mut self.down] {
            let text =
                self.namespace.run("tc", ["-s", "-j", "qdisc", "show", "dev", &side.device])?;
            side.count(&text)?;
        }
        Ok(LinkStats { up: self.up.stats, down: self.down.stats })
    }

    fn process_id(&self) -> Option<u32> {
        None
    }
}

impl Side {
    /// Lines for tc.
    fn lines(&self, action: &str) -> String {
        let (device, spec) = (&self.device, &self.spec);
        format!(
            "qdisc {action} dev {device} root handle 1: netem {}\n\
             qdisc {action} dev {device} parent 1:1 handle 10: tbf {}\n",
            way(spec),
            queue(spec)
        )
    }

    /// Takes in what tc tells.
    fn count(&mut self, text: &str) -> Result<()> {
        let rows: Vec<Value> = serde_json::from_str(text).context("tc gave no JSON")?;
        let number = |kind: &str, key: &str| {
            let row = rows.iter().find(|row| row["kind"] == kind);
            row.and_then(|row| row[key].as_u64())
                .with_context(|| format!("no {key} of {kind} on {}: {text}", self.device))
        };
        let overflowed = number("tbf", "drops")?;
        // netem counts what the queue behind it drops as its own as well.
        let dropped = number("netem", "drops")?.saturating_sub(overflowed);
        let new = dropped.saturating_sub(self.drops);
        self.drops = dropped;
        if self.spec.blackhole {
            self.stats.blackholed += new;
        } else {
            self.stats.lost += new;
        }
        self.stats.overflowed = overflowed;
        self.stats.delivered = number("tbf", "packets")?;
        self.stats.delivered_bytes = number("tbf", "bytes")?;
        self.stats.waiting = number("netem", "qlen")?;
        self.stats.received = self.stats.delivered + self.stats.waiting + dropped + overflowed;
        Ok(())
    }
}

/// Loss, delay and order in the words of tc-netem(8).
fn way(spec: &LinkSpec) -> String {
    let loss = match spec.loss {
        _ if spec.blackhole => "random 100%".to_owned(),
        Loss::None => "random 0%".to_owned(),
        Loss::Random(probability) => format!("random {}%", percent(probability)),
        Loss::Burst { enter, leave } => {
            format!("gemodel {}% {}% 100% 0%", percent(enter), percent(leave))
        }
    };
    let reorder = if spec.reorder > 0.0 && !spec.delay.is_zero() {
        format!(" reorder {}%", percent(spec.reorder))
    } else {
        String::new()
    };
    format!(
        "limit {ON_THE_WAY} delay {}us {}us loss {loss}{reorder} rate {NO_RATE}bit",
        spec.delay.as_micros(),
        spec.jitter.as_micros(),
    )
}

/// Rate and queue in the words of tc-tbf(8).
fn queue(spec: &LinkSpec) -> String {
    let rate = spec.rate.filter(|&rate| rate > 0).unwrap_or(NO_RATE);
    let limit = spec.queue.unwrap_or_else(|| LinkSpec::default_queue(rate));
    // What passes in a millisecond, so that a timer that is late loses no rate.
    let burst = (rate / 8000).max(BURST);
    format!("rate {rate}bit burst {burst}b limit {limit}b")
}

fn percent(probability: f64) -> f64 {
    (probability * 1e8).round() / 1e6
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_setting_is_said_in_the_words_of_tc() {
        let spec = LinkSpec::new(50_000_000, Duration::from_millis(20));
        let spec = spec.with_loss(Loss::Random(0.01));
        let common = "rate 100000000000bit";
        assert_eq!(way(&spec), format!("limit 100000 delay 20000us 0us loss random 1% {common}"));
        assert_eq!(queue(&spec), "rate 50000000bit burst 6250b limit 625000b");
        let spec = LinkSpec {
            delay: Duration::from_millis(5),
            reorder: 0.25,
            loss: Loss::Burst { enter: 0.002, leave: 0.2 },
            ..LinkSpec::default()
        };
        assert_eq!(
            way(&spec),
            format!(
                "limit 100000 delay 5000us 0us loss gemodel 0.2% 20% 100% 0% reorder 25% {common}"
            )
        );
        let spec = LinkSpec { blackhole: true, ..LinkSpec::default() };
        assert!(way(&spec).contains("loss random 100%"));
    }

    #[test]
    fn drops_are_put_down_to_what_made_them() -> Result<()> {
        let mut side = Side {
            device: "a0".to_owned(),
            spec: LinkSpec::default().with_loss(Loss::Random(0.5)),
            stats: DirectionStats::default(),
            drops: 0,
        };
        let told = |sent: u64, lost: u64, overflowed: u64| {
            format!(
                r#"[{{"kind":"netem","packets":0,"drops":{},"qlen":2}},
                    {{"kind":"tbf","packets":{sent},"bytes":1,"drops":{overflowed}}}]"#,
                lost + overflowed
            )
        };
        side.count(&told(10, 3, 1))?;
        side.spec.blackhole = true;
        side.count(&told(10, 8, 1))?;
        side.spec.blackhole = false;
        side.count(&told(20, 9, 4))?;
        let stats = side.stats;
        assert_eq!((stats.lost, stats.blackholed, stats.overflowed), (4, 5, 4));
        assert_eq!((stats.received, stats.delivered, stats.waiting), (35, 20, 2));
        Ok(())
    }
}
