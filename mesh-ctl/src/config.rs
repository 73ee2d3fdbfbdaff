//! `meshctl config`: the compiled configuration, as the controller sends it or as a node holds it.

use std::{process::ExitCode, sync::Arc, time::Duration};

use mesh_model::{
    authz::{Action, AuthzPolicy},
    resource::Resource,
    route::{HttpRule, RouteTable},
    snapshot::Snapshot,
    workload::{Enrolment, Tunnel, Workload},
};
use mesh_proto::v1;
use serde::Serialize;

use crate::{
    cli::{ConfigArgs, ConfigKind, Globals},
    connect,
    exit::Failure,
    print::{Answer, Grid},
    source,
};

/// One row of any kind: cells for people, under the same names for programs.
#[derive(Serialize)]
struct Row(serde_json::Map<String, serde_json::Value>);

/// A listing: the heads are also the keys of the JSON objects.
struct Listing {
    kind: &'static str,
    head: Vec<&'static str>,
    wide_from: usize,
    rows: Vec<Vec<String>>,
}

/// Prints one part of the configuration.
pub async fn run(globals: &Globals, args: &ConfigArgs) -> Result<ExitCode, Failure> {
    match (args.what, &args.node) {
        (ConfigKind::Certs, Some(node)) => certificates(globals, node).await?.print(globals)?,
        (ConfigKind::Connections, Some(node)) => connections(globals, node).await?.print(globals)?,
        (ConfigKind::Certs | ConfigKind::Connections, None) => {
            return Err(
                Failure::bad_input("certificates and connections live on a node").hint("give --node NAME")
            );
        }
        (what, node) => {
            let resources = match node {
                Some(node) => source::from_node(globals, node).await?.0,
                None => source::from_controller(globals).await?,
            };
            let snapshot = Snapshot::from_resources(resources.clone());
            let in_namespace =
                |namespace: &str| args.namespace.as_deref().is_none_or(|only| only == namespace);
            let listings = match what {
                ConfigKind::Workloads => vec![workloads(&snapshot, in_namespace)],
                ConfigKind::Services => vec![services(&snapshot, in_namespace)],
                ConfigKind::Routes => vec![routes(&snapshot, in_namespace)],
                ConfigKind::Policies => vec![policies(&snapshot, in_namespace)],
                ConfigKind::Destinations => vec![destinations(&resources, in_namespace)],
                ConfigKind::All | ConfigKind::Certs | ConfigKind::Connections => vec![
                    workloads(&snapshot, in_namespace),
                    services(&snapshot, in_namespace),
                    routes(&snapshot, in_namespace),
                    destinations(&resources, in_namespace),
                    policies(&snapshot, in_namespace),
                ],
            };
            print_all(globals, listings)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl Listing {
    fn print(self, globals: &Globals) -> Result<(), Failure> {
        print_all(globals, vec![self])
    }
}

fn print_all(globals: &Globals, mut listings: Vec<Listing>) -> Result<(), Failure> {
    let several = listings.len() > 1;
    for listing in &mut listings {
        listing.rows.sort();
    }
    let data: serde_json::Map<String, serde_json::Value> = listings
        .iter()
        .map(|listing| {
            let rows = listing.rows.iter().map(|row| listing.object(row)).collect();
            (listing.kind.to_owned(), serde_json::Value::Array(rows))
        })
        .collect();
    let names = listings.iter().flat_map(|l| l.rows.iter().filter_map(|row| row.first().cloned())).collect();
    let empty = listings.iter().all(|listing| listing.rows.is_empty());
    Answer {
        kind: "Config",
        data: Row(data),
        summary: if empty { vec!["nothing there".to_owned()] } else { Vec::new() },
        tables: listings
            .into_iter()
            .map(|listing| Grid {
                title: if several { listing.kind.to_owned() } else { String::new() },
                head: listing.head,
                rows: listing.rows,
                wide_from: listing.wide_from,
            })
            .collect(),
        names,
    }
    .print(globals.output)
}

impl Listing {
    fn object(&self, row: &[String]) -> serde_json::Value {
        let pairs = self.head.iter().zip(row).map(|(head, cell)| {
            (head.to_ascii_lowercase().replace(' ', "_"), serde_json::Value::String(cell.clone()))
        });
        serde_json::Value::Object(pairs.collect())
    }
}

fn workloads(snapshot: &Snapshot, keep: impl Fn(&str) -> bool) -> Listing {
    let row = |workload: &Arc<Workload>| {
        vec![
            format!("{}/{}", workload.namespace, workload.name),
            workload.node.to_string(),
            join(&workload.ips),
            match (workload.tunnel, workload.enrolment) {
                (Tunnel::Hbone, _) => "HBONE",
                (Tunnel::None, Enrolment::Yes) => "plaintext (being captured)",
                (Tunnel::None, Enrolment::No) => "plaintext",
            }
            .to_owned(),
            workload.identity.to_string(),
            format!("{:?}", workload.mtls.default).to_uppercase(),
            workload.policies.len().to_string(),
            workload.uid.to_string(),
            workload.endpoints.iter().map(|e| e.service.host.to_string()).collect::<Vec<_>>().join(","),
        ]
    };
    Listing {
        kind: "workloads",
        head: vec!["WORKLOAD", "NODE", "IPS", "TRANSPORT", "IDENTITY", "MTLS", "POLICIES", "UID", "SERVICES"],
        wide_from: 7,
        rows: snapshot.workloads().filter(|w| keep(w.namespace.as_str())).map(row).collect(),
    }
}

fn services(snapshot: &Snapshot, keep: impl Fn(&str) -> bool) -> Listing {
    let mut rows = Vec::new();
    for service in snapshot.services().filter(|service| keep(service.key.namespace.as_str())) {
        for port in &service.ports {
            let endpoints: Vec<String> = snapshot
                .endpoints(&service.key)
                .iter()
                .flat_map(|workload| {
                    workload.endpoints.iter().filter(|e| e.service == service.key).filter_map(|endpoint| {
                        let target = endpoint.ports.get(&port.port)?;
                        let mark = if endpoint.ready { "" } else { " (not ready)" };
                        workload
                            .ips
                            .first()
                            .map(|ip| format!("{}{mark}", std::net::SocketAddr::new(*ip, *target)))
                    })
                })
                .collect();
            rows.push(vec![
                service.key.host.to_string(),
                port.port.to_string(),
                format!("{:?}", port.protocol).to_lowercase(),
                join(&service.vips),
                endpoints.join(","),
            ]);
        }
    }
    Listing {
        kind: "services",
        head: vec!["HOST", "PORT", "PROTOCOL", "VIPS", "ENDPOINTS"],
        wide_from: 5,
        rows,
    }
}

fn routes(snapshot: &Snapshot, keep: impl Fn(&str) -> bool) -> Listing {
    let rows = snapshot
        .routes()
        .filter(|table| keep(table.key.namespace.as_str()))
        .flat_map(|table| table.rules.iter().enumerate().map(|(i, rule)| route_row(table, i, rule)))
        .collect();
    Listing {
        kind: "routes",
        head: vec!["ROUTE", "HOSTS", "MATCH", "TO", "TIMEOUT", "RETRIES"],
        wide_from: 6,
        rows,
    }
}

fn route_row(table: &RouteTable, index: usize, rule: &HttpRule) -> Vec<String> {
    let total: u32 = rule.destinations.iter().map(|d| d.weight).sum();
    let to = rule.destinations.iter().map(|weighted| {
        let subset = weighted.destination.subset.as_ref().map(|s| format!("/{s}")).unwrap_or_default();
        let share = match rule.destinations.len() {
            1 => String::new(),
            _ => format!(" {:.1}%", f64::from(weighted.weight) * 100.0 / f64::from(total.max(1))),
        };
        let invalid = weighted.invalid.as_ref().map(|reason| format!(" (500: {reason})")).unwrap_or_default();
        format!("{}{subset}{share}{invalid}", weighted.destination.host)
    });
    vec![
        format!("{}#{index:03} {}", table.key, rule.name),
        join(&table.hosts),
        if rule.matches.is_empty() {
            "any".to_owned()
        } else {
            rule.matches.iter().map(match_text).collect::<Vec<_>>().join(" OR ")
        },
        to.collect::<Vec<_>>().join(", "),
        rule.timeout.map_or_else(|| "none".to_owned(), |timeout| format!("{timeout:?}")),
        match rule.retry.attempts {
            0 => "none".to_owned(),
            attempts => attempts.to_string(),
        },
    ]
}

fn match_text(wanted: &mesh_model::route::HttpMatch) -> String {
    let mut parts = Vec::new();
    let mut field = |name: &str, value: &Option<mesh_model::text::StringMatch>| {
        if let Some(value) = value {
            parts.push(format!("{name} {value:?}"));
        }
    };
    field("uri", &wanted.uri);
    field("scheme", &wanted.scheme);
    field("method", &wanted.method);
    field("authority", &wanted.authority);
    parts.extend(wanted.path_segments.iter().map(|path| format!("path below {path:?}")));
    parts.extend(wanted.headers.iter().map(|(name, value)| format!("header {name} {value:?}")));
    parts.extend(wanted.without_headers.iter().map(|(name, value)| format!("not header {name} {value:?}")));
    parts.extend(wanted.query.iter().map(|(name, value)| format!("query {name} {value:?}")));
    parts.extend(wanted.port.iter().map(|port| format!("port {port}")));
    parts.extend(wanted.source_labels.iter().map(|(name, value)| format!("source label {name}={value}")));
    parts.extend(wanted.source_namespace.iter().map(|namespace| format!("source namespace {namespace}")));
    if parts.is_empty() { "any".to_owned() } else { parts.join(" AND ") }
}

fn policies(snapshot: &Snapshot, keep: impl Fn(&str) -> bool) -> Listing {
    let row = |policy: &Arc<AuthzPolicy>| {
        let selected =
            snapshot.workloads().filter(|workload| workload.policies.contains(&policy.key)).count();
        vec![
            policy.key.to_string(),
            match policy.action {
                Action::Allow => "ALLOW",
                Action::Deny => "DENY",
            }
            .to_owned(),
            policy.rules.len().to_string(),
            selected.to_string(),
        ]
    };
    Listing {
        kind: "policies",
        head: vec!["POLICY", "ACTION", "RULES", "SELECTS"],
        wide_from: 4,
        rows: snapshot.policies().filter(|policy| keep(policy.key.namespace.as_str())).map(row).collect(),
    }
}

fn destinations(resources: &[Resource], keep: impl Fn(&str) -> bool) -> Listing {
    let rows = resources.iter().filter_map(|resource| match resource {
        Resource::Destination(rule) if keep(rule.key.namespace.as_str()) => Some(vec![
            rule.key.to_string(),
            rule.host.to_string(),
            format!("{:?}", rule.policy.all.balancer),
            rule.subsets.keys().map(ToString::to_string).collect::<Vec<_>>().join(","),
        ]),
        _ => None,
    });
    Listing {
        kind: "destinations",
        head: vec!["DESTINATION RULE", "HOST", "BALANCER", "SUBSETS"],
        wide_from: 4,
        rows: rows.collect(),
    }
}

async fn certificates(globals: &Globals, node: &str) -> Result<Listing, Failure> {
    let reply = connect::node(globals, node)
        .await?
        .certificates(v1::CertificatesRequest {})
        .await
        .map_err(|status| Failure::from_status("certificates", &status))?
        .into_inner();
    let rows = reply
        .certificates
        .into_iter()
        .map(|c| {
            vec![
                c.identity,
                c.state,
                day(c.not_before),
                day(c.not_after),
                c.serial,
                c.chain_subjects.join(" < "),
            ]
        })
        .collect();
    Ok(Listing {
        kind: "certificates",
        head: vec!["IDENTITY", "STATE", "NOT BEFORE", "NOT AFTER", "SERIAL", "CHAIN"],
        wide_from: 5,
        rows,
    })
}

async fn connections(globals: &Globals, node: &str) -> Result<Listing, Failure> {
    let reply = connect::node(globals, node)
        .await?
        .connections(v1::ConnectionsRequest {})
        .await
        .map_err(|status| Failure::from_status("connections", &status))?
        .into_inner();
    let rows = reply
        .connections
        .into_iter()
        .map(|c| {
            vec![
                c.workload,
                c.direction,
                c.client,
                c.destination,
                c.protocol,
                c.peer_identity,
                format!("{:?}", Duration::from_millis(c.age_ms)),
                c.bytes_sent.to_string(),
                c.bytes_received.to_string(),
            ]
        })
        .collect();
    Ok(Listing {
        kind: "connections",
        head: vec![
            "WORKLOAD",
            "DIRECTION",
            "CLIENT",
            "DESTINATION",
            "PROTOCOL",
            "PEER",
            "AGE",
            "SENT",
            "RECEIVED",
        ],
        wide_from: 9,
        rows,
    })
}

fn join<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// Seconds since the epoch as RFC 3339.
fn day(seconds: i64) -> String {
    time::OffsetDateTime::from_unix_timestamp(seconds)
        .ok()
        .and_then(|moment| moment.format(&time::format_description::well_known::Rfc3339).ok())
        .unwrap_or_else(|| seconds.to_string())
}
