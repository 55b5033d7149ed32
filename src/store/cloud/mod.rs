//! Object stores that are far, through `object_store`: Amazon S3 and what is compatible with it
//! (`s3://bucket/prefix`), Google Cloud Storage (`gs://`), Azure Blob Storage (`az://`).
//!
//! Requests are asynchronous in here and nowhere else: callers wait on their own threads, which must
//! not be threads of an asynchronous runtime. What fails in ways that pass is tried again within the
//! bounds of [`Patience`]; a create whose answer was lost is told from another's by reading what is
//! there. Credentials come from the environment and from profile files, never from a location, and no
//! error holds any part of a request.

mod azure;
mod digest;
mod engine;
mod failure;
mod fetch;
mod gcs;
mod http;
mod location;
mod page;
mod patience;
mod profile;
mod protection;
mod retained;
mod s3;
mod turn;

pub use patience::Patience;

use super::pace::Rates;
use super::{Listed, Place, Protection, Store, fault, wrapped};
use crate::clock::Timestamp;
use crate::error::{Error, Result, StoreError, StoreFault};
use crate::limits;
use bytes::Bytes;
use engine::Engine;
use failure::{Again, Asked, Failure};
use fetch::{Download, Got, Same, Sink};
use http::{Heard, NOTED, Noted};
use location::{Kind, Location};
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::path::Path as ObjectPath;
use object_store::{
    Attribute, Attributes, BackoffConfig, ClientOptions, ObjectMeta, ObjectStore, ObjectStoreExt as _, PutMode,
    PutOptions, PutPayload, RetryConfig,
};
use patience::Trial;
use protection::Inquiry;
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What a client of one of the kinds can do.
trait Backend: ObjectStore + PaginatedListStore {}

impl<T: ObjectStore + PaginatedListStore> Backend for T {}

/// What stands in environment variables; an empty value counts as none.
pub type Environment<'e> = dyn Fn(&str) -> Option<String> + 'e;

/// A client, and what is known of where it leads.
struct Client {
    backend: Arc<dyn Backend>,
    /// Whose answers are the store's own.
    host: String,
    /// Said by [`Store::describe`], where it is not the provider's own.
    endpoint: Option<String>,
    inquiry: Inquiry,
}

/// How often an object will be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Warmth {
    Hot,
    Cold,
}

/// A store that is far.
struct Cloud {
    engine: Arc<Engine>,
    backend: Arc<dyn Backend>,
    inquiry: Inquiry,
    kind: Kind,
    host: String,
    prefix: String,
    place: String,
    /// The storage class of objects that are seldom read.
    class: Option<Class>,
    patience: Patience,
    /// It has answered.
    is_known: AtomicBool,
}

/// True if a location of this scheme is opened here.
pub(super) fn is_scheme(scheme: &str) -> bool {
    Kind::of(scheme).is_some()
}

/// What `scheme:rest` names. Needs no credentials.
pub(super) fn place(scheme: &str, rest: &str, environment: &Environment<'_>) -> Result<Place> {
    let Some(kind) = Kind::of(scheme) else { return Err(Error::Invalid(format!("{scheme}: is no kind of store"))) };
    let location = Location::parse(kind, rest)?;
    let option = |name: &str| location.option(name).map(str::to_owned);
    let first = |names: &[&str]| names.iter().find_map(|name| environment(name).filter(|value| !value.is_empty()));
    let (bucket, prefix) = (location.bucket.clone(), location.prefix.clone());
    Ok(match kind {
        Kind::S3 => {
            let region = option("region").or_else(|| first(&["AWS_REGION", "AWS_DEFAULT_REGION"]));
            Place::S3 { bucket, prefix, region }
        }
        Kind::Gcs => Place::Gcs { bucket, prefix },
        Kind::Azure => {
            let account =
                option("account").or_else(|| first(&["AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCOUNT_NAME"]));
            Place::Azure { account, container: bucket, prefix }
        }
    })
}

/// The store at `scheme:rest`. Makes no request.
pub(super) fn open(
    scheme: &str,
    rest: &str,
    environment: &Environment<'_>,
    mut patience: Patience,
    rates: Rates,
) -> Result<Arc<dyn Store>> {
    let Some(kind) = Kind::of(scheme) else { return Err(Error::Invalid(format!("{scheme}: is no kind of store"))) };
    let location = Location::parse(kind, rest)?;
    let environment = |name: &str| environment(name).filter(|value| !value.is_empty());
    // All connections may have a pack, and share the rate.
    let all = limits::PACK_MAX.saturating_mul(limits::CLOUD_CONNECTIONS as u64);
    patience.request = patience.request.saturating_add(rates.longest(all));
    let authorities = authorities(kind, &environment)?;
    let connector = http::Connector { patience: patience.clone(), authorities, rates };
    let client = match kind {
        Kind::S3 => s3::client(&location, &environment, connector)?,
        Kind::Gcs => gcs::client(&location, &environment, connector)?,
        Kind::Azure => azure::client(&location, &environment, connector)?,
    };
    Ok(Arc::new(Cloud {
        engine: Engine::shared()?,
        backend: client.backend,
        inquiry: client.inquiry,
        kind,
        host: client.host,
        place: location.describe(client.endpoint.as_deref()),
        class: Class::of(&location)?,
        prefix: location.prefix,
        patience,
        is_known: AtomicBool::new(false),
    }))
}

/// A class of storage, as the provider calls it.
struct Class {
    name: String,
    /// What lies there must be thawed before it is read.
    freezes: bool,
}

impl Class {
    /// The one that a location asks for.
    fn of(location: &Location) -> Result<Option<Self>> {
        let Some(name) = location.option("storage-class") else { return Ok(None) };
        if name.len() > 40 || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return Err(Error::Invalid("storage-class: that is no name of a class".into()));
        }
        let freezing: &[&str] = match location.kind {
            Kind::S3 => &["GLACIER", "DEEP_ARCHIVE"],
            // Its archive is slow to pay off, and not to read.
            Kind::Gcs => &[],
            Kind::Azure => &["Archive"],
        };
        let freezes = freezing.iter().any(|class| class.eq_ignore_ascii_case(name));
        Ok(Some(Self { name: name.to_owned(), freezes }))
    }
}

/// More authorities that a user trusts, from the file that `AWS_CA_BUNDLE` names. (`SSL_CERT_FILE`
/// takes the place of the system's, for all kinds.)
fn authorities(kind: Kind, environment: &Environment<'_>) -> Result<Vec<reqwest::Certificate>> {
    let Some(path) = environment("AWS_CA_BUNDLE").filter(|_| kind == Kind::S3) else { return Ok(Vec::new()) };
    let refuse = |why: &str| Error::Local { path: path.clone().into(), why: why.to_owned() };
    let bytes = profile::read(path.as_ref()).map_err(|e| refuse(&e))?;
    reqwest::Certificate::from_pem_bundle(&bytes).map_err(|_| refuse("it holds no certificates"))
}

/// `object_store` tries nothing again: every try is signed anew here.
fn no_retries() -> RetryConfig {
    RetryConfig { backoff: BackoffConfig::default(), max_retries: 0, retry_timeout: Duration::ZERO }
}

/// Of its options only this one reaches a client: whether plain HTTP will do.
fn options(is_plain: bool) -> ClientOptions {
    ClientOptions::new().with_allow_http(is_plain)
}

/// A host as it stands in a request.
fn host_of(url: &reqwest::Url) -> String {
    url.host_str().unwrap_or_default().to_owned()
}

impl Cloud {
    fn path(&self, operation: &'static str, name: &str) -> Result<ObjectPath, StoreError> {
        wrapped::path(operation, name)?;
        match (self.prefix.as_str(), name) {
            ("", name) => wrapped::path(operation, name),
            (prefix, "") => wrapped::path(operation, prefix),
            (prefix, name) => wrapped::path(operation, &format!("{prefix}/{name}")),
        }
    }

    fn trial<'a>(&'a self, operation: &'static str, name: &'a str) -> Trial<'a> {
        Trial::new(&self.patience, operation, name)
    }

    fn is_known(&self) -> bool {
        self.is_known.load(Ordering::Relaxed)
    }

    /// Makes one try, and tells how its last request went.
    async fn once<T>(&self, work: impl Future<Output = object_store::Result<T>>) -> Result<(T, Heard), Failure> {
        let _leave = self.engine.connection().await;
        let noted = Arc::<Noted>::default();
        let done = NOTED.scope(Arc::clone(&noted), tokio::time::timeout(self.patience.request, work)).await;
        let heard = noted.heard();
        if matches!(&heard, Heard::Answer(answer) if answer.host == self.host) {
            self.is_known.store(true, Ordering::Relaxed);
        }
        match done {
            Ok(Ok(value)) => Ok((value, heard)),
            Ok(Err(e)) => {
                let asked = Asked { kind: self.kind, host: self.host.clone(), is_known: self.is_known() };
                Err(Failure::of(&e, heard, &asked))
            }
            Err(_) => Err(Failure::passing("it took too long")),
        }
    }

    async fn put(&self, path: &ObjectPath, data: &Bytes, mode: PutMode, warmth: Warmth) -> Result<(), Failure> {
        let parts: PutPayload = (0..data.len())
            .step_by(limits::CLOUD_UPLOAD_PART)
            .map(|at| data.slice(at..data.len().min(at + limits::CLOUD_UPLOAD_PART)))
            .collect();
        let mut attributes = Attributes::new();
        let is_cold = warmth == Warmth::Cold && data.len() >= limits::CLOUD_CLASS_MIN;
        if let Some(class) = self.class.as_ref().filter(|_| is_cold) {
            attributes.insert(Attribute::StorageClass, class.name.clone().into());
        }
        let options = PutOptions { mode, attributes, ..PutOptions::default() };
        self.once(self.backend.put_opts(path, parts, options)).await.map(|_| ())
    }

    async fn create_or_find(&self, name: &str, data: Bytes, warmth: Warmth) -> Result<(), StoreError> {
        let path = self.path("create", name)?;
        let mut trial = self.trial("create", name);
        let mut may_be_there = false;
        loop {
            let failure = match self.put(&path, &data, PutMode::Create, warmth).await {
                Ok(()) => return Ok(()),
                Err(failure) => failure,
            };
            if failure.fault != StoreFault::Exists {
                may_be_there |= failure.arrived;
                trial.again(of_write(failure), self.is_known()).await?;
                continue;
            }
            // Another's, unless an answer of ours was lost.
            if !may_be_there {
                return Err(trial.error(failure));
            }
            let mut same = Same::new(data.clone());
            match self.fetch("create", name, None, data.len() as u64, &mut same).await {
                Ok(()) if same.is_ours() => return Ok(()),
                Ok(()) => return Err(trial.error(failure)),
                // Larger than ours.
                Err(e) if e.fault == StoreFault::Size => return Err(trial.error(failure)),
                // Gone again: then it may be created.
                Err(e) if e.fault == StoreFault::NotFound => {
                    trial.again(Failure::passing("it was there, and is not"), true).await?;
                }
                // Nobody else would choose such a name; its length must do for a comparison.
                Err(e) if e.fault == StoreFault::Frozen && warmth == Warmth::Cold => {
                    let is_ours = self.head("create", name).await? == data.len() as u64;
                    return if is_ours { Ok(()) } else { Err(trial.error(failure)) };
                }
                Err(e) => return Err(e),
            }
        }
    }

    async fn overwrite(&self, name: &str, data: Bytes) -> Result<(), StoreError> {
        let path = self.path("write", name)?;
        let mut trial = self.trial("write", name);
        loop {
            match self.put(&path, &data, PutMode::Overwrite, Warmth::Hot).await {
                Ok(()) => return Ok(()),
                Err(failure) => trial.again(of_write(failure), self.is_known()).await?,
            }
        }
    }

    /// Downloads a whole object of up to `max` bytes, or a range that is not empty.
    async fn fetch(
        &self,
        operation: &'static str,
        name: &str,
        range: Option<Range<u64>>,
        max: u64,
        sink: &mut dyn Sink,
    ) -> Result<(), StoreError> {
        let path = self.path(operation, name)?;
        let mut trial = self.trial(operation, name);
        let (offset, len) = range.as_ref().map_or((0, 0), |range| (range.start, range.end - range.start));
        let short = |size| wrapped::short(name, offset, usize::try_from(len).unwrap_or(usize::MAX), size);
        let mut download = Download::new(path.clone(), range, max, sink);
        loop {
            let from = download.at();
            let failure = match self.once(download.go_on(&*self.backend)).await {
                Ok((Got::All, _)) => return Ok(()),
                Ok((Got::Large(size), _)) => return Err(wrapped::large(name, size, max)),
                Ok((Got::Short(size), _)) => return Err(short(size)),
                Ok((Got::Less, _)) => Failure::passing("the answer ended early"),
                Ok((Got::More, _)) => Failure::new(StoreFault::Other, "the store sent more than it said"),
                Ok((Got::Changed, _)) => {
                    download.restart();
                    Failure::passing("the object changed while it was read")
                }
                // The tag does not match any more.
                Err(failure) if failure.fault == StoreFault::Exists && download.has_begun() => {
                    download.restart();
                    Failure::passing("the object changed while it was read")
                }
                // Stores refuse a range that begins beyond the end, each in its own way.
                Err(failure) if len > 0 && (failure.fault == StoreFault::Size || failure.is_odd) => {
                    let size = self.head(operation, name).await?;
                    if size < offset.saturating_add(len) {
                        return Err(short(size));
                    }
                    // The object has it.
                    if failure.is_odd { failure } else { Failure::passing("the store refused a range of the object") }
                }
                Err(failure) => self.denied_or_missing(&path, failure).await,
            };
            if download.has_moved(from) {
                trial.moved();
            }
            trial.again(failure, self.is_known()).await?;
        }
    }

    async fn head(&self, operation: &'static str, name: &str) -> Result<u64, StoreError> {
        let path = self.path(operation, name)?;
        let mut trial = self.trial(operation, name);
        loop {
            match self.once(self.backend.head(&path)).await {
                Ok((meta, _)) => return Ok(meta.size),
                Err(failure) => {
                    let failure = self.denied_or_missing(&path, failure).await;
                    trial.again(failure, self.is_known()).await?;
                }
            }
        }
    }

    /// Who may list some folders of a bucket and not all of it is denied what is missing too. A listing of
    /// the name alone tells one from the other.
    async fn denied_or_missing(&self, path: &ObjectPath, failure: Failure) -> Failure {
        if failure.fault != StoreFault::Denied || failure.again != Again::Never || !self.is_known() {
            return failure;
        }
        let listed = self.once(self.backend.list_paginated(Some(path.as_ref()), PaginatedListOptions::default()));
        match listed.await {
            Ok((page, _)) if page.page_token.is_none() && page.result.objects.iter().all(|o| o.location != *path) => {
                Failure::new(StoreFault::NotFound, "")
            }
            _ => failure,
        }
    }

    async fn below(&self, folder: &str) -> Result<Vec<Listed>, StoreError> {
        let path = self.path("list", folder)?;
        let prefix = if path.as_ref().is_empty() { String::new() } else { format!("{path}/") };
        let mut trial = self.trial("list", folder);
        let mut found = Vec::new();
        let (mut token, mut barren) = (None::<String>, 0);
        loop {
            let options = PaginatedListOptions { page_token: token.clone(), ..PaginatedListOptions::default() };
            let wanted = (!prefix.is_empty()).then_some(prefix.as_str());
            let (page, heard) = match self.once(self.backend.list_paginated(wanted, options)).await {
                Ok(page) => page,
                Err(failure) => {
                    trial.again(of_list(failure), self.is_known()).await?;
                    continue;
                }
            };
            trial.moved();
            let refuse = |why: &str| Err(fault::new(StoreFault::Other, "list", folder, why));
            barren = if page.result.objects.is_empty() { barren + 1 } else { 0 };
            for meta in page.result.objects {
                found.extend(listed(meta, &self.prefix, &prefix));
            }
            if found.len() > limits::LIST_OBJECTS_MAX {
                return refuse(&format!("more than {} objects", limits::LIST_OBJECTS_MAX));
            }
            if matches!(heard, Heard::Answer(answer) if answer.cut) {
                return refuse("a page says that there is more, and not where");
            }
            match page.page_token.filter(|next| !next.is_empty()) {
                None => break,
                next if next == token || barren > limits::CLOUD_BARREN_PAGES => {
                    return refuse("the listing does not come to an end");
                }
                next => token = next,
            }
        }
        found.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    async fn remove(&self, name: &str) -> Result<(), StoreError> {
        let path = self.path("delete", name)?;
        let mut trial = self.trial("delete", name);
        let mut may_be_done = false;
        loop {
            match self.once(self.backend.delete(&path)).await {
                Ok(_) => return Ok(()),
                Err(failure) if failure.fault == StoreFault::NotFound && may_be_done => return Ok(()),
                Err(failure) => {
                    may_be_done |= failure.arrived;
                    trial.again(failure, self.is_known()).await?;
                }
            }
        }
    }
}

/// What a write does not find is the place, and no object.
fn of_write(failure: Failure) -> Failure {
    match failure.fault {
        StoreFault::NotFound => Failure::new(StoreFault::Other, "the place to write it is gone"),
        _ => failure,
    }
}

/// What a listing does not find is the bucket; no listing is empty because of that.
fn of_list(failure: Failure) -> Failure {
    match failure.fault {
        StoreFault::NotFound => Failure::new(StoreFault::Other, "there is nothing of that name to list"),
        _ => failure,
    }
}

/// An object by its name within the store; `None` for what does not lie below `folder`, such as the
/// empty objects that some tools make of folders.
fn listed(meta: ObjectMeta, root: &str, folder: &str) -> Option<Listed> {
    let full = meta.location.as_ref();
    full.strip_prefix(folder)?;
    let name = if root.is_empty() { full } else { full.strip_prefix(root)?.strip_prefix('/')? };
    let modified = Timestamp {
        seconds: meta.last_modified.timestamp(),
        nanos: meta.last_modified.timestamp_subsec_nanos().min(999_999_999),
    };
    Some(Listed { name: name.to_owned(), size: meta.size, modified })
}

impl Store for Cloud {
    fn describe(&self) -> String {
        self.place.clone()
    }

    fn is_far(&self) -> bool {
        true
    }

    fn freezes(&self) -> bool {
        self.class.as_ref().is_some_and(|class| class.freezes)
    }

    fn create(&self, name: &str, data: Bytes) -> Result<(), StoreError> {
        self.engine.wait(self.create_or_find(name, data, Warmth::Hot))
    }

    fn create_cold(&self, name: &str, data: Bytes) -> Result<(), StoreError> {
        self.engine.wait(self.create_or_find(name, data, Warmth::Cold))
    }

    fn write(&self, name: &str, data: Bytes) -> Result<(), StoreError> {
        self.engine.wait(self.overwrite(name, data))
    }

    fn read(&self, name: &str, max: u64) -> Result<Bytes, StoreError> {
        let mut bytes = Vec::new();
        self.engine.wait(self.fetch("read", name, None, max, &mut bytes))?;
        Ok(bytes.into())
    }

    fn read_range(&self, name: &str, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        let Some(end) = offset.checked_add(len as u64).filter(|end| *end > offset) else {
            // No store is asked for nothing, or for what no object can hold.
            let size = self.engine.wait(self.head("read", name))?;
            let holds = len == 0 && offset <= size;
            return if holds { Ok(Bytes::new()) } else { Err(wrapped::short(name, offset, len, size)) };
        };
        let mut bytes = Vec::new();
        self.engine.wait(self.fetch("read", name, Some(offset..end), len as u64, &mut bytes))?;
        Ok(bytes.into())
    }

    fn size(&self, name: &str) -> Result<u64, StoreError> {
        self.engine.wait(self.head("look at", name))
    }

    fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError> {
        self.engine.wait(self.below(folder))
    }

    fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.engine.wait(self.remove(name))
    }

    fn protection(&self) -> Protection {
        self.engine.wait(self.find_protection())
    }

    fn retained_until(&self, name: &str) -> Option<Timestamp> {
        self.engine.wait(self.find_retention(name))
    }
}
