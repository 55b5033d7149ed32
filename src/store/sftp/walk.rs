//! Lists the objects below a folder on a server, many folders at a time: each would take three answers
//! of its own. An entry that cannot be looked at ends the listing, as on this machine
//! (`store/listing.rs`): a pack that is not listed is taken for gone.

use super::client::{Answer, Connection, Failure, or_refused};
use super::location::Location;
use super::wire::{Attributes, Entry, Handle, Request, Status};
use crate::clock::Timestamp;
use crate::error::StoreFault;
use crate::limits;
use crate::store::{Listed, staged};
use std::collections::HashSet;

/// What lies below a folder.
pub(super) struct Found {
    /// The objects, sorted by name.
    pub objects: Vec<Listed>,
    /// What uploads that run or were broken off have left: paths, and when they were last written.
    pub staged: Vec<(String, u32)>,
}

/// A folder that is being read.
struct Reading {
    name: String,
    handle: Handle,
    /// Requests for more of it.
    asked: Vec<u32>,
    is_done: bool,
}

struct Walk<'a> {
    location: &'a Location,
    found: Found,
    /// Folders still to be read, from the root.
    ahead: Vec<String>,
    /// What has to be looked at to know what it is.
    unsure: Vec<String>,
    /// The folders that symbolic links led to.
    linked: HashSet<Vec<u8>>,
    seen: usize,
}

/// Everything below a folder. `None` if there is none; what is an object holds nothing.
pub(super) fn below(connection: &mut Connection, location: &Location, folder: &str) -> Answer<Option<Found>> {
    let found = Found { objects: Vec::new(), staged: Vec::new() };
    let (ahead, unsure) = (vec![folder.to_owned()], Vec::new());
    let mut walk = Walk { location, found, ahead, unsure, linked: HashSet::new(), seen: 0 };
    while !walk.ahead.is_empty() {
        let batch = walk.ahead.split_off(walk.ahead.len().saturating_sub(limits::SFTP_FOLDERS));
        let is_top = batch == [folder];
        let (mut reading, gone) = walk.open(connection, batch)?;
        let read = walk.read(connection, &mut reading);
        for folder in &reading {
            folder.asked.iter().for_each(|id| connection.forget(*id));
            connection.close(&folder.handle);
        }
        read?;
        if !gone.is_empty() && is_top && walk.seen == 0 {
            walk.leads_somewhere(connection, folder)?;
            return Ok(None);
        }
        for folder in gone {
            walk.vanished(connection, &folder)?;
        }
        walk.look(connection)?;
    }
    walk.found.objects.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(Some(walk.found))
}

fn unfit(why: String) -> Failure {
    Failure::Unfit(StoreFault::Other, why)
}

impl Walk<'_> {
    /// Opens folders; also those that are not there any more.
    fn open(&self, connection: &mut Connection, names: Vec<String>) -> Answer<(Vec<Reading>, Vec<String>)> {
        let ids: Vec<u32> =
            names.iter().map(|name| connection.send(&Request::OpenFolder(&self.location.below(name)))).collect();
        let (mut reading, mut gone, mut refused) = (Vec::new(), Vec::new(), None);
        for (id, name) in ids.into_iter().zip(names) {
            match or_refused(connection.handle(id))? {
                Ok(handle) => reading.push(Reading { name, handle, asked: Vec::new(), is_done: false }),
                Err(Status { code: Status::NO_SUCH_FILE, .. }) => gone.push(name),
                Err(status) => refused = Some((name, status)),
            }
        }
        let Some((name, status)) = refused else { return Ok((reading, gone)) };
        reading.iter().for_each(|folder| connection.close(&folder.handle));
        let path = self.location.below(&name);
        // Some servers have other words for a folder that is none, or is not there.
        match connection.look(&Request::Look(&path))? {
            Some(found) if found.is_folder() || found.mode.is_none() => {}
            _ if reading.is_empty() && gone.is_empty() => return Ok((Vec::new(), vec![name])),
            _ => {}
        }
        Err(Failure::Refused(Status { words: format!("{path}: {}", status.words), ..status }))
    }

    /// Reads folders to their ends.
    fn read(&mut self, connection: &mut Connection, reading: &mut [Reading]) -> Answer<()> {
        let share = (2 * limits::SFTP_FOLDERS / reading.len().max(1)).clamp(2, limits::SFTP_FOLDER_AHEAD);
        let mut ahead = 2;
        while reading.iter().any(|folder| !folder.is_done) {
            for folder in reading.iter_mut().filter(|folder| !folder.is_done) {
                folder.asked = (0..ahead).map(|_| connection.send(&Request::ReadFolder(&folder.handle))).collect();
            }
            for folder in reading.iter_mut() {
                for id in std::mem::take(&mut folder.asked) {
                    let Some(entries) = connection.entries(id)? else {
                        folder.is_done = true;
                        continue;
                    };
                    for entry in entries {
                        self.entry(connection, &folder.name, entry)?;
                    }
                }
            }
            // Most folders are read at once; a long one deserves more.
            ahead = (ahead * 2).min(share);
        }
        Ok(())
    }

    fn entry(&mut self, connection: &Connection, folder: &str, entry: Entry) -> Answer<()> {
        if self.seen >= limits::LIST_OBJECTS_MAX {
            return Err(unfit(format!("more than {} objects", limits::LIST_OBJECTS_MAX)));
        }
        self.seen += 1;
        if entry.name.contains(&b'/') || entry.name.contains(&0) {
            return Err(connection.malformed(&crate::error::Malformed::new("a name in a folder that is a path")));
        }
        // What no store could hold under its name is somebody else's.
        let Ok(name) = std::str::from_utf8(&entry.name) else { return Ok(()) };
        if name.is_empty() || name == "." || name == ".." || name.chars().any(|c| c.is_ascii_control()) {
            return Ok(());
        }
        let name = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
        if name.len() > limits::SFTP_PATH_MAX {
            return Err(unfit(format!("a path of {} bytes", name.len())));
        }
        let told = entry.attributes;
        match told.mode {
            Some(_) if told.is_folder() => self.ahead.push(name),
            Some(_) if told.is_file() && told.size.is_some() && told.modified.is_some() => self.file(name, told),
            // Links are followed: an operator may keep a folder of packs on another disk.
            Some(_) if !told.is_link() && !told.is_file() => {}
            _ => self.unsure.push(name),
        }
        Ok(())
    }

    fn file(&mut self, name: String, told: Attributes) {
        let (size, modified) = (told.size.unwrap_or_default(), told.modified.unwrap_or_default());
        if staged::is_staged(&name) {
            self.found.staged.push((self.location.below(&name), modified));
        } else {
            let modified = Timestamp { seconds: modified.into(), nanos: 0 };
            self.found.objects.push(Listed { name, size, modified });
        }
    }

    /// Looks at what cannot be known otherwise.
    fn look(&mut self, connection: &mut Connection) -> Answer<()> {
        let unsure = std::mem::take(&mut self.unsure);
        for names in unsure.chunks(limits::SFTP_WINDOW) {
            let paths: Vec<String> = names.iter().map(|name| self.location.below(name)).collect();
            let ids: Vec<u32> = paths.iter().map(|path| connection.send(&Request::Look(path))).collect();
            let mut answers = Vec::new();
            for id in ids {
                answers.push(or_refused(connection.looked(id))?);
            }
            for ((name, path), answer) in names.iter().zip(&paths).zip(answers) {
                match answer.map_err(Failure::Refused)? {
                    None => self.vanished(connection, name)?,
                    Some(told) if told.is_folder() => self.linked(connection, name, path)?,
                    // What a dead upload left is no link.
                    Some(told) if told.is_file() && !staged::is_staged(name) => self.file(name.clone(), told),
                    Some(_) => {}
                }
            }
        }
        Ok(())
    }

    /// A folder that is somewhere else.
    fn linked(&mut self, connection: &mut Connection, name: &str, path: &str) -> Answer<()> {
        let id = connection.send(&Request::RealPath(path));
        let real = connection.entries(id)?.and_then(|entries| entries.into_iter().next());
        let Some(real) = real else { return Err(unfit(format!("{path}: the server does not tell where it is"))) };
        if !self.linked.insert(real.name.to_vec()) {
            return Err(unfit(format!("{path}: symbolic links lead to the same folder twice, or in a circle")));
        }
        self.ahead.push(name.to_owned());
        Ok(())
    }

    /// What was deleted since its name was read is no error. A link that leads nowhere is one (the
    /// disk that it leads to may not be mounted), and so is a root that is gone.
    fn vanished(&self, connection: &mut Connection, name: &str) -> Answer<()> {
        self.leads_somewhere(connection, name)?;
        let root = self.location.below("");
        match connection.look(&Request::Look(&root))? {
            Some(_) => Ok(()),
            None => Err(Failure::Unfit(StoreFault::Unavailable, format!("{root}: it is gone"))),
        }
    }

    /// An error if a symbolic link on the way to a name leads nowhere.
    fn leads_somewhere(&self, connection: &mut Connection, name: &str) -> Answer<()> {
        let ends = name.match_indices('/').map(|(at, _)| at).chain([name.len()]);
        for part in ends.map(|end| &name[..end]).filter(|part| !part.is_empty()) {
            let path = self.location.below(part);
            let is_link = connection.look(&Request::LookAt(&path))?.is_some_and(Attributes::is_link);
            if is_link && connection.look(&Request::Look(&path))?.is_none() {
                return Err(unfit(format!("{path}: a symbolic link that leads nowhere")));
            }
        }
        Ok(())
    }
}
