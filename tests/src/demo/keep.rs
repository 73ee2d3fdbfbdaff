//! `--keep`: what a person can do with a demo that stays up.

use anyhow::Result;

use super::screen::Screen;
use super::shop::Shop;
use crate::repo::binary;

/// Prints commands that work as they are.
pub fn explain(screen: &Screen, shop: &Shop) -> Result<()> {
    let (app, meshctl) = (binary("mesh-app")?, binary("meshctl")?);
    let (app, meshctl) = (app.display(), meshctl.display());
    let folder = shop.world.folder();
    let folder = folder.display();
    let name = shop.world.name();
    let inside = |pod: &str| format!("ip netns exec tl-{name}-{pod}");
    let control = format!(
        "{} {meshctl} --controller https://172.30.0.1:15012 --state {folder}/state",
        inside("fabric")
    );
    screen.line("\nIt stays up until Ctrl-C. To try, in another terminal:");
    let lines = [
        (
            "a page as jason",
            format!("{} {app} get http://10.96.0.10:9080/productpage -H 'end-user: jason'", inside("load")),
        ),
        ("a denied call", format!("{} {app} get http://10.96.0.12:9080/reviews/0", inside("load"))),
        ("a denied stranger", format!("{} {app} get http://10.244.1.10:9080/", inside("outsider"))),
        (
            "load",
            format!(
                "{} {app} load http://10.96.0.10:9080/ --duration 5 --count-by /reviews/version",
                inside("load")
            ),
        ),
        ("who is in", format!("{control} status")),
        ("certificates", format!("{control} config certs --node node-1")),
        (
            "where would it go",
            format!("{control} route check --from pod/productpage.shop --to http://reviews:9080/"),
        ),
        (
            "who may",
            format!(
                "{control} authz check --from sa/load.shop --to pod/reviews-v1.shop --port 9080 --path /"
            ),
        ),
        ("change something", format!("$EDITOR {folder}/config/shop-routing.yaml   # in force when saved")),
        ("access logs", format!("tail -f {folder}/logs/node-*.log")),
        ("metrics", format!("{} {app} get http://127.0.0.1:15020/metrics", inside("node-1"))),
    ];
    for (what, command) in lines {
        screen.line(&format!("   # {what}\n   {command}"));
    }
    Ok(())
}
