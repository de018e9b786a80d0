//! The table in docs/KERNELS.md: programs, kernels, verified instructions.
//! Knows nothing of how they were measured.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context as _, Result, ensure};

use super::{Report, Said};

/// What encloses the table in the document.
const BEGIN: &str = "<!-- verified instructions: `cargo xtask verify --kernel … --write` -->\n";
const END: &str = "<!-- end of verified instructions -->\n";
/// What stands before the name of the compiler, and behind it.
const BY: (&str, &str) = ("Compiled by ", ".\n");
/// Share by which a figure may differ before the document is out of date.
const DRIFT: f64 = 0.1;
/// The same with another compiler: between rustc 1.96 and 1.97, both of LLVM 22.1,
/// the same source's figures differ by up to a third.
const DRIFT_OF_COMPILERS: f64 = 0.5;

/// Kernel series, by the oldest first, with what was found on each.
pub(super) type Series = Vec<(String, Report)>;

/// The document with the table of these.
pub(super) fn write(document: &str, found: &Series) -> Result<String> {
    let (before, _, after) = parts(document)?;
    let compiler = found.first().map_or("", |(_, report)| report.compiler.as_str());
    let (by, end) = BY;
    Ok(format!("{before}{BEGIN}\n{by}{compiler}{end}\n{}\n{END}{after}", table(found)))
}

/// Whose code the document's figures are of.
pub(super) fn compiler(document: &str) -> Option<&str> {
    let (_, table, _) = parts(document).ok()?;
    let (_, rest) = table.split_once(BY.0)?;
    Some(rest.split_once(BY.1)?.0)
}

/// Instructions of a program on a kernel series, as the document has them.
pub(super) fn told(document: &str, program: &str, series: &str) -> Option<u32> {
    let (_, table, _) = parts(document).ok()?;
    read(table).ok()?.remove(&(program.to_owned(), series.to_owned()))
}

/// The programs that the document has.
#[cfg(test)]
pub(super) fn rows(document: &str) -> Vec<String> {
    let told = parts(document).and_then(|(_, table, _)| read(table)).unwrap_or_default();
    told.into_keys().map(|(program, _)| program).collect()
}

/// Whether the document has a kernel series at all.
pub(super) fn has(document: &str, series: &str) -> bool {
    parts(document)
        .and_then(|(_, table, _)| read(table))
        .is_ok_and(|told| told.keys().any(|(_, of)| of == series))
}

/// Whether two figures, by the same compiler or not, are too far apart for one of
/// them to stand for the other.
pub(super) fn differs(told: u32, now: u32, same_compiler: bool) -> bool {
    let share = if same_compiler { DRIFT } else { DRIFT_OF_COMPILERS };
    (f64::from(told) - f64::from(now)).abs() > share * f64::from(told.max(1))
}

fn table(found: &Series) -> String {
    let mut rows: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (column, (_, report)) in found.iter().enumerate() {
        for one in &report.programs {
            let row =
                rows.entry(&one.program).or_insert_with(|| vec!["–".to_owned(); found.len()]);
            row[column] = match one.said {
                Said::Instructions(count) => count.to_string(),
                Said::Refused(_) => "refused".to_owned(),
            };
        }
    }
    let mut text = String::from("| program |");
    for (series, _) in found {
        let _ = write!(text, " {series} |");
    }
    text.push_str("\n|---|");
    text.push_str(&"--:|".repeat(found.len()));
    for (program, cells) in rows {
        let _ = write!(text, "\n| `{program}` | {} |", cells.join(" | "));
    }
    text.push('\n');
    text
}

/// Program and series to instructions.
fn read(table: &str) -> Result<BTreeMap<(String, String), u32>> {
    let rows: Vec<Vec<&str>> = table
        .lines()
        .filter(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let head = rows.first().context("the document's table is empty")?;
    let mut told = BTreeMap::new();
    for row in rows.iter().skip(2) {
        ensure!(row.len() == head.len(), "the table has a row of another length: {row:?}");
        let program = row[0].trim_matches('`');
        for (series, cell) in head.iter().zip(row).skip(1) {
            if let Ok(count) = cell.parse() {
                told.insert((program.to_owned(), (*series).to_owned()), count);
            }
        }
    }
    Ok(told)
}

/// What is before the table, it, and what is behind.
fn parts(document: &str) -> Result<(&str, &str, &str)> {
    let (before, rest) =
        document.split_once(BEGIN).context("the document lacks the line that begins its table")?;
    let (table, after) =
        rest.split_once(END).context("the document lacks the line that ends its table")?;
    Ok((before, table, after))
}

#[cfg(test)]
mod tests {
    use super::super::Measured;
    use super::*;

    fn found(programs: &[(&str, Said)]) -> Report {
        let programs = programs
            .iter()
            .map(|(name, said)| Measured { program: (*name).to_owned(), said: said.clone() })
            .collect();
        let (kernel, compiler) = ("6.1.0-x".to_owned(), "rustc 1.96.0 (a 2026)".to_owned());
        Report { kernel, compiler, limit: 0, budget: 0, programs }
    }

    fn document(found: &Series) -> Result<String> {
        write(&format!("before\n{BEGIN}old\n{END}after\n"), found)
    }

    #[test]
    fn what_is_written_is_what_is_read() -> Result<()> {
        let (a, b) = (Said::Instructions(1000), Said::Instructions(0));
        let both = vec![
            ("6.1".to_owned(), found(&[("one", a.clone()), ("two", b)])),
            ("6.12".to_owned(), found(&[("one", a), ("three", Said::Refused("why".to_owned()))])),
        ];
        let text = document(&both)?;
        assert!(text.starts_with("before\n") && text.ends_with("after\n"), "{text}");
        let rows = "\n| `one` | 1000 | 1000 |\n| `three` | – | refused |\n| `two` | 0 | – |\n";
        assert!(text.contains(rows), "{text}");
        assert_eq!(compiler(&text), Some("rustc 1.96.0 (a 2026)"));
        assert_eq!(told(&text, "one", "6.12"), Some(1000));
        assert_eq!(told(&text, "two", "6.1"), Some(0));
        assert_eq!(told(&text, "two", "6.12"), None);
        assert_eq!(told(&text, "three", "6.12"), None);
        assert!(has(&text, "6.1") && !has(&text, "6.18"));
        assert_eq!(write(&text, &both)?, text);
        Ok(())
    }

    #[test]
    fn more_than_a_tenth_is_too_far_apart_and_of_two_compilers_a_half() {
        for (now, far) in [(1100, false), (1101, true), (900, false), (899, true)] {
            assert_eq!(differs(1000, now, true), far, "{now}");
            assert!(!differs(1000, now, false), "{now}");
        }
        for (now, far) in [(1500, false), (1501, true), (500, false), (499, true)] {
            assert_eq!(differs(1000, now, false), far, "{now}");
        }
    }

    #[test]
    fn a_document_without_the_marks_is_refused() {
        assert!(write("nothing", &Vec::new()).is_err());
        assert!(!has("nothing", "6.1") && compiler("nothing").is_none());
    }
}
