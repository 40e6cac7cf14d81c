//! Services that routes of others lead to.

use super::*;

fn routes(names: &[&str]) -> Vec<String> {
    let clusters: Vec<String> = names.iter().map(|name| format!(r#"{{"name":"{name}"}}"#)).collect();
    vec![format!(r#"{{"rules":[{{"clusters":[{}]}}]}}"#, clusters.join(","))]
}

fn routed(name: &str, generation: u64, needs: &[&str]) -> Said {
    let Said::Service(said) = service(name, generation, "{}") else { unreachable!() };
    Said::Service(Service { routes: routes(needs), ..said })
}

/// `a`, asked for, whose routes lead to `b`.
fn with_routes() -> Bench {
    let mut bench = Bench::new(8);
    bench.want("10.96.0.1:80");
    bench.asked();
    bench.hear(service("b", 1, "{}"));
    bench.hear(all("b", 2, &["10.0.0.2:80"]));
    bench.hear(routed("a", 3, &["b"]));
    bench.hear(all("a", 4, &["10.0.0.1:80"]));
    bench.hear(leads("10.96.0.1:80", "a"));
    bench
}

fn look_idle(bench: &mut Bench) -> Changes {
    bench.look(Usage::default())
}

#[test]
fn what_routes_name_is_in_force_with_them_and_is_asked_for_by_nobody() {
    let mut bench = with_routes();
    let fragments = bench.state.fragments().services;
    let asked: Vec<_> = fragments.iter().map(|it| (&*it.name, it.is_asked_for)).collect();
    assert_eq!(asked, [("a", true), ("b", false)]);
    let counts: Vec<_> = fragments.iter().map(|it| it.routes.as_ref().unwrap().len()).collect();
    assert_eq!(counts, [1, 0]);
    bench.want("orders:80");
    bench.hear(leads("orders:80", "b"));
    assert!(bench.state.fragments().services[1].is_asked_for);
}

#[test]
fn other_routes_are_no_other_revision() {
    let mut bench = with_routes();
    let before = bench.state.list("a").unwrap().0;
    assert!(bench.hear(routed("a", 5, &["a", "b"])).fragments);
    assert!(!bench.hear(routed("a", 6, &["a", "b"])).fragments);
    assert_eq!(bench.state.list("a").unwrap().0, before);
}

#[test]
fn what_comes_late_is_in_force_when_its_endpoints_are_known() {
    let mut bench = with_routes();
    bench.hear(routed("a", 5, &["b", "c"]));
    assert!(!bench.hear(service("c", 1, "{}")).fragments);
    assert_eq!(bench.in_force(), ["a", "b"]);
    assert!(bench.hear(all("c", 6, &["10.0.0.3:80"])).fragments);
    assert_eq!(bench.in_force(), ["a", "b", "c"]);
    bench.state.end();
    bench.state.begin();
    assert_eq!(bench.in_force(), ["a", "b", "c"], "what was said stays");
}

#[test]
fn what_routes_name_no_more_goes_when_the_newer_ones_are_in_force() {
    let mut bench = with_routes();
    bench.hear(routed("a", 5, &["a"]));
    assert_eq!(bench.in_force(), ["a", "b"], "the earlier may stay in force");
    assert_eq!(look_idle(&mut bench), Changes::default());
    let refused = Usage { is_rejected: true, ..Usage::default() };
    assert_eq!(bench.look(refused), Changes::default());
    let changes = look_idle(&mut bench);
    assert!(changes.fragments);
    assert_eq!(changes.gone.iter().map(AsRef::as_ref).collect::<Vec<&str>>(), ["b"]);
    assert_eq!(bench.in_force(), ["a"]);
}

#[test]
fn what_nothing_leads_to_takes_with_it_what_only_its_routes_need() {
    let mut bench = with_routes();
    let changes = bench.hear(leads("10.96.0.1:80", ""));
    assert_eq!(changes.gone.len(), 2);
    assert_eq!(bench.in_force(), [""; 0]);
}

#[test]
fn requests_that_routes_send_elsewhere_count_as_use() {
    let mut bench = with_routes();
    let used = |ended| {
        move |service: &str| match service {
            "b" => Usage { ended, ..Usage::default() },
            _ => Usage::default(),
        }
    };
    for hour in 0..5 {
        bench.now += IDLE;
        let changes = bench.state.look(used(hour + 1), bench.now);
        assert_eq!(changes, Changes::default());
    }
    bench.now += IDLE;
    assert_eq!(bench.state.look(used(5), bench.now).gone.len(), 2);
}

#[test]
fn services_that_nothing_leads_to_are_bounded() {
    let mut bench = Bench::new(8);
    let tell = |bench: &mut Bench, number| {
        bench.state.hear(said(service(&format!("s{number}"), 1, "{}")), bench.now)
    };
    for number in 0..8 + MAX_LOOSE_SERVICES {
        tell(&mut bench, number).unwrap();
    }
    assert_eq!(tell(&mut bench, 1_000_000), Err(Fault::TooMany("services")));
    bench.state.begin();
    tell(&mut bench, 1_000_000).unwrap();
}
