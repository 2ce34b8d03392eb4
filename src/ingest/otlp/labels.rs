//! Writes `labels`: the attributes that `docs/otlp.md` lists, if they are scalars.

use super::any_value::is_scalar;
use super::attributes::Attributes;
use super::facts::Context;
use super::mapping::compiled::Label;
use super::resource::ResourceScope;
use super::value::{Fault, Json};
use cairn_proof::chain::Field;

/// The nesting level of a member of `labels`; that of the event is 1.
const LEVEL: u32 = 2;

/// The labels of the last record. Those of the next one are usually the same: they are compared as they were sent, and not
/// written anew.
#[derive(Debug, Default)]
pub struct LastLabels<'a> {
    /// The attribute of each label, an encoded `AnyValue`.
    sent: Vec<Option<&'a [u8]>>,
    /// Whether the attribute of each label is a scalar.
    is_label: Vec<bool>,
    /// What was written, as canonical JSON: empty without labels; `None` if it must not be used again.
    json: Option<Vec<u8>>,
}

/// The attribute of a label.
fn sent<'a>(label: &Label, shared: &ResourceScope<'a>, attributes: &Attributes<'a>) -> Option<&'a [u8]> {
    if label.is_of_resource { shared.resource.any(label.key) } else { attributes.any(label.key) }
}

impl<'a> LastLabels<'a> {
    /// Writes the labels of a record.
    ///
    /// # Errors
    /// When an attribute is malformed.
    pub fn write(
        &mut self,
        json: &mut Json,
        context: &Context<'_, 'a>,
        attributes: &mut Attributes<'a>,
    ) -> Result<(), Fault> {
        let (labels, shared) = (context.mapping.labels(), context.shared);
        let is_same = |(label, last): (&Label, &Option<&[u8]>)| sent(label, shared, attributes) == *last;
        match &self.json {
            Some(written) if labels.iter().zip(&self.sent).all(is_same) => {
                if !written.is_empty() {
                    json.field(Field::Labels);
                    json.raw(written);
                }
            }
            _ => {
                self.sent.clear();
                self.sent.extend(labels.iter().map(|label| sent(label, shared, attributes)));
                self.write_anew(labels, json)?;
            }
        }
        let own = labels.iter().zip(&self.is_label).filter(|(label, is_label)| !label.is_of_resource && **is_label);
        own.for_each(|(label, _)| attributes.mark_used(label.key));
        Ok(())
    }

    /// Writes what was sent. Keeps what was written, unless a text was replaced, which every record has to report.
    fn write_anew(&mut self, labels: &[Label], json: &mut Json) -> Result<(), Fault> {
        let mut written = self.json.take().unwrap_or_default();
        written.clear();
        self.is_label.clear();
        self.is_label.extend(self.sent.iter().map(|any| any.is_some_and(is_scalar)));
        let (had_replacements, omitted) = (std::mem::take(&mut json.has_replacements), json.omitted);
        let mut start = None;
        for ((label, any), is_label) in labels.iter().zip(&self.sent).zip(&self.is_label) {
            let Some(any) = any.filter(|_| *is_label) else { continue };
            if start.is_none() {
                json.field(Field::Labels);
                start = Some(json.bytes.len());
                json.raw(b"{");
            }
            json.key(label.name);
            json.any(any, LEVEL)?;
        }
        if let Some(start) = start {
            json.raw(b"}");
            written.extend_from_slice(&json.bytes[start..]);
        }
        self.json = (!json.has_replacements && json.omitted == omitted).then_some(written);
        json.has_replacements |= had_replacements;
        Ok(())
    }
}
