//! `unsafe` stands in few rooms, and each use says why it is sound.

use super::mask::{self, Line};
use super::{File, Finding};

/// Where `unsafe` may stand, and why it must.
const ROOMS: &[(&str, &str)] = &[
    ("mesh-ebpf/", "helpers of the kernel and raw contexts"),
    ("mesh-abi/", "marker trait that lets aya copy the types of the maps"),
    ("mesh-node/src/bpf/", "attributes and links that aya does not wrap"),
    ("mesh-node/src/sys.rs", "the few syscalls that are neither in std nor in nix"),
    ("mesh-node/src/sys/", "the few syscalls that are neither in std nor in nix"),
    ("tests/src/sys.rs", "pre_exec: a child enters its network namespace between fork and exec"),
];

/// A comment may stand above a statement of several lines; further up it belongs to something else.
const REACH: usize = 6;

/// Uses of `unsafe` outside its rooms, or without a reason.
pub fn check(file: &File) -> Vec<Finding> {
    let lines = mask::lines(&file.text);
    let room = ROOMS.iter().any(|(room, _)| file.path.starts_with(room));
    let mut findings = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let Some(kind) = kind_of(&line.code) else { continue };
        if !room {
            findings.push(
                file.finding(index + 1, "`unsafe` outside its rooms (xtask/src/tidy/unsafety.rs lists them)"),
            );
        } else if kind == Kind::NeedsReason && !explained(&lines, index) {
            findings.push(file.finding(index + 1, "`unsafe` without a `SAFETY:` comment directly above"));
        }
    }
    findings
}

#[derive(PartialEq)]
enum Kind {
    /// A block or an impl: here somebody promises something.
    NeedsReason,
    /// `unsafe fn`, `unsafe trait`, `unsafe extern`: the promise is made by the caller.
    Declares,
}

fn kind_of(code: &str) -> Option<Kind> {
    let mut rest = code;
    while let Some(at) = rest.find("unsafe") {
        let (before, after) = (&rest[..at], &rest[at + "unsafe".len()..]);
        let word = |c: char| c.is_alphanumeric() || c == '_';
        // `unsafe(no_mangle)` is an attribute: it names a symbol and runs nothing.
        let whole = !before.ends_with(word) && !after.starts_with(word) && !after.starts_with('(');
        if whole {
            let declares = ["fn", "trait", "extern"].iter().any(|word| after.trim_start().starts_with(word));
            return Some(if declares { Kind::Declares } else { Kind::NeedsReason });
        }
        rest = after;
    }
    None
}

/// Whether a `SAFETY:` comment stands on this line or above its statement (attributes may stand between).
fn explained(lines: &[Line], index: usize) -> bool {
    if lines[index].comment.contains("SAFETY:") {
        return true;
    }
    for line in lines[..index].iter().rev().take(REACH) {
        let code = line.code.trim();
        if line.comment.contains("SAFETY:") {
            return true;
        }
        let blank = code.is_empty() && line.comment.is_empty();
        if blank || code.ends_with([';', '{', '}']) {
            return false;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::rust;

    #[test]
    fn unsafe_outside_its_rooms_is_found() {
        let text = "//! x\n// SAFETY: none\nunsafe { f() }\n";
        assert_eq!(check(&rust("mesh-model/src/lib.rs", text)).len(), 1);
        assert!(check(&rust("mesh-node/src/bpf/hooks.rs", text)).is_empty());
    }

    #[test]
    fn each_use_needs_its_own_reason() {
        let findings = |text: &str| check(&rust("mesh-ebpf/src/main.rs", text)).len();
        assert_eq!(findings("unsafe { f() }"), 1);
        assert_eq!(findings("// SAFETY: ok\nunsafe { f() };\nunsafe { g() };"), 1);
        assert_eq!(findings("// SAFETY: ok\nlet x =\n    unsafe { f() };"), 0);
        assert_eq!(findings("// SAFETY: ok\n\nunsafe { f() };"), 1);
        assert_eq!(findings("// SAFETY: ok,\n// on two lines\n#[inline]\nunsafe impl A for B {}"), 0);
        assert_eq!(findings("unsafe impl A for B {}"), 1);
        assert_eq!(findings("let x = unsafe { f() }; // SAFETY: ok"), 0);
    }

    #[test]
    fn attributes_prose_and_declarations_need_none() {
        let text = "//! unsafe\n#[unsafe(no_mangle)]\nunsafe fn f() {}\nlet unsafe_code = \"unsafe\";";
        assert!(check(&rust("mesh-ebpf/src/main.rs", text)).is_empty());
    }
}
