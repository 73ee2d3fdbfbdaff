//! What holds whatever is written.

use mesh_api::{Changed, Compiled, Enrolled, Index, compile, parse};
use mesh_model::resource::{Resource, ResourceKey};
use proptest::{prelude::*, sample::subsequence};

use crate::world::SHOP;

/// Documents of namespace `away`: they may do what they like to `away`, and nothing to `shop`.
fn away() -> Vec<String> {
    let object = |group: &str, kind: &str, name: &str, spec: &str| {
        format!(
            "apiVersion: {group}\nkind: {kind}\nmetadata: {{name: {name}, namespace: away}}\nspec: {spec}\n---\n"
        )
    };
    let (net, sec) = ("networking.istio.io/v1", "security.istio.io/v1");
    vec![
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: away, labels: {tulle.dev/mesh: enabled}}\n---\n"
            .to_owned(),
        object(
            "v1",
            "Pod",
            "front",
            "{nodeName: n1, serviceAccountName: front, containers: []}\nstatus: {podIP: 10.5.0.1}",
        ),
        object("v1", "Pod", "back", "{nodeName: n2, containers: []}\nstatus: {podIP: 10.5.0.2}"),
        object(
            "v1",
            "Service",
            "back",
            "{clusterIP: 10.9.5.1, selector: {app: back}, ports: [{name: tcp, port: 80}]}",
        ),
        object(
            net,
            "VirtualService",
            "back",
            "{hosts: [back], http: [{route: [{destination: {host: back}}]}]}",
        ),
        object(
            net,
            "VirtualService",
            "foreign",
            "{hosts: [back.shop.svc.cluster.local], http: [{route: [{destination: {host: back}}]}]}",
        ),
        object(net, "VirtualService", "bad", "{hosts: [back], http: [{timeout: soon}]}"),
        object(
            net,
            "DestinationRule",
            "back",
            "{host: back.shop.svc.cluster.local, subsets: [{name: v1, labels: {version: v1}}]}",
        ),
        object(sec, "AuthorizationPolicy", "deny", "{action: DENY, rules: [{}]}"),
        object(sec, "AuthorizationPolicy", "bad", "{action: DENY}"),
        object(sec, "PeerAuthentication", "default", "{mtls: {mode: STRICT}}"),
        "kind: [\n---\n".to_owned(),
        object(sec, "AuthorizationPolicy", "typo", "{rulse: []}"),
    ]
}

fn of_shop(compiled: &Compiled) -> Vec<Resource> {
    let is_shops = |key: &ResourceKey| match key {
        ResourceKey::Mesh => true,
        ResourceKey::Workload(uid) => uid.as_str().starts_with("shop/"),
        ResourceKey::Service(key) => key.namespace.as_str() == "shop",
        ResourceKey::Policy(key) | ResourceKey::Routes(key) | ResourceKey::Destination(key, _) => {
            key.namespace.as_str() == "shop"
        }
    };
    let without_others = |resource: &Resource| match resource {
        // The settings name every namespace that is enrolled.
        Resource::Mesh(mesh) => {
            let mut mesh = mesh.clone();
            mesh.enrolled_namespaces.retain(|namespace| namespace.as_str() != "away");
            Resource::Mesh(mesh)
        }
        other => other.clone(),
    };
    let shops = compiled.resources.iter().filter(|(key, _)| is_shops(key));
    shops.map(|(_, resource)| without_others(resource)).collect()
}

const SHOPS_RULES: &str = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: back, namespace: shop}\nspec: {hosts: [back], http: [{route: [{destination: {host: back}}]}]}\n---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: guard, namespace: shop}\nspec: {rules: [{}]}\n";

fn shop_and(files: &[(String, String)]) -> Index {
    let mut index = Index::new();
    let _ = index.apply_file(parse("shop.yaml", SHOP));
    let _ = index.apply_file(parse("rules.yaml", SHOPS_RULES));
    for (name, text) in files {
        let _ = index.apply_file(parse(name, text));
    }
    index
}

/// One call of a watch or a directory: which file, and what it says now; None: it is gone.
type Call = (usize, Option<Vec<String>>);

fn calls(documents: Vec<String>) -> impl Strategy<Value = Vec<Call>> {
    let says = prop::option::weighted(0.8, subsequence(documents, 0..=4).prop_shuffle());
    prop::collection::vec((0_usize..3, says), 1..12)
}

fn make(index: &mut Index, (number, says): &Call) -> Changed {
    let file = format!("{number}.yaml");
    match says {
        Some(documents) => index.apply_file(parse(&file, &documents.concat())),
        None => index.remove_file(&file),
    }
}

/// Those that neither reading nor admission refuses: what is refused depends on what was there before.
fn sound() -> Vec<String> {
    let is_sound = |document: &String| {
        let parsed = parse("any.yaml", document);
        !parsed.is_broken()
            && parsed.objects.iter().all(|(object, origin)| {
                !mesh_api::admit::is_refused(&mesh_api::admit::admit(object, Some(origin)))
            })
    };
    away().into_iter().filter(is_sound).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What changed is found by looking at one file only; that must be the whole truth.
    #[test]
    fn a_call_says_changed_exactly_if_the_index_is_another_one(calls in calls(away())) {
        let mut index = shop_and(&[]);
        for call in &calls {
            let before = index.clone();
            let said = make(&mut index, call);
            prop_assert_eq!(said == Changed::Yes, index != before, "{:?}", call);
        }
    }

    /// However the last state came about, nothing else is left.
    #[test]
    fn the_index_is_what_the_files_say_last(calls in calls(sound())) {
        let (mut index, mut fresh) = (shop_and(&[]), shop_and(&[]));
        for call in &calls {
            let _ = make(&mut index, call);
        }
        for number in 0..3 {
            if let Some(last) = calls.iter().rfind(|call| call.0 == number) {
                let _ = make(&mut fresh, last);
            }
        }
        prop_assert_eq!(index, fresh);
    }

    #[test]
    fn one_namespace_never_changes_what_is_compiled_for_another(documents in subsequence(away(), 0..=13)) {
        let alone = compile(&shop_and(&[]), &Enrolled::default());
        let together = compile(&shop_and(&[("away.yaml".to_owned(), documents.concat())]), &Enrolled::default());
        prop_assert_eq!(of_shop(&alone), of_shop(&together));
    }

    #[test]
    fn the_order_in_which_files_are_read_does_not_matter(documents in subsequence(away(), 0..=13).prop_shuffle()) {
        let named = |(number, text): (usize, &String)| (format!("{:02}.yaml", number), text.clone());
        let files: Vec<(String, String)> = documents.iter().enumerate().map(named).collect();
        let backwards: Vec<(String, String)> = files.iter().rev().cloned().collect();
        let (one, other) = (shop_and(&files), shop_and(&backwards));
        prop_assert_eq!(compile(&one, &Enrolled::default()), compile(&other, &Enrolled::default()));
    }

    #[test]
    fn a_file_that_comes_and_goes_leaves_nothing(documents in subsequence(away(), 0..=13)) {
        let before = shop_and(&[]);
        let mut after = shop_and(&[("away.yaml".to_owned(), documents.concat())]);
        let _ = after.remove_file("away.yaml");
        prop_assert_eq!(before, after);
    }

    #[test]
    fn no_text_makes_the_reader_fail(text in "\\PC{0,200}") {
        let _ = parse("any.yaml", &text);
    }

    /// A policy with any one byte damaged is refused, or is the policy it says it is: never silently half of it.
    #[test]
    fn a_damaged_policy_is_named_or_whole(at in 0_usize..400, byte in b' '..b'~') {
        let text = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata:\n  name: guard\n  namespace: shop\nspec:\n  action: DENY\n  rules:\n    - from:\n        - source:\n            principals: [cluster.local/ns/shop/sa/front]\n      to:\n        - operation:\n            methods: [GET]\n            ports: ['8080']\n";
        let mut bytes = text.as_bytes().to_vec();
        let at = at % bytes.len();
        bytes[at] = byte;
        let damaged = String::from_utf8(bytes).expect("ASCII");
        let parsed = parse("p.yaml", &damaged);
        let said = !parsed.diagnostics.is_empty();
        let written: Vec<_> = parsed.objects.iter().map(|(object, _)| format!("{object:?}")).collect();
        prop_assert!(said || written.len() == 1, "{damaged}");
    }

    #[test]
    fn durations_are_read_as_go_writes_them(hours in 0_u64..100, minutes in 0_u64..60, millis in 1_u64..60_000) {
        let route = format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: v, namespace: shop}}\nspec: {{hosts: [back], http: [{{timeout: {hours}h{minutes}m{}.{:03}s, route: [{{destination: {{host: back}}}}]}}]}}\n",
            millis / 1000,
            millis % 1000
        );
        let compiled = compile(&shop_and(&[("v.yaml".to_owned(), route)]), &Enrolled::default());
        let timeouts: Vec<_> = compiled
            .resources
            .values()
            .filter_map(|resource| match resource {
                Resource::Routes(table) if &*table.key.name == "v" => table.rules[0].timeout,
                _ => None,
            })
            .collect();
        let expected = std::time::Duration::from_millis(hours * 3_600_000 + minutes * 60_000 + millis);
        prop_assert_eq!(timeouts, [expected]);
    }
}
