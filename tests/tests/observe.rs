//! What people and their tools see: metrics with all labels, the access log, readiness, and meshctl.

use std::io::{BufRead, BufReader, Write};

use anyhow::Result;
use mesh_tests::World;

/// What every series of HTTP carries (semantics.md §5.1); a tool skips a series that lacks one.
const LABELS: &[&str] = &[
    "reporter",
    "source_workload",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_cluster",
    "source_canonical_service",
    "source_canonical_revision",
    "destination_workload",
    "destination_workload_namespace",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_cluster",
    "destination_canonical_service",
    "destination_canonical_revision",
    "destination_service",
    "destination_service_name",
    "destination_service_namespace",
    "request_protocol",
    "response_code",
    "grpc_response_status",
    "response_flags",
    "connection_security_policy",
];

#[test]
fn both_reporters_count_requests_and_bytes_with_every_label() {
    World::new("labels").run(|world| {
        world.service("b").create()?;
        let a = world.pod("a").node(1).spawn()?;
        world.pod("b").version("v7").node(2).spawn()?;
        world.settle()?;
        a.call("http://b.shop/").times(5).answers()?;
        a.talk("b.shop:9000", &["send:hello", "until:hello", "shut", "eof"])?.done()?;
        for (node, reporter, security) in [(1, "source", "unknown"), (2, "destination", "mutual_tls")] {
            let metrics = world.metrics(node)?;
            let ours = [("reporter", reporter), ("destination_workload", "b")];
            assert_eq!(metrics.sum("istio_requests_total", &ours), 5.0, "{reporter}");
            assert_eq!(metrics.sum("istio_request_duration_milliseconds_count", &ours), 5.0, "{reporter}");
            assert!(metrics.sum("istio_tcp_connections_opened_total", &ours) >= 1.0, "{reporter}");
            let bytes =
                ["sent", "received"].map(|way| metrics.sum(&format!("istio_tcp_{way}_bytes_total"), &ours));
            assert!(bytes.iter().all(|bytes| *bytes >= 5.0), "{reporter}: {bytes:?}");
            for sample in metrics.samples("istio_requests_total", &ours) {
                let missing: Vec<_> =
                    LABELS.iter().filter(|label| !sample.labels.contains_key(**label)).collect();
                assert!(missing.is_empty(), "{reporter}: without {missing:?}");
                let label = |name: &str| sample.labels[name].as_str();
                assert_eq!(label("destination_service"), "b.shop.svc.cluster.local");
                assert_eq!((label("source_workload"), label("destination_version")), ("a", "v7"));
                assert_eq!((label("response_code"), label("response_flags")), ("200", "-"));
                assert_eq!(label("connection_security_policy"), security, "{reporter}");
            }
        }
        Ok(())
    });
}

#[test]
fn the_access_log_names_caller_and_callee() {
    World::new("access-log").run(|world| {
        world.service("b").create()?;
        let a = world.pod("a").node(1).spawn()?;
        world.pod("b").node(2).spawn()?;
        world.settle()?;
        a.call("http://b.shop/logged?q=1").header("user-agent", "the-test").send()?;
        for (node, reporter) in [(1, "source"), (2, "destination")] {
            let logged = |line: &str| line.contains("\"GET /logged?q=1 HTTP/1.1\" 200");
            let line = world.await_line(&format!("node-{node}"), logged)?;
            for part in
                [format!("reporter={reporter}"), "shop/a".into(), "shop/b".into(), "\"the-test\"".into()]
            {
                assert!(line.contains(&part), "{part} is not in {line}");
            }
        }
        Ok(())
    });
}

#[test]
fn meshctl_tells_status_and_configuration() {
    World::new("meshctl").run(|world| {
        world.service("b").create()?;
        let a = world.pod("a").node(1).spawn()?;
        let b = world.pod("b").node(2).spawn()?;
        world.settle()?;
        a.get("http://b.shop/")?;
        let (code, text) = world.meshctl(&["status"])?;
        assert_eq!(code, 0, "{text}");
        assert!(text.contains("node-1") && text.contains("node-2"), "{text}");
        for node in ["node-1", "node-2"] {
            let workloads = world.meshctl_json(&["config", "workloads", "--node", node])?.to_string();
            assert!(
                workloads.contains(&a.identity()) && workloads.contains(&b.identity()),
                "{node}: {workloads}"
            );
        }
        let certificates = world.meshctl_json(&["config", "certs", "--node", "node-1"])?.to_string();
        assert!(
            certificates.contains(&a.identity()) && !certificates.contains(&b.identity()),
            "{certificates}"
        );
        let (code, text) = world.meshctl(&["version"])?;
        assert_eq!(code, 0, "{text}");
        Ok(())
    });
}

#[test]
fn meshctl_explains_what_the_data_path_does() {
    World::new("explain").run(|world| {
        world.service("b").create()?;
        let a = world.pod("a").node(1).spawn()?;
        let b = world.pod("b").node(2).spawn()?;
        world.apply(
            "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-secrets, namespace: shop}
spec:
  selector: {matchLabels: {app: b}}
  action: DENY
  rules: [{to: [{operation: {paths: [/secret]}}]}]
",
        )?;
        world.settle()?;
        for (path, status, code) in [("/open", 200, 0), ("/secret", 403, 2)] {
            assert_eq!(a.get(&format!("http://b.shop{path}"))?.status(), status);
            let ask = [
                "authz",
                "check",
                "--from",
                "sa/a.shop",
                "--to",
                "pod/b.shop",
                "--port",
                "80",
                "--path",
                path,
            ];
            let (answer, text) = world.meshctl(&ask)?;
            assert_eq!(answer, code, "{path}: {text}");
            let verdict = text.lines().next().unwrap_or_default();
            assert_eq!(verdict.contains("no-secrets"), status == 403, "{path}: {text}");
        }
        let ask = ["route", "check", "--from", "pod/a.shop", "--to", "http://b.shop/"];
        let (code, text) = world.meshctl(&ask)?;
        assert!(code == 0 && text.contains(&b.ip4().to_string()), "{code}: {text}");
        Ok(())
    });
}

#[test]
fn readiness_says_why_not() {
    World::new("ready").nodes(1).run(|world| {
        world.pod("a").spawn()?;
        world.settle()?;
        let (status, page) = world.node_page(1, "/readyz")?;
        assert_eq!(status, 200, "{page}");
        assert_eq!(world.node_page(1, "/healthz")?.0, 200);
        world.kill_controller();
        world.kill_agent(1);
        world.start_agent(1)?;
        // A new agent without a controller has no snapshot to serve by, and says so.
        let reasons =
            mesh_tests::eventually("an answer of the new agent", std::time::Duration::from_secs(5), || {
                world.node_page(1, "/readyz").ok().filter(|(status, _)| *status == 503)
            })?;
        assert!(!reasons.1.is_empty(), "503 without a reason");
        world.start_controller()?;
        world.await_agent(1)
    });
}

/// Set in a second process of the next test, which then plays the part of the killed one.
const VICTIM: &str = "MESH_WORLD_VICTIM";

fn be_the_victim() {
    World::new("victim").nodes(1).run(|world| -> Result<()> {
        world.pod("a").spawn()?;
        world.settle()?;
        writeln!(std::io::stdout(), "victim is {}", world.name())?;
        loop {
            std::thread::park();
        }
    });
}

#[test]
fn what_a_killed_run_left_is_removed_by_the_next() {
    if std::env::var_os(VICTIM).is_some() {
        return be_the_victim();
    }
    World::new("survivor").nodes(1).run(|survivor| {
        let myself = std::env::current_exe()?;
        let mut victim = std::process::Command::new(myself)
            .args(["what_a_killed_run_left_is_removed_by_the_next", "--exact", "--nocapture"])
            .env(VICTIM, "yes")
            .stdout(std::process::Stdio::piped())
            .spawn()?;
        let lines = victim.stdout.take().map(|stdout| BufReader::new(stdout).lines());
        let mut lines = lines.into_iter().flatten().map_while(Result::ok);
        let name = lines.find_map(|line| line.split_once("victim is ").map(|(_, name)| name.to_owned()));
        victim.kill()?;
        victim.wait()?;
        let name = name.ok_or_else(|| anyhow::anyhow!("the victim did not start"))?;
        assert!(
            !mesh_tests::traces(&name).is_empty(),
            "a kill -9 leaves names behind; how else would this test anything?"
        );
        World::new("next").nodes(1).without_mesh().run(|_| Ok(()));
        let left = mesh_tests::traces(&name);
        assert!(left.is_empty(), "still there: {left:?}");
        // And a living neighbour was not touched.
        survivor.pod("a").spawn()?;
        survivor.settle()?;
        Ok(())
    });
}
