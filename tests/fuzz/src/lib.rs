//! The targets of the suite `fuzz_corpus`, for libFuzzer.

// Each target has a program of its own, so of one program most are not used.
#[path = "../../suites/differential/decoders.rs"]
mod decoders;
#[path = "../../suites/fuzz_corpus/targets.rs"]
mod targets;

/// Gives these bytes to that target.
pub fn run(name: &str, data: &[u8]) {
    let (_, target) = targets::TARGETS.into_iter().find(|(known, _)| *known == name).expect("a target");
    target(data);
}
