//! Tells code from comments and literals, line by line, so that a rule about code does not trip over prose.
//!
//! Not a parser: it knows comments, strings, raw strings, and characters as opposed to lifetimes. That is enough to
//! find a keyword.

/// One line of a Rust file, taken apart.
#[derive(Default, Debug)]
pub struct Line {
    /// The code, without comments and without what literals hold.
    pub code: String,
    /// The text of comments.
    pub comment: String,
}

/// Where the reader stands between two characters.
enum State {
    Code,
    LineComment,
    /// Block comments nest.
    BlockComment(usize),
    Text,
    /// A raw string ends at a quote with this many `#`.
    RawText(usize),
}

/// The lines of `source`.
pub fn lines(source: &str) -> Vec<Line> {
    let chars: Vec<char> = source.chars().collect();
    let mut lines = vec![Line::default()];
    let mut state = State::Code;
    let mut at = 0;
    while let Some(&now) = chars.get(at) {
        let next = chars.get(at + 1).copied();
        let mut took = 1;
        if now == '\n' {
            lines.push(Line::default());
            if matches!(state, State::LineComment) {
                state = State::Code;
            }
            at += 1;
            continue;
        }
        let Some(line) = lines.last_mut() else { break };
        match state {
            State::Code => match (now, next) {
                ('/', Some('/')) => state = State::LineComment,
                ('/', Some('*')) => {
                    state = State::BlockComment(1);
                    took = 2;
                }
                ('"', _) => state = State::Text,
                ('r', _) if raw_start(&chars, at).is_some() => {
                    let hashes = raw_start(&chars, at).unwrap_or(0);
                    state = State::RawText(hashes);
                    took = hashes + 2;
                }
                ('\'', _) => took = character(&chars, at),
                _ => line.code.push(now),
            },
            State::LineComment => line.comment.push(now),
            State::BlockComment(depth) => match (now, next) {
                ('*', Some('/')) => {
                    state = if depth == 1 { State::Code } else { State::BlockComment(depth - 1) };
                    took = 2;
                }
                ('/', Some('*')) => {
                    state = State::BlockComment(depth + 1);
                    took = 2;
                }
                _ => line.comment.push(now),
            },
            State::Text => match now {
                // An escaped newline still ends a line.
                '\\' if next != Some('\n') => took = 2,
                '"' => state = State::Code,
                _ => {}
            },
            State::RawText(hashes) => {
                if now == '"' && (1..=hashes).all(|ahead| chars.get(at + ahead) == Some(&'#')) {
                    state = State::Code;
                    took = hashes + 1;
                }
            }
        }
        at += took;
    }
    lines
}

/// The number of `#` if a raw string starts at `at`, where an `r` stands that does not end another word.
fn raw_start(chars: &[char], at: usize) -> Option<usize> {
    let before = at.checked_sub(1).and_then(|index| chars.get(index));
    if before.is_some_and(|c| (c.is_alphanumeric() || *c == '_') && *c != 'b' && *c != 'c') {
        return None;
    }
    let hashes = chars.iter().skip(at + 1).take_while(|c| **c == '#').count();
    (chars.get(at + 1 + hashes) == Some(&'"')).then_some(hashes)
}

/// How many characters the literal at the quote takes; a lifetime takes only its quote.
fn character(chars: &[char], at: usize) -> usize {
    match (chars.get(at + 1), chars.get(at + 2)) {
        (Some('\\'), _) => 3 + chars.iter().skip(at + 3).take_while(|c| **c != '\'').count() + 1,
        (Some(_), Some('\'')) => 3,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(source: &str) -> String {
        lines(source).iter().map(|line| line.code.trim()).collect::<Vec<_>>().join("|")
    }

    #[test]
    fn comments_and_literals_are_not_code() {
        assert_eq!(code("a // unsafe\nb"), "a|b");
        assert_eq!(code("a /* unsafe /* x */ unsafe */ b"), "a  b");
        assert_eq!(code("a \"unsafe \\\" unsafe\" b"), "a  b");
        assert_eq!(code("a r#\"unsafe \" unsafe\"# b"), "a  b");
        assert_eq!(code("for r in x"), "for r in x");
        assert_eq!(code("a '\"' b '\\'' c"), "a  b  c");
        assert_eq!(code("fn f<'a>(x: &'a str)"), "fn f<a>(x: &a str)");
        assert_eq!(code("\"one\\\ntwo\" b"), "|b");
    }

    #[test]
    fn comments_are_kept_apart() {
        assert_eq!(lines("a // SAFETY: b")[0].comment.trim_start_matches('/').trim(), "SAFETY: b");
    }
}
