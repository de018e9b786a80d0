//! How a guest came to its end, from what it left: the console's log and QEMU's
//! exit code. Runs nothing.

use std::fmt;
use std::time::Duration;

/// Exit code of the command when the time ran out.
const TIMED_OUT: u8 = 124;
/// Exit code of the command when there is no result.
const NO_RESULT: u8 = 125;
/// What the first process writes before the exit code.
const RESULT: &str = "mwb-vm: exit ";
/// What it writes when the machine is up.
const UP: &str = "mwb-vm: up ";
/// What the kernel writes when it gives up.
const PANIC: &str = "Kernel panic - not syncing";
/// How the kernel complains, whether or not it goes on. Not "soft lockup": a machine whose
/// every instruction is emulated stands still whenever its host has better to do.
const COMPLAINTS: [&str; 7] = [
    PANIC,
    "WARNING: ",
    "BUG: ",
    "Oops: ",
    "general protection fault",
    "UBSAN: ",
    "blocked for more than",
];
const NO_COMPLAINT: &str = "soft lockup";
/// Lines of the kernel's log that are shown.
const TAIL: usize = 40;
/// Those from its end, where it complained long before.
const LAST: usize = 10;

/// How a guest ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The job ended, with this code.
    Code(u8),
    /// The time ran out.
    TimedOut(Duration),
    /// The kernel panicked.
    Panic,
    /// The machine went off, or would have started again, without a result.
    Off,
    /// QEMU itself failed.
    Qemu(String),
}

impl Ending {
    /// Reads it. `timed_out`: it was ended for that; `status`: QEMU's exit code,
    /// if it was not ended by a signal.
    pub(super) fn read(log: &str, timed_out: Option<Duration>, status: Option<i32>) -> Self {
        // The last one, and only if QEMU ended as the first process has it end: a
        // job may print anything to the console.
        let told = log.lines().rev().find_map(|line| line.split_once(RESULT));
        // Behind it, the kernel may have begun a line of its own.
        let digits = |code: &str| -> Option<u8> {
            code.split(|one: char| !one.is_ascii_digit()).next()?.parse().ok()
        };
        if let Some(code) = told.and_then(|(_, code)| digits(code))
            && status == Some(status_of(code))
        {
            return Self::Code(code);
        }
        if log.contains(PANIC) {
            return Self::Panic;
        }
        match (timed_out, status) {
            (Some(limit), _) => Self::TimedOut(limit),
            (None, Some(0)) => Self::Off,
            (None, Some(code)) => Self::Qemu(format!("exit code {code}")),
            (None, None) => Self::Qemu("ended by a signal".to_owned()),
        }
    }

    /// The exit code of the command.
    pub(super) fn code(&self) -> u8 {
        match self {
            Self::Code(code) => *code,
            Self::TimedOut(_) => TIMED_OUT,
            Self::Panic | Self::Off | Self::Qemu(_) => NO_RESULT,
        }
    }

    /// It says something about the machine and not the job.
    pub(super) fn is_mishap(&self) -> bool {
        !matches!(self, Self::Code(_))
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::TimedOut(limit) => {
                write!(f, "the guest hung: no result after {} s, ended it", limit.as_secs())
            }
            Self::Panic => f.write_str("the guest's kernel panicked"),
            Self::Off => f.write_str("the guest went off before it told a result"),
            Self::Qemu(how) => write!(f, "QEMU failed before the guest told a result: {how}"),
        }
    }
}

/// QEMU's exit code for a job's: the debug device makes 2n + 1 of what it is given.
fn status_of(code: u8) -> i32 {
    2 * (i32::from(code.min(110)) + 16) + 1
}

fn is_complaint(line: &str) -> bool {
    COMPLAINTS.iter().any(|words| line.contains(words)) && !line.contains(NO_COMPLAINT)
}

/// What the kernel complained of while the job ran, with what followed.
pub(super) fn complaint(log: &str) -> Option<String> {
    let (_, since) = log.split_once(UP)?;
    let lines: Vec<&str> = since.lines().map(str::trim_end).collect();
    let start = lines.iter().position(|line| is_complaint(line))?;
    let shown = lines[start..].iter().take(TAIL).filter(|line| !line.is_empty());
    Some(shown.map(|line| format!("    {line}\n")).collect())
}

/// The end of the kernel's log, a line each, and where it began to go wrong.
pub(super) fn tail(log: &str) -> String {
    let lines: Vec<&str> = log
        .lines()
        .map(str::trim_end)
        .filter(|line| !line.is_empty() && !line.starts_with(UP))
        .collect();
    // A crash is explained by how it begins, more than by the end of its trace.
    let crash = lines.iter().position(|line| is_complaint(line));
    let end = lines.len().saturating_sub(TAIL);
    let start = crash.map_or(end, |at| at.saturating_sub(3)).min(end);
    let (shown, last) = if start < end {
        (&lines[start..start + TAIL - LAST], &lines[lines.len() - LAST..])
    } else {
        (&lines[start..], &[][..])
    };
    if shown.is_empty() {
        return "the guest's kernel logged nothing\n".to_owned();
    }
    let text =
        |lines: &[&str]| lines.iter().map(|line| format!("    {line}\n")).collect::<String>();
    let end = if last.is_empty() { String::new() } else { format!("    …\n{}", text(last)) };
    format!("the end of the guest's kernel log:\n{}{end}", text(shown))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(7);

    #[test]
    fn a_result_counts_whatever_else_happened() {
        let log = "mwb-vm: up 6.12 after 2.5 s\n[    3.1] x\nmwb-vm: exit 137\r\n";
        assert_eq!(Ending::read(log, None, Some(253)), Ending::Code(137));
        assert_eq!(Ending::read(&log.replace("137", "0"), None, Some(33)).code(), 0);
        let cut = log.replace("137", "137[    4.9] eth0: left");
        assert_eq!(Ending::read(&cut, None, Some(253)), Ending::Code(137));
        assert!(!Ending::Code(1).is_mishap());
    }

    #[test]
    fn a_result_that_a_job_has_printed_is_none() {
        let forged = "mwb-vm: exit 0\n[ 4.3] Kernel panic - not syncing: sysrq\n";
        assert_eq!(Ending::read(forged, None, Some(0)), Ending::Panic);
        assert_eq!(Ending::read("mwb-vm: exit 0\n", None, Some(0)), Ending::Off);
        assert_eq!(Ending::read("mwb-vm: exit 0\n", Some(LIMIT), None), Ending::TimedOut(LIMIT));
        assert_eq!(Ending::read("mwb-vm: exit 0\n", None, Some(47)).code(), 125);
    }

    #[test]
    fn every_mishap_has_its_own_words_and_code() {
        let panic = "[ 4.2] sysrq: Trigger a crash\n[ 4.3] Kernel panic - not syncing: sysrq\n";
        for (ending, code, words) in [
            (Ending::read(panic, None, Some(0)), 125, "panicked"),
            // Whoever panics may hang then: the panic is why.
            (Ending::read(panic, Some(LIMIT), None), 125, "panicked"),
            (Ending::read("", Some(LIMIT), None), 124, "after 7 s"),
            (Ending::read("", None, Some(0)), 125, "went off"),
            (Ending::read("", None, Some(1)), 125, "exit code 1"),
            (Ending::read("", None, None), 125, "signal"),
        ] {
            assert!(ending.is_mishap());
            assert_eq!(ending.code(), code);
            assert!(ending.to_string().contains(words), "{ending}");
        }
    }

    #[test]
    fn a_complaint_is_what_the_kernel_says_of_itself_since_the_job_began() {
        let log = "[1.0] WARNING: at boot\r\nmwb-vm: up 6.1 after 2 s\r\n[3.0] eth0: up\r\n";
        assert_eq!(complaint(log), None);
        assert_eq!(complaint(&format!("{log}[4.0] watchdog: BUG: soft lockup - CPU#0")), None);
        let told =
            complaint(&format!("{log}[4.0] WARNING: CPU: 0 PID: 7 at x.c:9\r\n[4.0] RIP: y"));
        assert_eq!(
            told.as_deref(),
            Some("    [4.0] WARNING: CPU: 0 PID: 7 at x.c:9\n    [4.0] RIP: y\n")
        );
    }

    #[test]
    fn the_logs_end_is_shown_without_our_own_words() {
        let log: String = (0..100).map(|n| format!("line {n}\r\n\r\n")).collect();
        let text = tail(&format!("{log}mwb-vm: up 6.12\n"));
        assert!(text.contains("line 99\n") && !text.contains("line 59"), "{text}");
        assert!(!text.contains("up 6.12"));
        assert!(tail("").contains("nothing"));
        let crash = tail(&format!("{PANIC}: because\n{log}"));
        assert!(crash.contains("because") && !crash.contains("line 50\n"), "{crash}");
        assert!(crash.ends_with("line 98\n    line 99\n"), "{crash}");
    }
}
