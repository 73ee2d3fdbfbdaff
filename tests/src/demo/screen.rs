//! What a person sees: headings, facts, ticks and tables; plain text when nobody looks at a terminal.

use std::io::{self, IsTerminal, Write};

/// Where the story is told.
#[derive(Debug, Clone, Copy)]
pub struct Screen {
    terminal: bool,
}

/// The name of a fact is padded to this width.
const NAME: usize = 13;

impl Screen {
    /// Standard output.
    pub fn new() -> Self {
        Self { terminal: io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() }
    }

    /// A numbered heading.
    pub fn step(&self, number: u8, title: &str) {
        self.line("");
        self.line(&self.styled("1", &format!("{number}  {title}")));
    }

    /// A fact with its name.
    pub fn fact(&self, name: &str, text: &str) {
        let padded = format!("{name:NAME$}");
        self.line(&format!("   {} {text}", self.styled("2", &padded)));
    }

    /// Something that was claimed and has been checked.
    pub fn good(&self, text: &str) {
        self.line(&format!("   {} {text}", self.styled("32", "✓")));
    }

    /// A table; a column whose cells all begin with a digit is aligned to the right.
    pub fn table(&self, head: &[&str], rows: &[Vec<String>]) {
        let columns: Vec<Column> =
            head.iter().enumerate().map(|(at, name)| Column::of(name, at, rows)).collect();
        let draw = |cells: &mut dyn Iterator<Item = &str>| {
            let drawn: Vec<String> =
                columns.iter().zip(cells).map(|(column, cell)| column.pad(cell)).collect();
            drawn.join("  ").trim_end().to_owned()
        };
        self.line(&format!("     {}", self.styled("2", &draw(&mut head.iter().copied()))));
        for row in rows {
            self.line(&format!("     {}", draw(&mut row.iter().map(String::as_str))));
        }
    }

    /// One line as it is.
    pub fn line(&self, text: &str) {
        // A reader who went away (`| head`) is no reason to stop half-way.
        let _ = writeln!(io::stdout().lock(), "{text}");
    }

    fn styled(&self, code: &str, text: &str) -> String {
        if self.terminal { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

struct Column {
    width: usize,
    right: bool,
}

impl Column {
    fn of(name: &str, at: usize, rows: &[Vec<String>]) -> Self {
        let cells = || rows.iter().filter_map(|row| row.get(at));
        Self {
            width: cells().map(|cell| cell.chars().count()).chain([name.chars().count()]).max().unwrap_or(0),
            right: cells().all(|cell| cell.starts_with(|first: char| first.is_ascii_digit())),
        }
    }

    fn pad(&self, cell: &str) -> String {
        let width = self.width;
        if self.right { format!("{cell:>width$}") } else { format!("{cell:width$}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = vec![vec!["a".to_owned(), "7".to_owned()], vec!["longer".to_owned(), "12".to_owned()]];
        let (text, number) = (Column::of("name", 0, &rows), Column::of("n", 1, &rows));
        assert_eq!((text.pad("a"), number.pad("7")), ("a     ".to_owned(), " 7".to_owned()));
    }
}
