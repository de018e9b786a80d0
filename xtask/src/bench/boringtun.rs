//! boringtun, WireGuard in user space: its published crate, built into the target
//! directory, and a tunnel by it between the lab's gateway and its server.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    exec,
    lab::{
        Key, Lab, Namespace, Process,
        address::{INNER_GATEWAY4, INNER_SERVER4, INNER4_LENGTH, LAN4, SERVER4, wan4},
        wait_until,
    },
    workspace,
};

/// The crate, and the version that the figures are of.
const CRATE: &str = "boringtun-cli";
const VERSION: &str = "0.7.1";
/// Longest time that its build may take.
const LIMIT: Duration = Duration::from_secs(15 * 60);
/// How long the tunnel may take to come up.
const PATIENCE: Duration = Duration::from_secs(10);
/// Where it listens.
const PORT: u16 = 51_820;
/// MTU of its device, as wg-quick(8) sets it.
const MTU: u32 = 1420;

/// Its program, built on first use.
///
/// # Errors
/// When cargo cannot build it.
pub(super) fn program() -> Result<PathBuf> {
    let root = workspace::target_directory()?.join("boringtun");
    let program = root.join("bin").join(CRATE);
    let stamp = root.join(VERSION);
    if !program.exists() || !stamp.exists() {
        let mut command = Command::new("cargo");
        command.args(["install", CRATE, "--version", VERSION, "--locked", "--force", "--root"]);
        command.arg(&root).arg("--target-dir").arg(root.join("target"));
        // What built us is no setting for it.
        command.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
        exec::run_step("building boringtun", &mut command, LIMIT)?;
        std::fs::write(stamp, "").context("cannot note what was built")?;
    }
    Ok(program)
}

/// A tunnel; its ends go with it.
pub(super) struct Boringtun {
    _ends: [End; 2],
}

/// One end.
struct End {
    _process: Process,
    socket: PathBuf,
}

impl Boringtun {
    /// Puts a tunnel between gateway and server, routed at both ends.
    pub(super) fn start(lab: &Lab) -> Result<Self> {
        let program = program()?;
        let srv = lab.srv()?;
        let [near, far] =
            ["wg-near.key", "wg-far.key"].map(|name| Key::make(&lab.scratch().join(name)));
        let (near, far) = (near?, far?);
        let token = lab.prefix().trim_start_matches("mwb-");
        let devices = [format!("wg{token}g"), format!("wg{token}s")];
        let gateway = End::start(&program, lab.gw(), &devices[0])?;
        let server = End::start(&program, srv, &devices[1])?;
        gateway.set(&near, &far, &format!("endpoint={SERVER4}:{PORT}\n"), "0.0.0.0/0")?;
        server.set(&far, &near, &format!("endpoint={}:{PORT}\n", wan4(0)), "0.0.0.0/0")?;
        let up = |place: &Namespace, device: &str, address| {
            place.ip(&format!(
                "link set {device} mtu {MTU} up\naddr add {address}/{INNER4_LENGTH} dev {device}\n"
            ))
        };
        up(lab.gw(), &devices[0], INNER_GATEWAY4)?;
        up(srv, &devices[1], INNER_SERVER4)?;
        lab.gw().ip(&format!(
            "route add 0.0.0.0/1 dev {0}\nroute add 128.0.0.0/1 dev {0}\n\
             route add {SERVER4}/32 via {1} dev wan0\n",
            devices[0],
            crate::lab::address::provider4(0)
        ))?;
        srv.ip(&format!("route add {LAN4} dev {}\n", devices[1]))?;
        lab.net().ip(&format!("route add {LAN4} via {SERVER4}\n"))?;
        Ok(Self { _ends: [gateway, server] })
    }
}

impl End {
    fn start(program: &Path, place: &Namespace, device: &str) -> Result<Self> {
        let socket = PathBuf::from(format!("/var/run/wireguard/{device}.sock"));
        let mut process = place.spawn(
            &program.to_string_lossy(),
            ["--foreground", "--disable-drop-privileges", device],
        )?;
        wait_until("boringtun listens", PATIENCE, || {
            ensure!(process.is_running()?, "it ended: {}", process.log());
            Ok(UnixStream::connect(&socket).is_ok())
        })?;
        Ok(Self { _process: process, socket })
    }

    /// As wg(8) does, by the protocol of <https://www.wireguard.com/xplatform/>.
    fn set(&self, own: &Key, peer: &Key, endpoint: &str, allowed: &str) -> Result<()> {
        let private = std::fs::read_to_string(&own.file).context("no private key")?;
        let request = format!(
            "set=1\nprivate_key={}\nlisten_port={PORT}\nreplace_peers=true\npublic_key={}\n\
             {endpoint}replace_allowed_ips=true\nallowed_ip={allowed}\n\n",
            hex(private.trim())?,
            hex(&peer.public)?
        );
        let mut stream = UnixStream::connect(&self.socket).context("boringtun is gone")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = [0; 256];
        let length = stream.read(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
        ensure!(answer.contains("errno=0"), "boringtun does not take its settings: {answer}");
        Ok(())
    }
}

impl Drop for End {
    fn drop(&mut self) {
        // It may have removed it itself.
        let _ = std::fs::remove_file(&self.socket);
    }
}

/// A key of base64 (RFC 4648) in hexadecimal digits.
fn hex(key: &str) -> Result<String> {
    let mut bits = 0_u32;
    let mut held = 0;
    let mut digits = String::new();
    for symbol in key.bytes().take_while(|&symbol| symbol != b'=') {
        let value = match symbol {
            b'A'..=b'Z' => symbol - b'A',
            b'a'..=b'z' => symbol - b'a' + 26,
            b'0'..=b'9' => symbol - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => bail!("{key:?} is no key"),
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            digits.push_str(&format!("{:02x}", bits >> held & 0xff));
        }
    }
    ensure!(digits.len() == 64, "{key:?} has no 32 bytes");
    Ok(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_the_same_in_both_forms() -> Result<()> {
        let text = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHv8=";
        let mut wanted: String = (0..31).map(|byte| format!("{byte:02x}")).collect();
        wanted.push_str("ff");
        assert_eq!(hex(text)?, wanted);
        assert!(hex("short=").is_err() && hex("not base64!").is_err());
        Ok(())
    }
}
