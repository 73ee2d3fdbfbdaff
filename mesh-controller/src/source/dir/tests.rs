//! Real files in a real directory.

use std::os::unix::fs::symlink;

use super::*;
use crate::source::rescan_channel;

fn node(name: &str) -> String {
    format!("apiVersion: v1\nkind: Node\nmetadata: {{name: {name}}}\n")
}

fn files(changes: &Changes) -> Vec<&str> {
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
    assert_eq!(files(&directory.look(None).changes.unwrap()), ["a.yml", "b.yaml"]);
    assert_eq!(directory.look(None).changes, None);

    fs::write(root.path().join("b.yaml"), node("c")).unwrap();
    assert_eq!(files(&directory.look(None).changes.unwrap()), ["b.yaml"]);

    fs::rename(root.path().join("b.yaml"), root.path().join("d.yaml")).unwrap();
    let changes = directory.look(None).changes.unwrap();
    assert_eq!(files(&changes), ["d.yaml"]);
    assert_eq!(changes.removed, ["b.yaml"]);

    fs::remove_file(root.path().join("d.yaml")).unwrap();
    let changes = directory.look(None).changes.unwrap();
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
    let changes = directory.look(None).changes.unwrap();
    assert_eq!(files(&changes), ["binary.yaml", "directory.yaml", "large.yaml", "pipe.yaml"]);
    for parsed in &changes.parsed {
        assert!(parsed.is_broken(), "{}", parsed.file);
        assert!(parsed.diagnostics[0].to_string().contains(&parsed.file));
    }
    assert_eq!(directory.look(None).changes, None, "said once");
}

#[test]
fn a_file_that_never_ends_its_read_holds_up_no_other() {
    let root = tempfile::tempdir().unwrap();
    // Regular for stat, and a read of it waits for the kernel's next message.
    symlink("/proc/kmsg", root.path().join("a.yaml")).unwrap();
    fs::write(root.path().join("b.yaml"), node("b")).unwrap();
    let (told, looked) = std::sync::mpsc::channel();
    let path = root.path().to_owned();
    std::thread::spawn(move || told.send(Directory::new(path).look(None)));
    let looked = looked.recv_timeout(Duration::from_secs(20)).expect("the look comes to an end");
    let changes = looked.changes.unwrap();
    assert_eq!(files(&changes), ["a.yaml", "b.yaml"]);
    assert!(changes.parsed[0].is_broken() && !changes.parsed[1].is_broken());
}

#[test]
fn a_directory_that_is_away_changes_nothing() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("mesh");
    let mut directory = Directory::new(path.clone());
    let changes = directory.look(None).changes.unwrap();
    assert!(changes.unreadable.unwrap().contains("mesh"));
    assert_eq!(directory.look(None).changes, None);
    fs::create_dir(&path).unwrap();
    assert_eq!(directory.look(None).changes, Some(Changes::default()), "it is back");
    fs::write(path.join("a.yaml"), node("a")).unwrap();
    directory.look(None).changes.unwrap();
    fs::rename(&path, root.path().join("away")).unwrap();
    let changes = directory.look(None).changes.unwrap();
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
    assert_eq!(files(&directory.look(None).changes.unwrap()), ["mesh.yaml"]);
    symlink("..v2", root.path().join("..data_tmp")).unwrap();
    fs::rename(root.path().join("..data_tmp"), root.path().join("..data")).unwrap();
    let changes = directory.look(None).changes.unwrap();
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
    assert_eq!(next(&mut commands).await, Changes::default());
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
        fs::write(root.path().join(".new"), node(&format!("n{i}"))).unwrap();
        fs::rename(root.path().join(".new"), root.path().join("a.yaml")).unwrap();
        assert!(rescan.now().await);
        // The watcher may have been quicker; in any case it is here by now, and nothing else.
        assert!(matches!(commands.try_recv(), Ok(Command::Source(_))), "{i}");
        assert!(commands.try_recv().is_err());
    }
    stop.cancel();
}

#[test]
fn a_file_that_is_being_rewritten_is_left_alone() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("a.yaml");
    fs::write(&path, node("a")).unwrap();
    let mut directory = Directory::new(root.path().to_owned());
    let before = SystemTime::now() - Duration::from_secs(60);
    assert!(directory.look(Some(before)).changes.is_some(), "a new file is read at once");
    fs::write(&path, "").unwrap();
    assert_eq!(directory.look(Some(before)), Looked { changes: None, again: true });
    fs::write(&path, node("b")).unwrap();
    assert!(directory.look(Some(before)).again);
    let later = SystemTime::now() + Duration::from_secs(60);
    assert_eq!(files(&directory.look(Some(later)).changes.unwrap()), ["a.yaml"]);
    // One that was put in its place is whole.
    fs::write(root.path().join(".new"), node("c")).unwrap();
    fs::rename(root.path().join(".new"), &path).unwrap();
    let looked = directory.look(Some(before));
    assert!(looked.changes.is_some() && !looked.again);
}

#[tokio::test]
async fn a_rescan_waits_for_a_writer_to_pause() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("a.yaml");
    fs::write(&path, node("a")).unwrap();
    let (publisher, mut commands) = mpsc::channel(64);
    let (rescan, requests) = rescan_channel();
    let stop = CancellationToken::new();
    tokio::spawn(watch(Directory::new(root.path().to_owned()), publisher, requests, stop.clone()));
    assert!(rescan.now().await);
    for i in 0..5 {
        fs::write(&path, node(&format!("n{i}"))).unwrap();
        assert!(rescan.now().await);
        let mut last = None;
        while let Ok(Command::Source(changes)) = commands.try_recv() {
            last = Some(changes);
        }
        assert_eq!(last.unwrap().parsed[0].objects[0].0.reference().name.as_ref(), format!("n{i}"));
    }
    stop.cancel();
}

async fn next(commands: &mut mpsc::Receiver<Command>) -> Changes {
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
