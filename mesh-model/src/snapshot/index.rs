//! Lookup tables of a snapshot: a key and everything that claims it, in a fixed order.
//!
//! Invariant: a list depends only on what claims the key, never on the order of arrival. Lists that an update does not touch are
//! shared with the snapshot before.

use std::{
    borrow::Borrow,
    cmp::Ordering,
    collections::{HashMap, HashSet},
    hash::Hash,
    sync::Arc,
};

use crate::{
    name::Hostname, route::RouteTable, service::Service, traffic::DestinationPolicy, workload::Workload,
};

/// What can be in a list: two values of one kind are never equal in order.
pub(super) trait Ranked {
    /// The order of the lists.
    fn order(&self, other: &Self) -> Ordering;
}

impl Ranked for Workload {
    fn order(&self, other: &Self) -> Ordering {
        self.uid.cmp(&other.uid)
    }
}

impl Ranked for Service {
    fn order(&self, other: &Self) -> Ordering {
        self.key.cmp(&other.key)
    }
}

impl Ranked for RouteTable {
    /// The oldest first.
    fn order(&self, other: &Self) -> Ordering {
        (&self.created, &self.key).cmp(&(&other.created, &other.key))
    }
}

impl Ranked for DestinationPolicy {
    fn order(&self, other: &Self) -> Ordering {
        (&self.key, &self.host).cmp(&(&other.key, &other.host))
    }
}

/// A key and everything that claims it.
#[derive(Clone, Debug)]
#[cfg_attr(test, derive(PartialEq))]
pub(super) struct Index<K: Eq + Hash, V>(HashMap<K, Arc<[Arc<V>]>>);

impl<K: Eq + Hash, V> Default for Index<K, V> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash + Clone, V: Ranked> Index<K, V> {
    /// Everything that claims the key, in order.
    pub(super) fn all<Q>(&self, key: &Q) -> &[Arc<V>]
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.0.get(key).map_or(&[], |list| list)
    }

    /// Takes out what is gone and puts in what came; each touched list is built once.
    fn update(&mut self, gone: &[(K, Arc<V>)], came: &[(K, Arc<V>)]) {
        let mut edits: HashMap<&K, Edit<'_, V>> = HashMap::new();
        for (key, value) in gone {
            edits.entry(key).or_default().gone.insert(Arc::as_ptr(value));
        }
        for (key, value) in came {
            edits.entry(key).or_default().came.push(value);
        }
        for (key, edit) in edits {
            let kept = self.all(key).iter().filter(|value| !edit.gone.contains(&Arc::as_ptr(value)));
            let mut list: Vec<Arc<V>> = kept.chain(edit.came).cloned().collect();
            list.sort_by(|one, other| one.order(other));
            list.dedup_by(|one, other| Arc::ptr_eq(one, other));
            if list.is_empty() {
                self.0.remove(key);
            } else {
                self.0.insert(key.clone(), list.into());
            }
        }
    }

    /// Follows values that changed: `keys` says which keys a value claims.
    pub(super) fn follow(&mut self, changes: &[Change<V>], keys: impl Fn(&V) -> Vec<K>) {
        let spread = |pick: fn(&Change<V>) -> &Option<Arc<V>>| -> Vec<(K, Arc<V>)> {
            changes
                .iter()
                .filter_map(|change| pick(change).as_ref())
                .flat_map(|value| keys(value).into_iter().map(|key| (key, Arc::clone(value))))
                .collect()
        };
        let (gone, came) = (spread(|change| &change.old), spread(|change| &change.new));
        self.update(&gone, &came);
    }
}

/// What happens to one list. Values are told apart by address: what goes is the very `Arc` that is in the list.
struct Edit<'a, V> {
    gone: HashSet<*const V>,
    came: Vec<&'a Arc<V>>,
}

impl<V> Default for Edit<'_, V> {
    fn default() -> Self {
        Self { gone: HashSet::new(), came: Vec::new() }
    }
}

/// One value before and after; each value is in one change at most.
#[derive(Debug)]
pub(super) struct Change<V> {
    /// None: it is new.
    pub(super) old: Option<Arc<V>>,
    /// None: it is gone.
    pub(super) new: Option<Arc<V>>,
}

/// Values by host, wildcards included.
#[derive(Clone, Debug)]
#[cfg_attr(test, derive(PartialEq))]
pub(super) struct HostIndex<V> {
    exact: Index<Hostname, V>,
    /// `*.x` under `.x`, `*` under the empty text.
    wildcard: Index<Arc<str>, V>,
}

impl<V> Default for HostIndex<V> {
    fn default() -> Self {
        Self { exact: Index::default(), wildcard: Index::default() }
    }
}

impl<V: Ranked> HostIndex<V> {
    /// The lists that hold for a host, the most specific first: exact, `*.` with the longest suffix, …, `*`.
    pub(super) fn by_specificity<'a, 'h>(
        &'a self,
        host: &'h Hostname,
    ) -> impl Iterator<Item = &'a [Arc<V>]> + use<'a, 'h, V> {
        let text = host.as_str();
        let suffixes = text
            .match_indices('.')
            .map(|(dot, _)| dot)
            .filter(|dot| *dot > 0)
            .chain([text.len()])
            .filter_map(|start| text.get(start..))
            .filter(|_| !self.wildcard.0.is_empty());
        std::iter::once(self.exact.all(text)).chain(suffixes.map(|suffix| self.wildcard.all(suffix)))
    }

    /// Follows values that changed: `hosts` says which hosts a value is for.
    pub(super) fn follow(&mut self, changes: &[Change<V>], hosts: impl Fn(&V) -> &[Hostname]) {
        let suffix = |host: &Hostname| host.as_str().strip_prefix('*').map(Arc::from);
        self.exact.follow(changes, |value| {
            hosts(value).iter().filter(|host| suffix(host).is_none()).cloned().collect()
        });
        self.wildcard.follow(changes, |value| hosts(value).iter().filter_map(suffix).collect());
    }
}
