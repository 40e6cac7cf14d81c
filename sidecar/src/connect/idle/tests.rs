use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
};

use proptest::prelude::*;

use super::*;
use crate::{
    connect::place::{Life, Seat, Target},
    model::{Cluster, fixture},
    resilience::circuit_breaker::admit_connection,
};

const BOUNDS: Bounds = Bounds { http1: 4, framed: 3, total: 6 };
const TERMS: Terms = Terms { idle: Duration::from_secs(10), age: Duration::from_secs(100) };

/// What a test can make of a connection from outside.
#[derive(Debug)]
struct Wire {
    state: Cell<State>,
    said: Cell<Said>,
}

/// A connection without a network.
#[derive(Debug)]
struct Fake {
    number: u32,
    seat: Seat,
    wire: Rc<Wire>,
    peer_idle: Option<Duration>,
    /// Every number that was dropped.
    dropped: Rc<RefCell<Vec<u32>>>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.dropped.borrow_mut().push(self.number);
    }
}

impl Pooled for Fake {
    fn place(&self) -> &Arc<Place> {
        &self.seat.0
    }

    fn peer_idle(&self) -> Option<Duration> {
        self.peer_idle
    }

    fn state(&mut self) -> State {
        self.wire.state.get()
    }

    fn probe(&mut self) -> Said {
        self.wire.said.get()
    }
}

/// Two clusters of two endpoints each, whose connections the idle ones under test are.
struct World {
    start: Instant,
    clusters: Vec<Arc<Cluster>>,
    idles: Idles<Fake>,
    made: u32,
    dropped: Rc<RefCell<Vec<u32>>>,
}

impl World {
    fn new() -> Self {
        let start = crate::clock::Clock::system().now();
        let cluster = |name| Arc::new(fixture::cluster(fixture::settings(name), 2, start));
        Self {
            start,
            clusters: vec![cluster("orders"), cluster("stock")],
            idles: Idles::new(BOUNDS),
            made: 0,
            dropped: Rc::default(),
        }
    }

    fn target(&self, cluster: usize, endpoint: usize) -> Target<'_> {
        let cluster = &self.clusters[cluster];
        Target { cluster, endpoint: &cluster.endpoints[endpoint], identity: None }
    }

    fn connection(&mut self, (cluster, endpoint, speak): Home, born: Instant) -> Fake {
        let target = self.target(cluster, endpoint);
        let slot = admit_connection(target.cluster).unwrap();
        let seat = Seat::new(target, speak, slot, Life { born, permille: 1000 });
        seat.0.opened();
        self.made += 1;
        Fake {
            number: self.made,
            seat,
            wire: Rc::new(Wire { state: Cell::new(State::Ready), said: Cell::new(Said::Nothing) }),
            peer_idle: None,
            dropped: Rc::clone(&self.dropped),
        }
    }

    fn put(&mut self, home: Home, now: Instant) -> (u32, Rc<Wire>) {
        let connection = self.connection(home, now);
        let known = (connection.number, Rc::clone(&connection.wire));
        self.idles.put(connection, now);
        known
    }

    fn take(&mut self, (cluster, endpoint, speak): Home, now: Instant) -> Taken<Fake> {
        let key = PoolKey::new(self.target(cluster, endpoint), speak);
        self.idles.take(&key, TERMS, now)
    }

    fn taken(&mut self, home: Home, now: Instant) -> Option<u32> {
        match self.take(home, now) {
            Taken::Ready(connection) => Some(connection.number),
            Taken::Busy | Taken::None => None,
        }
    }

    fn closed_for(&self, why: Closed) -> u64 {
        self.clusters.iter().map(|cluster| cluster.runtime.pool.closed_for(why)).sum()
    }
}

/// Cluster, endpoint, protocol.
type Home = (usize, usize, Speak);
const HOME: Home = (0, 0, Speak::Http1);

#[test]
fn the_newest_is_lent_first_and_only_under_its_own_key() {
    let mut world = World::new();
    let now = world.start;
    let (first, _) = world.put(HOME, now);
    let (second, _) = world.put(HOME, now);
    for elsewhere in [(0, 1, Speak::Http1), (1, 0, Speak::Http1), (0, 0, Speak::Tcp)] {
        assert_eq!(world.taken(elsewhere, now), None);
    }
    assert_eq!([world.taken(HOME, now), world.taken(HOME, now)], [Some(second), Some(first)]);
    assert_eq!(world.taken(HOME, now), None);
}

#[test]
fn none_is_lent_past_its_terms_though_the_sweeper_has_not_come_by() {
    let mut world = World::new();
    let now = world.start;
    world.put(HOME, now);
    assert_eq!(world.taken(HOME, now + TERMS.idle), None);
    assert_eq!(world.closed_for(Closed::Idle), 1);

    let old = world.connection(HOME, now);
    let later = now + TERMS.age;
    world.idles.put(old, later);
    assert_eq!(world.taken(HOME, later), None);
    assert_eq!(world.closed_for(Closed::Age), 1);
}

#[test]
fn what_the_peer_said_shortens_the_idle_time_and_never_lengthens_it() {
    let mut world = World::new();
    let now = world.start;
    for (said, limit) in [(3, 3), (60, 10)] {
        let mut connection = world.connection(HOME, now);
        connection.peer_idle = Some(Duration::from_secs(said));
        world.idles.put(connection, now);
        assert_eq!(world.taken(HOME, now + Duration::from_secs(limit)), None, "{said}");
    }
    assert_eq!(world.closed_for(Closed::Idle), 2);
}

#[test]
fn one_on_which_the_peer_has_said_something_is_closed_and_counted() {
    let mut world = World::new();
    let now = world.start;
    let (good, _) = world.put(HOME, now);
    let (_, ended) = world.put(HOME, now);
    let (_, bytes) = world.put(HOME, now);
    ended.state.set(State::Ended);
    bytes.said.set(Said::End(Closed::UnexpectedBytes));
    assert_eq!(world.taken(HOME, now), Some(good));
    assert_eq!((world.closed_for(Closed::Peer), world.closed_for(Closed::UnexpectedBytes)), (1, 1));
}

#[test]
fn one_whose_message_is_just_ending_is_passed_over_and_kept() {
    let mut world = World::new();
    let now = world.start;
    let (ready, _) = world.put(HOME, now);
    let (busy, wire) = world.put(HOME, now);
    wire.state.set(State::Busy);
    assert_eq!(world.taken(HOME, now), Some(ready));
    assert!(matches!(world.take(HOME, now), Taken::Busy));
    wire.state.set(State::Ready);
    assert_eq!(world.taken(HOME, now), Some(busy));
}

#[test]
fn one_with_something_unread_is_passed_over_until_it_has_been_read() {
    let mut world = World::new();
    let now = world.start;
    let (number, wire) = world.put(HOME, now);
    wire.said.set(Said::Unread);
    assert!(matches!(world.take(HOME, now), Taken::Busy));
    wire.said.set(Said::Nothing);
    assert_eq!(world.taken(HOME, now), Some(number));
}

#[test]
fn one_whose_message_does_not_end_is_closed_by_the_sweeper() {
    let mut world = World::new();
    let now = world.start;
    let (_, wire) = world.put(HOME, now);
    wire.state.set(State::Busy);
    world.idles.sweep(now, |_| Some(TERMS));
    assert_eq!(world.idles.len(), 1);
    world.idles.sweep(now + MAX_BUSY, |_| Some(TERMS));
    assert_eq!((world.idles.len(), world.closed_for(Closed::InUse)), (0, 1));
}

#[test]
fn the_oldest_make_room_for_newer_ones() {
    let mut world = World::new();
    let now = world.start;
    let first: Vec<_> = (0..BOUNDS.http1).map(|_| world.put(HOME, now).0).collect();
    world.put(HOME, now);
    assert_eq!(*world.dropped.borrow(), first[..1]);
    // Over all keys as well.
    for _ in 0..3 {
        world.put((1, 0, Speak::Tcp), now + Duration::from_secs(1));
    }
    assert_eq!(*world.dropped.borrow(), first[..2]);
    assert_eq!((world.idles.len(), world.closed_for(Closed::Full)), (BOUNDS.total, 2));
}

#[test]
fn the_oldest_of_the_cluster_is_reclaimed_and_no_other_clusters() {
    let mut world = World::new();
    let now = world.start;
    world.put((1, 0, Speak::Http1), now);
    let (older, _) = world.put((0, 1, Speak::Tcp), now + Duration::from_secs(1));
    world.put((0, 0, Speak::Http1), now + Duration::from_secs(2));
    let orders = Arc::clone(&world.clusters[0].runtime);
    assert_eq!(world.idles.reclaim(&orders).unwrap().number, older);
    assert!(world.idles.reclaim(&orders).is_some());
    assert!(world.idles.reclaim(&orders).is_none());
    assert_eq!(world.idles.len(), 1);
}

#[test]
fn those_of_removed_endpoints_and_clusters_are_closed() {
    let mut world = World::new();
    let now = world.start;
    for home in [(0, 0, Speak::Http1), (0, 1, Speak::Http1), (1, 0, Speak::Http1)] {
        world.put(home, now);
    }
    let endpoint = &world.clusters[0].endpoints[0];
    endpoint.runtime.is_removed.store(true, std::sync::atomic::Ordering::Relaxed);
    world.idles.sweep(now, |name| (name.as_str() == "orders").then_some(TERMS));
    assert_eq!((world.idles.len(), world.closed_for(Closed::Removed)), (1, 2));
    assert!(world.taken((0, 1, Speak::Http1), now).is_some());
}

#[test]
fn shorter_settings_count_for_connections_that_are_there_already() {
    let mut world = World::new();
    let now = world.start;
    world.put(HOME, now);
    let shorter = Terms { idle: Duration::from_secs(1), ..TERMS };
    world.idles.sweep(now + Duration::from_secs(1), |_| Some(shorter));
    assert_eq!(world.closed_for(Closed::Idle), 1);
}

/// One thing that may happen.
#[derive(Clone, Debug)]
enum Event {
    Make(Home),
    Take(Home),
    GiveBack(usize),
    Drop(usize),
    Reclaim(usize),
    Forget(Home),
    PeerSays(usize, Said),
    PeerEnds(usize),
    IsBusy(usize),
    Pass(u64),
    Sweep,
}

fn home() -> impl Strategy<Value = Home> {
    let speak = prop_oneof![Just(Speak::Http1), Just(Speak::Tcp)];
    (0..2_usize, 0..2_usize, speak)
}

fn event() -> impl Strategy<Value = Event> {
    let any = 0..64_usize;
    prop_oneof![
        4 => home().prop_map(Event::Make),
        4 => home().prop_map(Event::Take),
        6 => any.clone().prop_map(Event::GiveBack),
        1 => any.clone().prop_map(Event::Drop),
        1 => (0..2_usize).prop_map(Event::Reclaim),
        1 => home().prop_map(Event::Forget),
        1 => any.clone().prop_map(|one| Event::PeerSays(one, Said::End(Closed::UnexpectedBytes))),
        1 => any.clone().prop_map(|one| Event::PeerSays(one, Said::Unread)),
        1 => any.clone().prop_map(Event::PeerEnds),
        1 => any.prop_map(Event::IsBusy),
        2 => (0..9_u64).prop_map(Event::Pass),
        1 => Just(Event::Sweep),
    ]
}

/// What must be so, worked out the slow way.
#[derive(Default)]
struct Model {
    /// Every connection made: its home, its wire, and since when it is unused, if it is.
    made: BTreeMap<u32, (Home, Rc<Wire>, Option<Instant>)>,
    lent: Vec<Fake>,
}

impl Model {
    fn check(&mut self, world: &World) {
        for number in world.dropped.borrow().iter() {
            self.made.remove(number);
        }
        let unused: Vec<_> = self.made.values().filter(|(_, _, since)| since.is_some()).collect();
        assert_eq!(world.idles.len(), unused.len(), "each is either lent, unused or gone");
        assert!(unused.len() <= BOUNDS.total);
        for (home, ..) in &unused {
            let bound = if home.2 == Speak::Tcp { BOUNDS.framed } else { BOUNDS.http1 };
            assert!(unused.iter().filter(|(other, ..)| other == home).count() <= bound);
        }
        let open: u32 = world
            .clusters
            .iter()
            .map(|c| c.runtime.connections.load(std::sync::atomic::Ordering::Relaxed))
            .sum();
        assert_eq!(open as usize, self.made.len(), "a slot for each connection");
    }

    fn took(&mut self, connection: Fake, home: Home, now: Instant) {
        let (of, wire, since) = self.made.get_mut(&connection.number).unwrap();
        assert_eq!(*of, home, "lent to somebody else");
        let since = since.take().expect("lent twice");
        assert!(now - since < TERMS.idle, "lent past its time");
        assert_eq!(
            (wire.state.get(), wire.said.get()),
            (State::Ready, Said::Nothing),
            "lent though it is no good"
        );
        self.lent.push(connection);
    }

    fn wire(&self, one: usize) -> Option<&Rc<Wire>> {
        self.made.values().nth(one).map(|(_, wire, _)| wire)
    }

    fn happen(&mut self, event: Event, world: &mut World, now: &mut Instant) {
        match event {
            Event::Make(home) => {
                let connection = world.connection(home, *now);
                self.made.insert(connection.number, (home, Rc::clone(&connection.wire), None));
                self.lent.push(connection);
            }
            Event::Take(home) => {
                if let Taken::Ready(connection) = world.take(home, *now) {
                    self.took(connection, home, *now);
                }
            }
            Event::GiveBack(one) if one < self.lent.len() => {
                let connection = self.lent.swap_remove(one);
                self.made.get_mut(&connection.number).unwrap().2 = Some(*now);
                world.idles.put(connection, *now);
            }
            Event::Drop(one) if one < self.lent.len() => drop(self.lent.swap_remove(one)),
            Event::Reclaim(cluster) => {
                let cluster = Arc::clone(&world.clusters[cluster].runtime);
                if let Some(connection) = world.idles.reclaim(&cluster) {
                    assert!(Arc::ptr_eq(&connection.place().counts, &cluster));
                    assert!(self.made[&connection.number].2.is_some(), "one in use was reclaimed");
                }
            }
            Event::Forget((cluster, endpoint, speak)) => {
                let key = PoolKey::new(world.target(cluster, endpoint), speak);
                world.idles.forget(&key, Closed::Distrusted);
            }
            Event::PeerSays(one, what) => {
                self.wire(one).inspect(|wire| wire.said.set(what));
            }
            Event::PeerEnds(one) => {
                self.wire(one).inspect(|wire| wire.state.set(State::Ended));
            }
            Event::IsBusy(one) => {
                self.wire(one).inspect(|wire| wire.state.set(State::Busy));
            }
            Event::Pass(seconds) => *now += Duration::from_secs(seconds),
            Event::Sweep => world.idles.sweep(*now, |_| Some(TERMS)),
            Event::GiveBack(_) | Event::Drop(_) => {}
        }
    }
}

proptest! {
    #[test]
    fn whatever_happens_none_is_lent_twice_or_wrongly_and_no_bound_is_passed(
        events in proptest::collection::vec(event(), 1..200),
    ) {
        let mut world = World::new();
        let (mut model, mut now) = (Model::default(), world.start);
        for event in events {
            model.happen(event, &mut world, &mut now);
            model.check(&world);
        }
        model.lent.clear();
        world.idles.clear();
        let open = world.clusters.iter().map(|c| c.runtime.connections.load(std::sync::atomic::Ordering::Relaxed));
        prop_assert_eq!(open.sum::<u32>(), 0);
        let closed: u64 = Closed::ALL.into_iter().map(|why| world.closed_for(why)).sum();
        prop_assert_eq!(closed, u64::from(world.made), "each is closed once, for one reason");
    }
}
