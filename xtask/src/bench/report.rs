//! What a benchmark found, for people and for machines. Knows nothing of how it
//! was found.

use std::fmt::Write as _;

use serde::{Serialize, Serializer, ser::SerializeMap as _};

/// Which way a headline is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// More is better.
    Higher,
    /// Less is better.
    Lower,
}

/// The one figure that a benchmark is judged by.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Headline {
    /// What it is, with its unit.
    pub name: String,
    /// The figure.
    pub value: f64,
    /// What it ought to be at least (or at most).
    pub target: f64,
    /// Which way is better.
    pub better: Better,
}

impl Headline {
    /// Whether the target is met.
    #[must_use]
    pub fn is_met(&self) -> bool {
        match self.better {
            Better::Higher => self.value >= self.target,
            Better::Lower => self.value <= self.target,
        }
    }
}

/// A value of a row.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Cell {
    /// A name.
    Text(String),
    /// A whole number.
    Count(u64),
    /// A measured figure.
    Figure(f64),
    /// Not measurable here.
    None,
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<usize> for Cell {
    fn from(count: usize) -> Self {
        Self::Count(count as u64)
    }
}

/// A figure rounded to `places` decimals, as nobody believes more of them.
#[must_use]
pub fn figure(value: f64, places: i32) -> Cell {
    let scale = 10_f64.powi(places);
    let rounded = (value * scale).round() / scale;
    if !rounded.is_finite() {
        Cell::None
    } else if places <= 0 && rounded >= 0.0 {
        // Every count that a benchmark can reach is exact in an f64.
        Cell::Count(rounded as u64)
    } else {
        Cell::Figure(rounded)
    }
}

impl Cell {
    fn text(&self) -> String {
        match self {
            Cell::Text(text) => text.clone(),
            Cell::Count(count) => count.to_string(),
            Cell::Figure(figure) => figure.to_string(),
            Cell::None => "-".to_owned(),
        }
    }
}

/// Names and values, in the order they are shown.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row(pub Vec<(&'static str, Cell)>);

impl Row {
    fn has_columns_of(&self, other: &Row) -> bool {
        self.0.iter().map(|(name, _)| name).eq(other.0.iter().map(|(name, _)| name))
    }
}

impl Serialize for Row {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, cell) in &self.0 {
            map.serialize_entry(name, cell)?;
        }
        map.end()
    }
}

/// Everything a benchmark found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The benchmark's name.
    pub bench: &'static str,
    /// What it is judged by.
    pub headline: Headline,
    /// The figures behind it.
    pub rows: Vec<Row>,
}

impl Report {
    /// Tables of the rows (a new one wherever the columns change) and the
    /// headline in a sentence.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = String::new();
        let mut rest = self.rows.as_slice();
        while let Some(first) = rest.first() {
            let length = rest.iter().take_while(|row| row.has_columns_of(first)).count();
            let (group, after) = rest.split_at(length);
            write_group(&mut text, group);
            text.push('\n');
            rest = after;
        }
        let Headline { name, value, target, better } = &self.headline;
        let bound = match better {
            Better::Higher => "at least",
            Better::Lower => "at most",
        };
        let judgement = if self.headline.is_met() { "met" } else { "NOT met" };
        let _ = writeln!(
            text,
            "{}: {name}: {value} (target {bound} {target}: {judgement})",
            self.bench
        );
        text
    }
}

/// Rows with the same columns, right-aligned under their names.
fn write_group(text: &mut String, rows: &[Row]) {
    let Some(first) = rows.first() else { return };
    let mut lines = vec![first.0.iter().map(|(name, _)| (*name).to_owned()).collect::<Vec<_>>()];
    lines.extend(rows.iter().map(|row| row.0.iter().map(|(_, cell)| cell.text()).collect()));
    let widths: Vec<usize> = (0..first.0.len())
        .map(|column| lines.iter().filter_map(|line| line.get(column)).map(String::len).max())
        .map(Option::unwrap_or_default)
        .collect();
    for line in lines {
        for (cell, width) in line.iter().zip(&widths) {
            let _ = write!(text, "{cell:>width$}  ");
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(value: f64) -> Report {
        let headline =
            Headline { name: "ratio".to_owned(), value, target: 2.7, better: Better::Higher };
        let rows = vec![
            Row(vec![("size", 64_usize.into()), ("ratio", figure(2.71499, 2))]),
            Row(vec![("size", 1400_usize.into()), ("ratio", figure(f64::NAN, 2))]),
            Row(vec![("program", "inside".into()), ("ns", figure(41.4, 0))]),
        ];
        Report { bench: "some", headline, rows }
    }

    #[test]
    fn rows_are_one_object_each_with_columns_in_order() {
        let text = serde_json::to_string(&report(3.0)).unwrap_or_default();
        assert_eq!(
            text,
            r#"{"bench":"some","headline":{"name":"ratio","value":3.0,"target":2.7,"better":"higher"},"rows":[{"size":64,"ratio":2.71},{"size":1400,"ratio":null},{"program":"inside","ns":41}]}"#
        );
    }

    #[test]
    fn rows_with_other_columns_make_a_table_of_their_own() {
        assert_eq!(
            report(2.0).table(),
            "size  ratio\n  64   2.71\n1400      -\n\nprogram  ns\n inside  41\n\n\
             some: ratio: 2 (target at least 2.7: NOT met)\n"
        );
    }

    #[test]
    fn a_headline_meets_its_target_exactly_at_it() {
        assert!(report(2.7).headline.is_met());
        assert!(!report(2.69).headline.is_met());
    }
}
