//! Writes JSON objects from canonical values. The adapters for other formats use it for events that they convert, in
//! both directions. The members are not sorted.

use super::string::write_string;

/// Writes one JSON object. Names must need no escapes, or be escaped already.
pub struct Object {
    bytes: Vec<u8>,
}

impl Default for Object {
    fn default() -> Object {
        Object::new()
    }
}

impl Object {
    /// Starts an empty object.
    pub fn new() -> Object {
        Object::with_capacity(256)
    }

    /// Starts an empty object, with memory for `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> Object {
        let mut bytes = Vec::with_capacity(capacity);
        bytes.push(b'{');
        Object { bytes }
    }

    /// Writes a name. Its value must be written next.
    pub fn key(&mut self, name: &[u8]) {
        if self.bytes.last() != Some(&b'{') {
            self.bytes.push(b',');
        }
        self.bytes.push(b'"');
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(b"\":");
    }

    /// Appends JSON: the value after [`Object::key`], or a part of it.
    pub fn value(&mut self, value: &[u8]) {
        self.bytes.extend_from_slice(value);
    }

    /// Writes a member whose value is JSON already.
    pub fn raw(&mut self, name: &str, value: &[u8]) {
        self.key(name.as_bytes());
        self.bytes.extend_from_slice(value);
    }

    /// Writes a member with an integer.
    pub fn integer(&mut self, name: &str, value: i128) {
        self.raw(name, value.to_string().as_bytes());
    }

    /// Writes a member with a string, escaped as in canonical bytes.
    pub fn text(&mut self, name: &str, text: &str) {
        self.key(name.as_bytes());
        write_string(text, &mut self.bytes);
    }

    /// Writes a member with a canonical value, converted to a string; see [`Object::write_as_string`].
    pub fn string(&mut self, name: &str, value: Option<&[u8]>) {
        self.key(name.as_bytes());
        self.write_as_string(value);
    }

    /// Writes a member with an object, whose members `write` writes.
    pub fn object(&mut self, name: &str, write: impl FnOnce(&mut Object)) {
        self.key(name.as_bytes());
        self.bytes.push(b'{');
        write(self);
        self.bytes.push(b'}');
    }

    /// Returns the object without its closing brace.
    pub fn into_unclosed(self) -> Vec<u8> {
        self.bytes
    }

    /// Closes the object and returns it.
    pub fn close(mut self) -> Vec<u8> {
        self.bytes.push(b'}');
        self.bytes
    }

    /// Writes a value as a string: a string as it is, any other value as a string with its JSON, `None` as the empty
    /// string.
    pub fn write_as_string(&mut self, value: Option<&[u8]>) {
        match value {
            Some(value) if value.first() == Some(&b'"') => self.bytes.extend_from_slice(value),
            Some(value) => write_string(&String::from_utf8_lossy(value), &mut self.bytes),
            None => self.bytes.extend_from_slice(b"\"\""),
        }
    }
}
