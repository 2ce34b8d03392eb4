//! Compresses and decompresses the contents of frames: see [`super::frame`].

use lz4_flex::block::{
    CompressTable, compress_into, compress_into_with_table, decompress_into, get_maximum_output_size,
};
use zstd_safe::{CCtx, CParameter, DCtx};

use crate::ledger::store::Compression;
use crate::ledger::store::config::ZSTD_LEVEL;

/// The compression of a frame, as the frame names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// None.
    Plain,
    /// A block of LZ4.
    Lz4,
    /// A frame of Zstandard (RFC 8878).
    Zstd,
}

impl Packing {
    /// The number that stands for it in a frame.
    pub fn number(self) -> u8 {
        match self {
            Packing::Plain => 0,
            Packing::Lz4 => 1,
            Packing::Zstd => 2,
        }
    }

    /// The packing with this number.
    pub fn from_number(number: u8) -> Option<Packing> {
        [Packing::Plain, Packing::Lz4, Packing::Zstd].into_iter().find(|packing| packing.number() == number)
    }

    /// Decompresses `packed` into the whole of `unpacked`; `None` if it is damaged or has another length.
    pub fn unpack(self, packed: &[u8], unpacked: &mut [u8]) -> Option<()> {
        let len = match self {
            Packing::Plain => return None,
            Packing::Lz4 => decompress_into(packed, unpacked).ok()?,
            Packing::Zstd => DCtx::create().decompress(unpacked, packed).ok()?,
        };
        (len == unpacked.len()).then_some(())
    }
}

/// Compresses the contents of frames and reuses its memory.
pub struct Packer {
    method: Method,
    packed: Vec<u8>,
}

enum Method {
    Lz4(CompressTable),
    Zstd(CCtx<'static>),
}

impl Packer {
    /// Compresses as `storage.compression` says.
    pub fn new(compression: Compression) -> Packer {
        let method = match compression {
            Compression::Lz4 => Method::Lz4(CompressTable::small()),
            Compression::Zstd => Method::Zstd(zstd_context()),
        };
        Packer { method, packed: Vec::new() }
    }

    /// Compresses `plain`. Returns the packing and the compressed bytes; `None` if they are not shorter.
    pub fn pack(&mut self, plain: &[u8]) -> Option<(Packing, &[u8])> {
        let bound = match &self.method {
            Method::Lz4(_) => get_maximum_output_size(plain.len()),
            Method::Zstd(_) => zstd_safe::compress_bound(plain.len()),
        };
        if self.packed.len() < bound {
            self.packed.resize(bound, 0);
        }
        let (packing, len) = match &mut self.method {
            // A table for longer input would replace the small one, which is faster.
            Method::Lz4(table) if plain.len() < usize::from(u16::MAX) => {
                (Packing::Lz4, compress_into_with_table(plain, &mut self.packed, table).ok()?)
            }
            Method::Lz4(_) => (Packing::Lz4, compress_into(plain, &mut self.packed).ok()?),
            Method::Zstd(context) => (Packing::Zstd, context.compress2(&mut self.packed[..], plain).ok()?),
        };
        (len < plain.len()).then(|| (packing, &self.packed[..len]))
    }
}

fn zstd_context() -> CCtx<'static> {
    let mut context = CCtx::create();
    // A level is always accepted.
    let _ = context.set_parameter(CParameter::CompressionLevel(ZSTD_LEVEL));
    context
}
