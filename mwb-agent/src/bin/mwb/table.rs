//! Aligned columns.

/// Which end of the column a cell stands at.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

/// A colour of a terminal, as its SGR number.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Colour {
    Red = 31,
    Green = 32,
    Yellow = 33,
    Grey = 90,
}

/// One cell.
#[derive(Clone)]
pub(crate) struct Cell {
    text: String,
    colour: Option<Colour>,
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self { text: text.into(), colour: None }
    }
}

impl Cell {
    /// The cell in a colour, if colours are wanted.
    pub(crate) fn coloured(text: impl Into<String>, colour: Option<Colour>) -> Self {
        Self { text: text.into(), colour }
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }
}

/// A table with one line of heads.
pub(crate) struct Table {
    aligns: Vec<Align>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table with these heads.
    pub(crate) fn new(heads: &[(&str, Align)]) -> Self {
        let aligns = heads.iter().map(|(_, align)| *align).collect();
        let head = heads.iter().map(|(text, _)| Cell::from(*text)).collect();
        Self { aligns, rows: vec![head] }
    }

    /// Adds a row; it has as many cells as there are heads.
    pub(crate) fn push(&mut self, row: Vec<Cell>) {
        debug_assert_eq!(row.len(), self.aligns.len());
        self.rows.push(row);
    }

    /// The lines, each with its end, two spaces between columns.
    pub(crate) fn render(&self) -> String {
        let widths: Vec<usize> = (0..self.aligns.len())
            .map(|column| self.rows.iter().filter_map(|row| row.get(column)).map(Cell::width).max())
            .map(Option::unwrap_or_default)
            .collect();
        let mut out = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for ((cell, align), width) in row.iter().zip(&self.aligns).zip(&widths) {
                let space = " ".repeat(width - cell.width());
                let text = match cell.colour {
                    Some(colour) => format!("\x1b[{}m{}\x1b[0m", colour as u8, cell.text),
                    None => cell.text.clone(),
                };
                match align {
                    Align::Left => line.push_str(&format!("{text}{space}  ")),
                    Align::Right => line.push_str(&format!("{space}{text}  ")),
                }
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_their_heads_whatever_the_colours() {
        let mut table = Table::new(&[("NAME", Align::Left), ("N", Align::Right)]);
        table.push(vec!["é".into(), Cell::coloured("1000", Some(Colour::Red))]);
        table.push(vec!["longer".into(), "7".into()]);
        assert_eq!(table.render(), "NAME       N\né       \x1b[31m1000\x1b[0m\nlonger     7\n");
    }
}
