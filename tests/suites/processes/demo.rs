//! The demo as a user starts it: what it promises, its report shows.

use std::{fs, time::Duration};

use serde_json::Value;

use super::{
    process::{Process, program},
    run,
};

#[test]
fn the_demo_passes_its_report_proves_it_and_nothing_is_left_of_it() {
    run(async {
        let folder = tempfile::Builder::new().prefix("demo").tempdir().expect("a folder");
        let (report, place) = (folder.path().join("report.json"), folder.path().join("mesh"));
        let arguments = ["--no-build", "--duration", "7s", "--rate", "60", "--report"].map(Into::into);
        let more = [report.clone().into_os_string(), "--dir".into(), place.clone().into_os_string()];
        let mut demo =
            Process::start("demo", &program("demo"), arguments.into_iter().chain(more), folder.path());
        let status = demo.exited(Duration::from_secs(60)).await;
        assert!(status.success(), "{status}: {}", demo.log());

        let report: Value = serde_json::from_slice(&fs::read(report).expect("a report")).expect("JSON");
        assert!(report["requests"].as_u64().expect("a number") > 0);
        assert_eq!(report["failures"], 0, "{}", report["failure_examples"]);
        let ejection = &report["ejection"];
        assert!(
            ejection["address"].is_string() && ejection["address"] != report["killed_endpoint"],
            "{ejection}"
        );
        assert!(ejection["ejected_after_s"].is_f64() && ejection["back_after_s"].is_f64(), "{ejection}");
        assert!(report["killed_endpoint"].is_string(), "one was killed");
        assert_hops(&report);
        let intruders = report["intruders"].as_array().expect("a list");
        assert!(intruders.len() >= 2, "{intruders:?}");
        for intruder in intruders {
            assert!(intruder["kind"].is_string() && intruder["accepted"] == false, "{intruder}");
        }
        let left = processes_with(&place.display().to_string());
        assert!(left.is_empty(), "left running: {left:?}");
    });
}

fn assert_hops(report: &Value) {
    let hops = report["hops"].as_array().expect("a list");
    let names: Vec<_> = hops.iter().map(|hop| (hop["from"].as_str(), hop["to"].as_str())).collect();
    assert_eq!(names, [(Some("web"), Some("orders")), (Some("orders"), Some("inventory"))]);
    for hop in hops {
        let called = hop["to"].as_str().expect("a name");
        assert_eq!(hop["peer_spiffe_id"], format!("spiffe://demo.outrider/{called}"), "{hop}");
        assert_eq!(hop["tls_version"], "TLSv1_3", "{hop}");
        assert_eq!(hop["key_exchange"], "X25519MLKEM768", "{hop}");
        assert!(hop["p50_ms"].as_f64() <= hop["p99_ms"].as_f64() && hop["p50_ms"].is_f64(), "{hop}");
    }
}

/// Command lines of processes that name `text`.
fn processes_with(text: &str) -> Vec<String> {
    let numbers = fs::read_dir("/proc").expect("Linux").filter_map(Result::ok);
    // Who ended meanwhile has none.
    let lines = numbers.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains(text)).collect()
}
