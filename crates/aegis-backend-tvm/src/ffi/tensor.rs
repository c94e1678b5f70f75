//! Tensors of TVM over memory of ours.

use std::ffi::c_void;
use std::ptr::{self, NonNull};

use aegis_context::{DType, TensorSpec};

use super::api::{api, check};
use super::range::{self, Block};
use super::sys;
use super::value::Value;

/// The most dimensions that a tensor may have.
pub(super) const RANK_MAX: usize = 16;
/// What TVM's kernels expect of an address.
const ALIGNMENT: i32 = 64;
/// What no tensor's address may be; one without elements has it all the same.
const NOWHERE: usize = 1 << 12;

/// The element type as DLPack has it.
pub(super) fn data_type(dtype: DType) -> Option<sys::DataType> {
    let of = |code, bits| Some(sys::DataType { code, bits, lanes: 1 });
    match dtype {
        DType::I8 => of(0, 8),
        DType::I16 => of(0, 16),
        DType::I32 => of(0, 32),
        DType::I64 => of(0, 64),
        DType::U8 => of(1, 8),
        DType::U16 => of(1, 16),
        DType::U32 => of(1, 32),
        DType::U64 => of(1, 64),
        DType::F16 => of(2, 16),
        DType::F32 => of(2, 32),
        DType::F64 => of(2, 64),
        DType::Bf16 => of(4, 16),
        DType::Bool => of(6, 8),
        _ => None,
    }
}

/// The sizes and distances of a tensor whose elements are packed in row-major order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    shape: [i64; RANK_MAX],
    strides: [i64; RANK_MAX],
    rank: usize,
}

impl Layout {
    /// The layout of `shape`; `None` for more dimensions than [`RANK_MAX`], or sizes that no memory has.
    pub(super) fn packed(shape: &[i64]) -> Option<Self> {
        let rank = shape.len();
        let mut layout = Self { shape: [0; RANK_MAX], strides: [0; RANK_MAX], rank };
        layout.shape.get_mut(..rank)?.copy_from_slice(shape);
        let mut stride = 1i64;
        for axis in (0..rank).rev() {
            layout.strides[axis] = stride;
            stride = stride.checked_mul(layout.shape[axis].max(1))?;
        }
        Some(layout)
    }
}

/// A tensor that TVM holds, with what it points to. TVM gets the address of `managed`, the first field.
#[repr(C)]
struct Held {
    managed: sys::ManagedTensor,
    layout: Layout,
    /// The block of scratch that goes back when the tensor is dropped; none for memory of ours.
    block: Option<Block>,
}

/// A tensor of `spec` at `address`, which the caller keeps for as long as the value lives.
///
/// # Errors
/// The specification has no counterpart in DLPack, or the address is not aligned.
pub(super) fn over(
    spec: &TensorSpec,
    address: NonNull<u8>,
    device: sys::Device,
) -> Result<Value, String> {
    let data_type = data_type(spec.dtype).ok_or_else(|| format!("{spec} has no DLPack type"))?;
    let axis = |size: &usize| i64::try_from(*size).map_err(|error| error.to_string());
    let shape: Vec<i64> = spec.shape.iter().map(axis).collect::<Result<_, _>>()?;
    let layout = Layout::packed(&shape).ok_or_else(|| {
        format!("{spec} has more than {RANK_MAX} dimensions or elements than memory")
    })?;
    hold(address.as_ptr().cast(), device, data_type, layout, None)
}

/// A tensor of `bytes` bytes at the address of `block`, which goes back when the tensor is dropped;
/// without a block, at `address`.
pub(super) fn of_bytes(
    address: usize,
    bytes: usize,
    device: sys::Device,
    block: Option<Block>,
) -> Result<Value, String> {
    let length = i64::try_from(bytes).map_err(|error| error.to_string())?;
    let layout = Layout::packed(&[length]).ok_or("it is larger than any memory")?;
    let data_type = sys::DataType { code: 1, bits: 8, lanes: 1 };
    let data = ptr::with_exposed_provenance_mut(if bytes == 0 { NOWHERE } else { address });
    hold(data, device, data_type, layout, block)
}

fn hold(
    data: *mut c_void,
    device: sys::Device,
    data_type: sys::DataType,
    layout: Layout,
    block: Option<Block>,
) -> Result<Value, String> {
    let rank = i32::try_from(layout.rank).map_err(|error| error.to_string())?;
    let tensor = sys::DlTensor {
        data,
        device,
        rank,
        data_type,
        shape: ptr::null_mut(),
        strides: ptr::null_mut(),
        byte_offset: 0,
    };
    let managed = sys::ManagedTensor { tensor, context: ptr::null_mut(), deleter: Some(delete) };
    let held = Box::into_raw(Box::new(Held { managed, layout, block }));
    // SAFETY: The box is whole and nobody else has it yet.
    let fields = unsafe { &mut *held };
    fields.managed.tensor.shape = fields.layout.shape.as_mut_ptr();
    fields.managed.tensor.strides = fields.layout.strides.as_mut_ptr();
    let mut handle = ptr::null_mut();
    // SAFETY: (1) The description is whole, and lives until its deleter is called. (2) What it points to
    // lives as long as the tensor: the caller's promise. (3) The place for the result is valid.
    let status = unsafe { (api().tensor_from)(held.cast(), ALIGNMENT, 1, &raw mut handle) };
    if let Err(error) = check(status) {
        // SAFETY: A tensor that was refused was not taken over.
        drop(unsafe { Box::from_raw(held) });
        return Err(error);
    }
    Ok(Value::object(handle, sys::TENSOR))
}

/// Called by TVM when the last reference to a tensor is gone.
///
/// # Safety
/// `tensor` is one that [`hold`] gave to TVM, and this is called once for it.
unsafe extern "C" fn delete(tensor: *mut sys::ManagedTensor) {
    // SAFETY: The pointer is the one that `hold` gave away, and comes back once.
    let held = unsafe { Box::from_raw(tensor.cast::<Held>()) };
    if let Some(block) = held.block {
        range::take_back(block);
    }
}

/// A tensor of `shape` and `data_type` within another one, which it keeps.
///
/// # Errors
/// It is not within it, or has too many dimensions.
pub(super) fn within(
    storage: &sys::Any,
    offset: i64,
    shape: &[i64],
    data_type: sys::DataType,
) -> Result<Value, String> {
    let outer = super::value::tensor_of(storage).ok_or("the storage is no tensor")?;
    let too_large = || format!("a tensor of shape {shape:?} at {offset} is not in its storage");
    let layout = Layout::packed(shape).ok_or_else(too_large)?;
    let elements = shape.iter().try_fold(1i64, |all, size| all.checked_mul(*size));
    let element_bits = i64::from(data_type.bits) * i64::from(data_type.lanes);
    let bits = elements.and_then(|elements| elements.checked_mul(element_bits));
    let bytes = bits.map(|bits| bits.saturating_add(7) / 8).ok_or_else(too_large)?;
    let end = offset.checked_add(bytes).ok_or_else(too_large)?;
    // SAFETY: The storage is a tensor of `of_bytes`, with one dimension, whose size this is.
    let size = unsafe { outer.shape.read() };
    if offset < 0 || bytes < 0 || end > size {
        return Err(too_large());
    }
    let mut layout = layout;
    let at = usize::try_from(offset).map_err(|error| error.to_string())?;
    let prototype = sys::DlTensor {
        data: outer.data.wrapping_byte_add(at),
        rank: i32::try_from(layout.rank).map_err(|error| error.to_string())?,
        data_type,
        shape: layout.shape.as_mut_ptr(),
        strides: layout.strides.as_mut_ptr(),
        byte_offset: 0,
        ..outer
    };
    // SAFETY: A tensor's payload is a pointer to its object.
    let source = unsafe { storage.payload.pointer };
    let mut handle = ptr::null_mut();
    // SAFETY: (1) The source is alive, and the view keeps it. (2) The view lies within it: just checked.
    // (3) Shape and strides are copied. (4) The place for the result is valid.
    check(unsafe { (api().tensor_view)(source, &raw const prototype, &raw mut handle) })?;
    Ok(Value::object(handle, sys::TENSOR))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packed_layout_counts_from_the_innermost_dimension() {
        let layout = Layout::packed(&[2, 3, 4]).expect("three dimensions");
        assert_eq!(layout.strides[..3], [12, 4, 1]);
        assert!(Layout::packed(&[1; RANK_MAX + 1]).is_none());
        assert!(Layout::packed(&[i64::MAX, 3]).is_none());
    }

    #[test]
    fn every_type_has_its_size_in_dlpack() {
        for dtype in [DType::Bool, DType::I8, DType::F16, DType::Bf16, DType::F32, DType::U64] {
            let found = data_type(dtype).expect("it has a counterpart");
            assert_eq!(usize::from(found.bits), dtype.size() * 8);
        }
    }
}
