//! The API over real sockets, with a source that gives fixed snapshots.

mod changes;
mod listen;
mod metrics;
mod openapi;
mod policy;
mod questions;
mod routes;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::bond::{
    BondClass, BondOrder, BondOrderPart, BondParity, BondPathState, BondPathStatus, BondRepair,
    BondSession, BondStatus, Handshakes,
};
use super::change::{self, Request};
use super::doctor::Report;
use super::explain::{Explanation, Outcome};
use super::flows::{FlowList, FlowQuery};
use super::policy::{AddressStatus, PolicyStatus};
use super::snapshot::{
    CheckScore, Checks, CounterRow, FailoverStatus, LanStatus, NatStatus, Status, Traffic,
    WanState, WanStatus,
};
use super::{Changes, History, HistoryQuery, Listeners, Source, Unavailable, serve};
use crate::events::Bus;
use crate::explain::{Entry, Packet};
use crate::notify;

/// A source that always says the same, or that it cannot.
struct Fixed {
    answer: Result<(Status, Vec<CounterRow>), Unavailable>,
    bus: Bus,
    changes: Changes,
    asked: Arc<Mutex<Vec<Asked>>>,
}

/// What a source was asked.
#[derive(Clone, Debug, PartialEq)]
enum Asked {
    Flows(FlowQuery),
    Why(Packet, Entry),
    Doctor(Duration),
    History(HistoryQuery),
}

impl Fixed {
    fn note<T>(&self, asked: Asked, answer: T) -> Result<T, Unavailable> {
        self.asked.lock().expect("nobody panics with it").push(asked);
        self.answer.clone().map(|_| answer)
    }
}

impl Source for Fixed {
    async fn status(&self) -> Result<Status, Unavailable> {
        self.answer.clone().map(|(status, _)| status)
    }

    async fn counters(&self) -> Result<Vec<CounterRow>, Unavailable> {
        self.answer.clone().map(|(_, counters)| counters)
    }

    async fn policy(&self) -> Result<PolicyStatus, Unavailable> {
        self.answer.clone().map(|_| policy::policy_sample())
    }

    async fn addresses(&self, rule: &str) -> Result<Vec<AddressStatus>, Unavailable> {
        let name = Some(format!("www.{rule}.example"));
        let address = "203.0.113.5".to_owned();
        self.answer.clone().map(|_| vec![AddressStatus { address, name, seconds_left: 60 }])
    }

    async fn flows(&self, query: FlowQuery) -> Result<FlowList, Unavailable> {
        self.note(Asked::Flows(query), FlowList { open: 3, ..FlowList::default() })
    }

    async fn why(&self, packet: Packet, entry: Entry) -> Result<Explanation, Unavailable> {
        let outcome = Outcome {
            said: "it leaves by fiber".to_owned(),
            verdict: "forward".to_owned(),
            reason: "forwarded".to_owned(),
            wan: Some("fiber".to_owned()),
            certain: true,
            possible: Vec::new(),
        };
        let explanation = Explanation {
            packet: packet.to_string(),
            flow: None,
            outcome,
            steps: Vec::new(),
            would_change: Vec::new(),
        };
        self.note(Asked::Why(packet, entry), explanation)
    }

    async fn doctor(&self, watch: Duration) -> Result<Report, Unavailable> {
        let seconds = watch.as_secs_f64();
        let (findings, programs) = (Vec::new(), Vec::new());
        let report = Report { seconds, bottleneck: None, findings, programs };
        self.note(Asked::Doctor(watch), report)
    }

    async fn history(&self, query: HistoryQuery) -> Result<History, Unavailable> {
        let wan = query.wan.clone();
        self.note(Asked::History(query), History { wan, ..History::default() })
    }

    async fn notified(&self) -> Result<notify::Status, Unavailable> {
        self.answer.clone().map(|_| notify::Status { lagged: 7, ..notify::Status::default() })
    }

    async fn test_receiver(&self, name: &str) -> Result<notify::Tested, String> {
        match name {
            "ops" => Ok(notify::Tested { delivery: "d".into(), result: "200".into(), took_ms: 3 }),
            _ => Err(format!("there is no receiver `{name}`")),
        }
    }

    fn events(&self) -> &Bus {
        &self.bus
    }

    fn changes(&self) -> &Changes {
        &self.changes
    }
}

impl Fixed {
    /// A source, and the end at which changes arrive.
    fn new(
        answer: Result<(Status, Vec<CounterRow>), Unavailable>,
        bus: Bus,
    ) -> (Arc<Self>, mpsc::Receiver<Request>) {
        let (changes, arriving) = change::channel();
        (Arc::new(Self { answer, bus, changes, asked: Arc::default() }), arriving)
    }
}

/// A served source; the socket's folder lives as long.
struct Server {
    socket: PathBuf,
    bus: Bus,
    /// Where changes arrive.
    arriving: mpsc::Receiver<Request>,
    asked: Arc<Mutex<Vec<Asked>>>,
    task: JoinHandle<std::io::Result<()>>,
    _folder: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn start(answer: Result<(Status, Vec<CounterRow>), Unavailable>) -> Server {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let socket = folder.path().join("mwb.sock");
    let listeners = Listeners::bind(None, &socket, None).expect("a fresh path can be bound");
    let bus = Bus::new(8);
    let (source, arriving) = Fixed::new(answer, bus.clone());
    let asked = Arc::clone(&source.asked);
    let task = tokio::spawn(serve(listeners, source, None));
    Server { socket, bus, arriving, asked, task, _folder: folder }
}

/// Two WANs, one well, one without a device.
fn sample() -> (Status, Vec<CounterRow>) {
    let fiber = WanStatus {
        name: "fiber".to_owned(),
        device: "wan0".to_owned(),
        ifindex: Some(3),
        path: 1,
        state: WanState::Degraded,
        reason: "loss 6 % is above 5 %".to_owned(),
        carrier: true,
        address4: Some([198, 51, 100, 2].into()),
        gateway4: Some([198, 51, 100, 1].into()),
        gateway6: None,
        next_hop4: true,
        next_hop6: false,
        hook: Some("xdp".to_owned()),
        hook_mode: Some("native".to_owned()),
        hook_reason: "driver virtio_net has native XDP".to_owned(),
        priority: 0,
        weight: 100,
        capacity_up: Some(40_000_000),
        capacity_down: None,
        share: 1.0,
        active: true,
        rtt_ms: Some(20.5),
        jitter_ms: Some(1.5),
        loss: Some(0.06),
        rx: Traffic { packets: 1_000, bytes: 1_400_000 },
        tx: Traffic { packets: 500, bytes: 30_000 },
        failovers: 2,
        last_change_unix_ms: Some(1_700_000_000_000),
        failback: "stay".to_owned(),
        drain_until_unix_ms: None,
        hold_down_seconds: 10.0,
        hold_until_unix_ms: Some(1_700_000_010_000),
        relapses: 1,
        checks: Checks {
            method: Some("http".to_owned()),
            interval_ms: 200.0,
            observe: false,
            loaded: false,
            scores: vec![CheckScore {
                method: "http".to_owned(),
                reliability: 0.875,
                tried: 40,
                answered: 39,
                lies: 0,
            }],
        },
    };
    let lte = WanStatus {
        name: "lte".to_owned(),
        device: "wwan0".to_owned(),
        ifindex: None,
        path: 2,
        state: WanState::Unknown,
        reason: "the device is missing".to_owned(),
        carrier: false,
        address4: None,
        gateway4: None,
        next_hop4: false,
        hook: None,
        hook_mode: None,
        hook_reason: "the device is missing".to_owned(),
        share: 0.0,
        active: false,
        rtt_ms: None,
        jitter_ms: None,
        loss: None,
        rx: Traffic::default(),
        tx: Traffic::default(),
        failovers: 0,
        last_change_unix_ms: None,
        drain_until_unix_ms: Some(1_700_000_300_000),
        hold_until_unix_ms: None,
        ..fiber.clone()
    };
    let status = Status {
        redirect_losses: [("wan0".to_owned(), 6)].into(),
        version: "0.1.0".to_owned(),
        instance: "default".to_owned(),
        role: "gateway".to_owned(),
        mode: "steer".to_owned(),
        balance: "adaptive".to_owned(),
        uptime_seconds: 7_440.0,
        lan: vec![LanStatus {
            device: "lan0".to_owned(),
            ifindex: Some(2),
            hook: Some("tcx".to_owned()),
            hook_mode: Some("tcx".to_owned()),
            hook_reason: "a veth carries partial checksums".to_owned(),
        }],
        wans: vec![fiber, lte],
        nat: NatStatus {
            mappings: 7,
            flows4: 9,
            flows6: 4,
            ports_used: [("fiber".to_owned(), 7), ("lte".to_owned(), 0)].into(),
            flow_capacity: 131_072,
        },
        failover: FailoverStatus {
            active: vec!["fiber".to_owned()],
            count: 2,
            last_unix_ms: Some(1_700_000_000_000),
            forced: None,
            forced_until_unix_ms: None,
        },
        bond: Some(bond()),
        notify: notify::Status {
            receivers: vec![notify::ReceiverStatus {
                name: "ops".to_owned(),
                kind: "webhook".to_owned(),
                queued: 3,
                delivered: 12,
                dropped: notify::Dropped { refused: 1, ..notify::Dropped::default() },
                ..notify::ReceiverStatus::default()
            }],
            ..notify::Status::default()
        },
    };
    let row = |direction: &str, wan: &str, reason: &str, verdict: &str, packets| CounterRow {
        direction: direction.to_owned(),
        wan: wan.to_owned(),
        reason: reason.to_owned(),
        verdict: verdict.to_owned(),
        protocol: "tcp4".to_owned(),
        packets,
        bytes: packets * 60,
    };
    let counters = vec![
        row("out", "fiber", "forwarded", "forward", 500),
        row("in", "none", "no_mapping", "kernel", 3),
    ];
    (status, counters)
}

/// A session with two paths, one of which was never answered.
fn bond() -> BondStatus {
    let first = BondPathStatus {
        path: 1,
        wan: "fiber".to_owned(),
        remote: "203.0.113.250:7000".to_owned(),
        state: BondPathState::Alive,
        rtt_ms: Some(12.5),
        jitter_ms: Some(1.0),
        loss: 0.01,
        lost: 5,
        mtu: 1_500,
        capacity_bps: Some(94_000_000),
        queue_ms: 2.0,
        striped: true,
        probe_interval_ms: 50.0,
        tx: Traffic { packets: 900, bytes: 1_000_000 },
        copies: Traffic { packets: 40, bytes: 9_000 },
        moves: 1,
        ..BondPathStatus::default()
    };
    let second = BondPathStatus { path: 2, wan: "lte".to_owned(), ..BondPathStatus::default() };
    let session = BondSession {
        suite: "chacha20poly1305".to_owned(),
        keys_age_seconds: Some(30.0),
        mtu: 1_432,
        order: BondOrder {
            held: 3,
            given: [("turn".to_owned(), 20), ("deadline".to_owned(), 2)].into(),
            missing: 1,
            within_ms: vec![(0.1, 4), (200.0, 21)],
            held_ms: 1_500.0,
            parts: vec![BondOrderPart {
                repair: "retransmit".to_owned(),
                path: 2,
                given: [("deadline".to_owned(), 2)].into(),
                held_ms: 400.0,
            }],
            ..BondOrder::default()
        },
        repair: BondRepair {
            sent: 50,
            lost: [("gap".to_owned(), 6)].into(),
            again: 7,
            ..BondRepair::default()
        },
        parity: BondParity {
            data: 640,
            parity: 120,
            parity_bytes: 150_000,
            recovered: 31,
            unrecoverable: 2,
            ..BondParity::default()
        },
        paths: vec![first, second],
        ..BondSession::default()
    };
    BondStatus {
        role: "gateway".to_owned(),
        sessions: vec![session],
        unanswered_seconds: Some(1.5),
        handshakes: Handshakes {
            initiations: 3,
            established: 2,
            refused: [("replayed".to_owned(), 4)].into(),
            ..Handshakes::default()
        },
        messages_refused: [("bad_check".to_owned(), 7)].into(),
        classes: vec![
            BondClass {
                rule: Some("{class: duplicate, port: 5060}".to_owned()),
                class: "duplicate".to_owned(),
                active: true,
                matched: Traffic { packets: 40, bytes: 8_000 },
            },
            BondClass {
                rule: None,
                class: "auto".to_owned(),
                active: true,
                matched: Traffic { packets: 860, bytes: 990_000 },
            },
        ],
        ..BondStatus::default()
    }
}
