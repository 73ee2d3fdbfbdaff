//! The inspection API: what this node has, for `meshctl`, against a grant of the controller.
