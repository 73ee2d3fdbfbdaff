//! Who is who: certificates, the wire, and those who pretend.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use mesh_proto::v1;
use mesh_proto::v1::control_client::ControlClient;
use mesh_tests::{Capture, Mesh, NodeStandIn, Outcome, Pod, World, bearer};

#[path = "identity/forge.rs"]
mod forge;

use forge::{Forger, Handshake, Validity};

const HBONE: u16 = 15008;

#[test]
fn no_plaintext_between_nodes() {
    World::new("wire").run(|world| {
        world.service("b").create()?;
        let a = world.pod("a").node(1).spawn()?;
        let b = world.pod("b").node(2).spawn()?;
        world.settle()?;
        let capture = world.capture()?;
        for family in ["v4", "v6"] {
            let call = a
                .call("http://b.shop/marker-in-the-path")
                .family(family)
                .header("x-marker", "marker-in-a-header");
            assert_eq!(call.send()?.status(), 200);
            let talk = a.talk_with(
                &["--family", family],
                "b.shop:9000",
                &["send:marker-in-a-stream", "until:stream"],
            )?;
            talk.done()?;
        }
        a.get(&format!("http://{}/marker-by-pod-ip", b.at(80)))?;
        let packets = capture.stop()?;
        let between: Vec<_> = packets
            .iter()
            .filter(|packet| {
                [packet.source.ip(), packet.destination.ip()]
                    .iter()
                    .any(|ip| *ip == b.ip4() || Some(*ip) == b.ip6().map(Into::into))
            })
            .collect();
        assert!(between.iter().any(|packet| packet.chooses_tls13()), "no TLS 1.3 handshake on the wire");
        assert!(between.iter().all(|packet| packet.has_port(HBONE)), "something beside the tunnel's port");
        assert!(!packets.iter().any(|packet| packet.contains(b"marker-")), "plaintext on the wire");
        Ok(())
    });
}

#[test]
fn a_client_certificate_must_be_valid_ours_and_of_our_trust_domain() {
    World::new("client-certs").run(|world| {
        let a = world.pod("a").node(1).spawn()?;
        let b = world.pod("b").node(2).spawn()?;
        world.settle()?;
        let ours = Forger::with(&world.authority()?)?;
        let foreign = Forger::new("foreign")?;
        let to = SocketAddr::from((b.ip4(), HBONE));
        let shake = |forger: &Forger, id: &str, validity: Validity| -> Result<Handshake> {
            let client = forger.client(id, validity)?;
            // From a pod of the mesh's node, past its own proxy: as an attacker who owns the node would.
            outsider(world)?.inside(|| forge::handshake(client, to))?
        };
        let me = a.identity();
        let good = shake(&ours, &me, Validity::Now)?;
        assert!(matches!(good, Handshake::Accepted), "{good:?}");
        let cases = [
            (shake(&ours, &me, Validity::Past)?, "expired"),
            (shake(&ours, &me, Validity::Future)?, "expired|notvalidyet|certificate"),
            (shake(&foreign, &me, Validity::Now)?, "unknownca|decrypterror|badcertificate"),
            (
                shake(&ours, "spiffe://elsewhere.example/ns/shop/sa/a", Validity::Now)?,
                "certificate|access|reset|closed",
            ),
            (shake(&ours, "https://not.spiffe/", Validity::Now)?, "certificate|access|reset|closed"),
        ];
        for (outcome, alerts) in cases {
            let Handshake::Refused(words) = outcome else { bail!("accepted; expected {alerts}") };
            let said = words.to_ascii_lowercase();
            assert!(
                alerts.split('|').any(|alert| said.contains(alert)),
                "refused with {words:?}, expected {alerts}"
            );
        }
        let without = outsider(world)?.inside(|| forge::handshake(ours.anonymous()?, to))??;
        assert!(matches!(without, Handshake::Refused(_)), "a client without certificate was let in");
        Ok(())
    });
}

/// A pod outside the mesh, made once.
fn outsider(world: &World) -> Result<Pod> {
    match world.find("outsider") {
        Some(pod) => Ok(pod),
        None => world.pod("outsider").namespace("legacy").opt_out().node(1).spawn(),
    }
}

#[test]
fn a_server_with_another_identity_or_a_bad_certificate_is_refused() {
    World::new("impostor").mesh(Mesh::default().without_agent(2)).run(|world| {
        let a = world.pod("a").node(1).spawn()?;
        let b = world.pod("b").node(2).spawn()?;
        // The test is node 2: it takes the snapshot, says that `b` is captured, and answers on its HBONE port.
        let _node = NodeStandIn::start(world, 2)?;
        world.settle()?;
        let ours = Forger::with(&world.authority()?)?;
        let foreign = Forger::new("foreign")?;
        let right = b.identity();
        let wrong = "spiffe://cluster.local/ns/shop/sa/mallory";
        let servers = [
            ("wrong identity", ours.server(wrong, Validity::Now)?, "mallory"),
            ("expired", ours.server(&right, Validity::Past)?, "expired"),
            ("foreign", foreign.server(&right, Validity::Now)?, "unknown"),
        ];
        for (what, server, word) in servers {
            let server = forge::Server::start(&b, HBONE, server)?;
            let before = world.log("node-1").len();
            match a
                .call(&format!("http://{}/", b.at(80)))
                .header("x-secret", "for-b-only")
                .timeout(5.0)
                .outcome()?
            {
                Outcome::Answer(answer) => assert_eq!(answer.status(), 503, "{what}: {answer:?}"),
                Outcome::Failure(failure) => assert!(failure.kind != "timeout", "{what}: {failure:?}"),
            }
            assert_eq!(server.stop()?, 0, "{what}: bytes of the caller reached the impostor");
            let told = mesh_tests::eventually("the reason in the log", Duration::from_secs(5), || {
                world.log("node-1")[before..].to_ascii_lowercase().contains(word).then_some(())
            });
            told.with_context(|| {
                format!("{what}: the log does not say `{word}`:\n{}", &world.log("node-1")[before..])
            })?;
        }
        Ok(())
    });
}

#[test]
fn a_node_gets_no_identity_that_it_does_not_run() {
    World::new("sign").run(|world| {
        let a = world.pod("a").node(1).spawn()?;
        let b = world.pod("b").node(2).spawn()?;
        world.settle()?;
        let token = world.node_token(1)?;
        let ask = |identity: String, token: String| {
            let csr = forge::csr(&identity);
            world.with_channel(|channel| async move {
                let subject = Some(v1::sign_request::Subject::Identity(identity));
                let mut request = tonic::Request::new(v1::SignRequest { csr: csr?.into(), subject });
                request.metadata_mut().insert("authorization", bearer(&token)?);
                Ok(ControlClient::new(channel).sign(request).await.map(tonic::Response::into_inner))
            })
        };
        let own = ask(a.identity(), token.clone())?;
        assert!(own.is_ok_and(|reply| !reply.chain.is_empty()), "its own identity");
        for (identity, token) in [
            (b.identity(), token.clone()),
            ("spiffe://cluster.local/ns/shop/sa/nobody".to_owned(), token.clone()),
            ("spiffe://other.example/ns/shop/sa/a".to_owned(), token.clone()),
            ("spiffe://cluster.local/tulle/controller".to_owned(), token),
        ] {
            let refused =
                ask(identity.clone(), token)?.err().with_context(|| format!("{identity} was signed"))?;
            assert!(
                matches!(refused.code(), tonic::Code::PermissionDenied | tonic::Code::InvalidArgument),
                "{identity}: {refused:?}"
            );
        }
        let stranger = ask(a.identity(), "not-a-token".to_owned())?.err().context("signed for a stranger")?;
        assert_eq!(stranger.code(), tonic::Code::Unauthenticated);
        Ok(())
    });
}

#[test]
fn a_spoofing_neighbour_on_a_bridge_gains_neither_identity_nor_plaintext() {
    World::new("spoof").nodes(1).bridge().run(|world| {
        world.service("b").create()?;
        let a = world.pod("a").v4_only().spawn()?;
        let b = world.pod("b").v4_only().spawn()?;
        let c = world.pod("c").v4_only().spawn()?;
        let mallory = world.pod("mallory").v4_only().spawn()?;
        world.apply(
            "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: only-a, namespace: shop}
spec:
  selector: {matchLabels: {app: c}}
  rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/a]}}]}]
",
        )?;
        world.settle()?;
        let to_b = format!("http://{}/", b.at(80));
        let to_c = format!("http://{}/", c.at(80));
        assert_eq!(a.get(&to_b)?.text("/pod"), "b");
        assert_eq!((a.get(&to_c)?.status(), mallory.get(&to_c)?.status()), (200, 403));

        // Mallory takes b's address and tells everybody on the bridge, as CAP_NET_RAW allows.
        seize(&mallory, &b)?;
        let heard = Capture::start(&mallory.netns())?;
        for _ in 0..5 {
            let call = a.call(&to_b).header("x-secret", "for-b-only").timeout(3.0);
            if let Outcome::Answer(answer) = call.outcome()? {
                assert_ne!(answer.text("/pod"), "mallory", "mallory answered for b");
            }
        }
        let packets = heard.stop()?;
        assert!(
            !packets.iter().any(|packet| packet.contains(b"for-b-only")),
            "mallory read plaintext meant for b"
        );

        // And a's address, to call as a.
        seize(&mallory, &a)?;
        let as_a =
            mallory.call(&to_c).option("--bind").option(&a.ip4().to_string()).timeout(3.0).outcome()?;
        if let Outcome::Answer(answer) = as_a {
            assert_eq!(answer.status(), 403, "mallory was taken for a: {answer:?}");
        }
        Ok(())
    });
}

/// Gives `thief` the address of `victim` and announces it (gratuitous ARP, as `arp_notify` sends it on link up).
fn seize(thief: &Pod, victim: &Pod) -> Result<()> {
    let gateway = format!("10.244.{}.1", thief.node());
    thief.sysctl("ipv4/conf/eth0/arp_notify", "1")?;
    thief.ip(&format!("addr add {}/24 dev eth0\n", victim.ip4()))?;
    thief.ip(&format!("link set eth0 down\nlink set eth0 up\nroute add default via {gateway}\n"))?;
    // The announcement is broadcast on link up; the bridge port needs a moment to forward again.
    std::thread::sleep(Duration::from_millis(300));
    Ok(())
}

#[test]
fn certificates_name_the_workload_and_are_refreshed_at_half_life() {
    let settings = Mesh::default().controller("--svid-ttl").controller("10s");
    World::new("refresh").mesh(settings).run(|world| {
        world.service("b").create()?;
        let a = world.pod("a").node(1).spawn()?;
        world.pod("b").node(2).spawn()?;
        world.settle()?;
        let load = a.load("http://b.shop/").rps(100).new_connections().start()?;
        let begun = std::time::Instant::now();
        // Twice the life of a certificate: without refresh, calls fail long before.
        while begun.elapsed() < Duration::from_secs(22) {
            load.await_good(100)?;
        }
        let report = load.stop()?;
        assert_eq!(report.failed, 0, "{report:?}");
        Ok(())
    });
}
