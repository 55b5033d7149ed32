//! The fuzz targets without the fuzzer: every seed and every file of their corpora, and what the
//! fuzzers have found.

#[path = "../../fuzz/src/lib.rs"]
mod targets;

use estrato::format::content::Content;
use estrato::format::node::{Kind, Node};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use targets::{TARGETS, Target};

/// Bounds of a corpus in the tree.
const FILES_MAX: usize = 60;
const BYTES_MAX: usize = 200 * 1024;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn names(folder: &Path, ending: &str) -> BTreeSet<String> {
    let names = fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    names.filter_map(|name| name.strip_suffix(ending).map(str::to_owned)).collect()
}

fn target(name: &str) -> &'static Target {
    TARGETS.iter().find(|t| t.name == name).unwrap()
}

/// Runs a target's seeds, which it must take, and its corpus, which it must survive. `fuzz/run` has
/// the seeds written to a folder, for the fuzzer to begin with.
fn replay(name: &str) {
    let target = target(name);
    let kept = std::env::var_os("ESTRATO_FUZZ_SEEDS").map(|folder| Path::new(&folder).join(name));
    for (seed, bytes) in (target.seeds)() {
        assert!((target.run)(&bytes), "{name} refuses its seed {seed}");
        if let Some(folder) = &kept {
            fs::create_dir_all(folder).unwrap();
            fs::write(folder.join(seed), bytes).unwrap();
        }
    }
    let folder = fuzz().join("corpus").join(name);
    let files = names(&folder, "");
    let inputs: Vec<Vec<u8>> = files.iter().map(|file| fs::read(folder.join(file)).unwrap()).collect();
    let bytes: usize = inputs.iter().map(Vec::len).sum();
    assert!((1..=FILES_MAX).contains(&files.len()) && bytes <= BYTES_MAX, "{} files, {bytes} bytes", files.len());
    let taken = inputs.iter().filter(|input| (target.run)(input)).count();
    assert!(taken > 0, "{name} refuses all of its corpus");
}

#[test]
fn every_target_has_a_program_and_a_corpus() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|t| t.name.to_owned()).collect();
    assert_eq!(names(&fuzz().join("corpus"), ""), targets);
    assert_eq!(names(&fuzz().join("fuzz_targets"), ".rs"), targets);
}

#[test]
fn records_survive_their_corpus() {
    replay("records");
}

#[test]
fn trees_survive_their_corpus() {
    replay("trees");
}

#[test]
fn packs_survive_their_corpus() {
    replay("packs");
}

#[test]
fn the_index_survives_its_corpus() {
    replay("index");
}

#[test]
fn cuts_survive_their_corpus() {
    replay("chunker");
}

#[test]
fn the_walker_survives_its_corpus() {
    replay("walker");
}

#[test]
fn the_planner_survives_its_corpus() {
    replay("planner");
}

#[test]
fn bases_survive_their_corpus() {
    replay("bases");
}

// ---- what was found ----

#[test]
fn a_folder_whose_segments_repeat_comes_to_an_end() {
    let walked = targets::walker::walked(&targets::hostile::input(0, &targets::walker::repeated())).unwrap();
    assert!(walked.is_whole() && walked.entries == 1 && walked.errors == 1, "{walked:?}");
}

#[test]
fn a_segment_of_another_length_than_its_folder_says_is_damage() {
    use targets::hostile::{Item, input};
    let segment = targets::trees::encode(&[Node::new("a", Kind::Dir)]);
    for (more, entries, errors) in [(0, 1, 0), (1, 0, 1)] {
        let extents = vec![targets::walker::extent(0, segment.len() + more)];
        let list = Content { level: 0, extents }.encode();
        let walked =
            targets::walker::walked(&input(0, &[(Item::Tree, segment.clone()), (Item::List, list)])).unwrap();
        assert_eq!((walked.entries, walked.errors), (entries, errors));
    }
}

#[test]
fn sizes_that_no_sum_holds_are_restored_and_told() {
    use targets::planner::{DRY_RUN, VERIFY, giants, run};
    assert!(run(&targets::hostile::input(DRY_RUN, &giants())), "counted");
    assert!(!run(&targets::hostile::input(VERIFY, &giants())), "no file system has room for them");
}

/// Found by the walker: two packs were one object, and it was removed twice.
#[test]
fn a_tree_and_a_chunk_of_nothing_lie_in_packs_of_their_own() {
    use targets::hostile::{Item, input};
    let nothing = input(0, &[(Item::Tree, Vec::new()), (Item::Chunk, Vec::new())]);
    assert!(!(target("walker").run)(&nothing) && !(target("planner").run)(&nothing));
}

/// Found by `bases`: each way to a frame that failed tried it again, a million times where frames of a
/// thousand bases rest on one another.
#[test]
fn frames_that_failed_are_not_tried_for_each_that_rests_on_them() {
    assert!((target("bases").run)(&targets::bases::wide_in_vain()));
}
