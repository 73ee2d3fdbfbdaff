//! On which line of a YAML text is a field?
//!
//! The YAML reader tells lines only in errors. So the text is read once more by a reader that walks down the path and fails, on
//! purpose, where the path ends.

use std::{fmt, ops::Range};

use serde::{
    Deserializer,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use super::field::Step;

/// One entry of a List, as a text of its own: a sequence of one.
pub(super) struct Item {
    pub(super) text: Range<usize>,
    /// Lines of the document before it.
    pub(super) lines_before: u32,
}

/// The entries of the `items` of a List as kubectl writes it, each from its dash on; none if it is written otherwise.
pub(super) fn items(text: &str) -> Vec<Item> {
    let mut found: Vec<Item> = Vec::new();
    let mut dash: Option<&str> = None;
    let mut inside = false;
    let mut offset = 0;
    for (number, line) in (0_u32..).zip(text.split_inclusive('\n')) {
        let content = line.trim_start_matches(' ');
        let indent = &line[..line.len() - content.len()];
        let begins = content.starts_with("- ") && dash.is_none_or(|dash| dash == indent);
        if inside && begins {
            dash = Some(indent);
            found.push(Item { text: offset..offset, lines_before: number });
        } else if indent.is_empty() && !content.trim_end().is_empty() && !content.starts_with('#') {
            inside = line.trim_end() == "items:";
        }
        offset += line.len();
        if let Some(item) = found.last_mut().filter(|_| inside) {
            item.text.end = offset;
        }
    }
    found
}

/// The line, from 1, of the deepest part of the path that is there; None if not even the first is.
pub(super) fn line(text: &str, steps: &[Step]) -> Option<u32> {
    (1..=steps.len()).rev().find_map(|depth| {
        let walk = Walk { steps: &steps[..depth] };
        let error = walk.deserialize(serde_yaml_ng::Deserializer::from_str(text)).err()?;
        u32::try_from(error.location()?.line()).ok()
    })
}

struct Walk<'a> {
    steps: &'a [Step],
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value on the path")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let [Step::Key(wanted), rest @ ..] = self.steps else {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(());
        };
        while let Some(is_it) = map.next_key_seed(Key { wanted, last: rest.is_empty() })? {
            match is_it {
                true => map.next_value_seed(Walk { steps: rest })?,
                false => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let [Step::Index(wanted), rest @ ..] = self.steps else {
            while seq.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(());
        };
        for _ in 0..*wanted {
            seq.next_element::<IgnoredAny>()?;
        }
        if rest.is_empty() {
            seq.next_element_seed(Here)?;
        } else {
            seq.next_element_seed(Walk { steps: rest })?;
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
}

/// A key: is it the wanted one? Fails on it if the path ends there.
struct Key<'a> {
    wanted: &'a str,
    last: bool,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<bool, E> {
        match (key == self.wanted, self.last) {
            (true, true) => Err(E::custom("here")),
            (is_it, _) => Ok(is_it),
        }
    }
}

/// Fails on whatever is there.
struct Here;

impl<'de> DeserializeSeed<'de> for Here {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        // No value of YAML is an identifier of a struct field that nobody expects: every visit fails, with the value's line.
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for Here {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing: this is the place")
    }
}
