//! The CustomResourceDefinitions.

use mesh_api::schema::definitions;
use serde_yaml_ng::Value;

#[test]
fn all_versions_are_served_and_one_is_stored() {
    let definitions = definitions().expect("writable");
    assert_eq!(definitions.len(), 4);
    for (file, text) in definitions {
        let definition: Value = serde_yaml_ng::from_str(&text).expect("YAML");
        assert_eq!(
            definition["metadata"]["name"].as_str().map(|name| format!("{name}.yaml")),
            Some(file.clone())
        );
        let versions = definition["spec"]["versions"].as_sequence().expect("versions");
        let stored = versions.iter().filter(|version| version["storage"].as_bool() == Some(true)).count();
        assert_eq!(stored, 1, "{file}");
        assert!(versions.iter().all(|version| version["served"].as_bool() == Some(true)), "{file}");
        let schemas: Vec<_> = versions.iter().map(|version| &version["schema"]).collect();
        assert!(schemas.iter().all(|schema| *schema == schemas[0]), "all versions mean the same");
    }
}

/// What the API server demands of a schema.
fn check_structural(schema: &Value, at: &str) {
    let free = schema["x-kubernetes-preserve-unknown-fields"].as_bool() == Some(true);
    let either = schema["x-kubernetes-int-or-string"].as_bool() == Some(true);
    assert!(free || either || schema["type"].is_string(), "{at} has no type");
    let known = [
        "additionalProperties",
        "description",
        "enum",
        "format",
        "items",
        "minItems",
        "properties",
        "required",
        "type",
        "x-kubernetes-int-or-string",
        "x-kubernetes-list-map-keys",
        "x-kubernetes-list-type",
        "x-kubernetes-preserve-unknown-fields",
    ];
    for key in schema.as_mapping().expect(at).keys().filter_map(Value::as_str) {
        assert!(known.contains(&key), "{at} has {key}");
    }
    for (name, property) in schema["properties"].as_mapping().into_iter().flatten() {
        check_structural(property, &format!("{at}.{}", name.as_str().expect(at)));
    }
    for part in ["items", "additionalProperties"] {
        if !schema[part].is_null() {
            check_structural(&schema[part], &format!("{at}[]"));
        }
    }
}

#[test]
fn schemas_are_structural() {
    for (file, text) in definitions().expect("writable") {
        let definition: Value = serde_yaml_ng::from_str(&text).expect("YAML");
        for version in definition["spec"]["versions"].as_sequence().expect("versions") {
            check_structural(&version["schema"]["openAPIV3Schema"], &file);
        }
    }
}

#[test]
fn kubectl_shows_what_matters_and_conditions_are_kept_by_type() {
    for (file, text) in definitions().expect("writable") {
        let definition: Value = serde_yaml_ng::from_str(&text).expect("YAML");
        for version in definition["spec"]["versions"].as_sequence().expect("versions") {
            let columns = version["additionalPrinterColumns"].as_sequence().expect("columns");
            let schema = &version["schema"]["openAPIV3Schema"]["properties"];
            for path in columns.iter().filter_map(|column| column["jsonPath"].as_str()) {
                let mut steps = path.split('.').filter(|step| !step.is_empty() && *step != "spec");
                let is_there = path == ".metadata.creationTimestamp"
                    || steps.try_fold(&schema["spec"], |at, step| at["properties"].get(step)).is_some();
                assert!(is_there, "{file}: {path}");
            }
            let conditions = &schema["status"]["properties"]["conditions"];
            assert_eq!(conditions["x-kubernetes-list-map-keys"][0].as_str(), Some("type"), "{file}");
            assert!(!version["subresources"]["status"].is_null(), "{file}");
        }
    }
}

#[test]
fn the_text_is_the_same_each_time() {
    assert_eq!(definitions().expect("writable"), definitions().expect("writable"));
}
