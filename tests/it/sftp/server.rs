//! An sshd of the test's own, with keys of its own, on a free port of loopback; gone with the test.

use crate::support::is_root;
use estrato::store::Sftp;
use rustix::process::{Pid, Signal, kill_process_group};
use std::ffi::OsString;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Who may log in, and what the server of SFTP is told.
pub struct Account {
    pub user: String,
    pub options: String,
}

impl Account {
    /// Whoever runs the test.
    pub fn own() -> Self {
        let output = Command::new("id").arg("-un").output().unwrap();
        Self { user: String::from_utf8(output.stdout).unwrap().trim().to_owned(), options: String::new() }
    }
}

/// The server, as long as it is not killed.
pub struct Server {
    folder: PathBuf,
    user: String,
    pub port: u16,
    child: Option<Child>,
}

/// Runs a program to its end.
fn done(command: &mut Command) {
    let ran = command.output().unwrap();
    assert!(ran.status.success(), "{command:?}: {}", String::from_utf8_lossy(&ran.stderr));
}

fn make_key(at: &Path) {
    done(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"]).arg(at));
}

impl Server {
    /// `None`, said aloud, where there is no sshd.
    pub fn start(folder: &Path, account: Account) -> Option<Self> {
        let sshd = Path::new("/usr/sbin/sshd");
        if !sshd.exists() || Command::new("ssh").arg("-V").output().is_err() {
            eprintln!("SKIPPED: a store over SFTP needs ssh and /usr/sbin/sshd");
            return None;
        }
        fs::create_dir_all(folder).unwrap();
        if is_root() {
            // Where sshd, started by root, puts who has not logged in yet.
            fs::create_dir_all("/run/sshd").unwrap();
            // Another user reads which keys are his.
            for folder in [folder, folder.parent().unwrap()] {
                fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
            }
        }
        for key in ["host", "other-host", "user", "other-user"] {
            make_key(&folder.join(key));
        }
        fs::copy(folder.join("user.pub"), folder.join("authorized")).unwrap();
        let mut server = Self { folder: folder.to_owned(), user: account.user, port: 0, child: None };
        server.port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        server.know("host");
        let at = folder.display();
        let config = format!(
            "ListenAddress 127.0.0.1:{}\nHostKey {at}/host\nAuthorizedKeysFile {at}/authorized\nPidFile none\n\
             StrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
             PermitRootLogin prohibit-password\nMaxStartups 100\nLogLevel INFO\n\
             Subsystem sftp internal-sftp {}\n",
            server.port, account.options
        );
        fs::write(folder.join("config"), config).unwrap();
        server.restart();
        Some(server)
    }

    /// Starts it, on the same port and with the same key.
    pub fn restart(&mut self) {
        assert!(self.child.is_none());
        let log = fs::File::options().create(true).append(true).open(self.folder.join("log")).unwrap();
        let mut command = Command::new("/usr/sbin/sshd");
        command.args(["-D", "-e", "-f"]).arg(self.folder.join("config"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).process_group(0);
        self.child = Some(command.spawn().unwrap());
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let log = || fs::read_to_string(self.folder.join("log")).unwrap();
            assert!(began.elapsed() < Duration::from_secs(10), "sshd does not start: {}", log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Kills it, with all that serve connections.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let group = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
            let _ = kill_process_group(group, Signal::KILL);
            child.wait().unwrap();
        }
    }

    /// Has its users believe that this is its key.
    pub fn know(&self, key: &str) {
        let key = fs::read_to_string(self.folder.join(format!("{key}.pub"))).unwrap();
        fs::write(self.folder.join("known"), format!("[127.0.0.1]:{} {key}", self.port)).unwrap();
    }

    /// How it is reached, with a key.
    pub fn ssh_with(&self, key: &str) -> String {
        let at = self.folder.display();
        format!(
            "ssh -F /dev/null -i '{at}/{key}' -o IdentitiesOnly=yes -o IdentityAgent=none \
             -o UserKnownHostsFile='{at}/known' -o GlobalKnownHostsFile=/dev/null -o StrictHostKeyChecking=yes"
        )
    }

    /// How it is reached.
    pub fn ssh(&self) -> String {
        self.ssh_with("user")
    }

    pub fn url(&self, folder: &Path) -> String {
        format!("sftp://{}@127.0.0.1:{}{}", self.user, self.port, folder.display())
    }

    /// A store in this process, at a path as a location has it after the port and `/`.
    pub fn store_by(&self, path: &str) -> Sftp {
        self.store_through(self.port, path)
    }

    /// The same, where another port leads there.
    pub fn store_through(&self, port: u16, path: &str) -> Sftp {
        let host_key = format!("HostKeyAlias=[127.0.0.1]:{}", self.port);
        let words = shlex::split(&self.ssh()).unwrap().into_iter().chain(["-o".into(), host_key]);
        Sftp::by(&format!("//{}@127.0.0.1:{port}/{path}", self.user), words.map(OsString::from).collect()).unwrap()
    }

    pub fn store(&self, folder: &Path) -> Sftp {
        self.store_by(folder.to_str().unwrap().strip_prefix('/').unwrap())
    }

    /// How many ssh programs there are that know it.
    pub fn programs(&self) -> usize {
        let known = format!("{}/known", self.folder.display());
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let lines = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
        lines.filter(|line| line.starts_with(b"ssh\0") && String::from_utf8_lossy(line).contains(&known)).count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
