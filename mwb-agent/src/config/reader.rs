//! Strict access to a [`Node`]: each read names what it expects, and what is
//! not as expected becomes a [`Fault`] that knows where it is and what would
//! be right. Must not know: what the keys mean.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::node::{Node, Step, Target};
use super::schema::{SECTIONS, Section};
use super::units;

/// What is wrong with a part of the tree.
pub(super) struct Fault {
    pub(super) steps: Vec<Step>,
    pub(super) target: Target,
    pub(super) key: String,
    pub(super) message: String,
    pub(super) fix: Option<String>,
}

/// A value and the way to it.
#[derive(Clone)]
pub(super) struct Cursor<'n> {
    node: &'n Node,
    steps: Vec<Step>,
    key: String,
}

/// The keys of a section, each known and given once.
pub(super) struct Fields<'n> {
    section: &'static Section,
    at: Cursor<'n>,
    given: Vec<(&'static str, Cursor<'n>)>,
}

impl<'n> Cursor<'n> {
    /// The whole file.
    pub(super) fn root(node: &'n Node) -> Self {
        Self { node, steps: Vec::new(), key: String::new() }
    }

    /// This value is wrong.
    pub(super) fn fault(&self, message: impl Into<String>, fix: impl Into<String>) -> Fault {
        self.fault_at(Target::Value, message.into(), Some(fix.into()))
    }

    /// The key should not be there at all.
    pub(super) fn key_fault(&self, message: impl Into<String>, fix: impl Into<String>) -> Fault {
        self.fault_at(Target::Key, message.into(), Some(fix.into()))
    }

    fn fault_at(&self, target: Target, message: String, fix: Option<String>) -> Fault {
        Fault { steps: self.steps.clone(), target, key: self.key.clone(), message, fix }
    }

    /// The value as it may be shown in a message.
    pub(super) fn show(&self) -> String {
        self.node.show()
    }

    /// Whether the value is a set of keys.
    pub(super) fn is_map(&self) -> bool {
        matches!(self.node, Node::Map(_))
    }

    /// Whether the value is a list.
    pub(super) fn is_list(&self) -> bool {
        matches!(self.node, Node::List(_))
    }

    /// Whether the value is a whole number.
    pub(super) fn is_integer(&self) -> bool {
        matches!(self.node, Node::Integer(_))
    }

    /// The value as a set of the section's keys.
    pub(super) fn fields(&self, section: &'static Section) -> Result<Fields<'n>, Fault> {
        let Node::Map(entries) = self.node else {
            return Err(self.unexpected("a set of keys", section.example));
        };
        let mut given: Vec<(&'static str, Cursor<'n>)> = Vec::new();
        for (index, (key, node)) in entries.iter().enumerate() {
            let word = key.show();
            let entry = self.entry(index, &word, node);
            let Some(known) = section.keys.iter().find(|known| **known == word) else {
                return Err(entry.unknown_key(section, &word));
            };
            if given.iter().any(|(other, _)| other == known) {
                return Err(entry.fault_at(
                    Target::Key,
                    format!("`{word}` is given twice"),
                    Some("remove one of the two".to_owned()),
                ));
            }
            if *node == Node::Null {
                return Err(entry.fault_at(
                    Target::Key,
                    format!("`{word}` has no value"),
                    Some("give it one, or remove the key".to_owned()),
                ));
            }
            given.push((known, entry));
        }
        Ok(Fields { section, at: self.clone(), given })
    }

    /// The value as a list.
    pub(super) fn items(&self, example: &str) -> Result<Vec<Cursor<'n>>, Fault> {
        let Node::List(items) = self.node else {
            return Err(self.unexpected("a list", example));
        };
        Ok(items.iter().enumerate().map(|(index, node)| self.item(index, node)).collect())
    }

    /// The value as text.
    pub(super) fn text(&self, example: &str) -> Result<&'n str, Fault> {
        match self.node {
            Node::Text(text) => Ok(text),
            Node::Bool(_) | Node::Integer(_) | Node::Float(_) => Err(self.fault(
                format!("`{}` is {} here, expected text", self.show(), self.node.kind()),
                format!("put it in quotes: \"{}\"", self.show()),
            )),
            _ => Err(self.unexpected("text", example)),
        }
    }

    /// The value as what `parse` makes of its text; `what` names it with its
    /// article.
    pub(super) fn parsed<T>(
        &self,
        what: &str,
        example: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, Fault> {
        let fix = format!("write it like {example}");
        match self.node {
            Node::Text(text) => parse(text)
                .ok_or_else(|| self.fault(format!("`{}` is not {what}", self.show()), fix)),
            Node::Bool(_) | Node::Integer(_) | Node::Float(_) => {
                Err(self.fault(format!("`{}` is not {what}", self.show()), fix))
            }
            _ => Err(self.unexpected(what, example)),
        }
    }

    /// The value as `true` or `false`.
    pub(super) fn boolean(&self) -> Result<bool, Fault> {
        match self.node {
            Node::Bool(value) => Ok(*value),
            Node::Text(_) | Node::Integer(_) | Node::Float(_) => Err(self
                .fault(format!("`{}` is not true or false", self.show()), "write true or false")),
            _ => Err(self.unexpected("true or false", "true")),
        }
    }

    /// The value as a whole number in `range`.
    pub(super) fn integer(&self, range: &RangeInclusive<u32>) -> Result<u32, Fault> {
        let &Node::Integer(value) = self.node else {
            return Err(self.fault(
                format!("`{}` is not a whole number", self.show()),
                format!("write a number from {} to {}", range.start(), range.end()),
            ));
        };
        let value = u32::try_from(value).ok().filter(|value| range.contains(value));
        value.ok_or_else(|| self.out_of_range(range, u32::to_string))
    }

    /// The value as a time in `range`.
    pub(super) fn duration(&self, range: &RangeInclusive<Duration>) -> Result<Duration, Fault> {
        self.check_unit(&["ms", "s"])?;
        let value = self.parsed("a time", "200ms, 5s or 2h4m", units::parse_duration)?;
        self.within(value, range, |value| units::show_duration(*value))
    }

    /// The value as a rate in bit/s in `range`.
    pub(super) fn rate(&self, range: &RangeInclusive<u64>) -> Result<u64, Fault> {
        self.check_unit(&["kbit", "mbit"])?;
        let value = self.parsed("a rate", "500kbit, 40mbit or 1.5gbit", units::parse_rate)?;
        self.within(value, range, |value| units::show_rate(*value))
    }

    /// The value as a number of bytes in `range`.
    pub(super) fn size(&self, range: &RangeInclusive<u64>) -> Result<u64, Fault> {
        self.check_unit(&["kB", "MB"])?;
        let value = self.parsed("a size", "500kB, 5MB or 1.5GB", units::parse_size)?;
        self.within(value, range, |value| units::show_size(*value))
    }

    /// The value as a percentage in `range`, as parts of one.
    pub(super) fn percent(&self, range: &RangeInclusive<f64>) -> Result<f64, Fault> {
        let value = self.parsed("a percentage", "5%", units::parse_percent)?;
        self.within(value, range, |value| units::show_percent(*value))
    }

    /// The value as one of `words`; `later` are words of later versions.
    pub(super) fn word<T: Copy>(&self, words: &[(&str, T)], later: &[&str]) -> Result<T, Fault> {
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let text = self.text(known.first().copied().unwrap_or_default())?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Ok(*value);
        }
        if later.contains(&text) {
            return Err(self.fault(
                format!("`{text}` is not in this version"),
                format!("use {}", list(&known)),
            ));
        }
        let fix = match similar(text, &known) {
            Some(word) => format!("did you mean `{word}`?"),
            None => format!("use {}", list(&known)),
        };
        Err(self.fault(format!("unknown value `{}`", self.show()), fix))
    }

    /// A bare number is the likeliest slip; the fix shows that number.
    fn check_unit(&self, units: &[&str]) -> Result<(), Fault> {
        let number = self.show();
        if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
            return Ok(());
        }
        let with_units: Vec<String> = units.iter().map(|unit| format!("{number}{unit}")).collect();
        Err(self.fault(
            format!("`{number}` has no unit"),
            format!("write it like {}", list(&with_units)),
        ))
    }

    /// What was read, if it is in `range`.
    pub(super) fn within<T: PartialOrd>(
        &self,
        value: T,
        range: &RangeInclusive<T>,
        show: impl Fn(&T) -> String,
    ) -> Result<T, Fault> {
        if range.contains(&value) { Ok(value) } else { Err(self.out_of_range(range, show)) }
    }

    fn out_of_range<T>(&self, range: &RangeInclusive<T>, show: impl Fn(&T) -> String) -> Fault {
        self.fault(
            format!("`{}` is out of range", self.show()),
            format!("choose from {} to {}", show(range.start()), show(range.end())),
        )
    }

    fn unexpected(&self, what: &str, example: &str) -> Fault {
        self.fault(
            format!("this is {}, expected {what}", self.node.kind()),
            format!("write it like {example}"),
        )
    }

    fn unknown_key(&self, section: &Section, word: &str) -> Fault {
        if section.later.contains(&word) {
            return self.fault_at(
                Target::Key,
                format!("`{word}` is not in this version"),
                Some("remove it".to_owned()),
            );
        }
        // A key that exists elsewhere is more likely misplaced than misspelt.
        let home = |top: bool| {
            let mut others = SECTIONS.iter().filter(|other| other.path.is_empty() == top);
            others.find(|other| other.keys.contains(&word))
        };
        let home = home(false).or_else(|| home(true));
        let fix = match (similar(word, section.keys), home) {
            (Some(near), _) => format!("did you mean `{near}`?"),
            (None, Some(home)) if home.path.is_empty() => {
                "it belongs at the top of the file".to_owned()
            }
            (None, Some(home)) => format!("it belongs to `{}`", home.path),
            (None, None) => format!("the keys here are {}", list(section.keys)),
        };
        self.fault_at(Target::Key, format!("unknown key `{word}`"), Some(fix))
    }

    fn entry(&self, index: usize, word: &str, node: &'n Node) -> Self {
        let key =
            if self.key.is_empty() { word.to_owned() } else { format!("{}.{word}", self.key) };
        self.step(Step::Entry(index), key, node)
    }

    fn item(&self, index: usize, node: &'n Node) -> Self {
        self.step(Step::Item(index), format!("{}[{index}]", self.key), node)
    }

    fn step(&self, step: Step, key: String, node: &'n Node) -> Self {
        let mut steps = self.steps.clone();
        steps.push(step);
        Self { node, steps, key }
    }
}

impl<'n> Fields<'n> {
    /// The value of a key, if it is given.
    pub(super) fn get(&self, key: &str) -> Option<&Cursor<'n>> {
        debug_assert!(self.section.keys.contains(&key), "{key} is not in the schema");
        self.given.iter().find(|(name, _)| *name == key).map(|(_, cursor)| cursor)
    }

    /// The section as a whole is wrong.
    pub(super) fn fault(&self, message: impl Into<String>, fix: impl Into<String>) -> Fault {
        self.at.fault(message, fix)
    }

    /// The value of a key that must be there.
    pub(super) fn required(&self, key: &str) -> Result<&Cursor<'n>, Fault> {
        self.get(key).ok_or_else(|| {
            self.at.fault(
                format!("the key `{key}` is missing"),
                format!("add it, like {}", self.section.example),
            )
        })
    }

    /// What `read` makes of a key's value, or `default` where it is not given.
    pub(super) fn or<T>(
        &self,
        key: &str,
        default: T,
        read: impl FnOnce(&Cursor<'n>) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        self.get(key).map_or(Ok(default), read)
    }

    /// The keys of a section inside, none if it is not given.
    pub(super) fn section(
        &self,
        key: &str,
        section: &'static Section,
    ) -> Result<Fields<'n>, Fault> {
        match self.get(key) {
            Some(cursor) => cursor.fields(section),
            None => Ok(Fields { section, at: self.at.clone(), given: Vec::new() }),
        }
    }
}

/// The known word that was probably meant.
fn similar<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let distance = |other: &str| strsim::damerau_levenshtein(word, other);
    let nearest = known.iter().copied().min_by_key(|other| distance(other))?;
    // A third of the word may be wrong; more is another word.
    (distance(nearest) <= nearest.chars().count().div_ceil(3)).then_some(nearest)
}

/// `a`, `b` or `c`.
fn list<W: Display>(words: &[W]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => String::new(),
    }
}
