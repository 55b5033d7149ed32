//! A place whose repository lies on a store that is far: the double, in this process.

use super::double::{Dialect, Double};
use super::{ID, SECRET};
use crate::support::{Place, Ran};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

pub struct Far {
    pub place: Place,
    pub double: Double,
}

impl Far {
    /// An empty store, and nothing here.
    pub fn empty() -> Self {
        let double = Double::new(Dialect::S3);
        // As many as any store has on a page: a listing is one call.
        double.pages_of(1000);
        Self { place: Place::new(), double }
    }

    /// With a repository that the key file `key` opens.
    pub fn new() -> Self {
        let far = Self::empty();
        far.run(&["init", "--new-key-file", "key"]).expect_code(0);
        far
    }

    /// The same state of store and place again, in places of its own.
    pub fn copied(&self) -> Self {
        let copy = Self::empty();
        for (name, bytes) in self.double.objects() {
            copy.double.plant(&name, &bytes);
        }
        copy_tree(&self.place.path(""), &copy.place.path(""));
        copy
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.place.command(arguments);
        // The same place for each copy, so that what is remembered of it holds: the bucket alone tells
        // them apart for nobody.
        command.env("ESTRATO_REPO", "s3://bucket/r?path-style=true");
        command.env("AWS_ENDPOINT_URL", self.double.endpoint()).env("AWS_REGION", "eu-west-1");
        command.env("AWS_ACCESS_KEY_ID", ID).env("AWS_SECRET_ACCESS_KEY", SECRET);
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(&mut self.command(arguments))
    }

    /// What a command that succeeds asks of the store: the methods, and the names below the tenant.
    #[track_caller]
    pub fn calls(&self, arguments: &[&str]) -> Vec<String> {
        self.double.decide(|_| super::double::Fate::Done);
        self.run(arguments).expect_code(0);
        let asked = self.double.asked();
        let line = |asked: &super::double::Asked| match asked.query.get("prefix") {
            Some(prefix) => format!("LIST {prefix}"),
            None => format!("{} {}", asked.method, asked.name),
        };
        asked.iter().map(line).map(|line| line.replace("r/tenants/default/", "")).collect()
    }

    /// The objects below a folder of the tenant.
    pub fn objects(&self, folder: &str) -> BTreeMap<String, Vec<u8>> {
        let prefix = format!("r/tenants/default/{folder}/");
        self.double.objects().into_iter().filter(|(name, _)| name.starts_with(&prefix)).collect()
    }
}

fn copy_tree(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status().unwrap();
    assert!(copied.success());
}
