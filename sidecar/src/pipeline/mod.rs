//! The request path, told once and top to bottom.
//!
//! Read [`http`] first: one request, stage by stage. [`tcp`] is the same for opaque streams. Inbound and outbound are
//! the same functions; what differs is data: the [`door::Door`] that a connection came in by.

mod affinity;
mod age;
mod answer_head;
pub mod attempt;
mod attempts;
mod authorize;
mod course;
mod deadline;
pub mod destination;
pub mod door;
mod ending;
pub mod entrance;
pub mod error;
mod failure;
mod fault;
mod form;
mod gate;
mod head;
mod hedge;
pub mod http;
mod http_connection;
mod intercepted;
mod live;
mod mirror;
pub mod misuse;
mod notes;
pub mod originals;
pub mod proxied;
mod pulse;
mod rate_limit;
mod redirect;
pub mod respond;
pub mod serve;
mod switched;
pub mod tcp;
mod trace;
mod tunnel;
mod verdict;
mod waiting;
mod wanting;
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
        assert!(connection <= 1088, "{connection} bytes per connection");
        let request = of_request(http::handle::<HandoverNet>);
        assert!(request <= 6 * 1024, "{request} bytes per request");
    }
}
