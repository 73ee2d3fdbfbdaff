//! The decisions of [`crate::decide`] and [`crate::authz`] with their reasons, for people: `meshctl route check`, `authz check`.
//!
//! Invariant: the verdict in here comes from the very functions that the data path calls; this file only adds words.
