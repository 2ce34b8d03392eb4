//! The resource and the scope that spans and log records share.

use std::borrow::Cow;

use super::any_value::attributes;
use super::attributes::Attributes;
use super::mapping::compiled::Mapping;
use super::request::{Item, Signal};
use super::value::{Fault, Json, METADATA_MEMBER_LEVEL};
use super::wire::{Fields, text};

/// The resource and the scope of a span or log record.
pub struct ResourceScope<'a> {
    /// The attributes of the resource.
    pub resource: Attributes<'a>,
    /// The attributes of the resource, as a JSON object.
    pub resource_json: Json,
    /// The number of attributes of the resource that the exporter dropped.
    resource_dropped: u64,
    /// The schema URL of the resource.
    resource_schema_url: Cow<'a, str>,
    /// The scope, as a JSON object.
    pub scope_json: Json,
    /// The name of the scope.
    pub scope_name: Cow<'a, str>,
}

impl<'a> ResourceScope<'a> {
    fn new(max_attributes: usize) -> ResourceScope<'a> {
        ResourceScope {
            resource: Attributes::default(),
            resource_json: Json::new(max_attributes),
            resource_dropped: 0,
            resource_schema_url: Cow::Borrowed(""),
            scope_json: Json::new(max_attributes),
            scope_name: Cow::Borrowed(""),
        }
    }

    fn read_resource(&mut self, item: &Item<'a>, mapping: &Mapping, max: usize) -> Result<(), Fault> {
        let resource = item.resource;
        self.resource_json.clear();
        self.resource.clear();
        self.resource_schema_url = text(item.resource_schema_url);
        self.resource_dropped = 0;
        for field in Fields::of(resource) {
            let field = field?;
            match field.number() {
                1 => self.resource.push(field.bytes()?, mapping, Signal::Traces, max)?,
                2 => self.resource_dropped = field.varint()?,
                _ => {}
            }
        }
        self.resource.write_unused(&mut self.resource_json)
    }

    fn read_scope(&mut self, item: &Item<'a>) -> Result<(), Fault> {
        let scope = item.scope;
        self.scope_json.clear();
        let (mut name, mut version, mut dropped) = (Cow::Borrowed(""), Cow::Borrowed(""), 0);
        for field in Fields::of(scope) {
            let field = field?;
            match field.number() {
                1 => name = field.text()?,
                2 => version = field.text()?,
                4 => dropped = field.varint()?,
                _ => {}
            }
        }
        let json = &mut self.scope_json;
        json.raw(b"{");
        json.attributes(attributes(scope, 3), METADATA_MEMBER_LEVEL + 1)?;
        json.number_unless_zero("dropped_attributes_count", dropped);
        json.text_unless_empty("name", name.clone());
        json.text_unless_empty("schema_url", text(item.scope_schema_url));
        json.text_unless_empty("version", version);
        json.raw(b"}");
        self.scope_name = name;
        Ok(())
    }

    /// Writes the members of `metadata` that describe the resource and the scope, in the order of their names.
    pub fn write(&self, json: &mut Json) {
        json.object_unless_empty("resource", &self.resource_json);
        json.number_unless_zero("resource_dropped_attributes_count", self.resource_dropped);
        json.text_unless_empty("resource_schema_url", self.resource_schema_url.clone());
        json.object_unless_empty("scope", &self.scope_json);
    }

    /// The length that it adds to an event, in bytes.
    pub fn len(&self) -> usize {
        self.resource_json.bytes.len() + self.scope_json.bytes.len()
    }

    /// Whether any of its text was not UTF-8 and was replaced.
    pub fn has_replacements(&self) -> bool {
        self.resource_json.has_replacements || self.scope_json.has_replacements
    }
}

/// Caches the resource and scope of the last item, because most items of a request share them.
pub struct ResourceScopeCache<'a> {
    /// The maximum number of attributes in a list.
    max_attributes: usize,
    /// The resource and its schema URL.
    resource: Option<[&'a [u8]; 2]>,
    /// The scope and its schema URL.
    scope: Option<[&'a [u8]; 2]>,
    last: ResourceScope<'a>,
}

impl<'a> ResourceScopeCache<'a> {
    /// An empty cache. `max_attributes` bounds each list of attributes.
    pub fn new(max_attributes: usize) -> ResourceScopeCache<'a> {
        ResourceScopeCache { max_attributes, resource: None, scope: None, last: ResourceScope::new(max_attributes) }
    }

    /// The resource and scope of an item.
    ///
    /// # Errors
    /// When its resource or scope is malformed, or does not fit into an event.
    pub fn of(&mut self, item: &Item<'a>, mapping: &Mapping) -> Result<&ResourceScope<'a>, Fault> {
        let is_same = |last: &Option<[&'a [u8]; 2]>, now: &[&'a [u8]; 2]| {
            last.is_some_and(|last| last.iter().zip(now).all(|(last, now)| std::ptr::eq(*last, *now)))
        };
        let (resource, scope) = ([item.resource, item.resource_schema_url], [item.scope, item.scope_schema_url]);
        if !is_same(&self.resource, &resource) {
            self.resource = None;
            self.last.read_resource(item, mapping, self.max_attributes)?;
            self.resource = Some(resource);
        }
        if !is_same(&self.scope, &scope) {
            self.scope = None;
            self.last.read_scope(item)?;
            self.scope = Some(scope);
        }
        Ok(&self.last)
    }
}
