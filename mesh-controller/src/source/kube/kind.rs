//! One kind: which of its versions is served, its list, its watch.
//!
//! Invariant: what is told adds up to what the API server has. A list that comes again (the watch was away for too long) also tells what
//! is gone; a kind that is not installed is an empty one, and is looked for again.

use std::{collections::HashSet, pin::pin, time::Duration};

use futures::StreamExt;
use kube::{
    Api, Client, Error,
    api::{ApiResource, DynamicObject, GroupVersionKind},
    discovery,
    error::DiscoveryError,
    runtime::watcher::{self, Event},
};
use mesh_api::{Kind, Parsed};
use mesh_model::name::Namespace;
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

use super::object::{brief, read, text_name, version};

/// Between two looks for a kind that is not installed.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// For one question to discovery.
const ANSWER: Duration = Duration::from_secs(5);
/// The API server ends a watch after this long and we begin the next one where it ended; a connection that died is noticed no later.
const WATCH: Duration = Duration::from_secs(60);
/// Objects told at a time during a list.
const PAGE: usize = 500;
/// The pauses between attempts, before the jitter.
const PAUSES: std::ops::RangeInclusive<Duration> = Duration::from_millis(250)..=Duration::from_secs(5);
/// A watch that has not failed for this long after a failure has been taken up again.
const CALM: Duration = Duration::from_secs(15);

/// What is told.
pub(super) enum News {
    /// By the watch of a kind.
    OfKind(Kind, Said),
    /// Whether the API server answers; else why not.
    Heartbeat(Result<(), String>),
}

/// About one kind.
pub(super) enum Said {
    /// Objects that are new or different, with their versions, and names of those that are gone.
    Objects { told: Vec<(Parsed, u64)>, removed: Vec<String> },
    /// All that there are have been told.
    Listed,
    /// It cannot be read.
    Failing(String),
    /// It can be read again.
    Well,
}

/// Nobody listens any more.
struct Over;

/// Watches one kind.
pub(super) struct WatchedKind {
    kind: Kind,
    client: Client,
    root_namespace: Namespace,
    news: mpsc::Sender<News>,
    /// What was told and not taken back.
    known: HashSet<String>,
    failures: u32,
}

impl WatchedKind {
    pub(super) fn new(
        kind: Kind,
        client: &Client,
        root_namespace: &Namespace,
        news: mpsc::Sender<News>,
    ) -> Self {
        let (client, root_namespace) = (client.clone(), root_namespace.clone());
        Self { kind, client, root_namespace, news, known: HashSet::new(), failures: 0 }
    }

    /// Until nobody listens.
    pub(super) async fn watch(mut self) {
        loop {
            let went_on = match timeout(ANSWER, served(&self.client, self.kind)).await {
                Ok(Ok(Some(resource))) => self.follow(&resource).await,
                Ok(Ok(None)) => self.not_installed().await,
                Ok(Err(error)) => self.failed(brief(&error)).await,
                Err(_) => self.failed("discovery: no answer".to_owned()).await,
            };
            if went_on.is_err() {
                return;
            }
        }
    }

    /// Lists and watches until the kind is not served any more.
    async fn follow(&mut self, resource: &ApiResource) -> Result<(), Over> {
        let mut events = pin!(watcher::watcher(self.api(resource), self.selection()));
        let mut listing = Listing::default();
        loop {
            let next = events.next();
            let event = if self.failures == 0 {
                next.await
            } else {
                match timeout(CALM, next).await {
                    Ok(event) => event,
                    Err(_) => {
                        self.well().await?;
                        continue;
                    }
                }
            };
            let Some(event) = event else { return Ok(()) };
            match event {
                Ok(event) => {
                    self.well().await?;
                    self.happened(event, resource, &mut listing).await?;
                }
                Err(error) if is_gone(&error) => {
                    tracing::info!(kind = %self.kind, "is not served any more");
                    return Ok(());
                }
                Err(error) => self.failed(reason(&error)).await?,
            }
        }
    }

    async fn happened(
        &mut self,
        event: Event<DynamicObject>,
        resource: &ApiResource,
        listing: &mut Listing,
    ) -> Result<(), Over> {
        match event {
            Event::Init => *listing = Listing::default(),
            Event::InitApply(object) => {
                let told = self.read(resource, object);
                listing.seen.insert(told.0.file.clone());
                listing.page.push(told);
                if listing.page.len() >= PAGE {
                    self.tell_objects(std::mem::take(&mut listing.page), Vec::new()).await?;
                }
            }
            Event::InitDone => {
                let Listing { seen, page } = std::mem::take(listing);
                let gone = self.known.difference(&seen).cloned().collect();
                self.tell_objects(page, gone).await?;
                self.tell(Said::Listed).await?;
            }
            Event::Apply(object) => {
                let told = self.read(resource, object);
                self.tell_objects(vec![told], Vec::new()).await?;
            }
            Event::Delete(object) => {
                self.tell_objects(Vec::new(), vec![text_name(self.kind, &object.metadata)]).await?;
            }
        }
        Ok(())
    }

    fn read(&self, resource: &ApiResource, object: DynamicObject) -> (Parsed, u64) {
        let version = version(object.metadata.resource_version.as_deref());
        (read(self.kind, resource, object), version)
    }

    async fn tell_objects(&mut self, told: Vec<(Parsed, u64)>, removed: Vec<String>) -> Result<(), Over> {
        self.known.extend(told.iter().map(|(parsed, _)| parsed.file.clone()));
        for name in &removed {
            self.known.remove(name);
        }
        if told.is_empty() && removed.is_empty() {
            return Ok(());
        }
        self.tell(Said::Objects { told, removed }).await
    }

    /// Nothing of this kind can be there.
    async fn not_installed(&mut self) -> Result<(), Over> {
        self.well().await?;
        let gone = self.known.iter().cloned().collect();
        self.tell_objects(Vec::new(), gone).await?;
        self.tell(Said::Listed).await?;
        sleep(LOOK_AGAIN).await;
        Ok(())
    }

    async fn failed(&mut self, reason: String) -> Result<(), Over> {
        tracing::debug!(kind = %self.kind, reason, attempt = self.failures, "the watch failed");
        self.tell(Said::Failing(reason)).await?;
        let pause = PAUSES.start().saturating_mul(1 << self.failures.min(10)).min(*PAUSES.end());
        self.failures += 1;
        // Thirteen watches that lost their server together shall not come back together.
        sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
        Ok(())
    }

    async fn well(&mut self) -> Result<(), Over> {
        if std::mem::take(&mut self.failures) == 0 {
            return Ok(());
        }
        self.tell(Said::Well).await
    }

    async fn tell(&self, said: Said) -> Result<(), Over> {
        self.news.send(News::OfKind(self.kind, said)).await.map_err(|_| Over)
    }

    fn api(&self, resource: &ApiResource) -> Api<DynamicObject> {
        match namespace(self.kind, &self.root_namespace) {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace.as_str(), resource),
            None => Api::all_with(self.client.clone(), resource),
        }
    }

    fn selection(&self) -> watcher::Config {
        let config = watcher::Config::default().timeout(WATCH.as_secs() as u32);
        match fields(self.kind) {
            Some(fields) => config.fields(&fields),
            None => config,
        }
    }
}

/// The only namespace in which objects of the kind are looked at; None: all.
pub(super) fn namespace(kind: Kind, root: &Namespace) -> Option<&Namespace> {
    (kind == Kind::ConfigMap).then_some(root)
}

/// The only objects of the kind that are looked at; None: all. Other ConfigMaps are none of our business.
pub(super) fn fields(kind: Kind) -> Option<String> {
    (kind == Kind::ConfigMap).then(|| "metadata.name=istio".to_owned())
}

/// A list on its way.
#[derive(Default)]
struct Listing {
    seen: HashSet<String>,
    page: Vec<(Parsed, u64)>,
}

/// The first of the kind's versions that the API server has.
pub async fn served(client: &Client, kind: Kind) -> kube::Result<Option<ApiResource>> {
    for version in kind.api().versions() {
        let asked = GroupVersionKind::gvk(kind.api().group(), version, kind.as_str());
        match discovery::pinned_kind(client, &asked).await {
            Ok((resource, _)) => return Ok(Some(resource)),
            Err(Error::Api(status)) if status.code == 404 => {}
            Err(Error::Discovery(DiscoveryError::MissingKind(_) | DiscoveryError::EmptyApiGroup(_))) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Whether the API server does not know the kind (any more).
fn is_gone(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(Error::Api(status))
        | watcher::Error::WatchStartFailed(Error::Api(status)) => status.code == 404,
        _ => false,
    }
}

fn reason(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(error) => format!("list: {}", brief(error)),
        watcher::Error::WatchStartFailed(error) | watcher::Error::WatchFailed(error) => {
            format!("watch: {}", brief(error))
        }
        watcher::Error::WatchError(status) => format!("watch: {}", status.message),
        watcher::Error::NoResourceVersion => "watch: an answer without resourceVersion".to_owned(),
    }
}
