//! Who may change something, and what the agent itself may do.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{
    Case, Lane, checks,
    scene::{Hook, Scene, both_hooks, play},
};
use crate::lab::LabSpec;

const TOKEN: &str = "correct-horse-battery-staple-0123456789";
/// A group that every Debian has.
const GROUP: &str = "nogroup";

pub(super) fn cases() -> Vec<Case> {
    // Who may connect has nothing to do with hooks; what attaching needs has.
    let mut cases = vec![
        Case::new(Lane::Together, "changes_over_tcp_need_the_token", changes_need_the_token),
        Case::new(
            Lane::Together,
            "the_socket_belongs_to_its_group",
            the_socket_belongs_to_its_group,
        ),
    ];
    cases.extend(both_hooks(
        Lane::Together,
        "the_agent_has_four_rights_and_no_more",
        || LabSpec::direct(2),
        |config| config,
        the_agent_has_four_rights,
    ));
    cases
}

/// The answer's code, and its body.
fn http(scene: &Scene, arguments: &[&str], path: &str) -> Result<(String, String)> {
    let url = format!("http://127.0.0.1:9800{path}");
    let said = scene.lab.gw().run(
        "curl",
        ["-sS", "--noproxy", "*", "--max-time", "10", "-w", "\n%{http_code}"]
            .into_iter()
            .chain(arguments.iter().copied())
            .chain([url.as_str()]),
    )?;
    let (body, code) = said.rsplit_once('\n').context("a code behind the body")?;
    Ok((code.to_owned(), body.to_owned()))
}

fn changes_need_the_token() -> Result<()> {
    let mut file = None;
    let scene = Scene::prepared(
        Hook::Xdp,
        LabSpec::direct(2),
        |lab| {
            let path = lab.scratch().join("token");
            fs::write(&path, format!("{TOKEN}\n"))?;
            let owner_only = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            fs::set_permissions(&path, owner_only)?;
            file = Some(path.to_string_lossy().into_owned());
            Ok(())
        },
        |config| config,
    )?;
    play(scene, |scene| {
        let change = ["-X", "POST"];
        let (code, body) = http(scene, &change, "/v1/reload")?;
        ensure!(code == "403", "without a token in the configuration: {code} {body}");
        let config = scene.config.clone().with("api.token_file", file.context("the file")?);
        scene.gateway.rewrite(&config)?;
        scene.gateway.stop()?;
        scene.gateway.restart(&scene.lab)?;

        let (code, body) = http(scene, &[], "/v1/status")?;
        ensure!(code == "200", "reading needs no token: {code} {body}");
        let right = format!("Authorization: Bearer {TOKEN}");
        let wrong = right.replace("horse", "mouse");
        let short = right.trim_end_matches('9').to_owned();
        for (header, wanted) in
            [(None, "401"), (Some(&wrong), "401"), (Some(&short), "401"), (Some(&right), "200")]
        {
            let headers: Vec<&str> = header.iter().flat_map(|text| ["-H", text.as_str()]).collect();
            for path in ["/v1/reload", "/v1/failover", "/v1/apply", "/v1/confirm"] {
                let (code, body) = http(scene, &[&change[..], &headers[..]].concat(), path)?;
                // With the token it is the body that is missing, or nothing to confirm.
                let passed = !matches!(code.as_str(), "401" | "403");
                ensure!(
                    (code == wanted && path == "/v1/reload")
                        || (passed == (wanted == "200") && path != "/v1/reload"),
                    "{path} with {header:?}: {code} {body}"
                );
            }
        }
        let body = r#"{"wan": "wan1"}"#;
        let json = "Content-Type: application/json";
        let forced = [&change[..], &["-H", &right, "-H", json, "-d", body]].concat();
        let (code, said) = http(scene, &forced, "/v1/failover")?;
        ensure!(code == "200", "{code} {said}");
        let status = scene.gateway.api().status()?;
        ensure!(status.failover.forced.as_deref() == Some("wan1"), "{:?}", status.failover);
        // The socket's rights are enough there.
        scene.gateway.mwb(&["failover", "--auto"])?;

        let (code, text) = http(scene, &[], "/v1/openapi.json")?;
        let document: Value = serde_json::from_str(&text)?;
        ensure!(code == "200" && document["paths"]["/v1/reload"]["post"].is_object(), "{text}");
        let log = scene.gateway.log();
        ensure!(!log.contains(TOKEN) && !log.contains("mouse"), "a token is in the log:\n{log}");
        Ok(())
    })
}

fn the_socket_belongs_to_its_group() -> Result<()> {
    let scene = Scene::new(Hook::Xdp, LabSpec::direct(1), |config| config)?;
    play(scene, |scene| {
        let socket = scene.gateway.api().socket().to_owned();
        let mode = |path: &Path| Ok::<_, anyhow::Error>(fs::metadata(path)?.mode() & 0o777);
        ensure!(mode(&socket)? == 0o600, "without a group its mode is {:o}", mode(&socket)?);
        let config = scene.config.clone().with("api.group", GROUP);
        scene.gateway.rewrite(&config)?;
        scene.gateway.stop()?;
        scene.gateway.restart(&scene.lab)?;
        ensure!(mode(&socket)? == 0o660, "its mode is {:o}", mode(&socket)?);
        let groups = fs::read_to_string("/etc/group")?;
        let line = groups.lines().find(|line| line.starts_with(&format!("{GROUP}:")));
        let id: u32 = line.and_then(|line| line.split(':').nth(2)).context("the group")?.parse()?;
        let owner = fs::metadata(&socket)?.gid();
        ensure!(owner == id, "it belongs to group {owner}, not {id}");
        scene.gateway.mwb(&["status"]).map(drop)
    })
}

/// And works with them: devices come, programs are attached, changes are made.
fn the_agent_has_four_rights(scene: &mut Scene) -> Result<()> {
    // CAP_NET_ADMIN, CAP_NET_RAW, CAP_PERFMON, CAP_BPF.
    const RIGHTS: u64 = 1 << 12 | 1 << 13 | 1 << 38 | 1 << 39;
    let process = scene.gateway.process().id();
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        let thread = thread?.path();
        let status = fs::read_to_string(thread.join("status"))?;
        let field = |name: &str| -> Result<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let text = line.with_context(|| format!("no {name}"))?;
            Ok(u64::from_str_radix(text.trim(), 16)?)
        };
        for set in ["CapPrm:", "CapEff:"] {
            let has = field(set)?;
            ensure!(has == RIGHTS, "{set} {has:#x} of {}, not {RIGHTS:#x}", thread.display());
        }
        for set in ["CapInh:", "CapAmb:"] {
            ensure!(field(set)? == 0, "{set} {:#x}", field(set)?);
        }
        ensure!(field("CapBnd:")? & !RIGHTS == 0, "CapBnd: {:#x}", field("CapBnd:")?);
        ensure!(field("NoNewPrivs:")? == 1, "a program it starts could get more rights");
    }
    scene.lab.wan(1).unplug()?;
    scene.gateway.wait_for_status("the device is missed", Duration::from_secs(5), |status| {
        status.wans[1].state != "up"
    })?;
    scene.lab.wan(1).plug_in()?;
    scene.gateway.wait_until_up()?;
    scene.gateway.mwb(&["reload"])?;
    checks::pings_pass(&scene.lab)?;
    checks::transfers_are_whole(&scene.lab, 1 << 20)
}
