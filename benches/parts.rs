//! The parts of a backup, each by itself: cut, hash, seal, compress, pack, and look up in an index
//! of 1,000,000 blobs. Data is made from fixed seeds: every run measures the same bytes.

mod data;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use data::{noise, table};
use estrato::chunker::Chunker;
use estrato::crypto::aead::Sealer;
use estrato::crypto::derive::IdKeys;
use estrato::crypto::envelope::Realm;
use estrato::crypto::hpke;
use estrato::format::header::Cipher;
use estrato::format::index::{IndexObject, PackEntry};
use estrato::format::pack::{BlobKind, Codec, Directory, Frame, StorageClass};
use estrato::id::{BlobId, IndexName, PackName, SignerId, TenantId};
use estrato::index::{Hint, Index};
use estrato::pack::{Compressor, Decompressor, PackBuilder, PlainFrame};
use std::hint::black_box;
use std::time::Duration;

const MIB: usize = 1 << 20;

fn cut(c: &mut Criterion) {
    let chunker = Chunker::new(&[1; 32]);
    let mut group = c.benchmark_group("cut");
    for (name, data) in [("text", table(1, 16 * MIB)), ("random", noise(1, 16 * MIB))] {
        group.throughput(Throughput::Bytes(data.len() as u64));
        group.bench_function(name, |b| b.iter(|| chunker.cut_all(black_box(&data)).len()));
    }
}

fn hash(c: &mut Criterion) {
    let keys = IdKeys::new(&[1; 32]);
    let mut group = c.benchmark_group("hash");
    for (name, len) in [("16 KiB", 16 << 10), ("1 MiB", MIB)] {
        let data = noise(2, len);
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(name, |b| b.iter(|| keys.blob_id(BlobKind::Chunk, black_box(&data))));
    }
}

fn seal(c: &mut Criterion) {
    let data = noise(3, MIB);
    let mut group = c.benchmark_group("seal");
    group.throughput(Throughput::Bytes(MIB as u64));
    for cipher in [Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305] {
        let sealer = Sealer::new(cipher, &[1; 32]);
        let copy = || {
            let mut buffer = Vec::with_capacity(MIB + 16);
            buffer.extend_from_slice(&data);
            buffer
        };
        let mut sealed = copy();
        sealer.seal(0, b"place", &mut sealed, 0);
        group.bench_function(format!("{} seal", cipher.name()), |b| {
            b.iter_batched_ref(copy, |buffer| sealer.seal(0, b"place", buffer, 0), BatchSize::LargeInput)
        });
        group.bench_function(format!("{} open", cipher.name()), |b| {
            b.iter_batched_ref(
                || sealed.clone(),
                |buffer| sealer.open(0, b"place", buffer).map(|plain| plain.len()),
                BatchSize::LargeInput,
            )
        });
    }
}

fn frame(data: &[u8]) -> PlainFrame {
    let mut frame = PlainFrame::new(BlobKind::Chunk);
    for (n, chunk) in data.chunks(16 << 10).enumerate() {
        frame.push(BlobId([n as u8; 32]), chunk);
    }
    frame
}

fn compress(c: &mut Criterion) {
    let data = table(1, MIB);
    let mut group = c.benchmark_group("compress");
    group.throughput(Throughput::Bytes(MIB as u64));
    for level in [1, 3] {
        let mut compressor = Compressor::new(level).unwrap();
        group.bench_function(format!("level {level}, and decoded again"), |b| {
            b.iter_batched(|| frame(&data), |f| compressor.encode(f).unwrap().0.payload.len(), BatchSize::LargeInput)
        });
    }
    let (encoded, _) = Compressor::new(1).unwrap().encode(frame(&data)).unwrap();
    let entry = Frame {
        stored: encoded.payload.len() as u32 + 16,
        codec: encoded.codec,
        kind: encoded.kind,
        depth: 0,
        bases: Vec::new(),
        lens: encoded.lens,
        ids: encoded.ids,
    };
    let mut decompressor = Decompressor::new().unwrap();
    group.bench_function("decode", |b| b.iter(|| decompressor.decode(&entry, &encoded.payload, &[]).unwrap().len()));
}

fn pack(c: &mut Criterion) {
    let keys = IdKeys::new(&[1; 32]);
    let realm = Realm { tenant: TenantId([1; 16]), keys: &keys };
    let (_, public) = hpke::pair_from_seed(&[1; 32]);
    let data = noise(4, MIB);
    let frames = || {
        let mut compressor = Compressor::new(1).unwrap();
        (0..16).map(|_| compressor.encode(frame(&data)).unwrap().0).collect::<Vec<_>>()
    };
    let mut group = c.benchmark_group("pack");
    group.throughput(Throughput::Bytes(16 * MIB as u64));
    group.bench_function("16 frames of 1 MiB", |b| {
        b.iter_batched(
            frames,
            |frames| {
                let mut pack = PackBuilder::new(&realm, Cipher::Aes256Gcm, StorageClass::Data, &public).unwrap();
                frames.into_iter().for_each(|f| pack.push(f).unwrap());
                pack.finish().unwrap().bytes.len()
            },
            BatchSize::LargeInput,
        )
    });
}

fn id(n: u32) -> BlobId {
    BlobId(*blake3::hash(&n.to_le_bytes()).as_bytes())
}

const BLOBS: u32 = 1_000_000;
const IN_PACK: u32 = 2_500;

fn fill(folder: &std::path::Path) {
    let index = Index::open(folder).unwrap();
    let packs: Vec<u32> = (0..BLOBS / IN_PACK).collect();
    for (number, packs) in packs.chunks(26).enumerate() {
        let packs = packs.iter().map(|p| {
            let ids: Vec<BlobId> = (p * IN_PACK..(p + 1) * IN_PACK).map(id).collect();
            let frames = ids.chunks(60).map(|ids| Frame {
                stored: 250_000,
                codec: Codec::Zstd,
                kind: BlobKind::Chunk,
                depth: 0,
                bases: Vec::new(),
                lens: vec![16 << 10; ids.len()],
                ids: ids.to_vec(),
            });
            let directory = Directory { class: StorageClass::Data, frames: frames.collect() };
            PackEntry { name: PackName(id(*p).0), size: directory.frames_end() + 9_000, directory }
        });
        let object = IndexObject { packs: packs.collect(), ..IndexObject::default() };
        index.add(&IndexName(id(number as u32).0), &SignerId([1; 32]), &object).unwrap();
    }
}

fn memory_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

/// Opens an index that another process has made, looks blobs up at random, and tells time and memory.
fn probe(folder: &str) {
    let started = std::time::Instant::now();
    let index = Index::open(folder.as_ref()).unwrap();
    let opened = started.elapsed();
    let started = std::time::Instant::now();
    for n in 0..100_000u32 {
        assert!(!index.copies(&id(n.wrapping_mul(2_654_435_761) % BLOBS)).unwrap().is_empty());
    }
    let each = started.elapsed() / 100_000;
    println!(
        "index of {BLOBS} blobs: opened in {opened:?}, {each:?} a random look-up, {} MB at the peak",
        memory_mb()
    );
}

fn look_up(c: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path());
    let program = std::env::current_exe().unwrap();
    let probed = std::process::Command::new(program).env("ESTRATO_PROBE_INDEX", folder.path()).status().unwrap();
    assert!(probed.success(), "the look-ups of another process");
    let index = Index::open(folder.path()).unwrap();
    let mut group = c.benchmark_group("look-up in 1,000,000");
    let (mut n, mut hint) = (0, Hint::default());
    group.bench_function("in sequence", |b| {
        b.iter(|| {
            n = (n + 1) % BLOBS;
            index.find(&id(n), &mut hint, |_| Ok(true)).unwrap().is_some()
        })
    });
    group.bench_function("at random", |b| {
        b.iter(|| {
            n = n.wrapping_mul(2_654_435_761).wrapping_add(1);
            index.copies(&id(n % BLOBS)).unwrap().len()
        })
    });
    group.bench_function("absent", |b| {
        b.iter(|| {
            n = n.wrapping_add(1);
            index.copies(&id(BLOBS + n % BLOBS)).unwrap().len()
        })
    });
}

fn parts(c: &mut Criterion) {
    if let Ok(folder) = std::env::var("ESTRATO_PROBE_INDEX") {
        return probe(&folder);
    }
    cut(c);
    hash(c);
    seal(c);
    compress(c);
    pack(c);
    look_up(c);
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(500));
    targets = parts
}
criterion_main!(benches);
