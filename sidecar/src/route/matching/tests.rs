use http::{HeaderValue, Request};

use super::*;

fn prefix(path: &str) -> PathMatch {
    PathMatch::Prefix(path.trim_end_matches('/').into())
}

fn exact(path: &str) -> PathMatch {
    PathMatch::Exact(path.into())
}

fn head(method: &Method, target: &str, fields: &[(&'static str, &'static str)]) -> Parts {
    let mut request = Request::builder().method(method).uri(target);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn text(name: &str, value: Option<&str>) -> TextMatch {
    TextMatch { name: name.into(), value: value.map(Into::into) }
}

#[test]
fn a_prefix_ends_where_a_segment_does_and_spelling_does_not_matter() {
    for (path, matches, is_it) in [
        ("/a", prefix("/a"), true),
        ("/a/", prefix("/a"), true),
        ("/a/b", prefix("/a/"), true),
        ("/a", prefix("/a/"), true),
        ("/ab", prefix("/a"), false),
        ("/%61", prefix("/a"), true),
        ("/%61", exact("/a"), true),
        ("/%61%2fb", prefix("/a"), false),
        ("//a", prefix("/a"), false),
        ("/b/../a", prefix("/a"), true),
        ("/b/%2e%2E/a", exact("/a"), true),
        ("/A", prefix("/a"), false),
        ("/a;x", prefix("/a"), false),
        ("/", prefix("/"), true),
        ("/a", exact("/a"), true),
        ("/a/", exact("/a"), false),
        ("/a", exact("/a/"), false),
    ] {
        let head = head(&Method::GET, path, &[]);
        let matches = RouteMatch { path: matches, ..RouteMatch::ANY };
        assert_eq!(Asked::of(&head).is_of(&matches), is_it, "{path} {matches:?}");
    }
}

#[test]
fn a_path_without_one_spelling_fits_only_what_asks_for_none() {
    for path in ["/a/..%2f", "/%", "/a%00", "/..", "/%5c"] {
        let head = head(&Method::GET, path, &[]);
        let asked = Asked::of(&head);
        assert!(!asked.has_clear_path() && asked.path().is_none(), "{path}");
        for of in [prefix("/"), exact(path)] {
            let matches = RouteMatch { path: of, ..RouteMatch::ANY };
            assert_eq!(asked.misfit(&matches), Some(Misfit::Path), "{path}");
        }
        assert!(asked.is_of(&RouteMatch::ANY), "{path}");
    }
}

#[test]
fn a_field_must_be_there_with_its_value_if_it_has_one() {
    let head = head(&Method::GET, "/", &[("a", "1"), ("a", "2"), ("b", "")]);
    let asked = Asked::of(&head);
    for (name, value, is_there) in [
        ("a", None, true),
        ("a", Some("1"), true),
        ("a", Some("2"), true),
        ("a", Some("3"), false),
        ("b", None, true),
        ("c", None, false),
    ] {
        let field =
            HeaderMatch { name: HeaderName::from_static(name), value: value.map(HeaderValue::from_static) };
        let matches = RouteMatch { headers: vec![field.clone()], ..RouteMatch::ANY };
        let misfit = (!is_there).then_some(Misfit::Header(&field.name));
        assert_eq!(asked.misfit(&matches), misfit, "{name} {value:?}");
    }
}

#[test]
fn cookies_and_queries_are_found_by_name_with_their_first_value() {
    let head = head(&Method::GET, "/?v=2&v=3&q=a+b", &[("cookie", "x=1; user=anna"), ("cookie", "user=ben")]);
    let asked = Asked::of(&head);
    for (name, value, is_there) in
        [("user", Some("anna"), true), ("user", Some("ben"), false), ("x", None, true), ("y", None, false)]
    {
        let matches = RouteMatch { cookies: vec![text(name, value)], ..RouteMatch::ANY };
        assert_eq!(asked.misfit(&matches), (!is_there).then_some(Misfit::Cookie(name)), "{name}");
    }
    for (name, value, is_there) in
        [("v", Some("2"), true), ("v", Some("3"), false), ("q", Some("a b"), true), ("w", None, false)]
    {
        let matches = RouteMatch { query: vec![text(name, value)], ..RouteMatch::ANY };
        assert_eq!(asked.misfit(&matches), (!is_there).then_some(Misfit::Query(name)), "{name}");
    }
}

#[test]
fn a_call_of_grpc_is_known_by_its_content_type() {
    let matches = RouteMatch { is_grpc: true, ..RouteMatch::ANY };
    for (kind, is_it) in [
        (Some("application/grpc"), true),
        (Some("application/grpc+proto"), true),
        (Some("application/grpc-web"), false),
        (Some("application/json"), false),
        (None, false),
    ] {
        let fields: Vec<_> = kind.into_iter().map(|kind| ("content-type", kind)).collect();
        let head = head(&Method::POST, "/shop.Orders/Get", &fields);
        assert_eq!(Asked::of(&head).is_of(&matches), is_it, "{kind:?}");
    }
}

#[test]
fn the_gateway_apis_order_goes_on_with_the_query() {
    let field = |name| HeaderMatch { name: HeaderName::from_static(name), value: None };
    let ordered = [
        RouteMatch { path: exact("/"), ..RouteMatch::ANY },
        RouteMatch { path: prefix("/long"), ..RouteMatch::ANY },
        RouteMatch {
            path: prefix("/a"),
            methods: vec![Method::GET],
            headers: vec![field("a")],
            ..RouteMatch::ANY
        },
        RouteMatch { path: prefix("/a"), methods: vec![Method::GET], ..RouteMatch::ANY },
        RouteMatch { path: prefix("/a"), headers: vec![field("a"), field("b")], ..RouteMatch::ANY },
        RouteMatch {
            path: prefix("/a"),
            headers: vec![field("a")],
            query: vec![text("q", None)],
            ..RouteMatch::ANY
        },
        RouteMatch { path: prefix("/a"), cookies: vec![text("c", None)], ..RouteMatch::ANY },
        RouteMatch { path: prefix("/a"), query: vec![text("q", None), text("r", None)], ..RouteMatch::ANY },
        RouteMatch { path: prefix("/a"), ..RouteMatch::ANY },
        RouteMatch { headers: vec![field("a")], ..RouteMatch::ANY },
        RouteMatch { query: vec![text("q", None)], ..RouteMatch::ANY },
        RouteMatch::ANY,
    ];
    assert_eq!(rank(&RouteMatch { path: prefix("/"), ..RouteMatch::ANY }), rank(&RouteMatch::ANY));
    assert!(ordered.windows(2).all(|two| rank(&two[0]) > rank(&two[1])));
}
