//! `cargo xtask demo`: a shop on two virtual nodes, told in six steps.
//!
//! Invariants: each step checks what it claims, and an unexpected result ends the demo with the ends of the logs; only
//! real parts run; whatever way the demo ends, nothing of it stays on the machine (`leftover` asks, after the fact).

mod authz;
mod edges;
mod enrol;
mod keep;
mod leftover;
mod numbers;
mod routing;
mod screen;
mod shop;
mod wire;

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use self::leftover::Belongings;
use self::screen::Screen;
use self::shop::Shop;
use crate::ending::leave_to_the_signal;

/// A failure that Ctrl-C caused is seen before the signal's own thread has begun: it is given this long.
const SIGNAL_GRACE: Duration = Duration::from_millis(300);

/// How many lines of each log a failed demo shows.
const LOG_LINES: usize = 8;

/// What the demo is asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Leave it up, say what to try, and end at Ctrl-C.
    pub keep: bool,
}

/// Tells the whole story.
pub fn run(options: Options) -> Result<()> {
    let begun = Instant::now();
    let screen = Screen::new();
    let shop = told(None, nodes(&screen))?;
    told(Some(&shop), story(&shop, &screen))?;
    if options.keep {
        keep::explain(&screen, &shop)?;
        loop {
            thread::park();
        }
    }
    clean_up(&screen, shop)?;
    screen.line(&format!("\nAll six steps did what they claim, in {:.1} s.", begun.elapsed().as_secs_f64()));
    Ok(())
}

/// Step 1.
fn nodes(screen: &Screen) -> Result<Shop> {
    screen.step(1, "Two virtual nodes, a mesh-node on each, one mesh-controller");
    let shop = Shop::start().context("step 1: the nodes do not come up")?;
    shop.describe_nodes(screen)?;
    Ok(shop)
}

/// Steps 2 to 6.
fn story(shop: &Shop, screen: &Screen) -> Result<()> {
    screen.step(2, "The shop: plain HTTP, no mesh yet");
    shop.open(screen).context("step 2: the shop does not run")?;
    screen.step(3, "Enrol the running shop by its label, while requests flow");
    enrol::show(shop, screen).context("step 3: enrolment")?;
    screen.step(4, "Routes: a header, a split, retries (samples/shop-routing.yaml)");
    routing::show(shop, screen).context("step 4: routes")?;
    screen.step(5, "Who may call whom (samples/shop-authz.yaml, samples/shop-strict.yaml)");
    authz::show(shop, screen).context("step 5: policies")?;
    screen.step(6, "Live numbers");
    numbers::show(shop, screen).context("step 6: numbers")
}

fn clean_up(screen: &Screen, shop: Shop) -> Result<()> {
    let belongings = Belongings::of(&shop.world);
    drop(shop);
    let gone = belongings.assert_gone().context("step 6: the demo left something behind")?;
    screen.good(&gone);
    Ok(())
}

/// Passes a result on; a failure is shown with the logs, unless it comes from a signal that is removing the world.
fn told<T>(shop: Option<&Shop>, result: Result<T>) -> Result<T> {
    if result.is_err() {
        thread::sleep(SIGNAL_GRACE);
        leave_to_the_signal();
        if let Some(shop) = shop {
            eprintln!("\nThe ends of the logs:\n{}", shop.world.logs(LOG_LINES));
            match shop.world.keep_logs() {
                Ok(folder) => eprintln!("All of the logs: {}", folder.display()),
                Err(error) => eprintln!("The logs could not be kept: {error:#}"),
            }
        }
    }
    result
}
