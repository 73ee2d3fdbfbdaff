//! What the watches' news add up to. The watches themselves run against a real API server in the cluster's tests.

use mesh_api::parse;

use super::*;

fn node(name: &str, label: &str) -> Parsed {
    let text = format!("apiVersion: v1\nkind: Node\nmetadata: {{name: {name}, labels: {{v: {label:?}}}}}\n");
    parse(&format!("Node {name}"), &text)
}

fn objects(parsed: Vec<Parsed>, removed: &[&str]) -> News {
    let removed = removed.iter().map(ToString::to_string).collect();
    let told = parsed.into_iter().map(|parsed| (parsed, 1)).collect();
    News::OfKind(Kind::Node, Said::Objects { told, removed })
}

fn news(kind: Kind, said: Said) -> News {
    News::OfKind(kind, said)
}

fn of_two_kinds() -> Picture {
    Picture::new([Kind::Node, Kind::Pod].into_iter())
}

#[test]
fn nothing_counts_before_every_kind_was_listed() {
    let mut picture = of_two_kinds();
    let first =
        picture.take([objects(vec![node("a", "1")], &[]), news(Kind::Node, Said::Listed)].into_iter());
    assert!(first.unwrap().partial);
    assert_eq!(picture.take([].into_iter()), None, "told once");
    let second = picture.take([news(Kind::Pod, Said::Listed)].into_iter()).unwrap();
    assert_eq!(second, Changes::default(), "an empty kind completes the picture");
    let relist = picture.take([news(Kind::Pod, Said::Listed)].into_iter());
    assert_eq!(relist, None);
}

#[test]
fn of_several_news_of_one_object_the_last_counts() {
    let mut picture = of_two_kinds();
    let batch = [
        objects(vec![node("a", "1"), node("b", "1")], &[]),
        objects(vec![node("a", "2")], &[]),
        objects(vec![], &["Node a", "Node b"]),
        objects(vec![node("b", "3")], &[]),
    ];
    let changes = picture.take(batch.into_iter()).unwrap();
    assert_eq!(changes.parsed, [node("b", "3")]);
    assert_eq!(changes.removed, ["Node a"]);
}

#[test]
fn an_api_server_that_is_away_is_told_with_the_time_since_when_and_takes_nothing_back() {
    let mut picture = of_two_kinds();
    let listed = [news(Kind::Node, Said::Listed), news(Kind::Pod, Said::Listed)];
    assert!(picture.take(listed.into_iter()).is_some());
    let refused = News::Heartbeat(Err("connection refused".to_owned()));
    let away = picture.take([refused].into_iter()).unwrap();
    let since = picture.away_since().unwrap();
    let text = away.unreadable.unwrap();
    assert!(text.starts_with("since 2"), "{text}");
    assert!(text.ends_with("the API server does not answer: connection refused"), "{text}");
    assert!(away.parsed.is_empty() && away.removed.is_empty() && !away.partial);

    let failing = news(Kind::Pod, Said::Failing("list: forbidden (403)".to_owned()));
    assert_eq!(picture.take([failing].into_iter()), None, "the server's silence says it all");
    let text = picture.take([News::Heartbeat(Ok(()))].into_iter()).unwrap().unreadable.unwrap();
    assert!(text.ends_with("Pod: list: forbidden (403)"), "{text}");
    assert_eq!(picture.away_since(), Some(since), "still the same outage");

    let well = picture.take([news(Kind::Pod, Said::Well)].into_iter()).unwrap();
    assert_eq!((well.unreadable, picture.away_since()), (None, None));
}

#[test]
fn many_reasons_are_told_as_a_few_and_a_number() {
    let mut picture = Picture::new(Kind::ALL.iter().copied());
    let failing = Kind::ALL.iter().map(|kind| news(*kind, Said::Failing("away".to_owned())));
    let text = picture.take(failing).unwrap().unreadable.unwrap();
    assert!(text.ends_with(&format!("and {} kinds more", Kind::ALL.len() - MAX_REASONS)), "{text}");
}
