//! Step 4: routes by header and weight, and a dead replica that nobody notices.

use anyhow::{Result, ensure};

use super::screen::Screen;
use super::shop::{PAGE, Shop};
use crate::LoadReport;

/// How many pages jason asks for.
const OF_JASON: u32 = 20;

/// At least so many pages, so that shares mean something.
const PAGES: u64 = 600;

/// The split of samples/shop-routing.yaml.
const SHARES: [(&str, f64); 3] = [("v1", 0.9), ("v2", 0.0), ("v3", 0.1)];

/// The chance that a fair split is called unfair: below 1e-6 lies beyond 4.9 standard deviations.
const SIGMAS: f64 = 4.9;

/// The replica that dies; its twin lives on the same node.
const VICTIM: &str = "reviews-v3-b";

/// Tells it.
pub fn show(shop: &Shop, screen: &Screen) -> Result<()> {
    let taken = shop.apply("shop-routing.yaml")?;
    screen.fact("applied", &format!("in force on both nodes after {} ms, no pod touched", taken.as_millis()));
    jason(shop, screen)?;
    everybody(shop, screen)?;
    a_killed_replica(shop, screen)
}

fn jason(shop: &Shop, screen: &Screen) -> Result<()> {
    let answers =
        shop.pod("load")?.call(PAGE).header("end-user", "jason").times(OF_JASON).keep_alive().answers()?;
    let v2 = answers.iter().filter(|answer| answer.text("/reviews/version") == "v2").count();
    ensure!(v2 == OF_JASON as usize, "jason got reviews v2 {v2} times of {OF_JASON}");
    screen.good(&format!("end-user: jason   reviews v2, {v2} of {OF_JASON}"));
    Ok(())
}

fn everybody(shop: &Shop, screen: &Screen) -> Result<()> {
    let report = pages(shop, "/reviews/version")?;
    let n = report.requests as f64;
    let mut rows = Vec::new();
    for (version, share) in SHARES {
        let count = report.values.get(version).copied().unwrap_or_default();
        let away = (count as f64 - n * share).abs();
        ensure!(
            away <= SIGMAS * (n * share * (1.0 - share)).sqrt(),
            "{count} of {n} pages had reviews {version}, expected {:.0}",
            n * share
        );
        rows.push(vec![
            version.to_owned(),
            count.to_string(),
            format!("{:.0}", n * share),
            format!("{:.1} %", count as f64 * 100.0 / n),
            format!("{:.0} %", share * 100.0),
        ]);
    }
    screen.good(&format!("everybody else, n = {n}:"));
    screen.table(&["reviews", "pages", "expected", "share", "configured"], &rows);
    Ok(())
}

fn a_killed_replica(shop: &Shop, screen: &Screen) -> Result<()> {
    let victim = shop.pod(VICTIM)?;
    victim.kill_application();
    let report = pages(shop, "/reviews/attempt")?;
    let first = report.values.get("1").copied().unwrap_or_default();
    let again = report.requests - first;
    ensure!(again > 0, "nothing was tried again, although {VICTIM} is dead and still listed: {report:?}");
    victim.restart_application()?;
    screen.good(&format!(
        "{VICTIM} killed, its endpoint still listed: {} pages, 0 failed, {again} of their reviews by a retry",
        report.requests
    ));
    Ok(())
}

/// Pages, counted by `pointer`; fails if one is missing or lacks the value.
fn pages(shop: &Shop, pointer: &str) -> Result<LoadReport> {
    let load = shop.pod("load")?.load(PAGE).connections(8).count_by(pointer).start()?;
    load.await_good(PAGES)?;
    let report = load.stop()?;
    let counted: u64 =
        report.values.iter().filter(|(value, _)| *value != "null").map(|(_, count)| count).sum();
    ensure!(report.failed == 0 && counted == report.requests, "pages were lost: {report:?}");
    Ok(report)
}
