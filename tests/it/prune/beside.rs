//! Beside a prune: backups that run, that have died, or that wake up late; readers; and everybody at once,
//! killed at any moment.

use super::{Tree, assert_whole, day, forgotten, prune, stored, take, tree};
use crate::support::{Draw, Place, Ran, is_long, noise, say};
use estrato::clock::SystemClock;
use estrato::crypto::keyfile::KeyFile;
use estrato::crypto::slot::Credential;
use estrato::format::index::IndexObject;
use estrato::format::pack::{BlobKind, StorageClass};
use estrato::repo::{Access, Repository};
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// A backup of standard input that waits for the rest of it, with its session announced.
pub fn waiting_backup(place: &Place) -> Child {
    waiting_backup_of(place, b"begin;")
}

fn waiting_backup_of(place: &Place, begin: &[u8]) -> Child {
    let mut command = place.command(&["snapshot", "--stdin", "--name", "dump", "--host", "db7", "--json"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.as_mut().unwrap().write_all(begin).unwrap();
    while sessions(place).is_empty() {
        assert!(child.try_wait().unwrap().is_none(), "it has ended");
        std::thread::yield_now();
    }
    child
}

/// The sessions' objects, and not what is being uploaded.
fn sessions(place: &Place) -> Vec<PathBuf> {
    place.objects("sessions").into_iter().filter(|path| !path.to_string_lossy().contains('#')).collect()
}

#[test]
fn a_backup_that_runs_is_named_and_the_next_prune_goes_on() {
    let (place, mut kept) = forgotten(5, 2);
    let before = stored(&place);
    let mut backup = waiting_backup(&place);
    let said = place.run(&["prune"]).expect_code(0);
    assert!(said.stderr().contains("db7") && said.stderr().contains(&backup.id().to_string()), "{}", said.stderr());
    assert!(said.stdout().contains("nothing is deleted"), "{}", said.stdout());
    assert!(stored(&place) >= before, "a pack is gone");
    // Others do not wait for either, and rely on nothing that is condemned.
    day(&place, 5);
    kept.push(take(&place, &[]));
    drop(backup.stdin.take());
    let ended = backup.wait_with_output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    let id: serde_json::Value = serde_json::from_slice(&ended.stdout).unwrap();
    kept.push((id["snapshot"].as_str().unwrap().to_owned(), [("dump".into(), b"begin;".to_vec())].into()));
    let done = prune(&place, &[]);
    assert_eq!(done["planned"]["taken_up"], 1, "{done}");
    assert!(done["deleted_packs"].as_u64().unwrap() > 0, "{done}");
    assert_whole(&place, &kept);
}

#[test]
fn a_backup_that_gives_no_sign_is_ended_and_finds_that_out_when_it_wakes() {
    let (place, kept) = forgotten(4, 1);
    let mut backup = waiting_backup(&place);
    let session = sessions(&place).pop().unwrap();
    let before = prune(&place, &[]);
    assert_eq!(before["waiting"].as_array().unwrap().len(), 1, "{before}");
    // Two hours later: the plan is as old as the session's last sign.
    let old = SystemTime::now() - Duration::from_secs(2 * 3600);
    for object in [vec![session.clone()], place.objects("prune")].concat() {
        fs::File::options().write(true).open(object).unwrap().set_modified(old).unwrap();
    }
    let done = prune(&place, &[]);
    assert_eq!(done["ended"].as_array().unwrap().len(), 1, "{done}");
    assert!(done["deleted_packs"].as_u64().unwrap() > 0 && !session.exists(), "{done}");
    drop(backup.stdin.take());
    let ended = backup.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(ended.status.code() == Some(1) && said.contains("given up by a prune"), "{said}");
    assert_whole(&place, &kept);
    // What it sent is of no use to anybody.
    prune(&place, &[]);
    assert_whole(&place, &kept);
}

pub fn open(place: &Place, key: &str, cache: &str) -> Repository {
    let text = fs::read_to_string(place.path(key)).unwrap();
    let access = Access {
        store: estrato::store::open(place.path("repo").to_str().unwrap()).unwrap(),
        clock: Arc::new(SystemClock::default()),
        tenant: "default".into(),
        credential: Credential::KeyFile(KeyFile::from_text(&text).unwrap()),
        cache: Some(place.path(cache)),
    };
    Repository::open(access).unwrap()
}

/// A backup relies on a pack that is condemned meanwhile, and a stolen writer's key says that what it needs of
/// it lies elsewhere as well.
#[test]
fn a_writers_word_lets_go_of_nothing_that_a_full_key_stored() {
    let place = Place::with_repository();
    let x = noise("x", 3_000);
    place.write("source/x", &x);
    let (doomed, _) = take(&place, &[]);
    place.run(&["forget", &doomed]).expect_code(0);
    place.run(&["key", "add", "--role", "writer", "--label", "w", "--new-key-file", "w"]).expect_code(0);
    place.write("other/q", noise("q", 3_000));
    place.run_as("w", &["snapshot", "other"]).expect_code(0);
    let writer = open(&place, "w", "cache of w");
    writer.sync_index().unwrap();
    let own = writer.index().objects().unwrap().into_iter().find(|object| object.signer == writer.signer()).unwrap();
    let (_, mut forged) = writer.read_index(&own.name).unwrap();
    forged.packs.retain(|pack| pack.directory.class == StorageClass::Data);
    forged.packs[0].directory.frames[0].ids[0] = writer.id_keys().blob_id(BlobKind::Chunk, &x);
    writer.publish_index(&forged).unwrap();
    let mut backup = waiting_backup_of(&place, &x);
    let waiting = prune(&place, &[]);
    assert_eq!(waiting["waiting"].as_array().unwrap().len(), 1, "{waiting}");
    drop(backup.stdin.take());
    let ended = backup.wait_with_output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    let done = prune(&place, &[]);
    assert!(done["deleted_packs"].as_u64().unwrap() > 0 && done["written_bytes"].as_u64().unwrap() > 0, "{done}");
    place.run(&["restore", "latest", "--target", "back"]).expect_code(0);
    assert_eq!(fs::read(place.path("back/dump")).unwrap(), x);
}

/// A part of what a pack holds, said by whoever stole a writer's key, does not take the place of the whole.
#[test]
fn who_names_a_part_of_a_pack_takes_nothing_of_it_away() {
    let place = Place::with_repository();
    place.run(&["key", "add", "--role", "writer", "--label", "w", "--new-key-file", "w"]).expect_code(0);
    place.write("source/large", noise("large", 4_000_000));
    place.write("source/small", "1");
    let first = place.run_as("w", &["snapshot", "source", "--json"]).expect_code(0).json();
    place.write("source/small", "2");
    place.run_as("w", &["snapshot", "source"]).expect_code(0);
    let writer = open(&place, "w", "cache of w");
    writer.sync_index().unwrap();
    let named =
        writer.index().objects().unwrap().into_iter().map(|object| writer.read_index(&object.name).unwrap().1);
    let is_large = |object: &IndexObject| object.packs.iter().any(|pack| pack.size > 3_000_000);
    let mut forged = named.into_iter().find(is_large).unwrap();
    let pack = forged.packs.iter_mut().find(|pack| pack.size > 3_000_000).unwrap();
    assert!(pack.directory.frames.len() > 1);
    pack.directory.frames.truncate(1);
    // Their names are hashes: some come before the honest one, whatever order counts.
    (0..8).for_each(|_| drop(writer.publish_index(&forged).unwrap()));
    place.run(&["forget", first["snapshot"].as_str().unwrap()]).expect_code(0);
    let done = prune(&place, &[]);
    assert!(done["replaced_indexes"].as_u64().unwrap() >= 9, "{done}");
    let expected = tree(place.path("source"));
    place.run(&["--cache-dir", "none", "restore", "latest", "--target", "back"]).expect_code(0);
    assert!(tree(place.path("back/source")) == expected);
}

#[test]
fn a_reader_finds_what_was_written_anew_under_its_feet() {
    let (place, kept) = forgotten(6, 2);
    // A reader that planned before: its index names packs that go.
    let cache = place.path("cache of a reader");
    let reader = |arguments: &[&str]| {
        let mut command = place.command(arguments);
        Ran::of(command.arg("--cache-dir").arg(&cache))
    };
    reader(&["ls", "latest"]).expect_code(0);
    let stale = place.path("stale");
    assert!(Command::new("cp").arg("-a").arg(&cache).arg(&stale).status().unwrap().success());
    prune(&place, &["--max-unused", "0%"]);
    let stale = if stale.join("estrato").exists() { "stale/estrato" } else { "stale" };
    let repo = open(&place, "key", stale);
    let listing = estrato::snapshot::list(&repo).unwrap();
    for (n, snapshot) in listing.snapshots.iter().enumerate() {
        let target = place.path(format!("read/{n}"));
        let options = estrato::restore::Options::default();
        let root = &snapshot.manifest.root;
        // Its index is as it was before the prune: nothing brings it up to date but the need.
        let outcome = estrato::restore::run(&repo, root, None, &target, &options, &estrato::monitor::Silent).unwrap();
        assert_eq!(outcome.failed, Vec::<String>::new());
        let expected = kept.iter().find(|(id, _)| *id == snapshot.id.to_string()).unwrap();
        assert!(tree(target) == expected.1);
    }
    assert_eq!(listing.snapshots.len(), kept.len());
}

/// A backup of one of three sources, each with a home of its own.
fn writer(place: &Place, n: u64, round: u64) -> (Child, Tree) {
    let source = format!("w{n}/source");
    let mut table = noise(&format!("table {}", round / 4), 150_000);
    table[..300].copy_from_slice(&noise(&format!("{n} {round}"), 300));
    place.write(format!("{source}/table"), table);
    place.write(format!("{source}/new"), noise(&format!("new {n} {round}"), 5_000));
    let host = format!("w{n}");
    let mut command = place.command_in(&source, &["snapshot", ".", "--json", "--host", &host]);
    command.env("HOME", place.path(&host)).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    (command.spawn().unwrap(), tree(place.path(&source)))
}

/// Seconds, or some minutes with `--long`.
#[test]
fn writers_forgets_and_prunes_that_are_killed_take_nothing_that_was_reported() {
    let place = Place::with_repository();
    let mut draw = Draw(11);
    let (mut reported, mut killed, mut rounds): (Vec<(String, Tree)>, usize, u64) = (Vec::new(), 0, 0);
    let most = Duration::from_secs(if is_long() { 300 } else { 12 });
    let began = Instant::now();
    while began.elapsed() < most {
        rounds += 1;
        let mut running: Vec<(Child, Option<Tree>)> = Vec::new();
        for n in 0..3 {
            let (child, source) = writer(&place, n, rounds);
            running.push((child, Some(source)));
        }
        if reported.len() > 6 {
            // Named, so that it is known which may be gone, whether this is killed or not.
            let doomed = reported.remove(draw.below(4) as usize).0;
            let mut forget = place.command(&["forget", &doomed]);
            running.push((forget.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap(), None));
        }
        for _ in 0..2 {
            let mut command = place.command(&["prune", "--max-unused", "0%", "--json"]);
            running.push((command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap(), None));
        }
        let start = Instant::now();
        for (mut child, source) in running {
            if draw.below(3) == 0 {
                let end = Duration::from_millis(draw.below(250));
                std::thread::sleep(end.saturating_sub(start.elapsed()));
                child.kill().unwrap();
            }
            let output = child.wait_with_output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!said.contains("panicked"), "{said}");
            match (output.status.code(), source) {
                (None, _) => killed += 1,
                (Some(0), Some(source)) => {
                    let id: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
                    reported.push((id["snapshot"].as_str().unwrap().to_owned(), source));
                }
                (Some(0), None) => {}
                // Another prune was faster, or a forget is told that its snapshot is gone.
                (Some(1 | 11), None) => {}
                (Some(code), _) => panic!("{code}: {said}"),
            }
        }
        // Who was killed is dead: no prune would have to wait for an hour.
        for session in place.objects("sessions") {
            let old = SystemTime::now() - Duration::from_secs(2 * 3600);
            if let Ok(file) = fs::File::options().write(true).open(session) {
                file.set_modified(old).unwrap();
            }
        }
    }
    prune(&place, &[]);
    prune(&place, &["--max-unused", "0%"]);
    let checked = place.run(&["check", "--read-data"]).expect_code(0);
    assert!(checked.stdout().contains("no damage"), "{}", checked.stdout());
    for (n, (id, expected)) in reported.iter().enumerate() {
        let target = format!("restored/{n}");
        place.run(&["restore", id, "--target", &target]).expect_code(0);
        assert!(tree(place.path(&target)) == *expected, "snapshot {id}");
    }
    assert!(killed > 3 && reported.len() > 3);
    say(&format!("prune: {rounds} rounds, {killed} killed, {} snapshots reported and there", reported.len()));
}
