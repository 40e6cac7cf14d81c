//! HTTP inside a framed stream: a port for HTTP takes no bytes that its rules do not see, whatever the caller's sidecar took
//! them for.

use std::{io, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};

use crate::{
    buffer,
    detect::{self, Spoken, Verdict},
    drain::Phase,
    model::{flag::ResponseFlag, listener::Protocol},
    net::{Net, Stream},
    pipeline::{
        authorize,
        door::{Door, From},
        http_connection::{self, Wire},
        notes,
        worker::Worker,
    },
    relay::{
        frame::{Kind, StreamKind},
        session::{Duplex, Inner, Session, Source},
    },
    telemetry::trail::Traffic,
};

/// What a caller sends together with the opening of a stream is here within this. Long before it gives up on an answer
/// (`connect_timeout`).
const EARLY_WITHIN: Duration = Duration::from_millis(5);
/// Why such a port does not take a stream.
const NOT_HTTP: &str = "not_http";
/// Time for the caller to end its side when ours has ended. Over it the connection is not worth the wait.
const LINGER: Duration = Duration::from_secs(5);

/// A session after a stream.
pub(super) struct Back<S> {
    pub(super) session: Session<S>,
    /// The stream was refused: the caller may have sent some of it.
    pub(super) is_refused: bool,
}

/// Serves one stream, which was not accepted yet, if it is HTTP; the session again, if it is good for another. The app is
/// connected to for each request, so there is nothing to hear from it before.
pub(super) async fn serve<N: Net, S: Stream>(
    worker: &Arc<Worker<N>>,
    door: &Door,
    mut session: Session<S>,
    kind: StreamKind,
) -> Option<Back<S>> {
    let mut first = BytesMut::new();
    // Who knows already that it is none of ours is not told that the app takes it.
    let early = match kind {
        StreamKind::Opaque => tokio::time::timeout(EARLY_WITHIN, tell(&mut session, &mut first)).await.ok(),
        StreamKind::Undecided => None,
    };
    if matches!(early, Some(Told::Other)) {
        let reason = refused(worker, door);
        session.control(Kind::NotProcessed, reason.as_bytes()).await.ok()?;
        return Some(Back { session, is_refused: true });
    }
    session.accept(kind).await.ok()?;
    let told = match early {
        Some(told) => told,
        None => wait(worker, door, &mut session, &mut first).await?,
    };
    let wire = match told {
        Told::Http(wire) => wire,
        Told::Nothing => {
            session.control(Kind::Fin, &[]).await.ok()?;
            return Some(Back { session, is_refused: false });
        }
        Told::Cancelled => {
            session.cancelled(false).await.ok()?;
            return Some(Back { session, is_refused: false });
        }
        Told::Other => {
            refused(worker, door);
            drop(session.control(Kind::Rst, &[]).await);
            return None;
        }
        Told::Broken => return None,
    };
    requests(worker, door, session, (first.freeze(), wire)).await
}

/// Serves the requests in a stream that was accepted, which begins with `first`; the session again, if it is good for
/// another.
pub(super) async fn requests<N: Net, S: Stream>(
    worker: &Arc<Worker<N>>,
    door: &Door,
    session: Session<S>,
    (first, wire): (Bytes, Wire),
) -> Option<Back<S>> {
    let (stream, lent) = Duplex::new(session);
    let door = Arc::new(of_app(door));
    http_connection::serve_begun(Arc::clone(worker), door, stream, first, wire).await;
    let served = lent.back()?;
    let session = tokio::time::timeout(LINGER, end(served)).await.ok()?.ok()?;
    Some(Back { session, is_refused: false })
}

/// What a stream is.
enum Told {
    Http(Wire),
    /// Not HTTP.
    Other,
    /// It has ended and said nothing.
    Nothing,
    /// Its caller has no use for it.
    Cancelled,
    /// It was aborted, or its connection was.
    Broken,
}

/// Reads on until it is clear what a stream is. Cancel-safe.
async fn tell<S: Stream>(session: &mut Session<S>, first: &mut BytesMut) -> Told {
    loop {
        match detect::client(first, detect::MAX_BYTES) {
            Verdict::Decided(Spoken::Http1) => return Told::Http(Wire::Http1),
            Verdict::Decided(Spoken::Http2) => return Told::Http(Wire::Sniffed),
            Verdict::Decided(Spoken::Tls | Spoken::Opaque) => return Told::Other,
            Verdict::More => {}
        }
        match buffer::append(&mut Source(session), first, detect::MAX_BYTES).await {
            Ok(1..) => {}
            Ok(_) if first.is_empty() => return Told::Nothing,
            Ok(_) => return Told::Other,
            Err(_) if session.is_cancelled() => return Told::Cancelled,
            Err(_) => return Told::Broken,
        }
    }
}

/// Waits for a stream that was accepted to say what it is: as long as a connection may be idle, and then as long as a head
/// may take. `None`: not any more.
async fn wait<N: Net, S: Stream>(
    worker: &Worker<N>,
    door: &Door,
    session: &mut Session<S>,
    first: &mut BytesMut,
) -> Option<Told> {
    let limits = Arc::clone(&door.load(&worker.snapshots).config.settings.limits);
    let mut watcher = door.drain().watcher();
    if first.is_empty() {
        let mut source = Source(session);
        let heard = buffer::append(&mut source, first, detect::MAX_BYTES);
        let heard = tokio::select! {
            biased;
            heard = tokio::time::timeout(limits.idle_timeout, heard) => heard.ok()?,
            () = watcher.reached(Phase::Closing) => return None,
        };
        match heard {
            Ok(1..) => {}
            Ok(_) => return Some(Told::Nothing),
            Err(_) if session.is_cancelled() => return Some(Told::Cancelled),
            Err(_) => return None,
        }
    }
    tokio::time::timeout(limits.header_read_timeout, tell(session, first)).await.ok()
}

/// Counts a stream that is not HTTP; why it is refused.
fn refused<N: Net>(worker: &Worker<N>, door: &Door) -> &'static str {
    door.count_request();
    let record = door.record(worker, Traffic::Stream, worker.now());
    let snapshot = door.load(&worker.snapshots);
    let is_for_http = door.inbound(&snapshot).is_none_or(|inbound| inbound.protocol == Protocol::Http);
    let successor = door.accepted.successor(&worker.snapshots);
    let rules = successor.as_ref().unwrap_or(&snapshot);
    let judged = || authorize::stream(door, rules, StreamKind::Opaque, &record);
    // At a port for anything it is refused for want of a rule.
    let reason = match if is_for_http { Ok(()) } else { judged() } {
        Err(error) => {
            notes::refused(worker, &record, &error);
            error.reason()
        }
        Ok(()) => {
            record.set_flag(ResponseFlag::DPE);
            record.write(|trail| trail.reason = Some(NOT_HTTP.into()));
            NOT_HTTP
        }
    };
    record.finish();
    tracing::debug!(listener = door.accepted.name(), reason, "a stream that is not HTTP was refused");
    reason
}

/// What the peer's app says itself: its sidecar has not looked at it, so nothing in it is a sidecar's word.
fn of_app(door: &Door) -> Door {
    let mut from = door.from.clone();
    if let From::Peer { is_sidecar, .. } = &mut from {
        *is_sidecar = false;
    }
    door.of(from)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::explain;

    #[test]
    fn why_a_stream_was_refused_has_a_remedy() {
        assert!(explain::of_reason(NOT_HTTP).is_some());
    }
}
