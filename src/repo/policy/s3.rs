//! Policies of S3, in the language of IAM: for a user or a role.
//!
//! `PutObject` is granted only with `If-None-Match`, of which S3 takes no value but `*`: it cannot replace.
//! That condition also keeps out whatever else is granted as `PutObject` and could replace: parts of an
//! upload carry no such header, and the upload's completion and a copy must.

use super::{Grants, at};
use serde::Serialize;
use std::collections::BTreeMap;

/// A policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Document {
    version: &'static str,
    statement: Vec<Statement>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Statement {
    sid: &'static str,
    effect: &'static str,
    action: Vec<&'static str>,
    resource: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    condition: Option<Condition>,
}

/// Operator, key, values.
type Condition = BTreeMap<&'static str, BTreeMap<&'static str, Vec<String>>>;

fn condition(operator: &'static str, key: &'static str, values: Vec<String>) -> Option<Condition> {
    Some([(operator, [(key, values)].into())].into())
}

/// Signs that stand for others in IAM's patterns stand for themselves.
fn literal(text: &str) -> String {
    let one = |c: char| match c {
        '*' | '?' | '$' => format!("${{{c}}}"),
        c => c.to_string(),
    };
    text.chars().map(one).collect()
}

/// A pattern for an object, or for all below a folder.
fn pattern(prefix: &str, name: &str) -> String {
    let all = if name.ends_with('/') { "*" } else { "" };
    format!("{}{all}", literal(&at(prefix, name)))
}

pub(super) fn document(bucket: &str, prefix: &str, region: Option<&str>, grants: &Grants) -> Document {
    let partition = match region {
        Some(region) if region.starts_with("cn-") => "aws-cn",
        Some(region) if region.starts_with("us-gov-") => "aws-us-gov",
        _ => "aws",
    };
    let bucket = format!("arn:{partition}:s3:::{bucket}");
    let objects = |names: &[String]| -> Vec<String> {
        names.iter().map(|name| format!("{bucket}/{}", pattern(prefix, name))).collect()
    };
    let on = |sid, action: &'static str, names: &[String], condition| Statement {
        sid,
        effect: "Allow",
        action: vec![action],
        resource: objects(names),
        condition,
    };
    let new = condition("Null", "s3:if-none-match", vec!["false".into()]);
    let listed = grants.list.iter().map(|name| pattern(prefix, name)).collect();
    let statement = [
        on("Read", "s3:GetObject", &grants.read, None),
        Statement {
            resource: vec![bucket.clone()],
            ..on("List", "s3:ListBucket", &[], condition("StringLike", "s3:prefix", listed))
        },
        on("Create", "s3:PutObject", &grants.create, new),
        on("Replace", "s3:PutObject", &grants.replace, None),
        on("Delete", "s3:DeleteObject", &grants.delete, None),
    ];
    let statement = statement.into_iter().filter(|statement| !statement.resource.is_empty()).collect();
    Document { version: "2012-10-17", statement }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_of_patterns_in_a_prefix_stand_for_themselves() {
        assert_eq!(pattern("a*b?c${d}", "packs/"), "a${*}b${?}c${$}{d}/packs/*");
        assert_eq!(pattern("", "repo.json"), "repo.json");
    }
}
