//! The exec check with real commands.

use super::super::testing::{LOCAL, Outcome, SHORT, SOON, local};
use super::*;
use std::net::Ipv6Addr;
use std::time::Duration;

fn shell(script: &str) -> Exec {
    let words = ["/bin/sh", "-c", script];
    Exec { program: words[0].to_owned(), arguments: vec![words[1].to_owned(), script.to_owned()] }
}

async fn ask(script: &str, timeout: Duration) -> Result<Good, Bad> {
    shell(script).ask(&Via::default(), None, &Budget::new(timeout)).await
}

/// Waits until a process is gone, reaped and all.
async fn gone(pid: i32) -> bool {
    let deadline = Instant::now() + SOON;
    while Path::new(&format!("/proc/{pid}")).exists() {
        if Instant::now() > deadline {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    true
}

/// The numbers that a script writes into a file, when all have come.
async fn pids(path: &Path, count: usize) -> Result<Vec<i32>, Box<dyn std::error::Error>> {
    let deadline = Instant::now() + SOON;
    loop {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        if text.ends_with('\n') && text.lines().count() == count {
            return text.lines().map(|line| Ok(line.parse()?)).collect();
        }
        if Instant::now() > deadline {
            return Err(format!("{count} numbers did not come: {text:?}").into());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn each_exit_code_has_its_meaning() {
    let ok = ask("echo 'OK | x=1'; echo more", SOON).await;
    assert!(
        matches!(&ok, Ok(good) if good.detail == "OK" && !good.warning && good.perfdata.len() == 1),
        "{ok:?}"
    );
    let warning = ask("echo slow; exit 1", SOON).await;
    assert!(matches!(&warning, Ok(good) if good.warning && good.detail == "slow"), "{warning:?}");
    let ends = [
        ("echo it is; exit 2", Ended::Critical, "it is"),
        ("echo what; exit 3", Ended::Unknown, "what"),
        ("exit 4", Ended::Code(4), "no message"),
        ("echo half; kill -TERM $$", Ended::Signal(15), "half"),
    ];
    for (script, how, message) in ends {
        let bad = ask(script, SOON).await;
        assert_eq!(bad, Err(Bad::Exec { how, message: message.to_owned() }), "{script}");
    }
}

#[tokio::test]
async fn the_time_is_what_the_command_measured_or_what_it_took() -> Outcome {
    let told = ask("echo 'OK | rta=1234567us;;;0'", SOON).await?;
    assert_eq!(told.time, Duration::from_micros(1_234_567));
    let took = ask("sleep 0.05; echo 'OK | size=3s'", SOON).await?;
    assert!(took.time >= Duration::from_millis(50) && took.time < SOON, "{took:?}");
    Ok(())
}

#[tokio::test]
async fn a_command_over_time_is_gone_with_its_child() -> Outcome {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("pids");
    let script = format!(
        "sleep 1000 & echo $! > {0}.new; echo $$ >> {0}.new; mv {0}.new {0}; wait",
        file.display()
    );
    // Its numbers must be there before the time is over.
    let timeout = Duration::from_secs(2);
    let bad = ask(&script, timeout).await;
    assert!(matches!(bad, Err(Bad::TimedOut { after, .. }) if after == timeout), "{bad:?}");
    for pid in pids(&file, 2).await? {
        assert!(gone(pid).await, "{pid} is still there");
    }
    Ok(())
}

#[tokio::test]
async fn a_dropped_check_ends_its_command() -> Outcome {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("pids");
    let script = format!("sleep 1000 & echo $! >> {0}; echo $$ >> {0}; wait", file.display());
    let check = tokio::spawn(async move { ask(&script, SOON).await });
    let pids = pids(&file, 2).await?;
    check.abort();
    for pid in pids {
        assert!(gone(pid).await, "{pid} is still there");
    }
    Ok(())
}

#[tokio::test]
async fn a_child_that_is_left_behind_holds_nothing_up_and_is_ended() -> Outcome {
    let good = ask("sleep 1000 & echo $!", SOON).await?;
    let pid = good.detail.parse()?;
    assert!(good.time < Duration::from_secs(10), "{good:?}");
    assert!(gone(pid).await, "{pid} is still there");
    Ok(())
}

#[tokio::test]
async fn who_has_left_the_group_holds_nothing_up() -> Outcome {
    let folder = tempfile::tempdir()?;
    let fifo = folder.path().join("fifo");
    // The command waits until the other has left.
    let script = format!(
        "mkfifo {0}; setsid sh -c 'echo x > {0}; exec sleep 20' & read x < {0}; echo done",
        fifo.display()
    );
    let good = ask(&script, SOON).await?;
    assert_eq!(good.detail, "done");
    assert!(good.time < Duration::from_secs(10), "{good:?}");
    Ok(())
}

#[tokio::test]
async fn the_environment_has_what_is_told_and_nothing_else() -> Outcome {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("environment");
    let via = Via {
        wan: Some("fibre".to_owned()),
        device: Some("wan0".to_owned()),
        source4: Some("192.0.2.7".parse()?),
        source6: Some(Ipv6Addr::LOCALHOST),
    };
    let script = format!("/usr/bin/env > {0}; pwd >> {0}; cat >> {0}", file.display());
    shell(&script).ask(&via, Some(&local()), &Budget::new(SOON)).await?;
    let text = std::fs::read_to_string(&file)?;
    // The shell adds some of its own.
    let own =
        |line: &&str| !["PWD=", "_=", "SHLVL=", "OLDPWD="].iter().any(|o| line.starts_with(o));
    let mut lines: Vec<&str> = text.lines().filter(own).collect();
    lines.sort_unstable();
    let target = format!("MWB_TARGET={LOCAL}");
    let path = format!("PATH={PATH}");
    let expected = [
        "/",
        "LANG=C",
        "MWB_DEVICE=wan0",
        "MWB_SOURCE4=192.0.2.7",
        "MWB_SOURCE6=::1",
        target.as_str(),
        "MWB_WAN=fibre",
        path.as_str(),
    ];
    assert_eq!(lines, expected);
    Ok(())
}

#[tokio::test]
async fn what_is_not_known_is_not_in_the_environment() -> Outcome {
    let good = ask("echo ${MWB_TARGET-none} ${MWB_DEVICE-none}", SOON).await?;
    assert_eq!(good.detail, "none none");
    Ok(())
}

#[tokio::test]
async fn a_command_that_writes_much_ends_and_little_is_kept() -> Outcome {
    let good = ask("head -c 1000000 /dev/zero | tr '\\0' x; echo", SOON).await?;
    assert_eq!(good.detail.len(), MOST_OUTPUT);
    let endless = ask("exec cat /dev/zero", SHORT).await;
    assert!(matches!(endless, Err(Bad::TimedOut { .. })), "{endless:?}");
    Ok(())
}

#[tokio::test]
async fn a_program_that_is_not_there_is_not_run() -> Outcome {
    let exec = Exec::new(&["/no/such/program"])?;
    let asked = exec.ask(&Via::default(), None, &Budget::new(SOON)).await;
    let Err(Bad::NotSent(why)) = asked else { panic!("{asked:?}") };
    assert!(why.contains("/no/such/program"), "{why}");
    Ok(())
}

#[test]
fn a_command_begins_with_an_absolute_path() {
    let none: [&str; 0] = [];
    assert!(Exec::new(&none).is_err());
    assert!(Exec::new(&["check_ping"]).is_err());
    assert!(Exec::new(&["/bin/echo", "a\0b"]).is_err());
    assert!(Exec::new(&["/bin/echo", "a b"]).is_ok());
}

#[tokio::test]
async fn arguments_are_not_read_by_a_shell() -> Outcome {
    let exec = Exec::new(&["/bin/echo", "$HOME; exit 2", "*"])?;
    let good = exec.ask(&Via::default(), None, &Budget::new(SOON)).await?;
    assert_eq!(good.detail, "$HOME; exit 2 *");
    Ok(())
}
