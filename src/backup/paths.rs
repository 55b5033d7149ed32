//! Which paths are backed up, and where each is stored below the root.
//!
//! A path is kept as it was given: `.` stores what the folder holds, `a/b` is
//! stored below `a/b`, an absolute path below its full name. A path that
//! climbs (`../x`) is taken as absolute. Links in the folders above a given
//! path are followed, since the user named them; below it none is.

use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

/// What is taken of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Branch {
    /// The entry, and all below it.
    Whole,
    /// The folder, and only these entries of it.
    Some(BTreeMap<Vec<u8>, Branch>),
}

/// Where the root's entries come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Root {
    /// All entries of a folder.
    Whole(PathBuf),
    /// Entries of `/` or of the current folder: name, folder, what is taken.
    Entries(Vec<(Vec<u8>, PathBuf, Branch)>),
}

/// The paths of one snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// As they were given.
    pub given: Vec<Vec<u8>>,
    /// Absolute, sorted: by these a later snapshot knows the same source.
    pub absolute: Vec<Vec<u8>>,
    pub(super) root: Root,
}

/// Without `.` and `..`, as text has it: links are not looked at.
fn normal(path: &Path) -> (bool, Vec<Vec<u8>>) {
    let mut names: Vec<Vec<u8>> = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name.as_bytes().to_vec()),
            Component::ParentDir => {
                names.pop();
            }
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    (path.is_absolute(), names)
}

fn insert(map: &mut BTreeMap<Vec<u8>, Branch>, names: &[Vec<u8>]) {
    let [first, rest @ ..] = names else { return };
    if rest.is_empty() {
        map.insert(first.clone(), Branch::Whole);
        return;
    }
    match map.entry(first.clone()).or_insert_with(|| Branch::Some(BTreeMap::new())) {
        // What is taken whole holds the rest already.
        Branch::Whole => {}
        Branch::Some(below) => insert(below, rest),
    }
}

impl Selection {
    /// The paths that a user gave.
    ///
    /// # Errors
    /// [`Error::Source`] for a path that is not there, [`Error::Invalid`] for paths that cannot
    /// stand together.
    pub fn new(paths: &[PathBuf]) -> Result<Self> {
        if paths.is_empty() {
            return Err(Error::Invalid("no path was given".into()));
        }
        let (mut given, mut absolute) = (Vec::new(), Vec::new());
        let (mut top, mut here) = (BTreeMap::new(), BTreeMap::new());
        let mut whole = None;
        for path in paths {
            let trouble = |source| Error::Source { path: path.clone(), source };
            // Followed where the name ends in a slash, as everywhere.
            std::fs::symlink_metadata(path).map_err(trouble)?;
            let full = std::path::absolute(path).map_err(trouble)?;
            let (_, full_names) = normal(&full);
            given.push(path.as_os_str().as_bytes().to_vec());
            absolute.push([b"/".as_slice(), &full_names.join(&b"/"[..])].concat());
            let climbs = path.components().any(|c| c == Component::ParentDir);
            let (is_absolute, names) = if climbs { (true, full_names) } else { normal(path) };
            if names.is_empty() {
                whole = Some(if is_absolute { PathBuf::from("/") } else { PathBuf::from(".") });
            }
            insert(if is_absolute { &mut top } else { &mut here }, &names);
        }
        absolute.sort();
        absolute.dedup();
        let root = match whole {
            Some(folder) if paths.len() == 1 => Root::Whole(folder),
            Some(folder) => {
                return Err(Error::Invalid(format!(
                    "{} is stored as the root itself: give it alone, or name it by its full path",
                    folder.display()
                )));
            }
            None => Root::Entries(entries(top, here)?),
        };
        Ok(Self { given, absolute, root })
    }
}

fn entries(
    top: BTreeMap<Vec<u8>, Branch>,
    here: BTreeMap<Vec<u8>, Branch>,
) -> Result<Vec<(Vec<u8>, PathBuf, Branch)>> {
    if let Some(both) = top.keys().find(|name| here.contains_key(*name)) {
        return Err(Error::Invalid(format!(
            "/{0} and {0} would be stored under the same name: give both by their full path",
            OsStr::from_bytes(both).display()
        )));
    }
    let mut all: Vec<_> = top.into_iter().map(|(name, branch)| (name, PathBuf::from("/"), branch)).collect();
    all.extend(here.into_iter().map(|(name, branch)| (name, PathBuf::from("."), branch)));
    all.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection(paths: &[&str]) -> Result<Selection> {
        Selection::new(&paths.iter().map(PathBuf::from).collect::<Vec<_>>())
    }

    #[test]
    fn paths_are_kept_as_given() {
        assert_eq!(selection(&["."]).unwrap().root, Root::Whole(".".into()));
        assert_eq!(selection(&["/"]).unwrap().root, Root::Whole("/".into()));
        let Root::Entries(entries) = selection(&["/usr/bin", "src/backup", "/usr/lib"]).unwrap().root else {
            panic!("entries are expected");
        };
        let names: Vec<_> = entries.iter().map(|(n, from, _)| (String::from_utf8_lossy(n), from.as_path())).collect();
        assert_eq!(names, [("src".into(), Path::new(".")), ("usr".into(), Path::new("/"))]);
        let Branch::Some(usr) = &entries[1].2 else { panic!("a part is expected") };
        assert_eq!(usr.keys().map(Vec::as_slice).collect::<Vec<_>>(), [&b"bin"[..], b"lib"]);
    }

    #[test]
    fn what_is_taken_whole_is_not_narrowed() {
        for paths in [["/usr", "/usr/bin"], ["/usr/bin", "/usr"]] {
            let Root::Entries(entries) = selection(&paths).unwrap().root else { panic!("entries are expected") };
            assert_eq!(entries[0].2, Branch::Whole);
        }
    }

    #[test]
    fn climbing_paths_become_absolute() {
        let found = selection(&["src/../src/backup"]).unwrap();
        assert!(found.absolute[0].ends_with(b"/src/backup"));
        let Root::Entries(entries) = found.root else { panic!("entries are expected") };
        assert_eq!(entries[0].1, Path::new("/"));
    }

    #[test]
    fn refusals() {
        assert!(matches!(selection(&["/no/such/path"]), Err(Error::Source { .. })));
        assert!(matches!(selection(&[".", "src"]), Err(Error::Invalid(_))));
        assert!(matches!(selection(&[]), Err(Error::Invalid(_))));
    }
}
