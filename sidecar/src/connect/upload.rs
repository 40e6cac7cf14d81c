//! A request's body on its way into a stream of HTTP/2.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::Body;

use crate::relay::replay::{self, RequestBody};

/// A request's body on its way.
pub(super) struct Upload {
    pub(super) body: RequestBody,
    pub(super) stream: SendStream<Bytes>,
}

impl Upload {
    /// Sends what there is and what the peer has room for; ready when all is sent, or nobody wants the rest.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), replay::Error>> {
        loop {
            // One byte of room is enough: the rest of a frame waits in the stream's bounded buffer.
            self.stream.reserve_capacity(1);
            while self.stream.capacity() == 0 {
                // The body says so when it is read, but here it is not: the peer must learn that the call is over, it may
                // wait for that itself.
                if self.body.poll_unwanted(cx).is_ready() {
                    self.stream.send_reset(Reason::CANCEL);
                    return Poll::Ready(Err(replay::Error::Superseded));
                }
                match ready!(self.stream.poll_capacity(cx)) {
                    Some(Ok(_room)) => {}
                    Some(Err(_)) | None => return Poll::Ready(Ok(())),
                }
            }
            if self.stream.poll_reset(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            let sent = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        let is_last = self.body.is_end_stream();
                        let sent = self.stream.send_data(data, is_last);
                        if !is_last && sent.is_ok() {
                            continue;
                        }
                        sent
                    }
                    Err(frame) => {
                        self.stream.reserve_capacity(0);
                        self.stream.send_trailers(frame.into_trailers().unwrap_or_default())
                    }
                },
                Some(Err(error)) => {
                    self.stream.send_reset(Reason::CANCEL);
                    return Poll::Ready(Err(error));
                }
                None => self.stream.send_data(Bytes::new(), true),
            };
            // Fails only for a stream that has ended: its answer says why.
            drop(sent);
            return Poll::Ready(Ok(()));
        }
    }
}
