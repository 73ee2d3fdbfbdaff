//! Where an answer's configuration comes from: the controller's compiled resources, or YAML files compiled here.
//!
//! Both give a `mesh_model` snapshot, so that what follows cannot tell them apart.

use std::{fs, path::PathBuf};

use mesh_api::{
    compile::{Enrolled, EnrolmentDecision, compile},
    index::Index,
    parse,
};
use mesh_model::{resource::Resource, snapshot::Snapshot};
use mesh_proto::{decode, v1};

use crate::{cli::Globals, connect, exit::Failure};

/// A file of configuration that is larger than this is refused.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// A snapshot and what was found while making it.
pub struct Source {
    /// What decisions are made on.
    pub snapshot: Snapshot,
    /// Findings, as lines.
    pub findings: Vec<String>,
}

/// From `-f` files if there are any, else from the controller.
pub async fn load(globals: &Globals, files: &[PathBuf]) -> Result<Source, Failure> {
    if files.is_empty() {
        let resources = from_controller(globals).await?;
        Ok(Source { snapshot: Snapshot::from_resources(resources), findings: Vec::new() })
    } else {
        from_files(files)
    }
}

/// What the controller compiled.
pub async fn from_controller(globals: &Globals) -> Result<Vec<Resource>, Failure> {
    let mut controller = connect::controller(globals).await?;
    let reply = controller
        .dump(v1::DumpRequest { node: String::new() })
        .await
        .map_err(|status| Failure::from_status("dump", &status))?
        .into_inner();
    decode_all(reply.resources.into_iter().filter_map(|versioned| versioned.resource))
}

/// What a node has in force.
pub async fn from_node(
    globals: &Globals,
    node: &str,
) -> Result<(Vec<Resource>, Vec<v1::WorkloadStatus>), Failure> {
    let reply = connect::node(globals, node)
        .await?
        .node_dump(v1::NodeDumpRequest {})
        .await
        .map_err(|status| Failure::from_status("dump of the node", &status))?
        .into_inner();
    Ok((decode_all(reply.resources.into_iter())?, reply.local))
}

fn decode_all(resources: impl Iterator<Item = v1::Resource>) -> Result<Vec<Resource>, Failure> {
    resources
        .map(|resource| {
            decode::resource(resource).map_err(|error| {
                Failure::runtime(format!("the answer cannot be read: {error}"))
                    .hint("is meshctl of another version than the controller? see `meshctl version`")
            })
        })
        .collect()
}

/// Compiles files as the controller would, as if every workload that its labels want were captured.
fn from_files(paths: &[PathBuf]) -> Result<Source, Failure> {
    let mut index = Index::new();
    for path in yaml_files(paths)? {
        let size = fs::metadata(&path)
            .map_err(|error| Failure::bad_input(format!("{}: {error}", path.display())))?;
        if size.len() > MAX_FILE_BYTES {
            return Err(Failure::bad_input(format!("{}: over {MAX_FILE_BYTES} bytes", path.display())));
        }
        let text = fs::read_to_string(&path)
            .map_err(|error| Failure::bad_input(format!("{}: {error}", path.display())))?;
        let _ = index.apply_file(parse::parse(&path.display().to_string(), &text));
    }
    let wanted = compile(&index, &Enrolled::default())
        .enrolment
        .into_iter()
        .filter(|(_, decision)| *decision == EnrolmentDecision::Wanted)
        .map(|(uid, _)| uid);
    let captured: std::collections::BTreeSet<_> = wanted.collect();
    let compiled = compile(&index, &Enrolled { published: captured.clone(), captured });
    Ok(Source {
        snapshot: Snapshot::from_resources(compiled.resources.into_values().collect()),
        findings: compiled.diagnostics.iter().map(ToString::to_string).collect(),
    })
}

/// The files themselves, and the `*.yaml`/`*.yml` of directories, in name order.
fn yaml_files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    for path in paths {
        let bad = |error: std::io::Error| Failure::bad_input(format!("{}: {error}", path.display()));
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let mut inside = Vec::new();
        for entry in fs::read_dir(path).map_err(bad)? {
            let file = entry.map_err(bad)?.path();
            if file.is_file() && file.extension().is_some_and(|ext| ext == "yaml" || ext == "yml") {
                inside.push(file);
            }
        }
        inside.sort();
        files.append(&mut inside);
    }
    Ok(files)
}
