//! What routes change, and what apps are told of callers.

use http::{HeaderName, HeaderValue, StatusCode};

use super::*;
use crate::model::{
    edits::{PathEdit, Redirect},
    forwarded::ClientCert,
    policy::Policy,
};

const CLUSTER: &str = "outbound: [{listen: '127.0.0.1:0'}]\nclusters:\n  - name: c\n    spiffe_ids: [spiffe://demo.outrider/c]\n    \
                       endpoints: [{address: '10.0.0.7:4343'}]\n";

/// What holds for requests of a route below `/a` with these further keys.
fn policy(keys: &str) -> Policy {
    let text = format!("{TOP}{CLUSTER}    routes: [{{path_prefix: /a, {keys}}}]\n");
    let cluster = settings(&text).clusters.remove(0);
    Policy::clone(&cluster.routes[0].policy)
}

#[track_caller]
fn assert_route_faults(route: &str, expected: &[&str]) {
    assert_faults(&format!("{CLUSTER}    routes: [{{{route}}}]\n"), expected);
}

#[test]
fn a_route_says_what_it_changes() {
    let policy = policy(
        "request_headers: {set: [{name: X-Team, value: a}], add: [{name: x-b, value: '1'}, {name: x-b, value: '2'}], remove: [x-c]}, \
         response_headers: {remove: [Server]}, rewrite: {host: 'Orders.Example:8080', path_prefix: /v2/}",
    );
    let edits = policy.edits.unwrap();
    let field = |name, value| (HeaderName::from_static(name), HeaderValue::from_static(value));
    assert_eq!(edits.request.set, [field("x-team", "a")]);
    assert_eq!(edits.request.add, [field("x-b", "1"), field("x-b", "2")]);
    assert_eq!(edits.request.remove, ["x-c"]);
    assert_eq!(edits.response.remove, ["server"]);
    assert_eq!(edits.host.as_deref(), Some("orders.example:8080"));
    assert_eq!(edits.path, Some(PathEdit::Prefix("/v2".into())));
    assert_eq!(policy.redirect, None);
}

#[test]
fn a_route_says_where_it_sends_its_callers() {
    let said = |keys: &str| Redirect::clone(&policy(&format!("redirect: {{{keys}}}")).redirect.unwrap());
    let none = Redirect { scheme: None, host: None, port: None, path: None, status: StatusCode::FOUND };
    assert_eq!(said("scheme: https"), Redirect { scheme: Some("https"), ..none.clone() });
    let whole = Redirect {
        host: Some("b.example".into()),
        port: Some(8443),
        path: Some(PathEdit::Whole("/b".into())),
        status: StatusCode::PERMANENT_REDIRECT,
        ..none.clone()
    };
    assert_eq!(said("host: b.example, port: 8443, path: /b, status: 308"), whole);
    assert_eq!(said("path_prefix: /"), Redirect { path: Some(PathEdit::Prefix("".into())), ..none });
}

#[test]
fn what_is_not_a_routes_to_change_is_a_fault() {
    let set = |name: &str| format!("path: /a, request_headers: {{set: [{{name: '{name}', value: a}}]}}");
    for name in [
        "Host",
        "x-outrider-attempt",
        "connection",
        "content-length",
        "x-forwarded-client-cert",
        ":path",
        "x_real_ip",
    ] {
        let fault = format!(
            "routes[0].request_headers.set[0].name (9): \"{name}\" is not a field that a route may change"
        );
        assert_route_faults(&set(name), &[&fault]);
    }
    assert_route_faults(&set("x-forwarded-for"), &[]);
    assert_route_faults(&set("authorization"), &[]);
    assert_route_faults("path: /a, response_headers: {add: [{name: origin, value: a}]}", &[]);
    let long = "v".repeat(4097);
    for (keys, fault) in [
        ("request_headers: {add: [{name: Authorization, value: a}]}", "add (9): adds authorization, and a"),
        ("request_headers: {add: [{name: content-type, value: a}]}", "adds content-type"),
        ("request_headers: {add: [{name: origin, value: a}]}", "adds origin"),
        ("request_headers: {set: []}", "request_headers.set (9): has 0 items"),
        ("response_headers: {remove: [te]}", "response_headers.remove[0] (9): \"te\" is not a field"),
        ("request_headers: {set: [{value: a}]}", "request_headers.set[0].name (9): is missing"),
        ("request_headers: {set: [{name: a}]}", "request_headers.set[0].value (9): is missing"),
        ("request_headers: {add: [{name: a, value: ' b'}]}", "\" b\" is not the value of a field"),
        ("request_headers: {add: [{name: a, value: \"b\\r\\nc: d\"}]}", "is not the value of a field"),
        ("request_headers: {set: [{name: a, value: b}, {name: A, value: c}]}", "set (9): sets a twice"),
        (
            "request_headers: {set: [{name: a, value: b}], remove: [a]}",
            "remove (9): removes a, which is set or added",
        ),
        ("request_headers: {remove: [a, A]}", "remove[1] (9): stands here twice"),
        ("request_headers: {sets: []}", "request_headers.sets (9): no such key"),
    ] {
        assert_route_faults(&format!("path: /a, {keys}"), &[fault]);
    }
    let keys = format!("path: /a, request_headers: {{set: [{{name: a, value: {long}}}]}}");
    assert_route_faults(&keys, &["is not the value of a field"]);
}

#[test]
fn hosts_and_paths_are_written_in_their_one_spelling() {
    for (keys, fault) in [
        ("rewrite: {}", "rewrite (9): changes nothing"),
        ("rewrite: {path: /b, path_prefix: /c}", "rewrite.path_prefix (9): stands beside path"),
        (
            "rewrite: {path_prefix: /c}",
            "rewrite.path_prefix (9): there is no prefix that it could take the place of",
        ),
        ("rewrite: {path: b}", "rewrite.path (9): \"b\" is not the path of a request"),
        ("rewrite: {path: /b?c}", "rewrite.path (9): \"/b?c\" is not the path of a request"),
        ("rewrite: {path: /b//c}", "rewrite.path (9): \"/b//c\" is not the path of a request"),
        ("rewrite: {path: /%62}", "rewrite.path (9): \"/%62\" is spelled otherwise"),
        ("rewrite: {path: /b/../c}", "rewrite.path (9): \"/b/../c\" is spelled otherwise"),
        ("rewrite: {host: 'a b'}", "rewrite.host (9): \"a b\" is not a host, or one with a port"),
        ("redirect: {status: 301}", "redirect (9): leads to where the caller comes from"),
        ("redirect: {host: 'a:80'}", "redirect.host (9): \"a:80\" is not a host"),
        ("redirect: {scheme: ftp}", "redirect.scheme (9): \"ftp\" is not known here"),
        ("redirect: {path: /b, status: 200}", "redirect.status (9): \"200\" is not known here"),
        ("redirect: {port: 0}", "redirect.port (9): 0 is out of range"),
        ("redirect: {path_prefix: /b}", "redirect.path_prefix (9): there is no prefix"),
        (
            "redirect: {path: /b}, rewrite: {path: /c}",
            "rewrite (9): has no meaning where the caller is sent elsewhere",
        ),
        (
            "redirect: {path: /b}, retry: {max_retries: 1}",
            "retry (9): has no meaning where the caller is sent elsewhere",
        ),
    ] {
        assert_route_faults(&format!("path: /a, {keys}"), &[fault]);
    }
}

#[test]
fn what_apps_are_told_of_callers_is_said_once_for_all_and_hops_for_each_port() {
    assert_eq!(settings(&format!("{TOP}{CLUSTER}")).forwarded.client_cert, ClientCert::Replace);
    for (word, expected) in
        [("replace", ClientCert::Replace), ("append", ClientCert::Append), ("off", ClientCert::Off)]
    {
        let text = format!("{TOP}{CLUSTER}forwarded: {{client_cert: {word}}}\n");
        assert_eq!(settings(&text).forwarded.client_cert, expected);
    }
    assert_faults(
        &format!("{CLUSTER}forwarded: {{client_cert: keep}}\n"),
        &["forwarded.client_cert (9): \"keep\" is not known here"],
    );
    assert_faults(&format!("{CLUSTER}forwarded: {{hops: 1}}\n"), &["forwarded.hops (9): no such key"]);
}
