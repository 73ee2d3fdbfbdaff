//! The status of routes of the Gateway API.
//!
//! Invariant: what other controllers wrote stays ([`mesh_api::RouteStatus::merged`]), also if they write at the same time: a write is for
//! the version that was read.

use std::collections::{BTreeMap, HashMap};

use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
};
use mesh_api::{Kind, ObjectRef, RouteStatus};
use serde_json::json;

use super::{StatusError, Written, call, now, write_call};
use crate::source::kube::served;

/// What routes were told.
pub(super) struct Routes {
    client: Client,
    told: HashMap<ObjectRef, RouteStatus>,
    resources: HashMap<Kind, ApiResource>,
}

impl Routes {
    /// Nothing was told yet, as far as we know; what routes say is read before it is written.
    pub(super) fn new(client: &Client) -> Self {
        Self { client: client.clone(), told: HashMap::new(), resources: HashMap::new() }
    }

    /// The routes that are to be told something else than before.
    pub(super) fn due(&mut self, statuses: &BTreeMap<ObjectRef, RouteStatus>) -> Vec<ObjectRef> {
        self.told.retain(|route, _| statuses.contains_key(route));
        let due = statuses.iter().filter(|(route, status)| self.told.get(route) != Some(*status));
        due.map(|(route, _)| route.clone()).collect()
    }

    /// Tells one route.
    pub(super) async fn write(
        &mut self,
        route: &ObjectRef,
        statuses: &BTreeMap<ObjectRef, RouteStatus>,
    ) -> Result<Written, StatusError> {
        let Some(status) = statuses.get(route) else { return Ok(Written::Same) };
        let written = self.merge(route, status).await?;
        self.told.insert(route.clone(), status.clone());
        Ok(written)
    }

    async fn merge(&mut self, route: &ObjectRef, status: &RouteStatus) -> Result<Written, StatusError> {
        let Some(resource) = self.resource(route.kind).await? else { return Ok(Written::Gone) };
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &route.namespace, &resource);
        let Some(object) = call(api.get_opt(&route.name)).await? else { return Ok(Written::Gone) };
        let Some(merged) = status.merged(object.data.get("status"), &now()) else {
            return Ok(Written::Same);
        };
        let version = object.metadata.resource_version.unwrap_or_default();
        let patch = Patch::Merge(json!({ "metadata": { "resourceVersion": version }, "status": merged }));
        write_call(api.patch_status(&route.name, &PatchParams::default(), &patch)).await
    }

    async fn resource(&mut self, kind: Kind) -> Result<Option<ApiResource>, StatusError> {
        if let Some(known) = self.resources.get(&kind) {
            return Ok(Some(known.clone()));
        }
        let found = call(served(&self.client, kind)).await?;
        if let Some(resource) = &found {
            self.resources.insert(kind, resource.clone());
        }
        Ok(found)
    }
}
