//! Whether a cloud store can give back what was deleted or overwritten: versioning, object lock and what
//! is like them. `object_store` has no such question, so it is asked here, signed by `object_store`'s own
//! means. It changes nothing, and who may not ask is told that it is unknown. How long a single object is
//! kept is asked the same way ([`super::retained`]).

use super::super::Protection;
use super::http::Connector;
use super::patience::{Patience, Trial};
use super::{Cloud, options};
use crate::error::{Error, Result, StoreFault};
use bytes::Bytes;
use http::Method;
use object_store::HeaderMap;
use object_store::aws::{AwsAuthorizer, AwsCredentialProvider};
use object_store::azure::{AzureAuthorizer, AzureCredentialProvider};
use object_store::client::{HttpClient, HttpConnector as _, HttpRequest, HttpRequestBody};
use object_store::gcp::GcpCredentialProvider;
use reqwest::Url;

/// Nothing waits for the answer: a store that is busy is asked no oftener.
const TRIES: u32 = 3;

/// Whom to ask, and by whose leave.
pub(super) enum Asker {
    /// The bucket's own address.
    S3 {
        bucket: Url,
        region: String,
        credentials: AwsCredentialProvider,
    },
    /// The bucket's address in the JSON interface, which alone tells of all of it.
    Gcs {
        bucket: Url,
        credentials: GcpCredentialProvider,
    },
    Azure {
        service: Url,
        container: Url,
        account: String,
        credentials: AzureCredentialProvider,
    },
}

/// Asks a store about itself.
pub(super) struct Inquiry {
    client: HttpClient,
    pub(super) asker: Asker,
}

fn generic(source: impl std::error::Error + Send + Sync + 'static) -> object_store::Error {
    object_store::Error::Generic { store: "HTTP", source: Box::new(source) }
}

/// A refusal; what it says was noted.
#[derive(Debug, thiserror::Error)]
#[error("the request was refused")]
struct Refused;

impl Inquiry {
    /// `is_plain`: plain HTTP will do.
    pub(super) fn new(connector: &Connector, is_plain: bool, asker: Asker) -> Result<Self> {
        let client = connector.connect(&options(is_plain));
        let client = client.map_err(|_| Error::Invalid("no connections to the store can be made".into()))?;
        Ok(Self { client, asker })
    }

    async fn ask(&self, method: &Method, url: &Url) -> object_store::Result<(HeaderMap, Bytes)> {
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.method_mut() = method.clone();
        *request.uri_mut() = url.as_str().parse().map_err(generic)?;
        match &self.asker {
            Asker::S3 { region, credentials, .. } => {
                let credential = credentials.get_credential().await?;
                AwsAuthorizer::new(&credential, "s3", region).try_authorize(&mut request, None)?;
            }
            Asker::Gcs { credentials, .. } => {
                let bearer = format!("Bearer {}", credentials.get_credential().await?.bearer);
                let value = http::HeaderValue::from_str(&bearer).map_err(generic)?;
                request.headers_mut().insert(http::header::AUTHORIZATION, value);
            }
            Asker::Azure { account, credentials, .. } => {
                let credential = credentials.get_credential().await?;
                AzureAuthorizer::new(&credential, account).try_authorize(&mut request)?;
            }
        }
        let response = self.client.execute(request).await.map_err(generic)?;
        if !response.status().is_success() {
            return Err(generic(Refused));
        }
        let (parts, body) = response.into_parts();
        Ok((parts.headers, body.bytes().await.map_err(generic)?))
    }
}

/// What was found of one way of keeping what was replaced: in words if it stands, nothing if it does not,
/// or why that is unknown.
type Found = Result<Option<String>, String>;

impl Cloud {
    /// See [`super::super::Store::protection`].
    pub(super) async fn find_protection(&self) -> Protection {
        match &self.inquiry.asker {
            Asker::S3 { bucket, .. } => self.of_s3(bucket).await,
            Asker::Gcs { bucket, .. } => self.of_gcs(bucket).await,
            Asker::Azure { service, container, .. } => self.of_azure(service, container).await,
        }
    }

    async fn told(&self, url: &Url, query: &str) -> Result<Option<(HeaderMap, String)>, String> {
        self.answer(Method::GET, url, Some(query)).await
    }

    /// The answer to a question; `None` for one that is not found.
    pub(super) async fn answer(
        &self,
        method: Method,
        url: &Url,
        query: Option<&str>,
    ) -> Result<Option<(HeaderMap, String)>, String> {
        let mut url = url.clone();
        url.set_query(query);
        let patience = Patience { tries: TRIES.min(self.patience.tries), ..self.patience.clone() };
        let mut trial = Trial::new(&patience, "ask", query.unwrap_or_default());
        loop {
            match self.once(self.inquiry.ask(&method, &url)).await {
                Ok(((headers, body), _)) => {
                    return Ok(Some((headers, String::from_utf8_lossy(&body).into_owned())));
                }
                Err(failure) if failure.fault == StoreFault::NotFound => return Ok(None),
                Err(failure) => trial.again(failure, self.is_known()).await.map_err(|e| e.why)?,
            }
        }
    }

    async fn of_s3(&self, bucket: &Url) -> Protection {
        let versioning = match self.told(bucket, "versioning").await {
            // A server that knows no such question may answer with a listing.
            Ok(Some((_, text))) if text.contains("Versioning") && !text.contains("<ListBucketResult") => {
                Ok((between(&text, "Status") == Some("Enabled")).then(|| "versioning".to_owned()))
            }
            Ok(_) => Err("the store does not say".into()),
            Err(why) => Err(why),
        };
        let lock = match self.told(bucket, "object-lock").await {
            Ok(Some((_, text))) => {
                Ok((between(&text, "ObjectLockEnabled") == Some("Enabled")).then(|| "object lock".to_owned()))
            }
            Ok(None) => Ok(None),
            Err(why) => Err(why),
        };
        // There is no object lock without versioning: where that is off, nothing hangs on the other answer.
        let lock = if versioning == Ok(None) { lock.or(Ok(None)) } else { lock };
        found(vec![versioning, lock])
    }

    async fn of_gcs(&self, bucket: &Url) -> Protection {
        match self.told(bucket, "fields=versioning,retentionPolicy,softDeletePolicy").await {
            Ok(Some((_, text))) => found(of_google(&text)),
            Ok(None) => Protection::Unknown("the store does not say".into()),
            Err(why) => Protection::Unknown(why),
        }
    }

    /// Whether blobs have versions Azure tells only to who manages the account.
    async fn of_azure(&self, service: &Url, container: &Url) -> Protection {
        let locked = match self.told(container, "restype=container").await {
            Ok(Some((headers, _))) => Ok(immutable(&headers).then(|| "immutability".to_owned())),
            Ok(None) => Err("the store does not say".into()),
            Err(why) => Err(why),
        };
        let soft = match self.told(service, "restype=service&comp=properties").await {
            Ok(Some((_, text))) => Ok(soft_delete(&text)),
            Ok(None) => Err("the store does not say".into()),
            Err(why) => Err(why),
        };
        let versions = Err("Azure tells of versioning only to who manages the account".into());
        found(vec![locked, soft, versions])
    }
}

fn found(all: Vec<Found>) -> Protection {
    let stands: Vec<&str> = all.iter().filter_map(|found| found.as_ref().ok()?.as_deref()).collect();
    if !stands.is_empty() {
        return Protection::Stands(stands.join(", "));
    }
    match all.into_iter().find_map(Result::err) {
        Some(why) => Protection::Unknown(why),
        None => Protection::Missing,
    }
}

/// What stands in an element's first occurrence.
fn between<'t>(text: &'t str, element: &str) -> Option<&'t str> {
    let (_, rest) = text.split_once(&format!("<{element}>"))?;
    rest.split_once("</").map(|(inside, _)| inside.trim())
}

/// Google's description of a bucket: what is not set is not there.
fn of_google(text: &str) -> Vec<Found> {
    let Ok(serde_json::Value::Object(bucket)) = serde_json::from_str(text) else {
        return vec![Err("the store does not say".into())];
    };
    // Numbers of 64 bits come as texts.
    let seconds = |policy: &str, name: &str| -> u64 {
        let value = bucket.get(policy).and_then(|policy| policy.get(name));
        value.and_then(|value| value.as_str()?.parse().ok()).unwrap_or(0)
    };
    let has_versions = bucket.get("versioning").and_then(|v| v.get("enabled")?.as_bool()) == Some(true);
    let retained = seconds("retentionPolicy", "retentionPeriod");
    let soft = seconds("softDeletePolicy", "retentionDurationSeconds");
    vec![
        Ok(has_versions.then(|| "versioning".to_owned())),
        Ok((retained > 0).then(|| "a retention policy".to_owned())),
        Ok((soft > 0).then(|| format!("soft delete ({} days)", soft / (24 * 60 * 60)))),
    ]
}

fn immutable(headers: &HeaderMap) -> bool {
    let is_set = |name: &str| headers.get(name).is_some_and(|value| value == "true");
    ["x-ms-has-immutability-policy", "x-ms-has-legal-hold", "x-ms-immutable-storage-with-versioning-enabled"]
        .into_iter()
        .any(is_set)
}

/// Azure's description of the service: for how long deleted and overwritten blobs are kept.
fn soft_delete(text: &str) -> Option<String> {
    let (_, policy) = text.split_once("<DeleteRetentionPolicy>")?;
    let (policy, _) = policy.split_once("</DeleteRetentionPolicy>")?;
    let days: u32 = between(policy, "Days").and_then(|days| days.parse().ok()).unwrap_or(0);
    (between(policy, "Enabled") == Some("true")).then(|| format!("soft delete ({days} days)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_google_says_of_a_bucket() {
        for (text, expected) in [
            ("{}", Protection::Missing),
            (r#"{"versioning": {"enabled": false}}"#, Protection::Missing),
            (r#"{"versioning": {"enabled": true}}"#, Protection::Stands("versioning".into())),
            (
                r#"{"softDeletePolicy": {"retentionDurationSeconds": "604800"}}"#,
                Protection::Stands("soft delete (7 days)".into()),
            ),
            (r#"{"softDeletePolicy": {"retentionDurationSeconds": "0"}}"#, Protection::Missing),
            (
                r#"{"versioning": {"enabled": true}, "retentionPolicy": {"retentionPeriod": "60"}}"#,
                Protection::Stands("versioning, a retention policy".into()),
            ),
            ("[]", Protection::Unknown("the store does not say".into())),
            ("<html>", Protection::Unknown("the store does not say".into())),
        ] {
            assert_eq!(found(of_google(text)), expected, "{text}");
        }
    }

    #[test]
    fn what_azure_says_of_a_service() {
        let policy = |inside: &str| {
            format!(
                "<StorageServiceProperties><Logging><RetentionPolicy><Enabled>true</Enabled></RetentionPolicy></Logging>\
                 <DeleteRetentionPolicy>{inside}</DeleteRetentionPolicy></StorageServiceProperties>"
            )
        };
        let on = policy("<Enabled>true</Enabled><Days>7</Days>");
        assert_eq!(soft_delete(&on).as_deref(), Some("soft delete (7 days)"));
        assert_eq!(soft_delete(&policy("<Enabled>false</Enabled>")), None);
        assert_eq!(soft_delete("<DeleteRetentionPolicy><Enabled>true"), None);
        let mut headers = HeaderMap::new();
        assert!(!immutable(&headers));
        headers.insert("x-ms-has-legal-hold", http::HeaderValue::from_static("true"));
        assert!(immutable(&headers));
    }

    #[test]
    fn one_that_stands_is_enough_and_one_that_is_unknown_is_not_missing() {
        let stands = || Ok(Some("versioning".to_owned()));
        let unknown = || Err("access denied".to_owned());
        assert_eq!(found(vec![unknown(), stands()]), Protection::Stands("versioning".into()));
        assert_eq!(found(vec![Ok(None), unknown()]), Protection::Unknown("access denied".into()));
        assert_eq!(found(vec![Ok(None), Ok(None)]), Protection::Missing);
        assert_eq!(between("<a> x </a>", "a"), Some("x"));
        assert_eq!(between("<a>x", "a"), None);
    }
}
