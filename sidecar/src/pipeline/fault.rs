//! Faults that the configuration orders: a request waits, or is answered, before anything of it is sent.

use std::sync::atomic::Ordering;

use http::HeaderMap;

use super::{deadline::Deadline, error::ProxyError, notes, worker::Worker};
use crate::{
    headers::grpc,
    model::{Cluster, fault::Fault, flag::ResponseFlag},
    net::Net,
    resilience::fault::{self, Injection},
    telemetry::{record::RequestRecord, trail::Step},
};

/// Injects what a fault orders into a request with these fields. Once for each request, before its first attempt: what we
/// repeat ourselves is not hit again. A wait ends when the request's time is up, and with the request.
///
/// # Errors
/// [`ProxyError::FaultInjected`]; or the deadline's, if it was reached first.
pub(super) async fn inject<N: Net>(
    worker: &Worker<N>,
    (cluster, fault): (&Cluster, &Fault),
    headers: &HeaderMap,
    deadline: Deadline,
    record: &mut RequestRecord,
) -> Result<(), ProxyError> {
    let is_grpc = grpc::is_call(headers);
    let Injection { delay, abort } = worker.with_rng(|rng| fault::decide(fault, headers, is_grpc, rng));
    let counts = &cluster.runtime.faults;
    if let Some(delay) = delay {
        counts.delays.fetch_add(1, Ordering::Relaxed);
        record.note(ResponseFlag::DI);
        notes::step(worker, record, Step::Delayed(delay));
        tokio::select! {
            biased;
            error = deadline.passed() => return Err(error),
            () = tokio::time::sleep(delay) => {}
        }
    }
    match abort {
        Some(abort) => {
            counts.aborts.fetch_add(1, Ordering::Relaxed);
            Err(ProxyError::FaultInjected(abort))
        }
        None => Ok(()),
    }
}
