//! Owner, mode, extended attributes and times of what was restored. Nothing
//! here ends a restore: what cannot be set is told, in words that name it.
//!
//! The order: owner first, for a change of owner clears set-user-id bits and
//! capabilities; extended attributes while the owner may still write; then the
//! mode, which an access control list changes too; times last.

use super::{TargetFolder, chmod};
use crate::format::node::{Kind, Node};
use crate::source::files::{Stat, statx};
use crate::source::users::Users;
use crate::source::xattr::{Place, entry_path};
use rustix::fs::{self, AtFlags, Gid, Mode, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

const ACL_ACCESS: &[u8] = b"system.posix_acl_access";

/// How owners and groups are chosen.
#[derive(Debug)]
pub struct Owners {
    numeric: bool,
    users: Users,
    privileged: bool,
}

impl Owners {
    /// By name where this machine knows the name, or else by number;
    /// `numeric`: always by number.
    pub fn new(numeric: bool) -> Self {
        Owners { numeric, users: Users::new(), privileged: rustix::process::geteuid().is_root() }
    }

    /// The owner on this machine.
    pub fn uid(&self, node: &Node) -> u32 {
        let by_name = (!self.numeric && !node.user.is_empty()).then(|| self.users.uid_of(&node.user));
        by_name.flatten().unwrap_or(node.uid)
    }

    /// The group on this machine.
    pub fn gid(&self, node: &Node) -> u32 {
        let by_name = (!self.numeric && !node.group.is_empty()).then(|| self.users.gid_of(&node.group));
        by_name.flatten().unwrap_or(node.gid)
    }
}

/// Gives an open file what the node says. Returns what could not be set.
pub fn apply_to_file(file: &File, node: &Node, owners: &Owners) -> Vec<String> {
    apply(&Entry { fd: file.as_fd(), unopened: None }, node, owners)
}

/// Gives a folder what the node says, once all is in it. Returns what could not be set.
pub fn apply_to_folder(folder: &TargetFolder, node: &Node, owners: &Owners) -> Vec<String> {
    apply(&Entry { fd: folder.as_fd(), unopened: None }, node, owners)
}

/// Gives an entry that is not opened (a link, a FIFO, a socket, a device) what the
/// node says; a link itself, never what it leads to. Returns what could not be set.
pub fn apply_at(folder: &TargetFolder, node: &Node, owners: &Owners) -> Vec<String> {
    let reached = folder.point_at(&node.name).and_then(|fd| Ok((fd, entry_path(folder.as_fd(), &node.name)?)));
    match reached {
        Ok((fd, path)) => apply(&Entry { fd: fd.as_fd(), unopened: Some((folder, path)) }, node, owners),
        Err(e) => vec![failed("attributes", &e)],
    }
}

/// What is changed: an open file or folder, or a handle that only names an
/// entry, with what is needed to reach it where such a handle does not serve.
struct Entry<'a> {
    fd: BorrowedFd<'a>,
    unopened: Option<(&'a TargetFolder, CString)>,
}

fn failed(what: &str, why: &io::Error) -> String {
    format!("{what}: {why}")
}

fn apply(entry: &Entry<'_>, node: &Node, owners: &Owners) -> Vec<String> {
    let before = match look(entry, node.kind) {
        Ok(before) => before,
        Err(e) => return vec![failed("attributes", &e)],
    };
    let mut warnings = Vec::new();
    let clear = set_owner(entry, &before, node, owners, &mut warnings);
    let acl = set_xattrs(entry, node, owners, &mut warnings);
    if node.kind != Kind::Symlink {
        let changed = clear.chowned || acl != Acl::Unchanged;
        let mut mode = node.mode & 0o7777 & !clear.bits;
        if let Acl::Lost(group) = acl {
            mode = mode & !0o070 | mode & (group << 3);
        }
        if changed || mode != before.mode {
            set_mode(entry, mode, &mut warnings);
        }
    }
    set_times(entry, &before, node, &mut warnings);
    warnings
}

fn look(entry: &Entry<'_>, kind: Kind) -> io::Result<Stat> {
    let stat = Stat::try_from(statx(entry.fd, b"")?)?;
    if stat.kind != kind {
        return Err(io::Error::other("it is no longer what was restored"));
    }
    Ok(stat)
}

/// What a change of owner means for the mode.
struct Clear {
    /// Bits that would give the rights of somebody other than was meant.
    bits: u32,
    /// The kernel may have cleared bits.
    chowned: bool,
}

fn set_owner(entry: &Entry<'_>, before: &Stat, node: &Node, owners: &Owners, warnings: &mut Vec<String>) -> Clear {
    let (uid, gid) = (owners.uid(node), owners.gid(node));
    let (mut is_user, mut is_group) = (before.uid == uid, before.gid == gid);
    let mut clear = Clear { bits: 0, chowned: false };
    if is_user && is_group {
        return clear;
    }
    let user = (!is_user).then_some(uid).filter(|uid| *uid != u32::MAX).map(Uid::from_raw);
    let group = (!is_group).then_some(gid).filter(|gid| *gid != u32::MAX).map(Gid::from_raw);
    match chown(entry, user, group) {
        Ok(()) => (is_user, is_group, clear.chowned) = (true, true, true),
        Err(e) if owners.privileged => warnings.push(failed(&format!("owner {uid}:{gid}"), &e)),
        // Whoever is not root gives away nothing, but may choose among his groups.
        Err(_) if group.is_some() && chown(entry, None, group).is_ok() => (is_group, clear.chowned) = (true, true),
        Err(e) if Errno::from_io_error(&e) == Some(Errno::PERM) => {}
        Err(e) => warnings.push(failed(&format!("owner {uid}:{gid}"), &e)),
    }
    clear.bits = if is_user { 0 } else { 0o4000 } | if is_group { 0 } else { 0o2000 };
    clear
}

fn chown(entry: &Entry<'_>, user: Option<Uid>, group: Option<Gid>) -> io::Result<()> {
    match entry.unopened {
        None => fs::fchown(entry.fd, user, group)?,
        Some(_) => fs::chownat(entry.fd, "", user, group, AtFlags::EMPTY_PATH)?,
    }
    Ok(())
}

fn set_mode(entry: &Entry<'_>, mode: u32, warnings: &mut Vec<String>) {
    let bits = Mode::from_raw_mode(mode);
    let done = match entry.unopened {
        None => fs::fchmod(entry.fd, bits).map_err(io::Error::from),
        Some(_) => chmod(entry.fd, bits),
    };
    if let Err(e) = done {
        warnings.push(failed(&format!("mode {mode:04o}"), &e));
    }
}

/// What became of the access control list.
#[derive(PartialEq, Eq)]
enum Acl {
    Unchanged,
    /// Set or removed: the mode changed with it.
    Changed,
    /// It could not be set. The group's bits of the mode are the list's mask;
    /// these are the bits that the list gives the group itself.
    Lost(u32),
}

fn set_xattrs(entry: &Entry<'_>, node: &Node, owners: &Owners, warnings: &mut Vec<String>) -> Acl {
    let place = match &entry.unopened {
        None => Place::Open(entry.fd),
        Some((_, path)) => Place::Entry(path),
    };
    let mut acl = Acl::Unchanged;
    let there = place.names().unwrap_or_else(|e| {
        warnings.push(failed("extended attributes", &e));
        Vec::new()
    });
    let unwanted = |name: &&Vec<u8>| is_removable(name) && !node.xattrs.iter().any(|(n, _)| n == *name);
    for name in there.iter().filter(unwanted) {
        match place.remove(name) {
            Ok(()) if name == ACL_ACCESS => acl = Acl::Changed,
            Ok(()) => {}
            Err(e) => warnings.push(about(name, &e)),
        }
    }
    for (name, value) in &node.xattrs {
        if there.contains(name) && place.get(name).is_ok_and(|old| old.as_ref() == Some(value)) {
            continue;
        }
        match place.set(name, value) {
            Ok(()) if name == ACL_ACCESS => acl = Acl::Changed,
            Ok(()) => {}
            // Nobody but root sets these.
            Err(e) if !owners.privileged && is_roots(name) && e.kind() == io::ErrorKind::PermissionDenied => {}
            Err(e) => {
                if name == ACL_ACCESS {
                    acl = Acl::Lost(group_in_acl(value));
                }
                warnings.push(about(name, &e));
            }
        }
    }
    acl
}

fn about(name: &[u8], why: &io::Error) -> String {
    failed(&format!("extended attribute {}", name.escape_ascii()), why)
}

/// Attributes that files have because somebody gave them, and not because of
/// the file system or a security module of this machine.
fn is_removable(name: &[u8]) -> bool {
    const GIVEN: [&[u8]; 3] = [ACL_ACCESS, b"system.posix_acl_default", b"security.capability"];
    GIVEN.contains(&name) || name.starts_with(b"user.") || name.starts_with(b"trusted.")
}

fn is_roots(name: &[u8]) -> bool {
    name.starts_with(b"security.") || name.starts_with(b"trusted.")
}

/// The bits that an access control list, as the kernel stores it, gives to the
/// owning group: a version, then entries of tag, bits and number.
pub(super) fn group_in_acl(acl: &[u8]) -> u32 {
    const GROUP_OBJ: u16 = 4;
    let entries = acl.get(4..).unwrap_or_default().as_chunks::<8>().0;
    entries
        .iter()
        .find(|e| u16::from_le_bytes([e[0], e[1]]) == GROUP_OBJ)
        .map_or(0, |e| u32::from(u16::from_le_bytes([e[2], e[3]])) & 7)
}

fn set_times(entry: &Entry<'_>, before: &Stat, node: &Node, warnings: &mut Vec<String>) {
    // Comparing its data has changed the time of the last access: that alone is left as it is.
    if before.mtime == node.mtime {
        return;
    }
    let time = Timespec { tv_sec: node.mtime.seconds, tv_nsec: node.mtime.nanos.min(999_999_999).into() };
    let times = Timestamps { last_access: time, last_modification: time };
    let done = match entry.unopened {
        None => fs::futimens(entry.fd, &times),
        Some((folder, _)) => fs::utimensat(folder, node.name.as_slice(), &times, AtFlags::SYMLINK_NOFOLLOW),
    };
    if let Err(e) = done {
        warnings.push(failed("times", &e.into()));
    }
}
