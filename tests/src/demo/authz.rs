//! Step 5: allowed, denied, and by what; then no plaintext any more.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::screen::Screen;
use super::shop::Shop;
use crate::{Outcome, eventually};

const REVIEWS: &str = "http://reviews:9080/reviews/0";
const LEDGER: &str = "ledger:7000";

/// The body of every denied request.
const DENIED: &str = "RBAC: access denied";

/// How a denial begins in the access log.
const LOGGED: &str = "rbac_access_denied_matched_policy[";

/// A refused TCP connection ends within this, in milliseconds.
const SOON: f64 = 1000.0;

/// Tells it.
pub fn show(shop: &Shop, screen: &Screen) -> Result<()> {
    let taken = shop.apply("shop-authz.yaml")?;
    screen.fact(
        "authz",
        &format!("AuthorizationPolicies in force on both nodes after {} ms", taken.as_millis()),
    );
    let rows = vec![
        http(shop, "productpage", "GET", 200)?,
        http(shop, "productpage", "DELETE", 403)?,
        http(shop, "load", "GET", 403)?,
        tcp(shop, "ratings", true)?,
        tcp(shop, "load", false)?,
    ];
    screen.table(&["caller", "call", "answer", "decided (meshctl authz check)"], &rows);
    let logged = logged(shop, "reviews-read-only")?;
    screen.good(&format!("the access log says the same: {logged}"));
    strict(shop, screen)
}

/// One HTTP call to reviews.
fn http(shop: &Shop, caller: &str, method: &str, expected: u16) -> Result<Vec<String>> {
    let answer = shop.pod(caller)?.call(REVIEWS).method(method).send()?;
    let status = answer.status();
    ensure!(status == expected, "{caller} {method} {REVIEWS}: {status}, not {expected}");
    let words = if status == 403 { answer.body().as_str().unwrap_or_default() } else { "" };
    ensure!(status != 403 || words == DENIED, "the refusal says {words:?}");
    let more = ["--port", "9080", "--method", method, "--path", "/reviews/0"];
    let decided =
        explained(shop, &format!("pod/{caller}.shop"), "pod/reviews-v1.shop", &more, expected == 200)?;
    Ok(vec![caller.to_owned(), format!("{method} reviews"), format!("{status} {words}"), decided])
}

/// One TCP connection to the ledger.
fn tcp(shop: &Shop, caller: &str, allowed: bool) -> Result<Vec<String>> {
    let talk = shop.pod(caller)?.talk(LEDGER, &["send:42\\n", "read:3"])?;
    let answer = match &talk.error {
        None => format!("echoes {:?}", talk.received.trim()),
        Some(failure) => format!("closed ({})", failure.kind),
    };
    ensure!(talk.error.is_none() == allowed, "{caller} to {LEDGER}: {talk:?}");
    ensure!(allowed || talk.millis < SOON, "the refusal took {} ms", talk.millis);
    let decided =
        explained(shop, &format!("pod/{caller}.shop"), "pod/ledger.shop", &["--port", "7000"], allowed)?;
    Ok(vec![caller.to_owned(), "TCP ledger".to_owned(), answer, decided])
}

/// What `meshctl authz check` says, which runs the code of the data path; it must agree with what happened.
fn explained(shop: &Shop, from: &str, to: &str, more: &[&str], allowed: bool) -> Result<String> {
    let mut arguments = vec!["authz", "check", "--from", from, "--to", to];
    arguments.extend(more);
    let answer = shop.world.meshctl_json(&arguments)?;
    let data = answer.get("data").with_context(|| format!("no data in {answer}"))?;
    ensure!(data["allowed"] == allowed, "meshctl disagrees with what happened: {data}");
    let verdict = data["verdict"].as_str().context("no verdict")?;
    // The answer itself is in the column before.
    let short = verdict.split_once("): ").map_or(verdict, |(_, reason)| reason);
    let denying = matched(data).filter(|_| !allowed);
    Ok(denying.unwrap_or_else(|| short.to_owned()))
}

/// The policy's rule that matched, as the steps name it.
fn matched(data: &Value) -> Option<String> {
    let steps = data.get("steps")?.as_array()?;
    let step = steps.iter().find(|step| step["outcome"] == "match")?;
    Some(format!("denied by {}", step["subject"].as_str()?))
}

/// The detail of the refusal by `policy` in an access log.
fn logged(shop: &Shop, policy: &str) -> Result<String> {
    eventually("the refusal in an access log", Duration::from_secs(2), || {
        ["node-1", "node-2"].iter().find_map(|node| {
            let log = shop.world.log(node);
            let line = log.lines().find(|line| line.contains(LOGGED) && line.contains(policy))?;
            let detail = line.split(' ').find(|word| word.starts_with(LOGGED))?;
            Some(format!("{node}: {detail}"))
        })
    })
}

fn strict(shop: &Shop, screen: &Screen) -> Result<()> {
    let outsider = shop.pod("outsider")?;
    let url = format!("http://{}/productpage", shop.pod("productpage")?.at(9080));
    let before = outsider.get(&url)?.status();
    ensure!(before == 200, "PERMISSIVE is the default, and the outsider gets {before}");
    let taken = shop.apply("shop-strict.yaml")?;
    screen.fact("strict", &format!("PeerAuthentication STRICT in force after {} ms", taken.as_millis()));
    let after = match outsider.call(&url).timeout(3.0).outcome()? {
        Outcome::Failure(failure) => failure,
        Outcome::Answer(answer) => anyhow::bail!("STRICT, and the outsider is answered: {}", answer.status()),
    };
    let decided = explained(shop, "plaintext", "pod/productpage.shop", &["--port", "9080"], false)?;
    shop.page(&[]).context("STRICT must not disturb the mesh itself")?;
    screen.good(&format!(
        "legacy/outsider, plaintext: {before} before, {} after ({decided}); the shop goes on",
        after.kind
    ));
    Ok(())
}
