//! What can be asked on the command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use mwb_agent::api::flows::{FlowQuery, Net, Protocol, Sort, TcpState};
use mwb_agent::config::units::parse_duration;

const EXIT_CODES: &str = "\
Exit codes:
  0  it worked
  1  the agent refused, the answer could not be shown, or the doctor found something bad
  2  wrong usage, or a wrong configuration file or key
  3  no agent answers on the socket";

/// Shows what the MultiWANBond agent does, and why; changes what it does.
#[derive(Parser)]
#[command(name = "mwb", version, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// The agent's unix socket (api.socket in its configuration)
    #[arg(long, global = true, value_name = "PATH", default_value = "/run/mwb/mwb.sock")]
    pub(crate) socket: PathBuf,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Everything on one screen
    Status(Format),
    /// The WAN links
    Wans(Format),
    /// Sessions of the bond and their paths
    Bond(Format),
    /// Policy rules, where they lead and how often they matched
    Policy {
        /// The addresses that are known of the names that a rule asks for (domain)
        #[arg(long, value_name = "RULE")]
        addresses: Option<String>,
        #[command(flatten)]
        format: Format,
    },
    /// Packets by what became of them and why
    Counters(Format),
    /// Open flows, the largest first
    Flows {
        #[command(flatten)]
        filter: Filter,
        #[command(flatten)]
        format: Format,
    },
    /// Why a packet goes where it goes, and what would change it
    Why {
        /// `tcp 192.0.2.10:1234 203.0.113.5:443`, or a flow as `mwb flows` shows it
        #[arg(required = true, value_name = "PACKET")]
        packet: Vec<String>,
        #[command(flatten)]
        entry: Entry,
        #[command(flatten)]
        format: Format,
    },
    /// What is right and wrong with the gateway, and what limits it
    Doctor {
        /// Watch counters for so many seconds
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=30))]
        seconds: u64,
        /// Show also what is as it should be
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        format: Format,
    },
    /// What happened
    Events {
        /// Only events after this id
        #[arg(long, value_name = "ID", default_value_t = 0)]
        since: u64,
        /// Go on with new events until interrupted
        #[arg(long)]
        follow: bool,
        #[command(flatten)]
        format: Format,
    },
    /// What a WAN was like: availability, outages, latency, loss
    History {
        /// Name of the WAN
        wan: String,
        /// How far back
        #[arg(long, value_name = "TIME", default_value = "24h", value_parser = seconds)]
        since: Seconds,
        /// Only by this kind of check: ping, http, https, dns, tcp or exec
        #[arg(long, value_name = "METHOD")]
        method: Option<String>,
        /// Draw with ASCII characters only
        #[arg(long)]
        ascii: bool,
        #[command(flatten)]
        format: Format,
    },
    /// How it goes with those who are told of events
    Notify {
        /// Name of a receiver, to be told that this is a test
        #[arg(long, value_name = "NAME")]
        test: Option<String>,
        #[command(flatten)]
        format: Format,
    },
    /// Check a configuration file, without an agent
    Check {
        /// The file
        file: PathBuf,
    },
    /// Print a new private key for the tunnel, without an agent
    Keygen,
    /// Print the public key of the private key on standard input, without an agent
    Pubkey,
    /// Have the agent read its configuration file again and apply the difference
    Reload(Format),
    /// Apply a configuration file; the agent's own file becomes it
    Apply {
        /// The file
        file: PathBuf,
        /// Return to the former configuration unless `mwb confirm` comes in this time
        #[arg(long, value_name = "TIME", value_parser = seconds)]
        confirm: Option<Seconds>,
        #[command(flatten)]
        format: Format,
    },
    /// Keep what was applied with --confirm
    Confirm(Format),
    /// Send new flows to one WAN, or let health decide again
    Failover {
        /// Name of the WAN
        #[arg(required_unless_present = "auto", conflicts_with = "auto")]
        wan: Option<String>,
        /// Only for this time
        #[arg(long = "for", value_name = "TIME", value_parser = seconds, conflicts_with = "auto")]
        lasting: Option<Seconds>,
        /// Let health and configuration decide again
        #[arg(long)]
        auto: bool,
        /// Only say what would be different
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        format: Format,
    },
}

#[derive(Args)]
pub(crate) struct Format {
    /// Print the agent's JSON as it is
    #[arg(long)]
    pub(crate) json: bool,
}

/// How a packet comes in: policy rules may ask for it.
#[derive(Args)]
pub(crate) struct Entry {
    /// LAN port that it comes in through; else the one whose subnet the source is in
    #[arg(long, value_name = "DEVICE")]
    pub(crate) lan: Option<String>,
    /// Its source MAC
    #[arg(long, value_name = "MAC")]
    pub(crate) mac: Option<String>,
    /// Its code point, like ef or 46; else 0
    #[arg(long, value_name = "DSCP")]
    pub(crate) dscp: Option<String>,
    /// Its firewall mark, like 0x10; else none
    #[arg(long, value_name = "MARK")]
    pub(crate) mark: Option<String>,
}

/// Which flows.
#[derive(Args)]
pub(crate) struct Filter {
    /// Only those over this WAN
    #[arg(long, value_name = "NAME")]
    wan: Option<String>,
    /// Only tcp, udp, icmp, icmpv6, sctp, gre or esp
    #[arg(long, value_name = "PROTOCOL")]
    proto: Option<Protocol>,
    /// Only those of this inside address or prefix
    #[arg(long, value_name = "NET")]
    source: Option<Net>,
    /// Only those to this remote address or prefix
    #[arg(long, value_name = "NET")]
    destination: Option<Net>,
    /// Only those with this port at any end
    #[arg(long)]
    port: Option<u16>,
    /// Only TCP that is opening, established, closing or reset
    #[arg(long)]
    state: Option<TcpState>,
    /// By bytes, packets, age, idle or rate
    #[arg(long, value_name = "KEY", default_value = "bytes")]
    sort: Sort,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 100)]
    top: usize,
}

impl Filter {
    /// The query that it stands for.
    pub(crate) fn query(&self) -> FlowQuery {
        FlowQuery {
            wan: self.wan.clone(),
            proto: self.proto,
            source: self.source,
            destination: self.destination,
            port: self.port,
            state: self.state,
            sort: self.sort,
            top: Some(self.top),
        }
    }
}

/// A time in whole seconds, which is what the API takes.
#[derive(Clone, Copy)]
pub(crate) struct Seconds(pub(crate) u64);

fn seconds(text: &str) -> Result<Seconds, String> {
    let time = parse_duration(text).ok_or("write a time like 60s or 10m")?;
    if time.is_zero() || time != Duration::from_secs(time.as_secs()) {
        return Err("give whole seconds, at least one".to_owned());
    }
    Ok(Seconds(time.as_secs()))
}
