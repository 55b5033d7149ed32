//! Slots and the tenant's record, forged by somebody with storage credentials and no key.

use crate::world::{BLOBS, FULL, WRITER, World, key};
use estrato::clock::Clock;
use estrato::crypto::hpke;
use estrato::crypto::sign::{Place, Signing};
use estrato::crypto::slot::{self, Credential, Holder};
use estrato::error::{Error, Result};
use estrato::format::header::{self, Cipher, Header, ObjectType};
use estrato::format::key::{Bundle, Role, STRETCH, Signer, Slot, SlotKind, Stretch};
use estrato::format::records::TenantRecord;
use estrato::id::{SignerId, SlotId, TenantId};
use estrato::limits;
use estrato::repo::{Access, NewKey, Repository, Secret};
use estrato::store::Store;
use std::sync::Arc;

const RECIPIENT: u8 = 7;

fn object(slot: &Slot) -> bytes::Bytes {
    super::closed(ObjectType::Slot, &slot.encode())
}

fn record(world: &World) -> TenantRecord {
    let bytes = world.store.read("tenants/default/tenant", 1 << 20).unwrap();
    let body = &header::opened(&bytes).unwrap()[header::HEADER_LEN..];
    TenantRecord::decode(&body[..body.len() - 64]).unwrap()
}

/// The tenant's object as whoever has this seed would write it.
fn tenant_object(record: &TenantRecord, signing: &Signing) -> bytes::Bytes {
    let payload = record.encode();
    let header = Header { object: ObjectType::Tenant, cipher: Cipher::Aes256Gcm }.encode();
    let place = Place { object: ObjectType::Tenant, tenant: record.id, fresh: &header, name: None };
    let mut bytes = header.to_vec();
    bytes.extend_from_slice(&payload);
    bytes.extend_from_slice(&signing.sign(&place, &payload));
    header::close(&mut bytes);
    bytes.into()
}

/// What an attacker can put into a slot: all of it is public, or guessed.
fn bundle(record: &TenantRecord, role: Role) -> Bundle {
    let full = role == Role::Full;
    Bundle {
        role,
        tenant: record.id,
        id_key: [5; 32],
        tenant_verifying: record.verifying,
        signer_seed: [6; 32],
        private_key: full.then(|| *hpke::pair_from_seed(&[8; 32]).0),
        tenant_seed: full.then_some([9; 32]),
        former_keys: Vec::new(),
    }
}

fn open_with(world: &World, credential: Credential) -> Result<Repository> {
    let store: Arc<dyn Store> = Arc::<crate::world::Fateful>::clone(&world.store);
    let clock: Arc<dyn Clock> = Arc::<crate::world::Hand>::clone(&world.clock);
    Repository::open(Access { store, clock, tenant: "default".into(), credential, cache: None })
}

#[test]
fn a_slot_forged_for_a_recipient_opens_nothing_of_the_tenant() {
    let world = World::new();
    let public = key(RECIPIENT).recipient().1;
    let admitted = NewKey {
        role: Role::Writer,
        label: "r".into(),
        secret: Secret::Recipient(Box::new(key(RECIPIENT).recipient().1)),
    };
    world.open(FULL).add_key(&admitted).unwrap();
    let record = record(&world);
    let whole = world.objects();
    for role in [Role::Writer, Role::Full] {
        // It opens with the victim's key, as it is sealed to its public half.
        let (id, forged) = slot::seal(&Holder::Recipient(&public), &bundle(&record, role)).unwrap();
        let name = format!("tenants/default/keys/{id}");
        assert!(whole.contains_key(&name), "in place of the genuine one");
        world.store.write(&name, object(&forged)).unwrap();
        // But neither the list of signers nor the tenant's public key fits what it holds.
        let e = world.try_open(RECIPIENT, None).err().unwrap().to_string();
        let expected = if role == Role::Full { "tenants/default/tenant" } else { "keys/signers." };
        assert!(e.contains(expected), "{e}");
        // With every list, snapshot and index object hidden, nothing may be begun anew with it either.
        for name in world.names("tenants/default") {
            if ["signers.", "/snapshots/", "/index/"].iter().any(|f| name.contains(f)) {
                world.store.delete(&name).unwrap();
            }
        }
        assert!(world.try_open(RECIPIENT, None).is_err());
        assert!(!world.names("tenants/default/keys").iter().any(|n| n.contains("signers.")), "no list was written");
        world.show(&whole);
    }
    world.open(RECIPIENT);
}

#[test]
fn one_keys_slot_under_another_keys_name_opens_nothing() {
    let world = World::new();
    let record = record(&world);
    let name = |n| format!("tenants/default/keys/{}", slot::key_file_slots(&key(n), record.id)[0]);
    let (full, writer) =
        (world.store.read(&name(FULL), 1 << 20).unwrap(), world.store.read(&name(WRITER), 1 << 20).unwrap());
    world.store.write(&name(FULL), writer).unwrap();
    world.store.write(&name(WRITER), full).unwrap();
    for n in [FULL, WRITER] {
        assert!(matches!(world.try_open(n, None), Err(Error::Damaged { .. })), "a writer does not become a full key");
    }
    // A slot that says it is of another kind.
    let decoded =
        Slot::decode(&header::opened(&world.store.read(&name(FULL), 1 << 20).unwrap()).unwrap()[8..]).unwrap();
    for kind in [SlotKind::Recipient, SlotKind::Password] {
        let stretch = (kind == SlotKind::Password).then_some(STRETCH);
        let encapsulated = if kind == SlotKind::Recipient { vec![7; 1120] } else { Vec::new() };
        world.store.write(&name(FULL), object(&Slot { kind, stretch, encapsulated, ..decoded.clone() })).unwrap();
        assert!(world.try_open(FULL, None).is_err());
    }
}

#[test]
fn argon2_costs_beyond_the_bounds_are_refused_before_anything_is_computed() {
    let world = World::new();
    let password = || secrecy("correct horse");
    let admitted = NewKey { role: Role::Writer, label: "p".into(), secret: Secret::Password(password()) };
    let signer = world.open(FULL).add_key(&admitted).unwrap();
    let genuine = format!("tenants/default/keys/{}", signer.slot);
    let bytes = world.store.read(&genuine, 1 << 20).unwrap();
    let decoded = Slot::decode(&header::opened(&bytes).unwrap()[8..]).unwrap();
    let terabytes = [
        Stretch { memory: u32::MAX, passes: 1, lanes: 1 },
        Stretch { memory: 1 << 30, ..STRETCH },
        Stretch { passes: u32::MAX, ..STRETCH },
        Stretch { passes: 17, ..STRETCH },
        Stretch { lanes: u32::MAX, ..STRETCH },
        Stretch { lanes: 17, ..STRETCH },
        Stretch { lanes: 0, ..STRETCH },
        Stretch { memory: 0, ..STRETCH },
    ];
    for cost in terabytes {
        // In place of the genuine one: refused by name.
        world.store.write(&genuine, object(&Slot { stretch: Some(cost), ..decoded.clone() })).unwrap();
        let e = open_with(&world, Credential::Password(password())).err().unwrap().to_string();
        assert!(e.contains(&genuine) && e.contains("beyond the bounds"), "{cost:?}: {e}");
    }
    // Beside the genuine one: it opens all the same.
    world.store.write(&genuine, bytes).unwrap();
    for (n, cost) in terabytes.into_iter().enumerate() {
        let name = format!("tenants/default/keys/{}", SlotId([n as u8; 16]));
        world.store.write(&name, object(&Slot { stretch: Some(cost), ..decoded.clone() })).unwrap();
    }
    open_with(&world, Credential::Password(password())).unwrap();
}

#[test]
fn a_password_is_tried_with_so_many_slots_and_no_more() {
    let world = World::new();
    let password = || secrecy("correct horse");
    let admitted = NewKey { role: Role::Writer, label: "p".into(), secret: Secret::Password(password()) };
    let signer = world.open(FULL).add_key(&admitted).unwrap();
    let genuine = world.store.read(&format!("tenants/default/keys/{}", signer.slot), 1 << 20).unwrap();
    let decoded = Slot::decode(&header::opened(&genuine).unwrap()[8..]).unwrap();
    let cheap = Some(Stretch { memory: 8, passes: 1, lanes: 1 });
    let put = |n: usize, slot: Slot| {
        world.store.write(&format!("tenants/default/keys/{n:032x}"), object(&slot)).unwrap();
    };
    // Before it in the listing, as many as may be; those of other tenants, and of other kinds, cost nothing.
    for n in 0..limits::PASSWORD_SLOTS_MAX - 1 {
        put(n, Slot { stretch: cheap, ..decoded.clone() });
    }
    for n in 100..200 {
        put(n, Slot { stretch: cheap, tenant: TenantId([7; 16]), ..decoded.clone() });
        put(n + 100, Slot { stretch: None, kind: SlotKind::KeyFile, ..decoded.clone() });
    }
    open_with(&world, Credential::Password(password())).unwrap();
    put(limits::PASSWORD_SLOTS_MAX, Slot { stretch: cheap, ..decoded });
    let e = open_with(&world, Credential::Password(password())).err().unwrap().to_string();
    assert!(e.contains("tenants/default/keys") && e.contains("more than 64 slots"), "{e}");
    assert!(world.trouble(FULL, None).is_empty(), "a key file finds its own");
    world.store.delete(&format!("tenants/default/keys/{:032x}", limits::PASSWORD_SLOTS_MAX)).unwrap();
    open_with(&world, Credential::Password(password())).unwrap();
}

#[test]
fn a_tenant_has_no_more_passwords_than_are_tried() {
    let world = World::new();
    let mut repo = world.open(FULL);
    let mut list = repo.signers().clone();
    let one = list.signers[0].clone();
    for n in 0..limits::PASSWORD_SLOTS_MAX as u8 {
        let slot = SlotId([n; 16]);
        list.signers.push(Signer { id: SignerId([n; 32]), kind: SlotKind::Password, slot, ..one.clone() });
    }
    list.version += 1;
    let tenant = Signing::from_seed(&world.bundle(&repo, FULL).tenant_seed.unwrap());
    world.write(&repo, ObjectType::Signers, &repo.names().signers(list.version), &tenant, &list.encode());
    let new =
        |n: u8| NewKey { role: Role::Full, label: String::new(), secret: Secret::Password(secrecy(&n.to_string())) };
    repo = world.open(FULL);
    assert!(repo.add_key(&new(1)).is_err_and(|e| e.to_string().contains("64 passwords")));
    repo.remove_key(&SignerId([3; 32]).to_string()).unwrap();
    assert!(repo.add_key(&new(1)).is_ok(), "one was removed");
}

#[test]
fn more_slots_than_anyone_has_are_refused_by_the_name_of_their_folder() {
    let world = World::new();
    for n in 0..=estrato::limits::SLOTS_MAX {
        world.store.write(&format!("tenants/default/keys/{n:032x}"), bytes::Bytes::from_static(b"x")).unwrap();
    }
    let e = world.try_open(FULL, None).err().unwrap().to_string();
    assert!(e.contains("tenants/default/keys"), "{e}");
}

fn secrecy(text: &str) -> secrecy::SecretString {
    secrecy::SecretString::from(text)
}

#[test]
fn a_forged_record_of_the_tenant_is_refused_by_name() {
    let world = World::new();
    let genuine = record(&world);
    let name = "tenants/default/tenant";
    let bytes = world.store.read(name, 1 << 20).unwrap();
    let own = Signing::from_seed(&[9; 32]);
    let own_public = hpke::pair_from_seed(&[8; 32]).1.to_bytes();
    let again = TenantRecord::decode(&genuine.encode()).unwrap();
    let with = |public_key: Vec<u8>, verifying: [u8; 32]| TenantRecord {
        public_key,
        verifying,
        ..TenantRecord::decode(&again.encode()).unwrap()
    };
    let mut cipher = bytes.to_vec();
    cipher[6] = 3 - cipher[6];
    cipher.truncate(bytes.len() - 32);
    header::close(&mut cipher);
    let forgeries: [(&str, bytes::Bytes); 4] = [
        ("another's signature", tenant_object(&genuine, &own)),
        (
            "the attacker's public key, unsigned by the tenant",
            tenant_object(&with(own_public.clone(), genuine.verifying), &own),
        ),
        ("the attacker's keys", tenant_object(&with(own_public, own.id().0), &own)),
        ("another cipher", cipher.into()),
    ];
    for (what, forged) in forgeries {
        world.store.write(name, forged).unwrap();
        for n in [FULL, WRITER] {
            let e = world.trouble(n, None);
            assert!(e.contains(name), "{what}, key {n}: {e}");
        }
    }
    world.store.write(name, bytes).unwrap();
    world.snapshot(&world.open(WRITER), &BLOBS);
}

#[test]
fn a_slot_that_was_put_back_lets_a_removed_key_in_nowhere() {
    let world = World::new();
    let whole = world.objects();
    world.open(FULL).remove_key("writer").unwrap();
    for (name, object) in whole.iter().filter(|(n, _)| n.contains("/keys/") && !n.contains("signers.")) {
        world.store.write(name, object.clone()).unwrap();
    }
    let e = world.try_open(WRITER, None).err().unwrap();
    assert!(matches!(e, Error::NoKey { .. }) && e.to_string().contains("was removed"));
}
