//! The waits that hyper does not bound.

use super::*;

const LONGEST: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(60));

#[test]
fn a_slow_head_is_dropped_and_silence_is_ended_later() {
    let shared = Shared::default();
    let mut clock = Clock { since: Instant::now(), read: 0 };
    assert!(matches!(clock.look(&shared, 0, LONGEST), Clocked::Good));
    std::thread::sleep(Duration::from_millis(25));
    assert!(matches!(clock.look(&shared, 0, LONGEST), Clocked::Good), "silence may last longer than a head");
    assert!(matches!(clock.look(&shared, 7, LONGEST), Clocked::SlowHead));
    std::thread::sleep(Duration::from_millis(40));
    assert!(matches!(clock.look(&shared, 0, LONGEST), Clocked::Idle));
}

#[test]
fn a_request_under_way_stops_the_clock_and_its_end_starts_it_anew() {
    let shared = Rc::<Shared>::default();
    let mut clock = Clock { since: Instant::now(), read: 0 };
    let active = Active::begin(&shared);
    std::thread::sleep(Duration::from_millis(70));
    assert!(matches!(clock.look(&shared, 100, LONGEST), Clocked::Good));
    drop(active);
    assert!(matches!(clock.look(&shared, 100, LONGEST), Clocked::Good));
    assert!(matches!(clock.look(&shared, 100, LONGEST), Clocked::Good));
}
