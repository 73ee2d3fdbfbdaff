//! Before the installation: the API server, what the caller may do, the nodes' kernels, the definitions.

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::{
    api::{
        authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec},
        core::v1::Node,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api,
    api::{ListParams, PostParams},
};
use serde_json::Value;

use super::{Line, Verdict};
use crate::{chart, cluster::Cluster, exit::Failure};

/// The oldest Kubernetes (its minor version) that the chart is for.
const KUBERNETES: u32 = 28;
/// The oldest kernel that has every hook: `ingress_ifindex` in sk_lookup.
const KERNEL: (u32, u32) = (5, 17);
/// What an installation creates: group, resource, whether it is namespaced.
const CREATES: &[(&str, &str, bool)] = &[
    ("", "namespaces", false),
    ("apiextensions.k8s.io", "customresourcedefinitions", false),
    ("rbac.authorization.k8s.io", "clusterroles", false),
    ("rbac.authorization.k8s.io", "clusterrolebindings", false),
    ("rbac.authorization.k8s.io", "roles", true),
    ("rbac.authorization.k8s.io", "rolebindings", true),
    ("", "serviceaccounts", true),
    ("", "services", true),
    ("apps", "daemonsets", true),
    ("apps", "deployments", true),
];
/// Questions asked at once.
const AT_ONCE: usize = 4;

/// The API server, the nodes and the definitions. `before`: what the installation brings need not be there yet.
pub async fn cluster(cluster: &Cluster, before: bool) -> Result<Vec<Line>, Failure> {
    let mut lines = vec![server(cluster).await?];
    lines.extend(nodes(cluster).await?);
    lines.extend(definitions(cluster, before).await?);
    Ok(lines)
}

async fn server(cluster: &Cluster) -> Result<Line, Failure> {
    let version = cluster
        .client
        .apiserver_version()
        .await
        .map_err(|error| Failure::from_kube("the API server does not answer", &error))?;
    let minor: u32 = leading_number(&version.minor).unwrap_or(0);
    let verdict = Verdict::good_if(version.major == "1" && minor >= KUBERNETES);
    Ok(Line::new("cluster", "Kubernetes version", verdict, version.git_version)
        .hint(format!("Kubernetes 1.{KUBERNETES} or later is needed")))
}

async fn nodes(cluster: &Cluster) -> Result<Vec<Line>, Failure> {
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let found = nodes
        .list(&ListParams::default())
        .await
        .map_err(|error| Failure::from_kube("cannot list nodes", &error))?;
    Ok(found.items.iter().filter_map(node).collect())
}

/// Nodes of other systems get no agent and are left out.
pub(super) fn node(node: &Node) -> Option<Line> {
    let info = node.status.as_ref()?.node_info.as_ref()?;
    if info.operating_system != "linux" {
        return None;
    }
    let name = format!("node {}", node.metadata.name.as_deref().unwrap_or_default());
    let conditions = node.status.as_ref()?.conditions.iter().flatten();
    let is_ready = conditions.filter(|c| c.type_ == "Ready").any(|ready| ready.status == "True");
    let verdict = match (kernel(&info.kernel_version), is_ready) {
        (Some(version), _) if version < KERNEL => Verdict::Bad,
        (Some(_), true) => Verdict::Good,
        _ => Verdict::Warning,
    };
    let ready = if is_ready { "" } else { ", the node is not Ready" };
    Some(Line::new("cluster", name, verdict, format!("Linux {}{ready}", info.kernel_version)).hint(format!(
        "Linux {}.{} or later, on a ready node; `mesh-node check` there names each hook",
        KERNEL.0, KERNEL.1
    )))
}

/// Major and minor of `6.1.0-13-amd64`.
fn kernel(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split('.');
    Some((leading_number(parts.next()?)?, leading_number(parts.next()?)?))
}

fn leading_number(text: &str) -> Option<u32> {
    let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    text.get(..end)?.parse().ok()
}

async fn definitions(cluster: &Cluster, before: bool) -> Result<Vec<Line>, Failure> {
    let installed: Api<CustomResourceDefinition> = Api::all(cluster.client.clone());
    let ours = chart::crds().map_err(|error| Failure::runtime(format!("the embedded chart: {error}")))?;
    let mut lines = Vec::new();
    for definition in ours {
        let name = definition["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let found = installed
            .get_opt(&name)
            .await
            .map_err(|error| Failure::from_kube(&format!("cannot see definition {name}"), &error))?;
        lines.push(definition_line(&name, &definition, found.as_ref(), before));
    }
    Ok(lines)
}

/// Any version that is read and served will do: all of them mean the same.
pub(super) fn definition_line(
    name: &str,
    ours: &Value,
    found: Option<&CustomResourceDefinition>,
    before: bool,
) -> Line {
    let Some(found) = found else {
        let (verdict, detail) = match before {
            true => (Verdict::Good, "not there: the installation brings it"),
            false => (Verdict::Bad, "not there: objects of this kind cannot be written"),
        };
        return Line::new("definitions", name, verdict, detail).hint("run `meshctl install` again");
    };
    let served: Vec<&str> = found
        .spec
        .versions
        .iter()
        .filter(|version| version.served)
        .map(|version| version.name.as_str())
        .collect();
    let known = ours["spec"]["versions"].as_array().into_iter().flatten();
    let is_known = known.filter_map(|version| version["name"].as_str()).any(|name| served.contains(&name));
    Line::new("definitions", name, Verdict::good_if(is_known), format!("serves {}", served.join(", ")))
        .hint("none of these versions is read by Tulle")
}

/// Whether the caller may create what an installation creates.
pub async fn permissions(cluster: &Cluster) -> Result<Vec<Line>, Failure> {
    stream::iter(CREATES)
        .map(|(group, resource, namespaced)| async move {
            let namespace = namespaced.then(|| cluster.mesh_namespace.clone());
            let allowed = may_create(cluster, group, resource, namespace).await?;
            let detail = if allowed { "allowed" } else { "not allowed" };
            Ok(Line::new("permissions", format!("create {resource}"), Verdict::good_if(allowed), detail)
                .hint("ask a cluster administrator to install"))
        })
        .buffered(AT_ONCE)
        .try_collect()
        .await
}

async fn may_create(
    cluster: &Cluster,
    group: &str,
    resource: &str,
    namespace: Option<String>,
) -> Result<bool, Failure> {
    let reviews: Api<SelfSubjectAccessReview> = Api::all(cluster.client.clone());
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                verb: Some("create".to_owned()),
                group: Some(group.to_owned()),
                resource: Some(resource.to_owned()),
                namespace,
                ..ResourceAttributes::default()
            }),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let answer = reviews
        .create(&PostParams::default(), &review)
        .await
        .map_err(|error| Failure::from_kube("cannot ask what is permitted", &error))?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}
