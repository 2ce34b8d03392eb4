//! Writing JSON objects from canonical values: what other formats become on their way in, and on their way out.

use super::string::write_string;

/// A JSON object that is being written. Names are given as they stand between the quotes.
pub struct Object {
    bytes: Vec<u8>,
}

impl Default for Object {
    fn default() -> Object {
        Object::new()
    }
}

impl Object {
    /// An empty one.
    pub fn new() -> Object {
        Object::with_capacity(256)
    }

    /// An empty one with room for that many bytes.
    pub fn with_capacity(capacity: usize) -> Object {
        let mut bytes = Vec::with_capacity(capacity);
        bytes.push(b'{');
        Object { bytes }
    }

    /// A name; its value comes next.
    pub fn key(&mut self, name: &[u8]) {
        if self.bytes.last() != Some(&b'{') {
            self.bytes.push(b',');
        }
        self.bytes.push(b'"');
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(b"\":");
    }

    /// The value behind a name.
    pub fn value(&mut self, value: &[u8]) {
        self.bytes.extend_from_slice(value);
    }

    /// A value that is JSON already.
    pub fn raw(&mut self, name: &str, value: &[u8]) {
        self.key(name.as_bytes());
        self.bytes.extend_from_slice(value);
    }

    /// A number.
    pub fn integer(&mut self, name: &str, value: i128) {
        self.raw(name, value.to_string().as_bytes());
    }

    /// A text.
    pub fn text(&mut self, name: &str, text: &str) {
        self.key(name.as_bytes());
        write_string(text, &mut self.bytes);
    }

    /// A canonical value as a string: see [`Object::write_as_string`].
    pub fn string(&mut self, name: &str, value: Option<&[u8]>) {
        self.key(name.as_bytes());
        self.write_as_string(value);
    }

    /// An object in it.
    pub fn object(&mut self, name: &str, write: impl FnOnce(&mut Object)) {
        self.key(name.as_bytes());
        self.bytes.push(b'{');
        write(self);
        self.bytes.push(b'}');
    }

    /// What is written so far: all but the brace that closes it.
    pub fn open(self) -> Vec<u8> {
        self.bytes
    }

    /// The whole object.
    pub fn close(mut self) -> Vec<u8> {
        self.bytes.push(b'}');
        self.bytes
    }

    /// A string stays as it is, anything else becomes the string of its compact JSON, nothing the empty one.
    pub fn write_as_string(&mut self, value: Option<&[u8]>) {
        match value {
            Some(value) if value.first() == Some(&b'"') => self.bytes.extend_from_slice(value),
            Some(value) => write_string(&String::from_utf8_lossy(value), &mut self.bytes),
            None => self.bytes.extend_from_slice(b"\"\""),
        }
    }
}
