//! The mesh's settings.

use mesh_model::mesh::MeshSettings;

use crate::{
    diagnostic::{Code, Diagnostic},
    index::Index,
    object::Object,
    read,
};

/// The settings: of ConfigMap `istio` in the root namespace, over those of the process, over the defaults.
pub(super) fn settings(index: &Index, list: &mut Vec<Diagnostic>) -> MeshSettings {
    let base = MeshSettings {
        trust_domain: index.options().trust_domain.clone(),
        leaving: index.options().leaving,
        ..MeshSettings::default()
    };
    let maps = index.facts(|object| match object {
        Object::ConfigMap(map) if read::mesh::is_mesh_config(map) => Some(&**map),
        _ => None,
    });
    let mut settings = base.clone();
    for fact in maps {
        if *fact.reference.namespace == *base.root_namespace.as_str() {
            settings = read::mesh::read(fact.object, &base, &mut fact.findings(&mut Vec::new()));
        } else {
            let message = format!("the mesh's settings are read in namespace {} only", base.root_namespace);
            fact.findings(list).add(Code::SettingWithoutEffect, "metadata.namespace", message);
        }
    }
    settings
}

/// A mesh that leaves captures nothing, whatever labels say: whoever looks must see that before anything else.
pub(super) fn leaving(index: &Index) -> Option<Diagnostic> {
    index.options().leaving.then(|| Diagnostic {
        severity: Code::Leaving.severity(),
        code: Code::Leaving,
        object: None,
        field: String::new(),
        message: "the mesh is being uninstalled: no pod is captured, and none of its policies holds. If nobody does that any more, take \
                  it back with `meshctl install`, or finish it"
            .to_owned(),
        origin: None,
    })
}
