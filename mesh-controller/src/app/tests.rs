//! The whole controller over real TLS on loopback, with nodes that are a few lines of client.

use std::{fs, path::Path};

use mesh_proto::v1;
use tokio_util::sync::CancellationToken;
use tonic::Code;

mod client;

use client::{Bench, NODE_1, NODE_2, POD_A, POD_B, captures, refuses, workload};

#[tokio::test]
async fn enrolled_pods_are_published_when_their_node_captured_them() {
    let bench = Bench::start(&[NODE_1, NODE_2, POD_A, POD_B]).await;
    let one = bench.node("node-1", captures).await;
    let two = bench.node("node-2", captures).await;
    let settled = bench.settle().await;
    assert!(settled.settled, "{settled:?}");
    for node in [&one, &two] {
        let a = node.workload("a").unwrap();
        assert!(!a.enrolled && a.tunnel() == v1::Tunnel::None);
    }

    bench.label("shop", "enabled");
    let settled = bench.settle().await;
    assert!(settled.settled, "{settled:?}");
    for node in [&one, &two] {
        for name in ["a", "b"] {
            let workload = node.workload(name).unwrap();
            assert!(workload.enrolled && workload.tunnel() == v1::Tunnel::Hbone, "{name}");
        }
    }
    assert_eq!(one.never_hbone_before_captured(), Ok(()));

    bench.label("shop", "disabled");
    let settled = bench.settle().await;
    assert!(settled.settled, "{settled:?}");
    for node in [&one, &two] {
        let a = node.workload("a").unwrap();
        assert!(!a.enrolled && a.tunnel() == v1::Tunnel::None);
        assert_eq!(node.never_released_while_hbone("b"), Ok(()));
    }
    bench.stop().await;
}

#[tokio::test]
async fn settle_says_in_words_what_is_awaited() {
    let bench = Bench::start(&[NODE_1, NODE_2, POD_A, POD_B]).await;
    bench.label("shop", "enabled");
    let node = bench.node("node-1", |_| None).await;
    let reply = bench.settle_for(300).await;
    assert!(!reply.settled);
    assert!(reply.pending.iter().any(|line| line == "node-2 not connected"), "{:?}", reply.pending);
    let capture = |line: &String| line == "waiting for capture of shop/a on node-1";
    assert!(reply.pending.iter().any(capture), "{:?}", reply.pending);
    assert!(!reply.pending.iter().any(|line| line.contains("shop/b")), "{:?}", reply.pending);
    drop(node);

    let _refusing = bench.node("node-1", refuses).await;
    let reply = bench.settle().await;
    assert!(reply.settled, "a refusal with a reason is an answer: {reply:?}");
    assert!(bench.status().await.nodes[0].workloads[0].reason.contains("no such netns"));
    let finding = reply.diagnostics.iter().find(|finding| finding.object == "Pod shop/a").unwrap();
    assert_eq!(finding.message, "node-1 does not capture it: no such netns");
    bench.stop().await;
}

#[tokio::test]
async fn certificates_only_for_what_is_placed_on_the_asking_node() {
    let bench = Bench::start(&[NODE_1, NODE_2, POD_A, POD_B]).await;
    let denied = bench.sign("node-1", Some("a")).await.unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied);
    assert!(denied.message().contains("not enrolled"), "{denied}");
    bench.label("shop", "enabled");
    bench.settle().await;

    let reply = bench.sign("node-1", Some("a")).await.unwrap();
    assert_eq!((reply.chain.len(), reply.roots.len()), (1, 1));
    assert!(reply.not_after > reply.not_before);
    for (node, account) in [("node-1", "b"), ("node-2", "a"), ("node-1", "nobody")] {
        let denied = bench.sign(node, Some(account)).await.unwrap_err();
        assert_eq!(denied.code(), Code::PermissionDenied, "{node} {account}");
        assert!(denied.message().contains("no live pod"), "{denied}");
    }
    bench.sign("node-1", None).await.unwrap();
    bench.write("pod-a.yaml", &POD_A.1.replace("phase: Running", "phase: Succeeded"));
    bench.settle().await;
    let denied = bench.sign("node-1", Some("a")).await.unwrap_err();
    assert!(denied.message().contains("no live pod"), "a finished pod has no identity: {denied}");
    bench.stop().await;
}

#[tokio::test]
async fn pods_without_account_and_mirror_pods_have_no_identity() {
    let bench = Bench::start(&[NODE_1, POD_A]).await;
    bench.label("shop", "enabled");
    let mirror = "annotations: {kubernetes.io/config.mirror: abc, ";
    for changed in [
        POD_A.1.replace("serviceAccountName: a", "serviceAccountName: ''"),
        POD_A.1.replace("annotations: {", mirror),
        POD_A.1.replace("phase: Running", "phase: Failed"),
    ] {
        assert_ne!(changed, POD_A.1);
        bench.write("pod-a.yaml", &changed);
        bench.settle().await;
        assert!(bench.sign("node-1", Some("a")).await.is_err(), "{changed}");
    }
    bench.write("pod-a.yaml", POD_A.1);
    bench.settle().await;
    bench.sign("node-1", Some("a")).await.unwrap();
    bench.stop().await;
}

#[tokio::test]
async fn callers_without_the_right_token_get_nothing() {
    let bench = Bench::start(&[NODE_1, NODE_2]).await;
    for token in ["", "wrong", &bench.token("admin.token")] {
        let refused = bench.sync_with(token, "node-1").await;
        assert_eq!(refused.unwrap_err().code(), Code::Unauthenticated, "{token:?}");
    }
    let other = bench.sync_with(&bench.token("nodes/node-2.token"), "node-1").await.unwrap_err();
    assert_eq!(other.code(), Code::PermissionDenied);
    assert!(other.message().contains("the token is of node node-2"), "{other}");
    let mut inspect = bench.inspect(&bench.token("nodes/node-1.token")).await;
    assert_eq!(inspect.status(v1::StatusRequest {}).await.unwrap_err().code(), Code::Unauthenticated);
    bench.stop().await;
}

#[tokio::test]
async fn a_node_that_is_no_object_any_more_loses_stream_and_token() {
    let bench = Bench::start(&[NODE_1, NODE_2]).await;
    let token = bench.token("nodes/node-2.token");
    let node = bench.node("node-2", captures).await;
    assert!(bench.settle().await.settled);
    fs::remove_file(bench.directory().join("node-2.yaml")).unwrap();
    bench.settle().await;
    let end = node.end().await;
    assert_eq!(end.unwrap().code(), Code::PermissionDenied);
    assert_eq!(bench.sync_with(&token, "node-2").await.unwrap_err().code(), Code::Unauthenticated);
    bench.stop().await;
}

#[tokio::test]
async fn a_second_stream_replaces_the_first() {
    let bench = Bench::start(&[NODE_1]).await;
    let first = bench.node("node-1", captures).await;
    let second = bench.node("node-1", captures).await;
    assert_eq!(first.end().await.unwrap().code(), Code::Aborted);
    assert!(bench.settle().await.settled);
    assert!(second.complete());
    bench.stop().await;
}

#[tokio::test]
async fn a_broken_file_keeps_its_last_good_state_and_is_named() {
    let bench = Bench::start(&[NODE_1, POD_A]).await;
    let node = bench.node("node-1", captures).await;
    bench.settle().await;
    assert!(node.workload("a").is_some());
    bench.write("pod-a.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: [\n");
    let reply = bench.settle().await;
    assert!(reply.settled);
    assert!(node.workload("a").is_some(), "the last good state stays");
    let finding = &reply.diagnostics[0];
    assert!(finding.origin.starts_with("pod-a.yaml:"), "{finding:?}");
    assert_eq!(finding.severity(), v1::Severity::Error);

    fs::remove_file(bench.directory().join("pod-a.yaml")).unwrap();
    let reply = bench.settle().await;
    assert!(reply.settled && reply.diagnostics.is_empty(), "{reply:?}");
    assert!(node.workload("a").is_none(), "a deleted file deletes");
    bench.stop().await;
}

#[tokio::test]
async fn after_a_restart_hbone_is_never_taken_back_and_nothing_is_sent_twice() {
    let mut bench = Bench::start(&[NODE_1, NODE_2, POD_A, POD_B]).await;
    bench.label("shop", "enabled");
    let one = bench.node("node-1", captures).await;
    let two = bench.node("node-2", captures).await;
    assert!(bench.settle().await.settled);
    assert_eq!(two.workload("a").unwrap().tunnel(), v1::Tunnel::Hbone);
    let held = two.held();
    drop((one, two));
    bench.restart().await;

    // node-1, where `a` runs, is not back yet: `a` stays HBONE for node-2.
    let two = bench.node_with("node-2", captures, held).await;
    let reply = bench.settle().await;
    assert!(reply.settled, "{reply:?}");
    assert!(two.complete());
    assert_eq!(two.received(), 0, "it holds everything already");
    bench.stop().await;
}

#[tokio::test]
async fn grants_dumps_and_status() {
    let bench = Bench::start(&[NODE_1, NODE_2, POD_A]).await;
    let _node = bench.node("node-1", captures).await;
    bench.settle().await;
    let mut inspect = bench.inspect(&bench.token("admin.token")).await;
    let grant = inspect.grant(v1::GrantRequest { node: "node-1".into() }).await.unwrap().into_inner();
    assert_eq!(grant.node_identity, "spiffe://cluster.local/tulle/node/node-1");
    assert_eq!(grant.inspect_address, "127.0.0.1:1");
    assert_eq!(grant.token.split('.').count(), 3);
    let away = inspect.grant(v1::GrantRequest { node: "node-2".into() }).await.unwrap_err();
    assert_eq!(away.code(), Code::NotFound);

    let of = |node: &str| v1::DumpRequest { node: node.to_owned() };
    let netns = |reply: v1::DumpReply| {
        let workloads = reply.resources.into_iter().filter_map(workload);
        workloads.map(|workload| workload.netns).collect::<Vec<_>>()
    };
    let all = inspect.dump(of("")).await.unwrap().into_inner();
    assert_eq!(netns(all), [Some("/run/netns/tl-a".to_owned())]);
    assert_eq!(netns(inspect.dump(of("node-2")).await.unwrap().into_inner()), [None]);
    assert_eq!(inspect.dump(of("node-9")).await.unwrap_err().code(), Code::NotFound);

    let status = bench.status().await;
    let connected: Vec<bool> = status.nodes.iter().map(|node| node.connected).collect();
    assert_eq!(connected, [true, false]);
    assert_eq!(status.nodes[0].acked_generation, status.generation);
    assert!(Path::new(status.source.trim_start_matches("dir:")).is_dir());
    bench.stop().await;
}

#[tokio::test]
async fn a_task_that_panics_ends_the_process_with_its_name() {
    let stop = CancellationToken::new();
    let mut rooms = super::Rooms::new(stop.clone());
    let waiting = stop.clone();
    rooms.open("patient", async move { waiting.cancelled().await });
    rooms.open("hasty", async { panic!("on purpose") });
    stop.cancelled().await;
    assert_eq!(rooms.close().await.unwrap_err().to_string(), "the hasty failed");
}
