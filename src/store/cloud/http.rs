//! What carries `object_store`'s requests: it ends those of which nothing moves any more, bounds every
//! answer, and notes how each ended, so that nobody has to look into texts that may hold a signature.
//! It follows no redirection and tries nothing again.

use super::patience::Patience;
use super::turn::Turn;
use super::{digest, page};
use crate::limits;
use crate::store::pace::{Pace, Rates};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::future::{Either, poll_fn, select};
use http_body::{Body, Frame, SizeHint};
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse,
    HttpResponseBody, HttpService,
};
use object_store::{ClientConfigKey, ClientOptions, HeaderMap};
use std::error::Error as StdError;
use std::future::Future as _;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};

tokio::task_local! {
    /// Where the request that is being made notes how it went.
    pub(super) static NOTED: Arc<Noted>;
}

/// How the last request of an attempt went. A store's own requests are told from those that ask another
/// host for credentials.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Heard {
    /// No request was made.
    #[default]
    Nothing,
    /// There was no answer, or it broke off.
    Broken { host: String, how: Broken, why: String },
    /// An answer that was read to its end, or is being read.
    Answer(Answer),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// Nobody was reached: nothing was sent.
    Unreached,
    /// Something may have been sent.
    Midway,
    /// It will be the same the next time.
    Hopeless,
}

/// An answer's line, and what a refusal says in words of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Answer {
    pub host: String,
    pub status: u16,
    /// Such as `NoSuchBucket`: letters, digits and dots.
    pub code: Option<String>,
    /// It says that the object is locked.
    pub is_locked: bool,
    /// It wants a digest beside what is put there; the next request brings one.
    pub wants_digest: bool,
    /// The bucket's region, where a store names it.
    pub region: Option<String>,
    /// When the store wants to be asked again.
    pub after: Option<Duration>,
    /// A page of a listing says that there is more, and not where.
    pub cut: bool,
}

/// Shared by an attempt and the requests that it makes.
#[derive(Debug, Default)]
pub(super) struct Noted(Mutex<Heard>);

impl Noted {
    pub(super) fn heard(&self) -> Heard {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, heard: Heard) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = heard;
    }
}

/// Marks a request whose answer is an object's content: its reader takes it in pieces, and counts them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Content;

/// Makes the clients of one store.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    pub patience: Patience,
    /// More authorities to trust, PEM.
    pub authorities: Vec<reqwest::Certificate>,
    pub rates: Rates,
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let plain = options.get_config_value(&ClientConfigKey::AllowHttp).is_some_and(|value| value == "true");
        let client = reqwest::Client::builder()
            .user_agent(concat!("estrato/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .http1_only()
            .https_only(!plain)
            .connect_timeout(self.patience.connect)
            .tcp_user_timeout(self.patience.idle)
            .pool_max_idle_per_host(limits::CLOUD_CONNECTIONS)
            .tls_certs_merge(self.authorities.iter().cloned())
            .build()
            .map_err(|e| object_store::Error::Generic { store: "HTTP", source: Box::new(e) })?;
        let (patience, rates) = (self.patience.clone(), self.rates.clone());
        Ok(HttpClient::new(Client { client, patience, rates, brings_digests: AtomicBool::new(false) }))
    }
}

#[derive(Debug)]
struct Client {
    client: reqwest::Client,
    patience: Patience,
    rates: Rates,
    /// The store has asked for them.
    brings_digests: AtomicBool,
}

/// An error without words: those were noted.
#[derive(Debug, thiserror::Error)]
#[error("the request failed")]
struct Silent;

fn silent() -> HttpError {
    // The kind matters to `object_store`'s own retries only, and there are none.
    HttpError::new(HttpErrorKind::Unknown, Silent)
}

#[async_trait]
impl HttpService for Client {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let noted = NOTED.try_with(Arc::clone).unwrap_or_default();
        let host = request.uri().authority().map(|a| a.host().to_owned()).unwrap_or_default();
        let is_content = request.extensions().get::<Content>().is_some();
        let broken = |how, why: String| {
            noted.note(Heard::Broken { host: host.clone(), how, why });
            silent()
        };
        let idle = self.patience.idle;
        let response = self.send(request).await.map_err(|(how, why)| broken(how, why))?;
        let (mut parts, body) = response.into_parts();
        if parts.status.as_u16() == 200 && is_content && parts.headers.contains_key("content-range") {
            // Some servers (rclone's) send the part that was asked for, and name it, as if it were all.
            parts.status = http::StatusCode::PARTIAL_CONTENT;
        }
        let mut answer = Answer { host: host.clone(), status: parts.status.as_u16(), ..Answer::default() };
        let is_success = parts.status.is_success();
        if is_success && is_content {
            noted.note(Heard::Answer(answer));
            let incoming = Incoming::new(body, idle, &host, &noted).at(&self.rates);
            return Ok(HttpResponse::from_parts(parts, HttpResponseBody::new(incoming)));
        }
        let max = if is_success { limits::CLOUD_ANSWER_MAX } else { limits::CLOUD_REFUSAL_MAX };
        let incoming = Incoming::new(body, idle, &host, &noted).at(&self.rates);
        let bytes = match gather(incoming, max).await {
            Ok((bytes, whole)) if whole || !is_success => bytes,
            Ok(_) => return Err(broken(Broken::Hopeless, format!("an answer of more than {max} bytes"))),
            // The status says enough.
            Err(_) if !is_success => Bytes::new(),
            Err(e) => return Err(e),
        };
        if is_success {
            answer.cut = page::is_cut(&bytes);
            if let Some(status) = part_of(&parts.headers, &bytes) {
                answer.status = status;
                refusal(&mut answer, &parts.headers, &bytes);
            }
        } else {
            refusal(&mut answer, &parts.headers, &bytes);
        }
        self.brings_digests.fetch_or(answer.wants_digest, Ordering::Relaxed);
        noted.note(Heard::Answer(answer));
        let body = if is_success { page::without_strangers(bytes) } else { Bytes::new() };
        Ok(HttpResponse::from_parts(parts, body.into()))
    }
}

impl Client {
    /// Sends a request, and waits for the head of its answer as long as anything moves.
    async fn send(&self, request: HttpRequest) -> Result<http::Response<reqwest::Body>, (Broken, String)> {
        let (parts, body) = request.into_parts();
        let Ok(url) = parts.uri.to_string().parse() else {
            return Err((Broken::Hopeless, "the store's address cannot be written".into()));
        };
        let mut request = reqwest::Request::new(parts.method, url);
        *request.headers_mut() = parts.headers;
        if self.brings_digests.load(Ordering::Relaxed)
            && request.method() == http::Method::PUT
            && let Some(digest) = digest::of(body.clone()).await
        {
            request.headers_mut().insert("content-md5", digest);
        }
        let moved = Arc::new(Mutex::new(Instant::now() + self.patience.connect + self.patience.idle));
        if body.content_length() > 0 {
            let patience = self.patience.clone();
            let (left, pace, until) = (body.content_length(), self.rates.upload.clone(), Arc::clone(&moved));
            let outgoing = Outgoing { left, body, patience, pace, held: None, until };
            *request.body_mut() = Some(reqwest::Body::wrap(outgoing));
        }
        let until = || *moved.lock().unwrap_or_else(PoisonError::into_inner);
        let mut answer = Box::pin(self.client.execute(request));
        loop {
            let deadline = until();
            match select(answer, pin!(sleep_until(deadline))).await {
                Either::Left((answer, _)) => return answer.map(Into::into).map_err(sort),
                Either::Right((_, unfinished)) if until() > deadline => answer = unfinished,
                Either::Right(_) => {
                    return Err((Broken::Midway, "nothing moved for too long".into()));
                }
            }
        }
    }
}

/// What an error of the connection means, and its root in words. Those name no address and no header.
fn sort(e: reqwest::Error) -> (Broken, String) {
    let unreached = e.is_connect();
    let hopeless = e.is_builder();
    let timeout = e.is_timeout();
    let e = e.without_url();
    let mut root: &(dyn StdError + 'static) = &e;
    let mut is_trust = false;
    while let Some(below) = root.source() {
        root = below;
        // Whom this machine does not trust now, it will not trust in a second.
        is_trust |= root.to_string().contains("certificate");
    }
    let why = match (timeout, unreached) {
        (true, true) => "it cannot be reached: no answer in time".into(),
        (true, false) => "no answer in time".into(),
        (false, true) => format!("it cannot be reached: {root}"),
        (false, false) => root.to_string(),
    };
    let how = match (hopeless || is_trust, unreached) {
        (true, _) => Broken::Hopeless,
        (false, true) => Broken::Unreached,
        (false, false) => Broken::Midway,
    };
    (how, why.chars().take(200).collect())
}

/// What is sent. Each part that is taken shows that the one before has left.
struct Outgoing {
    body: HttpRequestBody,
    left: usize,
    patience: Patience,
    pace: Option<Arc<Pace>>,
    /// A part whose turn has not come.
    held: Option<(Frame<Bytes>, Turn)>,
    /// When it will have lasted too long that nothing moved.
    until: Arc<Mutex<Instant>>,
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        if self.held.is_none() {
            let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
            let len = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()).map_or(0, Bytes::len);
            self.left = self.left.saturating_sub(len);
            let turn = self.pace.as_ref().map(|pace| Turn::of(pace, len));
            let wait = if self.left > 0 { self.patience.idle } else { self.patience.answer };
            // What waits for its turn is not idle.
            let wait = wait.saturating_add(turn.as_ref().map_or(Duration::ZERO, Turn::left));
            *self.until.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now() + wait;
            match (frame, turn) {
                (Some(Ok(frame)), Some(turn)) => self.held = Some((frame, turn)),
                (frame, _) => return Poll::Ready(frame),
            }
        }
        if let Some((_, turn)) = &mut self.held {
            ready!(turn.poll(cx));
        }
        Poll::Ready(self.held.take().map(|(frame, _)| Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let held = self.held.as_ref().and_then(|(frame, _)| frame.data_ref()).map_or(0, Bytes::len);
        let behind = self.body.size_hint();
        behind.exact().map_or(behind, |len| SizeHint::with_exact(len + held as u64))
    }
}

/// What comes, until nothing comes for too long.
struct Incoming {
    body: reqwest::Body,
    pace: Option<Arc<Pace>>,
    /// That of the part which came last: nothing more is asked for before it is over.
    turn: Option<Turn>,
    idle: Duration,
    patience: Pin<Box<Sleep>>,
    host: String,
    noted: Arc<Noted>,
}

impl Incoming {
    fn new(body: reqwest::Body, idle: Duration, host: &str, noted: &Arc<Noted>) -> Self {
        let patience = Box::pin(sleep_until(Instant::now() + idle));
        Self { body, pace: None, turn: None, idle, patience, host: host.to_owned(), noted: Arc::clone(noted) }
    }

    fn at(self, rates: &Rates) -> Self {
        Self { pace: rates.download.clone(), ..self }
    }

    fn broken(&self, how: Broken, why: String) -> HttpError {
        self.noted.note(Heard::Broken { host: self.host.clone(), how, why });
        silent()
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        if let Some(turn) = &mut self.turn {
            ready!(turn.poll(cx));
            self.turn = None;
            let next = Instant::now() + self.idle;
            self.patience.as_mut().reset(next);
        }
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(Some(Err(e))) => {
                let (_, why) = sort(e);
                Poll::Ready(Some(Err(self.broken(Broken::Midway, format!("the answer broke off: {why}")))))
            }
            Poll::Ready(frame) => {
                let next = Instant::now() + self.idle;
                self.patience.as_mut().reset(next);
                let len = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()).map_or(0, Bytes::len);
                self.turn = self.pace.as_ref().map(|pace| Turn::of(pace, len));
                Poll::Ready(frame.map(|frame| frame.map_err(|_| silent())))
            }
            Poll::Pending => {
                ready!(self.patience.as_mut().poll(cx));
                Poll::Ready(Some(Err(self.broken(Broken::Midway, "the answer stopped coming".into()))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Up to `max` bytes of an answer, and whether that is all.
async fn gather(mut incoming: Incoming, max: usize) -> Result<(Bytes, bool), HttpError> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut incoming).poll_frame(cx)).await {
        let Ok(data) = frame?.into_data() else { continue };
        if bytes.len() + data.len() > max {
            bytes.extend_from_slice(&data[..max - bytes.len()]);
            return Ok((bytes.freeze(), false));
        }
        bytes.extend_from_slice(&data);
    }
    Ok((bytes.freeze(), true))
}

/// Reads what a refusal says. Of its text only the code is taken: the rest may hold what was signed.
fn refusal(answer: &mut Answer, headers: &HeaderMap, body: &[u8]) {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let text = String::from_utf8_lossy(body);
    let between = |open: &str, close: &str| {
        let (_, rest) = text.split_once(open)?;
        rest.split_once(close).map(|(inside, _)| inside)
    };
    let code = header("x-ms-error-code")
        // Of a request among several.
        .or_else(|| between("x-ms-error-code: ", "\r\n"))
        .or_else(|| between("<Code>", "</Code>"))
        .or_else(|| between("\"error\":\"", "\""))
        .or_else(|| between("\"error\": \"", "\""));
    let name = |text: &&str| {
        !text.is_empty()
            && text.len() <= 40
            && text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    };
    answer.code = code.filter(name).map(str::to_owned);
    let message = between("<Message>", "</Message>").unwrap_or_default().to_lowercase();
    // A lock that is to come.
    answer.wants_digest = message.contains("content-md5") && message.contains("object lock");
    let is_locked = ["object lock", "worm protected"].iter().any(|words| message.contains(words));
    answer.is_locked = is_locked && !answer.wants_digest;
    let region = header("x-amz-bucket-region").or_else(|| between("<Region>", "</Region>"));
    answer.region = region.filter(name).map(str::to_owned);
    let after = header("retry-after").and_then(|text| text.parse().ok());
    answer.after = after.map(Duration::from_secs);
}

/// The first refusal within an answer to several requests (Azure's deletes come in such).
fn part_of(headers: &HeaderMap, body: &[u8]) -> Option<u16> {
    let kind = headers.get("content-type").and_then(|value| value.to_str().ok())?;
    if !kind.starts_with("multipart/") {
        return None;
    }
    let text = String::from_utf8_lossy(body);
    let mut statuses = text.split("HTTP/1.1 ").skip(1).filter_map(|part| part.get(..3)?.parse().ok());
    statuses.find(|status| *status >= 400)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(headers: &[(&'static str, &'static str)], body: &str) -> Answer {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        let mut answer = Answer::default();
        refusal(&mut answer, &map, body.as_bytes());
        answer
    }

    #[test]
    fn of_a_refusal_only_its_code_is_taken() {
        let s3 = "<?xml?>\n<Error><Code>SignatureDoesNotMatch</Code><StringToSign>secret</StringToSign></Error>";
        assert_eq!(told(&[], s3).code.as_deref(), Some("SignatureDoesNotMatch"));
        assert_eq!(told(&[("x-ms-error-code", "BlobNotFound")], s3).code.as_deref(), Some("BlobNotFound"));
        assert_eq!(told(&[], "{\"error\": \"invalid_grant\"}").code.as_deref(), Some("invalid_grant"));
        for strange in ["<Code>a secret</Code>", "<Code></Code>", "<Code>x", "<Code>AKIA/x+y</Code>", "nothing"] {
            assert_eq!(told(&[], strange).code, None, "{strange}");
        }
        assert_eq!(told(&[], &format!("<Code>{}</Code>", "a".repeat(64))).code, None);
        let elsewhere = told(&[("x-amz-bucket-region", "eu-west-1"), ("retry-after", "7")], "");
        assert_eq!((elsewhere.region.as_deref(), elsewhere.after), (Some("eu-west-1"), Some(Duration::from_secs(7))));
    }

    #[test]
    fn that_an_object_is_locked_is_told_by_words() {
        let s3 = |message: &str, more: &str| {
            let text = format!("<Error><Code>AccessDenied</Code><Message>{message}</Message>{more}</Error>");
            told(&[], &text).is_locked
        };
        assert!(s3("Access Denied because object protected by object lock.", ""));
        assert!(s3("Object is WORM protected and cannot be overwritten", ""));
        assert!(!s3("Access Denied", "<Resource>/bucket/object lock</Resource>"));
        let wants = "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests with Object Lock";
        let wants = told(&[], &format!("<Code>InvalidRequest</Code><Message>{wants} parameters</Message>"));
        assert!(wants.wants_digest && !wants.is_locked);
        let part = "--b\r\nHTTP/1.1 409 No\r\nx-ms-error-code: BlobImmutableDueToPolicy\r\n\r\n";
        assert_eq!(told(&[], part).code.as_deref(), Some("BlobImmutableDueToPolicy"));
    }

    #[test]
    fn a_refusal_among_parts_is_found() {
        let mut headers = HeaderMap::new();
        let body = b"--b\r\nContent-ID: 0\r\n\r\nHTTP/1.1 403 No\r\n";
        assert_eq!(part_of(&headers, body), None);
        headers.insert("content-type", "multipart/mixed; boundary=b".parse().unwrap());
        assert_eq!(part_of(&headers, body), Some(403));
        assert_eq!(part_of(&headers, b"HTTP/1.1 202 Accepted"), None);
    }
}
