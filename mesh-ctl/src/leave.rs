//! Leaving a cluster gracefully: the controller is told, every node takes its hooks off the pods it captured, and only then may anything
//! be deleted. `meshctl uninstall` and the chart's pre-delete hook do the same.
//!
//! Invariant: a mesh that was asked to leave and is not deleted is asked to stay: else it would be off, with every label and policy as it
//! was.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams},
};
use mesh_api::object::ENROLMENT_LABEL;
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use crate::{cluster::Cluster, exit::Failure, install::MANAGER, progress::Progress};

/// The controller's state, which carries the conversation as annotations.
const STATE: &str = "tulle-state";
/// We: the mesh shall leave.
const LEAVING: &str = "tulle.dev/leaving";
/// The controller: no node captures anything any more.
const LEFT: &str = "tulle.dev/left";
/// How often the answer is looked for.
const EVERY: Duration = Duration::from_millis(500);
/// How long taking the word back may take; it comes after the user's own deadline.
const TAKE_BACK: Duration = Duration::from_secs(10);

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Every pod has its plain network back.
    Gracefully,
    /// There was nothing to leave: the controller never ran here.
    NeverRan,
}

/// Asks the mesh to leave and waits for it. Fails, with nothing deleted, if it does not within `patience`.
pub async fn leave(cluster: &Cluster, patience: Duration, progress: &mut Progress) -> Result<Left, Failure> {
    let states: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), &cluster.mesh_namespace);
    let deadline = Instant::now() + patience;
    if mark(&states, Some("true")).await.map_err(|error| cannot_tell(&error))?.is_none() {
        progress.warn("the mesh never ran here: there is nothing to leave");
        return Ok(Left::NeverRan);
    }
    progress.now("every node gives its pods their plain network back");
    loop {
        match states.get_opt(STATE).await {
            Ok(None) => return Ok(Left::NeverRan),
            Ok(Some(state)) if said(&state, LEFT) => break,
            Ok(Some(_)) => {}
            // The API server may be away for a moment; the deadline bounds it.
            Err(error) => progress.warn(&format!("cannot read the controller's answer: {error}")),
        }
        if Instant::now() + EVERY > deadline {
            return Err(Failure::too_late("the mesh did not leave in time; nothing was deleted").hint(
                "see `meshctl status` for nodes that do not answer; --force deletes all the same (then run `mesh-node detach --all` there)",
            ));
        }
        sleep(EVERY).await;
    }
    progress.done("every pod has its plain network back");
    Ok(Left::Gracefully)
}

/// Takes back what [`leave`] asked, if anybody did: the mesh captures again what its labels say. Failing is told, with what to do.
pub async fn stay(cluster: &Cluster, progress: &mut Progress) {
    let take_back = async {
        while let Err(error) = back(cluster).await {
            progress.now(&format!("{error}; trying again"));
            sleep(EVERY).await;
        }
    };
    match timeout(TAKE_BACK, take_back).await {
        Ok(()) => progress.done("nothing was deleted, and the mesh stays"),
        Err(_) => progress.warn(&format!(
            "the mesh is still leaving, and could not be told to stay. Say it: kubectl -n {} annotate configmap {STATE} {LEAVING}-",
            cluster.mesh_namespace
        )),
    }
}

/// Makes a mesh that was asked to leave stay; whether it had been asked.
pub async fn back(cluster: &Cluster) -> Result<bool, Failure> {
    let states: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), &cluster.mesh_namespace);
    let state = states.get_opt(STATE).await.map_err(|error| cannot_tell(&error))?;
    let asked = state.is_some_and(|state| said(&state, LEAVING));
    if asked {
        mark(&states, None).await.map_err(|error| cannot_tell(&error))?;
    }
    Ok(asked)
}

/// None: there is no state to mark.
async fn mark(
    states: &Api<ConfigMap>,
    leaving: Option<&'static str>,
) -> Result<Option<ConfigMap>, kube::Error> {
    let mark = json!({ "metadata": { "annotations": { LEAVING: leaving } } });
    let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    match states.patch(STATE, &parameters, &Patch::Merge(&mark)).await {
        Ok(state) => Ok(Some(state)),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(error) => Err(error),
    }
}

fn cannot_tell(error: &kube::Error) -> Failure {
    Failure::from_kube("cannot tell the controller whether to leave", error)
}

fn said(state: &ConfigMap, what: &str) -> bool {
    let annotations = state.metadata.annotations.as_ref();
    annotations.and_then(|annotations| annotations.get(what)).is_some_and(|value| value == "true")
}

/// Takes the enrolment label off every namespace, so that a later installation captures nothing by surprise.
pub async fn remove_labels(cluster: &Cluster, progress: &mut Progress) -> Result<(), Failure> {
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let labelled = namespaces
        .list(&ListParams::default().labels(ENROLMENT_LABEL))
        .await
        .map_err(|error| Failure::from_kube("cannot list enrolled namespaces", &error))?;
    let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    let remove = json!({ "metadata": { "labels": { ENROLMENT_LABEL: null } } });
    for name in labelled.items.into_iter().filter_map(|namespace| namespace.metadata.name) {
        match namespaces.patch(&name, &parameters, &Patch::Merge(&remove)).await {
            Ok(_) => progress.done(&format!("namespace {name} is no longer labelled")),
            // It was deleted meanwhile.
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => {
                return Err(Failure::from_kube(
                    &format!("cannot take the label off namespace {name}"),
                    &error,
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
