//! A program whose server speaks first, as mail servers and databases do: greets, then repeats each line it hears.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    process::ExitCode,
    thread,
};

use anyhow::Context as _;
use clap::Parser;

/// Longest line that is repeated.
const MAX_LINE_BYTES: u64 = 4096;

/// Greets whoever connects, then repeats each line it hears
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    /// Address to listen on
    #[arg(long, value_name = "IP:PORT")]
    listen: SocketAddr,
    /// What is said first, before the client says anything
    #[arg(long, default_value = "220 ready")]
    greeting: String,
}

fn main() -> ExitCode {
    match serve(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => outrider_examples::fail("greeter", &error),
    }
}

fn serve(options: &Options) -> anyhow::Result<()> {
    let listener =
        TcpListener::bind(options.listen).with_context(|| format!("listening on {}", options.listen))?;
    for stream in listener.incoming() {
        let (stream, greeting) = (stream?, options.greeting.clone());
        // A client that breaks off is its own business.
        thread::spawn(move || greet(&stream, &greeting).unwrap_or_default());
    }
    Ok(())
}

fn greet(mut stream: &TcpStream, greeting: &str) -> io::Result<()> {
    stream.write_all(format!("{greeting}\r\n").as_bytes())?;
    let mut heard = BufReader::new(stream);
    let mut line = Vec::new();
    while heard.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line)? > 0 {
        stream.write_all(&line)?;
        line.clear();
    }
    Ok(())
}
