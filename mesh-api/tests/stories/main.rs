//! Stories: YAML goes in, resources and findings come out.
//!
//! One file per subject. Each test reads as: what is written, what it means.

#![allow(clippy::expect_used, reason = "a test that lacks what it asked for has failed")]

mod authz;
mod codes;
mod decisions;
mod destinations;
mod enrolment;
mod files;
mod mtls;
mod pods;
mod properties;
mod reading;
mod routes;
mod samples;
mod schema;
mod services;
mod settings;
mod status;
mod world;
