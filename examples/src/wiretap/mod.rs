//! What somebody on the wire sees: every TCP stream that passes, whether it is TLS, and whether a text is in it.
//!
//! [`packet`] reads frames, [`stream`] puts a direction's segments together and follows the records of TLS; here is the
//! socket that sees all frames of a network namespace, which takes `CAP_NET_RAW`, and the table of streams.

mod packet;
mod stream;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{self, ErrorKind, Read as _, Write as _},
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::Context as _;
use clap::Parser;
use socket2::{Domain, Protocol, Socket, Type};

use packet::Segment;
use stream::{Kind, Stream};

/// "All protocols" in Linux' `if_ether.h`; a packet socket takes it in network byte order.
const ETH_P_ALL: u16 = 0x0003;
/// Longest frame: segments stay together inside one machine, up to 64 KiB, and the Ethernet header.
const FRAME_BYTES: usize = 65_536 + 64;
/// Room for frames that have not been read: a burst of the fastest stream for some 10 ms.
const BUFFER_BYTES: usize = 32 * 1024 * 1024;
/// Streams that are followed; further ones are only counted.
const MAX_STREAMS: usize = 100_000;
/// How often it is looked whether to stop.
const REST: Duration = Duration::from_millis(20);

/// Command line of the wiretap.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "wiretap",
    about = "Says which TCP streams passed through a network namespace until standard input ended",
    long_about = "Says which TCP streams passed through a network namespace until standard input ended.\n\n\
                  First comes the line `listening`; at the end one line for each direction of a connection:\n\
                  FROM TO KIND BYTES found=TIMES\n\
                  KIND is `tls` if it was TLS records from its first byte to its last, `plain` if not, and `partial`\n\
                  if something was missed, so that nobody knows.",
    version
)]
pub struct Options {
    /// A text to look for in what passes
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub find: String,
}

/// Listens until standard input ends, then prints what it saw.
///
/// # Errors
/// No right to listen (`CAP_NET_RAW`), or output that cannot be written.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let protocol = Protocol::from(i32::from(ETH_P_ALL.to_be()));
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol)).context("opening a packet socket")?;
    socket.set_read_timeout(Some(REST))?;
    // Beyond the system's limit for users it stays smaller.
    socket.set_recv_buffer_size(BUFFER_BYTES)?;
    writeln!(io::stdout(), "listening")?;

    let is_over = AtomicBool::new(false);
    let wire = thread::scope(|scope| {
        scope.spawn(|| {
            // Whatever ends it, it is the end.
            drop(io::copy(&mut io::stdin(), &mut io::sink()));
            is_over.store(true, Ordering::SeqCst);
        });
        listen(&socket, &is_over, Wire::new(&options.find))
    })?;
    io::stdout().write_all(wire.report().as_bytes())?;
    Ok(())
}

/// Reads frames until it is over and no frame is left.
fn listen(mut socket: &Socket, is_over: &AtomicBool, mut wire: Wire) -> io::Result<Wire> {
    let mut frame = vec![0; FRAME_BYTES];
    loop {
        // Asked before the last look for frames, so that what was sent before the end is seen.
        let is_last = is_over.load(Ordering::SeqCst);
        match socket.read(&mut frame) {
            Ok(length) => wire.see(frame.get(..length).unwrap_or_default()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                if is_last {
                    return Ok(wire);
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// All streams that were seen, each direction for itself.
#[derive(Debug)]
struct Wire {
    find: Vec<u8>,
    streams: BTreeMap<(SocketAddr, SocketAddr), Stream>,
    /// Segments of streams beyond [`MAX_STREAMS`].
    unfollowed: u64,
}

impl Wire {
    fn new(find: &str) -> Self {
        Self { find: find.as_bytes().to_vec(), streams: BTreeMap::new(), unfollowed: 0 }
    }

    /// A frame as it passes. The same one may pass several times: at both ends of a cable, and on the bridge.
    fn see(&mut self, frame: &[u8]) {
        let Some(Segment { from, to, sequence, is_first, payload }) = packet::segment(frame) else { return };
        if !self.streams.contains_key(&(from, to)) && self.streams.len() >= MAX_STREAMS {
            self.unfollowed += 1;
            return;
        }
        let stream = self.streams.entry((from, to)).or_default();
        if is_first {
            stream.start(sequence);
        } else {
            stream.take(sequence, payload, &self.find);
        }
    }

    fn report(&self) -> String {
        let mut text = String::new();
        for ((from, to), stream) in self.streams.iter().filter(|(_, stream)| stream.bytes() > 0) {
            let kind = match stream.kind() {
                Kind::Tls => "tls",
                Kind::Plain => "plain",
                Kind::Partial => "partial",
            };
            // Writing to a `String` does not fail.
            let _infallible =
                writeln!(text, "{from} {to} {kind} {} found={}", stream.bytes(), stream.found());
        }
        if self.unfollowed > 0 {
            text.push_str(&format!("? ? partial {} found=0\n", self.unfollowed));
        }
        text
    }
}

#[cfg(test)]
mod tests;
