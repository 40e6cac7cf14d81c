//! Checks by streams: one is opened, and not needed.
//!
//! To a sidecar it is an undecided one: the far app is connected to and hears nothing, and the connection between the
//! sidecars is kept for the next stream. To anybody else it is a connection, which is closed again.

use std::{io, time::Duration};

use super::{Asking, finding::Finding};
use crate::{
    connect::{
        dial::{Connection, Speak},
        place::Target,
    },
    model::health_check::CheckOutcome,
    net::Net,
    relay::{
        frame::{Kind, StreamKind},
        session::Session,
    },
};

/// What became of a stream.
enum Opened<S> {
    /// The sidecar has answered: what that says, and what is left.
    Answered(Finding, Session<Connection<S>>),
    /// The connection was closed before that.
    Closed(Finding),
}

impl<N: Net> Asking<N> {
    /// Opens a stream and gives it up.
    pub(super) async fn tcp(&self, target: Target<'_>, limit: Duration) -> Finding {
        let opened = match tokio::time::timeout(limit, self.open(target)).await {
            Ok(opened) => opened,
            Err(_elapsed) => return Finding::timeout(limit),
        };
        match opened {
            Ok((found, None)) | Err(found) => found,
            Ok((found, Some(mut session))) => {
                // It has said what was asked; how it parts only decides whether the connection is kept.
                let is_accepted = found.outcome == CheckOutcome::Well;
                let parted = async { if is_accepted { session.cancel(false).await } else { Ok(()) } };
                if let Ok(Ok(())) = tokio::time::timeout(limit, parted).await {
                    self.tcp_pool.give_back(session.into_stream(), self.clock.now());
                }
                found
            }
        }
    }

    async fn open(
        &self,
        target: Target<'_>,
    ) -> Result<(Finding, Option<Session<Connection<N::Stream>>>), Finding> {
        let now = self.clock.now();
        let is_sidecar = target.cluster.settings.transport.is_sidecar();
        if is_sidecar && let Some(kept) = self.tcp_pool.take(target, now) {
            // One that was just being closed says nothing about the endpoint yet: a new connection tells.
            if let Opened::Answered(found, session) = begin(kept).await {
                return Ok((found, Some(session)));
            }
        }
        let connection = self.tcp_pool.fresh(target, Speak::Tcp, now).await?;
        if !is_sidecar {
            return Ok((Finding::new(CheckOutcome::Well, "connected"), None));
        }
        match begin(connection).await {
            Opened::Answered(found, session) => Ok((found, Some(session))),
            Opened::Closed(found) => Err(found),
        }
    }
}

async fn begin<S: crate::net::Stream>(connection: Connection<S>) -> Opened<S> {
    let mut session = Session::new(connection);
    // What the peer has said stands, also if it does not hear us any more.
    let sent = session.open(StreamKind::Undecided, &[], false).await;
    match session.next().await {
        Ok(Some((Kind::Accepted, _))) if sent.is_ok() => {
            Opened::Answered(Finding::new(CheckOutcome::Well, "accepted"), session)
        }
        Ok(Some((Kind::NotProcessed, reason))) if sent.is_ok() => {
            let reason = String::from_utf8_lossy(&reason);
            Opened::Answered(Finding::of_sidecar(CheckOutcome::NotServing, "not accepted", &reason), session)
        }
        Ok(Some((kind, _))) => {
            Opened::Closed(Finding::new(CheckOutcome::Protocol, &format!("an unexpected frame: {kind:?}")))
        }
        Ok(None) => Opened::Closed(Finding::new(CheckOutcome::Reset, "closed without an answer")),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Opened::Closed(Finding::new(CheckOutcome::Protocol, &format!("no frames: {error}")))
        }
        Err(error) => Opened::Closed(Finding::new(CheckOutcome::Reset, &format!("it broke off: {error}"))),
    }
}
