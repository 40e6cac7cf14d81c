//! One downstream connection of an app: HTTP/1.1, or HTTP/2 with prior knowledge.

use std::{convert::Infallible, error::Error, future::Future};

use http::{Request, Response};
use hyper::{
    body::{Body, Incoming},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
};
use tokio::net::TcpStream;

use crate::effects;

/// Answers what comes on a connection until it ends, or until `connections` shut down.
pub fn serve<F, B>(
    stream: TcpStream,
    connections: &GracefulShutdown,
    answer: impl Fn(Request<Incoming>) -> F + Send + 'static,
) where
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    // Only delays small answers if it fails.
    stream.set_nodelay(true).unwrap_or_default();
    let watcher = connections.watcher();
    drop(effects::spawn(async move {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new());
        let service = service_fn(move |request| {
            let answered = answer(request);
            async { Ok::<_, Infallible>(answered.await) }
        });
        // The connection ended badly: whoever was on the other end knows more about it.
        drop(watcher.watch(builder.serve_connection(TokioIo::new(stream), service).into_owned()).await);
    }));
}
