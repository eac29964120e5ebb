//! A name server whose answers a test sets, and changes.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{CNAME, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

/// How often it looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(50);
/// How long another name server may take.
const DELEGATED: Duration = Duration::from_secs(1);

/// One record of a name.
#[derive(Clone, Debug)]
pub enum Data {
    Address(IpAddr),
    Service {
        priority: u16,
        weight: u16,
        port: u16,
        target: String,
    },
    /// Another name stands for it; what that has is in the answer too.
    Alias(String),
    Text(String),
    /// Another name server knows everything below.
    Delegated(SocketAddr),
}

/// A running name server, with a thread of its own.
pub struct NameServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    zone: Mutex<Zone>,
    is_over: AtomicBool,
}

#[derive(Default)]
struct Zone {
    names: HashMap<String, (Vec<Data>, u32)>,
    /// It answers nothing at all.
    is_silent: bool,
    questions: HashMap<String, usize>,
    /// Where programs put texts: a file for each name.
    texts: Option<PathBuf>,
}

impl Zone {
    /// Who knows a name, where that is somebody else.
    fn delegated(&self, name: &Name) -> Option<SocketAddr> {
        let name = format!(".{}", name.to_utf8().to_lowercase());
        self.names.iter().find_map(|(zone, (records, _))| match records.first()? {
            Data::Delegated(other) if name.trim_end_matches('.').ends_with(&format!(".{zone}")) => Some(*other),
            _ => None,
        })
    }
}

impl Shared {
    fn zone(&self) -> MutexGuard<'_, Zone> {
        self.zone.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl NameServer {
    pub fn start() -> Self {
        Self::start_at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
    }

    /// # Panics
    /// When somebody else is there.
    pub fn start_at(address: SocketAddr) -> Self {
        let socket = UdpSocket::bind(address).unwrap_or_else(|error| panic!("{address}: {error}"));
        socket.set_read_timeout(Some(LOOK)).expect("a socket has a timeout");
        let address = socket.local_addr().expect("a socket has an address");
        let shared = Arc::new(Shared::default());
        let of_thread = shared.clone();
        let thread = std::thread::Builder::new().name("names".to_owned()).spawn(move || answer(&socket, &of_thread));
        Self { address, shared, thread: Some(thread.expect("a thread for the name server")) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A table of a configuration that has it asked.
    pub fn table(&self) -> String {
        format!("[resolver]\nnameservers = [\"{}\"]\n", self.address)
    }

    /// From now on a name has these records, for so many seconds; nothing takes it away.
    pub fn set(&self, name: &str, seconds: u32, records: Vec<Data>) {
        let mut zone = self.shared.zone();
        if records.is_empty() {
            zone.names.remove(name);
        } else {
            zone.names.insert(name.to_owned(), (records, seconds));
        }
    }

    /// The same for IPv4 addresses below 127.0.0.0.
    pub fn set_loopback(&self, name: &str, seconds: u32, last: &[u8]) {
        let address = |last: &u8| Data::Address(Ipv4Addr::new(127, 0, 0, *last).into());
        self.set(name, seconds, last.iter().map(address).collect());
    }

    /// What is in a file of this directory is the text of the name that the file is called after.
    pub fn texts_in(&self, directory: PathBuf) {
        self.shared.zone().texts = Some(directory);
    }

    /// Has it answer nothing, or answer again.
    pub fn silence(&self, is_silent: bool) {
        self.shared.zone().is_silent = is_silent;
    }

    /// How many questions there were about a name.
    pub fn questions(&self, name: &str) -> usize {
        self.shared.zone().questions.get(name).copied().unwrap_or(0)
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn answer(socket: &UdpSocket, shared: &Shared) {
    let mut buffer = [0; 4_096];
    while !shared.is_over.load(Ordering::Relaxed) {
        let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
        let Some(question) = buffer.get(..length).and_then(|bytes| Message::from_vec(bytes).ok()) else { continue };
        let found = reply(&question, &mut shared.zone());
        if let Some(reply) = found.map(|reply| with_delegated(reply, shared)) {
            let bytes = reply.to_vec().expect("an answer can be written");
            let _ = socket.send_to(&bytes, from);
        }
    }
}

/// With what another name server says of the name that is asked for, or that stands for it.
fn with_delegated(mut reply: Message, shared: &Shared) -> Message {
    let Some(query) = reply.queries.first().cloned() else { return reply };
    let alias = reply.answers.iter().find_map(|record| match &record.data {
        RData::CNAME(target) => Some(target.0.clone()),
        _ => None,
    });
    let name = alias.unwrap_or_else(|| query.name().clone());
    let other = shared.zone().delegated(&name);
    let Some(said) = other.and_then(|other| asked(other, &name, query.query_type())) else { return reply };
    reply.metadata.response_code = said.metadata.response_code;
    reply.answers.extend(said.answers);
    reply
}

fn asked(other: SocketAddr, name: &Name, kind: RecordType) -> Option<Message> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.set_read_timeout(Some(DELEGATED)).ok()?;
    let mut question = Message::new(1, MessageType::Query, OpCode::Query);
    question.add_query(Query::query(name.clone(), kind));
    socket.send_to(&question.to_vec().ok()?, other).ok()?;
    let mut buffer = [0; 4_096];
    let length = socket.recv(&mut buffer).ok()?;
    Message::from_vec(buffer.get(..length)?).ok()
}

fn reply(question: &Message, zone: &mut Zone) -> Option<Message> {
    let query = question.queries.first()?.clone();
    let name = query.name().to_utf8().trim_end_matches('.').to_owned();
    *zone.questions.entry(name.clone()).or_default() += 1;
    if zone.is_silent {
        return None;
    }
    let mut reply = Message::new(question.id, MessageType::Response, OpCode::Query);
    reply.metadata.recursion_available = true;
    let mut asked = query.name().clone();
    let mut known = zone.names.get(&name);
    if let Some((Data::Alias(target), seconds)) = known.and_then(|(records, s)| Some((records.first()?.clone(), *s))) {
        let target = Name::from_utf8(format!("{target}.")).expect("a name");
        reply.answers.push(Record::from_rdata(asked, seconds, RData::CNAME(CNAME(target.clone()))));
        known = zone.names.get(target.to_utf8().trim_end_matches('.'));
        asked = target;
    }
    let written = zone.texts.as_ref().and_then(|directory| std::fs::read_to_string(directory.join(&name)).ok());
    let written = written.map(|text| (vec![Data::Text(text)], 0));
    let known = known.or(written.as_ref());
    if known.is_none() && reply.answers.is_empty() {
        reply.metadata.response_code = ResponseCode::NXDomain;
    }
    for data in known.iter().flat_map(|(records, _)| records) {
        let data = match (data, query.query_type()) {
            (Data::Address(IpAddr::V4(address)), RecordType::A) => RData::A((*address).into()),
            (Data::Address(IpAddr::V6(address)), RecordType::AAAA) => RData::AAAA((*address).into()),
            (Data::Text(text), RecordType::TXT) => RData::TXT(TXT::new(vec![text.clone()])),
            (Data::Service { priority, weight, port, target }, RecordType::SRV) => {
                RData::SRV(SRV::new(*priority, *weight, *port, Name::from_utf8(target).expect("a name")))
            }
            _ => continue,
        };
        let seconds = known.map_or(0, |(_, seconds)| *seconds);
        reply.answers.push(Record::from_rdata(asked.clone(), seconds, data));
    }
    reply.queries.push(query);
    Some(reply)
}
