//! A link by the kernel's netem: a bridge between the two devices, and netem on
//! what each sends.
//!
//! Where it differs from the relay: it has no seed, it counts in packets what
//! the relay counts in bytes (its queue), and it has one number for all drops,
//! which is put down to whatever was set at that time.

use std::sync::OnceLock;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{
    link::{Direction, DirectionStats, LinkSpec, LinkStats, Loss},
    namespace::Namespace,
    shaper::Shaper,
    topology::Shape,
};

/// Bytes of a full frame.
const FULL_FRAME: u64 = 1514;
/// Packets a link without a rate may hold on their way.
const UNLIMITED: u64 = 100_000;
/// "As fast as it goes": with some rate netem keeps the order under jitter,
/// without one it does not.
const NO_RATE: u64 = 100_000_000_000;

/// Whether this kernel has netem. Tried once.
pub(super) fn is_available(namespace: &Namespace) -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| {
        namespace.tc("qdisc add dev lo root netem\nqdisc del dev lo root\n").is_ok()
    })
}

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
            netem.namespace.tc(&side.line("add"))?;
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
        namespace.tc(&side.line("change"))
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
    /// A line for tc.
    fn line(&self, action: &str) -> String {
        format!(
            "qdisc {action} dev {} root handle 1: netem {}\n",
            self.device,
            arguments(&self.spec)
        )
    }

    /// Takes in what tc tells.
    fn count(&mut self, text: &str) -> Result<()> {
        let rows: Vec<Value> = serde_json::from_str(text).context("tc gave no JSON")?;
        let row = rows
            .iter()
            .find(|row| row["kind"] == "netem")
            .with_context(|| format!("no netem on {}: {text}", self.device))?;
        let number = |key: &str| row[key].as_u64().with_context(|| format!("no {key}: {text}"));
        let dropped = number("drops")?;
        let new = dropped.saturating_sub(self.drops);
        self.drops = dropped;
        let place = if self.spec.blackhole {
            &mut self.stats.blackholed
        } else if self.spec.loss == Loss::None {
            &mut self.stats.overflowed
        } else {
            &mut self.stats.lost
        };
        *place += new;
        self.stats.delivered = number("packets")?;
        self.stats.delivered_bytes = number("bytes")?;
        self.stats.waiting = number("qlen")?;
        self.stats.received = self.stats.delivered + self.stats.waiting + dropped;
        Ok(())
    }
}

/// A setting in the words of tc-netem(8).
fn arguments(spec: &LinkSpec) -> String {
    let rate = spec.rate.filter(|&rate| rate > 0);
    let limit = rate.map_or(UNLIMITED, |rate| {
        let queue = spec.queue.unwrap_or_else(|| LinkSpec::default_queue(rate));
        // What is on its way waits in netem's queue as well.
        let way = u128::from(rate) * (spec.delay + spec.jitter).as_nanos() / 8_000_000_000;
        (queue + u64::try_from(way).unwrap_or(u64::MAX)).div_ceil(FULL_FRAME)
    });
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
        "limit {limit} delay {}us {}us loss {loss}{reorder} rate {}bit",
        spec.delay.as_micros(),
        spec.jitter.as_micros(),
        rate.unwrap_or(NO_RATE)
    )
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
        // 100 ms of queue and 20 ms of way: 750,000 bytes.
        assert_eq!(arguments(&spec), "limit 496 delay 20000us 0us loss random 1% rate 50000000bit");
        let spec = LinkSpec {
            delay: Duration::from_millis(5),
            reorder: 0.25,
            loss: Loss::Burst { enter: 0.002, leave: 0.2 },
            ..LinkSpec::default()
        };
        assert_eq!(
            arguments(&spec),
            "limit 100000 delay 5000us 0us loss gemodel 0.2% 20% 100% 0% reorder 25% \
             rate 100000000000bit"
        );
        let spec = LinkSpec { blackhole: true, ..LinkSpec::default() };
        assert!(arguments(&spec).contains("loss random 100%"));
    }

    #[test]
    fn drops_are_put_down_to_what_was_set_when_they_happened() -> Result<()> {
        let mut side = Side {
            device: "a0".to_owned(),
            spec: LinkSpec::default(),
            stats: DirectionStats::default(),
            drops: 0,
        };
        let told = |packets: u64, drops: u64| {
            format!(
                r#"[{{"kind":"netem","packets":{packets},"bytes":1,"drops":{drops},"qlen":2}}]"#
            )
        };
        side.count(&told(10, 3))?;
        side.spec.blackhole = true;
        side.count(&told(10, 8))?;
        side.spec = LinkSpec::default().with_loss(Loss::Random(0.5));
        side.count(&told(20, 9))?;
        let stats = side.stats;
        assert_eq!((stats.overflowed, stats.blackholed, stats.lost), (3, 5, 1));
        assert_eq!((stats.received, stats.delivered, stats.waiting), (31, 20, 2));
        Ok(())
    }
}
