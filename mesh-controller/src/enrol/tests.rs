//! The hand-shake as a story, and what holds on every path through it.

use std::cell::Cell;

use proptest::prelude::*;

use super::*;

struct Says {
    capture: Cell<Evidence>,
    acknowledged: Cell<u64>,
}

impl Witness for Says {
    fn capture(&self, _: &NodeName, _: &WorkloadUid) -> Evidence {
        self.capture.get()
    }

    fn all_acknowledged(&self, generation: u64) -> bool {
        self.acknowledged.get() >= generation
    }
}

/// One workload, and a controller that compiles after each step that asks for it.
struct World {
    machine: Enrolments,
    wishes: BTreeMap<WorkloadUid, Wish>,
    says: Says,
    generation: u64,
    now: Instant,
}

impl World {
    fn new() -> Self {
        Self::restored(BTreeSet::new())
    }

    fn restored(published: BTreeSet<WorkloadUid>) -> Self {
        let mut world = Self {
            machine: Enrolments::restore(published),
            wishes: BTreeMap::new(),
            says: Says { capture: Cell::new(Evidence::NotCaptured), acknowledged: Cell::new(0) },
            generation: 1,
            now: Instant::now(),
        };
        world.wish(false);
        world
    }

    fn uid() -> WorkloadUid {
        WorkloadUid::new("pod")
    }

    fn wish(&mut self, wanted: bool) {
        self.wishes.insert(Self::uid(), Wish { node: NodeName::new("node-1"), wanted });
        // A label changes the compiled picture.
        self.generation += 1;
    }

    /// Whether the compiled picture is another one after it.
    fn step(&mut self) -> bool {
        let before = (self.hbone(), self.held());
        self.machine.step(&self.wishes, &self.says, self.generation, self.now);
        let changed = before != (self.hbone(), self.held());
        self.generation += u64::from(changed);
        changed
    }

    fn stage(&self) -> Option<Stage> {
        self.machine.stages.get(&Self::uid()).copied()
    }

    fn hbone(&self) -> bool {
        let wanted = self.wishes.get(&Self::uid()).is_some_and(|wish| wish.wanted);
        wanted && self.machine.enrolled().captured.contains(&Self::uid())
    }

    fn held(&self) -> bool {
        let wanted = self.wishes.get(&Self::uid()).is_some_and(|wish| wish.wanted);
        wanted || self.machine.enrolled().published.contains(&Self::uid())
    }
}

#[test]
fn enrolled_after_the_capture_is_reported() {
    let mut world = World::new();
    world.wish(true);
    assert!(!world.step());
    assert_eq!(world.stage(), Some(Stage::Capturing));
    for silence in [Evidence::NodeAway, Evidence::NotYet, Evidence::NotCaptured, Evidence::Refused] {
        world.says.capture.set(silence);
        assert!(!world.step());
        assert!(!world.hbone(), "{silence:?}");
    }
    world.says.capture.set(Evidence::Captured);
    assert!(world.step());
    assert!(world.hbone());
}

#[test]
fn a_lost_capture_never_means_plaintext() {
    let mut world = enrolled();
    for loss in [Evidence::NotCaptured, Evidence::Refused, Evidence::NodeAway, Evidence::NotYet] {
        world.says.capture.set(loss);
        assert!(!world.step());
        assert!(world.hbone(), "{loss:?}");
    }
}

#[test]
fn let_go_only_after_every_acknowledgement() {
    let mut world = enrolled();
    world.wish(false);
    let withdrawn = world.generation;
    assert!(!world.step(), "the label alone withdrew HBONE");
    assert!(!world.hbone() && world.held());
    world.says.acknowledged.set(withdrawn - 1);
    assert!(!world.step());
    assert!(world.held());
    world.says.acknowledged.set(withdrawn);
    assert!(world.step());
    assert!(!world.held());
    assert_eq!(world.stage(), Some(Stage::Releasing));
    world.says.capture.set(Evidence::NotYet);
    world.step();
    assert_eq!(world.stage(), Some(Stage::Releasing));
    world.says.capture.set(Evidence::NotCaptured);
    world.step();
    assert_eq!(world.stage(), None);
}

#[test]
fn a_silent_node_holds_a_withdrawal_up_for_ten_seconds_only() {
    let mut world = enrolled();
    world.wish(false);
    world.step();
    assert_eq!(world.machine.next_deadline(), Some(world.now + WITHDRAWAL_BOUND));
    world.now += WITHDRAWAL_BOUND - Duration::from_millis(1);
    world.step();
    assert!(world.held());
    world.now += Duration::from_millis(1);
    world.step();
    assert!(!world.held());
    assert_eq!(world.machine.next_deadline(), None);
}

#[test]
fn wanted_again_while_withdrawing_is_hbone_at_once() {
    let mut world = enrolled();
    world.wish(false);
    world.step();
    world.wish(true);
    world.step();
    assert!(world.hbone());
}

#[test]
fn wanted_again_while_releasing_waits_for_a_new_report() {
    let mut world = enrolled();
    world.wish(false);
    world.step();
    world.says.acknowledged.set(u64::MAX);
    world.step();
    world.wish(true);
    world.says.capture.set(Evidence::NotYet);
    world.step();
    world.step();
    assert_eq!(world.stage(), Some(Stage::Capturing));
    assert!(!world.hbone());
}

#[test]
fn never_captured_needs_no_withdrawal() {
    let mut world = World::new();
    world.wish(true);
    world.step();
    world.wish(false);
    assert!(!world.step());
    assert!(!world.held());
    assert_eq!(world.stage(), Some(Stage::Releasing));
}

#[test]
fn a_pod_that_is_gone_is_forgotten_in_any_stage() {
    let mut world = enrolled();
    world.wishes.clear();
    world.step();
    assert_eq!(world.stage(), None);
}

#[test]
fn after_a_restart_hbone_stays_hbone() {
    let mut world = World::restored([World::uid()].into());
    world.wish(true);
    world.says.capture.set(Evidence::NodeAway);
    assert!(!world.step());
    assert!(world.hbone());
}

#[test]
fn unlabelled_while_the_controller_was_away_is_withdrawn_in_order() {
    let mut world = World::restored([World::uid()].into());
    world.step();
    assert!(matches!(world.stage(), Some(Stage::Withdrawing { .. })));
    assert!(world.held());
}

fn enrolled() -> World {
    let mut world = World::new();
    world.wish(true);
    world.says.capture.set(Evidence::Captured);
    world.step();
    world.step();
    assert!(world.hbone());
    world
}

#[derive(Clone, Debug)]
enum Event {
    Wish(bool),
    Says(Evidence),
    AllAcknowledge,
    Later(u64),
    PodGone,
    Quiet,
}

fn event() -> impl Strategy<Value = Event> {
    let evidence = prop_oneof![
        Just(Evidence::NodeAway),
        Just(Evidence::NotYet),
        Just(Evidence::Captured),
        Just(Evidence::NotCaptured),
        Just(Evidence::Refused),
    ];
    prop_oneof![
        any::<bool>().prop_map(Event::Wish),
        evidence.prop_map(Event::Says),
        Just(Event::AllAcknowledge),
        (0..12u64).prop_map(Event::Later),
        Just(Event::PodGone),
        Just(Event::Quiet),
    ]
}

proptest! {
    /// HBONE begins only with a reported capture; while wanted it never ends; and the capture is never dropped while any node
    /// may still dial HBONE, except after the bound.
    #[test]
    fn holds_on_every_path(events in prop::collection::vec(event(), 1..80)) {
        let mut world = World::new();
        let mut withdrawn_at = None;
        for event in events {
            let (hbone_before, held_before) = (world.hbone(), world.held());
            match event {
                Event::Wish(wanted) => world.wish(wanted),
                Event::Says(evidence) => world.says.capture.set(evidence),
                Event::AllAcknowledge => world.says.acknowledged.set(world.generation),
                Event::Later(seconds) => world.now += Duration::from_secs(seconds),
                Event::PodGone => { world.wishes.clear(); world.generation += 1; }
                Event::Quiet => {}
            }
            if hbone_before && !world.hbone() {
                withdrawn_at = Some((world.generation, world.now));
            }
            let wanted = world.wishes.get(&World::uid()).is_some_and(|wish| wish.wanted);
            let stayed = hbone_before && wanted;
            let exists = !world.wishes.is_empty();
            let was_withdrawing = matches!(world.stage(), Some(Stage::Withdrawing { .. }));
            world.step();
            if world.hbone() && !hbone_before && !was_withdrawing {
                // Restored while wanted, or fresh: only on evidence.
                prop_assert!(world.says.capture.get() == Evidence::Captured || held_before);
            }
            prop_assert!(!stayed || world.hbone(), "a wanted HBONE workload stays HBONE");
            if held_before && !world.held() && exists && was_withdrawing {
                let (generation, at) = withdrawn_at.unwrap();
                prop_assert!(
                    world.says.acknowledged.get() >= generation || world.now >= at + WITHDRAWAL_BOUND
                );
            }
        }
    }
}
