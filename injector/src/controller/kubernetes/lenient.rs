//! Fields that may be odd. Lists come as a whole: one object that cannot be read would hide all others, so that what is odd of it
//! counts as not said.

use kube::api::ObjectMeta;
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::Value as Json;

/// A field; what cannot be read is as if it were not there.
pub(super) fn field<'de, T, D>(from: D) -> Result<T, D::Error>
where
    T: DeserializeOwned + Default,
    D: Deserializer<'de>,
{
    Json::deserialize(from).map(|value| T::deserialize(value).unwrap_or_default())
}

/// A list; items that cannot be read are left out.
pub(super) fn list<'de, T, D>(from: D) -> Result<Vec<T>, D::Error>
where
    T: DeserializeOwned,
    D: Deserializer<'de>,
{
    let value = Json::deserialize(from)?;
    let Json::Array(items) = value else { return Ok(Vec::new()) };
    Ok(items.into_iter().filter_map(|item| T::deserialize(item).ok()).collect())
}

/// `metadata`; of what is odd, where and which one it is, and its labels.
pub(super) fn metadata<'de, D>(from: D) -> Result<ObjectMeta, D::Error>
where
    D: Deserializer<'de>,
{
    let value = Json::deserialize(from)?;
    Ok(ObjectMeta::deserialize(&value).unwrap_or_else(|_odd| {
        let text = |field: &str| value.get(field).and_then(Json::as_str).map(str::to_owned);
        let labels = value.get("labels").and_then(Json::as_object).into_iter().flatten();
        let labels = labels.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())));
        ObjectMeta {
            namespace: text("namespace"),
            name: text("name"),
            uid: text("uid"),
            resource_version: text("resourceVersion"),
            labels: Some(labels.collect()),
            ..ObjectMeta::default()
        }
    }))
}
