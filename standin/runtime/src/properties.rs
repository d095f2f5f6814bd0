//! `cudaDeviceProp`, filled from the driver's device attributes.

use crate::abi::Status;
use crate::cuda12;
use crate::driver::Driver;

/// The structure as cuda 13.0's headers lay it out.
pub type DeviceProperties = cudarc::runtime::sys::cudaDeviceProp;

/// A function that fills a `cudaDeviceProp` of some release of CUDA:
/// `field[.index] = CUdevice_attribute`. An attribute the driver does not know
/// leaves the field 0.
macro_rules! reader {
    ($read:ident, $type:ty; $($field:ident $([$index:literal])? = $attribute:literal;)*) => {
        pub fn $read(driver: &Driver, ordinal: i32) -> Result<$type, Status> {
            let mut device = 0;
            // SAFETY: the result is a live local.
            unsafe { driver.cuDeviceGet(&mut device, ordinal)? };
            // SAFETY: integers and arrays of them only, for which zero is a value.
            let mut properties: $type = unsafe { std::mem::zeroed() };
            let mut uuid = [0u8; 16];
            // SAFETY: name and size results are live and of the stated lengths.
            unsafe {
                driver.cuDeviceGetName(
                    properties.name.as_mut_ptr(),
                    properties.name.len() as i32,
                    device,
                )?;
                driver.cuDeviceTotalMem(&mut properties.totalGlobalMem, device)?;
                driver.cuDeviceGetUuid(&mut uuid, device)?;
            }
            properties.uuid.bytes = uuid.map(|byte| byte as std::ffi::c_char);
            $(properties.$field $([$index])? = {
                let mut value = 0i32;
                // SAFETY: the result is a live local.
                match unsafe { driver.cuDeviceGetAttribute(&mut value, $attribute, device) } {
                    Ok(()) => value as _,
                    Err(_) => 0,
                }
            };)*
            Ok(properties)
        }
    };
}

/// What the structures of CUDA 12 and 13 have in common.
macro_rules! fields {
    ($read:ident, $type:ty; $($more:tt)*) => {
        reader! { $read, $type;
            $($more)*
            sharedMemPerBlock = 8;
            regsPerBlock = 12;
            warpSize = 10;
            memPitch = 11;
            maxThreadsPerBlock = 1;
            maxThreadsDim[0] = 2;
            maxThreadsDim[1] = 3;
            maxThreadsDim[2] = 4;
            maxGridSize[0] = 5;
            maxGridSize[1] = 6;
            maxGridSize[2] = 7;
            totalConstMem = 9;
            major = 75;
            minor = 76;
            textureAlignment = 14;
            texturePitchAlignment = 51;
            multiProcessorCount = 16;
            integrated = 18;
            canMapHostMemory = 19;
            maxTexture1D = 21;
            maxTexture2D[0] = 22;
            maxTexture2D[1] = 23;
            maxTexture3D[0] = 24;
            maxTexture3D[1] = 25;
            maxTexture3D[2] = 26;
            surfaceAlignment = 30;
            concurrentKernels = 31;
            ECCEnabled = 32;
            pciBusID = 33;
            pciDeviceID = 34;
            pciDomainID = 50;
            tccDriver = 35;
            asyncEngineCount = 40;
            unifiedAddressing = 41;
            memoryBusWidth = 37;
            l2CacheSize = 38;
            persistingL2CacheMaxSize = 108;
            maxThreadsPerMultiProcessor = 39;
            streamPrioritiesSupported = 78;
            globalL1CacheSupported = 79;
            localL1CacheSupported = 80;
            sharedMemPerMultiprocessor = 81;
            regsPerMultiprocessor = 82;
            managedMemory = 83;
            isMultiGpuBoard = 84;
            multiGpuBoardGroupID = 85;
            hostNativeAtomicSupported = 86;
            pageableMemoryAccess = 88;
            concurrentManagedAccess = 89;
            computePreemptionSupported = 90;
            canUseHostPointerForRegisteredMem = 91;
            cooperativeLaunch = 95;
            sharedMemPerBlockOptin = 97;
            pageableMemoryAccessUsesHostPageTables = 100;
            directManagedMemAccessFromHost = 101;
            maxBlocksPerMultiProcessor = 106;
            accessPolicyMaxWindowSize = 109;
            reservedSharedMemPerBlock = 111;
            hostRegisterSupported = 99;
            sparseCudaArraySupported = 112;
            hostRegisterReadOnlySupported = 113;
            timelineSemaphoreInteropSupported = 114;
            memoryPoolsSupported = 115;
            gpuDirectRDMASupported = 116;
            gpuDirectRDMAFlushWritesOptions = 117;
            gpuDirectRDMAWritesOrdering = 118;
            memoryPoolSupportedHandleTypes = 119;
            clusterLaunch = 120;
            deferredMappingCudaArraySupported = 121;
            ipcEventSupported = 125;
            unifiedFunctionPointers = 129;
        }
    };
}

fields! { read, DeviceProperties;
    deviceNumaConfig = 130;
    deviceNumaId = 131;
    mpsEnabled = 133;
    hostNumaId = 134;
}
fields! { read_12, cuda12::DeviceProperties;
    clockRate = 13;
    deviceOverlap = 15;
    kernelExecTimeoutEnabled = 17;
    computeMode = 20;
    memoryClockRate = 36;
    singleToDoublePrecisionPerfRatio = 87;
    cooperativeMultiDeviceLaunch = 96;
}
