//! What is wrong with a configuration file, where, and how to mend it.

use std::fmt;
use std::ops::Deref;

use super::node::{self, SyntaxError};
use super::reader::Fault;

/// Where in the file: both from 1, the column in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

/// The first thing that is wrong with a configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(Box<Problem>);

/// What a [`ConfigError`] tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file as it was named.
    pub file: String,
    /// Where; `None` if the file could not be read at all.
    pub position: Option<Position>,
    /// Path of the key, such as `wans[1].name`; empty for the whole file.
    pub key: String,
    /// What is wrong, the offending value included.
    pub message: String,
    /// What to write instead.
    pub fix: Option<String>,
    /// The line it is on, for [`ConfigError::render`].
    pub source_line: Option<String>,
}

impl ConfigError {
    pub(super) fn unreadable(file: &str, error: &std::io::Error) -> Self {
        Self(Box::new(Problem {
            file: file.to_owned(),
            position: None,
            key: String::new(),
            message: format!("cannot be read: {error}"),
            fix: None,
            source_line: None,
        }))
    }

    pub(super) fn syntax(file: &str, text: &str, error: SyntaxError) -> Self {
        Self(Box::new(Problem {
            file: file.to_owned(),
            position: Some(error.position),
            key: String::new(),
            message: format!("not valid YAML: {}", error.message),
            fix: None,
            source_line: line(text, error.position),
        }))
    }

    pub(super) fn semantic(file: &str, text: &str, fault: Fault) -> Self {
        let position = node::locate(text, &fault.steps, fault.target);
        Self(Box::new(Problem {
            file: file.to_owned(),
            position: Some(position),
            key: fault.key,
            message: fault.message,
            fix: fault.fix,
            source_line: line(text, position),
        }))
    }

    /// Several lines for a terminal: the message, the source line with a caret
    /// under the place, and the fix.
    #[must_use]
    pub fn render(&self) -> String {
        let mut out = format!("{}: {}", self.place(), self.what());
        if let (Some(position), Some(source)) = (self.position, &self.source_line) {
            let number = position.line.to_string();
            let gutter = " ".repeat(number.len());
            // Tabs are kept so that the caret stands under the right character.
            let indent: String = source
                .chars()
                .take(position.column.saturating_sub(1))
                .map(|c| if c == '\t' { '\t' } else { ' ' })
                .collect();
            out.push_str(&format!("\n{number} | {source}\n{gutter} | {indent}^"));
        }
        if let Some(fix) = &self.fix {
            out.push_str(&format!("\nfix: {fix}"));
        }
        out
    }

    fn what(&self) -> String {
        if self.key.is_empty() {
            return self.message.clone();
        }
        format!("{}: {}", self.key, self.message)
    }

    fn place(&self) -> String {
        match self.position {
            Some(Position { line, column }) => format!("{}:{line}:{column}", self.file),
            None => self.file.clone(),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place(), self.what())?;
        match &self.fix {
            Some(fix) => write!(f, "; {fix}"),
            None => Ok(()),
        }
    }
}

impl Deref for ConfigError {
    type Target = Problem;

    fn deref(&self) -> &Problem {
        &self.0
    }
}

impl std::error::Error for ConfigError {}

/// A line as the YAML library counts them: it ends them at more characters
/// than [`str::lines`] does.
fn line(text: &str, position: Position) -> Option<String> {
    let text = text.replace("\r\n", "\n");
    let mut lines = text.split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']);
    let line = lines.nth(position.line.checked_sub(1)?)?;
    // It goes to a terminal.
    let printable = |c: char| if c.is_control() && c != '\t' { '\u{fffd}' } else { c };
    Some(line.chars().map(printable).collect())
}
