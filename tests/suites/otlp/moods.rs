//! A collector that is away, slow, refuses or lies costs requests nothing, and spans only what it does not take.

use super::*;
use crate::harness::eventually;

/// A span's way is over within it, so that a test sees many.
const QUICK: &str = "timeout: 300ms";

#[tokio::test]
async fn whatever_a_collector_does_requests_go_on_and_it_is_used_when_it_is_good_again() {
    for protocol in PROTOCOLS {
        for mood in
            [Mood::IsSilent, Mood::Resets, Mood::IsBusy, Mood::Refuses, Mood::TalksNonsense, Mood::NeverStops]
        {
            let collector = Collector::start().await;
            collector.be(mood);
            let bench = Bench::start(&telemetry(&collector, protocol, QUICK)).await;
            bench.calls(3).await;
            // By HTTP it took what it answered 200 to, whatever it says about it.
            let is_taken = protocol == "http" && matches!(mood, Mood::TalksNonsense | Mood::NeverStops);
            eventually(&format!("{protocol} {mood:?}: all is counted"), || {
                let [sent, queue, failed, rejected] = bench.counts();
                let lost = if mood == Mood::Refuses { rejected } else { failed };
                queue == 0
                    && if is_taken { sent == 6 } else { lost == 6 || (lost + rejected == 6 && sent == 0) }
            })
            .await;
            collector.be(Mood::Takes);
            bench.calls(1).await;
            collector.has(2).await;
        }
    }
}

#[tokio::test]
async fn what_is_refused_of_a_message_is_counted() {
    for protocol in PROTOCOLS {
        let collector = Collector::start().await;
        collector.be(Mood::TakesSome);
        let bench = Bench::start(&telemetry(&collector, protocol, "interval: 200ms").replacen(
            "interval: 50ms, ",
            "",
            1,
        ))
        .await;
        bench.calls(1).await;
        eventually("one of two is counted as refused", || bench.counts() == [1, 0, 0, 1]).await;
    }
}

#[tokio::test]
async fn what_the_queue_cannot_hold_is_dropped_and_counted() {
    let collector = Collector::start().await;
    collector.be(Mood::IsSilent);
    // Nothing goes before a batch is full, however long the calls take.
    let keys = "queue: 64, batch: 8, timeout: 60s, interval: 1m";
    let telemetry = telemetry(&collector, "http", keys).replacen("interval: 50ms, ", "", 1);
    let bench = Bench::start(&telemetry).await;
    // Two spans each: 8 are under way, 64 wait, and the rest is dropped; more, if the 8 were not taken in time.
    bench.calls(60).await;
    eventually("what does not wait is dropped", || {
        let waiting = bench.web.app().observer.exports.spans.waiting.load(Ordering::Relaxed);
        let [sent, dropped, failed, rejected] = bench.counts();
        [sent, failed, rejected] == [0; 3] && dropped >= 48 && dropped + 8 + waiting == 120
    })
    .await;
}

#[tokio::test]
async fn a_collector_that_is_busy_for_a_moment_gets_everything() {
    for protocol in PROTOCOLS {
        let collector = Collector::start().await;
        collector.be(Mood::IsBusy);
        let bench = Bench::start(&telemetry(&collector, protocol, "timeout: 20s")).await;
        bench.calls(2).await;
        let waiting = || bench.web.app().observer.exports.spans.waiting.load(Ordering::Relaxed) == 0;
        eventually("the message is under way", waiting).await;
        collector.be(Mood::Takes);
        assert_eq!(collector.has(4).await.len(), 4);
        eventually("all is counted as sent", || bench.counts() == [4, 0, 0, 0]).await;
    }
}
