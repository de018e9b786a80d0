//! The file as a tree, and where a part of the tree stands in the text. The
//! only module that knows the YAML library.
//!
//! The library tells positions only with its errors. So the tree is read
//! without positions, and when a part of it turns out to be wrong the text is
//! walked once more to that part, where the walk fails on purpose.

use std::fmt;

use serde::Deserialize;
use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

use super::error::Position;

/// A value. Keys of a map stand in the file's order and may repeat.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
}

impl Node {
    /// What it is, for "expected a list, this is …".
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Node::Null => "nothing",
            Node::Bool(_) => "true/false",
            Node::Integer(_) | Node::Float(_) => "a number",
            Node::Text(_) => "text",
            Node::List(_) => "a list",
            Node::Map(_) => "a set of keys",
        }
    }

    /// The value as it may be shown in a message: short, one line, printable.
    pub(super) fn show(&self) -> String {
        /// Longer values are cut: the message names the place anyway.
        const LONGEST: usize = 60;
        let text = match self {
            Node::Null => "null".to_owned(),
            Node::Bool(value) => value.to_string(),
            Node::Integer(value) => value.to_string(),
            Node::Float(value) => value.to_string(),
            Node::Text(value) => value.clone(),
            Node::List(_) => "[…]".to_owned(),
            Node::Map(_) => "{…}".to_owned(),
        };
        let mut shown: String = text
            .chars()
            .take(LONGEST)
            .map(|c| if c.is_control() { '\u{fffd}' } else { c })
            .collect();
        if text.chars().count() > LONGEST {
            shown.push('…');
        }
        shown
    }
}

/// The place of what has no better one.
const START: Position = Position { line: 1, column: 1 };

/// The text is not YAML.
pub(super) struct SyntaxError {
    pub(super) message: String,
    pub(super) position: Position,
}

/// Reads the text as one YAML document.
pub(super) fn read(text: &str) -> Result<Node, SyntaxError> {
    serde_yaml::from_str(text).map_err(|error| {
        let position = position_of(&error);
        let at = position.map_or_else(String::new, |Position { line, column }| {
            format!(" at line {line} column {column}")
        });
        let mut message = error.to_string();
        if !at.is_empty() {
            message = message.replacen(&at, "", 1);
        }
        let position = position.or_else(|| second_document(text)).unwrap_or(START);
        SyntaxError { message, position }
    })
}

/// Where the second document starts: the library refuses it without a place.
fn second_document(text: &str) -> Option<Position> {
    let mut lines = text.lines().zip(1..);
    lines.find(|(line, _)| !line.trim().is_empty() && !line.trim_start().starts_with('#'))?;
    let (_, line) = lines.find(|(line, _)| line.starts_with("---"))?;
    Some(Position { line, column: 1 })
}

/// A step from a value to one inside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The value of the n-th key of a map.
    Entry(usize),
    /// The n-th item of a list.
    Item(usize),
}

/// Which end of the last step is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// The key of the entry.
    Key,
    /// The value.
    Value,
}

/// Where the part of the text stands that `steps` lead to.
pub(super) fn locate(text: &str, steps: &[Step], target: Target) -> Position {
    Walk { steps, target }
        .deserialize(serde_yaml::Deserializer::from_str(text))
        .err()
        .and_then(|error| position_of(&error))
        .unwrap_or(START)
}

fn position_of(error: &serde_yaml::Error) -> Option<Position> {
    error.location().map(|at| Position { line: at.line(), column: at.column() })
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Tree)
    }
}

struct Tree;

impl<'de> Visitor<'de> for Tree {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value without a tag")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    /// How an empty document arrives.
    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Integer(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Integer(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Node::Map(map))
    }
}

struct Walk<'s> {
    steps: &'s [Step],
    target: Target,
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// Whatever is not on the way meets the default methods, which fail: at the end
/// of the steps that is the place looked for.
impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the end of the walk")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let Some((Step::Item(index), rest)) = self.steps.split_first() else {
            return Err(A::Error::custom("here"));
        };
        for _ in 0..*index {
            items.next_element::<IgnoredAny>()?;
        }
        items.next_element_seed(Walk { steps: rest, target: self.target })?;
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let Some((Step::Entry(index), rest)) = self.steps.split_first() else {
            return Err(A::Error::custom("here"));
        };
        for _ in 0..*index {
            entries.next_entry::<IgnoredAny, IgnoredAny>()?;
        }
        if rest.is_empty() && self.target == Target::Key {
            entries.next_key_seed(Walk { steps: rest, target: self.target })?;
        }
        entries.next_key::<IgnoredAny>()?;
        entries.next_value_seed(Walk { steps: rest, target: self.target })
    }
}
