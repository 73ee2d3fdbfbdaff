//! Who shall be in the mesh, and how far the hand-shake is.

use mesh_api::{Code, Compiled, Enrolled, EnrolmentDecision, Index, Options, compile, parse};
use mesh_model::{
    resource::{Resource, ResourceKey},
    workload::{Enrolment, Tunnel},
};

use crate::world::{Ask, SHOP, index, shop};

fn decision(compiled: &Compiled, uid: &str) -> EnrolmentDecision {
    compiled.enrolment.get(uid).cloned().unwrap_or_else(|| panic!("no workload {uid}"))
}

fn is_wanted(namespace_labels: &str, pod_metadata: &str) -> bool {
    let yaml = format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: x, labels: {{{namespace_labels}}}}}\n---\napiVersion: v1\nkind: Pod\nmetadata: {{name: p, namespace: x{pod_metadata}}}\nspec: {{nodeName: n1, containers: []}}\n"
    );
    decision(&shop(&yaml), "x/p") == EnrolmentDecision::Wanted
}

#[test]
fn labels_decide_and_the_pod_wins() {
    let table = [
        ("", "", false),
        ("tulle.dev/mesh: enabled", "", true),
        ("tulle.dev/mesh: disabled", "", false),
        ("tulle.dev/mesh: enabled", ", labels: {tulle.dev/mesh: disabled}", false),
        ("tulle.dev/mesh: disabled", ", labels: {tulle.dev/mesh: enabled}", true),
        ("istio.io/dataplane-mode: ambient", "", true),
        ("istio-injection: enabled", "", true),
        ("istio-injection: enabled", ", labels: {istio.io/dataplane-mode: none}", false),
        ("istio-injection: enabled", ", annotations: {sidecar.istio.io/inject: \"false\"}", false),
        ("", ", labels: {sidecar.istio.io/inject: \"true\"}", true),
        ("tulle.dev/mesh: disabled, istio-injection: enabled", "", false),
        ("istio.io/dataplane-mode: ambient, istio-injection: disabled", "", true),
    ];
    for (namespace, pod, expected) in table {
        assert_eq!(is_wanted(namespace, pod), expected, "{namespace:?} {pod:?}");
    }
}

#[test]
fn contradictions_and_misspelt_values_are_said() {
    let compiled = shop(
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: x, labels: {tulle.dev/mesh: disabled, istio-injection: enabled}}\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: y, labels: {tulle.dev/mesh: yess}}\n",
    );
    assert_eq!(compiled.found(Code::ContradictingLabels).len(), 1);
    assert!(compiled.found(Code::InvalidAnnotation)[0].message.contains("yess"));
}

#[test]
fn istios_labels_without_effect_are_said() {
    let mut index = Index::with_options(Options { istio_labels: false, ..Options::default() });
    let _ = index.apply_file(parse("0.yaml", SHOP));
    let _ = index.apply_file(parse(
        "1.yaml",
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: x, labels: {istio-injection: enabled}}\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: x}\nspec: {nodeName: n1, containers: []}\n",
    ));
    let compiled = compile(&index, &Enrolled::default());
    assert_eq!(decision(&compiled, "x/p"), EnrolmentDecision::NotWanted);
    assert_eq!(compiled.found(Code::LabelWithoutEffect).len(), 1);
    assert_eq!(decision(&compiled, "shop/front"), EnrolmentDecision::Wanted, "ours counts");
}

fn cluster(more: Options) -> Index {
    let mut index = Index::with_options(more);
    let _ = index.apply_file(parse("0.yaml", SHOP));
    index
}

fn enrolled_namespaces(compiled: &Compiled) -> Vec<String> {
    match compiled.resources.get(&ResourceKey::Mesh) {
        Some(Resource::Mesh(mesh)) => mesh.enrolled_namespaces.iter().map(ToString::to_string).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn namespaces_that_enrol_their_pods_are_told() {
    let compiled = shop(
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: x, labels: {istio-injection: enabled}}\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: y}\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: kube-system, labels: {tulle.dev/mesh: enabled}}\n",
    );
    assert_eq!(enrolled_namespaces(&compiled), ["shop", "x"]);
    assert_eq!(
        compiled.found(Code::LabelWithoutEffect)[0].object.as_ref().map(|it| &*it.name),
        Some("kube-system")
    );
}

#[test]
fn where_the_mesh_runs_nobody_is_enrolled_whatever_the_label() {
    let compiled = compile(&cluster(Options::on_cluster("shop".into())), &Enrolled::default());
    assert_eq!(decision(&compiled, "shop/front"), EnrolmentDecision::NotWanted);
    assert_eq!(enrolled_namespaces(&compiled), [] as [&str; 0]);
    let found = compiled.found(Code::LabelWithoutEffect);
    assert_eq!((found.len(), &*found[0].field), (1, "metadata.labels"));

    let mut index = cluster(Options::on_cluster("mesh".into()));
    let _ = index.apply_file(parse(
        "1.yaml",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: mesh, labels: {tulle.dev/mesh: enabled}}\nspec: {nodeName: n1, containers: []}\n",
    ));
    let compiled = compile(&index, &Enrolled::default());
    assert_eq!(decision(&compiled, "mesh/p"), EnrolmentDecision::NotWanted, "nor by a label of its own");
    assert_eq!(decision(&compiled, "shop/front"), EnrolmentDecision::Wanted);
    assert_eq!(compiled.found(Code::LabelWithoutEffect).len(), 1);
}

#[test]
fn a_mesh_that_leaves_wants_nobody_and_says_so() {
    let index = cluster(Options { leaving: true, ..Options::on_cluster("mesh".into()) });
    let front = mesh_model::name::WorkloadUid::from("shop/front");
    let published = Enrolled { captured: [front.clone()].into(), published: [front].into() };
    let compiled = compile(&index, &published);
    assert!(compiled.enrolment.values().all(|decision| *decision == EnrolmentDecision::NotWanted));
    assert_eq!(compiled.workload("shop/front").tunnel, Tunnel::None, "withdrawn as with a label");
    assert_eq!(enrolled_namespaces(&compiled), [] as [&str; 0], "no new pod waits for us");
    let Some(Resource::Mesh(mesh)) = compiled.resources.get(&ResourceKey::Mesh) else {
        panic!("no settings")
    };
    assert!(mesh.leaving);
}

#[test]
fn what_cannot_be_captured_is_refused_with_its_reason() {
    let table = [
        ("", "hostNetwork: true, containers: []", "host's network"),
        ("", "containers: [{name: istio-proxy}]", "istio-proxy"),
        ("", "containers: [], initContainers: [{name: istio-proxy}]", "istio-proxy"),
        (", annotations: {ambient.istio.io/redirection: enabled}", "containers: []", "ambient"),
    ];
    for (metadata, spec, reason) in table {
        let compiled = shop(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: p, namespace: shop{metadata}}}\nspec: {{nodeName: n1, {spec}}}\n"
        ));
        let EnrolmentDecision::Refused(said) = decision(&compiled, "shop/p") else { panic!("{spec}") };
        assert!(said.contains(reason), "{said}");
        assert!(compiled.found(Code::EnrolmentRefused)[0].message.contains(reason));
        assert_eq!(compiled.workload("shop/p").enrolment, Enrolment::No);
    }
}

#[test]
fn a_static_pod_is_told_to_its_node_and_never_enrolled() {
    let copy = |name: &str, namespace: &str, hash: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}, uid: copy-{name}, creationTimestamp: 2024-01-01T00:00:00Z, annotations: {{kubernetes.io/config.mirror: {hash}, kubernetes.io/config.hash: {hash}}}}}\nspec: {{nodeName: n1, containers: []}}\nstatus: {{phase: Pending, podIP: 10.1.0.9}}\n---\n"
        )
    };
    let compiled = shop(&[copy("a", "shop", "c0ffee"), copy("b", "other", "beef")].concat());
    for (uid, copy) in [("c0ffee", "copy-a"), ("beef", "copy-b")] {
        let workload = compiled.workload(uid);
        assert_eq!((workload.enrolment, workload.ips.len()), (Enrolment::No, 0));
        assert_eq!(workload.node.as_str(), "n1");
        assert!(!compiled.has_workload(copy), "the copy itself is nobody");
        let mirrored_as = compiled.mirrored_as.get(&workload.uid);
        assert_eq!(mirrored_as.map(|uid| uid.as_str()), Some(copy));
    }
    let EnrolmentDecision::Refused(said) = decision(&compiled, "c0ffee") else { panic!("not refused") };
    assert!(said.contains("static pod"), "{said}");
    assert_eq!(decision(&compiled, "beef"), EnrolmentDecision::NotWanted, "its namespace does not ask");
    assert_eq!(compiled.found(Code::EnrolmentRefused).len(), 1);
}

#[test]
fn what_only_looks_like_a_static_pod_takes_nobodys_place() {
    let victim = "apiVersion: v1\nkind: Pod\nmetadata: {name: victim, namespace: shop, uid: abcdef}\nspec: {nodeName: n1, containers: []}\n---\n";
    let copy = |name: &str, created: &str, node: &str, hash: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: den, creationTimestamp: {created}, annotations: {{kubernetes.io/config.mirror: x, kubernetes.io/config.hash: {hash}}}}}\nspec: {{nodeName: {node}, containers: []}}\n---\n"
        )
    };
    let (older, newer) = ("2024-01-01T00:00:00Z", "2024-01-02T00:00:00Z");
    let yaml = [
        victim.to_owned(),
        copy("evil", older, "n2", "abcdef"),
        copy("a-later", newer, "n2", "beef"),
        copy("first", older, "n1", "beef"),
        copy("odd", older, "n1", "shop/front"),
    ];
    let compiled = shop(&yaml.concat());
    assert_eq!(decision(&compiled, "abcdef"), EnrolmentDecision::Wanted);
    assert_eq!(&*compiled.workload("abcdef").name, "victim");
    assert_eq!(compiled.workload("abcdef").enrolment, Enrolment::Yes);
    assert_eq!(&*compiled.workload("beef").name, "first");
    assert_eq!(decision(&compiled, "shop/front"), EnrolmentDecision::Wanted);
}

#[test]
fn nobody_uses_the_tunnel_before_the_node_has_captured_and_nobody_is_let_go_before_all_know() {
    let mut index = index(&[("0.yaml", SHOP)]);
    let uid = mesh_model::name::WorkloadUid::from("shop/front");
    let state = |index: &Index, enrolled: &Enrolled| {
        let compiled = compile(index, enrolled);
        let workload = compiled.workload("shop/front");
        (workload.enrolment, workload.tunnel)
    };
    let mut enrolled = Enrolled::default();
    assert_eq!(state(&index, &enrolled), (Enrolment::Yes, Tunnel::None), "asked for, not captured yet");

    enrolled.captured.insert(uid.clone());
    enrolled.published.insert(uid.clone());
    assert_eq!(state(&index, &enrolled), (Enrolment::Yes, Tunnel::Hbone));

    let _ = index
        .apply_file(parse("0.yaml", &SHOP.replace("tulle.dev/mesh: enabled", "tulle.dev/mesh: disabled")));
    assert_eq!(state(&index, &enrolled), (Enrolment::Yes, Tunnel::None), "withdrawn, still captured");

    enrolled.published.remove(&uid);
    assert_eq!(state(&index, &enrolled), (Enrolment::No, Tunnel::None), "everybody knows");
}
