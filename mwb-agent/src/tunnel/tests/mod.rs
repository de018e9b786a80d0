//! Both ends at work, each in a network namespace of its own, with sockets and maps of the
//! kernel and without its programs: what comes of handshakes and messages.
//!
//! ```text
//!   gateway  wan0 198.51.100.2 ────── 198.51.100.1 up0  server 203.0.113.250
//!            wan1 192.0.2.2    ────── 192.0.2.1    up1
//!            mwb0 ─ mwb0-dp           mwb0 ─ mwb0-dp
//! ```

mod sessions;
mod world;
