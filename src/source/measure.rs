//! How much a source holds: for a progress bar, and nothing else.

use super::files::Folder;
use crate::format::node::Kind;
use crate::limits;
use std::path::Path;

/// Bytes of all files at and below a path, as far as they can be seen. Gives up, with what it has,
/// once `stop` says so.
pub fn measure(path: &Path, stop: &dyn Fn() -> bool) -> u64 {
    let Ok(root) = Folder::open(path) else {
        return std::fs::symlink_metadata(path).map_or(0, |m| m.len());
    };
    let mut bytes = 0;
    let mut open = vec![(root, Vec::new().into_iter())];
    if let Some((folder, names)) = open.last_mut() {
        *names = folder.names().unwrap_or_default().into_iter();
    }
    while let Some((folder, names)) = open.last_mut() {
        if stop() {
            break;
        }
        let Some(name) = names.next() else {
            open.pop();
            continue;
        };
        match folder.stat_of(&name) {
            Ok(stat) if stat.kind == Kind::File => bytes = u64::saturating_add(bytes, stat.size),
            Ok(stat) if stat.kind == Kind::Dir => {
                if let Ok(child) = folder.child(&name)
                    && open.len() < limits::DEPTH_MAX
                {
                    let names = child.names().unwrap_or_default().into_iter();
                    open.push((child, names));
                }
            }
            _ => {}
        }
    }
    bytes
}
