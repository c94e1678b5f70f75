//! Typed views of bound tensors: elements instead of bytes.
//!
//! A view borrows a [`DeviceBuffer`], so who has one has the tensor, and copies elements in and out.
//! It makes no reference into device memory, so nothing depends on where that memory is.
//!
//! # Invariants
//! 1. The buffer holds a whole number of elements and begins at a multiple of their size.
//! 2. Bytes are in the order of the machine, which is that of the device.

use std::marker::PhantomData;

use aegis_cuda::{DeviceBuffer, DeviceError};

use crate::error::ViewError;

/// A number that tensors are made of. The set is closed: there is a view for nothing else.
pub trait Element: Copy + sealed::Sealed {
    /// Its size in bytes.
    const SIZE: usize;
}

mod sealed {
    /// Conversion from and to bytes, for the elements of this module alone.
    pub trait Sealed: Sized {
        fn put(self, bytes: &mut [u8]);
        fn get(bytes: &[u8]) -> Self;
    }
}

macro_rules! element {
    ($($number:ty),*) => {$(
        impl Element for $number {
            const SIZE: usize = size_of::<$number>();
        }
        impl sealed::Sealed for $number {
            fn put(self, bytes: &mut [u8]) {
                bytes.copy_from_slice(&self.to_ne_bytes());
            }
            fn get(bytes: &[u8]) -> Self {
                Self::from_ne_bytes(bytes.try_into().expect("as many bytes as it has"))
            }
        }
    )*};
}

element!(f32, f64, i8, i16, i32, i64, u8, u16, u32, u64);

/// Bytes converted at a time, on the stack.
const CHUNK: usize = 4096;

/// The elements of a tensor. Copies without allocating.
#[derive(Debug)]
pub struct TensorView<'buffer, E> {
    buffer: &'buffer mut DeviceBuffer,
    element: PhantomData<E>,
}

impl<'buffer, E: Element> TensorView<'buffer, E> {
    /// The elements of `buffer`.
    ///
    /// # Errors
    /// [`ViewError::Uneven`] (permanent) unless size and offset are multiples of the element's size.
    pub fn of(buffer: &'buffer mut DeviceBuffer) -> Result<Self, ViewError> {
        let size = E::SIZE as u64;
        if !buffer.len().is_multiple_of(size) || !buffer.offset().is_multiple_of(size) {
            let (offset, length) = (buffer.offset(), buffer.len());
            return Err(ViewError::Uneven { offset, length, size });
        }
        Ok(Self { buffer, element: PhantomData })
    }

    /// How many elements there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.buffer.len() / E::SIZE as u64
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies `elements` to those from number `at` on. O(n).
    ///
    /// # Errors
    /// [`DeviceError::OutOfRange`] (permanent) when they reach past the end; nothing is written then.
    pub fn write(&mut self, at: u64, elements: &[E]) -> Result<(), DeviceError> {
        let from = self.start(at, elements.len())?;
        let mut bytes = [0; CHUNK];
        for (index, chunk) in elements.chunks(CHUNK / E::SIZE).enumerate() {
            let bytes = &mut bytes[..chunk.len() * E::SIZE];
            for (element, place) in chunk.iter().zip(bytes.chunks_exact_mut(E::SIZE)) {
                element.put(place);
            }
            self.buffer.write(from + (index * CHUNK) as u64, bytes)?;
        }
        Ok(())
    }

    /// Copies the elements from number `at` on to `elements`, all of it. O(n).
    ///
    /// # Errors
    /// [`DeviceError::OutOfRange`] (permanent) when there are not as many; nothing is read then.
    pub fn read(&self, at: u64, elements: &mut [E]) -> Result<(), DeviceError> {
        let from = self.start(at, elements.len())?;
        let mut bytes = [0; CHUNK];
        for (index, chunk) in elements.chunks_mut(CHUNK / E::SIZE).enumerate() {
            let bytes = &mut bytes[..chunk.len() * E::SIZE];
            self.buffer.read(from + (index * CHUNK) as u64, bytes)?;
            for (element, place) in chunk.iter_mut().zip(bytes.chunks_exact(E::SIZE)) {
                *element = E::get(place);
            }
        }
        Ok(())
    }

    /// The byte at which element `at` begins, if `count` elements follow it.
    fn start(&self, at: u64, count: usize) -> Result<u64, DeviceError> {
        let size = E::SIZE as u64;
        let from = at.saturating_mul(size);
        // A sum that does not fit in 64 bits is no range either way.
        let end = at.saturating_add(count as u64).saturating_mul(size);
        if end <= self.buffer.len() {
            return Ok(from);
        }
        let size = aegis_trace::Bytes(self.buffer.len());
        Err(DeviceError::OutOfRange { range: from..end, size })
    }
}
