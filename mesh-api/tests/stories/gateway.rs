//! HTTPRoutes on Services: from the YAML to the answer of the data path, and to the status.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use mesh_api::{Code, Compiled, Enrolled, compile, status::ConditionKind};
use mesh_model::{
    decide::{self, Refusal, RequestPlan},
    explain::{RouteVerdict, To, explain_route},
    name::{Hostname, WorkloadUid},
    request::RequestHead,
    resource::Resource,
    route::{RouteSource, RouteTable},
    snapshot::Snapshot,
    workload::Workload,
};

use crate::world::{Ask, index};

/// Services `echo`, `echo-v1` and `echo-v2` of namespace mesh on ports 80 and 8080, and a caller in each of three namespaces.
const ECHO: &str = r#"
apiVersion: v1
kind: List
items:
  - {apiVersion: v1, kind: Node, metadata: {name: n1}}
  - apiVersion: v1
    kind: Pod
    metadata: {name: echo-v1, namespace: mesh, labels: {app: echo, version: v1}}
    spec: {nodeName: n1, containers: [{name: echo}]}
    status: {podIP: 10.1.0.1}
  - apiVersion: v1
    kind: Pod
    metadata: {name: echo-v2, namespace: mesh, labels: {app: echo, version: v2}}
    spec: {nodeName: n1, containers: [{name: echo}]}
    status: {podIP: 10.1.0.2}
  - apiVersion: v1
    kind: Pod
    metadata: {name: caller, namespace: consumer}
    spec: {nodeName: n1, containers: [{name: caller}]}
    status: {podIP: 10.1.0.3}
  - apiVersion: v1
    kind: Pod
    metadata: {name: caller, namespace: other, labels: {app: far}}
    spec: {nodeName: n1, containers: [{name: caller}]}
    status: {podIP: 10.1.0.4}
  - apiVersion: v1
    kind: Service
    metadata: {name: echo, namespace: mesh}
    spec:
      selector: {app: echo}
      clusterIP: 10.9.0.1
      ports: [{name: http, port: 80, targetPort: 8080}, {name: http-alt, port: 8080}, {name: tcp, port: 9090}, {name: grpc, port: 7070}]
  - apiVersion: v1
    kind: Service
    metadata: {name: echo-v1, namespace: mesh}
    spec: {selector: {app: echo, version: v1}, clusterIP: 10.9.0.2, ports: [{name: http, port: 80, targetPort: 8080}]}
  - apiVersion: v1
    kind: Service
    metadata: {name: echo-v2, namespace: mesh}
    spec: {selector: {app: echo, version: v2}, clusterIP: 10.9.0.3, ports: [{name: http, port: 80, targetPort: 8080}]}
  - apiVersion: v1
    kind: Service
    metadata: {name: far, namespace: other}
    spec: {selector: {app: far}, clusterIP: 10.9.0.4, ports: [{name: http, port: 80}]}
  - apiVersion: v1
    kind: Service
    metadata: {name: headless, namespace: mesh}
    spec: {selector: {app: echo}, clusterIP: None, ports: [{name: http, port: 80}]}
"#;

const ECHO_80: &str = "parentRefs: [{group: '', kind: Service, name: echo, port: 80}]";
const TO_V1: &str = "backendRefs: [{name: echo-v1, port: 80}]";
const TO_V2: &str = "backendRefs: [{name: echo-v2, port: 80}]";

/// An HTTPRoute whose spec is in flow style.
fn route(namespace: &str, name: &str, created: &str, spec: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {name}, namespace: {namespace}, generation: 7, creationTimestamp: {created}}}\nspec: {{{spec}}}\n---\n"
    )
}

fn at_echo(rules: &str) -> String {
    route("mesh", "r", "2026-01-01T00:00:00Z", &format!("{ECHO_80}, rules: [{rules}]"))
}

fn compiled(yaml: &str) -> Compiled {
    compile(&index(&[("0-echo.yaml", ECHO), ("1-routes.yaml", yaml)]), &Enrolled::default())
}

/// What a caller asks of a service, and what the data path says.
struct Mesh(Snapshot);

impl Mesh {
    fn of(yaml: &str) -> Self {
        Self(Snapshot::from_resources(compiled(yaml).resources.into_values().collect()))
    }

    fn caller(&self, uid: &str) -> Arc<Workload> {
        self.0.workload(&WorkloadUid::from(uid)).cloned().unwrap_or_else(|| panic!("no workload {uid}"))
    }

    fn plan(
        &self,
        from: &str,
        port: u16,
        path: &str,
        method: &str,
        headers: &[(&'static str, &'static str)],
        draw: f64,
    ) -> Result<RequestPlan, Refusal> {
        let service = self.0.service(&Hostname::new("echo.mesh.svc.cluster.local")).cloned().expect("echo");
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        // The authority is another service's: routes of the Gateway API go by the address alone.
        let head =
            RequestHead { method, scheme: "http", authority: "echo-v2", path, query, headers: &headers };
        decide::request(&self.0, &self.caller(from), &service, port, &head, draw)
    }

    /// The service that a GET with these headers goes to.
    fn backend(&self, path: &str, headers: &[(&'static str, &'static str)]) -> String {
        match self.plan("mesh/echo-v1", 80, path, "GET", headers, 0.0) {
            Ok(plan) => plan.target.service.name.clone(),
            Err(refusal) => refusal.to_string(),
        }
    }
}

fn tables(compiled: &Compiled) -> Vec<&RouteTable> {
    let found = compiled.resources.values().filter_map(|resource| match resource {
        Resource::Routes(table) => Some(table),
        _ => None,
    });
    found.collect()
}

/// `Accepted=True/Accepted ResolvedRefs=…` of each parent of route `r`.
fn told(compiled: &Compiled) -> Vec<String> {
    let (_, status) =
        compiled.route_statuses.iter().find(|(route, _)| &*route.name == "r").expect("a status");
    let parents = status.parents.iter().map(|parent| {
        let conditions = parent.conditions.iter().map(|condition| {
            assert_eq!(condition.observed_generation, 7);
            assert!(!condition.message.is_empty());
            format!("{}={}/{}", condition.kind.as_str(), condition.holds, condition.reason)
        });
        conditions.collect::<Vec<_>>().join(" ")
    });
    parents.collect()
}

const GOOD: &str = "Accepted=true/Accepted ResolvedRefs=true/ResolvedRefs";

/// The rules and the requests of the conformance suite's MeshHTTPRouteMatching.
#[test]
fn matches_as_the_conformance_suite_has_them() {
    let mesh = Mesh::of(&at_echo(&format!(
        "{{matches: [{{path: {{type: PathPrefix, value: /}}}}, {{headers: [{{name: version, value: one}}]}}], {TO_V1}}},
         {{matches: [{{path: {{type: PathPrefix, value: /v2}}}}, {{headers: [{{name: version, value: two}}]}}], {TO_V2}}}"
    )));
    type Headers = &'static [(&'static str, &'static str)];
    let cases: [(&str, Headers, &str); 9] = [
        ("/", &[], "echo-v1"),
        ("/example", &[], "echo-v1"),
        ("/", &[("version", "one")], "echo-v1"),
        ("/v2", &[], "echo-v2"),
        ("/v2/example", &[], "echo-v2"),
        ("/", &[("version", "two")], "echo-v2"),
        ("/v2/", &[], "echo-v2"),
        ("/v2example", &[], "echo-v1"),
        ("/foo/v2/example", &[], "echo-v1"),
    ];
    for (path, headers, expected) in cases {
        assert_eq!(mesh.backend(path, headers), expected, "{path} {headers:?}");
    }
}

#[test]
fn the_more_specific_match_wins_whatever_the_order() {
    // Each rule goes to v1 but the one that is to win, which is written last.
    let cases = [
        ("{path: {value: /a}}", "{path: {type: Exact, value: /a}}", "/a"),
        ("{path: {value: /a}}", "{path: {value: /a/b}}", "/a/b"),
        ("{path: {value: /}}", "{path: {type: RegularExpression, value: '/a.*'}}", "/ab"),
        ("{headers: [{name: x, value: y}]}", "{method: GET}", "/"),
        ("{queryParams: [{name: q, value: p}]}", "{headers: [{name: x, value: y}]}", "/?q=p"),
        ("{path: {value: /a}}", "{path: {value: /a}, queryParams: [{name: q, value: p}]}", "/a?q=p"),
        (
            "{headers: [{name: x, value: y}]}",
            "{headers: [{name: x, value: y}, {name: z, type: RegularExpression, value: '[a-z]+'}]}",
            "/",
        ),
    ];
    for (less, more, path) in cases {
        let rules = format!("{{matches: [{less}], {TO_V1}}}, {{matches: [{more}], {TO_V2}}}");
        let mesh = Mesh::of(&at_echo(&rules));
        assert_eq!(mesh.backend(path, &[("x", "y"), ("z", "abc")]), "echo-v2", "{less} and {more}");
    }
    let same = format!("{{matches: [{{method: GET}}], {TO_V1}}}, {{matches: [{{method: GET}}], {TO_V2}}}");
    assert_eq!(Mesh::of(&at_echo(&same)).backend("/", &[]), "echo-v1", "of two equals, the first");
}

#[test]
fn of_two_equal_routes_the_older_wins_and_then_the_first_by_name() {
    let one = |name: &str, created: &str, to: &str| {
        route("mesh", name, created, &format!("{ECHO_80}, rules: [{{{to}}}]"))
    };
    let (old, young) = ("2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z");
    assert_eq!(Mesh::of(&(one("a", young, TO_V1) + &one("b", old, TO_V2))).backend("/", &[]), "echo-v2");
    assert_eq!(Mesh::of(&(one("b", old, TO_V1) + &one("a", old, TO_V2))).backend("/", &[]), "echo-v2");
    let longer = format!("{ECHO_80}, rules: [{{matches: [{{path: {{value: /x}}}}], {TO_V1}}}]");
    let both = one("a", old, TO_V2) + &route("mesh", "b", young, &longer);
    assert_eq!(Mesh::of(&both).backend("/x", &[]), "echo-v1", "precedence comes before age");
    assert_eq!(compiled(&both).found(Code::DuplicateHost).len(), 0);
}

#[test]
fn a_split_has_the_written_shares_and_headers_are_changed() {
    let mesh = Mesh::of(&at_echo(
        "{backendRefs: [{name: echo-v1, port: 80, weight: 70}, {name: echo-v2, port: 80, weight: 30, filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-Share, value: small}]}}]}, {name: echo, port: 80, weight: 0}], \
         timeouts: {request: 2s, backendRequest: 500ms}, filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-Set, value: s}], add: [{name: X-Add, value: a}], remove: [X-Remove]}}, {type: ResponseHeaderModifier, responseHeaderModifier: {add: [{name: X-Back, value: b}]}}]}",
    ));
    let drawn = |draw: f64| mesh.plan("mesh/echo-v1", 80, "/", "GET", &[], draw).expect("a plan");
    assert_eq!(drawn(0.699).target.service.name, "echo-v1");
    assert_eq!(drawn(0.701).target.service.name, "echo-v2");
    let plan = drawn(0.999);
    assert_eq!(plan.target.service.name, "echo-v2", "a weight of 0 is no share");
    let (_, rule) = plan.rule.as_ref().expect("a rule");
    assert_eq!(rule.name, "mesh.r.0");
    assert_eq!(rule.request_headers.set, [("x-set".to_owned(), "s".to_owned())]);
    assert_eq!(rule.request_headers.add, [("x-add".to_owned(), "a".to_owned())]);
    assert_eq!(rule.request_headers.remove, ["x-remove"]);
    assert_eq!(rule.response_headers.add, [("x-back".to_owned(), "b".to_owned())]);
    let share = &rule.destinations[plan.destination];
    assert_eq!(share.request_headers.set, [("x-share".to_owned(), "small".to_owned())]);
    assert_eq!(plan.timeout.map(|limit| limit.as_millis()), Some(2000));
    assert_eq!(plan.retry.per_try_timeout.map(|limit| limit.as_millis()), Some(500));
    assert_eq!(plan.retry.attempts, 2, "the mesh's default");
}

#[test]
fn what_no_rule_matches_is_not_found() {
    let mesh = Mesh::of(&at_echo(&format!("{{matches: [{{path: {{value: /known}}}}], {TO_V1}}}")));
    let plan = |port: u16| mesh.plan("mesh/echo-v1", port, "/unknown", "GET", &[], 0.0);
    assert_eq!(plan(80).expect_err("404"), Refusal::NoRoute);
    assert!(plan(8080).is_ok_and(|plan| plan.rule.is_none()), "the route is for port 80 alone");
}

#[test]
fn a_route_without_a_port_holds_for_every_port_that_speaks_http() {
    let all = route(
        "mesh",
        "r",
        "2026-01-01T00:00:00Z",
        &format!(
            "parentRefs: [{{group: '', kind: Service, name: echo}}, {{group: core, kind: Service, name: echo, sectionName: http-alt}}], rules: [{{{TO_V2}}}]"
        ),
    );
    let compiled = compiled(&all);
    let mut ports: Vec<RouteSource> = tables(&compiled).iter().map(|table| table.source).collect();
    ports.sort_by_key(|source| format!("{source:?}").len());
    assert_eq!(ports, [RouteSource::Gateway { port: 80 }, RouteSource::Gateway { port: 8080 }]);
    assert!(
        tables(&compiled).iter().all(|table| table.rules.len() == 1),
        "a port that is named twice is one"
    );
    assert_eq!(told(&compiled), [GOOD, GOOD]);
    assert!(compiled.found(Code::NotImplemented)[0].message.contains("7070"), "HTTP/2 is said");
}

#[test]
fn consumers_have_their_own_routes_and_no_others() {
    let producer = at_echo(&format!("{{{TO_V1}}}"));
    let consumer = route(
        "consumer",
        "c",
        "2026-01-01T00:00:00Z",
        "parentRefs: [{group: '', kind: Service, name: echo, namespace: mesh, port: 80}], rules: [{matches: [{path: {value: /mine}}], backendRefs: [{name: echo-v2, namespace: mesh, port: 80}]}]",
    );
    let mesh = Mesh::of(&(producer + &consumer));
    let to = |from: &str, path: &str| {
        mesh.plan(from, 80, path, "GET", &[], 0.0).map(|plan| plan.target.service.name.clone())
    };
    assert_eq!(to("consumer/caller", "/mine"), Ok("echo-v2".to_owned()));
    assert_eq!(to("consumer/caller", "/else"), Err(Refusal::NoRoute), "the producer's rules are not added");
    assert_eq!(to("other/caller", "/mine"), Ok("echo-v1".to_owned()));
    assert_eq!(to("mesh/echo-v2", "/mine"), Ok("echo-v1".to_owned()));
}

#[test]
fn a_backend_that_cannot_be_used_keeps_its_share_and_answers_500() {
    let cases = [
        ("{name: ghost, port: 80}", "BackendNotFound"),
        ("{name: echo-v1, port: 81}", "BackendNotFound"),
        ("{name: echo-v1}", "BackendNotFound"),
        ("{name: far, namespace: other, port: 80}", "RefNotPermitted"),
        ("{name: bucket, kind: Bucket, group: example.com}", "InvalidKind"),
    ];
    for (backend, reason) in cases {
        let yaml = at_echo(&format!("{{backendRefs: [{{name: echo-v1, port: 80}}, {backend}]}}"));
        let compiled = compiled(&yaml);
        assert_eq!(told(&compiled), [format!("Accepted=true/Accepted ResolvedRefs=false/{reason}")]);
        assert_eq!(compiled.found(Code::ReferenceNotFound)[0].field, "spec.rules[0].backendRefs[1]");
        let mesh = Mesh::of(&yaml);
        let drawn = |draw: f64| mesh.plan("mesh/echo-v1", 80, "/", "GET", &[], draw);
        assert!(drawn(0.49).is_ok(), "{backend}");
        assert!(matches!(drawn(0.51), Err(Refusal::InvalidBackend(_))), "{backend}");
    }
    for rule in ["{matches: []}", "{backendRefs: [{name: echo-v1, port: 80, weight: 0}]}"] {
        let mesh = Mesh::of(&at_echo(rule));
        let plan = mesh.plan("mesh/echo-v1", 80, "/", "GET", &[], 0.0);
        assert!(matches!(plan, Err(Refusal::InvalidBackend(_))), "{rule}");
    }
}

#[test]
fn what_cannot_be_taken_is_said_and_is_not_in_force() {
    let parent =
        |more: &str| format!("parentRefs: [{{group: '', kind: Service, {more}}}], rules: [{{{TO_V1}}}]");
    let rule = |rule: &str| format!("{ECHO_80}, rules: [{{{rule}, {TO_V1}}}]");
    let cases = [
        (parent("name: ghost"), "NoMatchingParent"),
        (parent("name: echo, port: 81"), "NoMatchingParent"),
        (parent("name: echo, port: 80, sectionName: http-alt"), "NoMatchingParent"),
        (parent("name: headless"), "UnsupportedValue"),
        (parent("name: echo, port: 9090"), "UnsupportedValue"),
        (rule("filters: [{type: RequestRedirect, requestRedirect: {hostname: a.b}}]"), "UnsupportedValue"),
        (rule("filters: [{type: Sparkle}]"), "UnsupportedValue"),
        (rule("matches: [{path: {type: RegularExpression, value: '('}}]"), "UnsupportedValue"),
        (rule("matches: [{path: {type: Fuzzy, value: /}}]"), "UnsupportedValue"),
        (rule("retry: {attempts: 2}"), "UnsupportedValue"),
        (rule("timeouts: {request: soon}"), "UnsupportedValue"),
    ];
    for (spec, reason) in cases {
        let compiled = compiled(&route("mesh", "r", "2026-01-01T00:00:00Z", &spec));
        assert_eq!(
            told(&compiled)[0].split(' ').next(),
            Some(&*format!("Accepted=false/{reason}")),
            "{spec}"
        );
        assert_eq!(tables(&compiled).len(), 0, "{spec}");
        let errors = compiled.diagnostics.iter().filter(|finding| {
            finding.severity == mesh_api::Severity::Error
                && finding.object.as_ref().is_some_and(|object| &*object.name == "r")
        });
        assert!(errors.count() > 0, "{spec}");
    }
}

#[test]
fn a_backend_that_is_not_there_is_said_also_of_a_route_that_is_not_understood() {
    let filter = "filters: [{type: RequestRedirect, requestRedirect: {hostname: a.b}}]";
    let said = |backend: &str| {
        told(&compiled(&at_echo(&format!("{{{filter}, backendRefs: [{{name: {backend}, port: 80}}]}}"))))
    };
    assert_eq!(said("ghost"), ["Accepted=false/UnsupportedValue ResolvedRefs=false/BackendNotFound"]);
    assert_eq!(said("echo-v1"), ["Accepted=false/UnsupportedValue ResolvedRefs=true/ResolvedRefs"]);
}

#[test]
fn routes_of_gateways_are_somebody_elses() {
    let compiled = compiled(&route(
        "mesh",
        "r",
        "2026-01-01T00:00:00Z",
        "parentRefs: [{name: edge}], rules: [{filters: [{type: Sparkle}]}]",
    ));
    assert_eq!(told(&compiled), [] as [String; 0]);
    assert_eq!(tables(&compiled).len(), 0);
    assert_eq!(compiled.found(Code::Unsupported).len(), 0);
}

#[test]
fn httproutes_come_before_virtual_services_and_it_is_said() {
    let virtual_service = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: v, namespace: mesh}\nspec: {hosts: [echo], http: [{route: [{destination: {host: echo-v1}}]}]}\n---\n";
    let yaml = at_echo(&format!("{{{TO_V2}}}")) + virtual_service;
    let mesh = Mesh::of(&yaml);
    assert_eq!(mesh.backend("/", &[]), "echo-v2");
    let other_port = mesh.plan("mesh/echo-v1", 8080, "/", "GET", &[], 0.0).expect("a plan");
    assert_eq!(other_port.target.service.name, "echo-v1", "the VirtualService holds for the other port");
    let compiled = compiled(&yaml);
    let found = compiled.found(Code::ShadowedByHttpRoute);
    assert_eq!((&*found[0].field, found.len()), ("spec.hosts[0]", 1));
    assert!(found[0].message.contains("port 80"), "{}", found[0].message);
}

#[test]
fn a_status_repeats_the_parent_as_it_is_written() {
    let compiled = compiled(&at_echo(&format!("{{{TO_V1}}}")));
    let status = compiled.route_statuses.values().next().expect("a status");
    let parent = serde_json::json!({ "group": "", "kind": "Service", "name": "echo", "port": 80 });
    assert_eq!(status.parents[0].parent, parent);
    let kinds: Vec<ConditionKind> =
        status.parents[0].conditions.iter().map(|condition| condition.kind).collect();
    assert_eq!(kinds, [ConditionKind::Accepted, ConditionKind::ResolvedRefs]);
}

#[test]
fn an_explanation_names_the_route_its_rule_and_its_match() {
    let mesh = Mesh::of(&at_echo(&format!(
        "{{name: odd, matches: [{{path: {{value: /a}}}}, {{path: {{value: /b}}}}], {TO_V1}}}"
    )));
    let headers = HeaderMap::new();
    let head = RequestHead {
        method: "GET",
        scheme: "http",
        authority: "echo",
        path: "/b",
        query: None,
        headers: &headers,
    };
    let to = To::Address("10.9.0.1:80".parse().expect("an address"));
    let explained = explain_route(&mesh.0, &mesh.caller("other/caller"), &to, Some(&head));
    let subjects: Vec<&str> = explained.steps.iter().map(|step| &*step.subject).collect();
    assert_eq!(subjects[2..], ["HTTPRoute mesh.r.odd matches[0]", "HTTPRoute mesh.r.odd matches[1]"]);
    let RouteVerdict::Request { rule, .. } = explained.verdict else { panic!("{:?}", explained.verdict) };
    assert_eq!(rule.as_deref(), Some("HTTPRoute mesh.r.odd"));
}
