//! What a stream of a peer is, at a port that carries either: told by the first bytes of either end, before any of the
//! caller's reaches the app.
//!
//! ```text
//!   the caller's bytes ──▶ HTTP: requests of that peer ── anything else: opaque
//!   the app's bytes ─────▶ no HTTP: opaque ── as of a server of HTTP: the caller's decide
//! ```
//! The app is connected to meanwhile, and hears nothing: so nobody waits, neither for an app that speaks first nor for one
//! that answers. Only bytes that may still become HTTP's are held, and not for long; what is known of them is not
//! forgotten then, so that nobody gets a request past by sending it slowly.

use std::{io, time::Instant};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use crate::{
    buffer,
    detect::{self, MORE_WITHIN, ServerVerdict, Spoken, Verdict},
    model::detection::How,
    pipeline::http_connection::Wire,
    relay::{
        copy::Before,
        session::{Session, Source},
    },
};

/// So many of the app's first bytes always tell what it speaks.
const APP_BYTES: usize = 64;

/// What a stream turned out to be.
#[derive(Debug)]
pub(super) enum Found {
    /// Requests, which begin with these bytes; the app has got none of them. Whether it has said something itself.
    Http(Wire, Bytes, HasSpoken),
    /// Something else. What was read of the caller and of the app and has not been passed on, and how many bytes of the
    /// caller have.
    Opaque { caller: Before, app: Before, passed: usize },
    /// A request of which the app has got a part, as bytes that nobody could take for one yet.
    Late,
}

pub(super) type HasSpoken = bool;

/// What is known of a stream.
#[derive(Debug, Default)]
struct Look {
    caller: BytesMut,
    /// So many of these have gone to the app.
    passed: usize,
    app: BytesMut,
    /// It says what servers of HTTP say unasked: the caller's bytes decide.
    is_http_server: bool,
    /// How each of them has ended.
    caller_ended: Option<io::Result<()>>,
    app_ended: Option<io::Result<()>>,
    /// Until then, more may come of what may be either.
    caller_until: Option<Instant>,
    app_until: Option<Instant>,
}

/// What one look says.
enum Says {
    Http(Wire),
    Opaque(How),
    Late(How),
}

/// Finds out what a stream carries that was accepted: what its caller says on `session`, and the app that was connected to
/// for it. `now` reads the clock.
pub(super) async fn look<A, S>(
    app: &mut A,
    session: &mut Session<S>,
    now: impl Fn() -> Instant,
) -> (Found, Spoken, How)
where
    A: AsyncRead + AsyncWrite + Unpin,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut look, mut source) = (Look::default(), Source(session));
    let says = loop {
        let hears_app = !look.is_http_server;
        tokio::select! {
            biased;
            read = buffer::append(&mut source, &mut look.caller, detect::MAX_BYTES) => {
                if let Some(says) = look.caller_said(read, now()) {
                    break says;
                }
            }
            read = buffer::append(app, &mut look.app, APP_BYTES), if hears_app => {
                if let Some(says) = look.app_said(read, now()) {
                    break says;
                }
            }
            () = reached(look.app_until) => break Says::Opaque(How::Timeout),
            () = reached(look.caller_until) => {
                // Whoever answers to that speaks no HTTP: what it says decides.
                if app.write_all(look.caller.get(look.passed..).unwrap_or_default()).await.is_err() {
                    break Says::Opaque(How::Timeout);
                }
                (look.passed, look.caller_until) = (look.caller.len(), None);
            }
        }
    };
    look.found(says)
}

impl Default for Found {
    /// Something, of which nothing was read.
    fn default() -> Self {
        Self::Opaque { caller: Before::default(), app: Before::default(), passed: 0 }
    }
}

impl Look {
    /// The caller has said more, or has ended, or is gone.
    fn caller_said(&mut self, read: io::Result<usize>, now: Instant) -> Option<Says> {
        match read {
            Ok(1..) => {}
            ended => {
                self.caller_ended = Some(ended.map(drop));
                return Some(Says::Opaque(How::SilentEnd));
            }
        }
        match detect::client(&self.caller, detect::MAX_BYTES) {
            Verdict::Decided(Spoken::Http1) => Some(Says::Http(Wire::Http1)),
            // By its first bytes once more: ALPN stands for a peer of the mesh.
            Verdict::Decided(Spoken::Http2) => Some(Says::Http(Wire::Sniffed)),
            Verdict::Decided(Spoken::Tls | Spoken::Opaque) => Some(Says::Opaque(How::Client)),
            Verdict::More => {
                self.caller_until = Some(now + MORE_WITHIN);
                None
            }
        }
    }

    /// The same of the app.
    fn app_said(&mut self, read: io::Result<usize>, now: Instant) -> Option<Says> {
        match read {
            Ok(1..) => {}
            // Its end is as good as a word: no server of HTTP answers after it.
            ended => {
                self.app_ended = Some(ended.map(drop));
                return Some(Says::Opaque(How::Server));
            }
        }
        self.app_until = None;
        match detect::server(&self.app) {
            ServerVerdict::Opaque => Some(Says::Opaque(How::Server)),
            // It has had enough of half a request line; the other half must not come.
            ServerVerdict::Http if self.passed > 0 => Some(Says::Late(How::Server)),
            ServerVerdict::Http => {
                self.is_http_server = true;
                None
            }
            ServerVerdict::More => {
                self.app_until = Some(now + MORE_WITHIN);
                None
            }
        }
    }

    fn found(mut self, says: Says) -> (Found, Spoken, How) {
        match says {
            Says::Http(wire) => {
                let spoken = if wire == Wire::Http1 { Spoken::Http1 } else { Spoken::Http2 };
                let has_spoken = !self.app.is_empty();
                let first = self.caller.freeze();
                let found = if self.passed == 0 { Found::Http(wire, first, has_spoken) } else { Found::Late };
                (found, spoken, How::Client)
            }
            Says::Late(how) => (Found::Late, Spoken::Http1, how),
            Says::Opaque(how) => {
                let unsent = self.caller.split_off(self.passed.min(self.caller.len()));
                let before =
                    |bytes: BytesMut, ended| Before { bytes: bytes.freeze(), ended, is_closed: false };
                let caller = before(unsent, self.caller_ended);
                let app = before(self.app, self.app_ended);
                (Found::Opaque { caller, app, passed: self.passed }, Spoken::Opaque, how)
            }
        }
    }
}

/// Waits for that time, for ever if there is none.
async fn reached(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, DuplexStream, duplex};

    use super::*;
    use crate::{
        clock::Clock,
        relay::frame::{Kind, StreamKind},
    };

    const ROOM: usize = 64 * 1024;
    const GET: &[u8] = b"GET / HTTP/1.1\r\n";

    /// A stream between a caller and an app, both played by the test, and the session on which it is looked at.
    struct Bench {
        caller: Session<DuplexStream>,
        app: DuplexStream,
        looked: (DuplexStream, Session<DuplexStream>),
    }

    impl Bench {
        async fn new(kind: StreamKind) -> Self {
            let ((caller, near), (app, far)) = (duplex(ROOM), duplex(ROOM));
            let (mut caller, mut session) = (Session::new(caller), Session::new(near));
            caller.open(kind, &[], false).await.unwrap();
            assert!(matches!(session.next().await, Ok(Some((Kind::Open, _)))));
            session.accept(kind).await.unwrap();
            Self { caller, app, looked: (far, session) }
        }

        async fn opaque() -> Self {
            Self::new(StreamKind::Opaque).await
        }

        async fn says(&mut self, bytes: &[u8]) {
            self.caller.early(bytes, false).await.unwrap();
        }

        async fn look(&mut self) -> (Found, Spoken, How) {
            let clock = Clock::system();
            let (app, session) = &mut self.looked;
            look(app, session, || clock.now()).await
        }

        /// What the app has been told.
        async fn told(mut self) -> Vec<u8> {
            drop(self.looked);
            let mut all = Vec::new();
            self.app.read_to_end(&mut all).await.unwrap();
            all
        }
    }

    fn opaque(found: Found) -> (Vec<u8>, Vec<u8>, usize) {
        match found {
            Found::Opaque { caller, app, passed } => (caller.bytes.to_vec(), app.bytes.to_vec(), passed),
            found @ (Found::Http(..) | Found::Late) => panic!("{found:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn requests_are_found_and_the_app_has_got_none_of_them() {
        for (bytes, spoken) in [(GET, Spoken::Http1), (detect::PREFACE, Spoken::Http2)] {
            let mut bench = Bench::opaque().await;
            bench.says(&bytes[..3]).await;
            bench.says(&bytes[3..]).await;
            let (found, found_spoken, how) = bench.look().await;
            assert_eq!((found_spoken, how), (spoken, How::Client));
            let Found::Http(_, first, has_spoken) = found else { panic!("{found:?}") };
            assert_eq!((&first[..], has_spoken), (bytes, false));
            assert_eq!(bench.told().await, b"");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn other_bytes_and_an_app_that_speaks_first_are_told_without_waiting() {
        let clock = Clock::system();
        let begin = clock.now();
        let mut bench = Bench::opaque().await;
        bench.says(b"\0\x01").await;
        let (found, _, how) = bench.look().await;
        assert_eq!((opaque(found), how), ((b"\0\x01".to_vec(), vec![], 0), How::Client));
        let mut bench = Bench::new(StreamKind::Undecided).await;
        bench.app.write_all(b"220 hello\r\n").await.unwrap();
        let (found, _, how) = bench.look().await;
        assert_eq!((opaque(found), how), ((vec![], b"220 hello\r\n".to_vec(), 0), How::Server));
        assert_eq!(clock.now(), begin);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_of_http_that_speaks_first_waits_for_its_client() {
        for word in [&b"HTTP/1.1 408 Request Timeout\r\n\r\n"[..], b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x80"]
        {
            let mut bench = Bench::opaque().await;
            bench.app.write_all(word).await.unwrap();
            let say = tokio::time::sleep(MORE_WITHIN * 4);
            assert!(tokio::select! { biased; _ = bench.look() => false, () = say => true });
            bench.says(GET).await;
            let (found, ..) = bench.look().await;
            assert!(matches!(found, Found::Http(Wire::Http1, ..)), "{found:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn half_a_word_is_passed_on_soon_and_the_answer_decides() {
        let mut bench = Bench::opaque().await;
        bench.says(b"ruok").await;
        let (far, session) = &mut bench.looked;
        let clock = Clock::system();
        let begin = clock.now();
        let answer = async {
            let mut heard = [0; 4];
            bench.app.read_exact(&mut heard).await.unwrap();
            assert_eq!(&heard, b"ruok");
            bench.app.write_all(b"imok").await.unwrap();
        };
        let ((found, _, how), ()) = tokio::join!(look(far, session, || clock.now()), answer);
        assert_eq!((opaque(found), how), ((vec![], b"imok".to_vec(), 4), How::Server));
        assert!(clock.now() - begin < MORE_WITHIN * 2);
    }

    #[tokio::test(start_paused = true)]
    async fn no_request_gets_past_by_being_slow() {
        let mut bench = Bench::opaque().await;
        let (far, session) = &mut bench.looked;
        let clock = Clock::system();
        let drip = async {
            for byte in GET {
                bench.caller.early(&[*byte], false).await.unwrap();
                tokio::time::sleep(MORE_WITHIN * 2).await;
            }
        };
        let ((found, spoken, _), ()) = tokio::join!(look(far, session, || clock.now()), drip);
        assert!(matches!(found, Found::Late) && spoken == Spoken::Http1, "{found:?}");
        let told = bench.told().await;
        assert_eq!(told, GET[..GET.len() - 1], "all but what makes a request of it");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_of_http_that_has_had_enough_of_half_a_request_is_left() {
        let mut bench = Bench::opaque().await;
        bench.says(b"GET /").await;
        let (far, session) = &mut bench.looked;
        let clock = Clock::system();
        let answer = async {
            bench.app.read_exact(&mut [0; 5]).await.unwrap();
            bench.app.write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n").await.unwrap();
        };
        let ((found, ..), ()) = tokio::join!(look(far, session, || clock.now()), answer);
        assert!(matches!(found, Found::Late), "{found:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn ends_are_passed_on_with_what_was_said_before() {
        let mut bench = Bench::opaque().await;
        bench.caller.early(b"get", true).await.unwrap();
        let (found, _, how) = bench.look().await;
        let Found::Opaque { caller, .. } = found else { panic!("{found:?}") };
        assert_eq!((&caller.bytes[..], how), (&b"get"[..], How::SilentEnd));
        assert!(matches!(caller.ended, Some(Ok(()))));
        let mut bench = Bench::opaque().await;
        bench.app.shutdown().await.unwrap();
        let (found, ..) = bench.look().await;
        let Found::Opaque { app, .. } = found else { panic!("{found:?}") };
        assert!(matches!(app.ended, Some(Ok(()))) && app.bytes.is_empty());
    }
}
