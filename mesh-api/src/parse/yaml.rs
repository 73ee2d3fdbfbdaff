//! YAML text -> documents -> JSON values, as `kubectl` sees them: keys are texts, a key occurs once, merges (`<<`) are done.

use std::{
    cell::{Cell, OnceCell},
    rc::Rc,
};

use serde_json::Value;

use super::{
    field::{Field, Step},
    locate,
};

/// Brackets that may be open at once; the reader itself stops at 128, but only after a scan whose time grows with the square of the depth.
const MAX_OPEN_BRACKETS: usize = 256;
/// Text that is read again to find the lines of fields, per file; after that a finding has the line of its document.
const LOCATED_BYTES: usize = 64 << 20;

/// One document of a file.
pub(super) struct Document<'a> {
    text: &'a str,
    /// Lines of the file before `text`.
    lines_before: u32,
    /// The line of the first content, from 1.
    first_line: u32,
    /// Where each entry of a List begins, found when first asked for.
    items: OnceCell<Vec<locate::Item>>,
    /// What is left of [`LOCATED_BYTES`] for the whole file.
    locatable: Rc<Cell<usize>>,
}

/// Why a document is not YAML.
pub(super) struct Problem {
    pub(super) line: u32,
    pub(super) message: String,
}

/// Splits at `---`, so that a broken document does not hide those after it. Text without content is left out.
pub(super) fn documents(text: &str) -> Vec<Document<'_>> {
    let mut starts = vec![(0, 0)];
    let mut offset = 0;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let is_separator = line
            .strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace));
        if is_separator && offset > 0 {
            starts.push((offset, number));
        }
        offset += line.len();
    }
    let ends = starts.iter().skip(1).map(|(offset, _)| *offset).chain([text.len()]);
    let locatable = Rc::new(Cell::new(LOCATED_BYTES));
    let split = starts.iter().zip(ends).filter_map(|((start, lines_before), end)| {
        Document::new(text.get(*start..end)?, u32::try_from(*lines_before).ok()?, &locatable)
    });
    split.collect()
}

impl<'a> Document<'a> {
    fn new(text: &'a str, lines_before: u32, locatable: &Rc<Cell<usize>>) -> Option<Self> {
        let is_content = |line: &str| {
            let line = line.strip_prefix("---").unwrap_or(line).trim();
            !line.is_empty() && !line.starts_with('#')
        };
        let blank = text.lines().position(is_content)?;
        let first_line = lines_before + u32::try_from(blank).ok()? + 1;
        Some(Self { text, lines_before, first_line, items: OnceCell::new(), locatable: locatable.clone() })
    }

    /// A document of which there is no text, only a place.
    pub(super) fn without_text(line: u32) -> Self {
        Self { text: "", lines_before: 0, first_line: line, items: OnceCell::new(), locatable: Rc::default() }
    }

    pub(super) fn text(&self) -> &str {
        self.text
    }

    /// The line of the file that `field` is on, or of the part of it that is there, or of the document.
    pub(super) fn line_of(&self, field: &Field) -> u32 {
        if self.text.is_empty() {
            return self.first_line;
        }
        match field.steps() {
            // Entry by entry, or a List of many would be read as many times as it has entries.
            [Step::Key(key), Step::Index(number), rest @ ..] if key == "items" => {
                let items = self.items.get_or_init(|| locate::items(self.text));
                let Some(item) = items.get(*number) else { return self.located(field.steps()) };
                let steps: Vec<_> = [Step::Index(0)].iter().chain(rest).cloned().collect();
                let text = self.text.get(item.text.clone()).unwrap_or_default();
                let line = if rest.is_empty() { None } else { self.locate(text, &steps) };
                self.lines_before + item.lines_before + line.unwrap_or(1)
            }
            steps => self.located(steps),
        }
    }

    fn located(&self, steps: &[Step]) -> u32 {
        self.locate(self.text, steps).map_or(self.first_line, |line| self.lines_before + line)
    }

    fn locate(&self, text: &str, steps: &[Step]) -> Option<u32> {
        let cost = text.len().saturating_mul(steps.len());
        self.locatable.set(self.locatable.get().checked_sub(cost)?);
        locate::line(text, steps)
    }

    pub(super) fn value(&self) -> Result<Value, Problem> {
        if let Some(line) = too_deep(self.text) {
            let message = format!("more than {MAX_OPEN_BRACKETS} brackets are open");
            return Err(Problem { line: self.lines_before + line, message });
        }
        let problem = |error: serde_yaml_ng::Error| Problem {
            line: error
                .location()
                .and_then(|place| u32::try_from(place.line()).ok())
                .map_or(self.first_line, |line| self.lines_before + line),
            message: error.to_string(),
        };
        let mut value: serde_yaml_ng::Value = serde_yaml_ng::from_str(self.text).map_err(problem)?;
        value.apply_merge().map_err(problem)?;
        json(value).map_err(|message| Problem { line: self.first_line, message })
    }
}

/// The line, from 1, on which more brackets are open than any object has. Quotes and comments are not looked at: one that holds so many
/// unmatched brackets is nothing that people write.
fn too_deep(text: &str) -> Option<u32> {
    let mut open = 0_usize;
    let mut line = 1;
    for byte in text.bytes() {
        match byte {
            b'[' | b'{' => open += 1,
            b']' | b'}' => open = open.saturating_sub(1),
            b'\n' => line += 1,
            _ => {}
        }
        if open > MAX_OPEN_BRACKETS {
            return Some(line);
        }
    }
    None
}

fn json(value: serde_yaml_ng::Value) -> Result<Value, String> {
    use serde_yaml_ng::Value as Yaml;
    Ok(match value {
        Yaml::Null => Value::Null,
        Yaml::Bool(value) => Value::Bool(value),
        Yaml::String(value) => Value::String(value),
        Yaml::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
            (Some(value), _, _) => value.into(),
            (_, Some(value), _) => value.into(),
            (_, _, value) => value
                .and_then(serde_json::Number::from_f64)
                .map(Value::Number)
                .ok_or_else(|| format!("{number} is not a number that JSON has"))?,
        },
        Yaml::Sequence(items) => Value::Array(items.into_iter().map(json).collect::<Result<_, _>>()?),
        Yaml::Mapping(entries) => {
            let mut object = serde_json::Map::new();
            for (name, value) in entries {
                let name = key(name)?;
                if object.contains_key(&name) {
                    return Err(format!("the key {name:?} occurs twice in one mapping"));
                }
                object.insert(name, json(value)?);
            }
            Value::Object(object)
        }
        Yaml::Tagged(tagged) => return Err(format!("the tag {} is not understood", tagged.tag)),
    })
}

fn key(key: serde_yaml_ng::Value) -> Result<String, String> {
    use serde_yaml_ng::Value as Yaml;
    match key {
        Yaml::String(text) => Ok(text),
        Yaml::Number(number) => Ok(number.to_string()),
        Yaml::Bool(value) => Ok(value.to_string()),
        other => Err(format!("a key must be a text, not {other:?}")),
    }
}
