//! What is different between two ways to watch WANs, and to tell of them, in words. Pure.

use url::Url;

use super::revision::{NEEDS_RESTART, Revision, listed, shown, time, word};
use crate::config::units::{show_duration, show_percent, show_size};
use crate::config::{Degraded, Dns, Exec, Health, Http, Notify, Ping, Receiver, Tcp, ToldBy};

/// Compares what `key` has.
pub(super) fn compare(out: &mut Vec<String>, key: &str, old: &Health, new: &Health) {
    let Health {
        method,
        interval,
        retries,
        timeout,
        targets,
        nameservers,
        quorum,
        per_round,
        observe,
        metered_budget,
        ping,
        http,
        https,
        dns,
        tcp,
        exec,
        degraded,
    } = new;
    let name = |part: &str| format!("{key}.{part}");
    word(out, &name("method"), old.method.name(), method.name());
    time(out, &name("interval"), old.interval, *interval);
    word(out, &name("retries"), old.retries, *retries);
    time(out, &name("timeout"), old.timeout, *timeout);
    listed(out, &name("targets"), &old.targets, targets);
    listed(out, &name("nameservers"), &old.nameservers, nameservers);
    word(out, &name("quorum"), old.quorum, *quorum);
    let all = |number: Option<u32>| number.map_or_else(|| "all".to_owned(), |n| n.to_string());
    word(out, &name("per_round"), all(old.per_round), all(*per_round));
    word(out, &name("observe"), old.observe, *observe);
    let budget = show_size;
    word(out, &name("metered_budget"), budget(old.metered_budget), budget(*metered_budget));
    let Ping { count, size, dont_fragment } = ping;
    word(out, &name("ping.count"), old.ping.count, *count);
    word(out, &name("ping.size"), old.ping.size, *size);
    word(out, &name("ping.dont_fragment"), old.ping.dont_fragment, *dont_fragment);
    secretive(out, &name("http"), old.http.as_ref(), http.as_ref(), show_http);
    secretive(out, &name("https"), old.https.as_ref(), https.as_ref(), show_http);
    let dns_words = |dns: &Option<Dns>| shown(dns.as_ref().map(show_dns));
    word(out, &name("dns"), dns_words(&old.dns), dns_words(dns));
    secretive(out, &name("tcp"), old.tcp.as_ref(), tcp.as_ref(), show_tcp);
    let exec_words = |exec: &Option<Exec>| shown(exec.as_ref().map(|exec| exec.command.join(" ")));
    word(out, &name("exec"), exec_words(&old.exec), exec_words(exec));
    let Degraded { latency, jitter, loss } = degraded;
    time(out, &name("degraded.latency"), old.degraded.latency, *latency);
    time(out, &name("degraded.jitter"), old.degraded.jitter, *jitter);
    let (before, after) = (show_percent(old.degraded.loss), show_percent(*loss));
    word(out, &name("degraded.loss"), before, after);
}

/// Compares what may hold secrets, of which `show` says nothing.
fn secretive<T: PartialEq>(
    out: &mut Vec<String>,
    key: &str,
    old: Option<&T>,
    new: Option<&T>,
    show: fn(&T) -> String,
) {
    let (before, after) = (shown(old.map(show)), shown(new.map(show)));
    if before == after && old != new {
        out.push(format!("{key}: {after}, and another part that is not shown"));
    } else {
        word(out, key, before, after);
    }
}

/// Scheme and host; the rest may be a token.
fn show_url(text: &str) -> String {
    let Ok(url) = Url::parse(text) else { return "a URL".to_owned() };
    let rest = url.path().len() > 1 || url.query().is_some();
    format!("{}{}", url.origin().ascii_serialization(), if rest { "/…" } else { "" })
}

fn show_http(http: &Http) -> String {
    let Http {
        urls,
        verb,
        headers,
        status,
        body,
        follow_redirects,
        verify_tls,
        server_name,
        ca_file,
    } = http;
    let mut words = vec![(*verb).to_owned()];
    words.extend(urls.iter().map(|url| show_url(url)));
    words.extend(headers.iter().map(|(name, _)| format!("header {name}")));
    words.extend(status.iter().map(|(low, high)| format!("status {low}-{high}")));
    words.extend(body.as_ref().map(|body| format!("body {body:?}")));
    words.extend((!follow_redirects).then(|| "no redirects".to_owned()));
    words.extend((!verify_tls).then(|| "any certificate".to_owned()));
    words.extend(server_name.as_ref().map(|name| format!("as {name}")));
    words.extend(ca_file.as_ref().map(|file| format!("authorities {}", file.display())));
    words.join(", ")
}

fn show_dns(dns: &Dns) -> String {
    let Dns { name, record, servers, expect } = dns;
    let servers: Vec<String> = servers.iter().map(ToString::to_string).collect();
    let mut words = format!("{name} {} of {}", record.name(), servers.join(" "));
    if !expect.is_empty() {
        words += &format!(", expecting {}", expect.join(" "));
    }
    words
}

fn show_tcp(tcp: &Tcp) -> String {
    let Tcp { port, send, expect } = tcp;
    let mut words = format!("port {port}");
    words +=
        &send.as_ref().map_or_else(String::new, |text| format!(", saying {} bytes", text.len()));
    words += &expect.as_ref().map_or_else(String::new, |text| format!(", expecting {text:?}"));
    words
}

/// Compares who is told.
pub(super) fn compare_notify(revision: &mut Revision, old: &Notify, new: &Notify) {
    let Notify { directory, queue, receivers } = new;
    let path = |path: &std::path::Path| path.display().to_string();
    let mut fixed = Vec::new();
    word(&mut fixed, "notify.directory", path(&old.directory), path(directory));
    word(&mut fixed, "notify.queue", old.queue, *queue);
    let refused = fixed.iter().map(|line| format!("{line} {NEEDS_RESTART}"));
    revision.refused.extend(refused);
    let out = &mut revision.changes;
    let lines = |list: &[Receiver]| list.iter().map(show_receiver).collect::<Vec<_>>();
    listed(out, "receiver", &lines(&old.receivers), &lines(receivers));
    for (before, after) in pairs(&old.receivers, receivers) {
        if before != after && show_receiver(before) == show_receiver(after) {
            out.push(format!("receiver {}: another URL of the same host", after.name));
        }
    }
}

/// Those of one name.
fn pairs<'a>(
    old: &'a [Receiver],
    new: &'a [Receiver],
) -> impl Iterator<Item = (&'a Receiver, &'a Receiver)> {
    new.iter()
        .filter_map(|after| Some((old.iter().find(|before| before.name == after.name)?, after)))
}

fn show_receiver(receiver: &Receiver) -> String {
    let Receiver { name, events, wans, timeout, by } = receiver;
    let mut words = vec![name.clone()];
    match by {
        ToldBy::Webhook { url, secret_file, keep } => {
            words.push(show_url(url));
            words.push(format!("signed by {}", secret_file.display()));
            words.push(format!("kept {}", show_duration(*keep)));
        }
        ToldBy::Command { command, at_once } => {
            words.push(command.join(" "));
            words.push(format!("{at_once} at once"));
        }
    }
    words.extend(events.iter().map(|kind| kind.name().to_owned()));
    words.extend(wans.iter().cloned());
    words.push(format!("within {}", show_duration(*timeout)));
    words.join(", ")
}
