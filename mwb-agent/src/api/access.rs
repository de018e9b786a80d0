//! Who may change something over TCP: who shows the token.
//!
//! The unix socket needs none: its file's rights say who may connect. Over TCP
//! everybody may read, as scrapers do.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use subtle::ConstantTimeEq as _;

/// A shorter token could be guessed.
const SHORTEST: usize = 16;
/// A longer file is no token.
const LONGEST: u64 = 4_096;

/// What whoever changes something over TCP must show. It is never printed.
#[derive(Clone)]
pub struct Token(Arc<[u8]>);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Why the token file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It cannot be read.
    #[error("api.token_file {path}: {error}; make one with `{}`", recipe(path))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Others may read or write it.
    #[error(
        "api.token_file {path} has mode {mode:04o}: users who are neither its owner nor in its group can use it; \
         `chmod o= {path}`"
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It holds no token.
    #[error(
        "api.token_file {path} must hold one word of {SHORTEST} to {LONGEST} printable characters; make one with `{}`",
        recipe(path)
    )]
    NoToken {
        /// The file.
        path: PathBuf,
    },
}

fn recipe(path: &Path) -> String {
    format!("(umask 077; openssl rand -hex 32 > {})", path.display())
}

impl Token {
    /// Reads it from a file that only owner and group may use.
    ///
    /// # Errors
    /// When the file cannot be read, is open to others or holds no token.
    pub fn load(path: &Path) -> Result<Self, TokenError> {
        let unreadable = |error| TokenError::Unreadable { path: path.to_owned(), error };
        // Rights and content are those of one file, whatever happens to its name.
        let mut file = File::open(path).map_err(unreadable)?;
        let mode = file.metadata().map_err(unreadable)?.mode() & 0o7777;
        if mode & 0o007 != 0 {
            return Err(TokenError::Open { path: path.to_owned(), mode });
        }
        let mut bytes = Vec::new();
        file.by_ref().take(LONGEST + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        let token = bytes.trim_ascii();
        let fits = token.len() >= SHORTEST && bytes.len() as u64 <= LONGEST;
        if !fits || !token.iter().all(u8::is_ascii_graphic) {
            return Err(TokenError::NoToken { path: path.to_owned() });
        }
        Ok(Self(token.into()))
    }

    /// Whether it is the one. Takes the same time wherever they differ.
    fn is(&self, shown: &[u8]) -> bool {
        self.0.ct_eq(shown).into()
    }
}

/// Lets reading requests through, and others with the token.
pub(super) async fn guard(
    State(token): State<Option<Token>>,
    request: Request,
    next: Next,
) -> Response {
    if matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
        return next.run(request).await;
    }
    let Some(token) = token else {
        let error = "changes over TCP are off: set api.token_file, or use the unix socket";
        return refuse(StatusCode::FORBIDDEN, error);
    };
    match shown(request.headers()) {
        Some(word) if token.is(word) => next.run(request).await,
        Some(_) => refuse(StatusCode::UNAUTHORIZED, "this is not the token of api.token_file"),
        None => refuse(
            StatusCode::UNAUTHORIZED,
            "changes over TCP need the header `Authorization: Bearer TOKEN`, with the token of api.token_file",
        ),
    }
}

/// The word after `Bearer`.
fn shown(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, word) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| word.trim_ascii())
}

fn refuse(code: StatusCode, error: &str) -> Response {
    let body = Json(json!({ "error": error }));
    if code == StatusCode::UNAUTHORIZED {
        return (code, [(header::WWW_AUTHENTICATE, "Bearer realm=\"mwb\"")], body).into_response();
    }
    (code, body).into_response()
}
