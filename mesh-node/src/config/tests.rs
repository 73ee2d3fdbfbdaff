//! What arguments become.

use std::time::Duration;

use clap::Parser;

use super::*;

const ENOUGH: &[&str] = &[
    "mesh-node",
    "--node-name",
    "n1",
    "--controller",
    "https://127.0.0.1:15012",
    "--root-cert",
    "root.crt",
    "--token-file",
    "token",
];

fn config(more: &[&str]) -> Result<Config, ConfigError> {
    let arguments = Arguments::try_parse_from(ENOUGH.iter().chain(more)).expect("arguments parse");
    arguments.run.into_config()
}

#[test]
fn the_instance_is_the_node_unless_named() {
    assert_eq!(config(&[]).unwrap().instance, "n1");
    assert_eq!(config(&["--instance", "tl-w-n1"]).unwrap().instance, "tl-w-n1");
    assert_eq!(config(&["--instance", "../x"]).unwrap_err(), ConfigError::Instance("../x".into()));
}

#[test]
fn limits_are_set_by_name_with_units() {
    let limits =
        config(&["--limit", "tls_handshake=250ms", "--limit", "header_bytes=32KiB,keepalive_probes=3"])
            .unwrap()
            .limits;
    assert_eq!(limits.tls_handshake, Duration::from_millis(250));
    assert_eq!(limits.header_bytes, 32 * 1024);
    assert_eq!(limits.keepalive_probes, 3);
}

#[test]
fn a_wrong_limit_says_what_was_expected() {
    let message = config(&["--limit", "tls_handshake=10"]).unwrap_err().to_string();
    assert_eq!(message, "--limit tls_handshake=10: \"10\" is not a duration such as 250ms, 10s, 5m, 1h");
    let message = config(&["--limit", "nonsense=1"]).unwrap_err().to_string();
    assert!(
        message.starts_with("--limit nonsense=1: there is no limit \"nonsense\"; known: accept_queue_wait"),
        "{message}"
    );
}

#[test]
fn a_plaintext_controller_is_refused() {
    let arguments =
        Arguments::try_parse_from(["mesh-node", "--node-name", "n", "--controller", "http://127.0.0.1:1"])
            .unwrap();
    assert!(matches!(arguments.run.into_config(), Err(ConfigError::Controller(_))));
}

#[test]
fn a_missing_setting_names_its_flag_and_variable() {
    let arguments = Arguments::try_parse_from(["mesh-node"]).unwrap();
    let message = arguments.run.into_config().unwrap_err().to_string();
    assert_eq!(message, "--node-name (or TULLE_NODE_NAME) is required");
}
