use super::*;
use crate::otlp::made_up::{call, span};

fn text(spans: &[Span]) -> String {
    draw(spans, WIDTH).join("\n")
}

/// The same call with two attempts at inventory: 503 by one replica, and one that was answered.
fn repeated() -> Vec<Span> {
    let mut spans = call();
    let failed = |span| Span { status: Some(503), is_error: true, ..span };
    spans.push(failed(span(6, 3, "orders", Kind::Client, 300..600)));
    spans.push(failed(span(7, 6, "inventory", Kind::Server, 400..500)));
    spans[1].resend = 1;
    spans
}

#[test]
fn a_call_is_drawn_hop_by_hop_with_proxy_time_apart_from_app_time() {
    let expected = "\
trace 4bf92f3577b34da6a3ce929d0e0e4736, 5 spans, 2.00 ms
                         0                                               2.00 ms
web GET                  ──────────────────────────────────────────────  2.00 ms
└ web out GET            ▒▒▒▒▒──────────────────────────────────▒▒▒▒▒▒▒  1.96 ms
  └ orders in GET            ████████████──────────────██████████        1.50 ms
    └ orders out GET                     ▒▒──────────▒▒                   600 µs
      └ inventory in GET                   ██████████                     400 µs

▒ proxies   700 µs  35 %  web ▸ orders 500 µs, orders ▸ inventory 200 µs
█ apps     1.30 ms  65 %  orders 900 µs, inventory 400 µs";
    assert_eq!(text(&call()), expected);
}

#[test]
fn attempts_are_side_by_side_with_what_became_of_them() {
    let drawn = text(&repeated());
    for line in [
        "    ├ orders out GET 503           ▒▒───▒▒                                300 µs",
        "    │ └ inventory in GET 503         ███                                  100 µs",
        "    └ orders out GET again                 ▒▒▒────────▒▒▒                 600 µs",
    ] {
        assert!(drawn.lines().any(|drawn| drawn == line), "{line}\n{drawn}");
    }
    let more = |spans: &mut Vec<Span>| {
        spans[1].resend = 2;
        spans[1].status = None;
        spans[1].is_error = true;
    };
    let mut spans = repeated();
    more(&mut spans);
    assert!(text(&spans).contains("    └ orders out GET again 2 failed "), "{}", text(&spans));
}

#[test]
fn spans_whose_parent_is_missing_stand_for_themselves_and_are_counted() {
    let without: Vec<_> = call().into_iter().filter(|span| span.id != 3).collect();
    let drawn = text(&without);
    assert!(drawn.contains("\norders out GET "), "{drawn}");
    assert!(drawn.contains("\n1 span names a parent that did not arrive\n"), "{drawn}");
    let outside: Vec<_> = call().into_iter().filter(|span| span.id != 1).collect();
    assert!(!text(&outside).contains("did not arrive"), "a call that others began is no fault");
}

#[test]
fn nothing_in_a_name_gets_to_the_terminal_as_it_is() {
    let mut spans = call();
    spans[4].service = "web\u{1b}[2J\n\u{202e}é▸\\".into();
    spans[3].name = "\u{7}".into();
    spans[2].cluster = Some("\u{9b}".into());
    let drawn = text(&spans);
    let drawing = "└├│ ─▒█▸µ…";
    let is_safe = |c: char| c.is_ascii_graphic() || drawing.contains(c) || c == '\n';
    assert!(drawn.chars().all(is_safe), "{drawn}");
    assert!(drawn.contains(r"web\u{1b}[2J\n\u{202e}\u{e9}"), "{drawn}");
}

#[test]
fn it_fits_its_width() {
    let mut spans = repeated();
    let deep =
        (10..40).map(|id| span(id, if id == 10 { 5 } else { id - 1 }, "deep", Kind::Internal, 900..1000));
    spans.extend(deep);
    spans.iter_mut().step_by(3).for_each(|span| span.name = "n".repeat(128).into());
    for width in [0, 60, 80, 133, 400] {
        let lines = draw(&spans, width);
        let widest = lines.iter().map(|line| line.chars().count()).max().expect("lines");
        assert_eq!(widest, width.max(MIN_WIDTH), "{width}\n{}", lines.join("\n"));
    }
}

#[test]
fn whatever_the_times_are_every_span_is_to_be_seen() {
    let mut spans = call();
    (spans[0].start, spans[0].end) = (0, u64::MAX);
    (spans[1].start, spans[1].end) = (u64::MAX, u64::MAX);
    for spans in [spans, vec![span(1, 0, "web", Kind::Client, 5..5)]] {
        let rows = draw(&spans, WIDTH).into_iter().skip(2).take(spans.len());
        rows.for_each(|row| assert!(row.contains(['█', '▒', '─']), "{row}"));
    }
    assert_eq!(draw(&[], WIDTH), Vec::<String>::new());
}

#[test]
fn durations_have_three_digits() {
    for (nanos, said) in [
        (0, "0 µs"),
        (999_499, "999 µs"),
        (999_500, "1.00 ms"),
        (2_314_000, "2.31 ms"),
        (99_994_999, "99.99 ms"),
        (99_995_000, "100 ms"),
        (999_500_000, "1.00 s"),
        (12_340_000_000, "12.34 s"),
    ] {
        assert_eq!(duration(nanos), said);
    }
}
