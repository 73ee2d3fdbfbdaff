//! Metrics that are read at the scrape: the kernel side's counters, certificates, open files.

use std::{fmt, fs, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder},
    metrics::MetricType,
};

use super::Rooms;
use crate::{bpf::Hooks, clock::Clock, identity::Certificates};

/// Adds the collectors to the registry.
pub(super) fn register(rooms: &Rooms) {
    let collector = AtScrape {
        hooks: rooms.hooks.clone(),
        certificates: rooms.certificates.clone(),
        clock: Clock::system(),
    };
    rooms.telemetry.register(|registry| registry.register_collector(Box::new(collector)));
}

#[derive(Debug)]
struct AtScrape {
    hooks: Arc<Hooks>,
    certificates: Certificates,
    clock: Clock,
}

impl Collector for AtScrape {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let help = "What the kernel side did and refused, by event";
        let mut events = encoder.encode_descriptor("mesh_kernel_events", help, None, MetricType::Counter)?;
        for (event, count) in &self.hooks.counters().0 {
            events
                .encode_family(&[("event", *event)])?
                .encode_counter::<[(&str, &str); 0], _, u64>(count, None)?;
        }
        self.encode_certificates(&mut encoder)?;
        encode_files(&mut encoder)
    }
}

impl AtScrape {
    fn encode_certificates(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let statuses = self.certificates.statuses();
        let usable = statuses.iter().filter(|status| status.is_usable).count();
        let mut states = gauge(encoder, "mesh_certificates", "Certificates of local workloads, by state")?;
        for (state, count) in [("ready", usable), ("missing", statuses.len() - usable)] {
            states.encode_family(&[("state", state)])?.encode_gauge(&count)?;
        }
        let now = self.clock.now();
        let ends = statuses.iter().filter_map(|status| status.not_after);
        if let Some(left) = ends.map(|end| end.duration_since(now).unwrap_or_default()).min() {
            let help = "Seconds until the first of the local certificates ends";
            gauge(encoder, "mesh_certificate_expiry_seconds", help)?.encode_gauge(&left.as_secs())?;
        }
        Ok(())
    }
}

fn encode_files(encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    if let Ok(files) = fs::read_dir("/proc/self/fd") {
        gauge(encoder, "process_open_fds", "Open file descriptors")?.encode_gauge(&files.count())?;
    }
    Ok(())
}

fn gauge<'a>(
    encoder: &'a mut DescriptorEncoder<'_>,
    name: &'a str,
    help: &str,
) -> Result<MetricEncoder<'a>, fmt::Error> {
    encoder.encode_descriptor(name, help, None, MetricType::Gauge)
}
