//! How a request gets to a webhook: whoever speaks HTTP hands it in.
//!
//! Must not know: what is sent, what follows from the answer.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

/// What a webhook answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The status code (RFC 9110, section 15).
    pub status: u16,
    /// The seconds in `Retry-After` (RFC 9110, section 10.2.3).
    pub retry_after: Option<Duration>,
}

/// A client of HTTP. It follows no redirection.
pub trait Post: Send + Sync {
    /// Sends `body` by POST and waits for the head of the answer.
    ///
    /// # Errors
    /// When no answer came within `timeout`, in words for people.
    fn post(
        &self,
        url: &str,
        headers: &[(&str, String)],
        body: Vec<u8>,
        timeout: Duration,
    ) -> impl Future<Output = Result<Reply, String>> + Send;
}

type Answer<'a> = Pin<Box<dyn Future<Output = Result<Reply, String>> + Send + 'a>>;

/// A [`Post`] whose type nobody needs to know.
pub(super) trait AnyPost: Send + Sync {
    fn post_boxed<'a>(
        &'a self,
        url: &'a str,
        headers: &'a [(&'a str, String)],
        body: Vec<u8>,
        timeout: Duration,
    ) -> Answer<'a>;
}

impl<P: Post> AnyPost for P {
    fn post_boxed<'a>(
        &'a self,
        url: &'a str,
        headers: &'a [(&'a str, String)],
        body: Vec<u8>,
        timeout: Duration,
    ) -> Answer<'a> {
        Box::pin(self.post(url, headers, body, timeout))
    }
}
