use std::{task::Waker, time::Duration};

use futures_util::FutureExt as _;

use super::*;
use crate::identity::testing::{DAY, ORDERS, Root, bundle, epoch};

/// A registry, and the counter of its cuts.
struct Bench {
    clock: Clock,
    status: Arc<IdentityStatus>,
    registry: Arc<Registry>,
}

fn bench() -> Bench {
    let (clock, status) = (Clock::simulated(epoch(), 7), Arc::<IdentityStatus>::default());
    Bench { registry: Registry::new(clock.clone(), Arc::clone(&status)), clock, status }
}

impl Bench {
    fn hold(&self, root: &Root, bundles: &Arc<TrustBundles>) -> Guard {
        self.registry.hold(root.day_svid(ORDERS).chain(), Role::Client, bundles)
    }

    fn cuts(&self) -> u64 {
        self.status.trust_cuts.load(Ordering::Relaxed)
    }
}

fn bundles(roots: &[&Root], sequence: u64) -> Arc<TrustBundles> {
    Arc::new(TrustBundles::single(bundle(roots, sequence)))
}

fn is_cut(guard: &Guard) -> bool {
    let is_cut = guard.cut().now_or_never().is_some();
    assert_eq!(guard.check(&Context::from_waker(Waker::noop())).is_err(), is_cut);
    is_cut
}

#[tokio::test(start_paused = true)]
async fn a_root_taken_out_cuts_those_it_vouched_for_and_nobody_else() {
    let (bench, a, b) = (bench(), Root::new("a"), Root::new("b"));
    let both = bundles(&[&a, &b], 1);
    let (of_a, of_b) = (bench.hold(&a, &both), bench.hold(&b, &both));
    bench.registry.judge(&both).await;
    assert!(!is_cut(&of_a) && !is_cut(&of_b));
    bench.registry.judge(&bundles(&[&a], 2)).await;
    assert!(!is_cut(&of_a) && is_cut(&of_b));
    assert_eq!(bench.cuts(), 1);
    // It is not counted again, and trust that comes back does not revive it.
    bench.registry.judge(&bundles(&[], 3)).await;
    bench.registry.judge(&bundles(&[&a, &b], 4)).await;
    assert!(is_cut(&of_a) && is_cut(&of_b));
    assert_eq!(bench.cuts(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_root_of_the_same_name_is_another_root() {
    let (bench, old, new) = (bench(), Root::new("root"), Root::new("root"));
    let guard = bench.hold(&old, &bundles(&[&old], 1));
    bench.registry.judge(&bundles(&[&new], 2)).await;
    assert!(is_cut(&guard));
}

#[tokio::test(start_paused = true)]
async fn added_roots_and_renewals_cut_nothing() {
    let (bench, a, b) = (bench(), Root::new("a"), Root::new("b"));
    let guard = bench.hold(&a, &bundles(&[&a], 1));
    bench.registry.judge(&bundles(&[&a], 1)).await;
    bench.registry.judge(&bundles(&[&a, &b], 2)).await;
    assert!(!is_cut(&guard));
    assert_eq!(bench.cuts(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_expired_peer_is_kept_while_its_root_is_and_cut_when_that_goes() {
    let (bench, a, b) = (bench(), Root::new("a"), Root::new("b"));
    let guard = bench.hold(&a, &bundles(&[&a], 1));
    tokio::time::sleep(3 * DAY).await;
    let now = bench.clock.wall();
    assert!(matches!(
        verify::peer(&guard.held.chain, &bundles(&[&a], 1), Role::Client, now),
        Err(verify::Error::Expired { leaf: true, .. })
    ));
    bench.registry.judge(&bundles(&[&a, &b], 2)).await;
    assert!(!is_cut(&guard), "its certificate ran out, its root is trusted");
    bench.registry.judge(&bundles(&[&b], 3)).await;
    assert!(is_cut(&guard), "its root is gone");
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_began_before_the_change_is_judged_after_it() {
    let (bench, a, b) = (bench(), Root::new("a"), Root::new("b"));
    let (before, after) = (bundles(&[&a, &b], 1), bundles(&[&a], 2));
    bench.registry.judge(&after).await;
    let late = bench.hold(&b, &before);
    bench.registry.judge(&after).await;
    assert!(is_cut(&late));
}

#[tokio::test(start_paused = true)]
async fn a_cut_wakes_the_connections_task() {
    let (bench, a) = (bench(), Root::new("a"));
    let guard = bench.hold(&a, &bundles(&[&a], 1));
    let judged = async {
        tokio::task::yield_now().await;
        bench.registry.judge(&bundles(&[], 2)).await;
    };
    let waited = tokio::time::timeout(Duration::from_secs(1), guard.cut());
    let (waited, ()) = tokio::join!(tokio::spawn(waited).map(Result::unwrap), judged);
    assert!(waited.is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_ended_connection_leaves_nothing_behind() {
    let (bench, a) = (bench(), Root::new("a"));
    let guards: Vec<_> = (0..100).map(|_| bench.hold(&a, &bundles(&[&a], 1))).collect();
    assert_eq!(bench.registry.lock().entries.len(), 100);
    drop(guards);
    assert!(bench.registry.lock().entries.is_empty());
    bench.registry.judge(&bundles(&[], 2)).await;
    assert_eq!(bench.cuts(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_own_app_is_never_cut() {
    assert!(Cut::never().now_or_never().is_none());
}
