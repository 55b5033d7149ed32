//! What a location names, for who writes down what may be done there. Opens nothing, asks nobody, and needs
//! no credentials.

use super::{Patience, cloud, open_with, scheme};
use crate::error::Result;

/// Where a repository lies, by what a provider calls it. Prefixes have no slash at their ends, and are empty
/// for the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A folder of this machine.
    Folder {
        /// Its path.
        path: String,
    },
    /// A folder of a server that speaks SFTP.
    Server {
        /// The location.
        location: String,
    },
    /// Amazon S3, or what is compatible with it.
    S3 {
        /// The bucket.
        bucket: String,
        /// Where in it.
        prefix: String,
        /// If the location or the environment names one.
        region: Option<String>,
    },
    /// Google Cloud Storage.
    Gcs {
        /// The bucket.
        bucket: String,
        /// Where in it.
        prefix: String,
    },
    /// Azure Blob Storage.
    Azure {
        /// If the location or the environment names one.
        account: Option<String>,
        /// The container.
        container: String,
        /// Where in it.
        prefix: String,
    },
}

/// What a location names; a location is written as for [`super::open`].
///
/// # Errors
/// [`crate::error::Error::Invalid`] for a location of another kind; [`crate::error::Error::Local`] where the
/// current folder is unknown.
pub fn place(location: &str) -> Result<Place> {
    let environment = |name: &str| std::env::var(name).ok();
    if let Some((kind, rest)) = scheme(location)
        && cloud::is_scheme(kind)
    {
        return cloud::place(kind, rest, &environment);
    }
    let store = open_with(location, &environment, Patience::default())?;
    Ok(match store.local_path() {
        Some(_) => Place::Folder { path: store.describe() },
        None => Place::Server { location: store.describe() },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_locations_name() {
        let s3 = |region: Option<&str>| Place::S3 {
            bucket: "b".into(),
            prefix: "p/q".into(),
            region: region.map(str::to_owned),
        };
        assert_eq!(place("s3://b/p/q/?region=eu-west-1").unwrap(), s3(Some("eu-west-1")));
        assert_eq!(place("s3://b/p/q?region=cn-north-1&path-style=true").unwrap(), s3(Some("cn-north-1")));
        assert_eq!(place("gs://b").unwrap(), Place::Gcs { bucket: "b".into(), prefix: String::new() });
        let azure = Place::Azure { account: Some("me".into()), container: "box".into(), prefix: "p".into() };
        assert_eq!(place("az://box/p?account=me").unwrap(), azure);
        assert_eq!(place("/a/b").unwrap(), Place::Folder { path: "/a/b".into() });
        assert_eq!(place("sftp://me@host/a").unwrap(), Place::Server { location: "sftp://me@host/a".into() });
        for refused in ["", "ftp://host/a", "s3:b", "az://me:secret@box"] {
            assert!(place(refused).is_err(), "{refused}");
        }
    }
}
