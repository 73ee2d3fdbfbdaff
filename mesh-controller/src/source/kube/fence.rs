//! "Everything that was written until now": what whoever asks for a rescan waits for.
//!
//! The versions of all objects are listed, and the request is answered when the watches have told each of them, or something later of
//! it. Invariant: a fence only waits for what a watch will tell; what cannot be listed is not waited for (the outage is told elsewhere),
//! and a fence is opened at its deadline in any case.

use std::{collections::HashMap, time::Duration};

use futures::future::join_all;
use kube::{
    Api, Client,
    api::{ListParams, PartialObjectMeta},
};
use mesh_api::Kind;
use mesh_model::name::Namespace;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};

use super::{
    kind::{News, Said, fields, namespace, served},
    object::{text_name, version},
};

/// For listing, and again for what is awaited then.
pub(super) const BOUND: Duration = Duration::from_secs(5);
/// Objects in one answer.
const PAGE: u32 = 500;

/// The versions of the objects that were told.
#[derive(Default)]
pub(super) struct Seen {
    versions: HashMap<Kind, HashMap<String, u64>>,
}

impl Seen {
    /// Takes a piece of news in.
    pub(super) fn note(&mut self, news: &News) {
        let News::OfKind(kind, Said::Objects { told, removed }) = news else { return };
        let versions = self.versions.entry(*kind).or_default();
        versions.extend(told.iter().map(|(parsed, version)| (parsed.file.clone(), *version)));
        for name in removed {
            versions.remove(name);
        }
    }
}

/// The objects of one kind, as listed.
pub(super) struct Listed {
    kind: Kind,
    /// Of the list: what is younger was written after it.
    version: u64,
    objects: HashMap<String, u64>,
}

/// What one request waits for: news of these objects that are at least of these versions.
pub(super) struct Fence {
    awaited: HashMap<String, u64>,
    opens_at: Instant,
    asked: oneshot::Sender<()>,
}

impl Fence {
    /// Waits for what is listed and was not seen.
    pub(super) fn new(listed: Vec<Listed>, seen: &Seen, asked: oneshot::Sender<()>) -> Self {
        let mut awaited = HashMap::new();
        for list in listed {
            let nothing = HashMap::new();
            let seen = seen.versions.get(&list.kind).unwrap_or(&nothing);
            for (name, version) in seen {
                if *version <= list.version && !list.objects.contains_key(name) {
                    awaited.insert(name.clone(), list.version + 1);
                }
            }
            let unseen = |(name, version): &(String, u64)| seen.get(name).is_none_or(|seen| seen < version);
            awaited.extend(list.objects.into_iter().filter(unseen));
        }
        Self { awaited, opens_at: Instant::now() + BOUND, asked }
    }

    /// Takes a piece of news in.
    pub(super) fn note(&mut self, news: &News) {
        let News::OfKind(_, Said::Objects { told, removed }) = news else { return };
        for (parsed, version) in told {
            if self.awaited.get(&parsed.file).is_some_and(|awaited| awaited <= version) {
                self.awaited.remove(&parsed.file);
            }
        }
        for name in removed {
            self.awaited.remove(name);
        }
    }

    /// Whether nothing is awaited any more.
    pub(super) fn is_open(&self, now: Instant) -> bool {
        self.awaited.is_empty() || self.opens_at <= now
    }

    /// When it opens in any case.
    pub(super) fn opens_at(&self) -> Instant {
        self.opens_at
    }

    /// Answers the request.
    pub(super) fn answer(self) {
        if !self.awaited.is_empty() {
            tracing::warn!(
                awaited = self.awaited.len(),
                "a rescan was answered before its changes were seen"
            );
        }
        // Whoever asked may have gone.
        let _ = self.asked.send(());
    }
}

/// Lists the versions of all objects that are watched.
pub(super) async fn list(client: Client, root_namespace: Namespace) -> Vec<Listed> {
    let all = Kind::ALL.iter().map(|kind| list_kind(&client, &root_namespace, *kind));
    let listed = timeout(BOUND, join_all(all)).await.unwrap_or_default();
    listed.into_iter().filter_map(|listed| listed.ok().flatten()).collect()
}

async fn list_kind(client: &Client, root: &Namespace, kind: Kind) -> kube::Result<Option<Listed>> {
    let Some(resource) = served(client, kind).await? else { return Ok(None) };
    let api: Api<PartialObjectMeta<kube::api::DynamicObject>> = match namespace(kind, root) {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace.as_str(), &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let mut parameters = ListParams { field_selector: fields(kind), ..ListParams::default().limit(PAGE) };
    let mut listed = Listed { kind, version: 0, objects: HashMap::new() };
    loop {
        let page = api.list(&parameters).await?;
        listed.version = version(page.metadata.resource_version.as_deref());
        for object in &page.items {
            let version = version(object.metadata.resource_version.as_deref());
            listed.objects.insert(text_name(kind, &object.metadata), version);
        }
        parameters.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
        if parameters.continue_token.is_none() {
            return Ok(Some(listed));
        }
    }
}

#[cfg(test)]
mod tests {
    use mesh_api::{Parsed, parse};

    use super::*;

    fn node(name: &str) -> Parsed {
        parse(&format!("Node {name}"), "")
    }

    fn told(name: &str, version: u64) -> News {
        News::OfKind(Kind::Node, Said::Objects { told: vec![(node(name), version)], removed: vec![] })
    }

    fn removed(name: &str) -> News {
        News::OfKind(Kind::Node, Said::Objects { told: vec![], removed: vec![format!("Node {name}")] })
    }

    fn listed(version: u64, objects: &[(&str, u64)]) -> Vec<Listed> {
        let objects = objects.iter().map(|(name, version)| (format!("Node {name}"), *version)).collect();
        vec![Listed { kind: Kind::Node, version, objects }]
    }

    fn seen(objects: &[(&str, u64)]) -> Seen {
        let mut seen = Seen::default();
        for (name, version) in objects {
            seen.note(&told(name, *version));
        }
        seen
    }

    fn fence(listed: Vec<Listed>, seen: &Seen) -> Fence {
        Fence::new(listed, seen, oneshot::channel().0)
    }

    #[tokio::test]
    async fn what_was_seen_is_not_awaited() {
        let open = fence(listed(9, &[("a", 5), ("b", 7)]), &seen(&[("a", 5), ("b", 8), ("c", 10)]));
        assert!(open.is_open(Instant::now()), "c is younger than the list");
        assert!(fence(vec![], &seen(&[("a", 5)])).is_open(Instant::now()), "what cannot be listed");
    }

    #[tokio::test]
    async fn new_and_changed_objects_are_awaited_in_that_version_or_a_later_one() {
        let mut fence = fence(listed(9, &[("a", 5), ("b", 7)]), &seen(&[("a", 4)]));
        for (news, open) in [(told("a", 4), false), (told("a", 6), false), (told("b", 7), true)] {
            fence.note(&news);
            assert_eq!(fence.is_open(Instant::now()), open);
        }
    }

    #[tokio::test]
    async fn what_is_gone_is_awaited_until_that_is_told_or_it_is_there_anew() {
        for last in [removed("a"), told("a", 12)] {
            let mut fence = fence(listed(9, &[]), &seen(&[("a", 4)]));
            fence.note(&told("a", 8));
            assert!(!fence.is_open(Instant::now()));
            fence.note(&last);
            assert!(fence.is_open(Instant::now()));
        }
        let mut gone_before_it_was_seen = fence(listed(9, &[("a", 9)]), &seen(&[]));
        gone_before_it_was_seen.note(&removed("a"));
        assert!(gone_before_it_was_seen.is_open(Instant::now()));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever() {
        let (asked, answered) = oneshot::channel();
        let fence = Fence::new(listed(9, &[("a", 9)]), &Seen::default(), asked);
        assert!(!fence.is_open(Instant::now()));
        assert!(fence.is_open(fence.opens_at()));
        fence.answer();
        answered.await.unwrap();
    }
}
