//! Accepts captured connections and says who called whom.
