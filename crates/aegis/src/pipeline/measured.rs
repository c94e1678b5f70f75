//! The evidence of a workload, held against its models, its device and what it asks for.

use aegis_cuda::DeviceCapabilities;
use aegis_sched::wcet::Method;

use super::source::source;
use super::{Pipeline, needs_evidence};
use crate::environment::{Environment, Property};
use crate::error::Error;
use crate::evidence::{DeviceFingerprint, Evidence, EvidenceError, Here, ModelEvidence};
use crate::workload::Unclaimed;

impl Pipeline {
    /// The evidence, checked against models and device; `None` when no model needs any.
    pub(super) fn evidence(&self) -> Result<Option<Evidence>, Error> {
        let mut real = self.workload.models.iter().filter(|model| needs_evidence(model)).peekable();
        if real.peek().is_none() {
            return Ok(None);
        }
        let evidence = Evidence::read(&self.evidence_path)?;
        let facts = self.facts()?;
        let device = &DeviceFingerprint::of(&facts.capabilities);
        let environment = &Environment::read_with(facts.settings.clone());
        let accepted = &self.workload.wcet.accept;
        for model in real {
            let partition = &self.partition_of(model, &facts.granted);
            let here = Here { device, environment, partition: partition.as_ref(), accepted };
            let measured = evidence.of(&model.name, &source(model), here)?;
            self.claimed(&model.name, measured)?;
        }
        self.check_uploads(&evidence, &facts.capabilities)?;
        Ok(Some(evidence))
    }

    /// Where inputs go ahead, the device must be able to, and costs must hold beside them.
    fn check_uploads(&self, evidence: &Evidence, device: &DeviceCapabilities) -> Result<(), Error> {
        if !self.workload.overheads.uploads_ahead {
            return Ok(());
        }
        device.check_copy_engines()?;
        if self.workload.wcet.accept.contains(&Property::Copies) {
            return Ok(());
        }
        let real = || self.workload.models.iter().filter(|model| needs_evidence(model));
        for model in real() {
            let others = real().filter(|other| other.name != model.name);
            evidence.holds_beside_uploads(&model.name, others.map(|other| other.name.as_str()))?;
        }
        Ok(())
    }

    /// Refuses evidence without a claim, where the workload asks for one.
    fn claimed(&self, name: &str, evidence: &ModelEvidence) -> Result<(), EvidenceError> {
        let rule = &self.workload.wcet;
        if rule.method == Method::Margin || rule.unclaimed == Unclaimed::Accept {
            return Ok(());
        }
        let profile = self.wcet(evidence);
        for (stage, measured) in profile.stages.iter().enumerate() {
            let without = measured.evidence.iter().find(|(_, (_, estimate))| !estimate.claim);
            if let Some((scenario, (_, estimate))) = without {
                let why: Vec<String> = estimate.warnings.iter().map(ToString::to_string).collect();
                let (model, scenario, why) = (name.to_owned(), *scenario, why.join("; "));
                return Err(EvidenceError::Unclaimed { model, stage, scenario, why });
            }
        }
        Ok(())
    }
}
