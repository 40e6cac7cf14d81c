//! The request path, told once and top to bottom.
//!
//! Read [`http`] first: one request, stage by stage. [`tcp`] is the same for opaque streams. Inbound and outbound are
//! the same functions; what differs is data: the [`door::Door`] that a connection came in by.

pub mod attempt;
mod attempts;
pub mod destination;
pub mod door;
pub mod entrance;
pub mod error;
mod form;
mod head;
pub mod http;
mod http_connection;
mod intercepted;
pub mod misuse;
pub mod originals;
mod pulse;
pub mod respond;
pub mod serve;
mod switched;
pub mod tcp;
mod tunnel;
mod wish;
pub mod worker;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::HandoverNet;

    /// The size of the future that an async function makes, without making one.
    fn of_request<A, B, C, F>(_: impl Fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    fn of_connection<A, B, C, D, F>(_: impl Fn(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    /// Ten thousand idle connections hold as many of these, and every layer around one may double it.
    #[test]
    fn a_connection_and_a_request_stay_small() {
        let connection = of_connection(serve::serve::<HandoverNet>);
        assert!(connection <= 1024, "{connection} bytes per connection");
        let request = of_request(http::handle::<HandoverNet>);
        assert!(request <= 6 * 1024, "{request} bytes per request");
    }
}
