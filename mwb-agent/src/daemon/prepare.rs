//! What is done before rights are given up: sockets for a group, the file
//! system for pins, the token, the key of a bond.

use crate::api::{Listeners, Token};
use crate::bond::PrivateKey;
use crate::config::Config;
use crate::dataplane::{DataPlane, Options};

use super::Error;

/// What needed more rights than the daemon runs with.
#[derive(Debug)]
pub struct Prepared {
    pub(super) listeners: Listeners,
    pub(super) token: Option<Token>,
    /// Of our end of a bond.
    pub(super) private: Option<PrivateKey>,
}

/// Prepares for [`super::run`]. Whoever holds the unix socket is the only agent.
///
/// # Errors
/// When the token or the key cannot be used, a socket not be bound, or bpffs not be had.
pub fn prepare(config: &Config, options: &Options) -> Result<Prepared, Error> {
    let api = &config.api;
    let token = api.token_file.as_deref().map(Token::load).transpose()?;
    let key = config.tunnel().map(|tunnel| PrivateKey::read(tunnel.private_key_file));
    let private = key.transpose()?;
    if let (Some(key), Some(tunnel)) = (&private, config.tunnel()) {
        let file = tunnel.private_key_file.clone();
        config.check_own_key(&key.public()).map_err(|why| Error::WrongKey { file, why })?;
    }
    let listeners = Listeners::bind(api.listen, &api.socket, api.group.as_deref())?;
    DataPlane::prepare(options)?;
    Ok(Prepared { listeners, token, private })
}
