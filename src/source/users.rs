//! Owners and groups by name and by number, as this machine knows them. Every
//! answer is asked for once and then remembered. Never fails: who is not
//! known, or cannot be asked for, has no name.

use nix::unistd::{Gid, Group, Uid, User};
use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

/// What is known so far; shared by threads.
#[derive(Debug, Default)]
pub struct Users {
    user_names: Mutex<HashMap<u32, String>>,
    group_names: Mutex<HashMap<u32, String>>,
    uids: Mutex<HashMap<String, Option<u32>>>,
    gids: Mutex<HashMap<String, Option<u32>>>,
}

impl Users {
    /// Nothing is known yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The user's name; empty if there is none.
    pub fn user_name(&self, uid: u32) -> String {
        known(&self.user_names, &uid, || {
            User::from_uid(Uid::from_raw(uid)).ok().flatten().map(|user| user.name).unwrap_or_default()
        })
    }

    /// The group's name; empty if there is none.
    pub fn group_name(&self, gid: u32) -> String {
        known(&self.group_names, &gid, || {
            Group::from_gid(Gid::from_raw(gid)).ok().flatten().map(|group| group.name).unwrap_or_default()
        })
    }

    /// The number of the user with this name.
    pub fn uid_of(&self, name: &str) -> Option<u32> {
        known(&self.uids, name, || User::from_name(name).ok().flatten().map(|user| user.uid.as_raw()))
    }

    /// The number of the group with this name.
    pub fn gid_of(&self, name: &str) -> Option<u32> {
        known(&self.gids, name, || Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw()))
    }
}

/// The remembered answer, or the one found now.
fn known<K, Q, V>(answers: &Mutex<HashMap<K, V>>, key: &Q, find: impl FnOnce() -> V) -> V
where
    K: Borrow<Q> + Eq + Hash,
    Q: ToOwned<Owned = K> + Eq + Hash + ?Sized,
    V: Clone,
{
    let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(answer) = answers.get(key) {
        return answer.clone();
    }
    let answer = find();
    answers.insert(key.to_owned(), answer.clone());
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_and_twice() {
        let users = Users::new();
        for _ in 0..2 {
            assert_eq!((users.user_name(0).as_str(), users.uid_of("root")), ("root", Some(0)));
            assert_eq!((users.group_name(0).as_str(), users.gid_of("root")), ("root", Some(0)));
        }
    }

    #[test]
    fn strangers_have_no_name_and_no_number() {
        let users = Users::new();
        assert_eq!((users.user_name(4_123_456_789), users.group_name(4_123_456_789)), (String::new(), String::new()));
        for name in ["no such user, surely", "", "a\0b", "a:b"] {
            assert_eq!((users.uid_of(name), users.gid_of(name)), (None, None), "{name:?}");
        }
    }
}
