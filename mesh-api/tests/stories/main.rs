//! Stories: YAML goes in, resources and findings come out.
//!
//! One file per subject. Each test reads as: what is written, what it means.

mod authz;
mod codes;
mod destinations;
mod enrolment;
mod files;
mod mtls;
mod pods;
mod properties;
mod reading;
mod routes;
mod samples;
mod services;
mod settings;
mod world;
