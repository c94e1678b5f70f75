//! What the device says about itself.

use aegis_cuda::{ComputeUnits, DeviceError, DriverKind};
use aegis_trace::Bytes;

use crate::bench::{Bench, Outcome, require};

pub(crate) fn says_what_it_is(bench: &Bench) -> Outcome {
    let device = bench.open()?;
    let what = device.capabilities();
    require(what.driver() == DriverKind::Cuda, || "the driver is not cuda".into())?;
    require(!what.name().is_empty(), || "the GPU has no name".into())?;
    let units = what.compute_units();
    let has_units = matches!(units, Some(ComputeUnits::Multiprocessors { count: 1.., .. }));
    require(has_units, || format!("compute units: {units:?}"))?;
    require(what.total_memory() > Some(Bytes::from_gib(1)), || format!("{what:?}"))?;
    require(what.compute_capability().is_some(), || "no compute capability".into())?;
    require(what.gpu().is_some(), || "no GPU capabilities".into())?;
    Ok(format!("{what:#?}\n{:#?}\nthrottle: {}", device.health(), throttle(&device)))
}

fn throttle(device: &aegis_cuda::DeviceContext) -> String {
    let reasons = device.health().and_then(|health| health.throttle);
    reasons.map_or_else(|| "not told".into(), |reasons| reasons.to_string())
}

pub(crate) fn refuses_an_ordinal(bench: &Bench) -> Outcome {
    let refused = bench.open_with(|config| config.ordinal = 999).expect_err("no such GPU");
    let is_config = matches!(
        refused.downcast_ref::<DeviceError>(),
        Some(DeviceError::Config { field: "ordinal", .. })
    );
    require(is_config, || refused.to_string())?;
    Ok(refused.to_string())
}
