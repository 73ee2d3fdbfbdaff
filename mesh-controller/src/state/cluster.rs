//! The state as objects of the own namespace: Secret `tulle-ca`, ConfigMap `tulle-state`, ConfigMap `tulle-root-cert`.
//!
//! Invariant: the Secret is only ever created, never changed. All three are owned by the Deployment `mesh-controller`, so that they go
//! with it. Each call has a time-out.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read, Write},
    sync::Arc,
    time::Duration,
};

use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use k8s_openapi::{
    ByteString,
    api::{
        apps::v1::Deployment,
        core::v1::{ConfigMap, Secret},
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::{
    Api, Client, Error, Resource,
    api::{Patch, PatchParams, PostParams},
};
use mesh_model::{
    identity::TrustDomain,
    name::{Namespace, WorkloadUid},
};
use serde_json::json;
use time::OffsetDateTime;
use tokio::time::timeout;

use crate::ca::{CaError, RootPem};

/// Who we are among those who write fields.
pub const MANAGER: &str = "mesh-controller";
/// The ConfigMap of the root, for nodes and meshctl.
pub const ROOT_CERT: &str = "tulle-root-cert";
/// The ConfigMap of what is published.
pub const STATE: &str = "tulle-state";
/// On [`STATE`], set by whoever uninstalls.
pub const LEAVING: &str = "tulle.dev/leaving";
/// On [`STATE`], set by us when nothing is captured any more.
pub const LEFT: &str = "tulle.dev/left";
/// The key in [`ROOT_CERT`].
pub const ROOT_KEY: &str = "root.crt";

/// The Secret of the root and its key.
pub const CA_SECRET: &str = "tulle-ca";
/// The same, in errors.
const SECRET: &str = "Secret tulle-ca";
const CA_CERTIFICATE: &str = "ca.crt";
const CA_KEY: &str = "ca.key";
const PUBLISHED: &str = "published.json.gz";
/// The owner of it all.
const DEPLOYMENT: &str = "mesh-controller";
/// For one call.
const CALL: Duration = Duration::from_secs(3);
/// What fits into a ConfigMap beside its metadata; UIDs of some fifty thousand workloads.
const MAX_PACKED_BYTES: usize = 1_000_000;
/// What we would take for our own: a hundred thousand UIDs are 4 MB.
const MAX_UNPACKED_BYTES: u64 = 64 * 1024 * 1024;

/// Why the state cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ClusterStateError {
    /// The API server said no.
    #[error("{what}: {error}")]
    Call {
        /// Which object.
        what: &'static str,
        /// Why.
        error: Box<Error>,
    },
    /// It said nothing.
    #[error("{0}: the API server did not answer in 3 s")]
    TimeOut(&'static str),
    /// Not what we wrote.
    #[error("{what}: {reason}")]
    Damaged {
        /// Which object.
        what: &'static str,
        /// What is wrong; never the content.
        reason: String,
    },
    /// More workloads than an object can hold.
    #[error("{0} workloads do not fit into ConfigMap tulle-state")]
    TooLarge(usize),
    /// There is a mesh and no root for it.
    #[error(
        "Secret tulle-ca is missing while ConfigMap {0} shows that there is a mesh with its certificates; restore the Secret from a backup. \
         Without one, begin with a new root: uninstall and install again, or delete ConfigMaps tulle-root-cert and tulle-state and \
         restart every mesh-node, which cuts the pods of old and new certificates off each other until then"
    )]
    RootMissing(&'static str),
    /// A new root could not be made.
    #[error(transparent)]
    Root(#[from] CaError),
}

/// The way to the objects; cheap to clone.
#[derive(Clone)]
pub struct ClusterState {
    client: Client,
    namespace: Namespace,
    owner: Option<Arc<OwnerReference>>,
}

/// What [`STATE`] says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Kept {
    /// Workloads that were published as HBONE.
    pub published: BTreeSet<WorkloadUid>,
    /// The mesh is being uninstalled.
    pub leaving: bool,
}

impl ClusterState {
    /// Looks for the owner. Without one (a controller outside of the cluster) the objects stay until somebody removes them.
    pub async fn open(client: Client, namespace: Namespace) -> Result<Self, ClusterStateError> {
        let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace.as_str());
        let deployment = call("Deployment mesh-controller", deployments.get_opt(DEPLOYMENT)).await?;
        let owner = deployment.and_then(|deployment| deployment.owner_ref(&())).map(Arc::new);
        if owner.is_none() {
            tracing::warn!(%namespace, "there is no Deployment mesh-controller: nobody owns what is kept here");
        }
        Ok(Self { client, namespace, owner })
    }

    /// The root; a new one if there is none and never was one. Whoever creates the Secret first decides.
    pub async fn root(
        &self,
        trust_domain: &TrustDomain,
        now: OffsetDateTime,
    ) -> Result<RootPem, ClusterStateError> {
        let secrets = self.secrets();
        if let Some(secret) = call(SECRET, secrets.get_opt(CA_SECRET)).await? {
            return root_of(secret);
        }
        self.refuse_a_second_root().await?;
        let fresh = RootPem::generate(trust_domain, now)?;
        if self.put_back(&fresh).await? {
            tracing::info!("made a new root");
            return Ok(fresh);
        }
        root_of(call(SECRET, secrets.get(CA_SECRET)).await?)
    }

    /// What a root leaves behind, where its Secret is gone.
    async fn refuse_a_second_root(&self) -> Result<(), ClusterStateError> {
        let maps = self.config_maps();
        let root_cert = call("ConfigMap tulle-root-cert", maps.get_opt(ROOT_CERT)).await?;
        if root_cert.is_some_and(|map| self.is_of_this_installation(&map.metadata)) {
            return Err(ClusterStateError::RootMissing(ROOT_CERT));
        }
        let state = call("ConfigMap tulle-state", maps.get_opt(STATE)).await?;
        match state.filter(|map| self.is_of_this_installation(&map.metadata)) {
            Some(map) if published_in(&map).is_ok_and(|published| published.is_empty()) => Ok(()),
            Some(_) => Err(ClusterStateError::RootMissing(STATE)),
            None => Ok(()),
        }
    }

    /// Objects of a Deployment that was deleted are collected a little later, with its root.
    fn is_of_this_installation(&self, metadata: &ObjectMeta) -> bool {
        let owners = metadata.owner_references.as_deref().unwrap_or_default();
        match &self.owner {
            Some(owner) if !owners.is_empty() => owners.iter().any(|each| each.uid == owner.uid),
            _ => true,
        }
    }

    /// Creates the Secret; false: there is one.
    pub async fn put_back(&self, root: &RootPem) -> Result<bool, ClusterStateError> {
        match call(SECRET, self.secrets().create(&PostParams::default(), &self.secret(root))).await {
            Ok(_) => Ok(true),
            Err(ClusterStateError::Call { error, .. }) if is_already_exists(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What was published; nothing if the ConfigMap is not there.
    pub async fn kept(&self) -> Result<Kept, ClusterStateError> {
        match call("ConfigMap tulle-state", self.config_maps().get_opt(STATE)).await? {
            Some(map) => Ok(Kept { published: published_in(&map)?, leaving: is_leaving(&map) }),
            None => Ok(Kept::default()),
        }
    }

    /// Makes the ConfigMap say this, creating it if it is not there; annotations of others stay.
    pub async fn remember(&self, published: &BTreeSet<WorkloadUid>) -> Result<(), ClusterStateError> {
        let packed = pack(published)?;
        let map = ConfigMap {
            metadata: self.metadata(STATE),
            binary_data: Some(BTreeMap::from([(PUBLISHED.to_owned(), ByteString(packed))])),
            ..ConfigMap::default()
        };
        self.apply("ConfigMap tulle-state", STATE, &map).await
    }

    /// Makes the root known to nodes.
    pub async fn publish_root(&self, pem: &str) -> Result<(), ClusterStateError> {
        let map = ConfigMap {
            metadata: self.metadata(ROOT_CERT),
            data: Some(BTreeMap::from([(ROOT_KEY.to_owned(), pem.to_owned())])),
            ..ConfigMap::default()
        };
        self.apply("ConfigMap tulle-root-cert", ROOT_CERT, &map).await
    }

    /// Says whether nothing is captured any more, for whoever uninstalls.
    pub async fn mark_left(&self, left: bool) -> Result<(), ClusterStateError> {
        let value = left.then_some("true");
        let patch = Patch::Merge(json!({ "metadata": { "annotations": { LEFT: value } } }));
        let maps = self.config_maps();
        let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        call("ConfigMap tulle-state", maps.patch_metadata(STATE, &parameters, &patch)).await.map(drop)
    }

    /// Secrets of the own namespace.
    pub fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), self.namespace.as_str())
    }

    /// ConfigMaps of the own namespace.
    pub fn config_maps(&self) -> Api<ConfigMap> {
        Api::namespaced(self.client.clone(), self.namespace.as_str())
    }

    async fn apply(&self, what: &'static str, name: &str, map: &ConfigMap) -> Result<(), ClusterStateError> {
        let parameters = PatchParams::apply(MANAGER).force();
        call(what, self.config_maps().patch(name, &parameters, &Patch::Apply(map))).await.map(drop)
    }

    fn secret(&self, pem: &RootPem) -> Secret {
        let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
        Secret {
            metadata: self.metadata(CA_SECRET),
            data: Some(BTreeMap::from([
                (CA_CERTIFICATE.to_owned(), bytes(&pem.certificate)),
                (CA_KEY.to_owned(), bytes(&pem.key)),
            ])),
            immutable: Some(true),
            ..Secret::default()
        }
    }

    fn metadata(&self, name: &str) -> ObjectMeta {
        ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(self.namespace.to_string()),
            labels: Some(BTreeMap::from([("app.kubernetes.io/managed-by".to_owned(), MANAGER.to_owned())])),
            owner_references: self.owner.as_deref().map(|owner| vec![owner.clone()]),
            ..ObjectMeta::default()
        }
    }
}

/// Whether whoever uninstalls has said so.
pub fn is_leaving(map: &ConfigMap) -> bool {
    annotation(map, LEAVING) == Some("true")
}

/// Whether we have said that nothing is captured any more.
pub fn has_left(map: &ConfigMap) -> bool {
    annotation(map, LEFT) == Some("true")
}

fn annotation<'a>(map: &'a ConfigMap, name: &str) -> Option<&'a str> {
    map.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

/// Whether the Secret holds this root; its key is not looked at.
pub fn is_root(secret: &Secret, pem: &str) -> bool {
    let certificate = secret.data.as_ref().and_then(|data| data.get(CA_CERTIFICATE));
    certificate.is_some_and(|certificate| certificate.0 == pem.as_bytes())
}

fn root_of(secret: Secret) -> Result<RootPem, ClusterStateError> {
    let mut data = secret.data.unwrap_or_default();
    let mut text = |key: &str| {
        let damaged = |reason: String| ClusterStateError::Damaged { what: SECRET, reason };
        let bytes = data.remove(key).ok_or_else(|| damaged(format!("{key} is missing")))?;
        String::from_utf8(bytes.0).map_err(|_| damaged(format!("{key} is not text")))
    };
    Ok(RootPem { key: text(CA_KEY)?, certificate: text(CA_CERTIFICATE)? })
}

/// What was published, as the ConfigMap has it.
pub fn published_in(map: &ConfigMap) -> Result<BTreeSet<WorkloadUid>, ClusterStateError> {
    match map.binary_data.as_ref().and_then(|data| data.get(PUBLISHED)) {
        Some(packed) => unpack(&packed.0),
        // Whoever uninstalls may have made it before we did.
        None => Ok(BTreeSet::new()),
    }
}

fn pack(published: &BTreeSet<WorkloadUid>) -> Result<Vec<u8>, ClusterStateError> {
    let damaged = |reason: String| ClusterStateError::Damaged { what: "ConfigMap tulle-state", reason };
    let uids: Vec<&str> = published.iter().map(WorkloadUid::as_str).collect();
    let text = serde_json::to_vec(&uids).map_err(|error| damaged(error.to_string()))?;
    let mut packer = GzEncoder::new(Vec::new(), Compression::default());
    packer.write_all(&text).map_err(|error| damaged(error.to_string()))?;
    let packed = packer.finish().map_err(|error| damaged(error.to_string()))?;
    if packed.len() > MAX_PACKED_BYTES {
        return Err(ClusterStateError::TooLarge(published.len()));
    }
    Ok(packed)
}

fn unpack(packed: &[u8]) -> Result<BTreeSet<WorkloadUid>, ClusterStateError> {
    let damaged = |error: String| ClusterStateError::Damaged {
        what: "ConfigMap tulle-state",
        reason: format!("{PUBLISHED}: {error}; remove the ConfigMap only if no workload is in the mesh"),
    };
    let mut text = Vec::new();
    GzDecoder::new(packed)
        .take(MAX_UNPACKED_BYTES)
        .read_to_end(&mut text)
        .map_err(|error| damaged(error.to_string()))?;
    let uids: Vec<String> = serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
    Ok(uids.into_iter().map(WorkloadUid::new).collect())
}

fn is_already_exists(error: &Error) -> bool {
    matches!(error, Error::Api(status) if status.is_already_exists())
}

async fn call<T>(
    what: &'static str,
    call: impl Future<Output = Result<T, Error>>,
) -> Result<T, ClusterStateError> {
    match timeout(CALL, call).await {
        Ok(answer) => answer.map_err(|error| ClusterStateError::Call { what, error: Box::new(error) }),
        Err(_) => Err(ClusterStateError::TimeOut(what)),
    }
}

#[cfg(test)]
mod tests;
