//! Where a cloud store is: `s3://bucket/prefix?endpoint=…`. Takes a location apart and refuses what it
//! does not know. A secret has no place in a location, and no error repeats what might be one.

use crate::error::{Error, Result};
use object_store::path::Path as ObjectPath;
use reqwest::Url;

/// Whose interface a store speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Amazon S3 and what is compatible with it.
    S3,
    /// Google Cloud Storage.
    Gcs,
    /// Azure Blob Storage.
    Azure,
}

impl Kind {
    /// The kind that a scheme stands for.
    pub(super) fn of(scheme: &str) -> Option<Self> {
        match scheme {
            "s3" => Some(Self::S3),
            "gs" => Some(Self::Gcs),
            "az" => Some(Self::Azure),
            _ => None,
        }
    }

    pub(super) fn scheme(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Gcs => "gs",
            Self::Azure => "az",
        }
    }

    /// What a bucket is called there.
    pub(super) fn bucket(self) -> &'static str {
        match self {
            Self::S3 | Self::Gcs => "bucket",
            Self::Azure => "container",
        }
    }

    /// The options that a location of this kind may have.
    fn options(self) -> &'static [&'static str] {
        match self {
            Self::S3 => &["endpoint", "path-style", "region", "storage-class"],
            Self::Gcs => &["endpoint", "storage-class"],
            Self::Azure => &["account", "endpoint", "storage-class"],
        }
    }
}

/// A location, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Location {
    pub kind: Kind,
    pub bucket: String,
    /// Without slashes at its ends; empty for the bucket's root.
    pub prefix: String,
    options: Vec<(&'static str, String)>,
}

impl Location {
    /// Takes apart what stands behind `scheme:`.
    pub(super) fn parse(kind: Kind, rest: &str) -> Result<Self> {
        let form = format!("{}://{}/prefix", kind.scheme(), kind.bucket().to_uppercase());
        let Some(rest) = rest.strip_prefix("//") else { return refuse(format!("write {form}")) };
        let (place, options) = rest.split_once('?').unwrap_or((rest, ""));
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        if bucket.contains(['@', ':']) {
            return refuse(format!(
                "a location holds no credentials, and no host: write {form}; credentials belong in the \
                 environment or in a profile, the host in ?endpoint="
            ));
        }
        let named = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
        if bucket.is_empty() || bucket.len() > 255 || !bucket.chars().all(named) {
            return refuse(format!("that is no name of a {}; write {form}", kind.bucket()));
        }
        let prefix = prefix.trim_matches('/');
        if ObjectPath::parse(prefix).is_err() || prefix.contains('#') {
            return refuse("the prefix holds an empty part, a dot as a part, a # or a control character".into());
        }
        let (bucket, prefix) = (bucket.to_owned(), prefix.to_owned());
        Ok(Self { kind, bucket, prefix, options: options_of(kind, options)? })
    }

    /// An option's value, if it was given.
    pub(super) fn option(&self, name: &str) -> Option<&str> {
        self.options.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    /// Where it is, for people.
    pub(super) fn describe(&self, endpoint: Option<&str>) -> String {
        let mut place = format!("{}://{}", self.kind.scheme(), self.bucket);
        if !self.prefix.is_empty() {
            place = format!("{place}/{}", self.prefix);
        }
        endpoint.map_or(place.clone(), |endpoint| format!("{place} at {endpoint}"))
    }
}

fn refuse<T>(why: String) -> Result<T> {
    Err(Error::Invalid(why))
}

fn options_of(kind: Kind, text: &str) -> Result<Vec<(&'static str, String)>> {
    let mut found: Vec<(&'static str, String)> = Vec::new();
    for option in text.split('&').filter(|option| !option.is_empty()) {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let Some(known) = kind.options().iter().copied().find(|known| *known == name) else {
            // What has no value may be a secret that was pasted here.
            let is_name = option.contains('=')
                && name.len() <= 40
                && name.chars().all(|c| c.is_ascii_lowercase() || c == '-' || c == '_');
            let said = if is_name { format!("option {name}") } else { "such option".to_owned() };
            return refuse(format!(
                "a location {}: has no {said}; there are {}",
                kind.scheme(),
                kind.options().join(", ")
            ));
        };
        let Some(value) = percent_decoded(value).filter(|value| !value.is_empty()) else {
            return refuse(format!("the option {known} has no value, or one that is not text"));
        };
        if found.iter().any(|(other, _)| *other == known) {
            return refuse(format!("the option {known} is given twice"));
        }
        found.push((known, value));
    }
    Ok(found)
}

/// `%2F` and the like decoded; `None` for what is broken or no text. A `+` is a plus.
fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digit = |c: u8| char::from(c).to_digit(16);
        let [high, low, after @ ..] = rest else { return None };
        bytes.push(u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok().filter(|text| !text.chars().any(char::is_control))
}

/// An endpoint that a user or the environment gives: `http://` or `https://`, a host, maybe a port and a path.
/// `source` says where it stands, since what it is is not repeated.
pub(super) fn endpoint(source: &str, text: &str) -> Result<Url> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    let Some(url) = url else { return refuse(format!("{source}: write http://HOST:PORT or https://HOST")) };
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return refuse(format!("{source}: an endpoint has neither credentials nor a query"));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(location: &str) -> Result<Location> {
        let (scheme, rest) = location.split_once(':').unwrap();
        Location::parse(Kind::of(scheme).unwrap(), rest)
    }

    #[test]
    fn what_a_location_says() {
        for (location, bucket, prefix) in [
            ("s3://bucket/a/b", "bucket", "a/b"),
            ("s3://bucket", "bucket", ""),
            ("s3://bucket//a/", "bucket", "a"),
            ("gs://my.bucket_1/a b@c:d%20", "my.bucket_1", "a b@c:d%20"),
            ("az://box/a?account=me", "box", "a"),
        ] {
            let found = parse(location).unwrap();
            assert_eq!((found.bucket.as_str(), found.prefix.as_str()), (bucket, prefix), "{location}");
        }
        let found = parse("s3://b/p?endpoint=http%3A%2F%2F127.0.0.1:9&region=eu&path-style=true&").unwrap();
        assert_eq!(found.option("endpoint"), Some("http://127.0.0.1:9"));
        assert_eq!((found.option("region"), found.option("storage-class")), (Some("eu"), None));
        assert_eq!(found.describe(Some("http://127.0.0.1:9")), "s3://b/p at http://127.0.0.1:9");
        assert_eq!(parse("az://box").unwrap().describe(None), "az://box");
    }

    #[test]
    fn what_is_refused_says_why_and_repeats_no_secret() {
        for (location, words) in [
            ("s3:bucket", "s3://BUCKET/prefix"),
            ("s3://", "no name of a bucket"),
            ("az:///p", "no name of a container"),
            ("s3://user:secret@bucket/a", "holds no credentials"),
            ("s3://secret:with/slash@bucket/a", "holds no credentials"),
            ("s3://buc ket/a", "no name of a bucket"),
            ("s3://bucket/a/../b", "a dot"),
            ("s3://bucket/a//b", "an empty part"),
            ("s3://b/a#secret", "a #"),
            ("s3://b/a?secret_access_key=secret+VALUE", "no option secret_access_key"),
            ("s3://b/a?Secret/VALUE", "no such option; there are endpoint, path-style, region, storage-class"),
            ("gs://b/a?region=eu", "no option region; there are endpoint, storage-class"),
            ("s3://b/a?region=", "region has no value"),
            ("s3://b/a?region=%zz", "region has no value"),
            ("s3://b/a?region=%0a", "region has no value"),
            ("s3://b/a?region=a&region=b", "given twice"),
        ] {
            let e = parse(location).unwrap_err().to_string();
            assert!(e.contains(words), "{location}: {e}");
            assert!(!e.contains("secret:") && !e.contains("VALUE") && !e.contains("user"), "{location}: {e}");
        }
    }

    #[test]
    fn an_endpoint_is_a_host_and_nothing_else() {
        for good in ["http://127.0.0.1:9000", "https://host/path/", "http://[::1]:9"] {
            assert!(endpoint("AWS_ENDPOINT_URL", good).is_ok(), "{good}");
        }
        for bad in [
            "host:9000",
            "ftp://host",
            "http://",
            "http://me:secret@host",
            "https://secret@host",
            "http://h?secret",
            "secret",
        ] {
            let e = endpoint("AWS_ENDPOINT_URL", bad).unwrap_err().to_string();
            assert!(e.starts_with("AWS_ENDPOINT_URL: ") && !e.contains("secret"), "{bad}: {e}");
        }
    }
}
