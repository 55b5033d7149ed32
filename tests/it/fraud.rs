//! Hostile parties on the side of the repository. Each test plays one with exactly what it has, and
//! asserts what its victims see: an error or a warning that names the object, never wrong data.

mod bases;
mod lists;
mod looks;
mod slots;
mod storage;
mod swapped;
mod times;
mod writer;

use crate::support::noise;
use crate::world::{World, contents, key};
use bytes::Bytes;
use estrato::format::header::{Cipher, Header, ObjectType};
use estrato::format::key::Role;
use estrato::id::SnapshotId;
use estrato::repo::{NewKey, Repository, Secret};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The number of the key that is stolen: a writer's.
const MALLORY: u8 = 66;

/// A folder that is backed up, and what was in it at each snapshot.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.write("a/patients", &noise("patients", 90_000));
        folder.write("a/notes", b"notes");
        folder.write("b/images", &noise("images", 40_000));
        folder
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        contents(self.path())
    }
}

/// A world whose clock shows today, with a third key: `mallory`, a writer.
fn with_mallory() -> World {
    let world = World::today();
    let mallory = NewKey { role: Role::Writer, label: "mallory".into(), secret: Secret::KeyFile(key(MALLORY)) };
    world.open(crate::world::FULL).add_key(&mallory).unwrap();
    world
}

/// Whole to whoever has no key: header, body, closing hash.
fn closed(object: ObjectType, body: &[u8]) -> Bytes {
    let mut bytes = Header { object, cipher: Cipher::Aes256Gcm }.encode().to_vec();
    bytes.extend_from_slice(body);
    estrato::format::header::close(&mut bytes);
    bytes.into()
}

/// What the full key on a fresh machine says of a snapshot that must be whole.
#[track_caller]
fn comes_back(world: &World, id: &SnapshotId, files: &BTreeMap<PathBuf, Vec<u8>>, folder: &Folder) {
    world.restores(&world.open(crate::world::FULL), id, files, folder.path());
}

fn ends(names: &[String], repo: &Repository, folder: &str) -> Vec<String> {
    let folder = format!("tenants/{}/{folder}/", repo.tenant_name());
    names.iter().filter(|n| n.starts_with(&folder)).cloned().collect()
}
