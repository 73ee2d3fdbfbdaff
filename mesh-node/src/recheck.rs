//! Ends connections that a new snapshot no longer allows.
