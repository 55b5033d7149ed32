//! A fault at every request of every command: the command ends with an error or succeeds; then, with
//! nothing cleaned up, a check of all data finds no damage, every snapshot that was reported
//! restores, and the command run again succeeds.

mod scene;

use crate::support::{is_long, say};
use estrato::error::{Error, StoreFault};
use estrato::store::Fault;
use scene::{Act, Scene, Stage};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const CRASHES: [Fault; 2] = [Fault::CrashBefore, Fault::CrashAfter];

const FAULTS: [Fault; 8] = [
    Fault::CrashBefore,
    Fault::CrashAfter,
    Fault::Fail(StoreFault::Unavailable),
    Fault::LoseAnswer,
    Fault::Tear,
    Fault::Duplicate,
    Fault::Reorder,
    Fault::Delay(Duration::from_millis(1)),
];

/// What is done to one command on one repository.
struct Point {
    scene: usize,
    act: Act,
    number: u64,
    fault: Fault,
}

/// Runs every point on two threads; panics with the first that fails, and says how many there were.
fn run_all(what: &str, scenes: &[Scene], points: &[Point]) {
    let next = AtomicUsize::new(0);
    let outcomes: Mutex<BTreeMap<String, [usize; 2]>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(point) = points.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let scene = &scenes[point.scene];
                    let label =
                        format!("{:?} on {}, request {}: {:?}", point.act, scene.name, point.number, point.fault);
                    let done = scene.stage(&label).at(point.number, point.fault, point.act);
                    let mut outcomes = outcomes.lock().unwrap();
                    outcomes.entry(format!("{:?} on {}", point.act, scene.name)).or_default()[usize::from(done)] += 1;
                }
            });
        }
    });
    for (what, [failed, done]) in outcomes.into_inner().unwrap() {
        say(&format!("  {what}: {} points, {done} succeeded, {failed} ended with an error", failed + done));
    }
    say(&format!("faults, {what}: {} points tried", points.len()));
}

fn points(scenes: &[Scene], acts: &[Act], faults: &[Fault]) -> Vec<Point> {
    let mut points = Vec::new();
    for (scene, set) in scenes.iter().enumerate() {
        for &act in acts {
            let requests = set.stage("a run without faults").requests(act);
            assert!(requests > 1, "{act:?} on {} asks the store for something", set.name);
            // A fault may bring requests that a run without one does not make.
            let numbers = 1..=requests + 1;
            points.extend(
                numbers.flat_map(|number| faults.iter().map(move |&fault| Point { scene, act, number, fault })),
            );
        }
    }
    points
}

#[test]
fn every_request_of_every_command() {
    let scenes = [Scene::grown()];
    let acts = [
        Act::Snapshot,
        Act::WriterSnapshot,
        Act::Stream,
        Act::Restore,
        Act::Check,
        Act::AddKey,
        Act::RemoveKey,
        Act::AddTenant,
    ];
    run_all("every request", &scenes, &points(&scenes, &acts, &FAULTS));
}

#[test]
fn every_request_of_forgetting_and_of_a_prune() {
    let scenes = [Scene::to_forget()];
    run_all("forget", &scenes, &points(&scenes, &[Act::Forget], &FAULTS));
    let scenes = [Scene::to_prune()];
    run_all("prune", &scenes, &points(&scenes, &[Act::Prune, Act::PruneLeaving, Act::Optimise], &FAULTS));
}

#[test]
fn every_request_of_the_mending_of_packs() {
    let scenes = [Scene::damaged(100)];
    run_all("mending by parity", &scenes, &points(&scenes, &[Act::MendPacks], &FAULTS));
    let scenes = [Scene::damaged(0)];
    run_all("copying what is whole", &scenes, &points(&scenes, &[Act::SalvagePacks], &FAULTS));
}

#[test]
fn every_request_of_repairs() {
    let scenes = [Scene::to_repair_index()];
    run_all("repair index", &scenes, &points(&scenes, &[Act::RepairIndex], &FAULTS));
    let scenes = [Scene::to_repair_snapshots()];
    run_all("repair snapshots", &scenes, &points(&scenes, &[Act::RepairSnapshots], &FAULTS));
}

#[test]
fn crashes_on_repositories_of_other_shapes() {
    let scenes = [Scene::bare(), Scene::beside_a_plan(), Scene::forgotten_by_this_machine()];
    let acts = [Act::Snapshot, Act::WriterSnapshot, Act::Check];
    let faults = if is_long() { &FAULTS[..] } else { &CRASHES[..] };
    run_all("other shapes", &scenes, &points(&scenes, &acts, faults));
}

#[test]
fn every_request_of_the_making_of_a_repository() {
    let scenes = [Scene::nothing()];
    run_all("init", &scenes, &points(&scenes, &[Act::Init], &FAULTS));
}

#[test]
fn a_store_that_is_full_after_every_kilobyte() {
    let scene = Scene::grown();
    let mut tried = 0;
    for act in [Act::Snapshot, Act::WriterSnapshot, Act::Stream, Act::AddKey, Act::RemoveKey, Act::AddTenant] {
        let bytes = scene.stage("a run without faults").bytes(act);
        for room in (0..bytes).step_by(1 << 10) {
            let done = scene.stage(&format!("{act:?} with room for {room} bytes")).full(room, act);
            assert!(!done || act == Act::RemoveKey, "{act:?} succeeded with room for {room} of {bytes} bytes");
            tried += 1;
        }
    }
    // A prune writes what is needed anew before it deletes: without room it fails, and all is as it was.
    let scene = Scene::to_prune();
    for room in (0..40_000).step_by(1 << 10) {
        scene.stage(&format!("a prune with room for {room} bytes")).full(room, Act::Prune);
        tried += 1;
    }
    for (act, parity) in [(Act::MendPacks, 100), (Act::SalvagePacks, 0)] {
        let scene = Scene::damaged(parity);
        for room in (0..50_000).step_by(1 << 10) {
            scene.stage(&format!("{act:?} with room for {room} bytes")).full(room, act);
            tried += 1;
        }
    }
    say(&format!("faults, a full store: {tried} points tried"));
}

#[test]
fn a_snapshot_of_several_packs_that_breaks_off() {
    let scenes = [Scene::large()];
    let bytes = scenes[0].stage("a run without faults").bytes(Act::Snapshot);
    assert!(bytes > 2 * estrato::limits::PACK_TARGET as u64, "several packs");
    let step = if is_long() { 1 } else { 7 };
    let rooms: Vec<u64> = (0..bytes).step_by(3 << 20).step_by(step).collect();
    for room in &rooms {
        scenes[0].stage(&format!("a snapshot with room for {room} bytes")).full(*room, Act::Snapshot);
    }
    let crashes: Vec<Point> = points(&scenes, &[Act::Snapshot], &CRASHES).into_iter().step_by(step).collect();
    run_all("several packs", &scenes, &crashes);
    say(&format!("faults, several packs on a full store: {} points tried", rooms.len()));
}

/// An error that a user can act on: it says what failed, and nothing panicked on the way.
fn assert_clear(stage: &Stage<'_>, e: &Error) {
    let text = e.to_string();
    assert!(text.len() > 10 && !text.contains("panick"), "{}: {text}", stage.label);
    let ours = matches!(
        e,
        Error::Store(_)
            | Error::Damaged { .. }
            | Error::Missing { .. }
            | Error::Exists { .. }
            | Error::Busy { .. }
            | Error::Fenced { .. }
            | Error::NoTenant { .. }
            | Error::NoRepository { .. }
            | Error::WrongKey { .. }
            | Error::Invalid(_)
    );
    assert!(ours, "{}: {e:?}", stage.label);
}
