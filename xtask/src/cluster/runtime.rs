//! Images on the nodes: what is there, and bringing what is not.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, bail};

use super::layout::{NODES, Node};
use crate::{images, step};

/// The namespace in which the kubelet's images are.
const NAMESPACE: &str = "k8s.io";

/// Imports those of `archives` that a node does not have in this very version. Returns how many were imported.
pub fn load(archives: &[PathBuf]) -> Result<usize> {
    let wanted = archives
        .iter()
        .map(|archive| images::identity(archive).map(|identity| (archive.as_path(), identity)))
        .collect::<Result<Vec<_>>>()?;
    // Both nodes at once: importing is mostly waiting for the disk.
    thread::scope(|scope| {
        let wanted = &wanted;
        let nodes = NODES.map(|node| scope.spawn(move || load_one(node, wanted)));
        let done = nodes.into_iter().map(|node| match node.join() {
            Ok(imported) => imported,
            Err(_) => bail!("loading an image failed in an unexpected way"),
        });
        done.sum()
    })
}

fn load_one(node: Node, wanted: &[(&Path, (String, String))]) -> Result<usize> {
    let there = present(node)?;
    let mut imported = 0;
    for (archive, identity) in wanted.iter().filter(|(_, identity)| !there.contains(identity)) {
        let mut command = ctr(node);
        command.args(["images", "import"]).arg(archive);
        step::output_of(&mut command)
            .with_context(|| format!("{} cannot be loaded on {}", identity.0, node.name()))?;
        imported += 1;
    }
    Ok(imported)
}

/// Whether both nodes have an image of each of these names.
pub fn have(references: &[String]) -> Result<bool> {
    for node in NODES {
        let there = present(node)?;
        if !references.iter().all(|reference| there.iter().any(|(name, _)| name == reference)) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Names and digests of the images of a node.
fn present(node: Node) -> Result<BTreeSet<(String, String)>> {
    let said = step::output_of(ctr(node).args(["images", "list"]))
        .with_context(|| format!("the images of {} cannot be listed; is the cluster up?", node.name()))?;
    Ok(parse(&said))
}

/// The first and the third column, without the heading.
fn parse(list: &str) -> BTreeSet<(String, String)> {
    let of_line = |line: &str| {
        let mut words = line.split_whitespace();
        Some((words.next()?.to_owned(), words.nth(1)?.to_owned()))
    };
    list.lines().skip(1).filter_map(of_line).collect()
}

fn ctr(node: Node) -> Command {
    let mut command = Command::new("ctr");
    command.arg("--address").arg(node.containerd()).args(["--namespace", NAMESPACE]);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_images_gives_names_and_digests() {
        let list = "REF TYPE DIGEST SIZE PLATFORMS LABELS\n\
                    docker.io/tulle/pause:1 application/vnd.oci.image.manifest.v1+json sha256:ab 1.0 KiB linux/amd64 -\n";
        let expected = BTreeSet::from([("docker.io/tulle/pause:1".to_owned(), "sha256:ab".to_owned())]);
        assert_eq!(parse(list), expected);
    }
}
