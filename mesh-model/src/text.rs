//! The string matches of the two APIs: Istio's `StringMatch` (routes) and the wildcard strings of AuthorizationPolicy.

use std::fmt;

#[cfg(test)]
mod tests;

/// The most memory, in bytes, that one compiled pattern may take.
const SIZE_LIMIT: usize = 1 << 20;

/// VirtualService's StringMatch.
#[derive(Clone)]
pub enum StringMatch {
    /// The whole value.
    Exact(String),
    /// A byte prefix, case-sensitive, not by segment.
    Prefix(String),
    /// A regular expression over the whole value (RE2's meaning: bytes, Unicode off, anchored, size-limited).
    Regex(Pattern),
    /// The value is there, whatever it is.
    Present,
}

/// A compiled regular expression that remembers its source.
#[derive(Clone)]
pub struct Pattern {
    source: String,
    regex: regex::bytes::Regex,
}

/// AuthorizationPolicy's strings: exact, `abc*`, `*abc`, `*` (present and not empty).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Glob {
    /// The whole value.
    Exact(String),
    /// `abc*`.
    Prefix(String),
    /// `*abc`.
    Suffix(String),
    /// `*`: any value that is not empty.
    Any,
}

/// Why a pattern is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("regular expression {source_text:?} is refused: {reason}")]
pub struct BadPattern {
    /// The text as written.
    pub source_text: String,
    /// What the compiler said.
    pub reason: String,
}

impl Pattern {
    /// Compiles with the size limit; anchored at both ends.
    pub fn new(source: &str) -> Result<Self, BadPattern> {
        let compile = |text: &str| {
            regex::bytes::RegexBuilder::new(text)
                .unicode(false)
                .size_limit(SIZE_LIMIT)
                .build()
                .map_err(|error| BadPattern { source_text: source.to_owned(), reason: error.to_string() })
        };
        // Alone first: `a)|(?:b` would otherwise close our group and lose the anchors.
        compile(source)?;
        let regex = compile(&format!("^(?:{source})$"))?;
        Ok(Self { source: source.to_owned(), regex })
    }

    /// The pattern as written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether the whole value matches.
    pub fn matches(&self, value: &[u8]) -> bool {
        self.regex.is_match(value)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({:?})", self.source)
    }
}

impl PartialEq for StringMatch {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(a), Self::Exact(b)) | (Self::Prefix(a), Self::Prefix(b)) => a == b,
            (Self::Regex(a), Self::Regex(b)) => a == b,
            (Self::Present, Self::Present) => true,
            _ => false,
        }
    }
}

impl fmt::Debug for StringMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(text) => write!(f, "exact {text:?}"),
            Self::Prefix(text) => write!(f, "prefix {text:?}"),
            Self::Regex(pattern) => write!(f, "regex {:?}", pattern.source()),
            Self::Present => f.write_str("present"),
        }
    }
}

impl StringMatch {
    /// Whether the value matches; `ignore_case` counts for exact and prefix only.
    pub fn matches(&self, value: &[u8], ignore_case: bool) -> bool {
        match self {
            Self::Exact(text) if ignore_case => value.eq_ignore_ascii_case(text.as_bytes()),
            Self::Exact(text) => value == text.as_bytes(),
            Self::Prefix(text) if ignore_case => {
                value.get(..text.len()).is_some_and(|head| head.eq_ignore_ascii_case(text.as_bytes()))
            }
            Self::Prefix(text) => value.starts_with(text.as_bytes()),
            Self::Regex(pattern) => pattern.matches(value),
            Self::Present => true,
        }
    }
}

impl Glob {
    /// Reads the text of a policy.
    pub fn parse(text: &str) -> Self {
        match (text, text.strip_suffix('*'), text.strip_prefix('*')) {
            ("*", _, _) => Self::Any,
            (_, Some(head), _) => Self::Prefix(head.to_owned()),
            (_, _, Some(tail)) => Self::Suffix(tail.to_owned()),
            _ => Self::Exact(text.to_owned()),
        }
    }

    /// Whether the value matches.
    pub fn matches(&self, value: &str) -> bool {
        match self {
            Self::Exact(text) => value == text,
            Self::Prefix(head) => value.starts_with(head.as_str()),
            Self::Suffix(tail) => value.ends_with(tail.as_str()),
            Self::Any => !value.is_empty(),
        }
    }

    /// As [`Self::matches`], without regard to ASCII case: host names.
    pub fn matches_ignoring_case(&self, value: &str) -> bool {
        let (value, same) = (value.as_bytes(), <[u8]>::eq_ignore_ascii_case);
        match self {
            Self::Exact(text) => same(value, text.as_bytes()),
            Self::Prefix(head) => value.get(..head.len()).is_some_and(|start| same(start, head.as_bytes())),
            Self::Suffix(tail) => value
                .len()
                .checked_sub(tail.len())
                .is_some_and(|start| same(&value[start..], tail.as_bytes())),
            Self::Any => !value.is_empty(),
        }
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(text) => f.write_str(text),
            Self::Prefix(head) => write!(f, "{head}*"),
            Self::Suffix(tail) => write!(f, "*{tail}"),
            Self::Any => f.write_str("*"),
        }
    }
}
