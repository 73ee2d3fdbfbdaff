//! The chart is embedded (`src/chart.rs`): a file that is added to it must be seen, too.

fn main() {
    // cargo's own protocol; this is no output for people.
    #[allow(clippy::print_stdout, reason = "the only way to talk to cargo")]
    {
        println!("cargo:rerun-if-changed=../helm/tulle");
    }
}
