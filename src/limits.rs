//! Every bound of the program in one place: sizes it chooses when it writes,
//! and sizes it refuses to go beyond when it reads. Holds numbers only.

/// Upper bound of a piece, bytes; also the look-ahead that the chunker needs.
pub const PIECE_MAX: usize = 64 * 1024;
/// Target mean of a piece, bytes.
pub const PIECE_AVG: usize = 16 * 1024;
/// Lower bound of a piece, bytes (the last piece of a stream may be shorter).
pub const PIECE_MIN: usize = 4 * 1024;
/// A group of pieces, and so a chunk, is never longer than this.
pub const GROUP_MAX: usize = 1024 * 1024;

/// Plaintext that one frame holds at most.
pub const FRAME_PLAIN_MAX: usize = 1024 * 1024;
/// Blobs in one frame at most; many tiny files share a frame.
pub const FRAME_BLOBS_MAX: usize = 4096;
/// Stored bytes of a frame at most: incompressible plaintext and a tag.
pub const FRAME_STORED_MAX: usize = FRAME_PLAIN_MAX + 64;
/// Bases that a delta frame may name.
pub const FRAME_BASES_MAX: usize = 1024;
/// Plaintext that the bases of one delta frame hold at most, together.
pub const FRAME_BASE_PLAIN_MAX: usize = 4 * 1024 * 1024;
/// Delta frames that may rest on one another.
pub const FRAME_DEPTH_MAX: u8 = 16;
/// Frames that may be decoded to get one blob: bases that rest on many others must end somewhere.
pub const BLOB_FRAMES_MAX: usize = 4096;
/// Frames that may be decoded besides for copies that turn out to be none, before they count there as well.
pub const BLOB_FRAMES_IN_VAIN: usize = 1 << 20;
/// Frames in a pack at most.
pub const PACK_FRAMES_MAX: usize = 65_536;
/// Blobs in a pack at most: bounds the directory and the index entry.
pub const PACK_BLOBS_MAX: usize = 262_144;
/// A pack of data is closed once it holds this many bytes.
pub const PACK_TARGET: usize = 16 * 1024 * 1024;
/// A pack of trees is closed once it holds this many bytes.
pub const TREE_PACK_TARGET: usize = 8 * 1024 * 1024;
/// A pack that is larger than this is refused.
pub const PACK_MAX: u64 = 128 * 1024 * 1024;
/// A pack's sealed directory, bytes.
pub const DIRECTORY_MAX: usize = 16 * 1024 * 1024;

/// Recovery shards for a thousand others that a tenant may ask for.
pub const PARITY_MAX: u16 = 500;
/// About so many shards a writer cuts a pack into.
pub const PARITY_SHARDS: usize = 1024;
/// Shards of a pack's data, and as many of its parity, at most.
pub const PARITY_SHARDS_MAX: usize = 32_768;
/// A shard, bytes: a power of two from this one on.
pub const PARITY_SHARD_MIN: u64 = 512;
/// The largest shard, bytes.
pub const PARITY_SHARD_MAX: u64 = 16 * 1024;
/// Different descriptors of one damaged pack that are tried: an honest pack has one.
pub const PARITY_DESCRIPTORS: usize = 4;
/// Where what looks like a descriptor is hashed to see whether it is one: so many times the bytes there are.
pub const PARITY_SEARCH: usize = 4;
/// Packs that were mended in memory and are kept for readers.
pub const MENDED_PACKS: usize = 2;
/// Packs of which is remembered that they could not be mended.
pub const MENDED_IN_VAIN: usize = 65_536;

/// An index object is written once its entries hold this many blobs, or when
/// `INDEX_FLUSH_SECONDS` have passed since the last one.
pub const INDEX_BLOBS_TARGET: usize = 65_536;
/// See `INDEX_BLOBS_TARGET`.
pub const INDEX_FLUSH_SECONDS: u64 = 30;
/// An index object's stored size, bytes.
pub const INDEX_OBJECT_MAX: u64 = 64 * 1024 * 1024;
/// An index object's plaintext, after decompression, bytes.
pub const INDEX_PLAIN_MAX: usize = 128 * 1024 * 1024;

/// How far back a reader of the index lets zstd look: 8 MiB, as RFC 8878 asks of every decoder. The
/// levels that are written look back 2 MiB.
pub const INDEX_WINDOW_LOG_MAX: u32 = 23;

/// `repo.json`, bytes.
pub const REPO_OBJECT_MAX: u64 = 64 * 1024;
/// Any small record (tenant, slot, session, plan header), bytes.
pub const RECORD_MAX: u64 = 1024 * 1024;
/// The list of signers, a prune plan: records that grow, bytes.
pub const LIST_RECORD_MAX: u64 = 64 * 1024 * 1024;
/// The greatest number in the name of a plan, of a record of damage, or of a list of signers: there is always a
/// next one to be had, whatever anybody calls an object.
pub const NUMBER_MAX: u64 = 999_999_999_999_999;
/// Snapshots that a record of what was forgotten names.
pub const FORGOTTEN_MAX: usize = 500_000;
/// How often the records of what was forgotten are listed again, while others merge them.
pub const FORGOTTEN_TRIES: usize = 5;
/// Packs that a record of damage names: 35 MB of names.
pub const DAMAGE_PACKS_MAX: usize = 1_000_000;
/// A snapshot object, bytes.
pub const MANIFEST_MAX: u64 = 4 * 1024 * 1024;

/// A tree segment closes on a name whose hash says so, but not before this many bytes.
pub const TREE_SEGMENT_MIN: usize = 32 * 1024;
/// A tree segment is closed before it grows beyond this.
pub const TREE_SEGMENT_MAX: usize = 512 * 1024;
/// A file name, bytes (the kernel's own bound).
pub const NAME_MAX: usize = 255;
/// A symbolic link's target, bytes.
pub const LINK_MAX: usize = 4096;
/// Extended attributes of one entry, names and values together, bytes.
pub const XATTR_TOTAL_MAX: usize = 256 * 1024;
/// Folders below one another, in a source and in a repository.
pub const DEPTH_MAX: usize = 2048;

/// Extents that a node lists itself; more go into content lists.
pub const INLINE_EXTENTS: usize = 16;
/// A content list closes on an id that says so, but not before this many extents.
pub const LIST_MIN: usize = 64;
/// A content list is closed at this many extents.
pub const LIST_MAX: usize = 1024;
/// Levels of content lists: 64^8 extents at the least.
pub const LIST_LEVELS_MAX: u8 = 8;

/// Extents of one file that are read: 16 TiB of the smallest pieces.
pub const FILE_EXTENTS_MAX: u64 = 1 << 32;
/// Segments of one folder that are read: a thousand million entries.
pub const FOLDER_SEGMENTS_MAX: u64 = 1 << 22;
/// Arrays and maps within one another, in a field that a reader does not know.
pub const CBOR_DEPTH_MAX: usize = 16;

/// Argon2id memory that a slot may ask for, KiB (1 GiB).
pub const ARGON_MEMORY_MAX: u32 = 1024 * 1024;
/// Argon2id passes that a slot may ask for.
pub const ARGON_PASSES_MAX: u32 = 16;
/// Argon2id lanes that a slot may ask for.
pub const ARGON_LANES_MAX: u32 = 16;
/// Argon2id memory times passes that a slot may ask for, KiB: 4 GiB once, or 1 GiB four times. Some seconds.
pub const ARGON_WORK_MAX: u64 = 4 * 1024 * 1024;
/// Slots of one tenant that a password is tried with: a store that puts up others keeps nobody computing for long.
pub const PASSWORD_SLOTS_MAX: usize = 64;
/// Slots of one tenant that are read.
pub const SLOTS_MAX: usize = 4096;
/// Key pairs that a tenant has had, the one in use among them: a reader tries one after the other.
pub const KEY_PAIRS_MAX: usize = 64;
/// Tenants among which an operator's slot is looked for, where this machine was told of none.
pub const OPERATOR_LOOKS: usize = 16;
/// Objects that a receipt of an erasure names one by one; of more it tells the number.
pub const RECEIPT_OBJECTS_MAX: usize = 1_000;
/// Objects that one listing may hold before it is refused.
pub const LIST_OBJECTS_MAX: usize = 50_000_000;
/// A key file, bytes.
pub const KEY_FILE_MAX: u64 = 64 * 1024;
/// A tenant's name, bytes.
pub const TENANT_NAME_MAX: usize = 64;

/// Plaintext of decoded tree frames kept for readers, bytes.
pub const TREE_CACHE_BYTES: usize = 24 * 1024 * 1024;
/// Frames kept decoded beside the index on this machine, blobs; and whole packs' entries as much again.
pub const INDEX_CACHE_BLOBS: usize = 200_000;
/// Pages of the index on this machine that are kept in memory, KiB: all inner ones of 100 million
/// blobs. Of the others hardly one is asked for again, and the more are kept, the further is each from
/// the processor.
pub const INDEX_PAGES_KIB: i64 = 8 * 1024;
/// Blocks of the index's map that are kept in memory, bytes: those of 11 million blobs.
pub const INDEX_MAP_BYTES: usize = 80 * 1024 * 1024;
/// A row of the index on this machine holds more than one frame only up to so many bytes.
pub const INDEX_ROW_BYTES: usize = 2560;
/// Runs of the index's map are not merged into one of more blobs: that is the longest that one
/// addition takes.
pub const INDEX_RUN_BLOBS: u64 = 32 * 1024 * 1024;
/// Filters of the index's map that are kept in memory, bytes: those of 130 million blobs.
pub const INDEX_FILTER_BYTES: i64 = 192 * 1024 * 1024;
/// zstd level of frames: level 1 on frames of 1 MiB packs as well as level 3 on single chunks, at
/// less cost.
pub const ZSTD_LEVEL: i32 = 1;
/// Jobs that wait between two stages of a pipeline.
pub const QUEUE_JOBS: usize = 3;
/// A reader's buffer, bytes: a group and its look-ahead must fit. No larger: what is read should
/// still be in the processor's cache when it is cut and hashed (4 MiB took twice the system time).
pub const READ_BUFFER: usize = 2 * 1024 * 1024;
/// Bytes that a pipe to be read is asked to hold: what Linux allows to everybody.
pub const PIPE_BYTES: usize = 1024 * 1024;
/// Blobs of an old stream that are looked ahead when a new one is held against it: half a gigabyte of
/// rows.
pub const ALIGN_WINDOW: usize = 32 * 1024;
/// A run of new blobs that has no end in sight is stored once it holds so many bytes.
pub const RUN_PLAIN_MAX: usize = 512 * 1024;
/// A run of fewer bytes is stored plain: a frame of its own would cost more than it saves.
pub const RUN_DELTA_MIN: usize = 2 * 1024;
/// A plain frame of runs that no older blob helps holds so many bytes: what changes often is soon
/// replaced again, and to get at what is left of it should not take long.
pub const RUN_FRAME_PLAIN: usize = 128 * 1024;
/// The bases of a run hold at most so many times its own bytes (and one piece).
pub const BASES_PER_RUN: usize = 4;
/// A file of fewer bytes whose name is new is held against none that it only resembles: many small ones
/// pack better together.
pub const OLD_LIKE_MIN: u64 = 16 * 1024;
/// Files of fewer bytes are not looked for in other folders.
pub const OLD_ELSEWHERE_MIN: u64 = 64 * 1024;
/// In a folder with more new files, or more that are gone, none are paired by size.
pub const OLD_GONE_MAX: usize = 64;
/// Files of one pattern that are looked at on each side of a new one.
pub const OLD_NEIGHBOURS: usize = 8;
/// What is held of files that other folders had, bytes.
pub const OLD_HELD_BYTES: usize = 16 * 1024 * 1024;
/// Bytes of a source's notes that are gone through for them.
pub const OLD_NOTES_BYTES: usize = 256 * 1024 * 1024;
/// Marks that one snapshot makes to find names in other folders.
pub const OLD_MARKS_MADE: usize = 4_000_000;
/// A file of more bytes is not fetched ahead of its reader.
pub const READ_WHOLE_MAX: u64 = 128 * 1024;
/// Files that were fetched and wait for a reader.
pub const READ_AHEAD_FILES: usize = 64;
/// Threads that fetch small files.
pub const READ_AHEAD_THREADS: usize = 8;
/// Threads that list folders before the walk comes to them.
pub const LIST_AHEAD_THREADS: usize = 8;
/// Folders that were listed and wait for the walk; each is an open handle.
pub const LIST_AHEAD_FOLDERS: usize = 256;
/// Their entries, all together: beyond, no other is begun.
pub const LIST_AHEAD_ENTRIES: usize = 32_768;
/// A folder of more entries is not listed ahead.
pub const LIST_AHEAD_FOLDER: usize = 8_192;
/// Folders deeper below the given paths are not listed ahead.
pub const LIST_AHEAD_DEPTH: usize = 64;
/// Subfolders of one folder that are told of at a time, to those who list ahead.
pub const LIST_AHEAD_SUBFOLDERS: usize = 4_096;
/// Files that wait to be read, while the walk runs ahead.
pub const WALK_AHEAD: usize = 512;
/// Blobs that one round of a restore plans at most; another is written meanwhile.
pub const RESTORE_BATCH_BLOBS: usize = 100_000;
/// Folders that one round of a restore keeps open at most.
pub const RESTORE_BATCH_DIRS: usize = 512;
/// Plaintext of frames, bytes, that is worth writing while nothing else is: less, and cores would wait for
/// one another at the end of each round.
pub const RESTORE_BATCH_WORTH: u64 = 64 * 1024 * 1024;
/// Frames that one round of a restore or a check plans at most.
pub const READ_BATCH_FRAMES: usize = 50_000;
/// Packs whose names a warm-up command is given at once.
pub const WARM_UP_PACKS: usize = 1000;
/// The longest wait that can be asked for, seconds: what is thawed does not stay so.
pub const WAIT_SECONDS_MAX: u64 = 366 * 86_400;
/// Blobs that a check looks at together at most.
pub const CHECK_BATCH_BLOBS: usize = 500_000;
/// What a request to a store that is far is taken to cost beside its bytes, as bytes: about what a line
/// carries while it waits.
pub const READ_REQUEST_COST: u64 = 128 * 1024;
/// Frames on such a store of which is counted what reading them would save.
pub const READ_ACCOUNTS_MAX: usize = 65_536;
/// Stored bytes that a thread takes at a time of what is read in a plan.
pub const READ_GROUP: usize = 2 * 1024 * 1024;
/// Plaintext that it takes at a time, at most and, where there is little to read, at least: each part asks
/// each pack anew.
pub const READ_GROUP_PLAIN: usize = 32 * 1024 * 1024;
/// See `READ_GROUP_PLAIN`.
pub const READ_GROUP_PLAIN_MIN: usize = 4 * 1024 * 1024;
/// How often, on average, a frame of a plan may be decoded once more.
pub const READ_AGAIN: usize = 16;
/// Frames and copies of which a thread knows that they failed, before it forgets them.
pub const READ_FAILED_MAX: usize = 16_384;
/// Plaintext kept for frames that rest on it and are still to come, bytes.
pub const READ_KEPT: usize = 32 * 1024 * 1024;
/// Stored bytes fetched by one request of a restore or a check.
pub const FETCH_MAX: usize = 8 * 1024 * 1024;
/// Bytes between two frames that are fetched rather than asked around.
pub const GAP_MAX: u64 = 64 * 1024;
/// Groups of frames that wait, fetched from a store that is far, until a core is free to decode them.
pub const FETCHED_AHEAD: usize = 8;
/// Problems that a report lists by name; the rest are counted.
pub const REPORT_MAX: usize = 1000;

/// Chains of one signer whose newest snapshot this machine remembers.
pub const CHAINS_REMEMBERED: usize = 1024;
/// Packs of which this machine remembers when they were last read, 32 bytes each: 30 TB of them.
pub const VERIFIED_PACKS: usize = 2_000_000;
/// A small file of this program's own on this machine, bytes.
pub const LOCAL_FILE_MAX: u64 = 64 * 1024 * 1024;

/// How far beyond the store's own time for it a snapshot may claim to be, seconds: clocks differ.
pub const CLAIM_AHEAD_SECONDS: i64 = 86_400;
/// How far before the store's own time for it a snapshot may claim to be and still count as taken when it
/// says, seconds: a backup takes a while.
pub const CLAIM_BEHIND_SECONDS: i64 = 86_400;
/// How often a running session renews its object, seconds.
pub const SESSION_RENEW_SECONDS: u64 = 240;
/// A session that was not heard of for so long is given up by a prune, by the store's clock, seconds.
pub const SESSION_DEAD_SECONDS: i64 = 3600;
/// Packs that one plan condemns at the most: it has to fit into `LIST_RECORD_MAX`.
pub const PRUNE_PACKS_MAX: usize = 1_000_000;
/// Of objects that a store keeps locked, so many are asked for the end of their locks.
pub const RETAINED_ASKED: usize = 1_000;
/// So many small packs of one class are merged.
pub const PRUNE_SMALL_PACKS: usize = 16;
/// So many small index objects are merged.
pub const PRUNE_SMALL_INDEXES: usize = 16;
/// A pack of which less than one part in so many is unused is not written anew.
pub const PRUNE_WORTH_PART: u64 = 50;
/// Packs that a repair of the index reads at a time.
pub const REPAIR_BATCH_PACKS: usize = 8;
/// An upload to a folder of this machine that was not written to for so long is dead, seconds.
pub const UPLOAD_DEAD_SECONDS: u64 = 24 * 3600;
/// A file changed this shortly before a snapshot began is read again by the
/// next one: kernels stamp times from a clock that ticks every few ms.
pub const RACY_NANOS: i128 = 50_000_000;
/// The same where times carry no fraction of a second.
pub const RACY_COARSE_NANOS: i128 = 2_000_000_000;

/// Free pages of 4 KiB from which on a local database is shrunk, once they are a quarter of it.
pub const LOCAL_FREE_PAGES: i64 = 1024;
/// The log beside a local database, once it has been worked off, bytes.
pub const LOCAL_LOG_BYTES: i64 = 16 * 1024 * 1024;
/// The index and the notes of a tenant, and the notes of a source, go once they have not been used for
/// this long, seconds (180 days).
pub const LOCAL_UNUSED_SECONDS: u64 = 180 * 86_400;
/// How often a machine looks for local state that is not used any more, seconds.
pub const LOCAL_SWEEP_SECONDS: u64 = 86_400;
/// Sources of one tenant whose notes are kept, the newest first.
pub const LOCAL_SOURCES_MAX: usize = 1000;
/// Tenants whose index and notes are kept, the newest first.
pub const LOCAL_TENANTS_MAX: usize = 1000;
/// Tenants of which is kept what was seen of them: some hundred bytes each.
pub const LOCAL_SEEN_MAX: usize = 10_000;

/// The largest object that is copied, bytes: packs of trees are half as large, unless somebody forged them.
pub const COPY_MAX: u64 = 16 * 1024 * 1024;

/// Threads that ask a store that is far, where there is much to ask: their waits go on side by side.
pub const FAR_THREADS: usize = 8;
/// Packs that are on their way to such a store at a time.
pub const FAR_UPLOADS: usize = 4;
/// That such a store holds to the condition of a create is tried again after so long, seconds.
pub const FAR_PROVEN_SECONDS: u64 = 86_400;

/// Threads that drive the connections to stores that are far.
pub const CLOUD_THREADS: usize = 2;
/// Requests to such stores that run at a time, in the whole process.
pub const CLOUD_CONNECTIONS: usize = 16;
/// How long a connection may take to come about, seconds.
pub const CLOUD_CONNECT_SECONDS: u64 = 10;
/// A request of which nothing moves for so long has failed, seconds.
pub const CLOUD_IDLE_SECONDS: u64 = 60;
/// How long an answer may take once the last byte of an upload was handed to the kernel, seconds: on a
/// slow link, the megabytes that it holds need minutes.
pub const CLOUD_ANSWER_SECONDS: u64 = 300;
/// A request that takes longer has failed, however much moves, seconds: a pack of 16 MiB needs 4.6 KiB a
/// second.
pub const CLOUD_REQUEST_SECONDS: u64 = 3600;
/// Requests that are made for one that fails in ways that pass, counted from what it last got done.
pub const CLOUD_TRIES: u32 = 50;
/// How long such a one is tried again, seconds.
pub const CLOUD_RETRY_SECONDS: u64 = 300;
/// The same while the store has never answered: what is written wrongly should be said soon.
pub const CLOUD_FIRST_SECONDS: u64 = 8;
/// The wait before the first try after a failure; it doubles with each, milliseconds.
pub const CLOUD_BACKOFF_MILLIS: u64 = 100;
/// No wait is longer, milliseconds.
pub const CLOUD_BACKOFF_MAX_MILLIS: u64 = 15_000;
/// Stored bytes of an upload that are handed over at a time.
pub const CLOUD_UPLOAD_PART: usize = 64 * 1024;
/// An answer that is no object's content, bytes: a page of a listing, credentials.
pub const CLOUD_ANSWER_MAX: usize = 16 * 1024 * 1024;
/// What is read of an answer that refuses, bytes.
pub const CLOUD_REFUSAL_MAX: usize = 64 * 1024;
/// Bytes whose time within a rate is waited for at once, where nothing else divides them.
pub const PACE_PART: usize = 64 * 1024;
/// How often credentials in a profile file are looked at again, seconds.
pub const CLOUD_PROFILE_SECONDS: u64 = 30;
/// Pages in a row of which no object came, in a listing.
pub const CLOUD_BARREN_PAGES: usize = 1000;
/// Objects of fewer bytes keep the store's own class: a cold one counts each as if it had so many.
pub const CLOUD_CLASS_MIN: usize = 128 * 1024;
/// A profile file, or a file of certificates or keys that the environment names, bytes.
pub const CLOUD_FILE_MAX: u64 = 4 * 1024 * 1024;

/// Bytes that one request of SFTP reads or writes: what every server takes.
pub const SFTP_BLOCK: usize = 32 * 1024;
/// Such requests on their way at a time: as many bytes as OpenSSH lets a channel hold.
pub const SFTP_WINDOW: usize = 64;
/// A packet that an SFTP server sends, bytes: what OpenSSH's may, and its head.
pub const SFTP_PACKET_MAX: usize = 256 * 1024 + 1024;
/// Bytes that are read of such a server at a time.
pub const SFTP_READ: usize = 64 * 1024;
/// What such a server calls an open file, bytes.
pub const SFTP_HANDLE_MAX: usize = 256;
/// What such a server says about an error, bytes.
pub const SFTP_WORDS_MAX: usize = 512;
/// What ssh complains of, bytes; the end is kept.
pub const SFTP_COMPLAINTS_MAX: usize = 4096;
/// A path on such a server, bytes (the kernel's own bound).
pub const SFTP_PATH_MAX: usize = 4096;
/// Folders that are listed there at a time.
pub const SFTP_FOLDERS: usize = 64;
/// Requests for more of one folder that are on their way at a time.
pub const SFTP_FOLDER_AHEAD: usize = 16;
/// Connections to such a server.
pub const SFTP_CONNECTIONS: usize = 4;
/// A connection on which nothing moves for so long is given up, seconds.
pub const SFTP_SILENCE_SECONDS: u64 = 60;
/// How often a request whose connection broke is sent, the first time included.
pub const SFTP_TRIES: u32 = 7;
/// The pause before the second of these, milliseconds; each further one is twice as long: half a minute
/// in all.
pub const SFTP_PAUSE_MILLIS: u64 = 500;

// --- copies ------------------------------------------------------------------------------------

/// Bytes of files that a copy reads at a time, to be cut anew: so many are on their way three times over.
pub const COPY_BATCH_BYTES: usize = 32 * 1024 * 1024;
/// Entries and parts of files that it reads at a time.
pub const COPY_BATCH_STEPS: usize = 16_384;
/// Files of several names whose content a copy remembers: those beyond are read once for each name.
pub const COPY_LINKED_MAX: usize = 262_144;
/// A file that is held against another of a like name, in a folder where it is new: bytes of that one.
pub const COPY_LIKE_MIN: u64 = 16 * 1024;
