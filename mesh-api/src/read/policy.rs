//! AuthorizationPolicy -> action and rules.
//!
//! Bias: closed. A part that is not implemented makes an ALLOW rule match nothing and a DENY rule match more.

use ipnet::IpNet;
use mesh_model::{
    authz::{Action, Operation, Rule, Source},
    identity::TrustDomain,
    name::Namespace,
    text::Glob,
};

use super::value;
use crate::{
    diagnostic::{Code, Findings},
    object::authorization_policy::{self as written, AuthorizationPolicySpec},
};

/// Istio reads this trust domain in a principal as the mesh's own, whatever that is called.
const LOCAL_TRUST_DOMAIN: &str = "cluster.local";

/// At most this many `serviceAccounts` in one source, as Istio has it.
const MAX_SERVICE_ACCOUNTS: usize = 16;

/// What a policy does.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Verdict {
    /// It decides.
    Decides(Action, Vec<Rule>),
    /// AUDIT: it never does.
    Never,
}

/// Reads the policy of `namespace`.
pub(crate) fn read(
    spec: &AuthorizationPolicySpec,
    namespace: &Namespace,
    trust_domain: &TrustDomain,
    findings: &mut Findings<'_>,
) -> Verdict {
    let reader = Reader { namespace, trust_domain };
    if spec.target_ref.is_some() || !spec.target_refs.is_empty() {
        let field = if spec.target_ref.is_some() { "spec.targetRef" } else { "spec.targetRefs" };
        let message = "policies on targets are not implemented yet: the policy fails closed";
        findings.add(Code::Unsupported, field, message);
    }
    let action = spec.action.unwrap_or(written::Action::Allow);
    if spec.provider.is_some() && action != written::Action::Custom {
        findings.add(Code::Invalid, "spec.provider", "a provider is only for CUSTOM");
    }
    if matches!(action, written::Action::Deny | written::Action::Custom) && spec.rules.is_empty() {
        findings.add(Code::Invalid, "spec.rules", "DENY and CUSTOM without rules never match: add a rule");
    }
    let rules = spec.rules.iter().enumerate();
    let rules =
        rules.map(|(number, rule)| reader.rule(rule, &format!("spec.rules[{number}]"), findings)).collect();
    match action {
        written::Action::Allow => Verdict::Decides(Action::Allow, rules),
        written::Action::Deny => Verdict::Decides(Action::Deny, rules),
        written::Action::Custom => {
            let message = "external authorizers are not implemented yet: what the rules match is denied";
            findings.add(Code::NotImplemented, "spec.action", message);
            Verdict::Decides(Action::Deny, rules)
        }
        written::Action::Audit => {
            findings.add(
                Code::NeverDecides,
                "spec.action",
                "AUDIT never decides, and nothing is logged for it yet",
            );
            Verdict::Never
        }
    }
}

struct Reader<'a> {
    namespace: &'a Namespace,
    trust_domain: &'a TrustDomain,
}

impl Reader<'_> {
    fn rule(&self, rule: &written::Rule, at: &str, findings: &mut Findings<'_>) -> Rule {
        let mut unsupported = false;
        if !rule.when.is_empty() {
            unsupported = true;
            unsupported_part(&format!("{at}.when"), "when", findings);
        }
        let mut from = Vec::new();
        for (number, entry) in rule.from.iter().enumerate() {
            let at = format!("{at}.from[{number}].source");
            if entry.source == written::Source::default() {
                findings.add(
                    Code::Invalid,
                    &*at,
                    "an empty source would match everybody: name one, or leave out `from`",
                );
            }
            unsupported |= name_unsupported(&entry.source, &at, findings);
            from.push(self.source(&entry.source, &at, findings));
        }
        let mut to = Vec::new();
        for (number, entry) in rule.to.iter().enumerate() {
            let at = format!("{at}.to[{number}].operation");
            if entry.operation == written::Operation::default() {
                findings.add(
                    Code::Invalid,
                    &*at,
                    "an empty operation would match all: name one, or leave out `to`",
                );
            }
            let operation = &entry.operation;
            if operation.paths.iter().chain(&operation.not_paths).any(|path| path.contains('{')) {
                unsupported = true;
                unsupported_part(&at, "a path template ({*}, {**})", findings);
            }
            to.push(self::operation(operation, &at, findings));
        }
        Rule { from, to, unsupported }
    }

    fn source(&self, from: &written::Source, at: &str, findings: &mut Findings<'_>) -> Source {
        let mut principals = self.principals(&from.principals, at, "principals", findings);
        let mut not_principals = self.principals(&from.not_principals, at, "notPrincipals", findings);
        let sets_accounts = !from.service_accounts.is_empty() || !from.not_service_accounts.is_empty();
        let sets_others = [&from.principals, &from.not_principals, &from.namespaces, &from.not_namespaces]
            .iter()
            .any(|list| !list.is_empty());
        if sets_accounts && sets_others {
            let message = "serviceAccounts cannot be combined with principals or namespaces";
            findings.add(Code::Invalid, format!("{at}.serviceAccounts"), message);
        }
        principals.extend(self.accounts(&from.service_accounts, at, "serviceAccounts", findings));
        not_principals.extend(self.accounts(&from.not_service_accounts, at, "notServiceAccounts", findings));
        Source {
            principals,
            not_principals,
            namespaces: globs(&from.namespaces, at, "namespaces", findings),
            not_namespaces: globs(&from.not_namespaces, at, "notNamespaces", findings),
            ip_blocks: networks(&from.ip_blocks, at, "ipBlocks", findings),
            not_ip_blocks: networks(&from.not_ip_blocks, at, "notIpBlocks", findings),
        }
    }

    fn principals(&self, list: &[String], at: &str, name: &str, findings: &mut Findings<'_>) -> Vec<Glob> {
        for (number, text) in list.iter().enumerate().filter(|(_, text)| text.starts_with("spiffe://")) {
            let message = format!("{text:?} never matches: a principal is written without spiffe://");
            findings.add(Code::Invalid, format!("{at}.{name}[{number}]"), message);
        }
        let mut globs = globs(list, at, name, findings);
        let own = self.trust_domain.as_str();
        if own != LOCAL_TRUST_DOMAIN {
            let aliases =
                list.iter().filter_map(|text| text.strip_prefix(LOCAL_TRUST_DOMAIN)?.strip_prefix('/'));
            globs.extend(aliases.map(|rest| Glob::parse(&format!("{own}/{rest}"))));
        }
        globs
    }

    /// `ns/sa` or `sa`, in whatever trust domain, as Istio has it.
    fn accounts(&self, list: &[String], at: &str, name: &str, findings: &mut Findings<'_>) -> Vec<Glob> {
        if list.len() > MAX_SERVICE_ACCOUNTS {
            let message = format!("at most {MAX_SERVICE_ACCOUNTS} service accounts may be listed");
            findings.add(Code::Invalid, format!("{at}.{name}"), message);
        }
        let mut globs = Vec::new();
        for (number, text) in list.iter().enumerate() {
            let (namespace, account) = text.split_once('/').unwrap_or((self.namespace.as_str(), text));
            if value::is_dns_label(namespace) && value::is_dns_name(account) {
                globs.push(Glob::Suffix(format!("/ns/{namespace}/sa/{account}")));
            } else {
                let message = format!("{text:?} is neither `namespace/account` nor `account` (no wildcards)");
                findings.add(Code::Invalid, format!("{at}.{name}[{number}]"), message);
            }
        }
        globs
    }
}

fn name_unsupported(from: &written::Source, at: &str, findings: &mut Findings<'_>) -> bool {
    let parts = [
        ("requestPrincipals", &from.request_principals),
        ("notRequestPrincipals", &from.not_request_principals),
        ("remoteIpBlocks", &from.remote_ip_blocks),
        ("notRemoteIpBlocks", &from.not_remote_ip_blocks),
        ("trustDomains", &from.trust_domains),
        ("notTrustDomains", &from.not_trust_domains),
    ];
    let mut any = false;
    for (name, _) in parts.iter().filter(|(_, list)| !list.is_empty()) {
        any = true;
        unsupported_part(&format!("{at}.{name}"), name, findings);
    }
    any
}

fn unsupported_part(field: &str, name: &str, findings: &mut Findings<'_>) {
    let message = format!(
        "{name} is not implemented yet, and the rule fails closed: in an ALLOW it matches nothing, in a DENY this part is ignored"
    );
    findings.add(Code::NotImplemented, field, message);
}

fn operation(from: &written::Operation, at: &str, findings: &mut Findings<'_>) -> Operation {
    let lower = |list: &[String]| list.iter().map(|host| host.to_ascii_lowercase()).collect::<Vec<_>>();
    Operation {
        hosts: globs(&lower(&from.hosts), at, "hosts", findings),
        not_hosts: globs(&lower(&from.not_hosts), at, "notHosts", findings),
        ports: ports(&from.ports, at, "ports", findings),
        not_ports: ports(&from.not_ports, at, "notPorts", findings),
        methods: globs(&from.methods, at, "methods", findings),
        not_methods: globs(&from.not_methods, at, "notMethods", findings),
        paths: globs(&from.paths, at, "paths", findings),
        not_paths: globs(&from.not_paths, at, "notPaths", findings),
    }
}

fn globs(list: &[String], at: &str, name: &str, findings: &mut Findings<'_>) -> Vec<Glob> {
    for (number, _) in list.iter().enumerate().filter(|(_, text)| text.is_empty()) {
        findings.add(Code::Invalid, format!("{at}.{name}[{number}]"), "an empty value matches nothing");
    }
    list.iter().map(|text| Glob::parse(text)).collect()
}

fn networks(list: &[String], at: &str, name: &str, findings: &mut Findings<'_>) -> Vec<IpNet> {
    checked(list, at, name, findings, value::network)
}

fn ports(list: &[String], at: &str, name: &str, findings: &mut Findings<'_>) -> Vec<u16> {
    checked(list, at, name, findings, value::port_text)
}

fn checked<T>(
    list: &[String],
    at: &str,
    name: &str,
    findings: &mut Findings<'_>,
    read: impl Fn(&str) -> Result<T, String>,
) -> Vec<T> {
    let mut values = Vec::new();
    for (number, text) in list.iter().enumerate() {
        match read(text) {
            Ok(value) => values.push(value),
            Err(problem) => findings.add(Code::Invalid, format!("{at}.{name}[{number}]"), problem),
        }
    }
    values
}
