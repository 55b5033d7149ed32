//! Policies of Azure Blob Storage: a role, and the condition under which it is assigned. `add/action` lets
//! a blob be created and not replaced; for that Azure wants `write`.

use super::{Grants, Holder, at};
use crate::error::{Error, Result};
use serde::Serialize;

const BLOBS: &str = "Microsoft.Storage/storageAccounts/blobServices/containers/blobs";

/// What to make, and how to assign it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Document {
    role_definition: Role,
    role_assignment: Assignment,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Role {
    name: String,
    is_custom: bool,
    description: &'static str,
    actions: [&'static str; 0],
    data_actions: Vec<String>,
    assignable_scopes: [&'static str; 1],
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Assignment {
    scope: String,
    condition_version: &'static str,
    condition: String,
}

/// What is not `action`, or is on names below one of these.
fn clause(action: &str, attribute: &str, names: &[String]) -> String {
    let is = |name: &String| {
        let operator = if name.ends_with('/') { "StringStartsWith" } else { "StringEquals" };
        format!("{attribute} {operator} '{name}'")
    };
    let names: Vec<String> = names.iter().map(is).collect();
    format!("(!({action}) OR ({}))", names.join(" OR "))
}

pub(super) fn document(
    account: Option<&str>,
    container: &str,
    prefix: &str,
    holder: Holder,
    grants: &Grants,
) -> Result<Document> {
    if prefix.contains(['\'', '\\']) {
        return Err(Error::Invalid("no condition of Azure's can name a prefix with ' or \\".into()));
    }
    let below = |names: &[String]| -> Vec<String> { names.iter().map(|name| at(prefix, name)).collect() };
    let (path, listed) = (format!("@Resource[{BLOBS}:path]"), format!("@Request[{BLOBS}:prefix]"));
    let matches = |action: &str| format!("ActionMatches{{'{BLOBS}/{action}'}}");
    let list = "SubOperationMatches{'Blob.List'}";
    let mut clauses = vec![
        clause(&format!("{} AND NOT {list}", matches("read")), &path, &below(&grants.read)),
        clause(&format!("{} AND {list}", matches("read")), &listed, &below(&grants.list)),
    ];
    let mut actions = vec!["read"];
    let added = [&grants.create[..], &grants.replace].concat();
    for (action, names) in [("add/action", &added), ("write", &grants.replace), ("delete", &grants.delete)] {
        if !names.is_empty() {
            clauses.push(clause(&matches(action), &path, &below(names)));
            actions.push(action);
        }
    }
    let scope = format!(
        "/subscriptions/SUBSCRIPTION/resourceGroups/GROUP/providers/Microsoft.Storage/storageAccounts/{}\
         /blobServices/default/containers/{container}",
        account.unwrap_or("ACCOUNT")
    );
    Ok(Document {
        role_definition: Role {
            name: format!("Estrato {}", holder.name()),
            is_custom: true,
            description: holder.does(),
            actions: [],
            data_actions: actions.into_iter().map(|action| format!("{BLOBS}/{action}")).collect(),
            assignable_scopes: ["/subscriptions/SUBSCRIPTION"],
        },
        role_assignment: Assignment { scope, condition_version: "2.0", condition: clauses.join(" AND ") },
    })
}
