//! Why a message is refused, and where in it.

use std::fmt::Display;

/// A message that is refused: what is wrong, and the path of the field, `workload.ips[1]`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct DecodeError {
    /// Names of messages and fields, joined by dots; list positions and map keys in brackets.
    pub path: String,
    /// What is wrong there.
    pub problem: Problem,
}

/// What is wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// It must be there.
    #[error("is missing")]
    Missing,
    /// It must say something.
    #[error("is empty")]
    Empty,
    /// A value from a newer version, or nonsense.
    #[error("enum {name} has no value {value}")]
    UnknownEnum {
        /// The enum.
        name: &'static str,
        /// What was sent.
        value: i32,
    },
    /// Not an IP address.
    #[error("{text:?} is not an IP address")]
    NotAnAddress {
        /// What was sent.
        text: String,
    },
    /// Not an IP network.
    #[error("{text:?} is not an IP network")]
    NotANetwork {
        /// What was sent.
        text: String,
    },
    /// A number outside what the field allows.
    #[error("{value} is not in {least}..={most}")]
    OutOfRange {
        /// What was sent.
        value: u32,
        /// The smallest allowed.
        least: u16,
        /// The largest allowed.
        most: u16,
    },
    /// It does not compile, or it would be too big.
    #[error(transparent)]
    Pattern(#[from] mesh_model::text::BadPattern),
    /// Not a legal header name, or not in lower case where it must be.
    #[error("{text:?} is not a legal header name")]
    HeaderName {
        /// What was sent.
        text: String,
    },
    /// Not a legal header value. The value itself is not repeated, it may be secret.
    #[error("is not a legal header value")]
    HeaderValue,
    /// Several destinations and nothing to share.
    #[error("total destination weight = 0")]
    NoWeight,
}

impl From<Problem> for DecodeError {
    fn from(problem: Problem) -> Self {
        Self { path: String::new(), problem }
    }
}

/// Says where, from the inside out.
pub(super) trait Located<T> {
    /// In this field.
    fn at(self, field: &str) -> Result<T, DecodeError>;
    /// In this element of this list or map.
    fn at_item(self, field: &str, item: impl Display) -> Result<T, DecodeError>;
}

impl<T, E: Into<DecodeError>> Located<T> for Result<T, E> {
    fn at(self, field: &str) -> Result<T, DecodeError> {
        self.map_err(|error| {
            let DecodeError { path, problem } = error.into();
            let dot = if path.is_empty() { "" } else { "." };
            DecodeError { path: format!("{field}{dot}{path}"), problem }
        })
    }

    fn at_item(self, field: &str, item: impl Display) -> Result<T, DecodeError> {
        self.map_err(Into::into).or_else(|error| Err(error).at(&format!("{field}[{item}]")))
    }
}

/// A message field that must be there.
pub(super) fn required<T>(field: &str, value: Option<T>) -> Result<T, DecodeError> {
    value.ok_or(Problem::Missing).at(field)
}

/// Every element of a list.
pub(super) fn list<W, T, E: Into<DecodeError>>(
    field: &str,
    wire: Vec<W>,
    decode: impl Fn(W) -> Result<T, E>,
) -> Result<Vec<T>, DecodeError> {
    wire.into_iter().enumerate().map(|(number, item)| decode(item).at_item(field, number)).collect()
}
