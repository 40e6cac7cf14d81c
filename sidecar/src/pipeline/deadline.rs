//! Until when a request is worth its work.
//!
//! Two times bound the wait for an answer's head: what the policy allows (`request_timeout`), and what the caller says
//! that it still waits ([`wire::TIMEOUT_MS`]). A third bounds a whole gRPC call, its answer's body included: its
//! `grpc-timeout`. Each only shrinks on the way: what is left is told to the next hop anew with every attempt.
//!
//! # Invariants
//! - Nothing that is told is more than what was told to us, nor than what is left.
//! - No attempt begins after the deadline, and none goes on after it.

use std::time::{Duration, Instant};

use http::{HeaderMap, request::Parts};

use super::error::ProxyError;
use crate::{
    headers::{grpc, timeout},
    model::{transport::Transport, wire},
    relay::activity::{Activity, IdleTimer},
};

/// The times of one request, all from its arrival. `None`: there is no such bound.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline {
    arrival: Instant,
    /// From the policy, to the answer's head.
    policy: Option<Duration>,
    /// From the caller, to the answer's head.
    caller: Option<Duration>,
    /// From the caller, to the end of its gRPC call.
    call: Option<Duration>,
    /// So much longer are the caller's times enforced than told.
    grace: Duration,
}

impl Deadline {
    /// Of a request that came at `arrival`. `told` is what the caller says that it waits, if it may say so.
    pub(super) fn new(
        arrival: Instant,
        head: &Parts,
        policy: Option<Duration>,
        told: Option<Duration>,
        is_from_sidecar: bool,
    ) -> Self {
        let call = timeout::grpc(&head.headers).filter(|_| grpc::is_call(&head.headers));
        let grace = if is_from_sidecar { wire::DEADLINE_GRACE } else { Duration::ZERO };
        Self { arrival, policy, caller: told, call, grace }
    }

    /// The same times, as if it had come at `arrival`.
    pub(super) fn beginning(self, arrival: Instant) -> Self {
        Self { arrival, ..self }
    }

    /// Ends when the request may not wait for its answer's head any longer, or when nothing has moved for `idle`.
    pub(super) async fn expiry(self, activity: &Activity, idle: Duration) -> ProxyError {
        let idle_timer = IdleTimer::new(activity.clone(), idle);
        tokio::select! {
            biased;
            error = self.passed() => error,
            () = idle_timer => ProxyError::Idle { limit: idle },
        }
    }

    /// Ends when the request may not wait for its answer's head any longer; for whatever it waits for before.
    pub(super) async fn passed(self) -> ProxyError {
        match self.first() {
            Some((at, error)) => {
                // Boxed, so that requests without a deadline do not keep the room.
                Box::pin(tokio::time::sleep_until(at.into())).await;
                error
            }
            None => std::future::pending().await,
        }
    }

    /// What comes of it, if that is soon enough.
    pub(super) async fn bound<T>(
        self,
        work: impl Future<Output = Result<T, ProxyError>>,
    ) -> Result<T, ProxyError> {
        tokio::select! {
            biased;
            result = work => result,
            error = self.passed() => Err(error),
        }
    }

    /// When an answer under way must be over.
    pub(super) fn end(&self) -> Option<Instant> {
        self.arrival.checked_add(self.call?.checked_add(self.grace)?)
    }

    /// What is left to the answer's head; `None`: whatever it takes.
    pub(super) fn left(&self, now: Instant) -> Option<Duration> {
        let limit = [self.policy, self.caller, self.call].into_iter().flatten().min()?;
        Some(limit.saturating_sub(now.saturating_duration_since(self.arrival)))
    }

    /// When there must be the head of an answer, as far as the next hop is told.
    pub(super) fn at(&self) -> Option<Instant> {
        self.arrival.checked_add(self.left(self.arrival)?)
    }

    /// Tells the next hop of an attempt how much is left.
    ///
    /// # Errors
    /// [`ProxyError::Timeout`], [`ProxyError::DeadlineExceeded`] if nothing is.
    pub(super) fn tell(
        &self,
        headers: &mut HeaderMap,
        transport: &Transport,
        now: impl FnOnce() -> Instant,
    ) -> Result<(), ProxyError> {
        if self.first().is_none() {
            return Ok(());
        }
        let now = now();
        let Some(left) = self.left(now) else { return Ok(()) };
        if left.is_zero() {
            return Err(self
                .first()
                .map_or(ProxyError::DeadlineExceeded { limit: left }, |(_, error)| error));
        }
        match transport {
            Transport::App => timeout::tell(headers, left),
            Transport::Mesh(..) if transport.is_sidecar() => timeout::tell(headers, left),
            Transport::Mesh(..) | Transport::Public(_) | Transport::Plain(_) => {}
        }
        if let Some(call) = self.call {
            let left = call.saturating_sub(now.saturating_duration_since(self.arrival));
            headers.insert(timeout::GRPC_TIMEOUT, timeout::show_grpc(left));
        }
        Ok(())
    }

    /// What to say if the far sidecar says that the time which it was told is over: then it is over here, too, and here it
    /// is known whose it was. A busy machine may have looked at its clock too late to say so first.
    pub(super) fn overrun(&self, answer: &HeaderMap, transport: &Transport) -> Option<ProxyError> {
        let (_, error) = self.first()?;
        let over = ProxyError::DeadlineExceeded { limit: Duration::ZERO };
        let is_told = || answer.get(wire::REASON).is_some_and(|reason| reason == over.reason());
        (transport.is_sidecar() && is_told()).then_some(error)
    }

    /// Which bound on the answer's head comes first, and what to say then.
    fn first(&self) -> Option<(Instant, ProxyError)> {
        let policy = self.policy.map(|limit| (limit, ProxyError::Timeout { limit }));
        let caller = [self.caller, self.call].into_iter().flatten().min();
        let caller =
            caller.map(|limit| (limit.saturating_add(self.grace), ProxyError::DeadlineExceeded { limit }));
        let (after, error) = match (policy, caller) {
            (Some(policy), Some(caller)) if policy.0 <= caller.0 => policy,
            (policy, caller) => caller.or(policy)?,
        };
        Some((self.arrival.checked_add(after)?, error))
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::{
        clock::Clock,
        model::{
            cluster::AppProtocol,
            transport::{HttpVersion, PeerKind},
        },
    };

    const SIDECAR: Transport = Transport::Mesh(PeerKind::Outrider, HttpVersion::Http2);

    fn millis(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    /// Of a request that comes now.
    fn deadline(
        policy: Option<u64>,
        told: Option<u64>,
        grpc: Option<&str>,
        is_from_sidecar: bool,
    ) -> Deadline {
        let mut request = Request::builder();
        if let Some(timeout) = grpc {
            request =
                request.header("content-type", "application/grpc+proto").header("grpc-timeout", timeout);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        let arrival = Clock::system().now();
        Deadline::new(arrival, &head, policy.map(millis), told.map(millis), is_from_sidecar)
    }

    /// What is told: our field, and gRPC's.
    fn told(deadline: &Deadline, transport: &Transport, after: u64) -> (Option<String>, Option<String>) {
        let mut headers = HeaderMap::new();
        deadline.tell(&mut headers, transport, || deadline.arrival + millis(after)).unwrap();
        let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        (text(wire::TIMEOUT_MS), text("grpc-timeout"))
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_of_all_times_ends_the_wait_and_says_whose_it_was() {
        for (deadline, after, reason) in [
            (deadline(Some(100), None, None, false), 100, "request_timeout"),
            (deadline(Some(100), Some(200), Some("300m"), false), 100, "request_timeout"),
            (deadline(Some(100), Some(100), None, false), 100, "request_timeout"),
            (deadline(Some(300), Some(100), Some("200m"), false), 100, "deadline_exceeded"),
            (deadline(Some(300), Some(200), Some("100m"), false), 100, "deadline_exceeded"),
            (deadline(None, Some(0), None, false), 0, "deadline_exceeded"),
            (deadline(None, None, Some("99999999H"), false), 5000, "stream_idle"),
            (deadline(None, None, None, false), 5000, "stream_idle"),
        ] {
            let clock = Clock::system();
            let began = clock.now();
            let deadline = Deadline { arrival: began, ..deadline };
            let error = deadline
                .expiry(&Activity::new(&clock, &std::sync::Arc::default()), Duration::from_secs(5))
                .await;
            let waited = clock.now().duration_since(began).as_millis();
            assert_eq!(error.reason(), reason, "{deadline:?}");
            assert!((after..after + 2).contains(&u64::try_from(waited).unwrap()), "{waited} {deadline:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_sidecar_that_gave_a_time_is_let_end_it_first() {
        let clock = Clock::system();
        let deadline = deadline(None, Some(100), Some("200m"), true);
        assert_eq!(told(&deadline, &Transport::App, 40).0.as_deref(), Some("60"));
        let end = deadline.arrival + millis(200) + wire::DEADLINE_GRACE;
        assert_eq!(deadline.end(), Some(end));
        let error = deadline.passed().await;
        assert_eq!(error.reason(), "deadline_exceeded");
        assert!(clock.now() >= deadline.arrival + millis(100) + wire::DEADLINE_GRACE);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_left_is_told_inside_the_mesh_and_to_the_app() {
        let all = deadline(Some(1000), Some(800), Some("900m"), false);
        let grpc = || Some("600000u".to_owned());
        assert_eq!(told(&all, &SIDECAR, 300), (Some("500".to_owned()), grpc()));
        let standard = Transport::Mesh(PeerKind::Standard, HttpVersion::Http2);
        for outside in [standard, Transport::Plain(AppProtocol::Auto)] {
            assert_eq!(told(&all, &outside, 300).0, None, "{outside:?}");
            assert_eq!(told(&all, &outside, 300).1, grpc());
        }
        let policy = deadline(Some(1000), None, None, false);
        assert_eq!(told(&policy, &SIDECAR, 0), (Some("1000".to_owned()), None));
        assert_eq!(told(&policy, &Transport::App, 999), (Some("1".to_owned()), None));
        let none = deadline(None, None, None, false);
        assert_eq!(told(&none, &SIDECAR, 0), (None, None));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_sent_when_nothing_is_left() {
        for (deadline, reason) in [
            (deadline(Some(100), None, None, false), "request_timeout"),
            (deadline(None, Some(100), None, true), "deadline_exceeded"),
            (deadline(None, None, Some("0n"), false), "deadline_exceeded"),
        ] {
            let now = deadline.arrival + millis(100);
            let error = deadline.tell(&mut HeaderMap::new(), &SIDECAR, || now).unwrap_err();
            assert_eq!(error.reason(), reason);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_far_sidecar_that_is_first_to_see_the_end_does_not_say_whose_it_was() {
        let answer = |reason: &'static str| {
            HeaderMap::from_iter([(wire::REASON.parse().unwrap(), http::HeaderValue::from_static(reason))])
        };
        let said = |deadline: &Deadline, reason, transport| {
            deadline.overrun(&answer(reason), transport).map(|error| error.reason())
        };
        let policy = deadline(Some(100), Some(200), None, false);
        assert_eq!(said(&policy, "deadline_exceeded", &SIDECAR), Some("request_timeout"));
        let caller = deadline(Some(200), Some(100), None, false);
        assert_eq!(said(&caller, "deadline_exceeded", &SIDECAR), Some("deadline_exceeded"));
        assert_eq!(said(&policy, "stream_idle", &SIDECAR), None);
        assert_eq!(said(&policy, "deadline_exceeded", &Transport::App), None, "no app says so");
        assert_eq!(said(&deadline(None, None, None, false), "deadline_exceeded", &SIDECAR), None);
    }

    #[tokio::test(start_paused = true)]
    async fn only_grpc_is_bound_by_its_field() {
        let (head, ()) = Request::builder().header("grpc-timeout", "1S").body(()).unwrap().into_parts();
        let now = Clock::system().now();
        let deadline = Deadline::new(now, &head, None, None, false);
        assert_eq!((deadline.left(now), deadline.end()), (None, None));
    }
}
