//! `Debug` of messages that carry secrets: what a log may see of them.

use std::fmt;

use crate::v1::GrantReply;

impl fmt::Debug for GrantReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrantReply")
            .field("inspect_address", &self.inspect_address)
            .field("node_identity", &self.node_identity)
            .finish_non_exhaustive()
    }
}
