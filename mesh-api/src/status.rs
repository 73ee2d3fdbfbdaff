//! What routes of the Gateway API are told about themselves: one entry for each parent that is the mesh's.
//!
//! Pure: [`mod@crate::compile`] makes a [`RouteStatus`], the controller writes it. Invariant: entries that other controllers wrote are never
//! touched, and what is there already is not written again.

use serde_json::{Value, json};

/// The name under which the mesh writes status.
pub const CONTROLLER_NAME: &str = "tulle.dev/mesh-controller";

/// The most entries that the API takes.
const MAX_PARENTS: usize = 32;

/// What the mesh says of one route.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RouteStatus {
    /// Its parents that are Services, in the order of the route. Empty: the route is none of the mesh's.
    pub parents: Vec<ParentStatus>,
}

/// What the mesh says of a route at one parent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ParentStatus {
    /// The `parentRef` as the route has it, absent fields left out.
    pub parent: Value,
    /// At least `Accepted` and `ResolvedRefs`, each type once.
    pub conditions: Vec<Condition>,
}

/// One condition; the time of its last transition is the writer's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Condition {
    /// `Accepted`.
    pub kind: ConditionKind,
    /// Whether it holds.
    pub holds: bool,
    /// One word.
    pub reason: &'static str,
    /// A sentence.
    pub message: String,
    /// The generation of the route that was looked at; 0 if it has none.
    pub observed_generation: i64,
}

/// The conditions of a route.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ConditionKind {
    /// The parent takes the route.
    Accepted,
    /// Every backend can be used.
    ResolvedRefs,
}

impl ConditionKind {
    /// As written in `type`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::ResolvedRefs => "ResolvedRefs",
        }
    }
}

impl RouteStatus {
    /// The `status` to be written, given the one the object has. None: it says this already.
    ///
    /// `now` is RFC 3339; a condition whose truth did not change keeps the time it has.
    pub fn merged(&self, present: Option<&Value>, now: &str) -> Option<Value> {
        let written: &[Value] = present
            .and_then(|status| status.get("parents"))
            .and_then(Value::as_array)
            .map_or(&[], Vec::as_slice);
        let is_ours =
            |entry: &Value| entry.get("controllerName").and_then(Value::as_str) == Some(CONTROLLER_NAME);
        let others = written.iter().filter(|entry| !is_ours(entry)).cloned();
        let own = self.parents.iter().map(|parent| {
            let before =
                written.iter().find(|entry| is_ours(entry) && entry.get("parentRef") == Some(&parent.parent));
            parent.entry(before, now)
        });
        let parents: Vec<Value> = others.chain(own).take(MAX_PARENTS).collect();
        (parents != written).then(|| json!({ "parents": parents }))
    }
}

impl ParentStatus {
    fn entry(&self, before: Option<&Value>, now: &str) -> Value {
        let earlier: &[Value] = before
            .and_then(|entry| entry.get("conditions"))
            .and_then(Value::as_array)
            .map_or(&[], Vec::as_slice);
        let conditions: Vec<Value> =
            self.conditions.iter().map(|condition| condition.entry(earlier, now)).collect();
        json!({ "parentRef": self.parent, "controllerName": CONTROLLER_NAME, "conditions": conditions })
    }
}

impl Condition {
    fn entry(&self, earlier: &[Value], now: &str) -> Value {
        let text = |entry: &Value, name: &str| entry.get(name).and_then(Value::as_str).map(str::to_owned);
        let (kind, status) = (self.kind.as_str(), if self.holds { "True" } else { "False" });
        let same = earlier.iter().find(|entry| {
            text(entry, "type").as_deref() == Some(kind) && text(entry, "status").as_deref() == Some(status)
        });
        let since = same.and_then(|entry| text(entry, "lastTransitionTime"));
        json!({
            "type": kind,
            "status": status,
            "reason": self.reason,
            "message": self.message,
            "observedGeneration": self.observed_generation,
            "lastTransitionTime": since.unwrap_or_else(|| now.to_owned()),
        })
    }
}
