//! Google Cloud Storage. Credentials come from where Google's own programs look for them.

use super::http::Connector;
use super::location::{self, Location};
use super::protection::{Asker, Inquiry};
use super::{Client, Environment, host_of, no_retries, options, profile};
use crate::error::{Error, Result};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use reqwest::Url;
use std::path::PathBuf;
use std::sync::Arc;

const GOOGLE: &str = "https://storage.googleapis.com";

pub(super) fn client(location: &Location, environment: &Environment<'_>, connector: Connector) -> Result<Client> {
    let emulator = environment("STORAGE_EMULATOR_HOST").map(|host| match host.contains("://") {
        true => host,
        false => format!("http://{host}"),
    });
    let given = match (location.option("endpoint"), &emulator) {
        (Some(text), _) => Some(location::endpoint("endpoint", text)?),
        (None, Some(text)) => Some(location::endpoint("STORAGE_EMULATOR_HOST", text)?),
        (None, None) => None,
    };
    let is_plain = given.as_ref().is_some_and(|url| url.scheme() == "http");
    let base = given.as_ref().map_or(GOOGLE, |url| url.as_str().trim_end_matches('/')).to_owned();
    let host = given.as_ref().map_or_else(|| "storage.googleapis.com".to_owned(), host_of);
    let builder = GoogleCloudStorageBuilder::new()
        .with_bucket_name(&location.bucket)
        .with_config(GoogleConfigKey::BaseUrl, &base)
        .with_client_options(options(is_plain))
        .with_retry(no_retries())
        .with_http_connector(connector.clone());
    // Google's clients send no credentials to an emulator; this one must send something.
    let has_emulator = location.option("endpoint").is_none() && emulator.is_some();
    let (builder, source) = credentials(builder, environment, has_emulator)?;
    // What the builder says holds parts of a key file.
    let backend = builder.build().map_err(|_| {
        Error::Invalid(format!(
            "{source}: no credentials of Google's that can be used here (a service account's, or a user's)"
        ))
    })?;
    let bucket = Url::parse(&format!("{base}/storage/v1/b/{}", location.bucket));
    let bucket =
        bucket.map_err(|_| Error::Invalid("no address can be made of the bucket and the endpoint".into()))?;
    let asker = Asker::Gcs { bucket, credentials: Arc::clone(backend.credentials()) };
    let inquiry = Inquiry::new(&connector, is_plain, asker)?;
    let endpoint = given.map(|_| base);
    Ok(Client { backend: Arc::new(backend), host, endpoint, inquiry })
}

/// The builder with credentials, and where those come from.
fn credentials(
    builder: GoogleCloudStorageBuilder,
    environment: &Environment<'_>,
    has_emulator: bool,
) -> Result<(GoogleCloudStorageBuilder, String)> {
    for name in ["GOOGLE_OAUTH_ACCESS_TOKEN", "CLOUDSDK_AUTH_ACCESS_TOKEN"] {
        if let Some(token) = environment(name) {
            return Ok((builder.with_bearer_token(token), name.to_owned()));
        }
    }
    if let Some(key) = environment("GOOGLE_SERVICE_ACCOUNT_KEY") {
        return Ok((builder.with_service_account_key(key), "GOOGLE_SERVICE_ACCOUNT_KEY".to_owned()));
    }
    for name in ["GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_PATH"] {
        if let Some(path) = environment(name) {
            readable(&path)?;
            return Ok((builder.with_service_account_path(&path), path));
        }
    }
    if let Some(path) = environment("GOOGLE_APPLICATION_CREDENTIALS") {
        readable(&path)?;
        return Ok((builder.with_application_credentials(&path), path));
    }
    if has_emulator {
        return Ok((builder.with_bearer_token("emulator"), "STORAGE_EMULATOR_HOST".to_owned()));
    }
    let folder = environment("CLOUDSDK_CONFIG").map(PathBuf::from);
    let folder = folder.or_else(|| Some(PathBuf::from(environment("HOME")?).join(".config/gcloud")));
    let known = folder.map(|folder| folder.join("application_default_credentials.json")).filter(|path| path.exists());
    match known.as_ref().and_then(|path| path.to_str()) {
        Some(path) => {
            readable(path)?;
            Ok((builder.with_application_credentials(path), path.to_owned()))
        }
        None => Ok((builder, "this machine".to_owned())),
    }
}

/// Looks at a file before `object_store` does, which would read any size.
fn readable(path: &str) -> Result<()> {
    profile::read(path.as_ref()).map(drop).map_err(|why| Error::Local { path: path.into(), why })
}

#[cfg(test)]
mod tests {
    use super::super::location::Kind;
    use super::*;

    fn made(rest: &str, set: &[(&str, &str)]) -> Result<Client> {
        let environment = |name: &str| set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        let connector = Connector {
            patience: super::super::Patience::default(),
            authorities: Vec::new(),
            rates: Default::default(),
        };
        client(&Location::parse(Kind::Gcs, rest).unwrap(), &environment, connector)
    }

    #[test]
    fn where_it_is_and_who_asks() {
        let token = ("GOOGLE_OAUTH_ACCESS_TOKEN", "t");
        let google = made("//b/p", &[token]).unwrap();
        assert_eq!((google.host.as_str(), google.endpoint), ("storage.googleapis.com", None));
        let here = made("//b?endpoint=http://here:1/", &[token]).unwrap();
        assert_eq!((here.host.as_str(), here.endpoint.as_deref()), ("here", Some("http://here:1")));
        let emulator = made("//b", &[("STORAGE_EMULATOR_HOST", "localhost:9")]).unwrap();
        assert_eq!(emulator.endpoint.as_deref(), Some("http://localhost:9"));
    }

    #[test]
    fn a_key_file_that_cannot_be_used_is_named_and_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.json");
        let path = path.to_str().unwrap();
        let e = made("//b", &[("GOOGLE_APPLICATION_CREDENTIALS", path)]).err().unwrap().to_string();
        assert!(e.contains(path) && e.contains("No such file"), "{e}");
        for text in [
            "topsecret",
            "{\"type\": \"topsecret\"}",
            "{\"type\": \"service_account\", \"private_key\": \"topsecret\"}",
        ] {
            std::fs::write(path, text).unwrap();
            for name in ["GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT"] {
                let e = made("//b", &[(name, path)]).err().unwrap().to_string();
                assert!(e.contains(path) && !e.contains("topsecret"), "{e}");
            }
            let e = made("//b", &[("GOOGLE_SERVICE_ACCOUNT_KEY", text)]).err().unwrap().to_string();
            assert!(e.contains("GOOGLE_SERVICE_ACCOUNT_KEY") && !e.contains("topsecret"), "{e}");
        }
    }
}
