//! Rules about the text of a file: its header, its length, words that must not be committed.

use super::{File, Finding};

/// Longer files are read by nobody; they are divided, or stand in [`LONG`].
const LINES: usize = 500;

/// Files that are longer for a reason: path and reason.
const LONG: &[(&str, &str)] = &[];

/// Notes to oneself. Split, so that this file does not break its own rule.
const NOTES: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME")];

/// What exists on one machine only: home folders, work folders, mirrors of registries.
const MACHINES: &[&str] = &[
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
    concat!("/wo", "rk/"),
    concat!("/Us", "ers/"),
    concat!("arti", "factory"),
    concat!("index.crates", ".io"),
];

/// The one registry that a lock file may name.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// What is wrong with this file.
pub fn check(file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    if file.is_rust() && !file.text.starts_with("//!") {
        findings.push(file.finding(1, "does not start with `//!`: say what the file is for"));
    }
    let count = file.text.lines().count();
    if file.is_rust() && count > LINES && !LONG.iter().any(|(path, _)| *path == file.path) {
        findings.push(
            file.finding(count, format!("{count} lines, over {LINES}: divide it, or list it with a reason")),
        );
    }
    let lock = file.path.ends_with("Cargo.lock");
    for (index, line) in file.text.lines().enumerate() {
        if lock {
            if line.starts_with("source = ") && !line.contains(REGISTRY) {
                findings.push(file.finding(index + 1, "a source other than crates.io"));
            }
            continue;
        }
        for note in NOTES.iter().filter(|note| has_word(line, note)) {
            findings.push(file.finding(index + 1, format!("`{note}`: do it, or open an issue")));
        }
        for machine in MACHINES.iter().filter(|machine| names_machine(line, machine)) {
            findings.push(file.finding(index + 1, format!("`{machine}` exists on one machine only")));
        }
    }
    findings
}

/// Exceptions that are no longer needed.
pub fn stale_exceptions(files: &[File]) -> Vec<Finding> {
    stale(LONG, files)
}

fn stale(long: &[(&str, &str)], files: &[File]) -> Vec<Finding> {
    let needed = |path: &str| files.iter().any(|file| file.path == path && file.text.lines().count() > LINES);
    long.iter()
        .filter(|(path, _)| !needed(path))
        .map(|(path, _)| Finding {
            place: (*path).to_owned(),
            what: format!("not over {LINES} lines any more: take it off the list in xtask/src/tidy/text.rs"),
        })
        .collect()
}

fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let inside = |c: char| c.is_alphanumeric() || c == '_';
        !line[..at].ends_with(inside) && !line[at + word.len()..].starts_with(inside)
    })
}

/// A path counts where it starts: `/x/` inside `a/x/` is part of another path.
fn names_machine(line: &str, machine: &str) -> bool {
    line.match_indices(machine).any(|(at, _)| {
        let inside = |c: char| c.is_alphanumeric() || "._-}~*".contains(c);
        !machine.starts_with('/') || !line[..at].ends_with(inside)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::rust;

    fn findings(path: &str, text: &str) -> usize {
        check(&rust(path, text)).len()
    }

    #[test]
    fn a_rust_file_says_what_it_is_for() {
        assert_eq!(findings("a.rs", "fn main() {}"), 1);
        assert_eq!(findings("a.rs", "//! Why.\nfn main() {}"), 0);
        assert_eq!(findings("a.toml", "x = 1"), 0);
    }

    #[test]
    fn a_long_file_is_found() {
        assert_eq!(findings("a.rs", &format!("//! Why.\n{}", "\n".repeat(LINES))), 1);
        assert_eq!(findings("a.rs", &format!("//! Why.\n{}", "\n".repeat(LINES - 1))), 0);
    }

    #[test]
    fn an_exception_that_is_not_needed_is_found() {
        let long = [("a.rs", "reason")];
        assert_eq!(stale(&long, &[rust("a.rs", &"\n".repeat(LINES + 1))]), []);
        assert_eq!(stale(&long, &[rust("a.rs", "//! Why.")]).len(), 1);
        assert_eq!(stale(&long, &[]).len(), 1);
    }

    #[test]
    fn notes_to_oneself_are_found() {
        for note in NOTES {
            assert_eq!(findings("a.md", &format!("# {note}: later")), 1);
            assert_eq!(findings("a.md", &format!("x{note}x")), 0);
        }
    }

    #[test]
    fn paths_and_mirrors_of_one_machine_are_found() {
        for machine in MACHINES {
            assert_eq!(findings("a.md", &format!("see {machine}x")), 1, "{machine}");
        }
        assert_eq!(findings("a.md", concat!("target/wo", "rk/x")), 0);
    }

    #[test]
    fn a_lock_file_names_one_registry() {
        assert_eq!(findings("Cargo.lock", &format!("source = \"{REGISTRY}\"")), 0);
        assert_eq!(findings("Cargo.lock", "source = \"registry+https://mirror.example/index\""), 1);
    }
}
