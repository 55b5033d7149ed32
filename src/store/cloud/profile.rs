//! Credentials and settings in the files that Amazon's own programs keep: `~/.aws/credentials` and
//! `~/.aws/config`. Reads only; an error names the file and the profile, never what stands in them.

use super::Environment;
use crate::error::{Error, Result};
use crate::limits;
use async_trait::async_trait;
use ini::{Ini, ParseOption, Properties};
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// Where a profile is looked for.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// The profile's name.
    pub name: String,
    /// The user chose it; then it must be there.
    is_chosen: bool,
    credentials: PathBuf,
    config: PathBuf,
}

/// What a profile says.
#[derive(Default)]
pub(super) struct Profile {
    pub keys: Option<Keys>,
    pub region: Option<String>,
    pub endpoint: Option<String>,
    /// A role, and the file of the token that it is taken on by.
    pub web_identity: Option<(String, String)>,
    /// What it gives its keys by, where nothing here can use that.
    pub unusable: Option<&'static str>,
}

/// An access key. Does not show itself.
#[derive(Clone)]
pub(super) struct Keys {
    pub id: String,
    pub secret: Zeroizing<String>,
    pub token: Option<Zeroizing<String>>,
}

impl Keys {
    pub(super) fn credential(&self) -> AwsCredential {
        AwsCredential {
            key_id: self.id.clone(),
            secret_key: self.secret.to_string(),
            token: self.token.as_ref().map(|token| token.to_string()),
        }
    }
}

/// A file of bounded size; why not, in words.
pub(super) fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let file = std::fs::File::open(path).map_err(|e| e.to_string())?;
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(limits::CLOUD_FILE_MAX + 1).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    if bytes.len() as u64 > limits::CLOUD_FILE_MAX {
        return Err(format!("it holds more than {} bytes", limits::CLOUD_FILE_MAX));
    }
    Ok(bytes)
}

impl Place {
    /// The place that the environment names; `None` where there is no home and no name.
    pub(super) fn of(environment: &Environment<'_>) -> Option<Self> {
        let chosen = environment("AWS_PROFILE").or_else(|| environment("AWS_DEFAULT_PROFILE"));
        let home = environment("HOME").map(PathBuf::from);
        let file = |variable: &str, name: &str| {
            let named = environment(variable).map(|path| match (path.strip_prefix("~/"), &home) {
                (Some(below), Some(home)) => home.join(below),
                _ => PathBuf::from(path),
            });
            named.or_else(|| home.as_ref().map(|home| home.join(".aws").join(name)))
        };
        Some(Self {
            is_chosen: chosen.is_some(),
            name: chosen.unwrap_or_else(|| "default".to_owned()),
            credentials: file("AWS_SHARED_CREDENTIALS_FILE", "credentials")?,
            config: file("AWS_CONFIG_FILE", "config")?,
        })
    }

    /// What the files say now. A file that is not there says nothing.
    pub(super) fn load(&self) -> Result<Profile> {
        let (credentials, config) = (self.parse(&self.credentials)?, self.parse(&self.config)?);
        let long = format!("profile {}", self.name);
        let of_config = config.section(Some(long.as_str())).or_else(|| config.section(Some(self.name.as_str())));
        let of_credentials = credentials.section(Some(self.name.as_str()));
        if self.is_chosen && of_config.is_none() && of_credentials.is_none() {
            return Err(self.refuse(&self.credentials, "it is not there, and not in the file of settings"));
        }
        // Keys are taken whole from one file; Amazon's programs look at that of credentials first.
        let mut profile = Profile::default();
        for section in [of_credentials, of_config].into_iter().flatten() {
            let get = |key: &str| section.get(key).map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned);
            if profile.keys.is_none() {
                profile.keys = self.keys(section)?;
            }
            profile.region = profile.region.or_else(|| get("region"));
            profile.endpoint = profile.endpoint.or_else(|| get("endpoint_url"));
            profile.web_identity = profile.web_identity.or(get("role_arn").zip(get("web_identity_token_file")));
            let unusable =
                ["credential_process", "sso_session", "sso_start_url", "source_profile", "credential_source"];
            profile.unusable =
                profile.unusable.or_else(|| unusable.into_iter().find(|key| section.contains_key(key)));
        }
        Ok(profile)
    }

    fn keys(&self, section: &Properties) -> Result<Option<Keys>> {
        let get = |key: &str| section.get(key).map(str::trim).filter(|text| !text.is_empty());
        match (get("aws_access_key_id"), get("aws_secret_access_key")) {
            (Some(id), Some(secret)) => Ok(Some(Keys {
                id: id.to_owned(),
                secret: Zeroizing::new(secret.to_owned()),
                token: get("aws_session_token").map(|token| Zeroizing::new(token.to_owned())),
            })),
            (None, None) => Ok(None),
            _ => Err(self.refuse(&self.credentials, "it has one half of a key")),
        }
    }

    fn parse(&self, path: &Path) -> Result<Ini> {
        let bytes = match read(path) {
            Ok(bytes) => bytes,
            Err(_) if !path.exists() => return Ok(Ini::new()),
            Err(e) => return Err(self.refuse(path, &e)),
        };
        let text = std::str::from_utf8(&bytes).map_err(|_| self.refuse(path, "it is not text"))?;
        let plain = ParseOption { enabled_quote: false, enabled_escape: false, ..ParseOption::default() };
        // What the parser says holds parts of the file.
        Ini::load_from_str_opt(text, plain)
            .map_err(|e| self.refuse(path, &format!("line {} cannot be read", e.line + 1)))
    }

    fn refuse(&self, path: &Path, why: &str) -> Error {
        Error::Local { path: path.to_owned(), why: format!("profile {}: {why}", self.name) }
    }
}

/// Keys of a profile, which other programs may renew in its file.
pub(super) struct Renewed {
    place: Place,
    last: Mutex<(Instant, Arc<AwsCredential>)>,
}

impl Renewed {
    pub(super) fn new(place: Place, keys: &Keys) -> Self {
        Self { place, last: Mutex::new((Instant::now(), Arc::new(keys.credential()))) }
    }

    fn current(&self) -> object_store::Result<Arc<AwsCredential>> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.0.elapsed() >= Duration::from_secs(limits::CLOUD_PROFILE_SECONDS) {
            // A file that is being written just now leaves what was there.
            if let Ok(Profile { keys: Some(keys), .. }) = self.place.load() {
                last.1 = Arc::new(keys.credential());
            }
            last.0 = Instant::now();
        }
        Ok(Arc::clone(&last.1))
    }
}

impl std::fmt::Debug for Renewed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Renewed").field("place", &self.place).finish_non_exhaustive()
    }
}

#[async_trait]
impl CredentialProvider for Renewed {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        self.current()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(folder: &Path, profile: Option<&str>, credentials: &str, config: &str) -> Place {
        std::fs::create_dir_all(folder.join(".aws")).unwrap();
        std::fs::write(folder.join(".aws/credentials"), credentials).unwrap();
        std::fs::write(folder.join(".aws/config"), config).unwrap();
        let home = folder.to_str().unwrap().to_owned();
        Place::of(&|name| match name {
            "HOME" => Some(home.clone()),
            "AWS_PROFILE" => profile.map(str::to_owned),
            _ => None,
        })
        .unwrap()
    }

    const CREDENTIALS: &str = "# ours\n[default]\naws_access_key_id = AKIADEFAULT\naws_secret_access_key=a/b+c\\d\"e\n\n\
        [work]\naws_access_key_id=AKIAWORK\naws_secret_access_key = work\naws_session_token = token==\n";
    const CONFIG: &str = "[default]\nregion = eu-west-1\n[profile work]\nregion=us-west-2\nendpoint_url = http://here:1\n\
        s3 =\n  max_concurrent_requests = 20\n[profile sso]\nsso_start_url = https://there\n\
        [profile role]\nrole_arn = arn:x\nweb_identity_token_file = /token\n[profile half]\naws_access_key_id = AKIA\n";

    #[test]
    fn a_profile_is_made_of_both_files() {
        let folder = tempfile::tempdir().unwrap();
        let load = |name| place(folder.path(), name, CREDENTIALS, CONFIG).load();
        let default = load(None).unwrap();
        let keys = default.keys.unwrap();
        assert_eq!(
            (keys.id.as_str(), keys.secret.as_str(), keys.token.is_none()),
            ("AKIADEFAULT", "a/b+c\\d\"e", true)
        );
        assert_eq!((default.region.as_deref(), default.endpoint), (Some("eu-west-1"), None));
        let work = load(Some("work")).unwrap();
        assert_eq!(work.keys.unwrap().token.unwrap().as_str(), "token==");
        assert_eq!((work.region.as_deref(), work.endpoint.as_deref()), (Some("us-west-2"), Some("http://here:1")));
        assert_eq!(load(Some("sso")).unwrap().unusable, Some("sso_start_url"));
        assert_eq!(load(Some("role")).unwrap().web_identity, Some(("arn:x".into(), "/token".into())));
        for (name, words) in [("half", "one half of a key"), ("none", "it is not there")] {
            let e = load(Some(name)).err().unwrap().to_string();
            assert!(e.contains(words) && e.contains(name) && !e.contains("AKIA"), "{e}");
        }
    }

    #[test]
    fn files_may_be_missing_or_broken() {
        let folder = tempfile::tempdir().unwrap();
        let place = place(folder.path(), None, "[default]\nnothing that is a setting secret\n", "");
        let e = place.load().err().unwrap().to_string();
        assert!(e.contains("line ") && !e.contains("secret"), "{e}");
        std::fs::remove_dir_all(folder.path().join(".aws")).unwrap();
        let profile = place.load().unwrap();
        assert!(profile.keys.is_none() && profile.region.is_none());
        assert!(Place::of(&|_| None).is_none());
    }

    #[test]
    fn renewed_keys_are_seen_after_a_while() {
        let folder = tempfile::tempdir().unwrap();
        let at = place(folder.path(), None, CREDENTIALS, "");
        let renewed = Renewed::new(at.clone(), &at.load().unwrap().keys.unwrap());
        place(folder.path(), None, "[default]\naws_access_key_id=NEW\naws_secret_access_key=hush\n", "");
        assert_eq!(renewed.current().unwrap().key_id, "AKIADEFAULT");
        let old = Instant::now().checked_sub(Duration::from_secs(limits::CLOUD_PROFILE_SECONDS)).unwrap();
        renewed.last.lock().unwrap().0 = old;
        assert_eq!(renewed.current().unwrap().key_id, "NEW");
        assert!(!format!("{renewed:?}").contains("hush"));
    }
}
