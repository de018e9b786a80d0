//! Pieces of work for one guest each, and how what a guest prints becomes
//! outcomes. Starts nothing.

use std::collections::VecDeque;
use std::time::Instant;

use super::cache::Kernel;
use super::ending::Ending;
use super::guest::Stream;
use super::inside::Told;
use crate::build::TestBinary;
use crate::outcome::{Outcome, Verdict};
use crate::test::VERIFY;
use crate::test::libtest::{self, Reading};

/// Tests of the lab in one guest.
const LAB_PIECE: usize = 8;
/// Tests of an executable that walk through the kernel, in one guest.
const KERNEL_PIECE: usize = 16;
/// Other tests in one guest.
const UNIT_PIECE: usize = 100;
/// Lines of what a test printed that are shown.
const SHOWN: usize = 200;

/// What is run in one guest.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    /// Its kernel.
    pub(super) kernel: Kernel,
    /// Whose tests they are.
    pub(super) source: Source,
    /// Their names, as their source knows them.
    pub(super) tests: Vec<String>,
}

/// Where tests come from.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// A test executable.
    Binary(TestBinary),
    /// This program: the lab, and programs before the verifier.
    Inside,
    /// The host: what becomes of guests that come to a bad end. The executable
    /// has the test that fails when it is told to.
    Proof(TestBinary),
}

impl Source {
    /// What is run in the guest.
    fn name(&self) -> &str {
        match self {
            Self::Binary(binary) | Self::Proof(binary) => &binary.name,
            Self::Inside => "xtask",
        }
    }

    /// A test's name on every kernel.
    pub(super) fn full_name(&self, test: &str) -> String {
        match self {
            Self::Binary(binary) => libtest::full_name(&binary.name, test),
            Self::Inside | Self::Proof(_) => test.to_owned(),
        }
    }
}

impl Piece {
    /// Those of its tests that a guest left over, for another one; none if the guest
    /// began none of them: no other would come further.
    pub(super) fn for_another(&self, rest: &[String]) -> Option<Self> {
        let came_far = rest.len() < self.tests.len();
        (came_far && !rest.is_empty()).then(|| Self { tests: rest.to_vec(), ..self.clone() })
    }

    /// Names what the guest's kernel says beside these tests.
    pub(super) fn name_of_kernel_log(&self) -> String {
        let name =
            |test: Option<&String>| self.source.full_name(test.map_or("no test", String::as_str));
        format!("kernel-log/{}..{}", name(self.tests.first()), name(self.tests.last()))
    }
}

/// Divides `tests` into pieces for guests of their own.
pub(super) fn divide(kernel: &Kernel, source: &Source, tests: &[String]) -> Vec<Piece> {
    let size = match source {
        Source::Binary(binary) if binary.name.contains("/tests/") => KERNEL_PIECE,
        Source::Binary(_) => UNIT_PIECE,
        // One look at the object tells of all programs.
        Source::Inside if tests.first().is_some_and(|test| test.starts_with(VERIFY)) => usize::MAX,
        Source::Inside => LAB_PIECE,
        Source::Proof(_) => 1,
    };
    tests
        .chunks(size)
        .map(|tests| Piece {
            kernel: kernel.clone(),
            source: source.clone(),
            tests: tests.to_vec(),
        })
        .collect()
}

/// Reads what one guest prints.
pub(super) struct Reader<'a> {
    piece: &'a Piece,
    start: Instant,
    out: Vec<u8>,
    errors: Vec<u8>,
    harness: Reading,
    began: Option<String>,
    ended: Vec<Outcome>,
    /// What came since a test began, and does not say how it ended.
    printed: VecDeque<String>,
}

impl<'a> Reader<'a> {
    /// Reads for this piece.
    pub(super) fn new(piece: &'a Piece) -> Self {
        Self {
            piece,
            start: Instant::now(),
            out: Vec::new(),
            errors: Vec::new(),
            harness: Reading::default(),
            began: None,
            ended: Vec::new(),
            printed: VecDeque::new(),
        }
    }

    /// Takes what came.
    pub(super) fn take(&mut self, stream: Stream, bytes: &[u8]) {
        let buffer = match stream {
            Stream::Out => &mut self.out,
            Stream::Errors => &mut self.errors,
        };
        buffer.extend_from_slice(bytes);
        let end = buffer.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        let whole: Vec<u8> = buffer.drain(..end).collect();
        for line in String::from_utf8_lossy(&whole).lines() {
            self.line(stream, line.trim_end_matches('\r'));
        }
    }

    fn line(&mut self, stream: Stream, line: &str) {
        match (&self.piece.source, stream) {
            (Source::Binary(_), Stream::Out) => {
                self.harness.line(line, self.start.elapsed().as_secs_f64());
            }
            (Source::Inside, Stream::Out) => match Told::read(line) {
                Some(Told::Began(name)) => {
                    self.printed.clear();
                    self.began = Some(name);
                }
                Some(Told::Ended(outcome)) => self.end(outcome),
                None => self.print(line),
            },
            _ => self.print(line),
        }
    }

    fn print(&mut self, line: &str) {
        self.printed.push_back(line.to_owned());
        if self.printed.len() > SHOWN {
            self.printed.pop_front();
        }
    }

    fn end(&mut self, mut outcome: Outcome) {
        self.began = None;
        if let Verdict::Failed(why) = &mut outcome.result {
            *why = self.with_printed(why);
        }
        self.ended.push(outcome);
    }

    /// `why`, and the last lines of what was printed: a test's, or QEMU's own.
    fn with_printed(&self, why: &str) -> String {
        let lines = self.printed.iter().filter(|line| !line.is_empty());
        std::iter::once(why.trim_end())
            .chain(lines.map(String::as_str))
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// What became of the piece's tests, and those that have not begun because
    /// the guest had come to its `ending`, or to none; `why` tells that end. A mishap has
    /// an outcome of its own if it came between two tests, or behind the last, and so has
    /// an exit code that no test explains.
    pub(super) fn finish(
        mut self,
        why: &str,
        ending: Option<&Ending>,
    ) -> (Vec<Outcome>, Vec<String>) {
        let piece = self.piece;
        let (mut outcomes, rest) = self.tests(why);
        let end = self.with_printed(why);
        let told =
            |one: &Outcome| matches!(&one.result, Verdict::Failed(text) if text.contains(why));
        match ending {
            Some(ending) if ending.is_mishap() && !outcomes.iter().any(told) => {
                outcomes.push(Outcome {
                    name: piece.name_of_kernel_log(),
                    result: Verdict::Failed(end),
                    seconds: 0.0,
                });
            }
            Some(Ending::Code(1..)) => {
                outcomes.extend(libtest::bad_end(piece.source.name(), &outcomes, &end));
            }
            _ => {}
        }
        (outcomes, rest)
    }

    fn tests(&mut self, why: &str) -> (Vec<Outcome>, Vec<String>) {
        for stream in [Stream::Out, Stream::Errors] {
            self.take(stream, b"\n");
        }
        let tests = &self.piece.tests;
        match &self.piece.source {
            Source::Binary(binary) => {
                let rest = self.harness.rest(tests);
                let begun: Vec<String> =
                    tests.iter().filter(|test| !rest.contains(test)).cloned().collect();
                let end = self.with_printed(why);
                (std::mem::take(&mut self.harness).finish(&binary.name, &begun, &end), rest)
            }
            Source::Inside | Source::Proof(_) => {
                if let Some(name) = self.began.take() {
                    let result = Verdict::Failed(self.with_printed(why));
                    let seconds = self.start.elapsed().as_secs_f64();
                    self.ended.push(Outcome { name, result, seconds });
                }
                let rest: Vec<String> = tests
                    .iter()
                    .filter(|test| !self.ended.iter().any(|outcome| outcome.name == **test))
                    .cloned()
                    .collect();
                (std::mem::take(&mut self.ended), rest)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn piece(source: Source, tests: &[&str]) -> Result<Piece, String> {
        let tests = tests.iter().map(ToString::to_string).collect();
        Ok(Piece { kernel: "6.12".parse()?, source, tests })
    }

    fn binary() -> Source {
        Source::Binary(TestBinary {
            name: "p/tests/t".into(),
            executable: "/x".into(),
            directory: "/".into(),
        })
    }

    #[test]
    fn a_test_that_takes_the_guest_down_has_failed_and_the_rest_go_on_elsewhere()
    -> Result<(), String> {
        let piece = piece(binary(), &["one", "two", "three"])?;
        let mut reader = Reader::new(&piece);
        reader.take(Stream::Out, b"running 3 tests\ntest one ... ok\ntest tw");
        reader.take(Stream::Out, b"o ... ");
        reader.take(Stream::Errors, b"and then\n");
        let (outcomes, rest) = reader.finish("the guest's kernel panicked", Some(&Ending::Panic));
        assert_eq!(outcomes[0].name, "p/tests/t::one");
        assert_eq!(outcomes[0].result, Verdict::Passed);
        let Verdict::Failed(why) = &outcomes[1].result else { panic!("{outcomes:?}") };
        assert!(why.contains("panicked") && why.contains("and then"), "{why}");
        assert_eq!((outcomes.len(), rest), (2, vec!["three".to_owned()]));
        Ok(())
    }

    #[test]
    fn a_test_of_the_lab_fails_with_what_it_said_and_printed() -> Result<(), String> {
        let piece = piece(Source::Inside, &["e2e/a", "e2e/b", "e2e/c"])?;
        let mut reader = Reader::new(&piece);
        let began = |name| format!("mwb-test: {{\"began\":\"{name}\"}}\n");
        reader.take(Stream::Out, began("e2e/a").as_bytes());
        reader.take(Stream::Errors, b"thread panicked at x\n");
        reader.take(
            Stream::Out,
            b"mwb-test: {\"ended\":{\"name\":\"e2e/a\",\"result\":{\"Failed\":\"no ping\"},\"seconds\":1.0}}\n",
        );
        reader.take(Stream::Out, began("e2e/b").as_bytes());
        let hung = Ending::TimedOut(Duration::from_secs(1));
        let (outcomes, rest) = reader.finish("the guest hung", Some(&hung));
        let why = |n: usize| match &outcomes[n].result {
            Verdict::Failed(why) => why.clone(),
            other => format!("{other:?}"),
        };
        assert_eq!(why(0), "no ping\nthread panicked at x");
        assert!(why(1).starts_with("the guest hung"), "{}", why(1));
        assert_eq!(rest, ["e2e/c"]);
        Ok(())
    }

    #[test]
    fn a_guest_that_goes_down_between_tests_or_behind_the_last_is_a_failure() -> Result<(), String>
    {
        let ended = |name| {
            format!(
                "mwb-test: {{\"ended\":{{\"name\":\"{name}\",\"result\":\"Passed\",\"seconds\":1.0}}}}\n"
            )
        };
        for (tests, left) in [(vec!["e2e/a", "e2e/b"], 1), (vec!["e2e/a"], 0)] {
            let piece = piece(Source::Inside, &tests)?;
            for (ending, failures) in
                [(Some(Ending::Off), 1), (Some(Ending::Code(0)), 0), (None, 0)]
            {
                let mut reader = Reader::new(&piece);
                reader.take(Stream::Out, ended("e2e/a").as_bytes());
                let (outcomes, rest) = reader.finish("the guest went off", ending.as_ref());
                assert_eq!((outcomes.len(), rest.len()), (1 + failures, left));
                assert_eq!(outcomes[0].result, Verdict::Passed);
                let failed = Verdict::Failed("the guest went off".to_owned());
                assert!(outcomes[1..].iter().all(|one| one.result == failed), "{outcomes:?}");
            }
        }
        Ok(())
    }

    #[test]
    fn a_guest_that_begins_no_test_is_not_tried_again_and_again() -> Result<(), String> {
        for source in [binary(), Source::Inside] {
            let piece = piece(source, &["e2e/a", "e2e/b"])?;
            let mut reader = Reader::new(&piece);
            reader.take(Stream::Errors, b"qemu: Cannot allocate memory\n");
            let (outcomes, rest) = reader.finish("QEMU failed", Some(&Ending::Qemu("1".into())));
            assert_eq!((outcomes.len(), rest.len()), (1, 2), "{outcomes:?}");
            let failed = "QEMU failed\nqemu: Cannot allocate memory".to_owned();
            assert_eq!(outcomes[0].result, Verdict::Failed(failed));
            assert!(piece.for_another(&rest).is_none());
            let last = piece.for_another(&rest[1..]).ok_or("one came to nothing")?;
            assert_eq!(last.tests, ["e2e/b"]);
            assert!(piece.for_another(&[]).is_none());
        }
        Ok(())
    }

    #[test]
    fn an_exit_code_that_no_test_explains_is_a_failure_of_what_ran() -> Result<(), String> {
        let end = |printed: &str, code| -> Result<Vec<Outcome>, String> {
            let piece = piece(binary(), &["one"])?;
            let mut reader = Reader::new(&piece);
            reader.take(Stream::Out, printed.as_bytes());
            Ok(reader.finish("exit code", Some(&Ending::Code(code))).0)
        };
        let found = end("test one ... a child says ok\nFAILED\n", 101)?;
        assert_eq!((found.len(), found[1].name.as_str()), (2, "p/tests/t"));
        assert_eq!(end("test one ... FAILED\n", 101)?.len(), 1);
        assert_eq!(end("test one ... ok\n", 0)?.len(), 1);
        assert_eq!(end("", 127)?.len(), 1);
        Ok(())
    }

    #[test]
    fn every_test_is_in_one_piece() -> Result<(), String> {
        let names: Vec<String> = (0..40).map(|n| n.to_string()).collect();
        let kernel = "6.1".parse()?;
        let Source::Binary(tests) = binary() else { return Err("no executable".to_owned()) };
        for source in [binary(), Source::Inside, Source::Proof(tests)] {
            let pieces = divide(&kernel, &source, &names);
            let all: Vec<String> = pieces.into_iter().flat_map(|piece| piece.tests).collect();
            assert_eq!(all, names);
        }
        Ok(())
    }
}
