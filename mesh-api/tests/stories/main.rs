//! Stories: YAML goes in, resources and findings come out.
//!
//! One file per subject. Each test reads as: what is written, what it means.

#![allow(clippy::expect_used, reason = "a test that lacks what it asked for has failed")]

mod authz;
mod cluster;
mod codes;
mod decisions;
mod destinations;
mod endpoints;
mod enrolment;
mod files;
mod gateway;
mod mtls;
mod network_policy;
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
