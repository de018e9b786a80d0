//! How a WAN is asked, from what the file says about it.

use std::net::SocketAddr;

use crate::config::{Config, DnsRecord, Health, HealthMethod, Http, Wan};
use crate::health::methods::{self, HttpOptions, Method, Servers, Target, TlsOptions};
use crate::health::pace::{Pace, Settings};
use crate::health::plan::{Echo, Kind, Plan, Question, Way};

/// The plan for each WAN of a configuration, in its order.
///
/// # Errors
/// What cannot be asked so, and why: a file with certificates that is not there.
pub(super) fn plans(config: &Config) -> Result<Vec<Plan>, String> {
    config.wans.iter().map(of_wan).collect()
}

/// The same for a start, which nothing of that may stop: such WANs are asked by `ping`. And
/// what is said of them.
pub(super) fn plans_anyhow(config: &Config) -> (Vec<Plan>, Vec<String>) {
    let mut errors = Vec::new();
    let plans = config.wans.iter().map(|wan| {
        of_wan(wan).unwrap_or_else(|error| {
            errors.push(error);
            let Health { quorum, per_round, timeout, .. } = wan.health;
            Plan { ways: vec![ping(&wan.health)], quorum, per_round, timeout }
        })
    });
    (plans.collect(), errors)
}

fn of_wan(wan: &Wan) -> Result<Plan, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("the checks of WAN {}: {error}", wan.name);
    let plan = plan(&wan.health).map_err(|error| wrong(&error))?;
    if wan.metered {
        Pace::new(Settings::default())
            .budget(wan.health.metered_budget, plan.bytes())
            .map_err(|error| wrong(&error))?;
    }
    Ok(plan)
}

fn ping(health: &Health) -> Way {
    let ping = health.ping;
    let echo = Echo { count: ping.count, size: ping.size, dont_fragment: ping.dont_fragment };
    Way::Ping { echo, targets: health.targets.clone() }
}

fn plan(health: &Health) -> Result<Plan, methods::Invalid> {
    let mut ways = Vec::new();
    let wanted = |method| [HealthMethod::Auto, method].contains(&health.method);
    for kind in [Kind::Http, Kind::Https, Kind::Dns, Kind::Tcp, Kind::Exec] {
        let questions = match kind {
            Kind::Http if wanted(HealthMethod::Http) => http(health, health.http.as_ref())?,
            Kind::Https if wanted(HealthMethod::Https) => http(health, health.https.as_ref())?,
            Kind::Dns if wanted(HealthMethod::Dns) => dns(health)?,
            Kind::Tcp if wanted(HealthMethod::Tcp) => tcp(health),
            Kind::Exec if wanted(HealthMethod::Exec) => exec(health)?,
            _ => Vec::new(),
        };
        if !questions.is_empty() {
            ways.push(Way::Other { kind, questions });
        }
    }
    // The gateways vouch for the first hop only: what asks further is not to be weighed
    // against them.
    let auto = health.method == HealthMethod::Auto;
    if health.method == HealthMethod::Ping || auto && !health.targets.is_empty() || ways.is_empty()
    {
        ways.insert(0, ping(health));
    }
    let (quorum, per_round, timeout) = (health.quorum, health.per_round, health.timeout);
    Ok(Plan { ways, quorum, per_round, timeout })
}

fn servers(addresses: &[SocketAddr]) -> Servers {
    if addresses.is_empty() { Servers::default() } else { Servers::Given(addresses.to_vec()) }
}

fn http(health: &Health, http: Option<&Http>) -> Result<Vec<Question>, methods::Invalid> {
    let Some(http) = http else { return Ok(Vec::new()) };
    let status: Vec<String> =
        http.status.iter().map(|(low, high)| format!("{low}-{high}")).collect();
    let question = |url: &String| {
        let options = HttpOptions {
            url: url.clone(),
            method: http.verb.to_owned(),
            headers: http.headers.clone(),
            status: status.join(","),
            body: http.body.clone(),
            redirects: http.follow_redirects,
            tls: TlsOptions {
                verify: http.verify_tls,
                server_name: http.server_name.clone(),
                ca_file: http.ca_file.clone(),
            },
            servers: servers(&health.nameservers),
        };
        let name = format!("{options:?}");
        let method = Method::Http(Box::new(methods::Http::new(&options)?));
        Ok(Question { method, target: None, name })
    };
    http.urls.iter().map(question).collect()
}

fn dns(health: &Health) -> Result<Vec<Question>, methods::Invalid> {
    let Some(dns) = &health.dns else { return Ok(Vec::new()) };
    let kind = match dns.record {
        DnsRecord::A => methods::Kind::A,
        DnsRecord::Aaaa => methods::Kind::Aaaa,
        DnsRecord::Cname => methods::Kind::Cname,
        DnsRecord::Mx => methods::Kind::Mx,
        DnsRecord::Txt => methods::Kind::Txt,
        DnsRecord::Ns => methods::Kind::Ns,
    };
    let question = |server: &SocketAddr| {
        let servers = Servers::Given(vec![*server]);
        let asked = methods::Dns::new(&dns.name, kind, &dns.expect, servers)?;
        let name = format!("{server} {kind} {} {:?}", dns.name, dns.expect);
        Ok(Question { method: Method::Dns(asked), target: None, name })
    };
    dns.servers.iter().map(question).collect()
}

fn tcp(health: &Health) -> Vec<Question> {
    let Some(tcp) = &health.tcp else { return Vec::new() };
    let bytes = |text: &Option<String>| text.clone().unwrap_or_default().into_bytes();
    let asked = methods::Tcp {
        port: tcp.port,
        send: bytes(&tcp.send),
        expect: bytes(&tcp.expect),
        servers: servers(&health.nameservers),
    };
    let question = |target: &std::net::IpAddr| Question {
        method: Method::Tcp(asked.clone()),
        target: Some(Target::Address(*target)),
        name: format!("{target} {asked:?}"),
    };
    health.targets.iter().map(question).collect()
}

fn exec(health: &Health) -> Result<Vec<Question>, methods::Invalid> {
    let Some(exec) = &health.exec else { return Ok(Vec::new()) };
    let method = Method::Exec(methods::Exec::new(&exec.command)?);
    Ok(vec![Question { method, target: None, name: format!("{:?}", exec.command) }])
}
