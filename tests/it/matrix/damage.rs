//! The kinds of objects, and what can happen to one.

use super::prepared::{Name, OURS, Prepared};
use std::fs;
use std::path::Path;

/// What is damaged. The order is that of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Repo,
    Tenant,
    Slot,
    OtherSlot,
    Signers,
    OldSigners,
    Session,
    Data,
    Tree,
    Index,
    Snapshot,
    Hold,
    Forgotten,
    Damaged,
}

/// What happens to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// It is not there.
    Missing,
    /// Its second half is not there.
    Truncated,
    /// It goes on behind its end.
    Grown,
    /// One bit is another, in the region of that name.
    Bit(&'static str),
    /// The same, and the closing hash is right for it: a change that is no rot.
    Rehashed(&'static str),
    /// 64 bytes in its middle are zero.
    Zeroed,
    /// It and another of its kind have changed places.
    Swapped,
    /// It and the other tenant's have changed places.
    SwappedTenant,
    /// What it was before, or what another of its kind was, stands in its place.
    Old,
    /// It has another name of its kind.
    Renamed,
    /// It is there a second time, under another name of its kind.
    Doubled,
}

impl Damage {
    /// As the table calls it.
    pub fn title(self) -> String {
        match self {
            Self::Missing => "missing".into(),
            Self::Truncated => "truncated".into(),
            Self::Grown => "grown".into(),
            Self::Bit(region) => format!("bit: {region}"),
            Self::Rehashed(region) => format!("bit, hash mended: {region}"),
            Self::Zeroed => "zeroed block".into(),
            Self::Swapped => "swapped with its kind".into(),
            Self::SwappedTenant => "swapped with a tenant's".into(),
            Self::Old => "old version".into(),
            Self::Renamed => "renamed".into(),
            Self::Doubled => "doubled".into(),
        }
    }
}

impl Damage {
    /// The names of the objects that it touches, as messages have them.
    pub fn names(self, p: &Prepared, kind: Kind) -> Vec<Name> {
        let mut names = vec![kind.name(p)];
        match self {
            Self::Swapped => names.extend(kind.sibling(p)),
            Self::Renamed | Self::Doubled => names.push(kind.elsewhere(p)),
            Self::Old if kind == Kind::OtherSlot => names.push(p.gone_slot.0.clone()),
            _ => {}
        }
        match kind {
            // Which version it lacks, a machine tells by its number.
            Kind::Signers if self == Self::Missing => names.push("list of signers (5)".into()),
            // That which the one before says.
            Kind::Damaged => names.push(p.damage.1.clone()),
            Kind::Snapshot => names.push(format!("there is no snapshot {}", p.snapshots[1].0)),
            _ => {}
        }
        if kind == Kind::Index {
            // In which one a blob stood that no object names any more, nobody can tell.
            names.push(format!("{OURS}index is damaged"));
            names.push(format!("{OURS}index:"));
        }
        names
    }
}

impl Kind {
    pub const ALL: [Self; 14] = [
        Self::Repo,
        Self::Tenant,
        Self::Slot,
        Self::OtherSlot,
        Self::Signers,
        Self::OldSigners,
        Self::Session,
        Self::Data,
        Self::Tree,
        Self::Index,
        Self::Snapshot,
        Self::Hold,
        Self::Forgotten,
        Self::Damaged,
    ];

    /// As the table calls it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Repo => "repo.json",
            Self::Tenant => "tenant record",
            Self::Slot => "slot in use",
            Self::OtherSlot => "another's slot",
            Self::Signers => "newest signers",
            Self::OldSigners => "older signers",
            Self::Session => "session",
            Self::Data => "data pack",
            Self::Tree => "tree pack",
            Self::Index => "index object",
            Self::Snapshot => "snapshot",
            Self::Hold => "hold",
            Self::Forgotten => "record of what was forgotten",
            Self::Damaged => "record of damage",
        }
    }

    /// The object that is damaged.
    pub fn name(self, p: &Prepared) -> Name {
        match self {
            Self::Repo => "repo.json".into(),
            Self::Tenant => format!("{OURS}tenant"),
            Self::Slot => p.slot.clone(),
            Self::OtherSlot => p.second_slot.clone(),
            Self::Signers => p.signers[5].clone(),
            Self::OldSigners => p.signers[1].clone(),
            Self::Session => p.session.clone(),
            Self::Data => p.data[0].clone(),
            Self::Tree => p.trees[0].clone(),
            Self::Index => p.indexes[0].clone(),
            Self::Snapshot => p.snapshot(1),
            Self::Hold => p.hold.clone(),
            Self::Forgotten => p.forgotten.clone(),
            Self::Damaged => p.damage.0[1].clone(),
        }
    }

    /// Another of its kind, of the same tenant.
    pub fn sibling(self, p: &Prepared) -> Option<Name> {
        Some(match self {
            Self::Repo | Self::Tenant | Self::Session | Self::Hold | Self::Forgotten => return None,
            Self::Damaged => p.damage.0[0].clone(),
            Self::Slot => p.second_slot.clone(),
            Self::OtherSlot => p.slot.clone(),
            Self::Signers => p.signers[4].clone(),
            Self::OldSigners => p.signers[2].clone(),
            Self::Data => p.data[1].clone(),
            Self::Tree => p.trees[1].clone(),
            Self::Index => p.indexes[1].clone(),
            Self::Snapshot => p.snapshot(0),
        })
    }

    /// The other tenant's.
    pub fn theirs(self, p: &Prepared) -> Option<Name> {
        Some(match self {
            Self::Repo | Self::Hold | Self::Forgotten | Self::Damaged => return None,
            Self::Tenant => p.other.tenant.clone(),
            Self::Slot | Self::OtherSlot => p.other.slot.clone(),
            Self::Signers | Self::OldSigners => p.other.signers.clone(),
            Self::Session => p.other.session.clone(),
            Self::Data => p.other.data.clone(),
            Self::Tree => p.other.tree.clone(),
            Self::Index => p.other.index.clone(),
            Self::Snapshot => p.other.snapshot.clone(),
        })
    }

    /// Another name that an object of this kind could have.
    fn elsewhere(self, p: &Prepared) -> Name {
        let name = self.name(p);
        let (folder, last) = name.rsplit_once('/').unwrap_or(("", &name));
        match self {
            Self::Repo => "repo.json.copy".into(),
            Self::Tenant => "tenants/elsewhere/tenant".into(),
            Self::Signers | Self::OldSigners => format!("{OURS}keys/signers.00000007"),
            Self::Damaged => format!("{OURS}prune/damage.00000003"),
            // The last digit is another: a pack stays in its folder.
            _ => {
                let (digits, last) = last.split_at(last.len() - 1);
                format!("{folder}/{digits}{}", if last == "0" { "1" } else { "0" })
            }
        }
    }

    /// What an older object of the kind holds.
    fn old(self, p: &Prepared, repo: &Path) -> Option<Vec<u8>> {
        match self {
            // There never was another.
            Self::Repo | Self::Tenant | Self::Session | Self::Hold | Self::Forgotten => None,
            Self::Slot | Self::OtherSlot => Some(p.gone_slot.1.clone()),
            _ => self.sibling(p).map(|sibling| fs::read(repo.join(sibling)).unwrap()),
        }
    }

    /// Where its regions lie, as repo-format.md names them: an offset in each, from a length. The associated
    /// data is stored nowhere else than in the header and in the name.
    pub fn regions(self, len: usize) -> Vec<(&'static str, usize)> {
        const HEADER: [(&str, usize); 3] = [("format", 4), ("type", 5), ("cipher", 6)];
        let hash = ("closing hash", len - 5);
        let mut regions = HEADER.to_vec();
        match self {
            Self::Repo => {
                return vec![("brace", 0), ("member", 3), ("format", 12), ("hex digit", 30), ("no digit", 30)];
            }
            Self::Tenant => regions.extend([
                ("id", 13),
                ("suite", 28),
                ("public key", 600),
                ("verifying key", len - 110),
                ("signature", len - 60),
            ]),
            Self::Slot | Self::OtherSlot => regions.extend([
                ("kind", 10),
                ("salt", 20),
                ("sealed", 120),
                ("tag", len - 56),
                ("tenant id", len - 40),
            ]),
            Self::Signers
            | Self::OldSigners
            | Self::Session
            | Self::Index
            | Self::Hold
            | Self::Forgotten
            | Self::Damaged => {
                regions.extend([("salt", 20), ("signer", 50), ("signature", 90), ("payload", 140), ("tag", len - 40)])
            }
            Self::Snapshot => regions.extend([
                ("encapsulated key", 600),
                ("data key", 1140),
                ("signer", 1180),
                ("payload", 1300),
                ("tag", len - 40),
            ]),
            Self::Data | Self::Tree => regions.extend([
                ("encapsulated key", 600),
                ("data key", 1140),
                ("first frame", 1180),
                ("directory", len - 64 - 20),
                ("trailer", len - 60),
            ]),
        }
        regions.push(hash);
        regions
    }
}

impl Kind {
    /// All that can happen to it.
    pub fn damages(self, p: &Prepared) -> Vec<Damage> {
        use Damage::*;
        let mut all = vec![Missing, Truncated, Grown, Zeroed, Renamed, Doubled];
        all.extend(self.sibling(p).map(|_| Swapped));
        all.extend(self.theirs(p).map(|_| SwappedTenant));
        // Of these there never was another.
        if !matches!(self, Self::Repo | Self::Tenant | Self::Session | Self::Hold | Self::Forgotten) {
            all.push(Old);
        }
        let len = fs::metadata(p.place.path("repo").join(self.name(p))).unwrap().len() as usize;
        all.extend(self.regions(len).iter().map(|(region, _)| Bit(region)));
        // What is named by its hash cannot have another.
        all.extend(match self {
            Self::Tenant => vec![Rehashed("format"), Rehashed("public key")],
            Self::Slot => vec![Rehashed("format"), Rehashed("sealed")],
            Self::Signers | Self::Session | Self::Snapshot | Self::Hold | Self::Forgotten | Self::Damaged => {
                vec![Rehashed("format"), Rehashed("payload")]
            }
            _ => Vec::new(),
        });
        all
    }
}

/// Does it.
pub fn apply(p: &Prepared, repo: &Path, kind: Kind, damage: Damage) {
    let name = kind.name(p);
    let path = repo.join(&name);
    let bytes = fs::read(&path).unwrap();
    let put = |bytes: &[u8]| replace(&path, bytes);
    let exchange = |with: Name| {
        let with = repo.join(with);
        replace(&path, &fs::read(&with).unwrap());
        replace(&with, &bytes);
    };
    let copy = || {
        let to = repo.join(kind.elsewhere(p));
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::write(to, &bytes).unwrap();
    };
    match damage {
        Damage::Missing => fs::remove_file(&path).unwrap(),
        Damage::Truncated => put(&bytes[..bytes.len() / 2]),
        Damage::Grown => put(&[&bytes[..], &[0; 100]].concat()),
        Damage::Bit(region) => put(&flipped(kind, &bytes, region)),
        Damage::Rehashed(region) => {
            let mut bytes = flipped(kind, &bytes, region);
            let body = bytes.len() - 32;
            let hash = blake3::hash(&bytes[..body]);
            bytes[body..].copy_from_slice(hash.as_bytes());
            put(&bytes);
        }
        Damage::Zeroed => {
            let mut bytes = bytes.clone();
            let half = bytes.len() / 2;
            let end = bytes.len().min(half + 64);
            bytes[half..end].fill(0);
            put(&bytes);
        }
        Damage::Swapped => exchange(kind.sibling(p).unwrap()),
        Damage::SwappedTenant => exchange(kind.theirs(p).unwrap()),
        // The deleted slot is put back where it was: the key that it opens was removed.
        Damage::Old if kind == Kind::OtherSlot => fs::write(repo.join(&p.gone_slot.0), &p.gone_slot.1).unwrap(),
        Damage::Old => put(&kind.old(p, repo).unwrap()),
        Damage::Renamed => {
            copy();
            fs::remove_file(&path).unwrap();
        }
        Damage::Doubled => copy(),
    }
}

/// Puts a new file in a file's place: other copies of the repository share the old one.
fn replace(path: &Path, bytes: &[u8]) {
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

fn flipped(kind: Kind, bytes: &[u8], region: &str) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let regions = kind.regions(bytes.len());
    let (_, at) = *regions.iter().find(|(name, _)| *name == region).unwrap();
    // Of a number in hexadecimal, a digit that stays one: the name of another repository.
    let at = if region == "hex digit" { at + bytes[at..].iter().position(u8::is_ascii_digit).unwrap() } else { at };
    bytes[at] ^= if region == "no digit" { 0x40 } else { 1 };
    bytes
}
