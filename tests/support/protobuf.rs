//! A hand-written protobuf encoder for OTLP requests. It shares no code with the decoder under test.

use serde_json::Value;

/// A protobuf message: its encoded fields, concatenated.
#[derive(Debug, Clone, Default)]
pub struct Message(pub Vec<u8>);

impl Message {
    fn tag(mut self, number: u64, wire_type: u64) -> Message {
        varint(number << 3 | wire_type, &mut self.0);
        self
    }

    /// Adds a length-delimited field.
    pub fn bytes(mut self, number: u64, bytes: impl AsRef<[u8]>) -> Message {
        self = self.tag(number, 2);
        varint(bytes.as_ref().len() as u64, &mut self.0);
        self.0.extend_from_slice(bytes.as_ref());
        self
    }

    /// Adds an embedded message.
    pub fn message(self, number: u64, message: Message) -> Message {
        self.bytes(number, message.0)
    }

    /// Adds a varint field.
    pub fn integer(mut self, number: u64, value: u64) -> Message {
        self = self.tag(number, 0);
        varint(value, &mut self.0);
        self
    }

    /// Adds a field of 8 bytes.
    pub fn fixed64(mut self, number: u64, value: u64) -> Message {
        self = self.tag(number, 1);
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// Adds a field of 4 bytes.
    pub fn fixed32(mut self, number: u64, value: u32) -> Message {
        self = self.tag(number, 5);
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// Adds a `KeyValue` with this key and value as field `number`.
    pub fn attribute(self, number: u64, key: &str, value: &Value) -> Message {
        self.message(number, Message::default().bytes(1, key).message(2, any(value)))
    }
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The `AnyValue` of a JSON value.
pub fn any(value: &Value) -> Message {
    let message = Message::default();
    match value {
        Value::Null => message,
        Value::String(text) => message.bytes(1, text),
        Value::Bool(value) => message.integer(2, u64::from(*value)),
        Value::Number(number) => match number.as_i64() {
            Some(integer) => message.integer(3, integer as u64),
            None => message.fixed64(4, number.as_f64().unwrap().to_bits()),
        },
        Value::Array(values) => {
            let list = values.iter().fold(Message::default(), |list, value| list.message(1, any(value)));
            message.message(5, list)
        }
        Value::Object(members) => {
            let list = members.iter().fold(Message::default(), |list, (key, value)| list.attribute(1, key, value));
            message.message(6, list)
        }
    }
}

/// A trace or span id of `length` bytes that ends with `number`.
pub fn id(number: u64, length: usize) -> Vec<u8> {
    [&[0xC0; 8][..length - 8], &number.to_be_bytes()].concat()
}

/// A span with the trace id 1, the span id `number`, and these attributes.
pub fn span(number: u64, name: &str, attributes: &[(&str, Value)]) -> Message {
    let span = Message::default().bytes(1, id(1, 16)).bytes(2, id(number, 8)).bytes(5, name);
    attributes.iter().fold(span, |span, (key, value)| span.attribute(9, key, value))
}

/// An export request with these spans or log records, in one scope of one resource.
pub fn export(service: &str, items: impl IntoIterator<Item = Message>) -> Vec<u8> {
    let items = items.into_iter().fold(Message::default(), |scope, item| scope.message(2, item));
    let resource = Message::default().attribute(1, "service.name", &Value::from(service));
    Message::default().message(1, Message::default().message(1, resource).message(2, items)).0
}
