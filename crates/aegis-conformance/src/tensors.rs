//! Inputs for the suite, and how far apart outputs are.

use aegis_context::{DType, TensorSpec};

/// The bytes of all inputs or all outputs of a job, in the description's order.
pub type Tensors = Vec<Vec<u8>>;

/// Inputs that a model may get: fractions around zero; ones for whole numbers, which are valid indices
/// of any table with two rows; and for the inputs named in `distinct`, whole numbers all, the numbers
/// from zero on, each once.
///
/// # Panics
/// When a `distinct` input has more elements than its type has numbers.
#[must_use]
pub fn inputs(specs: &[TensorSpec], distinct: &[&str], seed: u32) -> Tensors {
    let mut state = seed;
    let mut next = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f32::from(u16::try_from(state >> 16).expect("sixteen bits")) / 65_536.0 - 0.5
    };
    let mut input = |spec: &TensorSpec| -> Vec<u8> {
        match spec.dtype {
            DType::F32 => (0..spec.elements()).flat_map(|_| next().to_le_bytes()).collect(),
            DType::F64 => {
                (0..spec.elements()).flat_map(|_| f64::from(next()).to_le_bytes()).collect()
            }
            DType::F16 | DType::Bf16 => vec![0; spec.bytes()],
            _ if distinct.contains(&spec.name.as_str()) => {
                let width = spec.dtype.size();
                (0..spec.elements()).flat_map(|number| whole(number as u64, width)).collect()
            }
            _ => whole(1, spec.dtype.size()).repeat(spec.elements()),
        }
    };
    specs.iter().map(&mut input).collect()
}

/// `number` in `width` bytes.
fn whole(number: u64, width: usize) -> Vec<u8> {
    let bytes = number.to_le_bytes();
    assert!(bytes[width..].iter().all(|byte| *byte == 0), "{number} needs more than {width} bytes");
    bytes[..width].to_vec()
}

/// Inputs that make no sense: what is not a number, and minus one or the largest number as an index.
#[must_use]
pub fn hostile(specs: &[TensorSpec]) -> Tensors {
    let input = |spec: &TensorSpec| {
        let byte = if spec.dtype == DType::Bool { 1 } else { 0xff };
        vec![byte; spec.bytes()]
    };
    specs.iter().map(input).collect()
}

/// The largest difference as a share of the largest expected value; infinite where one is no number
/// and the other is another, or where whole numbers differ.
#[must_use]
pub fn distance(specs: &[TensorSpec], expected: &Tensors, found: &Tensors) -> f64 {
    if expected.len() != found.len() {
        return f64::INFINITY;
    }
    let apart = |((spec, expected), found): ((&TensorSpec, &Vec<u8>), &Vec<u8>)| match spec.dtype {
        DType::F32 => apart_f32(expected, found),
        _ if expected == found => 0.0,
        _ => f64::INFINITY,
    };
    specs.iter().zip(expected).zip(found).map(apart).fold(0.0, f64::max)
}

fn apart_f32(expected: &[u8], found: &[u8]) -> f64 {
    let floats = |bytes: &[u8]| -> Vec<f64> {
        let float = |it: &[u8]| f32::from_le_bytes(it.try_into().expect("four bytes"));
        bytes.chunks_exact(4).map(|it| f64::from(float(it))).collect()
    };
    let (expected, found) = (floats(expected), floats(found));
    if expected.len() != found.len() {
        return f64::INFINITY;
    }
    let largest = expected.iter().fold(f64::MIN_POSITIVE, |most, value| most.max(value.abs()));
    let apart = |(a, b): (&f64, &f64)| match ((a - b).abs() / largest, a.is_nan() && b.is_nan()) {
        (_, true) => 0.0,
        (apart, false) if apart.is_nan() => f64::INFINITY,
        (apart, false) => apart,
    };
    expected.iter().zip(&found).map(apart).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floats(values: [f32; 2]) -> Tensors {
        vec![values.iter().flat_map(|value| value.to_le_bytes()).collect()]
    }

    #[test]
    fn distinct_inputs_are_numbers_that_occur_once_and_others_are_ones() {
        let spec = |name: &str, dtype| TensorSpec { name: name.into(), dtype, shape: vec![40, 1] };
        let specs = [spec("cells", DType::I64), spec("ids", DType::I64), spec("small", DType::U8)];
        let given = inputs(&specs, &["cells", "small"], 7);
        let numbers = |bytes: &[u8]| -> Vec<i64> {
            let number = |it: &[u8]| i64::from_le_bytes(it.try_into().expect("eight bytes"));
            bytes.chunks_exact(8).map(number).collect()
        };
        assert_eq!(numbers(&given[0]), (0..40).collect::<Vec<_>>());
        assert_eq!(numbers(&given[1]), [1; 40]);
        assert_eq!(given[2], (0..40).collect::<Vec<u8>>());
    }

    #[test]
    #[should_panic(expected = "needs more than 1 bytes")]
    fn a_type_with_too_few_numbers_is_refused() {
        let spec = TensorSpec { name: "x".into(), dtype: DType::U8, shape: vec![257] };
        let _beyond = inputs(&[spec], &["x"], 7);
    }

    #[test]
    fn a_distance_is_a_share_of_the_largest_and_nothing_is_close_to_no_number() {
        let spec = [TensorSpec { name: "y".into(), dtype: DType::F32, shape: vec![2] }];
        let of = |a, b| distance(&spec, &floats(a), &floats(b));
        assert!((of([1.0, 4.0], [1.0, 3.0]) - 0.25).abs() < 1e-9);
        assert!(of([1.0, 4.0], [1.0, f32::NAN]).is_infinite());
        assert!(of([1.0, f32::NAN], [1.0, f32::NAN]).abs() < 1e-9);
        assert!(distance(&spec, &floats([1.0, 2.0]), &vec![]).is_infinite());
    }
}
