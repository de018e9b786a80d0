//! Tests of the configuration: what is right, what is wrong and where, and that
//! the documents say the same as the code.

mod docs;
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
