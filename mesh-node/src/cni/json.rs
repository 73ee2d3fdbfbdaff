//! Where values stand in a JSON text, so that a text can be edited without writing the rest of it anew.
//!
//! Invariant: every range lies on the boundaries of a value of the text it was made from; numbers, order and spaces are not touched.

use std::ops::Range;

use serde::de::IgnoredAny;
use serde_json::Deserializer;

/// The text is not JSON of the expected form.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct JsonError(String);

/// The members of the object that is the whole text: each key and where its value stands.
pub fn members(text: &str) -> Result<Vec<(String, Range<usize>)>, JsonError> {
    validate(text)?;
    let mut cursor = Cursor { text, at: 0 };
    if !cursor.skip('{') {
        return Err(JsonError("not a JSON object".into()));
    }
    let mut members = Vec::new();
    while !cursor.skip('}') {
        let key = cursor.value()?;
        let key = serde_json::from_str(&text[key]).map_err(wrong)?;
        cursor.skip(':');
        members.push((key, cursor.value()?));
        cursor.skip(',');
    }
    Ok(members)
}

/// The elements of the array that stands at `array`.
pub fn elements(text: &str, array: Range<usize>) -> Result<Vec<Range<usize>>, JsonError> {
    let mut cursor = Cursor { text: &text[..array.end], at: array.start };
    if !cursor.skip('[') {
        return Err(JsonError("not a JSON array".into()));
    }
    let mut elements = Vec::new();
    while !cursor.skip(']') {
        elements.push(cursor.value()?);
        cursor.skip(',');
    }
    Ok(elements)
}

/// The one member of this name; a name that stands twice means something else to each reader, and is refused.
pub fn member(text: &str, name: &str) -> Result<Option<Range<usize>>, JsonError> {
    let mut found = members(text)?.into_iter().filter(|(key, _)| key == name).map(|(_, range)| range);
    match (found.next(), found.next()) {
        (first, None) => Ok(first),
        _ => Err(JsonError(format!("{name:?} stands there twice"))),
    }
}

fn validate(text: &str) -> Result<(), JsonError> {
    serde_json::from_str::<IgnoredAny>(text).map(drop).map_err(wrong)
}

fn wrong(error: serde_json::Error) -> JsonError {
    JsonError(error.to_string())
}

/// Goes over a text that is valid as a whole.
struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl Cursor<'_> {
    fn skip_spaces(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n']).len();
    }

    /// Steps over spaces, then over `mark` if it is next.
    fn skip(&mut self, mark: char) -> bool {
        self.skip_spaces();
        let is_next = self.text[self.at..].starts_with(mark);
        self.at += if is_next { mark.len_utf8() } else { 0 };
        is_next
    }

    /// Steps over one value.
    fn value(&mut self) -> Result<Range<usize>, JsonError> {
        self.skip_spaces();
        let mut values = Deserializer::from_str(&self.text[self.at..]).into_iter::<IgnoredAny>();
        match values.next() {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(wrong(error)),
            None => return Err(JsonError("the text ends early".into())),
        }
        let range = self.at..self.at + values.byte_offset();
        self.at = range.end;
        Ok(range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_where_they_stand() {
        let text = " {\n\"a\" : 1e400 ,\"b,}\":[ \"]\" , {\"c\":[1,2]},null ] ,\t\"\\u0061b\":-0.10}";
        let found: Vec<_> = members(text).unwrap().into_iter().map(|(key, at)| (key, &text[at])).collect();
        assert_eq!(found[0], ("a".into(), "1e400"));
        assert_eq!(found[2], ("ab".into(), "-0.10"));
        let array = member(text, "b,}").unwrap().unwrap();
        let each: Vec<_> = elements(text, array).unwrap().into_iter().map(|at| &text[at]).collect();
        assert_eq!(each, ["\"]\"", "{\"c\":[1,2]}", "null"]);
    }

    #[test]
    fn what_is_not_an_object_or_says_things_twice_is_refused() {
        for text in ["", "[]", "{", "{} x", "{\"a\":}", "{\"a\":1,}"] {
            assert!(members(text).is_err(), "{text}");
        }
        assert!(member("{\"a\":1,\"a\":2}", "a").is_err());
        assert_eq!(member("{\"a\":1}", "b").unwrap(), None);
    }
}
