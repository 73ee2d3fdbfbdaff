//! A Kubernetes cluster as meshctl sees it: a client made from the flags, the mesh's namespace, and what is needed to talk to the mesh.

pub mod events;
pub mod forward;
pub mod objects;
pub mod pods;

use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::{ConfigMap, ServiceAccount},
};
use kube::{
    Api, Client, Config,
    api::PostParams,
    config::{KubeConfigOptions, Kubeconfig},
};

use crate::{cli::Globals, exit::Failure};

/// What meshctl's token is good for; the controller and the nodes take no other.
const AUDIENCE: &str = "tulle";
/// Whom meshctl acts as.
const ACCOUNT: &str = "meshctl";
/// Where the controller publishes the mesh's root certificate, and under which key.
const ROOT: (&str, &str) = ("tulle-root-cert", "root.crt");
/// The shortest life that the API server gives a token.
const TOKEN_SECONDS: i64 = 600;

/// One cluster, and the namespace of the mesh in it.
#[derive(Clone)]
pub struct Cluster {
    /// Speaks to the API server.
    pub client: Client,
    /// Where the mesh is, or will be.
    pub mesh_namespace: String,
    /// How people call this cluster.
    pub name: String,
}

impl Cluster {
    /// By `--kubeconfig` and `--context`, `KUBECONFIG`, `~/.kube/config`, or the account of the pod that this runs in. Asks nobody yet.
    pub async fn connect(globals: &Globals) -> Result<Self, Failure> {
        let options = KubeConfigOptions { context: globals.context.clone(), ..KubeConfigOptions::default() };
        let (config, name) = match &globals.kubeconfig {
            Some(path) => {
                let file = Kubeconfig::read_from(path)
                    .map_err(|error| Failure::bad_input(format!("{}: {error}", path.display())))?;
                let name = context_name(globals, &file);
                let config = Config::from_custom_kubeconfig(file, &options)
                    .await
                    .map_err(|error| Failure::bad_input(format!("{}: {error}", path.display())))?;
                (config, name)
            }
            None => match Config::from_kubeconfig(&options).await {
                Ok(config) => {
                    let name = Kubeconfig::read().map(|file| context_name(globals, &file));
                    (config, name.unwrap_or_default())
                }
                Err(no_file) => {
                    let config = Config::incluster().map_err(|_| no_cluster(&no_file))?;
                    (config, "this cluster".to_owned())
                }
            },
        };
        let client = Client::try_from(config)
            .map_err(|error| Failure::bad_input(format!("the kubeconfig cannot be used: {error}")))?;
        Ok(Self { client, mesh_namespace: globals.mesh_namespace.clone(), name })
    }

    /// A token of the account `meshctl`, for the controller only.
    pub async fn token(&self) -> Result<String, Failure> {
        let request = TokenRequest {
            spec: TokenRequestSpec {
                audiences: vec![AUDIENCE.to_owned()],
                expiration_seconds: Some(TOKEN_SECONDS),
                ..TokenRequestSpec::default()
            },
            ..TokenRequest::default()
        };
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &self.mesh_namespace);
        let granted = accounts
            .create_token_request(ACCOUNT, &PostParams::default(), &request)
            .await
            .map_err(|error| self.not_there("no token for ServiceAccount meshctl", &error))?;
        granted
            .status
            .map(|status| status.token)
            .ok_or_else(|| Failure::runtime("the API server answered without a token"))
    }

    /// The mesh's root certificate (PEM).
    pub async fn root_certificate(&self) -> Result<String, Failure> {
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.mesh_namespace);
        let map = maps
            .get(ROOT.0)
            .await
            .map_err(|error| self.not_there("no root certificate (ConfigMap tulle-root-cert)", &error))?;
        map.data.and_then(|mut data| data.remove(ROOT.1)).ok_or_else(|| {
            Failure::unreachable(format!("ConfigMap {} has no {}", ROOT.0, ROOT.1))
                .hint("mesh-controller writes it when it starts: see `meshctl check`")
        })
    }

    /// A refusal, with the usual reason for an object that is not there.
    fn not_there(&self, what: &str, error: &kube::Error) -> Failure {
        match error {
            kube::Error::Api(status) if status.code == 404 => Failure::unreachable(format!(
                "{what} in namespace {}: {}",
                self.mesh_namespace, status.message
            ))
            .hint("is the mesh installed (`meshctl install`), and in this namespace (--mesh-namespace)?"),
            _ => Failure::from_kube(what, error),
        }
    }
}

fn context_name(globals: &Globals, file: &Kubeconfig) -> String {
    globals.context.clone().or_else(|| file.current_context.clone()).unwrap_or_default()
}

fn no_cluster(error: &dyn std::error::Error) -> Failure {
    Failure::bad_input(format!("no cluster is named: {error}")).hint(
        "give --kubeconfig FILE or set KUBECONFIG; for a controller without a cluster, give --state DIR",
    )
}
