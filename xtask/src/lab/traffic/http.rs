//! A file server for curl: any length, always the same bytes.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use sha2::{Digest as _, Sha256};

use super::{server::Server, tcp::serve};
use crate::lab::Namespace;

/// Serves `GET /<length>`: that many bytes of the known content.
#[derive(Debug)]
pub struct FileServer {
    address: SocketAddr,
    _server: Server,
}

impl FileServer {
    /// Listens in `namespace`.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn start(namespace: &Namespace, address: SocketAddr) -> Result<Self> {
        let (address, server) = serve(namespace, address, answer)?;
        Ok(Self { address, _server: server })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// URL of a file of `length` bytes.
    #[must_use]
    pub fn url(&self, length: u64) -> String {
        format!("http://{}/{length}", self.address)
    }
}

fn answer(connection: TcpStream) -> Result<()> {
    connection.set_read_timeout(Some(Duration::from_secs(30)))?;
    connection.set_write_timeout(Some(Duration::from_secs(30)))?;
    let mut reader = BufReader::new(connection);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    let mut connection = reader.into_inner();
    let path = request.split(' ').nth(1).unwrap_or_default();
    let Ok(length) = path.trim_start_matches('/').parse::<u64>() else {
        connection.write_all(b"HTTP/1.0 404 Not Found\r\nContent-Length: 0\r\n\r\n")?;
        return Ok(());
    };
    connection.write_all(
        format!("HTTP/1.0 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n")
            .as_bytes(),
    )?;
    let mut buffer = vec![0; 256 << 10];
    let mut sent = 0;
    while sent < length {
        let part = (length - sent).min(buffer.len() as u64);
        let part = &mut buffer[..usize::try_from(part)?];
        fill_content(sent, part);
        connection.write_all(part)?;
        sent += part.len() as u64;
    }
    Ok(())
}

/// The known content from `offset` on: every eight bytes are a mix of their
/// place, so that a byte that is lost, doubled or moved changes the hash.
pub(super) fn fill_content(offset: u64, buffer: &mut [u8]) {
    let mut place = offset;
    let mut rest = buffer;
    while !rest.is_empty() {
        let word = (place / 8).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23).to_le_bytes();
        let from = usize::try_from(place % 8).unwrap_or_default();
        let length = (8 - from).min(rest.len());
        let (part, behind) = rest.split_at_mut(length);
        part.copy_from_slice(&word[from..from + length]);
        rest = behind;
        place += length as u64;
    }
}

/// SHA-256 of the first `length` bytes of the known content.
#[must_use]
pub fn content_hash(length: u64) -> String {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    let mut done = 0;
    while done < length {
        let size = usize::try_from(length - done).unwrap_or(usize::MAX).min(buffer.len());
        let part = &mut buffer[..size];
        fill_content(done, part);
        hash.update(&*part);
        done += part.len() as u64;
    }
    hex(&hash.finalize())
}

/// Fetches `length` bytes from a [`FileServer`] by a plain client of our own, in
/// the namespace of the calling thread, and compares every byte. `arrived` is
/// told of bytes as they come.
///
/// # Errors
/// When the connection breaks, nothing comes for `patience`, or a byte differs.
pub fn fetch(
    server: SocketAddr,
    length: u64,
    patience: Duration,
    mut arrived: impl FnMut(u64),
) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&server, patience).context("no connection")?;
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(format!("GET /{length} HTTP/1.0\r\n\r\n").as_bytes())?;
    let mut reader = BufReader::with_capacity(64 << 10, stream);
    let mut line = String::new();
    reader.read_line(&mut line).context("no answer")?;
    ensure!(line.contains(" 200 "), "answered {line:?}");
    while reader.read_line(&mut line).context("no answer")? > 2 {}
    let (mut buffer, mut expected) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    let mut done = 0;
    loop {
        let count = reader.read(&mut buffer).context("the file stopped")?;
        if count == 0 {
            break;
        }
        fill_content(done, &mut expected[..count]);
        ensure!(buffer[..count] == expected[..count], "the file differs near byte {done}");
        done += count as u64;
        arrived(count as u64);
    }
    ensure!(done == length, "{done} of {length} bytes came");
    Ok(())
}

/// What curl fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Download {
    /// Bytes of the body.
    pub bytes: u64,
    /// SHA-256 of the body, in hex.
    pub sha256: String,
    /// From the start of curl to its end.
    pub took: Duration,
}

/// Fetches a URL with curl from inside a namespace.
///
/// # Errors
/// When curl fails; with what it said.
pub fn curl(namespace: &Namespace, url: &str, arguments: &[&str]) -> Result<Download> {
    let start = Instant::now();
    let mut child = namespace
        .command("curl")
        .args(["-sS", "--fail", "--max-time", "60", "--noproxy", "*"])
        .args(arguments)
        .arg(url)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start curl")?;
    let mut body = child.stdout.take().context("curl has an output")?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    let mut bytes = 0;
    loop {
        let length = body.read(&mut buffer).context("cannot read from curl")?;
        if length == 0 {
            break;
        }
        hash.update(&buffer[..length]);
        bytes += length as u64;
    }
    let output = child.wait_with_output().context("cannot wait for curl")?;
    if !output.status.success() {
        bail!("curl {url}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(Download { bytes, sha256: hex(&hash.finalize()), took: start.elapsed() })
}

impl Download {
    /// Expects the first `length` bytes of the known content.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn expect_content(&self, length: u64) -> Result<()> {
        ensure!(self.bytes == length, "{} of {length} bytes came", self.bytes);
        let expected = content_hash(length);
        ensure!(self.sha256 == expected, "SHA-256 is {}, not {expected}", self.sha256);
        Ok(())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_the_same_however_it_is_cut() {
        let mut whole = vec![0; 1000];
        fill_content(0, &mut whole);
        let mut parts = vec![0; 1000];
        let (left, right) = parts.split_at_mut(333);
        fill_content(0, left);
        fill_content(333, right);
        assert_eq!(whole, parts);
    }

    #[test]
    fn content_that_lost_eight_bytes_has_another_hash() {
        let mut whole = vec![0; 64];
        fill_content(0, &mut whole);
        let mut shifted = vec![0; 64];
        fill_content(8, &mut shifted);
        assert_ne!(whole, shifted);
        assert_ne!(content_hash(64), content_hash(56));
    }
}
