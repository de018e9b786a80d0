//! A link with a rate, a delay, loss and cuts, as a process of its own between
//! two devices. It takes Ethernet frames off one and puts them on the other,
//! when and if [`pipe`] says so.
//!
//! A process, so that it can be killed as a test, and so that it goes on while
//! the tests think.

mod pipe;
mod process;

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::{fd::OwnedFd, unix::net::UnixStream, unix::process::CommandExt as _},
    path::PathBuf,
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use super::{
    link::{Direction, LinkSpec, LinkStats},
    namespace::Namespace,
    process::Process,
    shaper::Shaper,
    topology::Shape,
};

pub(super) use process::main;

/// First argument of the relay's command line; two devices follow, and the
/// control socket is its standard input.
pub(super) const COMMAND: &str = "lab-relay";

/// How long the relay may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A line on the control socket. The answer to each is the [`LinkStats`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Request {
    Set { direction: Direction, spec: LinkSpec },
    Stats,
}

/// A running relay.
#[derive(Debug)]
pub(super) struct Relay {
    process: Process,
    control: BufReader<UnixStream>,
    shape: Shape,
}

impl Relay {
    /// Joins `near` (towards the gateway) and `far` of `namespace`.
    pub(super) fn start(
        namespace: &Namespace,
        near: &str,
        far: &str,
        shape: &Shape,
    ) -> Result<Self> {
        let (ours, theirs) = UnixStream::pair().context("cannot make a control socket")?;
        ours.set_read_timeout(Some(PATIENCE))?;
        let mut command = namespace.command(PathBuf::from("/proc/self/exe"));
        command.arg0("xtask").args([COMMAND, near, far]);
        let input = Stdio::from(OwnedFd::from(theirs));
        let process = Process::spawn_with_input(&mut command, namespace.scratch(), input)?;
        let mut relay = Self { process, control: BufReader::new(ours), shape: shape.clone() };
        relay.set(Direction::Up, shape.up.clone())?;
        relay.set(Direction::Down, shape.down.clone())?;
        Ok(relay)
    }

    fn ask(&mut self, request: &Request) -> Result<LinkStats> {
        let answer = self.exchange(request);
        answer.with_context(|| format!("the link's relay does not answer:\n{}", self.process.log()))
    }

    fn exchange(&mut self, request: &Request) -> Result<LinkStats> {
        let mut line = serde_json::to_string(request).context("a request is plain data")?;
        line.push('\n');
        self.control.get_mut().write_all(line.as_bytes()).context("cannot write")?;
        line.clear();
        if self.control.read_line(&mut line).context("cannot read")? == 0 {
            bail!("it has ended");
        }
        serde_json::from_str(&line).context("it answers something else")
    }
}

impl Shaper for Relay {
    fn spec(&self, direction: Direction) -> &LinkSpec {
        match direction {
            Direction::Up => &self.shape.up,
            Direction::Down => &self.shape.down,
        }
    }

    fn set(&mut self, direction: Direction, spec: LinkSpec) -> Result<()> {
        self.ask(&Request::Set { direction, spec: spec.clone() })?;
        match direction {
            Direction::Up => self.shape.up = spec,
            Direction::Down => self.shape.down = spec,
        }
        Ok(())
    }

    fn stats(&mut self) -> Result<LinkStats> {
        self.ask(&Request::Stats)
    }

    fn process_id(&self) -> Option<u32> {
        Some(self.process.id())
    }
}
