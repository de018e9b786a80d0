//! Keys for the tunnel, as `wg genkey` and `wg pubkey` make them.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::process::ExitCode;

use mwb_agent::bond::{Os, PrivateKey};

use crate::exit;

/// Prints a new private key.
pub(crate) fn generate() -> ExitCode {
    if is_exposed_file().unwrap_or(false) {
        eprintln!(
            "mwb: warning: others can read the file that the key is written to\n\
             fix: chmod 600 FILE, and next time `(umask 077; mwb keygen > FILE)`"
        );
    }
    match PrivateKey::generate(&mut Os) {
        Ok(key) => print(&key.to_text()),
        Err(error) => fail(exit::FAILED, &error.to_string()),
    }
}

/// Prints the public key of the private one on standard input.
pub(crate) fn derive() -> ExitCode {
    match PrivateKey::take(io::stdin().lock()) {
        Ok(Ok(key)) => print(&key.public().to_string()),
        Ok(Err(error)) => fail(
            exit::WRONG,
            &format!(
                "no private key on standard input: {error}\n\
                 fix: `mwb pubkey < FILE`, with a file that `mwb keygen` has written"
            ),
        ),
        Err(error) => fail(exit::FAILED, &format!("standard input cannot be read: {error}")),
    }
}

fn print(text: &str) -> ExitCode {
    match writeln!(io::stdout().lock(), "{text}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(exit::FAILED, &format!("standard output takes no key: {error}")),
    }
}

fn fail(code: u8, text: &str) -> ExitCode {
    eprintln!("mwb: {text}");
    ExitCode::from(code)
}

/// Whether standard output is a file that others have any right on.
fn is_exposed_file() -> io::Result<bool> {
    let output = File::from(io::stdout().as_fd().try_clone_to_owned()?).metadata()?;
    Ok(output.is_file() && output.mode() & 0o077 != 0)
}
