//! HTTP inside a framed stream: a port with rules for HTTP takes no bytes that they do not see, whatever the caller's sidecar
//! took them for.

use std::{io, sync::Arc, time::Duration};

use crate::{
    drain::Phase,
    net::{Net, Stream},
    pipeline::{
        door::{Door, From},
        http_connection::{self, Wire},
        worker::Worker,
    },
    relay::{
        frame::{Kind, StreamKind},
        session::{Duplex, Inner, Session},
    },
};

/// Time for the caller to end its side when ours has ended. Over it the connection is not worth the wait.
const LINGER: Duration = Duration::from_secs(5);

/// Serves one stream, which was not accepted yet; the session again, if it is good for another. The app is connected to
/// for each request, so there is nothing to hear from it before.
pub(super) async fn serve<N: Net, S: Stream>(
    worker: &Arc<Worker<N>>,
    door: &Door,
    mut session: Session<S>,
    kind: StreamKind,
) -> Option<Session<S>> {
    session.accept(kind).await.ok()?;
    let limit = door.load(&worker.snapshots).config.settings.limits.idle_timeout;
    let mut watcher = door.drain().watcher();
    let first = tokio::select! {
        biased;
        first = tokio::time::timeout(limit, session.next()) => first,
        () = watcher.reached(Phase::Closing) => return None,
    };
    match first {
        Ok(Ok(Some((Kind::Data, _)))) => {}
        Ok(Ok(Some((Kind::Fin, _)))) => {
            session.control(Kind::Fin, &[]).await.ok()?;
            return Some(session);
        }
        Ok(Ok(Some((Kind::Cancel, _)))) if kind == StreamKind::Undecided => {
            session.cancelled(false).await.ok()?;
            return Some(session);
        }
        Ok(_) | Err(_) => return None,
    }
    let (stream, lent) = Duplex::new(session);
    http_connection::serve(Arc::clone(worker), Arc::new(of_app(door)), stream, Wire::Sniffed).await;
    let served = lent.back()?;
    tokio::time::timeout(LINGER, end(served)).await.ok()?.ok()
}

/// What the peer's app says itself: its sidecar has not looked at it, so nothing in it is a sidecar's word.
fn of_app(door: &Door) -> Door {
    let mut from = door.from.clone();
    if let From::Peer { is_sidecar, .. } = &mut from {
        *is_sidecar = false;
    }
    let within = Door::new(door.accepted.clone(), from);
    match door.original() {
        Some(original) => within.intercepted(original),
        None => within,
    }
}

/// Ends a stream that has been served as far as we are concerned, and waits for the caller's end.
async fn end<S: Stream>(served: Inner<S>) -> io::Result<Session<S>> {
    let Inner { mut session, mut has_ended, is_shut, is_aborted } = served;
    if session.is_mid_frame() {
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    if is_aborted {
        session.control(Kind::Rst, &[]).await?;
        return Err(io::ErrorKind::ConnectionAborted.into());
    }
    if !is_shut {
        session.control(Kind::Fin, &[]).await?;
    }
    while !has_ended {
        match session.next().await? {
            Some((Kind::Data, _)) => drop(session.skip().await?),
            Some((Kind::Fin, _)) => has_ended = true,
            _ => return Err(io::ErrorKind::ConnectionReset.into()),
        }
    }
    Ok(session)
}
