//! Virtual and confidential machines: what a GPU is to them, and whether vGPU software is licensed.

use nvml_wrapper_sys::bindings::{
    nvmlConfComputeSystemState_t, nvmlGpuVirtualizationMode_t, nvmlGridLicensableFeatures_t,
};

use crate::answer::{NOT_SUPPORTED, get, put};

/// `NVML_GRID_LICENSE_FEATURE_CODE_VGPU`.
const VGPU_FEATURE: u32 = 1;

system_calls! {
    fn nvmlSystemGetConfComputeState(session, to: *mut nvmlConfComputeSystemState_t) {
        let (on, devtools) = session.machine.profile.confidential.ok_or(NOT_SUPPORTED)?;
        put(to, nvmlConfComputeSystemState_t { environment: 2, ccFeature: on.into(), devToolsMode: devtools.into() })
    }
}

device_calls! {
    fn nvmlDeviceGetVirtualizationMode(target, to: *mut nvmlGpuVirtualizationMode_t) {
        put(to, target.device().gpu.virtualization)
    }

    fn nvmlDeviceGetGridLicensableFeatures_v4(target, to: *mut nvmlGridLicensableFeatures_t) {
        let to = get(to)?;
        let license = target.device().gpu.vgpu_license;
        to.isGridLicenseSupported = license.is_some().into();
        to.licensableFeaturesCount = license.is_some().into();
        to.gridLicensableFeatures[0].featureCode = VGPU_FEATURE;
        to.gridLicensableFeatures[0].featureState = u32::from(license == Some(true));
        Ok(())
    }
}
