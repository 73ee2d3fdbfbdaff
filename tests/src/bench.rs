//! Tulle measured beside the real Envoy, in the same namespaces, alternating.
//!
//! Invariant: every figure is printed with the peer's from the same run; nothing here passes or fails on a figure.

mod envoy;
mod machine;
mod report;
mod setup;

use std::{path::PathBuf, str::FromStr, time::Duration};

use anyhow::{Context, Result, ensure};

use self::{machine::CpuClock, report::Report, setup::Stage};

/// What to measure, and how long.
#[derive(Debug, Clone)]
pub struct Options {
    /// How often all setups are gone through; the median is reported.
    pub rounds: u32,
    /// Seconds of each scenario in each round.
    pub seconds: u64,
    /// Empty: all.
    pub setups: Vec<Setup>,
    /// Empty: all.
    pub scenarios: Vec<Scenario>,
    /// Where to write the rows.
    pub json: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self { rounds: 3, seconds: 4, setups: Vec::new(), scenarios: Vec::new(), json: None }
    }
}

macro_rules! named {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            /// All, in the order in which they run.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// As on the command line and in the rows.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                Self::ALL
                    .iter()
                    .find(|one| one.name() == text)
                    .copied()
                    .ok_or_else(|| format!("{text:?} is none of {}", Self::ALL.iter().map(|one| one.name()).collect::<Vec<_>>().join(", ")))
            }
        }
    };
}

named!(
    /// What stands between client and server.
    Setup {
        /// Nothing; the server is on the other node.
        Direct = "direct",
        /// Nothing; the server is on the same node.
        DirectSame = "direct-same",
        /// Tulle, same node.
        TulleSame = "tulle-same",
        /// Tulle, the server on the other node.
        TulleCross = "tulle-cross",
        /// One Envoy, plaintext HTTP, same node.
        EnvoyHop = "envoy-hop",
        /// An Envoy on each node, HTTP/2 over mTLS between them.
        EnvoyPairH2 = "envoy-pair-h2",
        /// An Envoy on each node, TCP over mTLS between them.
        EnvoyTcp = "envoy-tcp",
    }
);

named!(
    /// What the client does.
    Scenario {
        /// 32 connections, closed loop.
        Http1C32 = "http1-c32",
        /// One connection, closed loop.
        Http1C1 = "http1-c1",
        /// 1000 requests per second over 16 connections, open loop.
        Http1Rate = "http1-1krps",
        /// One request per connection, 16 at once.
        Conn = "conn",
        /// One long TCP stream.
        Stream = "stream",
    }
);

impl Setup {
    /// The run without a proxy that this one is compared with.
    fn baseline(self) -> Self {
        match self {
            Self::DirectSame | Self::TulleSame | Self::EnvoyHop => Self::DirectSame,
            Self::Direct | Self::TulleCross | Self::EnvoyPairH2 | Self::EnvoyTcp => Self::Direct,
        }
    }

    /// An HTTP proxy has no opaque stream; a TCP proxy is measured with all.
    fn runs(self, scenario: Scenario) -> bool {
        !(scenario == Scenario::Stream && matches!(self, Self::EnvoyHop | Self::EnvoyPairH2))
    }
}

/// Runs everything and prints the table.
pub fn run(options: &Options) -> Result<()> {
    ensure!(options.rounds > 0 && options.seconds > 0, "rounds and seconds must be at least 1");
    let wanted = |setup: &Setup| {
        options.setups.is_empty()
            || options.setups.contains(setup)
            || options.setups.iter().any(|chosen| chosen.baseline() == *setup)
    };
    let setups: Vec<Setup> = Setup::ALL.iter().copied().filter(wanted).collect();
    let scenarios: Vec<Scenario> = Scenario::ALL
        .iter()
        .copied()
        .filter(|scenario| options.scenarios.is_empty() || options.scenarios.contains(scenario))
        .collect();
    let stage = Stage::build(&setups).context("the stage for the bench cannot be built")?;
    let mut report = Report::default();
    for setup in &setups {
        if let Some(mib) = stage.memory_mib(*setup)? {
            report.note(*setup, "fresh", "mem_mib", mib);
        }
    }
    for round in 1..=options.rounds {
        for scenario in &scenarios {
            for setup in setups.iter().filter(|setup| setup.runs(*scenario)) {
                eprintln!("round {round}/{}  {:12} {}", options.rounds, scenario.name(), setup.name());
                measure(&stage, *setup, *scenario, Duration::from_secs(options.seconds), &mut report)
                    .with_context(|| format!("{} {}", setup.name(), scenario.name()))?;
            }
        }
    }
    for setup in &setups {
        if let Some(mib) = stage.memory_mib(*setup)? {
            report.note(*setup, "after", "mem_mib", mib);
        }
    }
    report.finish(&setups, &scenarios);
    report.print();
    options.json.as_ref().map_or(Ok(()), |file| report.write(file))
}

/// How many bytes the stream scenario moves.
const STREAM_BYTES: u64 = 2 << 30;

fn measure(
    stage: &Stage,
    setup: Setup,
    scenario: Scenario,
    duration: Duration,
    report: &mut Report,
) -> Result<()> {
    let (client, target) = stage.target(setup);
    let clock = CpuClock::start()?;
    if scenario == Scenario::Stream {
        let gbit = client.stream(&format!("{}:{}", target.host, target.stream_port), STREAM_BYTES, false)?;
        report.note(setup, scenario.name(), "gbit", gbit);
        return Ok(());
    }
    let load = client.load(&format!("http://{}:{}/bytes/64", target.host, target.http_port));
    let load = match scenario {
        Scenario::Http1C1 => load.connections(1),
        Scenario::Http1Rate => load.connections(16).rps(1000),
        Scenario::Conn => load.connections(16).new_connections(),
        Scenario::Http1C32 | Scenario::Stream => load.connections(32),
    };
    let counted = load.run(duration)?;
    let busy = clock.busy_seconds()?;
    ensure!(
        counted.failed == 0,
        "{} of {} requests failed: {:?} {:?}",
        counted.failed,
        counted.requests,
        counted.statuses,
        counted.examples
    );
    report.note(setup, scenario.name(), "rps", counted.rps);
    for (metric, quantile) in [("p50_us", "p50"), ("p99_us", "p99")] {
        let value =
            counted.latency_us.get(quantile).with_context(|| format!("the load reports no {quantile}"))?;
        report.note(setup, scenario.name(), metric, *value as f64);
    }
    report.note(setup, scenario.name(), "cpu_us", busy * 1e6 / counted.requests.max(1) as f64);
    Ok(())
}
