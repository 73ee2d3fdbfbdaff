//! Picks, pools and dials.
