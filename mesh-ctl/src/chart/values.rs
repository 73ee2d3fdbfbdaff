//! Values: the chart's defaults, overridden by `-f` files and `--set`, as Helm does it; a key that the chart does not have is refused.

use serde_json::{Map, Value};

/// Maps of the chart's values whose keys are the user's.
const OPEN: &[&str] = &["resources", "requests", "limits", "nodeSelector", "affinity"];

/// Why a value is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValuesError {
    /// A typo must not pass for the default.
    #[error("{0}: the chart has no such value")]
    Unknown(String),
    /// A text where a number belongs, and the like.
    #[error("{path}: {found} where the chart has {wanted}")]
    Type {
        /// Which value.
        path: String,
        /// The type that was given.
        found: &'static str,
        /// The type of the default.
        wanted: &'static str,
    },
    /// Not of the form `key=value`.
    #[error("--set {0}: the form is key.key=value[,key=value]")]
    Form(String),
    /// A file of values is not a mapping.
    #[error("the file does not hold a mapping of values")]
    NotAMapping,
}

/// Lays a file of values over `values`.
pub fn merge_file(values: &mut Value, over: Value) -> Result<(), ValuesError> {
    match over {
        Value::Null => Ok(()),
        Value::Object(_) => merge(values, over, "", false),
        _ => Err(ValuesError::NotAMapping),
    }
}

/// Applies one `--set a.b=c[,d=e]`: numbers, true, false and null are what they look like, `{a,b}` is a list, `\` escapes.
pub fn set(values: &mut Value, argument: &str) -> Result<(), ValuesError> {
    for assignment in split(argument, ',') {
        let bad = || ValuesError::Form(argument.to_owned());
        let (path, text) = assignment.split_once('=').ok_or_else(bad)?;
        let keys: Vec<String> = split(path, '.').iter().map(|key| unescape(key)).collect();
        if keys.iter().any(|key| key.is_empty() || key.contains(['[', ']'])) {
            return Err(bad());
        }
        let over = keys
            .into_iter()
            .rev()
            .fold(scalar_or_list(text), |inner, key| Value::Object(Map::from_iter([(key, inner)])));
        merge(values, over, "", false)?;
    }
    Ok(())
}

fn merge(base: &mut Value, over: Value, path: &str, is_open: bool) -> Result<(), ValuesError> {
    let (base, over) = match (base, over) {
        (Value::Object(base), Value::Object(over)) => (base, over),
        (base, over) => {
            if !(compatible(base, &over)) {
                return Err(ValuesError::Type {
                    path: path.to_owned(),
                    found: type_name(&over),
                    wanted: type_name(base),
                });
            }
            *base = over;
            return Ok(());
        }
    };
    for (key, value) in over {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let is_open = is_open || OPEN.contains(&key.as_str());
        match base.get_mut(&key) {
            Some(known) => merge(known, value, &path, is_open)?,
            None if is_open => drop(base.insert(key, value)),
            None => return Err(ValuesError::Unknown(path)),
        }
    }
    Ok(())
}

/// A default may be replaced by a value of its own type. A text may be given as a number or a truth value (`--set image.tag=1`), a
/// number as a text (`maxUnavailable: 10%`).
fn compatible(base: &Value, over: &Value) -> bool {
    let is_scalar = |value: &Value| value.is_string() || value.is_number() || value.is_boolean();
    match base {
        Value::Null => true,
        Value::Bool(_) => over.is_boolean(),
        Value::Array(_) => over.is_array(),
        Value::Object(_) => over.is_object(),
        Value::String(_) | Value::Number(_) => is_scalar(over),
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}

fn scalar_or_list(text: &str) -> Value {
    match text.strip_prefix('{').and_then(|text| text.strip_suffix('}')) {
        Some("") => Value::Array(Vec::new()),
        Some(items) => Value::Array(split(items, ',').iter().map(|item| scalar(item)).collect()),
        None => scalar(text),
    }
}

fn scalar(text: &str) -> Value {
    match text {
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        "null" => Value::Null,
        // A leading zero is a text, as with Helm: versions and modes look like that.
        _ if text == "0" || !text.starts_with('0') => {
            text.parse::<i64>().map_or_else(|_| Value::String(unescape(text)), Value::from)
        }
        _ => Value::String(unescape(text)),
    }
}

/// Splits at the separator, but not after `\` and not inside `{…}`.
fn split(text: &str, separator: char) -> Vec<String> {
    let mut parts = vec![String::new()];
    let (mut escaped, mut depth) = (false, 0_usize);
    for letter in text.chars() {
        match letter {
            _ if letter == separator && !escaped && depth == 0 => {
                parts.push(String::new());
                continue;
            }
            '{' if !escaped => depth += 1,
            '}' if !escaped => depth = depth.saturating_sub(1),
            _ => {}
        }
        escaped = letter == '\\' && !escaped;
        if let Some(part) = parts.last_mut() {
            part.push(letter);
        }
    }
    parts
}

fn unescape(text: &str) -> String {
    let mut plain = String::new();
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        plain.push(if letter == '\\' { letters.next().unwrap_or('\\') } else { letter });
    }
    plain
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn chart() -> Value {
        json!({
            "image": { "tag": "", "pullPolicy": "IfNotPresent" },
            "node": { "workers": 0, "failOpen": false, "tolerations": [], "limits": {}, "resources": { "requests": {} } },
        })
    }

    #[test]
    fn set_reads_types_lists_and_escapes_as_helm_does() {
        let mut values = chart();
        set(&mut values, "image.tag=0.1.0,node.workers=4").unwrap();
        set(&mut values, "node.failOpen=true").unwrap();
        set(&mut values, r"node.limits.a\.b={x,2}").unwrap();
        set(&mut values, r"image.pullPolicy=a\,b").unwrap();
        assert_eq!(values["image"], json!({ "tag": "0.1.0", "pullPolicy": "a,b" }));
        assert_eq!(values["node"]["workers"], 4);
        assert_eq!(values["node"]["failOpen"], true);
        assert_eq!(values["node"]["limits"], json!({ "a.b": ["x", 2] }));
    }

    #[test]
    fn a_typo_is_refused_by_its_path() {
        let mut values = chart();
        let unknown = |path: &str| Err(ValuesError::Unknown(path.to_owned()));
        assert_eq!(set(&mut values, "image.tags=1"), unknown("image.tags"));
        assert_eq!(merge_file(&mut values, json!({ "nodes": {} })), unknown("nodes"));
        assert_eq!(values, chart());
    }

    #[test]
    fn a_value_of_another_type_is_refused() {
        let mut values = chart();
        assert!(matches!(set(&mut values, "node.failOpen=maybe"), Err(ValuesError::Type { .. })));
        assert!(matches!(set(&mut values, "node=1"), Err(ValuesError::Type { .. })));
        assert!(matches!(set(&mut values, "node.tolerations=a"), Err(ValuesError::Type { .. })));
        assert!(matches!(set(&mut values, "node.workers"), Err(ValuesError::Form(_))));
        assert!(matches!(set(&mut values, "node.tolerations[0].key=a"), Err(ValuesError::Form(_))));
    }

    #[test]
    fn files_are_laid_over_each_other_map_by_map() {
        let mut values = chart();
        merge_file(&mut values, json!({ "node": { "resources": { "limits": { "memory": "1Gi" } } } }))
            .unwrap();
        merge_file(&mut values, json!({ "node": { "tolerations": [{ "operator": "Exists" }] } })).unwrap();
        merge_file(&mut values, Value::Null).unwrap();
        assert_eq!(values["node"]["resources"], json!({ "requests": {}, "limits": { "memory": "1Gi" } }));
        assert_eq!(values["node"]["tolerations"][0]["operator"], "Exists");
        assert_eq!(merge_file(&mut values, json!([1])), Err(ValuesError::NotAMapping));
    }
}
