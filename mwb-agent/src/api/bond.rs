//! The shapes of what is said about bonds: `/v1/bond`, and the same in `/v1/status`.
//! Fields are added, never renamed or removed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::snapshot::Traffic;

/// `/v1/bond`: this end of its bonds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BondStatus {
    /// `gateway` or `server`.
    pub role: String,
    /// UDP port of this end.
    pub port: u16,
    /// Time between two probes of a path that is not idle.
    pub probe_interval_ms: f64,
    /// How long such a path may leave probes without an answer and count as alive.
    pub dead_after_ms: f64,
    /// Sessions in use: of a gateway one at most, of a server one for each client that
    /// has one.
    pub sessions: Vec<BondSession>,
    /// For how long a gateway has asked without an answer, in seconds; nothing if it
    /// does not ask.
    pub unanswered_seconds: Option<f64>,
    /// What handshakes have come to, since the agent began.
    pub handshakes: Handshakes,
    /// Messages of the far end's agent that were not taken, by reason.
    pub messages_refused: BTreeMap<String, u64>,
    /// The rules of classes, in their order, and what they were asked for; behind them what
    /// none has matched. Empty without rules.
    #[serde(default)]
    pub classes: Vec<BondClass>,
}

/// A rule of classes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BondClass {
    /// The rule as in the file; nothing for packets that none has matched.
    pub rule: Option<String>,
    /// `duplicate`, `stripe`, `pin`, `auto` or `block`.
    pub class: String,
    /// Whether it counts at this hour.
    #[serde(default = "always")]
    pub active: bool,
    /// Packets that it has matched, each once however often it was sent, and their bytes from
    /// the inner IP header on. Counted by the data plane for as long as the rules stay.
    pub matched: Traffic,
}

/// An agent that does not say so has no rules with a time.
fn always() -> bool {
    true
}

/// What handshakes have come to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Handshakes {
    /// Initiations: of a gateway those that it has sent, of a server those that came.
    pub initiations: u64,
    /// Sessions and new keys that they have led to.
    pub established: u64,
    /// Cookies: of a server those that it has sent because it was under load.
    pub cookies: u64,
    /// Answers that a gateway has ignored.
    pub ignored: u64,
    /// Initiations that a server has not answered, by reason.
    pub refused: BTreeMap<String, u64>,
}

/// A session with its paths.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BondSession {
    /// Name of the client, at a server.
    pub client: Option<String>,
    /// Public key of the far end.
    pub peer: String,
    /// How packets are checked: `chacha20poly1305`, `siphash` or `crc32`.
    pub suite: String,
    /// Number of the newest keys.
    pub epoch: u32,
    /// Age of the newest keys in seconds.
    pub keys_age_seconds: Option<f64>,
    /// They are older than 180 s, and kept because packets of the far end come, whose agent
    /// has not agreed on new ones.
    #[serde(default)]
    pub keys_overdue: bool,
    /// For how long this agent has known the session, in seconds.
    pub age_seconds: f64,
    /// Largest inner packet that every path takes, in bytes. A path that takes fewer than
    /// 1280 counts only while no other lives.
    pub mtu: u32,
    /// How packets are shared among the paths.
    pub balance: String,
    /// What became of packets that came ahead of their turn.
    #[serde(default)]
    pub order: BondOrder,
    /// What became of packets that are sent again if they get lost.
    #[serde(default)]
    pub repair: BondRepair,
    /// What became of packets that are computed if they get lost.
    #[serde(default)]
    pub parity: BondParity,
    /// Paths by number.
    pub paths: Vec<BondPathStatus>,
}

/// Packets of the class whose lost ones are sent again, since the agent began. Each that was
/// sent is acknowledged, given up or held.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BondRepair {
    /// Packets sent, each counted once.
    pub sent: u64,
    /// Of those, acknowledged by the far end.
    pub acknowledged: u64,
    /// Losses, by what has shown them: `gap` (later ones came), `time` (no word of it), or
    /// `path_down`.
    pub lost: BTreeMap<String, u64>,
    /// Packets sent again, each time.
    pub again: u64,
    /// Bytes of those.
    pub again_bytes: u64,
    /// Losses that had to wait, because more had been sent again than the budget allows.
    pub refused: u64,
    /// Packets of which nothing was heard in time. They may have arrived.
    pub given_up: u64,
    /// Packets held now.
    pub held: u64,
    /// Memory that takes, in bytes.
    pub held_bytes: u64,
}

/// Blocks with parity, since the agent began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BondParity {
    /// Packets that were sent and put in a block.
    pub data: u64,
    /// Bytes of those.
    pub data_bytes: u64,
    /// Blocks that got parity.
    pub blocks: u64,
    /// Packets of parity made for them.
    pub parity: u64,
    /// Bytes of those, which is what repair has cost.
    pub parity_bytes: u64,
    /// Packets of parity that came from the far end.
    pub received: u64,
    /// Of those, not needed: nothing of the block was missing any more.
    pub useless: u64,
    /// Of those, too late: their block had been repaired or given up.
    pub late: u64,
    /// Packets, of parity or of data, that were not taken: parity that is none, or there was
    /// no memory.
    pub refused: u64,
    /// Packets that had not come, and were computed.
    pub recovered: u64,
    /// Of those, not lost: they came later.
    #[serde(default)]
    pub early: u64,
    /// Blocks of which more was lost than parity came.
    pub unrecoverable: u64,
    /// Memory in bytes of open blocks, and of what has come of late.
    pub held_bytes: u64,
}

/// Packets that came ahead of their turn, or behind one that did, since the agent began.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BondOrder {
    /// Packets taken.
    pub taken: u64,
    /// Packets held now.
    pub held: u64,
    /// Bytes held now.
    pub held_bytes: u64,
    /// The most bytes that were held at once.
    pub most_bytes: u64,
    /// Packets given on, by reason: `turn` (what was missing came), `late` (behind its turn),
    /// `lost` (what was missing is lost), `deadline` (it did not come in time), `overflow`
    /// (too much was held).
    pub given: BTreeMap<String, u64>,
    /// Packets that came twice: dropped.
    pub repeated: u64,
    /// Packets that did not come before those behind them were given on.
    pub missing: u64,
    /// How many were held for at most so long, in ms; those above are in `taken` alone.
    pub within_ms: Vec<(f64, u64)>,
    /// The sum of these times, in ms.
    pub held_ms: f64,
    /// Packets given on, by how losses of them are repaired and by the path that brought them.
    #[serde(default)]
    pub parts: Vec<BondOrderPart>,
}

/// Packets of one repair that came by one path.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BondOrderPart {
    /// As in the configuration of the far end: `none`, `retransmit`, `fec` or
    /// `fec, retransmit`.
    pub repair: String,
    /// Number of the path.
    pub path: u8,
    /// Packets given on, by reason, as those of all.
    pub given: BTreeMap<String, u64>,
    /// How long all of them have waited, in ms.
    pub held_ms: f64,
}

/// What a path is at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BondPathState {
    /// Its probes are answered.
    Alive,
    /// They are, and it carries packets only if no other path can.
    Parked,
    /// They are not.
    #[default]
    Dead,
    /// Its carrier is gone, here or at the far end.
    Down,
}

impl BondPathState {
    /// All of them.
    pub const ALL: [BondPathState; 4] =
        [BondPathState::Alive, BondPathState::Parked, BondPathState::Dead, BondPathState::Down];

    /// The word in JSON and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            BondPathState::Alive => "alive",
            BondPathState::Parked => "parked",
            BondPathState::Dead => "dead",
            BondPathState::Down => "down",
        }
    }
}

/// A path of a session.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BondPathStatus {
    /// Its number, which both ends have.
    pub path: u8,
    /// Name of our WAN that it goes by.
    pub wan: String,
    /// Address and port of the far end.
    pub remote: String,
    /// What it is at the moment.
    pub state: BondPathState,
    /// Why, if it is not simply alive.
    pub reason: String,
    /// Smoothed round-trip time of its probes.
    pub rtt_ms: Option<f64>,
    /// Its smoothed variation.
    pub jitter_ms: Option<f64>,
    /// Part of the packets sent that are lost for other reasons than a full queue, 0 to 1.
    pub loss: f64,
    /// Packets sent and lost, since the agent began.
    pub lost: u64,
    /// Largest packet that passes, in bytes from the outer IP header on.
    pub mtu: u32,
    /// Largest inner packet that it takes, in bytes; of fewer than 1280 not all of IPv6 fit
    /// it. 0: not known.
    #[serde(default)]
    pub inner_mtu: u32,
    /// What it can carry to the far end in bit/s, as estimated.
    pub capacity_bps: Option<u64>,
    /// What arrives at the far end, in bit/s.
    pub rate_out_bps: f64,
    /// What arrives here, in bit/s.
    pub rate_in_bps: f64,
    /// How long the newest probe waited in a queue.
    pub queue_ms: f64,
    /// Whether elephants are striped over it.
    pub striped: bool,
    /// Sent, bytes from the outer IP header on.
    pub tx: Traffic,
    /// Received, the same.
    pub rx: Traffic,
    /// Packets that were sent by it although it was not alive, because no path was.
    pub forced: u64,
    /// Second copies of packets that are sent twice, bytes from the outer IP header on; part
    /// of what was sent.
    #[serde(default)]
    pub copies: Traffic,
    /// Packets sent again by it that were lost on another path, or on this one if no other
    /// lived, the same.
    #[serde(default)]
    pub again: Traffic,
    /// Parity sent by it, the same.
    #[serde(default)]
    pub parity: Traffic,
    /// Packets that were lost on it and computed here, since the agent began.
    #[serde(default)]
    pub recovered: u64,
    /// Packets, sent or taken, that the agent should have had a copy of for their repair, or
    /// that of others, and was not given one.
    #[serde(default)]
    pub untold: u64,
    /// How often the far end has come from another address.
    pub moves: u32,
    /// Whether each byte of it costs, as the gateway says: then it is probed seldom while
    /// it is idle.
    #[serde(default)]
    pub metered: bool,
    /// Time between two probes of it at present.
    #[serde(default)]
    pub probe_interval_ms: f64,
    /// What probes of both ends and their answers come to in 30 days, in bytes both ways
    /// together, if it is probed all the time as at present, and by the far end as often.
    pub probe_bytes_per_month: u64,
}
