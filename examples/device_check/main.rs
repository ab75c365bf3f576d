//! Is a device right, and how fast is it? Parity of everything that the library computes on it, then the time of every stage on random
//! weights of the shapes of small and large models; one table, and the same as JSON.
//!
//! ```sh
//! cargo run --release --example device_check                                             # the CPU
//! cargo run --release --features cuda --example device_check -- --device cuda --sizes 135M,1B,7B --dtypes f32,bf16
//! cargo run --release --features vulkan --example device_check -- --device vulkan --sizes 135M
//! ```
//!
//! Where burn's LLVM bundle cannot be downloaded, `docs/reference/gpu.md` says how to build for CUDA. `peer.py` beside this file times
//! the same shapes in PyTorch.

mod parity;
mod shapes;
mod timing;

use bayes_lora::atomic_file::write_atomic;
use bayes_lora::compare::machine;
use bayes_lora::number::significant;
use bayes_lora::outputs::{claim_dir, save_or_rescue};
use burn::tensor::{DType, Device};
use clap::{Parser, ValueEnum};
use parity::Agreement;
use serde::Serialize;
use shapes::Size;
use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use timing::Stage;

pub type Outcome<T> = Result<T, Box<dyn Error>>;

#[derive(Clone, Copy, ValueEnum)]
enum Backend {
    Flex,
    Wgpu,
    /// wgpu on a software driver.
    WgpuCpu,
    Vulkan,
    Cuda,
}

impl Backend {
    fn device(self) -> Outcome<Device> {
        match self {
            Self::Flex => Ok(Device::flex()),
            #[cfg(feature = "wgpu")]
            Self::Wgpu => Ok(Device::wgpu(burn::tensor::DeviceKind::DefaultDevice)),
            #[cfg(feature = "wgpu")]
            Self::WgpuCpu => Ok(Device::wgpu(burn::tensor::DeviceKind::Cpu)),
            #[cfg(feature = "vulkan")]
            Self::Vulkan => Ok(Device::vulkan(burn::tensor::DeviceKind::DefaultDevice)),
            #[cfg(feature = "cuda")]
            Self::Cuda => Ok(Device::cuda(0)),
            #[allow(unreachable_patterns, reason = "without a feature its devices cannot be named")]
            other => Err(format!("`{}`: build with the feature of that name", other.name()).into()),
        }
    }

    fn name(self) -> String {
        self.to_possible_value().map_or(String::new(), |value| value.get_name().to_string())
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum Element {
    F32,
    Bf16,
    F16,
}

impl Element {
    fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::Bf16 => DType::BF16,
            Self::F16 => DType::F16,
        }
    }
}

#[derive(Parser)]
#[command(
    about = "Check what a device computes against f64 on the CPU, and time every stage on models of several sizes"
)]
struct Arguments {
    #[arg(long, value_enum, default_value = "flex")]
    device: Backend,
    /// Element types of the weights.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "f32,bf16")]
    dtypes: Vec<Element>,
    /// Shapes to time; none with an empty list.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "tiny")]
    sizes: Vec<Size>,
    /// Items of a batch, of 128 tokens each.
    #[arg(long, default_value_t = 8)]
    batch: usize,
    /// A stage is repeated until it has taken so long, after one run that is not counted.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    #[arg(long, default_value = "target/device_check")]
    out: PathBuf,
}

#[derive(Serialize)]
struct Report {
    device: String,
    machine: String,
    parity: Vec<Agreement>,
    stages: Vec<Stage>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Fails where something that was checked is wrong.
fn run(arguments: &Arguments) -> Outcome<()> {
    claim_dir(&arguments.out, 0)?;
    let device = arguments.device.device()?;
    let mut report =
        Report { device: arguments.device.name(), machine: machine(&device), parity: Vec::new(), stages: Vec::new() };
    println!("{:<6} {:<24} {:>12} {:>10}", "dtype", "what", "error", "bound");
    for element in &arguments.dtypes {
        for agreement in parity::check(&device, element.dtype())? {
            println!("{agreement}");
            report.parity.push(agreement);
        }
        save(arguments, &report)?;
    }
    println!("\n{:<6} {:<6} {:<28} {:>10} {:>10} {:>12}", "size", "dtype", "stage", "seconds", "items/s", "tokens/s");
    for &size in &arguments.sizes {
        for element in &arguments.dtypes {
            let stages = timing::measure(size, (&device, element.dtype()), arguments.batch, arguments.seconds)?;
            report.stages.extend(stages);
            save(arguments, &report)?;
        }
    }
    let wrong: Vec<&Agreement> = report.parity.iter().filter(|agreement| !agreement.holds).collect();
    println!(
        "\n{} of {} agreements hold; wrote {}",
        report.parity.len() - wrong.len(),
        report.parity.len(),
        file(arguments).display()
    );
    match &wrong[..] {
        [] => Ok(()),
        wrong => {
            let each = wrong.iter().map(|agreement| format!("{} ({})", agreement.what, significant(agreement.error)));
            Err(format!("wrong: {}", each.collect::<Vec<_>>().join(", ")).into())
        }
    }
}

fn file(arguments: &Arguments) -> PathBuf {
    arguments.out.join("device_check.json")
}

/// After every part: a device that stops later leaves what was seen.
fn save(arguments: &Arguments, report: &Report) -> Outcome<()> {
    let json = serde_json::to_vec_pretty(report)?;
    Ok(save_or_rescue(file(arguments), |path| write_atomic(path, &json))?)
}
