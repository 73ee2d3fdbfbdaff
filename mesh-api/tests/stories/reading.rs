//! Texts -> objects. What cannot be read is named by file, line and field.

use mesh_api::{Code, Kind, parse};

fn finding(text: &str) -> (Code, u32, String, String) {
    let parsed = parse("test.yaml", text);
    assert_eq!(parsed.diagnostics.len(), 1, "{:#?}", parsed.diagnostics);
    let finding = parsed.diagnostics.into_iter().next().expect("one finding");
    let line = finding.origin.expect("a place").line;
    (finding.code, line, finding.field, finding.message)
}

#[test]
fn documents_become_objects_with_their_lines() {
    let parsed = parse(
        "two.yaml",
        "# a comment\n\napiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n---\n# another\n---\napiVersion: v1\nkind: Node\nmetadata: {name: n}\n",
    );
    let read: Vec<_> = parsed
        .objects
        .iter()
        .map(|(object, origin)| (object.kind(), object.reference().name.to_string(), origin.line))
        .collect();
    assert_eq!(read, [(Kind::Namespace, "a".to_owned(), 3), (Kind::Node, "n".to_owned(), 9)]);
    assert_eq!(parsed.diagnostics, vec![]);
}

#[test]
fn a_typo_is_named_with_its_line_and_path() {
    let text = "\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: back, namespace: shop}
spec:
  hosts: [back]
  http:
    - route:
        - destination:
            host: back
            subste: v2
";
    let (code, line, field, _) = finding(text);
    assert_eq!((code, line, &*field), (Code::UnknownField, 10, "spec.http[0].route[0].destination.subste"));
    assert!(parse("f", text).objects.is_empty(), "half an object is no object");
}

#[test]
fn a_typo_in_a_kubernetes_object_is_named_too() {
    let (code, line, field, _) = finding(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  serviceAcountName: boss\n  containers: []\n",
    );
    assert_eq!((code, line, &*field), (Code::UnknownField, 5, "spec.serviceAcountName"));
}

#[test]
fn a_value_of_the_wrong_type_is_named_with_its_line_and_path() {
    let (code, line, field, message) = finding(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: p}\nspec:\n  mtls:\n    mode: STRCIT\n",
    );
    assert_eq!((code, line, &*field), (Code::Malformed, 6, "spec.mtls.mode"));
    assert!(message.contains("STRICT"), "it says what is allowed: {message}");
}

#[test]
fn numbers_are_no_texts() {
    let (code, line, field, _) = finding(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: p\n  labels:\n    app: x\n    version: 1\nspec: {containers: []}\n",
    );
    assert_eq!((code, line, &*field), (Code::Malformed, 7, "metadata.labels.version"));
}

#[test]
fn text_that_is_no_yaml_does_not_hide_its_neighbours() {
    let parsed = parse(
        "f.yaml",
        "apiVersion: v1\nkind: Node\nmetadata: {name: a}\n---\nkind: [\n---\napiVersion: v1\nkind: Node\nmetadata: {name: b}\n",
    );
    assert_eq!(parsed.objects.len(), 2);
    assert_eq!(parsed.diagnostics.len(), 1);
    let line = parsed.diagnostics[0].origin.as_ref().expect("a place").line;
    assert!((5..=7).contains(&line), "near the bracket: {line}");
    assert!(parsed.is_broken());
}

#[test]
fn a_key_that_occurs_twice_is_an_error() {
    let (code, _, _, message) = finding("apiVersion: v1\nkind: Node\nmetadata: {name: a}\nkind: Pod\n");
    assert_eq!(code, Code::Malformed);
    assert!(message.contains("kind"), "{message}");
}

#[test]
fn an_object_without_a_name_is_an_error() {
    let (code, _, field, _) = finding("apiVersion: v1\nkind: Node\nmetadata: {}\n");
    assert_eq!((code, &*field), (Code::Malformed, "metadata.name"));
}

#[test]
fn lists_are_unrolled_and_paths_say_where_in_the_list() {
    let text = "\
apiVersion: v1
kind: List
items:
  - {apiVersion: v1, kind: Node, metadata: {name: a}}
  - apiVersion: v1
    kind: Node
    metadata: {nmae: b}
";
    let parsed = parse("f.yaml", text);
    assert_eq!(parsed.objects.len(), 1);
    assert_eq!(parsed.diagnostics[0].field, "items[1].metadata.nmae");
    assert_eq!(parsed.diagnostics[0].origin.as_ref().map(|origin| origin.line), Some(7));
}

#[test]
fn kinds_of_others_are_skipped_and_said() {
    let (code, _, _, message) =
        finding("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec: {}\n");
    assert_eq!(code, Code::KindSkipped);
    assert!(message.contains("Deployment d"), "{message}");
    let (code, ..) = finding("apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: s}\n");
    assert_eq!(code, Code::KindSkipped);
    let (code, ..) =
        finding("apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: r}\n");
    assert_eq!(code, Code::KindNotImplemented);
}

#[test]
fn every_version_of_a_group_is_read_and_means_the_same() {
    for version in ["v1", "v1beta1", "v1alpha3"] {
        let parsed = parse(
            "f.yaml",
            &format!(
                "apiVersion: networking.istio.io/{version}\nkind: DestinationRule\nmetadata: {{name: d}}\nspec: {{host: back}}\n"
            ),
        );
        assert_eq!(parsed.objects.len(), 1, "{version}");
    }
    let (code, line, field, _) =
        finding("kind: VirtualService\napiVersion: networking.istio.io/v9\nmetadata: {name: d}\n");
    assert_eq!((code, line, &*field), (Code::Malformed, 2, "apiVersion"));
}

#[test]
fn anchors_and_merges_are_understood() {
    let text = "\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: v}
spec:
  hosts: [back]
  http:
    - route: &to [{destination: {host: back}}]
      retries: &retries {attempts: 1}
    - route: *to
      retries: {<<: *retries, perTryTimeout: 1s}
";
    assert_eq!(parse("f.yaml", text).diagnostics, vec![]);
}

#[test]
fn an_empty_list_in_a_policy_is_no_condition_and_refused() {
    let (code, line, field, _) = finding(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: shop}\nspec:\n  rules:\n    - from:\n        - source:\n            principals: []\n",
    );
    assert_eq!((code, line, &*field), (Code::Malformed, 8, "spec.rules[0].from[0].source.principals"));
}

#[test]
fn a_file_beyond_the_limit_is_refused_whole() {
    let text = "#".repeat(mesh_api::parse::MAX_FILE_BYTES + 1);
    assert!(parse("big.yaml", &text).is_broken());
}

#[test]
fn a_yaml_bomb_is_an_error_and_not_a_full_memory() {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let above = format!("*a{}", level - 1);
        text += &format!("a{level}: &a{level} [{}]\n", vec![above; 9].join(", "));
    }
    let (code, ..) = finding(&text);
    assert_eq!(code, Code::Malformed);
}

#[test]
fn a_newer_api_server_may_have_fields_that_are_not_known_here() {
    let origin = mesh_api::Origin { file: "kubernetes".into(), line: 0 };
    let pod = serde_json::json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [], "fromTheFuture": 1},
    });
    assert_eq!(mesh_api::parse_value(&origin, &pod).objects.len(), 1);
    let policy = serde_json::json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": {"name": "p"}, "spec": {"rulse": []},
    });
    assert!(mesh_api::parse_value(&origin, &policy).is_broken());
}

#[test]
fn brackets_without_end_are_refused_before_the_reader_takes_minutes_for_them() {
    for open in ["[", "{a: ", "{a: [", "- {"] {
        let began = std::time::Instant::now();
        let (code, line, _, message) = finding(&["a:\n ", &open.repeat(200_000)].concat());
        assert_eq!((code, line), (Code::Malformed, 2), "{open}");
        assert!(message.contains("brackets are open"), "{open}: {message}");
        assert!(began.elapsed() < std::time::Duration::from_secs(5), "{open}: {:?}", began.elapsed());
    }
    let closed = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: a}}\ndata: {{x: \"{}\"}}\n",
        "[a] {b} ".repeat(1000)
    );
    assert_eq!(parse("closed.yaml", &closed).diagnostics, vec![], "brackets that close count for nothing");
}

#[test]
fn a_list_of_many_is_read_in_a_moment_with_the_line_of_each_entry_and_field() {
    let entry = |number: usize| {
        format!(
            "- apiVersion: v1\n  kind: Pod\n  metadata:\n    name: p{number}\n  spec:\n    serviceAcount: x\n    containers:\n    - name: a\n"
        )
    };
    let text = ["apiVersion: v1\nkind: List\nitems:\n".to_owned(), (0..4000).map(entry).collect()].concat();
    let began = std::time::Instant::now();
    let parsed = parse("list.yaml", &text);
    assert!(began.elapsed() < std::time::Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(parsed.diagnostics.len(), 4000);
    for (number, finding) in (0_u32..).zip(&parsed.diagnostics) {
        assert_eq!(finding.field, format!("items[{number}].spec.serviceAcount"));
        assert_eq!(finding.origin.as_ref().map(|origin| origin.line), Some(4 + number * 8 + 5), "{number}");
    }
}

#[test]
fn looking_for_the_lines_of_many_fields_of_one_text_comes_to_an_end() {
    let labels: String = (0..20_000).map(|number| format!("  x{number}: 1\n")).collect();
    let text = ["apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n".to_owned(), labels].concat();
    let began = std::time::Instant::now();
    let parsed = parse("pod.yaml", &text);
    assert!(began.elapsed() < std::time::Duration::from_secs(20), "{:?}", began.elapsed());
    assert!(
        parsed.diagnostics.len() >= 20_000 || parsed.diagnostics.len() == 1,
        "{}",
        parsed.diagnostics.len()
    );
}

#[test]
fn a_policy_without_a_name_fails_closed_under_one_that_nodes_take() {
    for name in ["", "name: '', "] {
        let text = format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{{name}namespace: shop}}\nspec: {{}}\n"
        );
        let parsed = parse("nameless.yaml", &text);
        let refused: Vec<_> = parsed.refused.iter().map(|(policy, _)| policy.reference()).collect();
        assert_eq!(refused.len(), 1, "{name}");
        assert_eq!((&*refused[0].namespace, &*refused[0].name), ("shop", "unnamed-1"), "{name}");
        assert!(parsed.is_broken());
    }
}
