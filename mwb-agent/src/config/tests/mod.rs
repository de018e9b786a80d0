//! Tests of the configuration: what is right, what is wrong and where, and that
//! the documents say the same as the code.

mod docs;
mod ends;
mod fec;
mod policy;
mod properties;
mod valid;
mod wrong;

use super::{Config, ConfigError, parse};

/// The least a file must have, on lines 1 to 5.
const LEAST: &str = "\
version: 1
mode: steer
lan: [lan0]
wans:
  - {name: fiber, device: wan0}
";

/// The least that the gateway of a bond must have, on lines 1 to 9; what is set
/// further in `bond` can follow.
pub(crate) const LEAST_BOND: &str = "\
version: 1
mode: bond
lan: [lan0]
wans: [{name: fiber, device: wan0}]
bond:
  server: \"203.0.113.250:7000\"
  private_key_file: /etc/mwb/private.key
  server_public_key: NqnP4z4u49EyW2/lx5QXo6mx9BrGxDTentAf2N++HAY=
  addresses: [192.0.2.62/32]
";

/// The least that a server must have, on lines 1 to 10; another client can follow.
pub(crate) const LEAST_SERVER: &str = "\
version: 1
role: server
wans: [{name: uplink, device: eth0}]
server:
  private_key_file: /etc/mwb/private.key
  addresses: [10.100.0.1/16]
  clients:
    - name: site1
      public_key: pFTTPA0/Pu+hgPTb6fI02lvcoZV+SbvHezlbbVsi52I=
      prefixes: [192.0.2.0/26]
";

fn read(text: &str) -> Result<Config, ConfigError> {
    parse(text, "gateway.yaml")
}

/// Reads what must be right; shows the error as the operator would see it.
fn right(text: &str) -> Config {
    read(text).unwrap_or_else(|error| panic!("refused:\n{}\nin:\n{text}", error.render()))
}

/// Reads what must be wrong.
fn wrong(text: &str) -> ConfigError {
    match read(text) {
        Ok(config) => panic!("accepted as {config:?}:\n{text}"),
        Err(error) => error,
    }
}
