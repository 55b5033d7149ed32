//! What the credentials of each role need to be allowed in a store, and no more: which names they read,
//! list, create, replace and delete, and how each provider writes that down. Pure: nothing is asked of a
//! store here, and nothing is granted by it.
//!
//! A writer creates, and replaces nothing but sessions: whoever steals its credentials can add objects, and
//! take away none that a restore needs. Of sessions it needs no list: another's have names that it cannot
//! guess. It reads no pack. That it reads snapshots, which are sealed for full keys, is for their headers:
//! whether the one it took last is still there, and if not, whether a full key forgot it. Holds are none of
//! its business.

mod azure;
mod gcs;
mod s3;

use crate::error::Result;
use crate::format::names::{REPO, TENANTS, TenantNames};
use crate::store::Place;
use serde::Serialize;

/// Whose credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Holder {
    /// A writer key's: takes snapshots.
    Writer,
    /// Of one who restores and checks, with a full key, and writes nothing.
    Reader,
    /// A full key's, whatever it does.
    Full,
}

impl Holder {
    /// Each of them.
    pub const ALL: [Self; 3] = [Self::Writer, Self::Reader, Self::Full];

    /// As people write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Writer => "writer",
            Self::Reader => "reader",
            Self::Full => "full",
        }
    }

    /// What it may do, in a line.
    pub fn does(self) -> &'static str {
        match self {
            Self::Writer => "takes snapshots with a writer key; deletes and replaces nothing but its sessions",
            Self::Reader => "restores and checks with a full key; writes nothing",
            Self::Full => "takes snapshots, restores, admits and removes keys, and may delete what is old",
        }
    }
}

/// What may be done to objects, by their names from the repository's root. A name that ends in `/` is a
/// folder with all below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grants {
    /// Read, and be asked for their size.
    pub read: Vec<String>,
    /// Listed: folders only.
    pub list: Vec<String>,
    /// Created where there is none.
    pub create: Vec<String>,
    /// Created or replaced.
    pub replace: Vec<String>,
    /// Deleted.
    pub delete: Vec<String>,
}

impl Grants {
    /// Those that a role needs, for one tenant.
    pub fn of(holder: Holder, names: &TenantNames) -> Self {
        let below = |folder: String| format!("{folder}/");
        let all = format!("{TENANTS}/{}/", names.name());
        let (repo, tenant) = (REPO.to_owned(), names.tenant());
        let (keys, packs, indexes) = (below(names.keys()), below(names.packs()), below(names.indexes()));
        let (snapshots, sessions, plans) = (below(names.snapshots()), below(names.sessions()), below(names.plans()));
        let (forgotten, holds) = (below(names.forgotten_records()), below(names.holds()));
        let some = |folders: &[&String]| folders.iter().map(|folder| (*folder).clone()).collect::<Vec<_>>();
        match holder {
            Holder::Writer => Self {
                read: some(&[&repo, &tenant, &keys, &indexes, &plans, &snapshots, &sessions, &forgotten]),
                list: some(&[&keys, &indexes, &plans, &packs, &snapshots, &forgotten]),
                create: some(&[&packs, &indexes, &snapshots]),
                replace: some(&[&sessions]),
                delete: some(&[&sessions]),
            },
            Holder::Reader => Self {
                read: vec![repo, all.clone()],
                list: vec![all],
                create: vec![],
                replace: vec![],
                delete: vec![],
            },
            // A snapshot that is forgotten may become a tombstone, a plan that is done is emptied, a damaged pack is
            // replaced by the one that it was, and slots are written over when the tenant is rekeyed. Records of
            // damage lie among the plans; a reader's checks find damage, and cannot say so there.
            Holder::Full => Self {
                read: vec![repo, all.clone()],
                list: vec![all],
                create: some(&[&indexes, &forgotten, &holds]),
                replace: some(&[&keys, &packs, &snapshots, &sessions, &plans]),
                delete: some(&[&keys, &packs, &indexes, &snapshots, &sessions, &forgotten, &holds]),
            },
        }
    }
}

/// A policy, as the provider reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Policy {
    /// Of S3.
    S3(s3::Document),
    /// Of Google Cloud Storage.
    Gcs(gcs::Document),
    /// Of Azure.
    Azure(azure::Document),
    /// Where there is no language for it: what permissions of files can do, for people.
    Files(String),
}

/// What a role needs at a place, for one tenant.
///
/// # Errors
/// [`crate::error::Error::Invalid`] for a prefix that the provider's language cannot express.
pub fn policy(place: &Place, names: &TenantNames, holder: Holder) -> Result<Policy> {
    let grants = Grants::of(holder, names);
    Ok(match place {
        Place::S3 { bucket, prefix, region } => Policy::S3(s3::document(bucket, prefix, region.as_deref(), &grants)),
        Place::Gcs { bucket, prefix } => Policy::Gcs(gcs::document(bucket, prefix, holder, names.name(), &grants)),
        Place::Azure { account, container, prefix } => {
            Policy::Azure(azure::document(account.as_deref(), container, prefix, holder, &grants)?)
        }
        Place::Folder { .. } | Place::Server { .. } => Policy::Files(files(holder, &grants)),
    })
}

/// What a policy for this place does not say by itself, a line each.
pub fn notes(place: &Place) -> Vec<&'static str> {
    let mut notes = match place {
        Place::S3 { .. } => vec![
            "attach it to the role or user that has these credentials, and nothing else to it",
            "where a key of yours encrypts the bucket, allow kms:GenerateDataKey and kms:Decrypt on it too",
            "s3:if-none-match is Amazon's; of another server find out whether it knows that condition",
        ],
        Place::Gcs { .. } => vec![
            "PROJECT and ACCOUNT are yours; the bucket needs uniform access, or conditions do not hold",
            "to replace an object Google wants storage.objects.delete too, so who may only create replaces none",
            "written from Google's documentation, and not tried there",
        ],
        Place::Azure { .. } => vec![
            "SUBSCRIPTION, GROUP and the like are yours; assign the role at the scope, with the condition",
            "a shared access signature (SAS) cannot be bound to a prefix: sp=rcl, without w and d, creates and \
             replaces nothing, but then no session can be renewed",
            "written from Azure's documentation, and not tried there",
        ],
        Place::Folder { .. } | Place::Server { .. } => return Vec::new(),
    };
    notes.push("'init', 'tenant add' and 'tenant erase' are for the credentials of whoever owns the place");
    notes.push("turn versioning on: a policy can be changed by whoever takes over the account");
    notes
}

/// Where a repository lies in a bucket, and a name below it.
fn at(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") }
}

fn files(holder: Holder, grants: &Grants) -> String {
    let mut written: Vec<&String> = [&grants.create, &grants.replace, &grants.delete].into_iter().flatten().collect();
    written.sort();
    written.dedup();
    let read = grants.read.iter().chain(&grants.list).filter(|name| !written.contains(name));
    let mut read: Vec<&String> = read.collect();
    read.sort();
    read.dedup();
    let mut text = String::new();
    let mut say = |line: &str| {
        text.push_str(line);
        text.push('\n');
    };
    for (permissions, names) in [("read and write", &written), ("read", &read)] {
        for name in names {
            say(&format!("{permissions:<15} {name}"));
        }
    }
    match holder {
        Holder::Reader => {
            say("Over SFTP, 'ForceCommand internal-sftp -R' in sshd_config lets an account read alone.")
        }
        Holder::Writer | Holder::Full => {
            say(
                "Permissions of files cannot allow creating and forbid deleting: what this account may write, whoever",
            );
            say(
                "steals it can destroy. Keep snapshots of the file system, or a copy, out of this account's reach; or",
            );
            say("use a store whose credentials can be bound to creating (s3, gs, az).");
        }
    }
    text
}

#[cfg(test)]
mod tests;
