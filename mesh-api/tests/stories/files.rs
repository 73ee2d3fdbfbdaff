//! The index over a directory: files come, break, are mended, go.

use mesh_api::{Changed, Code, Compiled, Enrolled, Index, Origin, compile, parse};
use mesh_model::resource::ResourceKey;

use crate::world::{Ask, SHOP, index};

fn service(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{ports: [{{port: 80}}]}}\n---\n"
    )
}

fn services(index: &Index) -> Vec<String> {
    let compiled: Compiled = compile(index, &Enrolled::default());
    let keys = compiled.resources.keys().filter_map(|key| match key {
        ResourceKey::Service(key) => key.host.as_str().split('.').next().map(str::to_owned),
        _ => None,
    });
    keys.collect()
}

#[test]
fn a_file_says_what_it_says_now() {
    let mut index = index(&[("a.yaml", &[service("one"), service("two")].concat())]);
    assert_eq!(services(&index), ["one", "two"]);
    assert_eq!(index.apply_file(parse("a.yaml", &service("two"))), Changed::Yes);
    assert_eq!(services(&index), ["two"]);
    assert_eq!(index.apply_file(parse("a.yaml", &service("two"))), Changed::No);
    assert_eq!(index.remove_file("a.yaml"), Changed::Yes);
    assert_eq!(services(&index), [] as [String; 0]);
    assert_eq!(index.remove_file("a.yaml"), Changed::No);
}

#[test]
fn a_broken_file_keeps_its_last_good_state_and_the_others_work() {
    let mut index =
        index(&[("a.yaml", &[service("one"), service("two")].concat()), ("b.yaml", &service("other"))]);
    let broken = [
        service("three"),
        "apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: {prots: []}\n".to_owned(),
    ]
    .concat();
    assert_eq!(index.apply_file(parse("a.yaml", &broken)), Changed::Yes, "there is something to say");
    assert_eq!(services(&index), ["one", "other", "two"]);
    assert_eq!(compile(&index, &Enrolled::default()).found(Code::UnknownField)[0].field, "spec.prots");

    let _ = index.apply_file(parse("b.yaml", &service("changed")));
    assert_eq!(services(&index), ["changed", "one", "two"]);

    let _ = index.apply_file(parse("a.yaml", &service("three")));
    assert_eq!(services(&index), ["changed", "three"]);
    assert_eq!(compile(&index, &Enrolled::default()).found(Code::UnknownField).len(), 0);
}

#[test]
fn a_file_that_never_was_good_gives_what_can_be_read() {
    let mut index = index(&[("a.yaml", &[service("one"), "kind: {\n".to_owned()].concat())]);
    assert_eq!(services(&index), ["one"]);
    let _ = index.apply_file(parse("a.yaml", &[service("two"), "kind: {\n".to_owned()].concat()));
    assert_eq!(services(&index), ["two"], "there is no good state to keep yet");
}

#[test]
fn replacing_all_forgets_files_that_are_gone() {
    let mut index = index(&[("a.yaml", &service("one")), ("b.yaml", &service("two"))]);
    let files = vec![parse("b.yaml", "kind: {\n"), parse("c.yaml", &service("three"))];
    assert_eq!(index.replace_all(files), Changed::Yes);
    assert_eq!(services(&index), ["three", "two"], "b is broken and keeps its state, a is gone");
}

#[test]
fn the_last_definition_counts_and_the_other_comes_back() {
    let with_port = |port: u16| service("one").replace("port: 80", &format!("port: {port}"));
    let mut index = index(&[("a.yaml", &with_port(1)), ("b.yaml", &with_port(2))]);
    let port = |index: &Index| {
        compile(index, &Enrolled::default()).service("one").map(|service| service.ports[0].port)
    };
    assert_eq!(port(&index), Some(2));
    assert_eq!(compile(&index, &Enrolled::default()).found(Code::DefinedTwice).len(), 1);
    let _ = index.remove_file("b.yaml");
    assert_eq!(port(&index), Some(1));

    let _ = index.apply_file(parse("a.yaml", &[with_port(3), with_port(4)].concat()));
    assert_eq!(port(&index), Some(4));
    assert_eq!(compile(&index, &Enrolled::default()).found(Code::DefinedTwice).len(), 1);
}

#[test]
fn a_watch_applies_and_deletes_single_objects() {
    let mut index = Index::new();
    let origin = Origin { file: "kubernetes".into(), line: 0 };
    for (object, _) in parse("x", &[SHOP.to_owned(), "---\n".to_owned(), service("one")].concat()).objects {
        assert_eq!(index.apply(object, origin.clone()), Changed::Yes);
    }
    assert_eq!(services(&index), ["back", "one"]);
    let (object, _) = parse("x", &service("one")).objects.remove(0);
    assert_eq!(index.apply(object.clone(), origin), Changed::No);
    assert_eq!(index.delete(&object.reference()), Changed::Yes);
    assert_eq!(services(&index), ["back"]);
    index.reset();
    assert_eq!(services(&index), [] as [String; 0]);
}
