//! The per-node agent and proxy, as a library so that tests reach its rooms.

pub mod bpf;
pub mod check;
pub mod sys;
