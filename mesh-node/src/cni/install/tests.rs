//! A node's folders, as runtimes and other CNIs leave them.

use std::{
    collections::BTreeMap,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
};

use tempfile::TempDir;

use super::*;

const LIST_TEXT: &str = "{\n  \"name\": \"k8s\",\n  \"cniVersion\": \"0.4.0\",\n  \"plugins\": [\n    {\"type\": \"ptp\"}\n  ]\n}\n";
const CONF_TEXT: &str = "{\"cniVersion\": \"0.4.0\", \"name\": \"k8s\", \"type\": \"bridge\"}\n";

struct Node {
    folder: TempDir,
}

impl Node {
    fn new() -> Self {
        let node = Self { folder: tempfile::tempdir().unwrap() };
        fs::create_dir(node.folder.path().join("net.d")).unwrap();
        node
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("net.d").join(name)
    }

    fn with(self, name: &str, text: &str) -> Self {
        fs::write(self.path(name), text).unwrap();
        self
    }

    fn files(&self) -> Files {
        let at = |name: &str| self.folder.path().join(name);
        let paths = CniPaths {
            conf_dir: at("net.d"),
            bin_dir: at("bin"),
            run_dir: at("run"),
            state_dir: at("state"),
        };
        Files::new(paths, Some("tulle-system".into()))
    }

    fn conf_dir(&self) -> BTreeMap<String, String> {
        let each = fs::read_dir(self.folder.path().join("net.d")).unwrap().flatten();
        each.map(|each| (each.file_name().into_string().unwrap(), fs::read_to_string(each.path()).unwrap()))
            .collect()
    }
}

fn holds_entry(text: &str) -> bool {
    text.contains("\"tulle-cni\"")
}

#[test]
fn only_the_first_configuration_is_changed_and_only_once() {
    let node =
        Node::new().with("10-a.conflist", LIST_TEXT).with("20-b.conflist", LIST_TEXT).with("00.txt", "x");
    let before = node.conf_dir();
    fs::set_permissions(node.path("10-a.conflist"), fs::Permissions::from_mode(0o640)).unwrap();
    let files = node.files();
    assert_eq!(files.install_entry().unwrap(), Some(node.path("10-a.conflist")));
    let inode = |name| fs::metadata(node.path(name)).unwrap().ino();
    let first = inode("10-a.conflist");
    assert_eq!(files.install_entry().unwrap(), None);
    assert_eq!(inode("10-a.conflist"), first, "nothing is written where nothing changes");
    assert_eq!(fs::metadata(node.path("10-a.conflist")).unwrap().mode() & 0o777, 0o640);
    let now = node.conf_dir();
    assert!(holds_entry(&now["10-a.conflist"]) && !holds_entry(&now["20-b.conflist"]));
    assert_eq!(files.remove_entries().unwrap(), 1);
    assert_eq!(node.conf_dir(), before);
    assert_eq!(files.remove_entries().unwrap(), 0);
}

#[test]
fn a_rewritten_list_gets_its_entry_back() {
    let node = Node::new().with("10-a.conflist", LIST_TEXT);
    let files = node.files();
    files.install_entry().unwrap();
    let node = node.with("10-a.conflist", LIST_TEXT);
    assert!(files.install_entry().unwrap().is_some());
    assert!(holds_entry(&node.conf_dir()["10-a.conflist"]));
}

#[test]
fn a_single_configuration_is_put_aside_and_comes_back() {
    let node = Node::new().with("10-a.conf", CONF_TEXT).with("10-a.conflist", LIST_TEXT);
    let before = node.conf_dir();
    let files = node.files();
    assert_eq!(files.install_entry().unwrap(), Some(node.path("10-a.conf.conflist")));
    assert_eq!(files.install_entry().unwrap(), None, "the list is what the runtime reads now");
    let now = node.conf_dir();
    assert_eq!(now["10-a.conf.tulle-original"], CONF_TEXT);
    assert!(!now.contains_key("10-a.conf") && !holds_entry(&now["10-a.conflist"]));
    // The CNI writes its file again: it counts, and is chained again.
    let node = node.with("10-a.conf", CONF_TEXT);
    assert!(files.install_entry().unwrap().is_some());
    files.remove_entries().unwrap();
    assert_eq!(node.conf_dir(), before);
}

#[test]
fn a_link_stays_a_link() {
    let node = Node::new();
    let real = node.folder.path().join("real");
    fs::write(&real, LIST_TEXT).unwrap();
    symlink(&real, node.path("10-a.conflist")).unwrap();
    node.files().install_entry().unwrap();
    assert!(node.path("10-a.conflist").is_symlink() && holds_entry(&fs::read_to_string(&real).unwrap()));
}

#[test]
fn what_cannot_be_understood_is_left_alone_and_said() {
    let node = Node::new();
    assert!(matches!(node.files().install_entry(), Err(InstallError::NoConfiguration(_))));
    let node = node.with("10-a.conflist", "{ half");
    assert!(matches!(node.files().install_entry(), Err(InstallError::Conflist { .. })));
    assert_eq!(node.files().remove_entries().unwrap(), 0);
    assert_eq!(node.conf_dir()["10-a.conflist"], "{ half");
}

#[test]
fn the_plugin_is_this_program_and_is_put_back_when_replaced() {
    let node = Node::new();
    let mut files = node.files();
    assert!(files.install_plugin().unwrap());
    let path = node.folder.path().join("bin/tulle-cni");
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o755);
    assert!(!files.install_plugin().unwrap());
    assert!(!node.files().install_plugin().unwrap(), "the next agent of this build finds it as it is");
    fs::write(&path, "something else").unwrap();
    assert!(files.install_plugin().unwrap());
    assert!(is_same(File::open(&path).unwrap(), File::open("/proc/self/exe").unwrap()).unwrap());
    files.remove_rest().unwrap();
    assert!(!path.exists());
    files.remove_rest().unwrap();
}
