//! The registry, and our own `mesh_*` metrics by name.

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use prometheus_client::{
    collector::Collector,
    encoding::text::encode,
    metrics::{counter, gauge, info::Info},
    registry::Registry,
};

/// A counter of our own, `mesh_*_total`.
pub type Counter = counter::Counter;
/// A gauge of our own, `mesh_*`.
pub type Gauge = gauge::Gauge;

pub(super) struct Own {
    inner: Mutex<Inner>,
}

struct Inner {
    registry: Registry,
    counters: HashMap<&'static str, Counter>,
    gauges: HashMap<&'static str, Gauge>,
}

impl Own {
    pub(super) fn new() -> Self {
        let mut registry = Registry::default();
        let build = vec![("component", "mesh-node"), ("tag", env!("CARGO_PKG_VERSION"))];
        // Istio's dashboards read `istio_build` as a gauge of value 1.
        let version = prometheus_client::metrics::family::Family::<Vec<(&str, &str)>, Gauge>::default();
        version.get_or_create(&build).set(1);
        registry.register("istio_build", "Version of this component", version);
        registry.register("mesh_build", "Version of this component", Info::new(build));
        Self { inner: Mutex::new(Inner { registry, counters: HashMap::new(), gauges: HashMap::new() }) }
    }

    pub(super) fn counter(&self, name: &'static str, help: &'static str) -> Counter {
        let Inner { registry, counters, .. } = &mut *self.lock();
        counters
            .entry(name)
            .or_insert_with(|| {
                let counter = Counter::default();
                registry.register(name, help, counter.clone());
                counter
            })
            .clone()
    }

    pub(super) fn gauge(&self, name: &'static str, help: &'static str) -> Gauge {
        let Inner { registry, gauges, .. } = &mut *self.lock();
        gauges
            .entry(name)
            .or_insert_with(|| {
                let gauge = Gauge::default();
                registry.register(name, help, gauge.clone());
                gauge
            })
            .clone()
    }

    pub(super) fn collect(&self, collector: impl Collector) {
        self.lock().registry.register_collector(Box::new(collector));
    }

    pub(super) fn register(&self, add: impl FnOnce(&mut Registry)) {
        add(&mut self.lock().registry);
    }

    pub(super) fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.lock().registry)?;
        Ok(text)
    }

    /// Never on the data path: at start, and at scrapes.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
