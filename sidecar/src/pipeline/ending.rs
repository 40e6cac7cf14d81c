//! What lives as long as an answer's body, and what its end means.

use std::sync::Arc;

use http::HeaderMap;

use super::{attempt::Held, live, notes, respond, verdict, worker::Worker};
use crate::{
    model::Cluster,
    net::Net,
    relay::{
        body::{self, OnEnd},
        replay::Rest,
    },
    resilience::circuit_breaker::RequestSlot,
    telemetry::record::RequestRecord,
};

/// What lives as long as a response's body.
pub(super) struct Ending<N: Net> {
    pub(super) worker: Arc<Worker<N>>,
    /// Dropped unfinished, it counts the downstream as gone.
    pub(super) record: Option<RequestRecord>,
    pub(super) held: Option<Held>,
    pub(super) cluster: Arc<Cluster>,
    pub(super) is_grpc: bool,
    /// Whether an answer that breaks off ends with a gRPC status: a call over a lost connection is `UNAVAILABLE`, and
    /// of a reset gRPC's clients make something else.
    pub(super) ends_in_status: bool,
    /// With the answer's end, nobody wants the rest of the request.
    pub(super) _rest: Rest,
    pub(super) _slot: RequestSlot,
    pub(super) _live: Option<live::Guard>,
}

impl<N: Net> OnEnd for Ending<N> {
    fn ended(&mut self, result: Result<(), &body::Error>, trailers: Option<&HeaderMap>) -> Option<HeaderMap> {
        let (Some(record), Some(mut held)) = (self.record.take(), self.held.take()) else { return None };
        verdict::ended(&self.worker, &self.cluster, (&mut held.in_flight, held.told), result, trailers);
        if let Some(trailers) = trailers.filter(|_| self.is_grpc) {
            notes::grpc_status(&record, trailers);
        }
        match result {
            Ok(()) => {
                if self.is_grpc {
                    notes::without_status(&record);
                }
                if let Some(connection) = held.http1 {
                    self.worker.pool.give_back(connection, self.worker.now());
                }
            }
            Err(error) => notes::broken_off(&record, error),
        }
        let told = result.err().filter(|_| self.ends_in_status).and_then(respond::broken_off);
        if let Some(told) = &told {
            notes::grpc_status(&record, told);
        }
        record.finish();
        told
    }
}
