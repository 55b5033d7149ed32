//! From the global options to an open repository: where it lies, which key.

use super::args::{CipherArg, Global, NewSecret};
use super::output;
use super::progress::Progress;
use crate::clock::{Clock, SystemClock};
use crate::crypto::aead;
use crate::crypto::keyfile::KeyFile;
use crate::crypto::random;
use crate::crypto::slot::Credential;
use crate::crypto::stack;
use crate::error::{Error, Result};
use crate::format::header::Cipher;
use crate::limits;
use crate::monitor::{Event, Monitor};
use crate::repo::{self, Access, LocalFolder, Repository, Secret};
use crate::store::{self, Cached, Rates, Store};
use secrecy::SecretString;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal as _, Read, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, OnceLock};
use zeroize::Zeroizing;

/// The global options, and what follows from them.
pub struct Context {
    /// The options.
    pub global: Global,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Tells what goes on.
    pub progress: Arc<Progress>,
    /// What every store keeps to.
    rates: Rates,
    /// The local state of the repository that was opened.
    local: OnceLock<LocalFolder>,
    reached: OnceLock<Reached>,
}

/// The store that the repository lies on.
#[derive(Clone)]
struct Reached {
    store: Arc<dyn Store>,
    /// The same, where it is far and copies are kept of it.
    copies: Option<Arc<Cached>>,
}

/// True for an error that another repository than the one expected would bring about.
fn is_of_what_lies_there(e: &Error) -> bool {
    e.is_damage() || matches!(e, Error::NoRepository { .. } | Error::NoTenant { .. } | Error::WrongKey { .. })
}

/// A folder of the user's: from the environment, or below the home folder.
fn user_folder(variable: &str, below_home: &str) -> Result<PathBuf> {
    let absolute = |v: std::ffi::OsString| Some(PathBuf::from(v)).filter(|p| p.is_absolute());
    if let Some(folder) = std::env::var_os(variable).and_then(absolute) {
        return Ok(folder.join("estrato"));
    }
    let home = std::env::var_os("HOME").and_then(absolute);
    home.map(|home| home.join(below_home).join("estrato")).ok_or_else(|| {
        Error::Invalid(format!("neither HOME nor {variable} names a folder: name the files by options"))
    })
}

/// Where the key lies if no option says otherwise.
pub fn default_key_file() -> Result<PathBuf> {
    Ok(user_folder("XDG_CONFIG_HOME", ".config")?.join("key"))
}

impl Context {
    /// From the options.
    pub fn new(global: Global) -> Self {
        let bar = !global.no_progress && !global.quiet && !global.json && std::io::stderr().is_terminal();
        let progress = Arc::new(Progress::new(bar, global.quiet, global.json));
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        let monitor: Arc<dyn Monitor> = Arc::<Progress>::clone(&progress);
        let rates = Rates::new(global.limit_upload.0, global.limit_download.0, &clock, &monitor);
        Self { global, clock, progress, rates, local: OnceLock::new(), reached: OnceLock::new() }
    }

    /// The same program with other options, for a second repository.
    pub fn beside(&self, global: Global) -> Self {
        let (clock, progress) = (Arc::clone(&self.clock), Arc::clone(&self.progress));
        Self { global, clock, progress, rates: self.rates.clone(), local: OnceLock::new(), reached: OnceLock::new() }
    }

    /// Where the repository lies.
    pub fn location(&self) -> Result<String> {
        match &self.global.repo {
            Some(repo) => Ok(repo.clone()),
            None => {
                Ok(user_folder("XDG_DATA_HOME", ".local/share")?.join("repository").to_string_lossy().into_owned())
            }
        }
    }

    /// The store.
    pub fn store(&self) -> Result<Arc<dyn Store>> {
        Ok(self.reached()?.store)
    }

    /// The store at a location, which keeps to the rates. Nothing is asked of it yet.
    pub fn store_at(&self, location: &str) -> Result<Arc<dyn Store>> {
        store::open_limited(location, self.rates.clone())
    }

    /// From now on the store itself, with no copies between: for whoever looks whether all is there.
    pub fn believe_no_copy(&self) -> Result<()> {
        let reached = Reached { store: self.store_at(&self.location()?)?, copies: None };
        self.reached.set(reached).map_err(|_| Error::Invalid("the store is in use already".into()))
    }

    fn reached(&self) -> Result<Reached> {
        if let Some(reached) = self.reached.get() {
            return Ok(reached.clone());
        }
        let store = self.store_at(&self.location()?)?;
        let cache = self.cache()?.filter(|_| store.is_far());
        let most = self.global.cache_size;
        let kept = |cache: PathBuf| Cached::new(Arc::clone(&store), &cache.join("far"), most, repo::lasting);
        let copies = cache.map(kept).map(Arc::new);
        let store = copies.clone().map_or(store, |copies| copies as Arc<dyn Store>);
        Ok(self.reached.get_or_init(|| Reached { store, copies }).clone())
    }

    /// The same options for another tenant, or another place.
    pub fn at(&self, repo: Option<String>, tenant: &str) -> Self {
        let mut global = self.global.clone();
        global.repo = repo.or(global.repo);
        tenant.clone_into(&mut global.tenant);
        Self::new(global)
    }

    /// Where local state is kept; `None` if none is.
    pub fn cache(&self) -> Result<Option<PathBuf>> {
        match &self.global.cache_dir {
            _ if self.global.no_cache => Ok(None),
            Some(folder) => Ok(Some(folder.clone())),
            None => user_folder("XDG_CACHE_HOME", ".cache").map(Some),
        }
    }

    /// The key file in use: named, or the user's own if it is there.
    pub fn key_file(&self) -> Result<Option<PathBuf>> {
        if self.global.key_file.is_some() {
            return Ok(self.global.key_file.clone());
        }
        let default = default_key_file();
        Ok(default.ok().filter(|path| path.exists()))
    }

    /// What opens a slot: a password if one was given, or else the key file.
    pub fn credential(&self) -> Result<Credential> {
        if let Some(password) = self.password()? {
            return Ok(Credential::Password(password));
        }
        match self.key_file()? {
            Some(path) => read_key(&path).map(Credential::KeyFile),
            None => Err(Error::NoKey {
                why: "no key was given, and there is none under the user's configuration folder".into(),
            }),
        }
    }

    fn password(&self) -> Result<Option<SecretString>> {
        if let Some(path) = &self.global.password_file {
            let text = read_small("password file", path)?;
            return Ok(Some(first_line(&text).into()));
        }
        if let Some(command) = &self.global.password_command {
            return password_of(command).map(Some);
        }
        // What is named outweighs what lies about in the environment.
        if self.global.key_file.is_some() {
            return Ok(None);
        }
        Ok(std::env::var("ESTRATO_PASSWORD").ok().filter(|p| !p.is_empty()).map(SecretString::from))
    }

    /// Opens the repository for the tenant.
    pub fn open(&self) -> Result<Repository> {
        // Where there is no repository, no key helps: say that first.
        match repo::repository_id(&*self.store()?) {
            Err(e @ (Error::NoRepository { .. } | Error::Newer { .. } | Error::Store(_))) => Err(e),
            _ => self.open_by(|| self.credential()),
        }
    }

    /// The same, with the key in this file.
    pub fn open_with_key(&self, path: &Path) -> Result<Repository> {
        self.open_by(|| read_key(path).map(Credential::KeyFile))
    }

    /// The same, with a key that is at hand.
    pub fn open_as(&self, credential: Credential) -> Result<Repository> {
        let opened = self.open_with(credential);
        stack::wipe();
        opened
    }

    fn open_by(&self, credential: impl Fn() -> Result<Credential>) -> Result<Repository> {
        // In a frame of its own, so that nothing of the key is left in one that stays.
        #[inline(never)]
        fn opened(context: &Context, credential: impl Fn() -> Result<Credential>) -> Result<Repository> {
            context.open_with(credential()?)
        }
        let mut repo = opened(self, &credential);
        if repo.as_ref().is_err_and(is_of_what_lies_there)
            && let Some(copies) = self.reached()?.copies
            && copies.forget_unseen()
        {
            // What was read here may be of a repository that lay there before.
            repo = opened(self, &credential);
        }
        stack::wipe();
        repo
    }

    fn open_with(&self, credential: Credential) -> Result<Repository> {
        let repo = Repository::open(Access {
            store: self.store()?,
            clock: Arc::clone(&self.clock),
            tenant: self.global.tenant.clone(),
            credential,
            cache: self.cache()?,
        })?;
        if !repo.creates_if_absent() {
            self.progress.event(Event::Warning(format!("{} {}", repo.store().describe(), repo::UNABLE)));
        }
        for damaged in repo.salvaged() {
            let text = format!("{damaged}; what is there can be read, and nothing is written");
            self.progress.event(Event::Warning(text));
        }
        self.local.get_or_init(|| repo.local().clone());
        self.tell_local();
        Ok(repo)
    }

    /// Tells what was wrong with local state since this was asked last.
    pub fn tell_local(&self) {
        for warning in self.local.get().map(LocalFolder::take_warnings).unwrap_or_default() {
            self.progress.event(Event::Warning(warning));
        }
    }

    /// The options that lead to this repository and key again, for a command that is printed.
    pub fn options(&self, key_file: Option<&Path>) -> String {
        let mut out = String::new();
        let mut add = |name: &str, value: &str| {
            out.push_str(&format!(" {name} {}", output::shell_word(value)));
        };
        let full = |path: &str| {
            std::path::absolute(path).map_or_else(|_| path.to_owned(), |p| p.to_string_lossy().into_owned())
        };
        if let Some(repo) = &self.global.repo {
            // What is no path means the same from everywhere.
            let path = self.store().ok().and_then(|store| Some(store.local_path()?.to_string_lossy().into_owned()));
            add("-r", path.as_ref().unwrap_or(repo));
        }
        if self.global.tenant != "default" {
            add("-t", &self.global.tenant);
        }
        if let Some(path) = key_file.or(self.global.key_file.as_deref()) {
            let path = path.to_string_lossy();
            // A name that stands for a file the user has elsewhere is no path here.
            add("--key-file", &if Path::new(&*path).exists() { full(&path) } else { path.into_owned() });
        }
        if let Some(path) = &self.global.password_file {
            add("--password-file", &full(&path.to_string_lossy()));
        }
        if let Some(command) = &self.global.password_command {
            add("--password-command", command);
        }
        out
    }

    /// What a new slot is made for, as far as options say.
    pub fn new_secret(&self, secret: &NewSecret) -> Result<Option<Secret>> {
        if let Some(path) = &secret.new_key_file {
            return write_new_key(path).map(|key| Some(Secret::KeyFile(key)));
        }
        if secret.new_password {
            return ask_new_password().map(|p| Some(Secret::Password(p)));
        }
        Ok(None)
    }
}

/// The cipher that an option names, or this machine's best.
pub fn cipher(arg: Option<CipherArg>) -> Cipher {
    match arg {
        Some(CipherArg::Aes) => Cipher::Aes256Gcm,
        Some(CipherArg::ChaCha) => Cipher::ChaCha20Poly1305,
        None => aead::preferred(),
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

/// A small text file of the user's.
fn read_small(what: &str, path: &Path) -> Result<Zeroizing<String>> {
    let fails = |why: String| Error::NoKey { why: format!("the {what} {}: {why}", path.display()) };
    let file = File::open(path).map_err(|e| fails(e.to_string()))?;
    read_secret(file).map_err(|e| fails(e.to_string()))
}

/// A small text, into memory that is wiped: a buffer that grew would leave copies behind.
fn read_secret(mut source: impl Read) -> io::Result<Zeroizing<String>> {
    let invalid = |why| io::Error::new(io::ErrorKind::InvalidData, why);
    let mut bytes = Zeroizing::new(vec![0; limits::KEY_FILE_MAX as usize + 1]);
    let mut len = 0;
    while len < bytes.len() {
        match source.read(&mut bytes[len..]) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    if len == bytes.len() {
        return Err(invalid("too large to be a key or password"));
    }
    let text = std::str::from_utf8(&bytes[..len]).map_err(|_| invalid("it is no text"))?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// The first line that a command prints.
fn password_of(command: &str) -> Result<SecretString> {
    let fails = |why: String| Error::NoKey { why: format!("the password command {why}") };
    let mut shell = Command::new("sh");
    let spawned = shell.arg("-c").arg(command).stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut child = spawned.map_err(|e| fails(format!("cannot be run: {e}")))?;
    let text = match child.stdout.take() {
        Some(output) => read_secret(output),
        None => Ok(Zeroizing::default()),
    };
    // Its output is closed by now: one that has more to say ends.
    let status = child.wait().map_err(|e| fails(format!("cannot be waited for: {e}")))?;
    if !status.success() {
        return Err(fails(format!("failed ({status})")));
    }
    let text = text.map_err(|e| fails(format!("printed no password: {e}")))?;
    Ok(first_line(&text).into())
}

/// Reads a key file.
pub fn read_key(path: &Path) -> Result<KeyFile> {
    let text = read_small("key file", path)?;
    KeyFile::from_text(&text).map_err(|e| Error::NoKey { why: format!("the key file {} {e}", path.display()) })
}

/// Text of a user's file, for a public key.
pub fn read_text(path: &Path) -> Result<String> {
    read_small("recipient's file", path).map(|text| text.to_string())
}

/// Writes a fresh key to a new file, durably, for this user alone.
pub fn write_new_key(path: &Path) -> Result<KeyFile> {
    let fails = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::AlreadyExists => {
            Error::Exists { what: format!("{}: a key file is never overwritten; it", path.display()) }
        }
        _ => Error::Local { path: path.to_path_buf(), why: e.to_string() },
    };
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(fails)?;
    let key = KeyFile(Zeroizing::new(random::bytes()?));
    let advice = "# An Estrato key: whoever has it can use the backups that it opens, and without it nothing can be restored.\n\
         # Keep a copy away from this machine and away from the backups, on paper if need be.\n";
    let line = key.to_text();
    let mut text = Zeroizing::new(String::with_capacity(advice.len() + line.len() + 1));
    text.extend([advice, line.as_str(), "\n"]);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(fails)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(fails)?;
    File::open(parent).and_then(|folder| folder.sync_all()).map_err(fails)?;
    Ok(key)
}

fn ask_new_password() -> Result<SecretString> {
    if let Some(password) = std::env::var("ESTRATO_NEW_PASSWORD").ok().filter(|p| !p.is_empty()) {
        return Ok(password.into());
    }
    let ask = |prompt: &str| {
        rpassword::prompt_password(prompt).map(SecretString::from).map_err(|e| Error::NoKey {
            why: format!("a new password cannot be asked for ({e}); give it in ESTRATO_NEW_PASSWORD"),
        })
    };
    let first = ask("New password: ")?;
    let second = ask("The same again: ")?;
    use secrecy::ExposeSecret as _;
    if first.expose_secret() != second.expose_secret() {
        return Err(Error::Invalid("the two passwords differ".into()));
    }
    if first.expose_secret().is_empty() {
        return Err(Error::Invalid("an empty password protects nothing".into()));
    }
    Ok(first)
}
