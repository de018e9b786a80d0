//! The programs before the verifiers of other kernels, in VMs, and the table of
//! what they say in docs/KERNELS.md.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail, ensure};

use super::{Report, Said, show, table};
use crate::vm::{self, Kernel};
use crate::{build, workspace};

/// The document, below the top of the checkout.
const DOCUMENT: &str = "docs/KERNELS.md";
/// As it was when this was built: a guest has no checkout.
const TOLD: &str = include_str!("../../../docs/KERNELS.md");
/// Where the object lies in a guest.
const OBJECT: &str = "/mwb-object";
/// What the guest's side is called there.
const PROGRAM: &str = "/usr/bin/xtask";
/// Kernels of the document's table.
const COLUMNS: [&str; 3] = ["6.1", "6.12", "6.18"];

/// Asks the kernels one by one, shows what they say, and writes it down if it
/// ought to. One that cannot be had is told, and makes it fail: it was asked for.
pub(super) fn command(kernels: &[Kernel], write: bool) -> Result<ExitCode> {
    if write {
        // What is written replaces the table: no column of it may be lost.
        let asked: Vec<String> = kernels.iter().map(Kernel::to_string).collect();
        let missing = COLUMNS.iter().find(|column| !asked.iter().any(|kernel| kernel == *column));
        if let Some(missing) = missing {
            bail!("{DOCUMENT} has Linux {missing} too: --kernel {}", COLUMNS.join(","));
        }
    }
    let object = build::artifacts()?.objects_dir.join(build::OBJECT);
    let mut found = table::Series::new();
    let mut all = true;
    for kernel in kernels {
        match ask(kernel, &object) {
            Ok(report) => {
                show(&report);
                found.push((kernel.to_string(), report));
            }
            Err(error) => {
                let Some(why) = vm::why_unavailable(&error) else {
                    return Err(error.context(format!("Linux {kernel}")));
                };
                println!("Linux {kernel}: skipped: {why}");
                all = false;
            }
        }
        println!();
    }
    if write {
        ensure!(all, "{DOCUMENT} stays as it is: a column of it is missing");
        let path = workspace::root()?.join(DOCUMENT);
        let document =
            std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        std::fs::write(&path, table::write(&document, &found)?)
            .with_context(|| path.display().to_string())?;
        println!("{DOCUMENT} is written");
    }
    let code = super::exit_code(found.iter().flat_map(|(_, report)| &report.programs));
    Ok(if code == ExitCode::SUCCESS && !all { ExitCode::FAILURE } else { code })
}

fn ask(kernel: &Kernel, object: &Path) -> Result<Report> {
    let program = std::env::current_exe().context("this program has no path")?;
    let files = vec![(program, PROGRAM.to_owned()), (object.to_owned(), OBJECT.to_owned())];
    let text = vm::output(kernel, files, &[PROGRAM, "verify", "--json", "--object", OBJECT])?;
    serde_json::from_str(&text).with_context(|| format!("the guest says:\n{text}"))
}

/// Why a program is not as it ought to be: not in the object, refused, over the
/// budget, or not as the document has it.
#[must_use]
pub fn fault(report: &Report, program: &str) -> Option<String> {
    let Some(one) = report.programs.iter().find(|one| one.program == program) else {
        return Some("the object has no such program".to_owned());
    };
    if !one.fits() {
        return Some(one.to_string());
    }
    let series = report.kernel.split('.').take(2).collect::<Vec<_>>().join(".");
    let theirs = table::compiler(TOLD).unwrap_or_default();
    match (&one.said, table::told(TOLD, program, &series)) {
        (Said::Instructions(now), Some(told))
            if table::differs(told, *now, report.compiler == theirs) =>
        {
            Some(format!(
                "{now} instructions by {}, and {DOCUMENT} has {told} by {theirs}: write it again \
                 with `cargo xtask verify --kernel … --write`",
                report.compiler
            ))
        }
        (_, None) if table::has(TOLD, &series) => {
            Some(format!("{DOCUMENT} does not have it on Linux {series}"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Measured;
    use super::*;

    #[test]
    fn the_document_has_every_program_on_every_kernel() {
        for program in super::super::programs() {
            for column in COLUMNS {
                let told = table::told(TOLD, program, column);
                assert!(told.is_some(), "{program} on Linux {column} is not in {DOCUMENT}");
            }
        }
        for row in table::rows(TOLD) {
            assert!(super::super::programs().any(|program| program == row), "{row} is gone");
        }
        for promised in crate::vm::PROMISED {
            assert!(COLUMNS.contains(&promised), "Linux {promised}");
        }
    }

    #[test]
    fn a_program_is_held_to_the_document_on_the_kernels_that_it_has() {
        let theirs = table::compiler(TOLD).unwrap_or_default();
        assert!(theirs.starts_with("rustc "), "the document names no compiler: {theirs}");
        let fault = |program: &str, count, kernel: &str, compiler: &str| {
            let said = Said::Instructions(count);
            let programs = vec![Measured { program: program.to_owned(), said }];
            let (kernel, compiler) = (kernel.to_owned(), compiler.to_owned());
            let report = Report { kernel, compiler, limit: 0, budget: 0, programs };
            fault(&report, program)
        };
        let (old, other) = ("6.1.0-1-amd64", "rustc 0.1.0");
        let told = table::told(TOLD, "inside_tc", "6.1").unwrap_or_default();
        assert!(told > 0, "the document has the oldest kernel");
        assert_eq!(fault("inside_tc", told, old, theirs), None);
        // A fifth more: too much of the same compiler, and not of another.
        assert!(fault("inside_tc", told * 6 / 5, old, theirs).is_some());
        assert_eq!(fault("inside_tc", told * 6 / 5, old, other), None);
        assert!(fault("inside_tc", told * 2, old, other).is_some());
        assert!(fault("new_one", told, old, other).is_some());
        assert_eq!(fault("new_one", told, "9.9.9", theirs), None);
        assert!(fault("inside_tc", 250_001, "9.9.9", theirs).is_some());
    }
}
