//! The programs of this package from outside: the demo's command line, and the small service.

#![allow(clippy::disallowed_methods, reason = "tests read clocks")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use assert_cmd::Command as Program;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Time for anything that is waited for.
const DEADLINE: Duration = Duration::from_secs(20);

fn demo() -> Program {
    Program::new(env!("CARGO_BIN_EXE_demo"))
}

/// A running service; dropped, it is gone.
struct Service {
    process: Child,
    address: String,
}

impl Service {
    fn start(arguments: &[&str]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_service"))
            .args(["--listen", "127.0.0.1:0"])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the service starts");
        let mut first_line = String::new();
        let mut output = BufReader::new(process.stdout.take().expect("it is a pipe"));
        output.read_line(&mut first_line).expect("it says where it listens");
        // Read on, so that it never waits for us.
        thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
        let address = first_line.trim().rsplit(' ').next().expect("an address").to_owned();
        Self { process, address }
    }

    fn ask(&self, head: &str) -> (u16, Value) {
        exchange(&self.address, head)
    }

    fn terminate(&mut self) {
        self.signal(Signal::TERM);
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.process.id().try_into().expect("a small number")).expect("not zero");
        kill_process(pid, signal).expect("it is there");
    }

    fn exit_status(&mut self) -> ExitStatus {
        let until = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.process.try_wait().expect("it can be waited for") {
                return status;
            }
            assert!(Instant::now() < until, "it did not end");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// Sends a request head, without its end, and returns status and body of the answer.
fn exchange(address: &str, head: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(DEADLINE)).expect("a good timeout");
    write!(stream, "{head}Connection: close\r\n\r\n").expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    let status = answer.split(' ').nth(1).expect("a status line").parse().expect("a status");
    let body = answer.split_once("\r\n\r\n").expect("a body").1;
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}

#[test]
fn the_demo_explains_itself() {
    let output = demo().arg("--help").assert().success().get_output().stdout.clone();
    let help = String::from_utf8(output).expect("text");
    for flag in ["--duration", "--rate", "--report", "--keep", "--dir", "--no-build", "--otlp"] {
        assert!(help.contains(flag), "{flag} is missing:\n{help}");
    }
    assert!(!help.contains("watchdog"), "internal flags stay internal");
}

#[test]
fn the_demo_refuses_bad_flags_and_says_what_is_good() {
    for (arguments, said) in [
        (["--duration", "soon"], "15s"),
        (["--duration", "1s"], "6s to 1h"),
        (["--rate", "0"], "1..=20000"),
        (["--speed", "9"], "unexpected argument"),
        (["--otlp", "localhost:4317"], "http://localhost:4318/v1/traces"),
        (["--otlp-protocol", "grpc"], "--otlp"),
    ] {
        let output = demo().args(arguments).assert().failure().code(2).get_output().stderr.clone();
        let error = String::from_utf8(output).expect("text");
        assert!(error.contains(said), "{arguments:?}: {error}");
    }
}

#[test]
fn the_demo_leaves_a_folder_with_something_in_it_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("mine"), "precious").expect("written");
    let output =
        demo().arg("--no-build").arg("--dir").arg(folder.path()).assert().failure().get_output().clone();
    let error = String::from_utf8(output.stderr).expect("text");
    assert!(error.contains("give an empty folder"), "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1);
}

#[test]
fn the_chaos_run_names_what_it_can_do_and_knows_nothing_else() {
    let chaos = || Program::new(env!("CARGO_BIN_EXE_chaos"));
    let output = chaos().arg("--list").assert().success().get_output().stdout.clone();
    let list = String::from_utf8(output).expect("text");
    for scenario in ["kill-app", "stop-sidecar", "restart-apps", "all-down", "storm", "streams", "partition"]
    {
        assert!(list.lines().any(|line| line.starts_with(scenario)), "{scenario} is missing:\n{list}");
    }
    let output =
        chaos().args(["--scenario", "kill-app,kill-ap"]).assert().failure().get_output().stderr.clone();
    let error = String::from_utf8(output).expect("text");
    assert!(error.contains("kill-ap:") && error.contains("--list"), "{error}");
}

#[test]
fn the_watchdog_ends_what_it_was_told_of_when_its_input_ends() {
    let mut sleeper = Command::new("sleep").arg("600").spawn().expect("sleep starts");
    demo().arg("--watchdog").write_stdin(format!("{}\nnonsense\n", sleeper.id())).assert().success();
    let status = sleeper.wait().expect("it ended");
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
}

#[test]
fn a_service_answers_with_its_name_and_what_the_next_one_said() {
    let orders = Service::start(&["--name", "orders", "--replica", "orders-7"]);
    let upstream = format!("http://{}", orders.address);
    let web = Service::start(&["--name", "web", "--upstream", &upstream]);
    let (status, answer) = web.ask("GET /basket?id=1 HTTP/1.1\r\nHost: web\r\n");
    assert_eq!(status, 200);
    assert_eq!(answer["service"], "web");
    assert_eq!(answer["upstream"]["replica"], "orders-7");
    assert_eq!(answer["upstream"]["path"], "/basket");
    assert_eq!(answer["upstream"]["upstream"], Value::Null);
}

#[test]
fn a_service_is_ill_and_well_as_it_is_told() {
    let web = Service::start(&["--name", "web"]);
    for (signal, expected) in [(Signal::USR1, 503), (Signal::USR2, 200)] {
        web.signal(signal);
        let until = Instant::now() + DEADLINE;
        while web.ask("GET / HTTP/1.1\r\nHost: web\r\n").0 != expected {
            assert!(Instant::now() < until, "it does not answer {expected}");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

#[test]
fn a_service_passes_trace_headers_on_and_nothing_else() {
    // A raw listener in the sidecar's place shows what the service sends to its proxy.
    let proxy = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = proxy.local_addr().expect("an address").to_string();
    let heard = thread::spawn(move || {
        let (stream, _) = proxy.accept().expect("the service connects");
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(reader.read_line(&mut head).expect("a head"), 0, "the service hung up: {head}");
        }
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        reader.get_mut().write_all(answer.as_bytes()).expect("the service reads");
        head.to_lowercase()
    });
    let web = Service::start(&["--name", "web", "--upstream", "http://orders", "--proxy", &address]);
    let (status, _) = web.ask(
        "GET /basket HTTP/1.1\r\nHost: web\r\ntraceparent: 00-aaaa-bb-01\r\ntracestate: v=1\r\n\
         x-request-id: r-1\r\ncookie: secret\r\n",
    );
    assert_eq!(status, 200);
    let head = heard.join().expect("the request came");
    assert!(head.starts_with("get http://orders/basket http/1.1\r\n"), "the form for a proxy: {head}");
    for passed in ["host: orders", "traceparent: 00-aaaa-bb-01", "tracestate: v=1", "x-request-id: r-1"] {
        assert!(head.contains(passed), "{passed} is missing: {head}");
    }
    assert!(!head.contains("cookie"), "{head}");
}

#[test]
fn a_service_says_when_the_next_one_fails() {
    let unused = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port");
    let web = Service::start(&["--name", "web", "--upstream", &format!("http://{unused}")]);
    let (status, answer) = web.ask("GET / HTTP/1.1\r\nHost: web\r\n");
    assert_eq!(status, 502);
    let error = answer["upstream"]["error"].as_str().expect("a reason");
    assert!(error.contains("connecting"), "{error}");
}

#[test]
fn a_service_told_to_stop_finishes_what_it_has_first() {
    // The service behind it answers only after the one in front was told to stop.
    let behind = TcpListener::bind("127.0.0.1:0").expect("a port");
    let upstream = format!("http://{}", behind.local_addr().expect("an address"));
    let mut web = Service::start(&["--name", "web", "--upstream", &upstream]);
    let address = web.address.clone();
    let answer = thread::spawn(move || exchange(&address, "GET / HTTP/1.1\r\nHost: web\r\n"));
    let (mut under_way, _) = behind.accept().expect("the service passes the request on");

    web.terminate();
    let until = Instant::now() + DEADLINE;
    while TcpStream::connect(&web.address).is_ok() {
        assert!(Instant::now() < until, "it still takes new connections");
        thread::sleep(Duration::from_millis(5));
    }
    under_way.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").expect("the service reads");
    assert_eq!(answer.join().expect("asked").0, 200);
    assert!(web.exit_status().success());
}
