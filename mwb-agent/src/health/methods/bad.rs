//! Why a check failed, in words that say what happened and what may mend it.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// The answer did not come, or was not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Bad {
    /// The time was over.
    #[error("no answer within {} ms: {waiting}", after.as_millis())]
    TimedOut {
        /// How long was waited.
        after: Duration,
        /// What for.
        waiting: String,
    },
    /// Nobody listens on the port; the host said so.
    #[error("{0} refused the connection: nothing listens on this port there")]
    Refused(SocketAddr),
    /// There is no way to the host: a router said so, or it is not on the link.
    #[error("{to} cannot be reached: {why}")]
    Unreachable {
        /// Who was to be asked.
        to: SocketAddr,
        /// What the kernel says.
        why: String,
    },
    /// Nothing was sent: this machine could not.
    #[error("not sent: {0}")]
    NotSent(String),
    /// The host was there and then broke off, or talks another protocol.
    #[error("the conversation with {to} broke: {why}")]
    Broken {
        /// Who broke off.
        to: SocketAddr,
        /// How.
        why: String,
    },
    /// A name server answered, but not with what was asked for.
    #[error("name server {server} answered {code} for {name}")]
    Name {
        /// Who answered.
        server: SocketAddr,
        /// The name and type asked for.
        name: String,
        /// What it answered.
        code: Rcode,
    },
    /// There is no safe connection.
    #[error("TLS with {name}: {why}")]
    Tls {
        /// Whose certificate was expected.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// Another status than expected.
    #[error("status {got} instead of {expected}")]
    Status {
        /// The status of the response.
        got: u16,
        /// The list of what was expected.
        expected: String,
    },
    /// What was expected is not in what came.
    #[error("{wanted:?} is not in the {read} bytes that came")]
    Body {
        /// What was expected.
        wanted: String,
        /// Number of bytes that came, or that were looked at.
        read: usize,
    },
    /// Redirects lead nowhere.
    #[error("redirected to {to}: {why}")]
    Redirect {
        /// The last URL, as it was given.
        to: String,
        /// What is wrong with it.
        why: String,
    },
    /// A name server gave other answers than expected.
    #[error("answered {got} instead of {wanted}")]
    Answer {
        /// What came.
        got: String,
        /// What was expected.
        wanted: String,
    },
    /// A command says that it does not work, or could not tell.
    #[error("the command {how}: {message}")]
    Exec {
        /// How the command ended.
        how: Ended,
        /// The first line of what it wrote.
        message: String,
    },
}

impl Bad {
    /// Whether nothing was heard of the target. If not, the link works as far
    /// as whoever answered, and what is wrong is wrong there.
    ///
    /// Of a command's word nothing follows, so it counts as silence.
    #[must_use]
    pub const fn is_silence(&self) -> bool {
        match self {
            Bad::TimedOut { .. } | Bad::Unreachable { .. } | Bad::NotSent(_) | Bad::Exec { .. } => {
                true
            }
            Bad::Refused(_)
            | Bad::Broken { .. }
            | Bad::Name { .. }
            | Bad::Tls { .. }
            | Bad::Status { .. }
            | Bad::Body { .. }
            | Bad::Redirect { .. }
            | Bad::Answer { .. } => false,
        }
    }

    /// Of two failures the one that tells more.
    pub(super) fn or(self, other: Bad) -> Bad {
        if self.is_silence() { other } else { self }
    }
}

/// Why a name server's answer has nothing. RFC 1035, 4.1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rcode {
    /// There is no such name.
    NxDomain,
    /// The server failed.
    ServFail,
    /// The server does not want to answer us.
    Refused,
    /// The name has no record of the type.
    NoData,
    /// Another code.
    Other(u16),
}

impl fmt::Display for Rcode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rcode::NxDomain => f.write_str("NXDOMAIN (there is no such name)"),
            Rcode::ServFail => f.write_str("SERVFAIL (it failed itself)"),
            Rcode::Refused => f.write_str("REFUSED (it does not serve this address)"),
            Rcode::NoData => f.write_str("no data (the name has no record of this type)"),
            Rcode::Other(code) => write!(f, "code {code}"),
        }
    }
}

/// How a command ended, other than well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Exit code 2.
    Critical,
    /// Exit code 3.
    Unknown,
    /// An exit code that the convention does not know.
    Code(i32),
    /// A signal ended it.
    Signal(i32),
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ended::Critical => f.write_str("says CRITICAL"),
            Ended::Unknown => f.write_str("says UNKNOWN"),
            Ended::Code(code) => write!(f, "ended with code {code} (0 to 3 are known)"),
            Ended::Signal(signal) => write!(f, "was ended by signal {signal}"),
        }
    }
}
