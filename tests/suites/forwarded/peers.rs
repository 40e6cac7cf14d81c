//! What verified peers say of those before them.

use super::{Callee, all};

#[tokio::test]
async fn host_port_and_scheme_are_told_where_nobody_has_said_them_well() {
    let callee = Callee::new("").await;
    for (sent, host, port, proto) in [
        (&[][..], "orders", "443", "https"),
        (&[("host", "Orders:8080")], "orders:8080", "8080", "https"),
        (&[("x-forwarded-proto", "http")], "orders", "80", "http"),
        (
            &[
                ("x-forwarded-host", "shop.example"),
                ("x-forwarded-port", "8443"),
                ("x-forwarded-proto", "https"),
            ],
            "shop.example",
            "8443",
            "https",
        ),
        (&[("x-forwarded-host", "shop.example:81, orders")], "shop.example:81, orders", "81", "https"),
        // Said badly, or twice: as if nobody had.
        (&[("x-forwarded-host", "a b"), ("x-forwarded-port", "0")], "orders", "443", "https"),
        (&[("x-forwarded-host", "a.example"), ("x-forwarded-host", "b.example")], "orders", "443", "https"),
        (&[("x-forwarded-port", "1"), ("x-forwarded-port", "1")], "orders", "443", "https"),
        (&[("x-forwarded-port", "+1")], "orders", "443", "https"),
        (&[("x-forwarded-proto", "http"), ("x-forwarded-proto", "https")], "orders", "443", "https"),
        (&[("x-forwarded-proto", "gopher")], "orders", "443", "https"),
    ] {
        let seen = callee.seen_of(sent).await;
        let told = ["x-forwarded-host", "x-forwarded-port", "x-forwarded-proto"]
            .map(|name| seen.header(name).unwrap());
        assert_eq!(told, [host, port, proto], "{sent:?}");
    }
}

#[tokio::test]
async fn the_peers_address_is_the_last_of_one_line() {
    let callee = Callee::new("").await;
    for (sent, addresses, forwarded) in [
        (&[][..], "127.0.0.1", None),
        (&[("x-forwarded-for", "192.0.2.1")], "192.0.2.1, 127.0.0.1", None),
        (
            &[("x-forwarded-for", "192.0.2.1,"), ("x-forwarded-for", "192.0.2.2")],
            "192.0.2.1, 192.0.2.2, 127.0.0.1",
            None,
        ),
        (
            &[("forwarded", "for=192.0.2.1;proto=https"), ("forwarded", "for=\"[2001:db8::1]\"")],
            "127.0.0.1",
            Some("for=192.0.2.1;proto=https, for=\"[2001:db8::1]\", for=127.0.0.1"),
        ),
        (&[("forwarded", "for=\"a, b\"")], "127.0.0.1", Some("for=\"a, b\", for=127.0.0.1")),
        // Whatever were appended would be within the quotes.
        (&[("forwarded", "for=\"192.0.2.1")], "127.0.0.1", None),
    ] {
        let seen = callee.seen_of(sent).await;
        assert_eq!(
            (seen.header("x-forwarded-for"), seen.header("forwarded")),
            (Some(addresses), forwarded),
            "{sent:?}"
        );
    }
}

#[tokio::test]
async fn what_is_the_apps_own_business_passes() {
    let callee = Callee::new("").await;
    let sent =
        [("x-real-ip", "192.0.2.1"), ("accept", "a"), ("accept", "b"), ("x_team", "a"), ("baggage", "k=v")];
    let seen = callee.seen_of(&sent).await;
    assert_eq!((seen.header("x-real-ip"), all(&seen.headers, "accept")), (Some("192.0.2.1"), vec!["a", "b"]));
    assert_eq!((seen.header("x_team"), seen.header("baggage")), (Some("a"), Some("k=v")));
}
