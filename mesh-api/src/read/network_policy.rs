//! NetworkPolicy -> whom it selects, and what each rule lets through of TCP.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use ipnet::IpNet;
use k8s_openapi::{
    api::networking::v1::{IPBlock, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec},
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, LabelSelectorRequirement},
        util::intstr::IntOrString,
    },
};
use mesh_model::mesh::HBONE_PORT;

/// Labels of a pod or a namespace.
pub(crate) type Labels = BTreeMap<Arc<str>, Arc<str>>;

/// Which way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Direction {
    /// To the selected pods.
    Ingress,
    /// From them.
    Egress,
}

/// One rule.
pub(crate) struct Rule<'a> {
    /// None: everybody.
    pub(crate) peers: Option<&'a [NetworkPolicyPeer]>,
    pub(crate) reach: Reach,
}

/// What a rule lets through of TCP.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Reach {
    /// Nothing: it is about other protocols.
    Nothing,
    /// Some ports.
    Ports {
        /// The mesh's own port is among them.
        mesh: bool,
        /// The others, as written; empty if there are none.
        others: String,
    },
    /// Every port.
    Everything,
}

/// The rules for this direction; None: the policy does not limit it.
pub(crate) fn rules(spec: &NetworkPolicySpec, direction: Direction) -> Option<Vec<Rule<'_>>> {
    let is_limited = match &spec.policy_types {
        Some(types) if !types.is_empty() => types.iter().any(|name| *name == direction.to_string()),
        // An absent list means this, and so does an empty one.
        _ => direction == Direction::Ingress || spec.egress.as_ref().is_some_and(|rules| !rules.is_empty()),
    };
    let rules = match direction {
        Direction::Ingress => {
            let rules = spec.ingress.iter().flatten();
            rules.map(|rule| Rule::new(rule.from.as_ref(), rule.ports.as_ref())).collect()
        }
        Direction::Egress => {
            let rules = spec.egress.iter().flatten();
            rules.map(|rule| Rule::new(rule.to.as_ref(), rule.ports.as_ref())).collect()
        }
    };
    is_limited.then_some(rules)
}

impl<'a> Rule<'a> {
    fn new(peers: Option<&'a Vec<NetworkPolicyPeer>>, ports: Option<&'a Vec<NetworkPolicyPort>>) -> Self {
        let peers = peers.map(Vec::as_slice).filter(|peers| !peers.is_empty());
        Self { peers, reach: Reach::of(ports.map(Vec::as_slice).unwrap_or_default()) }
    }
}

impl Reach {
    fn of(ports: &[NetworkPolicyPort]) -> Self {
        if ports.is_empty() {
            return Self::Everything;
        }
        let tcp: Vec<_> =
            ports.iter().filter(|port| port.protocol.as_deref().is_none_or(|name| name == "TCP")).collect();
        let Some(ranges) = tcp.iter().map(|port| range(port)).collect::<Option<Vec<_>>>() else {
            return Self::Everything;
        };
        if ranges.is_empty() {
            return Self::Nothing;
        }
        let mesh = i32::from(HBONE_PORT);
        let others = tcp.iter().zip(&ranges).filter(|(_, range)| **range != Some((mesh, mesh)));
        let others: Vec<String> = others.map(|(port, _)| text(port)).collect();
        let has_mesh = ranges.into_iter().flatten().any(|(from, to)| (from..=to).contains(&mesh));
        Self::Ports { mesh: has_mesh, others: others.join(", ") }
    }
}

/// First and last port; the inner None: a name, which is never the mesh's port, as no container listens there. The outer None: all.
fn range(port: &NetworkPolicyPort) -> Option<Option<(i32, i32)>> {
    match port.port.as_ref()? {
        IntOrString::String(_) => Some(None),
        IntOrString::Int(from) => match (*from, port.end_port.unwrap_or(*from)) {
            (..=1, 65535..) => None,
            range => Some(Some(range)),
        },
    }
}

fn text(port: &NetworkPolicyPort) -> String {
    match (&port.port, port.end_port) {
        (Some(IntOrString::Int(from)), Some(to)) => format!("{from}-{to}"),
        (Some(IntOrString::Int(port)), None) => port.to_string(),
        (Some(IntOrString::String(name)), _) => name.clone(),
        (None, _) => String::new(),
    }
}

/// Whether the selector takes something with these labels. None and an empty selector take everything.
pub(crate) fn selects(selector: Option<&LabelSelector>, labels: &Labels) -> bool {
    let Some(selector) = selector else { return true };
    let mut exact = selector.match_labels.iter().flatten();
    exact.all(|(key, value)| labels.get(key.as_str()).is_some_and(|own| **own == **value))
        && selector.match_expressions.iter().flatten().all(|requirement| meets(requirement, labels))
}

fn meets(requirement: &LabelSelectorRequirement, labels: &Labels) -> bool {
    let own = labels.get(requirement.key.as_str());
    let is_listed = own.is_some_and(|own| requirement.values.iter().flatten().any(|value| **value == **own));
    match requirement.operator.as_str() {
        "In" => is_listed,
        "NotIn" => !is_listed,
        "Exists" => own.is_some(),
        "DoesNotExist" => own.is_none(),
        _ => false,
    }
}

/// Whether one of the addresses is in the block.
pub(crate) fn has_address(block: &IPBlock, addresses: &[IpAddr]) -> bool {
    let network = |text: &String| text.parse::<IpNet>().ok();
    let Some(net) = network(&block.cidr) else { return false };
    let except: Vec<IpNet> = block.except.iter().flatten().filter_map(network).collect();
    addresses.iter().any(|ip| net.contains(ip) && !except.iter().any(|net| net.contains(ip)))
}

impl std::fmt::Display for Direction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Ingress => "Ingress",
            Self::Egress => "Egress",
        })
    }
}
