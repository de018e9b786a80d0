//! The TCP check: a port must take a connection, and may have to say something.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::budget::Budget;
use super::resolve::{self, Servers};
use super::via::{self, fault};
use super::{Bad, Good, Target, Via, find};

/// What a service says first is shorter.
const MOST_READ: usize = 4 << 10;

/// Connects to a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tcp {
    /// The port.
    pub port: u16,
    /// What is sent when the connection stands.
    pub send: Vec<u8>,
    /// What must be in the first 4 KiB of what comes back.
    pub expect: Vec<u8>,
    /// Who is asked for a target that is a name.
    pub servers: Servers,
}

impl Default for Tcp {
    fn default() -> Self {
        Self { port: 443, send: Vec::new(), expect: Vec::new(), servers: Servers::default() }
    }
}

impl Tcp {
    /// Its time is that of the connection alone: the link's round trip.
    pub(super) async fn ask(
        &self,
        via: &Via,
        target: Option<&Target>,
        budget: &Budget,
    ) -> Result<Good, Bad> {
        let Some(target) = target else {
            return Err(Bad::NotSent("there is no target to connect to".to_owned()));
        };
        let addresses = resolve::addresses(via, target, &self.servers, budget).await?;
        let via::Connected { mut stream, to, time } =
            via::connect(via, &addresses, self.port, budget).await?;
        if !self.send.is_empty() {
            let sent = budget.within(|| format!("sending to {to}"), stream.write_all(&self.send));
            sent.await?.map_err(|error| fault(to, &error))?;
        }
        if self.expect.is_empty() {
            return Ok(Good::new(time, format!("connected to {to}")));
        }
        let start = Instant::now();
        let mut read = Vec::new();
        let listened = budget.within(
            || format!("connected to {to}, nothing came from it"),
            hear(&mut stream, &self.expect, &mut read),
        );
        match listened.await {
            Ok(Ok(true)) => {
                let after = start.elapsed().as_millis();
                Ok(Good::new(time, format!("{to} said what was expected after {after} ms")))
            }
            Ok(Err(error)) if read.is_empty() => Err(fault(to, &error)),
            Err(late) if read.is_empty() => Err(late),
            // Something came, but not that: whoever it is, the link works.
            _ => Err(Bad::Body {
                wanted: String::from_utf8_lossy(&self.expect).into_owned(),
                read: read.len(),
            }),
        }
    }
}

/// Reads until the text was heard, or there is no more to hear.
async fn hear(stream: &mut TcpStream, expect: &[u8], read: &mut Vec<u8>) -> std::io::Result<bool> {
    let mut rest = stream.take(MOST_READ as u64);
    loop {
        // It may have begun in what came before.
        let from = (read.len() + 1).saturating_sub(expect.len());
        let more = rest.read_buf(read).await?;
        if find(read, expect, from).is_some() {
            return Ok(true);
        }
        if more == 0 {
            return Ok(false);
        }
    }
}

#[cfg(test)]
#[path = "tcp_tests.rs"]
mod tests;
