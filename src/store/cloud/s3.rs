//! Amazon S3, and what speaks its language: MinIO, Garage, R2, B2, Storj's gateway. Credentials and
//! settings come from where Amazon's own programs look for them, in their order.

use super::http::Connector;
use super::location::{self, Location};
use super::profile::{Keys, Place, Profile, Renewed};
use super::protection::{Asker, Inquiry};
use super::{Client, Environment, host_of, no_retries, options};
use crate::error::{Error, Result};
use object_store::StaticCredentialProvider;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use reqwest::Url;
use std::sync::Arc;
use zeroize::Zeroizing;

pub(super) fn client(location: &Location, environment: &Environment<'_>, connector: Connector) -> Result<Client> {
    let place = Place::of(environment);
    let profile = place.as_ref().map(Place::load).transpose()?.unwrap_or_default();
    let region = location.option("region").map(str::to_owned);
    let region = region.or_else(|| environment("AWS_REGION")).or_else(|| environment("AWS_DEFAULT_REGION"));
    let region = region.or_else(|| profile.region.clone()).unwrap_or_else(|| "us-east-1".to_owned());
    if region.len() > 60 || !region.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_') {
        return Err(Error::Invalid("that is no name of a region".into()));
    }
    let given = given_endpoint(location, environment, &profile)?;
    let is_plain = given.as_ref().is_some_and(|url| url.scheme() == "http");
    let url = bucket_url(location, given.as_ref(), &region)?;
    let builder = AmazonS3Builder::new()
        .with_bucket_name(&location.bucket)
        .with_region(&region)
        // It names the bucket, wherever that stands.
        .with_endpoint(url.as_str().trim_end_matches('/'))
        .with_virtual_hosted_style_request(true)
        // One by one: not every store can do more.
        .with_disable_bulk_delete(true)
        .with_client_options(options(is_plain))
        .with_retry(no_retries())
        .with_http_connector(connector.clone());
    let backend = credentials(builder, environment, place, &profile)?.build();
    let backend = backend.map_err(|_| Error::Invalid("the credentials for s3 cannot be used".into()))?;
    let endpoint = given.map(|url| url.as_str().trim_end_matches('/').to_owned());
    let host = host_of(&url);
    let asker = Asker::S3 { bucket: url, region, credentials: Arc::clone(backend.credentials()) };
    let inquiry = Inquiry::new(&connector, is_plain, asker)?;
    Ok(Client { backend: Arc::new(backend), host, endpoint, inquiry })
}

fn given_endpoint(location: &Location, environment: &Environment<'_>, profile: &Profile) -> Result<Option<Url>> {
    let of_environment = |name: &'static str| environment(name).map(|text| (name, text));
    let given = location.option("endpoint").map(|text| ("endpoint", text.to_owned()));
    let given =
        given.or_else(|| of_environment("AWS_ENDPOINT_URL_S3")).or_else(|| of_environment("AWS_ENDPOINT_URL"));
    let given = given.or_else(|| profile.endpoint.clone().map(|text| ("endpoint_url of the profile", text)));
    given.map(|(source, text)| location::endpoint(source, &text)).transpose()
}

/// The bucket's own address: below its host, or a host of its own.
fn bucket_url(location: &Location, given: Option<&Url>, region: &str) -> Result<Url> {
    let bucket = &location.bucket;
    let below_host = match location.option("path-style") {
        Some("true") => true,
        Some("false") => false,
        Some(_) => return Err(Error::Invalid("path-style: write true or false".into())),
        // A certificate for *.s3.REGION.amazonaws.com holds for no name with more dots.
        None => given.is_some() || bucket.contains('.'),
    };
    let china = if region.starts_with("cn-") { ".cn" } else { "" };
    let amazon = || Url::parse(&format!("https://s3.{region}.amazonaws.com{china}"));
    let unusable = || Error::Invalid("no address can be made of the bucket and the endpoint".into());
    let mut url = given.cloned().map_or_else(amazon, Ok).map_err(|_| unusable())?;
    if below_host {
        url.path_segments_mut().map_err(|()| unusable())?.pop_if_empty().push(bucket);
    } else {
        let host = format!("{bucket}.{}", url.host_str().unwrap_or_default());
        url.set_host(Some(&host)).map_err(|_| unusable())?;
    }
    Ok(url)
}

/// In the order of Amazon's programs: the environment, a web identity, a profile, a container's role,
/// the machine's.
fn credentials(
    builder: AmazonS3Builder,
    environment: &Environment<'_>,
    place: Option<Place>,
    profile: &Profile,
) -> Result<AmazonS3Builder> {
    let builder = match (environment("AWS_ACCESS_KEY_ID"), environment("AWS_SECRET_ACCESS_KEY")) {
        (Some(id), Some(secret)) => {
            let token = environment("AWS_SESSION_TOKEN").map(Zeroizing::new);
            let keys = Keys { id, secret: Zeroizing::new(secret), token };
            return Ok(builder.with_credentials(Arc::new(StaticCredentialProvider::new(keys.credential()))));
        }
        (None, None) => builder,
        _ => return Err(Error::Invalid("set both AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or neither".into())),
    };
    let taken = |mut builder: AmazonS3Builder, values: &[(AmazonS3ConfigKey, String)]| {
        for (key, value) in values {
            builder = builder.with_config(*key, value);
        }
        builder
    };
    use AmazonS3ConfigKey as Key;
    let mut more = Vec::new();
    more.extend(environment("AWS_ROLE_SESSION_NAME").map(|name| (Key::RoleSessionName, name)));
    more.extend(environment("AWS_ENDPOINT_URL_STS").map(|url| (Key::StsEndpoint, url)));
    if let Some((role, token)) = environment("AWS_ROLE_ARN").zip(environment("AWS_WEB_IDENTITY_TOKEN_FILE")) {
        more.extend([(Key::RoleArn, role), (Key::WebIdentityTokenFile, token)]);
        return Ok(taken(builder, &more));
    }
    match (place, profile) {
        (Some(place), Profile { keys: Some(keys), .. }) => {
            return Ok(builder.with_credentials(Arc::new(Renewed::new(place, keys))));
        }
        (_, Profile { web_identity: Some((role, token)), .. }) => {
            more.extend([(Key::RoleArn, role.clone()), (Key::WebIdentityTokenFile, token.clone())]);
            return Ok(taken(builder, &more));
        }
        (Some(place), Profile { unusable: Some(how), .. }) => {
            return Err(Error::Invalid(format!(
                "profile {} gives its keys by {how}, which nothing here can use; have keys written into the \
                 environment (aws configure export-credentials --format env)",
                place.name
            )));
        }
        _ => {}
    }
    let container = [
        ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", Key::ContainerCredentialsRelativeUri),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", Key::ContainerCredentialsFullUri),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", Key::ContainerAuthorizationTokenFile),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", Key::MetadataEndpoint),
    ];
    more.extend(container.into_iter().filter_map(|(name, key)| Some((key, environment(name)?))));
    Ok(taken(builder, &more))
}

#[cfg(test)]
mod tests {
    use super::super::location::Kind;
    use super::*;

    fn location(rest: &str) -> Location {
        Location::parse(Kind::S3, rest).unwrap()
    }

    fn made(rest: &str, set: &[(&str, &str)]) -> Result<Client> {
        let environment = |name: &str| set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        let connector = Connector {
            patience: super::super::Patience::default(),
            authorities: Vec::new(),
            rates: Default::default(),
        };
        client(&location(rest), &environment, connector)
    }

    #[test]
    fn where_a_bucket_is() {
        for (rest, region, expected) in [
            ("//bucket", "eu-west-1", "https://bucket.s3.eu-west-1.amazonaws.com/"),
            ("//dotted.bucket", "eu-west-1", "https://s3.eu-west-1.amazonaws.com/dotted.bucket"),
            ("//bucket?path-style=true", "us-east-1", "https://s3.us-east-1.amazonaws.com/bucket"),
            ("//bucket", "cn-north-1", "https://bucket.s3.cn-north-1.amazonaws.com.cn/"),
        ] {
            assert_eq!(bucket_url(&location(rest), None, region).unwrap().as_str(), expected);
        }
        let here = Url::parse("http://127.0.0.1:9000/").unwrap();
        let url = |rest| bucket_url(&location(rest), Some(&here), "us-east-1");
        assert_eq!(url("//bucket").unwrap().as_str(), "http://127.0.0.1:9000/bucket");
        let there = Url::parse("https://r2.example/base/").unwrap();
        let url = |rest| bucket_url(&location(rest), Some(&there), "auto");
        assert_eq!(url("//bucket").unwrap().as_str(), "https://r2.example/base/bucket");
        assert_eq!(url("//bucket?path-style=false").unwrap().as_str(), "https://bucket.r2.example/base/");
        assert!(url("//bucket?path-style=maybe").is_err());
    }

    #[test]
    fn the_location_goes_before_the_environment() {
        let keys = [("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")];
        let with = |more: &[(&'static str, &'static str)]| [&keys[..], more].concat();
        let at = |rest, set: &[_]| made(rest, set).unwrap();
        let both = with(&[("AWS_ENDPOINT_URL", "http://all:1"), ("AWS_ENDPOINT_URL_S3", "http://s3:2")]);
        assert_eq!(at("//b", &both).endpoint.as_deref(), Some("http://s3:2"));
        assert_eq!(at("//b?endpoint=http://here:3", &both).endpoint.as_deref(), Some("http://here:3"));
        let region = with(&[("AWS_DEFAULT_REGION", "eu-west-3")]);
        assert_eq!(at("//b", &region).host, "b.s3.eu-west-3.amazonaws.com");
        assert_eq!(at("//b?region=eu-west-9", &region).host, "b.s3.eu-west-9.amazonaws.com");
        assert_eq!(at("//b", &keys).host, "b.s3.us-east-1.amazonaws.com");
    }

    #[test]
    fn what_cannot_be_used_is_said_without_secrets() {
        for (set, words) in [
            (&[("AWS_ACCESS_KEY_ID", "topsecret")][..], "set both"),
            (&[("AWS_ENDPOINT_URL", "http://me:topsecret@host")], "AWS_ENDPOINT_URL: an endpoint has neither"),
            (&[("AWS_REGION", "top/secret")], "no name of a region"),
        ] {
            let e = made("//bucket", set).err().unwrap().to_string();
            assert!(e.contains(words) && !e.contains("secret"), "{e}");
        }
    }
}
