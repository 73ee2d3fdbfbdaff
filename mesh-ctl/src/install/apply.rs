//! Server-side apply of the chart's objects: fields that others own are left alone, what meshctl said before and no longer says goes.

use kube::{
    Api,
    api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams},
    core::TypeMeta,
};
use serde_json::{Value, json};

use crate::{chart::Manifest, cluster::Cluster, exit::Failure, progress::Progress};

/// The owner of the fields, and the value of [`MANAGED_BY`].
pub const MANAGER: &str = "meshctl";
/// Who manages an object; Helm sets it, too.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// Creates the CustomResourceDefinitions that are not there. Those that are may be Istio's or the Gateway API's: they stay as they are.
pub async fn crds(cluster: &Cluster, crds: &[Manifest], progress: &mut Progress) -> Result<(), Failure> {
    let mut created = 0;
    for crd in crds {
        let mut object = object(crd)?;
        let (api, name) = (api(cluster, &object)?, title(&object));
        progress.now(&name);
        let labels = object.metadata.labels.get_or_insert_default();
        labels.insert("app.kubernetes.io/part-of".to_owned(), "tulle".to_owned());
        labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
        match api
            .create(&PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() }, &object)
            .await
        {
            Ok(_) => created += 1,
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(Failure::from_kube(&format!("cannot create {name}"), &error)),
        }
    }
    let kept = crds.len() - created;
    progress.done(&format!("CustomResourceDefinitions: {created} created, {kept} there already"));
    Ok(())
}

/// Creates the mesh's namespace. The agent uses the node's network and processes, which Pod Security must allow there.
pub async fn namespace(cluster: &Cluster, progress: &mut Progress) -> Result<(), Failure> {
    let namespace = json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": cluster.mesh_namespace,
            "labels": { "pod-security.kubernetes.io/enforce": "privileged" },
        },
    });
    one(cluster, &namespace, progress).await
}

/// Applies the chart's objects, in their order.
pub async fn objects(
    cluster: &Cluster,
    objects: &[Manifest],
    progress: &mut Progress,
) -> Result<(), Failure> {
    for manifest in objects {
        one(cluster, manifest, progress).await?;
    }
    progress.done(&format!("{} objects applied in namespace {}", objects.len(), cluster.mesh_namespace));
    Ok(())
}

async fn one(cluster: &Cluster, manifest: &Manifest, progress: &mut Progress) -> Result<(), Failure> {
    let mut object = object(manifest)?;
    let title = title(&object);
    progress.now(&title);
    object.metadata.labels.get_or_insert_default().insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    let name = object.metadata.name.clone().unwrap_or_default();
    // Forced: what the chart says is ours, even if somebody changed it by hand.
    let parameters = PatchParams::apply(MANAGER).force();
    api(cluster, &object)?
        .patch(&name, &parameters, &Patch::Apply(&object))
        .await
        .map(drop)
        .map_err(|error| Failure::from_kube(&format!("cannot apply {title}"), &error))
}

fn object(manifest: &Value) -> Result<DynamicObject, Failure> {
    serde_json::from_value(manifest.clone())
        .map_err(|error| Failure::runtime(format!("the chart has something that is no object: {error}")))
}

fn api(cluster: &Cluster, object: &DynamicObject) -> Result<Api<DynamicObject>, Failure> {
    let types = object.types.clone().unwrap_or_default();
    let kind = GroupVersionKind::try_from(&types)
        .map_err(|error| Failure::runtime(format!("the chart has an object of no kind: {error}")))?;
    // The chart has Kubernetes' own kinds only: their plurals follow the rule.
    let resource = ApiResource::from_gvk(&kind);
    let client = cluster.client.clone();
    Ok(match &object.metadata.namespace {
        Some(namespace) => Api::namespaced_with(client, namespace, &resource),
        None => Api::all_with(client, &resource),
    })
}

fn title(object: &DynamicObject) -> String {
    let kind = object.types.as_ref().map_or("object", |TypeMeta { kind, .. }| kind.as_str());
    format!("{kind} {}", object.metadata.name.as_deref().unwrap_or_default())
}
