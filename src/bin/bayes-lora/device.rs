//! Names of devices, as far as the program was built with them.

use burn::tensor::Device;
#[cfg(any(feature = "wgpu", feature = "vulkan"))]
use burn::tensor::DeviceKind;
use clap::ValueEnum;
use std::error::Error;

#[derive(Clone, Copy, ValueEnum)]
pub enum DeviceName {
    /// The processor
    Flex,
    /// A graphics processor through wgpu (feature `wgpu`)
    Wgpu,
    /// Through Vulkan (feature `vulkan`)
    Vulkan,
    /// NVIDIA's (feature `cuda`)
    Cuda,
}

impl DeviceName {
    pub fn open(self) -> Result<Device, Box<dyn Error>> {
        match self {
            #[cfg(feature = "flex")]
            Self::Flex => Ok(Device::flex()),
            #[cfg(feature = "wgpu")]
            Self::Wgpu => Ok(Device::wgpu(DeviceKind::DefaultDevice)),
            #[cfg(feature = "vulkan")]
            Self::Vulkan => Ok(Device::vulkan(DeviceKind::DefaultDevice)),
            #[cfg(feature = "cuda")]
            Self::Cuda => Ok(Device::cuda(0)),
            #[allow(unreachable_patterns, reason = "with all features every device can be opened")]
            other => {
                let name = other.to_possible_value().map_or(String::new(), |value| value.get_name().to_string());
                Err(format!("device `{name}`: this program was built without the feature of that name").into())
            }
        }
    }
}
