//! Azure Blob Storage. Credentials come from the environment, by the names that Azure's own programs
//! use.

use super::http::Connector;
use super::location::{self, Location};
use super::protection::{Asker, Inquiry};
use super::{Client, Environment, host_of, no_retries, options};
use crate::error::{Error, Result};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use reqwest::Url;
use std::sync::Arc;

/// The account of Azurite and of Microsoft's older emulator, and its key, which is no secret.
const EMULATOR: [&str; 2] =
    ["devstoreaccount1", "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="];

/// What the environment and a connection string say.
#[derive(Default)]
struct Account {
    name: Option<String>,
    key: Option<String>,
    signature: Option<String>,
    /// Where it is, and who says so.
    endpoint: Option<(&'static str, String)>,
}

pub(super) fn client(location: &Location, environment: &Environment<'_>, connector: Connector) -> Result<Client> {
    let first = |names: &[&str]| names.iter().find_map(|name| environment(name));
    let mut account = match environment("AZURE_STORAGE_CONNECTION_STRING") {
        Some(text) => connection(&text)?,
        None => Account::default(),
    };
    if let Some(name) = location.option("account") {
        account.name = Some(name.to_owned());
    }
    account.name = account.name.or_else(|| first(&["AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCOUNT_NAME"]));
    if account.key.is_none() && account.signature.is_none() {
        account.key = first(&["AZURE_STORAGE_KEY", "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCESS_KEY"]);
        account.signature = first(&["AZURE_STORAGE_SAS_TOKEN"]);
    }
    if let Some(text) = location.option("endpoint") {
        account.endpoint = Some(("endpoint", text.to_owned()));
    } else if account.endpoint.is_none() {
        let name = "AZURE_STORAGE_SERVICE_ENDPOINT";
        account.endpoint = environment(name).map(|text| (name, text));
    }
    let Some(name) = account.name.filter(|name| !name.is_empty()) else {
        return Err(Error::Invalid(
            "which account? Set AZURE_STORAGE_ACCOUNT, or write az://CONTAINER/prefix?account=NAME".into(),
        ));
    };
    if name.len() > 60 || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
        return Err(Error::Invalid("that is no name of an account".into()));
    }
    let given = account.endpoint.map(|(source, text)| location::endpoint(source, &text)).transpose()?;
    let is_plain = given.as_ref().is_some_and(|url| url.scheme() == "http");
    let own = format!("https://{name}.blob.core.windows.net");
    let base = given.as_ref().map_or(own.as_str(), |url| url.as_str().trim_end_matches('/')).to_owned();
    let host = given.as_ref().map_or_else(|| format!("{name}.blob.core.windows.net"), host_of);
    let mut builder = MicrosoftAzureBuilder::new()
        .with_container_name(&location.bucket)
        .with_account(&name)
        .with_endpoint(base.clone())
        .with_client_options(options(is_plain))
        .with_retry(no_retries())
        .with_http_connector(connector.clone());
    use AzureConfigKey as Key;
    let mut more = vec![(Key::AccessKey, account.key), (Key::SasKey, account.signature)];
    // A role of Entra's, or of the machine.
    for (variable, key) in [
        ("AZURE_CLIENT_ID", Key::ClientId),
        ("AZURE_CLIENT_SECRET", Key::ClientSecret),
        ("AZURE_TENANT_ID", Key::AuthorityId),
        ("AZURE_AUTHORITY_HOST", Key::AuthorityHost),
        ("AZURE_FEDERATED_TOKEN_FILE", Key::FederatedTokenFile),
        ("IDENTITY_ENDPOINT", Key::MsiEndpoint),
    ] {
        more.push((key, environment(variable)));
    }
    for (key, value) in more {
        if let Some(value) = value {
            builder = builder.with_config(key, value);
        }
    }
    // What the builder says holds parts of keys.
    let backend = builder.build().map_err(|_| {
        Error::Invalid("the credentials for az cannot be used: a key is base64, a signature is a query string".into())
    })?;
    let address = |text: String| {
        Url::parse(&text).map_err(|_| Error::Invalid("no address can be made of the account and the endpoint".into()))
    };
    let asker = Asker::Azure {
        service: address(format!("{base}/"))?,
        container: address(format!("{base}/{}", location.bucket))?,
        account: name,
        credentials: Arc::clone(backend.credentials()),
    };
    let inquiry = Inquiry::new(&connector, is_plain, asker)?;
    Ok(Client { backend: Arc::new(backend), host, endpoint: given.map(|_| base), inquiry })
}

/// Takes a connection string apart. Nothing of it is repeated.
fn connection(text: &str) -> Result<Account> {
    let mut found = Account::default();
    let (mut protocol, mut suffix) = ("https".to_owned(), "core.windows.net".to_owned());
    for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
        let Some((key, value)) = part.split_once('=') else {
            return Err(Error::Invalid("AZURE_STORAGE_CONNECTION_STRING: a part has no value".into()));
        };
        let value = value.to_owned();
        match key.to_ascii_lowercase().as_str() {
            "accountname" => found.name = Some(value),
            "accountkey" => found.key = Some(value),
            "sharedaccesssignature" => found.signature = Some(value),
            "blobendpoint" => found.endpoint = Some(("BlobEndpoint of AZURE_STORAGE_CONNECTION_STRING", value)),
            "defaultendpointsprotocol" if value == "http" || value == "https" => protocol = value,
            "endpointsuffix" => suffix = value,
            "usedevelopmentstorage" if value == "true" => {
                let [name, key] = EMULATOR.map(str::to_owned);
                let endpoint = format!("http://127.0.0.1:10000/{name}");
                found = Account {
                    endpoint: Some(("UseDevelopmentStorage", endpoint)),
                    name: Some(name),
                    key: Some(key),
                    signature: None,
                };
            }
            // Other services' endpoints.
            _ => {}
        }
    }
    let is_usual = protocol == "https" && suffix == "core.windows.net";
    if let (Some(name), None, false) = (&found.name, &found.endpoint, is_usual) {
        found.endpoint =
            Some(("EndpointSuffix of AZURE_STORAGE_CONNECTION_STRING", format!("{protocol}://{name}.blob.{suffix}")));
    }
    Ok(found)
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
        client(&Location::parse(Kind::Azure, rest).unwrap(), &environment, connector)
    }

    #[test]
    fn the_account_and_where_it_is() {
        let key = ("AZURE_STORAGE_KEY", "a2V5");
        let at = |rest, set: &[_]| {
            let made = made(rest, set).unwrap();
            (made.host, made.endpoint)
        };
        assert_eq!(at("//c", &[key, ("AZURE_STORAGE_ACCOUNT", "me")]), ("me.blob.core.windows.net".into(), None));
        assert_eq!(at("//c?account=you", &[key, ("AZURE_STORAGE_ACCOUNT", "me")]).0, "you.blob.core.windows.net");
        let given = at("//c?account=you&endpoint=http://127.0.0.1:1/you", &[key]);
        assert_eq!(given, ("127.0.0.1".into(), Some("http://127.0.0.1:1/you".into())));
        let string =
            "DefaultEndpointsProtocol=https;AccountName=me;AccountKey=a2V5;EndpointSuffix=core.chinacloudapi.cn";
        let china = at("//c", &[("AZURE_STORAGE_CONNECTION_STRING", string)]);
        assert_eq!(china.1.as_deref(), Some("https://me.blob.core.chinacloudapi.cn"));
        let emulator = at("//c", &[("AZURE_STORAGE_CONNECTION_STRING", "UseDevelopmentStorage=true")]);
        assert_eq!(emulator.1.as_deref(), Some("http://127.0.0.1:10000/devstoreaccount1"));
        let signed = "BlobEndpoint=https://me.example;SharedAccessSignature=sv=1&sig=a%2Bb";
        assert_eq!(at("//c?account=me", &[("AZURE_STORAGE_CONNECTION_STRING", signed)]).0, "me.example");
    }

    #[test]
    fn what_cannot_be_used_is_said_without_secrets() {
        let me = ("AZURE_STORAGE_ACCOUNT", "me");
        for (set, words) in [
            (&[("AZURE_STORAGE_KEY", "topsecret")][..], "which account"),
            (&[me, ("AZURE_STORAGE_KEY", "topsecret?")], "a key is base64"),
            (&[me, ("AZURE_STORAGE_SAS_TOKEN", "topsecret")], "a signature is a query string"),
            (&[("AZURE_STORAGE_CONNECTION_STRING", "topsecret")], "a part has no value"),
            (&[("AZURE_STORAGE_ACCOUNT", "top/secret")], "no name of an account"),
        ] {
            let e = made("//c", set).err().unwrap().to_string();
            assert!(e.contains(words) && !e.contains("secret"), "{e}");
        }
    }
}
