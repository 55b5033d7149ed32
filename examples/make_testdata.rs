//! Makes the small repositories in `testdata/repos/v0`, one for each cipher, with their keys and a
//! listing of what each snapshot holds. Run it when the format changes:
//!
//!     cargo run --example make_testdata
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
use estrato::monitor::Silent;
use estrato::repo::{self, Access, NewKey, Repository, Secret};
use estrato::store::{self, Store};
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
    Ok(Repository::open(Access {
        store: Arc::clone(store),
        clock: Arc::new(SystemClock::default()),
        tenant: tenant.into(),
        credential: Credential::KeyFile(KeyFile(Zeroizing::new(key))),
        cache: None,
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

    let source = std::env::temp_dir().join(format!("estrato-testdata-{}", std::process::id()));
    let _ = fs::remove_dir_all(&source);
    first_day(&source)?;
    let snapshots = [
        ("first", "default", full, SnapshotKind::Incremental),
        ("changed", "default", full, SnapshotKind::Incremental),
        ("by-writer", "default", writer, SnapshotKind::Full),
        ("second", "second", full, SnapshotKind::Full),
    ];
    for (tag, tenant, key, kind) in snapshots {
        if tag == "changed" {
            second_day(&source)?;
        }
        take(&open(&store, tenant, key)?, &source, tag, kind)?;
        let mut listing = String::new();
        list(&source, &source, &mut listing)?;
        fs::create_dir_all(folder.join("expected"))?;
        fs::write(folder.join("expected").join(tag), listing)?;
    }
    fs::remove_dir_all(&source)?;
    Ok(())
}

fn take(repository: &Repository, source: &Path, tag: &str, kind: SnapshotKind) -> Result<()> {
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
    backup::run(repository, Source::Files(selection), &options, &Silent)?;
    Ok(())
}

fn table(rows: u32, changed: u32) -> String {
    let mut out = String::new();
    for row in 0..rows {
        let turn = if row == changed { 1 } else { 0 };
        let number = (u64::from(row) + turn).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        let _ = writeln!(out, "{row}\tpaciente {number}\t{}\trealizado", number % 365);
    }
    out
}

fn first_day(source: &Path) -> Result<()> {
    fs::create_dir_all(source.join("small"))?;
    fs::create_dir_all(source.join("empty-folder"))?;
    fs::write(source.join("table.copy"), table(60_000, u32::MAX))?;
    fs::write(source.join("empty"), b"")?;
    let mut noise = vec![0; 300_000];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    fs::write(source.join("image.jpg"), noise)?;
    for n in 0..300 {
        fs::write(source.join(format!("small/{n:03}.json")), format!("{{\"id\": {n}}}\n"))?;
    }
    std::os::unix::fs::symlink("table.copy", source.join("link"))?;
    fs::hard_link(source.join("empty"), source.join("empty-too"))?;
    fs::write(source.join(std::ffi::OsStr::from_bytes(b"not-utf8-\xff")), b"name")?;
    let sparse = fs::File::create(source.join("sparse"))?;
    sparse.set_len(5_000_000)?;
    sparse.write_all_at(b"in the middle", 2_500_000)?;
    Ok(())
}

fn second_day(source: &Path) -> Result<()> {
    fs::write(source.join("table.copy"), table(60_100, 30_000))?;
    fs::remove_file(source.join("small/007.json"))?;
    fs::write(source.join("small/new.json"), b"{}")?;
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
