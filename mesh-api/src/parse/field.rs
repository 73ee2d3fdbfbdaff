//! The path of a field in an object.

use std::fmt;

use serde_json::Value;

/// One step of a path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

/// `spec.http[0].route`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Field(Vec<Step>);

impl Field {
    pub(super) fn root() -> Self {
        Self::default()
    }

    pub(super) fn key(&self, key: &str) -> Self {
        self.with(Step::Key(key.to_owned()))
    }

    pub(super) fn index(&self, index: usize) -> Self {
        self.with(Step::Index(index))
    }

    pub(super) fn join(&self, rest: &Self) -> Self {
        Self(self.0.iter().chain(&rest.0).cloned().collect())
    }

    pub(super) fn steps(&self) -> &[Step] {
        &self.0
    }

    /// Whether it is this key of the object, or in it.
    pub(super) fn begins_with(&self, key: &str) -> bool {
        matches!(self.0.first(), Some(Step::Key(first)) if first == key)
    }

    fn with(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }

    pub(super) fn from_serde(path: &serde_path_to_error::Path) -> Self {
        use serde_path_to_error::Segment;
        let step = |segment: &Segment| match segment {
            Segment::Seq { index } => Some(Step::Index(*index)),
            Segment::Map { key } => Some(Step::Key(key.clone())),
            Segment::Enum { variant } => Some(Step::Key(variant.clone())),
            Segment::Unknown => None,
        };
        Self(path.iter().filter_map(step).collect())
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) if key.contains(['.', '/', '[']) => write!(f, "[{key:?}]")?,
                Step::Key(key) if number == 0 => write!(f, "{key}")?,
                Step::Key(key) => write!(f, ".{key}")?,
            }
        }
        Ok(())
    }
}

/// The fields of `read` that are not in `written`. A null says nothing, so it may be missing.
pub(super) fn missing(read: &Value, written: &Value, at: &Field, found: &mut Vec<Field>) {
    match (read, written) {
        (Value::Object(read), Value::Object(written)) => {
            for (key, value) in read.iter().filter(|(_, value)| !value.is_null()) {
                match written.get(key) {
                    Some(counterpart) => missing(value, counterpart, &at.key(key), found),
                    None => found.push(at.key(key)),
                }
            }
        }
        (Value::Array(read), Value::Array(written)) => {
            for (number, (value, counterpart)) in read.iter().zip(written).enumerate() {
                missing(value, counterpart, &at.index(number), found);
            }
        }
        _ => (),
    }
}
