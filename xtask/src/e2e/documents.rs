//! The table of NAT requirements names tests that exist, and one for each ✅.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::{PREFIX, cases};

const DOCUMENT: &str = include_str!("../../../docs/nat-compliance.md");

/// What a requirement may be: met, in part, not, not applicable.
const MARKS: [&str; 4] = ["✅", "⚠️", "❌", "–"];

/// What is above the names of tests.
const HEADING: &str = "test";

/// The names of the tests in a source file.
fn tests_in(source: &str) -> Vec<String> {
    let mut tests = Vec::new();
    let mut is_test = false;
    for line in source.lines().map(str::trim) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if let Some((before, rest)) = line.split_once("fn ")
            && ["", "async "].contains(&before)
        {
            tests.extend(rest.split_once('(').filter(|_| is_test).map(|(name, _)| name.to_owned()));
            is_test = false;
        }
    }
    tests
}

/// The names of all tests under a directory.
fn tests_under(directory: &Path, tests: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            tests_under(&path, tests);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            tests.extend(tests_in(&fs::read_to_string(&path).expect("a source file")));
        }
    }
}

/// Every test that a document may name: those of the lab with and without the
/// hook that they use, and those of the sources.
fn known_tests() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let mut tests = BTreeSet::new();
    for room in ["mwb-agent", "mwb-common", "xtask"] {
        for place in ["src", "tests"].map(|place| root.join(room).join(place)) {
            if place.is_dir() {
                tests_under(&place, &mut tests);
            }
        }
    }
    for case in cases() {
        let name = case.name();
        let bare = ["_by_xdp", "_by_tcx"].iter().find_map(|hook| name.strip_suffix(hook));
        tests.extend(bare.map(str::to_owned));
        tests.insert(name.to_owned());
    }
    tests
}

/// The words in backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// What is wrong in a document, and how many rows it has: `| requirement | mark |
/// how | tests |`.
fn faults(document: &str, tests: &BTreeSet<String>) -> (Vec<String>, usize) {
    let (mut faults, mut rows) = (Vec::new(), 0);
    for (line, number) in document.lines().zip(1..) {
        let mut fault = |what: String| faults.push(format!("line {number}: {what}"));
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        if let ["", requirement, mark, _, proof, ""] = cells.as_slice()
            && !requirement.starts_with("---")
            && *proof != HEADING
        {
            rows += 1;
            let named: Vec<&str> = quoted(proof).collect();
            if !MARKS.contains(mark) {
                fault(format!("`{mark}` is no mark"));
            }
            if *mark == "✅" && named.is_empty() {
                fault(format!("`{requirement}` names no test"));
            }
            for name in named.iter().filter(|name| !tests.contains(**name)) {
                fault(format!("there is no test `{name}`"));
            }
        } else if line.starts_with('|') && MARKS.iter().any(|mark| line.contains(mark)) {
            fault("a row has four cells".to_owned());
        }
        for name in quoted(line).filter(|name| name.starts_with(PREFIX) && *name != "e2e/NAME") {
            if !tests.contains(name) {
                fault(format!("there is no test `{name}` of the lab"));
            }
        }
    }
    (faults, rows)
}

#[test]
fn every_nat_requirement_that_is_met_names_tests_that_exist() {
    let (faults, rows) = faults(DOCUMENT, &known_tests());
    assert!(faults.is_empty(), "docs/nat-compliance.md:\n{}", faults.join("\n"));
    assert!(rows > 100, "only {rows} rows were read");
}

#[test]
fn a_wrong_table_is_found_out() {
    let tests = tests_in(
        "    #[test]\n    fn one_is_one() {}\n    fn two() {}\n#[tokio::test]\nasync fn three() {}",
    );
    assert_eq!(tests, ["one_is_one", "three"]);
    let tests = tests.into_iter().collect();
    let wrong = |row: &str| faults(row, &tests).0.len();
    assert_eq!(wrong("| a | ✅ | how | `one_is_one`, `three` |"), 0);
    assert_eq!(wrong("| a | – | there are none | |"), 0);
    assert_eq!(wrong("| a | ✅ | how | |"), 1);
    assert_eq!(wrong("| a | ✅ | how | `two` |"), 1);
    assert_eq!(wrong("| a | yes | how | |"), 1);
    assert_eq!(wrong("| a | ✅ | `one_is_one` |"), 1);
    assert_eq!(wrong("as `e2e/nothing` says"), 1);
}
