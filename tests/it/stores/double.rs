//! A small object store on loopback, in this process: the calls that Estrato makes of S3 and of Google
//! Cloud Storage, and a fate for each request. Google has no server of its own to test with; for S3 it
//! does what no real server does when it is asked to. Not meant to be fast.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// The token that Google's dialect wants to see.
pub const TOKEN: &str = "a-token-that-is-no-secret";
/// Objects on a page of a listing, unless it was told otherwise.
const PAGE: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    S3,
    Google,
}

/// What befalls a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It is done, and answered.
    Done,
    /// It is done, and the connection ends without an answer.
    LoseAnswer,
    /// The connection ends after so many bytes of its body were read; it is not done.
    CutUpload(usize),
    /// It is done; the answer's body ends after so many bytes.
    CutAnswer(usize),
    /// It is done; the answer's body comes in pieces of so many bytes, with pauses.
    Trickle(usize, Duration),
    /// It is done, and answered, after a while.
    Late(Duration),
    /// Nothing is done or said until the other side goes away.
    Silence,
    /// A refusal: status, more headers, body.
    Refuse(u16, &'static str, String),
}

/// The head of a request.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: String,
    /// Path and query, as they came.
    pub target: String,
    /// The object's name, from the bucket's root; empty for the bucket.
    pub name: String,
    pub query: HashMap<String, String>,
    /// By lower-case name.
    pub headers: HashMap<String, String>,
    /// Its place among all, from 1.
    pub number: usize,
}

type Decide = dyn FnMut(&Asked) -> Fate + Send;

struct Object {
    bytes: Vec<u8>,
    tag: String,
    modified: jiff::Timestamp,
}

struct Shared {
    dialect: Dialect,
    objects: Mutex<BTreeMap<String, Object>>,
    decide: Mutex<Box<Decide>>,
    asked: Mutex<Vec<Asked>>,
    page: AtomicUsize,
    connections: Mutex<Vec<TcpStream>>,
    ended: AtomicBool,
    /// Requests under way, and the most that there ever were.
    active: Mutex<(usize, usize)>,
}

/// The store, until it is dropped.
pub struct Double {
    port: u16,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

impl Double {
    pub fn new(dialect: Dialect) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            dialect,
            objects: Mutex::default(),
            decide: Mutex::new(Box::new(|_| Fate::Done)),
            asked: Mutex::default(),
            page: AtomicUsize::new(PAGE),
            connections: Mutex::default(),
            ended: AtomicBool::new(false),
            active: Mutex::default(),
        });
        let accepting = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || accept(&listener, &shared)
        });
        Self { port, shared, accepting: Some(accepting) }
    }

    /// Its address, without a path.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What befalls requests from now on, which are counted from 1 again.
    pub fn decide(&self, decide: impl FnMut(&Asked) -> Fate + Send + 'static) {
        self.shared.asked.lock().unwrap().clear();
        *self.shared.decide.lock().unwrap() = Box::new(decide);
    }

    /// The requests since the last decision.
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap().clone()
    }

    /// The most requests that were ever under way at a time.
    pub fn most(&self) -> usize {
        self.shared.active.lock().unwrap().1
    }

    /// Puts an object there behind everybody's back.
    pub fn plant(&self, name: &str, bytes: &[u8]) {
        self.shared.put(name, bytes.to_vec());
    }

    /// Takes one away behind everybody's back.
    pub fn remove(&self, name: &str) {
        self.shared.objects.lock().unwrap().remove(name);
    }

    /// All that there is.
    pub fn objects(&self) -> BTreeMap<String, Vec<u8>> {
        self.shared
            .objects
            .lock()
            .unwrap()
            .iter()
            .map(|(name, object)| (name.clone(), object.bytes.clone()))
            .collect()
    }

    /// Sets how many objects are on a page of a listing.
    pub fn pages_of(&self, objects: usize) {
        self.shared.page.store(objects, Ordering::SeqCst);
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        for connection in self.shared.connections.lock().unwrap().drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    std::thread::scope(|scope| {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            if shared.ended.load(Ordering::SeqCst) {
                return;
            }
            // Head and body of an answer are written one after the other: the second must not wait.
            stream.set_nodelay(true).unwrap();
            shared.connections.lock().unwrap().push(stream.try_clone().unwrap());
            scope.spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                while serve(shared, &mut reader, &stream).is_some() {}
                let _ = stream.shutdown(Shutdown::Both);
            });
        }
    });
}

fn decoded(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let [first, after @ ..] = rest {
        rest = after;
        if *first == b'%' {
            bytes.push(u8::from_str_radix(std::str::from_utf8(&rest[..2]).unwrap(), 16).unwrap());
            rest = &rest[2..];
        } else {
            bytes.push(if *first == b'+' { b' ' } else { *first });
        }
    }
    String::from_utf8(bytes).unwrap()
}

fn head(reader: &mut BufReader<TcpStream>) -> Option<Asked> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let name = path.trim_start_matches('/').split_once('/').map_or(String::new(), |(_, name)| decoded(name));
    let query = query.split('&').filter_map(|pair| pair.split_once('='));
    let query = query.map(|(key, value)| (key.to_owned(), decoded(value))).collect();
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((key, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(key.to_ascii_lowercase(), value.trim().to_owned());
    }
    Some(Asked { method, target, name, query, headers, number: 0 })
}

/// What is sent back.
struct Reply {
    status: u16,
    headers: String,
    body: Vec<u8>,
    /// Of a HEAD: what the body would be.
    len: Option<usize>,
}

fn reply(status: u16, body: impl Into<Vec<u8>>) -> Reply {
    Reply { status, headers: String::new(), body: body.into(), len: None }
}

fn refusal(status: u16, code: &str) -> Reply {
    reply(status, format!("<?xml version='1.0'?>\n<Error><Code>{code}</Code><Message>no</Message></Error>"))
}

/// Serves one request; `None` when the connection is to end.
fn serve(shared: &Shared, reader: &mut BufReader<TcpStream>, stream: &TcpStream) -> Option<()> {
    let asked = head(reader)?;
    {
        let mut active = shared.active.lock().unwrap();
        active.0 += 1;
        active.1 = active.1.max(active.0);
    }
    let served = serve_one(shared, asked, reader, stream);
    shared.active.lock().unwrap().0 -= 1;
    served
}

fn serve_one(
    shared: &Shared,
    mut asked: Asked,
    reader: &mut BufReader<TcpStream>,
    mut stream: &TcpStream,
) -> Option<()> {
    let fate = {
        let mut all = shared.asked.lock().unwrap();
        asked.number = all.len() + 1;
        all.push(asked.clone());
        drop(all);
        (shared.decide.lock().unwrap())(&asked)
    };
    if asked.headers.contains_key("expect") {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").ok()?;
    }
    let len: usize = asked.headers.get("content-length").map_or(0, |text| text.parse().unwrap());
    if let Fate::CutUpload(bytes) = fate {
        let _ = reader.read_exact(&mut vec![0; bytes.min(len)]);
        return None;
    }
    let mut body = vec![0; len];
    reader.read_exact(&mut body).ok()?;
    if let Fate::Late(delay) = fate {
        std::thread::sleep(delay);
    }
    if fate == Fate::Silence {
        let _ = reader.read(&mut [0]);
        return None;
    }
    let answer = match &fate {
        Fate::Refuse(status, headers, body) => {
            Reply { headers: (*headers).to_owned(), ..reply(*status, body.clone()) }
        }
        _ => shared.answer(&asked, body),
    };
    if fate == Fate::LoseAnswer {
        return None;
    }
    let len = answer.len.unwrap_or(answer.body.len());
    let line = format!("HTTP/1.1 {} ?\r\ncontent-length: {len}\r\n{}\r\n", answer.status, answer.headers);
    stream.write_all(line.as_bytes()).ok()?;
    if asked.method == "HEAD" {
        return Some(());
    }
    match fate {
        Fate::CutAnswer(bytes) => {
            stream.write_all(&answer.body[..bytes.min(answer.body.len())]).ok()?;
            None
        }
        Fate::Trickle(bytes, pause) => {
            for piece in answer.body.chunks(bytes) {
                stream.write_all(piece).ok()?;
                std::thread::sleep(pause);
            }
            Some(())
        }
        _ => stream.write_all(&answer.body).ok(),
    }
}

impl Shared {
    fn put(&self, name: &str, bytes: Vec<u8>) -> String {
        let mut objects = self.objects.lock().unwrap();
        let tag = format!(
            "\"{}-{}\"",
            blake3::hash(&bytes).to_hex().get(..16).unwrap(),
            jiff::Timestamp::now().as_nanosecond()
        );
        objects.insert(name.to_owned(), Object { bytes, tag: tag.clone(), modified: jiff::Timestamp::now() });
        tag
    }

    fn answer(&self, asked: &Asked, body: Vec<u8>) -> Reply {
        let signed = asked.headers.get("authorization").map_or("", String::as_str);
        let is_let_in = match self.dialect {
            Dialect::Google => signed == format!("Bearer {TOKEN}"),
            Dialect::S3 => signed.starts_with("AWS4-HMAC-SHA256 Credential="),
        };
        if !is_let_in {
            return refusal(401, "AuthenticationRequired");
        }
        match asked.method.as_str() {
            "PUT" => self.create(asked, body),
            "GET" if asked.name.is_empty() => self.list(asked),
            "GET" | "HEAD" => self.get(asked),
            "DELETE" => match (self.objects.lock().unwrap().remove(&asked.name), self.dialect) {
                (None, Dialect::Google) => refusal(404, "NoSuchKey"),
                _ => reply(204, ""),
            },
            _ => refusal(405, "MethodNotAllowed"),
        }
    }

    fn create(&self, asked: &Asked, body: Vec<u8>) -> Reply {
        let condition = match self.dialect {
            Dialect::S3 => asked.headers.get("if-none-match").is_some_and(|value| value == "*"),
            Dialect::Google => asked.headers.get("x-goog-if-generation-match").is_some_and(|value| value == "0"),
        };
        // Two who ask at a time are told apart by this lock.
        static ONE: Mutex<()> = Mutex::new(());
        let _one = ONE.lock().unwrap();
        if condition && self.objects.lock().unwrap().contains_key(&asked.name) {
            return refusal(412, "PreconditionFailed");
        }
        let tag = self.put(&asked.name, body);
        Reply { headers: format!("ETag: {tag}\r\nx-goog-generation: 1\r\n"), ..reply(200, "") }
    }

    fn get(&self, asked: &Asked) -> Reply {
        let objects = self.objects.lock().unwrap();
        let Some(object) = objects.get(&asked.name) else { return refusal(404, "NoSuchKey") };
        if asked.headers.get("if-match").is_some_and(|tag| *tag != object.tag) {
            return refusal(412, "PreconditionFailed");
        }
        let size = object.bytes.len();
        let modified = object.modified.strftime("%a, %d %b %Y %H:%M:%S GMT");
        let headers = format!("ETag: {}\r\nLast-Modified: {modified}\r\n", object.tag);
        let Some(range) = asked.headers.get("range") else {
            return Reply { headers, len: Some(size), ..reply(200, object.bytes.clone()) };
        };
        let (first, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
        let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
        if first >= size {
            return refusal(416, "InvalidRange");
        }
        let last = last.min(size - 1);
        let headers = format!("{headers}Content-Range: bytes {first}-{last}/{size}\r\n");
        Reply { headers, ..reply(206, &object.bytes[first..=last]) }
    }

    fn list(&self, asked: &Asked) -> Reply {
        let get = |key: &str| asked.query.get(key).map_or("", String::as_str);
        if get("list-type") != "2" {
            // What else may be asked of a bucket, this one does not tell.
            return refusal(403, "AccessDenied");
        }
        let objects = self.objects.lock().unwrap();
        let after = get("continuation-token");
        let left: Vec<_> =
            objects.iter().filter(|(name, _)| name.starts_with(get("prefix")) && name.as_str() > after).collect();
        let escaped = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let mut body = String::from("<?xml version='1.0' encoding='UTF-8'?>\n<ListBucketResult>");
        let page = self.page.load(Ordering::SeqCst);
        for (name, object) in left.iter().take(page) {
            body += &format!(
                "<Contents><Key>{}</Key><LastModified>{}</LastModified><ETag>{}</ETag><Size>{}</Size></Contents>",
                escaped(name),
                object.modified.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
                escaped(&object.tag),
                object.bytes.len()
            );
        }
        let is_cut = left.len() > page;
        body += &format!("<IsTruncated>{is_cut}</IsTruncated>");
        if is_cut {
            body += &format!("<NextContinuationToken>{}</NextContinuationToken>", escaped(left[page - 1].0));
        }
        reply(200, body + "</ListBucketResult>")
    }
}
