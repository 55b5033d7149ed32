//! Repositories to be repaired: one whose index is damaged, and one whose snapshots have lost something.

use super::{Act, FULL, Scene, Stage, tree};
use estrato::error::{Error, Result};
use estrato::maintenance::repair::{HowIndex, HowSnapshots, repair_index, repair_snapshots};
use estrato::monitor::Silent;
use estrato::restore;
use estrato::snapshot;
use estrato::store::Store;
use std::collections::HashMap;
use std::path::Path;

impl Scene {
    /// A grown repository with an index object that does not open, one that is gone, and one that is no index
    /// object.
    pub fn to_repair_index() -> Self {
        let mut scene = Self::build("a repository with a damaged index", Self::grow);
        let index = "tenants/default/index/";
        let names: Vec<String> =
            scene.objects.iter().map(|(name, _)| name.clone()).filter(|name| name.starts_with(index)).collect();
        assert!(names.len() > 3);
        scene.objects.retain(|(name, _)| *name != names[1]);
        for (name, bytes) in &mut scene.objects {
            if *name == names[0] {
                *bytes = bytes.slice(..bytes.len() - 40);
            }
        }
        scene.objects.push((format!("{index}litter"), "litter".into()));
        scene
    }

    /// Two snapshots that have lost a file, and one that has not.
    pub fn to_repair_snapshots() -> Self {
        let mut incomplete = Vec::new();
        let mut scene = Self::build("a repository with incomplete snapshots", |stage, reported| {
            stage.make();
            // What is lost lies in a pack of its own.
            stage.edit("a", 3_000);
            reported.push((stage.act(Act::Snapshot).unwrap().unwrap(), tree(&stage.source())));
            stage.edit("lost", 60_000);
            for len in [700, 900] {
                let mut left = tree(&stage.source());
                left.remove(Path::new("lost"));
                incomplete.push((stage.act(Act::Snapshot).unwrap().unwrap(), left));
                stage.edit("below/b", len);
            }
            std::fs::remove_file(stage.source().join("lost")).unwrap();
            reported.push((stage.act(Act::Snapshot).unwrap().unwrap(), tree(&stage.source())));
        });
        scene.incomplete = incomplete;
        let packs = scene.objects.iter().filter(|(name, _)| name.contains("/packs/"));
        let lost = packs.max_by_key(|(_, bytes)| bytes.len()).unwrap().0.clone();
        scene.objects.retain(|(name, _)| *name != lost);
        scene
    }
}

impl Stage<'_> {
    pub(super) fn repair_index(&self) -> Result<()> {
        let report = repair_index(&self.open(FULL)?, HowIndex::default(), &Silent)?;
        // What was torn as it was read says so, and is kept.
        if report.is_whole() { Ok(()) } else { Err(Error::damaged("index", format!("{report:?}"))) }
    }

    pub(super) fn repair_snapshots(&self) -> Result<()> {
        let how = HowSnapshots { program: "test".into(), ..HowSnapshots::default() };
        let report = repair_snapshots(&self.open(FULL)?, &how, &Silent)?;
        if report.is_whole() { Ok(()) } else { Err(Error::damaged("snapshots", format!("{report:?}"))) }
    }

    /// For each snapshot that has lost something one stands that gives back the rest; the others are as they were.
    pub(super) fn assert_repaired(&self) {
        let repo = self.open(FULL).unwrap();
        repo.sync_index().unwrap();
        let listing = snapshot::list(&repo).unwrap();
        let twins: HashMap<_, _> = listing.repaired();
        let all = self.scene.incomplete.len() * 2 + self.scene.reported.len();
        assert_eq!(listing.snapshots.len(), all, "{}: one for each", self.label);
        let mended = self.scene.incomplete.iter().map(|(id, left)| (twins[id], left));
        let whole = self.scene.reported.iter().map(|(id, files)| (*id, files));
        for (id, expected) in mended.chain(whole) {
            let found = listing.snapshots.iter().find(|s| s.id == id).unwrap();
            let out = tempfile::tempdir().unwrap();
            let options = restore::Options::default();
            let outcome = restore::run(&repo, &found.manifest.root, None, out.path(), &options, &Silent).unwrap();
            assert_eq!(outcome.failed, Vec::<String>::new(), "{}", self.label);
            let at = out.path().join(self.source().strip_prefix("/").unwrap());
            assert!(tree(&at) == *expected, "{}: snapshot {id} gives back something else", self.label);
        }
        let left = self.store.list("tenants/default/sessions").unwrap();
        assert!(left.len() < 3, "{}: {left:?}", self.label);
    }
}
