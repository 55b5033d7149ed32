//! Policies of Google Cloud Storage: roles of a single permission each, bound to a service account under
//! conditions. Who has `storage.objects.create` alone creates, and replaces nothing: for that Google wants
//! `storage.objects.delete` too.

use super::{Grants, Holder, at};
use serde::Serialize;

/// What to make, and what to bind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Document {
    custom_roles: Vec<Role>,
    bindings: Vec<Binding>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Role {
    role_id: &'static str,
    included_permissions: [&'static str; 1],
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Binding {
    role: String,
    members: [&'static str; 1],
    condition: Condition,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Condition {
    title: String,
    expression: String,
}

/// A text as CEL writes it.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

pub(super) fn document(bucket: &str, prefix: &str, holder: Holder, tenant: &str, grants: &Grants) -> Document {
    let object = |name: &String| {
        let full = quoted(&format!("projects/_/buckets/{bucket}/objects/{}", at(prefix, name)));
        if name.ends_with('/') {
            format!("resource.name.startsWith({full})")
        } else {
            format!("resource.name == {full}")
        }
    };
    let listed = |name: &String| {
        let attribute = "api.getAttribute(\"storage.googleapis.com/objectListPrefix\", \"\")";
        format!("{attribute}.startsWith({})", quoted(&at(prefix, name)))
    };
    let both = |one: &[String], other: &[String]| {
        let mut names = [one, other].concat();
        names.sort();
        names.dedup();
        names
    };
    let uses: [(&str, &str, &str, Vec<String>); 4] = [
        ("estratoRead", "storage.objects.get", "reads", grants.read.iter().map(object).collect()),
        ("estratoList", "storage.objects.list", "lists", grants.list.iter().map(listed).collect()),
        (
            "estratoCreate",
            "storage.objects.create",
            "creates",
            both(&grants.create, &grants.replace).iter().map(object).collect(),
        ),
        (
            "estratoDelete",
            "storage.objects.delete",
            "deletes",
            both(&grants.delete, &grants.replace).iter().map(object).collect(),
        ),
    ];
    let mut document = Document { custom_roles: Vec::new(), bindings: Vec::new() };
    for (role_id, permission, does, parts) in uses.into_iter().filter(|(.., parts)| !parts.is_empty()) {
        document.custom_roles.push(Role { role_id, included_permissions: [permission] });
        document.bindings.push(Binding {
            role: format!("projects/PROJECT/roles/{role_id}"),
            members: ["serviceAccount:ACCOUNT@PROJECT.iam.gserviceaccount.com"],
            condition: Condition {
                title: format!("{} of {tenant} {does}", holder.name()),
                expression: parts.join(" || "),
            },
        });
    }
    document
}
