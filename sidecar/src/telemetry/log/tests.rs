use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use serde_json::Value;
use tracing::subscriber::with_default;

use super::*;

/// What `log` writes.
fn written(filter: &str, format: Format, log: impl FnOnce(&Control)) -> Vec<String> {
    let to = Arc::new(Mutex::new(Vec::new()));
    let clock = Clock::simulated(SystemTime::UNIX_EPOCH, 1);
    let sink = Arc::clone(&to);
    let to_sink = move || Buffer(Arc::clone(&sink));
    let lines = Lines { format, is_coloured: false, clock, limiter: Limiter::default(), to: to_sink };
    let (layer, control) = filtered(filter, lines).unwrap();
    with_default(tracing_subscriber::registry().with(layer), || log(&control));
    let text = String::from_utf8(std::mem::take(&mut *to.lock().unwrap())).unwrap();
    text.lines().map(str::to_owned).collect()
}

struct Buffer(Arc<Mutex<Vec<u8>>>);

impl io::Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn the_level_changes_while_the_log_is_in_use() {
    let (layer, control) = layer("info", Format::Json).unwrap();
    let _subscriber = tracing_subscriber::registry().with(layer);
    assert_eq!(control.filter(), "info");
    assert_eq!(control.set("warn,outrider::pipeline=debug").unwrap(), "info", "what it was");
    assert!(control.filter().contains("outrider::pipeline=debug"), "{}", control.filter());
}

#[test]
fn a_slip_of_the_pen_does_not_silence_the_log() {
    let (layer, control) = layer("info", Format::Text).unwrap();
    let _subscriber = tracing_subscriber::registry().with(layer);
    for filter in ["inof", "", "a=b", "debug,", "info,x=", &"info,".repeat(1000)] {
        assert!(control.set(filter).is_err(), "{filter:?}");
    }
    assert_eq!(control.filter(), "info");
}

#[tokio::test(start_paused = true)]
async fn an_event_is_a_line_of_text_or_an_object() {
    let log = |_: &Control| {
        tracing::info!(count = 3, is_so = true, ratio = 0.5, name = "a b", shown = %"c d", "it happened");
        tracing::debug!("not this");
    };
    let module = module_path!();
    assert_eq!(
        written("info", Format::Text, log),
        [format!(
            "1970-01-01T00:00:00.000000Z  INFO {module}: it happened count=3 is_so=true ratio=0.5 name=\"a b\" shown=c d"
        )]
    );
    let [line] = &written("info", Format::Json, log)[..] else { panic!("one line") };
    let keys = r#""level":"INFO","message":"it happened","count":3,"is_so":true,"ratio":0.5,"name":"a b","shown":"c d""#;
    assert_eq!(*line, format!(r#"{{"timestamp":"1970-01-01T00:00:00.000000Z",{keys},"target":"{module}"}}"#));
}

#[tokio::test(start_paused = true)]
async fn a_peer_writes_no_lines_and_no_terminal_escapes() {
    let hostile = "x\r\n1970-01-01 ERROR forged\u{1b}[2J\u{9b}31m\u{202e}\u{2028}\"\\";
    let log = |_: &Control| {
        tracing::warn!(peer = %hostile, name = hostile, debugged = ?hostile, "told by {hostile}");
        tracing::warn!(long = %"\u{1b}".repeat(100_000), "long");
    };
    for format in [Format::Text, Format::Json] {
        let lines = written("info", format, log);
        assert_eq!(lines.len(), 2, "{lines:#?}");
        assert!(lines[1].len() < 4096, "{}", lines[1].len());
        for line in lines {
            assert!(
                !line.contains(|c: char| c.is_control() || ('\u{2000}'..'\u{2030}').contains(&c) && c != '…')
            );
            if format == Format::Json {
                let event: Value = serde_json::from_str(&line).unwrap();
                assert!(event["peer"].is_null() || event["peer"] == hostile);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_one_message_is_held_back_and_counted() {
    let clock = Clock::simulated(SystemTime::UNIX_EPOCH, 1);
    let flood = |times: u32| {
        for _ in 0..times {
            tracing::error!("flood");
        }
    };
    let lines = written("info", Format::Json, |_| {
        flood(100);
        tracing::error!("another, which is not lost");
    });
    assert_eq!(lines.len(), 21, "{lines:#?}");
    assert!(lines[20].contains("another"));

    let to = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&to);
    let to_sink = move || Buffer(Arc::clone(&sink));
    let lines =
        Lines { format: Format::Text, is_coloured: false, clock, limiter: Limiter::default(), to: to_sink };
    let (layer, _control) = filtered("info", lines).unwrap();
    let _default = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));
    flood(30);
    tokio::time::advance(Duration::from_millis(500)).await;
    flood(1);
    let text = String::from_utf8(to.lock().unwrap().clone()).unwrap();
    let last = text.lines().last().unwrap();
    assert!(last.ends_with("flood suppressed=10"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_debug_gets_more_than_a_few() {
    let log = |control: &Control| {
        assert_eq!(control.set("debug").unwrap(), "info");
        for _ in 0..500 {
            tracing::debug!("one request");
        }
    };
    assert_eq!(written("info", Format::Text, log).len(), 500);
}
