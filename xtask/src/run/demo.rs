//! The run in the lab: three unlike WANs, a gateway, for a bond a server, traffic, a story.

use std::{
    net::TcpListener,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{
    Args, catch_interrupts,
    felt::{Felt, Sample},
    is_interrupted,
    load::{Downloading, Load},
    scenario::Scenario,
    screen::{Scene, Screen},
    summary::{Acts, Summary},
};
use crate::{
    build,
    lab::{
        BondConfig, BondTables, Gateway, GatewayConfig, Lab, LabSpec, LinkSpec, Loss, Server,
        Shape, api::Event, wait_until,
    },
};

/// Where the API is meant to be.
const LISTEN: &str = "127.0.0.1:9800";
/// Time between two looks at the gateway.
const LOOK: Duration = Duration::from_millis(500);
/// How long a bond may take to come up.
const START: Duration = Duration::from_secs(20);
/// How finely the run watches for its end.
const STEP: Duration = Duration::from_millis(50);

/// Name, down and up in Mbit/s, one-way delay in ms, loss.
const WANS: [(&str, u64, u64, u64, f64); 3] =
    [("fiber", 100, 40, 4, 0.0), ("cable", 60, 20, 12, 0.0), ("lte", 30, 15, 30, 0.002)];

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    build::artifacts()?;
    let mut screen = Screen::new(args.json);
    let length = args.length(screen.is_watched());
    let (listener, address) = listen(&mut screen)?;
    let spec = LabSpec::shaped(WANS.map(|(_, down, up, delay, loss)| {
        let link = |rate: u64, seed| {
            let loss = if loss > 0.0 { Loss::Random(loss) } else { Loss::None };
            let link = LinkSpec::new(rate * 1_000_000, Duration::from_millis(delay));
            LinkSpec { seed, jitter: Duration::from_millis(delay / 6), ..link.with_loss(loss) }
        };
        Shape { up: link(up, 1), down: link(down, 2), ..Shape::default() }
    }));
    let bonded = args.scenario == Scenario::Bond;
    let lab = Lab::new(&if bonded { spec.with_server() } else { spec })?;
    // Until here Ctrl-C simply ends it all; the lab cleans up by itself.
    catch_interrupts()?;
    let (mut gateway, server) = if bonded {
        let (gateway, server) = bond(&lab, listener)?;
        (gateway, Some(server))
    } else {
        let config = steering(GatewayConfig::new(&lab).with("balance", "adaptive"));
        // What `auto` would not take for veth; the hosts of this lab make whole packets.
        let config = config.with("hook", "xdp");
        let mut gateway = Gateway::launch_listening(&lab, &config, Some(listener))?;
        gateway.wait_until_up()?;
        (gateway, None)
    };
    let metrics = format!("http://{address}/metrics");
    screen
        .say(&format!("The gateway is up. Metrics: {metrics}  State: http://{address}/v1/status"));
    let summary = play(args, length, &lab, &mut gateway, &mut screen, &metrics)?;
    if let Some(mut server) = server {
        server.stop()?;
    }
    screen.say(&format!("\n{}", summary.text()));
    if args.json {
        println!("{}", summary.json());
    }
    let good = summary.error.is_none();
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Names, capacities and weights of the WANs, and where the API is.
fn steering(config: GatewayConfig) -> GatewayConfig {
    let config = config.with("api.listen", LISTEN);
    WANS.iter().enumerate().fold(config, |config, (index, (name, down, up, ..))| {
        let capacity =
            serde_json::json!({"up": format!("{up}mbit"), "down": format!("{down}mbit")});
        config
            .with(&format!("wans.{index}.name"), *name)
            .with(&format!("wans.{index}.capacity"), capacity)
            .with(&format!("wans.{index}.weight"), *down)
    })
}

/// Both ends of a bond, once every path lives.
fn bond(lab: &Lab, listener: TcpListener) -> Result<(Gateway, Server)> {
    let config = BondConfig::new(lab)?;
    let mut server = Server::launch(lab, &config.server)?;
    let config = steering(config.gateway);
    let mut gateway = Gateway::launch_listening(lab, &config, Some(listener))?;
    wait_until("every path of the bond lives at both ends", START, || {
        for (agent, what) in [(gateway.process(), "gateway"), (server.process(), "server")] {
            ensure!(agent.is_running()?, "the {what}'s agent has ended");
        }
        let living = [BondTables::open(&gateway)?.living()?, BondTables::open(&server)?.living()?];
        Ok(living == [WANS.len(); 2])
    })
    .with_context(|| format!("gateway:\n{}\nserver:\n{}", gateway.log(), server.log()))?;
    Ok((gateway, server))
}

/// The socket for the API, on this machine's loopback.
fn listen(screen: &mut Screen) -> Result<(TcpListener, std::net::SocketAddr)> {
    let listener = match TcpListener::bind(LISTEN) {
        Ok(listener) => listener,
        Err(error) => {
            let other = TcpListener::bind("127.0.0.1:0").context("no port for the API")?;
            screen.say(&format!("{LISTEN}: {error}; taking {} instead", other.local_addr()?));
            other
        }
    };
    let address = listener.local_addr()?;
    Ok((listener, address))
}

fn play(
    args: &Args,
    length: Option<Duration>,
    lab: &Lab,
    gateway: &mut Gateway,
    screen: &mut Screen,
    metrics: &str,
) -> Result<Summary> {
    let scenario = args.scenario;
    let bonded = scenario == Scenario::Bond;
    let downloading = if bonded { Downloading::ONE } else { Downloading::MANY };
    let load = Load::start(lab, downloading, bonded)?;
    let start = Instant::now();
    let mut story =
        Story { acts: None, plan: scenario.acts(length), event: None, samples: Vec::new() };
    let ended = loop {
        let at = start.elapsed();
        if is_interrupted() {
            break Ok("interrupted");
        }
        if length.is_some_and(|length| at >= length) {
            break Ok("the time is up");
        }
        if let Err(error) = story.go_on(args, at, lab, gateway, screen, &load, metrics) {
            break Err(error);
        }
        let next = Instant::now() + LOOK;
        while Instant::now() < next && !is_interrupted() {
            std::thread::sleep(STEP);
        }
    };
    let took = start.elapsed();
    let status = gateway.api().status().ok();
    let figures = load.stop()?;
    let stopped = gateway.stop();
    let (exit_reason, error) = match ended.and_then(|reason| stopped.map(|()| reason)) {
        Ok(reason) => (reason.to_owned(), None),
        Err(error) => (format!("failed: {error:#}"), Some(error)),
    };
    let felt = story.acts.filter(|_| bonded).map(|acts| {
        let best = WANS.iter().map(|(_, down, ..)| *down).max().unwrap_or_default();
        Felt::of(&story.samples, &figures, acts, best * 1_000_000)
    });
    Ok(Summary {
        felt,
        scenario: scenario.name(),
        took,
        acts: story.acts,
        figures,
        status,
        exit_reason,
        error,
    })
}

/// What has happened so far.
struct Story {
    acts: Option<Acts>,
    plan: Option<(Duration, Duration)>,
    event: Option<Event>,
    samples: Vec<Sample>,
}

impl Story {
    #[expect(clippy::too_many_arguments, reason = "the whole stage, once")]
    fn go_on(
        &mut self,
        args: &Args,
        at: Duration,
        lab: &Lab,
        gateway: &mut Gateway,
        screen: &mut Screen,
        load: &Load,
        metrics: &str,
    ) -> Result<()> {
        let scenario = args.scenario;
        if let Some((cut, heal)) = self.plan {
            let cut_now = self.acts.is_none() && at >= cut;
            let heal_now = self.acts.is_some_and(|acts| acts.healed.is_none()) && at >= heal;
            if cut_now || heal_now {
                let now = Instant::now();
                scenario.apply(lab.wan(0), cut_now)?;
                screen.say(&format!("{:>5.1} s  {}", at.as_secs_f64(), scenario.tell(cut_now)));
                self.acts = match self.acts {
                    None => Some(Acts { cut: now, healed: None }),
                    Some(acts) => Some(Acts { healed: Some(now), ..acts }),
                };
            }
        }
        if !gateway.process().is_running()? {
            bail!("the agent has ended:\n{}", gateway.log());
        }
        let status = gateway.api().status()?;
        let since = self.event.as_ref().map_or(0, |event| event.id);
        if let Some(event) = gateway.api().events(since)?.pop() {
            self.event = Some(event);
        }
        let figures = load.figures();
        self.samples.push(Sample { at: Instant::now(), bytes: figures.download_bytes });
        screen.show(&Scene {
            at,
            scenario: scenario.name(),
            metrics,
            status: &status,
            figures: &figures,
            event: self.event.as_ref(),
        });
        Ok(())
    }
}
