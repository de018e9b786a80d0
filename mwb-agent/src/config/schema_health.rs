//! The part of [`super::schema`] that is about checks, the history and who is told.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::schema::{Section, seconds};

/// Keys of `health`.
const HEALTH_KEYS: &[&str] = &[
    "method",
    "interval",
    "retries",
    "timeout",
    "targets",
    "nameservers",
    "quorum",
    "per_round",
    "observe",
    "metered_budget",
    "ping",
    "http",
    "https",
    "dns",
    "tcp",
    "exec",
    "degraded",
];

/// Health.
pub(super) const HEALTH: Section = Section {
    path: "health",
    keys: HEALTH_KEYS,
    later: &[],
    example: "{interval: 200ms, retries: 3}",
};

/// Health of one WAN. The sections in it are those of [`HEALTH`].
pub(super) const WAN_HEALTH: Section = Section { path: "wans[].health", ..HEALTH };

/// ICMP echo.
pub(super) const PING: Section = Section {
    path: "health.ping",
    keys: &["count", "size", "dont_fragment"],
    later: &[],
    example: "{count: 3, size: 56}",
};

/// HTTP checks.
pub(super) const HTTP: Section = Section {
    path: "health.http",
    keys: &["url", "method", "headers", "status", "body", "follow_redirects"],
    later: &[],
    example: "{url: \"http://192.0.2.1/\"}",
};

/// HTTPS checks.
pub(super) const HTTPS: Section = Section {
    path: "health.https",
    keys: &[
        "url",
        "method",
        "headers",
        "status",
        "body",
        "follow_redirects",
        "verify_tls",
        "server_name",
        "ca_file",
    ],
    later: &[],
    example: "{url: \"https://192.0.2.1/\"}",
};

/// DNS checks.
pub(super) const DNS: Section = Section {
    path: "health.dns",
    keys: &["name", "type", "server", "expect"],
    later: &[],
    example: "{name: www.example.net, server: 192.0.2.53}",
};

/// TCP checks.
pub(super) const TCP: Section = Section {
    path: "health.tcp",
    keys: &["port", "send", "expect"],
    later: &[],
    example: "{port: 443}",
};

/// Plugins.
pub(super) const EXEC: Section = Section {
    path: "health.exec",
    keys: &["command"],
    later: &[],
    example: "{command: [/usr/lib/nagios/plugins/check_http, -H, www.example.net]}",
};

/// When a WAN is degraded.
pub(super) const DEGRADED: Section = Section {
    path: "health.degraded",
    keys: &["latency", "jitter", "loss"],
    later: &[],
    example: "{latency: 200ms, loss: 5%}",
};

/// What is kept of the past.
pub(super) const HISTORY: Section = Section {
    path: "history",
    keys: &["file", "fine", "medium", "coarse", "changes"],
    later: &[],
    example: "{file: /var/lib/mwb/history.db}",
};

/// Who is told of what happens.
pub(super) const NOTIFY: Section = Section {
    path: "notify",
    keys: &["directory", "queue", "receivers"],
    later: &[],
    example: "{receivers: [{name: ops, url: \"https://www.example.net/mwb\", secret_file: /etc/mwb/webhook.secret}]}",
};

/// One who is told.
pub(super) const RECEIVER: Section = Section {
    path: "notify.receivers[]",
    keys: &[
        "name",
        "url",
        "secret_file",
        "keep",
        "command",
        "at_once",
        "events",
        "wans",
        "timeout",
    ],
    later: &[],
    example: "{name: ops, url: \"https://www.example.net/mwb\", secret_file: /etc/mwb/webhook.secret}",
};

/// `health.interval`.
pub(super) const INTERVAL: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(5);
/// `health.retries`.
pub(super) const RETRIES: RangeInclusive<u32> = 1..=20;
/// `health.timeout`.
pub(super) const CHECK_TIMEOUT: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(30);
/// How many `health.targets`, or URLs, or servers.
pub(super) const TARGETS: usize = 8;
/// `health.quorum` and `health.per_round`.
pub(super) const QUORUM: RangeInclusive<u32> = 1..=TARGETS as u32;
/// `health.metered_budget`, in bytes a day.
pub(super) const METERED_BUDGET: RangeInclusive<u64> = 100_000..=100_000_000_000;
/// `health.ping.count`.
pub(super) const PING_COUNT: RangeInclusive<u32> = 1..=10;
/// `health.ping.size`: what has room for our stamp, and goes into an Ethernet frame.
pub(super) const PING_SIZE: RangeInclusive<u32> = 16..=1_452;
/// Length of a URL, and of a header field.
pub(super) const URL_LENGTH: usize = 1_024;
/// How many `health.http.headers`.
pub(super) const HEADERS: usize = 16;
/// A final status of HTTP (RFC 9110, 15).
pub(super) const STATUS: RangeInclusive<u32> = 200..=599;
/// What is said or expected.
pub(super) const WORDS_LENGTH: usize = 255;
/// `health.tcp.port`.
pub(super) const CHECK_PORT: RangeInclusive<u32> = 1..=65_535;
/// Words of `health.exec.command`.
pub(super) const ARGUMENTS: usize = 32;
/// `health.degraded.latency` and `jitter`.
pub(super) const LATENCY: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(10);
/// `health.degraded.loss`.
pub(super) const LOSS: RangeInclusive<f64> = 0.001..=1.0;
/// `history.fine` and the others.
pub(super) const HISTORY_KEPT: RangeInclusive<Duration> = seconds(7_200, 3_650 * 86_400);
/// `notify.queue`.
pub(super) const NOTIFY_QUEUE: RangeInclusive<u32> = 1..=100_000;
/// How many `notify.receivers`.
pub(super) const RECEIVERS: usize = 16;
/// `notify.receivers[].keep`.
pub(super) const NOTIFY_KEEP: RangeInclusive<Duration> = seconds(60, 30 * 86_400);
/// `notify.receivers[].timeout`.
pub(super) const NOTIFY_TIMEOUT: RangeInclusive<Duration> = seconds(1, 300);
/// `notify.receivers[].at_once`.
pub(super) const AT_ONCE: RangeInclusive<u32> = 1..=16;
