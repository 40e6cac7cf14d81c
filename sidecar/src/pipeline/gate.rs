//! The first stages of a request: whether it may be asked for here, whom it is for, and where that leads.

use std::sync::Arc;

use http::request::Parts;
use hyper::body::{Body, Incoming};

use super::{
    destination::{self, Found},
    door::Door,
    error::ProxyError,
    head, live, notes, wanting,
    wish::Wish,
    worker::Worker,
};
use crate::{
    headers::framing,
    model::{Cluster, Snapshot},
    net::Net,
    route::ByRule,
    telemetry::record::RequestRecord,
};

/// A request that was let in.
pub(super) struct LetIn {
    /// Whom it is for, canonical; empty if it names nobody.
    pub(super) authority: String,
    /// Where it goes.
    pub(super) found: Arc<Cluster>,
    /// By that rule, if it goes by one.
    pub(super) by_rule: Option<Box<ByRule>>,
    /// Its leave to go on, of a request from others.
    pub(super) live: Option<live::Guard>,
}

/// Lets a request in, and brings its head into the one spelling that everything else goes by. One for somebody whom nobody
/// knows waits for the controller's word, and then goes by the snapshot that has it.
///
/// # Errors
/// Why it is not let in, or where it leads nowhere.
pub(super) async fn let_in<N: Net>(
    (worker, door): (&Worker<N>, &Door),
    snapshot: &mut Arc<Snapshot>,
    (head, body, wish): (&mut Parts, &Incoming, Option<&Wish>),
    record: &RequestRecord,
) -> Result<LetIn, ProxyError> {
    match look((worker, door), snapshot, (head, body, wish), record) {
        Err(ProxyError::NotDiscovered(key)) => {
            // Boxed, so that other requests do not keep the room.
            *snapshot = Box::pin(wanting::wait(worker, key, || door.load(&worker.snapshots))).await?;
            look((worker, door), snapshot, (head, body, wish), record)
        }
        known => known,
    }
}

/// The same by that snapshot. Asked twice, it comes to the same.
fn look<N: Net>(
    (worker, door): (&Worker<N>, &Door),
    snapshot: &Snapshot,
    (head, body, wish): (&mut Parts, &impl Body, Option<&Wish>),
    record: &RequestRecord,
) -> Result<LetIn, ProxyError> {
    let successor = door.accepted.successor(&worker.snapshots);
    let rules = successor.as_deref().unwrap_or(snapshot);
    door.admit(rules, head::asked(head, body, wish), || worker.clock.wall())?;
    framing::trim(&mut head.headers);
    head::root(head)?;
    let sent = live::sent(door, head);
    let authority = head::judge(head, wish, &snapshot.config.settings.limits)?;
    notes::for_whom(record, &authority);
    let Found { cluster: found, by_rule } =
        destination::of_request((worker, door), (snapshot, rules), (head, &authority), record)?;
    head::check_scheme(head, door.listener(snapshot), &found)?;
    let is_bare = body.is_end_stream() && wish.is_none();
    let live = live::request((worker, door), rules, (head, &authority, is_bare), sent);
    Ok(LetIn { authority, found, by_rule, live })
}
