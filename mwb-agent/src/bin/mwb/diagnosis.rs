//! The doctor's report as text for people. Pure.

use std::fmt::Write as _;

use mwb_agent::api::doctor::{Report, Severity};

use crate::show::Style;
use crate::table::{Align, Colour, Table};
use crate::units::{counted, grouped};

/// The bottleneck first, then what is wrong; with `all` also what is right.
pub(crate) fn report(report: &Report, all: bool, style: &Style) -> String {
    let mut out = match &report.bottleneck {
        Some(found) => format!("Bottleneck: {}: {}\nfix: {}\n", found.what, found.fact, found.fix),
        None => format!("Bottleneck: none in {:.1} s\n", report.seconds),
    };
    let (mut shown, mut right) = (0_u64, 0_u64);
    let mut table = Table::new(&[
        ("", Align::Left),
        ("AREA", Align::Left),
        ("WHAT", Align::Left),
        ("FOUND", Align::Left),
        ("FIX", Align::Left),
    ]);
    for finding in &report.findings {
        if finding.severity == Severity::Ok {
            right += 1;
            if !all {
                continue;
            }
        }
        shown += 1;
        table.push(vec![
            style.paint(finding.severity.name(), colour(finding.severity)),
            finding.area.name().into(),
            finding.subject.as_str().into(),
            finding.fact.as_str().into(),
            finding.fix.as_deref().unwrap_or("-").into(),
        ]);
    }
    if shown > 0 {
        out.push('\n');
        out.push_str(&table.render());
    }
    if !all {
        let more = if right > 0 { "; --all shows them" } else { "" };
        let _ = writeln!(out, "\n{} as it should be{more}", counted(right, "thing"));
    }
    programs(report, &mut out);
    out
}

fn programs(report: &Report, out: &mut String) {
    let mut table = Table::new(&[
        ("PROGRAM", Align::Left),
        ("RUNS/S", Align::Right),
        ("NS/RUN", Align::Right),
        ("CPU", Align::Right),
    ]);
    let mut measured = false;
    for program in report.programs.iter().filter(|program| program.cpu.is_some()) {
        measured = true;
        table.push(vec![
            program.program.as_str().into(),
            grouped(program.runs_per_second.round() as u64).into(),
            program.nanoseconds.map_or_else(|| "-".to_owned(), |ns| format!("{ns:.0}")).into(),
            program
                .cpu
                .map_or_else(|| "-".to_owned(), |cpu| format!("{:.1} %", cpu * 100.0))
                .into(),
        ]);
    }
    if measured {
        out.push('\n');
        out.push_str(&table.render());
    }
}

fn colour(severity: Severity) -> Colour {
    match severity {
        Severity::Ok => Colour::Green,
        Severity::Warn => Colour::Yellow,
        Severity::Bad => Colour::Red,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Style = Style { colour: false, now_ms: 0 };

    fn example() -> Result<Report, serde_json::Error> {
        serde_json::from_str(
            r#"{"seconds": 1.0,
            "bottleneck": {"what": "cpu0", "fact": "97 % of its time goes to packets", "fix": "more CPUs"},
            "findings": [
              {"area": "sysctl", "subject": "net.ipv4.ip_forward", "severity": "bad", "fact": "0: off", "fix": "sysctl net.ipv4.ip_forward=1"},
              {"area": "mtu", "subject": "wan0", "severity": "ok", "fact": "1500", "fix": null}],
            "programs": [
              {"program": "inside_xdp", "runs_per_second": 1234567.4, "nanoseconds": 210.2, "cpu": 0.26},
              {"program": "inside_tc", "runs_per_second": 0.0, "nanoseconds": null, "cpu": 0.0},
              {"program": "outside_tc", "runs_per_second": 0.0, "nanoseconds": null, "cpu": null}]}"#,
        )
    }

    #[test]
    fn the_bottleneck_and_what_is_wrong_come_first() -> Result<(), serde_json::Error> {
        assert_eq!(
            report(&example()?, false, &PLAIN),
            "Bottleneck: cpu0: 97 % of its time goes to packets\nfix: more CPUs\n\
             \n     AREA    WHAT                 FOUND   FIX\n\
             bad  sysctl  net.ipv4.ip_forward  0: off  sysctl net.ipv4.ip_forward=1\n\
             \n1 thing as it should be; --all shows them\n\
             \nPROGRAM        RUNS/S  NS/RUN     CPU\n\
             inside_xdp  1,234,567     210  26.0 %\n\
             inside_tc           0       -   0.0 %\n"
        );
        Ok(())
    }

    #[test]
    fn all_shows_also_what_is_right() -> Result<(), serde_json::Error> {
        let text = report(&example()?, true, &PLAIN);
        assert!(text.contains("ok   mtu     wan0                 1500    -\n"), "{text}");
        assert!(!text.contains("--all"), "{text}");
        Ok(())
    }
}
