//! The two ends and what is between them.

use std::collections::BTreeSet;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::bond::{Os, PrivateKey, PublicKey};
use crate::config::{self, Config};
use crate::dataplane::testing::{in_network, run};
use crate::dataplane::{BondMaps, DataPlane, Options, Programs};
use crate::events::Bus;
use crate::tunnel::{self, Known, Network, Settings, Start, Uplink};

/// For how long a test waits for what must come about.
const PATIENCE: Duration = Duration::from_secs(60);

/// An end: a thread in a namespace of its own.
pub(super) struct End {
    pub(super) maps: BondMaps,
    pub(super) bus: Bus,
    pub(super) network: Network,
    orders: mpsc::Sender<Order>,
    answers: mpsc::Receiver<String>,
}

enum Order {
    /// Runs a command there.
    Run(String),
    /// Starts an agent with this configuration.
    Start(Box<Config>, PrivateKey, Bus, Network),
    /// Ends it, as a crash does.
    Stop,
    /// Tells it of the network.
    Tell(Network),
}

/// Both ends.
pub(super) struct World {
    pub(super) gateway: End,
    pub(super) server: End,
    pub(super) keys: [PrivateKey; 2],
}

/// Runs a test with both ends in place, and no agent.
pub(super) fn in_world(name: &str, test: impl FnOnce(&mut World) + Send) {
    in_network(name, || {
        let keys = [(); 2].map(|()| PrivateKey::generate(&mut Os).expect("a key"));
        let (gateway, tid) = End::new(name, "gateway");
        let (server, other) = End::new(name, "server");
        let mut world = World { gateway, server, keys };
        for (number, net) in [(0, "198.51.100"), (1, "192.0.2")] {
            // From here into both: the thread that makes them sees neither afterwards.
            run(&format!(
                "ip link add wan{number} netns {tid} type veth peer name up{number} netns {other}"
            ));
            world.gateway.run(&format!("ip addr add {net}.2/24 dev wan{number}"));
            world.server.run(&format!("ip addr add {net}.1/24 dev up{number}"));
            world.gateway.run(&format!("ip link set wan{number} up"));
            world.server.run(&format!("ip link set up{number} up"));
        }
        world.server.run("ip addr add 203.0.113.250/32 dev lo");
        world.gateway.run("ip route add default via 198.51.100.1 dev wan0");
        world.gateway.run("ip route add default via 192.0.2.1 dev wan1 metric 200");
        for (end, device, priority) in
            [(&mut world.gateway, "wan", [0, 1]), (&mut world.server, "up", [0, 0])]
        {
            end.run("ip link add mwb0 type veth peer name mwb0-dp");
            end.run("ip link set mwb0 up");
            end.run("ip link set mwb0-dp up");
            // Each namespace numbers its devices from the same number on.
            let index = |name: &str| end.index(name);
            let uplinks = [1_u8, 2].map(|path| {
                let priority = priority[usize::from(path) - 1];
                Uplink { priority, ..end.uplink(path, &format!("{device}{}", path - 1)) }
            });
            end.network = Network {
                uplinks: uplinks.to_vec(),
                outer_device: Some(index("mwb0")),
                inner_device: Some(index("mwb0-dp")),
                ..Network::default()
            };
        }
        test(&mut world);
    });
}

impl World {
    /// What the gateway's file says.
    pub(super) fn gateway_config(&self, server_key: PublicKey) -> Config {
        parse(&format!(
            "version: 1\nrole: gateway\nmode: bond\nlan: [lan0]\n\
             wans: [{{name: wan0, device: wan0}}, {{name: wan1, device: wan1, priority: 1}}]\n\
             bond:\n  private_key_file: /dev/null\n  server: \"203.0.113.250:7000\"\n  \
             server_public_key: \"{server_key}\"\n  addresses: [10.9.0.1/32]\n"
        ))
    }

    /// What the server's file says, of clients `site1` and so on.
    pub(super) fn server_config(&self, client_keys: &[PublicKey]) -> Config {
        let clients = client_keys.iter().zip(1..).map(|(key, number)| {
            format!(
                "    - {{name: site{number}, public_key: \"{key}\", \
                 prefixes: [10.{number}.0.0/24]}}\n"
            )
        });
        let clients: String = clients.collect();
        parse(&format!(
            "version: 1\nrole: server\n\
             wans: [{{name: up0, device: up0}}, {{name: up1, device: up1}}]\n\
             server:\n  private_key_file: /dev/null\n  addresses: [10.100.0.1/16]\n  clients:\n{clients}"
        ))
    }

    /// Another gateway, with one WAN to the server, and its key.
    pub(super) fn another(&mut self, test: &str) -> (End, PrivateKey) {
        let (mut other, tid) = End::new(test, "other");
        self.server.run(&format!("ip link add up2 type veth peer name wan0 netns {tid}"));
        self.server.run("ip addr add 100.64.0.1/24 dev up2");
        self.server.run("ip link set up2 up");
        for line in [
            "ip addr add 100.64.0.2/24 dev wan0",
            "ip link set wan0 up",
            "ip route add default via 100.64.0.1 dev wan0",
            "ip link add mwb0 type veth peer name mwb0-dp",
            "ip link set mwb0 up",
            "ip link set mwb0-dp up",
        ] {
            other.run(line);
        }
        other.network = Network {
            uplinks: vec![other.uplink(1, "wan0")],
            outer_device: Some(other.index("mwb0")),
            inner_device: Some(other.index("mwb0-dp")),
            ..Network::default()
        };
        let uplink = self.server.uplink(3, "up2");
        self.server.network.uplinks.push(uplink);
        (other, PrivateKey::generate(&mut Os).expect("a key"))
    }

    /// Starts both agents as they should be.
    pub(super) fn start(&mut self) {
        self.start_server();
        self.start_gateway();
    }

    pub(super) fn start_gateway(&mut self) {
        let config = self.gateway_config(self.keys[1].public());
        self.gateway.start(config, self.keys[0].clone());
    }

    pub(super) fn start_server(&mut self) {
        let config = self.server_config(&[self.keys[0].public()]);
        self.server.start(config, self.keys[1].clone());
    }
}

fn parse(text: &str) -> Config {
    config::parse(text, "test").unwrap_or_else(|error| panic!("{}", error.render()))
}

impl End {
    fn new(test: &str, name: &str) -> (Self, i32) {
        let options = Options {
            flow_entries: 64,
            mapping_entries: 64,
            programs: Programs::None,
            ..Options::new(name)
        };
        let (orders, inbox) = mpsc::channel::<Order>();
        let (outbox, answers) = mpsc::channel();
        let (first, begun) = mpsc::channel();
        let test = test.to_owned();
        thread::spawn(move || {
            in_network(&test, move || {
                let plane = DataPlane::open_unpinned(&options).expect("a data plane");
                run("ip link set lo up");
                let tid = nix::unistd::gettid().as_raw();
                first.send((tid, plane.bond())).expect("a test that waits");
                serve(&plane, &inbox, &outbox);
            });
        });
        let (tid, maps) = begun.recv_timeout(PATIENCE).expect("an end");
        let (bus, network) = (Bus::default(), Network::default());
        (Self { maps, bus, network, orders, answers }, tid)
    }

    fn order(&self, order: Order) -> String {
        self.orders.send(order).expect("an end");
        self.answers.recv_timeout(PATIENCE).expect("an end that has done it")
    }

    pub(super) fn run(&self, line: &str) -> String {
        self.order(Order::Run(line.to_owned()))
    }

    /// A WAN of this end, as it should be.
    fn uplink(&self, path: u8, device: &str) -> Uplink {
        Uplink {
            path,
            ifindex: Some(self.index(device)),
            device: device.to_owned(),
            name: device.to_owned(),
            carrier: true,
            v4: true,
            mtu: 1_500,
            weight: 1,
            ..Uplink::default()
        }
    }

    fn index(&self, device: &str) -> u32 {
        let shown = self.run(&format!("ip -o link show dev {device}"));
        shown.split(':').next().and_then(|number| number.parse().ok()).expect("a number")
    }

    pub(super) fn start(&mut self, config: Config, private: PrivateKey) {
        self.bus = Bus::default();
        let (bus, network) = (self.bus.clone(), self.network.clone());
        self.order(Order::Start(Box::new(config), private, bus, network));
    }

    pub(super) fn stop(&self) {
        self.order(Order::Stop);
    }

    /// Tells the agent that the network is as `network` says now.
    pub(super) fn tell(&self) {
        self.order(Order::Tell(self.network.clone()));
    }

    /// Whether an event says this.
    pub(super) fn has_said(&self, text: &str) -> bool {
        self.said().iter().any(|said| said.contains(text))
    }

    pub(super) fn said(&self) -> Vec<String> {
        let events = self.bus.since(0);
        events.into_iter().map(|event| format!("{}: {}", event.message, event.reason)).collect()
    }
}

/// Does what the test says, one thing after the other.
fn serve(plane: &DataPlane, inbox: &mpsc::Receiver<Order>, outbox: &mpsc::Sender<String>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let mut agent: Option<(watch::Sender<Known>, tokio::task::JoinHandle<()>)> = None;
    loop {
        // The agent runs while there is nothing to do.
        let order = runtime.block_on(async {
            loop {
                match inbox.try_recv() {
                    Ok(order) => return Some(order),
                    Err(mpsc::TryRecvError::Disconnected) => return None,
                    Err(mpsc::TryRecvError::Empty) => {
                        tokio::time::sleep(Duration::from_millis(2)).await;
                    }
                }
            }
        });
        let mut said = String::new();
        match order {
            None => return,
            Some(Order::Run(line)) => said = run(&line),
            Some(Order::Stop) => {
                if let Some((_, task)) = agent.take() {
                    task.abort();
                    let _ = runtime.block_on(task);
                }
            }
            Some(Order::Start(config, private, bus, first)) => {
                let settings = Settings::of(&config).expect("a bond");
                let classes = settings.classes.clone();
                let (sender, known) = watch::channel(Known { network: first, classes });
                let (view, _) = watch::channel(Arc::default());
                let lost = watch::channel(BTreeSet::new()).1;
                let maps = plane.bond();
                let start = Start { maps, bus, settings, private, known, lost, view };
                agent = Some((sender, runtime.spawn(tunnel::run(start))));
            }
            Some(Order::Tell(network)) => {
                if let Some((sender, _)) = &agent {
                    sender.send_modify(|known| known.network = network);
                }
            }
        }
        if outbox.send(said).is_err() {
            return;
        }
    }
}

/// Waits until something is so.
pub(super) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "never: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}
