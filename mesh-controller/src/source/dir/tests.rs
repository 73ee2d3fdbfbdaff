//! Real files in a real directory.

use std::os::unix::fs::symlink;

use super::*;

fn node(name: &str) -> String {
    format!("apiVersion: v1\nkind: Node\nmetadata: {{name: {name}}}\n")
}

fn files(changes: &FileChanges) -> Vec<&str> {
    changes.parsed.iter().map(|parsed| parsed.file.as_str()).collect()
}

#[test]
fn only_differences_are_told() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("b.yaml"), node("b")).unwrap();
    fs::write(root.path().join("a.yml"), node("a")).unwrap();
    fs::write(root.path().join("notes.txt"), "x").unwrap();
    fs::write(root.path().join(".a.yaml.swp"), "x").unwrap();
    fs::write(root.path().join(".hidden.yaml"), "x").unwrap();
    let mut directory = Directory::new(root.path().to_owned());
    assert_eq!(files(&directory.look().unwrap()), ["a.yml", "b.yaml"]);
    assert_eq!(directory.look(), None);

    fs::write(root.path().join("b.yaml"), node("c")).unwrap();
    assert_eq!(files(&directory.look().unwrap()), ["b.yaml"]);

    fs::rename(root.path().join("b.yaml"), root.path().join("d.yaml")).unwrap();
    let changes = directory.look().unwrap();
    assert_eq!(files(&changes), ["d.yaml"]);
    assert_eq!(changes.removed, ["b.yaml"]);

    fs::remove_file(root.path().join("d.yaml")).unwrap();
    let changes = directory.look().unwrap();
    assert!(changes.parsed.is_empty());
    assert_eq!(changes.removed, ["d.yaml"]);
}

#[test]
fn what_cannot_be_read_is_a_finding_of_that_file() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("directory.yaml")).unwrap();
    fs::write(root.path().join("binary.yaml"), [0xff, 0xfe, 0x00]).unwrap();
    fs::write(root.path().join("large.yaml"), vec![b'#'; MAX_FILE_BYTES as usize + 1]).unwrap();
    symlink("nowhere", root.path().join("dangling.yaml")).unwrap();
    nix_pipe(&root.path().join("pipe.yaml"));
    let mut directory = Directory::new(root.path().to_owned());
    let changes = directory.look().unwrap();
    assert_eq!(files(&changes), ["binary.yaml", "directory.yaml", "large.yaml", "pipe.yaml"]);
    for parsed in &changes.parsed {
        assert!(parsed.is_broken(), "{}", parsed.file);
        assert!(parsed.diagnostics[0].to_string().contains(&parsed.file));
    }
    assert_eq!(directory.look(), None, "said once");
}

#[test]
fn a_directory_that_is_away_changes_nothing() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("mesh");
    let mut directory = Directory::new(path.clone());
    let changes = directory.look().unwrap();
    assert!(changes.unreadable.unwrap().contains("mesh"));
    assert_eq!(directory.look(), None);
    fs::create_dir(&path).unwrap();
    assert_eq!(directory.look(), Some(FileChanges::default()), "it is back");
    fs::write(path.join("a.yaml"), node("a")).unwrap();
    directory.look().unwrap();
    fs::rename(&path, root.path().join("away")).unwrap();
    let changes = directory.look().unwrap();
    assert!(changes.removed.is_empty() && changes.unreadable.is_some());
}

#[test]
fn a_config_map_mount_is_swapped_in_one_step() {
    let root = tempfile::tempdir().unwrap();
    for (version, name) in [("..v1", "one"), ("..v2", "two")] {
        fs::create_dir(root.path().join(version)).unwrap();
        fs::write(root.path().join(version).join("mesh.yaml"), node(name)).unwrap();
    }
    symlink("..v1", root.path().join("..data")).unwrap();
    symlink("..data/mesh.yaml", root.path().join("mesh.yaml")).unwrap();
    let mut directory = Directory::new(root.path().to_owned());
    assert_eq!(files(&directory.look().unwrap()), ["mesh.yaml"]);
    symlink("..v2", root.path().join("..data_tmp")).unwrap();
    fs::rename(root.path().join("..data_tmp"), root.path().join("..data")).unwrap();
    let changes = directory.look().unwrap();
    assert_eq!(files(&changes), ["mesh.yaml"]);
    assert!(changes.removed.is_empty());
}

#[tokio::test]
async fn changes_are_noticed_without_being_asked() {
    let root = tempfile::tempdir().unwrap();
    let (publisher, mut commands) = mpsc::channel(8);
    let (_rescan, requests) = rescan_channel();
    let stop = CancellationToken::new();
    let watching =
        tokio::spawn(watch(Directory::new(root.path().to_owned()), publisher, requests, stop.clone()));
    assert_eq!(next(&mut commands).await, FileChanges::default());
    fs::write(root.path().join(".new"), node("a")).unwrap();
    fs::rename(root.path().join(".new"), root.path().join("a.yaml")).unwrap();
    // The slow poll is 5 s away.
    let changes = timeout(Duration::from_secs(3), next(&mut commands)).await.unwrap();
    assert_eq!(files(&changes), ["a.yaml"]);
    fs::write(root.path().join("a.yaml"), node("b")).unwrap();
    let changes = timeout(Duration::from_secs(3), next(&mut commands)).await.unwrap();
    assert_eq!(files(&changes), ["a.yaml"]);
    stop.cancel();
    watching.await.unwrap();
}

#[tokio::test]
async fn a_rescan_is_answered_after_its_changes_were_sent() {
    let root = tempfile::tempdir().unwrap();
    let (publisher, mut commands) = mpsc::channel(64);
    let (rescan, requests) = rescan_channel();
    let stop = CancellationToken::new();
    tokio::spawn(watch(Directory::new(root.path().to_owned()), publisher, requests, stop.clone()));
    assert!(rescan.now().await);
    while commands.try_recv().is_ok() {}
    for i in 0..20 {
        fs::write(root.path().join("a.yaml"), node(&format!("n{i}"))).unwrap();
        assert!(rescan.now().await);
        // The watcher may have been quicker; in any case it is here by now, and nothing else.
        assert!(matches!(commands.try_recv(), Ok(Command::Source(_))), "{i}");
        assert!(commands.try_recv().is_err());
    }
    stop.cancel();
}

async fn next(commands: &mut mpsc::Receiver<Command>) -> FileChanges {
    match commands.recv().await {
        Some(Command::Source(changes)) => changes,
        other => panic!("{other:?}"),
    }
}

/// A named pipe: opening it for reading would block for ever.
fn nix_pipe(path: &Path) {
    let made = std::process::Command::new("mkfifo").arg(path).status().unwrap();
    assert!(made.success());
}
