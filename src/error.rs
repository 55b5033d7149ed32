//! What can go wrong, sorted by what a caller can do about it. Every error
//! names the object it is about. Nothing here prints or decides exit codes.

use std::path::PathBuf;

/// The result of nearly everything.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Bytes that do not follow the format; whoever knows the object turns it into [`Error::Damaged`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub String);

impl Malformed {
    /// Says what is wrong.
    pub fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }

    /// The error of the object whose bytes these were.
    pub fn of(self, object: impl Into<String>) -> Error {
        Error::Damaged { object: object.into(), why: self.0 }
    }
}

/// Why a store did not do what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreFault {
    /// There is no such object.
    NotFound,
    /// There is such an object already, and it was to be created.
    Exists,
    /// The store, or its permissions, forbid it.
    Denied,
    /// The object is locked, or under a retention, until a time that the store knows: it is neither deleted nor
    /// replaced before that, whoever asks.
    Retained,
    /// The store is full.
    Full,
    /// The object is there, in a class of storage from which it must be thawed before it is read.
    Frozen,
    /// The object is larger than the reader may take, or shorter than the range asked for.
    Size,
    /// The store did not answer; trying again may help.
    Unavailable,
    /// Anything else.
    Other,
}

/// A request that a store refused or failed.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {object}: {why}")]
pub struct StoreError {
    /// What a caller can do about it.
    pub fault: StoreFault,
    /// The request: `read`, `create`, `list` …
    pub operation: &'static str,
    /// The object's name within the store.
    pub object: String,
    /// In words; holds no credentials.
    pub why: String,
}

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The repository's store failed.
    #[error("the repository's store failed: {0}")]
    Store(#[source] StoreError),
    /// An object's bytes are not what was written.
    #[error("{object} is damaged: {why}")]
    Damaged {
        /// The object.
        object: String,
        /// What is wrong with it.
        why: String,
    },
    /// An object that others rest on is not there.
    #[error("{object} is missing")]
    Missing {
        /// The object.
        object: String,
    },
    /// Written by a newer program.
    #[error("{object} has format {found}; this program reads format {known}")]
    Newer {
        /// The object.
        object: String,
        /// Its format.
        found: u64,
        /// The newest format known here.
        known: u64,
    },
    /// Nothing is there that could be opened.
    #[error("there is no repository at {place}")]
    NoRepository {
        /// Where it was looked for.
        place: String,
    },
    /// The repository has no such tenant.
    #[error("the repository has no tenant named {name}")]
    NoTenant {
        /// Its name.
        name: String,
    },
    /// It is there already.
    #[error("{what} exists already")]
    Exists {
        /// What was to be made.
        what: String,
    },
    /// No slot opens with the given key.
    #[error("the key does not open tenant {tenant}: {why}")]
    WrongKey {
        /// The tenant's name.
        tenant: String,
        /// Where a slot was looked for.
        why: String,
    },
    /// No key was given, or it cannot be read.
    #[error("{why}")]
    NoKey {
        /// What is missing.
        why: String,
    },
    /// The key opens the tenant, but its role does not allow this.
    #[error("a writer key cannot {what}")]
    NotAllowed {
        /// What was asked for.
        what: &'static str,
    },
    /// Another process holds what is needed.
    #[error("{what} is in use by another process")]
    Busy {
        /// What is held.
        what: String,
    },
    /// A prune gave this session up; nothing of it counts.
    #[error("session {session} was given up by a prune; run the snapshot again")]
    Fenced {
        /// The session.
        session: String,
    },
    /// A source could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Source {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A command that was to give the data failed.
    #[error("the command failed ({status}); nothing was kept: {command}")]
    Command {
        /// The command line.
        command: String,
        /// How it ended.
        status: String,
    },
    /// A restore could not write.
    #[error("cannot write {}: {source}", path.display())]
    Target {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Files of this program's own on this machine (key, cache) cannot be used.
    #[error("{}: {why}", path.display())]
    Local {
        /// Where.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// What was asked for makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// There is no such snapshot, path or key.
    #[error("{0}")]
    NotFound(String),
    /// The user asked to stop.
    #[error("interrupted")]
    Interrupted,
}

impl From<StoreError> for Error {
    /// What is not there, or has another size than it was written with, is the object's fault and not
    /// the store's.
    fn from(e: StoreError) -> Self {
        match e.fault {
            StoreFault::NotFound => Error::Missing { object: e.object },
            StoreFault::Size => Error::Damaged { object: e.object, why: e.why },
            _ => Error::Store(e),
        }
    }
}

impl Error {
    /// The error of a damaged object.
    pub fn damaged(object: impl Into<String>, why: impl Into<String>) -> Self {
        Error::Damaged { object: object.into(), why: why.into() }
    }

    /// True if the object, and not the store or the caller, is at fault: a
    /// reader may go on with what does not depend on it.
    pub fn is_damage(&self) -> bool {
        match self {
            // What a newer program wrote cannot be read here, but it stands in nobody's way.
            Error::Damaged { .. } | Error::Missing { .. } | Error::Newer { .. } => true,
            Error::Store(e) => matches!(e.fault, StoreFault::NotFound | StoreFault::Size),
            _ => false,
        }
    }

    /// True if what was asked for is whole, as far as anyone knows, and must be thawed before it is read.
    pub fn is_frozen(&self) -> bool {
        matches!(self, Error::Store(e) if e.fault == StoreFault::Frozen)
    }

    /// The same once more, for whoever asks again, if the object is at fault.
    pub fn retold(&self) -> Option<Self> {
        Some(match self {
            Error::Damaged { object, why } => Error::damaged(object, why),
            Error::Missing { object } => Error::Missing { object: object.clone() },
            Error::Newer { object, found, known } => {
                Error::Newer { object: object.clone(), found: *found, known: *known }
            }
            Error::Store(e) if self.is_damage() => Error::damaged(&e.object, &e.why),
            _ => return None,
        })
    }

    /// The object that is at fault, where one is.
    pub fn object(&self) -> Option<&str> {
        match self {
            Error::Damaged { object, .. } | Error::Missing { object } | Error::Newer { object, .. } => Some(object),
            Error::Store(e) => Some(&e.object),
            _ => None,
        }
    }

    /// True where the store says that the object is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Error::Store(StoreError { fault: StoreFault::NotFound, .. }) | Error::Missing { .. })
    }
}
