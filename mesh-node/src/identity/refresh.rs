//! The life of one certificate: fetched, refreshed at half its life, tried again with growing pauses when that fails.
//!
//! Invariant: a certificate is replaced only by a better one; a failed refresh leaves the old one in use until its end.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{
    csr::Pending,
    issued::{BadCertificate, Issued},
    signer::SignError,
    store::{Shared, Slot},
};
use crate::clock::Clock;

/// The wall clock is looked at this often, so that a machine that slept or whose clock was set refreshes in time.
const LOOK_AT_CLOCK: Duration = Duration::from_secs(30);
/// However short-lived a certificate is, it is not asked for more often than this.
const SHORTEST_REFRESH: Duration = Duration::from_millis(500);

/// Why an attempt brought nothing.
#[derive(Debug, thiserror::Error)]
enum AttemptError {
    #[error(transparent)]
    Sign(#[from] SignError),
    #[error(transparent)]
    Bad(#[from] BadCertificate),
    #[error("the controller did not answer within {0:?}")]
    TimeOut(Duration),
    #[error("the agent stops")]
    Stopping,
}

/// Runs until aborted.
pub(super) async fn keep_fresh(shared: Arc<Shared>, slot: Arc<Slot>) {
    let limits = shared.settings.limits.clone();
    let mut pause = limits.sign_backoff_first;
    loop {
        match attempt(&shared, &slot).await {
            Ok(issued) => {
                slot.put(issued);
                shared.settings.issued.inc();
                pause = limits.sign_backoff_first;
                if let Some(not_after) = slot.not_after() {
                    let clock = &shared.settings.clock;
                    wait_until(clock, refresh_time(clock.now(), not_after, rand::random())).await;
                }
            }
            Err(error) => {
                tracing::warn!(subject = %slot.subject, %error, "no certificate; trying again");
                shared.settings.failed.inc();
                slot.note(Some(error.to_string()));
                back_off(&slot, limits.sign_backoff_first, pause).await;
                pause = (pause * 2).min(limits.sign_backoff_last);
            }
        }
    }
}

async fn attempt(shared: &Shared, slot: &Slot) -> Result<Issued, AttemptError> {
    // Who waits for nobody takes a place among the prefetches first; who is waited for does not.
    let _prefetch = tokio::select! {
        biased;
        () = slot.awaited() => None,
        place = shared.prefetches.acquire() => Some(place.map_err(|_closed| AttemptError::Stopping)?),
    };
    let _request = shared.requests.acquire().await.map_err(|_closed| AttemptError::Stopping)?;

    let settings = &shared.settings;
    let pending = Pending::new(&slot.subject).map_err(|error| BadCertificate::Key(error.to_string()))?;
    let signing = settings.signer.sign(slot.subject.clone(), pending.csr.clone());
    let signed = tokio::time::timeout(settings.limits.sign_timeout, signing)
        .await
        .map_err(|_elapsed| AttemptError::TimeOut(settings.limits.sign_timeout))??;
    Ok(Issued::new(&slot.subject, pending, signed, &shared.roots, &settings.clock)?)
}

/// Pauses after a failure. A connection that waits cuts a long pause short, but never below the first one.
async fn back_off(slot: &Slot, first: Duration, pause: Duration) {
    let jittered = pause.mul_f64(0.75 + rand::random::<f64>() / 2.0);
    tokio::time::sleep(jittered.min(first)).await;
    if let Some(rest) = jittered.checked_sub(first) {
        tokio::select! {
            () = tokio::time::sleep(rest) => {}
            () = slot.awaited() => {}
        }
    }
}

/// Half of what is left when it comes, give or take a twentieth by `draw` in [0, 1): the certificates of a node do not all come at
/// once. The certificate's own start does not count: a CA dates it back for clocks that are behind.
fn refresh_time(received: SystemTime, not_after: SystemTime, draw: f64) -> SystemTime {
    let life = not_after.duration_since(received).unwrap_or_default();
    received + life.mul_f64(0.45 + draw / 10.0)
}

async fn wait_until(clock: &Clock, moment: SystemTime) {
    tokio::time::sleep(SHORTEST_REFRESH).await;
    while let Ok(left) = moment.duration_since(clock.now()) {
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(LOOK_AT_CLOCK)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn refreshed_around_half_of_the_life() {
        let end = UNIX_EPOCH + Duration::from_secs(1000);
        assert_eq!(refresh_time(UNIX_EPOCH, end, 0.0), UNIX_EPOCH + Duration::from_secs(450));
        assert_eq!(refresh_time(UNIX_EPOCH, end, 0.5), UNIX_EPOCH + Duration::from_secs(500));
    }
}
