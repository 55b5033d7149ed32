//! Real servers on loopback, each a process of its own that ends with what started it. `./test`
//! installs them, at versions that stand there; where they are not, the tests that need them say
//! SKIPPED.

use crate::support::say;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take until it answers: they are slow to start on a busy machine.
const START: Duration = Duration::from_secs(60);

/// Where the servers are: `ESTRATO_TEST_SERVERS`, or `servers` in the build folder.
fn folder() -> PathBuf {
    if let Some(folder) = std::env::var_os("ESTRATO_TEST_SERVERS") {
        return folder.into();
    }
    // This binary is TARGET/PROFILE/deps/it-….
    let own = std::env::current_exe().unwrap();
    own.ancestors().nth(3).unwrap().join("servers")
}

/// A program of theirs; `None`, said aloud, where it is not installed.
fn program(name: &str) -> Option<PathBuf> {
    let path = folder().join(name);
    if path.exists() {
        return Some(path);
    }
    say(&format!("SKIPPED: {} is not there; ./test installs it", path.display()));
    None
}

/// The Python that the servers run by.
pub fn python() -> Option<PathBuf> {
    program("venv/bin/python3")
}

/// What moto takes for a signature where it looks at none.
const ANYBODY: &str = "Authorization: AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/s3/aws4_request";

/// A server that runs.
pub struct Server {
    child: Child,
    port: u16,
    start: Box<dyn Fn(u16) -> Command + Send + Sync>,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A command that ends when its parent does, however that ends.
fn tied(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

impl Server {
    fn started(start: impl Fn(u16) -> Command + Send + Sync + 'static) -> Self {
        let port = free_port();
        let child = start(port).spawn().unwrap();
        let mut server = Self { child, port, start: Box::new(start) };
        server.wait();
        server
    }

    fn wait(&mut self) {
        let began = Instant::now();
        while http(self.port, "GET", "/", &[]).is_none() {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the server ended: {status}");
            }
            assert!(began.elapsed() < START, "the server does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The head of the answer to a request without a body.
    pub fn head(&self, method: &str, path: &str) -> String {
        let answer = answer(self.port, method, path, &[ANYBODY]).unwrap();
        answer.split("\r\n\r\n").next().unwrap_or_default().to_lowercase()
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again, where it was.
    pub fn restart(&mut self) {
        self.child = (self.start)(self.port).spawn().unwrap();
        self.wait();
    }

    /// moto's S3 server, with a bucket `bucket`. If it is `strict`, it knows no access key.
    pub fn moto(strict: bool) -> Option<Self> {
        let moto = program("venv/bin/moto_server")?;
        let server = Self::started(move |port| {
            let mut command = tied(&moto);
            command.args(["-H", "127.0.0.1", "-p"]).arg(port.to_string());
            if strict {
                // That which asks whether it is there, and that which makes the bucket.
                command.env("INITIAL_NO_AUTH_ACTION_COUNT", "2");
            }
            command
        });
        assert_eq!(http(server.port, "PUT", "/bucket", &[]), Some(200));
        Some(server)
    }

    /// rclone's S3 server over a folder, whose folders are buckets. It ignores conditions.
    pub fn rclone(folder: &Path, key: &str, secret: &str) -> Option<Self> {
        let rclone = program("venv/bin/rclone")?;
        let (folder, pair) = (folder.to_path_buf(), format!("{key},{secret}"));
        Some(Self::started(move |port| {
            let mut command = tied(&rclone);
            command.env("RCLONE_CONFIG", "/dev/null").args(["serve", "s3", "--auth-key", &pair]);
            command.arg("--addr").arg(format!("127.0.0.1:{port}")).arg(&folder);
            command
        }))
    }

    /// Azurite, with a container `box`.
    pub fn azurite(place: &Path) -> Option<Self> {
        let azurite = program("node_modules/.bin/azurite-blob")?;
        let python = python()?;
        let place = place.to_path_buf();
        let server = Self::started(move |port| {
            let mut command = tied(&azurite);
            command.current_dir(&place).args(["--blobHost", "127.0.0.1", "--silent", "--inMemoryPersistence"]);
            command.args(["--disableTelemetry", "--blobPort"]).arg(port.to_string());
            command
        });
        let made = Command::new(python).args(["-c", MAKE_CONTAINER]).arg(server.port.to_string()).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Some(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Azurite's key, which is no secret.
pub const AZURE_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// Makes a container: Azure signs that like everything else.
const MAKE_CONTAINER: &str = r#"
import base64, hashlib, hmac, sys, urllib.request
from email.utils import formatdate
account, port = "devstoreaccount1", sys.argv[1]
key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
date, version = formatdate(usegmt=True), "2023-11-03"
text = "PUT\n" + "\n" * 11 + f"x-ms-date:{date}\nx-ms-version:{version}\n/{account}/{account}/box\nrestype:container"
signature = base64.b64encode(hmac.new(base64.b64decode(key), text.encode(), hashlib.sha256).digest()).decode()
url = f"http://127.0.0.1:{port}/{account}/box?restype=container"
headers = {"x-ms-date": date, "x-ms-version": version, "Authorization": f"SharedKey {account}:{signature}", "Content-Length": "0"}
urllib.request.urlopen(urllib.request.Request(url, method="PUT", headers=headers))
"#;

/// The status of a request without a body to a server on loopback; `None` if nobody answers.
pub fn http(port: u16, method: &str, path: &str, headers: &[&str]) -> Option<u16> {
    answer(port, method, path, headers)?.split_whitespace().nth(1)?.parse().ok()
}

fn answer(port: u16, method: &str, path: &str, headers: &[&str]) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(START)).unwrap();
    let headers: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
    let text = format!(
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 0\r\nConnection: close\r\n{headers}\r\n"
    );
    stream.write_all(text.as_bytes()).ok()?;
    let mut answer = Vec::new();
    // Some end the connection rudely, after they have said it.
    let _ = stream.read_to_end(&mut answer);
    Some(String::from_utf8_lossy(&answer).into_owned())
}
