//! What can be given on the command line.

use super::copy::{Against, CopyArgs, Like};
use super::quantity::{self, Rate};
use super::repair::RepairCommand;
use crate::format::parity::Parity;
use crate::maintenance::{GroupBy, Part};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

/// Encrypted, deduplicated backups of many tenants' exports
#[derive(Parser)]
#[command(name = "estrato", version, about, disable_help_subcommand = true, max_term_width = 100)]
#[command(after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done but some source could not be read, \
4 check found damage, 10 no repository, 11 busy, 12 wrong key, 130 interrupted.")]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Args, Clone)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Where the repository lies [default: a folder under the user's data folder]
    #[arg(short, long, global = true, env = "ESTRATO_REPO", value_name = "LOCATION")]
    pub repo: Option<String>,
    /// The tenant
    #[arg(short, long, global = true, env = "ESTRATO_TENANT", default_value = "default", value_name = "NAME")]
    pub tenant: String,
    /// The key file [default: the one under the user's configuration folder]
    #[arg(long, global = true, env = "ESTRATO_KEY_FILE", value_name = "PATH")]
    pub key_file: Option<PathBuf>,
    /// A file whose first line is the password
    #[arg(long, global = true, value_name = "PATH")]
    pub password_file: Option<PathBuf>,
    /// A command that prints the password
    #[arg(long, global = true, value_name = "COMMAND")]
    pub password_command: Option<String>,
    /// Where local state is kept [default: under the user's cache folder]
    #[arg(long, global = true, value_name = "PATH")]
    pub cache_dir: Option<PathBuf>,
    /// Keep no local state, and use none
    #[arg(long, global = true, conflicts_with = "cache_dir")]
    pub no_cache: bool,
    /// Keep no more than so many bytes of copies of what lies on a far store, such as 500M or 10G
    #[arg(long, global = true, value_name = "SIZE", default_value = "4G",
        env = "ESTRATO_CACHE_SIZE", value_parser = quantity::size)]
    pub cache_size: u64,
    /// Send no more than so many bytes per second, such as 500k or 10M
    #[arg(long, global = true, value_name = "RATE", default_value = "0", hide_default_value = true,
        value_parser = quantity::rate)]
    pub limit_upload: Rate,
    /// Receive no more than so many bytes per second
    #[arg(long, global = true, value_name = "RATE", default_value = "0", hide_default_value = true,
        value_parser = quantity::rate)]
    pub limit_download: Rate,
    /// Print one JSON document
    #[arg(long, global = true)]
    pub json: bool,
    /// Print less
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Print more
    #[arg(short, long, global = true)]
    pub verbose: bool,
    /// Show no progress
    #[arg(long, global = true)]
    pub no_progress: bool,
}

#[derive(Subcommand)]
pub enum Command {
    /// Make a new repository and its first tenant
    Init(InitArgs),
    /// Take a snapshot of files, of standard input, or of what a command prints
    #[command(visible_alias = "backup")]
    Snapshot(SnapshotArgs),
    /// List snapshots
    Snapshots(FilterArgs),
    /// List what a snapshot holds
    Ls(LsArgs),
    /// Restore a snapshot, or a part of one
    Restore(RestoreArgs),
    /// Check that the repository is whole
    Check(CheckArgs),
    /// Drop snapshots by a policy, or by name; 'prune' then frees what they needed
    Forget(Box<ForgetArgs>),
    /// Keep snapshots from being forgotten, whatever a policy says
    #[command(subcommand)]
    Hold(HoldCommand),
    /// Delete what no snapshot needs, beside backups that do not stop
    Prune(PruneArgs),
    /// Mend what is damaged
    #[command(subcommand)]
    Repair(RepairCommand),
    /// Bring snapshots to another repository or tenant, or mirror the repository as it lies
    Copy(Box<CopyArgs>),
    /// Show what is stored: plain and delta frames, and what deltas save
    Stats,
    /// Add, list, remove, rotate and show keys
    #[command(subcommand)]
    Key(KeyCommand),
    /// Add, change, list and erase tenants
    #[command(subcommand)]
    Tenant(TenantCommand),
    /// Find out what a store can do, and what to allow there
    #[command(subcommand)]
    Store(StoreCommand),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Args)]
pub struct PruneArgs {
    /// Print what would be done, and do nothing
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Leave so much unused, in hundredths of what is needed: less takes longer, since packs are written anew
    #[arg(long, value_name = "PERCENT", default_value = "5%", value_parser = quantity::percent)]
    pub max_unused: f64,
    /// Write no more than so many bytes of packs anew
    #[arg(long, value_name = "SIZE", value_parser = quantity::size)]
    pub max_repack: Option<u64>,
    /// Delete packs only once nothing has named them for so long, for restores that read them still, such as
    /// those from cold storage: 3d, or with s, m or h behind it [default: at once]
    #[arg(long, value_name = "TIME", value_parser = quantity::time)]
    pub keep_condemned: Option<Duration>,
    /// First write anew what rests badly: shorten the chains that the newest snapshots rest on, and make deltas of
    /// what a writer's key had to store whole
    #[arg(long)]
    pub optimise: bool,
    /// Of the newest snapshots nothing rests deeper than this; 0: on nothing
    #[arg(long, value_name = "DEPTH", default_value_t = 1, requires = "optimise",
        value_parser = clap::value_parser!(u8).range(..=crate::limits::FRAME_DEPTH_MAX as i64))]
    pub max_depth: u8,
}

#[derive(ValueEnum, Clone, Copy)]
pub enum CipherArg {
    /// AES-256-GCM
    #[value(name = "aes-256-gcm")]
    Aes,
    /// ChaCha20-Poly1305
    #[value(name = "chacha20-poly1305")]
    ChaCha,
}

/// What opens a new slot.
#[derive(Args, Default)]
pub struct NewSecret {
    /// Write a fresh key to this file (mode 0600)
    #[arg(long, value_name = "PATH", group = "secret")]
    pub new_key_file: Option<PathBuf>,
    /// Ask for a new password (or take it from ESTRATO_NEW_PASSWORD)
    #[arg(long, group = "secret")]
    pub new_password: bool,
}

#[derive(Args)]
pub struct InitArgs {
    #[command(flatten)]
    pub secret: NewSecret,
    /// The cipher [default: AES-256-GCM where the processor has instructions for it]
    #[arg(long, value_enum)]
    pub cipher: Option<CipherArg>,
    /// Add so much parity to each pack, that mends it when it is damaged
    #[arg(long, value_name = "PERCENT", default_value = "0%", value_parser = quantity::parity)]
    pub parity: Parity,
    #[command(flatten)]
    pub like: Like,
}

#[derive(ValueEnum, Clone, Copy)]
pub enum KindArg {
    /// Every byte of the source
    Full,
    /// What changed since the newest snapshot of the same source
    Incremental,
    /// What changed since the newest full one
    Differential,
}

#[derive(ValueEnum, Clone, Copy)]
pub enum DeltaArg {
    /// Where that saves more than it costs to read what was stored
    Auto,
    /// Where that saves anything
    Always,
    /// Never: what is new is stored whole
    Never,
}

#[derive(Args)]
pub struct SnapshotArgs {
    /// Files and folders
    #[arg(value_name = "PATH", required_unless_present_any = ["stdin", "command"])]
    pub paths: Vec<PathBuf>,
    /// What is read, and against what it is compared
    #[arg(long, value_enum, default_value = "incremental")]
    pub kind: KindArg,
    /// A label; may be given several times
    #[arg(long, value_name = "TAG")]
    pub tag: Vec<String>,
    /// The machine's name [default: this machine's]
    #[arg(long, value_name = "NAME")]
    pub host: Option<String>,
    /// The moment that the snapshot shows [default: now]
    #[arg(long, value_name = "TIME")]
    pub time: Option<String>,
    /// Leave out what matches, as in a .gitignore; may be given several times
    #[arg(long, value_name = "PATTERN")]
    pub exclude: Vec<String>,
    /// Leave out what matches a line of this file; may be given several times
    #[arg(long, value_name = "PATH")]
    pub exclude_file: Vec<PathBuf>,
    /// Do not go into other file systems
    #[arg(long)]
    pub one_file_system: bool,
    /// Store what is new of a file as what it replaces
    #[arg(long, value_enum, default_value = "auto")]
    pub delta: DeltaArg,
    /// The zstd level of what is stored whole, 1 to 19: higher ones take longer and store less
    #[arg(long, value_name = "LEVEL", default_value_t = crate::limits::ZSTD_LEVEL,
        value_parser = clap::value_parser!(i32).range(1..=19))]
    pub compression: i32,
    /// Only tell what would be read
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Make the repository and a key first, if there is none
    #[arg(long)]
    pub init: bool,
    /// Read standard input
    #[arg(long, requires = "name", conflicts_with_all = ["paths", "command"])]
    pub stdin: bool,
    /// The file name under which a stream is stored
    #[arg(long, value_name = "NAME", conflicts_with = "paths")]
    pub name: Option<String>,
    /// Run what follows '--', and store what it prints; if it fails there is no snapshot
    #[arg(long, requires = "name", num_args = 0..=1, default_missing_value = "", hide_default_value = true, value_name = "")]
    pub command: Option<String>,
    /// The command and its arguments
    #[arg(last = true, value_name = "CMD", requires = "command")]
    pub words: Vec<String>,
}

#[derive(Args, Clone, Default)]
pub struct FilterArgs {
    /// Only snapshots with this tag; several must all be there
    #[arg(long, value_name = "TAG")]
    pub tag: Vec<String>,
    /// Only snapshots of this machine; of several, any
    #[arg(long, value_name = "NAME")]
    pub host: Vec<String>,
    /// Only snapshots of this path; of several, any
    #[arg(long, value_name = "PATH")]
    pub path: Vec<PathBuf>,
    /// Only snapshots of this moment or before
    #[arg(long, value_name = "TIME")]
    pub at: Option<String>,
}

#[derive(Args)]
pub struct LsArgs {
    /// An id, its beginning, 'latest' or 'latest~N'; and a path in it
    #[arg(value_name = "SNAP[:PATH]", default_value = "latest")]
    pub snapshot: String,
    #[command(flatten)]
    pub filter: FilterArgs,
    /// List folders below folders too
    #[arg(short = 'R', long)]
    pub recursive: bool,
    /// Show mode, owner, size and time
    #[arg(short, long)]
    pub long: bool,
}

#[derive(Args)]
pub struct RestoreArgs {
    /// An id, its beginning, 'latest' or 'latest~N'; and a path in it
    #[arg(value_name = "SNAP[:PATH]", required_unless_present = "at")]
    pub snapshot: Option<String>,
    /// The folder to restore to; must be given, but for --plan
    #[arg(long, value_name = "DIR", required_unless_present = "plan")]
    pub target: Option<PathBuf>,
    #[command(flatten)]
    pub filter: FilterArgs,
    /// Restore only what matches, and what lies below it; may be given several times
    #[arg(long, value_name = "PATTERN")]
    pub include: Vec<String>,
    /// Leave out what matches; may be given several times
    #[arg(long, value_name = "PATTERN")]
    pub exclude: Vec<String>,
    /// Remove from the target what the snapshot does not have
    #[arg(long)]
    pub delete: bool,
    /// Only tell what would be restored
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// List the packs that would be read, and their sizes, as if nothing were there; restore nothing
    #[arg(long, conflicts_with = "dry_run")]
    pub plan: bool,
    /// Run this before any data is read; it finds the names of the packs that will be, one on a line, on its
    /// standard input, and ESTRATO_REPO in its environment. If it fails nothing is restored
    #[arg(long, value_name = "COMMAND", conflicts_with_all = ["dry_run", "plan"])]
    pub warm_up_command: Option<String>,
    /// Then wait so long: seconds, or with s, m, h or d behind it
    #[arg(long, value_name = "TIME", requires = "warm_up_command", value_parser = quantity::time)]
    pub warm_up_wait: Option<Duration>,
    /// Choose owners and groups by number, never by name
    #[arg(long)]
    pub numeric_owner: bool,
    /// Compare every file with the snapshot once it is written
    #[arg(long)]
    pub verify: bool,
}

#[derive(Args)]
pub struct CheckArgs {
    /// Read, open and hash everything that is stored, or a part: 5% or 10G of it, what was read longest ago
    /// first, or the third of seven parts (3/7)
    #[arg(
        long,
        value_name = "PART",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "100%",
        value_parser = quantity::part
    )]
    pub read_data: Option<Part>,
    /// Of that, only what no check on this machine found whole within so long: 30d, or with s, m or h behind it
    #[arg(long, value_name = "TIME", requires = "read_data", value_parser = quantity::time)]
    pub older_than: Option<Duration>,
    /// Take no key: hash every object of every tenant, and name what lies there that should not; of packs,
    /// a part (--read-data=3/7) may be named
    #[arg(long, conflicts_with = "older_than")]
    pub store_only: bool,
    #[command(flatten)]
    pub against: Against,
}

/// What forms groups, divided by commas; nothing forms them by who signed alone.
fn group_by(text: &str) -> Result<GroupBy, String> {
    let mut by = GroupBy { host: false, paths: false, tags: false };
    for word in text.split(',').filter(|word| !word.is_empty()) {
        match word {
            "host" => by.host = true,
            "paths" => by.paths = true,
            "tags" => by.tags = true,
            _ => return Err("give some of host, paths and tags, divided by commas".into()),
        }
    }
    Ok(by)
}

#[derive(Args)]
pub struct ForgetArgs {
    /// Forget these, and no others: ids, their beginnings, 'latest' or 'latest~N'
    #[arg(value_name = "SNAPSHOT", conflicts_with_all = ["keep_last", "keep_hourly", "keep_daily", "keep_weekly",
        "keep_monthly", "keep_yearly", "keep_within", "keep_tag", "group_by"])]
    pub snapshots: Vec<String>,
    /// Keep the newest N of each group
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub keep_last: u32,
    /// Keep the newest of each of the last N hours that have any
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub keep_hourly: u32,
    /// The same of days
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub keep_daily: u32,
    /// The same of weeks, which begin on Monday (ISO)
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub keep_weekly: u32,
    /// The same of months
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub keep_monthly: u32,
    /// The same of years
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub keep_yearly: u32,
    /// Keep all that are no older than this before the newest of their group: 12h, 30d, 8w, 6m (months) or 1y6m
    #[arg(long, value_name = "DURATION", value_parser = quantity::span)]
    pub keep_within: Option<jiff::Span>,
    /// Keep all with this tag; may be given several times
    #[arg(long, value_name = "TAG")]
    pub keep_tag: Vec<String>,
    /// What forms groups, beside who signed: some of host, paths and tags
    #[arg(long, value_name = "LIST", default_value = "host,paths", value_parser = group_by)]
    pub group_by: GroupBy,
    /// Whose days, weeks and months they are, such as Europe/Rome [default: this machine's]
    #[arg(long, value_name = "TZ")]
    pub timezone: Option<String>,
    #[command(flatten)]
    pub filter: FilterArgs,
    /// Only tell what would be kept and dropped, and why
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Then delete what no snapshot needs any more, as 'estrato prune' does, if anything was forgotten
    #[arg(long)]
    pub prune: bool,
    /// Let a group go of which no rule keeps anything
    #[arg(long)]
    pub allow_empty_group: bool,
}

#[derive(Subcommand)]
pub enum HoldCommand {
    /// Put snapshots under hold; needs a full key
    Add {
        /// Ids, their beginnings, 'latest' or 'latest~N'
        #[arg(value_name = "SNAPSHOT", required = true)]
        snapshots: Vec<String>,
        /// Why, for whoever lists holds
        #[arg(long, default_value = "", hide_default_value = true, value_name = "TEXT")]
        why: String,
    },
    /// End holds; needs a full key
    Remove {
        /// Ids, or their beginnings
        #[arg(value_name = "SNAPSHOT", required = true)]
        snapshots: Vec<String>,
    },
    /// List holds
    List,
}

#[derive(ValueEnum, Clone, Copy)]
pub enum RoleArg {
    /// Takes snapshots, reads none
    Writer,
    /// Everything
    Full,
}

#[derive(Subcommand)]
pub enum KeyCommand {
    /// Admit another key; needs a full one
    Add {
        /// What it may do
        #[arg(long, value_enum, default_value = "full")]
        role: RoleArg,
        /// What to call it
        #[arg(long, default_value = "", value_name = "TEXT")]
        label: String,
        #[command(flatten)]
        secret: NewSecret,
        /// The public half of someone's key ('key show' prints it), or @FILE that holds it
        #[arg(long, value_name = "TEXT|@FILE", group = "secret")]
        recipient: Option<String>,
    },
    /// List keys
    List,
    /// Remove a key by label, or by the beginning of its slot or signer
    Remove {
        /// Which
        #[arg(value_name = "KEY")]
        which: String,
    },
    /// Give a key another secret: a new slot in the place of the old one
    Rotate(super::rotate::RotateArgs),
    /// Give the tenant a new key pair, to which all is sealed from now on
    Rekey(super::rekey::RekeyArgs),
    /// The key of whoever keeps the repository, with a slot in every tenant
    #[command(subcommand)]
    Operator(super::operator::OperatorCommand),
    /// Show the key in use, to be kept on paper, and its public half
    Show {
        /// Make a key that opens nothing yet: its public half is for 'key add --recipient'
        #[arg(long, value_name = "PATH")]
        new_key_file: Option<PathBuf>,
        /// Show only the public half
        #[arg(long)]
        recipient: bool,
    },
}

#[derive(ValueEnum, Clone, Copy)]
pub enum HolderArg {
    /// Takes snapshots with a writer key; deletes and replaces nothing but its sessions
    Writer,
    /// Restores and checks with a full key; writes nothing
    Reader,
    /// Whatever a full key does
    Full,
}

#[derive(Subcommand)]
pub enum StoreCommand {
    /// Write, read, list and delete some objects of its own, and print what holds
    Test {
        /// The store [default: where the repository lies]
        #[arg(value_name = "LOCATION")]
        location: Option<String>,
    },
    /// Print what the credentials of each role should be allowed for the tenant, and no more
    Policy {
        /// The store [default: where the repository lies]
        #[arg(value_name = "LOCATION")]
        location: Option<String>,
        /// Of this role alone
        #[arg(long, value_enum)]
        role: Option<HolderArg>,
    },
}

#[derive(Subcommand)]
pub enum TenantCommand {
    /// Make a tenant; without a new key, the one in use opens it too
    Add {
        /// Its name
        name: String,
        #[command(flatten)]
        secret: NewSecret,
        /// The cipher [default: AES-256-GCM where the processor has instructions for it]
        #[arg(long, value_enum)]
        cipher: Option<CipherArg>,
        /// Add so much parity to each pack, that mends it when it is damaged
        #[arg(long, value_name = "PERCENT", default_value = "0%", value_parser = quantity::parity)]
        parity: Parity,
        #[command(flatten)]
        operator: super::operator::OperatorArgs,
        #[command(flatten)]
        like: Like,
    },
    /// Change what new packs of the tenant in use are made of; those that are there stay as they are
    Set {
        /// Add so much parity to each pack, that mends it when it is damaged; 0% for none
        #[arg(long, value_name = "PERCENT", value_parser = quantity::parity)]
        parity: Parity,
    },
    /// List tenants, and those in which the operator has no slot
    List {
        #[command(flatten)]
        operator: super::operator::OperatorArgs,
    },
    /// Destroy a tenant: its slots first, then all that it holds
    Erase(super::erase::EraseArgs),
}
