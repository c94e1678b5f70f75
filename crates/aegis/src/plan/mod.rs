//! Memory plans of files: tensor lifetimes in, offsets out, without models or a device.
//!
//! [`LifetimeTable`] reads a CSV file and says what is wrong with it and where; [`plan`] finds
//! offsets; [`PlanReport::to_csv`] writes them beside the lifetimes, and [`svg`] draws
//! them. What decides is `aegis-memory`; this module reads clocks and files for it.
//!
//! ```
//! use aegis::plan::{LifetimeTable, PlanLimit, PlanOptions, plan};
//!
//! let table = LifetimeTable::parse(b"id,lower,upper,size\na,0,2,64\nb,1,3,32\nc,2,4,64\n")?;
//! let options = PlanOptions { capacity: None, limit: PlanLimit::usual(&table, None) };
//! let report = plan(&table, &options);
//! assert_eq!((report.peak.as_u64(), report.bound.as_u64()), (96, 96));
//! assert!(report.is_optimal());
//! # Ok::<(), aegis::plan::TableFault>(())
//! ```

mod fault;
mod report;
mod rows;
mod svg;
mod table;

pub use fault::{FieldFault, TableFault};
pub use report::{BoundProof, Ended, Outcome, PlanLimit, PlanOptions, PlanReport, plan};
pub use svg::svg;
pub use table::LifetimeTable;
