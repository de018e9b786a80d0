//! Reading of how WANs are watched.

use std::net::{IpAddr, SocketAddr};

use super::domain::host_name;
use super::notify::read_command;
use super::read::{check_count, one_or_more, push_new, read_path};
use super::reader::{Cursor, Fault, Fields};
use super::{Degraded, Dns, DnsRecord, Exec, Health, HealthMethod, Http, Ping, Tcp, schema, units};

/// What a request may do.
const VERBS: [&str; 3] = ["GET", "HEAD", "POST"];

/// Reads a section `health`, of the file or of a WAN. What it does not say is as in
/// `base`. `ipv6`: whether a WAN carries it.
pub(super) fn read_health(health: &Fields<'_>, base: &Health, ipv6: bool) -> Result<Health, Fault> {
    let methods = HealthMethod::ALL.map(|method| (method.name(), method));
    let method = health.or("method", base.method, |at| at.word(&methods, &[]))?;
    let degraded = health.section("degraded", &schema::DEGRADED)?;
    let latency = |at: &Cursor<'_>| at.duration(&schema::LATENCY);
    let nameservers = health.or("nameservers", base.nameservers.clone(), |at| {
        one_or_more(at, "192.0.2.53", schema::TARGETS, read_server)
    })?;
    let targets = health.or("targets", base.targets.clone(), |at| read_targets(at, ipv6))?;
    let read = Health {
        method,
        interval: health.or("interval", base.interval, |at| at.duration(&schema::INTERVAL))?,
        retries: health.or("retries", base.retries, |at| at.integer(&schema::RETRIES))?,
        timeout: health.or("timeout", base.timeout, |at| at.duration(&schema::CHECK_TIMEOUT))?,
        quorum: health.or("quorum", base.quorum, |at| at.integer(&schema::QUORUM))?,
        per_round: health.or("per_round", base.per_round, read_per_round)?,
        observe: health.or("observe", base.observe, Cursor::boolean)?,
        metered_budget: health
            .or("metered_budget", base.metered_budget, |at| at.size(&schema::METERED_BUDGET))?,
        ping: health.or("ping", base.ping, |at| read_ping(at, &base.ping))?,
        http: read_some(health, "http", base.http.as_ref(), |at| read_http(at, false))?,
        https: read_some(health, "https", base.https.as_ref(), |at| read_http(at, true))?,
        dns: read_some(health, "dns", base.dns.as_ref(), read_dns)?,
        tcp: read_some(health, "tcp", base.tcp.as_ref(), read_tcp)?,
        exec: read_some(health, "exec", base.exec.as_ref(), read_exec)?,
        degraded: Degraded {
            latency: degraded.or("latency", base.degraded.latency, latency)?,
            jitter: degraded.or("jitter", base.degraded.jitter, latency)?,
            loss: degraded.or("loss", base.degraded.loss, |at| at.percent(&schema::LOSS))?,
        },
        targets,
        nameservers,
    };
    check_effect(health, &read)?;
    check_quorum(health, &read)?;
    Ok(read)
}

/// A section that is there, or that of the base.
fn read_some<T: Clone>(
    health: &Fields<'_>,
    key: &str,
    base: Option<&T>,
    read: impl FnOnce(&Cursor<'_>) -> Result<T, Fault>,
) -> Result<Option<T>, Fault> {
    health.get(key).map_or_else(|| Ok(base.cloned()), |at| read(at).map(Some))
}

/// What the method needs is there, and what is there has an effect.
fn check_effect(health: &Fields<'_>, read: &Health) -> Result<(), Fault> {
    use HealthMethod as Method;
    let sections = [
        (Method::Http, read.http.is_some()),
        (Method::Https, read.https.is_some()),
        (Method::Dns, read.dns.is_some()),
        (Method::Tcp, read.tcp.is_some()),
        (Method::Exec, read.exec.is_some()),
    ];
    for (method, there) in sections {
        let key = method.name();
        if read.method == method && !there {
            let at = health.get("method");
            let message = format!("`method: {key}` needs the section `{key}`");
            let fix = format!("add `health.{key}`");
            return Err(at.map_or_else(
                || health.fault(message.clone(), fix.clone()),
                |at| at.fault(message.clone(), fix.clone()),
            ));
        }
        if let Some(at) = health.get(key)
            && ![method, Method::Auto].contains(&read.method)
        {
            return Err(at.key_fault(
                format!("it has no effect: `method` is `{}`", read.method.name()),
                format!("write `method: {key}` or `method: auto`, or remove this"),
            ));
        }
    }
    if let Some(at) = health.get("ping")
        && ![Method::Ping, Method::Auto].contains(&read.method)
    {
        return Err(at.key_fault(
            format!("it has no effect: `method` is `{}`", read.method.name()),
            "write `method: ping` or `method: auto`, or remove this",
        ));
    }
    if read.method == Method::Auto && !sections.iter().any(|(_, there)| *there) {
        let at = health.get("method");
        let (message, fix) = (
            "`method: auto` has nothing to choose from but `ping`",
            "add one of the sections `http`, `https`, `dns`, `tcp` and `exec`, or write \
             `method: ping`",
        );
        return Err(at.map_or_else(|| health.fault(message, fix), |at| at.fault(message, fix)));
    }
    // The WAN's gateway is no proof of what is behind it by TCP.
    if read.tcp.is_some()
        && [Method::Tcp, Method::Auto].contains(&read.method)
        && read.targets.is_empty()
    {
        return Err(health.fault(
            "TCP connections need somebody to connect to",
            "name hosts in `health.targets`",
        ));
    }
    Ok(())
}

/// No more must answer than are asked.
fn check_quorum(health: &Fields<'_>, read: &Health) -> Result<(), Fault> {
    let asked = |method| {
        let all = match method {
            HealthMethod::Http => read.http.as_ref().map_or(1, |http| http.urls.len()),
            HealthMethod::Https => read.https.as_ref().map_or(1, |http| http.urls.len()),
            HealthMethod::Dns => read.dns.as_ref().map_or(1, |dns| dns.servers.len()),
            HealthMethod::Ping | HealthMethod::Tcp => read.targets.len().max(1),
            // The least that any of them has: a plugin is one.
            HealthMethod::Exec | HealthMethod::Auto => 1,
        };
        let all = u32::try_from(all).unwrap_or(u32::MAX);
        read.per_round.map_or(all, |some| some.min(all))
    };
    let most = asked(read.method);
    if read.quorum <= most {
        return Ok(());
    }
    let message = format!(
        "{} must answer, and {most} {} asked",
        read.quorum,
        if most == 1 { "is" } else { "are" }
    );
    let fix = format!("choose a quorum of at most {most}, or ask more");
    let at = health.get("quorum").or_else(|| health.get("per_round"));
    Err(at.map_or_else(
        || health.fault(message.clone(), fix.clone()),
        |at| at.fault(message.clone(), fix.clone()),
    ))
}

fn read_per_round(at: &Cursor<'_>) -> Result<Option<u32>, Fault> {
    if at.is_integer() {
        return at.integer(&schema::QUORUM).map(Some);
    }
    at.parsed("`all` or a number of targets", "all or 2", |text| (text == "all").then_some(None))
}

fn read_targets(at: &Cursor<'_>, ipv6: bool) -> Result<Vec<IpAddr>, Fault> {
    let items = at.items("[192.0.2.1, \"2001:db8::1\"]")?;
    check_count(at, items.len(), schema::TARGETS, "targets")?;
    let mut targets = Vec::with_capacity(items.len());
    for item in &items {
        let target = item
            .parsed("an address to ask", "192.0.2.1", |text| text.parse().ok().filter(is_host))?;
        if target.is_ipv6() && !ipv6 {
            return Err(item.fault(
                format!("`{target}` has no effect: no WAN has an `ipv6_prefix`"),
                "give a WAN the prefix its provider routes to it, or remove this",
            ));
        }
        push_new(item, &mut targets, target)?;
    }
    Ok(targets)
}

/// Whether one host can have the address, and be reached by a WAN.
fn is_host(address: &IpAddr) -> bool {
    !address.is_unspecified() && !address.is_loopback() && !address.is_multicast()
}

fn read_ping(at: &Cursor<'_>, base: &Ping) -> Result<Ping, Fault> {
    let ping = at.fields(&schema::PING)?;
    let count = ping.or("count", u32::from(base.count), |at| at.integer(&schema::PING_COUNT))?;
    let size = ping.or("size", u32::from(base.size), |at| at.integer(&schema::PING_SIZE))?;
    Ok(Ping {
        // Both ranges fit their types.
        count: u8::try_from(count).unwrap_or(u8::MAX),
        size: u16::try_from(size).unwrap_or(u16::MAX),
        dont_fragment: ping.or("dont_fragment", base.dont_fragment, Cursor::boolean)?,
    })
}

fn read_http(at: &Cursor<'_>, tls: bool) -> Result<Http, Fault> {
    let http = at.fields(if tls { &schema::HTTPS } else { &schema::HTTP })?;
    let scheme = if tls { "https://" } else { "http://" };
    let example = format!("{scheme}192.0.2.1/");
    let verbs = VERBS.map(|verb| (verb, verb));
    let read = Http {
        urls: one_or_more(http.required("url")?, &example, schema::TARGETS, |at| {
            read_url(at, scheme, &example)
        })?,
        verb: http.or("method", "GET", |at| at.word(&verbs, &[]))?,
        headers: http.or("headers", Vec::new(), read_headers)?,
        status: http.or("status", vec![(200, 200)], |at| {
            one_or_more(at, "[200, 300-399]", schema::TARGETS, read_status)
        })?,
        body: http.get("body").map(|at| read_words(at, "ok")).transpose()?,
        follow_redirects: http.or("follow_redirects", true, Cursor::boolean)?,
        verify_tls: !tls || http.or("verify_tls", true, Cursor::boolean)?,
        server_name: match tls.then(|| http.get("server_name")).flatten() {
            Some(at) => Some(read_host_name(at)?),
            None => None,
        },
        ca_file: match tls.then(|| http.get("ca_file")).flatten() {
            Some(at) => Some(read_path(at, "/etc/mwb/ca.pem")?),
            None => None,
        },
    };
    if let Some(at) = http.get("body")
        && read.verb == "HEAD"
    {
        return Err(at.key_fault(
            "it has no effect: the answer to HEAD has no body",
            "write `method: GET`, or remove this",
        ));
    }
    if !read.verify_tls
        && let Some(at) = http.get("ca_file")
    {
        return Err(
            at.key_fault("it has no effect: `verify_tls` is false", "remove one of the two")
        );
    }
    Ok(read)
}

fn read_url(at: &Cursor<'_>, scheme: &str, example: &str) -> Result<String, Fault> {
    at.parsed(&format!("a URL that begins with {scheme}"), example, |text| {
        let rest = text.strip_prefix(scheme)?;
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let plain =
            text.len() <= schema::URL_LENGTH && text.bytes().all(|byte| byte.is_ascii_graphic());
        (plain && !host.is_empty() && !host.contains('@')).then(|| text.to_owned())
    })
}

fn read_headers(at: &Cursor<'_>) -> Result<Vec<(String, String)>, Fault> {
    let items = at.items("[\"Accept: text/plain\"]")?;
    check_count(at, items.len(), schema::HEADERS, "header fields")?;
    let token = |name: &str| {
        // RFC 9110, 5.6.2.
        let is_tchar = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        !name.is_empty() && name.bytes().all(is_tchar)
    };
    let read = |item: &Cursor<'_>| {
        item.parsed("a header field", "\"Accept: text/plain\"", |text| {
            let (name, value) = text.split_once(':')?;
            let value = value.trim();
            let plain = value.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
            (token(name) && plain && text.len() <= schema::URL_LENGTH)
                .then(|| (name.to_owned(), value.to_owned()))
        })
    };
    items.iter().map(read).collect()
}

fn read_status(at: &Cursor<'_>) -> Result<(u16, u16), Fault> {
    if at.is_integer() {
        let status = at.integer(&schema::STATUS)?;
        let status = u16::try_from(status).unwrap_or(u16::MAX);
        return Ok((status, status));
    }
    at.parsed("a status or a range of them", "200 or 200-299", |text| {
        let range = units::parse_ports(text)?;
        let known = |status: u16| schema::STATUS.contains(&u32::from(status));
        (known(range.0) && known(range.1)).then_some(range)
    })
}

fn read_words(at: &Cursor<'_>, example: &str) -> Result<String, Fault> {
    let text = at.text(example)?;
    if text.is_empty() || text.len() > schema::WORDS_LENGTH {
        return Err(at.fault(
            format!("this is {} bytes long", text.len()),
            format!("write 1 to {} bytes", schema::WORDS_LENGTH),
        ));
    }
    Ok(text.to_owned())
}

/// A name of the DNS (RFC 1123, 2.1; with the underscore that service names have).
fn read_host_name(at: &Cursor<'_>) -> Result<String, Fault> {
    at.parsed("a name", "www.example.net", |text| host_name(text).map(str::to_owned))
}

fn read_server(at: &Cursor<'_>) -> Result<SocketAddr, Fault> {
    at.parsed("an address, with or without a port", "192.0.2.53", |text| {
        let whole: Option<SocketAddr> = text.parse().ok();
        let address = whole.or_else(|| text.parse().ok().map(|ip| SocketAddr::new(ip, 53)));
        address.filter(|address| is_host(&address.ip()) && address.port() != 0)
    })
}

fn read_dns(at: &Cursor<'_>) -> Result<Dns, Fault> {
    let dns = at.fields(&schema::DNS)?;
    let records = DnsRecord::ALL.map(|record| (record.name(), record));
    let record = dns.or("type", DnsRecord::A, |at| at.word(&records, &[]))?;
    let expected = |at: &Cursor<'_>| {
        let text = read_words(at, "192.0.2.80")?;
        let is_right = match record {
            DnsRecord::A => {
                text.parse::<ipnet::Ipv4Net>().is_ok() || text.parse::<std::net::Ipv4Addr>().is_ok()
            }
            DnsRecord::Aaaa => {
                text.parse::<ipnet::Ipv6Net>().is_ok() || text.parse::<std::net::Ipv6Addr>().is_ok()
            }
            _ => true,
        };
        if is_right {
            return Ok(text);
        }
        Err(at.fault(
            format!("`{text}` is in no record of type {}", record.name()),
            "write an address or a prefix of that family",
        ))
    };
    Ok(Dns {
        name: read_host_name(dns.required("name")?)?,
        record,
        servers: one_or_more(dns.required("server")?, "192.0.2.53", schema::TARGETS, read_server)?,
        expect: match dns.get("expect") {
            Some(at) => one_or_more(at, "192.0.2.80", schema::TARGETS, expected)?,
            None => Vec::new(),
        },
    })
}

fn read_tcp(at: &Cursor<'_>) -> Result<Tcp, Fault> {
    let tcp = at.fields(&schema::TCP)?;
    let port = tcp.or("port", 443, |at| at.integer(&schema::CHECK_PORT))?;
    Ok(Tcp {
        port: u16::try_from(port).unwrap_or(u16::MAX),
        send: tcp.get("send").map(|at| read_words(at, "\"QUIT\\r\\n\"")).transpose()?,
        expect: tcp.get("expect").map(|at| read_words(at, "SSH-2.0")).transpose()?,
    })
}

fn read_exec(at: &Cursor<'_>) -> Result<Exec, Fault> {
    let exec = at.fields(&schema::EXEC)?;
    Ok(Exec { command: read_command(exec.required("command")?)? })
}
