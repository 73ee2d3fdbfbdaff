//! Our entry in a CNI configuration list: put last in the chain, and taken out again.
//!
//! Invariant: the rest of the text stays as it is, byte for byte; taking out what was put in gives the text as it was.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::{
    ENTRY_TYPE,
    json::{self, JsonError},
};

/// Our entry: what the plugin is told by the runtime.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// The name of the plugin's binary.
    #[serde(rename = "type")]
    pub kind: String,
    /// Where the agent listens.
    pub socket: String,
    /// The file of enrolled namespaces.
    pub state: String,
    /// The namespace in which the mesh itself runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own_namespace: Option<String>,
}

/// Why a configuration is left alone.
#[derive(Debug, thiserror::Error)]
pub enum ConflistError {
    /// It cannot be read.
    #[error("not a CNI configuration list: {0}")]
    Json(#[from] JsonError),
    /// It has no list of plugins.
    #[error("it has no plugins to chain after")]
    NoPlugins,
    /// Our own entry cannot be written.
    #[error("the entry cannot be written: {0}")]
    Entry(#[source] serde_json::Error),
}

/// The list with our entry as its last plugin, once; the same text if that is so already.
pub fn with_entry(text: &str, entry: &Entry) -> Result<String, ConflistError> {
    let text = without_entry(text)?;
    let array = plugins(&text)?;
    let plugins = json::elements(&text, array.clone())?;
    let (Some(first), Some(last)) = (plugins.first(), plugins.last()) else {
        return Err(ConflistError::NoPlugins);
    };
    let entry = serde_json::to_string(entry).map_err(ConflistError::Entry)?;
    // As the first plugin stands after its bracket, so ours stands after its comma.
    let gap = &text[array.start + 1..first.start];
    Ok([&text[..last.end], ",", gap, &entry, &text[last.end..]].concat())
}

/// The list without our entry; the same text if it has none.
pub fn without_entry(text: &str) -> Result<String, ConflistError> {
    let mut text = text.to_owned();
    while let Some(range) = entry_with_its_comma(&text)? {
        text.replace_range(range, "");
    }
    Ok(text)
}

/// A list of one configuration that stands for itself, followed by our entry. The runtime takes name and version of the list.
pub fn list_of(conf: &str, entry: &Entry) -> Result<String, ConflistError> {
    let mut head = String::new();
    for name in ["cniVersion", "name"] {
        if let Some(value) = json::member(conf, name)? {
            head += &format!("  \"{name}\": {},\n", &conf[value]);
        }
    }
    if json::member(conf, "type")?.is_none() {
        return Err(ConflistError::NoPlugins);
    }
    let entry = serde_json::to_string(entry).map_err(ConflistError::Entry)?;
    let conf = conf.trim();
    Ok(format!("{{\n{head}  \"plugins\": [\n    {conf},\n    {entry}\n  ]\n}}\n"))
}

fn plugins(text: &str) -> Result<Range<usize>, ConflistError> {
    json::member(text, "plugins")?.ok_or(ConflistError::NoPlugins)
}

/// Where our first entry stands, and the comma that goes with it.
fn entry_with_its_comma(text: &str) -> Result<Option<Range<usize>>, ConflistError> {
    let plugins = json::elements(text, plugins(text)?)?;
    let Some(at) = plugins.iter().position(|plugin| is_ours(&text[plugin.clone()])) else { return Ok(None) };
    let ours = plugins[at].clone();
    let next = plugins.get(at + 1).map_or(ours.end, |next| next.start);
    Ok(Some(match at.checked_sub(1) {
        Some(before) => plugins[before].end..ours.end,
        None => ours.start..next,
    }))
}

fn is_ours(plugin: &str) -> bool {
    let kind = json::member(plugin, "type").ok().flatten();
    kind.is_some_and(|at| serde_json::from_str::<String>(&plugin[at]).is_ok_and(|kind| kind == ENTRY_TYPE))
}

#[cfg(test)]
mod tests;
