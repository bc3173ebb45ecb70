//! A storage backend of redb that reads from a file and keeps all writes in memory.
//!
//! redb repairs a database that was not closed when it opens it, which writes. Reading a damaged file must not change
//! it.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

/// Bytes of a block; written blocks are kept in memory.
const BLOCK: usize = 4_096;

/// A file, and the blocks that were written over it.
#[derive(Debug)]
pub(super) struct Overlay {
    file: File,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    len: u64,
    /// Length of the part of the file that is still valid; less than the file's length after a truncation.
    in_file: u64,
    blocks: HashMap<u64, Box<[u8]>>,
}

impl Overlay {
    /// An overlay without writes.
    pub fn new(file: File) -> io::Result<Self> {
        let len = file.metadata()?.len();
        Ok(Self { file, state: Mutex::new(State { len, in_file: len, blocks: HashMap::new() }) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The content of a block: the written one, else the file's, padded with zeros.
    fn block(&self, state: &State, number: u64) -> io::Result<Box<[u8]>> {
        if let Some(block) = state.blocks.get(&number) {
            return Ok(block.clone());
        }
        let mut block = vec![0; BLOCK].into_boxed_slice();
        let begin = number * BLOCK as u64;
        let in_file = usize::try_from(state.in_file.saturating_sub(begin)).unwrap_or(BLOCK).min(BLOCK);
        self.file.read_exact_at(&mut block[..in_file], begin)?;
        Ok(block)
    }

    /// Blocks of a range of bytes: block number, first byte within the block, number of bytes.
    fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, usize)> {
        let mut done = 0;
        std::iter::from_fn(move || {
            if done >= len {
                return None;
            }
            let at = offset + done as u64;
            let within = usize::try_from(at % BLOCK as u64).unwrap_or(0);
            let bytes = (BLOCK - within).min(len - done);
            done += bytes;
            Some((at / BLOCK as u64, within, bytes))
        })
    }
}

impl StorageBackend for Overlay {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.state().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let state = self.state();
        if offset.saturating_add(out.len() as u64) > state.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut done = 0;
        for (number, within, bytes) in Self::pieces(offset, out.len()) {
            let block = self.block(&state, number)?;
            out[done..done + bytes].copy_from_slice(&block[within..within + bytes]);
            done += bytes;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        let mut state = self.state();
        state.len = len;
        state.in_file = state.in_file.min(len);
        let blocks = len.div_ceil(BLOCK as u64);
        state.blocks.retain(|number, _| *number < blocks);
        // Bytes that are truncated must read as zeros if the file grows again.
        let within = usize::try_from(len % BLOCK as u64).unwrap_or(0);
        if let Some(block) = state.blocks.get_mut(&(len / BLOCK as u64)) {
            block[within..].fill(0);
        }
        Ok(())
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        let mut state = self.state();
        let mut done = 0;
        for (number, within, bytes) in Self::pieces(offset, data.len()) {
            let mut block = self.block(&state, number)?;
            block[within..within + bytes].copy_from_slice(&data[done..done + bytes]);
            state.blocks.insert(number, block);
            done += bytes;
        }
        state.len = state.len.max(offset + data.len() as u64);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_are_read_back_and_leave_the_file_unchanged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let bytes: Vec<u8> = (0..10_000).map(|n| (n % 251) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let overlay = Overlay::new(File::open(&path).unwrap()).unwrap();
        let mut expected = bytes.clone();
        for (offset, data) in [(4_090, vec![1; 20]), (9_995, vec![2; 100]), (0, vec![3; 9_000])] {
            let end = offset + data.len();
            expected.resize(expected.len().max(end), 0);
            expected[offset..end].copy_from_slice(&data);
            overlay.write(offset as u64, &data).unwrap();
        }
        for len in [9_999_u64, 5_000, 20_000] {
            overlay.set_len(len).unwrap();
            expected.resize(len as usize, 0);
        }
        assert_eq!(overlay.len().unwrap(), 20_000);
        let mut read = vec![9; 20_000];
        overlay.read(0, &mut read).unwrap();
        assert!(read == expected);
        assert!(overlay.read(19_990, &mut [0; 11]).is_err());
        assert!(std::fs::read(&path).unwrap() == bytes);
    }
}
