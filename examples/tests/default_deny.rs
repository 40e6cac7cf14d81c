//! Does what the page about default deny says, command by command, and looks closer: at each verdict, at what audit mode
//! tells, and at whether `outrider policy explain` says what then happens.

mod page;
mod tour;

use tour::Tour;

const WEB: &str = "spiffe://example.org/ns/shop/sa/web";
const REPORTS: &str = "spiffe://example.org/ns/office/sa/reports";

/// What each of the page's callers asks for once the rules hold, and whether it passes.
const VERDICTS: [(&str, &str, u16, &str, &str, bool); 16] = [
    ("web", WEB, 8080, "GET", "/items", true),
    ("web", WEB, 8080, "HEAD", "/items", true),
    ("web", WEB, 8080, "GET", "/items/7", true),
    ("web", WEB, 8080, "GET", "/%69tems", true),
    ("web", WEB, 8080, "DELETE", "/items/7", false),
    ("web", WEB, 8080, "GET", "/itemsold", false),
    ("web", WEB, 8080, "GET", "/Items", false),
    ("web", WEB, 8080, "GET", "/items/../reports", false),
    ("web", WEB, 8080, "GET", "/items/%2e%2e/reports", false),
    ("web", WEB, 8080, "GET", "/items/..%2freports", false),
    ("web", WEB, 8080, "get", "/items", false),
    ("reports", REPORTS, 8080, "GET", "/reports", false),
    ("reports", REPORTS, 8081, "GET", "/reports", true),
    ("reports", REPORTS, 8081, "POST", "/reports", false),
    ("reports", REPORTS, 8081, "GET", "/reports/", false),
    ("reports", REPORTS, 8081, "GET", "/items", false),
];

#[test]
fn the_page_about_default_deny_works_as_it_is_written() {
    let sidecars = [11, 12, 31].into_iter().flat_map(|host| [(host, 4340), (host, 4391)]);
    let cas = [10, 30].into_iter().flat_map(|host| [(host, 4350), (host, 4351)]);
    let orders = [4343, 4344, 4391, 8080, 8081].map(|port| (20, port));
    let needed: Vec<_> = sidecars.chain(cas).chain(orders).collect();
    let mut tour = Tour::start(include_str!("../default-deny/README.md"), &needed);
    tour.through(4);

    nobody(&tour.through(5));
    audited(&tour.through(6));

    let said = tour.through(7);
    for proof in [
        "allowed by rule web-reads",
        "allowed by rule reports",
        "allowed by rule lists",
        "AUDIT: what no rule allows passes, and is told",
        "audited: no rule fits, and it passes as mode is audit\n  web-reads: is about another method\n  \
         reports: is not about this caller\n  lists: is about another call of gRPC",
    ] {
        assert!(said.contains(proof), "{proof} is nowhere in\n{said}");
    }

    let said = tour.through(8);
    assert_eq!(said.matches("returned error: 403").count(), 6, "{said}");
    assert_eq!(said.matches("outrider: not_authorized").count(), 6, "{said}");
    assert_eq!(said.matches(r#""service":"#).count(), 4, "what is needed passes: {said}");
    assert!(said.contains(&format!("lists shop {WEB} grpc POST /shop.Orders/List")), "{said}");
    for verdict in VERDICTS {
        what_is_explained_happens(&mut tour, verdict);
    }
    let said = tour.follow("until grep '^denied back-office .*/items' calls.log; do sleep 0.2; done", false);
    assert!(said.contains(&format!("denied back-office {REPORTS} http GET /items")), "{said}");

    let said = tour.through(9);
    assert!(said.contains("returned error: 503"), "no connection at first: {said}");
    assert!(said.contains("nor of one that a rule names"), "{said}");
    assert!(said.contains("allowed by rule partner-billing"), "{said}");
    assert!(said.contains("HTTP/1.1 403 Forbidden"), "a connection, and no more: {said}");

    let said = tour.through(10);
    assert!(said.contains("outrider: no_longer_allowed\n"), "{said}");
    assert!(said.contains("allowed by authorization rule `web-reads`"), "as it was when it began: {said}");
    assert_eq!(said.matches(r#""service":"orders""#).count(), 1, "and back: {said}");
    tour.through(11);
    tour.end();
}

/// Section 5: there are no rules.
fn nobody(said: &str) {
    for proof in [
        "what no rule allows is denied",
        "HTTP/1.1 403 Forbidden",
        "x-outrider-reason: not_authorized",
        "denied: no rule fits\n  there are no rules",
        "no authorization rule allows it: denied",
        "WARN outrider::pipeline::authorize: no authorization rule allows a request: denied",
        r#"outrider_authorization_total{listener="shop",verdict="denied"} 1"#,
        r#"outrider_authorization_total{listener="shop",verdict="allowed"} 0"#,
    ] {
        assert!(said.contains(proof), "{proof} is nowhere in\n{said}");
    }
    assert!(!said.contains(r#""service":"#), "an app has answered: {said}");
}

/// Section 6: everything of the own trust domain passes, and is told.
fn audited(said: &str) {
    assert_eq!(said.matches(r#""service":"orders""#).count(), 5, "{said}");
    assert_eq!(said.matches(r#""service":"back-office""#).count(), 1, "{said}");
    assert!(said.contains("returned error: 503"), "the partner passed: {said}");
    let count = |line: &str| line.trim().split_once(" audited ").map(|(_, told)| told.to_owned());
    let mut told: Vec<String> = said.lines().filter_map(count).collect();
    told.sort();
    let expected = [
        format!("back-office {REPORTS} http GET /reports"),
        format!("shop {REPORTS} http GET /items"),
        format!("shop {WEB} grpc POST /shop.Orders/List"),
        format!("shop {WEB} http GET /items"),
        format!("shop {WEB} http GET /items/7"),
        format!("shop {WEB} http POST /items"),
    ];
    assert_eq!(told, expected, "{said}");
}

/// `policy explain` and a real call agree with each other and with what is meant.
fn what_is_explained_happens(
    tour: &mut Tour,
    (who, id, port, method, path, passes): (&str, &str, u16, &str, &str, bool),
) {
    let cluster = if port == 8080 { "orders" } else { "back-office" };
    let head = if method == "HEAD" { "-I".to_owned() } else { format!("-X {method}") };
    let asked = format!(
        "if explain --port {port} --from {id} --method {method} --path '{path}'; then echo passes=true; \
         else echo passes=false; fi\n{who} -s --path-as-is {head} -o seen -w 'status=%{{http_code}}\\n' \
         'http://{cluster}{path}' || true"
    );
    let said = tour.follow(&asked, false);
    assert!(said.contains(&format!("passes={passes}\n")), "{who} {method} {path}: {said}");
    let answered = said.contains("status=200\n");
    let refused = said.contains("status=403\n") || said.contains("status=400\n");
    assert_eq!((answered, refused), (passes, !passes), "{who} {method} {path}: {said}");
}
