//! The sets of models: which networks, how large, how often.
//!
//! The 24 roles are those of one vehicle, each with a network for one CPU core (`host24`); a period
//! is the deadline too. What the same vehicle runs on a GPU is in `edge.rs`.
//!
//! # Invariants
//! 1. Names and seeds are unique, and a model's weights depend on nothing but its own row.
//! 2. On the host no stage took more than 5 ms (median), and the roles together, each charged half
//!    as much again as it took, use about 0.6 of a core (tested).

use super::depth::DepthNet;
use super::efficientnet::EfficientNet;
use super::graph::Graph;
use super::lane::LaneNet;
use super::lstm::Lstm;
use super::mlp::{self, Mlp};
use super::mobilenet::MobileNet;
use super::mobilenet3::MobileNet3;
use super::pillars::{Pillars, Placement};
use super::pose::PoseNet;
use super::recurrent::Gru;
use super::resnet::{Depth, ResNet};
use super::transformer::{Bert, Encoder, Pooling, Vit};
use super::unet::UNet;
use super::yolo::{Growth, Heads, Yolo};

/// A network with its size.
#[derive(Clone, Copy)]
pub(crate) enum Network {
    ResNet(ResNet),
    MobileNet(MobileNet),
    MobileNet3(MobileNet3),
    EfficientNet(EfficientNet),
    UNet(UNet),
    DepthNet(DepthNet),
    LaneNet(LaneNet),
    PoseNet(PoseNet),
    Yolo(Yolo),
    Vit(Vit),
    Bert(Bert),
    Gru(Gru),
    Lstm(Lstm),
    Pillars(Pillars),
    Mlp(Mlp),
    /// The worked example of `mlp.rs`.
    ByHand,
}

impl Network {
    /// Builds the whole network under `name`, its weights from `seed`.
    pub(crate) fn graph(&self, name: &str, seed: u64) -> Graph {
        let mut graph = Graph::new(name, seed);
        let g = &mut graph;
        match self {
            Self::ResNet(net) => net.build(g),
            Self::MobileNet(net) => net.build(g),
            Self::MobileNet3(net) => net.build(g),
            Self::EfficientNet(net) => net.build(g),
            Self::UNet(net) => net.build(g),
            Self::DepthNet(net) => net.build(g),
            Self::LaneNet(net) => net.build(g),
            Self::PoseNet(net) => net.build(g),
            Self::Yolo(net) => net.build(g),
            Self::Vit(net) => net.build(g),
            Self::Bert(net) => net.build(g),
            Self::Gru(net) => net.build(g),
            Self::Lstm(net) => net.build(g),
            Self::Pillars(net) => net.build(g),
            Self::Mlp(net) => net.build(g),
            Self::ByHand => mlp::by_hand(g),
        }
        graph
    }

    /// The architecture and its size, for people.
    pub(crate) fn summary(&self) -> String {
        let image = |size: &[usize; 2]| format!("{}x{}", size[0], size[1]);
        match self {
            Self::ResNet(net) => {
                format!("ResNet-{} {} width {} %", net.depth.layers(), image(&net.size), net.width)
            }
            Self::MobileNet(n) => format!("MobileNetV2 {} width {} %", image(&n.size), n.width),
            Self::MobileNet3(n) => format!("MobileNetV3-Large {}", image(&n.size)),
            Self::EfficientNet(n) => {
                format!("EfficientNet {} width {} % depth {} %", image(&n.size), n.width, n.depth)
            }
            Self::UNet(n) => format!("U-Net {} base {}", image(&n.size), n.channels),
            Self::DepthNet(n) => format!("ResNet-18 depth decoder {}", image(&n.size)),
            Self::LaneNet(n) => format!("ResNet-18 row anchors {}", image(&n.size)),
            Self::PoseNet(n) => format!("ResNet-50 heat maps {}", image(&n.size)),
            Self::Yolo(n) => {
                format!("YOLO {} width {} % depth {} %", image(&n.size), n.width, n.depth)
            }
            Self::Vit(n) => format!("ViT/{} {} {}", n.patch, image(&n.size), n.encoder.summary()),
            Self::Bert(n) => format!("BERT {} tokens {}", n.tokens, n.encoder.summary()),
            Self::Gru(n) => format!("GRU {} steps {} x {}", n.steps, n.layers, n.hidden),
            Self::Lstm(n) => format!("LSTM {} steps {} x {}", n.steps, n.layers, n.hidden),
            Self::Pillars(n) => {
                format!("PointPillars {} {} pillars width {} %", image(&n.grid), n.pillars, n.width)
            }
            Self::Mlp(n) => format!("MLP {} x {}", n.layers, n.hidden),
            Self::ByHand => "2x2 dense layer".to_owned(),
        }
    }
}

impl Encoder {
    fn summary(&self) -> String {
        format!("{} x {} / {} heads", self.layers, self.width, self.heads)
    }
}

/// A network and the nodes after which it is cut into stages.
#[derive(Clone, Copy)]
pub(crate) struct Variant {
    pub network: Network,
    pub cuts: &'static [&'static str],
}

/// One model of a vehicle.
pub(crate) struct Role {
    pub name: &'static str,
    /// Seed of the weights.
    pub seed: u64,
    /// Period and relative deadline.
    pub period_ms: u64,
    /// What one inference took, all stages together: the median of many runs
    /// of ONNX Runtime 1.31.1 with one thread on an AVX-512 server core. A record, not a bound.
    pub host_cost_us: u64,
    pub host: Variant,
}

/// A small network with a known answer.
pub(crate) struct Golden {
    pub name: &'static str,
    pub seed: u64,
    pub variant: Variant,
}

const fn whole(network: Network) -> Variant {
    Variant { network, cuts: &[] }
}

const fn staged(network: Network, cuts: &'static [&'static str]) -> Variant {
    Variant { network, cuts }
}

pub(crate) const fn resnet(
    depth: Depth,
    size: [usize; 2],
    width: usize,
    classes: usize,
) -> Network {
    Network::ResNet(ResNet { depth, size, width, classes })
}

pub(crate) const fn mobilenet(size: [usize; 2], width: usize, classes: usize) -> Network {
    Network::MobileNet(MobileNet { size, width, classes })
}

pub(crate) const fn efficientnet(
    size: [usize; 2],
    width: usize,
    depth: usize,
    classes: usize,
) -> Network {
    Network::EfficientNet(EfficientNet { size, width, depth, classes })
}

pub(crate) const fn unet(size: [usize; 2], channels: usize, classes: usize) -> Network {
    Network::UNet(UNet { size, channels, classes })
}

const fn yolo(size: [usize; 2], width: usize, depth: usize, classes: usize) -> Network {
    let (heads, growth) = (Heads::Joined, Growth::Doubling);
    Network::Yolo(Yolo { size, width, depth, classes, heads, growth })
}

const fn vit(size: [usize; 2], patch: usize, encoder: Encoder, classes: usize) -> Network {
    Network::Vit(Vit { size, patch, encoder, classes, pooling: Pooling::ClassToken })
}

pub(crate) const fn bert(tokens: usize, vocabulary: usize, encoder: Encoder) -> Network {
    Network::Bert(Bert { tokens, vocabulary, positions: 512, encoder })
}

pub(crate) const fn encoder(layers: usize, width: usize, heads: usize) -> Encoder {
    Encoder { layers, width, heads }
}

const fn gru(window: [usize; 2], layers: usize, hidden: usize, outputs: usize) -> Network {
    Network::Gru(Gru { steps: window[0], features: window[1], hidden, layers, outputs })
}

const fn pillars(grid: [usize; 2], pillars: usize, points: usize, width: usize) -> Network {
    let placement = Placement::Scatter;
    Network::Pillars(Pillars { grid, pillars, points, width, classes: 3, placement })
}

pub(crate) const fn controller(
    inputs: usize,
    layers: usize,
    hidden: usize,
    outputs: usize,
) -> Network {
    Network::Mlp(Mlp { inputs, hidden, layers, outputs })
}

/// The roles of `host24`, by period.
pub(crate) const ROLES: [Role; 24] = [
    Role {
        name: "steering_controller",
        seed: 101,
        period_ms: 20,
        host_cost_us: 21,
        host: whole(controller(48, 3, 256, 2)),
    },
    Role {
        name: "speed_controller",
        seed: 102,
        period_ms: 20,
        host_cost_us: 46,
        host: whole(controller(32, 4, 384, 1)),
    },
    Role {
        name: "front_detector",
        seed: 103,
        period_ms: 50,
        host_cost_us: 3210,
        host: whole(yolo([128, 160], 25, 33, 8)),
    },
    Role {
        name: "trajectory_gru",
        seed: 104,
        period_ms: 50,
        host_cost_us: 330,
        host: whole(gru([40, 16], 2, 128, 24)),
    },
    Role {
        name: "radar_pillars",
        seed: 105,
        period_ms: 50,
        host_cost_us: 760,
        host: whole(pillars([48, 48], 200, 8, 25)),
    },
    Role {
        name: "lane_segmenter",
        seed: 106,
        period_ms: 150,
        host_cost_us: 2580,
        host: whole(unet([64, 96], 8, 4)),
    },
    Role {
        name: "lidar_pillars",
        seed: 107,
        period_ms: 150,
        host_cost_us: 2610,
        host: whole(pillars([96, 80], 512, 16, 25)),
    },
    Role {
        name: "traffic_light_classifier",
        seed: 108,
        period_ms: 150,
        host_cost_us: 600,
        host: whole(resnet(Depth::D18, [96, 96], 25, 6)),
    },
    Role {
        name: "traffic_sign_classifier",
        seed: 109,
        period_ms: 150,
        host_cost_us: 1300,
        host: whole(mobilenet([128, 128], 50, 43)),
    },
    Role {
        name: "driver_monitor",
        seed: 110,
        period_ms: 150,
        host_cost_us: 1630,
        host: whole(efficientnet([128, 128], 50, 50, 10)),
    },
    Role {
        name: "rear_detector",
        seed: 111,
        period_ms: 150,
        host_cost_us: 1990,
        host: whole(yolo([96, 96], 25, 33, 4)),
    },
    Role {
        name: "pedestrian_intent",
        seed: 112,
        period_ms: 150,
        host_cost_us: 180,
        host: whole(gru([30, 34], 2, 96, 4)),
    },
    Role {
        name: "suspension_controller",
        seed: 113,
        period_ms: 150,
        host_cost_us: 39,
        host: whole(controller(64, 3, 512, 4)),
    },
    Role {
        name: "gaze_estimator",
        seed: 114,
        period_ms: 300,
        host_cost_us: 840,
        host: whole(vit([64, 96], 16, encoder(4, 128, 4), 3)),
    },
    Role {
        name: "depth_estimator",
        seed: 115,
        period_ms: 300,
        host_cost_us: 13_890,
        host: staged(unet([96, 128], 16, 1), &["down3", "up3", "up1.first"]),
    },
    Role {
        name: "occupant_monitor",
        seed: 116,
        period_ms: 300,
        host_cost_us: 1090,
        host: whole(mobilenet([128, 128], 35, 8)),
    },
    Role {
        name: "surround_classifier",
        seed: 117,
        period_ms: 300,
        host_cost_us: 2950,
        host: whole(resnet(Depth::D18, [96, 96], 50, 20)),
    },
    Role {
        name: "parking_segmenter",
        seed: 118,
        period_ms: 300,
        host_cost_us: 3830,
        host: whole(unet([96, 96], 8, 6)),
    },
    Role {
        name: "scene_classifier",
        seed: 119,
        period_ms: 500,
        host_cost_us: 12_120,
        host: staged(
            resnet(Depth::D50, [144, 144], 50, 365),
            &["layer2.0", "layer3.1", "layer3.5"],
        ),
    },
    Role {
        name: "voice_command_encoder",
        seed: 120,
        period_ms: 500,
        host_cost_us: 1150,
        host: whole(bert(32, 2000, encoder(4, 128, 2))),
    },
    Role {
        name: "map_encoder",
        seed: 121,
        period_ms: 500,
        host_cost_us: 4230,
        host: whole(vit([96, 96], 16, encoder(6, 192, 3), 64)),
    },
    Role {
        name: "road_surface_classifier",
        seed: 122,
        period_ms: 500,
        host_cost_us: 1290,
        host: whole(efficientnet([64, 64], 50, 100, 7)),
    },
    Role {
        name: "engine_sound_monitor",
        seed: 123,
        period_ms: 1000,
        host_cost_us: 480,
        host: whole(resnet(Depth::D18, [64, 128], 25, 12)),
    },
    Role {
        name: "battery_health_gru",
        seed: 124,
        period_ms: 1000,
        host_cost_us: 430,
        host: whole(gru([120, 8], 1, 128, 2)),
    },
];

/// Every architecture small enough to be checked against a slow, independent implementation.
pub(crate) const GOLDEN: [Golden; 13] = [
    Golden { name: "hand_mlp", seed: 301, variant: whole(Network::ByHand) },
    Golden { name: "mlp", seed: 302, variant: whole(controller(16, 2, 32, 4)) },
    Golden { name: "resnet18", seed: 303, variant: whole(resnet(Depth::D18, [32, 32], 25, 10)) },
    Golden {
        name: "resnet50",
        seed: 304,
        variant: staged(resnet(Depth::D50, [64, 64], 25, 10), &["layer2.1", "layer3.2"]),
    },
    Golden { name: "mobilenet_v2", seed: 305, variant: whole(mobilenet([64, 64], 25, 10)) },
    Golden { name: "efficientnet", seed: 306, variant: whole(efficientnet([64, 64], 25, 50, 10)) },
    Golden { name: "unet", seed: 307, variant: staged(unet([32, 48], 8, 3), &["down2", "up2"]) },
    Golden { name: "yolo", seed: 308, variant: whole(yolo([64, 64], 13, 33, 3)) },
    Golden { name: "vit", seed: 309, variant: whole(vit([32, 48], 8, encoder(2, 32, 4), 10)) },
    Golden { name: "bert", seed: 310, variant: whole(bert(16, 100, encoder(2, 32, 4))) },
    Golden { name: "gru", seed: 311, variant: whole(gru([12, 6], 2, 24, 5)) },
    Golden { name: "pillars", seed: 312, variant: whole(pillars([16, 24], 40, 8, 25)) },
    Golden { name: "gru_long", seed: 313, variant: whole(gru([64, 3], 1, 16, 2)) },
];
