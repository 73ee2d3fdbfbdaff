//! A directory of YAML files, watched.
//!
//! Invariant: what is sent is what the files said at one look, and a rescan that is answered has been sent before. Notifications
//! only make looks early; a slow poll finds what they miss (a symlink's target, a lost event). A file that is being rewritten in
//! place is not read until its writer pauses: half of it may be good YAML, and would delete what the other half says.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use mesh_api::{Code, Diagnostic, Origin, Parsed, Severity};
use notify::{EventKind, RecursiveMode, Watcher, event::AccessKind, event::AccessMode};
use sha2::{Digest, Sha256};
use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::Changes;
use crate::publish::Command;

/// A file of this size holds some thousand objects; larger ones are refused.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;
/// Files that are read; the rest (by name) are refused.
const MAX_FILES: usize = 10_000;
/// Writers that do not rename pause less than this between two writes.
const QUIET: Duration = Duration::from_millis(20);
/// A directory that never is quiet is read this often.
const LONGEST_WAIT: Duration = Duration::from_millis(500);
/// How late a change is seen that caused no notification.
const POLL: Duration = Duration::from_secs(5);

/// The directory, and what it said at the last look.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    known: BTreeMap<String, Known>,
    unreadable: Option<String>,
}

#[derive(Debug)]
struct Known {
    digest: [u8; 32],
    /// Another one means that the file was replaced by a whole one.
    inode: u64,
}

/// What came of a look.
#[derive(Debug, Default, PartialEq)]
pub struct Looked {
    /// What is different; None if nothing is.
    pub changes: Option<Changes>,
    /// A file is being written: look again soon.
    pub again: bool,
}

impl Directory {
    /// A directory that has not been looked at.
    pub fn new(path: PathBuf) -> Self {
        Self { path, known: BTreeMap::new(), unreadable: None }
    }

    /// Reads every file and returns what is different. A file that was rewritten in place after `quiet_since` is left for the next
    /// look. Blocks on the disk.
    pub fn look(&mut self, quiet_since: Option<SystemTime>) -> Looked {
        let names = match yaml_files(&self.path) {
            Ok(names) => names,
            Err(error) => return Looked { changes: self.unreadable(&error), again: false },
        };
        let recovered = self.unreadable.take().is_some();
        let mut changes = Changes::default();
        let mut again = false;
        let mut present = BTreeSet::new();
        for (position, name) in names.into_iter().enumerate() {
            let read = read(&self.path.join(&name), position);
            if matches!(read.content, Err(Unreadable::Gone)) {
                continue;
            }
            let digest = digest(&read.content);
            let known = self.known.get(&name);
            let in_place = known.is_some_and(|known| known.inode == read.inode);
            let fresh = quiet_since.zip(read.written).is_some_and(|(quiet, written)| written > quiet);
            if known.is_none_or(|known| known.digest != digest) {
                if in_place && fresh {
                    again = true;
                } else {
                    self.known.insert(name.clone(), Known { digest, inode: read.inode });
                    changes.parsed.push(parsed(&name, read.content));
                }
            }
            present.insert(name);
        }
        changes.removed = self.known.keys().filter(|name| !present.contains(*name)).cloned().collect();
        self.known.retain(|name, _| present.contains(name));
        let changed = recovered || !changes.parsed.is_empty() || !changes.removed.is_empty();
        Looked { changes: changed.then_some(changes), again }
    }

    /// Said once per reason.
    fn unreadable(&mut self, error: &io::Error) -> Option<Changes> {
        let reason = format!("{}: {error}", self.path.display());
        if self.unreadable.as_ref() == Some(&reason) {
            return None;
        }
        self.unreadable = Some(reason.clone());
        Some(Changes { unreadable: Some(reason), ..Changes::default() })
    }
}

/// Watches the directory until cancelled, and sends what changes. The first look is always sent, however empty.
pub async fn watch(
    directory: Directory,
    publisher: mpsc::Sender<Command>,
    mut requests: mpsc::Receiver<oneshot::Sender<()>>,
    stop: CancellationToken,
) {
    let changed = Arc::new(Notify::new());
    let mut watcher = watcher(&directory.path, &changed);
    let mut poll = interval(POLL);
    poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut directory = Some(directory);
    let mut first = true;
    loop {
        let mut asked = Vec::new();
        tokio::select! {
            () = stop.cancelled() => return,
            () = changed.notified() => wait_for_quiet(&changed).await,
            _ = poll.tick() => {}
            request = requests.recv() => match request {
                Some(request) => asked.push(request),
                None => return,
            },
        }
        // Whoever asked before the look began is served by it.
        while let Ok(request) = requests.try_recv() {
            asked.push(request);
        }
        let began = Instant::now();
        loop {
            // A writer that never pauses is taken as it is.
            let patient = began.elapsed() < LONGEST_WAIT;
            let Some(looked) = look(&mut directory, patient).await else { return };
            let away = looked.changes.as_ref().is_some_and(|changes| changes.unreadable.is_some());
            // A directory that was away has lost its watch.
            if let Some(directory) = directory.as_ref().filter(|_| watcher.is_none() || away) {
                watcher = self::watcher(&directory.path, &changed);
            }
            let changes = looked.changes.or_else(|| first.then(Changes::default));
            first = false;
            if let Some(changes) = changes
                && publisher.send(Command::Source(changes)).await.is_err()
            {
                return;
            }
            if !looked.again {
                break;
            }
            sleep(QUIET).await;
        }
        for request in asked {
            // Whoever asked may have gone.
            let _ = request.send(());
        }
    }
}

/// One look off the runtime's threads; None if it panicked.
async fn look(directory: &mut Option<Directory>, patient: bool) -> Option<Looked> {
    let mut looking = directory.take()?;
    let quiet_since = patient.then(|| SystemTime::now() - QUIET);
    let looked = tokio::task::spawn_blocking(move || {
        let looked = looking.look(quiet_since);
        (looking, looked)
    });
    let (looking, looked) = looked.await.ok()?;
    *directory = Some(looking);
    Some(looked)
}

async fn wait_for_quiet(changed: &Notify) {
    let deadline = Instant::now() + LONGEST_WAIT;
    while Instant::now() < deadline {
        if timeout(QUIET, changed.notified()).await.is_err() {
            return;
        }
        // Not a wait for anything: it only bounds how often this loop turns while a writer is busy.
        sleep(Duration::from_millis(1)).await;
    }
}

fn watcher(path: &Path, changed: &Arc<Notify>) -> Option<notify::RecommendedWatcher> {
    let changed = changed.clone();
    let started = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.map_or(true, |event| is_change(&event.kind)) {
            changed.notify_one();
        }
    })
    .and_then(|mut watcher| watcher.watch(path, RecursiveMode::NonRecursive).map(|()| watcher));
    match started {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "no notifications of changes; polling every 5 s");
            None
        }
    }
}

/// Our own reading opens files, too: that must not cause the next look.
fn is_change(kind: &EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    }
}

/// The names of the directory's YAML files, in order. Hidden files are editors' and ConfigMap mounts' own.
fn yaml_files(directory: &Path) -> io::Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(directory)? {
        let Ok(name) = entry?.file_name().into_string() else { continue };
        let is_yaml = name.ends_with(".yaml") || name.ends_with(".yml");
        if is_yaml && !name.starts_with('.') {
            names.insert(name);
        }
    }
    Ok(names)
}

/// Why a file's text is not to be had.
#[derive(Debug, thiserror::Error)]
enum Unreadable {
    /// It went between listing and reading.
    #[error("it is gone")]
    Gone,
    /// A directory, a socket…
    #[error("it is not a regular file")]
    NotAFile,
    #[error("it is larger than {MAX_FILE_BYTES} bytes")]
    TooLarge,
    #[error("there are more than {MAX_FILES} files")]
    TooMany,
    #[error("it is not UTF-8")]
    NotText,
    #[error("{0}")]
    Io(io::Error),
}

/// A file as it was at one moment.
struct Read {
    content: Result<String, Unreadable>,
    inode: u64,
    written: Option<SystemTime>,
}

fn read(path: &Path, position: usize) -> Read {
    let gone_or = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Unreadable::Gone,
        _ => Unreadable::Io(error),
    };
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) => return Read { content: Err(gone_or(error)), inode: 0, written: None },
    };
    let content = match (position < MAX_FILES, metadata.is_file()) {
        (false, _) => Err(Unreadable::TooMany),
        // Asked by name first: opening a pipe would block.
        (_, false) => Err(Unreadable::NotAFile),
        (true, true) => text(path).map_err(gone_or).and_then(std::convert::identity),
    };
    // Asked again: what was written while we read counts as fresh.
    let written = fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    Read { content, inode: metadata.ino(), written }
}

fn text(path: &Path) -> io::Result<Result<String, Unreadable>> {
    let mut bytes = Vec::new();
    // Some files of /proc are regular and block, and a pipe may have taken a file's place: one of them would hold up all others.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Ok(Err(Unreadable::NotAFile));
    }
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Ok(Err(Unreadable::TooLarge));
    }
    Ok(String::from_utf8(bytes).map_err(|_| Unreadable::NotText))
}

fn digest(content: &Result<String, Unreadable>) -> [u8; 32] {
    match content {
        Ok(text) => Sha256::digest(text.as_bytes()).into(),
        Err(error) => Sha256::digest(format!("\0{error}").as_bytes()).into(),
    }
}

fn parsed(name: &str, content: Result<String, Unreadable>) -> Parsed {
    match content {
        Ok(text) => mesh_api::parse(name, &text),
        Err(error) => Parsed {
            file: name.to_owned(),
            diagnostics: vec![Diagnostic {
                severity: Severity::Error,
                code: Code::Malformed,
                object: None,
                field: String::new(),
                message: format!("the file cannot be read: {error}"),
                origin: Some(Origin { file: name.into(), line: 0 }),
            }],
            ..Parsed::default()
        },
    }
}

#[cfg(test)]
mod tests;
