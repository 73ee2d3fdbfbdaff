//! After a 101: the connection is bytes both ways (WebSocket and its like).

use std::rc::Rc;

use futures::{FutureExt, future::LocalBoxFuture};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::{exchange::Report, pool::Facts};
use crate::{
    conns::Registered,
    proxy::{
        count_cut,
        relay::{Bounds, Traffic, ends::Plain, relay},
    },
    telemetry::ResponseFlags,
    worker::Worker,
};

/// What relays the two sides once both have switched. The request's permit stays with the connection: a policy ends it.
pub fn switch(
    worker: Rc<Worker>,
    registered: Rc<Registered>,
    facts: Rc<Facts>,
    sides: (OnUpgrade, OnUpgrade),
    mut report: Report,
) -> LocalBoxFuture<'static, ()> {
    async move {
        registered.set_protocol("upgraded");
        let (Ok(down), Ok(up)) = futures::join!(sides.0, sides.1) else { return };
        let (mut down, mut up) = (Plain(TokioIo::new(down)), Plain(TokioIo::new(up)));
        let traffic: &Traffic = registered.traffic();
        let bounds = Bounds::of(&worker);
        tokio::select! {
            _ended = relay(&facts.admitted, &mut down, &mut up, traffic, bounds) => {}
            cut = registered.cut() => {
                count_cut(&worker, &cut);
                report.flag(ResponseFlags::LOCAL_RESET);
            }
        }
        report.complete();
        registered.request_over();
    }
    .boxed_local()
}
