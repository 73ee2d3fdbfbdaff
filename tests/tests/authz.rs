//! Who may call whom: PeerAuthentication, AuthorizationPolicy, and ways around them that must not work.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use mesh_tests::{Outcome, Pod, World};

/// What every refusal of an HTTP request says.
const DENIED: &str = "RBAC: access denied";

/// A policy for `b` (label `app: b`) of this action (empty: the default) with this rest of the spec.
fn policy(name: &str, action: &str, rest: &str) -> String {
    let action = if action.is_empty() { String::new() } else { format!("  action: {action}\n") };
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec:\n  selector: {{matchLabels: {{app: b}}}}\n{action}  {rest}\n"
    )
}

/// A PeerAuthentication; `selector` and `ports` are YAML of the spec, or empty.
fn peer_authentication(name: &str, namespace: &str, mode: &str, rest: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec: {{mtls: {{mode: {mode}}}{rest}}}\n"
    )
}

/// Callers `a` and `other` on node 1, `b` on node 1 (`near`) and node 2 (`far`), both behind the service `b`.
fn with_callers(name: &str, story: impl FnOnce(&World, &Pod, &Pod, &[&Pod]) -> Result<()>) {
    World::new(name).run(|world| {
        world.service("b").create()?;
        let a = world.pod("a").node(1).spawn()?;
        let other = world.pod("other").namespace("elsewhere").node(1).spawn()?;
        let near = world.pod("near").label("app", "b").service_account("b").node(1).spawn()?;
        let far = world.pod("far").label("app", "b").service_account("b").node(2).spawn()?;
        world.settle()?;
        story(world, &a, &other, &[&near, &far])
    });
}

fn status(caller: &Pod, callee: &Pod, path: &str) -> Result<u16> {
    let answer = caller.get(&format!("http://{}{path}", callee.at(80)))?;
    if answer.status() == 403 {
        assert_eq!(answer.body().as_str(), Some(DENIED));
    }
    Ok(answer.status())
}

fn tcp_works(caller: &Pod, callee: &Pod) -> Result<bool> {
    let talk = caller.talk(&callee.at(9000), &["send:x", "read:1"])?;
    assert!(talk.error.is_none() || talk.millis < 2000.0, "a refusal must not hang: {talk:?}");
    Ok(talk.error.is_none())
}

#[test]
fn strict_permissive_and_a_port_exception() {
    World::new("mtls-modes").run(|world| {
        let inside = world.pod("in").node(1).spawn()?;
        let outsider = world.pod("out").namespace("legacy").opt_out().node(1).spawn()?;
        let near = world.pod("near").label("app", "b").node(1).spawn()?;
        let far = world.pod("far").label("app", "b").node(2).spawn()?;
        world.settle()?;
        let check = |what: &str, http: bool, tcp: bool| -> Result<()> {
            for callee in [&near, &far] {
                let url = format!("http://{}/", callee.at(80));
                let from_outside = matches!(outsider.call(&url).timeout(3.0).outcome()?, Outcome::Answer(answer) if answer.status() == 200);
                assert_eq!(from_outside, http, "{what}: HTTP of the outsider to {}", callee.name());
                assert_eq!(tcp_works(&outsider, callee)?, tcp, "{what}: TCP of the outsider to {}", callee.name());
                assert_eq!(inside.get(&url)?.status(), 200, "{what}: the mesh itself");
                assert!(tcp_works(&inside, callee)?, "{what}: the mesh itself");
            }
            Ok(())
        };
        check("permissive is the default", true, true)?;
        world.apply(&peer_authentication("default", "shop", "STRICT", ""))?;
        world.settle()?;
        check("namespace STRICT", false, false)?;
        let selector = ", selector: {matchLabels: {app: b}}";
        let ports = format!("{selector}, portLevelMtls: {{80: {{mode: PERMISSIVE}}}}");
        world.apply(&peer_authentication("b", "shop", "STRICT", &ports))?;
        world.settle()?;
        check("port 80 PERMISSIVE", true, false)?;
        world.apply(&peer_authentication("b", "shop", "PERMISSIVE", selector))?;
        world.settle()?;
        check("workload PERMISSIVE wins", true, true)?;
        world.delete("PeerAuthentication", "shop", "b")?;
        world.delete("PeerAuthentication", "shop", "default")?;
        world.apply(&peer_authentication("default", "istio-system", "STRICT", ""))?;
        world.settle()?;
        check("mesh STRICT", false, false)
    });
}

#[test]
fn deny_goes_before_allow() {
    with_callers("precedence", |world, a, other, callees| {
        world.apply(&policy("allow", "ALLOW", "rules: [{from: [{source: {principals: ['*']}}]}]"))?;
        world.apply(&policy("deny", "DENY", "rules: [{from: [{source: {namespaces: [elsewhere]}}]}]"))?;
        world.settle()?;
        for b in callees {
            assert_eq!((status(a, b, "/")?, status(other, b, "/")?), (200, 403));
            assert_eq!((tcp_works(a, b)?, tcp_works(other, b)?), (true, false));
        }
        Ok(())
    });
}

#[test]
fn an_empty_spec_denies_and_an_empty_rule_allows() {
    with_callers("empty", |world, a, other, callees| {
        let empty = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: shop}\nspec: {}\n";
        world.apply(empty)?;
        world.settle()?;
        for b in callees {
            assert_eq!((status(a, b, "/")?, tcp_works(a, b)?), (403, false), "spec: {{}} allows nothing");
        }
        world.apply(&policy("all", "", "rules: [{}]"))?;
        world.settle()?;
        for b in callees {
            assert_eq!(
                (status(a, b, "/")?, status(other, b, "/")?, tcp_works(a, b)?),
                (200, 200, true),
                "rules: [{{}}]"
            );
        }
        world.apply(&policy("none", "DENY", "rules: [{}]"))?;
        world.settle()?;
        for b in callees {
            assert_eq!(
                (status(a, b, "/")?, tcp_works(a, b)?),
                (403, false),
                "a DENY with an empty rule denies all"
            );
        }
        Ok(())
    });
}

#[test]
fn every_field_of_a_rule_and_its_not() {
    with_callers("fields", |world, a, other, callees| {
        let address = a.ip4();
        let cases: &[(&str, &str, (u16, u16))] = &[
            ("principals", "from: [{source: {principals: [cluster.local/ns/shop/sa/a]}}]", (200, 403)),
            ("notPrincipals", "from: [{source: {notPrincipals: [cluster.local/ns/shop/sa/a]}}]", (403, 200)),
            ("namespaces", "from: [{source: {namespaces: [else*]}}]", (403, 200)),
            ("notNamespaces", "from: [{source: {notNamespaces: [elsewhere]}}]", (200, 403)),
            ("ipBlocks", &format!("from: [{{source: {{ipBlocks: [{address}/32]}}}}]"), (200, 403)),
            ("notIpBlocks", &format!("from: [{{source: {{notIpBlocks: [{address}]}}}}]"), (403, 200)),
            ("ports", "to: [{operation: {ports: ['80']}}]", (200, 200)),
            ("notPorts", "to: [{operation: {notPorts: ['80']}}]", (403, 403)),
            ("methods", "to: [{operation: {methods: [POST]}}]", (403, 403)),
            ("notMethods", "to: [{operation: {notMethods: [POST]}}]", (200, 200)),
            ("paths", "to: [{operation: {paths: [/x*, /y]}}]", (200, 200)),
            ("notPaths", "to: [{operation: {notPaths: [/x/1]}}]", (403, 403)),
            ("hosts", "to: [{operation: {hosts: [b.shop]}}]", (200, 200)),
            ("notHosts", "to: [{operation: {notHosts: [b.*]}}]", (403, 403)),
        ];
        for (field, rule, expected) in cases {
            world.apply(&policy("p", "ALLOW", &format!("rules: [{{{rule}}}]")))?;
            world.settle()?;
            for b in callees {
                let from = |caller: &Pod| -> Result<u16> {
                    Ok(caller
                        .call(&format!("http://{}/x/1", b.at(80)))
                        .header("host", "b.shop")
                        .send()?
                        .status())
                };
                assert_eq!((from(a)?, from(other)?), *expected, "{field} at {}", b.name());
            }
        }
        Ok(())
    });
}

#[test]
fn which_policy_decided_is_told() {
    with_callers("told", |world, a, _, callees| {
        world.apply(&policy("closed-shop", "DENY", "rules: [{to: [{operation: {paths: [/secret]}}]}]"))?;
        world.settle()?;
        for b in callees {
            assert_eq!((status(a, b, "/")?, status(a, b, "/secret")?), (200, 403));
            let refused = |line: &str| line.contains("/secret") && line.contains("403");
            let line = world.await_line(&format!("node-{}", b.node()), refused)?;
            assert!(line.contains("closed-shop"), "no policy in the access log: {line}");
        }
        Ok(())
    });
}

#[test]
fn paths_are_normalised_before_policies_see_them() {
    with_callers("paths", |world, a, _, callees| {
        world.apply(&policy("admin", "DENY", "rules: [{to: [{operation: {paths: [/admin, /admin/*]}}]}]"))?;
        let settled = world.settle()?;
        for b in callees {
            for path in [
                "/admin",
                "/x/../admin",
                "/./admin",
                "/%2e/admin",
                "/x/%2e%2E/admin",
                "/admin/./x",
                "/admin?q=1",
            ] {
                assert_eq!(status(a, b, path)?, 403, "{path} at {}", b.name());
            }
            // BASE leaves these as they are; whoever denies a path is told so below.
            for path in ["//admin", "/%2Fadmin", "/x/..%2fadmin"] {
                let answer = a.get(&format!("http://{}{path}", b.at(80)))?;
                assert_eq!((answer.status(), answer.text("/path")), (200, path), "at {}", b.name());
            }
            let answer = a.get(&format!("http://{}/x/../y/./z", b.at(80)))?;
            assert_eq!(answer.text("/path"), "/y/z", "the application sees what the policy saw");
        }
        let finding = settled.diagnostics.iter().find(|finding| finding.object.contains("admin"));
        assert!(
            finding.is_some_and(|finding| finding.field.contains("paths")),
            "no finding: {:?}",
            settled.diagnostics
        );
        Ok(())
    });
}

#[test]
fn a_policy_flip_ends_the_forbidden_connection_and_no_other() {
    with_callers("flip", |world, a, other, callees| {
        for b in callees {
            let forbidden = a.hold(&b.at(9000))?;
            let allowed = other.hold(&b.at(9000))?;
            world.apply(&policy("flip", "DENY", "rules: [{from: [{source: {namespaces: [shop]}}]}]"))?;
            world.settle()?;
            let settled = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as u64;
            let end = forbidden.await_break(Duration::from_secs(5))?;
            assert!(end.ended_unix_millis <= settled + 1000, "{} ms late", end.ended_unix_millis - settled);
            let end = allowed.stop()?;
            assert!(!end.broken, "{end:?}");
            world.delete("AuthorizationPolicy", "shop", "flip")?;
            world.settle()?;
            assert!(tcp_works(a, b)?);
        }
        Ok(())
    });
}

#[test]
fn strict_ends_live_plaintext_connections() {
    World::new("strict-flip").run(|world| {
        let inside = world.pod("in").node(1).spawn()?;
        let outsider = world.pod("out").namespace("legacy").opt_out().node(1).spawn()?;
        let b = world.pod("b").node(2).spawn()?;
        world.settle()?;
        let (plain, secure) = (outsider.hold(&b.at(9000))?, inside.hold(&b.at(9000))?);
        world.apply(&peer_authentication("default", "shop", "STRICT", ""))?;
        world.settle()?;
        let end = plain.await_break(Duration::from_secs(2))?;
        assert!(end.broken);
        assert!(!secure.stop()?.broken);
        Ok(())
    });
}

#[test]
fn a_forged_client_certificate_header_changes_nothing() {
    with_callers("forged", |world, a, _, callees| {
        world.apply(&policy(
            "only-boss",
            "ALLOW",
            "rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/boss]}}]}]",
        ))?;
        world.settle()?;
        let forged =
            "By=spiffe://cluster.local/ns/shop/sa/b;Hash=00;URI=spiffe://cluster.local/ns/shop/sa/boss";
        for b in callees {
            let call = || a.call(&format!("http://{}/", b.at(80))).header("x-forwarded-client-cert", forged);
            assert_eq!(call().send()?.status(), 403);
        }
        world.delete("AuthorizationPolicy", "shop", "only-boss")?;
        world.settle()?;
        for b in callees {
            let call = a.call(&format!("http://{}/", b.at(80))).header("x-forwarded-client-cert", forged);
            let answer = call.send()?;
            let seen = answer.seen("x-forwarded-client-cert").unwrap_or_default();
            assert!(!seen.contains("sa/boss"), "the application was told a forged identity: {seen}");
        }
        Ok(())
    });
}

#[test]
fn request_smuggling_changes_nothing() {
    with_callers("smuggling", |world, a, _, callees| {
        world.apply(&policy("admin", "DENY", "rules: [{to: [{operation: {paths: [/admin]}}]}]"))?;
        world.settle()?;
        let hidden = "GET /admin HTTP/1.1\\r\\nhost: b\\r\\n\\r\\n";
        let cases = [
            // Both lengths: by CL the hidden request is body, by TE it is a second request.
            format!(
                "POST / HTTP/1.1\\r\\nhost: b\\r\\ncontent-length: {}\\r\\ntransfer-encoding: chunked\\r\\n\\r\\n0\\r\\n\\r\\n{hidden}",
                5 + 32
            ),
            format!(
                "POST / HTTP/1.1\\r\\nhost: b\\r\\ncontent-length: 0\\r\\ncontent-length: 32\\r\\n\\r\\n{hidden}"
            ),
            format!(
                "POST / HTTP/1.1\\r\\nhost: b\\r\\ntransfer-encoding: xchunked\\r\\ncontent-length: 32\\r\\n\\r\\n{hidden}"
            ),
            format!(
                "POST / HTTP/1.1\\r\\nhost: b\\r\\ntransfer-encoding : chunked\\r\\ncontent-length: 32\\r\\n\\r\\n{hidden}"
            ),
            format!("GET / HTTP/1.1\\r\\nhost: b\\r\\n\\r\\n{hidden}"),
        ];
        for b in callees {
            for case in &cases {
                let talk = a.talk_with(&["--timeout", "1"], &b.at(80), &[&format!("send:{case}"), "eof"])?;
                assert!(
                    !talk.received.contains("\"path\":\"/admin\""),
                    "the hidden request was answered by {}: {case}\n{}",
                    b.name(),
                    talk.received
                );
            }
            assert_eq!(status(a, b, "/")?, 200);
        }
        Ok(())
    });
}
