//! What is an identity and what is not.

use super::*;

#[test]
fn an_identity_is_read_and_written() {
    let text = "spiffe://cluster.local/ns/shop/sa/web";
    let identity = Identity::parse(text).expect("an identity");
    assert_eq!(identity.to_string(), text);
    assert_eq!(identity.principal(), "cluster.local/ns/shop/sa/web");
}

#[test]
fn anything_else_is_none() {
    for text in [
        "",
        "cluster.local/ns/shop/sa/web",
        "https://cluster.local/ns/shop/sa/web",
        "SPIFFE://cluster.local/ns/shop/sa/web",
        "spiffe:///ns/shop/sa/web",
        "spiffe://cluster.local/ns//sa/web",
        "spiffe://cluster.local/ns/shop/sa/",
        "spiffe://cluster.local/ns/shop/sa/web/",
        "spiffe://cluster.local/ns/shop/sa/web/x",
        "spiffe://cluster.local/sa/web/ns/shop",
        "spiffe://cluster.local/tulle/node/a",
    ] {
        assert_eq!(Identity::parse(text), Err(NotAnIdentity { text: text.to_owned() }));
    }
}
