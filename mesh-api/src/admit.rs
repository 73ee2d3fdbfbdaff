//! Semantic validation, with field paths.
