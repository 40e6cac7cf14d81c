//! Streams without frames on their way to the own app: of standard peers, and of those who come without a proven identity.

use std::sync::Arc;

use bytes::BytesMut;

use super::{
    carry_bare,
    inbound::{App, to_app},
};
use crate::{
    buffer,
    detect::{self, ServerVerdict},
    model::flag::ResponseFlag,
    net::{Net, Stream},
    pipeline::{door::Door, live, notes, worker::Worker},
    relay::{
        copy::{Before, Counted, Setup},
        frame::StreamKind,
    },
    telemetry::{record::RequestRecord, trail::Traffic},
};

/// The way of one stream to the own app, which may be opened before anybody knows whether there is a stream.
#[derive(Debug)]
pub struct Bare<N: Net> {
    app: Option<App<N::Stream>>,
    /// What the app has said so far.
    said: BytesMut,
    record: RequestRecord,
}

impl<N: Net> Bare<N> {
    /// For a stream that begins now. Nothing is connected to yet.
    #[must_use]
    pub fn new(worker: &Worker<N>, door: &Door) -> Self {
        let record = door.record(worker, Traffic::Stream, worker.now());
        Self { app: None, said: BytesMut::new(), record }
    }

    /// Connects to the app, which hears nothing, and waits for it to say what no server of HTTP says unasked. Waits for
    /// ever if it does not, or if there is no app. Cancel-safe: what has come of it is kept.
    pub async fn app_speaks_first(&mut self, worker: &Worker<N>, door: &Door) {
        if self.app.is_none() {
            self.app = Box::pin(to_app(worker, door, &mut self.record, StreamKind::Opaque)).await.ok();
        }
        while let Some(app) = &mut self.app {
            match buffer::append(&mut app.connection, &mut self.said, usize::MAX).await {
                Ok(1..) => match detect::server(&self.said) {
                    ServerVerdict::Opaque => return,
                    ServerVerdict::Http => break,
                    ServerVerdict::More => {}
                },
                // It has ended, or failed, and not for anything that it was sent.
                Ok(_) | Err(_) => break,
            }
        }
        // Not one for a client that speaks first: that gets one of its own.
        drop(self.app.take().map(|app| app.unused(worker)));
        self.said.clear();
        std::future::pending().await
    }

    /// Carries the stream to its end, or until `cut`. Where that is no orderly end, both sides are reset.
    pub async fn carry<S: Stream>(
        mut self,
        worker: &Worker<N>,
        door: &Door,
        mut stream: S,
        cut: impl Future<Output = ()>,
    ) {
        door.count_request();
        let app = match self.app.take() {
            Some(app) => Ok(app),
            None => Box::pin(to_app(worker, door, &mut self.record, StreamKind::Opaque)).await,
        };
        let record = self.record;
        let live = live::stream(worker, door);
        let cut = async {
            live::either(cut, live::revoked(live.as_ref())).await;
        };
        match app {
            Ok(mut app) => {
                let down = Before { bytes: self.said.freeze(), ..Before::default() };
                let count = Some(Counted::FirstCalls(Arc::clone(record.moved())));
                let setup = Setup { down, half_open: app.half_open, count, ..Setup::default() };
                if carry_bare(&mut stream, &mut app.connection, cut, setup).await.is_err() {
                    app.connection.reset_on_close();
                    stream.reset_on_close();
                    let is_revoked = live::is_revoked(live.as_ref());
                    record.set_flag(if is_revoked { ResponseFlag::RBAC } else { ResponseFlag::UC });
                    if is_revoked {
                        record.write(|trail| trail.reason = Some(live::REASON.into()));
                    }
                }
            }
            Err(error) => {
                stream.reset_on_close();
                notes::refused(worker, &record, &error);
            }
        }
        record.finish();
    }

    /// There is no stream for it: nothing is counted.
    pub fn cancel(self, worker: &Worker<N>) {
        drop(self.app.map(|app| app.unused(worker)));
        self.record.discard();
    }
}
