//! How long a connection is remembered depends on how far it got (RFC 5382,
//! REQ-5).

use std::{
    net::SocketAddr,
    os::fd::AsRawFd as _,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use serde_json::json;

use super::{
    Case, Lane,
    scene::{Scene, both_hooks},
};
use crate::lab::{
    LabSpec,
    address::NET4,
    traffic::{EchoServer, EchoStream, connect_tcp},
};

const PATIENCE: Duration = Duration::from_secs(5);
/// How long the test's gateway remembers an idle connection.
const ESTABLISHED: Duration = Duration::from_secs(8);

pub(super) fn cases() -> Vec<Case> {
    both_hooks(
        Lane::Together,
        "a_connection_is_remembered_by_its_state",
        || LabSpec::direct(1),
        |config| {
            let established = format!("{}s", ESTABLISHED.as_secs());
            config.with(
                "nat.timeouts",
                json!({"tcp_transitory": "1s", "tcp_established": established}),
            )
        },
        remembered_by_state,
    )
}

/// Of four connections, one never answered, one closed, one reset and one open,
/// only the last is there a little later; left alone, it goes too.
fn remembered_by_state(scene: &mut Scene) -> Result<()> {
    let server = EchoServer::start(scene.lab.net(), SocketAddr::from((NET4, 7)))?;
    let connect = || EchoStream::connect(scene.lab.host(), server.address(), PATIENCE);
    let mut open = connect()?;
    connect()?.exchange(b"and goodbye")?;
    let reset = connect_tcp(scene.lab.host(), server.address(), PATIENCE)?;
    reset_when_closed(&reset)?;
    drop(reset);
    // Nobody is there, and nobody says so: it stays half open.
    scene.lab.net().nft(
        "table ip silent {\n  chain input {\n    type filter hook input priority 0;\n    \
         tcp dport 99 drop\n  }\n}\n",
    )?;
    let silent = SocketAddr::from((NET4, 99));
    let refused = connect_tcp(scene.lab.host(), silent, Duration::from_millis(200));
    ensure!(refused.is_err(), "somebody answers on {silent}");
    open.exchange(b"four of us")?;

    let mut last = Ok(());
    scene.gateway.wait_for_status("the open one alone is left", PATIENCE * 4, |status| {
        if last.is_ok() {
            last = open.exchange(b"still open").map(drop);
        }
        status.nat.flows4 == 1 && status.nat.mappings == 1
    })?;
    last?;
    let idle = Instant::now();
    scene.gateway.wait_for_status("it is forgotten too", PATIENCE * 6, |status| {
        status.nat.flows4 == 0 && status.nat.mappings == 0
    })?;
    ensure!(
        idle.elapsed() + Duration::from_secs(1) > ESTABLISHED,
        "forgotten after {:?}",
        idle.elapsed()
    );
    Ok(())
}

/// Closing it sends RST in place of FIN.
fn reset_when_closed(stream: &std::net::TcpStream) -> Result<()> {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    // SAFETY: `linger` is a valid struct of the given length.
    let result = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of::<libc::linger>() as libc::socklen_t,
        )
    };
    ensure!(result == 0, "{}", std::io::Error::last_os_error());
    Ok(())
}
