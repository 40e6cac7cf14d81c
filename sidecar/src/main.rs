//! Temporary.
fn main() {
    let path = std::env::args().nth(1).expect("config");
    outrider::telemetry::log::init("debug", outrider::telemetry::log::Format::Text).expect("log");
    let settings = outrider::config::load(std::path::Path::new(&path)).expect("config");
    outrider::process::run(settings).expect("run");
}
