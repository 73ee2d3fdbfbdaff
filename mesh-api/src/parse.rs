//! A text with several YAML documents -> objects with their places, and what could not be read.
//!
//! Invariant: nothing is dropped in silence. A document becomes an object, or a finding that names file, line and field; a field that
//! the kind does not have is an error, because a typo in a policy must not pass for the absence of a rule.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

mod field;
mod locate;
mod slim;
mod yaml;

use self::field::Field;
use crate::{
    diagnostic::{Code, Diagnostic, Origin, Severity},
    object::{
        AuthorizationPolicy, DEFAULT_NAMESPACE, Kind, Object, ObjectRef, PeerAuthentication,
        istio::WorkloadSelector,
    },
};

/// Longer files are refused: 8 MiB, several times what etcd lets an object be.
pub const MAX_FILE_BYTES: usize = 8 << 20;

/// What one file says.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Parsed {
    /// The file's name as given.
    pub file: String,
    /// Every object that could be read, in the order of the text.
    pub objects: Vec<(Object, Origin)>,
    /// Policies that could not be read, reduced to their name and selector: they must fail closed.
    pub refused: Vec<(Object, Origin)>,
    /// What could not be read, and what is skipped.
    pub diagnostics: Vec<Diagnostic>,
}

impl Parsed {
    /// Whether any part of the file was refused: then [`crate::Index::apply_file`] keeps the last good state of this file.
    pub fn is_broken(&self) -> bool {
        self.diagnostics.iter().any(|finding| finding.severity == Severity::Error)
    }
}

/// Reads every document of `text`. Never fails: what cannot be read is a diagnostic that names file, line and field.
pub fn parse(file: &str, text: &str) -> Parsed {
    let mut reader = Reader {
        file: file.into(),
        parsed: Parsed { file: file.to_owned(), ..Parsed::default() },
        from_api_server: false,
    };
    if text.len() > MAX_FILE_BYTES {
        let message = format!("the file has {} bytes, more than {MAX_FILE_BYTES}", text.len());
        reader.report(Code::Malformed, None, 0, "", message);
        return reader.parsed;
    }
    for document in yaml::documents(text) {
        reader.document(&document);
    }
    reader.parsed
}

/// Reads one object that already is JSON, from the Kubernetes API: as [`parse`], but an unknown field of Kubernetes' own kinds is no
/// error. A newer API server has such fields, and it has checked the others. What changes all the time and means nothing here is left
/// out: see [`slim`].
pub fn parse_value(origin: &Origin, value: &Value) -> Parsed {
    let mut reader = Reader {
        file: origin.file.clone(),
        parsed: Parsed { file: origin.file.to_string(), ..Parsed::default() },
        from_api_server: true,
    };
    reader.object(&yaml::Document::without_text(origin.line), value, &Field::root());
    reader.parsed
}

struct Reader {
    file: Arc<str>,
    parsed: Parsed,
    /// What the API server has checked itself is left out without an error, and so is what nobody here reads.
    from_api_server: bool,
}

impl Reader {
    fn document(&mut self, document: &yaml::Document<'_>) {
        match document.value() {
            Err(problem) => self.report(Code::Malformed, None, problem.line, "", problem.message),
            Ok(Value::Null) => (),
            Ok(value) if is_mesh_config(&self.file, &value) => {
                let wrapped = mesh_config_map(document.text());
                self.object(document, &wrapped, &Field::root());
            }
            Ok(value) => self.object(document, &value, &Field::root()),
        }
    }

    /// Reads `value`, found at `at` in the document; a list is unrolled.
    fn object(&mut self, document: &yaml::Document<'_>, value: &Value, at: &Field) {
        let Some((api_version, kind)) = type_of(value) else {
            let message = "not an object: apiVersion and kind must be texts";
            return self.report(Code::Malformed, None, document.line_of(at), &at.to_string(), message);
        };
        if let (true, Some(Value::Array(items))) = (kind.ends_with("List"), value.get("items")) {
            for (number, item) in items.iter().enumerate() {
                self.object(document, item, &at.key("items").index(number));
            }
            return;
        }
        match recognise(api_version, kind) {
            Recognised::Read(kind) => self.read(document, value, at, kind),
            Recognised::WrongVersion(kind) => {
                let message = format!(
                    "{kind} of {api_version} is not read; known versions of the group {:?}: {}",
                    kind.api().group(),
                    kind.api().versions().join(", ")
                );
                let field = at.key("apiVersion");
                self.report(Code::Malformed, None, document.line_of(&field), &field.to_string(), message);
                self.refuse(document, value, at, kind);
            }
            Recognised::NotImplemented => {
                let message = format!("{} is not implemented yet: it has no effect", title(value, kind));
                self.report(Code::KindNotImplemented, None, document.line_of(at), &at.to_string(), message);
            }
            Recognised::Foreign => {
                let message = format!("{} means nothing to the mesh and is skipped", title(value, kind));
                self.report(Code::KindSkipped, None, document.line_of(at), &at.to_string(), message);
            }
        }
    }

    fn read(&mut self, document: &yaml::Document<'_>, value: &Value, at: &Field, kind: Kind) {
        let object = match kind {
            Kind::Node => typed(value).map(|read| read.boxed(Object::Node)),
            Kind::Namespace => typed(value).map(|read| read.boxed(Object::Namespace)),
            Kind::ServiceAccount => typed(value).map(|read| read.boxed(Object::ServiceAccount)),
            Kind::ConfigMap => typed(value).map(|read| read.boxed(Object::ConfigMap)),
            Kind::Pod => typed(value).map(|read| read.boxed(Object::Pod)),
            Kind::Service => typed(value).map(|read| read.boxed(Object::Service)),
            Kind::EndpointSlice => typed(value).map(|read| read.boxed(Object::EndpointSlice)),
            Kind::NetworkPolicy => typed(value).map(|read| read.boxed(Object::NetworkPolicy)),
            Kind::VirtualService => typed(value).map(|read| read.boxed(Object::VirtualService)),
            Kind::DestinationRule => typed(value).map(|read| read.boxed(Object::DestinationRule)),
            Kind::AuthorizationPolicy => typed(value).map(|read| read.boxed(Object::AuthorizationPolicy)),
            Kind::PeerAuthentication => typed(value).map(|read| read.boxed(Object::PeerAuthentication)),
            Kind::HTTPRoute => typed(value).map(|read| read.boxed(Object::HTTPRoute)),
        };
        let is_trusted = |field: &Field| {
            self.from_api_server && (kind.api().is_kubernetes() || field.begins_with("metadata"))
        };
        let problems = match object {
            Err(problem) => vec![problem],
            Ok((_, unknown)) if !unknown.iter().all(is_trusted) => {
                unknown.into_iter().filter(|field| !is_trusted(field)).map(Problem::unknown).collect()
            }
            Ok((object, _)) if object.metadata().name.as_deref().unwrap_or_default().is_empty() => {
                vec![Problem::no_name()]
            }
            Ok((mut object, _)) => {
                if self.from_api_server {
                    slim::slim(&mut object);
                }
                let origin = Origin { file: self.file.clone(), line: document.line_of(at) };
                return self.parsed.objects.push((object, origin));
            }
        };
        let name = reference(kind, value);
        for problem in problems {
            let field = at.join(&problem.field);
            let line = document.line_of(&field);
            self.report(problem.code, name.clone(), line, &field.to_string(), problem.message);
        }
        self.refuse(document, value, at, kind);
    }

    /// A policy that cannot be read must fail closed: what is known of it goes on.
    fn refuse(&mut self, document: &yaml::Document<'_>, value: &Value, at: &Field, kind: Kind) {
        let origin = Origin { file: self.file.clone(), line: document.line_of(at) };
        let policy = outline(kind, value, origin.line);
        self.parsed.refused.extend(policy.map(|policy| (policy, origin)));
    }

    fn report(
        &mut self,
        code: Code,
        object: Option<ObjectRef>,
        line: u32,
        field: &str,
        message: impl Into<String>,
    ) {
        self.parsed.diagnostics.push(Diagnostic {
            severity: code.severity(),
            code,
            object,
            field: field.to_owned(),
            message: message.into(),
            origin: Some(Origin { file: self.file.clone(), line }),
        });
    }
}

enum Recognised {
    Read(Kind),
    WrongVersion(Kind),
    NotImplemented,
    Foreign,
}

/// Kinds that people bring along from Istio and that mean something there: silence would mislead.
const NOT_IMPLEMENTED_GROUPS: &[&str] = &[
    "networking.istio.io",
    "security.istio.io",
    "telemetry.istio.io",
    "extensions.istio.io",
    "install.istio.io",
    "gateway.networking.k8s.io",
];

fn recognise(api_version: &str, kind: &str) -> Recognised {
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    match kind.parse::<Kind>() {
        Ok(kind) if kind.api().group() == group => match kind.api().versions().contains(&version) {
            true => Recognised::Read(kind),
            false => Recognised::WrongVersion(kind),
        },
        // A kind of Kubernetes under another group's name (`Service` of Knative, `NetworkPolicy` of Calico) is somebody else's.
        Ok(kind) if !kind.api().is_kubernetes() => Recognised::WrongVersion(kind),
        _ if NOT_IMPLEMENTED_GROUPS.contains(&group) => Recognised::NotImplemented,
        _ => Recognised::Foreign,
    }
}

/// What keeps a value from being an object.
struct Problem {
    code: Code,
    field: Field,
    message: String,
}

impl Problem {
    fn no_name() -> Self {
        Self {
            code: Code::Malformed,
            field: Field::root().key("metadata").key("name"),
            message: "the object has no name".to_owned(),
        }
    }

    fn unknown(field: Field) -> Self {
        Self { code: Code::UnknownField, field, message: "there is no such field (a typo?)".to_owned() }
    }
}

/// A value as `T`, and the fields that `T` does not have.
struct Typed<T> {
    object: T,
    unknown: Vec<Field>,
}

impl<T> Typed<T> {
    fn boxed(self, variant: fn(Box<T>) -> Object) -> (Object, Vec<Field>) {
        (variant(Box::new(self.object)), self.unknown)
    }
}

/// Reads the value as `T`. A field that `T` does not have shows by its absence when `T` is written back.
fn typed<T: DeserializeOwned + Serialize>(value: &Value) -> Result<Typed<T>, Problem> {
    let object: T = serde_path_to_error::deserialize(value).map_err(|error| {
        let field = Field::from_serde(error.path());
        Problem { code: Code::Malformed, field, message: error.into_inner().to_string() }
    })?;
    let written = serde_json::to_value(&object).map_err(|error| Problem {
        code: Code::Malformed,
        field: Field::root(),
        message: error.to_string(),
    })?;
    let mut unknown = Vec::new();
    field::missing(value, &written, &Field::root(), &mut unknown);
    Ok(Typed { object, unknown })
}

fn type_of(value: &Value) -> Option<(&str, &str)> {
    Some((value.get("apiVersion")?.as_str()?, value.get("kind")?.as_str()?))
}

fn reference(kind: Kind, value: &Value) -> Option<ObjectRef> {
    let metadata = value.get("metadata")?;
    let namespace = match kind.is_namespaced() {
        true => metadata.get("namespace").and_then(Value::as_str).unwrap_or(DEFAULT_NAMESPACE),
        false => "",
    };
    let name = metadata.get("name")?.as_str().filter(|name| !name.is_empty())?;
    Some(ObjectRef { kind, namespace: namespace.into(), name: name.into() })
}

/// The kind with the object's name, if it has one.
fn title(value: &Value, kind: &str) -> String {
    match value.pointer("/metadata/name").and_then(Value::as_str) {
        Some(name) => format!("{kind} {name}"),
        None => kind.to_owned(),
    }
}

/// Name and selector of a policy that could not be read. Without a readable selector it stands for the whole namespace; without a name it
/// gets one of its line: nodes refuse what has none.
fn outline(kind: Kind, value: &Value, line: u32) -> Option<Object> {
    let text = |pointer| value.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty());
    let name = text("/metadata/name").map_or_else(|| format!("unnamed-{line}"), str::to_owned);
    let namespace = text("/metadata/namespace").unwrap_or(DEFAULT_NAMESPACE).to_owned();
    let metadata = ObjectMeta { name: Some(name), namespace: Some(namespace), ..ObjectMeta::default() };
    let selector = value
        .pointer("/spec/selector")
        .and_then(|selector| Some(typed::<WorkloadSelector>(selector).ok()?.object));
    match kind {
        Kind::AuthorizationPolicy => {
            let mut policy = AuthorizationPolicy { metadata, ..AuthorizationPolicy::default() };
            policy.spec.selector = selector;
            Some(Object::AuthorizationPolicy(Box::new(policy)))
        }
        Kind::PeerAuthentication => {
            let mut policy = PeerAuthentication { metadata, ..PeerAuthentication::default() };
            policy.spec.selector = selector;
            Some(Object::PeerAuthentication(Box::new(policy)))
        }
        _ => None,
    }
}

/// `mesh.yaml` may hold Istio's MeshConfig as it is, without a ConfigMap around it.
fn is_mesh_config(file: &str, value: &Value) -> bool {
    let name = file.rsplit('/').next().unwrap_or(file);
    matches!(name, "mesh.yaml" | "mesh.yml") && value.get("kind").is_none()
}

fn mesh_config_map(text: &str) -> Value {
    serde_json::json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": "istio", "namespace": "istio-system" },
        "data": { "mesh": text },
    })
}
