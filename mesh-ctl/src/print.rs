//! Output: tables for people, `apiVersion: meshctl/v1` documents for programs. The only room that writes to standard output.

use std::{
    io::{self, IsTerminal, Write as _},
    process::ExitCode,
};

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::exit::Failure;

/// `-o`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Columns for a terminal.
    Table,
    /// More columns.
    Wide,
    /// One JSON document.
    Json,
    /// One YAML document.
    Yaml,
    /// Names only, one a line.
    Name,
}

/// One answer: what a program reads, and how a person sees it.
pub struct Answer<T> {
    /// `StatusReport`, `RouteCheck`…
    pub kind: &'static str,
    /// The stable document.
    pub data: T,
    /// Text before the tables.
    pub summary: Vec<String>,
    /// The tables, with an optional title.
    pub tables: Vec<Grid>,
    /// For `-o name`.
    pub names: Vec<String>,
}

/// Rows under headings.
pub struct Grid {
    /// Printed above, if not empty.
    pub title: String,
    /// Column names; those from `wide_from` on are printed with `-o wide` only.
    pub head: Vec<&'static str>,
    /// Cells as text.
    pub rows: Vec<Vec<String>>,
    /// The first column that only `wide` shows.
    pub wide_from: usize,
}

#[derive(Serialize)]
struct Envelope<'a, T> {
    #[serde(rename = "apiVersion")]
    api_version: &'static str,
    kind: &'static str,
    data: &'a T,
}

impl<T: Serialize> Answer<T> {
    /// Prints in the asked form.
    pub fn print(&self, output: Output) -> Result<(), Failure> {
        let envelope = Envelope { api_version: "meshctl/v1", kind: self.kind, data: &self.data };
        let text = match output {
            Output::Json => serde_json::to_string_pretty(&envelope)
                .map_err(|error| Failure::runtime(format!("cannot print JSON: {error}")))?,
            Output::Yaml => serde_yaml_ng::to_string(&envelope)
                .map_err(|error| Failure::runtime(format!("cannot print YAML: {error}")))?,
            Output::Name => self.names.join("\n"),
            Output::Table | Output::Wide => self.for_people(output == Output::Wide),
        };
        stdout(text.trim_end())
    }

    fn for_people(&self, wide: bool) -> String {
        let mut parts = Vec::new();
        if !self.summary.is_empty() {
            parts.push(self.summary.join("\n"));
        }
        parts.extend(self.tables.iter().filter(|grid| !grid.rows.is_empty()).map(|grid| grid.draw(wide)));
        parts.join("\n\n")
    }
}

impl Grid {
    fn draw(&self, wide: bool) -> String {
        let columns = if wide { self.head.len() } else { self.wide_from.min(self.head.len()) };
        let mut table = Table::new();
        table.load_preset(presets::NOTHING);
        table.set_content_arrangement(if io::stdout().is_terminal() {
            ContentArrangement::Dynamic
        } else {
            ContentArrangement::Disabled
        });
        table.set_header(&self.head[..columns]);
        for row in &self.rows {
            table.add_row(row.iter().take(columns).map(|cell| printable(cell)));
        }
        let drawn: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
        if self.title.is_empty() { drawn.join("\n") } else { format!("{}\n{}", self.title, drawn.join("\n")) }
    }
}

/// Text from others without control characters: a terminal must not be steered by a header or a file.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// A line on standard output. A closed pipe is a success: `meshctl … | head`.
pub fn stdout(text: &str) -> Result<(), Failure> {
    match writeln!(io::stdout().lock(), "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::runtime(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// A line on standard error; nobody can be told if that fails.
pub fn stderr(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// 0, or 2 when the answer is negative.
pub fn verdict(good: bool) -> ExitCode {
    if good { ExitCode::SUCCESS } else { ExitCode::from(crate::exit::NEGATIVE) }
}
