//! What somebody learns who finds the cache: no name, no content, no secret.

use crate::support::{Place, Ran, files_below};
use rusqlite::types::ValueRef;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

/// Nobody may find these, in whatever form.
const SECRETS: &[&str] = &[
    "Krankenakte-Lindqvist",
    "befund-xylophon.txt",
    "ordner-quasimodo",
    "the patient's diagnosis is ZEBRAFISH-7741",
    "tag-octavian",
    "host-brunhilde",
    "tenant-rumpelstilz",
    "password-Schnittlauch-99",
    "link-target-papageno",
    "attribute-tamino",
    "stream-monostatos",
];

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for group in bytes.chunks_exact(3) {
        let bits = u32::from(group[0]) << 16 | u32::from(group[1]) << 8 | u32::from(group[2]);
        out.extend((0..4).map(|n| char::from(DIGITS[(bits >> (18 - 6 * n) & 63) as usize])));
    }
    out
}

/// All forms in which a secret is looked for.
fn forms(secret: &str) -> Vec<Vec<u8>> {
    let bytes = secret.as_bytes();
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    let mut forms = vec![bytes.to_vec(), hex.to_uppercase().into_bytes(), hex.into_bytes()];
    forms.push(secret.encode_utf16().flat_map(u16::to_le_bytes).collect());
    forms.push(secret.encode_utf16().flat_map(u16::to_be_bytes).collect());
    forms.push(bytes.iter().rev().copied().collect());
    forms.push(secret.to_lowercase().into_bytes());
    // Within longer text base64 begins at any of three places; a part of each is enough.
    forms.extend((0..3).map(|skip| base64(&bytes[skip..]).into_bytes()));
    let whole = forms.clone();
    // A part of a name tells too.
    forms.extend(whole.iter().map(|form| form[..form.len() / 2].to_vec()).filter(|half| half.len() >= 8));
    forms
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// Every value of every table, and what it is made of where it is compressed.
fn values(path: &Path) -> Vec<Vec<u8>> {
    let db = rusqlite::Connection::open(path).unwrap();
    let mut tables = db.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'").unwrap();
    let tables: Vec<String> = tables.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let mut found = Vec::new();
    for table in tables {
        let mut query = db.prepare(&format!("SELECT * FROM {table}")).unwrap();
        let columns = query.column_count();
        let mut rows = query.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            for column in 0..columns {
                let bytes = match row.get_ref(column).unwrap() {
                    ValueRef::Blob(bytes) | ValueRef::Text(bytes) => bytes.to_vec(),
                    ValueRef::Integer(number) => number.to_be_bytes().to_vec(),
                    _ => continue,
                };
                // A frame may begin anywhere in a row.
                for at in 0..bytes.len().saturating_sub(4) {
                    if bytes[at..].starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
                        let mut decoder = zstd::stream::read::Decoder::new(&bytes[at..]).unwrap().single_frame();
                        let mut plain = Vec::new();
                        std::io::Read::read_to_end(&mut decoder, &mut plain).unwrap();
                        assert!(plain.len() > 20);
                        found.push(plain);
                    }
                }
                found.push(bytes);
            }
        }
    }
    found
}

/// Takes snapshots in which every secret occurs.
fn filled() -> Place {
    let place = Place::new();
    let with = |command: &mut std::process::Command| {
        Ran::of(command.env("ESTRATO_PASSWORD", SECRETS[7]).env("ESTRATO_NEW_PASSWORD", SECRETS[7]))
    };
    with(&mut place.command(&["init", "--new-key-file", "key"])).expect_code(0);
    place.run(&["tenant", "add", SECRETS[6], "--new-key-file", "tenant-key"]).expect_code(0);
    let options = ["-t", SECRETS[6], "--key-file", "../tenant-key"];
    let file = place.write(format!("{0}/{2}/{1}", SECRETS[0], SECRETS[1], SECRETS[2]), SECRETS[3].repeat(3000));
    place.write(format!("{}/small", SECRETS[0]), SECRETS[3]);
    std::os::unix::fs::symlink(SECRETS[8], place.path(SECRETS[0]).join("link")).unwrap();
    // Not every file system takes attributes.
    let _ = rustix::fs::setxattr(&file, "user.note", SECRETS[9].as_bytes(), rustix::fs::XattrFlags::empty());
    let run = |more: &[&str]| {
        let arguments = [&options[..], more].concat();
        with(&mut place.command_in(SECRETS[0], &arguments)).expect_code(0)
    };
    run(&["key", "add", "--new-password"]);
    for _ in 0..2 {
        let more = ["snapshot", ".", "--tag", SECRETS[4], "--host", SECRETS[5]];
        with(
            place
                .command_in(SECRETS[0], &more)
                .env("ESTRATO_TENANT", SECRETS[6])
                .env("ESTRATO_KEY_FILE", "../tenant-key"),
        )
        .expect_code(0);
        place.write(format!("{}/{}", SECRETS[0], SECRETS[1]), SECRETS[3]);
    }
    run(&["snapshot", "--name", SECRETS[10], "--command", "echo", "--", SECRETS[3]]);
    run(&["restore", "latest", "--target", "../out"]);
    run(&["check", "--read-data"]);
    place
}

#[test]
fn a_cache_tells_no_name_no_content_and_no_secret() {
    let place = filled();
    let root = place.path(".cache/estrato");
    let files = files_below(&root);
    assert!(files.iter().filter(|p| p.extension().is_some_and(|e| e == "db")).count() >= 3, "{files:?}");
    let mut key = fs::read_to_string(place.path("tenant-key")).unwrap();
    key.retain(|c| !c.is_whitespace());
    let key_part = key[key.len() - 24..].to_owned();
    let secrets: Vec<_> =
        SECRETS.iter().copied().chain([&*key_part]).flat_map(|s| forms(s).into_iter().map(move |f| (s, f))).collect();
    // That the search finds what is there.
    assert!(holds(&fs::read(place.path(SECRETS[0]).join("small")).unwrap(), &forms(SECRETS[3])[0]));
    let mut compressed = 0;
    for path in &files {
        let name = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned().into_bytes();
        let mut all = vec![name, fs::read(path).unwrap()];
        if path.extension().is_some_and(|e| e == "db") {
            let values = values(path);
            compressed += usize::from(values.len() > 10);
            all.extend(values);
        }
        for (secret, form) in &secrets {
            for bytes in &all {
                assert!(!holds(bytes, form), "{} tells {secret}", path.display());
            }
        }
    }
    assert!(compressed > 1, "tables were looked into");
}

#[test]
fn a_cache_is_its_user_s_alone() {
    let place = filled();
    let root = place.path(".cache/estrato");
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o7777, 0o700, "{}", folder.display());
        folders.extend(fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_dir()));
    }
    let files = files_below(&root);
    assert!(files.len() > 5);
    for file in &files {
        assert_eq!(fs::metadata(file).unwrap().mode() & 0o7777, 0o600, "{}", file.display());
    }
    // Files that another program made readable are closed again.
    for file in files.iter().filter(|p| p.extension().is_some_and(|e| e == "db")) {
        fs::set_permissions(file, fs::Permissions::from_mode(0o644)).unwrap();
    }
    let open = || files_below(&root).iter().filter(|p| fs::metadata(p).unwrap().mode() & 0o77 != 0).count();
    let before = open();
    place.run(&["-t", SECRETS[6], "--key-file", "tenant-key", "ls"]).expect_code(0);
    assert_eq!(open(), before - 1, "the index was opened");
}
