//! What `sftp://[USER@]HOST[:PORT]/PATH` names, and the command that leads there. Holds no secrets and
//! takes none: those are ssh's affair.

use crate::error::{Error, Result};
use std::ffi::OsString;
use std::fmt;
use std::process::Command;

/// A folder on a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Location {
    user: Option<String>,
    /// A name or an address, without the brackets of one of IPv6.
    host: String,
    port: Option<u16>,
    /// The folder: from the root, or from the user's own if it does not begin with `/`.
    pub path: String,
}

fn invalid(why: &str) -> Error {
    Error::Invalid(format!(
        "{why}; write sftp://[USER@]HOST[:PORT]/PATH, or …/~/PATH for one below the user's folder"
    ))
}

/// True for what a program cannot take for an option, or a shell for more than a word.
fn is_plain(word: &str, more: &str) -> bool {
    let ok = |c: char| c.is_alphanumeric() || more.contains(c);
    !word.is_empty() && !word.starts_with('-') && word.chars().all(ok)
}

impl Location {
    /// What stands after `sftp:`. What is refused is not repeated: it might hold a password.
    pub fn parse(rest: &str) -> Result<Self> {
        let rest = rest.strip_prefix("//").ok_or_else(|| invalid("sftp: is followed by //"))?;
        let (server, path) = rest.split_once('/').ok_or_else(|| invalid("the location names no path"))?;
        let (user, address) = match server.rsplit_once('@') {
            Some((user, address)) => (Some(user), address),
            None => (None, server),
        };
        if user.is_some_and(|user| user.contains(':')) {
            return Err(Error::Invalid(
                "a password in a location can be seen by others; ssh takes keys, and an agent".into(),
            ));
        }
        if user.is_some_and(|user| !is_plain(user, ".-_+@\\$")) {
            return Err(invalid("the user's name cannot be taken"));
        }
        let (host, port) = match address.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, "")) => (host, None),
            Some((host, port)) => (host, Some(port.strip_prefix(':').ok_or_else(|| invalid("no port follows ]"))?)),
            None => match address.rsplit_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (address, None),
            },
        };
        let port = port.map(str::parse).transpose().ok().filter(|port| *port != Some(0));
        let port = port.ok_or_else(|| invalid("the port is no number of a port"))?;
        let is_address = address.starts_with('[');
        if !is_plain(host, if is_address { ":.%-_" } else { ".-_" }) {
            return Err(invalid("the host's name cannot be taken"));
        }
        if path.chars().any(char::is_control) {
            return Err(invalid("the path holds control characters"));
        }
        let path = match path.trim_end_matches('/') {
            "~" => ".".to_owned(),
            path => match path.strip_prefix("~/") {
                Some(below) => below.trim_start_matches('/').to_owned(),
                None => format!("/{path}"),
            },
        };
        Ok(Self { user: user.map(str::to_owned), host: host.to_owned(), port, path })
    }

    /// ssh, or what stands in for it, with all that leads to the server's SFTP. What the user has
    /// configured for the host holds; `program` may end in options that hold before it and all these.
    pub fn command(&self, program: &[OsString]) -> Command {
        let (name, options) = program.split_first().map_or(("ssh".into(), &[][..]), |(n, o)| (n.clone(), o));
        let mut command = Command::new(name);
        command.args(options);
        for option in [
            // Nobody is there to answer a question.
            "BatchMode=yes",
            "ServerAliveInterval=15",
            "ServerAliveCountMax=4",
            // Another's connection is used if it is there; none is left behind that keeps our pipes open.
            "ControlMaster=no",
            "ClearAllForwardings=yes",
            "ForwardAgent=no",
            "ForwardX11=no",
            "PermitLocalCommand=no",
            "RequestTTY=no",
        ] {
            command.arg("-o").arg(option);
        }
        if let Some(port) = self.port {
            command.arg("-p").arg(port.to_string());
        }
        if let Some(user) = &self.user {
            command.arg("-l").arg(user);
        }
        command.arg("-s").arg(&self.host).arg("sftp");
        // What opens the repository is none of its business.
        command.env_remove("ESTRATO_PASSWORD");
        command
    }

    /// The path of what lies below the folder by that name; its own for the empty name.
    pub fn below(&self, name: &str) -> String {
        match (name, &*self.path) {
            ("", path) => path.to_owned(),
            (name, "/") => format!("/{name}"),
            (name, path) => format!("{path}/{name}"),
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sftp://")?;
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        if self.host.contains(':') {
            write!(f, "[{}]", self.host)?
        } else {
            f.write_str(&self.host)?
        }
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        match &*self.path {
            "." => f.write_str("/~"),
            path if path.starts_with('/') => f.write_str(path),
            path => write!(f, "/~/{path}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(location: &str, program: &[&str]) -> String {
        let program: Vec<OsString> = program.iter().map(OsString::from).collect();
        let command = Location::parse(location).unwrap().command(&program);
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        words.map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn locations() {
        for (location, path, shown) in [
            ("//host/a/b", "/a/b", "sftp://host/a/b"),
            ("//host/a b/%20?#/", "/a b/%20?#", "sftp://host/a b/%20?#"),
            ("//host/", "/", "sftp://host/"),
            ("//host//a", "//a", "sftp://host//a"),
            ("//host/~", ".", "sftp://host/~"),
            ("//host/~/", ".", "sftp://host/~"),
            ("//host/~/a/b/", "a/b", "sftp://host/~/a/b"),
            ("//host/~a", "/~a", "sftp://host/~a"),
            ("//me@host:2222/a:b@c", "/a:b@c", "sftp://me@host:2222/a:b@c"),
            ("//me@example.org@host/a", "/a", "sftp://me@example.org@host/a"),
            ("//[::1]/a", "/a", "sftp://[::1]/a"),
            ("//me@[fe80::1%eth0]:22/a", "/a", "sftp://me@[fe80::1%eth0]:22/a"),
        ] {
            let found = Location::parse(location).unwrap();
            assert_eq!((&*found.path, &*found.to_string()), (path, shown));
        }
        assert_eq!(Location::parse("//h/").unwrap().below("a/b"), "/a/b");
        assert_eq!(Location::parse("//h/c").unwrap().below("a/b"), "/c/a/b");
        assert_eq!(Location::parse("//h/~").unwrap().below("a"), "./a");
        assert_eq!(Location::parse("//h/~/c").unwrap().below(""), "c");
    }

    #[test]
    fn what_is_refused_is_not_repeated() {
        for (location, words) in [
            ("//user:secret@host/a", "password"),
            ("//user:@secret/a", "password"),
            ("//us:secret@er@host/a", "password"),
            ("user@secret:/a", "//"),
            ("//secret", "no path"),
            ("//user@secret", "no path"),
            ("///secret", "host"),
            ("//-oProxyCommand=secret/a", "host"),
            ("//@secret/a", "user"),
            ("//-lsecret@host/a", "user"),
            ("//sec ret@host/a", "user"),
            ("//sec;ret/a", "host"),
            ("//::1/secret", "host"),
            ("//[::1]secret/a", "port"),
            ("//[secret/a", "host"),
            ("//host:secret/a", "port"),
            ("//host:0/secret", "port"),
            ("//host:65536/secret", "port"),
            ("//host:/secret", "port"),
            ("//host/secret\n", "control"),
        ] {
            let e = Location::parse(location).unwrap_err().to_string();
            assert!(e.contains(words) && !e.contains("secret"), "{location:?}: {e}");
        }
    }

    #[test]
    fn commands() {
        let plain = words("//host/a", &[]);
        assert!(plain.starts_with("ssh -o BatchMode=yes -o ") && plain.ends_with(" -s host sftp"), "{plain}");
        assert!(!plain.contains(" -p ") && !plain.contains(" -l "), "{plain}");
        let whole = words("//me@[::1]:2222/a", &["/opt/my ssh", "-i", "key"]);
        assert!(whole.starts_with("/opt/my ssh -i key -o BatchMode=yes "), "{whole}");
        assert!(whole.ends_with(" -p 2222 -l me -s ::1 sftp"), "{whole}");
    }
}
