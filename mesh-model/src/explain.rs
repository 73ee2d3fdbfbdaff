//! The decisions of [`crate::decide`] and [`crate::authz`] with their reasons, for people: `meshctl route check`, `authz check`.
//!
//! Invariant: the verdict in here comes from the very functions that the data path calls; this room only adds words.

use std::fmt;

mod authz;
mod route;
#[cfg(test)]
mod tests;

pub use authz::{AuthzExplanation, explain_authz};
pub use route::{RouteExplanation, RouteVerdict, Share, To, explain_route};

/// One thing that was looked at on the way to a verdict.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// What: `AuthorizationPolicy shop/allow rules[0]`.
    pub subject: String,
    /// How it turned out.
    pub outcome: Outcome,
    /// Why. May be empty for a match.
    pub reason: String,
}

/// How a step turned out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// A fact, no test.
    Fact,
    /// It matched.
    Match,
    /// It did not.
    NoMatch,
    /// It was not tried, for the verdict was already there.
    NotReached,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fact => "fact",
            Self::Match => "match",
            Self::NoMatch => "no match",
            Self::NotReached => "not reached",
        })
    }
}

impl Step {
    fn fact(subject: impl fmt::Display, reason: impl Into<String>) -> Self {
        Self { subject: subject.to_string(), outcome: Outcome::Fact, reason: reason.into() }
    }
}
