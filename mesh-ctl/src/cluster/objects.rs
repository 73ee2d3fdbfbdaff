//! Everything the mesh reads from a cluster, read once: the facts for a compilation here.

use kube::{
    Api,
    api::{ApiResource, DynamicObject, GroupVersionKind, ListParams},
};
use mesh_api::object::Kind;
use serde_json::Value;

use super::Cluster;
use crate::exit::Failure;

/// Objects per page: a page of pods is a few megabytes.
const PAGE: u32 = 500;

/// Every object of every kind that `mesh_api` reads, as the API server has it. ConfigMaps only where the mesh's settings are.
pub async fn all(cluster: &Cluster) -> Result<Vec<Value>, Failure> {
    let mut objects = Vec::new();
    for kind in Kind::ALL {
        objects.extend(of_kind(cluster, *kind).await?);
    }
    Ok(objects)
}

/// A kind whose definition is not installed has no objects.
async fn of_kind(cluster: &Cluster, kind: Kind) -> Result<Vec<Value>, Failure> {
    for version in kind.api().versions() {
        let resource =
            ApiResource::from_gvk(&GroupVersionKind::gvk(kind.api().group(), version, kind.as_str()));
        let (api, parameters) = scope(cluster, kind, &resource);
        match pages(&api, parameters).await {
            Ok(mut found) => {
                for object in &mut found {
                    // Lists leave it out of their items.
                    object["apiVersion"] = resource.api_version.clone().into();
                    object["kind"] = kind.as_str().into();
                }
                return Ok(found);
            }
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => {
                return Err(Failure::from_kube(&format!("cannot list {}", resource.plural), &error));
            }
        }
    }
    Ok(Vec::new())
}

fn scope(cluster: &Cluster, kind: Kind, resource: &ApiResource) -> (Api<DynamicObject>, ListParams) {
    let client = cluster.client.clone();
    match kind {
        Kind::ConfigMap => (
            Api::namespaced_with(client, "istio-system", resource),
            ListParams::default().fields("metadata.name=istio"),
        ),
        _ => (Api::all_with(client, resource), ListParams::default()),
    }
}

async fn pages(api: &Api<DynamicObject>, parameters: ListParams) -> Result<Vec<Value>, kube::Error> {
    let mut all = Vec::new();
    let mut parameters = parameters.limit(PAGE);
    loop {
        let page = api.list(&parameters).await?;
        for item in &page.items {
            all.push(serde_json::to_value(item).map_err(kube::Error::SerdeError)?);
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => parameters = parameters.continue_token(&token),
            None => return Ok(all),
        }
    }
}
