//! Makes the small repositories in `testdata/repos/v0`, one for each cipher, with their keys and a
//! listing of what each snapshot holds. Run it when the format changes:
//!
//!     cargo run --example make_testdata
//!
//! Each holds what the format has: deltas upon deltas, lists of lists, folders of several segments, every kind
//! of slot, a key that was removed, chains, a snapshot that was forgotten, a tombstone, a hold, a plan.
//!
//! It removes and writes the folders anew. Keys and salts are random, so every run makes other
//! bytes; what the tests hold them against is the listing.

use anyhow::{Context as _, Result};
use estrato::backup::{self, Options, Selection, Source};
use estrato::clock::SystemClock;
use estrato::crypto::keyfile::KeyFile;
use estrato::crypto::slot::Credential;
use estrato::format::header::Cipher;
use estrato::format::key::Role;
use estrato::format::manifest::SnapshotKind;
use estrato::id::SnapshotId;
use estrato::maintenance::{self, prune};
use estrato::monitor::Silent;
use estrato::repo::{self, Access, NewKey, Repository, Secret, Session};
use estrato::snapshot;
use estrato::store::{self, Store};
use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use zeroize::Zeroizing;

const PASSWORD: &str = "correct horse battery staple";

fn main() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/repos/v0");
    let _ = fs::remove_dir_all(&root);
    for cipher in [Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305] {
        let folder = root.join(cipher.name());
        fs::create_dir_all(&folder)?;
        make(&folder, cipher).with_context(|| format!("making {}", folder.display()))?;
        println!("made {}", folder.display());
    }
    Ok(())
}

fn key(folder: &Path, name: &str) -> Result<[u8; 32]> {
    let bytes = estrato::crypto::random::bytes()?;
    fs::write(folder.join(name), format!("{}\n", *KeyFile(Zeroizing::new(bytes)).to_text()))?;
    Ok(bytes)
}

fn open(store: &Arc<dyn Store>, tenant: &str, key: [u8; 32]) -> Result<Repository> {
    open_with(store, tenant, key, None)
}

/// The same on a machine that remembers, so that snapshots make up a chain.
fn open_with(store: &Arc<dyn Store>, tenant: &str, key: [u8; 32], cache: Option<&Path>) -> Result<Repository> {
    Ok(Repository::open(Access {
        store: Arc::clone(store),
        clock: Arc::new(SystemClock::default()),
        tenant: tenant.into(),
        credential: Credential::KeyFile(KeyFile(Zeroizing::new(key))),
        cache: cache.map(Path::to_path_buf),
    })?)
}

fn secret(key: [u8; 32]) -> Secret {
    Secret::KeyFile(KeyFile(Zeroizing::new(key)))
}

fn make(folder: &Path, cipher: Cipher) -> Result<()> {
    let location = folder.join("repo");
    let store = store::open(&location.to_string_lossy())?;
    let clock = SystemClock::default();
    let full = key(folder, "key")?;
    let writer = key(folder, "writer-key")?;
    repo::init(&*store, &clock, "default", cipher, &NewKey::full(secret(full), "first"))?;
    repo::add_tenant(&*store, &clock, "second", cipher, &NewKey::full(secret(full), "first"))?;
    let mut repository = open(&store, "default", full)?;
    repository.add_key(&NewKey { role: Role::Writer, label: "writer".into(), secret: secret(writer) })?;
    let password = Secret::Password(PASSWORD.into());
    repository.add_key(&NewKey { role: Role::Full, label: "password".into(), secret: password })?;
    fs::write(folder.join("password"), format!("{PASSWORD}\n"))?;
    let recipient = KeyFile(Zeroizing::new(key(folder, "recipient-key")?)).recipient().1;
    let recipient = Secret::Recipient(Box::new(recipient));
    repository.add_key(&NewKey { role: Role::Full, label: "recipient".into(), secret: recipient })?;
    let removed = estrato::crypto::random::bytes()?;
    repository.add_key(&NewKey { role: Role::Writer, label: "removed".into(), secret: secret(removed) })?;

    let place = std::env::temp_dir().join(format!("estrato-testdata-{}", std::process::id()));
    let _ = fs::remove_dir_all(&place);
    let (source, cache) = (place.join("source"), place.join("cache"));
    first_day(&source)?;
    let mut taken = BTreeMap::new();
    for (day, (tag, tenant, key, kind)) in (1..).zip([
        ("first", "default", full, SnapshotKind::Incremental),
        ("changed", "default", full, SnapshotKind::Incremental),
        ("forgotten", "default", full, SnapshotKind::Incremental),
        ("third", "default", full, SnapshotKind::Incremental),
        ("differential", "default", full, SnapshotKind::Differential),
        ("by-writer", "default", writer, SnapshotKind::Full),
        ("by-removed", "default", removed, SnapshotKind::Incremental),
        ("second", "second", full, SnapshotKind::Full),
    ]) {
        if day > 1 {
            next_day(&source, day)?;
        }
        let repository = open_with(&store, tenant, key, (key == full).then_some(&cache))?;
        taken.insert(tag, take(&repository, &source, tag, kind)?);
        let mut listing = String::new();
        list(&source, &source, &mut listing)?;
        fs::create_dir_all(folder.join("expected"))?;
        fs::write(folder.join("expected").join(tag), listing)?;
    }
    fs::remove_file(folder.join("expected/forgotten"))?;
    fs::remove_dir_all(&place)?;
    let mut repository = open(&store, "default", full)?;
    repository.remove_key("removed")?;
    repository.hold(&taken["changed"], "case 17")?;
    stand(&repository, &taken["forgotten"])?;
    for frames in maintenance::stats(&repository)?.0.frames {
        println!("  {frames:?}");
    }
    Ok(())
}

/// Forgets a snapshot, prunes, and ends a session that will never commit.
fn stand(repository: &Repository, forgotten: &SnapshotId) -> Result<()> {
    let listing = snapshot::list(repository)?;
    maintenance::forget(repository, &listing, &[*forgotten], &HashSet::new(), &Silent)?;
    prune::prepare(repository, &prune::Bounds { unused_percent: 0.0, repack: None }.into(), &Silent)?
        .execute(&Silent)?;
    let session = Session::begin(repository, "testdata")?;
    let id = session.id();
    session.abandon();
    Ok(repository.fence(&id)?)
}

fn take(repository: &Repository, source: &Path, tag: &str, kind: SnapshotKind) -> Result<SnapshotId> {
    std::env::set_current_dir(source)?;
    let options = Options {
        kind,
        host: "testdata".into(),
        user: "testdata".into(),
        tags: vec![tag.into()],
        time: None,
        exclude: Vec::new(),
        exclude_files: Vec::new(),
        one_file_system: false,
        dry_run: false,
        level: estrato::limits::ZSTD_LEVEL,
        delta: Default::default(),
        program: "make_testdata".into(),
    };
    let selection = Selection::new(&[PathBuf::from(".")])?;
    let outcome = backup::run(repository, Source::Files(selection), &options, &Silent)?;
    outcome.snapshot.context("no snapshot was taken")
}

/// Each day some rows more are written anew, all of them near one another: a delta of some hundred bytes, which the
/// next day's rests on.
fn table(rows: u32, day: u32) -> String {
    let mut out = String::new();
    for row in 0..rows {
        let number = u64::from(row).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        let changed_on = (row.saturating_sub(5_000) / 40 + 2).min(day + 1);
        let is_changed = row >= 5_000 && changed_on <= day;
        let note =
            if is_changed { blake3::hash(&row.to_le_bytes()).to_hex().to_string() } else { "realizado".into() };
        let _ = writeln!(out, "{row}\tpaciente {number}\t{}\t{note}", number % 365);
    }
    out
}

/// So many blocks of data, each followed by a hole: a stream of more parts than lists of one level hold.
fn sieve(path: &Path, blocks: u64) -> Result<()> {
    let sieve = fs::File::create(path)?;
    sieve.set_len(blocks * 8192)?;
    for n in 0..blocks {
        let line = format!("{n:031}\n");
        sieve.write_all_at(line.repeat(128).as_bytes(), n * 8192)?;
    }
    Ok(())
}

fn first_day(source: &Path) -> Result<()> {
    fs::create_dir_all(source.join("small"))?;
    fs::create_dir_all(source.join("empty-folder"))?;
    fs::write(source.join("table.copy"), table(12_000, 1))?;
    sieve(&source.join("sieve"), 5_200)?;
    fs::write(source.join("empty"), b"")?;
    let mut noise = vec![0; 300_000];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    fs::write(source.join("image.jpg"), noise)?;
    for n in 0..900 {
        fs::write(source.join(format!("small/{n:03}.json")), format!("{{\"id\": {n}}}\n"))?;
    }
    std::os::unix::fs::symlink("table.copy", source.join("link"))?;
    fs::hard_link(source.join("empty"), source.join("empty-too"))?;
    fs::write(source.join(std::ffi::OsStr::from_bytes(b"not-utf8-\xff")), b"name")?;
    let sparse = fs::File::create(source.join("sparse"))?;
    sparse.set_len(5_000_000)?;
    sparse.write_all_at(b"in the middle", 2_500_000)?;
    for (name, value) in [("user.clinic", &b"17"[..]), ("user.empty", b"")] {
        rustix::fs::setxattr(source.join("image.jpg"), name, value, rustix::fs::XattrFlags::empty())
            .context("the folder for temporary files holds no extended attributes")?;
    }
    Ok(())
}

fn next_day(source: &Path, day: u32) -> Result<()> {
    fs::write(source.join("table.copy"), table(12_000, day))?;
    let gone = source.join(format!("small/00{day}.json"));
    fs::remove_file(gone)?;
    fs::write(source.join(format!("small/new-{day}.json")), b"{}")?;
    Ok(())
}

/// One line an entry: path, kind, mode, size, time, and the content's hash or the link's target.
fn list(root: &Path, folder: &Path, out: &mut String) -> Result<()> {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder)?.map(|e| Ok(e?.path())).collect::<Result<_>>()?;
    entries.sort();
    for path in entries {
        let meta = fs::symlink_metadata(&path)?;
        let name = path.strip_prefix(root)?.as_os_str().as_bytes().escape_ascii().to_string();
        let (mode, time) = (meta.mode() & 0o7777, format!("{}.{:09}", meta.mtime(), meta.mtime_nsec()));
        if meta.is_dir() {
            writeln!(out, "{name} dir {mode:04o}")?;
            list(root, &path, out)?;
        } else if meta.is_symlink() {
            writeln!(out, "{name} link {}", fs::read_link(&path)?.display())?;
        } else {
            let hash = blake3::hash(&fs::read(&path)?);
            writeln!(out, "{name} file {mode:04o} {} {time} {}", meta.len(), &hash.to_hex()[..32])?;
        }
    }
    Ok(())
}
