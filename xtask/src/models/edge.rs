//! The set `edge24`: what one vehicle runs on a GPU, at the sizes of the papers and of deployments.
//!
//! Every network is one graph without branches and shapes that depend on data, of operators that
//! read nothing from host memory while they run: such a network can be captured once and launched
//! as a whole. None is cut into stages, so the longest of them is the longest blocking.
//!
//! # Invariants
//! 1. Names and seeds are unique, and a model's weights depend on nothing but its own row.
//! 2. A period is within the range of its class (tested), and is the deadline too.

use super::depth::DepthNet;
use super::lane::LaneNet;
use super::lstm::Lstm;
use super::mobilenet3::MobileNet3;
use super::pillars::{Pillars, Placement};
use super::pose::PoseNet;
use super::resnet::Depth;
use super::sets::{Network, bert, efficientnet, encoder, mobilenet, resnet, unet};
use super::transformer::{Encoder, Pooling, Vit};
use super::yolo::{Growth, Heads, Yolo};

/// What a model is for, which says how often it must run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Closes a loop: at least 100 times a second.
    Control,
    /// Sees: 20 to 60 times a second.
    Perception,
    /// Knows: once to five times a second.
    Background,
}

/// The arithmetic inside a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Precision {
    /// 32 bits.
    Single,
    /// 16 bits, but for inputs and outputs.
    Half,
}

/// One model of the vehicle.
pub(crate) struct EdgeRole {
    pub name: &'static str,
    pub seed: u64,
    pub class: Class,
    /// Period and relative deadline.
    pub period_us: u64,
    pub network: Network,
    pub precision: Precision,
    /// Whether its images come as bytes, as from a camera.
    pub bytes: bool,
}

impl EdgeRole {
    const fn single(name: &'static str, seed: u64, network: Network) -> Self {
        let (class, period_us) = (Class::Perception, 50_000);
        let precision = Precision::Single;
        Self { name, seed, class, period_us, network, precision, bytes: false }
    }

    const fn half(self) -> Self {
        Self { precision: Precision::Half, ..self }
    }

    const fn camera(self) -> Self {
        Self { bytes: true, ..self }
    }

    const fn every(self, class: Class, period_us: u64) -> Self {
        Self { class, period_us, ..self }
    }

    const fn control(self, period_us: u64) -> Self {
        self.every(Class::Control, period_us)
    }

    const fn perception(self, period_us: u64) -> Self {
        self.every(Class::Perception, period_us)
    }

    const fn background(self, period_us: u64) -> Self {
        self.every(Class::Background, period_us)
    }
}

const fn yolo(width: usize, depth: usize) -> Network {
    let (size, heads, growth) = ([640, 640], Heads::Apart, Growth::Bounded);
    Network::Yolo(Yolo { size, width, depth, classes: 80, heads, growth })
}

const fn vit(size: [usize; 2], encoder: Encoder, classes: usize) -> Network {
    Network::Vit(Vit { size, patch: 16, encoder, classes, pooling: Pooling::Mean })
}

const fn pillars(grid: [usize; 2], pillars: usize, points: usize) -> Network {
    let placement = Placement::Gather;
    Network::Pillars(Pillars { grid, pillars, points, width: 100, classes: 3, placement })
}

const fn lstm(window: [usize; 2], layers: usize, hidden: usize, outputs: usize) -> Network {
    Network::Lstm(Lstm { steps: window[0], features: window[1], hidden, layers, outputs })
}

const IMAGE: [usize; 2] = [224, 224];
const LANES: LaneNet = LaneNet { size: [320, 1600], columns: 200, rows: 72, lanes: 4 };

/// The models of `edge24`, by class. The controllers look at the last eight samples, 80 ms, as learned
/// controllers do that have to tell a disturbance from noise.
pub(crate) const EDGE_ROLES: [EdgeRole; 24] = [
    EdgeRole::single("steering_controller", 501, lstm([8, 48], 1, 128, 2)).control(10_000),
    EdgeRole::single("speed_controller", 502, lstm([8, 32], 1, 128, 1)).control(10_000),
    EdgeRole::single("suspension_controller", 503, lstm([8, 64], 1, 128, 4)).control(10_000),
    EdgeRole::single("slip_estimator", 504, lstm([8, 12], 1, 128, 4)).control(10_000),
    EdgeRole::single("front_detector", 505, yolo(100, 100)).half().camera().perception(17_900),
    EdgeRole::single("rear_detector", 506, yolo(75, 67)).camera().perception(22_100),
    EdgeRole::single("surround_detector", 507, yolo(100, 100)).half().camera().perception(22_100),
    EdgeRole::single("lane_detector", 508, Network::LaneNet(LANES))
        .half()
        .camera()
        .perception(29_400),
    EdgeRole::single("drivable_segmenter", 509, unet([512, 1024], 32, 4))
        .camera()
        .perception(29_400),
    EdgeRole::single("depth_estimator", 510, Network::DepthNet(DepthNet { size: [384, 1280] }))
        .camera()
        .perception(22_100),
    EdgeRole::single("lidar_pillars", 511, pillars([496, 432], 12_000, 20)).perception(44_100),
    EdgeRole::single("radar_pillars", 512, pillars([320, 320], 4000, 16)).perception(44_100),
    EdgeRole::single("traffic_light_classifier", 513, resnet(Depth::D34, IMAGE, 100, 6))
        .perception(44_100),
    EdgeRole::single(
        "traffic_sign_classifier",
        514,
        Network::MobileNet3(MobileNet3 { size: IMAGE, classes: 43 }),
    )
    .perception(44_100),
    EdgeRole::single("driver_monitor", 515, efficientnet([300, 300], 120, 140, 10))
        .perception(44_100),
    EdgeRole::single("occupant_monitor", 516, mobilenet(IMAGE, 100, 8)).perception(44_100),
    EdgeRole::single("gaze_estimator", 517, vit([384, 384], encoder(12, 384, 6), 3))
        .half()
        .perception(44_100),
    EdgeRole::single(
        "pedestrian_keypoints",
        518,
        Network::PoseNet(PoseNet { size: [384, 288], joints: 17 }),
    )
    .half()
    .perception(44_100),
    EdgeRole::single("vehicle_identity", 519, resnet(Depth::D50, [384, 128], 100, 512))
        .perception(44_100),
    EdgeRole::single("trajectory_predictor", 520, lstm([20, 32], 2, 256, 60)).perception(44_100),
    EdgeRole::single("scene_classifier", 521, resnet(Depth::D101, IMAGE, 100, 365))
        .half()
        .background(214_400),
    EdgeRole::single("voice_command_encoder", 522, bert(128, 30522, encoder(8, 512, 8)))
        .half()
        .background(439_600),
    EdgeRole::single("map_encoder", 523, vit([384, 384], encoder(12, 192, 3), 1000))
        .background(439_600),
    EdgeRole::single("road_surface_classifier", 524, efficientnet([300, 300], 120, 140, 7))
        .background(879_000),
];
