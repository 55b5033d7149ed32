//! What a request that failed means for its caller, in one short line that holds nothing of what was
//! sent, and whether it is worth another try.

use super::super::fault;
use super::http::{Answer, Broken, Heard};
use super::location::Kind;
use crate::error::{StoreError, StoreFault};
use object_store::Error;
use std::time::Duration;

/// Whether another try may do better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    Never,
    /// Once: credentials may have been renewed.
    Once,
    /// Perhaps, and not before this.
    Later(Option<Duration>),
}

/// A request that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub fault: StoreFault,
    pub why: String,
    pub again: Again,
    /// It may have been done all the same.
    pub arrived: bool,
    /// No refusal, and yet no answer to what was asked.
    pub is_odd: bool,
}

impl Failure {
    pub(super) fn new(fault: StoreFault, why: impl Into<String>) -> Self {
        Self { fault, why: why.into(), again: Again::Never, arrived: true, is_odd: false }
    }

    /// One that may pass.
    pub(super) fn passing(why: impl Into<String>) -> Self {
        Self { again: Again::Later(None), ..Self::new(StoreFault::Unavailable, why) }
    }

    pub(super) fn into_error(self, operation: &'static str, name: &str) -> StoreError {
        match self.fault {
            StoreFault::NotFound => fault::not_found(operation, name),
            _ => fault::new(self.fault, operation, name, &self.why),
        }
    }

    /// Sorts a failed request by what was heard of it.
    pub(super) fn of(e: &Error, heard: Heard, asked: &Asked) -> Self {
        match heard {
            Heard::Nothing => Self::before_any_request(e, asked),
            Heard::Broken { host, how, why } => asked.broken(&host, how, why),
            Heard::Answer(answer) if answer.host != asked.host => asked.no_credentials(&answer),
            Heard::Answer(answer) if answer.status >= 300 => asked.refused(answer),
            Heard::Answer(_) if matches!(e, Error::NotFound { .. }) => Self::new(StoreFault::NotFound, ""),
            Heard::Answer(answer) => {
                let why = format!("an answer ({}) that makes no sense", answer.status);
                Self { is_odd: true, ..Self::new(StoreFault::Other, why) }
            }
        }
    }

    /// What went wrong on this machine: mostly a file that was to hold credentials.
    fn before_any_request(e: &Error, asked: &Asked) -> Self {
        let at = fault::below("", "", e);
        if let Error::Unauthenticated { .. } = e {
            // Our own provider's words (`profile`), which name files and no values.
            return Self { arrived: false, ..Self::new(StoreFault::Denied, at.why) };
        }
        let why =
            format!("no credentials for {} could be made out from what the environment says", asked.kind.scheme());
        Self { arrived: false, ..Self::new(StoreFault::Denied, why) }
    }
}

/// What stores answer where an object is under a retention, a lock or a hold of theirs.
const LOCKED: [&str; 7] = [
    "BlobImmutableDueToPolicy",
    "BlobImmutableDueToLegalHold",
    "ObjectLocked",
    "ObjectLockedByBucketPolicy",
    "ObjectUnderActiveHold",
    "RetentionPolicyNotMet",
    "FileImmutable",
];

/// Who was asked.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub kind: Kind,
    /// The store's host; any other is asked for credentials.
    pub host: String,
    /// It has answered before.
    pub is_known: bool,
}

impl Asked {
    fn broken(&self, host: &str, how: Broken, why: String) -> Failure {
        let arrived = how == Broken::Midway;
        let again = if how == Broken::Hopeless { Again::Never } else { Again::Later(None) };
        if host == self.host {
            let fault = if how == Broken::Hopeless { StoreFault::Other } else { StoreFault::Unavailable };
            return Failure { arrived, again, ..Failure::new(fault, format!("{host}: {why}")) };
        }
        let is_this_machine = host.starts_with("169.254.") || host.starts_with("metadata.");
        if is_this_machine && !self.is_known {
            let why = format!("no credentials: {}", self.advice());
            return Failure { arrived: false, ..Failure::new(StoreFault::Denied, why) };
        }
        let why = format!("{host}, which was asked for credentials: {why}");
        Failure { arrived: false, again, ..Failure::passing(why) }
    }

    /// Where credentials are looked for.
    fn advice(&self) -> &'static str {
        match self.kind {
            Kind::S3 => {
                "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or run \
                 where a role gives them"
            }
            Kind::Gcs => {
                "set GOOGLE_APPLICATION_CREDENTIALS to a key file, or run where a \
                 service account gives them"
            }
            Kind::Azure => {
                "set AZURE_STORAGE_KEY, AZURE_STORAGE_SAS_TOKEN or AZURE_STORAGE_CONNECTION_STRING, or run \
                 where a managed identity gives them"
            }
        }
    }

    fn no_credentials(&self, answer: &Answer) -> Failure {
        let why = format!("{} gave no credentials: {}", answer.host, said(answer));
        match answer.status {
            408 | 429 | 500..=599 => {
                Failure { again: Again::Later(answer.after), arrived: false, ..Failure::passing(why) }
            }
            _ => Failure { arrived: false, ..Failure::new(StoreFault::Denied, why) },
        }
    }

    fn refused(&self, answer: Answer) -> Failure {
        let code = answer.code.as_deref().unwrap_or("");
        let bucket = self.kind.bucket();
        let passing = Failure { again: Again::Later(answer.after), ..Failure::passing(said(&answer)) };
        let denied = |what: &str| Failure::new(StoreFault::Denied, format!("{what} ({})", said(&answer)));
        let other = |what: &str| Failure::new(StoreFault::Other, format!("{what} ({})", said(&answer)));
        if answer.is_locked || answer.status == 451 || LOCKED.iter().any(|known| code.eq_ignore_ascii_case(known)) {
            return Failure::new(StoreFault::Retained, format!("the store keeps it locked ({})", said(&answer)));
        }
        if answer.wants_digest {
            let why = format!("the store wants a digest ({})", said(&answer));
            return Failure { again: Again::Once, arrived: false, ..Failure::new(StoreFault::Other, why) };
        }
        match (answer.status, code) {
            (_, "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired") => {
                Failure { again: Again::Once, ..denied("the credentials have expired") }
            }
            (_, "InvalidAccessKeyId") => denied("the store does not know the access key"),
            (_, "SignatureDoesNotMatch") => denied("the secret key is not the access key's"),
            (_, "RequestTimeTooSkewed") => denied("this machine's clock differs too much from the store's"),
            (_, "InvalidToken") => denied("the session token is not valid"),
            (507, _)
            | (_, "QuotaExceeded" | "XMinioStorageFull" | "InsufficientCapacity" | "StorageQuotaExceeded") => {
                Failure::new(StoreFault::Full, format!("the store is full ({})", said(&answer)))
            }
            (_, "InvalidObjectState" | "BlobArchived" | "BlobBeingRehydrated") => {
                Failure::new(StoreFault::Frozen, format!("it is frozen ({})", said(&answer)))
            }
            // A write that conflicts with one that is under way, and did not take place.
            (409, "ConditionalRequestConflict" | "OperationAborted") => passing,
            (409 | 412, _) => Failure::new(StoreFault::Exists, "it exists already"),
            (_, "NoSuchBucket" | "ContainerNotFound" | "ContainerBeingDeleted") => {
                other(&format!("there is no such {bucket}"))
            }
            (404, _) => Failure::new(StoreFault::NotFound, ""),
            (416, _) => Failure::new(StoreFault::Size, "it ends before"),
            (401, _) => Failure { again: Again::Once, ..denied("the credentials are not valid") },
            (403, _) => denied("access denied"),
            (300..=399, _) | (400, "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException") => {
                match &answer.region {
                    Some(region) => other(&format!("the {bucket} is in another region: write region={region}")),
                    None => other(&format!("the {bucket} is somewhere else, or in another region")),
                }
            }
            // What was sent came differently, or too slowly.
            (400, "RequestTimeout" | "BadDigest" | "XAmzContentSHA256Mismatch" | "IncompleteBody") => passing,
            (501 | 505, _) => other("the store cannot do that"),
            (408 | 429 | 500..=599, _) => passing,
            _ => other("the store refused"),
        }
    }
}

/// An answer in words.
fn said(answer: &Answer) -> String {
    match &answer.code {
        Some(code) => format!("it answered {} {code}", answer.status),
        None => format!("it answered {}", answer.status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(is_known: bool) -> Asked {
        Asked { kind: Kind::S3, host: "store".into(), is_known }
    }

    fn refused(status: u16, code: &str) -> Failure {
        let code = (!code.is_empty()).then(|| code.to_owned());
        asked(true).refused(Answer { host: "store".into(), status, code, ..Answer::default() })
    }

    #[test]
    fn refusals_are_sorted() {
        let passing = Again::Later(None);
        for (status, code, fault, again) in [
            (404, "", StoreFault::NotFound, Again::Never),
            (404, "NoSuchKey", StoreFault::NotFound, Again::Never),
            (404, "NoSuchBucket", StoreFault::Other, Again::Never),
            (404, "ContainerNotFound", StoreFault::Other, Again::Never),
            (412, "PreconditionFailed", StoreFault::Exists, Again::Never),
            (409, "BlobAlreadyExists", StoreFault::Exists, Again::Never),
            (409, "ConditionalRequestConflict", StoreFault::Unavailable, passing),
            (403, "", StoreFault::Denied, Again::Never),
            (403, "SignatureDoesNotMatch", StoreFault::Denied, Again::Never),
            (400, "ExpiredToken", StoreFault::Denied, Again::Once),
            (401, "", StoreFault::Denied, Again::Once),
            (409, "BlobImmutableDueToPolicy", StoreFault::Retained, Again::Never),
            (403, "retentionPolicyNotMet", StoreFault::Retained, Again::Never),
            (403, "ObjectLockedByBucketPolicy", StoreFault::Retained, Again::Never),
            (451, "", StoreFault::Retained, Again::Never),
            (403, "InvalidObjectState", StoreFault::Frozen, Again::Never),
            (409, "BlobArchived", StoreFault::Frozen, Again::Never),
            (507, "", StoreFault::Full, Again::Never),
            (403, "QuotaExceeded", StoreFault::Full, Again::Never),
            (416, "", StoreFault::Size, Again::Never),
            (408, "", StoreFault::Unavailable, passing),
            (429, "", StoreFault::Unavailable, passing),
            (503, "SlowDown", StoreFault::Unavailable, passing),
            (400, "RequestTimeout", StoreFault::Unavailable, passing),
            (501, "NotImplemented", StoreFault::Other, Again::Never),
            (400, "InvalidArgument", StoreFault::Other, Again::Never),
            (301, "PermanentRedirect", StoreFault::Other, Again::Never),
        ] {
            let found = refused(status, code);
            assert_eq!((found.fault, found.again), (fault, again), "{status} {code}");
            assert!(
                found.why.len() < 120
                    && (code.is_empty()
                        || found.why.contains(code)
                        || status == 404
                        || found.fault == StoreFault::Exists),
                "{found:?}"
            );
        }
        let code = Some("AccessDenied".to_owned());
        let answer = Answer { host: "store".into(), status: 403, code, is_locked: true, ..Answer::default() };
        assert_eq!(asked(true).refused(answer).fault, StoreFault::Retained);
        let region = Some("eu-west-1".to_owned());
        let answer = Answer { host: "store".into(), status: 301, region, ..Answer::default() };
        assert!(asked(true).refused(answer).why.contains("region=eu-west-1"));
    }

    #[test]
    fn who_gives_credentials_is_told_from_the_store() {
        let metadata = |known| asked(known).broken("169.254.169.254", Broken::Unreached, "no answer in time".into());
        assert_eq!((metadata(false).fault, metadata(false).again), (StoreFault::Denied, Again::Never));
        assert!(metadata(false).why.contains("AWS_ACCESS_KEY_ID"));
        assert_eq!((metadata(true).fault, metadata(true).again), (StoreFault::Unavailable, Again::Later(None)));
        let refused = |status| Answer { host: "sts".into(), status, ..Answer::default() };
        assert_eq!(asked(true).no_credentials(&refused(400)).fault, StoreFault::Denied);
        assert_eq!(asked(true).no_credentials(&refused(503)).again, Again::Later(None));
    }

    #[test]
    fn what_was_broken_off_may_have_been_done() {
        let broken = |how| asked(true).broken("store", how, "reset".into());
        assert!(broken(Broken::Midway).arrived && !broken(Broken::Unreached).arrived);
        assert_eq!(broken(Broken::Hopeless).again, Again::Never);
        assert_eq!(broken(Broken::Midway).why, "store: reset");
    }
}
