//! The Helm chart, embedded and rendered without Helm: what `meshctl install` applies is what `helm install` would.
//!
//! Invariant: there is one chart. Its templates use Go's own actions and the functions in `functions`, nothing else; a test compares the
//! objects with those of `helm template`.

mod functions;
mod values;

use gtmpl_ng::{Context, Template};
use include_dir::{Dir, DirEntry, include_dir};
use serde::{Deserialize, de::Error as _};
use serde_json::{Value, json};

pub use values::{merge_file, set};

static CHART: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../helm/tulle");
/// Helm's hooks are not installed; they run at Helm's events.
const HOOK: &str = "helm.sh/hook";
/// Files that define and print nothing.
const DEFINITIONS: &str = ".tpl";

/// Why the chart gives no objects.
#[derive(Debug, thiserror::Error)]
pub enum ChartError {
    /// A file of the chart is missing or is no text.
    #[error("the embedded chart has no readable {0}")]
    File(&'static str),
    /// A template does not parse or does not render.
    #[error("{file}: {reason}")]
    Template {
        /// The template.
        file: String,
        /// What the engine said.
        reason: String,
    },
    /// A rendered document is not YAML: usually a value that broke its line.
    #[error("{file} renders to something that is not YAML: {reason}")]
    Yaml {
        /// The template or file.
        file: String,
        /// What the parser said.
        reason: serde_yaml_ng::Error,
    },
}

/// What Helm calls a release.
#[derive(Clone, Debug)]
pub struct Release {
    /// Its name.
    pub name: String,
    /// Where it is installed.
    pub namespace: String,
}

/// One object, in the order in which Helm installs.
pub type Manifest = Value;

/// The chart's own values.
pub fn default_values() -> Result<Value, ChartError> {
    parse("values.yaml", text("values.yaml")?)
}

/// The CustomResourceDefinitions.
pub fn crds() -> Result<Vec<Manifest>, ChartError> {
    let mut objects = Vec::new();
    for (file, text) in files("crds") {
        objects.extend(documents(&file, text)?);
    }
    Ok(objects)
}

/// Renders every template with these values (complete: defaults and overrides).
pub fn render(release: &Release, values: &Value) -> Result<Vec<Manifest>, ChartError> {
    let chart: Value = parse("Chart.yaml", text("Chart.yaml")?)?;
    let data = json!({
        "Values": values,
        "Release": { "Name": release.name, "Namespace": release.namespace, "Service": "Helm" },
        "Chart": { "Name": chart["name"], "Version": chart["version"], "AppVersion": chart["appVersion"] },
    });
    let data: gtmpl_ng::Value = serde_json::from_value(data)
        .map_err(|error| ChartError::Template { file: "values".to_owned(), reason: error.to_string() })?;
    let context = Context::from(data);
    let mut objects = Vec::new();
    for (file, text) in files("templates") {
        if file.ends_with(".yaml") {
            objects.extend(documents(&file, &render_one(&file, text, &context)?)?);
        }
    }
    objects.retain(|object| object["metadata"]["annotations"].get(HOOK).is_none());
    objects.sort_by_key(|object| rank(object["kind"].as_str().unwrap_or_default()));
    Ok(objects)
}

fn render_one(file: &str, text: &str, context: &Context) -> Result<String, ChartError> {
    let failed = |reason: String| ChartError::Template { file: file.to_owned(), reason };
    let mut template = Template::with_name(file);
    template.add_funcs(functions::ALL);
    for (name, definitions) in files("templates") {
        if name.ends_with(DEFINITIONS) {
            template.add_template(name, definitions).map_err(|error| failed(error.to_string()))?;
        }
    }
    template.parse(text).map_err(|error| failed(error.to_string()))?;
    template.render(context).map_err(|error| failed(error.to_string()))
}

/// The order in which Helm installs kinds (its `InstallOrder`), as far as the chart has them.
fn rank(kind: &str) -> usize {
    const ORDER: &[&str] = &[
        "Namespace",
        "ServiceAccount",
        "Secret",
        "ConfigMap",
        "ClusterRole",
        "ClusterRoleBinding",
        "Role",
        "RoleBinding",
        "Service",
        "DaemonSet",
        "Deployment",
    ];
    ORDER.iter().position(|known| *known == kind).unwrap_or(ORDER.len())
}

/// Every text file below a folder of the chart, by name.
fn files(folder: &str) -> Vec<(String, &'static str)> {
    let mut found = Vec::new();
    let mut open: Vec<&DirEntry<'static>> =
        CHART.get_dir(folder).map(|dir| dir.entries().iter().collect()).unwrap_or_default();
    while let Some(entry) = open.pop() {
        match entry {
            DirEntry::Dir(dir) => open.extend(dir.entries()),
            DirEntry::File(file) => {
                found.extend(file.contents_utf8().map(|text| (file.path().display().to_string(), text)));
            }
        }
    }
    found.sort();
    found
}

fn text(name: &'static str) -> Result<&'static str, ChartError> {
    CHART.get_file(name).and_then(|file| file.contents_utf8()).ok_or(ChartError::File(name))
}

fn parse(file: &str, text: &str) -> Result<Value, ChartError> {
    let mut all = documents(file, text)?;
    all.pop().ok_or_else(|| ChartError::Yaml {
        file: file.to_owned(),
        reason: serde_yaml_ng::Error::custom("it is empty"),
    })
}

fn documents(file: &str, text: &str) -> Result<Vec<Value>, ChartError> {
    let mut all = Vec::new();
    for document in serde_yaml_ng::Deserializer::from_str(text) {
        let value = Value::deserialize(document)
            .map_err(|reason| ChartError::Yaml { file: file.to_owned(), reason })?;
        if !value.is_null() {
            all.push(value);
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests;
