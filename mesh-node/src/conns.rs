//! The open connections: counted, listed, re-checked, closed.
