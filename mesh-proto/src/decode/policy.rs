//! Authorization policies.

use mesh_model::authz::{Action, AuthzPolicy, Operation, Rule, Source};

use super::{
    error::{DecodeError, Located, list, required},
    scalar::{glob, known, network, object_key, port},
};
use crate::v1;

pub(super) fn policy(wire: v1::AuthzPolicy) -> Result<AuthzPolicy, DecodeError> {
    Ok(AuthzPolicy {
        key: object_key(required("key", wire.key)?).at("key")?,
        action: match known("AuthzAction", wire.action).at("action")? {
            v1::AuthzAction::Allow => Action::Allow,
            v1::AuthzAction::Deny => Action::Deny,
        },
        rules: list("rules", wire.rules, rule)?,
    })
}

fn rule(wire: v1::AuthzRule) -> Result<Rule, DecodeError> {
    Ok(Rule {
        from: list("from", wire.from, source)?,
        to: list("to", wire.to, operation)?,
        unsupported: wire.unsupported,
    })
}

fn source(wire: v1::AuthzSource) -> Result<Source, DecodeError> {
    Ok(Source {
        principals: list("principals", wire.principals, glob)?,
        not_principals: list("not_principals", wire.not_principals, glob)?,
        namespaces: list("namespaces", wire.namespaces, glob)?,
        not_namespaces: list("not_namespaces", wire.not_namespaces, glob)?,
        ip_blocks: list("ip_blocks", wire.ip_blocks, network)?,
        not_ip_blocks: list("not_ip_blocks", wire.not_ip_blocks, network)?,
    })
}

fn operation(wire: v1::AuthzOperation) -> Result<Operation, DecodeError> {
    Ok(Operation {
        hosts: list("hosts", wire.hosts, glob)?,
        not_hosts: list("not_hosts", wire.not_hosts, glob)?,
        ports: list("ports", wire.ports, port)?,
        not_ports: list("not_ports", wire.not_ports, port)?,
        methods: list("methods", wire.methods, glob)?,
        not_methods: list("not_methods", wire.not_methods, glob)?,
        paths: list("paths", wire.paths, glob)?,
        not_paths: list("not_paths", wire.not_paths, glob)?,
    })
}
