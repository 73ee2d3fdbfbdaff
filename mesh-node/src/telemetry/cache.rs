//! Per-thread memory of the series that a thread writes to: after the first request of a kind no lock is taken.
//!
//! Invariant: an entry keeps alive what its key's addresses point to, so that an address in a key is never used twice.

use std::{cell::RefCell, collections::HashMap, sync::Arc};

use mesh_model::{identity::Identity, service::Service, workload::Workload};

use super::{
    labels::{Labels, outside},
    record::{ConnectionRecord, Reporter, RequestProtocol, RequestRecord, ResponseFlags, Security},
    series::{HttpSeries, Standard, TcpSeries},
};

/// A thread that has met this many kinds forgets them all and begins again.
const MOST_KINDS: usize = 8192;
/// UNAUTHENTICATED. What is above is no code and counts as one kind.
const LAST_GRPC_CODE: u16 = 16;

/// How a request or connection ended, as far as labels say it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Outcome {
    pub(super) status: u16,
    pub(super) grpc_status: Option<u16>,
    pub(super) flags: ResponseFlags,
}

impl Outcome {
    pub(super) fn of_request(connection: &ConnectionRecord, request: &RequestRecord<'_>) -> Self {
        // A label of gRPC only; and no upstream makes more series than there are codes.
        let grpc_status = match connection.protocol {
            RequestProtocol::Grpc => request.grpc_status.map(|code| code.min(LAST_GRPC_CODE + 1)),
            RequestProtocol::Http | RequestProtocol::Tcp => None,
        };
        Self { status: request.status, grpc_status, flags: request.flags }
    }

    pub(super) fn of_connection(flags: ResponseFlags) -> Self {
        Self { flags, ..Self::default() }
    }
}

/// The series of a finished request.
pub(super) fn http(standard: &Standard, record: &ConnectionRecord, outcome: Outcome) -> Arc<HttpSeries> {
    HTTP.with_borrow_mut(|cache| cache.get(standard, record, outcome, Standard::http))
}

/// The series of a connection.
pub(super) fn tcp(standard: &Standard, record: &ConnectionRecord, outcome: Outcome) -> Arc<TcpSeries> {
    TCP.with_borrow_mut(|cache| cache.get(standard, record, outcome, Standard::tcp))
}

thread_local! {
    static HTTP: RefCell<Cache<HttpSeries>> = RefCell::default();
    static TCP: RefCell<Cache<TcpSeries>> = RefCell::default();
}

struct Cache<S> {
    /// Which table, and which epoch of it.
    of: (u64, u64),
    kinds: HashMap<Key, Kind<S>>,
}

impl<S> Default for Cache<S> {
    fn default() -> Self {
        Self { of: (u64::MAX, 0), kinds: HashMap::new() }
    }
}

/// Everything that labels are made of, by address where that is enough.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    reporter: Reporter,
    source: usize,
    source_identity: Option<Identity>,
    destination: usize,
    destination_identity: Option<Identity>,
    service: usize,
    outside: Option<&'static str>,
    protocol: RequestProtocol,
    security: Security,
    outcome: Outcome,
}

struct Kind<S> {
    series: Arc<S>,
    _source: Option<Arc<Workload>>,
    _destination: Option<Arc<Workload>>,
    _service: Option<Arc<Service>>,
}

impl<S> Cache<S> {
    fn get(
        &mut self,
        standard: &Standard,
        record: &ConnectionRecord,
        outcome: Outcome,
        resolve: impl FnOnce(&Standard, Labels) -> Arc<S>,
    ) -> Arc<S> {
        let of = (standard.id, standard.epoch());
        if self.of != of || self.kinds.len() >= MOST_KINDS {
            self.kinds.clear();
            self.of = of;
        }
        let kind = self.kinds.entry(Key::new(record, outcome)).or_insert_with(|| Kind {
            series: resolve(standard, Labels::new(record, outcome)),
            _source: record.source.clone(),
            _destination: record.destination.clone(),
            _service: record.service.clone(),
        });
        kind.series.clone()
    }
}

impl Key {
    fn new(record: &ConnectionRecord, outcome: Outcome) -> Self {
        Self {
            reporter: record.reporter,
            source: address(record.source.as_ref()),
            source_identity: record.source_identity.clone(),
            destination: address(record.destination.as_ref()),
            destination_identity: record.destination_identity.clone(),
            service: address(record.service.as_ref()),
            outside: outside(record),
            protocol: record.protocol,
            security: record.security,
            outcome,
        }
    }
}

fn address<T>(shared: Option<&Arc<T>>) -> usize {
    shared.map_or(0, |shared| Arc::as_ptr(shared).addr())
}
