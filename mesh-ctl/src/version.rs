//! `meshctl version`.

use std::process::ExitCode;

use mesh_proto::v1::StatusRequest;
use serde::Serialize;

use crate::{
    cli::{Globals, VersionArgs},
    connect,
    exit::Failure,
    print::{Answer, Grid},
};

#[derive(Serialize)]
struct Versions {
    client: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    controller: Option<String>,
    nodes: Vec<NodeVersion>,
}

#[derive(Serialize)]
struct NodeVersion {
    node: String,
    version: String,
}

/// Prints the versions; without `--client` the controller must answer.
pub async fn run(globals: &Globals, args: &VersionArgs) -> Result<ExitCode, Failure> {
    let mut versions = Versions { client: env!("CARGO_PKG_VERSION"), controller: None, nodes: Vec::new() };
    if !args.client {
        let mut controller = connect::controller(globals).await?;
        let status = controller
            .status(StatusRequest {})
            .await
            .map_err(|status| Failure::from_status("status", &status))?
            .into_inner();
        versions.controller = Some(status.version);
        versions.nodes = status
            .nodes
            .into_iter()
            .filter(|node| node.connected)
            .map(|node| NodeVersion { node: node.node, version: node.version })
            .collect();
    }
    let mut rows = vec![vec!["meshctl".to_owned(), String::new(), versions.client.to_owned()]];
    rows.extend(
        versions.controller.iter().map(|v| vec!["mesh-controller".to_owned(), String::new(), v.clone()]),
    );
    rows.extend(
        versions.nodes.iter().map(|n| vec!["mesh-node".to_owned(), n.node.clone(), n.version.clone()]),
    );
    let names = rows.iter().map(|row| row[0].clone()).collect();
    Answer {
        kind: "Versions",
        data: versions,
        summary: Vec::new(),
        tables: vec![Grid {
            title: String::new(),
            head: vec!["COMPONENT", "NODE", "VERSION"],
            rows,
            wide_from: 3,
        }],
        names,
    }
    .print(globals.output)?;
    Ok(ExitCode::SUCCESS)
}
