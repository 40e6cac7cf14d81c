//! A server-streaming gRPC call: messages at a steady pace, then trailers that say how it ended.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Response, header::CONTENT_TYPE};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;

use super::Body;

/// Method that is called.
pub const PATH: &str = "/chaos.Chaos/Watch";
/// Messages of a call: with the pace, it lasts two seconds, longer than a restart takes.
pub const MESSAGES: usize = 40;
/// One message: not compressed, four bytes.
pub const FRAME: &[u8] = b"\0\0\0\0\x04tick";
/// Between two messages.
const PACE: Duration = Duration::from_millis(50);

pub(super) fn answer() -> Response<Body> {
    let messages = stream::unfold(0, async |number| {
        if number > MESSAGES {
            return None;
        }
        if number == MESSAGES {
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            return Some((Ok::<_, Infallible>(Frame::trailers(trailers)), number + 1));
        }
        tokio::time::sleep(PACE).await;
        Some((Ok(Frame::data(Bytes::from_static(FRAME))), number + 1))
    });
    let mut response = Response::new(BodyExt::boxed(StreamBody::new(messages)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}
