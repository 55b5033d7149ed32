//! Who only looks: at the store without a key, or at what a stolen laptop keeps beside its key.

use super::{Folder, MALLORY, with_mallory};
use crate::support::files_below;
use crate::world::{FULL, WRITER, World};
use estrato::format::names::last_part;
use estrato::format::pack::BlobKind;

const CONTENT: &[u8] = b"confidential content, long enough to be found";

fn folder() -> Folder {
    let folder = Folder::new();
    folder.write("confidential-folder/confidential-name", CONTENT);
    folder
}

#[track_caller]
fn hides(seen: &[u8], what: &[u8], why: &str) {
    assert!(!seen.windows(what.len()).any(|w| w == what), "{why}");
}

/// The secrets that the key of that number leads to.
fn secrets(world: &World, n: u8) -> Vec<[u8; 32]> {
    let bundle = world.bundle(&world.open(FULL), n);
    let mut all = vec![bundle.id_key, bundle.signer_seed, *crate::world::key(n).0];
    all.extend(bundle.private_key.iter().chain(&bundle.tenant_seed));
    all
}

#[test]
fn whoever_sees_the_store_without_a_key_finds_no_name_host_label_content_or_secret() {
    let world = with_mallory();
    let folder = folder();
    for n in [FULL, WRITER, MALLORY] {
        world.backup(&world.open(n), folder.path());
    }
    let mut seen = Vec::new();
    for (name, bytes) in world.objects() {
        seen.extend_from_slice(name.as_bytes());
        seen.extend_from_slice(&bytes);
    }
    for word in ["confidential", "patients", "database-host", "mallory", "writer"] {
        hides(&seen, word.as_bytes(), word);
    }
    for n in [FULL, WRITER] {
        secrets(&world, n).iter().for_each(|s| hides(&seen, s, "a secret"));
    }
}

#[test]
fn local_state_holds_no_name_no_content_and_no_key() {
    for n in [FULL, WRITER] {
        let world = with_mallory();
        let (folder, machine) = (folder(), tempfile::tempdir().unwrap());
        let open = || world.open_with(n, Some(machine.path().into()));
        world.backup(&open(), folder.path());
        folder.write("confidential-folder/confidential-too", b"confidential as well");
        world.backup(&open(), folder.path());
        let mut seen = Vec::new();
        let files = files_below(machine.path());
        assert!(files.len() > 2, "{files:?}");
        for file in files {
            seen.extend_from_slice(file.strip_prefix(machine.path()).unwrap().as_os_str().as_encoded_bytes());
            seen.extend_from_slice(&std::fs::read(&file).unwrap());
        }
        let place = folder.path().file_name().unwrap().to_str().unwrap().to_owned();
        for word in ["confidential", "patients", "images", "database-host", "mallory", &place] {
            hides(&seen, word.as_bytes(), word);
        }
        secrets(&world, n).iter().for_each(|s| hides(&seen, s, "a secret"));
        // What it does hold: the names of packs.
        let pack = world.names("tenants/default/packs").pop().unwrap();
        let name: estrato::id::PackName = last_part(&pack).parse().unwrap();
        assert!(seen.windows(32).any(|w| w == name.0));
    }
}

#[test]
fn a_writer_key_confirms_a_guess_of_content_and_another_tenants_does_not() {
    let world = with_mallory();
    let folder = folder();
    world.backup(&world.open(FULL), folder.path());
    let mallory = world.open(MALLORY);
    mallory.sync_index().unwrap();
    let guess = |repo: &estrato::repo::Repository, content: &[u8]| {
        let id = repo.id_keys().blob_id(BlobKind::Chunk, content);
        !mallory.index().copies(&id).unwrap().is_empty()
    };
    assert!(guess(&mallory, CONTENT) && !guess(&mallory, b"another guess"));
    assert!(!guess(&World::new().open(FULL), CONTENT), "ids of another tenant are others");
}
