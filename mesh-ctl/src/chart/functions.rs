//! The template functions that the chart uses beside Go's own, with the meaning that Helm (Sprig) gives them.

use gtmpl_ng::{Func, FuncError, Value};

/// All of them. A template that uses another one does not parse, which a test notices.
pub const ALL: &[(&str, Func)] =
    &[("default", default), ("lookup", lookup), ("nindent", nindent), ("quote", quote), ("toYaml", to_yaml)];

/// `VALUE | default FALLBACK`: the fallback where the value is empty (false, 0, "", nothing).
fn default(args: &[Value]) -> Result<Value, FuncError> {
    let [fallback, value] = two("default", args)?;
    Ok(if is_empty(value) { fallback.clone() } else { value.clone() })
}

/// Finds nothing, as with `helm template`: rendering asks no cluster. `meshctl install` has asked before it renders.
fn lookup(_args: &[Value]) -> Result<Value, FuncError> {
    Ok(Value::Map(std::collections::HashMap::new()))
}

/// A new line, then the text with each line indented.
fn nindent(args: &[Value]) -> Result<Value, FuncError> {
    let [width, text] = two("nindent", args)?;
    let (Value::Number(width), Value::String(text)) = (width, text) else {
        return Err(FuncError::UnableToConvertFromValue);
    };
    let width = width.as_u64().and_then(|width| usize::try_from(width).ok()).filter(|width| *width <= 64);
    let indent = " ".repeat(width.ok_or(FuncError::UnableToConvertFromValue)?);
    let lines: Vec<String> = text.lines().map(|line| format!("{indent}{line}")).collect();
    Ok(Value::String(format!("\n{}", lines.join("\n"))))
}

/// A double-quoted text: JSON's form, which YAML reads as Go's `%q`.
fn quote(args: &[Value]) -> Result<Value, FuncError> {
    let [value] = args else { return Err(FuncError::ExactlyXArgs("quote".to_owned(), 1)) };
    let quoted = serde_json::to_string(&value.to_string()).map_err(other)?;
    Ok(Value::String(quoted))
}

/// YAML without a last line break.
fn to_yaml(args: &[Value]) -> Result<Value, FuncError> {
    let [value] = args else { return Err(FuncError::ExactlyXArgs("toYaml".to_owned(), 1)) };
    let text = serde_yaml_ng::to_string(value).map_err(other)?;
    Ok(Value::String(text.trim_end().to_owned()))
}

fn two<'a>(name: &str, args: &'a [Value]) -> Result<&'a [Value; 2], FuncError> {
    args.try_into().map_err(|_| FuncError::ExactlyXArgs(name.to_owned(), 2))
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::NoValue | Value::Nil => true,
        Value::Bool(value) => !value,
        Value::String(text) => text.is_empty(),
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::Array(items) => items.is_empty(),
        Value::Map(map) | Value::Object(map) => map.is_empty(),
        Value::Function(_) => false,
    }
}

fn other(error: impl std::fmt::Display) -> FuncError {
    FuncError::Generic(error.to_string())
}
