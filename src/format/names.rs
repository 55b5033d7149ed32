//! Where objects lie: `repo.json`, and below `tenants/<name>/` all of a tenant.

use crate::error::{Error, Result};
use crate::id::{ForgottenId, IndexName, PackName, SlotId, SnapshotId};
use crate::limits;

/// The repository's own object.
pub const REPO: &str = "repo.json";
/// Below this lie the tenants.
pub const TENANTS: &str = "tenants";

/// What the name of a record of damage begins with.
const DAMAGE: &str = "damage.";
/// What the name of a list of signers begins with.
const SIGNERS: &str = "signers.";

/// The names of one tenant's objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantNames(String);

impl TenantNames {
    /// The names of the tenant called `name`.
    ///
    /// # Errors
    /// [`Error::Invalid`] unless the name is 1 to 64 of `a-z 0-9 . _ -` and begins with a letter or digit.
    pub fn new(name: &str) -> Result<Self> {
        let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'.' | b'_' | b'-');
        let first = name.bytes().next().is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        if !first || name.len() > limits::TENANT_NAME_MAX || !name.bytes().all(allowed) {
            return Err(Error::Invalid(format!(
                "{name:?} cannot name a tenant: use 1 to {} of a-z, 0-9, '.', '_' and '-', a letter or digit first",
                limits::TENANT_NAME_MAX
            )));
        }
        Ok(Self(name.into()))
    }

    /// The tenant's name.
    pub fn name(&self) -> &str {
        &self.0
    }

    fn at(&self, rest: &str) -> String {
        format!("{TENANTS}/{}/{rest}", self.0)
    }

    /// The public record.
    pub fn tenant(&self) -> String {
        self.at("tenant")
    }

    /// The folder of slots and signer lists.
    pub fn keys(&self) -> String {
        self.at("keys")
    }

    /// A slot.
    pub fn slot(&self, slot: &SlotId) -> String {
        self.at(&format!("keys/{slot}"))
    }

    /// A version of the list of signers.
    pub fn signers(&self, version: u64) -> String {
        self.at(&format!("keys/signers.{version:08}"))
    }

    /// The version of the list of signers that goes by a name; `None` for any other object's.
    pub fn signers_version(&self, name: &str) -> Option<u64> {
        numbered(name, SIGNERS, |version| self.signers(version))
    }

    /// The number of the plan of that name; `None` for any other object's.
    pub fn plan_number(&self, name: &str) -> Option<u64> {
        numbered(name, "", |number| self.plan(number))
    }

    /// The number of the record of damage of that name; `None` for any other object's.
    pub fn damage_number(&self, name: &str) -> Option<u64> {
        numbered(name, DAMAGE, |number| self.damage(number))
    }

    /// The folder of packs.
    pub fn packs(&self) -> String {
        self.at("packs")
    }

    /// A pack; two digits of its name are a folder, so that none grows too large.
    pub fn pack(&self, pack: &PackName) -> String {
        let name = pack.to_string();
        self.at(&format!("packs/{}/{name}", &name[..2]))
    }

    /// The folder of index objects.
    pub fn indexes(&self) -> String {
        self.at("index")
    }

    /// An index object.
    pub fn index(&self, index: &IndexName) -> String {
        self.at(&format!("index/{index}"))
    }

    /// The folder of snapshots.
    pub fn snapshots(&self) -> String {
        self.at("snapshots")
    }

    /// A snapshot, or its tombstone.
    pub fn snapshot(&self, snapshot: &SnapshotId) -> String {
        self.at(&format!("snapshots/{snapshot}"))
    }

    /// The folder of sessions.
    pub fn sessions(&self) -> String {
        self.at("sessions")
    }

    /// A session.
    pub fn session(&self, session: &SnapshotId) -> String {
        self.at(&format!("sessions/{session}"))
    }

    /// The folder of prune plans, and of records of damage.
    pub fn plans(&self) -> String {
        self.at("prune")
    }

    /// A record of damage. It lies among the plans: what full keys say, and every session heeds.
    pub fn damage(&self, number: u64) -> String {
        self.at(&format!("prune/damage.{number:08}"))
    }

    /// A prune plan.
    pub fn plan(&self, number: u64) -> String {
        self.at(&format!("prune/{number:08}"))
    }

    /// The folder of records of what was forgotten.
    pub fn forgotten_records(&self) -> String {
        self.at("forgotten")
    }

    /// A record of what was forgotten.
    pub fn forgotten(&self, record: &ForgottenId) -> String {
        self.at(&format!("forgotten/{record}"))
    }

    /// The folder of legal holds.
    pub fn holds(&self) -> String {
        self.at("holds")
    }

    /// The hold on a snapshot.
    pub fn hold(&self, snapshot: &SnapshotId) -> String {
        self.at(&format!("holds/{snapshot}"))
    }
}

/// The number in an object's name, if that is the one way to write it: eight digits, more if it takes more, from
/// 1 to [`limits::NUMBER_MAX`].
fn numbered(name: &str, prefix: &str, named: impl Fn(u64) -> String) -> Option<u64> {
    let number = last_part(name).strip_prefix(prefix)?.parse().ok()?;
    ((1..=limits::NUMBER_MAX).contains(&number) && named(number) == name).then_some(number)
}

/// What lies under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The repository's own object.
    Repo,
    /// A tenant's public record.
    Tenant,
    /// A slot, or a version of the list of signers.
    Key,
    /// A pack.
    Pack,
    /// An index object.
    Index,
    /// A snapshot or its tombstone.
    Snapshot,
    /// A session.
    Session,
    /// A prune plan.
    Plan,
    /// A record of what was forgotten.
    Forgotten,
    /// A legal hold on a snapshot.
    Hold,
    /// A record of damage.
    Damage,
}

/// What lies under a name; `None` for one that no object can have.
pub fn kind_of(name: &str) -> Option<Kind> {
    if name == REPO {
        return Some(Kind::Repo);
    }
    let (tenant, rest) = name.strip_prefix(TENANTS)?.strip_prefix('/')?.split_once('/')?;
    let names = TenantNames::new(tenant).ok()?;
    let last = last_part(rest);
    let (expected, kind) = match rest.split_once('/').map_or(rest, |(folder, _)| folder) {
        "tenant" => (names.tenant(), Kind::Tenant),
        "keys" => match names.signers_version(name) {
            Some(version) => (names.signers(version), Kind::Key),
            None => (names.slot(&last.parse().ok()?), Kind::Key),
        },
        "packs" => (names.pack(&last.parse().ok()?), Kind::Pack),
        "index" => (names.index(&last.parse().ok()?), Kind::Index),
        "snapshots" => (names.snapshot(&last.parse().ok()?), Kind::Snapshot),
        "sessions" => (names.session(&last.parse().ok()?), Kind::Session),
        "forgotten" => (names.forgotten(&last.parse().ok()?), Kind::Forgotten),
        "holds" => (names.hold(&last.parse().ok()?), Kind::Hold),
        "prune" => match names.damage_number(name) {
            Some(number) => (names.damage(number), Kind::Damage),
            None => (names.plan(names.plan_number(name)?), Kind::Plan),
        },
        _ => return None,
    };
    (expected == name).then_some(kind)
}

/// An object's name within its tenant's folder: what it is bound to, so that the folder may be renamed, and
/// mirrored under another name.
pub fn within_tenant(name: &str) -> &str {
    let below = name.strip_prefix(TENANTS).and_then(|rest| rest.strip_prefix('/'));
    below.and_then(|rest| rest.split_once('/')).map_or(name, |(_, rest)| rest)
}

/// The last part of an object's name.
pub fn last_part(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_lie_where_the_page_says() {
        let names = TenantNames::new("clinic").unwrap();
        let (long, short) = ("ab".repeat(32), "cd".repeat(16));
        let snapshot = SnapshotId([0xcd; 16]);
        assert_eq!((REPO, TENANTS, names.name()), ("repo.json", "tenants", "clinic"));
        for (name, expected) in [
            (names.tenant(), "tenant".into()),
            (names.keys(), "keys".into()),
            (names.slot(&SlotId([0xcd; 16])), format!("keys/{short}")),
            (names.signers(12), "keys/signers.00000012".into()),
            (names.signers(123_456_789), "keys/signers.123456789".into()),
            (names.packs(), "packs".into()),
            (names.pack(&PackName([0xab; 32])), format!("packs/ab/{long}")),
            (names.indexes(), "index".into()),
            (names.index(&IndexName([0xab; 32])), format!("index/{long}")),
            (names.snapshots(), "snapshots".into()),
            (names.snapshot(&snapshot), format!("snapshots/{short}")),
            (names.sessions(), "sessions".into()),
            (names.session(&snapshot), format!("sessions/{short}")),
            (names.plans(), "prune".into()),
            (names.plan(7), "prune/00000007".into()),
            (names.forgotten_records(), "forgotten".into()),
            (names.forgotten(&ForgottenId([0xcd; 16])), format!("forgotten/{short}")),
            (names.holds(), "holds".into()),
            (names.hold(&snapshot), format!("holds/{short}")),
            (names.damage(7), "prune/damage.00000007".into()),
        ] {
            assert_eq!(name, format!("tenants/clinic/{expected}"));
            assert_eq!(Some(last_part(&name)), name.rsplit_once('/').map(|(_, last)| last));
            assert_eq!(Some(within_tenant(&name)), name.strip_prefix("tenants/clinic/"));
        }
        for whole in ["repo.json", "tenants", "tenants/clinic", "keys/a", "tenantsx/clinic/a"] {
            assert_eq!(within_tenant(whole), whole);
        }
        assert_eq!(last_part("repo.json"), "repo.json");
    }

    #[test]
    fn a_name_tells_what_lies_there() {
        let names = TenantNames::new("clinic").unwrap();
        for (name, kind) in [
            (REPO.to_owned(), Kind::Repo),
            (names.tenant(), Kind::Tenant),
            (names.slot(&SlotId([0xcd; 16])), Kind::Key),
            (names.signers(12), Kind::Key),
            (names.pack(&PackName([0xab; 32])), Kind::Pack),
            (names.index(&IndexName([0xab; 32])), Kind::Index),
            (names.snapshot(&SnapshotId([0xcd; 16])), Kind::Snapshot),
            (names.session(&SnapshotId([0xcd; 16])), Kind::Session),
            (names.plan(7), Kind::Plan),
            (names.forgotten(&ForgottenId([0xcd; 16])), Kind::Forgotten),
            (names.hold(&SnapshotId([0xcd; 16])), Kind::Hold),
            (names.damage(7), Kind::Damage),
        ] {
            assert_eq!(kind_of(&name), Some(kind), "{name}");
            for near in [
                format!("/{name}"),
                format!("{name}/"),
                format!("{name}/.."),
                format!("{name}0"),
                name.to_uppercase(),
            ] {
                assert_eq!(kind_of(&near), None, "{near}");
            }
        }
        for none in [
            "",
            "tenants",
            "tenants/clinic",
            "tenants/../tenant",
            "tenants/clinic/keys/signers.1",
            "tenants/clinic/prune/7",
            "tenants/clinic/prune/damage.7",
            "tenants/clinic/prune/damage.damage.00000007",
            "tenants/clinic/prune/00000000",
            "tenants/clinic/prune/+0000007",
            "tenants/clinic/prune/1000000000000000",
            "tenants/clinic/prune/damage.00000000",
            "tenants/clinic/prune/damage.1000000000000000",
            "tenants/clinic/keys/signers.00000000",
            "tenants/clinic/keys/signers.0000000012",
            "tenants/clinic/keys/signers.1000000000000000",
            "tenants/clinic/keys/signers.18446744073709551615",
        ] {
            assert_eq!(kind_of(none), None, "{none}");
        }
    }

    #[test]
    fn a_number_is_written_in_one_way() {
        let names = TenantNames::new("clinic").unwrap();
        for number in [1, 12, 99_999_999, 100_000_000, limits::NUMBER_MAX] {
            assert_eq!(names.plan_number(&names.plan(number)), Some(number));
            assert_eq!(names.damage_number(&names.damage(number)), Some(number));
            assert_eq!(names.signers_version(&names.signers(number)), Some(number));
            assert_eq!(names.plan_number(&names.damage(number)), None);
            assert_eq!(names.damage_number(&names.plan(number)), None);
        }
        for none in ["00000000", "0000001", "000000001", "+0000001", "-0000001", " 0000001", "1000000000000000", ""] {
            assert_eq!(names.plan_number(&names.at(&format!("prune/{none}"))), None, "{none}");
            assert_eq!(names.damage_number(&names.at(&format!("prune/damage.{none}"))), None, "{none}");
            assert_eq!(names.signers_version(&names.at(&format!("keys/signers.{none}"))), None, "{none}");
        }
        assert_eq!(names.plan_number("tenants/clinic/prune/old/00000001"), None);
    }

    #[test]
    fn a_tenants_name_is_at_most_64_letters() {
        assert!(TenantNames::new(&"a".repeat(64)).is_ok());
        for good in ["0", "a", "a.b_c-9", "9-"] {
            assert_eq!(TenantNames::new(good).unwrap().name(), good);
        }
        for bad in [".a", "_a", "a/", "aB", "a\0"] {
            assert!(TenantNames::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn tenant_names_stay_in_their_folder() {
        for bad in ["", ".", "..", "a/b", "A", "é", "-a", "a b", &"a".repeat(65)] {
            assert!(TenantNames::new(bad).is_err(), "{bad:?}");
        }
        let names = TenantNames::new("clinic-1.eu").unwrap();
        assert_eq!(names.tenant(), "tenants/clinic-1.eu/tenant");
        assert_eq!(names.plan(3), "tenants/clinic-1.eu/prune/00000003");
    }
}
