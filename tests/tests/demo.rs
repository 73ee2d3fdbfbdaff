//! The demo, told to nobody: each of its steps checks what it claims.

use anyhow::Result;
use mesh_tests::demo::{self, Options};

#[test]
fn the_demo_does_what_it_claims_and_leaves_nothing() -> Result<()> {
    demo::run(Options::default())
}
