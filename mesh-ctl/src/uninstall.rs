//! `meshctl uninstall`: the mesh leaves, then everything of ours is deleted, by label.

use std::{process::ExitCode, time::Duration};

use k8s_openapi::{
    api::{
        apps::v1::{DaemonSet, Deployment},
        core::v1::{ConfigMap, Namespace, Secret, Service, ServiceAccount},
        rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Resource,
    api::{DeleteParams, ListParams},
};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep};

use crate::{
    cli::{Globals, UninstallArgs},
    cluster::{Cluster, pods},
    exit::{self, Failure},
    install::{MANAGED_BY, MANAGER},
    leave::{self, Left},
    print,
    progress::{Progress, confirm},
};

/// Everything of ours carries it.
const OURS: &str = "app.kubernetes.io/part-of=tulle";
/// What the controller made itself; its owner would collect them, a little later.
const MADE: (&str, [&str; 2]) = ("tulle-ca", ["tulle-state", "tulle-root-cert"]);

/// Leaves, and deletes. Until the first deletion whatever ends it (an error, the deadline, Ctrl-C) takes back what was asked of the mesh.
pub async fn run(globals: &Globals, args: &UninstallArgs) -> Result<ExitCode, Failure> {
    let deadline = Instant::now() + globals.patience();
    let left = || deadline.saturating_duration_since(Instant::now());
    let cluster = Cluster::connect(globals).await?;
    let mut progress = Progress::new();
    let found = args.hook || exit::bounded(left(), agree(&cluster, args)).await?;
    if let Err(failure) = exit::bounded(left(), depart(&cluster, args, left(), &mut progress)).await {
        leave::stay(&cluster, &mut progress).await;
        return Err(failure);
    }
    if !args.hook {
        exit::bounded(left(), delete(&cluster, args, deadline, &mut progress)).await?;
        drop(progress);
        match found {
            true => print::stdout("Tulle is uninstalled.")?,
            false => {
                print::stdout(&format!("Tulle was not installed in namespace {}.", cluster.mesh_namespace))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether the mesh is installed; an error if it is not ours to uninstall, or the user does not want it.
async fn agree(cluster: &Cluster, args: &UninstallArgs) -> Result<bool, Failure> {
    let found = installed(cluster).await?;
    let purge =
        if args.purge { ", with the CustomResourceDefinitions and every route and policy" } else { "" };
    let question =
        format!("Uninstall Tulle from {}, namespace {}{purge}?", cluster.name, cluster.mesh_namespace);
    confirm(&question, args.yes)?;
    Ok(found)
}

/// Every pod gets its plain network back, and no namespace is enrolled any more.
async fn depart(
    cluster: &Cluster,
    args: &UninstallArgs,
    patience: Duration,
    progress: &mut Progress,
) -> Result<(), Failure> {
    // What comes after it needs its part of the time.
    match leave::leave(cluster, patience.mul_f32(0.7), progress).await {
        Ok(Left::Gracefully | Left::NeverRan) => {}
        Err(failure) if args.force => progress.warn(&format!("{failure}: going on, as --force says")),
        Err(failure) => return Err(failure),
    }
    leave::remove_labels(cluster, progress).await
}

async fn delete(
    cluster: &Cluster,
    args: &UninstallArgs,
    deadline: Instant,
    progress: &mut Progress,
) -> Result<(), Failure> {
    delete_workloads(cluster, deadline, progress).await?;
    delete_rest(cluster, progress).await?;
    if args.purge {
        purge_all(cluster, progress).await?;
    }
    Ok(())
}

/// Whether there is a controller; Helm's releases are Helm's to uninstall.
async fn installed(cluster: &Cluster) -> Result<bool, Failure> {
    let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), &cluster.mesh_namespace);
    let found = deployments
        .get_opt("mesh-controller")
        .await
        .map_err(|error| Failure::from_kube("cannot see whether the mesh is installed", &error))?;
    let Some(found) = found else { return Ok(false) };
    let manager = found.metadata.labels.and_then(|mut labels| labels.remove(MANAGED_BY));
    if manager.as_deref() == Some("Helm") {
        let release = found
            .metadata
            .annotations
            .and_then(|mut annotations| annotations.remove("meta.helm.sh/release-name"))
            .unwrap_or_else(|| "tulle".to_owned());
        return Err(Failure::bad_input("the mesh was installed with Helm")
            .hint(format!("run: helm uninstall {release} -n {}", cluster.mesh_namespace)));
    }
    Ok(true)
}

/// Agents and controller first: nothing else may go while they use it.
async fn delete_workloads(
    cluster: &Cluster,
    deadline: Instant,
    progress: &mut Progress,
) -> Result<(), Failure> {
    progress.now("deleting the agents and the controller");
    delete_all::<DaemonSet>(&here(cluster)).await?;
    delete_all::<Deployment>(&here(cluster)).await?;
    loop {
        let mut left = pods::of(cluster, "mesh-node").await?;
        left.extend(pods::of(cluster, "mesh-controller").await?);
        if left.is_empty() {
            break;
        }
        let names: Vec<&str> = left.iter().map(pods::name).collect();
        progress.now(&format!("waiting for the end of {}", names.join(", ")));
        if Instant::now() > deadline {
            return Err(Failure::too_late(format!("pods that do not end: {}", names.join(", ")))
                .hint("run `meshctl uninstall` again once their nodes answer"));
        }
        sleep(Duration::from_millis(500)).await;
    }
    progress.done("agents and controller are gone");
    Ok(())
}

async fn delete_rest(cluster: &Cluster, progress: &mut Progress) -> Result<(), Failure> {
    progress.now("deleting what they used");
    delete_all::<Service>(&here(cluster)).await?;
    delete_all::<RoleBinding>(&here(cluster)).await?;
    delete_all::<Role>(&here(cluster)).await?;
    delete_all::<ServiceAccount>(&here(cluster)).await?;
    delete_all::<ClusterRoleBinding>(&Api::all(cluster.client.clone())).await?;
    delete_all::<ClusterRole>(&Api::all(cluster.client.clone())).await?;
    delete_named::<Secret>(&here(cluster), MADE.0).await?;
    for name in MADE.1 {
        delete_named::<ConfigMap>(&here(cluster), name).await?;
    }
    progress.done("roles, accounts, service and state are gone");
    Ok(())
}

/// CustomResourceDefinitions and a namespace that meshctl created; those of others stay.
async fn purge_all(cluster: &Cluster, progress: &mut Progress) -> Result<(), Failure> {
    delete_all::<CustomResourceDefinition>(&Api::all(cluster.client.clone())).await?;
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let namespace = namespaces
        .get_opt(&cluster.mesh_namespace)
        .await
        .map_err(|error| Failure::from_kube("cannot see the mesh's namespace", &error))?;
    let labels = namespace.and_then(|namespace| namespace.metadata.labels).unwrap_or_default();
    if labels.get(MANAGED_BY).is_some_and(|manager| manager == MANAGER) {
        delete_named(&namespaces, &cluster.mesh_namespace).await?;
    }
    progress.done("CustomResourceDefinitions and namespace are deleted");
    Ok(())
}

fn here<K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>>(
    cluster: &Cluster,
) -> Api<K> {
    Api::namespaced(cluster.client.clone(), &cluster.mesh_namespace)
}

/// One by one: `deletecollection` is a right that few have, and Services have no such verb on older servers.
async fn delete_all<K>(api: &Api<K>) -> Result<(), Failure>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let kind = K::kind(&());
    let found = api
        .list_metadata(&ListParams::default().labels(OURS))
        .await
        .map_err(|error| Failure::from_kube(&format!("cannot list {kind}s"), &error))?;
    for name in found.items.into_iter().filter_map(|object| object.metadata.name) {
        delete_named(api, &name).await?;
    }
    Ok(())
}

async fn delete_named<K>(api: &Api<K>, name: &str) -> Result<(), Failure>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    match api.delete(name, &DeleteParams::background()).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(Failure::from_kube(&format!("cannot delete {} {name}", K::kind(&())), &error)),
    }
}
