//! Watches, compiles, pushes, signs: arguments -> `Config` -> `app::run`.
mod ca;
mod files;
mod placement;
mod sign;
mod token;
fn main() {}
