//! The journeys of connections and requests.
