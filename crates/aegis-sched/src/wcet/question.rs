//! The question that an estimate answers: coverage, confidence and method.

use serde::Serialize;

use super::margin;
use super::share::Share;

/// What is asked of a campaign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// The share of jobs that shall stay below the bound.
    pub coverage: Share,
    /// The probability, over campaigns, that it does.
    pub confidence: Share,
    /// How.
    pub method: Method,
    /// What the margin rule adds, in percent.
    pub margin_percent: u32,
}

/// How a bound is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Method {
    /// By the rule of [this module](self).
    Auto,
    /// By the order statistic alone.
    Order,
    /// By peaks over threshold alone.
    Gpd,
    /// By block maxima alone; carries no claim.
    Gev,
    /// By the margin rule; carries no claim.
    Margin,
}

/// The default of who states nothing but coverage and confidence.
impl Question {
    /// The question of `aegis wcet` without a method.
    #[must_use]
    pub fn auto(coverage: Share, confidence: Share) -> Self {
        let margin_percent = margin::SAFETY_MARGIN_PERCENT;
        Self { coverage, confidence, method: Method::Auto, margin_percent }
    }
}
