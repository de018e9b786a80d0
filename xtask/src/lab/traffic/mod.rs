//! Real traffic with known content: what was sent is what must arrive.
//!
//! Servers are threads whose sockets live in a namespace; clients run in the
//! namespace they speak from. Knows nothing of gateways.

mod bulk;
mod duplex;
mod fleet;
mod http;
mod iperf;
mod ping;
mod prober;
mod record;
mod server;
mod tcp;
mod udp;
mod who;

pub use self::{
    bulk::{Bulk, Transport, download, upload},
    duplex::{Course, Duplex, DuplexReport},
    fleet::{Fleet, FleetServers, FlowRecord},
    http::{Download, FileServer, content_hash, curl, fetch},
    iperf::{Iperf, IperfReport, IperfRun, IperfServer},
    ping::{PingReport, PingRun, ping},
    prober::{Attempt, EVERY, Prober, outage},
    record::UdpDirection,
    tcp::{EchoServer, EchoStream, Transfer, connect_tcp, tcp_connects, transfer},
    udp::{UdpReport, UdpRun, UdpServer, UdpStream},
    who::WhoServer,
};
