//! A proxy before an S3 server that lets through what a policy document allows, and refuses all else, as
//! Amazon does: actions by request, resources with `*` and `?`, the conditions `Null` and `StringLike`. What
//! a document holds besides stops the test: nothing is passed over.

use super::ID;
use serde_json::Value;
use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// What a request wants, as a policy sees it.
struct Wanted {
    action: String,
    resource: String,
    /// Condition keys and their values; those that the request has.
    context: HashMap<&'static str, String>,
}

/// A policy of IAM's: a list of what is allowed.
struct Policy(Vec<Value>);

fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(list) => list.iter().map(|text| text.as_str().unwrap()).collect(),
        other => panic!("neither a text nor a list of them: {other}"),
    }
}

/// IAM's patterns: `*` any text, `?` a sign; `${*}` and the like stand for themselves.
fn matches(pattern: &str, text: &str) -> bool {
    for sign in ["*", "?", "$"] {
        if let Some(rest) = pattern.strip_prefix(&format!("${{{sign}}}")) {
            return text.strip_prefix(sign).is_some_and(|text| matches(rest, text));
        }
    }
    let Some(first) = pattern.chars().next() else { return text.is_empty() };
    let rest = &pattern[first.len_utf8()..];
    match (first, text.chars().next()) {
        ('*', _) => (0..=text.len()).any(|at| text.is_char_boundary(at) && matches(rest, &text[at..])),
        (_, None) => false,
        (first, Some(c)) => (first == '?' || first == c) && matches(rest, &text[c.len_utf8()..]),
    }
}

impl Policy {
    fn new(document: &Value) -> Self {
        assert_eq!(document["Version"], "2012-10-17");
        Self(document["Statement"].as_array().unwrap().clone())
    }

    fn allows(&self, wanted: &Wanted) -> bool {
        self.0.iter().any(|statement| {
            let known = ["Sid", "Effect", "Action", "Resource", "Condition"];
            assert!(statement.as_object().unwrap().keys().all(|key| known.contains(&key.as_str())), "{statement}");
            assert_eq!(statement["Effect"], "Allow");
            texts(&statement["Action"]).iter().any(|action| matches(action, &wanted.action))
                && texts(&statement["Resource"]).iter().any(|resource| matches(resource, &wanted.resource))
                && statement.get("Condition").is_none_or(|condition| holds(condition, wanted))
        })
    }
}

/// All operators, and all their keys, must hold; of a key's values one.
fn holds(condition: &Value, wanted: &Wanted) -> bool {
    let mut all = condition.as_object().unwrap().iter().flat_map(|(operator, keys)| {
        keys.as_object().unwrap().iter().map(move |(key, values)| (operator.as_str(), key.as_str(), values))
    });
    all.all(|(operator, key, values)| {
        let found = wanted.context.get(key);
        match operator {
            "Null" => texts(values).contains(&if found.is_none() { "true" } else { "false" }),
            // What the request does not have is like nothing.
            "StringLike" => found.is_some_and(|found| texts(values).iter().any(|value| matches(value, found))),
            other => panic!("an operator that nobody evaluates here: {other}"),
        }
    })
}

fn decoded(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let [first, after @ ..] = rest {
        rest = after;
        match first {
            b'%' => {
                bytes.push(u8::from_str_radix(std::str::from_utf8(&rest[..2]).unwrap(), 16).unwrap());
                rest = &rest[2..];
            }
            b'+' => bytes.push(b' '),
            other => bytes.push(*other),
        }
    }
    String::from_utf8(bytes).unwrap()
}

struct Request {
    /// Line and headers, as they came.
    head: String,
    method: String,
    target: String,
    /// By lower-case name.
    headers: HashMap<String, String>,
    body: Vec<u8>,
}

impl Request {
    fn read(reader: &mut BufReader<TcpStream>) -> Option<Self> {
        let mut head = String::new();
        let mut headers = HashMap::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
            if line == "\r\n" {
                break;
            }
            if let Some((key, value)) = line.trim_end().split_once(": ").filter(|_| !head.is_empty()) {
                headers.insert(key.to_ascii_lowercase(), value.to_owned());
            }
            // Each request has a connection of its own.
            if !line.to_ascii_lowercase().starts_with("connection:") {
                head.push_str(&line);
            }
        }
        let mut words = head.split_whitespace().map(str::to_owned);
        let (method, target) = (words.next()?, words.next()?);
        let mut body = vec![0; headers.get("content-length").map_or(0, |len| len.parse().unwrap())];
        reader.read_exact(&mut body).ok()?;
        Some(Self { head, method, target, headers, body })
    }

    /// The bucket and the object's name, which is empty for the bucket.
    fn object(&self) -> (String, String) {
        let path = self.target.split('?').next().unwrap().trim_start_matches('/');
        let (bucket, name) = path.split_once('/').unwrap_or((path, ""));
        (decoded(bucket), decoded(name))
    }

    fn query(&self) -> HashMap<String, String> {
        let query = self.target.split_once('?').map_or("", |(_, query)| query);
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        pairs
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .map(|(k, v)| (k.to_owned(), decoded(v)))
            .collect()
    }

    /// What must be allowed for it: all of these.
    fn wants(&self) -> Vec<Wanted> {
        let ((bucket, name), query) = (self.object(), self.query());
        let arn = |name: &str| format!("arn:aws:s3:::{bucket}{}{name}", if name.is_empty() { "" } else { "/" });
        let mut context = HashMap::new();
        if let Some(value) = self.headers.get("if-none-match") {
            context.insert("s3:if-none-match", value.clone());
        }
        if let Some(prefix) = query.get("prefix") {
            context.insert("s3:prefix", prefix.clone());
        }
        let want = |action: &str, resource: String| Wanted {
            action: format!("s3:{action}"),
            resource,
            context: context.clone(),
        };
        let is_asked = |word: &str| query.contains_key(word);
        let words = ["acl", "tagging", "retention", "legal-hold", "versioning", "object-lock", "lifecycle", "policy"];
        if let Some(word) = words.into_iter().find(|word| is_asked(word)) {
            return vec![want(&format!("{}-{word}", self.method), arn(&name))];
        }
        match (self.method.as_str(), name.is_empty()) {
            ("GET" | "HEAD", true) if is_asked("versions") => vec![want("ListBucketVersions", arn(""))],
            ("GET", true) if is_asked("uploads") => vec![want("ListBucketMultipartUploads", arn(""))],
            ("GET" | "HEAD", true) => vec![want("ListBucket", arn(""))],
            ("POST", true) if is_asked("delete") => {
                let body = String::from_utf8_lossy(&self.body).into_owned();
                let keys = body.split("<Key>").skip(1).map(|rest| rest.split("</Key>").next().unwrap().to_owned());
                keys.map(|key| want("DeleteObject", arn(&key))).collect()
            }
            (method, true) => vec![want(&format!("{method}Bucket"), arn(""))],
            ("GET" | "HEAD", _) if is_asked("versionId") => vec![want("GetObjectVersion", arn(&name))],
            ("GET" | "HEAD", _) => vec![want("GetObject", arn(&name))],
            ("DELETE", _) if is_asked("versionId") => vec![want("DeleteObjectVersion", arn(&name))],
            ("DELETE", _) if is_asked("uploadId") => vec![want("AbortMultipartUpload", arn(&name))],
            ("DELETE", _) => vec![want("DeleteObject", arn(&name))],
            // Uploads in parts too, and copies, which read besides.
            ("PUT" | "POST", _) => {
                let source =
                    self.headers.get("x-amz-copy-source").map(|source| decoded(source.trim_start_matches('/')));
                let source = source.map(|source| want("GetObject", format!("arn:aws:s3:::{source}")));
                [want("PutObject", arn(&name))].into_iter().chain(source).collect()
            }
            (method, false) => panic!("what is {method}?"),
        }
    }
}

struct Shared {
    upstream: u16,
    policy: Policy,
    refused: Mutex<Vec<String>>,
    /// In the name of the object whose upload's answer is to be lost.
    lose: Mutex<Option<String>>,
    ended: AtomicBool,
}

/// The proxy, until it is dropped.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Before the server on that port of loopback.
    pub fn new(upstream: u16, document: &Value) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            upstream,
            policy: Policy::new(document),
            refused: Mutex::default(),
            lose: Mutex::default(),
            ended: AtomicBool::new(false),
        });
        let accepting = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                std::thread::scope(|scope| {
                    for stream in listener.incoming() {
                        if shared.ended.load(Ordering::SeqCst) {
                            return;
                        }
                        let shared = &shared;
                        scope.spawn(move || stream.map(|stream| shared.serve(&stream)));
                    }
                });
            }
        });
        Self { port, shared, accepting: Some(accepting) }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What the policy refused since this was asked last: method and target.
    pub fn refused(&self) -> Vec<String> {
        std::mem::take(&mut *self.shared.refused.lock().unwrap())
    }

    /// The next upload of an object with this in its name is done, and not answered.
    pub fn lose_answer_of_put(&self, part: &str) {
        *self.shared.lose.lock().unwrap() = Some(part.to_owned());
    }

    /// True once that befell one.
    pub fn has_lost(&self) -> bool {
        self.shared.lose.lock().unwrap().is_none()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

impl Shared {
    /// Serves the one request of a connection.
    fn serve(&self, mut stream: &TcpStream) {
        let Some(request) = Request::read(&mut BufReader::new(stream.try_clone().unwrap())) else { return };
        let answer = self.answer(&request);
        let is_lost = {
            let mut lose = self.lose.lock().unwrap();
            let is_lost = request.method == "PUT"
                && lose.as_ref().is_some_and(|part| request.target.contains(part.as_str()))
                && answer.starts_with(b"HTTP/1.1 200");
            if is_lost {
                *lose = None;
            }
            is_lost
        };
        if !is_lost {
            let _ = stream.write_all(&answer);
        }
        let _ = stream.shutdown(Shutdown::Both);
    }

    fn answer(&self, request: &Request) -> Vec<u8> {
        let refusal = |status: u16, code: &str| {
            let body =
                if request.method == "HEAD" { String::new() } else { format!("<Error><Code>{code}</Code></Error>") };
            let len = body.len();
            format!("HTTP/1.1 {status} ?\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n{body}").into_bytes()
        };
        let denied = || {
            self.refused.lock().unwrap().push(format!("{} {}", request.method, request.target));
            refusal(403, "AccessDenied")
        };
        let wants = request.wants();
        if wants.is_empty() || !wants.iter().all(|wanted| self.policy.allows(wanted)) {
            return denied();
        }
        // Amazon takes no other condition for an upload, and none for a copy; moto passes them over.
        let is_copy = request.headers.contains_key("x-amz-copy-source");
        if request
            .headers
            .get("if-none-match")
            .is_some_and(|value| request.method == "PUT" && (is_copy || value != "*"))
        {
            return refusal(501, "NotImplemented");
        }
        let answer = self.forward(request);
        // That an object is missing is told only to who may list the whole bucket.
        let (bucket, name) = request.object();
        let list = Wanted {
            action: "s3:ListBucket".into(),
            resource: format!("arn:aws:s3:::{bucket}"),
            context: HashMap::new(),
        };
        if !name.is_empty() && answer.starts_with(b"HTTP/1.1 404") && !self.policy.allows(&list) {
            return refusal(403, "AccessDenied");
        }
        answer
    }

    fn forward(&self, request: &Request) -> Vec<u8> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.upstream)).unwrap();
        let mut answer = Vec::new();
        let head = format!("{}Connection: close\r\n\r\n", request.head);
        let sent = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&request.body));
        // Some end the connection rudely, after they have said it.
        let _ = sent.and_then(|()| stream.read_to_end(&mut answer).map(drop));
        answer
    }
}

/// The status of a request to a port of loopback; 0 if nobody answers. It is signed as far as moto looks.
pub fn request(port: u16, method: &str, target: &str, headers: &[&str], body: &[u8]) -> u16 {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let signed = format!(
        "Authorization: AWS4-HMAC-SHA256 Credential={ID}/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
    );
    let headers: String = headers.iter().chain([&&*signed]).map(|line| format!("{line}\r\n")).collect();
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).split_whitespace().nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

#[test]
fn the_evaluator_itself_refuses() {
    for (pattern, text, expected) in [
        ("a/*", "a/", true),
        ("a/*", "a/b/c", true),
        ("a/*", "a", false),
        ("a", "a/b", false),
        ("a?c", "abc", true),
        ("${*}", "x", false),
        ("${*}b", "*b", true),
        ("s3:Put*", "s3:PutObjectAcl", true),
        ("s3:PutObject", "s3:PutObjectAcl", false),
    ] {
        assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
    }
    let policy = Policy::new(&serde_json::json!({ "Version": "2012-10-17", "Statement": [
        { "Effect": "Allow", "Action": ["s3:PutObject"], "Resource": "arn:aws:s3:::b/new/*",
          "Condition": { "Null": { "s3:if-none-match": ["false"] } } },
        { "Effect": "Allow", "Action": "s3:ListBucket", "Resource": "arn:aws:s3:::b",
          "Condition": { "StringLike": { "s3:prefix": ["new/*"] } } },
    ]}));
    let allows = |line: &str| {
        let (method, target) = line.split_once(' ').unwrap();
        let (target, header) = target.split_once(' ').unwrap_or((target, ""));
        let headers = header.split_once(':').map(|(key, value)| (key.to_owned(), value.to_owned()));
        let request = Request {
            head: String::new(),
            method: method.into(),
            target: target.into(),
            headers: headers.into_iter().collect(),
            body: b"<Key>new/a</Key>".to_vec(),
        };
        request.wants().iter().all(|wanted| policy.allows(wanted))
    };
    for allowed in ["PUT /b/new/a if-none-match:*", "GET /b?list-type=2&prefix=new%2F"] {
        assert!(allows(allowed), "{allowed}");
    }
    for refused in [
        "PUT /b/new/a",
        "PUT /b/old/a if-none-match:*",
        "PUT /other/new/a if-none-match:*",
        "PUT /b/new/a?acl if-none-match:*",
        "GET /b/new/a",
        "DELETE /b/new/a",
        "POST /b?delete",
        "POST /b/new/a?uploads",
        "GET /b?list-type=2",
        "GET /b?list-type=2&prefix=old",
        "GET /b?versions&prefix=new%2F",
    ] {
        assert!(!allows(refused), "{refused}");
    }
}
