//! How an HTTP check is configured, and what of it can be understood. Pure.

use hyper::header::{
    CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING,
};
use url::{Host, Url};

use super::resolve::Servers;
use super::{Invalid, StatusList, TlsOptions, query};

/// A request and what is expected of its response, as it is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpOptions {
    /// What is asked for: `http` or `https`, a name or an address, a path.
    pub url: String,
    /// The method.
    pub method: String,
    /// Headers besides the usual ones, or instead of them. They are not sent to
    /// another server that a redirect leads to.
    pub headers: Vec<(String, String)>,
    /// The statuses that are right: `200-299,304`.
    pub status: String,
    /// What must be in the first 64 KiB of the body.
    pub body: Option<String>,
    /// Whether redirects are followed, at most five; status and body are then
    /// the last response's.
    pub redirects: bool,
    /// How TLS is done.
    pub tls: TlsOptions,
    /// Who is asked for names.
    pub servers: Servers,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            url: String::new(),
            method: "GET".to_owned(),
            headers: Vec::new(),
            status: StatusList::default().to_string(),
            body: None,
            redirects: false,
            tls: TlsOptions::default(),
            servers: Servers::default(),
        }
    }
}

pub(super) fn parse_url(text: &str) -> Result<Url, Invalid> {
    let invalid = |why: &str| Invalid::new("url", text, why);
    let mut url = Url::parse(text)
        .map_err(|error| invalid(&format!("is no URL: {error}; write http://192.0.2.1/path")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(invalid("is neither http nor https"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(invalid("has a user name in it; use the header Authorization"));
    }
    if url.port() == Some(0) {
        return Err(invalid("has port 0"));
    }
    if let Some(Host::Domain(name)) = url.host() {
        query::parse_name("url", name)?;
    }
    url.set_fragment(None);
    Ok(url)
}

pub(super) fn parse_method(text: &str) -> Result<hyper::Method, Invalid> {
    let invalid = |why| Invalid::new("method", text, why);
    let method: hyper::Method = text.parse().map_err(|_| invalid("is no method"))?;
    if method == hyper::Method::CONNECT {
        return Err(invalid("is for proxies"));
    }
    // Methods are case-sensitive, and all that there are are upper case.
    if text.bytes().any(|byte| byte.is_ascii_lowercase()) {
        return Err(invalid("must be written in capitals"));
    }
    Ok(method)
}

pub(super) fn parse_headers(headers: &[(String, String)]) -> Result<HeaderMap, Invalid> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let invalid = |why: &str| Invalid::new("headers", format!("{name}: {value}"), why);
        let name: HeaderName = name.parse().map_err(|_| invalid("has no valid name"))?;
        if [CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING].contains(&name) {
            return Err(invalid("is set by the check itself"));
        }
        let value = HeaderValue::from_str(value).map_err(|_| invalid("has no valid value"))?;
        map.append(name, value);
    }
    Ok(map)
}
