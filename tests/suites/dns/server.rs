//! A DNS server that answers as it is told, on UDP and TCP, and remembers what it was asked.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use hickory_resolver::proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RData, Record, RecordType, rdata},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinSet,
};

/// What is answered to a question.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// These records, in this order.
    Records(Vec<Record>),
    /// These records, and others that may help.
    WithAdditional(Vec<Record>, Vec<Record>),
    /// Over UDP only that it is too long for it.
    TooLong(Vec<Record>),
    /// That code.
    Code(ResponseCode),
    /// A name server that knows more, as servers that do not recurse say.
    Referral,
    /// Nothing.
    Silence,
    /// The right ID, and then bytes that mean nothing.
    Garbage,
    /// First what somebody else might send in the hope to be believed: the wrong ID, the wrong question; then this.
    Spoofed {
        /// The lie.
        lie: Vec<Record>,
        /// The truth.
        truth: Vec<Record>,
    },
}

/// A question as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) name: String,
    pub(crate) kind: RecordType,
    pub(crate) is_tcp: bool,
}

/// A server on a port of its own; it is gone when this is dropped.
pub(crate) struct DnsServer {
    address: SocketAddr,
    zone: Arc<Zone>,
    tasks: JoinSet<()>,
}

#[derive(Default)]
struct Zone {
    answers: Mutex<HashMap<(Name, RecordType), Answer>>,
    asked: Mutex<Vec<Asked>>,
    is_silent: AtomicBool,
}

impl DnsServer {
    /// A server that knows no name.
    pub(crate) async fn start() -> Self {
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            // Somebody else may have the port for TCP.
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
                break (udp, tcp);
            }
        };
        let (address, zone) = (udp.local_addr().unwrap(), Arc::<Zone>::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(serve_udp(udp, Arc::clone(&zone)));
        tasks.spawn(serve_tcp(tcp, Arc::clone(&zone)));
        Self { address, zone, tasks }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on this is the answer to that question.
    pub(crate) fn says(&self, name: &str, kind: RecordType, answer: Answer) {
        let name = Name::from_ascii(name).unwrap();
        self.zone.answers.lock().unwrap().insert((name, kind), answer);
    }

    /// There are no such names any more.
    pub(crate) fn forgets_all(&self) {
        self.zone.answers.lock().unwrap().clear();
    }

    /// Whether it leaves every question alone.
    pub(crate) fn set_silent(&self, is_silent: bool) {
        self.zone.is_silent.store(is_silent, Ordering::Relaxed);
    }

    /// The same address with nobody there.
    pub(crate) async fn gone(mut self) -> Self {
        self.tasks.shutdown().await;
        self
    }

    /// The questions so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.zone.asked.lock().unwrap().clone()
    }

    /// The questions of that kind so far.
    pub(crate) fn asked_for(&self, kind: RecordType) -> usize {
        self.asked().iter().filter(|asked| asked.kind == kind).count()
    }
}

fn record(name: &str, ttl: u32, data: RData) -> Record {
    Record::from_rdata(Name::from_ascii(name).unwrap(), ttl, data)
}

/// An A or AAAA record.
pub(crate) fn address(name: &str, ttl: u32, address: &str) -> Record {
    let data = match address.parse().unwrap() {
        IpAddr::V4(v4) => RData::A(rdata::A(v4)),
        IpAddr::V6(v6) => RData::AAAA(rdata::AAAA(v6)),
    };
    record(name, ttl, data)
}

/// A CNAME record.
pub(crate) fn alias(name: &str, ttl: u32, to: &str) -> Record {
    record(name, ttl, RData::CNAME(rdata::CNAME(Name::from_ascii(to).unwrap())))
}

/// An SRV record.
pub(crate) fn service(name: &str, ttl: u32, priority: u16, (target, port): (&str, u16)) -> Record {
    let target = Name::from_ascii(target).unwrap();
    record(name, ttl, RData::SRV(rdata::SRV::new(priority, 1, port, target)))
}

async fn serve_udp(socket: UdpSocket, zone: Arc<Zone>) {
    let mut buffer = [0; 4096];
    loop {
        let Ok((count, from)) = socket.recv_from(&mut buffer).await else { continue };
        for answer in zone.answer(&buffer[..count], false) {
            socket.send_to(&answer, from).await.unwrap();
        }
    }
}

async fn serve_tcp(listener: TcpListener, zone: Arc<Zone>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _from)) = listener.accept().await else { continue };
        let zone = Arc::clone(&zone);
        connections.spawn(async move { drop(serve_stream(stream, zone).await) });
    }
}

async fn serve_stream(mut stream: TcpStream, zone: Arc<Zone>) -> std::io::Result<()> {
    loop {
        let length = stream.read_u16().await?;
        let mut question = vec![0; usize::from(length)];
        stream.read_exact(&mut question).await?;
        for answer in zone.answer(&question, true) {
            stream.write_u16(answer.len().try_into().unwrap()).await?;
            stream.write_all(&answer).await?;
        }
    }
}

impl Zone {
    /// The messages to send.
    fn answer(&self, bytes: &[u8], is_tcp: bool) -> Vec<Vec<u8>> {
        let request = Message::from_vec(bytes).unwrap();
        let (id, query) = (request.metadata.id, request.queries[0].clone());
        let (name, kind) = (query.name().to_string().to_lowercase(), query.query_type());
        self.asked.lock().unwrap().push(Asked { name, kind, is_tcp });
        if self.is_silent.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let reply = |id: u16, query: &Query, records: &[Record]| {
            let mut message = Message::new(id, MessageType::Response, OpCode::Query);
            message.metadata.recursion_available = true;
            message.queries.push(query.clone());
            message.answers = records.to_vec();
            message
        };
        let bytes = |message: Message| message.to_vec().unwrap();
        match self.find(&query) {
            Answer::Records(records) => vec![bytes(reply(id, &query, &records))],
            Answer::WithAdditional(records, additional) => {
                let mut message = reply(id, &query, &records);
                message.additionals = additional;
                vec![bytes(message)]
            }
            Answer::TooLong(records) if is_tcp => vec![bytes(reply(id, &query, &records))],
            Answer::TooLong(records) => {
                // Some of it, which must not be taken for all.
                let mut message = reply(id, &query, &records[..1]);
                message.metadata.truncation = true;
                vec![bytes(message)]
            }
            Answer::Code(code) => {
                let mut message = reply(id, &query, &[]);
                message.metadata.response_code = code;
                vec![bytes(message)]
            }
            Answer::Referral => {
                let mut message = reply(id, &query, &[]);
                let to = rdata::NS(Name::from_ascii("ns.test.").unwrap());
                message.authorities.push(record("test.", 60, RData::NS(to)));
                vec![bytes(message)]
            }
            Answer::Silence => Vec::new(),
            Answer::Garbage => {
                let [high, low] = id.to_be_bytes();
                vec![[&[high, low, 0x81, 0x80][..], &[0xff; 40]].concat()]
            }
            Answer::Spoofed { lie, truth } => {
                let other = Query::query(Name::from_ascii("other.test.").unwrap(), kind);
                let lies = [reply(id.wrapping_add(1), &query, &lie), reply(id, &other, &lie)];
                lies.into_iter().chain([reply(id, &query, &truth)]).map(bytes).collect()
            }
        }
    }

    fn find(&self, query: &Query) -> Answer {
        let answers = self.answers.lock().unwrap();
        let key = (query.name().clone(), query.query_type());
        answers.get(&key).cloned().unwrap_or_else(|| {
            let is_known = answers.keys().any(|(name, _)| *name == key.0);
            Answer::Code(if is_known { ResponseCode::NoError } else { ResponseCode::NXDomain })
        })
    }
}
