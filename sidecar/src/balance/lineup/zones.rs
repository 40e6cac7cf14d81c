//! The own zone first: what it gets, and what goes to the others.
//!
//! A zone gets everything as long as its health, the share of its weight that is usable times [`OVERPROVISIONED`], is
//! 100 %: so it may lose a little more than a quarter before anything leaves it. Under that the rest goes to all others
//! together, by weight; if they are not well either, both get in proportion to their health (as Envoy's priorities).

use crate::model::{Cluster, balance::Balance, lineup::Seat};

/// What a zone can take beyond its usual share (as Envoy's overprovisioning factor).
const OVERPROVISIONED: f64 = 1.4;

/// How the zones share.
#[derive(Default)]
pub(super) struct Zoned {
    /// Endpoints that have no seat but are usable.
    pub(super) spare: Vec<u32>,
    /// What the own zone gets, if zones play a part.
    pub(super) own_ratio: Option<f64>,
}

/// Scales the shares of `seats` by what their zones get; those of zones that get nothing leave. In panic zones play no
/// part, nor for consistent hashing, which leads a key to one endpoint from wherever it comes.
pub(super) fn divide(cluster: &Cluster, is_panic: bool, seats: &mut Vec<Seat>) -> Zoned {
    let settings = &cluster.settings;
    let is_off = is_panic || !settings.balancing.prefers_zone || settings.balance == Balance::Maglev;
    if is_off || cluster.zone.is_none() {
        return Zoned::default();
    }
    let is_own = |seat: &Seat| is_own(cluster, seat.endpoint);
    let (own, others): (Vec<Seat>, Vec<Seat>) = seats.iter().copied().partition(&is_own);
    let (whole_own, whole_others) = whole(cluster);
    let (own_health, other_health) =
        (health(cluster, &own, whole_own), health(cluster, &others, whole_others));
    let own_ratio = match own_health + other_health {
        0.0 => return Zoned::default(),
        sum if sum < 1.0 => own_health / sum,
        _ => own_health,
    };
    let spare = |seats: &[Seat]| seats.iter().map(|seat| seat.endpoint).collect();
    let spare = match own_ratio {
        1.0 => {
            *seats = own;
            spare(&others)
        }
        0.0 => Vec::new(),
        _ => {
            let (own_sum, other_sum) = (sum(&own), sum(&others));
            for seat in seats {
                seat.share *= if is_own(seat) { own_ratio / own_sum } else { (1.0 - own_ratio) / other_sum };
            }
            Vec::new()
        }
    };
    Zoned { spare, own_ratio: Some(own_ratio) }
}

/// Whether an endpoint is of the own zone.
fn is_own(cluster: &Cluster, endpoint: u32) -> bool {
    let endpoint = cluster.endpoints.get(endpoint as usize);
    endpoint
        .is_some_and(|endpoint| endpoint.settings.zone.is_some() && endpoint.settings.zone == cluster.zone)
}

/// The weight of all endpoints, well or not, of the own zone and of the others.
fn whole(cluster: &Cluster) -> (f64, f64) {
    let weigh = |(own, others): (f64, f64), (index, weight)| {
        if is_own(cluster, index) { (own + weight, others) } else { (own, others + weight) }
    };
    let weights = cluster.endpoints.iter().map(|endpoint| f64::from(endpoint.settings.weight.max(1)));
    (0_u32..).zip(weights).fold((0.0, 0.0), weigh)
}

/// Of what a zone has in all: what is usable, 0.0..=1.0. A slow start is no lack of health, an overload is.
fn health(cluster: &Cluster, seats: &[Seat], whole: f64) -> f64 {
    let weight = |seat: &Seat| {
        let endpoint = cluster.endpoints.get(seat.endpoint as usize);
        endpoint.map_or(0.0, |endpoint| f64::from(endpoint.settings.weight.max(1)) * seat.capacity)
    };
    let usable: f64 = seats.iter().map(weight).sum();
    if whole > 0.0 { (OVERPROVISIONED * usable / whole).min(1.0) } else { 0.0 }
}

fn sum(seats: &[Seat]) -> f64 {
    seats.iter().map(|seat| seat.share).sum()
}
