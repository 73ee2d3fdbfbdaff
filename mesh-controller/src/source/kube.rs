//! The Kubernetes API as the source: one watch per kind that is read, put together.
//!
//! Invariant: nothing is compiled before the first list of every kind is complete, and what the API server said last holds while it is
//! away. Who watches is told in [`Changes`] alone, as the directory does it; objects are named `Kind namespace/name`.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use ::kube::Client;
use mesh_api::{Kind, Parsed};
use mesh_model::name::Namespace;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::Changes;
use crate::{metrics::Metrics, publish::Command};

mod fence;
mod kind;
mod object;

use fence::{Fence, Seen};
pub use kind::served;
use kind::{News, Said, WatchedKind};

/// News waiting; then the watches wait, and the API server with them.
const NEWS: usize = 256;
/// News in one batch for the publisher.
const BATCH: usize = 1024;
/// Between two questions whether the API server is there.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How long it has to answer.
const ANSWER: Duration = Duration::from_secs(3);
/// Rescans at a time; the rest waits for them.
const MAX_FENCES: usize = 16;
/// Reasons that are told at a time; the rest is a number.
const MAX_REASONS: usize = 3;

/// What is to be watched, and with what.
pub struct Cluster {
    /// The way to the API server.
    pub client: Client,
    /// The namespace of the mesh's settings.
    pub root_namespace: Namespace,
    /// Where the outage is counted.
    pub metrics: Metrics,
}

/// Watches until cancelled, and sends what changes.
pub async fn watch(
    cluster: Cluster,
    publisher: mpsc::Sender<Command>,
    mut requests: mpsc::Receiver<oneshot::Sender<()>>,
    stop: CancellationToken,
) {
    let (tell, mut news) = mpsc::channel(NEWS);
    // Dropped with this function, which ends the watches.
    let mut watches = JoinSet::new();
    for kind in Kind::ALL {
        let watched = WatchedKind::new(*kind, &cluster.client, &cluster.root_namespace, tell.clone());
        watches.spawn(watched.watch());
    }
    watches.spawn(listen_for_heartbeat(cluster.client.clone(), tell));
    let mut picture = Picture::new(Kind::ALL.iter().copied());
    let mut seen = Seen::default();
    let mut lists = JoinSet::new();
    let mut fences: Vec<Fence> = Vec::new();
    let mut batch = Vec::new();
    loop {
        let wake = fences.iter().map(Fence::opens_at).min();
        tokio::select! {
            () = stop.cancelled() => return,
            _ = news.recv_many(&mut batch, BATCH) => {}
            request = requests.recv(), if lists.len() + fences.len() < MAX_FENCES => match request {
                Some(asked) => {
                    let list = fence::list(cluster.client.clone(), cluster.root_namespace.clone());
                    lists.spawn(async move { (list.await, asked) });
                }
                None => return,
            },
            Some(listed) = lists.join_next() => match listed {
                Ok((listed, asked)) => fences.push(Fence::new(listed, &seen, asked)),
                Err(_) => return,
            },
            () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
            // It only ends when it panicked.
            Some(_) = watches.join_next() => return,
        }
        for news in &batch {
            seen.note(news);
            fences.iter_mut().for_each(|fence| fence.note(news));
        }
        if let Some(changes) = picture.take(batch.drain(..)) {
            cluster.metrics.source_away(picture.away_since());
            if publisher.send(Command::Source(changes)).await.is_err() {
                return;
            }
        }
        let now = Instant::now();
        for fence in fences.extract_if(.., |fence| fence.is_open(now)) {
            fence.answer();
        }
    }
}

/// Tells again and again whether the API server answers. A watch does not show it: nothing comes from a quiet one either.
async fn listen_for_heartbeat(client: Client, tell: mpsc::Sender<News>) {
    let mut heartbeat = interval(HEARTBEAT);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        heartbeat.tick().await;
        let beat = match timeout(ANSWER, client.apiserver_version()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(object::brief(&error)),
            Err(_) => Err(format!("no answer in {} s", ANSWER.as_secs())),
        };
        if tell.send(News::Heartbeat(beat)).await.is_err() {
            return;
        }
    }
}

/// How far every kind has come.
struct Picture {
    /// Kinds whose first list is not complete.
    unlisted: BTreeSet<Kind>,
    /// Kinds whose watch fails, and why.
    failing: BTreeMap<Kind, String>,
    /// Why the API server as a whole does not answer.
    silent: Option<String>,
    away_since: Option<OffsetDateTime>,
    told: Option<(bool, Option<String>)>,
}

impl Picture {
    fn new(kinds: impl Iterator<Item = Kind>) -> Self {
        Self {
            unlisted: kinds.collect(),
            failing: BTreeMap::new(),
            silent: None,
            away_since: None,
            told: None,
        }
    }

    /// Since when something cannot be read.
    fn away_since(&self) -> Option<OffsetDateTime> {
        self.away_since
    }

    /// What the publisher is to be told; None if it is nothing new. Of several news of one object the last counts.
    fn take(&mut self, batch: impl Iterator<Item = News>) -> Option<Changes> {
        let mut latest: BTreeMap<String, Option<Parsed>> = BTreeMap::new();
        for news in batch {
            let (kind, said) = match news {
                News::OfKind(kind, said) => (kind, said),
                News::Heartbeat(beat) => {
                    self.silent = beat.err();
                    continue;
                }
            };
            match said {
                Said::Objects { told, removed } => {
                    latest.extend(told.into_iter().map(|(parsed, _)| (parsed.file.clone(), Some(parsed))));
                    latest.extend(removed.into_iter().map(|name| (name, None)));
                }
                Said::Listed => drop(self.unlisted.remove(&kind)),
                Said::Failing(reason) => drop(self.failing.insert(kind, reason)),
                Said::Well => drop(self.failing.remove(&kind)),
            }
        }
        let mut changes = Changes { partial: !self.unlisted.is_empty(), ..Changes::default() };
        for (name, parsed) in latest {
            match parsed {
                Some(parsed) => changes.parsed.push(parsed),
                None => changes.removed.push(name),
            }
        }
        changes.unreadable = self.unreadable();
        let standing = (changes.partial, changes.unreadable.clone());
        let same = self.told.as_ref() == Some(&standing);
        self.told = Some(standing);
        (!same || !changes.parsed.is_empty() || !changes.removed.is_empty()).then_some(changes)
    }

    /// Why not everything can be read, in a line that does not change while the reason does not.
    fn unreadable(&mut self) -> Option<String> {
        if self.silent.is_none() && self.failing.is_empty() {
            self.away_since = None;
            return None;
        }
        let since = *self.away_since.get_or_insert_with(OffsetDateTime::now_utc);
        let since = since.replace_nanosecond(0).unwrap_or(since).format(&Rfc3339).unwrap_or_default();
        let reason = match &self.silent {
            Some(reason) => format!("the API server does not answer: {reason}"),
            None => {
                let told = self.failing.iter().take(MAX_REASONS).map(|(kind, why)| format!("{kind}: {why}"));
                let told: Vec<String> = told.collect();
                let more = self.failing.len().saturating_sub(MAX_REASONS);
                let more = if more == 0 { String::new() } else { format!("; and {more} kinds more") };
                format!("{}{more}", told.join("; "))
            }
        };
        Some(format!("since {since}: {reason}"))
    }
}

#[cfg(test)]
mod tests;
