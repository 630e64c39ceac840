//! Two relatives of LZ77: the block format of LZ4, and BloscLZ. References reach back into what was written already.

fn damaged() -> String {
    "it cannot be unpacked: it is damaged".into()
}

/// Repeats `length` bytes that stand `distance` before the end.
fn repeat(out: &mut Vec<u8>, distance: usize, length: usize, limit: usize) -> Result<(), String> {
    let from = out.len().checked_sub(distance).filter(|_| distance > 0).ok_or_else(damaged)?;
    if length > limit - out.len() {
        return Err(damaged());
    }
    for i in 0..length {
        out.push(out[from + i]);
    }
    Ok(())
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> Result<usize, String> {
        let (&first, rest) = self.0.split_first().ok_or_else(damaged)?;
        self.0 = rest;
        Ok(first.into())
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (first, rest) = self.0.split_at_checked(count).ok_or_else(damaged)?;
        self.0 = rest;
        Ok(first)
    }

    /// A length that goes on while its bytes are 255.
    fn length(&mut self, start: usize, more: bool) -> Result<usize, String> {
        let (mut length, mut more) = (start, more);
        while more {
            let byte = self.byte()?;
            length = length.checked_add(byte).ok_or_else(damaged)?;
            more = byte == 255;
        }
        Ok(length)
    }
}

/// A block of LZ4 that unpacks to at most `limit` bytes.
pub fn lz4(packed: &[u8], limit: usize) -> Result<Vec<u8>, String> {
    let (mut input, mut out) = (Input(packed), Vec::with_capacity(limit.min(packed.len().saturating_mul(255))));
    loop {
        let token = input.byte()?;
        let literals = input.length(token >> 4, token >> 4 == 15)?;
        if literals > limit - out.len() {
            return Err(damaged());
        }
        out.extend_from_slice(input.take(literals)?);
        if input.0.is_empty() {
            return Ok(out);
        }
        let distance = input.byte()? | input.byte()? << 8;
        let length = input.length(token & 15, token & 15 == 15)? + 4;
        repeat(&mut out, distance, length, limit)?;
    }
}

/// A block of BloscLZ that unpacks to at most `limit` bytes.
pub fn blosclz(packed: &[u8], limit: usize) -> Result<Vec<u8>, String> {
    /// Distances beyond this one are written in 16 bits more.
    const FAR: usize = 8191;
    let (mut input, mut out) = (Input(packed), Vec::with_capacity(limit.min(packed.len().saturating_mul(255))));
    if packed.is_empty() {
        return Ok(out);
    }
    // The first token is always one of literals.
    let mut token = input.byte()? & 31;
    loop {
        if token >= 32 {
            let (start, high) = ((token >> 5) - 1, (token & 31) << 8);
            let length = input.length(start, start == 6)? + 3;
            let low = input.byte()?;
            let distance = if low == 255 && high == 31 << 8 {
                (input.byte()? << 8 | input.byte()?) + FAR + 1
            } else {
                high + low + 1
            };
            repeat(&mut out, distance, length, limit)?;
        } else {
            if token + 1 > limit - out.len() {
                return Err(damaged());
            }
            out.extend_from_slice(input.take(token + 1)?);
        }
        if input.0.is_empty() {
            return Ok(out);
        }
        token = input.byte()?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lz4_repeats_and_refuses_what_reaches_before_the_start() {
        // Three literals, then 4 + 5 bytes from three before, then two literals.
        assert_eq!(lz4(&[0x35, b'a', b'b', b'c', 3, 0, 0x20, b'x', b'y'], 99).unwrap(), b"abcabcabcabcxy");
        assert!(lz4(&[0x15, b'a', 3, 0, 0x00], 99).is_err());
        assert!(lz4(&[0x35, b'a', b'b', b'c', 3, 0, 0x00], 5).is_err(), "larger than it may be");
        assert!(lz4(&[0xf0, 255], 99).is_err());
        assert!(lz4(&[], 99).is_err());
    }
}
