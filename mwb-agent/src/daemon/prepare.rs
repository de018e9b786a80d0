//! What is done before rights are given up: sockets for a group, the file
//! system for pins, the token.

use crate::api::{Listeners, Token};
use crate::config::Config;
use crate::dataplane::{DataPlane, Options};

use super::Error;

/// What needed more rights than the daemon runs with.
#[derive(Debug)]
pub struct Prepared {
    pub(super) listeners: Listeners,
    pub(super) token: Option<Token>,
}

/// Prepares for [`super::run`]. Whoever holds the unix socket is the only agent.
///
/// # Errors
/// When the token cannot be used, a socket not be bound, or bpffs not be had.
pub fn prepare(config: &Config, options: &Options) -> Result<Prepared, Error> {
    let api = &config.api;
    let token = api.token_file.as_deref().map(Token::load).transpose()?;
    let listeners = Listeners::bind(api.listen, &api.socket, api.group.as_deref())?;
    DataPlane::prepare(options)?;
    Ok(Prepared { listeners, token })
}
